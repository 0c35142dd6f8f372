//! One trusted issuer: what its tokens must say, and how its claims are read.
//!
//! Owns: the issuer settings, valid by construction, and the list of signature algorithms we know.
//! Must never: know a symmetric algorithm, `none`, or where keys are fetched.
//! Look next: `authenticate.rs`, which applies these; `edge::keyring` for the network side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::clients::{Client, Clients, Standing};
use super::refusal::StepUp;
use crate::limits;

/// A signature algorithm of RFC 7518 or RFC 8037 that an issuer may use. No other can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the registry")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm, preferred first.
    pub(super) const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// By the registered name, letter for letter (T-168).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) fn of_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// What the operator wrote about an issuer (`[[issuer]]`), not yet checked.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    /// Compared with `iss`, character for character.
    pub url: String,
    /// Must be a member of `aud`, character for character.
    pub audience: String,
    /// Registered algorithm names, preferred first.
    pub algorithms: Vec<String>,
    /// JSON pointer (RFC 6901) to the roles.
    pub roles_claim: String,
    /// Claim value to role name; values not named keep their own.
    pub roles: BTreeMap<String, String>,
    /// JSON pointer to the purposes of use.
    pub purpose_claim: Option<String>,
    /// What counts as a second factor.
    pub mfa: MfaSpec,
}

/// What the operator wrote about second factors (`[issuer.mfa]`).
#[derive(Clone, Debug)]
pub struct MfaSpec {
    /// Any one of these in `amr` is evidence (RFC 8176 values, or the issuer's own).
    pub amr: Vec<String>,
    /// Or any one of these as `acr`.
    pub acr: Vec<String>,
    /// Longest time since `auth_time`, in seconds.
    pub max_age_seconds: i64,
}

/// A trusted issuer. Made by `Issuer::new` only, so it is always usable.
#[derive(Clone, Debug)]
pub struct Issuer {
    url: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    roles_claim: String,
    roles: BTreeMap<String, String>,
    purpose_claim: Option<String>,
    mfa_amr: BTreeSet<String>,
    mfa_acr: BTreeSet<String>,
    mfa_max_age_seconds: i64,
    /// The register of clients, if there is one.
    clients: Option<Clients>,
    fingerprint: [u8; 32],
}

impl Issuer {
    /// Checks what the operator wrote.
    ///
    /// # Errors
    /// Every problem at once, each one line that names its key within `[[issuer]]`.
    pub fn new(spec: IssuerSpec) -> Result<Self, Vec<String>> {
        let fingerprint = fingerprint(&spec);
        let mut problems = Vec::new();
        check_url(&spec.url, &mut problems);
        if spec.audience.is_empty() || spec.audience.chars().any(char::is_control) {
            problems.push("audience: must be a non-empty string without control characters".to_owned());
        }
        let algorithms = check_algorithms(&spec.algorithms, &mut problems);
        check_pointer("roles_claim", &spec.roles_claim, &mut problems);
        if let Some(pointer) = &spec.purpose_claim {
            check_pointer("purpose_claim", pointer, &mut problems);
        }
        for (from, to) in &spec.roles {
            if from.is_empty() || to.is_empty() {
                problems.push("roles: neither a claim value nor a role name may be empty".to_owned());
            }
        }
        check_mfa(&spec.mfa, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            url: spec.url,
            audience: spec.audience,
            algorithms,
            roles_claim: spec.roles_claim,
            roles: spec.roles,
            purpose_claim: spec.purpose_claim,
            mfa_amr: spec.mfa.amr.into_iter().collect(),
            mfa_acr: spec.mfa.acr.into_iter().collect(),
            mfa_max_age_seconds: spec.mfa.max_age_seconds,
            clients: None,
            fingerprint,
        })
    }

    /// The same issuer with a register of clients: from now on only those may come (S-003-44).
    #[must_use]
    pub fn with_clients(mut self, clients: impl IntoIterator<Item = Client>) -> Self {
        let clients: Clients =
            clients.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        let mut hash = Context::new(&SHA256);
        hash.update(&self.fingerprint);
        hash.update(format!("{clients:?}").as_bytes());
        self.fingerprint = finish(hash);
        self.clients = Some(clients);
        self
    }

    /// The registered clients; none where every client may come.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    /// How the client with this id stands.
    pub(super) fn standing(&self, application: Option<&str>) -> Standing {
        let Some(clients) = &self.clients else { return Standing::Unasked };
        let known = application.and_then(|id| clients.get(id));
        known.map_or(Standing::Unknown, |client| Standing::Registered(Arc::clone(client)))
    }

    /// The value `iss` must have.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The value `aud` must hold.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Allowed signature algorithms, preferred first.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub(super) fn roles_claim(&self) -> &str {
        &self.roles_claim
    }

    pub(super) fn purpose_claim(&self) -> Option<&str> {
        self.purpose_claim.as_deref()
    }

    /// The role a claim value stands for.
    pub(super) fn role(&self, value: String) -> String {
        self.roles.get(&value).cloned().unwrap_or(value)
    }

    /// Whether these methods or this class show a second factor.
    pub(super) fn proves_mfa(&self, methods: &BTreeSet<String>, acr: Option<&str>) -> bool {
        methods.iter().any(|method| self.mfa_amr.contains(method))
            || acr.is_some_and(|class| self.mfa_acr.contains(class))
    }

    pub(super) fn mfa_max_age_seconds(&self) -> i64 {
        self.mfa_max_age_seconds
    }

    /// Values of `amr` that are evidence of a second factor.
    pub fn amr_values(&self) -> impl Iterator<Item = &str> {
        self.mfa_amr.iter().map(String::as_str)
    }

    /// Values of `acr` that are evidence of a second factor.
    pub fn acr_values(&self) -> impl Iterator<Item = &str> {
        self.mfa_acr.iter().map(String::as_str)
    }

    pub(super) fn step_up(&self) -> StepUp {
        let classes: Vec<&str> = self.mfa_acr.iter().map(String::as_str).collect();
        StepUp { acr_values: classes.join(" "), max_age_seconds: self.mfa_max_age_seconds }
    }

    /// SHA-256 over all settings: a verified token is kept for these settings only.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

