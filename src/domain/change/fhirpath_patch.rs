//! FHIRPath Patch (R4 fhirpatch.html): add, insert, delete, replace and move in a `Parameters` resource.
//!
//! Owns: reading the operations, the JSON names their values get, applying them to a tree.
//! Must never: apply half a patch, or put a value where the tables do not have its type.
//! Look next: `fhirpath`, the paths.

use super::fhirpath::{Key, Named, Path, Spot, Step, places};
use super::json_patch::prune;
use super::tree::{Member, Node};
use super::{ChangeRefusal, Touch, Tree};
use crate::domain::fhir::r4::{self, Element, Kind, ResourceType, Structure};
use crate::limits;

struct Operation<'p> {
    path: Path,
    action: Action<'p>,
}

enum Action<'p> {
    Add { name: String, value: &'p Node },
    Insert { index: usize, value: &'p Node },
    Delete,
    Replace { value: &'p Node },
    Move { source: usize, destination: usize },
}

const PARTS: [&str; 7] = ["type", "path", "name", "value", "index", "source", "destination"];

pub(super) fn touches(resource: ResourceType, patch: &[u8]) -> Result<Vec<Touch>, ChangeRefusal> {
    let parameters = Tree::parse(patch)?;
    let mut found = Vec::new();
    for operation in read(resource, &parameters)? {
        let mut named = Named::follow(resource, &operation.path.steps)?;
        if let Action::Add { name, .. } = &operation.action {
            named.child(name)?;
        }
        let read = named.reads.into_iter().map(|path| Touch { path, reads: true, writes: false });
        found.extend(read);
        found.push(Touch { path: named.path, reads: false, writes: true });
    }
    Ok(found)
}

pub(super) fn apply(resource: ResourceType, patch: &[u8], view: &Tree) -> Result<Tree, ChangeRefusal> {
    touches(resource, patch)?;
    let parameters = Tree::parse(patch)?;
    let mut root = view.root.clone();
    for operation in read(resource, &parameters)? {
        perform(resource, &operation, &mut root)?;
        if root.depth() > limits::JSON_DEPTH_MAX || root.size() > limits::RECORD_BYTES_MAX {
            return Err(ChangeRefusal::TooLarge);
        }
    }
    prune(&mut root);
    if root.resource_type() == Some(resource) { Ok(Tree { root }) } else { Err(ChangeRefusal::Malformed) }
}

fn read(resource: ResourceType, parameters: &Tree) -> Result<Vec<Operation<'_>>, ChangeRefusal> {
    let root = &parameters.root;
    if root.says("resourceType").as_deref() != Some("Parameters") {
        return Err(ChangeRefusal::Malformed);
    }
    let Some(Node::Array(operations)) = root.member("parameter") else {
        return Err(ChangeRefusal::Malformed);
    };
    if operations.len() > limits::PATCH_OPERATIONS_MAX {
        return Err(ChangeRefusal::TooLarge);
    }
    operations.iter().map(|one| operation(resource, one)).collect()
}

fn operation(resource: ResourceType, node: &Node) -> Result<Operation<'_>, ChangeRefusal> {
    let malformed = || ChangeRefusal::Malformed;
    let parts = node.member("part").filter(|_| node.says("name").as_deref() == Some("operation"));
    let Some(Node::Array(parts)) = parts else { return Err(malformed()) };
    let names: Vec<_> = parts.iter().map(|part| part.says("name")).collect();
    let known = |name: &str| PARTS.contains(&name);
    let sound = names.iter().enumerate().all(|(at, name)| {
        name.as_deref().is_some_and(known) && !names.iter().skip(at + 1).any(|other| other == name)
    });
    if !sound {
        return Err(malformed());
    }
    let part = |name: &str| parts.iter().find(|part| part.says("name").as_deref() == Some(name));
    let text = |name: &str, key: &str| part(name).and_then(|part| part.says(key)).ok_or_else(malformed);
    let number = |name: &str| match part(name).and_then(|part| part.member("valueInteger")) {
        Some(Node::Scalar(digits)) => digits.parse::<usize>().map_err(|_| malformed()),
        _ => Err(malformed()),
    };
    let value = || part("value").ok_or_else(malformed);
    let action = match text("type", "valueCode")?.as_ref() {
        "add" => Action::Add { name: text("name", "valueString")?.into_owned(), value: value()? },
        "insert" => Action::Insert { index: number("index")?, value: value()? },
        "delete" => Action::Delete,
        "replace" => Action::Replace { value: value()? },
        "move" => Action::Move { source: number("source")?, destination: number("destination")? },
        _ => return Err(malformed()),
    };
    Ok(Operation { path: Path::parse(resource, &text("path", "valueString")?)?, action })
}

