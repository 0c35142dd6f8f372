//! Whether invariants hold for every request, and no policy ever fails.
//!
//! Owns: which questions an invariant comes to, each asked once, and what the answers mean together.
//! Must never: count what is not known as proved. Look next: `place`, for the conditions; docs/decisions/0016.

use super::super::set::{Action, PolicySet};
use super::condition::{self as c, Condition, Given};
use super::invariant::{Invariant, Must};
use super::place::{Conditions, Lineage, Place, guaranteed, lineages};
use super::question::{Doubt, Model, Question, Solve, plain};
use super::witness::{Witness, ordinary_example};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::limits;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// What came of an invariant.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No request breaks it.
    Holds,
    /// Some do: the first few kinds of them.
    Refuted(Vec<Counterexample>),
    /// It is not known: why, each in one line. A failure, as a refutation is.
    Unknown(Vec<String>),
    /// Nothing is promised: no request at all is meant by it.
    Empty,
}

/// A request that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Where.
    pub place: Place,
    /// The element that is released, or is not.
    pub element: Option<ElementPath>,
    /// The element itself, or one in it that shares its fate, where others in it do not.
    pub stands_for: Option<ElementPath>,
    /// Who, for what, about which record.
    pub witness: Witness,
    /// Other places where it is broken in the same way.
    pub elsewhere: Vec<(Place, Option<ElementPath>)>,
}

/// An invariant with what came of it.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What came of it.
    pub outcome: Outcome,
    /// How many places and elements it speaks of.
    pub places: usize,
    /// How many questions the solver had to answer for it; the others were certain or asked before.
    pub asked: usize,
}

/// A policy that can fail to evaluate: then the gate denies, whatever the other policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The policy's id.
    pub policy: String,
    /// Where: action and type.
    pub place: String,
    /// It fails for some request; otherwise that is not known, for this reason.
    pub doubt: Option<String>,
}

/// The answer to one question.
#[derive(Clone)]
enum Ask {
    /// For no request.
    No,
    /// For this one.
    Example(Rc<Model>),
    /// Not known.
    Unknown(Doubt),
}

/// A condition with a number for its text.
#[derive(Clone)]
pub(super) struct Known {
    pub condition: Condition,
    pub number: u32,
}

/// Texts, each with a number: equal conditions are asked once.
#[derive(Default)]
pub(super) struct Numbers(HashMap<String, u32>);

impl Numbers {
    pub(super) fn of(&mut self, text: String) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(text).or_insert(next)
    }

    pub(super) fn known(&mut self, condition: Condition) -> Known {
        let number = self.of(condition.to_string());
        Known { condition, number }
    }
}

type DecisionKey = (bool, ResourceType, Option<Action>, Vec<usize>, Option<ElementPath>);

/// The decisions of one set, each folded once.
pub(super) struct Decisions {
    pub conditions: Conditions,
    known: HashMap<DecisionKey, Known>,
}

impl Decisions {
    pub(super) fn of(set: &PolicySet) -> Self {
        Self { conditions: Conditions::of(set), known: HashMap::new() }
    }

    /// When the set permits the action on the record, or lets the element pass; the record apart.
    pub(super) fn at(&mut self, place: Place, element: Option<&Lineage>, numbers: &mut Numbers) -> Known {
        let (rules, asks_action) = self.conditions.concerning(place, element.is_some());
        let action = asks_action.then_some(place.action);
        let path = element.map(|lineage| lineage.path.clone());
        let key = (place.person, place.resource, action, rules, path);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let known = numbers.known(self.conditions.decision(place, element));
        self.known.insert(key, known.clone());
        known
    }
}

/// A policy set under proof.
pub struct Proving<'s> {
    set: Arc<PolicySet>,
    decisions: Decisions,
    numbers: Numbers,
    answers: HashMap<(u32, u32, u32), Ask>,
    simpler: HashMap<(u32, u32), Known>,
    lines: HashMap<(ResourceType, Vec<ElementPath>), Rc<Vec<Lineage>>>,
    fallible: BTreeSet<String>,
    solver: &'s mut dyn Solve,
    asked: usize,
}

