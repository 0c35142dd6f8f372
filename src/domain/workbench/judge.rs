//! What comes of a case: the decision a request would meet, beside the one that is expected.
//!
//! Owns: the comparison, in words that say which policy it was. Must never: decide; `access` and `filter` do.
//! Look next: `case`; `coverage`, which counts what passed.

use super::case::{Case, Subject};
use super::record::{self, Records};
use crate::domain::access::{Disclosure, PolicySet, RecordDenial, Rehearsal, Relation, Relations, Situation};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use crate::domain::filter::Document;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One thing that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `decision`, an element path, or a policy id.
    pub about: String,
    /// What the case expects.
    pub expected: String,
    /// What is so, and by which policy.
    pub got: String,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is not as expected; empty: it passed.
    pub findings: Vec<Finding>,
    /// It is permitted.
    pub permitted: bool,
    /// The policies that permit, or the forbids that hold.
    pub policies: Vec<String>,
    /// The forbids because of which the elements are withheld that the case names.
    pub withheld_by: BTreeSet<String>,
    /// The type of the record.
    pub resource: Option<ResourceType>,
}

impl Verdict {
    fn unasked(about: &str, got: String) -> Self {
        let finding = Finding { about: about.to_owned(), expected: "a record to ask about".to_owned(), got };
        Self {
            findings: vec![finding],
            permitted: false,
            policies: Vec::new(),
            withheld_by: BTreeSet::new(),
            resource: None,
        }
    }

    /// Nothing is other than expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Judges a case.
#[must_use]
pub fn judge(policies: &Arc<PolicySet>, records: &Records, case: &Case) -> Verdict {
    let judged = case
        .with_record(records, |facts, document| Asked::new(policies, case, facts).compare(facts, document));
    judged.unwrap_or_else(|(about, got)| Verdict::unasked(&about, got))
}

/// The decision about some record of a type, as the case tells of it.
#[cfg(feature = "prove")]
pub(super) fn decision(
    policies: &Arc<PolicySet>,
    case: &Case,
    resource: ResourceType,
) -> Result<Disclosure, RecordDenial> {
    let facts = case.facts_of(resource);
    Asked::new(policies, case, &facts).outcome(&facts)
}

impl Case {
    /// The record that it is about: its facts with all that the case tells, and the record itself where there is one.
    ///
    /// # Errors
    /// What it should be about, and why there is no such record.
    pub(super) fn with_record<T>(
        &self,
        records: &Records,
        then: impl FnOnce(&Facts, Option<&Document<'_>>) -> T,
    ) -> Result<T, (String, String)> {
        let name = match &self.subject {
            Subject::Record(name) => name,
            Subject::Type(resource) => {
                return Ok(then(&self.facts_of(*resource), None));
            }
        };
        let wrong = |what: &str| (name.clone(), what.to_owned());
        let json = records.by_name(name);
        let json =
            json.ok_or_else(|| wrong("there is no such record in tests/records, nor a built-in one"))?;
        let document = record::open(json).map_err(|message| (name.clone(), message))?;
        let facts = document.facts_with_content(0).ok_or_else(|| wrong("its facts cannot be read"))?;
        Ok(then(&self.add_to(facts), Some(&document)))
    }

    /// The facts of some record of a type.
    fn facts_of(&self, resource: ResourceType) -> Facts {
        let patients = self.told.patients.clone().unwrap_or_else(|| match belongs_to_patients(resource) {
            true => vec!["example".to_owned()],
            false => Vec::new(),
        });
        record::outline(self.add_to(Facts::of_type(resource)), &patients)
    }

    /// The facts of a record with what the case tells beside.
    fn add_to(&self, mut facts: Facts) -> Facts {
        let told = &self.told;
        facts.labels.extend(told.labels.iter().cloned());
        if !told.without_labels.is_empty() {
            let stays = |label: &&String| !told.without_labels.iter().any(|gone| is_label(label, gone));
            let left: BTreeSet<String> = facts.labels.iter().filter(stays).cloned().collect();
            facts.labels = left.into();
        }
        facts.category.extend(told.category.iter().cloned());
        facts.code.extend(told.code.iter().cloned());
        if told.status.is_some() {
            facts.status.clone_from(&told.status);
        }
        facts
    }

    pub(super) fn situation(&self, facts: &Facts) -> Situation {
        let told = &self.told;
        let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        let mut situation = Situation::rehearsal(&roles, &self.purpose);
        let first = facts.patients.iter().next().map(String::as_str).unwrap_or_default();
        if let Some(user) = &told.user {
            situation = situation.with_fhir_user(user);
        } else if told.relations.contains(&Relation::Own) {
            situation = situation.with_fhir_user(&format!("Patient/{first}"));
        } else if told.relations.iter().any(|relation| relation.needs_fhir_user()) {
            situation = situation.with_fhir_user("Practitioner/example");
        }
        if told.relations.contains(&Relation::Launch) {
            situation = situation.with_launch_patient(first);
        }
        if told.emergency {
            situation = situation.with_emergency(first, "rehearsed");
        }
        if let Some(application) = &told.application {
            situation = situation.with_application(application);
        }
        if told.client {
            situation = situation.without_person();
        }
        if let Some(network) = told.network {
            situation = situation.with_network(network);
        }
        if let Some(seconds) = told.factor_age_seconds {
            situation = situation.with_age_seconds(seconds);
        }
        if told.methods.is_some() || told.phishing_resistant.is_some() {
            let methods = told.methods.clone().unwrap_or_else(|| vec!["mfa".to_owned()]);
            let resistant = told.phishing_resistant.unwrap_or(false);
            situation = situation.with_methods(methods.into_iter().collect(), resistant);
        }
        match self.operation {
            Some(operation) => situation.with_operation(operation),
            None => situation,
        }
    }
}

/// A bare code is the code of any system.
fn is_label(label: &str, gone: &str) -> bool {
    label == gone || label.rsplit_once('|').is_some_and(|(_, code)| code == gone)
}

/// A case with whom it is asked for.
pub(super) struct Asked<'c> {
    case: &'c Case,
    pub(super) rehearsal: Rehearsal,
    pub(super) known: Relations,
}

/// What a request would meet.
pub(super) struct Met {
    /// What policy says.
    pub outcome: Result<Disclosure, RecordDenial>,
    /// The record leaves under it; false where the filter would withhold it whole.
    pub leaves: bool,
    /// The forbids because of which it is refused.
    pub objections: Vec<String>,
}

impl<'c> Asked<'c> {
    pub(super) fn new(policies: &Arc<PolicySet>, case: &'c Case, facts: &Facts) -> Self {
        let mut known = Relations::none();
        for relation in case.told.relations.iter().filter(|relation| relation.is_looked_up()) {
            facts.patients.iter().for_each(|patient| known.note(patient, *relation));
        }
        Self { case, rehearsal: Rehearsal::new(policies, &case.situation(facts)), known }
    }

