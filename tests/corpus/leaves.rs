//! What a released record may hold, judged leaf by leaf against the record it came from.
//!
//! Owns: walking input and output along the R4 tables and the mask's cursor, without the filter's own code.
//! Must never: ask the filter what it meant to keep.
//! Look next: `domain::fhir::mask`, the cursor; `tests/oracle`, the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chartgate::domain::fhir::mask::{Mask, MaskCursor};
use chartgate::domain::fhir::r4::{self, Kind, Structure};
use chartgate::domain::filter::Document;
use serde_json::value::RawValue;

use crate::oracle::Tree;
use crate::{PUBLIC, UPSTREAM};

/// Shorter strings stand everywhere.
const TELLING_BYTES_MIN: usize = 7;

/// Leaves of the input by what the masks say of them, and all of them by their place.
#[derive(Default)]
struct Leaves {
    kept: Vec<String>,
    withheld: BTreeSet<String>,
    places: BTreeSet<(String, String)>,
}

/// The masks of a record and of those inside it, in the order of the text.
struct Walk<'m> {
    masks: Vec<Option<&'m Arc<Mask>>>,
    next: usize,
    leaves: Leaves,
}

/// Nothing withheld is in the output, and everything in it stood in the input at the same place, in the same bytes.
pub(crate) fn check(
    name: &str,
    document: &Document<'_>,
    masks: &[Option<Arc<Mask>>],
    record: usize,
    input: &Tree,
    output: &str,
) {
    let inside = document.records().iter().enumerate().skip(record + 1);
    let inside = inside.take_while(|(_, one)| one.container.is_some_and(|container| container >= record));
    let order: Vec<usize> = std::iter::once(record).chain(inside.map(|(index, _)| index)).collect();
    let masks = order.iter().map(|index| masks.get(*index).and_then(Option::as_ref)).collect();
    let mut walk = Walk { masks, next: 0, leaves: Leaves::default() };
    walk.resource(input, "");
    assert_eq!(walk.next, order.len(), "{name}: every record was walked");
    let Leaves { kept, withheld, places } = walk.leaves;
    let mut found = Vec::new();
    leaves_of(&Tree::parse(output).unwrap(), "", &mut found);
    // Names of elements are R4's, and are checked with the places: `provider` may be a withheld code as well.
    let said: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
    let said = said.join("\n");
    for secret in withheld.iter().filter(|secret| secret.len() >= TELLING_BYTES_MIN) {
        let told = said.contains(secret.as_str()) && !is_ours(secret);
        let known = || kept.iter().any(|kept| kept.contains(secret.as_str()));
        assert!(!told || known(), "{name}: `{secret}` in {}", short(output));
    }
    for (place, text) in found {
        let stood = places.contains(&(place.clone(), text.clone()));
        let moved = places.contains(&(place.clone(), text.replace(PUBLIC, UPSTREAM)));
        assert!(stood || moved || is_mark(&place, &text), "{name}: {text} at {place} is new");
    }
}

/// Texts of our own marks: the input may hold them somewhere that is withheld.
fn is_ours(text: &str) -> bool {
    [MASKED_URL, SUBSETTED_SYSTEM, "SUBSETTED"].iter().any(|ours| ours.contains(text))
}

const MASKED_URL: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";
const SUBSETTED_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";

fn is_mark(place: &str, text: &str) -> bool {
    let says = |wanted: &str| text.trim_matches('"') == wanted;
    (place.ends_with(".extension.url") && says(MASKED_URL))
        || (place.ends_with(".extension.valueCode") && says("masked"))
        || (place.ends_with("meta.tag.system") && says(SUBSETTED_SYSTEM))
        || (place.ends_with("meta.tag.code") && says("SUBSETTED"))
}

/// Every scalar with its place: names alone, because items of arrays fall away.
fn leaves_of(tree: &Tree, place: &str, found: &mut Vec<(String, String)>) {
    match tree {
        Tree::Object(members) => {
            members.iter().for_each(|(name, value)| leaves_of(value, &format!("{place}.{name}"), found));
        }
        Tree::Array(items) => items.iter().for_each(|item| leaves_of(item, place, found)),
        Tree::Scalar(text) => found.push((place.to_owned(), text.clone())),
        Tree::Null => {}
    }
}

