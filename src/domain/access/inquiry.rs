//! What each policy says to one question: which of its conditions hold, and what would have to be otherwise.
//!
//! Owns: taking policies apart into conditions that Cedar is asked about one by one, on the same request as a decision;
//! and folding what a caller cannot change into what is left of a policy. Must never: decide; what is asked for in the
//! end is always asked of `masks::judge` again. Look next: `words`, how conditions are said; `workbench::explanation`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: what is no connective is one condition, which Cedar is asked about"
)]

use super::denial::Denial;
use super::engine::{Engine, Record, Sides};
use super::expression::{children, kind};
use super::rehearsal::Rehearsal;
use super::relation::{Relation, Relations};
use super::set::{Action, Form};
use super::situation::About;
use super::words::{attribute, entities, long, phrase, texts};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::pst::{self, BinaryOp, Clause, Expr, Literal, UnaryOp, Var};
use cedar_policy::{AuthorizationError, Effect, Policy, PolicyId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one policy says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// Its id.
    pub policy: String,
    /// It permits; otherwise it forbids.
    pub permits: bool,
    /// The role that its scope asks for.
    pub role: Option<String>,
    /// The caller has it, or none is asked for.
    pub concerns: bool,
    /// All its conditions hold.
    pub holds: bool,
    /// The conditions that do not, in words.
    pub failing: Vec<String>,
    /// What is left to be fulfilled for a permit to hold, or for a forbid to hold no more, when everything is put in
    /// that the caller cannot change; `None` when nothing they could change would do.
    pub needs: Option<String>,
    /// The facts that this speaks of.
    pub hints: BTreeSet<Hint>,
}

/// A fact that a policy speaks of and that could be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// A purpose of use.
    Purpose(String),
    /// A limit of the second factor's age, in seconds.
    Age(i64),
    /// A second factor that resists phishing.
    PhishingResistant,
    /// A method of the second factor.
    Method(String),
    /// A relation to the patient.
    Relation(Relation),
    /// A role.
    Role(String),
    /// Emergency access.
    Emergency,
    /// A security label of the record.
    Label(String),
    /// An application.
    Application(String),
}

/// Facts by which a decision could become another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// What permits speak of that do not hold.
    pub permits: BTreeSet<Hint>,
    /// What forbids speak of that do hold.
    pub forbids: BTreeSet<Hint>,
}

impl Hints {
    fn learn(&mut self, says: Vec<Say>) {
        for say in says {
            match (say.permits, say.holds) {
                (true, false) => self.permits.extend(say.hints),
                (false, true) => self.forbids.extend(say.hints),
                _ => {}
            }
        }
    }
}

/// On which side policies stand before any record is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// Permits that hold for every record.
    pub permits: Vec<String>,
    /// Permits that hold for some.
    pub may_permit: Vec<String>,
    /// Forbids that hold for every record.
    pub forbids: Vec<String>,
    /// Forbids that hold for some.
    pub may_forbid: Vec<String>,
}

