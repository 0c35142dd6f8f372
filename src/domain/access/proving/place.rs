//! Where a question is asked (who as, what, about which type and element), and what a policy set says there.
//!
//! Owns: one condition for the decision of a whole set at a place, and what the gate itself guarantees about every
//! question it asks. Must never: leave a policy out that could have a say.
//! Look next: `condition`, which folds; `engine`, which asks the same of Cedar for one request.

use super::super::elements::Branch;
use super::super::expression;
use super::super::relation::Relation;
use super::super::set::{Action, PolicySet, Vocabulary, uid};
use super::condition::{self as c, Certain, Condition, fold};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::pst::{self, BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, UnaryOp, Var};
use cedar_policy::{Effect, EntityUid, Policy, RequestEnv};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who as, and what is done with a record of which type. Not which elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) person: bool,
    pub(super) action: Action,
    pub(super) resource: ResourceType,
}

impl Place {
    /// Every place: people and clients, each action on records, each type.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let about_records =
            Action::ALL.into_iter().filter(|action| !matches!(action, Action::Disclose | Action::Modify));
        let kinds = about_records.flat_map(|action| [true, false].map(|person| (action, person)));
        kinds.flat_map(|(action, person)| {
            ResourceType::all().map(move |resource| Self { person, action, resource })
        })
    }

    /// A person asks; otherwise a client for itself.
    #[must_use]
    pub fn is_person(self) -> bool {
        self.person
    }

    /// The action by its name in the schema.
    #[must_use]
    pub fn action(self) -> &'static str {
        self.action.name()
    }

    /// The type of the record.
    #[must_use]
    pub fn resource(self) -> ResourceType {
        self.resource
    }

    /// Elements go in by the action and not out.
    #[must_use]
    pub fn writes(self) -> bool {
        self.action.elements() == Some(Action::Modify)
    }

    /// Cedar's name for it: principal type, action and resource type.
    pub(super) fn environment(self, words: &Vocabulary) -> Option<RequestEnv> {
        let principal = if self.person { &words.user } else { &words.application };
        let (resource, _) = words.record(self.resource)?;
        Some(RequestEnv::new(principal.clone(), words.action(self.action)?.clone(), resource.clone()))
    }

    /// What tells environments apart beyond the conditions: kind of principal, attributes of records and of the context.
    pub(super) fn shape(self, words: &Vocabulary) -> String {
        let attributes = words.record(self.resource).map(|(_, attributes)| *attributes).unwrap_or_default();
        let operates = self.action == Action::Operate;
        let patient = self.resource.name() == "Patient";
        format!("{} {operates} {patient} {attributes:?}", self.person)
    }
}

/// An element with everything it lies in, nearest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    pub path: ElementPath,
    /// An element of which nothing is told apart, that shares its fate: itself, or something in it.
    pub stands_for: ElementPath,
    line: Vec<String>,
    /// The record's own extensions pass only by a grant of their own: with the record above them, and without.
    without_record: Option<Vec<String>>,
}

impl Lineage {
    /// `None`: all that there is in the element is told apart, so nothing shares its fate.
    fn of(branch: &Branch, all: &[Branch]) -> Option<Self> {
        let parent = |path: &str| {
            let found = all.iter().find(|one| one.path.as_str() == path)?;
            found.parent.clone()
        };
        let line: Vec<String> =
            std::iter::successors(Some(branch.path.as_str().to_owned()), |path| parent(path)).collect();
        let own = format!("{}.extension", branch.path.resource_type().name());
        let without_record = branch
            .own_extension
            .then(|| line.iter().filter(|path| path.starts_with(&own)).cloned().collect::<Vec<_>>());
        let path = branch.path.clone();
        let stands_for = stand_in(&path, all, true).or_else(|| stand_in(&path, all, false))?;
        Some(Self { path, stands_for, line, without_record })
    }
}

/// The element itself where nothing in it is told apart; otherwise something in it that shares its fate. `plain`: and that
/// no other rule is about, as of a narrative, which repeats all the others, or of the record's extensions.
fn stand_in(path: &ElementPath, all: &[Branch], plain: bool) -> Option<ElementPath> {
    let told_apart = |path: &ElementPath| {
        all.iter().any(|other| other.path != *path && path.is_ancestor_or_self(&other.path))
    };
    if !told_apart(path) {
        return Some(path.clone());
    }
    let own = |child: &ElementPath| {
        let special = child.as_str().ends_with(".text") || child.as_str().ends_with("xtension");
        !(plain && special) && all.iter().all(|other| other.path != *child)
    };
    let children: Vec<ElementPath> = super::super::elements::children(path).into_iter().filter(own).collect();
    let whole = children.iter().find(|child| !told_apart(child)).cloned();
    whole.or_else(|| children.iter().find_map(|child| stand_in(child, all, plain)))
}

