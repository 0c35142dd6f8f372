//! A recorded day, decided again by another policy set: what would flip, for whom, about whom.
//!
//! Owns: comparing what was recorded with what the candidate would do, as far as the trail's facts carry. Must never: guess:
//! what turns on a fact that was not recorded is undecided, and says on which.
//! Look next: `access::Foresight`, which answers; `difference`, of masks; docs/decisions/0015.

use super::difference::difference;
use super::recorded::{action, nobody_knows, recalled, situation, unknown_of_caller};
use crate::domain::access::{
    Admission, Denial, Fact, Foreseen, Foresight, PolicySet, Recalled, Sameness, Situation,
};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use super::flips::{Change, Count, Found, Row, Summary};
pub use super::recorded::{Item, Recorded};

/// Refusals that policies decide. All others stand whatever they say.
const BY_POLICY: [&str; 6] = [
    "type-not-permitted",
    "criterion-withheld",
    "fhir-user-missing",
    "step-up-required",
    "not-found",
    "write-not-permitted",
];

/// A candidate set, beside the one in force where that is at hand.
#[derive(Debug)]
pub struct Replay {
    candidate: Foresight,
    present: Foresight,
    known: HashMap<Group, Arc<Change>>,
    count: Count,
}

/// What decisions have in common that must flip alike.
type Group = (Option<Sameness>, Option<Sameness>, &'static str, (bool, bool), Arc<Vec<String>>);

/// One record, ready to be asked about.
struct Asked<'r> {
    action: &'static str,
    situation: &'r Situation,
    recalled: Recalled,
    mask: &'r Arc<Vec<String>>,
    is_of_present: bool,
    is_whole: bool,
}

impl Replay {
    /// `present`: the set in force; decisions of other sets are compared with what was recorded alone.
    #[must_use]
    pub fn new(present: &Arc<PolicySet>, candidate: &Arc<PolicySet>) -> Self {
        Self {
            candidate: Foresight::new(candidate),
            present: Foresight::new(present),
            known: HashMap::new(),
            count: Count::default(),
        }
    }

    /// What the candidate would decide on each record of a decision that was permitted, and on what else that turns; for a
    /// refusal on some record of the type that was asked for. Nothing where no action tells.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`] only.
    pub fn foresee(&mut self, recorded: &Recorded) -> Result<Vec<(Option<Item>, Foreseen)>, Denial> {
        let situation = situation(recorded);
        let mut found = Vec::new();
        for item in &recorded.items {
            let Some(action) = action(recorded, item.written) else { continue };
            let foreseen = self.candidate.foresee(action, &situation, &recalled(recorded, item));
            found.extend(foreseen.transpose()?.map(|foreseen| (Some(item.clone()), foreseen)));
        }
        let resource = recorded.question.as_ref().and_then(Interaction::resource_type);
        if let (true, Some(resource), Some(action)) = (found.is_empty(), resource, action(recorded, false)) {
            let foreseen = self.candidate.foresee(action, &situation, &nobody_knows(resource));
            found.extend(foreseen.transpose()?.map(|foreseen| (None, foreseen)));
        }
        Ok(found)
    }

    /// How much was looked at so far.
    #[must_use]
    pub fn count(&self) -> Count {
        self.count
    }

