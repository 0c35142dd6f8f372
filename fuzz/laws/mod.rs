//! What fuzzers ask of the filter, of masks and of changes; `tests/fuzz.rs` asks the same of the seeds and of what is near
//! them.
//!
//! Owns: the laws, one function a target. An input is read from the front: choices, a byte or eight each, then the
//! text; so a seed is a text file that opens with printable choices.
//! Must never: depend on a fuzzer, or accept less than the law because the bytes are odd.
//! Look next: `filter/fuzz_targets`, a line for each; `seeds`, where a search begins.

mod again;
#[path = "../../tests/oracle/mod.rs"]
mod oracle;

pub use again::again;

use std::collections::{BTreeMap, BTreeSet};

use chartgate::domain::change;
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::interaction::PatchFormat;
use chartgate::domain::fhir::mask::{Mask, MaskCursor};
use chartgate::domain::fhir::r4::{self, Element, ElementPath, ResourceType, Structure};
use chartgate::domain::filter::{self, Bases, Batches, Document, References, RootType, Verdict};
use oracle::Oracle;

const BASES: Bases<'static> = Bases { upstream: &["https://emr/fhir"], public: "https://public/fhir" };

/// Takes one choice of eight bytes.
fn choice(bytes: &[u8]) -> (u64, &[u8]) {
    let (head, rest) = bytes.split_at(bytes.len().min(8));
    let number = head.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    // Spread, so that printable choices reach every bit.
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 3), rest)
}

/// Takes one choice of a byte.
fn byte(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// Decisions on the elements of a type, by the bits of a choice.
fn decisions(kind: ResourceType, choice: u64) -> Vec<(String, bool)> {
    let bit = |at: usize| (choice >> (at % 64)) & 1 == 1;
    let elements = r4::elements(r4::root(kind)).iter().enumerate();
    let own = elements.map(|(at, one)| (format!("{}.{}", kind.name(), one.name), bit(at + 1)));
    own.chain([(kind.name().to_owned(), bit(0))]).collect()
}

fn mask(kind: ResourceType, choice: u64) -> Mask {
    let decided = decisions(kind, choice).into_iter();
    Mask::new(kind, decided.filter_map(|(path, keep)| Some((ElementPath::parse(&path).ok()?, keep))))
}

fn masks(document: &Document<'_>, choice: u64) -> Vec<Mask> {
    document.records().iter().map(|record| mask(record.facts.resource_type, choice)).collect()
}

/// Any answer under any masks: what leaves is taken apart again.
pub fn filter(bytes: &[u8]) {
    let (choice, body) = choice(bytes);
    let Ok(document) = filter::parse(body, &BASES) else { return };
    let masks = masks(&document, choice);
    let verdicts: Vec<_> = masks.iter().map(Verdict::whole).collect();
    for record in 0..verdicts.len() {
        let mut out = Vec::new();
        if document.emit(record, &verdicts, &References::default(), &BASES, &mut out).is_ok() {
            assert!(filter::parse(&out, &BASES).is_ok(), "what leaves can be read again");
        } else {
            assert!(out.is_empty(), "a withheld record leaves nothing");
        }
    }
}

/// Any record under any masks: the filter writes what the second opinion writes.
pub fn oracle(bytes: &[u8]) {
    let (choice, body) = choice(bytes);
    let Ok(document) = filter::parse(body, &BASES) else { return };
    let RootType::Single(record) = document.root_type() else { return };
    let text = std::str::from_utf8(body).expect("parsed");
    let tree = oracle::Tree::parse(text).expect("the filter is at least as strict");
    let types = document.records().iter().map(|record| record.facts.resource_type);
    let known = |path: &String| ElementPath::parse(path).is_ok();
    let mut decisions: BTreeMap<String, bool> =
        types.flat_map(|kind| decisions(kind, choice)).filter(|(path, _)| known(path)).collect();
    let kind = tree.resource_type().expect("parsed");
    let mut deep = BTreeSet::new();
    oracle::paths_in(&tree, r4::root(kind), &[kind.name().to_owned()], &mut deep);
    // One in four of the paths that occur is decided on its own.
    let bit = |at: usize| (choice.rotate_right(7) >> (at % 61)) & 1 == 1;
    let deep = deep.into_iter().enumerate().filter(|(at, path)| bit(*at) && bit(at + 1) && known(path));
    decisions.extend(deep.map(|(at, path)| (path, bit(at + 2))));
    let mask = |kind| {
        let decided =
            decisions.iter().filter_map(|(path, keep)| Some((ElementPath::parse(path).ok()?, *keep)));
        Mask::new(kind, decided.filter(|(path, _)| path.resource_type() == kind))
    };
    let masks: Vec<Mask> = document.records().iter().map(|record| mask(record.facts.resource_type)).collect();
    let verdicts: Vec<_> = masks.iter().map(Verdict::whole).collect();
    let bases = BASES.upstream.iter().map(|base| (*base).to_owned()).collect();
    let oracle = Oracle { decisions, bases, public: BASES.public.to_owned(), ..Oracle::default() };
    let mut out = Vec::new();
    let left = document.emit(record, &verdicts, &References::default(), &BASES, &mut out).is_ok();
    let found = left.then(|| oracle::Tree::parse(&String::from_utf8(out).expect("text")).expect("JSON"));
    assert!(
        found == oracle.record(&tree).ok(),
        "the oracle disagrees with {:?}",
        found.map(|one| one.print())
    );
}

/// All that is said of a record; `Debug` names its type only.
fn spelled(facts: &Facts) -> String {
    let Facts {
        resource_type,
        id,
        version,
        last_updated,
        patients,
        mentions,
        labels,
        status,
        category,
        code,
        content,
    } = facts;
    let sets = [patients, mentions, labels, category, code].map(|set| (**set).clone());
    format!("{} {id:?} {version:?} {last_updated:?} {status:?} {sets:?} {content:?}", resource_type.name())
}

/// What is read of a searchset: its total, and each entry's address and record.
fn read(text: &[u8]) -> Option<(Option<u64>, Vec<String>)> {
    let document = filter::parse(text, &BASES).ok()?;
    let envelope = document.bundle().filter(|envelope| envelope.kind == "searchset")?;
    let entries = envelope.entries.iter().map(|entry| {
        let record = entry.record.and_then(|record| document.records().get(record));
        let facts = record.map(|record| spelled(&record.facts));
        let raw = entry.record.map(|record| document.raw(record));
        format!("{:?} {:?} {raw:?} {facts:?}", entry.full_url, entry.mode)
    });
    Some((envelope.total, entries.collect()))
}

fn cut<'p>(pieces: impl Iterator<Item = &'p [u8]>, batch_bytes: usize) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    let (mut batches, mut found) = (Batches::bounded("searchset", batch_bytes), Vec::new());
    for piece in pieces {
        batches.feed(piece, &mut found).ok()?;
    }
    let (last, frame) = batches.finish().ok()?;
    found.extend(last);
    Some((found, frame))
}

