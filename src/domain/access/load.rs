//! From the files of a policies directory to a [`PolicySet`], or to everything that is wrong with them.
//!
//! Owns: the order in which a set is read, and that it is loaded whole or not at all. Must never: read a
//! file (text comes in). Look next: `checks` for the single rules, `set` for what a loaded set offers.

use super::checks;
use super::elements::{Elements, Names};
use super::expression::{self, Uses};
use super::groups::{self, Groups};
use super::lint::{self, Lint, LintName};
use super::relation::Relation;
use super::rewrite;
use super::set::{PolicySet, Rule, Vocabulary};
use super::shape::Shape;
use super::source::{EntityName, Problem, Source, Statement, statements};
use super::validation;
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use aws_lc_rs::digest;
use cedar_policy::ffi::DetailedError;
use cedar_policy::pst::{self, EntityUID};
use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy, PolicyId, ResourceConstraint};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

/// The vocabulary this build was made with; a directory may hold a copy of it and nothing else.
pub(super) const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

/// Read once: it is part of the program, and reading it costs more than a small set of policies does.
static VOCABULARY: LazyLock<Result<Arc<Vocabulary>, String>> =
    LazyLock::new(|| Vocabulary::new(SCHEMA).map(Arc::new));

/// A policy with the place it came from.
pub(super) struct Written<'s> {
    /// Under its final id.
    pub policy: Policy,
    /// The file.
    pub source: &'s Source,
    /// Its statement in the file.
    pub statement: Statement,
}

impl Written<'_> {
    /// A problem at the start of this policy.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        self.source.problem_at(self.statement.place, message)
    }

    /// A problem where this policy names an entity, or at its start where the name is not found.
    pub(super) fn problem_at(&self, uid: &EntityUID, message: impl Into<String>) -> Problem {
        let kind = expression::kind(uid);
        let same = |name: &&EntityName| name.raw_id == *uid.eid && name.kind == kind;
        let name = self.statement.names.iter().find(same);
        self.source.problem(name.map_or(self.statement.start, |name| name.offset), message)
    }
}

impl PolicySet {
    /// Reads a whole policies directory: its `*.cedar` files, `groups.toml` and `schema.cedarschema`.
    /// Without groups no group can be named; the schema is always the one of this build, so a copy that
    /// differs is a problem and none is fine. An empty set is valid and permits nothing.
    ///
    /// # Errors
    /// Every problem found, in order of file and line; nothing is loaded then.
    pub fn load(
        sources: &[Source],
        groups: Option<&Source>,
        schema: Option<&Source>,
    ) -> Result<PolicySet, Vec<Problem>> {
        // Parsing and validating recurse once for each term of a chain, in Cedar as here; the length of a
        // statement bounds the terms, and this the stack they take.
        stacker::grow(limits::POLICY_LOAD_STACK_BYTES, || Self::load_here(sources, groups, schema))
    }

    fn load_here(
        sources: &[Source],
        groups: Option<&Source>,
        schema: Option<&Source>,
    ) -> Result<PolicySet, Vec<Problem>> {
        let mut problems = checks::sizes(sources, groups);
        if !problems.is_empty() {
            return Err(problems);
        }
        problems.extend(schema.and_then(checks::same_schema));
        let mut sources: Vec<&Source> = sources.iter().collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        let groups_read = groups.map(|source| groups::parse(source, &mut problems)).unwrap_or_default();
        let named_groups = groups_read.groups;
        let vocabulary = VOCABULARY.as_ref().map_err(|message| vec![internal(message)])?;
        let written = parse(&sources, &mut problems);
        let mut lints = validation::validate(&written, vocabulary, &mut problems);
        let mut draft = Draft::new(&named_groups, vocabulary);
        let rules: Vec<Rule> = written.iter().filter_map(|policy| draft.rule(policy)).collect();
        problems.append(&mut draft.problems);
        if !problems.is_empty() {
            problems.sort();
            problems.dedup();
            return Err(problems);
        }
        lints.append(&mut draft.lints);
        lints.extend(lint::of_policies(&written, &draft.shapes));
        lints.extend(lint::unused_groups(groups, &groups_read.places, &draft.shapes));
        let mut lints = lint::without_meant(lints, &written, &draft.meant);
        lints.sort();
        lints.dedup();
        let outlines =
            written.iter().zip(&draft.shapes).map(|(policy, shape)| shape.outline(policy)).collect();
        let hash = hash(sources.iter().copied().chain(groups));
        let elements = Elements::new(&named_groups);
        Ok(PolicySet::assemble(hash, Arc::clone(vocabulary), rules, elements, (lints, outlines)))
    }
}

/// What is gathered while the policies are read one by one.
struct Draft<'g> {
    groups: &'g Groups,
    words: &'g Vocabulary,
    problems: Vec<Problem>,
    lints: Vec<Lint>,
    shapes: Vec<Shape>,
    meant: BTreeMap<String, BTreeSet<LintName>>,
}

