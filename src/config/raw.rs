//! The configuration file's shape, key by key (design: configuration in two types).
//!
//! Owns: which keys exist and which must be there. Must never: interpret a value; `settings` does.
//! Look next: `settings`.

use super::Problem;
use super::section::{Located, Reader, Section};
use super::witness::{self, RawWitness};
use super::{clients, policies};
use toml::Spanned;
use toml::de::DeTable;

pub(super) type Text = Option<Located<String>>;
pub(super) type Texts = Option<Located<Vec<Located<String>>>>;

/// The whole file. Text that is missing although required was reported when it was read.
pub(super) struct Raw<'t> {
    pub(super) listen: Listen,
    pub(super) operations: Operations,
    pub(super) public: Public,
    pub(super) upstream: Upstream,
    pub(super) issuers: Vec<Issuer>,
    pub(super) session: Session,
    pub(super) policies: policies::RawPolicies,
    pub(super) relations: Relations,
    pub(super) emergency: Emergency,
    pub(super) audit: Audit,
    pub(super) search_parameters: Vec<SearchParameter>,
    pub(super) named_queries: Vec<NamedQuery>,
    pub(super) clients: Vec<clients::RawClient>,
    pub(super) dpop: clients::RawDpop,
    pub(super) reader: Reader<'t>,
}

pub(super) struct Listen {
    pub(super) address: Text,
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) client_ca: Text,
}

pub(super) struct Operations {
    pub(super) address: Text,
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) client_ca: Text,
    pub(super) bearer_token_file: Text,
}

pub(super) struct Upstream {
    pub(super) base_url: Text,
    pub(super) ca: Text,
    pub(super) bearer_token_file: Text,
    pub(super) client_certificate: Text,
    pub(super) private_key: Text,
    pub(super) timeout: Text,
}

pub(super) struct Issuer {
    pub(super) offset: usize,
    pub(super) url: Text,
    pub(super) audience: Text,
    pub(super) jwks_uri: Text,
    pub(super) ca: Text,
    pub(super) algorithms: Texts,
    pub(super) roles_claim: Text,
    pub(super) roles: Vec<(String, String)>,
    pub(super) purpose_claim: Text,
    pub(super) mfa: Mfa,
    pub(super) introspection: Option<clients::RawIntrospection>,
    pub(super) events: Option<Events>,
}

pub(super) struct Events {
    pub(super) offset: usize,
    pub(super) audience: Text,
    pub(super) logout_audience: Text,
    pub(super) authorization_file: Text,
    pub(super) heartbeat: Text,
}

pub(super) struct Mfa {
    pub(super) offset: usize,
    pub(super) present: bool,
    pub(super) amr: Texts,
    pub(super) acr: Texts,
    pub(super) max_age: Text,
}

pub(super) struct Public {
    pub(super) base_url: Text,
    pub(super) compression: bool,
}

pub(super) struct Session {
    pub(super) idle_timeout: Text,
    pub(super) absolute_timeout: Text,
    pub(super) concurrent: Option<Located<u64>>,
    pub(super) activity: Text,
    pub(super) store: Text,
    pub(super) key: Text,
    pub(super) postgres: Option<Postgres>,
}

pub(super) struct Postgres {
    pub(super) offset: usize,
    pub(super) url_file: Text,
    pub(super) ca: Text,
}

pub(super) struct Relations {
    pub(super) lookups: Texts,
    pub(super) max_age: Text,
    pub(super) absent_max_age: Text,
    pub(super) encounter_window: Text,
    pub(super) appointment_window: Text,
}

pub(super) struct Emergency {
    pub(super) fresh: Text,
    pub(super) duration: Text,
    pub(super) max_duration: Text,
    pub(super) per_hour: Option<Located<u64>>,
    pub(super) reviewers: Texts,
}

pub(super) struct Audit {
    pub(super) directory: Text,
    pub(super) signing_key: Text,
    pub(super) encryption_key: Text,
    pub(super) reserve_kib: Option<Located<u64>>,
    pub(super) witnesses: Vec<RawWitness>,
    pub(super) witness_max_age: Text,
    pub(super) witness_refuse_after: Text,
    pub(super) refusals_per_minute: Option<Located<u64>>,
    pub(super) known_refusals_per_minute: Option<Located<u64>>,
    pub(super) index: Text,
    pub(super) retention: Retention,
}

pub(super) struct Retention {
    pub(super) present: bool,
    pub(super) offset: usize,
    pub(super) keep: Text,
    pub(super) shorter: bool,
}