/// Any Bundle cut in any way: the same batches and envelope, and together they say what the whole says.
pub fn pieces(bytes: &[u8]) {
    let (piece_bytes, rest) = byte(bytes);
    let (batch_bytes, body) = byte(rest);
    let batch_bytes = usize::from(batch_bytes) * 4;
    let found = cut(std::iter::once(body), batch_bytes);
    assert!(found == cut(body.chunks(usize::from(piece_bytes).max(1)), batch_bytes), "cut another way");
    let joined = found.and_then(|(batches, frame)| {
        let (total, mut entries) = read(&frame)?;
        for batch in batches {
            entries.extend(read(&batch)?.1);
        }
        Some((total, entries))
    });
    assert_eq!(joined, read(body), "batches are not the whole");
}

/// A content reference continues where its content is defined; unless that is around it, it must be kept here as well.
fn by_name<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
    let here = cursor.child(element.name);
    let Some(path) = element.rewind else { return here };
    let owner = format!("{}.", r4::type_name(owner));
    if owner.starts_with(&format!("{path}.")) || here.keeps() { here.rewind(path) } else { here }
}

/// Below these steps: the element's name and structure, or none at a leaf.
fn descend(structure: Structure, step: u8) -> Option<(&'static Element, Structure)> {
    let elements = r4::elements(structure);
    let element = elements.get(usize::from(step) % elements.len().max(1))?;
    Some((element, *element.types.get(usize::from(step) % element.types.len().max(1))?))
}

/// Any mask, walked along by numbers and by names: both lead to the same decisions. The first byte is the type, then
/// lines: the last is the walk, the others are decisions that keep where the first byte is odd.
pub fn mask_compiler(bytes: &[u8]) {
    let (kind, rest) = byte(bytes);
    let kinds: Vec<ResourceType> = ResourceType::all().collect();
    let Some(&kind) = kinds.get(usize::from(kind) % kinds.len()) else { return };
    let mut lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').take(64).collect();
    let walk = lines.pop().unwrap_or_default();
    let decided = lines.into_iter().filter_map(|line| {
        let (keep, steps) = byte(line);
        let (mut path, mut structure) = (kind.name().to_owned(), r4::root(kind));
        for step in steps.iter().take(8) {
            let Some((element, below)) = descend(structure, *step) else { break };
            path = format!("{path}.{}", element.name);
            structure = below;
        }
        Some((ElementPath::parse(&path).ok()?, keep % 2 == 1))
    });
    let mask = Mask::new(kind, decided);
    let (mut cursor, mut structure) = (mask.cursor(), r4::root(kind));
    for step in walk.iter().take(16) {
        for (element, bit) in r4::elements(structure).iter().zip(0_u8..) {
            let compiled = cursor.fan(structure).child(bit, element);
            let named = by_name(cursor, structure, element);
            assert_eq!(
                (compiled.keeps(), compiled.whole()),
                (named.keeps(), named.whole()),
                "{}",
                element.name
            );
        }
        let Some((element, below)) = descend(structure, *step) else { break };
        cursor = by_name(cursor, structure, element);
        structure = below;
    }
}

/// Any patch on any record, merged under any masks: what comes out is one record again. The patch is the last line.
pub fn change(bytes: &[u8]) {
    let (seen, rest) = choice(bytes);
    let (modify, rest) = choice(rest);
    let (format, rest) = byte(rest);
    let at = rest.iter().rposition(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (record, patch) = rest.split_at(at);
    let Ok(current) = change::Tree::parse(record) else { return };
    let Some(kind) = current.resource_type() else { return };
    let format = if format % 2 == 1 { PatchFormat::JsonPatch } else { PatchFormat::FhirPath };
    let patch = patch.strip_prefix(b"\n").unwrap_or(patch);
    let touched = change::touches(kind, format, patch);
    let Ok(sent) = change::patch(kind, format, patch, &current) else { return };
    assert!(touched.is_ok(), "what is applied can be told");
    if let Ok(merged) = change::merge(kind, &current, &sent, &mask(kind, seen), &mask(kind, modify)) {
        assert!(change::Tree::parse(&merged.print()).is_ok_and(|again| again == merged));
    }
    let _ = change::accept(kind, &sent, &mask(kind, modify));
}