impl Rehearsal {
    /// What every policy says that speaks of this action and type, whoever it is for: about the record, or with
    /// `element` about that element of it. `None`: no action has this name, or it moves no elements.
    #[must_use]
    pub fn says(
        &self,
        action: &str,
        facts: &Facts,
        known: &Relations,
        element: Option<&ElementPath>,
    ) -> Option<Result<Vec<Say>, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let asked = match element {
            Some(_) => action.elements()?,
            None => action,
        };
        let situation = &self.desk.situation;
        let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), known);
        let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
        let record = Record { facts, relations, emergency };
        Some(self.say(asked, &record, &[element]))
    }

    /// The facts by which the decision on this record could become another, or with `element` that on it: those that
    /// permits speak of which do not hold, and those that forbids speak of which do. `None`: no action has this name.
    #[must_use]
    pub fn hints(
        &self,
        action: &str,
        facts: &Facts,
        known: &Relations,
        element: Option<&ElementPath>,
    ) -> Option<Result<Hints, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let situation = &self.desk.situation;
        let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), known);
        let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
        let record = Record { facts, relations, emergency };
        Some(self.hints_of(action, &record, element))
    }

    fn hints_of(
        &self,
        action: Action,
        record: &Record<'_>,
        element: Option<&ElementPath>,
    ) -> Result<Hints, Denial> {
        let mut hints = Hints::default();
        hints.learn(self.say(action, record, &[None])?);
        if let Some(family) = action.elements() {
            let branches = self.desk.set.every_branch(record.facts.resource_type);
            let every = || branches.iter().map(|branch| Some(&branch.path)).collect();
            let paths: Vec<Option<&ElementPath>> = element.map_or_else(every, |path| vec![Some(path)]);
            hints.learn(self.say(family, record, &paths)?);
        }
        Ok(hints)
    }

    /// The policies on both sides of what is asked of a type; with `element`, of that element. `None` as for
    /// [`Rehearsal::says`].
    #[must_use]
    pub fn stand(
        &self,
        action: &str,
        resource: ResourceType,
        element: Option<&ElementPath>,
    ) -> Option<Result<Stand, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let family = action.elements();
        let engine = Engine::new(&self.desk.set, &self.desk.situation);
        let sides = engine.and_then(|engine| match (element, family) {
            (Some(path), Some(family)) => engine.type_sides(family, path),
            (Some(_), None) => Ok(Sides::default()),
            (None, _) => engine.type_action_sides(action, resource),
        });
        Some(sides.map(Stand::from).map_err(Denial::from))
    }

    /// The policies on both sides of what is asked of this record; with `element`, of that element: those that hold.
    /// `None` as for [`Rehearsal::says`].
    #[must_use]
    pub fn stand_of_record(
        &self,
        action: &str,
        facts: &Facts,
        known: &Relations,
        element: Option<&ElementPath>,
    ) -> Option<Result<Stand, Denial>> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let asked = match element {
            Some(_) => action.elements()?,
            None => action,
        };
        let situation = &self.desk.situation;
        let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), known);
        let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
        let record = Record { facts, relations, emergency };
        Some(self.holding(asked, &record, element))
    }

    fn holding(
        &self,
        action: Action,
        record: &Record<'_>,
        element: Option<&ElementPath>,
    ) -> Result<Stand, Denial> {
        let (set, situation) = (&self.desk.set, &self.desk.situation);
        let fault = || Denial::PolicyFault { policies: Vec::new() };
        let slice = set.slice(Form::Exact, action, record.facts.resource_type, &situation.who.roles);
        let slice = slice.ok_or_else(fault)?;
        let engine = Engine::new(set, situation)?;
        let own = element.is_some_and(is_own_extension);
        let ask = |effect: Effect, nested: bool| -> Result<Vec<String>, Denial> {
            let side = slice.policies().filter(|policy| policy.effect() == effect).cloned();
            let side = cedar_policy::PolicySet::from_policies(side).map_err(|_| fault())?;
            let answer = engine.answer_of(&side, action, record, element.map(|path| (path, nested)))?;
            if answer.diagnostics().errors().next().is_some() {
                return Err(fault());
            }
            let holding: BTreeSet<String> = answer.diagnostics().reason().map(PolicyId::to_string).collect();
            Ok(holding.into_iter().collect())
        };
        // A grant of the record does not reach its own extensions; what forbids the record does.
        let (permits, forbids) = (ask(Effect::Permit, !own)?, ask(Effect::Forbid, true)?);
        Ok(Stand { permits, forbids, ..Stand::default() })
    }

    /// Of each of these elements, or of the record, what every policy says.
    fn say(
        &self,
        action: Action,
        record: &Record<'_>,
        elements: &[Option<&ElementPath>],
    ) -> Result<Vec<Say>, Denial> {
        let fault = || Denial::PolicyFault { policies: Vec::new() };
        let set = &self.desk.set;
        let whoever = set.whoever(action, record.facts.resource_type);
        let policies: Vec<Taken> = whoever.filter_map(|(policy, role)| Taken::apart(policy, role)).collect();
        let mut atoms = BTreeMap::new();
        policies.iter().flat_map(|policy| &policy.terms).for_each(|term| collect(term, &mut atoms));
        let parts = parts(&atoms).ok_or_else(fault)?;
        let engine = Engine::new(set, &self.desk.situation)?;
        let mut says = Vec::new();
        for element in elements {
            let ask = |nested: bool| -> Result<Truths, Denial> {
                let asked = element.map(|path| (path, nested));
                Ok(truths(&atoms, &engine.answer_of(&parts, action, record, asked)?))
            };
            // A grant of the record does not reach its own extensions; what forbids the record does.
            let apart = element.is_some_and(is_own_extension);
            let for_forbids = ask(true)?;
            let for_permits = if apart { Some(ask(false)?) } else { None };
            says.extend(policies.iter().map(|policy| {
                let truths = for_permits.as_ref().filter(|_| policy.permits).unwrap_or(&for_forbids);
                policy.say(truths, self.has(policy.role.as_deref()))
            }));
        }
        Ok(says)
    }

    fn has(&self, role: Option<&str>) -> bool {
        role.is_none_or(|role| self.desk.situation.who.roles.contains(role))
    }
}

