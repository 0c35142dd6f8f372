//! The questions to Cedar.
//!
//! Owns: building requests and entities, schema-checked, and reading the answers. Any evaluation error is a
//! [`Fault`], because Cedar skips the policy that failed, which for a `forbid` would let data out (L-103).
//! Must never: answer from a question that could not be asked as intended.
//! Look next: `judge`, which makes masks and decisions from the answers; docs/decisions/0002 for why.

use super::elements::Branch;
use super::expression;
use super::relation::Held;
use super::set::{Action, Form, PolicySet, uid};
use super::situation::Situation;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::{AuthorizationError, Authorizer, Context, Decision, Effect, Entities, Entity, EntityUid};
use cedar_policy::{PartialResponse, Policy, PolicyId, Request, RestrictedExpression as Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A question could not be answered: the ids of the policies that failed, if it was them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub Vec<String>);

/// What can be said before any record is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// For no record.
    No,
    /// It depends on the record.
    Maybe,
    /// For every record.
    Yes,
}

/// An answer about a whole type.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub verdict: Verdict,
    /// Nothing was left open: the answer for each record is this one.
    pub settled: bool,
    /// The permits that are certainly satisfied.
    pub policies: BTreeSet<String>,
}

/// An element with its answer.
pub(super) type Decided<T> = Vec<(ElementPath, T)>;

