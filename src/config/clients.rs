//! `[[client]]`, `[dpop]` and `[issuer.introspection]`: applications, and how tokens are presented and asked about.
//!
//! Owns: the shape and meaning of these sections. Must never: let a client stand whose fields are not all said: what
//! an application may do is written down, or it may do nothing (S-003-44).
//! Look next: `domain::identity::Client`, what comes of it.

use super::raw::{Text, Texts};
use super::section::{Located, Reader, Section};
use super::settings::{Meaning, Scheme};
use crate::domain::access;
use crate::domain::identity::{BindingDemand, Client, ClientKind, SecondFactor};
use crate::limits;
use jiff::civil::Date;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A registered client and where its tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// URLs of configured issuers.
    pub issuers: BTreeSet<String>,
    /// What it may be used for.
    pub client: Client,
}

/// `[dpop]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dpop {
    /// Proofs must hold a nonce of ours.
    pub nonce: bool,
    /// 32 bytes, base64, shared by gates that accept each other's nonces; made at each start when absent.
    pub nonce_key: Option<PathBuf>,
}

/// `[issuer.introspection]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// https, or http to loopback.
    pub endpoint: String,
    /// Our name at the issuer.
    pub client_id: String,
    /// How we show that it is us.
    pub authentication: ClientAuthentication,
    /// Certificate authority of the endpoint; the issuer's `ca` when absent.
    pub ca: Option<PathBuf>,
    /// How long an answer is kept.
    pub cache: Duration,
}

/// How we show an issuer that it is us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// A file with our secret there (`client_secret_basic`).
    Secret(PathBuf),
    /// A key of ours (`private_key_jwt`, OpenID Connect Core section 9).
    Key {
        /// PEM, PKCS#8.
        file: PathBuf,
        /// `kid`.
        id: Option<String>,
        /// `aud`; the issuer's URL when absent.
        audience: Option<String>,
    },
}

pub(super) struct RawClient {
    offset: usize,
    id: Text,
    kind: Text,
    issuers: Texts,
    purposes: Texts,
    scopes: Texts,
    roles: Texts,
    binding: Text,
    second_factor: Text,
    agreement: Option<Text>,
}

pub(super) struct RawDpop {
    nonce: bool,
    nonce_key: Text,
}

pub(super) struct RawIntrospection {
    endpoint: Text,
    offset: usize,
    client_id: Text,
    client_secret_file: Text,
    client_key_file: Text,
    client_key_id: Text,
    assertion_audience: Text,
    ca: Text,
    cache: Text,
}

/// Reads every `[[client]]`.
pub(super) fn clients(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Vec<RawClient> {
    let sections = root.tables(reader, "client");
    let read = |mut section: Section<'_>| {
        let client = RawClient {
            offset: section.offset(),
            id: section.required_text(reader, "id"),
            kind: section.required_text(reader, "kind"),
            issuers: section.texts(reader, "issuers"),
            purposes: section.texts(reader, "purposes"),
            scopes: section.texts(reader, "scopes"),
            roles: section.texts(reader, "roles"),
            binding: section.text(reader, "binding"),
            second_factor: section.text(reader, "second_factor"),
            agreement: agreement(reader, &mut section),
        };
        section.finish(reader);
        client
    };
    sections.into_iter().map(read).collect()
}

/// The agreement's last day, where there is an agreement.
fn agreement(reader: &mut Reader<'_>, client: &mut Section<'_>) -> Option<Text> {
    let mut section = client.table(reader, "agreement", false);
    let present = section.is_present();
    let expires = present.then(|| section.required_text(reader, "expires"));
    let _with_whom = section.text(reader, "with");
    section.finish(reader);
    expires
}

/// Reads `[dpop]`.
pub(super) fn dpop(reader: &mut Reader<'_>, root: &mut Section<'_>) -> RawDpop {
    let mut section = root.table(reader, "dpop", false);
    let dpop =
        RawDpop { nonce: section.switch(reader, "nonce"), nonce_key: section.text(reader, "nonce_key") };
    section.finish(reader);
    dpop
}

