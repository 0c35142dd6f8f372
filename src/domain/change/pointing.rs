//! What the references of a record say, and saying it otherwise.
//!
//! Owns: finding every `Reference.reference` of a tree, and replacing those that stand for something else.
//! Must never: change any other text.
//! Look next: `gateway::write`, which resolves references by search; `localise`.

use std::collections::BTreeMap;

use super::Tree;
use super::tree::Node;

/// Every `reference` text of the record, at any depth.
pub(super) fn references(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    collect(&tree.root, &mut found);
    found
}

fn collect(node: &Node, found: &mut Vec<String>) {
    match node {
        Node::Object(members) => members.iter().for_each(|member| match member.value.as_text() {
            Some(text) if member.name() == "reference" => found.push(text.into_owned()),
            Some(_) | None => collect(&member.value, found),
        }),
        Node::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Node::Scalar(_) => {}
    }
}

/// Replaces each `reference` text that has another name in `places`.
pub(super) fn point(tree: &mut Tree, places: &BTreeMap<String, String>) {
    if !places.is_empty() {
        replace(&mut tree.root, places);
    }
}

fn replace(node: &mut Node, places: &BTreeMap<String, String>) {
    match node {
        Node::Object(members) => members.iter_mut().for_each(|member| {
            let named = member.value.as_text().filter(|_| member.name() == "reference");
            match named.and_then(|text| places.get(text.as_ref())).map(|place| Node::text(place)) {
                Some(value) => member.value = value,
                None => replace(&mut member.value, places),
            }
        }),
        Node::Array(items) => items.iter_mut().for_each(|item| replace(item, places)),
        Node::Scalar(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_and_replaced_at_any_depth() {
        let text = br#"{"subject":{"reference":"urn:uuid:1"},"note":"urn:uuid:1","x":[{"reference":"Patient?identifier=a"}]}"#;
        let mut tree = Tree::parse(text).unwrap();
        assert_eq!(references(&tree), ["urn:uuid:1", "Patient?identifier=a"]);
        point(&mut tree, &BTreeMap::from([("urn:uuid:1".to_owned(), "Patient/p1".to_owned())]));
        let shown = String::from_utf8(tree.print()).unwrap();
        assert!(shown.starts_with(r#"{"subject":{"reference":"Patient/p1"},"note":"urn:uuid:1""#), "{shown}");
    }
}