/// One caller's questions to one policy set.
pub(super) struct Engine<'a> {
    set: &'a PolicySet,
    situation: &'a Situation,
    principal: EntityUid,
    people: Vec<Entity>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(set: &'a PolicySet, situation: &'a Situation) -> Result<Self, Fault> {
        let words = &set.vocabulary;
        let text = |text: &str| Value::new_string(text.to_owned());
        if !situation.person {
            let principal = uid(&words.application, situation.application());
            let attributes = HashMap::from([("id".to_owned(), text(situation.application()))]);
            let people = vec![entity(principal.clone(), attributes, HashSet::new())?];
            return Ok(Self { set, situation, principal, people });
        }
        let id = format!("{}|{}", situation.who.issuer, situation.who.subject);
        let principal = uid(&words.user, &id);
        let mut attributes = HashMap::from([
            ("issuer".to_owned(), text(&situation.who.issuer)),
            ("subject".to_owned(), text(&situation.who.subject)),
        ]);
        attributes.extend(situation.who.fhir_user.as_deref().map(|user| ("fhirUser".to_owned(), text(user))));
        let roles: HashSet<EntityUid> =
            situation.who.roles.iter().map(|role| uid(&words.role, role)).collect();
        let mut people: Vec<Entity> = roles.iter().cloned().map(Entity::with_uid).collect();
        people.push(entity(principal.clone(), attributes, roles)?);
        Ok(Self { set, situation, principal, people })
    }

    /// May records of this type be acted on, as far as that can be said before seeing one?
    pub(super) fn type_action(&self, action: Action, resource: ResourceType) -> Result<Answer, Fault> {
        let words = &self.set.vocabulary;
        let (kind, _) = words.record(resource).ok_or_else(Fault::of_question)?;
        let policies = self.slice(self.form(), action, resource)?;
        if policies.policies().all(|policy| policy.effect() == Effect::Forbid) {
            // Most types are closed to most people: Cedar denies where nothing permits.
            return Ok(Answer { verdict: Verdict::No, settled: true, policies: BTreeSet::new() });
        }
        self.check_context(action)?;
        let request = Request::builder()
            .principal(self.principal.clone())
            .action(words.action(action).cloned().ok_or_else(Fault::of_question)?)
            .unknown_resource_with_type(kind.clone())
            .context(self.context(action, None)?)
            .build();
        let entities = self.entities(Vec::new())?;
        read(&Authorizer::new().is_authorized_partial(&request, &policies, &entities))
    }

    /// Which named elements of this type may pass (`family` is `disclose` or `modify`), as far as that can be
    /// said before a record.
    pub(super) fn type_elements(
        &self,
        family: Action,
        resource: ResourceType,
    ) -> Result<(Decided<Verdict>, Answer), Fault> {
        let words = &self.set.vocabulary;
        let policies = self.slice(self.form(), family, resource)?;
        let action = words.action(family).cloned().ok_or_else(Fault::of_question)?;
        self.check_context(family)?;
        let context = self.context(family, None)?;
        let branches = self.set.branches(family, resource, &self.situation.who.roles);
        let worlds = self.worlds(&branches, true)?;
        let mut decided = Vec::new();
        let mut sum = Answer { verdict: Verdict::No, settled: true, policies: BTreeSet::new() };
        for branch in branches {
            let request = Request::builder()
                .principal(self.principal.clone())
                .action(action.clone())
                .resource(uid(&words.element, branch.path.as_str()))
                .context(context.clone())
                .build();
            let mut verdict = Verdict::Yes;
            for world in worlds.iter().take(if branch.own_extension { 2 } else { 1 }) {
                let answer = read(&Authorizer::new().is_authorized_partial(&request, &policies, world))?;
                verdict = verdict.min(answer.verdict);
                sum.settled &= answer.settled;
                sum.policies.extend(answer.policies);
            }
            sum.verdict = sum.verdict.max(verdict);
            decided.push((branch.path, verdict));
        }
        Ok((decided, sum))
    }

    /// May this record be acted on?
    pub(super) fn record(
        &self,
        action: Action,
        record: &Record<'_>,
    ) -> Result<Option<BTreeSet<String>>, Fault> {
        exact(&self.answer(action, record)?)
    }

    /// Cedar's answer for this record, on all that is known of it.
    fn answer(&self, action: Action, record: &Record<'_>) -> Result<cedar_policy::Response, Fault> {
        let words = &self.set.vocabulary;
        let resource = record.facts.resource_type;
        let (kind, _) = words.record(resource).ok_or_else(Fault::of_question)?;
        let target = uid(kind, record.facts.id.as_deref().unwrap_or(""));
        let request = self.request(action, target.clone(), record)?;
        let entities = self.entities(vec![self.record_entity(target, record)?])?;
        let policies = self.slice(Form::Exact, action, resource)?;
        Ok(Authorizer::new().is_authorized(&request, &policies, &entities))
    }

    /// Which named elements of this record may pass (`family` is `disclose` or `modify`), and by which policies.
    pub(super) fn record_elements(
        &self,
        family: Action,
        record: &Record<'_>,
    ) -> Result<(Decided<bool>, BTreeSet<String>), Fault> {
        let resource = record.facts.resource_type;
        let policies = self.slice(Form::Exact, family, resource)?;
        let branches = self.set.branches(family, resource, &self.situation.who.roles);
        let worlds = self.worlds(&branches, false)?;
        let (mut decided, mut reasons) = (Vec::new(), BTreeSet::new());
        let words = &self.set.vocabulary;
        let action = words.action(family).cloned().ok_or_else(Fault::of_question)?;
        let context = self.context(family, Some(record))?;
        for (at, branch) in branches.into_iter().enumerate() {
            let target = uid(&words.element, branch.path.as_str());
            // The questions differ in the element's name only, of which the schema says nothing.
            let schema = (at == 0).then_some(&words.schema);
            let request =
                Request::new(self.principal.clone(), action.clone(), target, context.clone(), schema)
                    .map_err(|_| Fault::of_question())?;
            let mut allowed = Some(BTreeSet::new());
            for world in worlds.iter().take(if branch.own_extension { 2 } else { 1 }) {
                let answer = exact(&Authorizer::new().is_authorized(&request, &policies, world))?;
                allowed = allowed.and_then(|so_far| answer.map(|more| &so_far | &more));
            }
            decided.push((branch.path, allowed.is_some()));
            reasons.extend(allowed.into_iter().flatten());
        }
        Ok((decided, reasons))
    }

    /// The forbids because of which this record may not be acted on; none where nothing permits it.
    pub(super) fn objections(&self, action: Action, record: &Record<'_>) -> Result<BTreeSet<String>, Fault> {
        Ok(forbids(&self.answer(action, record)?))
    }

    /// The forbids because of which an element of this record may not pass; none where nothing permits it.
    pub(super) fn element_objections(
        &self,
        family: Action,
        record: &Record<'_>,
        path: &ElementPath,
    ) -> Result<BTreeSet<String>, Fault> {
        let branches = self.set.branches(family, record.facts.resource_type, &self.situation.who.roles);
        let nearest = nearest(&branches, path).ok_or_else(Fault::of_question)?;
        let target = uid(&self.set.vocabulary.element, nearest.path.as_str());
        let policies = self.slice(Form::Exact, family, record.facts.resource_type)?;
        let request = self.request(family, target, record)?;
        let world = self.elements(&branches, true, false)?;
        Ok(forbids(&Authorizer::new().is_authorized(&request, &policies, &world)))
    }

    /// Cedar's answer by other policies than the set's, such as parts of them, on all that is known of this record; with
    /// `element`, about the element that decides for that path. `nested`: the record's own extensions lie in the record.
    pub(super) fn answer_of(
        &self,
        policies: &cedar_policy::PolicySet,
        action: Action,
        record: &Record<'_>,
        element: Option<(&ElementPath, bool)>,
    ) -> Result<cedar_policy::Response, Fault> {
        let words = &self.set.vocabulary;
        let (target, entities) = match element {
            Some((path, nested)) => {
                let branches = self.set.every_branch(record.facts.resource_type);
                let nearest = nearest(&branches, path).ok_or_else(Fault::of_question)?;
                let world = self.elements(&branches, nested, false)?;
                (uid(&words.element, nearest.path.as_str()), world)
            }
            None => {
                let (kind, _) = words.record(record.facts.resource_type).ok_or_else(Fault::of_question)?;
                let target = uid(kind, record.facts.id.as_deref().unwrap_or(""));
                let entities = self.entities(vec![self.record_entity(target.clone(), record)?])?;
                (target, entities)
            }
        };
        let request = self.request(action, target, record)?;
        Ok(Authorizer::new().is_authorized(&request, policies, &entities))
    }

    /// Which policies let an element of a type pass or keep it back, as far as that can be said before a record.
    pub(super) fn type_sides(&self, family: Action, path: &ElementPath) -> Result<Sides, Fault> {
        let words = &self.set.vocabulary;
        let resource = path.resource_type();
        let policies = self.slice(self.form(), family, resource)?;
        let branches = self.set.every_branch(resource);
        let nearest = nearest(&branches, path).ok_or_else(Fault::of_question)?;
        let request = Request::builder()
            .principal(self.principal.clone())
            .action(words.action(family).cloned().ok_or_else(Fault::of_question)?)
            .resource(uid(&words.element, nearest.path.as_str()))
            .context(self.context(family, None)?)
            .build();
        let ask = |nested| {
            let world = self.elements(&branches, nested, true)?;
            Ok(sides(&Authorizer::new().is_authorized_partial(&request, &policies, &world)))
        };
        let permits: Sides = ask(!nearest.own_extension)?;
        let forbids: Sides = ask(true)?;
        Ok(Sides { forbids: forbids.forbids, may_forbid: forbids.may_forbid, ..permits })
    }

    /// Which policies open a type to an action or close it, as far as that can be said before a record.
    pub(super) fn type_action_sides(&self, action: Action, resource: ResourceType) -> Result<Sides, Fault> {
        let words = &self.set.vocabulary;
        let (kind, _) = words.record(resource).ok_or_else(Fault::of_question)?;
        let policies = self.slice(self.form(), action, resource)?;
        let request = Request::builder()
            .principal(self.principal.clone())
            .action(words.action(action).cloned().ok_or_else(Fault::of_question)?)
            .unknown_resource_with_type(kind.clone())
            .context(self.context(action, None)?)
            .build();
        let entities = self.entities(Vec::new())?;
        Ok(sides(&Authorizer::new().is_authorized_partial(&request, &policies, &entities)))
    }

    /// How a question about a type is asked.
    fn form(&self) -> Form {
        if self.situation.emergencies.is_empty() { Form::BeforeRecords } else { Form::InEmergency }
    }

    fn slice(
        &self,
        form: Form,
        action: Action,
        resource: ResourceType,
    ) -> Result<cedar_policy::PolicySet, Fault> {
        self.set.slice(form, action, resource, &self.situation.who.roles).ok_or_else(Fault::of_question)
    }

    fn request(&self, action: Action, target: EntityUid, record: &Record<'_>) -> Result<Request, Fault> {
        let words = &self.set.vocabulary;
        let asked = words.action(action).cloned().ok_or_else(Fault::of_question)?;
        let context = self.context(action, Some(record))?;
        Request::new(self.principal.clone(), asked, target, context, Some(&words.schema))
            .map_err(|_| Fault::of_question())
    }

    /// The context of a question about a type lacks what only a record can tell, so it cannot be checked
    /// against the schema as it is: the same with empty sets in these places is.
    fn check_context(&self, action: Action) -> Result<(), Fault> {
        let facts = Facts::of_type(ResourceType::all().next().ok_or_else(Fault::of_question)?);
        let record = Record { facts: &facts, relations: Held::default(), emergency: false };
        let asked = self.set.vocabulary.action(action).ok_or_else(Fault::of_question)?;
        self.context(action, Some(&record))?
            .validate(&self.set.vocabulary.schema, asked)
            .map_err(|_| Fault::of_question())
    }

    fn context(&self, action: Action, record: Option<&Record<'_>>) -> Result<Context, Fault> {
        let situation = self.situation;
        let text = |text: &str| Value::new_string(text.to_owned());
        let mfa = Value::new_record([
            ("methods".to_owned(), texts(situation.who.methods.iter())),
            ("age".to_owned(), Value::new_long(situation.age_seconds)),
            ("phishingResistant".to_owned(), Value::new_bool(situation.phishing_resistant)),
        ])
        .map_err(|_| Fault::of_question())?;
        let mut pairs = vec![
            ("purpose".to_owned(), text(&situation.purpose)),
            ("mfa".to_owned(), mfa),
            ("scopes".to_owned(), texts(&situation.who.scopes)),
            ("application".to_owned(), text(situation.application())),
            ("binding".to_owned(), text(situation.who.binding)),
            ("emergency".to_owned(), Value::new_bool(record.is_some_and(|record| record.emergency))),
            ("network".to_owned(), Value::new_ip(situation.network.to_string())),
            (
                "now".to_owned(),
                Value::new_datetime(situation.now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()),
            ),
        ];
        if let (Action::Operate, Some(operation)) = (action, situation.operation) {
            pairs.push(("operation".to_owned(), text(operation)));
        }
        if let Some(record) = record {
            pairs.push(("relations".to_owned(), texts(record.relations.names())));
            if matches!(action, Action::Disclose | Action::Modify) {
                pairs.push(("labels".to_owned(), texts(&record.facts.labels)));
            }
        }
        Context::from_pairs(pairs).map_err(|_| Fault::of_question())
    }

    fn record_entity(&self, target: EntityUid, record: &Record<'_>) -> Result<Entity, Fault> {
        let words = &self.set.vocabulary;
        let facts = record.facts;
        let (_, has) = words.record(facts.resource_type).ok_or_else(Fault::of_question)?;
        let subjects = |ids: &BTreeSet<String>| {
            Value::new_set(ids.iter().map(|id| Value::new_entity_uid(uid(&words.subject, id))))
        };
        let mut attributes = HashMap::from([
            ("id".to_owned(), Value::new_string(facts.id.clone().unwrap_or_default())),
            ("patients".to_owned(), subjects(&facts.patients)),
            ("mentions".to_owned(), subjects(&facts.mentions)),
            ("labels".to_owned(), texts(&facts.labels)),
        ]);
        if let (true, Some(status)) = (has.status, &facts.status) {
            attributes.insert("status".to_owned(), Value::new_string(status.clone()));
        }
        if has.category {
            attributes.insert("category".to_owned(), texts(&facts.category));
        }
        if has.code {
            attributes.insert("code".to_owned(), texts(&facts.code));
        }
        let parents = facts.patients.iter().map(|id| uid(&words.subject, id)).collect();
        entity(target, attributes, parents)
    }

    /// The people and some more, checked against the schema, with the actions.
    fn entities(&self, more: Vec<Entity>) -> Result<Entities, Fault> {
        let all = self.people.iter().cloned().chain(more);
        Entities::from_entities(all, Some(&self.set.vocabulary.schema)).map_err(|_| Fault::of_question())
    }

    /// The world in which the record's own extensions do not lie in the record, and the one in which they do, for which
    /// only they are asked about.
    fn worlds(&self, branches: &[Branch], open: bool) -> Result<[Entities; 2], Fault> {
        let own = branches.iter().filter(|branch| branch.own_extension || branch.parent.is_none());
        let own: Vec<Branch> = own.cloned().collect();
        Ok([self.elements(branches, false, open)?, self.elements(&own, true, open)?])
    }

    /// The people and the named elements of a type. `nested`: the record's own extensions lie in the record.
    /// `open`: what only a record can tell is unknown (such entities are beyond the schema).
    fn elements(&self, branches: &[Branch], nested: bool, open: bool) -> Result<Entities, Fault> {
        let words = &self.set.vocabulary;
        let unknown = || match open {
            true => expression::RECORD_CONTEXT.map(|a| (a.to_owned(), Value::new_unknown(a))).into(),
            false => HashMap::new(),
        };
        let mut groups: BTreeSet<&str> = BTreeSet::new();
        let mut more = Vec::with_capacity(branches.len());
        for branch in branches {
            groups.extend(branch.groups.iter().map(String::as_str));
            let cut = branch.own_extension && branch.path.extension_url().is_none() && !nested;
            let parent = branch.parent.iter().filter(|_| !cut).map(|path| uid(&words.element, path));
            let parents = parent.chain(branch.groups.iter().map(|group| uid(&words.group, group))).collect();
            more.push(entity(uid(&words.element, branch.path.as_str()), unknown(), parents)?);
        }
        more.extend(groups.into_iter().map(|group| Entity::with_uid(uid(&words.group, group))));
        if !open {
            return self.entities(more);
        }
        let all = self.people.iter().cloned().chain(more).chain(words.action_entities());
        Entities::from_entities(all, None).map_err(|_| Fault::of_question())
    }
}

