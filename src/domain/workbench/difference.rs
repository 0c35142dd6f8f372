//! What one mask lets pass and another does not.
//!
//! Owns: the largest parts of it, by path. Must never: name an element that both let pass or both withhold.
//! Look next: `replay`, which asks; `fhir::mask`.

use super::tree::{cursor, elements};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{self, ElementPath, Structure};

/// The elements of `one` that are not in `other`, the largest wholly so first met. Single extensions by URL are looked at
/// where `one` names them.
pub(super) fn difference(one: &Mask, other: &Mask) -> Vec<String> {
    let mut found = Vec::new();
    for path in one.kept() {
        let Ok(element) = ElementPath::parse(&path) else { continue };
        if element.extension_url().is_some() {
            if !other.covers(&element) {
                found.push(path);
            }
            continue;
        }
        let types: Vec<Structure> = match element.element() {
            None => vec![r4::root(element.resource_type())],
            Some(element) => element.types.to_vec(),
        };
        parts(other, &path, &types, &mut found);
    }
    found
}

fn parts(other: &Mask, path: &str, types: &[Structure], found: &mut Vec<String>) {
    match cursor(other, path).whole() {
        Some(true) => {}
        Some(false) => found.push(path.to_owned()),
        None => {
            let before = found.len();
            let below = elements(path, types);
            for (path, types) in &below {
                parts(other, path, types, found);
            }
            // Mixed by what has no path of its own, such as single extensions.
            if found.len() == before {
                found.push(path.to_owned());
            }
        }
    }
}
