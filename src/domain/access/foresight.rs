//! What a decision would be where not everything is known: yes, no, or which facts are missing.
//!
//! Owns: three-valued answers about a question that was asked once, from what was written down of it. What is not known
//! is left open, and a decision that could turn on it is none. Must never: guess; make a permit.
//! Look next: `inquiry`, which takes policies apart; `workbench::replay`, which asks about recorded days.

use super::admit::admit_as;
use super::denial::Denial;
use super::engine::{Engine, Fault, Record};
use super::expression::{Attribute, children, kind};
use super::inquiry::{Atoms, Taken, Truth, Truths, collect, is_own_extension, parts, truth, truths};
use super::key::{Key, KeyParts, Situated};
use super::masks::Masks;
use super::relation::Relation;
use super::set::{Action, PolicySet};
use super::situation::{Circumstances, Situation};
use super::words::{attribute, entities, texts};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::pst::{BinaryOp, Expr, UnaryOp, Var};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A fact that may not have been written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// How old the second factor was, how it was proven, and whether it resisted phishing.
    SecondFactor,
    /// The token's scopes.
    Scopes,
    /// Who the caller is to the EMR.
    FhirUser,
    /// How the caller stood to the patient, beyond what the decision rested on.
    Relations,
    /// Whether emergency access was in force.
    Emergency,
    /// The record's security labels.
    Labels,
    /// Its status.
    Status,
    /// Its category.
    Category,
    /// Its code.
    Code,
    /// Whom it mentions.
    Mentions,
    /// Whether it has modifier elements that the mask would leave out.
    Modifiers,
    /// Which of its elements were asked for.
    Shape,
    /// Which record it is, and that there is one.
    Record,
}

impl Fact {
    /// In one word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SecondFactor => "second factor",
            Self::Scopes => "scopes",
            Self::FhirUser => "fhirUser",
            Self::Relations => "relations",
            Self::Emergency => "emergency",
            Self::Labels => "labels",
            Self::Status => "status",
            Self::Category => "category",
            Self::Code => "code",
            Self::Mentions => "mentions",
            Self::Modifiers => "modifier elements",
            Self::Shape => "which elements were asked for",
            Self::Record => "the record",
        }
    }

    /// The fact that an attribute tells.
    fn of(attribute: &str) -> Option<Self> {
        Some(match attribute {
            "context.scopes" => Self::Scopes,
            "context.relations" => Self::Relations,
            "context.emergency" => Self::Emergency,
            "context.labels" | "resource.labels" => Self::Labels,
            "resource.status" => Self::Status,
            "resource.category" => Self::Category,
            "resource.code" => Self::Code,
            "resource.mentions" => Self::Mentions,
            "resource.patients" | "resource.id" => Self::Record,
            "principal.fhirUser" => Self::FhirUser,
            other if other.starts_with("context.mfa") => Self::SecondFactor,
            _ => return None,
        })
    }
}

/// What is known of a record that was asked about.
#[derive(Clone, Debug)]
pub struct Recalled {
    /// Its facts, as far as they are known.
    pub facts: Facts,
    /// Relations that held; more may have where [`Fact::Relations`] is unknown.
    pub relations: BTreeSet<Relation>,
    /// It was decided under emergency access.
    pub emergency: bool,
    /// What is not known.
    pub unknown: BTreeSet<Fact>,
}

/// What would be decided.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// Whether it is permitted; `None`: that turns on what is missing.
    pub permitted: Option<bool>,
    /// Elements that pass whatever the missing facts are.
    pub definite: Mask,
    /// Elements that pass for some of what they could be.
    pub possible: Mask,
    /// The facts on which it turns.
    pub missing: BTreeSet<Fact>,
}

/// Two questions that are the same to a policy set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sameness {
    situated: Situated,
    key: Key,
    unknown: BTreeSet<Fact>,
}

/// What the door would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The question may be asked.
    Admitted,
    /// It may not.
    Refused(Denial),
    /// That turns on what is missing.
    Undecided(BTreeSet<Fact>),
}

/// Policies that speak of an action, a type and these roles, taken apart once.
struct Chapter {
    policies: Vec<Taken>,
    atoms: Atoms,
    parts: cedar_policy::PolicySet,
}

/// One policy set, asked about the past.
pub struct Foresight {
    set: Arc<PolicySet>,
    masks: Masks,
    chapters: HashMap<(Action, ResourceType, BTreeSet<String>), Arc<Chapter>>,
}

impl std::fmt::Debug for Foresight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foresight").field("set", &self.set).finish_non_exhaustive()
    }
}

