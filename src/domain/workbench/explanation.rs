//! Why a question is answered as it is, and what would have to be otherwise for it to be permitted.
//!
//! Owns: the search for changes, single ones and then pairs, among the facts that the policies speak of. Must never:
//! suggest what was not asked of the same decision that a request meets, or put an emergency first.
//! Look next: `access::Hint`, the facts; `judge`, the decision.

use super::case::Case;
use super::judge::{Asked, Met, covers};
use super::record::Records;
use crate::domain::access::{Disclosure, Hint, Hints, PolicySet, RecordDenial, Relation, Say};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Purposes that state an emergency (HL7 PurposeOfUse).
const URGENT: [&str; 2] = ["ETREAT", "BTG"];

/// HL7's code for treatment.
const TREATMENT: &str = "TREAT";

/// One fact that would be otherwise. In the order in which they are suggested.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Another purpose of use is stated.
    Purpose(String),
    /// The second factor was proven no longer ago than this, in seconds.
    SecondFactorAge(i64),
    /// The second factor resists phishing.
    PhishingResistant,
    /// The second factor was proven by this method, too.
    Method(String),
    /// Another application is used.
    Application(String),
    /// The caller stands to the patient in this relation, too.
    Relation(Relation),
    /// The caller has this role, too.
    Role(String),
    /// The record bears this label, too.
    WithLabel(String),
    /// The record bears these labels no more.
    WithoutLabels(Vec<String>),
    /// Emergency access to the patient is granted.
    Emergency,
}

impl Change {
    /// The case with this fact otherwise.
    #[must_use]
    pub fn apply(&self, case: &Case) -> Case {
        let mut case = case.clone();
        match self {
            Self::Purpose(purpose) => case.purpose.clone_from(purpose),
            Self::SecondFactorAge(seconds) => case.told.factor_age_seconds = Some(*seconds),
            Self::PhishingResistant => case.told.phishing_resistant = Some(true),
            Self::Method(method) => {
                let resists = case.told.phishing_resistant.or(case.told.methods.is_none().then_some(true));
                case.told.methods.get_or_insert_with(|| vec!["mfa".to_owned()]).push(method.clone());
                case.told.phishing_resistant = resists;
            }
            Self::Application(id) => case.told.application = Some(id.clone()),
            Self::Relation(relation) => case.told.relations.push(*relation),
            Self::Role(role) => case.roles.push(role.clone()),
            Self::WithLabel(label) => case.told.labels.push(label.clone()),
            Self::WithoutLabels(labels) => case.told.without_labels.extend(labels.iter().cloned()),
            Self::Emergency => case.told.emergency = true,
        }
        case
    }

    /// The same in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Purpose(purpose) => format!("the purpose {purpose}"),
            Self::SecondFactorAge(seconds) => format!("a second factor proven at most {seconds} s ago"),
            Self::PhishingResistant => "a second factor that resists phishing".to_owned(),
            Self::Method(method) => format!("a second factor proven by {method}"),
            Self::Application(id) => format!("the application {id}"),
            Self::Relation(relation) => format!("the relation {} to the patient", relation.name()),
            Self::Role(role) => format!("the role {role}"),
            Self::WithLabel(label) => format!("the label {label} on the record"),
            Self::WithoutLabels(labels) => format!("a record without the label {}", labels.join(", ")),
            Self::Emergency => "emergency access to the patient".to_owned(),
        }
    }

    /// It states an emergency: only for when there is one.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        match self {
            Self::Emergency => true,
            Self::Purpose(purpose) => URGENT.contains(&purpose.as_str()),
            _ => false,
        }
    }

    /// Whoever asks can bring it about; otherwise it is for those who give roles and tasks, or label records.
    #[must_use]
    pub fn is_the_callers(&self) -> bool {
        matches!(
            self,
            Self::Purpose(_)
                | Self::SecondFactorAge(_)
                | Self::PhishingResistant
                | Self::Method(_)
                | Self::Application(_)
        ) && !self.is_emergency()
    }
}