pub(super) struct SearchParameter {
    pub(super) resource: Text,
    pub(super) code: Text,
    pub(super) kind: Text,
    pub(super) expression: Text,
    pub(super) targets: Texts,
}

pub(super) struct NamedQuery {
    pub(super) resource: Text,
    pub(super) name: Text,
    pub(super) offset: usize,
    pub(super) reads: Texts,
}

/// The text as TOML.
///
/// # Errors
/// Where it is not.
pub fn document<'t>(file: &str, text: &'t str) -> Result<Spanned<DeTable<'t>>, Problem> {
    DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or_default().to_lowercase();
        Problem::at(file, text, offset, message)
    })
}

/// Reads the file's shape; `None` only when it is not TOML at all.
pub(super) fn read<'t>(file: &'t str, text: &'t str) -> (Option<Raw<'t>>, Vec<Problem>) {
    let document = match document(file, text) {
        Ok(document) => document,
        Err(problem) => return (None, vec![problem]),
    };
    let mut reader = Reader::new(file, text);
    let mut root = Section::root(&document);
    let raw = Raw {
        listen: listen(&mut reader, &mut root),
        operations: operations(&mut reader, &mut root),
        public: public(&mut reader, &mut root),
        upstream: upstream(&mut reader, &mut root),
        issuers: issuers(&mut reader, &mut root),
        session: session(&mut reader, &mut root),
        policies: policies::policies(&mut reader, &mut root),
        relations: relations(&mut reader, &mut root),
        emergency: emergency(&mut reader, &mut root),
        audit: audit(&mut reader, &mut root),
        search_parameters: search_parameters(&mut reader, &mut root),
        named_queries: named_queries(&mut reader, &mut root),
        clients: clients::clients(&mut reader, &mut root),
        dpop: clients::dpop(&mut reader, &mut root),
        reader: Reader::new(file, text),
    };
    root.finish(&mut reader);
    (Some(raw), reader.problems)
}

