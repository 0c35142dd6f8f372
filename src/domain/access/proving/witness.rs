//! A solver's example in a hospital's words: who, for what, in which relation, about which record.
//!
//! Owns: reading it off Cedar's request and entities, and asking for one that is as ordinary as can be.
//! Must never: add to it what the solver did not say. Look next: `workbench::proof`, which tries it on the real decision.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: what is not recognised makes an example no more ordinary"
)]

use super::super::expression::{children, kind};
use super::super::set::{PolicySet, Vocabulary, uid};
use super::condition::{self as c, Condition};
use super::place::{Place, guaranteed};
use super::question::{Model, Question, Solve};
use cedar_policy::pst::{BinaryOp, Expr, Literal, UnaryOp, Var};
use cedar_policy::{Entity, EvalResult};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One situation. What is like an ordinary one (`Situation::rehearsal`) is as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// A person asks; otherwise a client for itself.
    pub person: bool,
    /// The caller's roles.
    pub roles: Vec<String>,
    /// Purpose of use.
    pub purpose: String,
    /// With `operate`: which.
    pub operation: Option<String>,
    /// Names of the relations in which the caller stands to the patients.
    pub relations: Vec<String>,
    /// Emergency access is in force.
    pub emergency: bool,
    /// The client's id.
    pub application: String,
    /// What the token is bound to.
    pub binding: String,
    /// The token's scopes.
    pub scopes: Vec<String>,
    /// The caller's address, as a policy would write it.
    pub network: String,
    /// When, as a policy would write it.
    pub now: String,
    /// Seconds since the second factor was proven.
    pub age_seconds: i64,
    /// Its methods.
    pub methods: Vec<String>,
    /// It cannot be phished.
    pub phishing_resistant: bool,
    /// The caller's `fhirUser`.
    pub fhir_user: Option<String>,
    /// The record's patients.
    pub patients: Vec<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its status.
    pub status: Option<String>,
    /// Its categories.
    pub category: Vec<String>,
    /// Its codes.
    pub code: Vec<String>,
}

/// The example's patient, as in a test case.
const PATIENT: &str = "example";

impl Witness {
    /// Reads an example.
    pub(super) fn read(model: &Model, place: Place) -> Option<Self> {
        let request = &model.request;
        let context = |name: &str| request.context().and_then(|context| context.get(name));
        let (principal, resource) = (request.principal()?, request.resource()?);
        let record = model.entities.get(resource);
        let of_record = |name: &str| value(record, name);
        let mfa = match context("mfa") {
            Some(EvalResult::Record(mfa)) => Some(mfa),
            _ => None,
        };
        let of_mfa = |name: &str| mfa.as_ref().and_then(|mfa| mfa.get(name).cloned());
        let ancestors = model.entities.ancestors(principal).into_iter().flatten();
        let roles: BTreeSet<String> = ancestors
            .filter(|one| one.type_name().basename() == "Role")
            .map(|role| role.id().unescaped().to_owned())
            .collect();
        Some(Self {
            person: place.person,
            roles: roles.into_iter().collect(),
            purpose: one(context("purpose")).unwrap_or_default(),
            operation: one(context("operation")),
            relations: many(context("relations")),
            emergency: context("emergency") == Some(EvalResult::Bool(true)),
            application: one(context("application")).unwrap_or_default(),
            binding: one(context("binding")).unwrap_or_default(),
            scopes: many(context("scopes")),
            network: extension(context("network")),
            now: extension(context("now")),
            age_seconds: match of_mfa("age") {
                Some(EvalResult::Long(age)) => age,
                _ => 0,
            },
            methods: many(of_mfa("methods")),
            phishing_resistant: of_mfa("phishingResistant") == Some(EvalResult::Bool(true)),
            fhir_user: one(value(model.entities.get(principal), "fhirUser")),
            patients: many(of_record("patients")),
            labels: many(of_record("labels")),
            status: one(of_record("status")),
            category: many(of_record("category")),
            code: many(of_record("code")),
        })
    }
}

fn value(entity: Option<&Entity>, name: &str) -> Option<EvalResult> {
    entity?.attr(name)?.ok()
}

