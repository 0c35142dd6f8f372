//! What fuzzers ask of what is remembered of a long answer.
//!
//! Owns: the law: a record says and gives the same alone and among its likes. The text is a record a line.
//! Must never: let a record that stands alone be long enough for anything of it to be remembered.
//! Look next: `domain::filter::pattern`, `domain::filter::plan`.

use std::collections::HashMap;

use super::{BASES, choice, mask, spelled};
use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::ResourceType;
use chartgate::domain::filter::{self, Document, FilterFault, References, RootType, Verdict};

/// Records, their changed ones included, from which an answer is made.
const LINES_MAX: usize = 6;
/// Bytes of one: far less than what is worth remembering of.
const LINE_BYTES_MAX: usize = 2048;
/// Bytes of an answer of which much is remembered.
const LONG: usize = 12 * 1024;

/// What a record says, and what is written of it.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    facts: Vec<String>,
    references: Vec<String>,
    written: Option<Vec<u8>>,
}

/// The masks of the types in a document, each made once.
struct Masks(HashMap<ResourceType, Mask>);

impl Masks {
    fn of(document: &Document<'_>, seen: u64) -> Self {
        let kinds = document.records().iter().map(|one| one.facts.resource_type);
        Self(kinds.map(|kind| (kind, mask(kind, seen))).collect())
    }

    fn verdicts(&self, document: &Document<'_>) -> Vec<Verdict<'_>> {
        let kinds = document.records().iter().map(|one| one.facts.resource_type);
        kinds.map(|kind| self.0.get(&kind).map_or(Verdict::Withhold, Verdict::whole)).collect()
    }
}

fn given(document: &Document<'_>, verdicts: &[Verdict<'_>], record: usize) -> Given {
    let inside = document.records().iter().skip(record + 1);
    let inside = inside.take_while(|one| one.container.is_some_and(|container| container >= record));
    let facts = document.records().iter().skip(record).take(1).chain(inside);
    let facts = facts.map(|one| spelled(&one.facts)).collect();
    let mut out = Vec::new();
    let left = document.emit(record, verdicts, &References::default(), &BASES, &mut out).is_ok();
    let references = document.references(record).into_iter().map(|one| one.into_owned()).collect();
    Given { facts, references, written: left.then_some(out) }
}

/// What a record gives when it stands alone; none if it is none.
fn alone(record: &[u8], seen: u64) -> Option<Given> {
    let document = filter::parse(record, &BASES).ok()?;
    let masks = Masks::of(&document, seen);
    matches!(document.root_type(), RootType::Single(0))
        .then(|| given(&document, &masks.verdicts(&document), 0))
}

/// The same with a byte more, and with another byte, at a place.
fn near(line: &[u8], place: u64) -> [Vec<u8>; 2] {
    let at = usize::try_from(place).unwrap_or(0) % line.len().max(1);
    let (mut longer, mut other) = (line.to_vec(), line.to_vec());
    longer.insert(at, b'x');
    if let Some(byte) = other.get_mut(at) {
        *byte = b'3';
    }
    [longer, other]
}

/// Records that come back in one long answer, whole and changed: each is what it is alone.
pub fn again(bytes: &[u8]) {
    let (seen, rest) = choice(bytes);
    let (place, body) = choice(rest);
    let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').take(2).collect();
    if lines.iter().any(|line| line.len() > LINE_BYTES_MAX) {
        return;
    }
    let all = lines.iter().flat_map(|line| std::iter::once(line.to_vec()).chain(near(line, place)));
    let known: Vec<(Vec<u8>, Given)> =
        all.take(LINES_MAX).filter_map(|record| alone(&record, seen).map(|given| (record, given))).collect();
    let once: usize = known.iter().map(|(record, _)| record.len() + 14).sum();
    if once == 0 {
        return;
    }
    let order: Vec<_> = known.iter().cycle().take(known.len() * (LONG / once + 3)).collect();
    let entries: Vec<Vec<u8>> =
        order.iter().map(|(record, _)| [b"{\"resource\":", record.as_slice(), b"}"].concat()).collect();
    let answer = [
        br#"{"resourceType":"Bundle","type":"searchset","entry":["#.as_slice(),
        &entries.join(&b","[..]),
        b"]}",
    ]
    .concat();
    let document = match filter::parse(&answer, &BASES) {
        Ok(document) => document,
        Err(FilterFault::Depth(_) | FilterFault::Nesting(_)) => return,
        Err(fault) => panic!("alone they can be read: {fault}"),
    };
    let top = document.records().iter().enumerate().filter(|(_, one)| one.container.is_none());
    let top: Vec<usize> = top.map(|(record, _)| record).collect();
    assert_eq!(top.len(), order.len(), "every record is there");
    let masks = Masks::of(&document, seen);
    let verdicts = masks.verdicts(&document);
    for (record, (_, expected)) in top.into_iter().zip(order) {
        assert_eq!(&given(&document, &verdicts, record), expected, "record {record} is not what it is alone");
    }
}
