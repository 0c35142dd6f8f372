//! What is exported: the same records in every format, FHIR that validates, cells that run nothing.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::balp::PROFILES;
use super::*;
use crate::cli::audit::GOOD;
use crate::cli::audit::index_tests::{Place, record, run};
use crate::domain::audit::{
    Caller, Control, Decision, Ending, Event, Outcome, Record, Released, Verdict, Written,
};

const BASE: &str = "https://fhir.hospital.example/fhir";

impl Place {
    fn export(&self, format: Format, name: &str) -> (u8, String) {
        let (filter, out) = (Filter::default(), self.beside(name));
        let order = Export { filter: &filter, format, out: &out, base: BASE };
        let (code, _, err) =
            run(|text, err| export(&self.settings, Some(&self.index), &order, true, text, err));
        (code, err)
    }

    fn exported(&self, format: Format, name: &str) -> String {
        assert_eq!(self.export(format, name), (GOOD, String::new()));
        fs::read_to_string(self.beside(name).join(format.file())).unwrap()
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.exported(Format::Fhir, name);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a BALP profile demands, as far as it says more than R4: taken from the profiles, version 1.1.
struct Profile {
    name: &'static str,
    action: &'static str,
    /// At least one of these; empty: any.
    subtypes: &'static [&'static str],
    client: &'static str,
    server: &'static str,
    users: &'static [&'static str],
    /// `audit-entity-type` and how many entities of that type there must be.
    data: &'static str,
}

const AUTHORS: &[&str] = &["AUT", "INF", "CST"];
const PROFILE: [Profile; 5] = [
    Profile {
        name: "Create",
        action: "C",
        subtypes: &["create"],
        client: "110153",
        server: "110152",
        users: AUTHORS,
        data: "record",
    },
    Profile {
        name: "Read",
        action: "R",
        subtypes: &["read", "vread"],
        client: "110152",
        server: "110153",
        users: &["IRCP"],
        data: "record",
    },
    Profile {
        name: "Update",
        action: "U",
        subtypes: &["update", "patch"],
        client: "110153",
        server: "110152",
        users: AUTHORS,
        data: "record",
    },
    Profile {
        name: "Delete",
        action: "D",
        subtypes: &["delete"],
        client: "110150",
        server: "custodian",
        users: AUTHORS,
        data: "record",
    },
    Profile {
        name: "Query",
        action: "E",
        subtypes: &[],
        client: "110153",
        server: "110152",
        users: &["IRCP"],
        data: "query",
    },
];

/// Entities whose type is this code of this end of a system.
fn entities<'v>(event: &'v Value, system: &str, code: &str) -> Vec<&'v Value> {
    let is_it = |entity: &&Value| {
        entity["type"]["code"] == code
            && entity["type"]["system"].as_str().is_some_and(|it| it.ends_with(system))
    };
    event["entity"].as_array().into_iter().flatten().filter(is_it).collect()
}

fn agents<'v>(event: &'v Value, codes: &[&str]) -> Vec<&'v Value> {
    let is_it = |agent: &&Value| codes.iter().any(|code| agent["type"]["coding"][0]["code"] == *code);
    event["agent"].as_array().unwrap().iter().filter(is_it).collect()
}

