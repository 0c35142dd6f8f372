//! New content: may all of it be written, and is none of it ours?
//!
//! Owns: the walk over what is sent, marks of withheld elements, and what belongs to the server.
//! Must never: let an element pass that the tables do not know or the mask does not keep.
//! Look next: `merge`, which asks the same of what a change adds.

use super::extent::{child_path, extension_path, step};
use super::tree::{Member, Node};
use super::{ChangeRefusal, Tree};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, Element, Kind, Primitive, ResourceType, Structure};

const SUBSETTED_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
const SUBSETTED_CODE: &str = "SUBSETTED";
const ABSENT_REASON: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";
const MASKED: &str = "masked";
/// Members of `meta` that the server sets.
const SERVER_META: [&str; 4] = ["versionId", "_versionId", "lastUpdated", "_lastUpdated"];

pub(super) fn accept(resource: ResourceType, sent: &Tree, modify: &Mask) -> Result<Tree, ChangeRefusal> {
    if sent.resource_type() != Some(resource) || modify.resource_type() != resource {
        return Err(ChangeRefusal::Malformed);
    }
    let members = without_server_content(&sent.root);
    let scope = Writing { marks: Marks::Refuse };
    scope.members(&members, r4::root(resource), modify.cursor(), resource.name())?;
    let mut all = vec![Member::new("resourceType", Node::text(resource.name()))];
    all.extend(members);
    Ok(Tree { root: Node::Object(all) })
}

/// The members of a record that are its author's: no `resourceType`, `id`, server's `meta`, nor our tag.
pub(super) fn without_server_content(record: &Node) -> Vec<Member> {
    let own = record.members().iter().filter(|member| !["resourceType", "id"].contains(&member.name()));
    own.filter_map(|member| {
        if member.name() == "meta" {
            without_tag(&member.value, &SERVER_META).map(|meta| member.with(meta))
        } else {
            Some(member.with(without_subsetted(&member.value)))
        }
    })
    .collect()
}

/// The value with no record in it that says SUBSETTED.
fn without_subsetted(node: &Node) -> Node {
    let members = match node {
        Node::Scalar(_) => return node.clone(),
        Node::Array(items) => return Node::Array(items.iter().map(without_subsetted).collect()),
        Node::Object(members) => members,
    };
    let record = node.member("resourceType").is_some();
    let inner = members.iter().filter_map(|member| {
        if record && member.name() == "meta" {
            without_tag(&member.value, &[]).map(|meta| member.with(meta))
        } else {
            Some(member.with(without_subsetted(&member.value)))
        }
    });
    Node::Object(inner.collect())
}

/// A meta without our tag and without these members; none if nothing is left that was more than them.
fn without_tag(meta: &Node, but: &[&str]) -> Option<Node> {
    let Node::Object(members) = meta else { return Some(meta.clone()) };
    let left: Vec<Member> = members
        .iter()
        .filter(|member| !but.contains(&member.name()))
        .filter_map(|member| match &member.value {
            Node::Array(tags) if member.name() == "tag" && tags.iter().any(is_subsetted) => {
                let others: Vec<Node> = tags.iter().filter(|tag| !is_subsetted(tag)).cloned().collect();
                (!others.is_empty()).then(|| member.with(Node::Array(others)))
            }
            Node::Array(_) | Node::Object(_) | Node::Scalar(_) => Some(member.clone()),
        })
        .collect();
    (!left.is_empty() || members.is_empty()).then_some(Node::Object(left))
}

fn is_subsetted(tag: &Node) -> bool {
    tag.says("code").is_some_and(|code| code == SUBSETTED_CODE)
        && tag.says("system").is_some_and(|system| system == SUBSETTED_SYSTEM)
}

/// The record says of itself that it is not the whole record.
pub(super) fn says_subsetted(record: &Node) -> bool {
    let tags = record.member("meta").and_then(|meta| meta.member("tag"));
    tags.is_some_and(|tags| tags.items().iter().any(is_subsetted))
}

/// One element of an object: its value and its underscore twin.
#[derive(Clone)]
pub(super) struct Group<'t> {
    pub element: &'static Element,
    pub structure: Structure,
    pub value: Option<&'t Member>,
    pub twin: Option<&'t Member>,
    /// The twin was written first.
    twin_first: bool,
}