fn one(value: Option<EvalResult>) -> Option<String> {
    match value? {
        EvalResult::String(text) => Some(text),
        EvalResult::EntityUid(uid) => Some(uid.id().unescaped().to_owned()),
        EvalResult::Bool(_)
        | EvalResult::Long(_)
        | EvalResult::Set(_)
        | EvalResult::Record(_)
        | EvalResult::ExtensionValue(_) => None,
    }
}

fn many(value: Option<EvalResult>) -> Vec<String> {
    match value {
        Some(EvalResult::Set(set)) => set.iter().filter_map(|item| one(Some(item.clone()))).collect(),
        _ => Vec::new(),
    }
}

fn extension(value: Option<EvalResult>) -> String {
    match value {
        Some(EvalResult::ExtensionValue(text)) => text,
        _ => String::new(),
    }
}

/// The roles and purposes that a condition names.
#[derive(Default)]
struct Named {
    roles: BTreeSet<String>,
    purposes: BTreeSet<String>,
}

impl Named {
    fn visit(&mut self, expr: &Expr) {
        match expr {
            Expr::Literal(Literal::EntityUID(uid)) if kind(uid) == "Role" => {
                self.roles.insert(uid.eid.to_string());
            }
            Expr::BinaryOp { op: BinaryOp::Eq, left, right } => self.purpose(left, right),
            Expr::BinaryOp { op: BinaryOp::Contains, left, right } => self.purpose(right, left),
            _ => {}
        }
        children(expr).into_iter().for_each(|child| self.visit(child));
    }

    fn purpose(&mut self, attribute: &Expr, words: &Expr) {
        let asks = matches!(attribute, Expr::GetAttr { expr, attr }
            if attr == "purpose" && matches!(**expr, Expr::Var(Var::Context)));
        let text = |expr: &Expr| match expr {
            Expr::Literal(Literal::String(word)) => Some(word.to_string()),
            _ => None,
        };
        match words {
            _ if !asks => {}
            Expr::Set(items) => self.purposes.extend(items.iter().filter_map(|item| text(item))),
            other => self.purposes.extend(text(other)),
        }
    }
}

/// What an ordinary situation would be like, the most telling first: each is kept as far as the example allows.
fn ordinary(set: &PolicySet, place: Place, named: &Named) -> Vec<Condition> {
    let words = &set.vocabulary;
    let empty = |of: Condition| c::unary(UnaryOp::IsEmpty, of);
    let mfa = |name: &str| c::attribute(c::context("mfa"), name);
    let subject = |id: &str| c::entity(uid(&words.subject, id));
    let only = |of: Condition, item: Condition| c::equal(of, Arc::new(Expr::Set(vec![item])));
    let mut terms = vec![
        c::equal(c::context("binding"), c::text("none")),
        empty(c::context("scopes")),
        c::equal(c::context("network"), c::unary(UnaryOp::Ip, c::text("127.0.0.1"))),
        c::equal(c::context("now"), c::unary(UnaryOp::Datetime, c::text("1970-01-01"))),
        only(c::of_record("patients"), subject(PATIENT)),
        c::equal(c::of_record("mentions"), c::of_record("patients")),
        c::equal(mfa("age"), c::number(60)),
        only(mfa("methods"), c::text("mfa")),
        mfa("phishingResistant"),
    ];
    if place.person {
        terms.push(c::equal(c::context("application"), c::text("")));
    } else {
        terms.push(c::equal(c::context("application"), c::text("a-client")));
    }
    let mut purposes: Vec<&str> = named.purposes.iter().map(String::as_str).collect();
    purposes.extend(["TREAT", "NONE"]);
    terms.push(c::binary(BinaryOp::Contains, c::texts(purposes.iter().copied()), c::context("purpose")));
    terms.push(c::equal(c::context("purpose"), c::text("TREAT")));
    terms.push(c::not(c::context("emergency")));
    terms.push(empty(c::context("relations")));
    let attributes = words.record(place.resource).map(|(_, attributes)| *attributes).unwrap_or_default();
    for (has, name) in [(true, "labels"), (attributes.category, "category"), (attributes.code, "code")] {
        if has {
            terms.push(empty(c::of_record(name)));
        }
    }
    if attributes.status {
        let is = c::equal(c::of_record("status"), c::text("active"));
        if attributes.status_required {
            terms.push(is);
        }
    }
    terms
}

