//! Code systems and value sets among the records: expansion, lookup, and the modifiers `:in`, `:above`, `:below`.
//!
//! Owns: reading `CodeSystem.concept` and `ValueSet.compose.include`.
//! Must never: know codes that no record defines.
//! Look next: `operations`, which answers `$expand` and `$lookup`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::store::Store;

/// One code of a code system, with the codes above it, nearest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Concept {
    pub(super) system: String,
    pub(super) code: String,
    pub(super) display: Option<String>,
    pub(super) definition: Option<String>,
    pub(super) above: Vec<String>,
}

/// The current record of `resource_type` whose `url` is this (a `|version` is ignored), or whose address is `Type/id`.
pub(super) fn by_url(store: &Store, resource_type: &str, url: &str) -> Option<Value> {
    let url = url.split_once('|').map_or(url, |(url, _)| url);
    let ward = store.ward(resource_type)?;
    let mut read = ward.records.iter().filter_map(|record| {
        let value: Value = serde_json::from_slice(record.bytes()?).ok()?;
        let local = format!("{resource_type}/{}", record.id);
        (text_of(&value, "url") == Some(url) || url == local).then_some(value)
    });
    read.next()
}

/// The concepts of the code system `url`, the upper ones first; `None` when no record defines it.
pub(super) fn concepts(store: &Store, url: &str) -> Option<Vec<Concept>> {
    let system = by_url(store, "CodeSystem", url)?;
    let mut out = Vec::new();
    gather(&system, url, &mut Vec::new(), &mut out);
    Some(out)
}

fn gather(value: &Value, system: &str, above: &mut Vec<String>, out: &mut Vec<Concept>) {
    for one in value.get("concept").and_then(Value::as_array).into_iter().flatten() {
        let Some(code) = text_of(one, "code") else { continue };
        out.push(Concept {
            system: system.to_owned(),
            code: code.to_owned(),
            display: text_of(one, "display").map(str::to_owned),
            definition: text_of(one, "definition").map(str::to_owned),
            above: above.iter().rev().cloned().collect(),
        });
        above.push(code.to_owned());
        gather(one, system, above, out);
        above.pop();
    }
}

/// What a value set holds: listed concepts, and whole code systems that are records here.
pub(super) fn expand(store: &Store, value_set: &Value) -> Vec<Concept> {
    let includes = value_set.pointer("/compose/include").and_then(Value::as_array);
    let mut out = Vec::new();
    for include in includes.into_iter().flatten() {
        let system = text_of(include, "system").unwrap_or_default();
        let known = concepts(store, system).unwrap_or_default();
        match include.get("concept").and_then(Value::as_array) {
            None => out.extend(known),
            Some(listed) => {
                let codes = listed.iter().filter_map(|one| text_of(one, "code").map(|code| (code, one)));
                out.extend(codes.map(|(code, one)| {
                    Concept {
                        system: system.to_owned(),
                        code: code.to_owned(),
                        display: text_of(one, "display").map(str::to_owned).or_else(|| {
                            known.iter().find(|k| k.code == code).and_then(|k| k.display.clone())
                        }),
                        definition: None,
                        above: Vec::new(),
                    }
                }));
            }
        }
    }
    out
}

/// The codes a token modifier means: `in` a value set, `below` or `above` `system|code` (itself included).
pub(super) fn codes(store: &Store, modifier: &str, value: &str) -> Option<BTreeSet<(String, String)>> {
    if modifier == "in" {
        let set = by_url(store, "ValueSet", value)?;
        return Some(expand(store, &set).into_iter().map(|one| (one.system, one.code)).collect());
    }
    let (system, code) = value.split_once('|')?;
    let known = concepts(store, system).unwrap_or_default();
    let mut out = BTreeSet::from([(system.to_owned(), code.to_owned())]);
    if modifier == "below" {
        let below = known.iter().filter(|one| one.above.iter().any(|above| above == code));
        out.extend(below.map(|one| (one.system.clone(), one.code.clone())));
    } else if let Some(one) = known.iter().find(|one| one.code == code) {
        out.extend(one.above.iter().map(|above| (system.to_owned(), above.clone())));
    }
    Some(out)
}

fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}
