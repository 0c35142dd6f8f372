//! What is allowed in a policies directory and deserves a second look.
//!
//! Owns: the closed list of lints, and the annotation `@meant("lint: reason")` by which an author says that one is
//! intended. Must never: decide a request, or refuse a set for what is only doubtful.
//! Look next: `shape`, what is looked at; `load`, which asks for them; docs/policies.md, which explains each.

use super::load::Written;
use super::shape::{Shape, Who};
use super::source::{Problem, Source};
use cedar_policy::Effect;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Which doubt it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LintName {
    /// There is no policy at all.
    NoPolicies,
    /// A permit that does not ask who.
    Everyone,
    /// A permit for every action.
    AnyAction,
    /// A permit that does not ask what for.
    NoPurpose,
    /// A purpose of use that HL7's code system does not have.
    UnknownPurpose,
    /// A relation that does not exist.
    UnknownRelation,
    /// A forbid that a missing `fhirUser` would switch off.
    ByFhirUser,
    /// A policy that can never apply.
    NeverApplies,
    /// A permit that an unconditional forbid covers whole.
    CoveredByForbid,
    /// A role that no permit names.
    LonelyRole,
    /// A role with records and no elements, or with elements and no records.
    HalfRole,
    /// A group of elements that no policy names.
    UnusedGroup,
    /// A permit that does not say why.
    NoWhy,
    /// A permit that says why, and not on what ground.
    NoGround,
    /// An intention stated where there is no doubt.
    NeedlessMeant,
    /// Something that Cedar's validator warns of.
    Cedar,
}

impl LintName {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::NoPolicies,
        Self::Everyone,
        Self::AnyAction,
        Self::NoPurpose,
        Self::UnknownPurpose,
        Self::UnknownRelation,
        Self::ByFhirUser,
        Self::NeverApplies,
        Self::CoveredByForbid,
        Self::LonelyRole,
        Self::HalfRole,
        Self::UnusedGroup,
        Self::NoWhy,
        Self::NoGround,
        Self::NeedlessMeant,
        Self::Cedar,
    ];

    /// The word in `@meant` and in output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoPolicies => "no-policies",
            Self::Everyone => "everyone",
            Self::AnyAction => "any-action",
            Self::NoPurpose => "no-purpose",
            Self::UnknownPurpose => "unknown-purpose",
            Self::UnknownRelation => "unknown-relation",
            Self::ByFhirUser => "by-fhir-user",
            Self::NeverApplies => "never-applies",
            Self::CoveredByForbid => "covered-by-forbid",
            Self::LonelyRole => "lonely-role",
            Self::HalfRole => "half-role",
            Self::UnusedGroup => "unused-group",
            Self::NoWhy => "no-why",
            Self::NoGround => "no-ground",
            Self::NeedlessMeant => "needless-meant",
            Self::Cedar => "cedar",
        }
    }

    /// By its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.word() == word)
    }
}

/// A doubt, with its place. Ordered by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lint {
    /// File, line, what is doubtful, and what to do about it.
    pub problem: Problem,
    /// Which doubt.
    pub name: LintName,
    /// Id of the policy it is about.
    pub policy: Option<String>,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.problem, self.name.word())
    }
}

impl Lint {
    /// About one policy.
    pub(super) fn of(written: &Written<'_>, name: LintName, problem: Problem) -> Self {
        Self { problem, name, policy: Some(written.policy.id().to_string()) }
    }

    /// About the set.
    pub(super) fn of_set(name: LintName, problem: Problem) -> Self {
        Self { problem, name, policy: None }
    }
}

/// The annotation that says why a permit is there, with its legal ground in parentheses at the end.
pub(super) const WHY: &str = "why";
/// The annotation that says that a lint is intended.
pub(super) const MEANT: &str = "meant";

/// The lints that an author says they mean: `@meant("everyone, no-purpose: a code is nobody's data")`.
///
/// # Errors
/// A problem if it names no lint, one that there is not, or gives no reason.
pub(super) fn meant(written: &Written<'_>) -> Result<BTreeSet<LintName>, Problem> {
    let Some(text) = written.policy.annotation(MEANT) else { return Ok(BTreeSet::new()) };
    let advice = "write `@meant(\"no-purpose: the reason\")`";
    let unread = |message: String| written.problem(message).with_hint(advice);
    let Some((names, reason)) = text.split_once(':') else {
        return Err(unread("`@meant` gives no reason".to_owned()));
    };
    if reason.trim().is_empty() {
        return Err(unread("`@meant` gives no reason".to_owned()));
    }
    let known = |word: &str| {
        LintName::from_word(word.trim()).ok_or_else(|| unread(format!("there is no lint `{}`", word.trim())))
    };
    names.split(',').map(known).collect()
}