impl<'g> Draft<'g> {
    fn new(groups: &'g Groups, words: &'g Vocabulary) -> Self {
        Self {
            groups,
            words,
            problems: Vec::new(),
            lints: Vec::new(),
            shapes: Vec::new(),
            meant: BTreeMap::new(),
        }
    }

    fn rule(&mut self, written: &Written<'_>) -> Option<Rule> {
        let body = match written.policy.to_pst() {
            Ok(pst::Policy::Static(body)) => body.body().clone(),
            Ok(pst::Policy::Linked(_)) | Err(_) => {
                self.problems.push(written.problem("this form of policy is not understood"));
                return None;
            }
        };
        let records = speaks_of_records(&written.policy.action_constraint());
        let mut uses = Uses::default();
        let mut reading = expression::read(body.clauses(), records, &mut uses);
        scope(&written.policy, records, &mut reading, &mut uses);
        if reading.unread {
            self.problems.push(written.problem("this form of condition is not understood"));
        }
        if reading.bare_context {
            let problem = written.problem("`context` is used without naming one of its attributes");
            self.problems.push(problem.with_hint("write `context.purpose` and so on"));
        }
        let covering = self.paths(written, &reading.covering);
        let exact = self.paths(written, &reading.exact);
        self.problems.extend(checks::modifiers(written, self.groups, &reading));
        self.problems.extend(checks::journal(written, body.clauses()));
        self.problems.extend(checks::invariant(written));
        let groups = groups_named(reading.covering.iter().chain(&reading.exact));
        let names = Names::new(covering, exact, groups);
        if let Some(name) = reading.asks.unknown() {
            let names = Relation::ALL.map(Relation::name).join(", ");
            let problem = written.problem(format!("there is no relation `{name}`: it never holds"));
            let problem = problem.with_hint(format!("relations are {names}"));
            self.lints.push(Lint::of(written, LintName::UnknownRelation, problem));
        }
        let forbids_by = |kind| {
            written.policy.effect() == Effect::Forbid && expression::holds_by_relation(body.clauses(), kind)
        };
        reading.asks.forbids_by_fhir_user = forbids_by(Relation::needs_fhir_user);
        if reading.asks.forbids_by_fhir_user || forbids_by(Relation::is_looked_up) {
            let problem = written.problem(match reading.asks.forbids_by_fhir_user {
                true => {
                    "forbids where the caller stands in a relation: people without `fhirUser` are refused"
                }
                false => "forbids where the EMR says that a relation holds",
            });
            let problem = problem.with_hint(
                "while the EMR cannot be asked it does not hold: rather forbid where a relation is lacking, or permit where it holds",
            );
            self.lints.push(Lint::of(written, LintName::ByFhirUser, problem));
        }
        match lint::meant(written) {
            Ok(meant) => drop(self.meant.insert(written.policy.id().to_string(), meant)),
            Err(problem) => self.problems.push(problem),
        }
        self.shapes.push(Shape::new(&written.policy, &body, self.words));
        match Rule::new(&written.policy, &body, self.groups, (reading.asks, uses, names)) {
            Ok(rule) => Some(rule),
            Err(message) => {
                self.problems.push(written.problem(message));
                None
            }
        }
    }

    /// The element paths among some entities; unknown paths and groups are problems.
    fn paths(&mut self, written: &Written<'_>, uids: &[EntityUID]) -> Vec<ElementPath> {
        let mut paths = Vec::new();
        for uid in uids {
            match (expression::kind(uid).as_str(), ElementPath::parse(&uid.eid)) {
                ("FHIR::Element", Ok(path)) => paths.push(path),
                ("FHIR::Element", Err(error)) => {
                    self.problems.push(written.problem_at(uid, error.to_string()));
                }
                ("ElementGroup", _) if !self.groups.contains_key(uid.eid.as_str()) => {
                    let problem = written.problem_at(uid, format!("unknown element group `{}`", uid.eid));
                    self.problems.push(problem.with_hint("groups are defined in groups.toml"));
                }
                _ => {}
            }
        }
        paths
    }
}

/// The scope says the same things as conditions do.
fn scope(policy: &Policy, records: bool, reading: &mut expression::Reading, uses: &mut Uses) {
    match policy.resource_constraint() {
        ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            uses.identity |= records && !is_element(&uid);
            reading.covering.push(literal(uid));
        }
        ResourceConstraint::Eq(uid) => {
            uses.identity |= records && !is_element(&uid);
            reading.exact.push(literal(uid));
        }
        ResourceConstraint::Any | ResourceConstraint::Is(_) => {}
    }
    use cedar_policy::PrincipalConstraint::{Any, Eq, In, Is, IsIn};
    match policy.principal_constraint() {
        Any | Is(_) | In(_) | IsIn(..) => {}
        Eq(_) => uses.principal = true,
    }
}

/// The groups of elements among some entities.
fn groups_named<'u>(uids: impl Iterator<Item = &'u EntityUID>) -> BTreeSet<String> {
    uids.filter(|uid| expression::kind(uid) == "ElementGroup").map(|uid| uid.eid.to_string()).collect()
}