/// What is wrong with an event by R4, and by the profile it claims.
fn faults(event: &Value) -> Vec<String> {
    let text = event.to_string();
    let (_, issues) = fhirkit::from_json::<fhirkit::r4::Resource>(&text).unwrap();
    let errors = issues.iter().filter(|issue| issue.severity == fhirkit::Severity::Error);
    let mut faults: Vec<String> = errors.map(|issue| format!("{issue:?}")).collect();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let claimed = event["meta"]["profile"][0].as_str();
    let Some(claimed) = claimed else {
        return faults;
    };
    let name = claimed.strip_prefix(PROFILES).unwrap();
    let patient = name.starts_with("Patient");
    let profile = PROFILE.iter().find(|profile| profile.name == name.trim_start_matches("Patient")).unwrap();
    demand(event["type"]["code"] == "rest", "type");
    demand(event["action"] == profile.action, "action");
    demand(event["outcome"] == "0", "outcome");
    let subtype = event["subtype"][0]["code"].as_str().unwrap_or_default();
    demand(
        !subtype.is_empty() && (profile.subtypes.is_empty() || profile.subtypes.contains(&subtype)),
        "subtype",
    );
    for code in [profile.client, profile.server] {
        let found = agents(event, &[code]);
        demand(found.len() == 1, code);
        demand(
            found.iter().all(|agent| agent["who"].is_object() && agent["network"]["address"].is_string()),
            "network",
        );
        demand(
            found.iter().all(|agent| agent.get("media").is_none() && agent["requestor"] == false),
            "media",
        );
    }
    let users = agents(event, profile.users);
    demand(users.len() <= 1, "user");
    demand(users.iter().all(|user| user["requestor"] == true && user.get("network").is_none()), "requestor");
    demand(users.iter().all(|user| user["who"]["identifier"]["value"].is_string()), "who");
    let data = entities(event, "audit-entity-type", "2");
    demand(data.len() == 1, "data 1..1");
    match profile.data {
        "record" => demand(data.iter().all(|it| it["what"].is_object() && it["role"]["code"] == "4"), "what"),
        _ => demand(
            data.iter()
                .all(|it| it["query"].is_string() && it["role"]["code"] == "24" && it.get("what").is_none()),
            "query",
        ),
    }
    let request = entities(event, "BasicAuditEntityType", "XrequestId");
    demand(request.len() == 1 && request[0]["what"]["identifier"]["value"].is_string(), "X-Request-Id");
    let patients = entities(event, "audit-entity-type", "1");
    demand(patients.len() == usize::from(patient), "patient");
    let is_patient =
        |it: &&Value| it["what"]["reference"].as_str().is_some_and(|it| it.starts_with("Patient/"));
    demand(
        patients.iter().all(is_patient) && patients.iter().all(|it| it["role"]["code"] == "1"),
        "Reference(Patient)",
    );
    faults
}

fn caller() -> Caller {
    Caller {
        issuer: "https://idp.example".to_owned(),
        subject: "=cmd|'/c calc'!A1".to_owned(),
        session: "s1".to_owned(),
        token_hash: "00ff".to_owned(),
        application: Some("viewer".to_owned()),
        roles: vec!["nurse".to_owned()],
        ..Caller::default()
    }
}

fn decided(id: &str, interaction: &str, patients: &[&str], verdict: Verdict) -> Decision {
    let mut decision = Decision::new("2026-03-01T09:00:00Z".parse().unwrap(), id.to_owned(), verdict);
    decision.caller = Some(caller());
    decision.interaction = interaction.to_owned();
    decision.request = "GET Observation?code=@x,\"y\"".to_owned();
    decision.purposes = vec!["TREAT".to_owned()];
    decision.source = Some("10.0.0.7".to_owned());
    decision.status = 200;
    let item = |patient: &&str| Released {
        reference: format!("Observation/of-{patient}"),
        version: Some("3".to_owned()),
        patients: [(*patient).to_owned()].into(),
        mask: Arc::new(vec!["Observation.code".to_owned(), "Observation.value".to_owned()]),
    };
    let items: Vec<Released> = patients.iter().map(item).collect();
    if ["create", "update", "patch", "delete"].contains(&interaction) {
        let written =
            |Released { reference, version, patients, mask }| Written { reference, version, patients, mask };
        decision.written = items.into_iter().map(written).collect();
    } else {
        decision.released = items;
    }
    decision
}

fn ended(id: &str, ending: Ending) -> Record {
    let time = "2026-03-01T09:00:01Z".parse().unwrap();
    Record::Outcome(Outcome { time, request_id: id.to_owned(), entry: None, ending, sent_bytes: None })
}