/// The sets of an example with more than one word in them.
fn crowded(words: &Vocabulary, place: Place, witness: &Witness) -> Vec<(Condition, Vec<String>)> {
    let attributes = words.record(place.resource).map(|(_, attributes)| *attributes).unwrap_or_default();
    let sets = [
        (true, c::context("relations"), &witness.relations),
        (true, c::of_record("labels"), &witness.labels),
        (attributes.category, c::of_record("category"), &witness.category),
        (attributes.code, c::of_record("code"), &witness.code),
    ];
    let crowded = sets.into_iter().filter(|(has, _, items)| *has && items.len() > 1);
    crowded.map(|(_, of, items)| (of, items.clone())).collect()
}

/// An example of a condition that holds for some request, as ordinary as it can be.
pub(super) fn ordinary_example(
    set: &PolicySet,
    place: Place,
    condition: &Condition,
    first: Model,
    solver: &mut dyn Solve,
) -> Option<Witness> {
    let mut named = Named::default();
    named.visit(condition);
    let wishes = ordinary(set, place, &named);
    let base = c::both(guaranteed(place), Arc::clone(condition));
    let mut search = Search { set, place, kept: vec![base], model: first, solver };
    search.add(&wishes);
    let read = |model: &Model| {
        let mut witness = Witness::read(model, place)?;
        witness.roles.retain(|role| named.roles.contains(role));
        Some(witness)
    };
    for (of, items) in crowded(&set.vocabulary, place, &read(&search.model)?) {
        let one = |item: &String| c::equal(Arc::clone(&of), Arc::new(Expr::Set(vec![c::text(item)])));
        let without = |item: &String| c::not(c::binary(BinaryOp::Contains, Arc::clone(&of), c::text(item)));
        // One word alone, or else as few as it takes.
        if !items.iter().any(|item| search.add(&[one(item)])) {
            items.iter().for_each(|item| {
                search.add(&[without(item)]);
            });
        }
    }
    for role in read(&search.model)?.roles {
        let role = c::entity(uid(&set.vocabulary.role, &role));
        search.add(&[c::not(c::binary(BinaryOp::In, c::variable(Var::Principal), role))]);
    }
    read(&search.model)
}

struct Search<'a> {
    set: &'a PolicySet,
    place: Place,
    kept: Vec<Condition>,
    model: Model,
    solver: &'a mut dyn Solve,
}

impl Search<'_> {
    /// Keeps as many of the wishes as can be: all at once, or else half by half. Whether all were.
    fn add(&mut self, wishes: &[Condition]) -> bool {
        let all: Vec<Condition> = self.kept.iter().chain(wishes).cloned().collect();
        if let Some(model) = self.example(&c::all(&all)) {
            (self.kept, self.model) = (all, model);
            return true;
        }
        if wishes.len() > 1
            && let Some((first, rest)) = wishes.split_at_checked(wishes.len() / 2)
        {
            self.add(first);
            self.add(rest);
        }
        false
    }

    fn example(&mut self, condition: &Condition) -> Option<Model> {
        let environment = self.place.environment(&self.set.vocabulary)?;
        let question = Question::new(condition, environment).ok()?;
        // A wish that cannot be settled is not kept: the example stands without it.
        self.solver.example(&question, &self.set.vocabulary.schema).ok().flatten()
    }
}

/// Somebody with this role and none of the others.
pub(super) fn alone(words: &Vocabulary, role: Option<&str>, all: &BTreeSet<String>) -> Condition {
    let within =
        |name: &str| c::binary(BinaryOp::In, c::variable(Var::Principal), c::entity(uid(&words.role, name)));
    let others = all.iter().filter(|one| Some(one.as_str()) != role).map(|one| c::not(within(one)));
    let terms: Vec<Condition> = role.map(within).into_iter().chain(others).collect();
    c::all(&terms)
}

/// The roles that a condition names.
pub(super) fn roles_in(condition: &Condition) -> BTreeSet<String> {
    let mut named = Named::default();
    named.visit(condition);
    named.roles
}
