//! Real input: Synthea's transaction Bundles and the official HL7 examples, through the shipped policies.
//!
//! Owns: the evidence that P1, P3 and P7 hold for records nobody here wrote, under every shipped role. All examples are
//! validated, and compared with the oracle and byte by byte; of Synthea's records every fifth is, and all are judged leaf
//! by leaf.
//! Must never: be skipped silently; with `CHARTGATE_REQUIRE_CORPUS` it fails instead. Nothing of the corpus is copied.
//! Look next: `tests/corpus/roles.rs`, who sees what; `random.rs`, a thousand other masks; `tests/oracle`, the second opinion.
#![cfg(feature = "demo")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a failing test panics, and a skipped one says so"
)]

mod dice;
#[path = "corpus/leaves.rs"]
mod leaves;
mod oracle;
mod python;
#[path = "corpus/random.rs"]
mod random;
#[path = "corpus/roles.rs"]
mod roles;
#[path = "corpus/second.rs"]
mod second;
#[path = "corpus/through_the_gate.rs"]
mod through_the_gate;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use chartgate::domain::fhir::shape::Shape;
use chartgate::domain::filter::{self, Bases, Document, References, RootType, Verdict, pretty};
use chartgate_sandbox::emr::Emr;
use oracle::{Oracle, Tree};
use roles::{Role, Sight};

const UPSTREAM: &str = "https://emr.internal/fhir/R4";
const PUBLIC: &str = "https://fhir.hospital.example/fhir";
/// The oracle is slow and plain, and so is the validator here: of Synthea's records, which are much alike, they see one
/// in this many, unless told to see more.
const ORACLE_EVERY: usize = 5;
/// Of Synthea's records one in this many is also asked for in a shape.
const SHAPE_EVERY: usize = 9;
const BASES: Bases<'static> = Bases { upstream: &[UPSTREAM, PUBLIC], public: PUBLIC };

/// How many times as many masks, and samples so many times as dense: `CHARTGATE_CORPUS_TIMES`, one unless told.
fn times() -> usize {
    let Some(told) = std::env::var_os("CHARTGATE_CORPUS_TIMES") else { return 1 };
    let times = told.to_str().and_then(|told| told.parse::<NonZeroUsize>().ok());
    times.expect("CHARTGATE_CORPUS_TIMES is a number, one or more").get()
}

/// One in how many is seen, of so many usually.
fn one_in(usual: usize) -> usize {
    (usual / times()).max(1)
}

/// The JSON files of a corpus folder in order of their names; `None`, and a line that says so, without the folder.
fn corpus(folder: &str) -> Option<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus").join(folder);
    let Ok(entries) = fs::read_dir(&folder) else {
        let required = std::env::var_os("CHARTGATE_REQUIRE_CORPUS").is_some_and(|value| value == "1");
        assert!(!required, "{} is not there", folder.display());
        eprintln!("SKIPPED: {} is not there", folder.display());
        return None;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    Some(paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect())
}

