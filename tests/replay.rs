//! A recorded day, decided again: what flips is what would have been decided otherwise, and nothing is guessed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

use chartgate::domain::access::{
    Disclosure, Fact, PolicySet, RecordDenial, Relation, Relations, Situation, Source, rehearse_record_known,
};
use chartgate::domain::audit::{Caller, Decision, Record, Released, Verdict};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::r4::ResourceType;
use chartgate::domain::workbench::replay::{Change, Count, Item, Recorded, Replay};
use chartgate::edge::journal::{self, Journal, create, generate_missing};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const WHEN: &str = "2026-03-01T09:00:00Z";

fn set(policies: &[String]) -> Arc<PolicySet> {
    let source = Source { name: "p.cedar".to_owned(), text: policies.concat() };
    Arc::new(PolicySet::load(&[source], None, None).unwrap_or_else(|problems| panic!("{problems:#?}")))
}

/// Somebody's reading of one record, with everything that the gate knew of it.
#[derive(Clone, Debug)]
struct Reading {
    role: &'static str,
    purpose: &'static str,
    resource: &'static str,
    label: bool,
    team: bool,
}

impl Reading {
    fn facts(&self) -> Facts {
        let mut facts = Facts::of_type(ResourceType::from_name(self.resource).unwrap());
        facts.id = Some("one".to_owned());
        facts.patients = BTreeSet::from(["p1".to_owned()]).into();
        facts.status = Some("final".to_owned());
        if self.label {
            facts.labels = BTreeSet::from(["R".to_owned()]).into();
        }
        facts
    }

    fn decide(&self, policies: &PolicySet) -> Result<Disclosure, RecordDenial> {
        let situation = Situation::rehearsal(&[self.role], self.purpose).with_fhir_user("Practitioner/x");
        let mut known = Relations::none();
        if self.team {
            known.note("p1", Relation::CareTeam);
        }
        rehearse_record_known(policies, &situation, &self.facts(), &known)
    }

    /// As the gate writes it down.
    fn recorded(&self, policies: &PolicySet) -> Recorded {
        let decided = self.decide(policies);
        let item = decided.as_ref().ok().map(|disclosure| Item {
            resource: ResourceType::from_name(self.resource).unwrap(),
            reference: format!("{}/one", self.resource),
            patients: BTreeSet::from(["p1".to_owned()]),
            written: false,
            mask: Arc::new(disclosure.mask().kept()),
        });
        Recorded {
            time: WHEN.parse().unwrap(),
            request_id: "r1".to_owned(),
            issuer: "https://idp.example".to_owned(),
            subject: "somebody".to_owned(),
            roles: vec![self.role.to_owned()],
            application: None,
            binding: None,
            purpose: self.purpose.to_owned(),
            network: None,
            interaction: "read".to_owned(),
            question: None,
            is_whole: true,
            permitted: item.is_some(),
            reason: item.is_none().then(|| "not-found".to_owned()),
            policy_set: Some(policies.hash().to_owned()),
            basis: decided.map(|one| one.basis().iter().cloned().collect()).unwrap_or_default(),
            had_emergency: false,
            items: item.into_iter().collect(),
            withheld: 0,
        }
    }
}

fn replay(present: &Arc<PolicySet>, candidate: &Arc<PolicySet>, day: &[Recorded]) -> (Vec<Change>, Count) {
    let mut engine = Replay::new(present, candidate);
    let mut changes = Vec::new();
    for recorded in day {
        engine.replay(recorded, &mut |found| changes.push(found.change.clone())).unwrap();
    }
    (changes, engine.count())
}

/// Conditions that an audit record can tell of, and those that it cannot.
const TOLD: [&str; 4] = [
    "context.purpose == \"TREAT\"",
    "principal in Role::\"b\"",
    "context.purpose != \"HRESCH\"",
    "resource is FHIR::Observation",
];
const UNTOLD: [&str; 3] =
    ["resource.labels.contains(\"R\")", "context.relations.contains(\"care-team\")", "context.mfa.age < 300"];
const ELEMENTS: [&str; 4] = ["", ".code", ".subject", ".status"];

