//! A test case: who asks, for what, about which record, and what should come of it.
//!
//! Owns: the form of `policies/tests/*.toml`, and every problem with one. One entry may stand for several cases: lists
//! of roles, purposes, actions and types are taken each by each. Must never: guess; an unknown word is a problem.
//! Look next: `judge`; docs/policies.md, which explains the form to those who write it.

use crate::domain::access::{Problem, Relation, Source};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::limits;
use serde::Deserialize;
use std::net::IpAddr;
use toml::Spanned;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A record by its name: a file of `tests/records`, or a built-in example.
    Record(String),
    /// Some record of a type, of which the case tells what matters.
    Type(ResourceType),
}

/// One question with the answer that is expected.
#[derive(Clone, Debug)]
pub struct Case {
    /// File name as in [`Source::name`].
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What it is about, in words.
    pub name: String,
    /// The caller's roles.
    pub roles: Vec<String>,
    /// Purpose of use.
    pub purpose: String,
    /// The action by its name in the schema.
    pub action: String,
    /// With `operate`: which.
    pub operation: Option<&'static str>,
    /// What is asked about.
    pub subject: Subject,
    /// Whether it should be permitted.
    pub permit: bool,
    /// Elements that should pass, wholly.
    pub visible: Vec<ElementPath>,
    /// Elements of which nothing should pass.
    pub withheld: Vec<ElementPath>,
    /// Policies that should be among those that decide.
    pub by: Vec<String>,
    /// What else it tells.
    pub told: Told,
}

impl Case {
    /// Who asks for what, in one line.
    #[must_use]
    pub fn asked(&self) -> String {
        let subject = match &self.subject {
            Subject::Record(name) => format!("the record `{name}`"),
            Subject::Type(resource) => format!("some {}", resource.name()),
        };
        let action = self.operation.unwrap_or(&self.action);
        format!("{}, for {}: {action} of {subject}", self.roles.join(" and "), self.purpose)
    }
}

/// What else the case tells: of the caller, and of the record beside what stands in it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// How the caller stands to the patients.
    pub relations: Vec<Relation>,
    /// The caller's `fhirUser`.
    pub user: Option<String>,
    /// Emergency access to the patient was granted.
    pub emergency: bool,
    /// The client's id.
    pub application: Option<String>,
    /// The client asks for itself, with nobody behind it; roles are people's.
    pub client: bool,
    /// The caller's address.
    pub network: Option<IpAddr>,
    /// How long ago the second factor was proven, in seconds.
    pub factor_age_seconds: Option<i64>,
    /// Its methods.
    pub methods: Option<Vec<String>>,
    /// Whether it resists phishing.
    pub phishing_resistant: Option<bool>,
    /// Whom the record is about, for some record of a type.
    pub patients: Option<Vec<String>>,
    /// Security labels besides.
    pub labels: Vec<String>,
    /// Security labels that are taken off the record.
    pub without_labels: Vec<String>,
    /// The record's status.
    pub status: Option<String>,
    /// Categories besides.
    pub category: Vec<String>,
    /// Codes besides.
    pub code: Vec<String>,
}

impl Told {
    /// It tells of the record, or of how the caller stands to it: then a type is asked about as some record.
    #[must_use]
    pub fn is_of_record(&self) -> bool {
        !self.relations.is_empty()
            || self.emergency
            || self.patients.is_some()
            || !self.labels.is_empty()
            || !self.without_labels.is_empty()
            || self.status.is_some()
            || !self.category.is_empty()
            || !self.code.is_empty()
    }
}

/// Operations that a case may name.
pub const OPERATIONS: [&str; 6] =
    ["$validate", "$everything", "$lastn", "$expand", "$lookup", "$break-glass"];

/// Actions that a case may name.
pub const ACTIONS: [&str; 10] =
    ["read", "vread", "history", "search", "create", "update", "patch", "delete", "operate", "export"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: String,
    role: Few,
    #[serde(default)]
    also_role: Few,
    purpose: Few,
    #[serde(default)]
    action: Few,
    operation: Option<String>,
    record: Option<Few>,
    #[serde(default, rename = "type")]
    types: Few,
    expect: String,
    #[serde(default)]
    visible: Few,
    #[serde(default)]
    withheld: Few,
    #[serde(default)]
    by: Few,
    #[serde(default)]
    relation: Few,
    user: Option<String>,
    #[serde(default)]
    emergency: bool,
    application: Option<String>,
    #[serde(default)]
    client: bool,
    network: Option<IpAddr>,
    second_factor_age: Option<String>,
    second_factor: Option<Vec<String>>,
    phishing_resistant: Option<bool>,
    patient: Option<Few>,
    #[serde(default)]
    labels: Few,
    status: Option<String>,
    #[serde(default)]
    category: Few,
    #[serde(default)]
    code: Few,
}