impl Walk<'_> {
    fn resource(&mut self, tree: &Tree, place: &str) {
        let mask = self.masks.get(self.next).copied().flatten().cloned();
        self.next += 1;
        let kind = tree.resource_type().expect("a resource");
        let cursor = mask.as_ref().map(|mask| mask.cursor());
        for (name, value) in tree.members() {
            let place = format!("{place}.{name}");
            if name == "resourceType" {
                self.leaf(value, &place, true);
            } else {
                self.member(r4::root(kind), name, value, cursor, &place);
            }
        }
    }

    fn member(
        &mut self,
        owner: Structure,
        name: &str,
        value: &Tree,
        cursor: Option<MaskCursor<'_>>,
        place: &str,
    ) {
        let Some(property) = r4::property(owner, name) else { return self.unknown(value, place) };
        let element = property.element;
        let extension = r4::structure("Extension").unwrap();
        let inner = cursor.map(|cursor| match element.rewind {
            Some(path) => cursor.rewind(path),
            None => cursor.child(element.name),
        });
        for item in value.items() {
            let inner = match (element.name, item.says("url")) {
                ("extension", Some(url)) => cursor.map(|cursor| cursor.extension(&url)),
                _ => inner,
            };
            // The twin of a primitive holds what every element may: id and extensions.
            let structure = if property.twin { extension } else { property.structure };
            self.item(structure, item, inner, place);
        }
    }

    fn item(&mut self, structure: Structure, item: &Tree, cursor: Option<MaskCursor<'_>>, place: &str) {
        match (r4::kind(structure), item) {
            (Kind::AnyResource | Kind::Resource, Tree::Object(_)) => self.resource(item, place),
            (Kind::Complex, Tree::Object(members)) => {
                for (name, value) in members {
                    self.member(structure, name, value, cursor, &format!("{place}.{name}"));
                }
            }
            (Kind::Primitive(_), Tree::Scalar(_)) => {
                self.leaf(item, place, cursor.is_some_and(MaskCursor::keeps));
            }
            (_, Tree::Null) => {}
            _ => self.unknown(item, place),
        }
    }

    /// R4 does not know it: nobody can have permitted it.
    fn unknown(&mut self, value: &Tree, place: &str) {
        let mut found = Vec::new();
        leaves_of(value, place, &mut found);
        self.leaves.withheld.extend(found.into_iter().map(|(_, text)| text.trim_matches('"').to_owned()));
    }

    fn leaf(&mut self, value: &Tree, place: &str, keeps: bool) {
        let Tree::Scalar(text) = value else { return };
        if keeps {
            self.leaves.places.insert((place.to_owned(), text.clone()));
            self.leaves.kept.push(text.clone());
        } else if text.starts_with('"') {
            self.leaves.withheld.insert(text.trim_matches('"').to_owned());
        }
    }
}

/// Elements that R4 demands of a record, and the input has, are in the output: something of what they said, or marked as
/// masked.
pub(crate) fn check_mandatory(name: &str, input: &Tree, output: &str) {
    let output = Tree::parse(output).unwrap();
    let kind = input.resource_type().expect("a resource");
    for element in r4::elements(r4::root(kind)).iter().filter(|element| element.min > 0) {
        let of = |tree: &Tree| -> Vec<Tree> {
            let is_it = |key: &str| {
                r4::property(r4::root(kind), key).is_some_and(|found| std::ptr::eq(found.element, element))
            };
            tree.members().iter().filter(|(key, _)| is_it(key)).map(|(_, value)| value.clone()).collect()
        };
        let (given, found) = (of(input), of(&output));
        assert!(given.is_empty() || !found.is_empty(), "{name}: {} is demanded", element.name);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        given.iter().for_each(|value| leaves_of(value, "", &mut before));
        found.iter().for_each(|value| leaves_of(value, "", &mut after));
        let kept = given == found || after.iter().any(|leaf| before.contains(leaf));
        let masked = after.iter().any(|(place, text)| place.ends_with(".valueCode") && text == "\"masked\"");
        assert!(kept || masked, "{name}: {} is empty", element.name);
    }
}

/// What is kept whole is kept byte by byte: a value that says what it said is written as it was.
pub(crate) fn check_bytes(name: &str, input: &str, output: &str) {
    if Tree::parse(input).unwrap() == Tree::parse(output).unwrap() {
        assert_eq!(input, output, "{name}");
        return;
    }
    let members = |text: &str| serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text).ok();
    let (Some(before), Some(after)) = (members(input), members(output)) else { return };
    for (member, value) in &after {
        if let Some(before) = before.get(member) {
            check_bytes(&format!("{name}: {member}"), before.get(), value.get());
        }
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).take(300).collect()
}