/// Which element, what it lies in, and which groups hold which paths.
type Within<'a> = (&'a ElementPath, &'a [String], &'a BTreeMap<String, Vec<String>>);

/// A place, with an element or without.
struct At<'a> {
    words: &'a Vocabulary,
    place: Place,
    names: (String, String),
    element: Option<Within<'a>>,
}

impl Certain for At<'_> {
    fn principal(&self) -> &str {
        &self.names.0
    }

    fn resource(&self) -> &str {
        &self.names.1
    }

    fn action(&self) -> EntityUid {
        let family = self.place.action.elements().filter(|_| self.element.is_some());
        let action = family.unwrap_or(self.place.action);
        self.words.action(action).cloned().unwrap_or_else(|| uid(&self.words.element, action.name()))
    }

    fn element(&self) -> Option<EntityUid> {
        self.element.map(|(path, _, _)| uid(&self.words.element, path.as_str()))
    }

    fn lies_in(&self, container: &EntityUID) -> bool {
        let Some((_, line, groups)) = self.element else { return false };
        let id = container.eid.as_str();
        match expression::kind(container).as_str() {
            "FHIR::Element" => line.iter().any(|path| path == id),
            "ElementGroup" => line
                .iter()
                .any(|path| groups.get(path).is_some_and(|groups| groups.iter().any(|group| group == id))),
            _ => false,
        }
    }
}

/// One policy as one condition: its scope and its clauses, the action apart.
#[derive(Clone)]
pub(super) struct Ruled {
    pub id: String,
    pub permits: bool,
    pub actions: BTreeSet<Action>,
    pub types: Option<BTreeSet<ResourceType>>,
    /// Its conditions name the action.
    asks_action: bool,
    pub condition: Condition,
}

impl Ruled {
    /// `None`: a form of policy that loading would have refused.
    pub(super) fn new(
        words: &Vocabulary,
        policy: &Policy,
        types: Option<&BTreeSet<ResourceType>>,
    ) -> Option<Self> {
        let Ok(pst::Policy::Static(body)) = policy.to_pst() else { return None };
        let body = body.body();
        let constraint = policy.action_constraint();
        let actions = Action::ALL.into_iter().filter(|action| words.covers(&constraint, *action)).collect();
        let mut terms = Vec::new();
        terms.extend(scoped(Var::Principal, principal(&body.principal)?));
        terms.extend(scoped(Var::Resource, resource(&body.resource)?));
        terms.extend(expression::balanced(body.clauses()).iter().map(|clause| match clause {
            Clause::When(expr) => Arc::clone(expr),
            Clause::Unless(expr) => c::not(Arc::clone(expr)),
        }));
        let condition = c::all(&terms);
        Some(Self {
            id: policy.id().to_string(),
            permits: policy.effect() == Effect::Permit,
            actions,
            types: types.cloned(),
            asks_action: names_action(&condition),
            condition,
        })
    }

    /// Everything that it says.
    pub(super) fn text(&self) -> String {
        format!("{} {:?} {}", self.permits, self.actions, self.condition)
    }

    fn concerns(&self, action: Action, resource: ResourceType) -> bool {
        self.actions.contains(&action) && self.types.as_ref().is_none_or(|types| types.contains(&resource))
    }
}

fn names_action(expr: &Expr) -> bool {
    matches!(expr, Expr::Var(Var::Action)) || expression::children(expr).into_iter().any(names_action)
}

/// What a scope says of one variable.
enum Scope {
    Any,
    Eq(EntityUID),
    In(EntityUID),
    Is(pst::EntityType),
    IsIn(pst::EntityType, EntityUID),
}

fn named(entity: &EntityOrSlot) -> Option<EntityUID> {
    match entity {
        EntityOrSlot::Entity(uid) => Some(uid.clone()),
        EntityOrSlot::Slot(_) => None,
    }
}

