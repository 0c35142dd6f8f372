//! What is wrong with a token, all of it and in words, for the person who sets up an issuer.
//!
//! Owns: the explanations; the rules are those of the door (`token.rs`, `claims.rs`, `authenticate.rs`).
//! Must never: make a `Caller`, or say anything of a token's text, subject or patient. What it may show: the header's
//! `alg`, `typ` and `kid`, `iss`, `aud`, `amr`, `acr`, times, the client, and the names of claims.
//! Look next: `authenticate.rs`, whose checks these are; `cli::doctor`, which prints them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::authenticate::signature_fits;
use super::binding::Binding;
use super::claims::{self, FOREIGN};
use super::clients::{NO_PURPOSE, Standing, Visitor};
use super::introspected::is_opaque;
use super::issuer::{Algorithm, Issuer};
use super::keys::KeySet;
use super::refusal::IdentityRefusal;
use super::strict;
use super::token::{REFUSED_PARAMETERS, check_type, read_key_id, split};
use crate::limits;

/// What a finding means for the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The door refuses the token for it.
    Refused,
    /// It is let in, but with less than one may expect, or only together with something else.
    Note,
}

/// One thing about a token that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable: for what is refused, the code of [`IdentityRefusal`].
    pub code: &'static str,
    /// Whether the token is refused for it.
    pub weight: Weight,
    /// What is so: one line, lower case. Text of the token is in it; escape it for a terminal.
    pub explanation: String,
    /// What to do about it: one line.
    pub hint: String,
}

/// An issuer that is configured, with its keys where they could be had.
#[derive(Clone, Copy, Debug)]
pub struct Trusted<'i> {
    /// Its settings.
    pub issuer: &'i Issuer,
    /// Its keys.
    pub keys: Option<&'i KeySet>,
}