/// What is doubtful about each policy by itself.
pub(super) fn of_policies(written: &[Written<'_>], shapes: &[Shape]) -> Vec<Lint> {
    if written.is_empty() {
        let (file, message) = ("policies".to_owned(), "there is no policy: everything is denied".to_owned());
        let problem = Problem { file, line: 1, column: 1, message, hint: None };
        return vec![Lint::of_set(LintName::NoPolicies, problem)];
    }
    let mut lints = Vec::new();
    for (written, shape) in written.iter().zip(shapes) {
        if written.policy.effect() == Effect::Permit {
            lints.extend(broad(written, shape));
            lints.extend(reasons(written));
        }
        lints.extend(words(written, shape));
        lints.extend(contradiction(written, shape));
    }
    lints.extend(covered(written, shapes));
    lints.extend(roles(written, shapes));
    lints
}

fn broad(written: &Written<'_>, shape: &Shape) -> Vec<Lint> {
    let lint =
        |name, message: &str, hint: &str| Lint::of(written, name, written.problem(message).with_hint(hint));
    let everyone = shape.who == Who::Everyone && !shape.asks_who;
    let mut lints = Vec::new();
    match (everyone, shape.any_resource, shape.unconditional) {
        (true, true, true) => lints.push(lint(
            LintName::Everyone,
            "permits everything to everyone",
            "name a role, an action and a resource",
        )),
        (true, _, _) => lints.push(lint(
            LintName::Everyone,
            "permits without asking who",
            "name a role: `principal in Role::\"…\"`",
        )),
        (false, _, _) => {}
    }
    if shape.any_action {
        let message = match shape.any_resource {
            true => "permits every action on everything",
            false => "permits every action",
        };
        lints.push(lint(LintName::AnyAction, message, "name the actions: `action in [Action::\"read\", …]`"));
    }
    if !shape.asks_purpose {
        lints.push(lint(
            LintName::NoPurpose,
            "permits whatever the purpose is",
            "ask for it: `when { context.purpose == \"TREAT\" }`",
        ));
    }
    lints
}

fn reasons(written: &Written<'_>) -> Option<Lint> {
    let advice = "write `@why(\"what it is for (45 CFR 164.506(c)(1))\")` before it";
    let lint = |name, message: &str| Lint::of(written, name, written.problem(message).with_hint(advice));
    let why = written.policy.annotation(WHY).map(str::trim).unwrap_or_default();
    if why.is_empty() {
        return Some(lint(LintName::NoWhy, "permits without saying why"));
    }
    let grounded = why.trim_end_matches('.').ends_with(')') && why.contains('(');
    (!grounded).then(|| lint(LintName::NoGround, "says why, and not on what legal ground"))
}

/// Words that policies compare with and that nothing has.
fn words(written: &Written<'_>, shape: &Shape) -> Vec<Lint> {
    let unknown = |purpose: &&String| !PURPOSES.contains(&purpose.as_str());
    let lint = |purpose: &String| {
        let problem =
            written.problem(format!("HL7's PurposeOfUse has no code `{purpose}`: it may never be stated"));
        Lint::of(
            written,
            LintName::UnknownPurpose,
            problem.with_hint("TREAT, ETREAT, HPAYMT, HOPERAT, HRESCH, PATRQT, …"),
        )
    };
    shape.purposes.iter().filter(unknown).map(lint).collect()
}

fn contradiction(written: &Written<'_>, shape: &Shape) -> Option<Lint> {
    let attribute = shape.contradiction.as_ref()?;
    let problem = written.problem(format!("`{attribute}` cannot be two things at once: it never applies"));
    Some(Lint::of(written, LintName::NeverApplies, problem.with_hint("`||` between the alternatives?")))
}

/// Permits that a forbid without conditions takes back whole.
fn covered(written: &[Written<'_>], shapes: &[Shape]) -> Vec<Lint> {
    let pairs = || written.iter().zip(shapes);
    let walls: Vec<_> =
        pairs().filter(|(w, s)| w.policy.effect() == Effect::Forbid && s.unconditional).collect();
    let mut lints = Vec::new();
    for (permit, shape) in pairs().filter(|(w, _)| w.policy.effect() == Effect::Permit) {
        if let Some((wall, _)) = walls.iter().find(|(_, wall)| wall.covers(shape)) {
            let id = wall.policy.id();
            let problem = permit.problem(format!("`{id}` forbids all that this permits: it never applies"));
            let problem = problem.with_hint("take one of them away");
            lints.push(Lint::of(permit, LintName::CoveredByForbid, problem));
        }
    }
    lints
}

/// Roles that only exceptions name, and roles with half of what it takes to see anything.
fn roles(written: &[Written<'_>], shapes: &[Shape]) -> Vec<Lint> {
    let mut permitted: BTreeMap<&str, (Option<usize>, Option<usize>)> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for (at, (policy, shape)) in written.iter().zip(shapes).enumerate() {
        if policy.policy.effect() == Effect::Forbid {
            continue;
        }
        known.extend(shape.roles.iter().map(String::as_str));
        for role in &shape.granted {
            let halves = permitted.entry(role).or_default();
            halves.0 = halves.0.or(shape.opens_records.then_some(at));
            halves.1 = halves.1.or(shape.opens_elements.then_some(at));
        }
    }
    let mut lints = Vec::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for (policy, shape) in written.iter().zip(shapes) {
        for role in shape.roles.iter().map(String::as_str) {
            if !known.contains(role) && named.insert(role) {
                let problem = policy.problem(format!("no permit names the role `{role}`"));
                let problem = problem.with_hint("a slip of the pen? whoever has only this role sees nothing");
                lints.push(Lint::of(policy, LintName::LonelyRole, problem));
            }
        }
    }
    for (role, halves) in permitted {
        let (at, message) = match halves {
            (Some(at), None) => {
                (at, format!("`{role}` may open records, and see or write no element of them"))
            }
            (None, Some(at)) => (at, format!("`{role}` may see or write elements, and open no record")),
            (Some(_), Some(_)) | (None, None) => continue,
        };
        if let Some(policy) = written.get(at) {
            let problem =
                policy.problem(message).with_hint("both are needed: an action, and `disclose` or `modify`");
            lints.push(Lint::of(policy, LintName::HalfRole, problem));
        }
    }
    lints
}

/// Groups of `groups.toml` that no policy names, but for those that are said to be spare.
pub(super) fn unused_groups(
    source: Option<&Source>,
    places: &BTreeMap<String, usize>,
    shapes: &[Shape],
) -> Vec<Lint> {
    let used: BTreeSet<&str> = shapes.iter().flat_map(|shape| &shape.groups).map(String::as_str).collect();
    let lint = |(source, name, at): (&Source, &String, &usize)| {
        let problem = source.problem(*at, format!("no policy names the group `{name}`"));
        Lint::of_set(
            LintName::UnusedGroup,
            problem.with_hint("delete it, or say in `[unused]` why it is kept"),
        )
    };
    let unused = places.iter().filter(|(name, _)| !used.contains(name.as_str()));
    source
        .into_iter()
        .flat_map(|source| unused.clone().map(move |(n, at)| (source, n, at)))
        .map(lint)
        .collect()
}

/// Takes away what is meant, and points at what is said to be meant for nothing.
pub(super) fn without_meant(
    lints: Vec<Lint>,
    written: &[Written<'_>],
    meant: &BTreeMap<String, BTreeSet<LintName>>,
) -> Vec<Lint> {
    let mut needed: BTreeSet<(String, LintName)> = BTreeSet::new();
    let mut left = Vec::new();
    for lint in lints {
        let policy = lint.policy.clone().unwrap_or_default();
        match meant.get(&policy).is_some_and(|names| names.contains(&lint.name)) {
            true => drop(needed.insert((policy, lint.name))),
            false => left.push(lint),
        }
    }
    for written in written {
        let id = written.policy.id().to_string();
        for name in meant.get(&id).into_iter().flatten() {
            if !needed.contains(&(id.clone(), *name)) {
                let problem =
                    written.problem(format!("`@meant` speaks of `{}`, which is not so", name.word()));
                let problem = problem.with_hint("take it away");
                left.push(Lint::of(written, LintName::NeedlessMeant, problem));
            }
        }
    }
    left
}

/// Codes of HL7's v3 value set PurposeOfUse (http://terminology.hl7.org/ValueSet/v3-PurposeOfUse, 3.0.0), and the
/// word for none.
const PURPOSES: &[&str] = &[
    "NONE",
    "HMARKT",
    "HOPERAT",
    "CAREMGT",
    "DONAT",
    "FRAUD",
    "GOV",
    "HACCRED",
    "HCOMPL",
    "HDECD",
    "HDIRECT",
    "HDM",
    "HLEGAL",
    "HOUTCOMS",
    "HPRGRP",
    "HQUALIMP",
    "HSYSADMIN",
    "LABELING",
    "METAMGT",
    "MEMADMIN",
    "MILCDM",
    "PATADMIN",
    "PATSFTY",
    "PERFMSR",
    "RECORDMGT",
    "SYSDEV",
    "HTEST",
    "TRAIN",
    "HPAYMT",
    "CLMATTCH",
    "COVAUTH",
    "COVERAGE",
    "ELIGDTRM",
    "ELIGVER",
    "ENROLLM",
    "MILDCRG",
    "REMITADV",
    "HRESCH",
    "BIORCH",
    "CLINTRCH",
    "CLINTRCHNPC",
    "CLINTRCHPC",
    "PRECLINTRCH",
    "DSRCH",
    "POARCH",
    "TRANSRCH",
    "PATRQT",
    "FAMRQT",
    "PWATRNY",
    "SUPNWK",
    "PUBHLTH",
    "DISASTER",
    "THREAT",
    "TREAT",
    "CLINTRL",
    "COC",
    "ETREAT",
    "BTG",
    "ERTREAT",
    "POPHLTH",
];
