//! What two policy sets decide otherwise, for whom: for every request, not for a sample.
//!
//! Owns: comparing the two decisions place by place and element by element, and role by role where they differ.
//! Must never: pass over a place where the conditions are not the same text and nobody was asked.
//! Look next: `place`, for the decisions; `workbench::change`, which says it in words.

use super::super::set::PolicySet;
use super::condition::{self as c, Condition, Given};
use super::place::{Lineage, Place, guaranteed, lineages};
use super::prove::{Decisions, Known, Numbers, put};
use super::question::{Doubt, Model, Solve, plain};
use super::witness::{Witness, alone, ordinary_example, roles_in};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that one set permits and the other does not.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The new set permits it and the old did not; otherwise the other way round.
    pub opens: bool,
    /// Roles that each, alone, see the difference; `None`: somebody without a role that a policy names.
    pub roles: Vec<Option<String>>,
    /// Where: places with the element, or without one for what moves no elements.
    pub places: Vec<(Place, Option<ElementPath>)>,
    /// For the first place: its element, or one in it that shares its fate, where others in it do not.
    pub stands_for: Option<ElementPath>,
    /// A situation in which it is so, for the first of the places and roles.
    pub witness: Witness,
}

/// Everything in which two sets differ.
#[derive(Clone, Debug, Default)]
pub struct Differing {
    /// What is certain.
    pub differences: Vec<Difference>,
    /// Where it is not known whether they differ, and why.
    pub doubts: Vec<String>,
    /// Decisions compared: places, with each element that the sets tell apart.
    pub compared: usize,
    /// Of these, those where the policies are not the same text.
    pub changed: usize,
    /// Questions that the solver had to answer.
    pub asked: usize,
    /// Ids of the policies that are new.
    pub added: Vec<String>,
    /// That are gone.
    pub removed: Vec<String>,
    /// That say something else under the same id, groups apart.
    pub reworded: Vec<String>,
}

/// Compares two sets.
pub fn differ(
    old: &PolicySet,
    new: &PolicySet,
    solver: &mut dyn Solve,
    progress: &mut dyn FnMut(usize, usize),
) -> Differing {
    let mut comparison = Comparison {
        sets: [old, new],
        decisions: [Decisions::of(old), Decisions::of(new)],
        numbers: Numbers::default(),
        kinds: BTreeMap::new(),
        found: Differing::default(),
    };
    comparison.gather();
    comparison.conclude(solver, progress);
    comparison.found
}

/// Decisions that differ in the same way: guarantees and shape of the place, the old and the new condition by number.
type Kind = (u32, u32, u32);

/// A condition with a request for which it holds.
type Example = (Condition, Model);

struct Changed {
    old: Condition,
    new: Condition,
    places: Vec<(Place, Option<ElementPath>)>,
    stands_for: Option<ElementPath>,
}

struct Comparison<'a> {
    sets: [&'a PolicySet; 2],
    decisions: [Decisions; 2],
    numbers: Numbers,
    kinds: BTreeMap<Kind, Changed>,
    found: Differing,
}