fn principal(scope: &pst::PrincipalConstraint) -> Option<Scope> {
    Some(match scope {
        pst::PrincipalConstraint::Any => Scope::Any,
        pst::PrincipalConstraint::Eq(uid) => Scope::Eq(named(uid)?),
        pst::PrincipalConstraint::In(uid) => Scope::In(named(uid)?),
        pst::PrincipalConstraint::Is(kind) => Scope::Is(kind.clone()),
        pst::PrincipalConstraint::IsIn(kind, uid) => Scope::IsIn(kind.clone(), named(uid)?),
    })
}

fn resource(scope: &pst::ResourceConstraint) -> Option<Scope> {
    Some(match scope {
        pst::ResourceConstraint::Any => Scope::Any,
        pst::ResourceConstraint::Eq(uid) => Scope::Eq(named(uid)?),
        pst::ResourceConstraint::In(uid) => Scope::In(named(uid)?),
        pst::ResourceConstraint::Is(kind) => Scope::Is(kind.clone()),
        pst::ResourceConstraint::IsIn(kind, uid) => Scope::IsIn(kind.clone(), named(uid)?),
    })
}

fn scoped(variable: Var, scope: Scope) -> Option<Condition> {
    let of = c::variable(variable);
    let literal = |uid: EntityUID| Arc::new(Expr::Literal(Literal::EntityUID(uid)));
    match scope {
        Scope::Any => None,
        Scope::Eq(uid) => Some(c::equal(of, literal(uid))),
        Scope::In(uid) => Some(c::binary(BinaryOp::In, of, literal(uid))),
        Scope::Is(entity_type) => Some(Arc::new(Expr::Is { expr: of, entity_type, in_expr: None })),
        Scope::IsIn(entity_type, uid) => {
            Some(Arc::new(Expr::Is { expr: of, entity_type, in_expr: Some(literal(uid)) }))
        }
    }
}

/// A policy set as conditions.
pub(super) struct Conditions {
    pub rules: Vec<Ruled>,
    words: Arc<Vocabulary>,
    groups: BTreeMap<String, Vec<String>>,
}

impl Conditions {
    pub(super) fn of(set: &PolicySet) -> Self {
        let words = Arc::clone(&set.vocabulary);
        let rules = set.written().filter_map(|(policy, types)| Ruled::new(&words, policy, types)).collect();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, members) in set.elements.members() {
            for path in members {
                groups.entry(path.as_str().to_owned()).or_default().push(name.to_owned());
            }
        }
        Self { rules, words, groups }
    }

    fn at<'a>(&'a self, place: Place, element: Option<(&'a ElementPath, &'a [String])>) -> At<'a> {
        let principal = if place.person { &self.words.user } else { &self.words.application };
        let resource = match (element, self.words.record(place.resource)) {
            (None, Some((kind, _))) => kind.to_string(),
            (Some(_), _) | (None, None) => self.words.element.to_string(),
        };
        At {
            words: &self.words,
            place,
            names: (principal.to_string(), resource),
            element: element.map(|(path, line)| (path, line, &self.groups)),
        }
    }

    /// A condition of its own (an invariant's) at a place; for an element in the worlds with its record above it.
    pub(super) fn fold_at(
        &self,
        condition: &Condition,
        place: Place,
        element: Option<&Lineage>,
    ) -> Condition {
        fold(condition, &self.at(place, element.map(|lineage| (&lineage.path, lineage.line.as_slice()))))
    }

    /// The places in the set of the policies that can have a say, and whether one of them asks for the action.
    pub(super) fn concerning(&self, place: Place, of_element: bool) -> (Vec<usize>, bool) {
        let action = place.action.elements().filter(|_| of_element).unwrap_or(place.action);
        let concerned = |(_, rule): &(usize, &Ruled)| rule.concerns(action, place.resource);
        let found: Vec<(usize, &Ruled)> = self.rules.iter().enumerate().filter(concerned).collect();
        let asks = found.iter().any(|(_, rule)| rule.asks_action);
        (found.into_iter().map(|(at, _)| at).collect(), asks)
    }

    /// The policies that can have a say about a record of the place or about an element of one.
    pub(super) fn concerned(&self, place: Place) -> impl Iterator<Item = &Ruled> {
        let actions = [Some(place.action), place.action.elements()];
        let concerns = move |rule: &&Ruled| {
            actions.iter().flatten().any(|action| rule.concerns(*action, place.resource))
        };
        self.rules.iter().filter(concerns)
    }

    /// Every policy that can have a say at a place, as it is there.
    pub(super) fn policies(&self, place: Place, element: Option<&Lineage>) -> Vec<(&Ruled, Condition)> {
        let lines = element.map(|lineage| (&lineage.path, lineage.line.as_slice()));
        self.in_world(place, lines)
    }

    fn in_world(&self, place: Place, element: Option<(&ElementPath, &[String])>) -> Vec<(&Ruled, Condition)> {
        let family = place.action.elements().filter(|_| element.is_some());
        let action = family.unwrap_or(place.action);
        let at = self.at(place, element);
        let rules = self.rules.iter().filter(|rule| rule.concerns(action, place.resource));
        let folded = rules.map(|rule| (rule, fold(&rule.condition, &at)));
        folded.filter(|(_, condition)| c::known(condition) != Some(false)).collect()
    }

    /// When the set permits the action on the record, or lets the element of it pass.
    pub(super) fn decision(&self, place: Place, element: Option<&Lineage>) -> Condition {
        let Some(lineage) = element else { return decided(&self.in_world(place, None)) };
        let with_record = decided(&self.in_world(place, Some((&lineage.path, &lineage.line))));
        match &lineage.without_record {
            None => with_record,
            Some(line) => c::both(decided(&self.in_world(place, Some((&lineage.path, line)))), with_record),
        }
    }
}

