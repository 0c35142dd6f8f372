//! What a change writes, for the trail.
//!
//! Owns: the elements in which two versions of a record differ. Must never: tell a value.
//! Look next: `domain::audit`, which keeps the list.

use std::collections::BTreeSet;

use super::Tree;
use super::tree::{EMPTY, Member, Node};
use crate::domain::fhir::r4::{self, ResourceType};

/// Element paths at the top of the record whose values differ; `before` is none for a new record. Server-managed
/// `id` does not count.
pub(super) fn changed(resource: ResourceType, before: Option<&Tree>, after: &Tree) -> Vec<String> {
    let before = before.map_or(EMPTY, |tree| tree.root.members());
    let after = after.root.members();
    let differs = |name: &str| value(before, name) != value(after, name);
    let names: BTreeSet<&str> = before.iter().chain(after).map(Member::name).collect();
    let counts = |name: &&str| !matches!(*name, "resourceType" | "id") && differs(name);
    let paths: BTreeSet<String> = names.into_iter().filter(counts).map(|name| path(resource, name)).collect();
    paths.into_iter().collect()
}

fn value<'m>(members: &'m [Member], name: &str) -> Option<&'m Node> {
    members.iter().find(|member| member.name() == name).map(|member| &member.value)
}

/// A choice is one element, whatever the type in its name; a twin belongs to its primitive.
fn path(resource: ResourceType, name: &str) -> String {
    let property = r4::property(r4::root(resource), name);
    let element = property.map_or(name, |property| property.element.name);
    format!("{}.{element}", resource.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_that_differ_are_named() {
        let patient = ResourceType::from_name("Patient").unwrap();
        let before =
            Tree::parse(br#"{"resourceType":"Patient","id":"1","gender":"male","active":true}"#).unwrap();
        let after =
            br#"{"resourceType":"Patient","id":"1","active":true,"deceasedBoolean":false,"_gender":{}}"#;
        let after = Tree::parse(after).unwrap();
        assert_eq!(changed(patient, Some(&before), &after), ["Patient.deceased", "Patient.gender"]);
        assert_eq!(changed(patient, Some(&after), &after), [""; 0]);
        assert_eq!(changed(patient, None, &before), ["Patient.active", "Patient.gender"]);
    }
}
