//! What a change of policies means, in words: who may do what from now on, and no longer.
//!
//! Owns: grouping differences by role and saying them; trying each on the real decision of both sets.
//! Must never: leave a difference out because the gate did not confirm its example. Look next: `proof`;
//! `access::proving`, where differences come from.

use super::proof::{Replay, circumstances, tried};
use crate::domain::access::PolicySet;
use crate::domain::access::proving::{Difference, Place};
use crate::domain::fhir::r4::ElementPath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One sentence about a change.
#[derive(Clone, Debug)]
pub struct Shift {
    /// Whom it concerns: somebody with this role alone; "anybody", without a role that matters; or with several together.
    pub who: String,
    /// Something opens; otherwise it closes.
    pub opens: bool,
    /// Actions by their names in the schema.
    pub actions: Vec<&'static str>,
    /// Elements, or types for what moves no elements.
    pub what: Vec<String>,
    /// Elements go in and not out; `None`: it is not about elements.
    pub written: Option<bool>,
    /// An ordinary situation in which it is so.
    pub when: String,
    /// The situation as a case that passes with the new set.
    pub case: String,
    /// What both sets' own decisions say to it.
    pub replay: Replay,
}

impl Shift {
    /// In one sentence, without whom it concerns.
    #[must_use]
    pub fn sentence(&self) -> String {
        let what: Vec<String> = self.what.iter().map(|one| format!("`{one}`")).collect();
        let verb = match (self.written, self.opens) {
            (Some(false), true) => "becomes visible",
            (Some(false), false) => "is hidden",
            (Some(true), true) => "may be written",
            (Some(true), false) => "may no longer be written",
            (None, true) => "is permitted",
            (None, false) => "is refused",
        };
        format!("{} {verb} ({}), {}", what.join(", "), self.actions.join(", "), self.when)
    }
}

/// Says all differences; those that are alike in one sentence.
#[must_use]
pub fn shifts(old: &Arc<PolicySet>, new: &Arc<PolicySet>, differences: &[Difference]) -> Vec<Shift> {
    let mut found: Vec<Shift> = Vec::new();
    for difference in differences {
        let Some((first, _)) = difference.places.first() else { continue };
        let (case, replay) = confirmed(old, new, difference, *first);
        for (written, places) in by_direction(&difference.places) {
            let change = Shift {
                who: who(difference),
                opens: difference.opens,
                actions: actions(&places),
                what: what(&places),
                written,
                when: circumstances(&difference.witness).join(", "),
                case: case.clone(),
                replay: replay.clone(),
            };
            let alike = |other: &&mut Shift| {
                (&other.who, other.opens, &other.actions, other.written, &other.when)
                    == (&change.who, change.opens, &change.actions, change.written, &change.when)
                    && other.replay == change.replay
            };
            match found.iter_mut().find(alike) {
                Some(other) => {
                    let all: BTreeSet<String> = other.what.iter().chain(&change.what).cloned().collect();
                    other.what = all.into_iter().collect();
                }
                None => found.push(change),
            }
        }
    }
    found.sort_by(|a, b| (&a.who, !a.opens, &a.what).cmp(&(&b.who, !b.opens, &b.what)));
    found
}

type Places = Vec<(Place, Option<ElementPath>)>;

/// Places of elements outward, of elements inward, and of records.
fn by_direction(places: &[(Place, Option<ElementPath>)]) -> BTreeMap<Option<bool>, Places> {
    let mut sorted: BTreeMap<Option<bool>, Places> = BTreeMap::new();
    for (place, path) in places {
        let written = path.is_some().then(|| place.writes());
        sorted.entry(written).or_default().push((*place, path.clone()));
    }
    sorted
}

fn who(difference: &Difference) -> String {
    let witness = &difference.witness;
    match &difference.role {
        _ if !witness.person => "clients for themselves".to_owned(),
        Some(Some(role)) => role.clone(),
        Some(None) => "anybody".to_owned(),
        None => format!("{} together", witness.roles.join(" and ")),
    }
}

fn actions(places: &[(Place, Option<ElementPath>)]) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for (place, _) in places {
        if !found.contains(&place.action()) {
            found.push(place.action());
        }
    }
    found
}

/// Elements, without those that lie in another of the list; or types.
fn what(places: &[(Place, Option<ElementPath>)]) -> Vec<String> {
    let paths: BTreeSet<&ElementPath> = places.iter().filter_map(|(_, path)| path.as_ref()).collect();
    let outermost = paths
        .iter()
        .filter(|path| !paths.iter().any(|other| other != *path && other.is_ancestor_or_self(path)));
    let mut names: BTreeSet<String> = outermost.map(ToString::to_string).collect();
    let types = places.iter().filter(|(_, path)| path.is_none());
    names.extend(types.map(|(place, _)| place.resource().name().to_owned()));
    names.into_iter().collect()
}

/// The example, tried on both sets: each must decide as the solver said.
fn confirmed(
    old: &Arc<PolicySet>,
    new: &Arc<PolicySet>,
    difference: &Difference,
    place: Place,
) -> (String, Replay) {
    let element = difference.stands_for.as_ref();
    let name = "what changes";
    let before = tried(old, name, place, &difference.witness, element, !difference.opens);
    let after = tried(new, name, place, &difference.witness, element, difference.opens);
    let replay = match (before.1, after.1) {
        (Replay::NotConfirmed(why), _) => Replay::NotConfirmed(format!("with the old policies: {why}")),
        (Replay::Confirmed, Replay::NotConfirmed(why)) => {
            Replay::NotConfirmed(format!("with the new policies: {why}"))
        }
        (Replay::Confirmed, Replay::Confirmed) => Replay::Confirmed,
    };
    (after.0, replay)
}