/// A condition with what is not known left open.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Is(bool),
    /// It turns on these.
    Open(BTreeSet<Fact>),
}

impl Foresight {
    /// Questions to this set.
    #[must_use]
    pub fn new(set: &Arc<PolicySet>) -> Self {
        Self { set: Arc::clone(set), masks: Masks::new(), chapters: HashMap::new() }
    }

    /// The set.
    pub fn set(&self) -> &Arc<PolicySet> {
        &self.set
    }

    /// What would be decided on a record. `None`: no action on records has this name.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`]: then everything would be refused.
    #[must_use]
    pub fn foresee(
        &mut self,
        action: &str,
        situation: &Situation,
        recalled: &Recalled,
    ) -> Option<Result<Foreseen, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        Some(self.decide(action, situation, recalled))
    }

    fn decide(
        &mut self,
        action: Action,
        situation: &Situation,
        recalled: &Recalled,
    ) -> Result<Foreseen, Denial> {
        let resource = recalled.facts.resource_type;
        let chapter = self.chapter(action, resource, situation)?;
        let mut missing = BTreeSet::new();
        let whole = self.weigh(&chapter, action, situation, recalled, None)?;
        let mut decided: Vec<(ElementPath, Value)> = Vec::new();
        if let (Some(family), true) = (action.elements(), whole != Value::Is(false)) {
            let chapter = self.chapter(family, resource, situation)?;
            for branch in self.set.every_branch(resource) {
                let value = self.weigh(&chapter, family, situation, recalled, Some(&branch.path))?;
                decided.push((branch.path, value));
            }
        }
        for value in decided.iter().map(|(_, value)| value).chain([&whole]) {
            if let Value::Open(facts) = value {
                missing.extend(facts);
            }
        }
        let mask = |least: &dyn Fn(&Value) -> bool| {
            Mask::new(resource, decided.iter().map(|(path, value)| (path.clone(), least(value))))
        };
        let (definite, possible) =
            (mask(&|value| *value == Value::Is(true)), mask(&|value| *value != Value::Is(false)));
        let moves = action.elements().is_some();
        let permitted = match &whole {
            Value::Is(false) => Some(false),
            _ if moves && possible.is_empty() => Some(false),
            Value::Is(true) if !moves || !definite.is_empty() => Some(true),
            _ => None,
        };
        Ok(Foreseen { permitted, definite, possible, missing })
    }

    /// Whether the other set surely decides the same on this record: the policies in which they differ say nothing to it,
    /// whatever is not known. `None`: no action on records has this name.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`] only.
    #[must_use]
    pub fn same_as(
        &mut self,
        other: &mut Self,
        action: &str,
        situation: &Situation,
        recalled: &Recalled,
    ) -> Option<Result<bool, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        Some(self.decides_alike(other, action, situation, recalled))
    }

    fn decides_alike(
        &mut self,
        other: &mut Self,
        action: Action,
        situation: &Situation,
        recalled: &Recalled,
    ) -> Result<bool, Denial> {
        let resource = recalled.facts.resource_type;
        for asked in std::iter::once(action).chain(action.elements()) {
            let (mine, theirs) =
                (self.chapter(asked, resource, situation)?, other.chapter(asked, resource, situation)?);
            let (here, there) = (mine.texts(), theirs.texts());
            if here == there && (asked == action || self.names_alike(other, resource)) {
                continue;
            }
            let by_element = asked != action;
            if by_element && !self.names_alike(other, resource) {
                return Ok(false);
            }
            let mut paths: Vec<Option<ElementPath>> = vec![None];
            if by_element {
                paths = self.set.every_branch(resource).into_iter().map(|branch| Some(branch.path)).collect();
            }
            for path in &paths {
                let silent = |foresight: &Self, chapter: &Chapter, known: &BTreeSet<String>| {
                    foresight.is_silent(chapter, asked, situation, recalled, path.as_ref(), known)
                };
                if !silent(self, &mine, &there)? || !silent(other, &theirs, &here)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Both name the same elements of a type, in the same groups.
    fn names_alike(&self, other: &Self, resource: ResourceType) -> bool {
        let branches = |foresight: &Self| -> Vec<(String, Vec<String>)> {
            let all = foresight.set.every_branch(resource);
            all.into_iter().map(|branch| (branch.path.as_str().to_owned(), branch.groups)).collect()
        };
        branches(self) == branches(other)
    }

    /// Whether none of the policies that are not among `known` can hold.
    fn is_silent(
        &self,
        chapter: &Chapter,
        action: Action,
        situation: &Situation,
        recalled: &Recalled,
        path: Option<&ElementPath>,
        known: &BTreeSet<String>,
    ) -> Result<bool, Denial> {
        let truths = self.truths(chapter, action, situation, recalled, (path, true))?;
        let others = chapter.policies.iter().filter(|policy| !known.contains(&policy.text()));
        Ok(others.into_iter().all(|policy| holds(policy, &truths, recalled) == Value::Is(false)))
    }

    /// One question about the record, or about an element of it.
    fn weigh(
        &self,
        chapter: &Chapter,
        action: Action,
        situation: &Situation,
        recalled: &Recalled,
        path: Option<&ElementPath>,
    ) -> Result<Value, Denial> {
        let for_forbids = self.truths(chapter, action, situation, recalled, (path, true))?;
        // A grant of the record does not reach its own extensions; what forbids the record does.
        let apart = path.is_some_and(is_own_extension);
        let for_permits = match apart {
            true => self.truths(chapter, action, situation, recalled, (path, false))?,
            false => for_forbids.clone(),
        };
        let any = |permits: bool, truths: &Truths| {
            let side = chapter.policies.iter().filter(|policy| policy.permits == permits);
            side.map(|policy| holds(policy, truths, recalled)).fold(Value::Is(false), Value::or)
        };
        let forbidden = any(false, &for_forbids);
        Ok(any(true, &for_permits).and(forbidden.not()))
    }

    fn truths(
        &self,
        chapter: &Chapter,
        action: Action,
        situation: &Situation,
        recalled: &Recalled,
        (path, nested): (Option<&ElementPath>, bool),
    ) -> Result<Truths, Denial> {
        let mut facts = recalled.facts.clone();
        if recalled.unknown.contains(&Fact::Status) {
            // What asks for it is left open; the question must be one of the schema's all the same.
            facts.status = Some(String::new());
        }
        let relations = recalled.relations.iter().copied().collect();
        let record = Record { facts: &facts, relations, emergency: recalled.emergency };
        let engine = Engine::new(&self.set, situation)?;
        let element = path.map(|path| (path, nested));
        Ok(truths(&chapter.atoms, &engine.answer_of(&chapter.parts, action, &record, element)?))
    }

    /// Equal exactly if everything is equal that this set could look at; with `None`, nothing is.
    #[must_use]
    pub fn sameness(&self, action: &str, situation: &Situation, recalled: &Recalled) -> Option<Sameness> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let Recalled { facts, relations, emergency, unknown } = recalled;
        let record = Record { facts, relations: relations.iter().copied().collect(), emergency: *emergency };
        let uses = self.set.uses(&situation.who.roles);
        let situated = Situated::new(&self.set, situation, &uses);
        let key = KeyParts::new(0, uses).for_record((action, None), &record);
        Some(Sameness { situated, key, unknown: unknown.clone() })
    }

    fn chapter(
        &mut self,
        action: Action,
        resource: ResourceType,
        situation: &Situation,
    ) -> Result<Arc<Chapter>, Denial> {
        let key = (action, resource, situation.who.roles.clone());
        if let Some(chapter) = self.chapters.get(&key) {
            return Ok(Arc::clone(chapter));
        }
        let theirs =
            |(_, role): &(_, Option<&str>)| role.is_none_or(|role| situation.who.roles.contains(role));
        let policies = self.set.whoever(action, resource).filter(theirs);
        let policies: Vec<Taken> = policies.filter_map(|(policy, role)| Taken::apart(policy, role)).collect();
        let mut atoms = BTreeMap::new();
        policies.iter().flat_map(|policy| &policy.terms).for_each(|term| collect(term, &mut atoms));
        let parts = parts(&atoms).ok_or_else(|| Denial::from(Fault(Vec::new())))?;
        let chapter = Arc::new(Chapter { policies, atoms, parts });
        self.chapters.insert(key, Arc::clone(&chapter));
        Ok(chapter)
    }

    /// What the door would say to a question: with every second factor that policies could tell apart, where it is not
    /// known which there was.
    #[must_use]
    pub fn admission(
        &self,
        situation: &Situation,
        question: &Interaction,
        unknown: &BTreeSet<Fact>,
    ) -> Admission {
        let circumstances = Circumstances {
            now: situation.now,
            network: situation.network,
            purpose: None,
            emergencies: BTreeMap::new(),
        };
        let uses = &self.set.uses(&situation.who.roles);
        let ask = |situation: Situation| {
            admit_as(&self.set, &self.masks, situation, question, &circumstances).map(|_| ())
        };
        let first = ask(situation.clone());
        let asks_factor = uses.age_itself || !uses.age_limits.is_empty() || uses.context.has(Attribute::Mfa);
        if unknown.contains(&Fact::SecondFactor) && asks_factor {
            if uses.age_itself {
                return Admission::Undecided(BTreeSet::from([Fact::SecondFactor]));
            }
            let around = |limit: &i64| [limit.saturating_sub(1), *limit, limit.saturating_add(1)];
            let ages = uses.age_limits.iter().flat_map(around).filter(|age| *age >= 0).chain([0]);
            for age_seconds in ages {
                for phishing_resistant in [true, false] {
                    let supposed = Situation { age_seconds, phishing_resistant, ..situation.clone() };
                    if ask(supposed) != first {
                        return Admission::Undecided(BTreeSet::from([Fact::SecondFactor]));
                    }
                }
            }
        }
        for (fact, asks) in
            [(Fact::Scopes, uses.context.has(Attribute::Scopes)), (Fact::FhirUser, uses.principal)]
        {
            if unknown.contains(&fact) && asks {
                return Admission::Undecided(BTreeSet::from([fact]));
            }
        }
        match first {
            Ok(()) => Admission::Admitted,
            Err(denial) => Admission::Refused(denial),
        }
    }
}

impl Chapter {
    fn texts(&self) -> BTreeSet<String> {
        self.policies.iter().map(Taken::text).collect()
    }
}

impl Value {
    fn not(self) -> Self {
        match self {
            Self::Is(value) => Self::Is(!value),
            open @ Self::Open(_) => open,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Is(true), _) | (_, Self::Is(true)) => Self::Is(true),
            (Self::Is(false), other) | (other, Self::Is(false)) => other,
            (Self::Open(one), Self::Open(other)) => Self::Open(&one | &other),
        }
    }

    fn and(self, other: Self) -> Self {
        self.not().or(other.not()).not()
    }
}