/// The policies on both sides of a question about a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sides {
    /// Permits that hold for every record.
    pub permits: BTreeSet<String>,
    /// Permits that hold for some.
    pub may_permit: BTreeSet<String>,
    /// Forbids that hold for every record.
    pub forbids: BTreeSet<String>,
    /// Forbids that hold for some.
    pub may_forbid: BTreeSet<String>,
}

fn sides(response: &PartialResponse) -> Sides {
    let mut sides = Sides::default();
    for policy in response.definitely_satisfied() {
        let side = match policy.effect() {
            Effect::Permit => &mut sides.permits,
            Effect::Forbid => &mut sides.forbids,
        };
        side.insert(policy.id().to_string());
    }
    for policy in response.nontrivial_residuals().filter(can_hold) {
        let side = match policy.effect() {
            Effect::Permit => &mut sides.may_permit,
            Effect::Forbid => &mut sides.may_forbid,
        };
        side.insert(policy.id().to_string());
    }
    sides
}

/// The element that decides for this path: itself, or the one named nearest above it.
fn nearest<'b>(branches: &'b [Branch], path: &ElementPath) -> Option<&'b Branch> {
    let around = branches.iter().filter(|branch| branch.path.is_ancestor_or_self(path));
    around.max_by_key(|branch| branch.path.as_str().len())
}