/// Everything that is to be said about a token (a JWS) at this time, in the order of the door's checks. Nothing
/// [`Weight::Refused`] is in it exactly when the door would let the token in, given what it is bound to.
///
/// An unknown issuer's token is judged by the settings of the only issuer there is, or of the one whose URL is nearly
/// the same.
#[must_use]
pub fn diagnose(token: &str, trusted: &[Trusted<'_>], now: Timestamp) -> Vec<Finding> {
    let mut found = Findings::default();
    if token.len() > limits::TOKEN_BYTES_MAX {
        let (length, max) = (token.len(), limits::TOKEN_BYTES_MAX);
        found.refuse(
            &IdentityRefusal::TokenTooLarge,
            format!("the token has {length} bytes, and at most {max} are read"),
            "leave claims out at the issuer: groups, pictures, entitlements of other systems",
        );
        return found.0;
    }
    let Ok((header, payload)) = split(token) else {
        found.refuse(
            &IdentityRefusal::NotCompact,
            form(token),
            "ask the issuer for access tokens as signed JWTs (RFC 9068)",
        );
        return found.0;
    };
    let header = found.header(header);
    let decoded = URL_SAFE_NO_PAD.decode(payload).ok();
    let Some(payload) = decoded.and_then(|bytes| strict::object(&bytes, limits::TOKEN_JSON_DEPTH_MAX)) else {
        found.refuse(
            &IdentityRefusal::PayloadMalformed,
            "the token's claims are not one JSON object without duplicate members".to_owned(),
            "this is a fault of the issuer",
        );
        return found.0;
    };
    let known = found.issuer(&payload, trusted);
    if let Some(known) = known {
        found.signature(token, &header, known);
    }
    found.forms(&payload);
    found.window(&payload, now);
    found.binding(&payload);
    if let Some(known) = known {
        found.judge(&payload, known.issuer, now);
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

/// What the header says, as far as it can be read.
#[derive(Default)]
struct Header {
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
}

impl Findings {
    fn refuse(&mut self, refusal: &IdentityRefusal, explanation: String, hint: impl Into<String>) {
        let (code, weight) = (refusal.code(), Weight::Refused);
        self.0.push(Finding { code, weight, explanation, hint: hint.into() });
    }

    fn note(&mut self, code: &'static str, explanation: String, hint: impl Into<String>) {
        self.0.push(Finding { code, weight: Weight::Note, explanation, hint: hint.into() });
    }

    fn header(&mut self, part: &str) -> Header {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok();
        let bytes = bytes.filter(|bytes| bytes.len() <= limits::TOKEN_HEADER_BYTES_MAX);
        let Some(header) = bytes.and_then(|bytes| strict::object(&bytes, limits::TOKEN_JSON_DEPTH_MAX))
        else {
            let what = "the token's header is not one JSON object of bounded size without duplicate members";
            self.refuse(&IdentityRefusal::HeaderMalformed, what.to_owned(), "this is a fault of the issuer");
            return Header::default();
        };
        self.parameters(&header);
        let key_id = read_key_id(&header).ok();
        if key_id.is_none() {
            self.refuse(
                &IdentityRefusal::KeyIdRefused,
                "the header names no key (`kid`), or not in an acceptable form".to_owned(),
                "have the issuer set `kid` to the id of a key in its key set",
            );
        }
        Header { algorithm: self.algorithm(&header), key_id }
    }

    fn parameters(&mut self, header: &Map<String, Value>) {
        let refused: Vec<&str> =
            REFUSED_PARAMETERS.into_iter().filter(|name| header.contains_key(*name)).collect();
        if !refused.is_empty() {
            self.refuse(
                &IdentityRefusal::HeaderParameterRefused,
                format!(
                    "the header has {}, which changes what a token means or brings its own key",
                    refused.join(", ")
                ),
                "switch that off at the issuer; keys come from its key set only",
            );
        }
        if check_type(header.get("typ")).is_err() {
            self.refuse(
                &IdentityRefusal::TypeRefused,
                format!("`typ` is {}, and must be `at+jwt` or `JWT`", shown(header.get("typ"))),
                "send the access token, not an ID, refresh or logout token; have the issuer set `typ` (RFC 9068)",
            );
        }
    }

    fn algorithm(&mut self, header: &Map<String, Value>) -> Option<Algorithm> {
        let known = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
        if known.is_none() {
            self.refuse(
                &IdentityRefusal::AlgorithmRefused,
                format!(
                    "`alg` is {}: no signature with a public key that is known here",
                    shown(header.get("alg"))
                ),
                "have the issuer sign access tokens with RS256, PS256, ES256 or EdDSA",
            );
        }
        known
    }

    /// The issuer by whose settings the token is to be judged.
    fn issuer<'t>(&mut self, payload: &Map<String, Value>, trusted: &[Trusted<'t>]) -> Option<Trusted<'t>> {
        let claimed = payload.get("iss").and_then(Value::as_str);
        let known = trusted.iter().find(|known| Some(known.issuer.url()) == claimed);
        if known.is_some() {
            return known.copied();
        }
        // A token without `iss` is reported with the other claims.
        let nearly =
            |known: &&Trusted<'_>| claimed.is_some_and(|url| differs_little(url, known.issuer.url()));
        let near = trusted.iter().find(nearly);
        if claimed.is_some() {
            let configured = listed(trusted.iter().map(|known| known.issuer.url()));
            let hint = match near {
                Some(near) => format!(
                    "the two differ only in case or in the slash at the end: write `url` exactly as the token has it, not `{}`",
                    near.issuer.url()
                ),
                None => {
                    "take the token from a configured issuer, or add an `[[issuer]]` with exactly this `url`"
                        .to_owned()
                }
            };
            self.refuse(
                &IdentityRefusal::IssuerUnknown,
                format!("the issuer (`iss`) is {}; configured: {configured}", shown(payload.get("iss"))),
                hint,
            );
        }
        match (near, trusted) {
            (Some(near), _) => Some(*near),
            (None, [only]) => Some(*only),
            (None, _) => None,
        }
    }

    fn signature(&mut self, token: &str, header: &Header, known: Trusted<'_>) {
        let allowed = known.issuer.algorithms();
        if let Some(algorithm) = header.algorithm.filter(|algorithm| !allowed.contains(algorithm)) {
            let names = listed(allowed.iter().map(|algorithm| algorithm.name()));
            self.refuse(
                &IdentityRefusal::AlgorithmRefused,
                format!(
                    "the token is signed with {}; `algorithms` of this issuer: {names}",
                    algorithm.name()
                ),
                "add the algorithm to `algorithms`, or have the issuer sign with one of those",
            );
        }
        let Some(keys) = known.keys else {
            self.refuse(
                &IdentityRefusal::KeysUnavailable,
                "the signature could not be checked: the issuer's keys could not be fetched".to_owned(),
                "mend what is said about this issuer's keys first",
            );
            return;
        };
        let Some(key_id) = &header.key_id else { return };
        let Some(key) = keys.key(key_id) else {
            self.refuse(
                &IdentityRefusal::KeyUnknown,
                format!(
                    "no usable key of the issuer has the token's `kid` {} ({} usable)",
                    quoted(key_id),
                    keys.len()
                ),
                "is the token from this issuer and realm, and newer than its last change of keys? see what is said of each key",
            );
            return;
        };
        match header.algorithm {
            Some(algorithm) if algorithm != key.algorithm() => self.refuse(
                &IdentityRefusal::KeyMismatch,
                format!(
                    "the token is signed with {}, and its key is for {}",
                    algorithm.name(),
                    key.algorithm().name()
                ),
                "give each key an `alg` in the key set, or list the algorithm in use first in `algorithms`",
            ),
            Some(_) if !signature_fits(token, key) => self.refuse(
                &IdentityRefusal::SignatureInvalid,
                "the signature is not the one of the key that the token names".to_owned(),
                "was the token changed, cut off or copied in part? else the issuer reuses a `kid` for another key",
            ),
            Some(_) | None => {}
        }
    }

    /// Claims that are missing or malformed.
    fn forms(&mut self, payload: &Map<String, Value>) {
        for fault in claims::faults(payload) {
            let hint = match &fault {
                IdentityRefusal::ClaimMissing { claim } => {
                    format!("have the issuer put `{claim}` into access tokens (RFC 9068 section 2.2)")
                }
                IdentityRefusal::OtherTokenKind => {
                    "send the access token, not an ID, refresh or logout token".to_owned()
                }
                IdentityRefusal::SenderConstrained => {
                    "`cnf` may hold `x5t#S256` (RFC 8705) and `jkt` (RFC 9449) and nothing else".to_owned()
                }
                _ => "have the issuer send it with the type and form of its specification".to_owned(),
            };
            let explanation = match &fault {
                IdentityRefusal::OtherTokenKind => other_kind(payload),
                _ => fault.to_string(),
            };
            self.refuse(&fault, explanation, hint);
        }
    }

    fn window(&mut self, payload: &Map<String, Value>, now: Timestamp) {
        let time = |claim| claims::seconds(payload, claim).ok().flatten();
        let (issued_at, not_before, expires_at) = (time("iat"), time("nbf"), time("exp"));
        let (now, leeway) = (now.as_second(), limits::TOKEN_LEEWAY_SECONDS);
        let clocks = "compare the clocks of the issuer and of this machine";
        if let Some(end) = expires_at.filter(|end| now >= end.saturating_add(leeway)) {
            self.refuse(
                &IdentityRefusal::Expired,
                format!("the token expired {} ago", span(now.saturating_sub(end))),
                "take a fresh token; if it is fresh, compare the clocks of the issuer and of this machine",
            );
        }
        if let Some(start) = issued_at.filter(|start| *start > now.saturating_add(leeway)) {
            let early = span(start.saturating_sub(now));
            self.refuse(
                &IdentityRefusal::IssuedInFuture,
                format!("`iat` lies {early} in the future"),
                clocks,
            );
        }
        if let Some(start) = not_before.filter(|start| *start > now.saturating_add(leeway)) {
            let early = span(start.saturating_sub(now));
            self.refuse(
                &IdentityRefusal::NotYetValid,
                format!("`nbf`: not valid for another {early}"),
                clocks,
            );
        }
        if let (Some(start), Some(end)) = (issued_at, expires_at) {
            let (lifetime, max) = (end.saturating_sub(start), limits::TOKEN_LIFETIME_SECONDS_MAX);
            if !(1..=max).contains(&lifetime) {
                let (lifetime, max) = (span(lifetime), span(max));
                self.refuse(
                    &IdentityRefusal::LifetimeRefused,
                    format!("the token lives for {lifetime}; more than 0 and at most {max} is accepted"),
                    "set a shorter lifetime of access tokens at the issuer; refresh tokens carry on from there",
                );
            }
        }
    }

    fn binding(&mut self, payload: &Map<String, Value>) {
        let binding = Binding::read(payload).unwrap_or(Binding::NONE);
        if binding.by_certificate() {
            self.note(
                "token-bound-to-certificate",
                "the token is bound to a client certificate (mTLS)".to_owned(),
                "it counts only over connections with that certificate: `listen.client_ca` must be set",
            );
        }
        if binding.by_key() {
            self.note(
                "token-bound-to-key",
                "the token is bound to a key (DPoP)".to_owned(),
                "it counts only under the scheme `DPoP`, with a proof in each request",
            );
        }
    }

    /// What depends on the issuer's settings.
    fn judge(&mut self, payload: &Map<String, Value>, issuer: &Issuer, now: Timestamp) {
        if let Ok(Some(audience)) = claims::list(payload.get("aud"), "aud")
            && !audience.iter().any(|one| one == issuer.audience())
        {
            self.refuse(
                &IdentityRefusal::AudienceRefused,
                format!(
                    "the token is for {} (`aud`); `audience` of this issuer is `{}`",
                    listed(audience.iter().map(String::as_str)),
                    issuer.audience()
                ),
                "have the issuer add this audience to access tokens of this API; compared to the letter",
            );
        }
        let application = claims::application(payload).ok().flatten();
        let subject = claims::name(payload, "sub").ok().flatten().unwrap_or_default();
        let standing = issuer.standing(application.as_deref());
        let binding = Binding::read(payload).unwrap_or(Binding::NONE);
        let by_key = standing.registered().is_some_and(|client| client.stands_by_key(&subject, binding));
        self.second_factor(payload, issuer, by_key);
        self.login_time(payload, issuer, by_key, now);
        self.roles(payload, issuer);
        self.client(payload, issuer, &standing, (&subject, application.as_deref()), now);
        if !payload.contains_key("sid") && !by_key {
            self.note(
                "token-without-session",
                "the token has no `sid`: each refreshed token is a session of its own".to_owned(),
                "have the issuer put `sid` into access tokens, so that one login is one session",
            );
        }
    }

    fn second_factor(&mut self, payload: &Map<String, Value>, issuer: &Issuer, by_key: bool) {
        // Malformed claims were reported; guessing at them would mislead.
        let (Ok(methods), Ok(class)) = (claims::methods(payload), claims::name(payload, "acr")) else {
            return;
        };
        if by_key || issuer.proves_mfa(&methods, class.as_deref()) {
            return;
        }
        let has = match (methods.is_empty(), &class) {
            (true, None) => "it has neither `amr` nor `acr`".to_owned(),
            (false, None) => format!("`amr` is {}, and there is no `acr`", texts(&methods)),
            (true, Some(class)) => format!("`acr` is {}, and there is no `amr`", quoted(class)),
            (false, Some(class)) => format!("`amr` is {} and `acr` is {}", texts(&methods), quoted(class)),
        };
        self.refuse(
            &IdentityRefusal::MfaMissing(issuer.step_up()),
            format!("the token shows no second factor: {has}; demanded is {}", demanded(issuer)),
            "have the issuer ask for a second factor and put `amr` or `acr` into access tokens; or name what it sends in `[issuer.mfa]`, if that is one",
        );
    }

    fn login_time(&mut self, payload: &Map<String, Value>, issuer: &Issuer, by_key: bool, now: Timestamp) {
        let Ok(claimed) = claims::seconds(payload, "auth_time") else { return };
        let fallback = || claims::seconds(payload, "iat").ok().flatten().filter(|_| by_key);
        let (refusal, now) = (IdentityRefusal::MfaTooOld(issuer.step_up()), now.as_second());
        let Some(at) = claimed.or_else(fallback) else {
            if !by_key {
                self.refuse(
                    &refusal,
                    "the token does not say when the person logged in: no `auth_time`".to_owned(),
                    "have the issuer put `auth_time` into access tokens; `iat` does not count, since a fresh token may come from an old login",
                );
            }
            return;
        };
        let max = issuer.mfa_max_age_seconds();
        if at > now.saturating_add(limits::TOKEN_LEEWAY_SECONDS) {
            self.refuse(
                &IdentityRefusal::ClaimMalformed { claim: "auth_time" },
                format!("`auth_time` lies {} in the future", span(at.saturating_sub(now))),
                "compare the clocks of the issuer and of this machine",
            );
        } else if now.saturating_sub(at) > max {
            self.refuse(
                &refusal,
                format!("the login is {} old; `max_age` is {}", span(now.saturating_sub(at)), span(max)),
                "log in anew; if people are asked too often, `max_age` in `[issuer.mfa]` is what decides",
            );
        }
    }

    fn roles(&mut self, payload: &Map<String, Value>, issuer: &Issuer) {
        let (pointer, whole) = (issuer.roles_claim(), Value::Object(payload.clone()));
        let fault = IdentityRefusal::ClaimMalformed { claim: "roles" };
        match claims::roles(&whole, issuer) {
            Err(_) => self.refuse(
                &fault,
                format!("what stands at `{pointer}` (`roles_claim`) is not a string or a list of strings"),
                "point `roles_claim` at the list of role names",
            ),
            Ok(roles) if roles.is_empty() => {
                let is_there = whole.pointer(pointer).is_some();
                let what = if is_there { "an empty list stands" } else { "nothing stands" };
                let names = listed(payload.keys().map(String::as_str));
                self.note(
                    "token-without-roles",
                    format!(
                        "{what} at `{pointer}` (`roles_claim`): the caller has no roles; claims there are: {names}"
                    ),
                    "point `roles_claim` at the claim with the roles, or have the issuer add it",
                );
            }
            Ok(_) => {}
        }
        if claims::purposes(&whole, issuer).is_err() {
            let pointer = issuer.purpose_claim().unwrap_or_default();
            self.refuse(
                &IdentityRefusal::ClaimMalformed { claim: "purpose" },
                format!("what stands at `{pointer}` (`purpose_claim`) is not a string or a list of strings"),
                "point `purpose_claim` at the purposes of use",
            );
        }
    }

    fn client(
        &mut self,
        payload: &Map<String, Value>,
        issuer: &Issuer,
        standing: &Standing,
        (subject, application): (&str, Option<&str>),
        now: Timestamp,
    ) {
        let whole = Value::Object(payload.clone());
        let roles = standing.roles(claims::roles(&whole, issuer).unwrap_or_default());
        let purposes = standing.purposes(claims::purposes(&whole, issuer).unwrap_or_default());
        let visitor = Visitor {
            subject,
            application,
            fhir_user: payload.get("fhirUser").and_then(Value::as_str),
            roles: &roles,
            purposes: &purposes,
            binding: Binding::read(payload).unwrap_or(Binding::NONE),
        };
        let Err(refusal) = standing.admits(&visitor, now) else { return };
        // A program's id is its subject, and subjects are not shown.
        let named = match application {
            None => "it names none: neither `azp` nor `client_id`".to_owned(),
            Some(id) if id == subject => "its own id is the subject".to_owned(),
            Some(id) => quoted(id),
        };
        let offered =
            if purposes.iter().all(|one| one == NO_PURPOSE) { "" } else { ", binding or agreement" };
        self.refuse(
            &IdentityRefusal::Client(refusal),
            format!("{refusal} (client: {named})"),
            format!("compare with the `[[client]]` of this id and issuer: kind, purposes, roles{offered}"),
        );
    }
}