fn policy(untold: bool) -> impl Strategy<Value = String> {
    let told = prop::sample::select(TOLD.to_vec());
    let condition =
        if untold { prop_oneof![told, prop::sample::select(UNTOLD.to_vec())].boxed() } else { told.boxed() };
    (any::<bool>(), any::<bool>(), condition.clone(), condition, prop::sample::select(ELEMENTS.to_vec())).prop_map(
        |(reads, forbids, one, other, element)| {
            let of_records = format!("action == Action::\"read\", resource) when {{ {one} && ({other} || {one}) }};\n");
            if reads {
                let effect = if forbids { "forbid" } else { "permit" };
                return format!("{effect} (principal, {of_records}");
            }
            // Of elements, the labels stand in the context, and no record is asked about. A modifier may not be forbidden.
            let one = one.replace("resource.labels", "context.labels").replace("resource is FHIR::Observation", "true");
            let path = format!("Observation{}", element);
            let effect = if forbids && !element.is_empty() && element != ".status" { "forbid" } else { "permit" };
            format!("{effect} (principal, action == Action::\"disclose\", resource in FHIR::Element::\"{path}\") when {{ {one} }};\n")
        },
    )
}

fn reading() -> impl Strategy<Value = Reading> {
    let (role, purpose) =
        (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["TREAT", "HRESCH"]));
    let resource = prop::sample::select(vec!["Observation", "Condition"]);
    (role, purpose, resource, any::<bool>(), any::<bool>())
        .prop_map(|(role, purpose, resource, label, team)| Reading { role, purpose, resource, label, team })
}

