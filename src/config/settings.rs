//! What the program needs to know, valid by construction: made only from a file that has no problems.
//!
//! Owns: the meaning of each key, its default and the reason for it.
//! Must never: read another file or open a socket; the rooms do, and report what they find.
//! Look next: `app`, which turns these into each room's own settings.

use super::Problem;
use super::care::{Emergency, Relations};
use super::clients::{Dpop, Introspection, Registered};
use super::parameters;
use super::policies::{PolicyTerms, ShadowTerms};
use super::raw::{self, Raw, Text, Texts};
use super::section::{Located, Reader};
use super::witness::Witness;
use crate::domain::audit::{Budget, Keep};
use crate::domain::fhir::search::Registry;
use crate::edge::sessions::{ActivityRule, PostgresSettings};
use crate::edge::trail_index;
use crate::limits;
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address clients reach.
    pub listen: Listen,
    /// Health, readiness and metrics.
    pub operations: Operations,
    /// The base URL clients use, without a trailing slash.
    pub public_base: String,
    /// Whether answers are compressed for clients that ask for it.
    pub compression: bool,
    /// The EMR.
    pub upstream: Upstream,
    /// Who may vouch for people.
    pub issuers: Vec<Issuer>,
    /// How long a session lasts.
    pub session: Session,
    /// The policies directory.
    pub policies: PathBuf,
    /// What a set in it must meet before it is put in force.
    pub policy_terms: PolicyTerms,
    /// A candidate set that is asked beside it.
    pub shadow: Option<ShadowTerms>,
    /// `[relations]`: how callers stand to patients, looked up in the EMR.
    pub relations: Relations,
    /// `[emergency]`: access in an emergency.
    pub emergency: Emergency,
    /// The trail.
    pub audit: Audit,
    /// `[[client]]`; empty: every client of a trusted issuer may come.
    pub clients: Vec<Registered>,
    /// `[dpop]`.
    pub dpop: Dpop,
    /// `[[search_parameter]]` and `[[named_query]]`: what the EMR has beyond R4.
    pub parameters: Registry,
}

/// `[listen]`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where to accept connections.
    pub address: SocketAddr,
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
    /// Verifies client certificates when given.
    pub client_ca: Option<PathBuf>,
}

/// `[operations]`; loopback unless it has a certificate.
#[derive(Debug, Clone)]
pub struct Operations {
    /// Where to answer.
    pub address: SocketAddr,
    /// Certificate chain and private key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whose client certificates may list and end sessions.
    pub client_ca: Option<PathBuf>,
    /// A file whose content is the bearer token that may.
    pub bearer_token_file: Option<PathBuf>,
}

/// `[upstream]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Base URL without a trailing slash; https, or http to loopback.
    pub base_url: String,
    /// Certificate authority of the EMR; the system's when absent.
    pub ca: Option<PathBuf>,
    /// A file whose content is sent as the bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// Client certificate chain and private key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How long an answer may take to begin, and between two pieces of it.
    pub timeout: Duration,
}

/// `[[issuer]]`.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Compared with `iss`, to the letter.
    pub url: String,
    /// Compared with `aud`, to the letter.
    pub audience: String,
    /// Where its keys are; found by discovery when absent.
    pub jwks_uri: Option<String>,
    /// Certificate authority of the issuer; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<String>,
    /// JSON pointer to the roles.
    pub roles_claim: String,
    /// Claim value to role name.
    pub roles: BTreeMap<String, String>,
    /// JSON pointer to the purposes of use.
    pub purpose_claim: Option<String>,
    /// Evidence of a second factor.
    pub mfa: Mfa,
    /// Where opaque tokens are asked about.
    pub introspection: Option<Introspection>,
    /// Whether it sends security events and logout tokens.
    pub events: Option<Events>,
}

