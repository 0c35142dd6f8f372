//! The plain ways to take elements out of FHIR JSON: parse to a tree, take out members, print.
//!
//! Owns: pruning the trees of `serde_json`, `sonic-rs` and `simd-json` by a mask, each as its own interface suggests.
//! Must never: be taken for a filter; extensions, references, modifiers and marks are left as they are.
//! Look next: `benches/filter.rs`, which runs them beside `domain::filter`.

use std::collections::BTreeMap;

use chartgate::domain::fhir::mask::{Mask, MaskCursor};
use chartgate::domain::fhir::r4::{self, Kind, ResourceType, Structure};
use simd_json::prelude::*;
use sonic_rs::{JsonValueMutTrait as _, JsonValueTrait as _};

/// Masks by type.
pub type Masks = BTreeMap<ResourceType, Mask>;

/// What becomes of one member.
enum Fate<'m> {
    Kept,
    Dropped,
    /// Its members are decided one by one.
    Inside(Structure, MaskCursor<'m>),
}

fn fate<'m>(structure: Structure, cursor: MaskCursor<'m>, name: &str) -> Fate<'m> {
    let Some(property) = r4::property(structure, name) else {
        return if name == "resourceType" { Fate::Kept } else { Fate::Dropped };
    };
    let inner = cursor.child(property.element.name);
    match inner.whole() {
        Some(false) => Fate::Dropped,
        None if r4::kind(property.structure) == Kind::Complex => Fate::Inside(property.structure, inner),
        _ => Fate::Kept,
    }
}

fn start<'m>(masks: &'m Masks, kind: Option<&str>) -> Option<(Structure, MaskCursor<'m>)> {
    let kind = kind.and_then(ResourceType::from_name)?;
    Some((r4::root(kind), masks.get(&kind)?.cursor()))
}

/// By `serde_json::Value`.
#[must_use]
pub fn serde_json(body: &str, masks: &Masks) -> String {
    let Ok(mut root) = serde_json::from_str::<serde_json::Value>(body) else { return String::new() };
    let each = |resource: &mut serde_json::Value| {
        let kind = resource.get("resourceType").and_then(|kind| kind.as_str());
        if let Some((structure, cursor)) = start(masks, kind) {
            prune_serde(resource, structure, cursor);
        }
    };
    match root.get_mut("entry").and_then(|entries| entries.as_array_mut()) {
        Some(entries) => entries.iter_mut().filter_map(|entry| entry.get_mut("resource")).for_each(each),
        None => each(&mut root),
    }
    root.to_string()
}

fn prune_serde(value: &mut serde_json::Value, structure: Structure, cursor: MaskCursor<'_>) {
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| prune_serde(item, structure, cursor));
    }
    let Some(members) = value.as_object_mut() else { return };
    members.retain(|name, value| match fate(structure, cursor, name) {
        Fate::Kept => true,
        Fate::Dropped => false,
        Fate::Inside(structure, cursor) => {
            prune_serde(value, structure, cursor);
            true
        }
    });
}

/// By `sonic_rs::Value`.
#[must_use]
pub fn sonic_rs(body: &str, masks: &Masks) -> String {
    let Ok(mut root) = sonic_rs::from_str::<sonic_rs::Value>(body) else { return String::new() };
    let each = |resource: &mut sonic_rs::Value| {
        let kind = resource.get("resourceType").and_then(|kind| kind.as_str().map(str::to_owned));
        if let Some((structure, cursor)) = start(masks, kind.as_deref()) {
            prune_sonic(resource, structure, cursor);
        }
    };
    match root.get_mut("entry").and_then(|entries| entries.as_array_mut()) {
        Some(entries) => entries.iter_mut().filter_map(|entry| entry.get_mut("resource")).for_each(each),
        None => each(&mut root),
    }
    sonic_rs::to_string(&root).unwrap_or_default()
}

fn prune_sonic(value: &mut sonic_rs::Value, structure: Structure, cursor: MaskCursor<'_>) {
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| prune_sonic(item, structure, cursor));
    }
    let Some(members) = value.as_object_mut() else { return };
    let mut dropped = Vec::new();
    for (name, value) in members.iter_mut() {
        match fate(structure, cursor, name) {
            Fate::Kept => {}
            Fate::Dropped => dropped.push(name.to_owned()),
            Fate::Inside(structure, cursor) => prune_sonic(value, structure, cursor),
        }
    }
    dropped.iter().for_each(|name| drop(members.remove(name)));
}

/// By `sonic_rs::Value`, with nothing taken out.
#[must_use]
pub fn sonic_rs_round_trip(body: &str) -> String {
    let root = sonic_rs::from_str::<sonic_rs::Value>(body);
    root.ok().and_then(|root| sonic_rs::to_string(&root).ok()).unwrap_or_default()
}

/// By `simd_json::OwnedValue`, which needs a copy of the input to work in.
#[must_use]
pub fn simd_json(body: &str, masks: &Masks) -> String {
    let mut body = body.as_bytes().to_vec();
    let Ok(mut root) = simd_json::to_owned_value(&mut body) else { return String::new() };
    let each = |resource: &mut simd_json::OwnedValue| {
        let kind = resource.get_str("resourceType").map(str::to_owned);
        if let Some((structure, cursor)) = start(masks, kind.as_deref()) {
            prune_simd(resource, structure, cursor);
        }
    };
    if root.contains_key("entry") {
        let entries = root.get_mut("entry").and_then(|entries| entries.as_array_mut());
        entries.into_iter().flatten().filter_map(|entry| entry.get_mut("resource")).for_each(each);
    } else {
        each(&mut root);
    }
    root.encode()
}

fn prune_simd(value: &mut simd_json::OwnedValue, structure: Structure, cursor: MaskCursor<'_>) {
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| prune_simd(item, structure, cursor));
    }
    let Some(members) = value.as_object_mut() else { return };
    members.retain(|name, value| match fate(structure, cursor, name) {
        Fate::Kept => true,
        Fate::Dropped => false,
        Fate::Inside(structure, cursor) => {
            prune_simd(value, structure, cursor);
            true
        }
    });
}
