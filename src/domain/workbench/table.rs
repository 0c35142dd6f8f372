//! What a role sees and may do, by type and element: the page that reviewers read as a difference.
//!
//! Owns: asking every question of a role once, and the text of its table. Must never: leave a type out that is open.
//! Look next: `coverage`, which counts the same questions.

use super::case::OPERATIONS;
use crate::domain::access::{Denial, PolicySet, Rehearsal, Situation};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// The actions a table has a word about, operations apart.
const ACTIONS: [&str; 9] =
    ["read", "vread", "history", "search", "create", "update", "patch", "delete", "export"];

/// The roles that some permit names.
#[must_use]
pub fn roles(policies: &PolicySet) -> BTreeSet<String> {
    policies.outlines().iter().filter(|one| one.permits).flat_map(|one| one.roles.iter().cloned()).collect()
}

/// The purposes for which a role may do anything: those that its permits ask for.
fn purposes(policies: &PolicySet, role: &str) -> BTreeSet<String> {
    let own = policies.outlines().iter().filter(|one| one.permits && one.roles.contains(role));
    let found: BTreeSet<String> = own.flat_map(|one| one.purposes.iter().cloned()).collect();
    if found.is_empty() { BTreeSet::from(["NONE".to_owned()]) } else { found }
}

/// Everything that is open to one role, asked once.
pub struct RoleView {
    /// Which role.
    pub role: String,
    pub(super) views: Vec<View>,
}

impl fmt::Debug for RoleView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleView").field("role", &self.role).finish_non_exhaustive()
    }
}

impl RoleView {
    /// Asks everything about one role, for each purpose that its permits name.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`] only.
    pub fn of(policies: &Arc<PolicySet>, role: &str) -> Result<Self, Denial> {
        let views = purposes(policies, role).into_iter().map(|purpose| view(policies, role, purpose));
        Ok(Self { role: role.to_owned(), views: views.collect::<Result<_, _>>()? })
    }

    /// The table, for a file of its own.
    #[must_use]
    pub fn table(&self) -> String {
        let mut bodies: Vec<(Vec<&str>, String)> = Vec::new();
        for view in &self.views {
            let body = body(view);
            match bodies.iter_mut().find(|(_, known)| *known == body) {
                Some((purposes, _)) => purposes.push(&view.purpose),
                None => bodies.push((vec![&view.purpose], body)),
            }
        }
        let role = &self.role;
        let mut text = format!(
            "What the role {role} sees and may do. Written by `chartgate policy test --write-table`; what is not\n\
             named is closed. `?` before an element: in some records only. Labels, relations and patients close\n\
             single records besides.\n"
        );
        for (purposes, body) in bodies {
            let _ = write!(text, "\n== {role}, for {} ==\n{body}", purposes.join(", "));
        }
        text
    }
}

/// One role for one purpose.
pub(super) struct View {
    pub purpose: String,
    pub types: BTreeMap<ResourceType, Row>,
}

/// What is open of one type.
#[derive(Default)]
pub(super) struct Row {
    /// Actions and operations that are open for some record, in order.
    pub ways: Vec<&'static str>,
    /// Elements outward.
    pub shown: Option<Elements>,
    /// Elements inward.
    pub written: Option<Elements>,
}

/// Elements in one direction.
pub(super) struct Elements {
    possible: Arc<Mask>,
    definite: Arc<Mask>,
}

fn view(policies: &Arc<PolicySet>, role: &str, purpose: String) -> Result<View, Denial> {
    let mut types: BTreeMap<ResourceType, Row> = BTreeMap::new();
    let situation = Situation::rehearsal(&[role], &purpose);
    let rehearsal = Rehearsal::new(policies, &situation);
    for resource in ResourceType::all() {
        for action in ACTIONS {
            let Some(asked) = rehearsal.ask(action, resource) else { continue };
            let found = asked?;
            if !found.open {
                continue;
            }
            let row = types.entry(resource).or_default();
            row.ways.push(action);
            let elements = Elements { possible: found.possible, definite: found.definite };
            match action {
                "create" | "update" | "patch" => row.written = Some(elements),
                "delete" => {}
                _ => row.shown = Some(elements),
            }
        }
    }
    for operation in OPERATIONS {
        let rehearsal = Rehearsal::new(policies, &situation.clone().with_operation(operation));
        for resource in ResourceType::all().filter(|resource| concerns(operation, *resource)) {
            let Some(asked) = rehearsal.ask("operate", resource) else { continue };
            if asked?.open {
                types.entry(resource).or_default().ways.push(operation);
            }
        }
    }
    Ok(View { purpose, types })
}

/// The types whose path an operation stands in (docs/interactions.md).
fn concerns(operation: &str, resource: ResourceType) -> bool {
    match operation {
        "$everything" | "$break-glass" => resource.name() == "Patient",
        "$lastn" => resource.name() == "Observation",
        "$expand" => resource.name() == "ValueSet",
        "$lookup" => resource.name() == "CodeSystem",
        _ => true,
    }
}

fn body(view: &View) -> String {
    let mut text = String::new();
    for (resource, row) in &view.types {
        let _ = writeln!(text, "\n{}: {}", resource.name(), row.ways.join(" "));
        for (word, elements) in [("sees", &row.shown), ("writes", &row.written)] {
            if let Some(elements) = elements {
                lines(&mut text, word, *resource, elements);
            }
        }
    }
    text
}

fn lines(text: &mut String, word: &str, resource: ResourceType, elements: &Elements) {
    if elements.definite.is_total() {
        let _ = writeln!(text, "  {word} all of it");
        return;
    }
    let own = format!("{}.extension", resource.name());
    let top: Vec<ElementPath> = r4::elements(r4::root(resource))
        .iter()
        .filter_map(|element| ElementPath::parse(&format!("{}.{}", resource.name(), element.name)).ok())
        .collect();
    let but_own = |mask: &Mask| top.iter().all(|path| path.as_str() == own || mask.covers(path));
    if but_own(&elements.definite) {
        let _ = writeln!(text, "  {word} all of it but");
        let _ = writeln!(text, "    - {own}");
        return;
    }
    if elements.possible.is_total() {
        let _ = writeln!(text, "  {word} ? all of it");
        return;
    }
    let (possible, definite) = (elements.possible.kept(), elements.definite.kept());
    let _ = writeln!(text, "  {word}");
    for path in &top {
        if elements.definite.covers(path) {
            let _ = writeln!(text, "    + {path}");
        } else if elements.possible.covers(path) {
            let _ = writeln!(text, "    ? {path}");
        } else {
            let inside = |one: &&String| lies_in(one, path.as_str());
            let mut parts = possible.iter().filter(inside).peekable();
            if parts.peek().is_none() {
                let _ = writeln!(text, "    - {path}");
            }
            for part in parts {
                let mark = if definite.contains(part) { '+' } else { '?' };
                let _ = writeln!(text, "    {mark} {part}");
            }
        }
    }
}

/// `Patient.name.family` lies in `Patient.name`, and `Patient.extension('…')` in `Patient.extension`.
fn lies_in(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('('))
}

/// The elements of a type, one level deep, of which something passes.
pub(super) fn passing(resource: ResourceType, elements: &Elements) -> BTreeSet<String> {
    let kept = elements.possible.kept();
    let top = r4::elements(r4::root(resource)).iter().map(|e| format!("{}.{}", resource.name(), e.name));
    let some = |path: &String| {
        let whole = ElementPath::parse(path).is_ok_and(|path| elements.possible.covers(&path));
        whole || kept.iter().any(|one| lies_in(one, path))
    };
    top.filter(some).collect()
}
