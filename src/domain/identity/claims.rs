//! The claims of a token, each with its type, or a refusal that names the claim.
//!
//! Owns: what a well-formed claim is. A claim of the wrong type is never taken as absent (T-178; that
//! mistake is CVE-2026-25537).
//! Must never: decide whether a claim is good enough; `authenticate.rs` does.
//! Look next: `authenticate.rs`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::binding::Binding;
use super::caller::{Actor, Window};
use super::issuer::Issuer;
use super::refusal::IdentityRefusal;
use crate::limits;

type Payload = Map<String, Value>;
type Read<T> = Result<T, IdentityRefusal>;

/// Registered claims, typed.
pub(super) struct Claims {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: Vec<String>,
    pub(super) window: Window,
    pub(super) token_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) application: Option<String>,
    pub(super) fhir_user: Option<String>,
    pub(super) launch_patient: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) methods: BTreeSet<String>,
    pub(super) acr: Option<String>,
    pub(super) auth_time: Option<i64>,
    pub(super) binding: Binding,
    pub(super) actors: Vec<Actor>,
}

impl Claims {
    /// Reads every claim we know.
    ///
    /// # Errors
    /// The first claim that is missing or has the wrong type or form; or a token of another kind.
    pub(super) fn read(payload: &Payload) -> Read<Self> {
        refuse_other_kinds(payload)?;
        Ok(Self {
            issuer: need(name(payload, "iss")?, "iss")?,
            subject: need(name(payload, "sub")?, "sub")?,
            audience: need(list(payload.get("aud"), "aud")?, "aud")?,
            window: Window {
                issued_at: need(seconds(payload, "iat")?, "iat")?,
                not_before: seconds(payload, "nbf")?,
                expires_at: need(seconds(payload, "exp")?, "exp")?,
            },
            token_id: name(payload, "jti")?,
            session_id: name(payload, "sid")?,
            application: application(payload)?,
            fhir_user: name(payload, "fhirUser")?.map(|user| fhir_user(&user)).transpose()?,
            launch_patient: launch_patient(payload)?,
            scopes: scopes(payload)?,
            methods: methods(payload)?,
            acr: name(payload, "acr")?,
            auth_time: seconds(payload, "auth_time")?,
            binding: Binding::read(payload)?,
            actors: actors(payload)?,
        })
    }
}

/// Everything that is wrong with the form of the claims, where [`Claims::read`] stops at the first fault.
pub(super) fn faults(payload: &Payload) -> Vec<IdentityRefusal> {
    fn needed<T>(read: Read<Option<T>>, claim: &'static str) -> Read<()> {
        need(read?, claim).map(drop)
    }
    let all = [
        refuse_other_kinds(payload),
        needed(name(payload, "iss"), "iss"),
        needed(name(payload, "sub"), "sub"),
        needed(list(payload.get("aud"), "aud"), "aud"),
        needed(seconds(payload, "iat"), "iat"),
        seconds(payload, "nbf").map(drop),
        needed(seconds(payload, "exp"), "exp"),
        name(payload, "jti").map(drop),
        name(payload, "sid").map(drop),
        application(payload).map(drop),
        name(payload, "fhirUser").and_then(|user| user.map(|user| fhir_user(&user)).transpose()).map(drop),
        launch_patient(payload).map(drop),
        scopes(payload).map(drop),
        methods(payload).map(drop),
        name(payload, "acr").map(drop),
        seconds(payload, "auth_time").map(drop),
        Binding::read(payload).map(drop),
        actors(payload).map(drop),
    ];
    all.into_iter().filter_map(Result::err).collect()
}

/// Roles at the issuer's pointer, renamed. None at all is a caller without roles.
pub(super) fn roles(payload: &Value, issuer: &Issuer) -> Read<BTreeSet<String>> {
    let values = list(payload.pointer(issuer.roles_claim()), "roles")?.unwrap_or_default();
    Ok(values.into_iter().map(|value| issuer.role(value)).collect())
}

/// Purposes of use at the issuer's pointer.
pub(super) fn purposes(payload: &Value, issuer: &Issuer) -> Read<Vec<String>> {
    let Some(pointer) = issuer.purpose_claim() else { return Ok(Vec::new()) };
    Ok(list(payload.pointer(pointer), "purpose")?.unwrap_or_default())
}

/// Claims that only other kinds of tokens have.
pub(super) const FOREIGN: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// RFC 8725 section 3.11 and T-176: one kind of JWT must not pass for another. `typ` is checked before;
/// with the plain `JWT` these claims give other kinds away: ID tokens (`nonce`, `at_hash`, `c_hash`),
/// logout tokens and security events (`events`), and the kind some issuers write down themselves
/// (Keycloak's `typ`, Cognito's `token_use`).
fn refuse_other_kinds(payload: &Payload) -> Read<()> {
    let says = |claim: &str, value: &str| payload.get(claim).is_none_or(|given| given == value);
    if FOREIGN.iter().any(|claim| payload.contains_key(*claim))
        || !says("typ", "Bearer")
        || !says("token_use", "access")
    {
        return Err(IdentityRefusal::OtherTokenKind);
    }
    Ok(())
}

fn need<T>(value: Option<T>, claim: &'static str) -> Read<T> {
    value.ok_or(IdentityRefusal::ClaimMissing { claim })
}

