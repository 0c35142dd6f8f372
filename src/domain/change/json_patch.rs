//! JSON Patch (RFC 6902) with JSON Pointer (RFC 6901).
//!
//! Owns: reading the operations, which elements they touch, applying them to a tree.
//! Must never: apply half a patch, or take a pointer for an element that the tables do not know.
//! Look next: `tests.rs` beside this file's room, with the RFC's own examples.

use super::extent::child_path;
use super::tree::{Member, Node};
use super::{ChangeRefusal, Touch, Tree};
use crate::domain::fhir::r4::{self, Kind, ResourceType};
use crate::limits;

/// A pointer's tokens, unescaped.
type Pointer = Vec<String>;

pub(super) enum Operation {
    Add(Pointer, Node),
    Remove(Pointer),
    Replace(Pointer, Node),
    Move { from: Pointer, path: Pointer },
    Copy { from: Pointer, path: Pointer },
    Test(Pointer, Node),
}

pub(super) fn touches(resource: ResourceType, patch: &[u8]) -> Result<Vec<Touch>, ChangeRefusal> {
    let mut found = Vec::new();
    for operation in read(patch)? {
        let mut touch = |pointer: &Pointer, reads: bool, writes: bool| {
            element_path(resource, pointer).map(|path| found.push(Touch { path, reads, writes }))
        };
        match &operation {
            Operation::Add(path, _) | Operation::Remove(path) | Operation::Replace(path, _) => {
                touch(path, false, true)?;
            }
            Operation::Move { from, path } => {
                touch(from, true, true)?;
                touch(path, false, true)?;
            }
            Operation::Copy { from, path } => {
                touch(from, true, false)?;
                touch(path, false, true)?;
            }
            Operation::Test(path, _) => touch(path, true, false)?,
        }
    }
    Ok(found)
}

pub(super) fn apply(resource: ResourceType, patch: &[u8], view: &Tree) -> Result<Tree, ChangeRefusal> {
    touches(resource, patch)?;
    let mut root = view.root.clone();
    run(&read(patch)?, &mut root)?;
    if root.resource_type() != Some(resource) {
        return Err(ChangeRefusal::Malformed);
    }
    prune(&mut root);
    Ok(Tree { root })
}

/// Reads the operations. Members that RFC 6902 does not name are ignored, as it says.
pub(super) fn read(patch: &[u8]) -> Result<Vec<Operation>, ChangeRefusal> {
    let Node::Array(operations) = Node::parse(patch)? else { return Err(ChangeRefusal::Malformed) };
    if operations.len() > limits::PATCH_OPERATIONS_MAX {
        return Err(ChangeRefusal::TooLarge);
    }
    operations.iter().map(operation).collect()
}

fn operation(node: &Node) -> Result<Operation, ChangeRefusal> {
    let at = |name| pointer(&node.says(name).ok_or(ChangeRefusal::Malformed)?);
    let value = || node.member("value").cloned().ok_or(ChangeRefusal::Malformed);
    let path = at("path")?;
    match node.says("op").as_deref() {
        Some("add") => Ok(Operation::Add(path, value()?)),
        Some("remove") => Ok(Operation::Remove(path)),
        Some("replace") => Ok(Operation::Replace(path, value()?)),
        Some("move") => Ok(Operation::Move { from: at("from")?, path }),
        Some("copy") => Ok(Operation::Copy { from: at("from")?, path }),
        Some("test") => Ok(Operation::Test(path, value()?)),
        Some(_) | None => Err(ChangeRefusal::Malformed),
    }
}

fn pointer(text: &str) -> Result<Pointer, ChangeRefusal> {
    if text.is_empty() {
        return Ok(Pointer::new());
    }
    let tokens = text.strip_prefix('/').ok_or(ChangeRefusal::Malformed)?;
    if text.len() > limits::PATCH_PATH_BYTES_MAX || tokens.split('/').count() > limits::PATCH_PATH_STEPS_MAX {
        return Err(ChangeRefusal::TooLarge);
    }
    tokens.split('/').map(token).collect()
}

/// RFC 6901 section 4: `~1` is a slash, `~0` a tilde, and no other tilde may be.
fn token(text: &str) -> Result<String, ChangeRefusal> {
    let sound = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if sound { Ok(text.replace("~1", "/").replace("~0", "~")) } else { Err(ChangeRefusal::Malformed) }
}

/// The element a pointer names, by the tables alone.
fn element_path(resource: ResourceType, pointer: &[String]) -> Result<String, ChangeRefusal> {
    let (mut path, mut structure) = (resource.name().to_owned(), r4::root(resource));
    let (mut open, mut items) = (true, false);
    for token in pointer {
        if items {
            items = false;
            if token != "-" && index(token).is_none() {
                return Err(ChangeRefusal::Malformed);
            }
            continue;
        }
        let property = r4::property(structure, token).filter(|_| open).ok_or(ChangeRefusal::Malformed)?;
        path = child_path(&path, property.element);
        structure = property.structure;
        items = property.element.many;
        match r4::kind(structure) {
            // What is inside is another record, decided as one.
            Kind::Resource | Kind::AnyResource => return Ok(path),
            Kind::Primitive(_) => open = property.twin,
            Kind::Complex => {}
        }
    }
    Ok(path)
}