/// Records, and the profiles their events claim ("" for none).
fn cases() -> Vec<(Vec<Record>, Vec<&'static str>)> {
    let permit = |id: &str, interaction: &str, patients: &[&str], ending| {
        vec![
            Record::Decision(Box::new(decided(id, interaction, patients, Verdict::Permit))),
            ended(id, ending),
        ]
    };
    let mut refused = decided("x1", "read", &[], Verdict::Refuse);
    refused.reason = Some("not-permitted".to_owned());
    let stopped = Control {
        time: refused.time,
        event: Event::Stopped,
        details: [("why".to_owned(), "test".to_owned())].into(),
    };
    vec![
        (permit("a1", "read", &["p1"], Ending::Complete), vec!["PatientRead"]),
        (permit("a2", "vread", &["p1"], Ending::Complete), vec!["PatientRead"]),
        (permit("a3", "read", &["p1"], Ending::CutOff), vec![""]),
        (permit("a4", "search-type", &["p1", "p2", "p3"], Ending::Complete), vec!["PatientQuery"; 3]),
        (permit("a5", "search-type", &[], Ending::Complete), vec!["Query"]),
        (permit("a6", "create", &["p1"], Ending::Complete), vec!["PatientCreate"]),
        (permit("a7", "update", &["p1"], Ending::Complete), vec!["PatientUpdate"]),
        (permit("a8", "patch", &["p1", "p2"], Ending::Complete), vec!["PatientUpdate"; 2]),
        (permit("a9", "delete", &["p1"], Ending::Complete), vec!["PatientDelete"]),
        (permit("b1", "operation", &["p1"], Ending::Complete), vec!["PatientQuery"]),
        (permit("b2", "transaction", &[], Ending::Complete), vec![""]),
        (permit("b3", "read", &[], Ending::Complete), vec![""]),
        (vec![Record::Decision(Box::new(refused))], vec![""]),
        (vec![Record::Control(stopped)], vec![""]),
    ]
}

#[test]
fn audit_events_meet_the_profiles_they_claim() {
    let place = Place::new();
    let cases = cases();
    let records: Vec<Record> = cases.iter().flat_map(|(records, _)| records.clone()).collect();
    place.append(&[&records]);
    let events = place.events("fhir");
    let claimed: Vec<String> = events
        .iter()
        .map(|event| event["meta"]["profile"][0].as_str().unwrap_or_default().replace(PROFILES, ""))
        .collect();
    // The first is of the trail's own beginning.
    let should: Vec<&str> =
        std::iter::once("").chain(cases.iter().flat_map(|(_, claims)| claims.clone())).collect();
    assert_eq!(claimed, should);
    for event in &events {
        assert_eq!(faults(event), Vec::<String>::new(), "{event:#}");
    }
    let text = serde_json::to_string(&events).unwrap();
    assert!(text.contains("Observation/of-p1/_history/3") && text.contains("Observation.value"));
    assert!(text.contains(&STANDARD_QUERY.replace('\n', "")), "the request, as it was asked");
    let refused = events.iter().find(|event| event["outcomeDesc"] == "not-permitted").unwrap();
    assert_eq!((&refused["outcome"], refused.get("meta")), (&Value::from("4"), None));
}

/// `GET Observation?code=@x,"y"` in base64.
const STANDARD_QUERY: &str = "R0VUIE9ic2VydmF0aW9uP2NvZGU9QHgsInki";

#[test]
fn no_cell_runs() {
    let place = Place::new();
    place.append(&[&cases().into_iter().flat_map(|(records, _)| records).collect::<Vec<_>>()]);
    let text = place.exported(Format::Csv, "csv");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(head.len(), COLUMNS.len() + 2);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    for row in &rows {
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])), "{row:?}");
    }
    let subject = head.iter().position(|name| name == "subject").unwrap();
    assert!(rows.iter().any(|row| &row[subject] == "'=cmd|'/c calc'!A1"));
    // A row for each record of an answer: three for the search.
    let id = head.iter().position(|name| name == "request_id").unwrap();
    assert_eq!(rows.iter().filter(|row| &row[id] == "a4").count(), 3);
    assert_eq!(rows.iter().filter(|row| &row[id] == "b2").count(), 1);
}