/// One word or a list of them.
#[derive(Deserialize, Clone, Default)]
#[serde(untagged)]
enum Few {
    #[default]
    None,
    One(String),
    Some(Vec<String>),
}

impl Few {
    fn words(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(word) => vec![word.clone()],
            Self::Some(words) => words.clone(),
        }
    }
}

/// Reads a file of cases.
///
/// # Errors
/// Every problem with it.
pub fn read_cases(source: &Source) -> Result<Vec<Case>, Vec<Problem>> {
    let file: File = toml::from_str(&source.text)
        .map_err(|error| vec![source.problem(error.span().map_or(0, |span| span.start), error.message())])?;
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for raw in file.case {
        let at = source.problem(raw.span().start, "");
        let mut wrong = |message: String| problems.push(Problem { message, ..at.clone() });
        let found = expand(raw.get_ref(), &at, &mut wrong);
        cases.extend(found);
    }
    if cases.len() > limits::POLICY_CASES_MAX {
        problems.push(source.problem(0, format!("more than {} cases", limits::POLICY_CASES_MAX)));
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
}

/// The cases that one entry stands for.
fn expand(raw: &Raw, at: &Problem, wrong: &mut dyn FnMut(String)) -> Vec<Case> {
    let subjects = subjects(raw, wrong);
    let actions = match raw.action.words() {
        none if none.is_empty() => vec!["read".to_owned()],
        some => some,
    };
    for action in actions.iter().filter(|action| !ACTIONS.contains(&action.as_str())) {
        wrong(format!("there is no action `{action}`: {}", ACTIONS.join(", ")));
    }
    let operation = raw.operation.as_deref().and_then(|name| {
        let known = OPERATIONS.into_iter().find(|known| *known == name);
        if known.is_none() {
            wrong(format!("there is no operation `{name}`: {}", OPERATIONS.join(", ")));
        }
        known
    });
    if actions.iter().any(|action| action == "operate") != operation.is_some() {
        wrong("`action = \"operate\"` and `operation` go together".to_owned());
    }
    let permit = raw.expect == "permit";
    if !permit && raw.expect != "deny" {
        wrong("`expect` is \"permit\" or \"deny\"".to_owned());
    }
    let names_elements = !raw.visible.words().is_empty() || !raw.withheld.words().is_empty();
    if names_elements && !permit {
        wrong("what is denied has nothing visible or withheld".to_owned());
    }
    let (visible, withheld) = (paths(&raw.visible.words(), wrong), paths(&raw.withheld.words(), wrong));
    let told = told(raw, wrong);
    let (roles, purposes) = (raw.role.words(), raw.purpose.words());
    if roles.is_empty() || purposes.is_empty() {
        wrong("`role` and `purpose` name one at least".to_owned());
    }
    let mut cases = Vec::new();
    for subject in &subjects {
        let of =
            |paths: &[ElementPath]| paths.iter().filter(|path| speaks_of(path, subject)).cloned().collect();
        let asked = roles.iter().flat_map(|role| purposes.iter().map(move |purpose| (role, purpose)));
        for ((role, purpose), action) in asked.flat_map(|who| actions.iter().map(move |action| (who, action)))
        {
            cases.push(Case {
                file: at.file.clone(),
                line: at.line,
                name: raw.name.clone(),
                roles: std::iter::once(role.clone()).chain(raw.also_role.words()).collect(),
                purpose: purpose.clone(),
                action: action.clone(),
                operation,
                subject: subject.clone(),
                permit,
                visible: of(&visible),
                withheld: of(&withheld),
                by: raw.by.words(),
                told: told.clone(),
            });
        }
    }
    cases
}

fn subjects(raw: &Raw, wrong: &mut dyn FnMut(String)) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    subjects.extend(raw.record.iter().flat_map(Few::words).map(Subject::Record));
    for name in raw.types.words() {
        match ResourceType::from_name(&name) {
            Some(resource) => subjects.push(Subject::Type(resource)),
            None if name == "*" => subjects.extend(ResourceType::all().map(Subject::Type)),
            None => wrong(format!("`{name}` is no R4 resource type")),
        }
    }
    if subjects.is_empty() {
        wrong("say what is asked about: `record = \"…\"` or `type = \"…\"`".to_owned());
    }
    let tells_facts = raw.status.is_some() || raw.patient.is_some();
    if tells_facts && raw.record.is_some() {
        wrong("`status` and `patient` stand in the record itself".to_owned());
    }
    subjects
}