/// Reads `[issuer.introspection]`, if it is there.
pub(super) fn introspection(reader: &mut Reader<'_>, issuer: &mut Section<'_>) -> Option<RawIntrospection> {
    let mut section = issuer.table(reader, "introspection", false);
    if !section.is_present() {
        return None;
    }
    let introspection = RawIntrospection {
        offset: section.offset(),
        endpoint: section.required_text(reader, "endpoint"),
        client_id: section.required_text(reader, "client_id"),
        client_secret_file: section.text(reader, "client_secret_file"),
        client_key_file: section.text(reader, "client_key_file"),
        client_key_id: section.text(reader, "client_key_id"),
        assertion_audience: section.text(reader, "assertion_audience"),
        ca: section.text(reader, "ca"),
        cache: section.text(reader, "cache"),
    };
    section.finish(reader);
    Some(introspection)
}

impl Meaning<'_, '_> {
    pub(super) fn clients(&mut self, raw: Vec<RawClient>, issuers: &[String]) -> Vec<Registered> {
        if let Some(extra) = raw.get(limits::CLIENTS_MAX) {
            self.reader.report(extra.offset, format!("at most {} clients", limits::CLIENTS_MAX));
        }
        let mut clients: Vec<Registered> = Vec::new();
        for raw in raw {
            let offset = raw.offset;
            let Some(client) = self.client(raw, issuers) else { continue };
            let same = |other: &&Registered| {
                other.client.id == client.client.id && !other.issuers.is_disjoint(&client.issuers)
            };
            if clients.iter().find(same).is_some() {
                self.reader.report(offset, "this client's `id` is given twice for one issuer".to_owned());
            }
            clients.push(client);
        }
        clients
    }

    fn client(&mut self, raw: RawClient, issuers: &[String]) -> Option<Registered> {
        let offset = raw.offset;
        let id = self.not_empty(raw.id, "client.id");
        let kind = self.one_of(raw.kind, "client.kind", &ClientKind::ALL.map(|kind| (kind.name(), kind)));
        let issuers = self.client_issuers(raw.issuers, offset, issuers);
        let purposes = values(raw.purposes).unwrap_or_default();
        if purposes.is_empty() {
            self.reader.report(offset, "`client.purposes` must name at least one".to_owned());
        }
        let scopes = self.scopes(raw.scopes);
        let demands = BindingDemand::ALL.map(|demand| (demand.name(), demand));
        let asked = raw.binding.is_some();
        let binding = self.one_of(raw.binding, "client.binding", &demands);
        let factors = [("person", SecondFactor::Person), ("bound-key", SecondFactor::BoundKey)];
        let factor_at = raw.second_factor.as_ref().map_or(offset, |text| text.offset);
        let second_factor = match raw.second_factor {
            None => SecondFactor::Person,
            given => self.one_of(given, "client.second_factor", &factors)?,
        };
        let has_agreement = raw.agreement.is_some();
        let agreement_expires = self.date(raw.agreement.flatten(), "client.agreement.expires");
        let (id, kind) = (id?, kind?);
        let own = kind == ClientKind::StaffApp;
        if !own && scopes.is_none() {
            self.reader.report(offset, "`client.scopes` is missing".to_owned());
        }
        if !own && !has_agreement {
            let message = "`client.agreement` is missing: only a `staff-app` needs none";
            self.reader.report(offset, message.to_owned());
        }
        let binding = match (asked, kind) {
            (true, _) => binding?,
            (false, ClientKind::BackendService) => BindingDemand::Any,
            (false, ClientKind::SmartApp | ClientKind::StaffApp) => BindingDemand::None,
        };
        let programs = kind == ClientKind::BackendService && binding != BindingDemand::None;
        if second_factor == SecondFactor::BoundKey && !programs {
            let message =
                "`client.second_factor` is `bound-key` for a `backend-service` with a `binding` only";
            self.reader.report(factor_at, message.to_owned());
        }
        let roles = values(raw.roles);
        let client = Client { id, kind, purposes, scopes, roles, binding, second_factor, agreement_expires };
        Some(Registered { issuers: issuers?, client })
    }

