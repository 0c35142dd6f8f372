//! The filter from outside: cases as data, a second opinion, laws, and the official examples.
//!
//! Owns: the evidence for P1, P3 and P7 as far as bytes go.
//! Must never: time anything, or pass silently without the corpus it names.
//! Look next: `tests/data/filter`, the cases; `tests/oracle`, the second opinion.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test may stop, and says what it skips"
)]

#[path = "filter/again.rs"]
mod again;
#[path = "filter/batches.rs"]
mod batches;
mod dice;
mod oracle;
#[path = "filter/places.rs"]
mod places;
#[path = "filter/sent.rs"]
mod sent;
#[path = "filter/shapes.rs"]
mod shapes;

use dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath, Kind, Primitive, ResourceType, Structure};
use chartgate::domain::filter::{self, Bases, Document, FilterFault, References, Verdict, Withheld};
use oracle::{Oracle, Tree};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde::Deserialize;

const UPSTREAM: &str = "https://emr.internal/fhir/R4";
const PUBLIC: &str = "https://fhir.hospital.example/fhir";
const BASES: Bases<'static> = Bases { upstream: &[UPSTREAM, PUBLIC], public: PUBLIC };

// --- from decisions to masks --------------------------------------------------------------------

fn masks(decisions: &BTreeMap<String, bool>) -> BTreeMap<ResourceType, Mask> {
    let mut by_type: BTreeMap<ResourceType, Vec<(ElementPath, bool)>> = BTreeMap::new();
    for (path, &keep) in decisions {
        let path = ElementPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        by_type.entry(path.resource_type()).or_default().push((path, keep));
    }
    by_type.into_iter().map(|(kind, decided)| (kind, Mask::new(kind, decided))).collect()
}

fn verdicts<'m>(document: &Document<'_>, masks: &'m BTreeMap<ResourceType, Mask>) -> Vec<Verdict<'m>> {
    let verdict = |facts: &Facts| masks.get(&facts.resource_type).map_or(Verdict::Withhold, Verdict::whole);
    document.records().iter().map(|record| verdict(&record.facts)).collect()
}

fn types(names: &BTreeSet<String>) -> BTreeSet<ResourceType> {
    names.iter().map(|name| ResourceType::from_name(name).expect("a resource type")).collect()
}

/// Filters the record at the root (or the `record`th) on the oracle's terms.
fn filtered(input: &str, oracle: &Oracle, record: usize) -> Result<String, Withheld> {
    let document = filter::parse(input.as_bytes(), &BASES).unwrap_or_else(|fault| panic!("{fault}: {input}"));
    let masks = masks(&oracle.decisions);
    emitted(&document, &verdicts(&document, &masks), oracle, record)
}

