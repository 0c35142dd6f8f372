//! References under a base of ours, made relative.
//!
//! Owns: finding `Reference.reference` and `Attachment.url` by the tables, at any depth, contained records included.
//! Must never: touch another text, or a reference to another server.
//! Look next: `filter::reference`, which writes them absolute again.

use super::Tree;
use super::tree::{Member, Node};
use crate::domain::fhir::r4::{self, ResourceType, Structure};

pub(super) fn localise(tree: &mut Tree, base: &str) {
    let Some(resource) = tree.resource_type().filter(|resource| resource.name() != "Bundle") else { return };
    object(&mut tree.root, r4::root(resource), base);
}

fn object(node: &mut Node, structure: Structure, base: &str) {
    let structure = node.resource_type().map_or(structure, r4::root);
    let Node::Object(members) = node else { return };
    for member in members {
        let Some(property) = r4::property(structure, member.name()) else { continue };
        let place = (r4::type_name(structure), member.name());
        if [("Reference", "reference"), ("Attachment", "url")].contains(&place) {
            reference(member, base);
        } else {
            each(&mut member.value, property.structure, base);
        }
    }
}

fn each(node: &mut Node, structure: Structure, base: &str) {
    match node {
        Node::Array(items) => items.iter_mut().for_each(|item| object(item, structure, base)),
        Node::Object(_) => object(node, structure, base),
        Node::Scalar(_) => {}
    }
}

fn reference(member: &mut Member, base: &str) {
    let relative = member.value.as_text().and_then(|text| {
        let path = under(base, &text)?;
        let (name, _) = path.split_once('/')?;
        ResourceType::from_name(name).map(|_| Node::text(path))
    });
    if let Some(relative) = relative {
        member.value = relative;
    }
}

/// What follows the base and its slash. Scheme and authority in any case (RFC 3986 section 6.2.2.1).
fn under<'t>(base: &str, text: &'t str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(base.len())?;
    let scheme = base.find("://").map_or(0, |at| at + 3);
    let path = base.get(scheme..)?.find('/').map_or(base.len(), |at| scheme + at);
    let same =
        head.get(..path)?.eq_ignore_ascii_case(base.get(..path)?) && head.get(path..) == base.get(path..);
    rest.strip_prefix('/').filter(|_| same)
}
