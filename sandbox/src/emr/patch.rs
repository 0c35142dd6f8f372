//! JSON Patch (RFC 6902) on a record's text; what no operation touches keeps its bytes, white space between tokens excepted.
//!
//! Owns: a small JSON tree whose scalars stay text, JSON Pointers, the six operations.
//! Must never: store anything; re-print a number.
//! Look next: `writing`.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Why a patch was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misapplied {
    /// Not a JSON Patch.
    Malformed,
    /// A path that does not exist, or a `test` that does not hold.
    Conflict,
}

#[derive(Clone, Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// A string, number, boolean or null, as it was written.
    Scalar(String),
}

#[derive(Deserialize)]
struct Operation<'a> {
    op: String,
    path: String,
    from: Option<String>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

/// The members of an object, in order, unread.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Applies a JSON Patch to a resource's text.
///
/// # Errors
/// `Misapplied`; nothing is applied then.
pub(super) fn apply(text: &str, patch: &[u8]) -> Result<String, Misapplied> {
    let operations: Vec<Operation<'_>> = serde_json::from_slice(patch).map_err(|_| Misapplied::Malformed)?;
    let mut tree = parse(text).ok_or(Misapplied::Malformed)?;
    for operation in &operations {
        perform(&mut tree, operation)?;
    }
    let mut out = String::with_capacity(text.len() + 64);
    print(&tree, &mut out);
    Ok(out)
}

fn parse(text: &str) -> Option<Node> {
    let text = text.trim();
    match text.as_bytes().first()? {
        b'{' => {
            let members: Members<'_> = serde_json::from_str(text).ok()?;
            let read = |(key, raw): (String, &RawValue)| Some((key, parse(raw.get())?));
            members.0.into_iter().map(read).collect::<Option<_>>().map(Node::Object)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.into_iter().map(|raw| parse(raw.get())).collect::<Option<_>>().map(Node::Array)
        }
        _ => serde_json::from_str::<&RawValue>(text).ok().map(|raw| Node::Scalar(raw.get().to_owned())),
    }
}

fn print(node: &Node, out: &mut String) {
    match node {
        Node::Scalar(text) => out.push_str(text),
        Node::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                print(item, out);
            }
            out.push(']');
        }
        Node::Object(members) => {
            out.push('{');
            for (at, (key, member)) in members.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                out.push_str(&format!("{comma}{}:", Value::String(key.clone())));
                print(member, out);
            }
            out.push('}');
        }
    }
}

fn perform(tree: &mut Node, operation: &Operation<'_>) -> Result<(), Misapplied> {
    let path = pointer(&operation.path)?;
    let value = || operation.value.and_then(|raw| parse(raw.get())).ok_or(Misapplied::Malformed);
    let from = || operation.from.as_deref().ok_or(Misapplied::Malformed).and_then(pointer);
    match operation.op.as_str() {
        "add" => add(tree, &path, value()?),
        "remove" => remove(tree, &path).map(drop),
        "replace" => {
            *find(tree, &path).ok_or(Misapplied::Conflict)? = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(tree, &from()?)?;
            add(tree, &path, moved)
        }
        "copy" => {
            let copied = find(tree, &from()?).ok_or(Misapplied::Conflict)?.clone();
            add(tree, &path, copied)
        }
        "test" => {
            let wanted = value()?;
            let has = find(tree, &path).ok_or(Misapplied::Conflict)?;
            if same(has, &wanted) { Ok(()) } else { Err(Misapplied::Conflict) }
        }
        _ => Err(Misapplied::Malformed),
    }
}

/// RFC 6901.
fn pointer(text: &str) -> Result<Vec<String>, Misapplied> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or(Misapplied::Malformed)?;
    Ok(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'t>(tree: &'t mut Node, path: &[String]) -> Option<&'t mut Node> {
    let Some((step, rest)) = path.split_first() else { return Some(tree) };
    match tree {
        Node::Object(members) => {
            members.iter_mut().find(|(key, _)| key == step).and_then(|(_, member)| find(member, rest))
        }
        Node::Array(items) => items.get_mut(position(step)?).and_then(|item| find(item, rest)),
        Node::Scalar(_) => None,
    }
}

fn position(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with('0');
    if plain && step.bytes().all(|b| b.is_ascii_digit()) { step.parse().ok() } else { None }
}

fn add(tree: &mut Node, path: &[String], value: Node) -> Result<(), Misapplied> {
    let Some((last, above)) = path.split_last() else {
        *tree = value;
        return Ok(());
    };
    match find(tree, above).ok_or(Misapplied::Conflict)? {
        Node::Object(members) => {
            match members.iter_mut().find(|(key, _)| key == last) {
                Some((_, member)) => *member = value,
                None => members.push((last.clone(), value)),
            }
            Ok(())
        }
        Node::Array(items) => {
            let at = if last == "-" { Some(items.len()) } else { position(last) };
            let at = at.filter(|at| *at <= items.len()).ok_or(Misapplied::Conflict)?;
            items.insert(at, value);
            Ok(())
        }
        Node::Scalar(_) => Err(Misapplied::Conflict),
    }
}

fn remove(tree: &mut Node, path: &[String]) -> Result<Node, Misapplied> {
    let (last, above) = path.split_last().ok_or(Misapplied::Conflict)?;
    match find(tree, above).ok_or(Misapplied::Conflict)? {
        Node::Object(members) => {
            let at = members.iter().position(|(key, _)| key == last).ok_or(Misapplied::Conflict)?;
            Ok(members.remove(at).1)
        }
        Node::Array(items) => {
            let at = position(last).filter(|at| *at < items.len()).ok_or(Misapplied::Conflict)?;
            Ok(items.remove(at))
        }
        Node::Scalar(_) => Err(Misapplied::Conflict),
    }
}

/// Equal as JSON: `1.0` is `1`, the order of members does not count.
fn same(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Scalar(a), Node::Scalar(b)) => {
            let read = |text: &str| serde_json::from_str::<Value>(text).ok();
            let (a, b) = (read(a), read(b));
            let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
            a == b || (number(&a).is_some() && number(&a) == number(&b))
        }
        (Node::Array(a), Node::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Node::Object(a), Node::Object(b)) => {
            let held = |(key, a): &(String, Node)| b.iter().any(|(other, b)| key == other && same(a, b));
            a.len() == b.len() && a.iter().all(held)
        }
        (Node::Scalar(_) | Node::Array(_) | Node::Object(_), _) => false,
    }
}