/// A record with how the caller stands to it.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub facts: &'a Facts,
    pub relations: Held,
    /// Judged under emergency access to its patient.
    pub emergency: bool,
}

impl Fault {
    fn of_question() -> Self {
        Fault(Vec::new())
    }
}

fn entity(
    uid: EntityUid,
    attributes: HashMap<String, Value>,
    parents: HashSet<EntityUid>,
) -> Result<Entity, Fault> {
    Entity::new(uid, attributes, parents).map_err(|_| Fault::of_question())
}

fn texts(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Value {
    Value::new_set(texts.into_iter().map(|text| Value::new_string(text.as_ref().to_owned())))
}

fn exact(response: &cedar_policy::Response) -> Result<Option<BTreeSet<String>>, Fault> {
    let failed: Vec<String> = response
        .diagnostics()
        .errors()
        .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
        .collect();
    if !failed.is_empty() {
        return Err(Fault(failed));
    }
    let reasons = || response.diagnostics().reason().map(PolicyId::to_string).collect();
    Ok((response.decision() == Decision::Allow).then(reasons))
}

/// What a denial rests on: Cedar names the forbids that hold, or nothing where no permit does.
fn forbids(response: &cedar_policy::Response) -> BTreeSet<String> {
    match response.decision() {
        Decision::Allow => BTreeSet::new(),
        Decision::Deny => response.diagnostics().reason().map(PolicyId::to_string).collect(),
    }
}

fn read(response: &PartialResponse) -> Result<Answer, Fault> {
    let failed: Vec<String> = response.definitely_errored().map(PolicyId::to_string).collect();
    if !failed.is_empty() {
        return Err(Fault(failed));
    }
    let (permits, forbids): (Vec<Policy>, Vec<Policy>) =
        response.definitely_satisfied().partition(|policy| policy.effect() == Effect::Permit);
    let open: Vec<Policy> = response.nontrivial_residuals().collect();
    let possible = |effect| open.iter().any(|policy| policy.effect() == effect && can_hold(policy));
    let verdict = match (permits.is_empty(), possible(Effect::Permit)) {
        _ if !forbids.is_empty() => Verdict::No,
        (true, false) => Verdict::No,
        (true, true) => Verdict::Maybe,
        (false, _) if possible(Effect::Forbid) => Verdict::Maybe,
        (false, _) => Verdict::Yes,
    };
    let policies = permits.iter().map(|policy| policy.id().to_string()).collect();
    Ok(Answer { verdict, settled: open.is_empty(), policies })
}

/// Cedar leaves `unknown && false` open; it can never be true.
fn can_hold(policy: &Policy) -> bool {
    policy.to_json().map_or(true, |policy| expression::can_hold(&policy))
}