#[test]
fn an_export_says_what_it_is_of_and_overwrites_nothing() {
    let place = Place::new();
    place.append(&[&cases().into_iter().flat_map(|(records, _)| records).collect::<Vec<_>>()]);
    let text = place.exported(Format::Ndjson, "out");
    let (_, printed, _) = run(|out, err| {
        crate::cli::audit::search_with(&place.settings, None, &Filter::default(), true, out, err)
    });
    assert_eq!(text, printed);
    let about: Value =
        serde_json::from_str(&fs::read_to_string(place.beside("out").join("export.json")).unwrap()).unwrap();
    let sum: String = digest::digest(&digest::SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(about["sha256"], sum);
    assert_eq!(about["records"], text.lines().count());
    assert_eq!((about["size"].as_u64(), about["damaged"].as_u64()), (Some(27), Some(0)));
    let (code, err) = place.export(Format::Ndjson, "out");
    assert!(code == PROBLEM && err.contains("already"), "{err}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is in a trail, its AuditEvents are R4 and meet what they claim, and every patient of an answer has one.
    #[test]
    fn any_record_becomes_sound_events(records in proptest::collection::vec(record(), 1..40)) {
        let place = Place::new();
        place.append(&[&records]);
        let events = place.events("fhir");
        for event in &events {
            prop_assert_eq!(faults(event), Vec::<String>::new(), "{:#}", event);
        }
        for record in &records {
            let Record::Decision(decision) = record else { continue };
            for patient in decision.released.iter().flat_map(|item| &item.patients) {
                let named = format!("Patient/{patient}");
                let is_told = events.iter().any(|event| {
                    entities(event, "BasicAuditEntityType", "XrequestId").iter().any(|it| it["what"]["identifier"]["value"] == decision.request_id)
                        && entities(event, "audit-entity-type", "1").iter().any(|it| it["what"]["reference"] == named.as_str())
                });
                prop_assert!(is_told, "{}", named);
            }
        }
    }
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777
}

/// Patient data in clear is for its owner only.
#[test]
fn an_export_is_for_its_owner_only() {
    let place = Place::new();
    for (format, name) in [(Format::Ndjson, "n"), (Format::Csv, "c"), (Format::Fhir, "f")] {
        place.exported(format, name);
        let modes = [
            mode(&place.beside(name)),
            mode(&place.beside(name).join(format.file())),
            mode(&place.beside(name).join("export.json")),
        ];
        assert_eq!(modes, [0o700, 0o600, 0o600], "{name}");
    }
}

/// The events of records in a trail of their own, without that of its beginning.
fn events_of(records: &[Record]) -> Vec<Value> {
    let place = Place::new();
    place.append(&[records]);
    let mut events = place.events("events");
    events.remove(0);
    events.iter().for_each(|event| assert_eq!(faults(event), Vec::<String>::new(), "{event:#}"));
    events
}

/// What an event says beside what its profile demands.
#[test]
fn events_tell_who_why_and_how_it_ended() {
    let mut failed = decided("e1", "read", &[], Verdict::Refuse);
    failed.status = 504;
    failed.reason = Some("upstream-timed-out".to_owned());
    let mut nobodys = decided("e2", "read", &["p1"], Verdict::Permit);
    nobodys.released[0].patients.clear();
    let mut found = decided("e3", "search-type", &["p1", "p2"], Verdict::Permit);
    found.released[1].patients.clear();
    let mut changed = decided("e4", "update", &["p1"], Verdict::Permit);
    changed.released = decided("e4", "read", &["p1"], Verdict::Permit).released;
    changed.released[0].reference = "Observation/seen".to_owned();
    let permits = [("e2", nobodys), ("e3", found), ("e4", changed)];
    let mut records = vec![Record::Decision(Box::new(failed))];
    for (id, decision) in permits {
        records.extend([Record::Decision(Box::new(decision)), ended(id, Ending::Complete)]);
    }
    let events = events_of(&records);
    let of = |id: &str| -> Vec<&Value> {
        let is_of = |event: &&Value| {
            entities(event, "BasicAuditEntityType", "XrequestId")[0]["what"]["identifier"]["value"] == id
        };
        events.iter().filter(is_of).collect()
    };
    assert_eq!(
        (&of("e1")[0]["outcome"], &of("e1")[0]["outcomeDesc"]),
        (&"8".into(), &"upstream-timed-out".into())
    );
    // A record that is nobody's is told as well.
    assert_eq!((of("e2").len(), of("e3").len()), (1, 2));
    assert_eq!(
        entities(of("e2")[0], "audit-entity-type", "2")[0]["what"]["reference"],
        "Observation/of-p1/_history/3"
    );
    assert!(of("e3").iter().any(|event| entities(event, "audit-entity-type", "1").is_empty()));
    assert!(of("e4")[0].to_string().contains("Observation/seen"), "what left beside what was written");
    let mut ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "every event has an id of its own");
    for event in &events {
        let user = agents(event, &["IRCP", "AUT"])[0];
        assert_eq!(
            (&user["role"][0]["text"], &user["purposeOfUse"][0]["coding"][0]["code"]),
            (&"nurse".into(), &"TREAT".into())
        );
        let token = agents(event, &["UserOauthAgent"])[0];
        assert_eq!(token["policy"][0], "urn:chartgate:token:00ff");
    }
}

/// Control records keep DICOM's codes for start and stop, and counted refusals are no successes.
#[test]
fn control_events_have_their_codes() {
    let control = |event: Event, details: &[(&str, &str)]| {
        let details = details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Record::Control(Control { time: "2026-03-01T09:00:00Z".parse().unwrap(), event, details })
    };
    let events = events_of(&[
        control(Event::Started, &[("policySet", "c0ffee")]),
        control(Event::Stopped, &[]),
        control(Event::RefusalsCounting, &[("first", "r1"), ("code", "token-missing")]),
        control(Event::RefusalsCounted, &[("first", "r1"), ("code:token-missing", "9")]),
    ]);
    let told = |event: &Value| {
        let code = |place: usize| event["subtype"][place]["code"].as_str().unwrap_or_default().to_owned();
        (code(0), code(1), event["outcome"].as_str().unwrap().to_owned())
    };
    let row = |one: &str, other: &str, outcome: &str| (one.to_owned(), other.to_owned(), outcome.to_owned());
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        [
            row("started", "110120", "0"),
            row("stopped", "110121", "0"),
            row("refusals-counting", "", "4"),
            row("refusals-counted", "", "4"),
        ]
    );
    assert!(events[3].to_string().contains("code:token-missing"));
}