fn perform(resource: ResourceType, operation: &Operation<'_>, root: &mut Node) -> Result<(), ChangeRefusal> {
    let steps = &operation.path.steps;
    match &operation.action {
        Action::Add { name, value } => {
            let spot = only(places(resource, root, steps))?;
            let named = Named { path: String::new(), types: vec![spot.structure], reads: Vec::new() };
            let element = named.element(name).ok_or(ChangeRefusal::Malformed)?;
            let made = Made::of(value, element)?;
            edit(root, &spot.object(), &made.key, element, |rows| {
                let room = element.many || rows.is_empty();
                room.then(|| rows.push(made.row.clone())).ok_or(ChangeRefusal::NoSuchPlace)
            })
        }
        Action::Insert { index, value } => {
            let (owner, element, key) = list(resource, root, steps)?;
            let made = Made::of(value, element)?;
            edit(root, &owner, &key, element, |rows| {
                let room = *index <= rows.len();
                room.then(|| rows.insert(*index, made.row.clone())).ok_or(ChangeRefusal::NoSuchPlace)
            })
        }
        Action::Move { source, destination } => {
            let (owner, element, key) = list(resource, root, steps)?;
            edit(root, &owner, &key, element, |rows| {
                if *source >= rows.len() || *destination >= rows.len() {
                    return Err(ChangeRefusal::NoSuchPlace);
                }
                let row = rows.remove(*source);
                rows.insert(*destination, row);
                Ok(())
            })
        }
        Action::Delete => match places(resource, root, steps).as_slice() {
            // R4: it is no error if nothing is there to be deleted.
            [] => Ok(()),
            [spot] => remove(root, spot),
            _ => Err(ChangeRefusal::NoSuchPlace),
        },
        Action::Replace { value } => {
            let spot = only(places(resource, root, steps))?;
            let element = spot.element.ok_or(ChangeRefusal::Malformed)?;
            replace(root, &spot, element, &Made::of(value, element)?)
        }
    }
}

fn only(mut spots: Vec<Spot>) -> Result<Spot, ChangeRefusal> {
    let spot = spots.pop().ok_or(ChangeRefusal::NoSuchPlace)?;
    if spots.is_empty() { Ok(spot) } else { Err(ChangeRefusal::NoSuchPlace) }
}

/// The one array that a path to a repeating element names: its owner, element and JSON name.
fn list(
    resource: ResourceType,
    root: &Node,
    steps: &[Step],
) -> Result<(Vec<Key>, &'static Element, String), ChangeRefusal> {
    let Some((Step::Child(name), parents)) = steps.split_last() else { return Err(ChangeRefusal::Malformed) };
    let owner = only(places(resource, root, parents))?;
    let named = Named { path: String::new(), types: vec![owner.structure], reads: Vec::new() };
    let element = named.element(name).filter(|element| element.many).ok_or(ChangeRefusal::Malformed)?;
    Ok((owner.object(), element, element.name.to_owned()))
}

fn remove(root: &mut Node, spot: &Spot) -> Result<(), ChangeRefusal> {
    let (Some((key, item)), Some(element)) = (&spot.member, spot.element) else {
        return Err(ChangeRefusal::Malformed);
    };
    edit(root, &spot.owner, key, element, |rows| {
        let at = item.unwrap_or(0);
        if at < rows.len() {
            rows.remove(at);
        }
        Ok(())
    })
}

fn replace(root: &mut Node, spot: &Spot, element: &Element, made: &Made) -> Result<(), ChangeRefusal> {
    let Some((key, item)) = &spot.member else { return Err(ChangeRefusal::Malformed) };
    if *key == made.key {
        return edit(root, &spot.owner, key, element, |rows| {
            let row = rows.get_mut(item.unwrap_or(0)).ok_or(ChangeRefusal::NoSuchPlace)?;
            *row = made.row.clone();
            Ok(())
        });
    }
    // A choice whose type changes.
    remove(root, spot)?;
    edit(root, &spot.owner, &made.key, element, |rows| {
        rows.push(made.row.clone());
        Ok(())
    })
}

/// A value with its twin.
#[derive(Clone, Default)]
struct Row {
    value: Option<Node>,
    twin: Option<Node>,
}

/// A value as it will stand in the record.
struct Made {
    key: String,
    row: Row,
}

impl Made {
    /// The value of a part, for this element.
    fn of(part: &Node, element: &Element) -> Result<Self, ChangeRefusal> {
        let parameter = r4::structure("Parameters.parameter").ok_or(ChangeRefusal::Malformed)?;
        let mut row = Row::default();
        let mut typed = None;
        for member in part.members() {
            let Some(property) = r4::property(parameter, member.name()) else { continue };
            if property.element.name != "value" {
                continue;
            }
            typed = Some(property.structure);
            let half = if property.twin { &mut row.twin } else { &mut row.value };
            *half = Some(member.value.clone());
        }
        match (typed, part.member("part")) {
            (Some(structure), None) => Ok(Self { key: key_of(element, structure)?, row }),
            (None, Some(Node::Array(parts))) => {
                let &[structure] = element.types else { return Err(ChangeRefusal::Malformed) };
                let value = Some(Node::Object(built(parts, structure)?));
                Ok(Self { key: element.name.to_owned(), row: Row { value, twin: None } })
            }
            _ => Err(ChangeRefusal::Malformed),
        }
    }
}