fn decided(policies: &[(&Ruled, Condition)]) -> Condition {
    let of = |permits: bool| {
        let terms = policies.iter().filter(|(rule, _)| rule.permits == permits);
        let mut terms: Vec<Condition> = terms.map(|(_, condition)| Arc::clone(condition)).collect();
        let mut seen = BTreeSet::new();
        terms.retain(|term| seen.insert(term.to_string()));
        c::any(&terms)
    };
    let permits = of(true);
    if c::known(&permits) == Some(false) { permits } else { c::both(permits, c::not(of(false))) }
}

/// The elements of a type that some of these sets, or these paths, tell apart: all others share a parent's fate.
pub(super) fn lineages(sets: &[&PolicySet], more: &[ElementPath], resource: ResourceType) -> Vec<Lineage> {
    let named = sets.iter().flat_map(|set| set.every_branch(resource)).map(|branch| branch.path);
    let grouped = sets.iter().flat_map(|set| set.elements.members()).flat_map(|(_, members)| members);
    let more = grouped.chain(more).filter(|path| path.resource_type() == resource).cloned();
    let branches = super::super::elements::branches_of(resource, named.chain(more).collect());
    branches.iter().filter_map(|branch| Lineage::of(branch, &branches)).collect()
}

/// What the gate guarantees of every question it asks, whatever the policies: docs/decisions/0016 has each with its reason.
pub(super) fn guaranteed(place: Place) -> Condition {
    let empty = |of: Condition| c::unary(UnaryOp::IsEmpty, of);
    let among = |names: Condition, of: Condition| c::binary(BinaryOp::ContainsAll, names, of);
    let one_of = |names: Condition, of: Condition| c::binary(BinaryOp::Contains, names, of);
    let relations = c::context("relations");
    let mut terms = vec![
        among(c::texts(Relation::ALL.map(Relation::name)), Arc::clone(&relations)),
        one_of(c::texts(["none", "mtls", "dpop"]), c::context("binding")),
    ];
    // Who consents does not object.
    let is = |relation: Relation| one_of(c::context("relations"), c::text(relation.name()));
    terms.push(c::either(c::not(is(Relation::Consent)), is(Relation::NoObjection)));
    // A Patient is about itself, whichever patients it belongs to.
    if place.resource.name() != "Patient" {
        let nobody = c::both(empty(relations), c::not(c::context("emergency")));
        terms.push(c::either(nobody, c::not(empty(c::of_record("patients")))));
    }
    if place.action == Action::Operate {
        terms.push(one_of(c::texts(operations(place.resource)), c::context("operation")));
    }
    if !place.person {
        let own = c::attribute(c::variable(Var::Principal), "id");
        terms.push(c::equal(c::context("application"), own));
    }
    c::all(&terms)
}

/// The operations whose path a type stands in (docs/interactions.md).
fn operations(resource: ResourceType) -> Vec<&'static str> {
    let mut names = vec!["$validate"];
    names.extend(match resource.name() {
        "Patient" => &["$everything", "$break-glass"][..],
        "Observation" => &["$lastn"],
        "ValueSet" => &["$expand"],
        "CodeSystem" => &["$lookup"],
        _ => &[],
    });
    names
}