    /// Decides one recorded decision again; tells `found` of everything that would change or may.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`]: the candidate fails, and would refuse everything like this.
    pub fn replay(&mut self, recorded: &Recorded, found: &mut dyn FnMut(Found<'_>)) -> Result<(), Denial> {
        self.count.decisions += 1;
        self.count.withheld += recorded.withheld;
        let is_of_present = recorded.policy_set.as_deref() == Some(self.present.set().hash());
        self.count.of_other_sets += u64::from(!is_of_present);
        let situation = situation(recorded);
        if !recorded.permitted {
            let change = self.refusal(recorded, &situation, is_of_present)?;
            self.tell(recorded, None, &change, found);
            return Ok(());
        }
        let door = self.door(recorded, &situation, is_of_present);
        for item in &recorded.items {
            self.count.records += 1;
            let change = match &door {
                Some(change) => Arc::clone(change),
                None => self.item(recorded, item, &situation, is_of_present)?,
            };
            self.tell(recorded, Some(item), &change, found);
        }
        Ok(())
    }

    fn tell(
        &mut self,
        recorded: &Recorded,
        item: Option<&Item>,
        change: &Change,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        let count = match (change.is_flip(), change.missing.is_empty()) {
            (true, _) => &mut self.count.flipped,
            (false, false) => &mut self.count.undecided,
            (false, true) => &mut self.count.same,
        };
        *count += 1;
        if !change.is_none() {
            found(Found { recorded, item, change });
        }
    }

    /// What the door would make of the whole answer, where it would not let the question in as it did.
    fn door(&self, recorded: &Recorded, situation: &Situation, is_of_present: bool) -> Option<Arc<Change>> {
        let question = recorded.question.as_ref()?;
        // A reading names no element: its type is closed if its record is, and that is asked of the record.
        if matches!(question, Interaction::Read { .. } | Interaction::Vread { .. }) {
            return None;
        }
        let unknown = unknown_of_caller();
        let then = self.present.admission(situation, question, &unknown);
        let now = self.candidate.admission(situation, question, &unknown);
        match now {
            Admission::Refused(Denial::NothingToDecide) | Admission::Admitted => None,
            now if is_of_present && now == then => None,
            Admission::Refused(_) => Some(Arc::new(Change::refused())),
            Admission::Undecided(missing) => Some(Arc::new(Change::undecided(missing))),
        }
    }

    fn item(
        &mut self,
        recorded: &Recorded,
        item: &Item,
        situation: &Situation,
        is_of_present: bool,
    ) -> Result<Arc<Change>, Denial> {
        let Some(action) = action(recorded, item.written) else {
            return Ok(Arc::new(Change::undecided(BTreeSet::from([Fact::Record]))));
        };
        let recalled = recalled(recorded, item);
        let group: Group = (
            self.candidate.sameness(action, situation, &recalled),
            self.present.sameness(action, situation, &recalled),
            action,
            (is_of_present, recorded.is_whole),
            Arc::clone(&item.mask),
        );
        if let Some(change) = self.known.get(&group) {
            return Ok(Arc::clone(change));
        }
        let asked = Asked {
            action,
            situation,
            recalled,
            mask: &item.mask,
            is_of_present,
            is_whole: recorded.is_whole,
        };
        let change = Arc::new(self.again(&asked)?);
        self.count.situations += 1;
        if self.known.len() >= limits::REPLAY_SITUATIONS_MAX {
            self.known.clear();
        }
        self.known.insert(group, Arc::clone(&change));
        Ok(change)
    }

    /// One record, decided again.
    fn again(&mut self, asked: &Asked<'_>) -> Result<Change, Denial> {
        let Asked { action, situation, recalled, .. } = asked;
        if asked.is_of_present && self.alike(action, situation, recalled)? {
            return Ok(Change::default());
        }
        let Some(now) = self.candidate.foresee(action, situation, recalled).transpose()? else {
            return Ok(Change::undecided(BTreeSet::from([Fact::Record])));
        };
        match now.permitted {
            Some(false) => return Ok(Change::refused()),
            None => return Ok(Change::undecided(now.missing)),
            Some(true) if asked.mask.is_empty() => return Ok(Change::default()),
            Some(true) => {}
        }
        let resource = recalled.facts.resource_type;
        let paths = asked.mask.iter().filter_map(|path| ElementPath::parse(path).ok());
        let recorded = Mask::new(resource, paths.map(|path| (path, true)));
        let hidden = difference(&recorded, &now.possible);
        let mut missing = BTreeSet::new();
        if !difference(&recorded.and(&now.possible), &now.definite).is_empty() {
            missing.extend(&now.missing);
        }
        let then = match asked.is_of_present {
            true => self.present.foresee(action, situation, recalled).transpose()?,
            false => None,
        };
        let shown = match then {
            Some(then) => {
                let shown = difference(&now.definite, &then.possible);
                if difference(&now.possible, &then.definite) != shown {
                    missing.extend(now.missing.union(&then.missing));
                }
                shown
            }
            // What was let pass is what policy lets pass only where all of it was asked for.
            None => {
                let more = difference(&now.possible, &recorded);
                let shown = if asked.is_whole { difference(&now.definite, &recorded) } else { Vec::new() };
                if more != shown {
                    missing.extend(&now.missing);
                    missing.extend((!asked.is_whole).then_some(Fact::Shape));
                }
                shown
            }
        };
        let flips = !hidden.is_empty() || !shown.is_empty();
        if flips && !now.definite.keeps_modifiers() {
            missing.insert(Fact::Modifiers);
        }
        Ok(Change { permitted: None, hidden, shown, missing })
    }

    fn alike(&mut self, action: &str, situation: &Situation, recalled: &Recalled) -> Result<bool, Denial> {
        let alike = self.candidate.same_as(&mut self.present, action, situation, recalled);
        alike.transpose().map(Option::unwrap_or_default)
    }

    /// A refusal, decided again.
    fn refusal(
        &mut self,
        recorded: &Recorded,
        situation: &Situation,
        is_of_present: bool,
    ) -> Result<Change, Denial> {
        let by_policy = recorded.reason.as_deref().is_some_and(|reason| BY_POLICY.contains(&reason));
        if !by_policy {
            return Ok(Change::default());
        }
        let unknown = || BTreeSet::from([Fact::Record]);
        let Some(question) = &recorded.question else { return Ok(Change::undecided(unknown())) };
        let (Some(resource), Some(action)) = (question.resource_type(), action(recorded, false)) else {
            return Ok(Change::undecided(unknown()));
        };
        let then = self.present.admission(situation, question, &unknown_of_caller());
        let now = self.candidate.admission(situation, question, &unknown_of_caller());
        let missing = match &now {
            Admission::Refused(_) => return Ok(Change::default()),
            Admission::Undecided(_) if is_of_present && now == then => return Ok(Change::default()),
            Admission::Undecided(missing) => return Ok(Change::undecided(missing.clone())),
            Admission::Admitted => BTreeSet::new(),
        };
        let rows = matches!(question, Interaction::Search(_) | Interaction::History(_));
        if rows && then != now {
            // The answer would hold whatever rows policy lets out, if only none.
            return Ok(Change { permitted: Some(true), missing, ..Change::default() });
        }
        let recalled = nobody_knows(resource);
        if is_of_present && then == now && self.alike(action, situation, &recalled)? {
            return Ok(Change::default());
        }
        let foreseen = self.candidate.foresee(action, situation, &recalled).transpose()?;
        let is_read = matches!(question, Interaction::Read { .. } | Interaction::Vread { .. });
        Ok(match foreseen {
            Some(now) if now.permitted == Some(false) => Change::default(),
            // Whether there is such a record, nobody knows; if there is, everything else is settled.
            Some(now) if now.permitted == Some(true) && is_read && then_refused(&then) => {
                Change { permitted: Some(true), ..Change::default() }
            }
            Some(now) => Change::undecided(now.missing.into_iter().chain(unknown()).collect()),
            None => Change::undecided(unknown()),
        })
    }
}

fn then_refused(then: &Admission) -> bool {
    matches!(then, Admission::Refused(_))
}
