//! What a role sees of a type or of a record, as a tree: each element, and the policies that show or withhold it.
//!
//! Owns: which elements stand in the tree, and whose work it is that one passes or not. Must never: decide: each
//! standing is read off the mask that a request would get. Look next: `judge`, which asks; `access::Stand`.

use super::case::Case;
use super::judge::Asked;
use super::record::Records;
use crate::domain::access::{Denial, PolicySet, Rehearsal, Stand, TypeRehearsal};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, ElementPath, Kind, ResourceType, Structure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How an element stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It passes, with everything in it.
    Passes,
    /// It passes in some records.
    InSomeRecords,
    /// Only parts of it pass: those inside it tell which.
    InParts,
    /// Nothing of it passes.
    Stays,
}

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its path, such as `Patient.name`.
    pub path: String,
    /// How it stands.
    pub standing: Standing,
    /// The permits that let it pass; where it passes in some records only, those of them that may.
    pub permits: Vec<String>,
    /// The forbids because of which it stays, or may stay in some records. None for what stays: no policy permits it.
    pub forbids: Vec<String>,
    /// What is inside it, where that differs.
    pub inside: Vec<Node>,
}

/// A type, or a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Its type.
    pub resource: ResourceType,
    /// The record's local reference; `None` for a type.
    pub record: Option<String>,
    /// How it stands as a whole; for a type, [`Standing::InSomeRecords`] where that depends on the record.
    pub standing: Standing,
    /// The permits that open it.
    pub permits: Vec<String>,
    /// The forbids that close it, or may for some records.
    pub forbids: Vec<String>,
    /// Why else it is withheld whole.
    pub because: Option<String>,
    /// Its elements; none where it is withheld whole.
    pub nodes: Vec<Node>,
}

impl Tree {
    fn closed(
        resource: ResourceType,
        record: Option<String>,
        forbids: Vec<String>,
        because: Option<String>,
    ) -> Self {
        let (standing, permits, nodes) = (Standing::Stays, Vec::new(), Vec::new());
        Self { resource, record, standing, permits, forbids, because, nodes }
    }
}

/// What the case says of a type before any record of it is seen, and the masks that it was read off. `None`: there is no such action on records.
///
/// # Errors
/// [`Denial::PolicyFault`] only.
pub fn type_tree(
    policies: &Arc<PolicySet>,
    case: &Case,
    resource: ResourceType,
) -> Result<Option<(Tree, TypeRehearsal)>, Denial> {
    let rehearsal = Rehearsal::new(policies, &case.situation(&Facts::of_type(resource)));
    let (Some(asked), Some(stand)) =
        (rehearsal.ask(&case.action, resource), rehearsal.stand(&case.action, resource, None))
    else {
        return Ok(None);
    };
    let (asked, stand) = (asked?, stand?);
    if !asked.open {
        let because = (!stand.permits.is_empty() || !stand.may_permit.is_empty())
            .then(|| "no element of it passes".to_owned());
        let because = because.filter(|_| stand.forbids.is_empty());
        return Ok(Some((Tree::closed(resource, None, stand.forbids, because), asked)));
    }
    let sure = !stand.permits.is_empty() && stand.may_forbid.is_empty();
    let standing = if sure { Standing::Passes } else { Standing::InSomeRecords };
    let masks = Masks { possible: &asked.possible, definite: &asked.definite };
    let mut nodes = Vec::new();
    for (path, types) in elements(resource.name(), &[r4::root(resource)]) {
        nodes.extend(type_node(&rehearsal, &case.action, masks, &path, types)?);
    }
    let (permits, forbids) =
        (joined(stand.permits, stand.may_permit), joined(stand.forbids, stand.may_forbid));
    Ok(Some((Tree { resource, record: None, standing, permits, forbids, because: None, nodes }, asked)))
}

#[derive(Clone, Copy)]
struct Masks<'m> {
    possible: &'m Mask,
    definite: &'m Mask,
}

