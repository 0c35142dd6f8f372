//! A loaded policy set, and the Cedar names it is asked with.
//!
//! Owns: typed construction of every entity name (never by putting text together, T-203), and choosing the
//! policies that can have a say in a question. Must never: change after loading. Look next: `engine`.

use super::basis::Asks;
use super::elements::{Branch, Elements, Names};
use super::engine::Record;
use super::expression::{self, Uses};
use super::groups::Groups;
use super::lint::Lint;
use super::reach;
use super::relation::Relation;
use super::shape::Outline;
use super::validation;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::limits;
use cedar_policy::pst;
use cedar_policy::{ActionConstraint, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid};
use cedar_policy::{Policy, PrincipalConstraint, ResourceConstraint, Schema, SchemaFragment};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// What is asked about: the actions of the schema. All but the last two are about records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Action {
    Read,
    Vread,
    History,
    Search,
    Create,
    Update,
    Patch,
    Delete,
    Operate,
    Export,
    Disclose,
    Modify,
}

impl Action {
    /// Every one, those about records first.
    pub(super) const ALL: [Action; 12] = [
        Action::Read,
        Action::Vread,
        Action::History,
        Action::Search,
        Action::Create,
        Action::Update,
        Action::Patch,
        Action::Delete,
        Action::Operate,
        Action::Export,
        Action::Disclose,
        Action::Modify,
    ];

    /// Name in the schema.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Vread => "vread",
            Action::History => "history",
            Action::Search => "search",
            Action::Create => "create",
            Action::Update => "update",
            Action::Patch => "patch",
            Action::Delete => "delete",
            Action::Operate => "operate",
            Action::Export => "export",
            Action::Disclose => "disclose",
            Action::Modify => "modify",
        }
    }

    /// The action that lets its elements pass: outward for what shows a record, inward for what writes one.
    /// `None`: a deletion or an operation as such moves no element (what an operation shows is read).
    pub(super) fn elements(self) -> Option<Action> {
        match self {
            Action::Read | Action::Vread | Action::History | Action::Search | Action::Export => {
                Some(Action::Disclose)
            }
            Action::Create | Action::Update | Action::Patch => Some(Action::Modify),
            Action::Delete | Action::Operate | Action::Disclose | Action::Modify => None,
        }
    }
}

/// Which optional attributes the schema gives the records of a type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes {
    pub status: bool,
    /// A record without it is no valid record.
    pub status_required: bool,
    pub category: bool,
    pub code: bool,
}

/// The schema with its names made once.
pub(super) struct Vocabulary {
    pub schema: Schema,
    /// The same as JSON.
    pub parts: serde_json::Value,
    /// Types of records that only their names tell apart.
    pub alike: Vec<Vec<ResourceType>>,
    pub user: EntityTypeName,
    pub application: EntityTypeName,
    pub role: EntityTypeName,
    pub subject: EntityTypeName,
    pub element: EntityTypeName,
    pub group: EntityTypeName,
    records: HashMap<ResourceType, (EntityTypeName, Attributes)>,
    actions: BTreeMap<Action, EntityUid>,
    action_groups: Entities,
}

impl Vocabulary {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let (fragment, _) = SchemaFragment::from_cedarschema_str(text).map_err(|error| error.to_string())?;
        let schema = Schema::from_schema_fragments([fragment.clone()]).map_err(|error| error.to_string())?;
        let parts = fragment.to_json_value().map_err(|error| error.to_string())?;
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let action = name("Action")?;
        let mut records = HashMap::new();
        for resource in ResourceType::all() {
            let attributes = attributes(text, resource);
            records.insert(resource, (name(&format!("FHIR::{}", resource.name()))?, attributes));
        }
        Ok(Self {
            user: name("User")?,
            application: name("Application")?,
            role: name("Role")?,
            subject: name("Subject")?,
            element: name("FHIR::Element")?,
            group: name("ElementGroup")?,
            records,
            actions: Action::ALL.into_iter().map(|a| (a, uid(&action, a.name()))).collect(),
            action_groups: schema.action_entities().map_err(|error| error.to_string())?,
            schema,
            alike: validation::alike(&parts),
            parts,
        })
    }

    /// Entity type and attributes of a resource type.
    pub(super) fn record(&self, resource: ResourceType) -> Option<&(EntityTypeName, Attributes)> {
        self.records.get(&resource)
    }

    pub(super) fn action(&self, action: Action) -> Option<&EntityUid> {
        self.actions.get(&action)
    }

    /// The actions with their groups.
    pub(super) fn action_entities(&self) -> impl Iterator<Item = Entity> {
        self.action_groups.iter().cloned()
    }

    /// Whether a scope's action is or covers this one.
    pub(super) fn covers(&self, constraint: &ActionConstraint, action: Action) -> bool {
        let Some(asked) = self.actions.get(&action) else { return true };
        let is = |uid: &EntityUid| uid == asked || self.action_groups.is_ancestor_of(uid, asked);
        match constraint {
            ActionConstraint::Any => true,
            ActionConstraint::In(uids) => uids.iter().any(is),
            ActionConstraint::Eq(uid) => uid == asked,
        }
    }
}

