//! Single rules that a policies directory must keep beyond being valid Cedar.
//!
//! Owns: bounds, the modifier rule (P7), and what `@journal` may say. Must never: decide a request. Look next: `load`.

use super::expression::{Reading, kind, needs_emergency};
use super::groups::Groups;
use super::load::{SCHEMA, Written};
use super::set::JOURNAL;
use super::source::{Problem, Source, Statement};
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use cedar_policy::pst::Clause;
use cedar_policy::{ActionConstraint, Effect};

/// Bounds that hold before anything is parsed.
pub(super) fn sizes(sources: &[Source], groups: Option<&Source>) -> Vec<Problem> {
    let all = || sources.iter().chain(groups);
    let mut problems: Vec<Problem> = all()
        .filter(|source| source.text.len() > limits::POLICY_FILE_BYTES_MAX)
        .map(|source| source.problem(0, format!("longer than {} bytes", limits::POLICY_FILE_BYTES_MAX)))
        .collect();
    let total: usize = all().map(|source| source.text.len()).sum();
    if sources.len() > limits::POLICY_FILES_MAX || total > limits::POLICY_SET_BYTES_MAX {
        problems
            .extend(sources.first().map(|first| first.problem(0, "too many policy files, or too much text")));
    }
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    if let Some(name) = names.iter().zip(names.iter().skip(1)).find_map(|(a, b)| (a == b).then_some(*a)) {
        let file = sources.iter().find(|source| source.name == name);
        problems.extend(file.map(|source| source.problem(0, "file given twice")));
    }
    problems
}

/// One statement may not be so long that reading it needs more stack than a thread has.
pub(super) fn statement_sizes(source: &Source, found: &[Statement]) -> Option<Problem> {
    let ends = found.iter().skip(1).map(|next| next.start).chain([source.text.len()]);
    let long = |(statement, end): &(&Statement, usize)| {
        end.saturating_sub(statement.start) > limits::POLICY_STATEMENT_BYTES_MAX
    };
    let (statement, _) = found.iter().zip(ends).find(long)?;
    let message = format!("policy longer than {} bytes", limits::POLICY_STATEMENT_BYTES_MAX);
    Some(source.problem(statement.start, message).with_hint("split it, or use an element group"))
}

/// A directory's schema must be the generated one: policies checked against other words would be checked in vain.
pub(super) fn same_schema(schema: &Source) -> Option<Problem> {
    let different = |(ours, theirs): (u8, u8)| ours != theirs;
    if schema.text == SCHEMA {
        return None;
    }
    let same = SCHEMA.bytes().zip(schema.text.bytes()).take_while(|pair| !different(*pair)).count();
    let offset = (0..=same).rev().find(|at| schema.text.is_char_boundary(*at)).unwrap_or(0);
    let problem = schema.problem(offset, "this is not the schema of this version of chartgate");
    Some(problem.with_hint("the schema is generated: replace the file by the shipped one, or delete it"))
}

/// P7: a forbid may not single out an element that changes the meaning of the record around it.
pub(super) fn modifiers(written: &Written<'_>, groups: &Groups, reading: &Reading) -> Vec<Problem> {
    if written.policy.effect() == Effect::Permit || !discloses(&written.policy.action_constraint()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for uid in reading.covering.iter().chain(&reading.exact) {
        let modifier = match kind(uid).as_str() {
            "FHIR::Element" => ElementPath::parse(&uid.eid).ok().filter(is_modifier),
            "ElementGroup" => {
                groups.get(uid.eid.as_str()).and_then(|paths| paths.iter().find(|p| is_modifier(p))).cloned()
            }
            _ => None,
        };
        problems.extend(modifier.map(|path| {
            let message =
                format!("`{path}` is a modifier element: withholding it would change what the rest means");
            written.problem_at(uid, message).with_hint("forbid the whole record, or the element around it")
        }));
    }
    problems
}

/// The journal's reserve is for emergencies: only a permit that holds in one, or that lets one begin, may name it.
pub(super) fn journal(written: &Written<'_>, clauses: &[Clause]) -> Option<Problem> {
    let value = written.policy.annotation(JOURNAL)?;
    if value != "reserve" {
        let problem = written.problem(format!("`@journal` is `\"reserve\"` or nothing, not `\"{value}\"`"));
        return Some(problem.with_hint("without it an answer that cannot be recorded is refused"));
    }
    let urgent = written.policy.effect() == Effect::Permit && needs_emergency(clauses);
    let message = "`@journal(\"reserve\")` is for emergencies, and this policy speaks of others too";
    (!urgent).then(|| {
        written.problem(message).with_hint(
            "a permit with `when { context.emergency && … }`, or for `context.operation == \"$break-glass\"`",
        )
    })
}

/// An invariant says what policies must keep to. Among the policies it would be one, and `always` would open records.
pub(super) fn invariant(written: &Written<'_>) -> Option<Problem> {
    written.policy.annotation("must")?;
    let problem = written.problem("`@must` makes this an invariant, and here it would be a policy");
    Some(problem.with_hint("invariants stand in the folder `invariants` beside the policies"))
}

fn discloses(actions: &ActionConstraint) -> bool {
    match actions {
        ActionConstraint::Any => true,
        ActionConstraint::In(uids) => uids.iter().any(|uid| uid.id().unescaped() == "disclose"),
        ActionConstraint::Eq(uid) => uid.id().unescaped() == "disclose",
    }
}

fn is_modifier(path: &ElementPath) -> bool {
    path.element().is_some_and(|element| element.modifier || element.name == "modifierExtension")
}