impl<'t> Group<'t> {
    pub(super) fn value(&self) -> Option<&'t Node> {
        self.value.map(|member| &member.value)
    }

    pub(super) fn twin(&self) -> Option<&'t Node> {
        self.twin.map(|member| &member.value)
    }

    /// Both halves, in the order they were written.
    pub(super) fn members(&self) -> Vec<Member> {
        let halves = if self.twin_first { [self.twin, self.value] } else { [self.value, self.twin] };
        halves.into_iter().flatten().cloned().collect()
    }

    /// The items of a repeated element.
    pub(super) fn items(&self) -> &'t [Node] {
        self.value().map(Node::items).unwrap_or_default()
    }

    pub(super) fn same(&self, other: &Group<'_>) -> bool {
        self.structure == other.structure && self.value() == other.value() && self.twin() == other.twin()
    }

    pub(super) fn is_extensions(&self) -> bool {
        self.element.name == "extension" && r4::type_name(self.structure) == "Extension"
    }

    /// It is what the filter writes in place of a withheld mandatory element.
    pub(super) fn is_mark(&self) -> bool {
        let single = |node: &'t Node| match (self.element.many, node) {
            (true, Node::Array(items)) => items.as_slice().first().filter(|_| items.len() == 1),
            (true, Node::Object(_) | Node::Scalar(_)) => None,
            (false, _) => Some(node),
        };
        if self.element.min == 0 {
            return false;
        }
        match (self.value(), self.twin()) {
            (None, Some(twin)) => {
                single(twin).is_some_and(|twin| twin.members().len() == 1 && is_masked(twin))
            }
            (Some(value), None) => single(value).is_some_and(|value| is_marked(value, self.structure)),
            (Some(_), Some(_)) | (None, None) => false,
        }
    }
}

/// An object that says only that it is masked, as do its mandatory elements.
fn is_marked(value: &Node, structure: Structure) -> bool {
    let others = groups(value.members(), structure).0;
    let others = others.iter().filter(|group| !group.is_extensions());
    is_masked(value) && others.into_iter().all(Group::is_mark)
}

fn is_masked(value: &Node) -> bool {
    let Some(Node::Array(extensions)) = value.member("extension") else { return false };
    let [extension] = extensions.as_slice() else { return false };
    extension.members().len() == 2
        && extension.says("url").is_some_and(|url| url == ABSENT_REASON)
        && extension.says("valueCode").is_some_and(|code| code == MASKED)
}

/// The elements of an object in order, and the members R4 does not know. `resourceType` is neither.
pub(super) fn groups(members: &[Member], structure: Structure) -> (Vec<Group<'_>>, Vec<&Member>) {
    let mut found: Vec<Group<'_>> = Vec::new();
    let mut unknown = Vec::new();
    for member in members {
        let Some(property) = r4::property(structure, member.name()) else {
            if member.name() != "resourceType" || r4::kind(structure) != Kind::Resource {
                unknown.push(member);
            }
            continue;
        };
        let at = found.iter().position(|one| one.element.name == property.element.name);
        match at.and_then(|at| found.get_mut(at)) {
            Some(group) if group.structure != property.structure => unknown.push(member),
            Some(group) if property.twin => group.twin = Some(member),
            Some(group) => group.value = Some(member),
            None => found.push(Group {
                element: property.element,
                structure: property.structure,
                value: (!property.twin).then_some(member),
                twin: property.twin.then_some(member),
                twin_first: property.twin,
            }),
        }
    }
    (found, unknown)
}

/// What marks of withheld elements among new content mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    Refuse,
    /// The EMR's own content holds one, which comes back with the rest.
    Allow,
}

/// The check of new content.
#[derive(Clone, Copy)]
pub(super) struct Writing {
    pub marks: Marks,
}

impl Writing {
    pub(super) fn members(
        self,
        members: &[Member],
        structure: Structure,
        modify: MaskCursor<'_>,
        path: &str,
    ) -> Result<(), ChangeRefusal> {
        let (groups, unknown) = groups(members, structure);
        if !unknown.is_empty() {
            return Err(ChangeRefusal::Malformed);
        }
        groups.iter().try_for_each(|group| self.group(group, structure, modify, path))
    }

