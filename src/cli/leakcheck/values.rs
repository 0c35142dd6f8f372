//! What both worlds' records say, by element path: the values that questions are asked with.
//!
//! Owns: walking records along the tables. Must never: tell apart what is seen and what is not: an oracle would show
//! with either.
//! Look next: `generate`, which asks.

use crate::domain::fhir::r4::{self, Structure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Values that are kept of one path.
const PER_PATH_MAX: usize = 40;

/// The leaves of all records, and codes with their systems, by canonical element path.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<String, BTreeSet<String>>);

impl Values {
    /// Takes in one record.
    pub(super) fn gather(&mut self, record: &Value) {
        let name = record.get("resourceType").and_then(Value::as_str);
        let resource = name.and_then(r4::ResourceType::from_name);
        if let Some(resource) = resource {
            self.object(record, r4::root(resource), resource.name());
        }
    }

    fn object(&mut self, value: &Value, structure: Structure, path: &str) {
        let Value::Object(object) = value else { return };
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        if let Some(code) = text("code").or_else(|| text("value"))
            && let Some(system) = text("system")
        {
            self.keep(path, &format!("{system}|{code}"));
        }
        if let (Some(amount), Some(unit)) = (object.get("value").filter(|v| v.is_number()), text("code")) {
            self.keep(path, &format!("{amount}||{unit}"));
        }
        for (key, value) in object {
            let Some(property) = r4::property(structure, key) else { continue };
            let path = property
                .element
                .rewind
                .map_or_else(|| format!("{path}.{}", property.element.name), str::to_owned);
            match value {
                Value::Array(items) => {
                    items.iter().for_each(|item| self.value(item, property.structure, &path));
                }
                one => self.value(one, property.structure, &path),
            }
        }
    }

    fn value(&mut self, value: &Value, structure: Structure, path: &str) {
        match value {
            Value::Object(inner) if inner.contains_key("resourceType") => self.gather(value),
            Value::Object(_) => self.object(value, structure, path),
            Value::String(text) => self.keep(path, text),
            Value::Number(number) => self.keep(path, &number.to_string()),
            Value::Bool(truth) => self.keep(path, if *truth { "true" } else { "false" }),
            Value::Null | Value::Array(_) => {}
        }
    }

    fn keep(&mut self, path: &str, text: &str) {
        let found = self.0.entry(path.to_owned()).or_default();
        if found.len() < PER_PATH_MAX && text.len() <= 200 {
            found.insert(text.to_owned());
        }
    }

    /// Everything that is said at a path or below it.
    pub(super) fn under(&self, path: &str) -> Vec<&str> {
        let below = format!("{path}.");
        let inside = self.0.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
        self.0
            .get_key_value(path)
            .into_iter()
            .chain(inside)
            .flat_map(|(_, texts)| texts)
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leaves_are_found_under_every_parent() {
        let mut values = Values::default();
        values.gather(&json!({
            "resourceType": "Observation", "code": { "coding": [{ "system": "urn:s", "code": "c1" }] },
            "valueQuantity": { "value": 5.5, "code": "kg" },
            "contained": [{ "resourceType": "Patient", "name": [{ "family": "Inner" }] }],
        }));
        assert_eq!(values.under("Observation.code"), ["urn:s|c1", "c1", "urn:s"]);
        assert_eq!(values.under("Observation.value"), ["5.5||kg", "kg", "5.5"]);
        assert_eq!(values.under("Patient.name"), ["Inner"]);
        assert!(values.under("Observation.cod").is_empty());
    }
}