/// The record's own `extension`, or one of them by URL.
pub(super) fn is_own_extension(path: &ElementPath) -> bool {
    path.segments().nth(1).is_some_and(|name| name.starts_with("extension"))
}

impl From<Sides> for Stand {
    fn from(sides: Sides) -> Self {
        let list = |ids: BTreeSet<String>| ids.into_iter().collect();
        Self {
            permits: list(sides.permits),
            may_permit: list(sides.may_permit),
            forbids: list(sides.forbids),
            may_forbid: list(sides.may_forbid),
        }
    }
}

/// A policy as conditions that all must hold.
pub(super) struct Taken {
    id: String,
    pub(super) permits: bool,
    role: Option<String>,
    pub(super) terms: Vec<Arc<Expr>>,
}

impl Taken {
    pub(super) fn apart(policy: &Policy, role: Option<&str>) -> Option<Self> {
        let pst::Policy::Static(body) = policy.to_pst().ok()? else { return None };
        let body = body.body();
        let mut terms: Vec<Arc<Expr>> = Vec::new();
        terms.extend(principal(&body.principal).map(Arc::new));
        terms.extend(resource(&body.resource).map(Arc::new));
        for clause in body.clauses() {
            match clause {
                Clause::When(expr) => conjuncts(expr, true, &mut terms),
                Clause::Unless(expr) => conjuncts(expr, false, &mut terms),
            }
        }
        let permits = policy.effect() == Effect::Permit;
        Some(Self { id: policy.id().to_string(), permits, role: role.map(str::to_owned), terms })
    }

    /// What it says, name apart: two with the same text hold for the same questions.
    pub(super) fn text(&self) -> String {
        let terms: Vec<String> = self.terms.iter().map(|term| format!("({term})")).collect();
        format!("{} {}", if self.permits { "permit" } else { "forbid" }, terms.join(" && "))
    }

    fn say(&self, truths: &Truths, concerns: bool) -> Say {
        let value = |term: &Arc<Expr>| truth(term, truths);
        let holds = self.terms.iter().all(|term| value(term) == Truth::Yes);
        let failing = self.terms.iter().filter(|term| value(term) == Truth::No);
        let failing = failing.map(|term| phrase(term, true)).collect();
        let whole = all(&self.terms);
        let left = fold(&whole, truths);
        let (needs, hints) = match &left {
            Left::Is(value) if *value == self.permits => (Some(String::new()), BTreeSet::new()),
            Left::Is(_) => (None, BTreeSet::new()),
            Left::Open(expr) => (Some(phrase(expr, self.permits)), hints(expr)),
        };
        Say {
            policy: self.id.clone(),
            permits: self.permits,
            role: self.role.clone(),
            concerns,
            holds,
            failing,
            needs,
            hints,
        }
    }
}

fn all(terms: &[Arc<Expr>]) -> Arc<Expr> {
    let join =
        |left: Arc<Expr>, right: Arc<Expr>| Arc::new(Expr::BinaryOp { op: BinaryOp::And, left, right });
    let whole = terms.iter().cloned().reduce(join);
    whole.unwrap_or_else(|| Arc::new(Expr::Literal(Literal::Bool(true))))
}

/// What a scope says, as a condition.
fn principal(constraint: &pst::PrincipalConstraint) -> Option<Expr> {
    use pst::PrincipalConstraint::{Any, Eq, In, Is, IsIn};
    let who = Arc::new(Expr::Var(Var::Principal));
    match constraint {
        Any => None,
        Eq(uid) => Some(relate(BinaryOp::Eq, who, uid)),
        In(uid) => Some(relate(BinaryOp::In, who, uid)),
        Is(kind) => Some(Expr::Is { expr: who, entity_type: kind.clone(), in_expr: None }),
        IsIn(kind, uid) => Some(Expr::Is { expr: who, entity_type: kind.clone(), in_expr: literal(uid) }),
    }
}

fn resource(constraint: &pst::ResourceConstraint) -> Option<Expr> {
    use pst::ResourceConstraint::{Any, Eq, In, Is, IsIn};
    let what = Arc::new(Expr::Var(Var::Resource));
    match constraint {
        Any => None,
        Eq(uid) => Some(relate(BinaryOp::Eq, what, uid)),
        In(uid) => Some(relate(BinaryOp::In, what, uid)),
        Is(kind) => Some(Expr::Is { expr: what, entity_type: kind.clone(), in_expr: None }),
        IsIn(kind, uid) => Some(Expr::Is { expr: what, entity_type: kind.clone(), in_expr: literal(uid) }),
    }
}