    /// One element of `owner`; `modify` and `path` are the owner's.
    pub(super) fn group(
        self,
        group: &Group<'_>,
        owner: Structure,
        modify: MaskCursor<'_>,
        path: &str,
    ) -> Result<(), ChangeRefusal> {
        fits(group)?;
        if group.is_extensions() {
            return group.items().iter().try_for_each(|item| self.extension(item, modify, path));
        }
        let (cursor, path) = (step(modify, owner, group.element), child_path(path, group.element));
        if self.marks == Marks::Refuse && group.is_mark() {
            return Err(ChangeRefusal::Withheld(path));
        }
        self.values(group, cursor, &path)
    }

    /// The values of an element that `cursor` and `path` stand on.
    pub(super) fn values(
        self,
        group: &Group<'_>,
        cursor: MaskCursor<'_>,
        path: &str,
    ) -> Result<(), ChangeRefusal> {
        let inner = |item: &Node| self.members(item.members(), group.structure, cursor, path);
        match r4::kind(group.structure) {
            Kind::Complex => group.items().iter().try_for_each(inner),
            Kind::Primitive(_) if cursor.keeps() => {
                group.twin().map(Node::items).unwrap_or_default().iter().try_for_each(inner)
            }
            Kind::Resource | Kind::AnyResource if cursor.whole() == Some(true) => Ok(()),
            Kind::Primitive(_) | Kind::Resource | Kind::AnyResource => {
                Err(ChangeRefusal::NotWritable(path.to_owned()))
            }
        }
    }

    /// One extension of the element that `modify` and `path` stand on.
    pub(super) fn extension(
        self,
        extension: &Node,
        modify: MaskCursor<'_>,
        path: &str,
    ) -> Result<(), ChangeRefusal> {
        let path = extension_path(path);
        let structure = r4::structure("Extension").ok_or(ChangeRefusal::Malformed)?;
        let cursor = extension.says("url").map(|url| modify.extension(&url));
        match cursor.filter(|cursor| cursor.keeps()) {
            Some(cursor) => self.members(extension.members(), structure, cursor, &path),
            None => Err(ChangeRefusal::NotWritable(path)),
        }
    }
}

/// The JSON has the shape R4 prescribes. The filter has seen to that; a patch may have changed it.
pub(super) fn fits(group: &Group<'_>) -> Result<(), ChangeRefusal> {
    let value =
        |node: &Node| fits_value(node, group.structure) || (group.element.many && is_gap(node, group));
    let twin = |node: &Node| matches!(node, Node::Object(_)) || (group.element.many && node.is_null());
    let values = group.value().is_none_or(|node| each(node, group.element.many, value));
    let twins = group.twin().is_none_or(|node| each(node, group.element.many, twin));
    if values && twins { Ok(()) } else { Err(ChangeRefusal::Malformed) }
}

fn each(node: &Node, many: bool, fits: impl Fn(&Node) -> bool) -> bool {
    match (many, node) {
        (true, Node::Array(items)) => items.iter().all(fits),
        (true, Node::Object(_) | Node::Scalar(_)) => false,
        (false, node) => fits(node),
    }
}

/// A place without a value, kept for its twin.
fn is_gap(node: &Node, group: &Group<'_>) -> bool {
    node.is_null() && matches!(r4::kind(group.structure), Kind::Primitive(_))
}

fn fits_value(node: &Node, structure: Structure) -> bool {
    let Node::Scalar(text) = node else {
        let object = matches!(node, Node::Object(_));
        return object && !matches!(r4::kind(structure), Kind::Primitive(_));
    };
    match r4::kind(structure) {
        Kind::Primitive(Primitive::Boolean) => ["true", "false"].contains(&&**text),
        Kind::Primitive(Primitive::Number) => text.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
        Kind::Primitive(Primitive::Text | Primitive::Xhtml) => text.starts_with('"'),
        Kind::Complex | Kind::Resource | Kind::AnyResource => false,
    }
}