    pub(super) fn outcome(&self, facts: &Facts) -> Result<Disclosure, RecordDenial> {
        let trial = self.rehearsal.judge(&self.case.action, facts, &self.known);
        trial.map_or(Err(RecordDenial::NotAsked), |trial| trial.outcome)
    }

    /// What a request would meet; `None` when there is no such action.
    pub(super) fn met(&self, facts: &Facts, document: Option<&Document<'_>>) -> Option<Met> {
        let action = self.case.action.as_str();
        let trial = self.rehearsal.judge(action, facts, &self.known)?;
        let shows = !matches!(action, "create" | "update" | "patch" | "delete" | "operate");
        let leaves = match (&trial.outcome, document) {
            (Ok(first), Some(document)) if shows => {
                let others = document.records().iter().skip(1).map(|record| self.outcome(&record.facts));
                let decided: Vec<_> = std::iter::once(Ok(first.clone())).chain(others).collect();
                record::goes_out(document, &decided)
            }
            _ => true,
        };
        Some(Met { outcome: trial.outcome, leaves, objections: trial.objections })
    }

    fn compare(&self, facts: &Facts, document: Option<&Document<'_>>) -> Verdict {
        let case = self.case;
        let mut verdict = Verdict {
            findings: Vec::new(),
            permitted: false,
            policies: Vec::new(),
            withheld_by: BTreeSet::new(),
            resource: Some(facts.resource_type),
        };
        let Some(met) = self.met(facts, document) else {
            return Verdict::unasked(&case.action, "no such action".to_owned());
        };
        let got = match (&met.outcome, met.leaves) {
            (Ok(disclosure), true) => {
                verdict.permitted = true;
                verdict.policies = disclosure.policies().to_vec();
                if case.permit {
                    verdict.findings.extend(self.elements(facts, disclosure.mask()));
                    verdict.withheld_by = self.withheld_by(facts);
                }
                format!("permit, by {}", listed(disclosure.policies()))
            }
            (Ok(_), false) => {
                "deny: a modifier element would be left out, so the record is withheld whole".to_owned()
            }
            (Err(denial), _) => {
                verdict.policies = met.objections;
                match verdict.policies.is_empty() {
                    true => format!("deny: {denial}; no policy permits it"),
                    false => format!("deny, by {}", listed(&verdict.policies)),
                }
            }
        };
        if verdict.permitted != case.permit {
            let expected = if case.permit { "permit" } else { "deny" }.to_owned();
            verdict.findings.push(Finding { about: "decision".to_owned(), expected, got });
        }
        let decides = |id: &&String| verdict.policies.contains(*id) || verdict.withheld_by.contains(*id);
        let absent: Vec<String> = case.by.iter().filter(|id| !decides(id)).cloned().collect();
        for id in absent {
            verdict.findings.push(Finding {
                about: id,
                expected: "to be among those that decide".to_owned(),
                got: listed(&verdict.policies),
            });
        }
        verdict
    }