/// An identifier: a non-empty string of bounded length without control characters.
pub(super) fn name(payload: &Payload, claim: &'static str) -> Read<Option<String>> {
    match payload.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if is_name(text) => Ok(Some(text.clone())),
        Some(_) => Err(IdentityRefusal::ClaimMalformed { claim }),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::TOKEN_NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// NumericDate (RFC 7519 section 2), whole seconds. Fractions are legal there but no issuer we know sends
/// them, and rounding is a decision; so they are refused with everything else.
pub(super) fn seconds(payload: &Payload, claim: &'static str) -> Read<Option<i64>> {
    let Some(value) = payload.get(claim) else { return Ok(None) };
    match value.as_i64() {
        Some(seconds) if (0..=limits::TOKEN_TIME_SECONDS_MAX).contains(&seconds) => Ok(Some(seconds)),
        Some(_) | None => Err(IdentityRefusal::ClaimMalformed { claim }),
    }
}

/// A string, or an array of strings.
pub(super) fn list(value: Option<&Value>, claim: &'static str) -> Read<Option<Vec<String>>> {
    let malformed = IdentityRefusal::ClaimMalformed { claim };
    let items = match value {
        None => return Ok(None),
        Some(Value::Array(items)) if items.len() <= limits::TOKEN_LIST_MAX => items.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(_) => return Err(malformed),
    };
    let names: Option<Vec<String>> =
        items.iter().map(|item| item.as_str().filter(|text| is_name(text)).map(str::to_owned)).collect();
    names.map(Some).ok_or(malformed)
}

/// RFC 8176: `amr` is an array of strings; a single string is refused, not guessed at.
pub(super) fn methods(payload: &Payload) -> Read<BTreeSet<String>> {
    match payload.get("amr") {
        Some(Value::String(_)) => Err(IdentityRefusal::ClaimMalformed { claim: "amr" }),
        other => Ok(list(other, "amr")?.unwrap_or_default().into_iter().collect()),
    }
}

/// `azp` (OpenID Connect) or `client_id` (RFC 9068); where both stand, they must agree.
pub(super) fn application(payload: &Payload) -> Read<Option<String>> {
    match (name(payload, "azp")?, name(payload, "client_id")?) {
        (Some(azp), Some(client)) if azp != client => {
            Err(IdentityRefusal::ClaimMalformed { claim: "client_id" })
        }
        (azp, client) => Ok(azp.or(client)),
    }
}

/// `scope` (RFC 9068) or `scp` (its name at some issuers), a space separated string or an array. Scopes
/// narrow, so overlooking them would widen: both at once, or a malformed one, is refused.
fn scopes(payload: &Payload) -> Read<Vec<String>> {
    let claim = if payload.contains_key("scp") { "scp" } else { "scope" };
    let malformed = IdentityRefusal::ClaimMalformed { claim };
    if claim == "scp" && payload.contains_key("scope") {
        return Err(malformed);
    }
    let scopes: Vec<String> = match payload.get(claim) {
        None => Vec::new(),
        Some(Value::String(text)) => {
            text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
        }
        other => list(other, claim)?.unwrap_or_default(),
    };
    // RFC 6749 section 3.3: scope-token.
    let fits = |scope: &String| scope.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
    let bounded = scopes.len() <= limits::TOKEN_LIST_MAX;
    if bounded && scopes.iter().all(fits) { Ok(scopes) } else { Err(malformed) }
}

/// SMART App Launch 2.2: the URL of a Patient, Practitioner, PractitionerRole, RelatedPerson or Person.
/// Reduced to `Type/id`; a relative reference is taken as it is.
fn fhir_user(url: &str) -> Read<String> {
    let malformed = IdentityRefusal::ClaimMalformed { claim: "fhirUser" };
    let kinds = ["Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"];
    let mut backwards = url.rsplitn(3, '/');
    let (Some(id), Some(kind), base) = (backwards.next(), backwards.next(), backwards.next()) else {
        return Err(malformed);
    };
    let based = base.is_none_or(|base| base.starts_with("https://") || base.starts_with("http://"));
    if based && kinds.contains(&kind) && is_fhir_id(id) { Ok(format!("{kind}/{id}")) } else { Err(malformed) }
}

/// `act` (RFC 8693 section 4.1): who acts for the subject, the present actor first, then those before. Each names
/// at least its `sub`; a claim of another form would leave an actor unrecorded (T-197).
fn actors(payload: &Payload) -> Read<Vec<Actor>> {
    let malformed = IdentityRefusal::ClaimMalformed { claim: "act" };
    let mut actors = Vec::new();
    let mut next = payload.get("act");
    while let Some(value) = next {
        let Some(act) = value.as_object().filter(|_| actors.len() < limits::TOKEN_ACTORS_MAX) else {
            return Err(malformed);
        };
        let text = |member: &'static str| name(act, member).map_err(|_| malformed.clone());
        let subject = text("sub")?.ok_or_else(|| malformed.clone())?;
        actors.push(Actor { issuer: text("iss")?, subject });
        next = act.get("act");
    }
    Ok(actors)
}

fn launch_patient(payload: &Payload) -> Read<Option<String>> {
    match name(payload, "patient")? {
        Some(id) if !is_fhir_id(&id) => Err(IdentityRefusal::ClaimMalformed { claim: "patient" }),
        id => Ok(id),
    }
}

/// FHIR R4 data type `id`.
fn is_fhir_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}