/// Changes under which the question was asked again and permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// One, or two together.
    pub changes: Vec<Change>,
    /// The policies that then permit.
    pub by: Vec<String>,
}

impl Suggestion {
    /// One of the changes states an emergency.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        self.changes.iter().any(Change::is_emergency)
    }
}

/// One question with its answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The element; `None`: the record.
    pub element: Option<ElementPath>,
    /// It is permitted.
    pub permitted: bool,
    /// In one line, by what or why not.
    pub decision: String,
    /// What each policy says.
    pub says: Vec<Say>,
    /// What would permit it, where it is not permitted: what the caller can do first, emergencies last.
    pub changes: Vec<Suggestion>,
    /// There were more changes to try than `limits::EXPLAIN_TRIES_MAX`.
    pub cut_short: bool,
}

/// A case explained.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Who asked for what.
    pub asked: String,
    /// The record, then each element asked about.
    pub answers: Vec<Answer>,
}

/// Explains a case: the record; and `elements`, or where there are none, those that the case names as visible.
///
/// # Errors
/// What is wrong with the record, or that a policy cannot be evaluated.
pub fn explain(
    policies: &Arc<PolicySet>,
    records: &Records,
    case: &Case,
    elements: &[ElementPath],
) -> Result<Explanation, String> {
    let named = if elements.is_empty() { &case.visible } else { elements };
    let goals = std::iter::once(None).chain(named.iter().map(Some));
    let answers = goals.map(|goal| answer(policies, records, case, goal)).collect::<Result<_, _>>()?;
    Ok(Explanation { asked: case.asked(), answers })
}

fn answer(
    policies: &Arc<PolicySet>,
    records: &Records,
    case: &Case,
    goal: Option<&ElementPath>,
) -> Result<Answer, String> {
    let search = Search { policies, records, case, goal };
    let asked = case.with_record(records, |facts, document| {
        let asked = Asked::new(policies, case, facts);
        let met = asked.met(facts, document).ok_or("there is no such action")?;
        let (permitted, decision) = decision(&asked, case, facts, &met, goal);
        let says = says(&asked, case, facts, &met, goal)?;
        let hints = asked.rehearsal.hints(&case.action, facts, &asked.known, goal);
        let hints = hints.transpose().map_err(|denial| denial.to_string())?.unwrap_or_default();
        let purposes = policies.outlines().iter().flat_map(|outline| outline.purposes.iter());
        let candidates = match permitted {
            true => Vec::new(),
            false => candidates(case, facts, &hints, purposes.cloned().collect()),
        };
        Ok::<_, String>((permitted, decision, says, candidates))
    });
    let (permitted, decision, says, candidates) =
        asked.map_err(|(about, what)| format!("`{about}`: {what}"))??;
    let (changes, cut_short) = search.run(&candidates);
    Ok(Answer { element: goal.cloned(), permitted, decision, says, changes, cut_short })
}

fn says(
    asked: &Asked<'_>,
    case: &Case,
    facts: &Facts,
    met: &Met,
    goal: Option<&ElementPath>,
) -> Result<Vec<Say>, String> {
    let ask = |element: Option<&ElementPath>| {
        let says = asked.rehearsal.says(&case.action, facts, &asked.known, element);
        says.transpose().map(Option::unwrap_or_default).map_err(|denial| denial.to_string())
    };
    let mut says = ask(goal)?;
    let bare = matches!(&met.outcome, Err(RecordDenial::NothingDisclosed | RecordDenial::NothingModifiable));
    if bare && goal.is_none() {
        says.extend(ask(Some(&ElementPath::root(facts.resource_type)))?);
    }
    Ok(says)
}