    fn elements(&self, facts: &Facts, mask: &Mask) -> Vec<Finding> {
        let kept = mask.kept();
        let mut findings = Vec::new();
        for path in &self.case.visible {
            if !covers(mask, path) {
                let got = match below(path, &kept) {
                    parts if parts.is_empty() => format!("withheld: {}", self.why(facts, path)),
                    parts => format!("only {}", some(&parts)),
                };
                findings.push(Finding { about: path.to_string(), expected: "visible".to_owned(), got });
            }
        }
        for path in &self.case.withheld {
            let parts = below(path, &kept);
            if mask.covers(path) || !parts.is_empty() {
                let got = if parts.is_empty() { "visible".to_owned() } else { some(&parts) };
                findings.push(Finding { about: path.to_string(), expected: "withheld".to_owned(), got });
            }
        }
        findings
    }

    fn withheld_by(&self, facts: &Facts) -> BTreeSet<String> {
        let action = &self.case.action;
        let paths = self.case.withheld.iter();
        paths.flat_map(|path| self.rehearsal.objections(action, facts, &self.known, path)).collect()
    }

    fn why(&self, facts: &Facts, path: &ElementPath) -> String {
        let action = &self.case.action;
        match self.rehearsal.objections(action, facts, &self.known, path) {
            none if none.is_empty() => "no policy permits it".to_owned(),
            forbids => format!("by {}", listed(&forbids)),
        }
    }
}

/// A type covers what it covers in a policy: every element but the record's own extensions.
pub(super) fn covers(mask: &Mask, path: &ElementPath) -> bool {
    let resource = path.resource_type();
    if path.as_str() != resource.name() {
        return mask.covers(path);
    }
    let elements = r4::elements(r4::root(resource)).iter().filter(|element| element.name != "extension");
    // A content reference has no path of its own: it is decided where it leads.
    let mut paths =
        elements.filter_map(|element| ElementPath::parse(&format!("{path}.{}", element.name)).ok());
    paths.all(|path| mask.covers(&path))
}

/// The first of many.
fn some(paths: &[String]) -> String {
    let first: Vec<&str> = paths.iter().take(SHOWN).map(String::as_str).collect();
    match paths.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// How many paths a finding names.
const SHOWN: usize = 8;

/// What is kept in an element that is not kept whole.
pub(super) fn below(path: &ElementPath, kept: &[String]) -> Vec<String> {
    let inside = |one: &&String| {
        one.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('('))
    };
    kept.iter().filter(inside).cloned().collect()
}

fn listed(policies: &[String]) -> String {
    let quoted: BTreeSet<String> = policies.iter().map(|id| format!("`{id}`")).collect();
    if quoted.is_empty() { "no policy".to_owned() } else { quoted.into_iter().collect::<Vec<_>>().join(", ") }
}

pub(super) fn belongs_to_patients(resource: ResourceType) -> bool {
    resource.name() == "Patient" || !r4::patient_compartment(resource).is_empty()
}