fn fingerprint(spec: &IssuerSpec) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    // Debug text quotes and escapes strings, so two different specs never print alike.
    hash.update(format!("{spec:?}").as_bytes());
    finish(hash)
}

fn finish(hash: Context) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    out
}

fn check_url(url: &str, problems: &mut Vec<String>) {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    // `|` separates issuer and subject in a user's id; query and fragment are forbidden by
    // OpenID Connect Discovery section 3.
    let strange =
        |c: char| !c.is_ascii_graphic() || matches!(c, '|' | '?' | '#' | '"' | '\\' | '<' | '>' | '@');
    if host.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) || url.chars().any(strange) {
        problems.push("url: must be an https URL without user, query or fragment".to_owned());
    }
    if url.len() > limits::ISSUER_URL_BYTES_MAX {
        problems.push(format!("url: longer than {} bytes", limits::ISSUER_URL_BYTES_MAX));
    }
}

fn check_algorithms(names: &[String], problems: &mut Vec<String>) -> Vec<Algorithm> {
    if names.is_empty() {
        problems.push("algorithms: at least one is needed".to_owned());
    }
    let mut known = Vec::new();
    for name in names {
        match Algorithm::from_name(name) {
            Some(algorithm) if known.contains(&algorithm) => {
                problems.push(format!("algorithms: `{name}` is given twice"));
            }
            Some(algorithm) => known.push(algorithm),
            None => problems.push(format!(
                "algorithms: `{name}` is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
            )),
        }
    }
    known
}

/// RFC 6901: starts with `/`; `~` only as `~0` or `~1`. The empty pointer would be the whole payload.
fn check_pointer(key: &str, pointer: &str, problems: &mut Vec<String>) {
    let escapes_fit = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !pointer.starts_with('/') || pointer.len() < 2 || !escapes_fit {
        problems.push(format!("{key}: `{pointer}` is not a JSON pointer such as `/roles`"));
    }
}

/// What one knows, or what software guesses, is no second factor by itself.
const FIRST_FACTORS: [&str; 6] = ["pwd", "pin", "kba", "user", "rba", "geo"];

fn check_mfa(mfa: &MfaSpec, problems: &mut Vec<String>) {
    if mfa.amr.is_empty() && mfa.acr.is_empty() {
        problems.push("mfa: needs at least one value in `amr` or `acr`".to_owned());
    }
    for method in &mfa.amr {
        if FIRST_FACTORS.contains(&method.as_str()) {
            problems.push(format!("mfa.amr: `{method}` alone is no second factor"));
        }
    }
    for value in mfa.amr.iter().chain(&mfa.acr) {
        // RFC 6750 section 3: characters allowed in an auth-param without escaping.
        if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\') {
            problems.push("mfa: values are visible ASCII without spaces, quotes and backslashes".to_owned());
        }
    }
    if !(1..=limits::MFA_AGE_SECONDS_MAX).contains(&mfa.max_age_seconds) {
        problems.push(format!("mfa.max_age: must be between 1 and {} seconds", limits::MFA_AGE_SECONDS_MAX));
    }
}