/// An entity of a type, by its id; no text is parsed.
pub(super) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// Reads the attributes off the generated schema text, whose form is fixed: one attribute a line.
fn attributes(schema: &str, resource: ResourceType) -> Attributes {
    let head = format!("  entity {} in [Subject] = {{\n", resource.name());
    let body = schema.split_once(&head).map_or("", |(_, rest)| rest);
    let mut found = Attributes::default();
    for line in body.lines().take_while(|line| !line.starts_with("  }")) {
        match line.trim() {
            "status: String," => (found.status, found.status_required) = (true, true),
            "status?: String," => found.status = true,
            "category: Set<String>," => found.category = true,
            "code: Set<String>," => found.code = true,
            _ => {}
        }
    }
    found
}

/// The annotation that says what becomes of the record of what a policy permits while the journal takes none.
pub(super) const JOURNAL: &str = "journal";

/// A policy in its forms, with what its scope says about when it can apply.
pub(super) struct Rule {
    exact: Policy,
    before_records: Policy,
    in_emergency: Policy,
    asks: Asks,
    uses: Uses,
    names: Names,
    actions: ActionConstraint,
    role: Option<String>,
    types: Option<BTreeSet<ResourceType>>,
    /// `@journal("reserve")`.
    reserve: bool,
}

impl Rule {
    pub(super) fn new(
        policy: &Policy,
        body: &pst::Template,
        groups: &Groups,
        (asks, uses, names): (Asks, Uses, Names),
    ) -> Result<Self, String> {
        let clauses = expression::balanced(body.clauses());
        if expression::depth(&clauses) > limits::POLICY_DEPTH_MAX {
            return Err(format!("nested more than {} levels deep", limits::POLICY_DEPTH_MAX));
        }
        let exact = with_clauses(body, clauses.clone())?;
        // Most policies ask nothing that only a record can tell: their forms are one, and kept once.
        let form = |in_emergency| {
            let left_open = expression::before_records(&clauses, in_emergency);
            if left_open == clauses { Ok(exact.clone()) } else { with_clauses(body, left_open) }
        };
        let (before_records, in_emergency) = (form(false)?, form(true)?);
        let role = match policy.principal_constraint() {
            PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
                Some(uid.id().unescaped().to_owned()).filter(|_| uid.type_name().basename() == "Role")
            }
            PrincipalConstraint::Any | PrincipalConstraint::Eq(_) | PrincipalConstraint::Is(_) => None,
        };
        let scope = types(&policy.resource_constraint(), groups);
        let types = narrower(scope, reach::types(body.clauses(), groups));
        let actions = policy.action_constraint();
        let reserve = policy.annotation(JOURNAL).is_some();
        Ok(Self { exact, before_records, in_emergency, asks, uses, names, actions, role, types, reserve })
    }
}

/// What decisions can depend on under the policies for everybody, and under those and the ones for a role.
fn uses_by_role(rules: &[Rule]) -> (Arc<Uses>, HashMap<String, Arc<Uses>>) {
    let (mut everybody, mut by_role) = (Uses::default(), HashMap::<&String, Uses>::new());
    for rule in rules {
        match &rule.role {
            None => everybody.join(&rule.uses),
            Some(role) => by_role.entry(role).or_default().join(&rule.uses),
        }
    }
    let with_all = |(role, mut uses): (&String, Uses)| {
        uses.join(&everybody);
        (role.clone(), Arc::new(uses))
    };
    let by_role = by_role.into_iter().map(with_all).collect();
    (Arc::new(everybody), by_role)
}

/// What both leave; `None` is all.
fn narrower(
    one: Option<BTreeSet<ResourceType>>,
    other: Option<BTreeSet<ResourceType>>,
) -> Option<BTreeSet<ResourceType>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one & &other),
        (one, other) => one.or(other),
    }
}

/// The same policy under other conditions.
fn with_clauses(body: &pst::Template, clauses: Vec<pst::Clause>) -> Result<Policy, String> {
    let (principal, action, resource) = (body.principal.clone(), body.action.clone(), body.resource.clone());
    let template = pst::Template::new(body.id.clone(), body.effect, principal, action, resource)
        .try_with_clauses(clauses)
        .map_err(|error| error.to_string())?;
    let policy = pst::StaticPolicy::try_from(template).map_err(|error| error.to_string())?;
    Policy::from_pst(pst::Policy::Static(policy)).map_err(|error| error.to_string())
}

