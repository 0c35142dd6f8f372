//! FHIR R4 AuditEvents in the profiles of IHE Basic Audit Log Patterns (BALP).
//!
//! Owns: which events a record becomes, and what stands in them: one for each patient, and one for each record read or written.
//! Must never: claim a profile whose constraints the event does not meet (they are of successes only); hold a token.
//! Look next: <https://profiles.ihe.net/ITI/BALP>; `docs/audit.md`, what is told where.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::flat::outcome;
use crate::cli::audit::told::Told;
use crate::domain::audit::{Caller, Control, Decision, Event, Record, Verdict};

pub(super) const PROFILES: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.";
const ENTITY_TYPES: &str = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";
const USER_AGENTS: &str = "https://profiles.ihe.net/ITI/BALP/CodeSystem/UserAgentTypes";
const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const ENTITY: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const INTERACTIONS: &str = "http://hl7.org/fhir/restful-interaction";
const RESOURCES: &str = "http://hl7.org/fhir/resource-types";
const OURS: &str = "https://chartgate.dev/audit-event";

/// Who wrote the trail.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// The base URL clients use.
    pub(super) base: String,
    /// The log's name.
    pub(super) origin: String,
}

/// What kind of access it was, by BALP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Create,
    Read,
    Update,
    Delete,
    Query,
    /// No profile is about it, such as a batch as a whole.
    Other,
}

impl Pattern {
    fn of(interaction: &str) -> Self {
        match interaction {
            "read" | "vread" => Self::Read,
            "create" => Self::Create,
            "update" | "patch" => Self::Update,
            "delete" => Self::Delete,
            "batch" | "transaction" | "capabilities" | "unknown" => Self::Other,
            _ => Self::Query,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Create => Some("Create"),
            Self::Read => Some("Read"),
            Self::Update => Some("Update"),
            Self::Delete => Some("Delete"),
            Self::Query => Some("Query"),
            Self::Other => None,
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Create => "C",
            Self::Read => "R",
            Self::Update => "U",
            Self::Delete => "D",
            Self::Query | Self::Other => "E",
        }
    }

    /// The roles of client and server: where data comes from and goes to, the other way round for a read; a deletion has its own.
    fn roles(self) -> (Value, Value) {
        let dicom = |code: &str, display: &str| concept(DICOM, code, Some(display));
        let source = || dicom("110153", "Source Role ID");
        let destination = || dicom("110152", "Destination Role ID");
        match self {
            Self::Read => (destination(), source()),
            Self::Delete => {
                let custodian = "http://terminology.hl7.org/CodeSystem/provenance-participant-type";
                (dicom("110150", "Application"), concept(custodian, "custodian", Some("Custodian")))
            }
            Self::Create | Self::Update | Self::Query | Self::Other => (source(), destination()),
        }
    }

    fn user(self) -> Value {
        match self {
            Self::Create | Self::Update | Self::Delete => {
                concept(PARTICIPATION, "AUT", Some("author (originator)"))
            }
            Self::Read | Self::Query | Self::Other => {
                concept(PARTICIPATION, "IRCP", Some("information recipient"))
            }
        }
    }
}

/// One FHIR record an event is about.
#[derive(Clone, Copy)]
struct Item<'d> {
    reference: &'d str,
    version: Option<&'d String>,
    patients: &'d BTreeSet<String>,
    mask: &'d [String],
}

/// The events of one record of the trail.
pub(super) fn events(sequence: u64, record: &Record, told: &Told, site: &Site) -> Vec<Value> {
    let bodies = match record {
        Record::Intent(decision) | Record::Decision(decision) => {
            let ended = outcome(record, told).unwrap_or_default();
            of_decision(decision, ended, site)
        }
        Record::Control(control) => vec![of_control(control, site)],
        // Told with its decision; alone it says only that something ended whose beginning was lost.
        Record::Outcome(_) => Vec::new(),
    };
    let named = |(number, mut body): (usize, Map<String, Value>)| {
        body.insert("id".to_owned(), json!(format!("{sequence}-{number}")));
        Value::Object(body)
    };
    bodies.into_iter().enumerate().map(named).collect()
}

fn of_decision(decision: &Decision, ended: &str, site: &Site) -> Vec<Map<String, Value>> {
    let pattern = Pattern::of(&decision.interaction);
    let released: Vec<Item<'_>> = decision
        .released
        .iter()
        .map(|item| Item {
            reference: &item.reference,
            version: item.version.as_ref(),
            patients: &item.patients,
            mask: &item.mask,
        })
        .collect();
    let written: Vec<Item<'_>> = decision
        .written
        .iter()
        .map(|item| Item {
            reference: &item.reference,
            version: item.version.as_ref(),
            patients: &item.patients,
            mask: &item.mask,
        })
        .collect();
    let event = |patient: Option<&str>, data: Option<Item<'_>>, others: &[Item<'_>]| {
        one(decision, pattern, ended, site, &Subject { patient, data, others })
    };
    match pattern {
        Pattern::Read => about_each(&released, &|patient, item| event(patient, Some(item), &[])),
        Pattern::Create | Pattern::Update | Pattern::Delete => {
            about_each(&written, &|patient, item| event(patient, Some(item), &released))
        }
        Pattern::Query | Pattern::Other => {
            about_patients(&[written, released].concat(), &|patient, items| event(patient, None, items))
        }
    }
    .unwrap_or_else(|| vec![event(None, None, &[])])
}

