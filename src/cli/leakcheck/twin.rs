//! The other world's version of a record: whatever the role does not see reads differently.
//!
//! Owns: which leaves are withheld, and what becomes of them: other values, other lengths, items more, members more
//! or fewer. Must never: touch what is seen, ids, versions, labels, or the presence of mandatory and modifier
//! elements, on which the decision itself may rest (P7).
//! Look next: `worlds`, which checks that both versions are decided alike.

use super::dice::Dice;
use super::minimal::{self, PLAIN};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, Element, Kind, Primitive, Property, ResourceType, Structure};
use crate::domain::filter::References;
use serde_json::{Map, Number, Value};
use std::sync::Arc;

/// How far the change may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything that is withheld.
    All,
    /// Not what decisions commonly rest on: status, category, code, and whose record it is.
    NotTheBasis,
}

const BASIS: &[&str] = &["status", "category", "code"];
const ITEM_PERCENT: usize = 25;
const REMOVE_PERCENT: usize = 20;
const ADD_PERCENT: usize = 12;

/// Changes `record` wherever `masks` (one for each record in it, in the order of the text) withhold something.
pub(super) fn derive(
    record: &Value,
    masks: &[Arc<Mask>],
    references: &References,
    reach: Reach,
    dice: &mut Dice,
) -> Value {
    let mut twin = record.clone();
    let Some(first) = masks.first() else { return twin };
    let nothing = Mask::new(first.resource_type(), []);
    let mut walk = Walk { masks, nothing: &nothing, references, reach, dice, next: 0 };
    walk.record(&mut twin, false);
    twin
}

struct Walk<'w> {
    masks: &'w [Arc<Mask>],
    nothing: &'w Mask,
    references: &'w References,
    reach: Reach,
    dice: &'w mut Dice,
    next: usize,
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct At<'w> {
    structure: Structure,
    cursor: MaskCursor<'w>,
    /// The record's own members.
    root: bool,
    /// The record leaves whole, with narrative and signatures.
    complete: bool,
    /// Nothing of the record leaves.
    withheld: bool,
}

impl<'w> Walk<'w> {
    fn record(&mut self, value: &mut Value, withheld: bool) {
        let masks = self.masks;
        let Some(mask) = masks.get(self.next) else { return };
        self.next += 1;
        let withheld = withheld || mask.is_empty();
        let cursor = if withheld { self.nothing.cursor() } else { mask.cursor() };
        let complete = !withheld && mask.is_total() && self.references.is_empty();
        let structure = r4::root(mask.resource_type());
        if let Some(object) = value.as_object_mut() {
            self.object(object, At { structure, cursor, root: true, complete, withheld });
        }
    }

    fn object(&mut self, object: &mut Map<String, Value>, at: At<'w>) {
        let bars = Bars::of(object, at, self.references);
        let meta = r4::type_name(at.structure) == "Meta";
        let keys: Vec<String> = object.keys().cloned().collect();
        for key in keys {
            let fixed = (at.root
                && (["resourceType", "id"].contains(&key.as_str()) || self.is_basis(&key, at)))
                || (meta && ["versionId", "lastUpdated", "security"].contains(&key.as_str()));
            let property = r4::property(at.structure, &key).filter(|_| !fixed);
            if let (Some(property), Some(value)) = (property, object.get_mut(&key)) {
                self.member(value, &property, at, bars.bar(&key));
            }
        }
        if !meta {
            self.presence(object, at);
        }
    }

    fn is_basis(&self, name: &str, at: At<'_>) -> bool {
        at.root && self.reach == Reach::NotTheBasis && BASIS.contains(&name)
    }

    fn member(&mut self, value: &mut Value, property: &Property, at: At<'w>, barred: bool) {
        let narrative = r4::type_name(property.structure) == "Narrative" && !at.complete;
        let cursor = if barred || narrative || at.withheld {
            self.nothing.cursor()
        } else {
            step(at.cursor, at.structure, property.element)
        };
        let extension =
            r4::type_name(property.structure) == "Extension" && property.element.name == "extension";
        let inner = At { structure: property.structure, cursor, root: false, ..at };
        match value {
            Value::Array(items) => {
                for item in items.iter_mut() {
                    let inner =
                        if extension { At { cursor: by_url(at.cursor, item), ..inner } } else { inner };
                    self.single(item, property, inner);
                }
                if !extension {
                    self.one_more(items, property, inner);
                }
            }
            single => self.single(single, property, inner),
        }
    }

