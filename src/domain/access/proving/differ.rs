//! What two policy sets decide otherwise, for whom: for every request, not for a sample.
//!
//! Owns: comparing the two decisions place by place and element by element, and role by role where they differ.
//! Must never: pass over a place where the conditions are not the same text and nobody was asked.
//! Look next: `place`, for the decisions; `workbench::change`, which says it in words.

use super::super::set::PolicySet;
use super::condition::{self as c, Condition, Given};
use super::place::{Lineage, Place, guaranteed, lineages};
use super::prove::{Decisions, Known, Numbers, put};
use super::question::{Doubt, Solve, plain};
use super::witness::{Witness, alone, ordinary_example, roles_in};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that one set permits and the other does not.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The new set permits it and the old did not; otherwise the other way round.
    pub opens: bool,
    /// Who sees it: somebody with this role alone; `Some(None)`, without a role that matters; `None`: only somebody with
    /// several, those of the witness.
    pub role: Option<Option<String>>,
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
        told: BTreeMap::new(),
        solver,
    };
    comparison.gather();
    comparison.conclude(progress);
    comparison.found
}

/// Decisions that differ in the same way: guarantees and shape of the place, the old and the new condition by number.
type Kind = (u32, u32, u32);

/// The same for somebody with one role, or with none that matters.
type Single = (Option<String>, Kind);

#[derive(Clone)]
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
    /// Examples found so far: the same conditions for the same role make the same situation, whatever the type.
    told: BTreeMap<(Option<String>, bool, u32, u32), Witness>,
    solver: &'a mut dyn Solve,
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
        let lines: BTreeMap<ResourceType, Vec<Lineage>> =
            ResourceType::all().map(|resource| (resource, lineages(&self.sets, &[], resource))).collect();
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
                if (old.number, old_record.number) == (new.number, new_record.number) {
                    self.found.compared += 1;
                    continue;
                }
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

    fn conclude(&mut self, progress: &mut dyn FnMut(usize, usize)) {
        let kinds = std::mem::take(&mut self.kinds);
        let mut singles: BTreeMap<Single, Changed> = BTreeMap::new();
        let mut of_kind: Vec<(Changed, Vec<Single>)> = Vec::new();
        for ((around, ..), changed) in kinds {
            let roles = self.singles(around, &changed);
            for (single, one) in &roles {
                let group = singles
                    .entry(single.clone())
                    .or_insert_with(|| Changed { places: Vec::new(), ..one.clone() });
                group.places.extend(changed.places.iter().cloned());
            }
            of_kind.push((changed, roles.into_iter().map(|(single, _)| single).collect()));
        }
        let total = singles.len() + of_kind.len();
        let mut seen: BTreeSet<Single> = BTreeSet::new();
        for (done, (single, changed)) in singles.iter().enumerate() {
            progress(done, total);
            if self.tell(Some(single), changed) {
                seen.insert(single.clone());
            }
        }
        for (done, (changed, alone)) in of_kind.iter().enumerate() {
            progress(singles.len() + done, total);
            // What one role alone sees is told; otherwise several together might.
            if !alone.iter().any(|single| seen.contains(single)) {
                self.tell(None, changed);
            }
        }
        progress(total, total);
    }

    /// What is left of a change for each role alone; without those for whom nothing is.
    fn singles(&mut self, around: u32, changed: &Changed) -> Vec<(Single, Changed)> {
        let [set, _] = self.sets;
        let named: BTreeSet<String> = &roles_in(&changed.old) | &roles_in(&changed.new);
        let person = changed.places.first().is_some_and(|(place, _)| place.person);
        let roles = named.iter().cloned().map(Some).filter(|_| person);
        let mut found = Vec::new();
        for role in std::iter::once(None).chain(roles) {
            let who = alone(&set.vocabulary, role.as_deref(), &named);
            let given = Given::by(&who);
            let old = self.numbers.known(given.apply(&changed.old));
            let new = self.numbers.known(given.apply(&changed.new));
            if old.number == new.number {
                continue;
            }
            let (old_left, new_left) =
                (c::both(Arc::clone(&who), old.condition), c::both(who, new.condition));
            let single = Changed { old: old_left, new: new_left, ..changed.clone() };
            found.push(((role, (around, old.number, new.number)), single));
        }
        found
    }

    /// Asks in both directions and notes what is found: whether anything was, or is not known.
    fn tell(&mut self, single: Option<&Single>, changed: &Changed) -> bool {
        let mut any = false;
        for opens in [true, false] {
            match self.direction(single, changed, opens) {
                Ok(found) => any |= found,
                Err(doubt) => {
                    let place = changed.places.first().map(|(place, _)| place);
                    let place = place.map_or(String::new(), |place| {
                        format!("{} of {}", place.action(), place.resource.name())
                    });
                    self.found.doubts.push(format!("{place}: {doubt}"));
                    any = true;
                }
            }
        }
        any
    }

    fn direction(&mut self, single: Option<&Single>, changed: &Changed, opens: bool) -> Result<bool, Doubt> {
        let (more, less) = if opens { (&changed.new, &changed.old) } else { (&changed.old, &changed.new) };
        let only = c::both(Arc::clone(more), c::not(Arc::clone(less)));
        let Some((place, _)) = changed.places.first() else { return Ok(false) };
        let [set, _] = self.sets;
        if plain(&only) == Some(false) {
            return Ok(false);
        }
        self.found.asked += 1;
        let asked = c::both(guaranteed(*place), Arc::clone(&only));
        let Some(model) = put(set, *place, &asked, self.solver)? else { return Ok(false) };
        let key = single.map(|(role, (_, old, new))| (role.clone(), opens, *old, *new));
        let known = key.as_ref().and_then(|key| self.told.get(key)).filter(|one| one.person == place.person);
        let witness = match known {
            Some(known) => known.clone(),
            None => ordinary_example(set, *place, &only, model, self.solver).unwrap_or_default(),
        };
        if let Some(key) = key {
            self.told.insert(key, witness.clone());
        }
        let (places, stands_for) = (changed.places.clone(), changed.stands_for.clone());
        let role = single.map(|(role, _)| role.clone());
        self.found.differences.push(Difference { opens, role, places, stands_for, witness });
        Ok(true)
    }
}