fn relate(op: BinaryOp, left: Arc<Expr>, uid: &pst::EntityOrSlot) -> Expr {
    let right = literal(uid).unwrap_or_else(|| Arc::new(Expr::Literal(Literal::Bool(false))));
    Expr::BinaryOp { op, left, right }
}

fn literal(uid: &pst::EntityOrSlot) -> Option<Arc<Expr>> {
    match uid {
        pst::EntityOrSlot::Entity(uid) => Some(Arc::new(Expr::Literal(Literal::EntityUID(uid.clone())))),
        pst::EntityOrSlot::Slot(_) => None,
    }
}

/// The conditions that together make `expr` have this value.
fn conjuncts(expr: &Arc<Expr>, value: bool, terms: &mut Vec<Arc<Expr>>) {
    match (&**expr, value) {
        (Expr::UnaryOp { op: UnaryOp::Not, expr }, _) => conjuncts(expr, !value, terms),
        (Expr::BinaryOp { op: BinaryOp::And, left, right }, true)
        | (Expr::BinaryOp { op: BinaryOp::Or, left, right }, false) => {
            conjuncts(left, value, terms);
            conjuncts(right, value, terms);
        }
        (_, true) => terms.push(Arc::clone(expr)),
        (_, false) => terms.push(Arc::new(not(expr))),
    }
}

fn not(expr: &Arc<Expr>) -> Expr {
    Expr::UnaryOp { op: UnaryOp::Not, expr: Arc::clone(expr) }
}

/// Conditions by their text: equal ones are asked once.
pub(super) type Atoms = BTreeMap<String, Arc<Expr>>;

pub(super) fn collect(expr: &Arc<Expr>, atoms: &mut Atoms) {
    match &**expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => collect(expr, atoms),
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => {
            collect(left, atoms);
            collect(right, atoms);
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            [cond, then_expr, else_expr].into_iter().for_each(|part| collect(part, atoms));
        }
        _ => {
            atoms.entry(expr.to_string()).or_insert_with(|| Arc::clone(expr));
        }
    }
}

/// Each condition as a policy of its own, named by its place.
pub(super) fn parts(atoms: &Atoms) -> Option<cedar_policy::PolicySet> {
    let part = |(at, expr): (usize, &Arc<Expr>)| {
        let (everybody, anything) = (pst::PrincipalConstraint::Any, pst::ResourceConstraint::Any);
        let id = pst::PolicyID(at.to_string().into());
        let template =
            pst::Template::new(id, pst::Effect::Permit, everybody, pst::ActionConstraint::Any, anything);
        let template = template.try_with_clauses(vec![Clause::When(Arc::clone(expr))]).ok()?;
        let policy = pst::StaticPolicy::try_from(template).ok()?;
        Policy::from_pst(pst::Policy::Static(policy)).ok()
    };
    let policies: Option<Vec<Policy>> = atoms.values().enumerate().map(part).collect();
    cedar_policy::PolicySet::from_policies(policies?).ok()
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It cannot be asked by itself: it reads what is not there, and another condition before it guards it.
    Guarded,
}

pub(super) type Truths = BTreeMap<String, Truth>;

pub(super) fn truths(atoms: &Atoms, response: &cedar_policy::Response) -> Truths {
    let place = |id: &PolicyId| AsRef::<str>::as_ref(id).parse::<usize>().ok();
    let yes: BTreeSet<usize> = response.diagnostics().reason().filter_map(place).collect();
    let errors = response.diagnostics().errors();
    let failed: BTreeSet<usize> = errors
        .filter_map(|AuthorizationError::PolicyEvaluationError(error)| place(error.policy_id()))
        .collect();
    let truth = |at: &usize| match (yes.contains(at), failed.contains(at)) {
        (true, _) => Truth::Yes,
        (false, true) => Truth::Guarded,
        (false, false) => Truth::No,
    };
    atoms.keys().enumerate().map(|(at, text)| (text.clone(), truth(&at))).collect()
}

