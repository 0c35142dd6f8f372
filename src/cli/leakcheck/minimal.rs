//! Records made from the R4 tables: mandatory elements always, others by chance.
//!
//! Owns: a plausible value for every structure. Must never: put in modifier elements that R4 does not demand (they
//! could withhold the record), resources inside resources, or anything about a real person.
//! Look next: `worlds`, which puts them beside the charts.

use super::dice::Dice;
use crate::domain::fhir::r4::{self, Element, Kind, Primitive, ResourceType, Structure};
use serde_json::{Map, Value, json};

const DEPTH_MAX: usize = 4;

/// Elements that are never made by chance.
pub(super) const PLAIN: &[&str] =
    &["id", "meta", "implicitRules", "contained", "extension", "modifierExtension", "resourceType"];

/// How much is put in beyond what R4 demands, in percent.
#[derive(Clone, Copy)]
pub(super) struct Fill {
    pub(super) percent: usize,
}

/// A record of this type about `patient`.
pub(super) fn record(resource: ResourceType, id: &str, patient: &str, fill: Fill, dice: &mut Dice) -> Value {
    let mut made = Map::new();
    made.insert("resourceType".to_owned(), json!(resource.name()));
    made.insert("id".to_owned(), json!(id));
    made.insert("meta".to_owned(), json!({ "versionId": "1", "lastUpdated": "2026-01-15T08:30:00.000Z" }));
    let mut maker = Maker { dice, patient, fill };
    maker.fill(&mut made, r4::root(resource), 0);
    Value::Object(made)
}

/// A value for an element, with the key it is written under; `None` where only a resource would do.
pub(super) fn member(
    element: &Element,
    structure: Structure,
    patient: &str,
    dice: &mut Dice,
) -> Option<(String, Value)> {
    Maker { dice, patient, fill: Fill { percent: 20 } }.member(element, structure, 2)
}

struct Maker<'m> {
    dice: &'m mut Dice,
    patient: &'m str,
    fill: Fill,
}

impl Maker<'_> {
    fn fill(&mut self, made: &mut Map<String, Value>, structure: Structure, depth: usize) {
        for element in r4::elements(structure) {
            let wanted = element.min > 0
                || (!element.modifier
                    && !PLAIN.contains(&element.name)
                    && element.rewind.is_none()
                    && depth < DEPTH_MAX
                    && self.dice.chance(self.fill.percent >> depth));
            if wanted && let Some((key, value)) = self.member(element, structure, depth) {
                made.insert(key, value);
            }
        }
    }

    fn member(&mut self, element: &Element, owner: Structure, depth: usize) -> Option<(String, Value)> {
        let simple = |one: &&Structure| matches!(r4::kind(**one), Kind::Primitive(_));
        let structure = *element.types.iter().find(simple).or_else(|| element.types.first())?;
        let key = if element.choice { choice_key(element.name, structure)? } else { element.name.to_owned() };
        r4::property(owner, &key)?;
        let value = self.value(element, structure, depth)?;
        Some((key, if element.many { Value::Array(vec![value]) } else { value }))
    }

    fn value(&mut self, element: &Element, structure: Structure, depth: usize) -> Option<Value> {
        match r4::kind(structure) {
            Kind::Resource | Kind::AnyResource => None,
            Kind::Primitive(primitive) => Some(self.primitive(primitive, r4::type_name(structure))),
            Kind::Complex if r4::type_name(structure) == "Reference" => {
                Some(json!({ "reference": self.target(element.targets) }))
            }
            Kind::Complex if depth > DEPTH_MAX => None,
            Kind::Complex => {
                let mut made = Map::new();
                self.fill(&mut made, structure, depth + 1);
                if made.is_empty() {
                    let plain = r4::elements(structure).iter().find(|one| {
                        !one.modifier
                            && !one.choice
                            && one.types.iter().any(|kind| matches!(r4::kind(*kind), Kind::Primitive(_)))
                            && !PLAIN.contains(&one.name)
                    });
                    made.extend(plain.and_then(|one| self.member(one, structure, depth + 1)));
                }
                (!made.is_empty()).then_some(Value::Object(made))
            }
        }
    }

    fn target(&mut self, targets: &[ResourceType]) -> String {
        let person = targets.is_empty() || targets.iter().any(|target| target.name() == "Patient");
        match self.dice.pick(targets) {
            _ if person => format!("Patient/{}", self.patient),
            Some(target) => format!("{}/{}", target.name(), generated_id(*target)),
            None => format!("Patient/{}", self.patient),
        }
    }

    fn primitive(&mut self, primitive: Primitive, name: &str) -> Value {
        let number = self.dice.below(90) + 10;
        let text = match (primitive, name) {
            (Primitive::Boolean, _) => return json!(number.is_multiple_of(2)),
            (Primitive::Number, "decimal") => {
                return json!(f64::from(u32::try_from(number).unwrap_or(1)) + 0.5);
            }
            (Primitive::Number, _) => return json!(number),
            (Primitive::Xhtml, _) => {
                format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">Sample {number}</div>")
            }
            (Primitive::Text, "date") => format!("19{number}-05-06"),
            (Primitive::Text, "dateTime" | "instant") => format!("20{number}-05-06T07:08:09Z"),
            (Primitive::Text, "time") => "07:08:09".to_owned(),
            (Primitive::Text, "code") => {
                self.dice.word(&["active", "final", "completed", "sample"]).to_owned()
            }
            (Primitive::Text, "id") => format!("id-{number}"),
            (Primitive::Text, "oid") => format!("urn:oid:1.2.{number}"),
            (Primitive::Text, "uuid") => format!("urn:uuid:00000000-0000-4000-8000-0000000000{number}"),
            (Primitive::Text, "uri" | "url" | "canonical") => format!("urn:example:made:{number}"),
            (Primitive::Text, "base64Binary") => "AAAA".to_owned(),
            (Primitive::Text, _) => format!("Sample {number}"),
        };
        Value::String(text)
    }
}

/// The id of the made record of a type that others refer to.
pub(super) fn generated_id(resource: ResourceType) -> String {
    format!("made-{}", resource.name().to_ascii_lowercase())
}

/// `value` and `dateTime` make `valueDateTime`.
fn choice_key(name: &str, structure: Structure) -> Option<String> {
    let kind = r4::type_name(structure);
    let (first, rest) = kind.split_at_checked(1)?;
    Some(format!("{name}{}{rest}", first.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::filter::{self, Bases};

    #[test]
    fn every_type_has_records_that_the_filter_takes() {
        let bases = Bases { upstream: &[], public: "https://x.invalid" };
        for resource in ResourceType::all() {
            for percent in [0, 60] {
                let mut dice = Dice::new(7, resource.name());
                let made = record(resource, "x", "p1", Fill { percent }, &mut dice);
                let text = made.to_string();
                let parsed = filter::parse(text.as_bytes(), &bases);
                assert!(parsed.is_ok(), "{:?}: {text}", parsed.err());
            }
        }
    }

    #[test]
    fn mandatory_elements_are_there() {
        for resource in ResourceType::all() {
            let made = record(resource, "x", "p1", Fill { percent: 0 }, &mut Dice::new(0, ""));
            for element in r4::elements(r4::root(resource)).iter().filter(|element| element.min > 0) {
                let key = made.as_object().unwrap().keys().any(|key| key.starts_with(element.name));
                assert!(key, "{}.{}", resource.name(), element.name);
            }
        }
    }
}