fn emitted(
    document: &Document<'_>,
    verdicts: &[Verdict<'_>],
    oracle: &Oracle,
    record: usize,
) -> Result<String, Withheld> {
    let references = References {
        hide_display: types(&oracle.hide_display),
        hide_identifier: types(&oracle.hide_identifier),
    };
    let mut out = b"before".to_vec();
    let emitted = document.emit(record, verdicts, &references, &BASES, &mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before").expect("what stood in the buffer stays").to_owned();
    assert!(emitted.is_ok() || text.is_empty(), "a withheld record leaves nothing behind: {text}");
    emitted.map(|_| text)
}

fn oracle(decisions: BTreeMap<String, bool>) -> Oracle {
    let bases = vec![UPSTREAM.to_owned(), PUBLIC.to_owned()];
    Oracle { decisions, bases, public: PUBLIC.to_owned(), ..Oracle::default() }
}

// --- cases as data --------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// One case. Types without a decision are withheld.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    hide_display: BTreeSet<String>,
    #[serde(default)]
    hide_identifier: BTreeSet<String>,
    #[serde(default)]
    record: usize,
    input: String,
    output: Option<String>,
    withheld: Option<String>,
    fault: Option<String>,
    facts: Option<ExpectedFacts>,
    /// The input is what a client sent.
    #[serde(default)]
    sent: bool,
    /// What the record holds beyond the mask; empty for nothing.
    outside: Option<String>,
    references: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ExpectedFacts {
    id: Option<String>,
    version: Option<String>,
    last_updated: Option<String>,
    patients: Option<BTreeSet<String>>,
    mentions: Option<BTreeSet<String>>,
    labels: Option<BTreeSet<String>>,
    status: Option<String>,
    category: Option<BTreeSet<String>>,
    code: Option<BTreeSet<String>>,
}

impl Case {
    fn parse(&self) -> Result<Document<'_>, FilterFault> {
        let parse = if self.sent { filter::parse_sent } else { filter::parse };
        parse(self.input.as_bytes(), &BASES)
    }
}

fn run(file: &str) {
    let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/filter").join(file);
    let cases: Cases = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(!cases.case.is_empty());
    cases.case.iter().for_each(check);
}

fn check(case: &Case) {
    let name = &case.name;
    if let Some(expected) = &case.fault {
        let fault = case.parse().expect_err(name);
        assert_eq!(&fault_name(fault), expected, "{name}");
        return;
    }
    if let Some(expected) = &case.references {
        assert_eq!(&case.parse().expect(name).references(case.record), expected, "{name}");
        return;
    }
    if let Some(expected) = &case.facts {
        let document = case.parse().expect(name);
        check_facts(name, expected, &document.records()[case.record].facts);
        return;
    }
    let decided = case.keep.iter().map(|path| (path.clone(), true));
    let decisions = decided.chain(case.drop.iter().map(|path| (path.clone(), false))).collect();
    if let Some(expected) = &case.outside {
        let document = case.parse().expect(name);
        let mask =
            masks(&decisions).remove(&document.records()[case.record].facts.resource_type).expect(name);
        assert_eq!(&document.outside(case.record, &mask).unwrap_or_default(), expected, "{name}");
        return;
    }
    let hide = (case.hide_display.clone(), case.hide_identifier.clone());
    let oracle = Oracle { hide_display: hide.0, hide_identifier: hide.1, ..oracle(decisions) };
    let found = filtered(&case.input, &oracle, case.record);
    match (&case.output, &case.withheld) {
        (Some(output), None) => assert_eq!(found.as_deref(), Ok(output.as_str()), "{name}"),
        (None, Some(reason)) => {
            assert_eq!(found.map_err(|why| format!("{why:?}")), Err(reason.clone()), "{name}")
        }
        _ => panic!("{name}: one of output, withheld, fault, facts"),
    }
    if case.record == 0 {
        agree(&case.input, &oracle).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

fn fault_name(fault: FilterFault) -> String {
    format!("{fault:?}").split('(').next().unwrap_or_default().to_owned()
}

fn check_facts(name: &str, expected: &ExpectedFacts, facts: &Facts) {
    let text = |what: &str, expected: &Option<String>, found: &Option<String>| {
        assert!(expected.is_none() || expected == found, "{name}: {what} {found:?}");
    };
    text("id", &expected.id, &facts.id);
    text("version", &expected.version, &facts.version);
    text("last_updated", &expected.last_updated, &facts.last_updated);
    text("status", &expected.status, &facts.status);
    let set = |what: &str, expected: &Option<BTreeSet<String>>, found: &BTreeSet<String>| {
        assert!(expected.as_ref().is_none_or(|expected| expected == found), "{name}: {what} {found:?}");
    };
    set("patients", &expected.patients, &facts.patients);
    set("mentions", &expected.mentions, &facts.mentions);
    set("labels", &expected.labels, &facts.labels);
    set("category", &expected.category, &facts.category);
    set("code", &expected.code, &facts.code);
}

#[test]
fn elements_and_extensions() {
    run("elements.toml");
}

#[test]
fn primitives_and_their_twins() {
    run("primitives.toml");
}

#[test]
fn marks_of_what_is_missing() {
    run("marks.toml");
}

#[test]
fn modifiers() {
    run("modifiers.toml");
}

#[test]
fn references_and_digests() {
    run("references.toml");
}

#[test]
fn urls_of_content() {
    run("attachments.toml");
}

#[test]
fn resources_in_resources() {
    run("contained.toml");
}

#[test]
fn strictness() {
    run("strict.toml");
}

#[test]
fn bodies_of_writers() {
    run("sent.toml");
}

#[test]
fn what_is_outside_a_mask() {
    run("outside.toml");
}

#[test]
fn facts_for_policy() {
    run("facts.toml");
}

// --- strictness beyond text files -----------------------------------------------------------------

#[test]
fn t_120_only_utf8_without_a_mark() {
    let fault = |bytes: &[u8]| filter::parse(bytes, &BASES).err().map(fault_name);
    assert_eq!(fault(b"\xef\xbb\xbf{}").as_deref(), Some("ByteOrderMark"));
    assert_eq!(fault(b"{\"resourceType\":\"Patient\",\"id\":\"\xc0\xaf\"}").as_deref(), Some("Encoding"));
    assert_eq!(fault(b"\xff\xfe{\x00}\x00").as_deref(), Some("Encoding"));
    assert_eq!(fault(b"").as_deref(), Some("Grammar"));
}

#[test]
fn t_123_depth_is_bounded() {
    let nested = |levels: usize| {
        let inner = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"resourceType":"Patient","x":{inner}}}"#)
    };
    assert!(filter::parse(nested(127).as_bytes(), &BASES).is_ok());
    for levels in [128, 100_000] {
        let fault = filter::parse(nested(levels).as_bytes(), &BASES).err().map(fault_name);
        assert_eq!(fault.as_deref(), Some("Depth"));
    }
}

#[test]
fn t_127_names_numbers_and_strings_are_bounded() {
    let fault = |member: String| {
        filter::parse(format!(r#"{{"resourceType":"Patient",{member}}}"#).as_bytes(), &BASES)
            .err()
            .map(fault_name)
    };
    assert_eq!(fault(format!(r#""{}":1"#, "k".repeat(1025))).as_deref(), Some("Size"));
    assert_eq!(fault(format!(r#""k":{}"#, "1".repeat(257))).as_deref(), Some("Size"));
    assert_eq!(fault(format!(r#""k":"{}""#, "s".repeat(12 * 1024 * 1024 + 1))).as_deref(), Some("Size"));
    assert_eq!(fault(format!(r#""k":["{}"]"#, "s".repeat(1024))), None);
}

#[test]
fn t_117_duplicates_are_found_among_many() {
    let many: Vec<String> = (0..500).map(|n| format!(r#""k{n}":0"#)).collect();
    let body = |last: &str| format!(r#"{{"resourceType":"Patient","x":{{{},{last}}}}}"#, many.join(","));
    assert!(filter::parse(body(r#""k500":0"#).as_bytes(), &BASES).is_ok());
    for twice in [r#""k250":0"#, r#""k\u0032\u0035\u0030":0"#] {
        let fault = filter::parse(body(twice).as_bytes(), &BASES).err().map(fault_name);
        assert_eq!(fault.as_deref(), Some("Duplicate"), "{twice}");
    }
}

#[test]
fn what_many_contained_resources_take_over_is_bounded() {
    let labels = |many: usize| {
        let label = |at: usize| format!(r#"{{"system":"http://a.example","code":"l{at}"}}"#);
        (0..many).map(label).collect::<Vec<_>>().join(",")
    };
    let parsed = |contained: usize, own: usize| {
        let own =
            if own > 0 { format!(r#","meta":{{"security":[{}]}}"#, labels(own)) } else { String::new() };
        let inside = format!(r#"{{"resourceType":"Basic"{own},"code":{{"text":"a"}}}}"#);
        let inside = vec![inside; contained].join(",");
        let security = labels(400);
        let text = format!(
            r#"{{"resourceType":"Basic","meta":{{"security":[{security}]}},"contained":[{inside}],"code":{{"text":"a"}}}}"#
        );
        let parsed = filter::parse(text.as_bytes(), &BASES);
        parsed
            .map(|document| document.records().iter().map(|one| one.facts.labels.len()).min())
            .map_err(fault_name)
    };
    // Each label is two texts: with its system and without.
    assert_eq!(parsed(200, 1), Ok(Some(800)));
    assert_eq!(parsed(400, 1), Err("Size".to_owned()));
    // Where there is nothing of its own, or all of it, what is passed down is not copied.
    assert_eq!(parsed(400, 0), Ok(Some(800)));
    assert_eq!(parsed(400, 400), Ok(Some(800)));
}

#[test]
fn resources_nest_to_a_bound() {
    let wrap = |inner: &str| {
        format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{inner}}}]}}"#)
    };
    let nested = |levels| (0..levels).fold(r#"{"resourceType":"Patient"}"#.to_owned(), |one, _| wrap(&one));
    assert!(filter::parse(nested(5).as_bytes(), &BASES).is_ok());
    let fault = filter::parse(nested(6).as_bytes(), &BASES).err().map(fault_name);
    assert_eq!(fault.as_deref(), Some("Nesting"));
}

#[test]
fn debug_output_holds_no_patient_data() {
    let body = r#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"self","url":"u-canary"}],
        "entry":[{"fullUrl":"f-canary","resource":{"resourceType":"Patient","id":"i-canary"}}]}"#;
    let document = filter::parse(body.as_bytes(), &BASES).unwrap();
    let shown = format!("{document:?} {:?} {:?}", document.records(), document.bundle());
    assert!(!shown.contains("canary"), "{shown}");
}

// --- envelope -------------------------------------------------------------------------------------

#[test]
fn a_searchset_is_an_envelope_and_its_entries_are_records() {
    let body = r#"{"resourceType":"Bundle","type":"searchset","total":2,
        "link":[{"relation":"next","url":"https://emr.internal/fhir/R4?page=2"}],
        "entry":[{"fullUrl":"https://emr.internal/fhir/R4/Patient/1","search":{"mode":"match"},
            "resource":{"resourceType":"Patient","id":"1","contained":[{"resourceType":"Practitioner","id":"c"}]}},
          {"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome","issue":[]}},
          {"fullUrl":"urn:x"}]}"#;
    let document = filter::parse(body.as_bytes(), &BASES).unwrap();
    assert_eq!(document.root_type(), filter::RootType::Bundle);
    let envelope = document.bundle().unwrap();
    assert_eq!(envelope.kind, "searchset");
    assert_eq!(envelope.links, [("next".to_owned(), format!("{UPSTREAM}?page=2"))]);
    let found: Vec<_> = envelope.entries.iter().map(|one| (one.mode.as_deref(), one.record)).collect();
    assert_eq!(found, [(Some("match"), Some(0)), (Some("outcome"), Some(2)), (None, None)]);
    let containers: Vec<_> = document.records().iter().map(|one| (one.container, one.contained)).collect();
    assert_eq!(containers, [(None, false), (Some(0), true), (None, false)]);
}

// --- the second opinion and the laws --------------------------------------------------------------

/// Filter and oracle say the same, and the laws hold for what they say.
fn agree(input: &str, oracle: &Oracle) -> Result<(), String> {
    compare(input, oracle, filtered(input, oracle, 0))
}

fn compare(input: &str, oracle: &Oracle, found: Result<String, Withheld>) -> Result<(), String> {
    let tree = Tree::parse(input).map_err(|error| error.to_string())?;
    let expected = oracle.record(&tree);
    let found = match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let tree = Tree::parse(&found).map_err(|error| format!("{error}: {found}"))?;
            if tree != expected {
                return Err(format!("filter {}\noracle {}\nof     {input}", tree.print(), expected.print()));
            }
            found
        }
        (Err(_), Err(_)) => return Ok(()),
        (Ok(found), Err(_)) => return Err(format!("the oracle withholds what the filter wrote: {found}")),
        (Err(why), Ok(expected)) => return Err(format!("{why}, but the oracle writes {}", expected.print())),
    };
    filter::parse(found.as_bytes(), &BASES).map_err(|fault| format!("{fault} in our own {found}"))?;
    Ok(())
}

impl Dice {
    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// Every resource in a record, itself first.
fn resources(tree: &Tree, owner: Structure, found: &mut Vec<Tree>) {
    found.push(tree.clone());
    inner_resources(tree, owner, found);
}

fn inner_resources(tree: &Tree, owner: Structure, found: &mut Vec<Tree>) {
    for (name, value) in tree.members() {
        let Some(property) = r4::property(owner, name) else { continue };
        for item in value.items() {
            match (r4::kind(property.structure), item.resource_type()) {
                (Kind::AnyResource, Some(kind)) => resources(item, r4::root(kind), found),
                (Kind::Complex, _) => inner_resources(item, property.structure, found),
                _ => {}
            }
        }
    }
}

/// Decisions on the types and paths that occur in a record.
fn random_decisions(tree: &Tree, dice: &mut Dice) -> BTreeMap<String, bool> {
    let kind = tree.resource_type().unwrap();
    let mut found = Vec::new();
    resources(tree, r4::root(kind), &mut found);
    let mut decisions = BTreeMap::new();
    let density = 1 + dice.roll(12);
    for (place, resource) in found.iter().enumerate() {
        let kind = resource.resource_type().unwrap();
        if place > 0 && dice.one_in(4) {
            continue;
        }
        let mut paths = BTreeSet::from([format!("{}.extension", kind.name())]);
        oracle::paths_in(resource, r4::root(kind), &[kind.name().to_owned()], &mut paths);
        decisions.insert(kind.name().to_owned(), !dice.one_in(3));
        let modifiers_kept = !dice.one_in(4);
        for path in paths {
            let Ok(parsed) = ElementPath::parse(&path) else { continue };
            let modifier = parsed.element().is_some_and(|element| element.modifier);
            if modifier && modifiers_kept {
                decisions.insert(path, true);
            } else if dice.one_in(density) {
                decisions.insert(path, dice.one_in(2));
            }
        }
    }
    decisions
}

fn random_oracle(tree: &Tree, dice: &mut Dice) -> Oracle {
    let mut oracle = oracle(random_decisions(tree, dice));
    for name in ["Patient", "Practitioner", "Organization"] {
        if dice.one_in(4) {
            oracle.hide_display.insert(name.to_owned());
        }
        if dice.one_in(6) {
            oracle.hide_identifier.insert(name.to_owned());
        }
    }
    oracle
}

/// The official examples, or none with a line that says so.
fn examples() -> Vec<(PathBuf, String)> {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/hl7-r4-examples");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let read = |path: PathBuf| (fs::read_to_string(&path).unwrap(), path);
    paths.into_iter().map(read).map(|(text, path)| (path, text)).collect()
}

fn is_record(text: &str) -> bool {
    let document = filter::parse(text.as_bytes(), &BASES);
    document.is_ok_and(|document| document.root_type() == filter::RootType::Single(0))
}

#[test]
fn every_example_is_understood() {
    for (path, text) in examples() {
        let document = filter::parse(text.as_bytes(), &BASES);
        assert!(document.is_ok(), "{}: {:?}", path.display(), document.err());
    }
}

#[test]
fn total_masks_copy_examples_byte_by_byte() {
    let decide = |kind: ResourceType| {
        let extensible = r4::property(r4::root(kind), "extension").is_some();
        let own = extensible.then(|| (format!("{}.extension", kind.name()), true));
        [(kind.name().to_owned(), true)].into_iter().chain(own)
    };
    let oracle = oracle(ResourceType::all().flat_map(decide).collect());
    for (path, text) in examples().into_iter().filter(|(_, text)| is_record(text)) {
        let found = filtered(&text, &oracle, 0);
        assert_eq!(found.as_deref(), Ok(text.trim()), "{}", path.display());
    }
}

#[test]
fn examples_under_random_masks_agree_with_the_oracle() {
    let mut dice = Dice(0x5eed_cafe_f00d);
    for (path, text) in examples().into_iter().filter(|(_, text)| is_record(text)) {
        let tree = Tree::parse(&text).unwrap();
        for _ in 0..if text.len() > 100_000 { 2 } else { 12 } {
            let oracle = random_oracle(&tree, &mut dice);
            agree(&text, &oracle).unwrap_or_else(|why| panic!("{}: {why}\n{oracle:?}", path.display()));
        }
    }
}

fn problems(text: &str) -> Vec<String> {
    let (_, issues) = fhirkit::from_json::<fhirkit::r4::Resource>(text).unwrap();
    issues
        .iter()
        .filter(|issue| issue.severity == fhirkit::Severity::Error)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn t_043_t_131_what_leaves_is_valid_r4_and_filtering_again_changes_nothing() {
    let mut dice = Dice(0xdead_beef_cafe);
    for (path, text) in examples().into_iter().filter(|(_, text)| is_record(text)) {
        let tree = Tree::parse(&text).unwrap();
        if text.len() > 100_000 || !problems(&text).is_empty() {
            continue;
        }
        for _ in 0..6 {
            let oracle = random_oracle(&tree, &mut dice);
            let Ok(found) = filtered(&text, &oracle, 0) else { continue };
            assert_eq!(problems(&found), Vec::<String>::new(), "{}: {found}\n{oracle:?}", path.display());
            if found.contains("\"masked\"") {
                // A mark inside a mark may stand where the mask keeps; the second time it stays there.
                continue;
            }
            let again = filtered(&found, &oracle, 0);
            assert_eq!(again.as_deref(), Ok(found.as_str()), "{}: {found} {oracle:?}", path.display());
        }
    }
}

/// Makes resources nobody would write: unknown names, empties, nulls, escapes, white space, odd references.
struct Maker {
    dice: Dice,
    serial: usize,
}

impl Maker {
    fn text(&mut self) -> String {
        self.serial += 1;
        let odd = ["", "\\u00e9", "\\n", "é", "\\\\", "\\ud83d\\ude00"][self.dice.roll(6)];
        format!("\"canary-{}-{odd}\"", self.serial)
    }

    fn space(&mut self) -> &'static str {
        if self.dice.one_in(8) { [" ", "\n  ", "\t", "\r\n"][self.dice.roll(4)] } else { "" }
    }

    fn resource(&mut self, kind: ResourceType, fuel: usize, id: Option<&str>) -> String {
        let mut members = self.members(r4::root(kind), fuel);
        members.retain(|member| !member.trim_start().starts_with("\"id\""));
        if let Some(id) = id {
            members.push(format!("\"id\":\"{id}\""));
        }
        let place = self.dice.roll(members.len() + 1);
        members.insert(place, format!("{}\"resourceType\":\"{}\"", self.space(), kind.name()));
        format!("{{{}{}}}", members.join(","), self.space())
    }

    fn members(&mut self, structure: Structure, fuel: usize) -> Vec<String> {
        let mut members = Vec::new();
        for element in r4::elements(structure) {
            let wanted = if element.min > 0 {
                5
            } else if fuel > 2 {
                3
            } else {
                5
            };
            let wanted = if element.min > 0 { !self.dice.one_in(wanted) } else { self.dice.one_in(wanted) };
            if !wanted || fuel == 0 {
                continue;
            }
            let kind = element.types[self.dice.roll(element.types.len())];
            let key = key_of(element, kind);
            let value = self.values(structure, element, kind, fuel - 1);
            let space = (self.space(), self.space(), self.space());
            members.push(format!("{}\"{key}\"{}:{}{value}", space.0, space.1, space.2));
            if r4::property(structure, &format!("_{key}")).is_some() && self.dice.one_in(3) {
                let twin = self.twins(element.many, fuel - 1);
                members.push(format!("\"_{key}\":{twin}"));
            }
        }
        if self.dice.one_in(6) {
            let (name, text) = (self.serial, self.text());
            members.push(format!("\"unknown{name}\":[{{\"x\":{text}}}]"));
        }
        members
    }

    fn values(&mut self, owner: Structure, element: &r4::Element, kind: Structure, fuel: usize) -> String {
        if !element.many {
            return self.value(owner, element, kind, fuel);
        }
        let items: Vec<String> = (0..self.dice.roll(4))
            .map(|_| {
                let null = matches!(r4::kind(kind), Kind::Primitive(_)) && self.dice.one_in(4);
                let value = if null { "null".to_owned() } else { self.value(owner, element, kind, fuel) };
                format!("{}{value}", self.space())
            })
            .collect();
        format!("[{}{}]", items.join(","), self.space())
    }

    fn value(&mut self, owner: Structure, element: &r4::Element, kind: Structure, fuel: usize) -> String {
        match r4::kind(kind) {
            Kind::Primitive(Primitive::Boolean) => ["true", "false"][self.dice.roll(2)].to_owned(),
            Kind::Primitive(Primitive::Number) => {
                ["0.010", "1E+2", "-7", "3.00"][self.dice.roll(4)].to_owned()
            }
            Kind::Primitive(Primitive::Text | Primitive::Xhtml) => self.string(owner, element),
            Kind::Resource | Kind::AnyResource => self.inner_resource(fuel),
            Kind::Complex => {
                let members = self.members(kind, fuel);
                format!("{{{}{}}}", members.join(","), self.space())
            }
        }
    }

    fn inner_resource(&mut self, fuel: usize) -> String {
        let name = ["Patient", "Practitioner", "Observation", "Basic"][self.dice.roll(4)];
        let kind = ResourceType::from_name(name).unwrap();
        self.serial += 1;
        let id = format!("c{}", self.serial);
        // A contained resource contains none itself (R4, dom-2).
        self.resource(kind, fuel.min(1), Some(&id))
    }

    fn string(&mut self, owner: Structure, element: &r4::Element) -> String {
        let choices: &[&str] = match (r4::type_name(owner), element.name) {
            ("Reference", "reference") => &[
                "Patient/p1",
                "Organization/o1/_history/3",
                "#",
                "#c3",
                "#c4",
                "#nowhere",
                "urn:uuid:1",
                "https://emr.internal/fhir/R4/Patient/p2",
                "https://fhir.hospital.example/fhir/Patient/p3",
                "http://elsewhere.example/Practitioner/x",
                "https:\\/\\/emr.internal/fhir/R4/Group/g",
            ],
            ("Reference", "type") => &["Patient", "Organization", "Nonsense"],
            ("Extension", "url") => &["http://one", "http://two", "http://three.example/a.b"],
            ("Bundle.entry", "fullUrl") => &["https://emr.internal/fhir/R4/Patient/p2", "urn:uuid:2"],
            _ => return self.text(),
        };
        format!("\"{}\"", choices[self.dice.roll(choices.len())])
    }

    fn twins(&mut self, many: bool, fuel: usize) -> String {
        if !many {
            return self.twin(fuel);
        }
        let items: Vec<String> = (0..self.dice.roll(4))
            .map(|_| if self.dice.one_in(2) { "null".to_owned() } else { self.twin(fuel) })
            .collect();
        format!("[{}]", items.join(","))
    }

    fn twin(&mut self, fuel: usize) -> String {
        let mut members = Vec::new();
        if self.dice.one_in(2) {
            members.push(format!("\"id\":{}", self.text()));
        }
        if self.dice.one_in(2) {
            let extension = r4::structure("Extension").unwrap();
            let item = format!("{{{}}}", self.members(extension, fuel.max(1)).join(","));
            members.push(format!("\"extension\":[{item}]"));
        }
        if self.dice.one_in(6) {
            members.push(format!("\"value\":{}", self.text()));
        }
        format!("{{{}}}", members.join(","))
    }
}

fn key_of(element: &r4::Element, kind: Structure) -> String {
    if !element.choice {
        return element.name.to_owned();
    }
    let (first, rest) = r4::type_name(kind).split_at(1);
    format!("{}{}{rest}", element.name, first.to_uppercase())
}

fn made(seed: u64) -> (String, Dice) {
    let mut maker = Maker { dice: Dice(seed | 1), serial: 0 };
    for _ in 0..8 {
        maker.dice.roll(2);
    }
    let all: Vec<ResourceType> = ResourceType::all().collect();
    let common = ["Patient", "Observation", "Parameters", "Composition", "Provenance", "Questionnaire"];
    let kind = if maker.dice.one_in(2) {
        ResourceType::from_name(common[maker.dice.roll(common.len())]).unwrap()
    } else {
        all[maker.dice.roll(all.len())]
    };
    let fuel = 1 + maker.dice.roll(4);
    (maker.resource(kind, fuel, Some("r1")), maker.dice)
}

/// The same records on every run: a change is judged by what it changes. Other seeds are for exploring.
const SEED: RngSeed = RngSeed::Fixed(20_261_121);

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn made_records_agree_with_the_oracle(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        for _ in 0..4 {
            let oracle = random_oracle(&tree, &mut dice);
            agree(&text, &oracle).map_err(|why| TestCaseError::fail(format!("{why}\n{oracle:?}")))?;
        }
    }

    /// P1: a string under a path that is not kept is nowhere in the output.
    #[test]
    fn t_037_t_039_canaries_stay(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        let oracle = random_oracle(&tree, &mut dice);
        if let Ok(found) = filtered(&text, &oracle, 0) {
            let mut hidden = Vec::new();
            let kind = tree.resource_type().unwrap();
            canaries(&oracle, &tree, r4::root(kind), &[kind.name().to_owned()], &mut hidden);
            for canary in hidden {
                prop_assert!(!found.contains(&canary), "{} in {}", canary, found);
            }
        }
    }

    /// P4: taking out what is withheld anyway changes no byte. Modifiers are left alone: that one is
    /// there may withhold a record (P7). Types in references count as far as names are hidden, so none are.
    #[test]
    fn p4_what_is_withheld_leaves_no_trace(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        let oracle = oracle(random_decisions(&tree, &mut dice));
        let kind = tree.resource_type().unwrap();
        let less = without_withheld(&oracle, &tree, r4::root(kind), &[kind.name().to_owned()]);
        prop_assert_eq!(filtered(&tree.print(), &oracle, 0), filtered(&less.print(), &oracle, 0));
    }

    /// No bytes make it panic.
    #[test]
    fn any_bytes_are_an_answer_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = filter::parse(&bytes, &BASES);
    }

    /// Nor do records with one byte changed, cut or doubled.
    #[test]
    fn damaged_records_are_an_answer_or_a_fault(seed in any::<u64>(), at in any::<usize>(), byte in any::<u8>(), how in 0..3) {
        let (text, mut dice) = made(seed);
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        match how {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => bytes.insert(at, byte),
        }
        if let Ok(document) = filter::parse(&bytes, &BASES) {
            let text = std::str::from_utf8(&bytes).expect("checked");
            prop_assert!(Tree::parse(text).is_ok(), "serde_json refuses {}", text);
            let tree = Tree::parse(text).unwrap();
            let oracle = random_oracle(&tree, &mut dice);
            let masks = masks(&oracle.decisions);
            let verdicts = verdicts(&document, &masks);
            for record in 0..document.records().len() {
                let _ = document.emit(record, &verdicts, &References::default(), &BASES, &mut Vec::new());
            }
        }
    }
}

/// The record without the members of which nothing is kept.
fn without_withheld(oracle: &Oracle, tree: &Tree, owner: Structure, path: &[String]) -> Tree {
    let mut members = Vec::new();
    for (name, value) in tree.members() {
        let Some(property) = r4::property(owner, name) else {
            if name == "resourceType" {
                members.push((name.clone(), value.clone()));
            }
            continue;
        };
        let inner = oracle.step(path, owner, property.element);
        let simple = matches!(r4::kind(property.structure), Kind::Primitive(_) | Kind::AnyResource);
        if simple && !oracle.keeps(&inner) && !property.element.modifier {
            continue;
        }
        let complex =
            r4::kind(property.structure) == Kind::Complex && r4::type_name(property.structure) != "Extension";
        let prune = |item: &Tree| without_withheld(oracle, item, property.structure, &inner);
        let value = match value {
            Tree::Array(items) if complex => Tree::Array(items.iter().map(prune).collect()),
            Tree::Object(_) if complex => prune(value),
            _ => value.clone(),
        };
        members.push((name.clone(), value));
    }
    Tree::Object(members)
}

/// Scalars with a canary that stand under paths that are not kept.
fn canaries(oracle: &Oracle, tree: &Tree, owner: Structure, path: &[String], hidden: &mut Vec<String>) {
    for (name, value) in tree.members() {
        let Some(property) = r4::property(owner, name) else {
            all_canaries(value, hidden);
            continue;
        };
        let inner = oracle.step(path, owner, property.element);
        for item in value.items() {
            match r4::kind(property.structure) {
                Kind::Complex if property.element.name == "extension" => {
                    let url = format!("extension('{}')", item.says("url").unwrap_or_default());
                    canaries(oracle, item, property.structure, &oracle::below(&inner, &url), hidden);
                }
                Kind::Complex => canaries(oracle, item, property.structure, &inner, hidden),
                Kind::Primitive(_) if !oracle.keeps(&inner) => all_canaries(item, hidden),
                _ => {}
            }
        }
    }
}

fn all_canaries(tree: &Tree, hidden: &mut Vec<String>) {
    match tree {
        Tree::Object(members) => members.iter().for_each(|(_, value)| all_canaries(value, hidden)),
        Tree::Array(items) => items.iter().for_each(|item| all_canaries(item, hidden)),
        Tree::Scalar(text) if text.contains("canary-") => hidden.push(text.clone()),
        Tree::Scalar(_) | Tree::Null => {}
    }
}
/// A made record on which filter and oracle once disagreed: a modifier deep inside a parameter that goes with its
/// only resource.
#[test]
fn what_goes_with_its_resource_takes_its_modifiers_along() {
    let (text, mut dice) = made(7_004_104_238_056_938_608);
    let tree = Tree::parse(&text).unwrap();
    for _ in 0..4 {
        agree(&text, &random_oracle(&tree, &mut dice)).unwrap();
    }
}