fn holds(policy: &Taken, truths: &Truths, recalled: &Recalled) -> Value {
    let values = policy.terms.iter().map(|term| value(term, truths, recalled));
    values.fold(Value::Is(true), Value::and)
}

fn value(expr: &Arc<Expr>, truths: &Truths, recalled: &Recalled) -> Value {
    match &**expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => value(expr, truths, recalled).not(),
        Expr::BinaryOp { op: BinaryOp::And, left, right } => {
            value(left, truths, recalled).and(value(right, truths, recalled))
        }
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
            value(left, truths, recalled).or(value(right, truths, recalled))
        }
        _ => atom(expr, truths, recalled),
    }
}

fn atom(expr: &Arc<Expr>, truths: &Truths, recalled: &Recalled) -> Value {
    let truth = truth(expr, truths);
    let open: BTreeSet<Fact> = asked(expr).intersection(&recalled.unknown).copied().collect();
    match truth {
        // More relations do not undo that one holds.
        Truth::Yes if open.iter().eq([&Fact::Relations]) && is_test_of_relations(expr) => Value::Is(true),
        Truth::Yes if open.is_empty() => Value::Is(true),
        Truth::No if open.is_empty() => Value::Is(false),
        // Something before it settles the policy, or Cedar would have failed.
        Truth::Guarded if open.is_empty() => Value::Is(false),
        _ => Value::Open(open),
    }
}