/// RFC 6901 section 4: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (token == "0" || !token.starts_with('0'));
    if plain { token.parse().ok() } else { None }
}

/// Applies the operations one by one.
pub(super) fn run(operations: &[Operation], root: &mut Node) -> Result<(), ChangeRefusal> {
    let mut size = root.size();
    let mut grown = |value: &Node| {
        size = size.saturating_add(value.size());
        if size > limits::RECORD_BYTES_MAX { Err(ChangeRefusal::TooLarge) } else { Ok(()) }
    };
    for operation in operations {
        match operation {
            Operation::Add(path, value) => {
                grown(value)?;
                add(root, path, value.clone())?;
            }
            Operation::Remove(path) => {
                remove(root, path)?;
            }
            Operation::Replace(path, value) => {
                grown(value)?;
                *find(root, path).ok_or(ChangeRefusal::NoSuchPlace)? = deep_enough(path, value.clone())?;
            }
            Operation::Move { from, path } => {
                if path.len() > from.len() && path.starts_with(from) {
                    return Err(ChangeRefusal::NoSuchPlace);
                }
                let value = remove(root, from)?;
                add(root, path, value)?;
            }
            Operation::Copy { from, path } => {
                let value = find(root, from).ok_or(ChangeRefusal::NoSuchPlace)?.clone();
                grown(&value)?;
                add(root, path, value)?;
            }
            Operation::Test(path, value) => {
                let found = find(root, path).ok_or(ChangeRefusal::NoSuchPlace)?;
                if !equal(found, value) {
                    return Err(ChangeRefusal::TestFailed);
                }
            }
        }
    }
    Ok(())
}

/// The value, if the tree stays within the depth that is read.
fn deep_enough(path: &[String], value: Node) -> Result<Node, ChangeRefusal> {
    if path.len() + value.depth() > limits::JSON_DEPTH_MAX { Err(ChangeRefusal::TooLarge) } else { Ok(value) }
}

fn find<'n>(root: &'n mut Node, path: &[String]) -> Option<&'n mut Node> {
    path.iter().try_fold(root, |node, token| match node {
        Node::Object(members) => {
            members.iter_mut().find(|member| member.name() == token).map(|member| &mut member.value)
        }
        Node::Array(items) => items.get_mut(index(token)?),
        Node::Scalar(_) => None,
    })
}

fn add(root: &mut Node, path: &[String], value: Node) -> Result<(), ChangeRefusal> {
    let value = deep_enough(path, value)?;
    let Some((last, parents)) = path.split_last() else {
        *root = value;
        return Ok(());
    };
    match find(root, parents) {
        Some(Node::Object(members)) => match members.iter_mut().find(|member| member.name() == last) {
            Some(member) => member.value = value,
            None => members.push(Member::new(last, value)),
        },
        Some(Node::Array(items)) => {
            let at = if last == "-" { Some(items.len()) } else { index(last) };
            let at = at.filter(|at| *at <= items.len()).ok_or(ChangeRefusal::NoSuchPlace)?;
            items.insert(at, value);
        }
        Some(Node::Scalar(_)) | None => return Err(ChangeRefusal::NoSuchPlace),
    }
    Ok(())
}

fn remove(root: &mut Node, path: &[String]) -> Result<Node, ChangeRefusal> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(std::mem::replace(root, Node::null()));
    };
    let gone = match find(root, parents) {
        Some(Node::Object(members)) => {
            let at = members.iter().position(|member| member.name() == last);
            at.map(|at| members.remove(at).value)
        }
        Some(Node::Array(items)) => index(last).filter(|at| *at < items.len()).map(|at| items.remove(at)),
        Some(Node::Scalar(_)) | None => None,
    };
    gone.ok_or(ChangeRefusal::NoSuchPlace)
}

/// RFC 6902 section 4.6: numbers are equal if their values are.
fn equal(one: &Node, two: &Node) -> bool {
    match (one, two) {
        (Node::Object(members), Node::Object(others)) => {
            members.len() == others.len()
                && members
                    .iter()
                    .all(|member| two.member(member.name()).is_some_and(|other| equal(&member.value, other)))
        }
        (Node::Array(items), Node::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(one, two)| equal(one, two))
        }
        (Node::Scalar(text), Node::Scalar(other)) => {
            one == two || matches!((decimal(text), decimal(other)), (Some(one), Some(two)) if one == two)
        }
        (Node::Object(_) | Node::Array(_) | Node::Scalar(_), _) => false,
    }
}

/// Sign, digits without outer zeros, and exponent of a number: one spelling for one value.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let digits = format!("{whole}{fraction}");
    let short = digits.trim_end_matches('0');
    let shift = i64::try_from(digits.len() - short.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let digits = short.trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Some((false, digits, 0));
    }
    Some((negative, digits, exponent.checked_add(shift)?))
}

/// R4 knows no empty object and no empty array; removing the last item leaves one.
pub(super) fn prune(node: &mut Node) {
    match node {
        Node::Object(members) => {
            members.iter_mut().for_each(|member| prune(&mut member.value));
            members.retain(|member| !member.value.is_empty());
        }
        Node::Array(items) => {
            items.iter_mut().for_each(prune);
            items.retain(|item| !item.is_empty());
        }
        Node::Scalar(_) => {}
    }
}

#[cfg(test)]
#[path = "json_patch_tests.rs"]
mod tests;