type Body = Map<String, Value>;

/// One event for each item and each of its patients.
fn about_each(items: &[Item<'_>], event: &dyn Fn(Option<&str>, Item<'_>) -> Body) -> Option<Vec<Body>> {
    let mut events = Vec::new();
    for item in items {
        if item.patients.is_empty() {
            events.push(event(None, *item));
        }
        events.extend(item.patients.iter().map(|patient| event(Some(patient), *item)));
    }
    (!events.is_empty()).then_some(events)
}

/// One event for each patient, with what of the answer is theirs, and one for what is nobody's.
fn about_patients(
    items: &[Item<'_>],
    event: &dyn Fn(Option<&str>, &[Item<'_>]) -> Body,
) -> Option<Vec<Body>> {
    let mut theirs: BTreeMap<Option<&str>, Vec<Item<'_>>> = BTreeMap::new();
    for item in items {
        if item.patients.is_empty() {
            theirs.entry(None).or_default().push(*item);
        }
        for patient in item.patients {
            theirs.entry(Some(patient)).or_default().push(*item);
        }
    }
    let events: Vec<Body> = theirs.iter().map(|(patient, items)| event(*patient, items)).collect();
    (!events.is_empty()).then_some(events)
}

/// What one event is about.
struct Subject<'d> {
    patient: Option<&'d str>,
    /// The record that was read or written.
    data: Option<Item<'d>>,
    /// Records that left beside it, or that a query found.
    others: &'d [Item<'d>],
}

fn one(decision: &Decision, pattern: Pattern, ended: &str, site: &Site, subject: &Subject<'_>) -> Body {
    let is_refused = decision.verdict == Verdict::Refuse;
    let is_good = !is_refused && ended == "complete";
    let has_data = subject.data.is_some() || (pattern == Pattern::Query && !decision.request.is_empty());
    let mut body = Map::new();
    body.insert("resourceType".to_owned(), json!("AuditEvent"));
    if let Some(name) = pattern.name().filter(|_| is_good && has_data) {
        let about = if subject.patient.is_some() { "Patient" } else { "" };
        body.insert("meta".to_owned(), json!({"profile": [format!("{PROFILES}{about}{name}")]}));
    }
    body.insert("type".to_owned(), coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest"));
    if decision.interaction != "unknown" {
        body.insert("subtype".to_owned(), json!([coding(INTERACTIONS, &decision.interaction)]));
    }
    body.insert("action".to_owned(), json!(pattern.action()));
    body.insert("recorded".to_owned(), json!(decision.time.to_string()));
    let failure = if decision.status >= 500 { "8" } else { "4" };
    body.insert("outcome".to_owned(), json!(if is_good { "0" } else { failure }));
    if !is_good {
        let why = decision.reason.as_deref().filter(|_| is_refused).unwrap_or(ended);
        body.insert("outcomeDesc".to_owned(), json!(why));
    }
    let purposes = purposes(decision);
    if !purposes.is_empty() {
        body.insert("purposeOfEvent".to_owned(), json!(purposes));
    }
    body.insert("agent".to_owned(), json!(agents(decision, pattern, site)));
    body.insert("source".to_owned(), source(site));
    body.insert("entity".to_owned(), json!(entities(decision, pattern, subject)));
    body
}

fn purposes(decision: &Decision) -> Vec<Value> {
    decision.purposes.iter().map(|purpose| concept(REASON, purpose, None)).collect()
}

fn agents(decision: &Decision, pattern: Pattern, site: &Site) -> Vec<Value> {
    let (client, server) = pattern.roles();
    let caller = decision.caller.as_ref();
    let application = caller.and_then(|caller| caller.application.as_deref()).unwrap_or("unknown");
    let network = match &decision.source {
        Some(address) => json!({"address": address, "type": "2"}),
        None => json!({"address": "unknown"}),
    };
    let mut agents = vec![
        json!({"type": client, "who": {"identifier": {"value": application}}, "requestor": false, "network": network}),
        json!({"type": server, "who": {"display": site.base}, "requestor": false,
            "network": {"address": site.base, "type": "5"}}),
    ];
    agents.extend(caller.map(|caller| user(caller, decision, pattern)));
    agents.extend(caller.map(token));
    agents
}

fn user(caller: &Caller, decision: &Decision, pattern: Pattern) -> Value {
    let mut user = json!({"type": pattern.user(), "who": identified(caller), "requestor": true});
    if let Some(object) = user.as_object_mut() {
        if !caller.roles.is_empty() {
            let role = |role: &String| json!({"text": role});
            object.insert("role".to_owned(), caller.roles.iter().map(role).collect());
        }
        let purposes = purposes(decision);
        if !purposes.is_empty() {
            object.insert("purposeOfUse".to_owned(), json!(purposes));
        }
    }
    user
}

/// The token, by its hash alone: BALP's minimal pattern has the token's `jti` here.
fn token(caller: &Caller) -> Value {
    let kind = json!({"coding": [{"system": USER_AGENTS, "code": "UserOauthAgent"}]});
    let mut agent = json!({"type": kind, "who": identified(caller), "requestor": false});
    if let Some(object) = agent.as_object_mut().filter(|_| !caller.token_hash.is_empty()) {
        object.insert("policy".to_owned(), json!([format!("urn:chartgate:token:{}", caller.token_hash)]));
    }
    agent
}

fn identified(caller: &Caller) -> Value {
    json!({"identifier": {"system": caller.issuer, "value": caller.subject}})
}

fn source(site: &Site) -> Value {
    json!({"site": site.base, "observer": {"display": site.origin},
        "type": [coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4")]})
}

fn entities(decision: &Decision, pattern: Pattern, subject: &Subject<'_>) -> Vec<Value> {
    let mut entities = vec![json!({
        "type": {"system": ENTITY_TYPES, "code": "XrequestId"},
        "what": {"identifier": {"value": decision.request_id}},
    })];
    if let Some(item) = &subject.data {
        entities.push(record(item, coding(ENTITY, "2")));
    }
    let is_asked = pattern == Pattern::Query || subject.data.is_none();
    if is_asked && !decision.request.is_empty() {
        entities.push(json!({
            "type": coding(ENTITY, "2"),
            "role": coding(ROLE, "24"),
            "query": STANDARD.encode(&decision.request),
        }));
    }
    if let Some(patient) = subject.patient {
        entities.push(json!({
            "type": coding(ENTITY, "1"),
            "role": coding(ROLE, "1"),
            "what": {"reference": format!("Patient/{patient}")},
        }));
    }
    // What a query found is told by the type of resource: the profile has one entity of the type above.
    entities.extend(subject.others.iter().map(|item| {
        let kind = item.reference.split('/').next().unwrap_or_default();
        record(item, coding(RESOURCES, kind))
    }));
    entities
}

/// A FHIR record, its version, and the elements that left or were written.
fn record(item: &Item<'_>, kind: Value) -> Value {
    let (place, id) = item.reference.split_once('/').unwrap_or((item.reference, ""));
    let what = match item.version {
        _ if id.is_empty() => json!({"type": place, "display": place}),
        Some(version) => json!({"reference": format!("{}/_history/{version}", item.reference)}),
        None => json!({"reference": item.reference}),
    };
    let detail = |path: &String| json!({"type": "element", "valueString": path});
    let mut entity = json!({"type": kind, "role": coding(ROLE, "4"), "what": what});
    if let Some(object) = entity.as_object_mut().filter(|_| !item.mask.is_empty()) {
        object.insert("detail".to_owned(), item.mask.iter().map(detail).collect());
    }
    entity
}

fn of_control(control: &Control, site: &Site) -> Body {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    put("resourceType", json!("AuditEvent"));
    put("type", json!({"system": DICOM, "code": "110100", "display": "Application Activity"}));
    let mut subtypes = vec![coding(OURS, control.event.code())];
    match control.event {
        Event::Started => subtypes.push(coding(DICOM, "110120")),
        Event::Stopped => subtypes.push(coding(DICOM, "110121")),
        _ => {}
    }
    put("subtype", json!(subtypes));
    put("action", json!("E"));
    put("recorded", json!(control.time.to_string()));
    let is_refusal = matches!(control.event, Event::RefusalsCounting | Event::RefusalsCounted);
    put("outcome", json!(if is_refusal { "4" } else { "0" }));
    put(
        "agent",
        json!([{"type": concept(DICOM, "110150", Some("Application")), "who": {"display": site.origin}, "requestor": false}]),
    );
    put("source", source(site));
    let details = control.details.iter().filter(|(_, value)| !value.is_empty());
    let details: Vec<Value> =
        details.map(|(name, value)| json!({"type": name, "valueString": value})).collect();
    if !details.is_empty() {
        put("entity", json!([{"type": coding(ENTITY, "2"), "role": coding(ROLE, "4"), "detail": details}]));
    }
    body
}

fn coding(system: &str, code: &str) -> Value {
    json!({"system": system, "code": code})
}

fn concept(system: &str, code: &str, display: Option<&str>) -> Value {
    match display {
        Some(display) => json!({"coding": [{"system": system, "code": code, "display": display}]}),
        None => json!({"coding": [{"system": system, "code": code}]}),
    }
}