/// `context.relations.contains("…")` and its like.
fn is_test_of_relations(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOp::Contains | BinaryOp::ContainsAny | BinaryOp::ContainsAll, left, right }
        if attribute(left).as_deref() == Some("context.relations") && texts(right).is_some())
}

/// The facts that a condition asks for.
fn asked(expr: &Expr) -> BTreeSet<Fact> {
    let mut found: BTreeSet<Fact> = attribute(expr).and_then(|name| Fact::of(&name)).into_iter().collect();
    if let Expr::HasAttr { expr: base, attrs } = expr {
        let owner = match &**base {
            Expr::Var(Var::Resource) => "resource",
            Expr::Var(Var::Principal) => "principal",
            _ => "context",
        };
        found.extend(Fact::of(&format!("{owner}.{}", attrs.first())));
    }
    if let Expr::BinaryOp { op: BinaryOp::In | BinaryOp::Eq | BinaryOp::NotEq, left, right } = expr {
        let is_record = |expr: &Expr| matches!(expr, Expr::Var(Var::Resource));
        let elements = |uid: &&cedar_policy::pst::EntityUID| {
            matches!(kind(uid).as_str(), "FHIR::Element" | "ElementGroup")
        };
        let of_elements = entities(right).is_some_and(|uids| uids.iter().all(elements));
        found.extend(((is_record(left) || is_record(right)) && !of_elements).then_some(Fact::Record));
    }
    found.extend(children(expr).into_iter().flat_map(asked));
    found
}