fn literal(uid: EntityUid) -> EntityUID {
    uid.into()
}

fn is_element(uid: &EntityUid) -> bool {
    matches!(uid.type_name().to_string().as_str(), "FHIR::Element" | "ElementGroup")
}

fn speaks_of_records(actions: &ActionConstraint) -> bool {
    let element_action = |uid: &EntityUid| matches!(uid.id().unescaped(), "disclose" | "modify");
    match actions {
        ActionConstraint::Any => true,
        ActionConstraint::In(uids) => !uids.iter().all(element_action),
        ActionConstraint::Eq(uid) => !element_action(uid),
    }
}

/// The words of this build.
#[cfg(feature = "prove")]
pub(super) fn vocabulary() -> Result<Arc<Vocabulary>, Problem> {
    VOCABULARY.as_ref().map(Arc::clone).map_err(|message| internal(message))
}

/// Parses every file; each policy gets its final id.
pub(super) fn parse<'s>(sources: &[&'s Source], problems: &mut Vec<Problem>) -> Vec<Written<'s>> {
    let mut written: Vec<Written<'s>> = Vec::new();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for source in sources {
        for (number, (policy, statement)) in parse_file(source, problems).into_iter().enumerate() {
            let id = match policy.annotation("id") {
                Some(id) => id.to_owned(),
                None => format!("{}#{}", source.name, number + 1),
            };
            let place = Written { policy: policy.new_id(PolicyId::new(&id)), source, statement };
            if id.trim().is_empty() || id.len() > limits::POLICY_ID_BYTES_MAX {
                problems.push(place.problem("`@id` is empty or too long"));
            } else if let Some(earlier) = ids.insert(id.clone(), source.name.clone()) {
                problems.push(place.problem(format!("policy id `{id}` is already used in {earlier}")));
            } else {
                written.push(place);
            }
        }
    }
    if written.len() > limits::POLICIES_MAX {
        problems.push(internal(&format!("more than {} policies", limits::POLICIES_MAX)));
        written.clear();
    }
    written
}

fn parse_file(source: &Source, problems: &mut Vec<Problem>) -> Vec<(Policy, Statement)> {
    let found = statements(&source.text);
    if let Some(problem) = checks::statement_sizes(source, &found) {
        problems.push(problem);
        return Vec::new();
    }
    if let Some(at) = rewrite::unspaced_equality(&source.text, &found) {
        problems.push(source.problem(at, "`==` before an element needs a space on either side"));
        return Vec::new();
    }
    let text = rewrite::to_cedar(&source.text, &found);
    let set: cedar_policy::PolicySet = match text.parse() {
        Ok(set) => set,
        Err(errors) => {
            let errors: cedar_policy::ParseErrors = errors;
            let error = DetailedError::from(&errors);
            problems.extend(error.related.iter().chain([&error]).map(|error| located(source, 0, error)));
            return Vec::new();
        }
    };
    if set.templates().next().is_some() {
        problems.push(source.problem(0, "templates (`?principal`, `?resource`) are not supported"));
        return Vec::new();
    }
    let mut policies: Vec<(usize, Policy)> =
        set.policies().map(|policy| (number(policy.id()), policy.clone())).collect();
    policies.sort_by_key(|(number, _)| *number);
    if policies.len() != found.len() {
        problems.push(source.problem(0, "the file could not be split into its policies"));
        return Vec::new();
    }
    policies.into_iter().map(|(_, policy)| policy).zip(found).collect()
}

/// Cedar names the policies of a text `policy0`, `policy1` and so on.
fn number(id: &PolicyId) -> usize {
    let id: &str = id.as_ref();
    id.strip_prefix("policy").and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX)
}

/// What Cedar says about a place in a file; `otherwise` where it names none.
pub(super) fn located(source: &Source, otherwise: usize, error: &DetailedError) -> Problem {
    let in_cedar = error.source_locations.first().map(|label| label.loc.start);
    let written = |offset| rewrite::written_offset(&statements(&source.text), offset);
    let offset = in_cedar.map_or(otherwise, written);
    let problem = source.problem(offset, rewrite::as_written(&error.message));
    match &error.help {
        Some(help) => problem.with_hint(rewrite::as_written(help)),
        None => problem,
    }
}

/// A problem of the set as a whole.
pub(super) fn internal(message: &str) -> Problem {
    let (file, hint) = ("policies".to_owned(), None);
    Problem { file, line: 1, column: 1, message: message.to_owned(), hint }
}

/// SHA-256 over names and texts with their lengths, and over the schema. Lower-case hex.
fn hash<'s>(sources: impl Iterator<Item = &'s Source>) -> String {
    let mut sources: Vec<&Source> = sources.collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut context = digest::Context::new(&digest::SHA256);
    let mut field = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    field(SCHEMA.as_bytes());
    for source in sources {
        field(source.name.as_bytes());
        field(source.text.as_bytes());
    }
    context.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
