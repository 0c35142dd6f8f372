//! What the cases leave untried, in a hospital's words: role by type by interaction by element.
//!
//! Owns: the count. Must never: take a failing case for a tried one. Look next: `table`, which asks the same questions.

use super::case::Case;
use super::judge::Verdict;
use super::table::{RoleView, passing};
use crate::domain::access::PolicySet;
use std::collections::{BTreeMap, BTreeSet};

/// What was tried of what is open to one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleCoverage {
    /// The role.
    pub role: String,
    /// Types that are open, and those of them that some case asks about.
    pub types: (usize, usize),
    /// Type and interaction: open, and tried.
    pub interactions: (usize, usize),
    /// Elements, one level deep: visible, and named as visible by a case.
    pub elements: (usize, usize),
    /// Open types that no case asks about.
    pub untried_types: Vec<String>,
}

/// What was tried of the whole set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// For each role.
    pub roles: Vec<RoleCoverage>,
    /// How many policies permit.
    pub permits: usize,
    /// Those of them by which no case is permitted.
    pub untried_permits: Vec<String>,
    /// How many policies forbid.
    pub forbids: usize,
    /// Those of them by which no case is denied.
    pub untried_forbids: Vec<String>,
}

impl Coverage {
    /// Counts what the cases that passed have tried.
    #[must_use]
    pub fn of(policies: &PolicySet, views: &[RoleView], tried: &[(Case, Verdict)]) -> Self {
        let good: Vec<&(Case, Verdict)> = tried.iter().filter(|(_, verdict)| verdict.passed()).collect();
        let roles = views.iter().map(|view| of_role(view, &good)).collect();
        let deciding: BTreeSet<&str> = good
            .iter()
            .flat_map(|(_, verdict)| verdict.policies.iter().chain(&verdict.withheld_by))
            .map(String::as_str)
            .collect();
        let of_effect = |permits: bool| {
            let all: Vec<&str> =
                policies.outlines().iter().filter(|o| o.permits == permits).map(|o| o.id.as_str()).collect();
            let untried: Vec<String> =
                all.iter().filter(|id| !deciding.contains(**id)).map(|id| (*id).to_owned()).collect();
            (all.len(), untried)
        };
        let ((permits, untried_permits), (forbids, untried_forbids)) = (of_effect(true), of_effect(false));
        Self { roles, permits, untried_permits, forbids, untried_forbids }
    }

    /// Every permit and every type that is open to a role is tried by some case.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.untried_permits.is_empty() && self.roles.iter().all(|role| role.untried_types.is_empty())
    }
}

fn of_role(role: &RoleView, good: &[&(Case, Verdict)]) -> RoleCoverage {
    let mut open: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut visible: BTreeSet<String> = BTreeSet::new();
    for view in &role.views {
        for (resource, row) in &view.types {
            open.entry(resource.name().to_owned()).or_default().extend(&row.ways);
            visible.extend(row.shown.iter().flat_map(|elements| passing(*resource, elements)));
        }
    }
    let mut asked: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for (case, verdict) in good.iter().filter(|(case, _)| case.roles.contains(&role.role)) {
        let Some(resource) = verdict.resource else { continue };
        let way = case.operation.unwrap_or(case.action.as_str());
        asked.entry(resource.name()).or_default().insert(way);
        named.extend(case.visible.iter().map(|path| path.as_str()));
    }
    let tried_ways = |(name, ways): (&String, &BTreeSet<&str>)| {
        asked.get(name.as_str()).map_or(0, |tried| ways.intersection(tried).count())
    };
    let untried_types: Vec<String> =
        open.keys().filter(|name| !asked.contains_key(name.as_str())).cloned().collect();
    let is_named = |element: &&String| named.iter().any(|path| meets(path, element));
    RoleCoverage {
        types: (open.len(), open.len() - untried_types.len()),
        interactions: (open.values().map(BTreeSet::len).sum(), open.iter().map(tried_ways).sum()),
        elements: (visible.len(), visible.iter().filter(is_named).count()),
        untried_types,
        role: role.role.clone(),
    }
}

/// One path is the other, or lies in it.
fn meets(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '(']))
    };
    within(one, other) || within(other, one)
}