/// `[issuer.events]`.
#[derive(Debug, Clone)]
pub struct Events {
    /// Compared with the `aud` of security events.
    pub audience: String,
    /// The same for logout tokens, where it is our client id.
    pub logout_audience: String,
    /// A file whose content the `Authorization` header must be.
    pub authorization_file: Option<PathBuf>,
    /// How long the stream may be without a verification event.
    pub heartbeat: Option<Duration>,
}

/// `[issuer.mfa]`.
#[derive(Debug, Clone)]
pub struct Mfa {
    /// Any one of these in `amr` is evidence.
    pub amr: BTreeSet<String>,
    /// Or any one of these as `acr`.
    pub acr: BTreeSet<String>,
    /// How old the login may be.
    pub max_age: Duration,
}

/// `[session]`.
#[derive(Debug, Clone)]
pub struct Session {
    /// Automatic logoff after this long without a request.
    pub idle_timeout: Duration,
    /// The end of a session, counted from the login.
    pub absolute_timeout: Duration,
    /// Sessions of one person at once.
    pub concurrent: Option<u32>,
    /// Which requests count as activity.
    pub activity: ActivityRule,
    /// Where sessions and revocations are kept.
    pub store: SessionPlace,
    /// 32 bytes, base64: the secret of the store, the same in every proxy that shares it. Always there with a database;
    /// else it is derived from the trail's encryption key when absent.
    pub key: Option<PathBuf>,
}

/// Where sessions and revocations are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionPlace {
    /// An SQLite file; `sessions.sqlite` in the audit directory when nothing is said.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresSettings),
}

/// `[audit]`.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The trail's directory.
    pub directory: PathBuf,
    /// Ed25519 private key, PKCS#8 PEM.
    pub signing_key: PathBuf,
    /// 32 bytes, base64.
    pub encryption_key: PathBuf,
    /// Length of the reserve for records of emergency access; none if absent.
    pub reserve_bytes: Option<u64>,
    /// Who cosigns its states.
    pub witnesses: Vec<Witness>,
    /// How old the newest cosignature may become.
    pub witness_max_age: Duration,
    /// How old it may become before nothing is answered any more; for ever if absent.
    pub witness_refuse_after: Option<Duration>,
    /// Refusals that have a record each.
    pub budget: Budget,
    /// The index of the trail, where there is one; in the trail's directory when nothing is said.
    pub index: PathBuf,
    /// How long entries are kept: without it nothing is ever withheld.
    pub retention: Option<Keep>,
}

/// The meaning of `raw`; adds what is wrong to `problems`, which then make the result useless.
pub(super) fn build(mut raw: Raw<'_>, folder: &Path, problems: &mut Vec<Problem>) -> Option<Settings> {
    let mut meaning = Meaning { reader: &mut raw.reader, folder };
    let events_at: Vec<usize> =
        raw.issuers.iter().filter_map(|issuer| issuer.events.as_ref()).map(|events| events.offset).collect();
    let settings = (
        meaning.listen(raw.listen),
        meaning.operations(raw.operations),
        meaning.base_url(raw.public.base_url, "public.base_url", Scheme::Https),
        meaning.upstream(raw.upstream),
        meaning.issuers(raw.issuers),
        meaning.session(raw.session, &raw.audit),
        meaning.policies(raw.policies),
        meaning.audit(raw.audit),
    );
    let issuer_urls: Vec<String> = settings.4.iter().map(|issuer| issuer.url.clone()).collect();
    let clients = meaning.clients(raw.clients, &issuer_urls);
    let dpop = meaning.dpop(raw.dpop);
    let care = (meaning.relations(raw.relations), meaning.emergency(raw.emergency));
    let compression = raw.public.compression;
    let (_, _, public_base, _, issuers, ..) = &settings;
    meaning.events_have_a_place(public_base.as_deref(), issuers, &events_at);
    let parameters = parameters::registry(raw.search_parameters, raw.named_queries, &mut raw.reader);
    problems.append(&mut raw.reader.problems);
    let (relations, emergency) = care;
    let (listen, operations, public_base, upstream, issuers, session, policies, audit) = settings;
    let (policies, policy_terms, shadow) = policies?;
    Some(Settings {
        listen: listen?,
        operations: operations?,
        public_base: public_base?,
        compression,
        upstream: upstream?,
        issuers,
        session: session?,
        policies,
        policy_terms,
        shadow,
        relations: relations?,
        emergency: emergency?,
        audit: audit?,
        clients,
        dpop,
        parameters,
    })
}