fn type_node(
    rehearsal: &Rehearsal,
    action: &str,
    masks: Masks<'_>,
    path: &str,
    types: &[Structure],
) -> Result<Option<Node>, Denial> {
    let Ok(element) = ElementPath::parse(path) else { return Ok(None) };
    let (definite, possible) = (cursor(masks.definite, path), cursor(masks.possible, path));
    let standing = match (definite.whole(), possible.whole()) {
        (Some(true), _) => Standing::Passes,
        (_, Some(false)) => Standing::Stays,
        (Some(false), Some(true)) => Standing::InSomeRecords,
        _ => Standing::InParts,
    };
    let stand = stand(rehearsal.stand(action, element.resource_type(), Some(&element)))?;
    let mut inside = Vec::new();
    if standing == Standing::InParts {
        for (path, types) in elements(path, types) {
            inside.extend(type_node(rehearsal, action, masks, &path, types)?);
        }
    }
    let stand = match standing {
        Standing::Stays => Stand { permits: Vec::new(), may_permit: Vec::new(), ..stand },
        // What only may forbid does not keep back what passes in every record.
        Standing::Passes => Stand { may_forbid: Vec::new(), forbids: Vec::new(), ..stand },
        Standing::InSomeRecords | Standing::InParts => stand,
    };
    let (permits, forbids) =
        (joined(stand.permits, stand.may_permit), joined(stand.forbids, stand.may_forbid));
    Ok(Some(Node { path: path.to_owned(), standing, permits, forbids, inside }))
}

fn stand(asked: Option<Result<Stand, Denial>>) -> Result<Stand, Denial> {
    asked.transpose().map(Option::unwrap_or_default)
}

fn joined(sure: Vec<String>, maybe: Vec<String>) -> Vec<String> {
    sure.into_iter().chain(maybe).collect()
}

/// The elements of what has this path, one level down, by path, each once.
pub(super) fn elements(path: &str, types: &[Structure]) -> Vec<(String, &'static [Structure])> {
    let mut found: Vec<(String, &'static [Structure])> = Vec::new();
    for element in types.iter().flat_map(|structure| r4::elements(*structure)) {
        let name = format!("{path}.{}", element.name);
        if element.rewind.is_none() && !found.iter().any(|(known, _)| *known == name) {
            found.push((name, element.types));
        }
    }
    found
}

pub(super) fn cursor<'m>(mask: &'m Mask, path: &str) -> MaskCursor<'m> {
    path.split('.').skip(1).fold(mask.cursor(), MaskCursor::child)
}

/// What the case says of a record, and of each record contained in it, by the elements that are there. For some record of
/// a type: of all elements of the type.
///
/// # Errors
/// What is wrong with the record, or that a policy cannot be evaluated.
pub fn record_trees(policies: &Arc<PolicySet>, records: &Records, case: &Case) -> Result<Vec<Tree>, String> {
    let trees = case.with_record(records, |facts, document| {
        let asked = Asked::new(policies, case, facts);
        let met =
            asked.met(facts, document).ok_or_else(|| format!("there is no action `{}`", case.action))?;
        let content = facts.content.clone();
        let mask = match (met.outcome, met.leaves) {
            (Ok(disclosure), true) => Arc::clone(disclosure.mask()),
            (Ok(_), false) => {
                let because =
                    "a modifier element would be left out, and what is left would mislead".to_owned();
                let reference = document.is_some().then(|| reference(facts));
                return Ok(vec![Tree::closed(facts.resource_type, reference, Vec::new(), Some(because))]);
            }
            (Err(denial), _) => {
                let because = met.objections.is_empty().then(|| denial.to_string());
                let reference = document.is_some().then(|| reference(facts));
                return Ok(vec![Tree::closed(facts.resource_type, reference, met.objections, because)]);
            }
        };
        let mut trees = vec![record_tree(&asked, case, facts, content.as_deref(), &mask)?];
        for (index, record) in
            document.iter().flat_map(|document| document.records().iter().enumerate().skip(1))
        {
            let content: Option<Value> =
                document.and_then(|document| serde_json::from_slice(document.raw(index)).ok());
            trees.push(match asked.outcome(&record.facts) {
                Ok(disclosure) => {
                    record_tree(&asked, case, &record.facts, content.as_ref(), disclosure.mask())?
                }
                Err(denial) => {
                    let reference = Some(reference(&record.facts));
                    Tree::closed(record.facts.resource_type, reference, Vec::new(), Some(denial.to_string()))
                }
            });
        }
        Ok(trees)
    });
    trees.map_err(|(about, what)| format!("`{about}`: {what}"))?
}

