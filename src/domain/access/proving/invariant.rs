//! Invariants: what a policy set must never permit, or must always permit, in the words of its policies.
//!
//! Owns: the form of `policies/invariants/*.cedar` and every problem with one. Must never: let a slip make an
//! invariant that says nothing. Look next: `prove`, which asks whether they hold; docs/policies.md for those who write them.

use super::super::expression::{self, Uses, kind};
use super::super::groups::{self, Groups};
use super::super::load::{Written, parse, vocabulary};
use super::super::set::Action;
use super::super::source::{Problem, Source};
use super::super::validation::validate;
use super::place::Ruled;
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use cedar_policy::pst::EntityUID;
use cedar_policy::{Effect, ResourceConstraint};
use std::collections::BTreeSet;

/// What an invariant demands of every request that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// None is permitted.
    Never,
    /// Each is permitted; an element: of every record that is released, it is released too.
    Always,
}

impl Must {
    /// As in `@must("…")`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// One invariant.
#[derive(Clone)]
pub struct Invariant {
    /// `@id`.
    pub id: String,
    /// `@says`: one sentence.
    pub says: String,
    /// `@ground`: the law or the reason.
    pub ground: String,
    /// `@must`.
    pub must: Must,
    /// File name as in [`Source::name`].
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    pub(super) ruled: Ruled,
    pub(super) paths: Vec<ElementPath>,
    pub(super) roles: BTreeSet<String>,
}

impl std::fmt::Debug for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invariant").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Invariant {
    /// It speaks of elements and not of records.
    pub(super) fn of_elements(&self, action: Action) -> bool {
        action.elements().is_some_and(|family| self.ruled.actions.contains(&family))
    }

    /// It speaks of records under this action.
    pub(super) fn of_records(&self, action: Action) -> bool {
        self.ruled.actions.contains(&action)
    }
}

/// Reads invariants against the groups of the policies they are about: the same words, the same strict validation.
///
/// # Errors
/// Every problem found.
pub fn read_invariants(sources: &[Source], groups: Option<&Source>) -> Result<Vec<Invariant>, Vec<Problem>> {
    stacker::grow(limits::POLICY_LOAD_STACK_BYTES, || {
        let mut problems = Vec::new();
        let groups = groups.map(|source| groups::parse(source, &mut problems)).unwrap_or_default().groups;
        let words = vocabulary().map_err(|problem| vec![problem])?;
        let mut sources: Vec<&Source> = sources.iter().collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        let written = parse(&sources, &mut problems);
        // A condition that cannot hold is said of the invariant as a whole, when it is proved.
        let _doubts = validate(&written, &words, &mut problems);
        let mut found = Vec::new();
        for one in &written {
            let ruled = Ruled::new(&words, &one.policy, None);
            match (ruled, about(one, &groups, &mut problems)) {
                (Some(ruled), Some(about)) => found.push(about.with(one, ruled)),
                (None, _) => problems.push(one.problem("this form of invariant is not understood")),
                (Some(_), None) => {}
            }
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    })
}

struct About {
    must: Must,
    says: String,
    ground: String,
    paths: Vec<ElementPath>,
    roles: BTreeSet<String>,
}

impl About {
    fn with(self, written: &Written<'_>, ruled: Ruled) -> Invariant {
        let place = written.problem("");
        Invariant {
            id: written.policy.id().to_string(),
            says: self.says,
            ground: self.ground,
            must: self.must,
            file: place.file,
            line: place.line,
            ruled,
            paths: self.paths,
            roles: self.roles,
        }
    }
}

fn about(written: &Written<'_>, groups: &Groups, problems: &mut Vec<Problem>) -> Option<About> {
    let before = problems.len();
    let must = match (written.policy.annotation("must"), written.policy.effect()) {
        (Some("never"), Effect::Forbid) => Must::Never,
        (Some("always"), Effect::Permit) => Must::Always,
        (Some("never" | "always"), _) => {
            let problem = written.problem("`@must` and the effect do not go together");
            let hint = "`@must(\"never\") forbid …` or `@must(\"always\") permit …`";
            problems.push(problem.with_hint(hint));
            Must::Never
        }
        (Some(_) | None, _) => {
            let problem = written.problem("an invariant says `@must(\"never\")` or `@must(\"always\")`");
            problems.push(problem);
            Must::Never
        }
    };
    let mut said = |name: &str, what: &str| match written.policy.annotation(name) {
        Some(text) if !text.trim().is_empty() => text.to_owned(),
        Some(_) | None => {
            problems.push(written.problem(format!("an invariant has `@{name}(\"…\")`: {what}")));
            String::new()
        }
    };
    said("id", "its name");
    let says = said("says", "what it promises, in one sentence");
    let ground = said("ground", "the law or the reason behind it");
    let (paths, roles) = names(written, groups, problems);
    (problems.len() == before).then_some(About { must, says, ground, paths, roles })
}

/// The element paths and roles that an invariant names; unknown paths and groups are problems.
fn names(
    written: &Written<'_>,
    groups: &Groups,
    problems: &mut Vec<Problem>,
) -> (Vec<ElementPath>, BTreeSet<String>) {
    let Ok(cedar_policy::pst::Policy::Static(body)) = written.policy.to_pst() else {
        return (Vec::new(), BTreeSet::new());
    };
    let mut uses = Uses::default();
    let reading = expression::read(body.body().clauses(), true, &mut uses);
    if reading.unread {
        problems.push(written.problem("this form of condition is not understood"));
    }
    let mut named: Vec<EntityUID> = reading.covering.into_iter().chain(reading.exact).collect();
    match written.policy.resource_constraint() {
        ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) | ResourceConstraint::Eq(uid) => {
            named.push(uid.into());
        }
        ResourceConstraint::Any | ResourceConstraint::Is(_) => {}
    }
    match written.policy.principal_constraint() {
        cedar_policy::PrincipalConstraint::In(uid) | cedar_policy::PrincipalConstraint::IsIn(_, uid) => {
            named.push(uid.into());
        }
        cedar_policy::PrincipalConstraint::Any
        | cedar_policy::PrincipalConstraint::Is(_)
        | cedar_policy::PrincipalConstraint::Eq(_) => {}
    }
    let (mut paths, mut roles) = (Vec::new(), BTreeSet::new());
    for uid in &named {
        match (kind(uid).as_str(), ElementPath::parse(&uid.eid)) {
            ("Role", _) => {
                roles.insert(uid.eid.to_string());
            }
            ("FHIR::Element", Ok(path)) => paths.push(path),
            ("FHIR::Element", Err(error)) => problems.push(written.problem_at(uid, error.to_string())),
            ("ElementGroup", _) if !groups.contains_key(uid.eid.as_str()) => {
                let problem = written.problem_at(uid, format!("unknown element group `{}`", uid.eid));
                problems.push(problem.with_hint("groups are defined in groups.toml"));
            }
            _ => {}
        }
    }
    (paths, roles)
}