fn form(token: &str) -> String {
    match token.split('.').count() {
        5 => "the token is encrypted (a JWE): only signed ones can be read".to_owned(),
        3 => "the token has three parts, but not all of them are base64url; it may be cut off or have quotes or a line break in it"
            .to_owned(),
        _ if is_opaque(token) => "the token is opaque: it is no JWT and says nothing by itself".to_owned(),
        parts => format!("the file does not hold a JWT: {parts} parts between dots, not three"),
    }
}

fn other_kind(payload: &Map<String, Value>) -> String {
    let giveaways =
        FOREIGN.into_iter().chain(["typ", "token_use"]).filter(|claim| payload.contains_key(*claim));
    format!("the token is not an access token: it has {}", listed(giveaways))
}

fn differs_little(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

fn demanded(issuer: &Issuer) -> String {
    let list = |values: Vec<&str>| (!values.is_empty()).then(|| listed(values.into_iter()));
    let methods = list(issuer.amr_values().collect()).map(|values| format!("one of {values} in `amr`"));
    let classes = list(issuer.acr_values().collect()).map(|values| format!("one of {values} as `acr`"));
    methods.into_iter().chain(classes).collect::<Vec<_>>().join(", or ")
}

/// A header or claim value that may be shown.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(_) => "not a string".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(limits::SHOWN_IN_WORDS_CHARS_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("`{short}{more}`")
}

fn texts(values: &std::collections::BTreeSet<String>) -> String {
    listed(values.iter().map(String::as_str))
}

/// Names in one line, bounded.
fn listed<'v>(values: impl Iterator<Item = &'v str>) -> String {
    let all: Vec<String> = values.map(quoted).collect();
    let more = all.len().saturating_sub(limits::LISTED_IN_WORDS_MAX);
    let shown = all.into_iter().take(limits::LISTED_IN_WORDS_MAX).collect::<Vec<_>>().join(", ");
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown,
        (false, more) => format!("{shown} and {more} more"),
    }
}

/// Seconds as people say them: the two largest units.
fn span(seconds: i64) -> String {
    let units = [("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut rest = seconds.unsigned_abs();
    let mut words = Vec::new();
    for (unit, length) in units {
        let count = rest / length;
        rest %= length;
        if count > 0 && words.len() < 2 {
            words.push(format!("{count} {unit}"));
        }
    }
    let sign = if seconds < 0 { "-" } else { "" };
    if words.is_empty() { "0 s".to_owned() } else { format!("{sign}{}", words.join(" ")) }
}