    fn single(&mut self, value: &mut Value, property: &Property, at: At<'w>) {
        match (r4::kind(property.structure), &mut *value) {
            (Kind::Resource | Kind::AnyResource, _) => self.record(value, at.withheld || !at.cursor.keeps()),
            (Kind::Complex, Value::Object(object)) => self.object(object, at),
            (Kind::Primitive(_), Value::Object(twin)) if property.twin => self.object(twin, at),
            (Kind::Primitive(primitive), leaf) if !at.cursor.keeps() => {
                let name = r4::type_name(property.structure);
                let reference = property.element.name == "reference" && name == "string";
                if reference && !self.may_point_elsewhere(leaf, at) {
                    return;
                }
                if property.element.name != "url" || name != "System.String" {
                    self.leaf(leaf, primitive, name, reference);
                }
            }
            (Kind::Complex | Kind::Primitive(_), _) => {}
        }
    }

    /// A record that is seen must stay the same patients'; fragments must go on pointing inside.
    fn may_point_elsewhere(&self, leaf: &Value, at: At<'_>) -> bool {
        let text = leaf.as_str().unwrap_or_default();
        let person = text.contains("Patient/");
        let free = at.withheld && self.reach == Reach::All;
        !text.starts_with('#') && text.contains('/') && (!person || free)
    }

    fn leaf(&mut self, leaf: &mut Value, primitive: Primitive, name: &str, reference: bool) {
        match leaf {
            Value::Bool(truth) => *truth = !*truth,
            Value::Number(number) => *number = other_number(number),
            Value::String(text) if reference => text.push('x'),
            Value::String(text) => *text = other_text(text, primitive, name, self.dice),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }

    /// An item of which nothing is seen, at the end of a list.
    fn one_more(&mut self, items: &mut Vec<Value>, property: &Property, at: At<'w>) {
        if property.twin || !self.dice.chance(ITEM_PERCENT) || winds(property.structure, 0) {
            return;
        }
        let resource = matches!(r4::kind(property.structure), Kind::Resource | Kind::AnyResource);
        if property.element.rewind.is_some() || property.element.modifier || resource {
            return;
        }
        if at.cursor.whole() == Some(false) && self.reach == Reach::All {
            let copy = items.first().cloned();
            items.extend(copy.map(|mut item| {
                self.single(&mut item, property, at);
                item
            }));
        } else if at.cursor.whole().is_none() && matches!(r4::kind(property.structure), Kind::Complex) {
            let hidden = |one: &&Element| {
                !one.modifier
                    && !one.choice
                    && !PLAIN.contains(&one.name)
                    && one.types.iter().all(|kind| matches!(r4::kind(*kind), Kind::Primitive(_)))
                    && step(at.cursor, at.structure, one).whole() == Some(false)
            };
            let element = r4::elements(at.structure).iter().find(hidden);
            let made = element.and_then(|one| minimal::member(one, at.structure, "p1", self.dice));
            items.extend(made.map(|(key, value)| Value::Object(Map::from_iter([(key, value)]))));
        }
    }

    /// Members that are not seen, and that R4 does not demand, come and go.
    fn presence(&mut self, object: &mut Map<String, Value>, at: At<'w>) {
        for element in r4::elements(at.structure) {
            if element.min > 0
                || element.modifier
                || PLAIN.contains(&element.name)
                || self.is_basis(element.name, at)
            {
                continue;
            }
            let plain = element.types.iter().all(|kind| matches!(r4::kind(*kind), Kind::Primitive(_)));
            let reference = r4::type_name(at.structure) == "Reference";
            if (self.reach == Reach::NotTheBasis && !plain) || reference || element.rewind.is_some() {
                continue;
            }
            let cursor =
                if at.withheld { self.nothing.cursor() } else { step(at.cursor, at.structure, element) };
            if cursor.whole() != Some(false) || element.types.iter().any(|kind| winds(*kind, 0)) {
                continue;
            }
            let holds = |key: &String| {
                r4::property(at.structure, key).is_some_and(|p| p.element.name == element.name)
            };
            let keys: Vec<String> = object.keys().filter(|key| holds(key)).cloned().collect();
            if keys.is_empty() {
                if self.dice.chance(ADD_PERCENT) {
                    object.extend(minimal::member(element, at.structure, "p1", self.dice));
                }
            } else if self.dice.chance(REMOVE_PERCENT) && object.len() > keys.len() {
                object.retain(|key, _| !keys.contains(key));
            }
        }
    }
}

/// Members that the filter withholds for what stands beside them.
struct Bars {
    names: bool,
    identifiers: bool,
    digest: bool,
    data: bool,
}

impl Bars {
    fn of(object: &Map<String, Value>, at: At<'_>, references: &References) -> Self {
        let kind = r4::type_name(at.structure);
        let named = object.get("reference").and_then(Value::as_str).and_then(|text| text.rsplit('/').nth(1));
        let named = named.and_then(ResourceType::from_name).filter(|_| kind == "Reference");
        let hides =
            |set: &std::collections::BTreeSet<ResourceType>| named.is_some_and(|kind| set.contains(&kind));
        let digest =
            kind == "Attachment" && !(at.cursor.child("data").keeps() && at.cursor.child("url").keeps());
        Self {
            names: hides(&references.hide_display),
            identifiers: hides(&references.hide_identifier),
            digest,
            data: kind == "Signature" && !at.complete,
        }
    }