/// Cedar's own rules, with short circuits: a condition behind one that settles it is not looked at.
pub(super) fn truth(expr: &Arc<Expr>, truths: &Truths) -> Truth {
    match &**expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => match truth(expr, truths) {
            Truth::Yes => Truth::No,
            Truth::No => Truth::Yes,
            Truth::Guarded => Truth::Guarded,
        },
        Expr::BinaryOp { op: BinaryOp::And, left, right } => match truth(left, truths) {
            Truth::Yes => truth(right, truths),
            other => other,
        },
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => match truth(left, truths) {
            Truth::No => truth(right, truths),
            other => other,
        },
        Expr::IfThenElse { cond, then_expr, else_expr } => match truth(cond, truths) {
            Truth::Yes => truth(then_expr, truths),
            Truth::No => truth(else_expr, truths),
            Truth::Guarded => Truth::Guarded,
        },
        _ => truths.get(&expr.to_string()).copied().unwrap_or(Truth::Guarded),
    }
}

/// What is left of a condition when everything is put in that the caller cannot change.
enum Left {
    Is(bool),
    Open(Arc<Expr>),
}

fn fold(expr: &Arc<Expr>, truths: &Truths) -> Left {
    match &**expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => match fold(expr, truths) {
            Left::Is(value) => Left::Is(!value),
            Left::Open(left) => Left::Open(Arc::new(not(&left))),
        },
        Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
            // `&&` is settled by what is false, `||` by what is true.
            let settles = *op == BinaryOp::Or;
            match (fold(left, truths), fold(right, truths)) {
                (Left::Is(value), _) | (_, Left::Is(value)) if value == settles => Left::Is(settles),
                (Left::Is(_), other) | (other, Left::Is(_)) => other,
                (Left::Open(left), Left::Open(right)) => {
                    Left::Open(Arc::new(Expr::BinaryOp { op: *op, left, right }))
                }
            }
        }
        _ if can_change(expr) => Left::Open(Arc::clone(expr)),
        _ => match truth(expr, truths) {
            Truth::Yes => Left::Is(true),
            Truth::No => Left::Is(false),
            Truth::Guarded => Left::Open(Arc::clone(expr)),
        },
    }
}

/// Attributes that a caller, whoever gives them roles and tasks, or whoever labels records could change.
const CHANGEABLE: [&str; 9] = [
    "context.purpose",
    "context.mfa.age",
    "context.mfa.phishingResistant",
    "context.mfa.methods",
    "context.relations",
    "context.emergency",
    "context.labels",
    "resource.labels",
    "context.application",
];

fn can_change(expr: &Expr) -> bool {
    let is_role = |expr: &Expr| {
        entities(expr).is_some_and(|uids| !uids.is_empty() && uids.iter().all(|uid| kind(uid) == "Role"))
    };
    match expr {
        Expr::BinaryOp { op: BinaryOp::In, left, right } if matches!(**left, Expr::Var(Var::Principal)) => {
            is_role(right)
        }
        other => {
            attribute(other).is_some_and(|name| CHANGEABLE.contains(&name.as_str()))
                || children(other).into_iter().any(can_change)
        }
    }
}

fn hints(expr: &Expr) -> BTreeSet<Hint> {
    let mut found = BTreeSet::new();
    note(expr, &mut found);
    found
}

fn note(expr: &Expr, found: &mut BTreeSet<Hint>) {
    if let Expr::BinaryOp { left, right, .. } = expr {
        for (attributed, other) in [(left, right), (right, left)] {
            let Some(name) = attribute(attributed) else { continue };
            let texts = texts(other).unwrap_or_default();
            let named = texts.iter().cloned();
            match name.as_str() {
                "context.purpose" => found.extend(named.map(Hint::Purpose)),
                "context.mfa.methods" => found.extend(named.map(Hint::Method)),
                "context.application" => found.extend(named.map(Hint::Application)),
                "context.labels" | "resource.labels" => found.extend(named.map(Hint::Label)),
                "context.mfa.age" => found.extend(long(other).map(Hint::Age)),
                "context.relations" => {
                    found.extend(
                        texts.iter().filter_map(|name| Relation::from_name(name)).map(Hint::Relation),
                    );
                }
                _ => {}
            }
        }
        let roles = entities(right).unwrap_or_default().into_iter().filter(|uid| kind(uid) == "Role");
        found.extend(roles.map(|uid| Hint::Role(uid.eid.to_string())));
    }
    match attribute(expr).as_deref() {
        Some("context.emergency") => drop(found.insert(Hint::Emergency)),
        Some("context.mfa.phishingResistant") => drop(found.insert(Hint::PhishingResistant)),
        _ => {}
    }
    children(expr).into_iter().for_each(|child| note(child, found));
}