/// The resource types a scope can reach; `None` is all.
fn types(constraint: &ResourceConstraint, groups: &Groups) -> Option<BTreeSet<ResourceType>> {
    let of_name = |name: &EntityTypeName| {
        ResourceType::from_name(name.basename()).map(|resource| BTreeSet::from([resource]))
    };
    match constraint {
        ResourceConstraint::Any => None,
        ResourceConstraint::Is(name) | ResourceConstraint::IsIn(name, _) => of_name(name),
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) => {
            let (kind, id) = (uid.type_name().basename(), uid.id().unescaped());
            match kind {
                "Element" => Some(ElementPath::parse(id).iter().map(ElementPath::resource_type).collect()),
                "ElementGroup" => {
                    Some(groups.get(id).into_iter().flatten().map(ElementPath::resource_type).collect())
                }
                _ => of_name(uid.type_name()),
            }
        }
    }
}

/// Which form of the policies a question needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As written: for a record at hand.
    Exact,
    /// With what only a record can tell left open: for a whole type.
    BeforeRecords,
    /// The same for a caller with emergency access to some patient: whether a record is that patient's is open too.
    InEmergency,
}

/// Every policy of a directory, checked and ready to be asked.
#[must_use]
pub struct PolicySet {
    hash: String,
    rules: Vec<Rule>,
    index: HashMap<(Action, Option<ResourceType>, Option<String>), Vec<usize>>,
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) elements: Elements,
    /// What decisions for anybody can depend on, and for those who have one of these roles.
    uses: (Arc<Uses>, HashMap<String, Arc<Uses>>),
    relations: HashMap<Option<String>, BTreeSet<Relation>>,
    /// Roles, or everybody, to whom a forbid may apply that a missing `fhirUser` would switch off.
    forbidden_by_fhir_user: BTreeSet<Option<String>>,
    /// Ids of the policies that let the journal's reserve be used.
    reserve: BTreeSet<String>,
    lints: Vec<Lint>,
    outlines: Vec<Outline>,
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("hash", &self.hash)
            .field("policies", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl PolicySet {
    pub(super) fn assemble(
        hash: String,
        vocabulary: Arc<Vocabulary>,
        rules: Vec<Rule>,
        elements: Elements,
        (lints, outlines): (Vec<Lint>, Vec<Outline>),
    ) -> Self {
        let mut index: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            let types: Vec<Option<ResourceType>> = match &rule.types {
                None => vec![None],
                Some(types) => types.iter().copied().map(Some).collect(),
            };
            for action in Action::ALL.into_iter().filter(|a| vocabulary.covers(&rule.actions, *a)) {
                for resource in &types {
                    index.entry((action, *resource, rule.role.clone())).or_default().push(at);
                }
            }
        }
        let uses = uses_by_role(&rules);
        let mut relations: HashMap<_, BTreeSet<Relation>> = HashMap::new();
        for rule in &rules {
            relations.entry(rule.role.clone()).or_default().extend(rule.asks.known());
        }
        let by_fhir_user = rules.iter().filter(|rule| rule.asks.forbids_by_fhir_user);
        let forbidden_by_fhir_user = by_fhir_user.map(|rule| rule.role.clone()).collect();
        let reserve =
            rules.iter().filter(|rule| rule.reserve).map(|rule| rule.exact.id().to_string()).collect();
        Self {
            hash,
            rules,
            index,
            vocabulary,
            elements,
            uses,
            relations,
            forbidden_by_fhir_user,
            reserve,
            lints,
            outlines,
        }
    }

    /// SHA-256 (lower-case hex) over every file name and text and the schema: the version of the set, for
    /// records, metrics and cache keys.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How many policies it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// No policy: nothing is permitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What deserves a second look although it is allowed, in order of file and line.
    #[must_use]
    pub fn lints(&self) -> &[Lint] {
        &self.lints
    }

    /// What each policy is about, in order of file and line.
    #[must_use]
    pub fn outlines(&self) -> &[Outline] {
        &self.outlines
    }

    /// The policies whose scope can match; all others are certainly not satisfied.
    pub(super) fn slice(
        &self,
        form: Form,
        action: Action,
        resource: ResourceType,
        roles: &BTreeSet<String>,
    ) -> Option<cedar_policy::PolicySet> {
        let policies = self.applicable(action, resource, roles).map(|rule| match form {
            Form::Exact => rule.exact.clone(),
            Form::BeforeRecords => rule.before_records.clone(),
            Form::InEmergency => rule.in_emergency.clone(),
        });
        cedar_policy::PolicySet::from_policies(policies).ok()
    }

    /// The elements of a type that decisions under the policies of a question can tell apart.
    pub(super) fn branches(
        &self,
        action: Action,
        resource: ResourceType,
        roles: &BTreeSet<String>,
    ) -> Vec<Branch> {
        self.elements.among(resource, self.applicable(action, resource, roles).map(|rule| &rule.names))
    }

    /// The elements of a type that decisions under any policies of the set can tell apart.
    pub(super) fn every_branch(&self, resource: ResourceType) -> Vec<Branch> {
        self.elements.among(resource, self.rules.iter().map(|rule| &rule.names))
    }

    /// What decisions for somebody with these roles can depend on.
    pub(super) fn uses(&self, roles: &BTreeSet<String>) -> Arc<Uses> {
        let (everybody, by_role) = &self.uses;
        let mut known = roles.iter().filter_map(|role| by_role.get(role));
        match (known.next(), known.next()) {
            (None, _) => Arc::clone(everybody),
            (Some(one), None) => Arc::clone(one),
            (Some(one), Some(other)) => {
                let mut all = Uses::clone(one);
                [other].into_iter().chain(known).for_each(|more| all.join(more));
                Arc::new(all)
            }
        }
    }

    /// The policies that can have a say in a question whoever asks it, each with the role that its scope names.
    pub(super) fn whoever(
        &self,
        action: Action,
        resource: ResourceType,
    ) -> impl Iterator<Item = (&Policy, Option<&str>)> {
        let speaks = move |rule: &&Rule| {
            self.vocabulary.covers(&rule.actions, action)
                && rule.types.as_ref().is_none_or(|types| types.contains(&resource))
        };
        self.rules.iter().filter(speaks).map(|rule| (&rule.exact, rule.role.as_deref()))
    }

    fn applicable(
        &self,
        action: Action,
        resource: ResourceType,
        roles: &BTreeSet<String>,
    ) -> impl Iterator<Item = &Rule> {
        let roles = || roles.iter().cloned().map(Some).chain([None]);
        let keys: Vec<_> = [Some(resource), None]
            .into_iter()
            .flat_map(|r| roles().map(move |role| (action, r, role)))
            .collect();
        let found = keys.into_iter().filter_map(|key| self.index.get(&key)).flatten();
        found.filter_map(|at| self.rules.get(*at))
    }

    /// What a decision that permits rests on: of what the satisfied permits (`reasons`) and the forbids that held
    /// their peace ask, that which is so for the record.
    pub(super) fn basis(
        &self,
        actions: impl IntoIterator<Item = Action>,
        roles: &BTreeSet<String>,
        reasons: &BTreeSet<String>,
        record: &Record<'_>,
    ) -> BTreeSet<String> {
        let resource = record.facts.resource_type;
        let counts = |rule: &&Rule| {
            rule.exact.effect() == Effect::Forbid || reasons.contains(AsRef::<str>::as_ref(rule.exact.id()))
        };
        let rules = actions.into_iter().flat_map(|action| self.applicable(action, resource, roles));
        rules.filter(counts).flat_map(|rule| rule.asks.present(record)).collect()
    }

    /// Whether nothing may be decided for somebody with these roles whose token does not say who they are to the EMR.
    pub(super) fn needs_fhir_user(&self, roles: &BTreeSet<String>) -> bool {
        self.forbidden_by_fhir_user.iter().any(|role| role.as_ref().is_none_or(|role| roles.contains(role)))
    }

    /// Whether one of these policies lets the journal's reserve be used.
    pub(super) fn uses_reserve(&self, policies: &[String]) -> bool {
        policies.iter().any(|id| self.reserve.contains(id))
    }

    /// Whether such a policy can have a say in a question.
    pub(super) fn may_use_reserve(
        &self,
        action: Action,
        resource: ResourceType,
        roles: &BTreeSet<String>,
    ) -> bool {
        !self.reserve.is_empty() && self.applicable(action, resource, roles).any(|rule| rule.reserve)
    }

    /// Every policy as it decides, with the types it can hold for (`None`: all): for proofs.
    #[cfg(feature = "prove")]
    pub(super) fn written(&self) -> impl Iterator<Item = (&Policy, Option<&BTreeSet<ResourceType>>)> {
        self.rules.iter().map(|rule| (&rule.exact, rule.types.as_ref()))
    }

    /// The relations that a decision for somebody with these roles can depend on.
    pub(super) fn relations(&self, roles: &BTreeSet<String>) -> BTreeSet<Relation> {
        let asked = std::iter::once(None).chain(roles.iter().cloned().map(Some));
        asked.filter_map(|role| self.relations.get(&role)).flatten().copied().collect()
    }
}