    fn bar(&self, key: &str) -> bool {
        match key {
            "display" => self.names,
            "identifier" => self.identifiers,
            "size" | "hash" => self.digest,
            "data" => self.data,
            _ => false,
        }
    }
}

fn by_url<'w>(owner: MaskCursor<'w>, item: &Value) -> MaskCursor<'w> {
    owner.extension(item.get("url").and_then(Value::as_str).unwrap_or_default())
}

/// The cursor on a child; content references continue where their content is defined, as in the filter.
fn step<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
    let here = cursor.child(element.name);
    let Some(path) = element.rewind else { return here };
    let around = r4::type_name(owner).strip_prefix(path);
    let recursive = around.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if recursive || here.keeps() { cursor.rewind(path) } else { here }
}

/// Something inside is decided elsewhere, so the cursor here does not speak for it.
fn winds(structure: Structure, depth: usize) -> bool {
    let inside = |element: &Element| {
        element.rewind.is_some() || element.types.iter().any(|kind| winds(*kind, depth + 1))
    };
    let backbone = r4::type_name(structure).contains('.');
    backbone && (depth > 8 || r4::elements(structure).iter().any(inside))
}

fn other_number(number: &Number) -> Number {
    let moved = number.as_i64().and_then(|whole| whole.checked_add(1)).map(Number::from);
    let float = || number.as_f64().and_then(|value| Number::from_f64(value * 10.0 + 1.25));
    moved.or_else(float).unwrap_or_else(|| number.clone())
}

/// Another text of the same type.
fn other_text(text: &str, primitive: Primitive, name: &str, dice: &mut Dice) -> String {
    let longer = dice.chance(50);
    match (primitive, name) {
        (Primitive::Xhtml, _) => text.replace("</div>", " and more</div>"),
        (Primitive::Text, "date" | "dateTime" | "instant") => {
            let rest = text.get(4..).unwrap_or_default();
            let year = text.get(..4).and_then(|year| year.parse::<u32>().ok()).unwrap_or(1970);
            format!("{:04}{rest}", if year > 1990 { year - 3 } else { year + 3 })
        }
        (Primitive::Text, "time" | "base64Binary" | "oid" | "uuid") => rotate(text),
        (Primitive::Text, "string" | "markdown" | "System.String") if longer => {
            format!("{} and more", rotate(text))
        }
        _ => rotate(text),
    }
}

/// Letters and digits move on by one; the rest stays.
fn rotate(text: &str) -> String {
    let next = |c: char| match c {
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from_u32(u32::from(c) + 1).unwrap_or(c),
        other => other,
    };
    text.chars().map(next).collect()
}