/// Every column says what it is called, and no cell runs whatever it begins with.
#[test]
fn a_row_tells_everything() {
    let mut decision = decided("w1", "update", &["p1"], Verdict::Permit);
    decision.released = decided("w1", "read", &["p2"], Verdict::Permit).released;
    (decision.entry, decision.unit) = (Some(3), Some(1));
    decision.caller.as_mut().unwrap().subject = "-1+1".to_owned();
    let mut others: Vec<Record> = ["+x", "@x", "\tx", "\rx"]
        .into_iter()
        .map(|subject| {
            let mut other = decided("w2", "read", &[], Verdict::Permit);
            other.caller.as_mut().unwrap().subject = subject.to_owned();
            Record::Decision(Box::new(other))
        })
        .collect();
    let details = [("why".to_owned(), "test".to_owned())].into();
    others.push(Record::Control(Control { time: decision.time, event: Event::Stopped, details }));
    let mut lone = ended("w9", Ending::Unknown);
    if let Record::Outcome(outcome) = &mut lone {
        outcome.entry = Some(7);
    }
    others.push(lone);
    let place = Place::new();
    place.append(&[&[Record::Decision(Box::new(decision))], &others]);
    let text = place.exported(Format::Csv, "csv");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: &csv::StringRecord, name: &str| {
        row[head.iter().position(|column| column == name).unwrap()].to_owned()
    };
    let of = |id: &str| rows.iter().filter(|row| cell(row, "request_id") == id).collect::<Vec<_>>();
    let told = |row: &csv::StringRecord| {
        ["what", "reference", "patients", "entry", "unit"].map(|name| cell(row, name))
    };
    assert_eq!(told(of("w1")[0]), ["written", "Observation/of-p1", "p1", "3", "1"]);
    assert_eq!(told(of("w1")[1]), ["released", "Observation/of-p2", "p2", "3", "1"]);
    assert!(of("w1").iter().all(|row| cell(row, "elements") == "Observation.code Observation.value"));
    let subjects: Vec<String> =
        rows.iter().map(|row| cell(row, "subject")).filter(|it| it.starts_with('\'')).collect();
    assert_eq!(subjects, ["'-1+1", "'-1+1", "'+x", "'@x", "'\tx", "'\rx"]);
    assert!(rows.iter().any(|row| cell(row, "details") == "stopped why=test"));
    assert_eq!((of("w9").len(), cell(of("w9")[0], "entry")), (1, "7".to_owned()));
}