fn day(untold: bool) -> impl Strategy<Value = (Vec<String>, usize, Vec<Reading>)> {
    let policies = prop::collection::vec(policy(untold), 2..6);
    (policies, any::<prop::sample::Index>(), prop::collection::vec(reading(), 1..6)).prop_map(
        |(policies, at, day)| {
            let gone = at.index(policies.len());
            (policies, gone, day)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A set that says the same flips nothing and leaves nothing open, however little is known.
    #[test]
    fn the_same_policies_flip_nothing((policies, _, day) in day(true)) {
        let (present, same) = (set(&policies), set(&[&policies[..], &["// said otherwise\n".to_owned()]].concat()));
        prop_assert_ne!(present.hash(), same.hash());
        let recorded: Vec<Recorded> = day.iter().map(|reading| reading.recorded(&present)).collect();
        let released: Vec<Recorded> = recorded.into_iter().filter(|one| one.permitted).collect();
        let (changes, count) = replay(&present, &same, &released);
        prop_assert_eq!(changes, []);
        prop_assert_eq!((count.same, count.flipped, count.undecided), (released.len() as u64, 0, 0));
    }

    /// Without one policy, what is told to flip is what is decided otherwise, and what is told to stay is not; where the
    /// trail tells everything that policies ask, nothing is left open.
    #[test]
    fn what_flips_is_decided_otherwise((policies, gone, day) in day(true), (plain, plainly_gone, plain_day) in day(false)) {
        for (policies, gone, day, told) in [(policies, gone, day, false), (plain, plainly_gone, plain_day, true)] {
            let mut left = policies.clone();
            left.remove(gone);
            let (present, candidate) = (set(&policies), set(&left));
            for reading in day {
                let recorded = reading.recorded(&present);
                if !recorded.permitted {
                    continue;
                }
                let (changes, count) = replay(&present, &candidate, std::slice::from_ref(&recorded));
                let then = reading.decide(&present).unwrap();
                let now = reading.decide(&candidate);
                let change = changes.first().cloned().unwrap_or_default();
                // Whether the record has modifiers that would be left out, no trail tells.
                let open = change.missing.iter().any(|fact| *fact != Fact::Modifiers);
                prop_assert!(!told || !open, "{:?}", change);
                match &now {
                    Err(_) => {
                        prop_assert!(change.permitted == Some(false) || !change.missing.is_empty(), "{:?}", change);
                    }
                    Ok(now) => {
                        prop_assert_eq!(change.permitted, None);
                        let (before, after) = (then.mask().kept(), now.mask().kept());
                        if change.missing.is_empty() {
                            prop_assert_eq!(change.is_none(), before == after, "{:?} from {:?} to {:?}", change, before, after);
                        }
                        let covers = |disclosure: &Disclosure, path: &String| {
                            let path = chartgate::domain::fhir::r4::ElementPath::parse(path).unwrap();
                            disclosure.mask().covers(&path)
                        };
                        for path in &change.hidden {
                            prop_assert!(covers(&then, path) && !covers(now, path), "{} is not hidden", path);
                        }
                        for path in &change.shown {
                            prop_assert!(!covers(&then, path) && covers(now, path), "{} is not shown", path);
                        }
                    }
                }
                prop_assert_eq!(count.same + count.flipped + count.undecided, 1);
            }
        }
    }
}

/// What the trail does not tell is named, and only where it matters.
#[test]
fn what_is_not_recorded_is_undecided() {
    let base = [
        "permit (principal, action == Action::\"read\", resource);\n",
        "permit (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation\");\n",
    ]
    .map(str::to_owned);
    let present = set(&base);
    let reading = Reading { role: "a", purpose: "TREAT", resource: "Observation", label: false, team: true };
    for (more, expected) in [
        (
            "forbid (principal, action == Action::\"read\", resource) when { resource.labels.contains(\"R\") };",
            &[Fact::Labels][..],
        ),
        (
            "forbid (principal, action == Action::\"read\", resource) when { context.mfa.age > 300 };",
            &[Fact::SecondFactor],
        ),
        (
            "forbid (principal, action == Action::\"read\", resource) when { resource.patients.contains(Patient::\"p2\") };",
            &[],
        ),
        (
            "forbid (principal, action == Action::\"read\", resource) when { context.purpose == \"HRESCH\" && resource.labels.contains(\"R\") };",
            &[],
        ),
        (
            "forbid (principal in Role::\"b\", action == Action::\"read\", resource) when { context.relations.contains(\"care-team\") };",
            &[],
        ),
        (
            "forbid (principal, action == Action::\"read\", resource) unless { context.relations.contains(\"care-team\") };",
            &[Fact::Relations],
        ),
    ] {
        let candidate = set(&[&base[..], &[more.to_owned()]].concat());
        let (changes, _) = replay(&present, &candidate, &[reading.recorded(&present)]);
        let missing: Vec<Fact> = changes.iter().flat_map(|change| change.missing.clone()).collect();
        assert_eq!(missing, expected, "{more}");
        assert!(changes.iter().all(|change| !change.is_flip()), "{more}: {changes:?}");
    }
}

// --- the command --------------------------------------------------------------------------------

struct House {
    folder: tempfile::TempDir,
}

impl House {
    fn new(policies: &str) -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(house.at("gate.toml"), include_str!("data/config/least.toml")).unwrap();
        house.policies("policies", policies);
        let trail = house.trail();
        generate_missing(&trail).unwrap();
        create(&trail, WHEN.parse().unwrap()).unwrap();
        house
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn policies(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.at(name)).unwrap();
        std::fs::write(self.at(name).join("p.cedar"), text).unwrap();
    }

    fn trail(&self) -> journal::Settings {
        journal::Settings {
            directory: self.at("audit"),
            signing_key: self.at("audit.key"),
            encryption_key: self.at("audit.aes"),
        }
    }

    fn append(&self, records: &[Record]) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let journal = Journal::open(&self.trail()).unwrap();
        for some in records.chunks(500) {
            let _receipt = runtime.block_on(journal.append(some)).unwrap();
        }
        runtime.block_on(journal.close()).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
        let output = command.current_dir(&self.folder).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

const BASE: &str = "
    @id(\"opens\") permit (principal in Role::\"nurse\", action in Action::\"view\", resource)
    when { context.purpose == \"TREAT\" && (resource is FHIR::Observation || resource is FHIR::Patient) };
    @id(\"shows\") permit (principal in Role::\"nurse\", action == Action::\"disclose\", resource in FHIR::Element::\"Observation\");
    @id(\"names\") permit (principal in Role::\"nurse\", action == Action::\"disclose\", resource in FHIR::Element::\"Patient.name\");
";

fn decision(id: &str, verdict: Verdict, request: &str, hash: &str) -> Decision {
    let mut decision = Decision::new(WHEN.parse::<Timestamp>().unwrap(), id.to_owned(), verdict);
    decision.caller = Some(Caller {
        issuer: "https://idp.hospital.example".to_owned(),
        subject: "nurse-1".to_owned(),
        roles: vec!["nurse".to_owned()],
        ..Caller::default()
    });
    decision.purposes = vec!["TREAT".to_owned()];
    decision.request = request.to_owned();
    let kind = if request.contains('?') { "search-type" } else { "read" };
    decision.interaction = kind.to_owned();
    decision.policy_set = Some(hash.to_owned());
    decision
}

fn released(id: &str, request: &str, hash: &str, records: &[(&str, &str)]) -> Record {
    let mut decision = decision(id, Verdict::Permit, request, hash);
    let item = |(reference, mask): &(&str, &str)| Released {
        reference: (*reference).to_owned(),
        version: None,
        patients: BTreeSet::from(["p1".to_owned()]),
        mask: Arc::new(vec![(*mask).to_owned()]),
    };
    decision.released = records.iter().map(item).collect();
    Record::Decision(Box::new(decision))
}

fn refused(id: &str, request: &str, hash: &str, reason: &str) -> Record {
    let mut decision = decision(id, Verdict::Refuse, request, hash);
    decision.reason = Some(reason.to_owned());
    Record::Decision(Box::new(decision))
}

fn filled() -> House {
    let house = House::new(BASE);
    let present = chartgate::edge::policy_files::load(&house.at("policies")).unwrap();
    let hash = present.hash();
    house.append(&[
        released("r1", "GET Observation/o1", hash, &[("Observation/o1", "Observation")]),
        released(
            "r2",
            "GET Observation?patient=p1",
            hash,
            &[("Observation/o1", "Observation"), ("Observation/o2", "Observation")],
        ),
        released("r3", "GET Patient/p1", hash, &[("Patient/p1", "Patient.name")]),
        refused("r4", "GET Condition?patient=p1", hash, "type-not-permitted"),
        refused("r5", "GET Patient/p9", hash, "token-missing"),
    ]);
    house
}

/// The lines told of the day under a candidate.
fn replayed(house: &House, candidate: &str) -> Vec<Value> {
    house.policies("candidate", candidate);
    let day = ["--day", "2026-03-01", "--json"];
    let order = ["policy", "replay", "--config", "gate.toml", "candidate"];
    let (_, out, err) = house.run(&[&order[..], &day].concat());
    assert_eq!(err, "");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Candidates, and what must be told of the day: the count, and words of the table.
#[test]
fn the_command_lists_what_flips() {
    let house = filled();
    let replayed = |candidate: &str| replayed(&house, candidate);
    let counted = |line: &Value| ["same", "flipped", "undecided"].map(|name| line[name].as_u64().unwrap());
    let same = replayed(&format!("{BASE}// the same\n"));
    assert_eq!((same.len(), counted(&same[0]), &same[0]["ok"]), (1, [6, 0, 0], &json!(true)), "{same:#?}");

    let gone = replayed(&BASE.replace("resource is FHIR::Observation || ", ""));
    assert_eq!(counted(gone.last().unwrap()), [3, 3, 0], "{gone:#?}");
    assert!(gone[..3].iter().all(|line| line["becomes"] == "refuse" && line["patients"] == json!(["p1"])));

    let less = replayed(&format!(
        "{BASE}forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation.note\");"
    ));
    assert_eq!(counted(less.last().unwrap()), [3, 3, 0], "{less:#?}");
    assert_eq!((&less[0]["hidden"], &less[0]["becomes"]), (&json!(["Observation.note"]), &Value::Null));

    let more = replayed(&BASE.replace("Patient.name", "Patient"));
    assert_eq!(counted(more.last().unwrap()), [5, 1, 0], "{more:#?}");
    let shown = more[0]["shown"].as_array().unwrap();
    assert!(
        shown.contains(&json!("Patient.birthDate")) && !shown.contains(&json!("Patient.name")),
        "{shown:?}"
    );

    let opened = replayed(&format!("{BASE}
        permit (principal in Role::\"nurse\", action in Action::\"view\", resource is FHIR::Condition);
        permit (principal in Role::\"nurse\", action == Action::\"disclose\", resource in FHIR::Element::\"Condition\");"));
    assert_eq!(counted(opened.last().unwrap()), [5, 1, 0], "{opened:#?}");
    assert_eq!(
        (&opened[0]["was"], &opened[0]["becomes"], &opened[0]["requestId"]),
        (&json!("refuse"), &json!("permit"), &json!("r4"))
    );
}

/// What is undecided is told with the fact, in both forms; and the reading is left word of.
#[test]
fn the_command_tells_what_it_cannot_know() {
    let house = filled();
    let counted = |line: &Value| ["same", "flipped", "undecided"].map(|name| line[name].as_u64().unwrap());
    let marked = replayed(
        &house,
        &format!(
            "{BASE}forbid (principal, action, resource is FHIR::Observation) when {{ resource.labels.contains(\"R\") }};"
        ),
    );
    assert_eq!(counted(marked.last().unwrap()), [3, 0, 3], "{marked:#?}");
    assert_eq!(marked[0]["undecided"], json!(["labels"]));

    let (code, out, _) = house.run(&["policy", "replay", "--config", "gate.toml", "candidate"]);
    for said in [
        "nurse-1 (nurse)",
        "3 x Observation of p1: undecided, not recorded: labels",
        "5 decisions with 4 records: 3 stay, 0 flip, 3 undecided",
    ] {
        assert!(out.contains(said), "{said} in {out}");
    }
    assert_eq!(code, 1);
    let (code, out, _) =
        house.run(&["policy", "replay", "--config", "gate.toml", "candidate", "--day", "2026-03-02"]);
    assert!(code == 0 && out.starts_with("0 decisions"), "{out}");
    // Reading the trail was itself left word of.
    let slips = std::fs::read_dir(house.at("audit")).unwrap();
    assert!(
        slips
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .any(|name| name.starts_with("reading-"))
    );
    let (code, _, err) = house.run(&["policy", "replay", "--config", "gate.toml", "nowhere"]);
    assert!(code == 1 && err.contains("nowhere"), "{err}");
}

/// A request of the trail is explained with what was recorded, and says when the policies are others.
#[test]
fn a_request_of_the_trail_is_explained() {
    let house = filled();
    let explain =
        |more: &[&str]| house.run(&[&["policy", "explain", "--config", "gate.toml"], more].concat());
    let (code, out, err) = explain(&["--request", "r1"]);
    assert_eq!(code, 0, "{out}{err}");
    for said in [
        "nurse-1 (nurse), for TREAT: GET Observation/o1 was permitted",
        "Observation/o1: with the policies at hand it is permitted",
        "permits that hold\n    opens",
    ] {
        assert!(out.contains(said), "{said} in {out}");
    }
    assert!(!out.contains("another"), "{out}");
    let (code, out, _) = explain(&["--request", "r4", "--json"]);
    let told: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (code, &told["reason"], &told["samePolicies"], &told["permitted"]),
        (1, &json!("type-not-permitted"), &json!(true), &json!(false)),
        "{told:#}"
    );
    house.policies(
        "policies",
        &format!("{BASE}forbid (principal, action, resource is FHIR::Observation) when {{ resource.labels.contains(\"R\") }};"),
    );
    let (_, out, _) = explain(&["--request", "r1"]);
    for said in [
        "the policies at hand are not those that decided",
        "it is not decided by what the trail tells",
        "it matters: labels",
    ] {
        assert!(out.contains(said), "{said} in {out}");
    }
    let (code, _, err) = explain(&["--request", "r99"]);
    assert!(code == 1 && err.contains("no decision"), "{err}");
    let (code, _, err) = house.run(&["policy", "explain", "policies", "--request", "r1"]);
    assert!(code == 2 && err.contains("--config"), "{err}");
}

/// A long trail is read in one pass, and what is the same is asked once.
#[test]
fn what_is_the_same_is_asked_once() {
    let house = House::new(BASE);
    let present = chartgate::edge::policy_files::load(&house.at("policies")).unwrap();
    let many: Vec<Record> = (0..2_000)
        .map(|at| {
            released(
                &format!("r{at}"),
                "GET Observation/o1",
                present.hash(),
                &[("Observation/o1", "Observation")],
            )
        })
        .collect();
    house.append(&many);
    house.policies("candidate", &format!("{BASE}forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation.note\");"));
    let (code, out, _) =
        house.run(&["policy", "replay", "--config", "gate.toml", "candidate", "--json", "--scan"]);
    let count: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, &count["flipped"], &count["situations"]), (1, &json!(2_000), &json!(1)));
    assert!(Path::new(&house.at("audit")).is_dir());
}