impl Comparison<'_> {
    fn texts(&mut self) {
        let [old, new] = &self.decisions;
        let of = |decisions: &Decisions| {
            let rules = decisions.conditions.rules.iter();
            rules.map(|rule| (rule.id.clone(), rule.text())).collect::<BTreeMap<String, String>>()
        };
        let (old, new) = (of(old), of(new));
        self.found.added = new.keys().filter(|id| !old.contains_key(*id)).cloned().collect();
        self.found.removed = old.keys().filter(|id| !new.contains_key(*id)).cloned().collect();
        let other = |id: &&String| new.get(*id).is_some_and(|text| old.get(*id) != Some(text));
        self.found.reworded = old.keys().filter(other).cloned().collect();
    }

    fn gather(&mut self) {
        self.texts();
        let lines: Vec<(ResourceType, Vec<Lineage>)> =
            ResourceType::all().map(|resource| (resource, lineages(&self.sets, &[], resource))).collect();
        let lines: BTreeMap<ResourceType, Vec<Lineage>> = lines.into_iter().collect();
        for place in Place::all() {
            let records = self.both(place, None);
            if place.action.elements().is_none() {
                self.compare(place, None, records);
                continue;
            }
            if records.iter().all(|one| plain(&one.condition) == Some(false)) {
                self.found.compared += 1;
                continue;
            }
            for lineage in lines.get(&place.resource).into_iter().flatten() {
                let [old, new] = self.both(place, Some(lineage));
                let [old_record, new_record] = records.clone();
                let released = [
                    self.numbers.known(c::both(old_record.condition, old.condition)),
                    self.numbers.known(c::both(new_record.condition, new.condition)),
                ];
                self.compare(place, Some(lineage), released);
            }
        }
    }

    fn both(&mut self, place: Place, element: Option<&Lineage>) -> [Known; 2] {
        let [old, new] = &mut self.decisions;
        [old.at(place, element, &mut self.numbers), new.at(place, element, &mut self.numbers)]
    }

    fn compare(&mut self, place: Place, element: Option<&Lineage>, [old, new]: [Known; 2]) {
        self.found.compared += 1;
        if old.number == new.number {
            return;
        }
        self.found.changed += 1;
        let [set, _] = self.sets;
        let around = self.numbers.of(format!("{} {}", place.shape(&set.vocabulary), guaranteed(place)));
        let path = element.map(|lineage| lineage.path.clone());
        let changed = self.kinds.entry((around, old.number, new.number)).or_insert_with(|| Changed {
            old: old.condition,
            new: new.condition,
            places: Vec::new(),
            stands_for: element.map(|lineage| lineage.stands_for.clone()),
        });
        changed.places.push((place, path));
    }

    fn conclude(&mut self, solver: &mut dyn Solve, progress: &mut dyn FnMut(usize, usize)) {
        let kinds = std::mem::take(&mut self.kinds);
        let total = kinds.len();
        for (done, changed) in kinds.into_values().enumerate() {
            progress(done, total);
            for opens in [true, false] {
                if let Err(doubt) = self.direction(&changed, opens, solver) {
                    let place = changed.places.first();
                    let place = place.map_or(String::new(), |(place, _)| {
                        format!("{} of {}", place.action(), place.resource.name())
                    });
                    self.found.doubts.push(format!("{place}: {doubt}"));
                }
            }
        }
        progress(total, total);
    }

    fn direction(&mut self, changed: &Changed, opens: bool, solver: &mut dyn Solve) -> Result<(), Doubt> {
        let (more, less) = if opens { (&changed.new, &changed.old) } else { (&changed.old, &changed.new) };
        let only = c::both(Arc::clone(more), c::not(Arc::clone(less)));
        let Some((place, _)) = changed.places.first() else { return Ok(()) };
        let Some(model) = self.example(*place, &only, solver)? else { return Ok(()) };
        let (roles, first) = self.roles(*place, &only, solver)?;
        let (condition, model) = first.unwrap_or((only, model));
        let [set, _] = self.sets;
        let witness = ordinary_example(set, *place, &condition, model, solver).unwrap_or_default();
        let (places, stands_for) = (changed.places.clone(), changed.stands_for.clone());
        self.found.differences.push(Difference { opens, roles, places, stands_for, witness });
        Ok(())
    }

    /// Who sees the difference with one role alone, and an example for the first of them.
    fn roles(
        &mut self,
        place: Place,
        only: &Condition,
        solver: &mut dyn Solve,
    ) -> Result<(Vec<Option<String>>, Option<Example>), Doubt> {
        let [set, _] = self.sets;
        let named: BTreeSet<String> = roles_in(only);
        if !place.person || named.is_empty() {
            return Ok((vec![None], None));
        }
        let (mut roles, mut first) = (Vec::new(), None);
        let candidates = std::iter::once(None).chain(named.iter().map(Some));
        for role in candidates {
            let who = alone(&set.vocabulary, role.map(String::as_str), &named);
            // With the roles settled most policies are out of the question.
            let left = Given::by(&who).apply(only);
            let condition = c::both(who, left);
            if let Some(model) = self.example(place, &condition, solver)? {
                roles.push(role.cloned());
                first = first.or(Some((condition, model)));
            }
        }
        Ok((roles, first))
    }

    fn example(
        &mut self,
        place: Place,
        condition: &Condition,
        solver: &mut dyn Solve,
    ) -> Result<Option<Model>, Doubt> {
        if plain(condition) == Some(false) {
            return Ok(None);
        }
        self.found.asked += 1;
        let [set, _] = self.sets;
        put(set, place, &c::both(guaranteed(place), Arc::clone(condition)), solver)
    }
}