fn reference(facts: &Facts) -> String {
    format!("{}/{}", facts.resource_type.name(), facts.id.as_deref().unwrap_or(""))
}

fn record_tree(
    asked: &Asked<'_>,
    case: &Case,
    facts: &Facts,
    content: Option<&Value>,
    mask: &Mask,
) -> Result<Tree, String> {
    let fault = |denial: Denial| denial.to_string();
    let whole =
        stand(asked.rehearsal.stand_of_record(&case.action, facts, &asked.known, None)).map_err(fault)?;
    let resource = facts.resource_type;
    let mut present = Present::default();
    match content {
        Some(content) => present.note(r4::root(resource), content),
        None => present.all(&[r4::root(resource)]),
    }
    let mut nodes = Vec::new();
    let asking = Asking { asked, case, facts, mask };
    for (path, types) in elements(resource.name(), &[r4::root(resource)]) {
        nodes.extend(asking.node(&path, types, &present).map_err(fault)?);
    }
    let standing = match mask.is_total() || nodes.iter().all(|node| node.standing == Standing::Passes) {
        true => Standing::Passes,
        false => Standing::InParts,
    };
    Ok(Tree {
        resource,
        record: content.map(|_| reference(facts)),
        standing,
        permits: whole.permits,
        forbids: Vec::new(),
        because: None,
        nodes,
    })
}

/// One record being asked about.
struct Asking<'a> {
    asked: &'a Asked<'a>,
    case: &'a Case,
    facts: &'a Facts,
    mask: &'a Mask,
}

impl Asking<'_> {
    /// An element, if it is among what is there around it.
    fn node(&self, path: &str, types: &[Structure], around: &Present) -> Result<Option<Node>, Denial> {
        let name = path.rsplit('.').next().unwrap_or(path);
        let (Some(below), Ok(element)) = (around.0.get(name), ElementPath::parse(path)) else {
            return Ok(None);
        };
        let mut inside = Vec::new();
        let standing = match cursor(self.mask, path).whole() {
            Some(true) => Standing::Passes,
            Some(false) => Standing::Stays,
            None => {
                for (path, types) in elements(path, types) {
                    inside.extend(self.node(&path, types, below)?);
                }
                Standing::InParts
            }
        };
        let Asked { rehearsal, known, .. } = self.asked;
        let sides = rehearsal.stand_of_record(&self.case.action, self.facts, known, Some(&element));
        let sides = stand(sides)?;
        let (permits, forbids) = match standing {
            Standing::Passes => (sides.permits, Vec::new()),
            Standing::Stays => (Vec::new(), sides.forbids),
            Standing::InSomeRecords | Standing::InParts => (sides.permits, sides.forbids),
        };
        Ok(Some(Node { path: path.to_owned(), standing, permits, forbids, inside }))
    }
}

/// The elements that are there, by name; what is below each.
#[derive(Default)]
struct Present(BTreeMap<&'static str, Present>);

impl Present {
    /// Repetitions are one element.
    fn note(&mut self, structure: Structure, value: &Value) {
        let Value::Object(members) = value else { return };
        for (key, value) in members {
            let Some(property) = r4::property(structure, key) else { continue };
            let below = self.0.entry(property.element.name).or_default();
            let within = r4::kind(property.structure) == Kind::Complex || property.twin;
            match value {
                Value::Array(items) if within => {
                    items.iter().for_each(|item| below.note(property.structure, item));
                }
                item if within => below.note(property.structure, item),
                _ => {}
            }
        }
    }

    /// Everything that could be there, one level deep and one more.
    fn all(&mut self, types: &[Structure]) {
        for element in types.iter().flat_map(|structure| r4::elements(*structure)) {
            let below = self.0.entry(element.name).or_default();
            for inner in element.types.iter().flat_map(|structure| r4::elements(*structure)) {
                below.0.entry(inner.name).or_default();
            }
        }
    }
}