/// The members of an anonymous value: parts named by its elements. Bounded by the depth of the patch.
fn built(parts: &[Node], structure: Structure) -> Result<Vec<Member>, ChangeRefusal> {
    if r4::kind(structure) != Kind::Complex {
        return Err(ChangeRefusal::Malformed);
    }
    let mut object = Node::Object(Vec::new());
    for part in parts {
        let name = part.says("name").ok_or(ChangeRefusal::Malformed)?;
        let element = r4::elements(structure).iter().find(|element| element.name == name);
        let element = element.ok_or(ChangeRefusal::Malformed)?;
        let made = Made::of(part, element)?;
        edit(&mut object, &[], &made.key, element, |rows| {
            let room = element.many || rows.is_empty();
            room.then(|| rows.push(made.row.clone())).ok_or(ChangeRefusal::Malformed)
        })?;
    }
    Ok(object.members().to_vec())
}

/// The JSON name of an element for a value of this type. Primitives written alike may stand for each
/// other: a `valueString` for a code.
fn key_of(element: &Element, given: Structure) -> Result<String, ChangeRefusal> {
    if element.choice {
        let name = element.types.iter().find(|&&one| one == given).map(|&one| r4::type_name(one));
        let (first, rest) = name.and_then(|name| name.split_at_checked(1)).ok_or(ChangeRefusal::Malformed)?;
        return Ok(format!("{}{}{rest}", element.name, first.to_ascii_uppercase()));
    }
    let fits = element.types.first().is_some_and(|&wanted| {
        let alike = matches!((r4::kind(wanted), r4::kind(given)), (Kind::Primitive(one), Kind::Primitive(two)) if one == two);
        wanted == given || alike
    });
    if fits { Ok(element.name.to_owned()) } else { Err(ChangeRefusal::Malformed) }
}

/// Changes the values of one element of the object at `owner`, twins in step. A twin object that is not
/// there is made.
fn edit(
    root: &mut Node,
    owner: &[Key],
    key: &str,
    element: &Element,
    change: impl FnOnce(&mut Vec<Row>) -> Result<(), ChangeRefusal>,
) -> Result<(), ChangeRefusal> {
    let Some(Node::Object(members)) = object_at(root, owner) else { return Err(ChangeRefusal::NoSuchPlace) };
    let twin_key = format!("_{key}");
    let mut rows = rows(members, key, &twin_key, element.many);
    change(&mut rows)?;
    let column = |half: fn(&Row) -> Option<&Node>| -> Option<Node> {
        rows.iter().any(|row| half(row).is_some()).then(|| {
            let mut cells = rows.iter().map(|row| half(row).cloned().unwrap_or_else(Node::null));
            if element.many { Node::Array(cells.collect()) } else { cells.next().unwrap_or_else(Node::null) }
        })
    };
    let (values, twins) = (column(|row| row.value.as_ref()), column(|row| row.twin.as_ref()));
    put(members, key, values);
    put(members, &twin_key, twins);
    Ok(())
}

fn rows(members: &[Member], key: &str, twin_key: &str, many: bool) -> Vec<Row> {
    let cells = |name: &str| -> Vec<Option<Node>> {
        let node = members.iter().find(|member| member.name() == name).map(|member| &member.value);
        let items = node.map(|node| if many { node.items() } else { std::slice::from_ref(node) });
        items.unwrap_or_default().iter().map(|one| (!one.is_null()).then(|| one.clone())).collect()
    };
    let (values, twins) = (cells(key), cells(twin_key));
    let row =
        |at: usize| Row { value: values.get(at).cloned().flatten(), twin: twins.get(at).cloned().flatten() };
    (0..values.len().max(twins.len())).map(row).collect()
}

fn put(members: &mut Vec<Member>, name: &str, value: Option<Node>) {
    let at = members.iter().position(|member| member.name() == name);
    match (at.and_then(|at| members.get_mut(at)), value) {
        (Some(member), Some(value)) => member.value = value,
        (None, Some(value)) => members.push(Member::new(name, value)),
        (_, None) => members.retain(|member| member.name() != name),
    }
}

/// The object at this place. A twin that is missing on the last step is made, with the gaps before it.
fn object_at<'n>(root: &'n mut Node, way: &[Key]) -> Option<&'n mut Node> {
    let mut node = root;
    let mut twin = false;
    for (at, key) in way.iter().enumerate() {
        let repeats = matches!(way.get(at + 1), Some(Key::Item(_)));
        node = match (node, key) {
            (Node::Object(members), Key::Name(name)) => {
                twin = name.starts_with('_');
                if twin && !members.iter().any(|member| member.name() == name) {
                    let empty = if repeats { Node::Array(Vec::new()) } else { Node::Object(Vec::new()) };
                    members.push(Member::new(name, empty));
                }
                members.iter_mut().find(|member| member.name() == name).map(|member| &mut member.value)?
            }
            (Node::Array(items), Key::Item(item)) => {
                while twin && items.len() <= *item {
                    items.push(Node::null());
                }
                let cell = items.get_mut(*item)?;
                if twin && cell.is_null() {
                    *cell = Node::Object(Vec::new());
                }
                cell
            }
            (Node::Object(_) | Node::Array(_) | Node::Scalar(_), _) => return None,
        };
    }
    Some(node)
}