/// Whether it is permitted, and by what or why not.
fn decision(
    asked: &Asked<'_>,
    case: &Case,
    facts: &Facts,
    met: &Met,
    goal: Option<&ElementPath>,
) -> (bool, String) {
    let by = |ids: &[String]| ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    let disclosure = match &met.outcome {
        Err(denial) if met.objections.is_empty() => {
            return (false, format!("refused: {denial}; no policy permits it"));
        }
        Err(_) => return (false, format!("refused by {}", by(&met.objections))),
        Ok(_) if !met.leaves => {
            return (false, "withheld whole: a modifier element would be left out of it".to_owned());
        }
        Ok(disclosure) => disclosure,
    };
    let Some(path) = goal else { return (true, permitted(disclosure, &by(disclosure.policies()))) };
    if covers(disclosure.mask(), path) {
        let stand = asked.rehearsal.stand_of_record(&case.action, facts, &asked.known, Some(path));
        let permits = stand.and_then(Result::ok).unwrap_or_default().permits;
        return (true, format!("passes, by {}", by(&permits)));
    }
    match asked.rehearsal.objections(&case.action, facts, &asked.known, path) {
        none if none.is_empty() => (false, "withheld: no policy permits all of it".to_owned()),
        forbids => (false, format!("withheld by {}", by(&forbids))),
    }
}

fn permitted(disclosure: &Disclosure, by: &str) -> String {
    match disclosure.basis() {
        [] => format!("permitted by {by}"),
        basis => format!("permitted by {by}; it rests on {}", basis.join(", ")),
    }
}

/// The changes to try, in the order of their worth.
fn candidates(case: &Case, facts: &Facts, hints: &Hints, purposes: BTreeSet<String>) -> Vec<Change> {
    let mut found: BTreeSet<Change> = BTreeSet::new();
    let age = case.told.factor_age_seconds.unwrap_or(limits::REHEARSED_FACTOR_AGE_SECONDS);
    let resists = case.told.phishing_resistant.unwrap_or(case.told.methods.is_none());
    for hint in hints.permits.iter().chain(&hints.forbids) {
        match hint {
            Hint::Purpose(purpose) if *purpose != case.purpose => {
                found.insert(Change::Purpose(purpose.clone()));
            }
            Hint::Age(limit) => {
                let around = [limit.saturating_sub(1), *limit].into_iter();
                found.extend(around.filter(|one| (0..age).contains(one)).map(Change::SecondFactorAge));
            }
            Hint::PhishingResistant if !resists => drop(found.insert(Change::PhishingResistant)),
            Hint::Method(method) => drop(found.insert(Change::Method(method.clone()))),
            Hint::Relation(relation) if !case.told.relations.contains(relation) => {
                found.insert(Change::Relation(*relation));
            }
            Hint::Role(role) if !case.roles.contains(role) => drop(found.insert(Change::Role(role.clone()))),
            Hint::Emergency if !case.told.emergency && !facts.patients.is_empty() => {
                found.insert(Change::Emergency);
            }
            Hint::Application(id) => drop(found.insert(Change::Application(id.clone()))),
            _ => {}
        }
    }
    if asks_purpose(hints) {
        // A condition may ask for any purpose but some: every one that is known, and the commonest of all.
        let known = purposes.into_iter().chain([TREATMENT.to_owned()]);
        found.extend(known.filter(|purpose| *purpose != case.purpose).map(Change::Purpose));
    }
    let both: BTreeSet<&Hint> = hints.forbids.union(&hints.permits).collect();
    let borne: Vec<String> = both.iter().filter_map(|hint| borne(hint, facts)).collect();
    if borne.len() > 1 {
        found.insert(Change::WithoutLabels(borne.clone()));
    }
    found.extend(borne.into_iter().map(|label| Change::WithoutLabels(vec![label])));
    found.extend(both.into_iter().filter_map(|hint| match hint {
        Hint::Label(label) if !facts.labels.contains(label) => Some(Change::WithLabel(label.clone())),
        _ => None,
    }));
    let mut found: Vec<Change> = found.into_iter().collect();
    // The oldest second factor that would do is tried first; an emergency is always last.
    found.sort_by_key(|change| match change {
        Change::SecondFactorAge(seconds) => (change.is_emergency(), !change.is_the_callers(), -seconds),
        other => (other.is_emergency(), !other.is_the_callers(), 0),
    });
    found
}