impl std::fmt::Debug for Proving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proving").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl<'s> Proving<'s> {
    /// Takes a set and somebody who answers.
    pub fn new(set: &Arc<PolicySet>, solver: &'s mut dyn Solve) -> Self {
        Self {
            set: Arc::clone(set),
            decisions: Decisions::of(set),
            numbers: Numbers::default(),
            answers: HashMap::new(),
            simpler: HashMap::new(),
            lines: HashMap::new(),
            fallible: BTreeSet::new(),
            solver,
            asked: 0,
        }
    }

    /// The decision where an invariant means something: what it says itself need not be asked again.
    fn given(&mut self, meant: &Known, decided: &Known) -> Known {
        let key = (meant.number, decided.number);
        if let Some(known) = self.simpler.get(&key) {
            return known.clone();
        }
        let given = Given::by(&meant.condition);
        let known = self.numbers.known(given.apply(&decided.condition));
        self.simpler.insert(key, known.clone());
        known
    }

    /// How many questions were asked so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// The policies that can fail, for any request. To be asked before invariants: one that must always permit is not
    /// proved where a policy can fail.
    pub fn failures(&mut self) -> Vec<Failure> {
        let mut failures: Vec<Failure> = Vec::new();
        let mut seen = BTreeSet::new();
        if self.decisions.conditions.rules.iter().all(|rule| c::cannot_fail(&rule.condition)) {
            return failures;
        }
        for place in Place::all() {
            let lines = self.lines(&[], place.resource);
            let mut folded = self.decisions.conditions.policies(place, None);
            if place.action.elements().is_some() {
                for lineage in lines.iter() {
                    folded.extend(self.decisions.conditions.policies(place, Some(lineage)));
                }
            }
            let folded = folded.into_iter().filter(|(_, condition)| !c::cannot_fail(condition));
            let folded: Vec<(String, Condition)> =
                folded.map(|(rule, condition)| (rule.id.clone(), condition)).collect();
            for (policy, condition) in folded {
                let shape = place.shape(&self.set.vocabulary);
                if !seen.insert((policy.clone(), shape, condition.to_string())) {
                    continue;
                }
                if let Some(doubt) = self.may_fail(place, &condition) {
                    self.fallible.insert(policy.clone());
                    let place = format!("{} of {}", place.action(), place.resource.name());
                    if !failures.iter().any(|known| known.policy == policy) {
                        failures.push(Failure { policy, place, doubt });
                    }
                }
            }
        }
        failures
    }

    /// `None`: it never fails. `Some(None)`: for some request it does. `Some(Some(…))`: that is not known.
    fn may_fail(&mut self, place: Place, condition: &Condition) -> Option<Option<String>> {
        self.asked += 1;
        let environment = place.environment(&self.set.vocabulary)?;
        // Evaluated in worlds that can be: a conjunction fails where what stands last does.
        let guarded = c::binary(cedar_policy::pst::BinaryOp::And, guaranteed(place), Arc::clone(condition));
        let asked = Question::new(&guarded, environment)
            .and_then(|question| self.solver.may_fail(&question, &self.set.vocabulary.schema));
        match asked {
            Ok(false) => None,
            Ok(true) => Some(None),
            Err(doubt) => Some(Some(doubt.0)),
        }
    }

    /// The elements of a type that the set tells apart, or these paths.
    fn lines(&mut self, more: &[ElementPath], resource: ResourceType) -> Rc<Vec<Lineage>> {
        let more: Vec<ElementPath> =
            more.iter().filter(|path| path.resource_type() == resource).cloned().collect();
        let set = Arc::clone(&self.set);
        let made = self.lines.entry((resource, more));
        let made = made.or_insert_with_key(|(_, more)| Rc::new(lineages(&[&set], more, resource)));
        Rc::clone(made)
    }

    /// Whether an invariant holds.
    pub fn invariant(&mut self, invariant: &Invariant) -> Proof {
        let before = self.asked;
        let mut found = Found::default();
        for place in Place::all() {
            if invariant.of_records(place.action) {
                self.at(invariant, place, None, &mut found);
            }
            if invariant.of_elements(place.action) {
                for lineage in self.lines(&invariant.paths, place.resource).iter() {
                    self.at(invariant, place, Some(lineage), &mut found);
                }
            }
        }
        let places = found.places;
        let outcome = self.conclude(invariant, found);
        Proof { outcome, places, asked: self.asked - before }
    }

    fn at(&mut self, invariant: &Invariant, place: Place, element: Option<&Lineage>, found: &mut Found) {
        let meant = self.decisions.conditions.fold_at(&invariant.ruled.condition, place, element);
        if plain(&meant) == Some(false) {
            return;
        }
        found.places += 1;
        if !c::cannot_fail(&meant) && self.may_fail(place, &meant).is_some() {
            found.doubts.insert("the invariant itself can fail to evaluate".to_owned());
        }
        let meant = self.numbers.known(meant);
        if !self.is_possible(place, &meant, found) {
            return;
        }
        if invariant.must == Must::Always {
            let mut concerned = self.decisions.conditions.concerned(place);
            let fallible = concerned.find(|rule| self.fallible.contains(&rule.id));
            if let Some(rule) = fallible {
                found
                    .doubts
                    .insert(format!("`{}` can fail to evaluate, and then nothing is permitted", rule.id));
            }
        }
        let broken = self.broken(invariant.must, place, element, &meant);
        match broken {
            Ok(None) => {}
            Ok(Some((condition, model))) => {
                let path = element.map(|lineage| lineage.path.clone());
                let stands_for = element.map(|lineage| lineage.stands_for.clone());
                found.broken.push(Broken { place, path, stands_for, condition, model });
            }
            Err(doubt) => {
                found.doubts.insert(format!("{} of {}: {doubt}", place.action(), place.resource.name()));
            }
        }
    }

    /// The invariant means some request here: it is no promise about nothing.
    fn is_possible(&mut self, place: Place, meant: &Known, found: &mut Found) -> bool {
        match self.ask(place, meant, &Known { condition: c::truth(true), number: u32::MAX }) {
            Ask::No => false,
            Ask::Example(_) => {
                found.meant += 1;
                true
            }
            Ask::Unknown(_) => true,
        }
    }

    /// The condition under which it is broken here, with an example.
    fn broken(
        &mut self,
        must: Must,
        place: Place,
        element: Option<&Lineage>,
        meant: &Known,
    ) -> Result<Option<(Condition, Rc<Model>)>, Doubt> {
        let record = self.decisions.at(place, None, &mut self.numbers);
        let record = self.given(meant, &record);
        let decided = match element {
            Some(lineage) => {
                let passes = self.decisions.at(place, Some(lineage), &mut self.numbers);
                let passes = self.given(meant, &passes);
                let passes = match must {
                    Must::Never => passes.condition,
                    Must::Always => c::not(passes.condition),
                };
                c::both(record.condition, passes)
            }
            None if must == Must::Never => {
                // That the record is closed is enough; that no element of it passes is the longer question.
                match self.ask(place, meant, &record) {
                    Ask::No => return Ok(None),
                    Ask::Example(_) | Ask::Unknown(_) => {}
                }
                self.released(place, record, meant)
            }
            None => c::not(self.released(place, record, meant)),
        };
        let decided = self.numbers.known(decided);
        match self.ask(place, meant, &decided) {
            Ask::No => Ok(None),
            Ask::Unknown(doubt) => Err(doubt),
            Ask::Example(model) => {
                Ok(Some((c::both(Arc::clone(&meant.condition), decided.condition), model)))
            }
        }
    }

    /// When the action is permitted and, if it moves elements, one passes at least.
    fn released(&mut self, place: Place, record: Known, meant: &Known) -> Condition {
        if place.action.elements().is_none() || plain(&record.condition) == Some(false) {
            return record.condition;
        }
        let mut seen = BTreeSet::new();
        let mut some = Vec::new();
        for lineage in self.lines(&[], place.resource).iter() {
            let passes = self.decisions.at(place, Some(lineage), &mut self.numbers);
            let passes = self.given(meant, &passes);
            if seen.insert(passes.number) {
                some.push(passes.condition);
            }
        }
        c::both(record.condition, c::any(&some))
    }

    fn ask(&mut self, place: Place, meant: &Known, decided: &Known) -> Ask {
        let guaranteed = guaranteed(place);
        let asked = c::both(Arc::clone(&meant.condition), Arc::clone(&decided.condition));
        if plain(&asked) == Some(false) {
            return Ask::No;
        }
        let around = self.numbers.of(format!("{} {guaranteed}", place.shape(&self.set.vocabulary)));
        let key = (around, meant.number, decided.number);
        if let Some(answer) = self.answers.get(&key) {
            return answer.clone();
        }
        self.asked += 1;
        let answer = match put(&self.set, place, &c::both(guaranteed, asked), self.solver) {
            Ok(None) => Ask::No,
            Ok(Some(model)) => Ask::Example(Rc::new(model)),
            Err(doubt) => Ask::Unknown(doubt),
        };
        self.answers.insert(key, answer.clone());
        answer
    }

    fn conclude(&mut self, invariant: &Invariant, mut found: Found) -> Outcome {
        let named: BTreeSet<String> = self.set.outlines().iter().flat_map(|one| one.roles.clone()).collect();
        let strangers = invariant.roles.iter().filter(|role| !named.contains(*role));
        found.doubts.extend(strangers.map(|role| format!("no policy is about the role `{role}`")));
        if !found.broken.is_empty() {
            return Outcome::Refuted(self.counterexamples(found.broken));
        }
        if !found.doubts.is_empty() {
            return Outcome::Unknown(found.doubts.into_iter().take(limits::PROOF_DOUBTS_MAX).collect());
        }
        if found.meant == 0 { Outcome::Empty } else { Outcome::Holds }
    }

    /// One example for each kind of breach.
    fn counterexamples(&mut self, broken: Vec<Broken>) -> Vec<Counterexample> {
        let mut kinds: Vec<(String, Broken, Vec<Elsewhere>)> = Vec::new();
        for one in broken {
            let text = one.condition.to_string();
            match kinds.iter_mut().find(|(known, _, _)| *known == text) {
                Some((_, _, elsewhere)) => elsewhere.push((one.place, one.path)),
                None => kinds.push((text, one, Vec::new())),
            }
        }
        let shown = kinds.into_iter().take(limits::PROOF_EXAMPLES_MAX);
        let mut found = Vec::new();
        for (_, one, elsewhere) in shown {
            let model = Model::clone(&one.model);
            let told = ordinary_example(&self.set, one.place, &one.condition, model, self.solver);
            let witness = told.unwrap_or_default();
            let (place, element, stands_for) = (one.place, one.path, one.stands_for);
            found.push(Counterexample { place, element, stands_for, witness, elsewhere });
        }
        found
    }
}

/// Another place, with an element or without, where the same breach stands.
type Elsewhere = (Place, Option<ElementPath>);

/// Asks the solver whether the condition can hold.
pub(super) fn put(
    set: &PolicySet,
    place: Place,
    condition: &Condition,
    solver: &mut dyn Solve,
) -> Result<Option<Model>, Doubt> {
    let words = &set.vocabulary;
    let environment =
        place.environment(words).ok_or_else(|| Doubt("there is no such environment".to_owned()))?;
    solver.example(&Question::new(condition, environment)?, &words.schema)
}

#[derive(Default)]
struct Found {
    places: usize,
    meant: usize,
    broken: Vec<Broken>,
    doubts: BTreeSet<String>,
}

struct Broken {
    place: Place,
    path: Option<ElementPath>,
    stands_for: Option<ElementPath>,
    condition: Condition,
    model: Rc<Model>,
}