/// Which URL schemes a key accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    HttpsOrLoopback,
}

pub(super) struct Meaning<'r, 't> {
    pub(super) reader: &'r mut Reader<'t>,
    pub(super) folder: &'r Path,
}

impl Meaning<'_, '_> {
    pub(super) fn path(&self, text: Text) -> Option<PathBuf> {
        text.map(|text| self.folder.join(text.value))
    }

    /// Two paths that belong together; one without the other is reported.
    pub(super) fn pair(&mut self, first: Text, second: Text, names: &str) -> Option<(PathBuf, PathBuf)> {
        match (first, second) {
            (Some(first), Some(second)) => {
                Some((self.folder.join(first.value), self.folder.join(second.value)))
            }
            (Some(one), None) | (None, Some(one)) => {
                self.reader.report(one.offset, format!("{names} must be given together"));
                None
            }
            (None, None) => None,
        }
    }

    pub(super) fn address(&mut self, text: Text, key: &str) -> Option<SocketAddr> {
        let text = text?;
        let address = text.value.parse().ok();
        if address.is_none() {
            self.reader.report(
                text.offset,
                format!("`{key}` must be an IP address and a port, such as `0.0.0.0:8443`"),
            );
        }
        address
    }

    pub(super) fn duration(
        &mut self,
        text: Text,
        key: &str,
        default: Duration,
        bound: Duration,
    ) -> Option<Duration> {
        let Some(text) = text else { return Some(default) };
        let parsed = text.value.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        match parsed {
            Some(duration) if !duration.is_zero() && duration <= bound => Some(duration),
            Some(_) => {
                let message = format!("`{key}` must be more than 0 and at most {} s", bound.as_secs());
                self.reader.report(text.offset, message);
                None
            }
            None => {
                self.reader
                    .report(text.offset, format!("`{key}` must be a duration such as `30s`, `15m` or `12h`"));
                None
            }
        }
    }

    pub(super) fn base_url(&mut self, text: Text, key: &str, scheme: Scheme) -> Option<String> {
        let text = text?;
        match check_url(&text.value, scheme) {
            Ok(()) => Some(text.value.trim_end_matches('/').to_owned()),
            Err(message) => {
                self.reader.report(text.offset, format!("`{key}` {message}"));
                None
            }
        }
    }

    fn listen(&mut self, raw: raw::Listen) -> Option<Listen> {
        let address = self.address(raw.address, "listen.address");
        Some(Listen {
            certificate: self.path(raw.certificate)?,
            private_key: self.path(raw.private_key)?,
            client_ca: self.path(raw.client_ca),
            address: address?,
        })
    }

