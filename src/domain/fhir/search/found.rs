//! What a record says at an element path.
//!
//! Owns: the walk from a record's JSON down a canonical path, by the tables: choices, repeats, underscore twins.
//! Must never: take a key for an element that it is not.
//! Look next: `search/judge.rs`, which compares what is found.

use serde_json::Value;

use crate::domain::fhir::r4::{self, ElementPath, Structure};

/// One value of an element.
#[derive(Clone, Copy)]
pub(super) struct Found<'v> {
    pub(super) value: &'v Value,
    /// The type the value is of.
    pub(super) type_name: &'static str,
    /// The element is a choice of types, of which a parameter may mean only some.
    pub(super) choice: bool,
}

/// All values at a path, in the order of the record; and whether an element there has no value but extensions.
#[derive(Default)]
pub(super) struct Findings<'v> {
    pub(super) values: Vec<Found<'v>>,
    pub(super) has_twins: bool,
}

impl<'v> Findings<'v> {
    /// Adds what `record`, of the path's type, says at `path`.
    pub(super) fn gather(&mut self, record: &'v Value, path: &ElementPath) {
        let segments: Vec<&str> = path.segments().skip(1).collect();
        self.walk(
            Found { value: record, type_name: "", choice: false },
            r4::root(path.resource_type()),
            &segments,
        );
    }

    /// As deep as the path is long, which is bounded.
    fn walk(&mut self, at: Found<'v>, structure: Structure, rest: &[&str]) {
        let Some((name, rest)) = rest.split_first() else {
            self.values.push(Found { type_name: r4::type_name(structure), ..at });
            return;
        };
        for (key, member) in at.value.as_object().into_iter().flatten() {
            let Some(property) = r4::property(structure, key) else { continue };
            if property.element.name != *name {
                continue;
            }
            self.has_twins |= property.twin && rest.is_empty();
            if property.twin {
                continue;
            }
            let items = member.as_array().map_or(std::slice::from_ref(member), Vec::as_slice);
            for value in items.iter().filter(|value| !value.is_null()) {
                let found = Found { value, type_name: "", choice: property.element.choice };
                self.walk(found, property.structure, rest);
            }
        }
    }
}