/// Errors that a validator of another make finds.
fn problems(text: &str) -> Vec<String> {
    let (_, issues) = fhirkit::from_json::<fhirkit::r4::Resource>(text).unwrap();
    let errors = issues.iter().filter(|issue| issue.severity == fhirkit::Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// Records that leave on their own, each with its place in the tree: the root, or the entries of an envelope.
fn units<'t>(document: &Document<'_>, tree: &'t Tree) -> Vec<(usize, &'t Tree)> {
    match (document.root_type(), document.bundle()) {
        (RootType::Single(record), _) => vec![(record, tree)],
        (RootType::Bundle, Some(envelope)) => {
            let entries = tree.member("entry").map(Tree::items).unwrap_or_default();
            let records = envelope.entries.iter().map(|entry| entry.record);
            let pair =
                |(record, entry): (Option<usize>, &'t Tree)| Some((record?, entry.member("resource")?));
            records.zip(entries).filter_map(pair).collect()
        }
        (RootType::Bundle, None) => Vec::new(),
    }
}

/// One record under one sight, checked in every way there is; what left.
fn released(
    name: &str,
    document: &Document<'_>,
    unit: (usize, &Tree),
    sight: &Sight<'_>,
    with_oracle: bool,
) -> Option<String> {
    let masks = sight.masks(document);
    let expected = with_oracle.then(|| second_opinion(document, &masks, unit.1, sight)).flatten();
    let verdicts: Vec<Verdict<'_>> =
        masks.iter().map(|mask| mask.as_deref().map_or(Verdict::Withhold, Verdict::whole)).collect();
    let (record, tree) = unit;
    let mut out = Vec::new();
    let emitted = document.emit(record, &verdicts, &sight.references, &BASES, &mut out);
    if emitted.is_err() {
        assert!(out.is_empty(), "{name}: a withheld record left bytes");
        assert!(!matches!(expected, Some(Some(_))), "{name} as {}: the oracle lets it out", sight.name);
        return None;
    }
    let text = String::from_utf8(out).unwrap();
    let again = filter::parse(text.as_bytes(), &BASES);
    assert!(again.is_ok(), "{name} as {}: {:?} in {text}", sight.name, again.err());
    if let Some(expected) = expected {
        let found = Tree::parse(&text).unwrap();
        assert!(Some(&found) == expected.as_ref(), "{name} as {}: the oracle disagrees", sight.name);
    }
    leaves::check(&format!("{name} as {}", sight.name), document, &masks, record, tree, &text);
    if with_oracle {
        let input = std::str::from_utf8(document.raw(record)).unwrap();
        leaves::check_bytes(&format!("{name} as {}", sight.name), input, &text);
    }
    Some(text)
}

/// Shapes a client may ask for, by turns; of `_elements` those that many types have.
fn shape(turn: usize, kind: ResourceType) -> Shape {
    let elements = r4::elements(r4::root(kind));
    let named = |at: usize| elements[(turn / 4 * 7 + at) % elements.len()].name.to_owned();
    match turn % 4 {
        0 => Shape::Summary,
        1 => Shape::Text,
        2 => Shape::Data,
        _ => Shape::Elements(vec![named(0), named(3)]),
    }
}

/// The same record for a client that wants it in a shape: nothing that policy or shape leaves out, nothing new, and no
/// mark where policy withholds nothing.
fn released_in_shape(
    name: &str,
    document: &Document<'_>,
    unit: (usize, &Tree),
    sight: &Sight<'_>,
    shape: &Shape,
) -> Option<String> {
    let (record, tree) = unit;
    let mut masks = sight.masks(document);
    let complete: Vec<bool> =
        masks.iter().map(|mask| mask.as_ref().is_some_and(|mask| mask.is_total())).collect();
    let policy = masks[record].clone()?;
    let mask = policy.and(&shape.mask(policy.resource_type()).expect("not whole"));
    let whole = mask.is_total();
    masks[record] = Some(Arc::new(mask));
    let mut verdicts = Vec::new();
    for (at, mask) in masks.iter().enumerate() {
        let mask = mask.as_deref();
        verdicts
            .push(mask.map_or(Verdict::Withhold, |mask| Verdict::Release { mask, complete: complete[at] }));
    }
    let mut out = Vec::new();
    let emitted = document.emit(record, &verdicts, &sight.references, &BASES, &mut out).ok()?;
    let name = format!("{name} as {} in {shape:?}", sight.name);
    assert!(emitted.subsetted || whole, "{name}");
    let text = String::from_utf8(out).unwrap();
    let again = filter::parse(text.as_bytes(), &BASES);
    assert!(again.is_ok(), "{name}: {:?} in {text}", again.err());
    leaves::check(&name, document, &masks, record, tree, &text);
    if complete.iter().all(|&complete| complete) && sight.references.is_empty() {
        let marks = |text: &str| text.matches("\"masked\"").count();
        assert!(marks(&text) <= marks(&tree.print()), "{name}: {text}");
    }
    Some(text)
}

/// What the oracle makes of the same masks; `None` where two records of one type have different masks, which it cannot
/// be told.
fn second_opinion(
    document: &Document<'_>,
    masks: &[Option<Arc<Mask>>],
    tree: &Tree,
    sight: &Sight<'_>,
) -> Option<Option<Tree>> {
    let mut by_type: BTreeMap<ResourceType, Option<Vec<String>>> = BTreeMap::new();
    for (record, mask) in document.records().iter().zip(masks) {
        let kept = mask.as_ref().map(|mask| mask.kept());
        if by_type.insert(record.facts.resource_type, kept.clone()).is_some_and(|before| before != kept) {
            return None;
        }
    }
    let mut decisions = BTreeMap::new();
    for (kind, kept) in by_type.into_iter().filter_map(|(kind, kept)| Some((kind.name(), kept?))) {
        decisions.insert(kind.to_owned(), false);
        if kept == [kind] {
            decisions.insert(format!("{kind}.extension"), true);
        }
        decisions.extend(kept.into_iter().map(|path| (path, true)));
    }
    let names = |types: &BTreeSet<ResourceType>| types.iter().map(|kind| kind.name().to_owned()).collect();
    let oracle = Oracle {
        decisions,
        asked: BTreeMap::new(),
        hide_display: names(&sight.references.hide_display),
        hide_identifier: names(&sight.references.hide_identifier),
        bases: vec![UPSTREAM.to_owned(), PUBLIC.to_owned()],
        public: PUBLIC.to_owned(),
    };
    Some(oracle.record(tree).ok())
}

/// Every official example under every shipped role: strict, valid, and nothing in it that is withheld.
#[test]
fn examples_under_every_role() {
    let Some(examples) = corpus("hl7-r4-examples") else { return };
    let began = Instant::now();
    let roles: Vec<Role> = roles::shipped();
    let (mut left, mut stayed, mut invalid, mut shaped) = (0, 0, 0, 0);
    let mut paths = BTreeSet::new();
    for (name, text) in &examples {
        let document =
            filter::parse(text.as_bytes(), &BASES).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let tree = Tree::parse(text).unwrap();
        let valid = problems(text).is_empty();
        invalid += usize::from(!valid);
        for unit in units(&document, &tree) {
            let kind = unit.1.resource_type().unwrap();
            oracle::paths_in(unit.1, r4::root(kind), &[kind.name().to_owned()], &mut paths);
            for (turn, role) in roles.iter().enumerate() {
                let sight = role.sight();
                let shape = shape(turn + left + stayed, kind);
                if let Some(found) = released_in_shape(name, &document, unit, &sight, &shape) {
                    shaped += 1;
                    let problems = if valid { problems(&found) } else { Vec::new() };
                    assert!(
                        problems.is_empty(),
                        "{name} as {} in {shape:?}: {problems:?} in {found}",
                        role.name
                    );
                }
                let Some(found) = released(name, &document, unit, &sight, true) else {
                    stayed += 1;
                    continue;
                };
                left += 1;
                if valid {
                    let problems = problems(&found);
                    assert!(problems.is_empty(), "{name} as {}: {problems:?} in {found}", role.name);
                    leaves::check_mandatory(&format!("{name} as {}", role.name), unit.1, &found);
                }
            }
        }
    }
    eprintln!(
        "{} examples ({invalid} not valid as given) with {} element paths: {left} released ({shaped} in a shape), {stayed} withheld, {:?}",
        examples.len(),
        paths.len(),
        began.elapsed()
    );
    assert!(left > 300 && shaped > 300 && stayed > 1000, "{left} {shaped} {stayed}");
}

/// A mask that keeps all gives the very bytes.
#[test]
fn examples_under_a_mask_that_keeps_all() {
    let Some(examples) = corpus("hl7-r4-examples") else { return };
    let masks: Vec<Mask> = ResourceType::all().map(keep_all).collect();
    let mask = |kind: ResourceType| masks.iter().find(|mask| mask.resource_type() == kind).unwrap();
    let mut compared = 0;
    for (name, text) in &examples {
        let document = filter::parse(text.as_bytes(), &BASES).unwrap();
        let records = document.records().iter();
        let verdicts: Vec<Verdict<'_>> =
            records.map(|one| Verdict::whole(mask(one.facts.resource_type))).collect();
        let RootType::Single(record) = document.root_type() else { continue };
        let mut out = Vec::new();
        document.emit(record, &verdicts, &References::default(), &BASES, &mut out).unwrap();
        assert_eq!(document.raw(record), out, "{name}");
        assert_eq!(String::from_utf8(out).unwrap(), text.trim(), "{name}");
        assert_eq!(
            document.outside(record, mask(document.records()[record].facts.resource_type)),
            None,
            "{name}"
        );
        assert!(filter::parse_sent(text.as_bytes(), &BASES).is_ok(), "{name}: as a writer sends it");
        let shown = String::from_utf8(pretty(text.as_bytes())).unwrap();
        assert!(Tree::parse(&shown).unwrap() == Tree::parse(text).unwrap(), "{name}: white space only");
        compared += 1;
    }
    assert!(compared > 400, "{compared}");
}

fn keep_all(kind: ResourceType) -> Mask {
    let decided = |path: String| (ElementPath::parse(&path).unwrap(), true);
    let extensible = r4::property(r4::root(kind), "extension").is_some();
    let own = extensible.then(|| decided(format!("{}.extension", kind.name())));
    Mask::new(kind, std::iter::once(decided(kind.name().to_owned())).chain(own))
}

/// Every transaction Bundle loads; every record of it is decided for every role, and what leaves is checked.
#[test]
fn synthea_under_every_role() {
    let Some(bundles) = corpus("synthea-r4") else { return };
    let began = Instant::now();
    let emr = Emr::new();
    let places = |name: &str| name.starts_with("hospital") || name.starts_with("practitioner");
    let (first, then): (Vec<_>, Vec<_>) = bundles.iter().partition(|(name, _)| places(name));
    for (name, text) in first.into_iter().chain(then) {
        let count = emr.load_transaction(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(count, text.matches("\"fullUrl\":").count(), "{name}");
    }
    let roles = roles::shipped();
    let (oracle_every, shape_every) = (one_in(ORACLE_EVERY), one_in(SHAPE_EVERY));
    let (mut records, mut shaped, mut validated, mut left) = (0_usize, 0, 0, vec![0_usize; roles.len()]);
    for (kind, _) in emr.census() {
        for id in emr.ids(&kind) {
            let name = format!("{kind}/{id}");
            let bytes = emr.read(&kind, &id).unwrap();
            let document = filter::parse(&bytes, &BASES).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            let tree = Tree::parse(std::str::from_utf8(&bytes).unwrap()).unwrap();
            records += 1;
            let sampled = records.is_multiple_of(oracle_every);
            let valid = sampled && problems(std::str::from_utf8(&bytes).unwrap()).is_empty();
            for (turn, (role, left)) in roles.iter().zip(&mut left).enumerate() {
                let patient = document.records()[0].facts.patients.iter().next().cloned();
                let sight = role.sight_of(patient.as_deref());
                if records.is_multiple_of(shape_every) {
                    let shape =
                        shape(turn + records / shape_every, document.records()[0].facts.resource_type);
                    shaped += usize::from(
                        released_in_shape(&name, &document, (0, &tree), &sight, &shape).is_some(),
                    );
                }
                let Some(found) = released(&name, &document, (0, &tree), &sight, sampled) else { continue };
                *left += 1;
                if valid {
                    validated += 1;
                    assert_eq!(problems(&found), Vec::<String>::new(), "{name} as {}: {found}", role.name);
                    leaves::check_mandatory(&format!("{name} as {}", role.name), &tree, &found);
                }
            }
        }
    }
    let left: Vec<String> =
        roles.iter().zip(left).map(|(role, left)| format!("{} {left}", role.name)).collect();
    eprintln!(
        "{} bundles, {records} records; released: {}; {shaped} in a shape, {validated} by the validator; {:?}",
        bundles.len(),
        left.join(", "),
        began.elapsed()
    );
    assert!(records > 2500 && shaped > 1000 && validated > 1000, "{records} {shaped} {validated}");
}