fn told(raw: &Raw, wrong: &mut dyn FnMut(String)) -> Told {
    let mut relations = Vec::new();
    for name in raw.relation.words() {
        match Relation::from_name(&name) {
            Some(relation) => relations.push(relation),
            None => wrong(format!(
                "there is no relation `{name}`: {}",
                Relation::ALL.map(Relation::name).join(", ")
            )),
        }
    }
    if raw.client && raw.application.is_none() {
        wrong("`client = true` goes with `application`, its id".to_owned());
    }
    let age = raw.second_factor_age.as_deref();
    if age.is_some_and(|age| seconds(age).is_none()) {
        wrong("`second-factor-age` is a time such as \"5m\", \"13h\" or \"2d\"".to_owned());
    }
    Told {
        relations,
        user: raw.user.clone(),
        emergency: raw.emergency,
        application: raw.application.clone(),
        client: raw.client,
        network: raw.network,
        factor_age_seconds: age.and_then(seconds),
        methods: raw.second_factor.clone(),
        phishing_resistant: raw.phishing_resistant,
        patients: raw.patient.as_ref().map(Few::words),
        labels: raw.labels.words(),
        without_labels: Vec::new(),
        status: raw.status.clone(),
        category: raw.category.words(),
        code: raw.code.words(),
    }
}

fn paths(texts: &[String], wrong: &mut dyn FnMut(String)) -> Vec<ElementPath> {
    let mut paths = Vec::new();
    for text in texts {
        match ElementPath::parse(text) {
            Ok(path) => paths.push(path),
            Err(error) => wrong(error.to_string()),
        }
    }
    paths
}

/// A case about several types says of each what concerns it; of a record it is known only later.
fn speaks_of(path: &ElementPath, subject: &Subject) -> bool {
    match subject {
        Subject::Type(resource) => path.resource_type() == *resource,
        Subject::Record(_) => true,
    }
}

/// `90s`, `5m`, `13h`, `2d`, in seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|number| i64::from(number) * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Case>, Vec<Problem>> {
        read_cases(&Source { name: "t.toml".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn lists_are_taken_each_by_each() {
        let cases = read(
            "\n[[case]]\nname = \"n\"\nrole = \"nurse\"\npurpose = [\"TREAT\", \"ETREAT\"]\naction = [\"read\", \"search\"]\n\
             type = [\"Patient\", \"Observation\"]\nexpect = \"permit\"\nvisible = [\"Patient.name\"]\n\
             second-factor-age = \"13h\"\n",
        )
        .unwrap();
        assert_eq!(cases.len(), 8);
        assert!(cases.iter().all(|case| case.line == 2 && case.told.factor_age_seconds == Some(46_800)));
        let visible: usize = cases.iter().map(|case| case.visible.len()).sum();
        assert_eq!(visible, 4, "a path is asked of its own type");
    }

    /// Each slip, and what it is told.
    #[test]
    fn slips_are_problems() {
        let whole = "[[case]]\nname = \"n\"\nrole = \"nurse\"\npurpose = \"TREAT\"\ntype = \"Patient\"\nexpect = \"permit\"\n";
        assert_eq!(read(whole).unwrap().len(), 1);
        for (from, to, expected) in [
            ("\"Patient\"", "\"Patiente\"", "no R4 resource type"),
            ("type = \"Patient\"\n", "", "what is asked about"),
            ("\"permit\"", "\"allow\"", "\"permit\" or \"deny\""),
            ("\"permit\"", "\"deny\"\nvisible = [\"Patient.name\"]", "nothing visible"),
            ("\"permit\"", "\"permit\"\nvisible = [\"Patient.nam\"]", "nam"),
            ("\"permit\"", "\"permit\"\nrelation = \"careteam\"", "care-team"),
            ("\"permit\"", "\"permit\"\nsecond-factor-age = \"soon\"", "second-factor-age"),
            ("\"permit\"", "\"permit\"\nclient = true", "goes with `application`"),
            ("\"permit\"", "\"permit\"\naction = \"see\"", "no action `see`"),
            ("\"permit\"", "\"permit\"\naction = \"operate\"", "go together"),
            ("\"permit\"", "\"permit\"\noperation = \"$purge\"", "no operation"),
            ("\"permit\"", "\"permit\"\nexpects = 1", "expects"),
            ("role = \"nurse\"", "role = []", "one at least"),
        ] {
            let problems = read(&whole.replace(from, to)).unwrap_err();
            assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{to}: {problems:?}");
        }
    }
}