fn listen(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Listen {
    let mut section = root.table(reader, "listen", true);
    let listen = Listen {
        address: section.required_text(reader, "address"),
        certificate: section.required_text(reader, "certificate"),
        private_key: section.required_text(reader, "private_key"),
        client_ca: section.text(reader, "client_ca"),
    };
    section.finish(reader);
    listen
}

fn operations(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Operations {
    let mut section = root.table(reader, "operations", false);
    let operations = Operations {
        address: section.text(reader, "address"),
        certificate: section.text(reader, "certificate"),
        private_key: section.text(reader, "private_key"),
        client_ca: section.text(reader, "client_ca"),
        bearer_token_file: section.text(reader, "bearer_token_file"),
    };
    section.finish(reader);
    operations
}

fn public(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Public {
    let mut section = root.table(reader, "public", true);
    let public = Public {
        base_url: section.required_text(reader, "base_url"),
        compression: section.switch(reader, "compression"),
    };
    section.finish(reader);
    public
}

fn upstream(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Upstream {
    let mut section = root.table(reader, "upstream", true);
    let upstream = Upstream {
        base_url: section.required_text(reader, "base_url"),
        ca: section.text(reader, "ca"),
        bearer_token_file: section.text(reader, "bearer_token_file"),
        client_certificate: section.text(reader, "client_certificate"),
        private_key: section.text(reader, "private_key"),
        timeout: section.text(reader, "timeout"),
    };
    section.finish(reader);
    upstream
}

fn issuers(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Vec<Issuer> {
    let sections = root.tables(reader, "issuer");
    if sections.is_empty() {
        reader.report(0, "at least one `[[issuer]]` is needed: nobody could be authenticated".to_owned());
    }
    sections.into_iter().map(|section| issuer(reader, section)).collect()
}

fn issuer(reader: &mut Reader<'_>, mut section: Section<'_>) -> Issuer {
    let issuer = Issuer {
        offset: section.offset(),
        url: section.required_text(reader, "url"),
        audience: section.required_text(reader, "audience"),
        jwks_uri: section.text(reader, "jwks_uri"),
        ca: section.text(reader, "ca"),
        algorithms: section.texts(reader, "algorithms"),
        roles_claim: section.text(reader, "roles_claim"),
        roles: section.renames(reader, "roles"),
        purpose_claim: section.text(reader, "purpose_claim"),
        mfa: mfa(reader, &mut section),
        introspection: clients::introspection(reader, &mut section),
        events: events(reader, &mut section),
    };
    section.finish(reader);
    issuer
}

fn events(reader: &mut Reader<'_>, issuer: &mut Section<'_>) -> Option<Events> {
    let mut section = issuer.table(reader, "events", false);
    let events = section.is_present().then(|| Events {
        offset: section.offset(),
        audience: section.required_text(reader, "audience"),
        logout_audience: section.text(reader, "logout_audience"),
        authorization_file: section.text(reader, "authorization_file"),
        heartbeat: section.text(reader, "heartbeat"),
    });
    section.finish(reader);
    events
}

fn mfa(reader: &mut Reader<'_>, issuer: &mut Section<'_>) -> Mfa {
    let mut section = issuer.table(reader, "mfa", true);
    let mfa = Mfa {
        offset: section.offset(),
        present: section.is_present(),
        amr: section.texts(reader, "amr"),
        acr: section.texts(reader, "acr"),
        max_age: section.text(reader, "max_age"),
    };
    section.finish(reader);
    mfa
}

fn session(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Session {
    let mut section = root.table(reader, "session", false);
    let session = Session {
        idle_timeout: section.text(reader, "idle_timeout"),
        absolute_timeout: section.text(reader, "absolute_timeout"),
        concurrent: section.number(reader, "concurrent"),
        activity: section.text(reader, "activity"),
        store: section.text(reader, "store"),
        key: section.text(reader, "key"),
        postgres: postgres(reader, &mut section),
    };
    section.finish(reader);
    session
}

fn postgres(reader: &mut Reader<'_>, session: &mut Section<'_>) -> Option<Postgres> {
    let mut section = session.table(reader, "postgres", false);
    let postgres = section.is_present().then(|| Postgres {
        offset: section.offset(),
        url_file: section.required_text(reader, "url_file"),
        ca: section.text(reader, "ca"),
    });
    section.finish(reader);
    postgres
}

fn relations(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Relations {
    let mut section = root.table(reader, "relations", false);
    let relations = Relations {
        lookups: section.texts(reader, "lookups"),
        max_age: section.text(reader, "max_age"),
        absent_max_age: section.text(reader, "absent_max_age"),
        encounter_window: section.text(reader, "encounter_window"),
        appointment_window: section.text(reader, "appointment_window"),
    };
    section.finish(reader);
    relations
}

fn emergency(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Emergency {
    let mut section = root.table(reader, "emergency", false);
    let emergency = Emergency {
        fresh: section.text(reader, "fresh"),
        duration: section.text(reader, "duration"),
        max_duration: section.text(reader, "max_duration"),
        per_hour: section.number(reader, "per_hour"),
        reviewers: section.texts(reader, "reviewers"),
    };
    section.finish(reader);
    emergency
}

fn audit(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Audit {
    let mut section = root.table(reader, "audit", true);
    let audit = Audit {
        directory: section.required_text(reader, "directory"),
        signing_key: section.required_text(reader, "signing_key"),
        encryption_key: section.required_text(reader, "encryption_key"),
        reserve_kib: section.number(reader, "reserve_kib"),
        witnesses: witness::witnesses(reader, &mut section),
        witness_max_age: section.text(reader, "witness_max_age"),
        witness_refuse_after: section.text(reader, "witness_refuse_after"),
        refusals_per_minute: section.number(reader, "refusals_per_minute"),
        known_refusals_per_minute: section.number(reader, "known_refusals_per_minute"),
        index: section.text(reader, "index"),
        retention: retention(reader, &mut section),
    };
    section.finish(reader);
    audit
}

fn retention(reader: &mut Reader<'_>, audit: &mut Section<'_>) -> Retention {
    let mut section = audit.table(reader, "retention", false);
    let retention = Retention {
        present: section.is_present(),
        offset: section.offset(),
        keep: section.text(reader, "keep"),
        shorter: section.switch(reader, "own_rule_is_shorter"),
    };
    section.finish(reader);
    retention
}

fn search_parameters(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Vec<SearchParameter> {
    let sections = root.tables(reader, "search_parameter");
    let read = |mut section: Section<'_>| {
        let parameter = SearchParameter {
            resource: section.required_text(reader, "resource"),
            code: section.required_text(reader, "code"),
            kind: section.required_text(reader, "type"),
            expression: section.required_text(reader, "expression"),
            targets: section.texts(reader, "targets"),
        };
        section.finish(reader);
        parameter
    };
    sections.into_iter().map(read).collect()
}

fn named_queries(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Vec<NamedQuery> {
    let sections = root.tables(reader, "named_query");
    let read = |mut section: Section<'_>| {
        let query = NamedQuery {
            offset: section.offset(),
            resource: section.required_text(reader, "resource"),
            name: section.required_text(reader, "name"),
            reads: section.texts(reader, "reads"),
        };
        section.finish(reader);
        query
    };
    sections.into_iter().map(read).collect()
}