    /// Where there are several issuers, a client id means nothing without one.
    fn client_issuers(&mut self, texts: Texts, offset: usize, known: &[String]) -> Option<BTreeSet<String>> {
        let Some(texts) = texts else {
            if known.len() > 1 {
                let message = "`client.issuers` is missing: there are several issuers";
                self.reader.report(offset, message.to_owned());
                return None;
            }
            return Some(known.iter().cloned().collect());
        };
        let mut named = BTreeSet::new();
        for Located { value, offset } in texts.value {
            if known.contains(&value) {
                named.insert(value);
            } else {
                self.reader.report(offset, "`client.issuers` names no configured issuer".to_owned());
            }
        }
        if named.is_empty() {
            self.reader.report(texts.offset, "`client.issuers` must name at least one".to_owned());
        }
        Some(named)
    }

    fn scopes(&mut self, texts: Texts) -> Option<Vec<String>> {
        let texts = texts?;
        for text in &texts.value {
            if !access::is_scope(&text.value) {
                let message = "`client.scopes` holds a clinical scope that is not one of SMART App Launch";
                self.reader.report(text.offset, message.to_owned());
            }
        }
        Some(texts.value.into_iter().map(|text| text.value).collect())
    }

    fn one_of<T: Copy>(&mut self, text: Text, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = text?;
        let found = choices.iter().find(|(name, _)| *name == text.value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.reader.report(text.offset, format!("`{key}` must be one of {}", names.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    fn date(&mut self, text: Text, key: &str) -> Option<Date> {
        let text = text?;
        let date = text.value.parse::<Date>().ok().filter(|_| text.value.len() == "2027-03-31".len());
        if date.is_none() {
            self.reader.report(text.offset, format!("`{key}` must be a date such as `2027-03-31`"));
        }
        date
    }

    pub(super) fn dpop(&mut self, raw: RawDpop) -> Dpop {
        let offset = raw.nonce_key.as_ref().map_or(0, |text| text.offset);
        let nonce_key = self.path(raw.nonce_key);
        if nonce_key.is_some() && !raw.nonce {
            self.reader.report(offset, "`dpop.nonce_key` has no use unless `dpop.nonce` is true".to_owned());
        }
        Dpop { nonce: raw.nonce, nonce_key }
    }

    pub(super) fn introspection(&mut self, raw: RawIntrospection) -> Option<Introspection> {
        let endpoint = self.base_url(raw.endpoint, "issuer.introspection.endpoint", Scheme::HttpsOrLoopback);
        let client_id = self.not_empty(raw.client_id, "issuer.introspection.client_id");
        let cache = self.duration(
            raw.cache,
            "issuer.introspection.cache",
            limits::INTROSPECTION_KEPT_DEFAULT,
            limits::INTROSPECTION_KEPT_MAX,
        );
        let key = (raw.client_key_file, raw.client_key_id, raw.assertion_audience);
        let authentication = self.client_authentication(raw.offset, raw.client_secret_file, key);
        Some(Introspection {
            endpoint: endpoint?,
            client_id: client_id?,
            authentication: authentication?,
            ca: self.path(raw.ca),
            cache: cache?,
        })
    }
}

impl Meaning<'_, '_> {
    /// A secret or a key, and what belongs to a key only with one.
    fn client_authentication(
        &mut self,
        offset: usize,
        secret: Text,
        (file, id, audience): (Text, Text, Text),
    ) -> Option<ClientAuthentication> {
        let id = self.not_empty(id, "issuer.introspection.client_key_id");
        let audience = self.not_empty(audience, "issuer.introspection.assertion_audience");
        let wrong = match (secret, file) {
            (Some(secret), None) if id.is_none() && audience.is_none() => {
                return self.path(Some(secret)).map(ClientAuthentication::Secret);
            }
            (None, Some(file)) => {
                let file = self.path(Some(file))?;
                return Some(ClientAuthentication::Key { file, id, audience });
            }
            (Some(_), None) => {
                "`issuer.introspection.client_key_id` and `assertion_audience` belong to `client_key_file`"
            }
            (Some(_), Some(_)) | (None, None) => {
                "`issuer.introspection` needs one of `client_secret_file` and `client_key_file`"
            }
        };
        self.reader.report(offset, wrong.to_owned());
        None
    }
}

fn values(texts: Texts) -> Option<BTreeSet<String>> {
    texts.map(|texts| texts.value.into_iter().map(|text| text.value).collect())
}