    fn operations(&mut self, raw: raw::Operations) -> Option<Operations> {
        let offset = raw.address.as_ref().map_or(0, |text| text.offset);
        let certificate = self.pair(
            raw.certificate,
            raw.private_key,
            "`operations.certificate` and `operations.private_key`",
        );
        let address = match raw.address {
            None => SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, limits::OPERATIONS_PORT_DEFAULT)),
            given => self.address(given, "operations.address")?,
        };
        if certificate.is_none() && !address.ip().is_loopback() {
            let message = "`operations.address` must be loopback unless it is given a certificate";
            self.reader.report(offset, message.to_owned());
            return None;
        }
        if let (None, Some(ca)) = (&certificate, &raw.client_ca) {
            let message = "`operations.client_ca` needs `operations.certificate`";
            self.reader.report(ca.offset, message.to_owned());
        }
        let (client_ca, bearer_token_file) = (self.path(raw.client_ca), self.path(raw.bearer_token_file));
        Some(Operations { address, certificate, client_ca, bearer_token_file })
    }

    fn upstream(&mut self, raw: raw::Upstream) -> Option<Upstream> {
        let base_url = self.base_url(raw.base_url, "upstream.base_url", Scheme::HttpsOrLoopback);
        let timeout = self.duration(
            raw.timeout,
            "upstream.timeout",
            limits::UPSTREAM_TIMEOUT_DEFAULT,
            limits::UPSTREAM_TIMEOUT_MAX,
        );
        let client_certificate = self.pair(
            raw.client_certificate,
            raw.private_key,
            "`upstream.client_certificate` and `upstream.private_key`",
        );
        Some(Upstream {
            base_url: base_url?,
            ca: self.path(raw.ca),
            bearer_token_file: self.path(raw.bearer_token_file),
            client_certificate,
            timeout: timeout?,
        })
    }

    fn issuers(&mut self, raw: Vec<raw::Issuer>) -> Vec<Issuer> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for raw in raw {
            let offset = raw.offset;
            let Some(issuer) = self.issuer(raw) else { continue };
            if issuers.iter().any(|other| other.url == issuer.url) {
                self.reader.report(offset, "this issuer's `url` is given twice".to_owned());
            }
            if issuer.introspection.is_some() && issuers.iter().any(|other| other.introspection.is_some()) {
                let message = "only one issuer may have `introspection`: an opaque token names none";
                self.reader.report(offset, message.to_owned());
            }
            issuers.push(issuer);
        }
        issuers
    }

    fn issuer(&mut self, raw: raw::Issuer) -> Option<Issuer> {
        let url = raw.url.as_ref().map(|text| text.value.clone());
        let checked = self.base_url(raw.url, "issuer.url", Scheme::HttpsOrLoopback);
        let jwks_uri = raw.jwks_uri.as_ref().map(|text| text.value.clone());
        if raw.jwks_uri.is_some() {
            self.base_url(raw.jwks_uri, "issuer.jwks_uri", Scheme::HttpsOrLoopback);
        }
        let audience = self.not_empty(raw.audience, "issuer.audience");
        let roles_claim = self.pointer(raw.roles_claim, "issuer.roles_claim");
        let purpose_claim = self.pointer(raw.purpose_claim, "issuer.purpose_claim");
        let algorithms = self.algorithms(raw.algorithms);
        let mfa = self.mfa(raw.mfa);
        let introspection = raw.introspection.map(|raw| self.introspection(raw));
        let events = raw.events.map(|events| self.events(events));
        checked?;
        Some(Issuer {
            url: url?,
            audience: audience?,
            jwks_uri,
            ca: self.path(raw.ca),
            algorithms,
            roles_claim: roles_claim.unwrap_or_else(|| "/roles".to_owned()),
            roles: raw.roles.into_iter().collect(),
            purpose_claim,
            mfa: mfa?,
            introspection: introspection.flatten(),
            events: events.flatten(),
        })
    }

    pub(super) fn not_empty(&mut self, text: Text, key: &str) -> Option<String> {
        let text = text?;
        if text.value.is_empty() {
            self.reader.report(text.offset, format!("`{key}` must not be empty"));
            return None;
        }
        Some(text.value)
    }

    /// A JSON pointer (RFC 6901) to a claim.
    fn pointer(&mut self, text: Text, key: &str) -> Option<String> {
        let text = text?;
        if text.value.len() < 2 || !text.value.starts_with('/') {
            self.reader.report(text.offset, format!("`{key}` must be a JSON pointer such as `/roles`"));
            return None;
        }
        Some(text.value)
    }

    fn algorithms(&mut self, texts: Texts) -> Vec<String> {
        let Some(texts) = texts else { return vec!["RS256".to_owned(), "ES256".to_owned()] };
        if texts.value.is_empty() {
            self.reader.report(texts.offset, "`issuer.algorithms` must name at least one".to_owned());
        }
        let mut names = Vec::new();
        for Located { value, offset } in texts.value {
            if limits::SIGNATURE_ALGORITHMS.contains(&value.as_str()) {
                names.push(value);
            } else {
                let message =
                    format!("`issuer.algorithms` may hold {}", limits::SIGNATURE_ALGORITHMS.join(", "));
                self.reader.report(offset, message);
            }
        }
        names
    }

    fn mfa(&mut self, raw: raw::Mfa) -> Option<Mfa> {
        let values = |texts: Texts| -> BTreeSet<String> {
            texts.map_or_else(BTreeSet::new, |texts| texts.value.into_iter().map(|text| text.value).collect())
        };
        let (amr, acr) = (values(raw.amr), values(raw.acr));
        let max_age = self.duration(
            raw.max_age,
            "issuer.mfa.max_age",
            limits::MFA_AGE_DEFAULT,
            limits::SESSION_ABSOLUTE_MAX,
        );
        if raw.present && amr.is_empty() && acr.is_empty() {
            let message = "`issuer.mfa` must name in `amr` or `acr` what is evidence of a second factor";
            self.reader.report(raw.offset, message.to_owned());
        }
        Some(Mfa { amr, acr, max_age: max_age? })
    }

    /// Inside the trail's directory the name must say that the file is no evidence, or it would be a finding.
    fn index(&mut self, text: Located<String>, directory: Option<&Path>) -> Option<PathBuf> {
        let offset = text.offset;
        let path = self.path(Some(text))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_inside = directory.is_some_and(|directory| path.starts_with(directory));
        if is_inside && !(name.contains("index") && name.ends_with(".sqlite")) {
            let message = "`audit.index` inside `audit.directory` must be named like `index.sqlite`";
            self.reader.report(offset, message.to_owned());
            return None;
        }
        Some(path)
    }

    fn audit(&mut self, raw: raw::Audit) -> Option<Audit> {
        let reserve_bytes = self.reserve(raw.reserve_kib);
        let witness_max_age = self.duration(
            raw.witness_max_age,
            "audit.witness_max_age",
            limits::WITNESS_AGE_DEFAULT,
            limits::WITNESS_AGE_MAX,
        );
        let witness_refuse_after = self.witness_refuse_after(raw.witness_refuse_after, witness_max_age);
        let (strangers, known) = (raw.refusals_per_minute, raw.known_refusals_per_minute);
        let budget = self.budget(strangers, known);
        let retention = self.retention(raw.retention);
        let directory = self.path(raw.directory);
        let index = match raw.index {
            Some(index) => self.index(index, directory.as_deref()),
            None => directory.as_deref().map(trail_index::default_path),
        };
        Some(Audit {
            witnesses: self.witnesses(raw.witnesses),
            witness_max_age: witness_max_age?,
            witness_refuse_after: witness_refuse_after?,
            budget: budget?,
            directory: directory?,
            index: index?,
            signing_key: self.path(raw.signing_key)?,
            encryption_key: self.path(raw.encryption_key)?,
            reserve_bytes: reserve_bytes?,
            retention: retention?,
        })
    }
}

/// What is wrong with a URL, as the end of a sentence that begins with its key.
fn check_url(text: &str, scheme: Scheme) -> Result<(), String> {
    let wrong = |what: &str| Err(what.to_owned());
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("must be a URL") };
    let (Some(given), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("must be a URL with a scheme and a host");
    };
    if uri.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
        return wrong("must not have a query, a fragment or user information");
    }
    match (given, scheme) {
        ("https", _) => Ok(()),
        ("http", Scheme::HttpsOrLoopback) if is_loopback(authority.host()) => Ok(()),
        ("http", Scheme::HttpsOrLoopback) => wrong("must be https; plain http only to loopback"),
        _ => wrong("must be https"),
    }
}

/// Whether a URL's host is this machine by its name or address.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