fn asks_purpose(hints: &Hints) -> bool {
    hints.permits.iter().chain(&hints.forbids).any(|hint| matches!(hint, Hint::Purpose(_)))
}

/// A label that a policy names and the record bears.
fn borne(hint: &Hint, facts: &Facts) -> Option<String> {
    match hint {
        Hint::Label(label) if facts.labels.contains(label) => Some(label.clone()),
        _ => None,
    }
}

struct Search<'s> {
    policies: &'s Arc<PolicySet>,
    records: &'s Records,
    case: &'s Case,
    goal: Option<&'s ElementPath>,
}

impl Search<'_> {
    /// Single changes; pairs of the others where no single one does that the caller, or a task with the patient, could
    /// bring about. Pairs with roles and labels only where nothing but an emergency does. Tells whether there were more
    /// than may be tried.
    fn run(&self, candidates: &[Change]) -> (Vec<Suggestion>, bool) {
        let mut found: Vec<Suggestion> = Vec::new();
        let mut left: Vec<&Change> = Vec::new();
        for change in candidates {
            let is_known = |one: &Suggestion| same_kind_of_age(&one.changes, change);
            if found.iter().any(is_known) {
                continue;
            }
            match self.permits(&[change]) {
                Some(by) => found.push(Suggestion { changes: vec![change.clone()], by }),
                None => left.push(change),
            }
        }
        let is_near = |change: &Change| change.is_the_callers() || matches!(change, Change::Relation(_));
        if found.iter().any(|one| one.changes.iter().all(is_near)) {
            return (found, false);
        }
        if found.iter().any(|one| !one.is_emergency()) {
            left.retain(|change| is_near(change));
        }
        let (pairs, cut_short) = self.pairs(&left);
        found.extend(pairs);
        found.sort_by_key(Suggestion::is_emergency);
        (found, cut_short)
    }

    fn pairs(&self, left: &[&Change]) -> (Vec<Suggestion>, bool) {
        let mut found: Vec<Suggestion> = Vec::new();
        let mut tries = 0_usize;
        for (at, first) in left.iter().enumerate() {
            for second in left.iter().skip(at + 1).filter(|second| go_together(first, second)) {
                if tries >= limits::EXPLAIN_TRIES_MAX {
                    return (found, true);
                }
                let superfluous = |one: &Suggestion| match one.changes.as_slice() {
                    [a, b] => {
                        (a == *first && same_kind_of_age(std::slice::from_ref(b), second))
                            || (b == *second && same_kind_of_age(std::slice::from_ref(a), first))
                    }
                    _ => false,
                };
                if found.iter().any(superfluous) {
                    continue;
                }
                tries += 1;
                if let Some(by) = self.permits(&[first, second]) {
                    found.push(Suggestion { changes: vec![(*first).clone(), (*second).clone()], by });
                }
            }
        }
        (found, false)
    }

    /// The policies by which it is permitted with these changes, asked as a request is.
    fn permits(&self, changes: &[&Change]) -> Option<Vec<String>> {
        let case = changes.iter().fold(self.case.clone(), |case, change| change.apply(&case));
        let met = case.with_record(self.records, |facts, document| {
            Asked::new(self.policies, &case, facts).met(facts, document)
        });
        let met = met.ok()??;
        let disclosure = met.outcome.as_ref().ok().filter(|_| met.leaves)?;
        let reached = self.goal.is_none_or(|path| covers(disclosure.mask(), path));
        reached.then(|| disclosure.policies().to_vec())
    }
}

/// A second factor that is older and does as well makes the younger one needless.
fn same_kind_of_age(known: &[Change], other: &Change) -> bool {
    matches!((known, other), ([Change::SecondFactorAge(_)], Change::SecondFactorAge(_)))
}

/// Two purposes are none, two roles at once are nobody's wish.
fn go_together(first: &Change, second: &Change) -> bool {
    std::mem::discriminant(first) != std::mem::discriminant(second)
        || matches!((first, second), (Change::Relation(_), Change::Relation(_)))
}
