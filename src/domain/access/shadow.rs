//! What a candidate set would say of the questions that the set in force answers (T-214).
//!
//! Owns: asking both the same question of the same caller in the same situation, and what is different.
//! Must never: give anything that lets a record out: a comparison is neither a permit nor a disclosure.
//! Look next: `workbench::Tally`, which counts; `gateway::shadow`, which asks beside the requests.

use super::admit::admit;
use super::masks::{Desk, Masks};
use super::permit::Permit;
use super::set::PolicySet;
use super::situation::Circumstances;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::mask::Mask;
use crate::domain::identity::Caller;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A candidate set with the decisions it made so far.
pub struct Candidate {
    set: Arc<PolicySet>,
    masks: Masks,
}

/// One question put to both sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The caller's roles.
    pub roles: BTreeSet<String>,
    /// FHIR's code of the interaction, or for a record the action it was judged by.
    pub asked: &'static str,
    /// The resource type, if it is about one.
    pub resource: &'static str,
    /// The set in force permits it.
    pub before: bool,
    /// The candidate permits it.
    pub after: bool,
    /// Elements of the record that the candidate shows and the set in force does not, or not wholly.
    pub gained: Vec<String>,
    /// Elements that the set in force shows and the candidate does not, or not wholly.
    pub lost: Vec<String>,
    /// Policies of either set that decided, where something is different.
    pub policies: BTreeSet<String>,
    /// The candidate asks for relations that nobody looked up: what it would say is not known.
    pub unknown: bool,
}

impl Comparison {
    /// Whether the two say different things.
    #[must_use]
    pub fn is_different(&self) -> bool {
        !self.unknown && (self.before != self.after || !self.gained.is_empty() || !self.lost.is_empty())
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("set", &self.set).finish_non_exhaustive()
    }
}

impl Candidate {
    /// A candidate that was asked nothing yet.
    #[must_use]
    pub fn new(set: Arc<PolicySet>) -> Self {
        Self { set, masks: Masks::new() }
    }

    /// [`PolicySet::hash`].
    #[must_use]
    pub fn hash(&self) -> &str {
        self.set.hash()
    }

    /// May this be asked? `before`: what the set in force said, and by which policies. None for what no set decides.
    #[must_use]
    pub fn question(
        &self,
        caller: &Caller,
        question: &Interaction,
        circumstances: &Circumstances,
        (before, by): (bool, &[String]),
    ) -> Comparison {
        let outcome = admit(&self.set, &self.masks, caller, question, circumstances);
        let mut comparison = Comparison {
            roles: caller.roles().clone(),
            asked: question.code(),
            resource: question.resource_type().map_or("", |resource| resource.name()),
            before,
            after: outcome.is_ok(),
            ..Comparison::default()
        };
        if comparison.is_different() {
            comparison.policies.extend(by.iter().cloned());
            comparison.policies.extend(outcome.iter().flat_map(|permit| permit.policies()).cloned());
        }
        comparison
    }

    /// What may be seen of a record under a question that was permitted.
    #[must_use]
    pub fn record(&self, permit: &Permit, facts: &Facts, container: Option<&Facts>) -> Comparison {
        let situation = &permit.desk.situation;
        let desk = Desk::new(Arc::clone(&self.set), self.masks.clone(), situation.clone());
        let beside = Permit { desk: Arc::new(desk), ..permit.clone() };
        let (before, after) = (permit.record(facts, container), beside.record(facts, container));
        let mut comparison = Comparison {
            roles: situation.who.roles.clone(),
            asked: permit.shown_by.name(),
            resource: facts.resource_type.name(),
            before: before.is_ok(),
            after: after.is_ok(),
            unknown: !beside.looks_up().is_subset(&permit.looks_up()),
            ..Comparison::default()
        };
        let mask = |outcome: &Result<super::Disclosure, _>| match outcome {
            Ok(disclosure) => Arc::clone(disclosure.mask()),
            Err(_) => Arc::new(Mask::new(facts.resource_type, [])),
        };
        let (shown, would) = (mask(&before), mask(&after));
        // Most records: the same mask by the same policies.
        let (of_shown, of_would) = (shown.kept(), would.kept());
        if of_shown != of_would {
            comparison.gained = beyond(&of_would, &shown);
            comparison.lost = beyond(&of_shown, &would);
        }
        if comparison.is_different() {
            let by = [&before, &after].into_iter().flatten().flat_map(super::Disclosure::policies);
            comparison.policies.extend(by.cloned());
        }
        comparison
    }
}

/// The paths that a mask does not let pass wholly.
fn beyond(paths: &[String], mask: &Mask) -> Vec<String> {
    let passes = |path: &&String| {
        crate::domain::fhir::r4::ElementPath::parse(path).is_ok_and(|path| !mask.covers(&path))
    };
    paths.iter().filter(passes).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;
    use crate::domain::fhir::r4::ResourceType;
    use crate::domain::identity::specimen::CallerSpecimen;
    use jiff::Timestamp;
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    fn set(elements: &str, types: &str) -> Arc<PolicySet> {
        let text = format!(
            "@id(\"read\") permit(principal in Role::\"nurse\", action == Action::\"read\", resource is FHIR::{types});
             @id(\"show\") permit(principal in Role::\"nurse\", action == Action::\"disclose\", resource in [{elements}]);"
        );
        Arc::new(PolicySet::load(&[Source { name: "a.cedar".into(), text }], None, None).unwrap())
    }

    fn patient() -> Facts {
        let mut facts = Facts::of_type(ResourceType::from_name("Patient").unwrap());
        facts.id = Some("p1".to_owned());
        facts.patients.insert("p1".to_owned());
        facts
    }

    fn asked(text: &str) -> Interaction {
        use crate::domain::fhir::classify::{Head, classify};
        use crate::domain::fhir::interaction::Registry;
        use crate::domain::fhir::path::PublicBase;
        let request =
            http::Request::get(format!("/fhir/{text}")).header("host", "h.example").body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let public = PublicBase::parse("https://h.example/fhir").unwrap();
        classify(&Head::received(&parts), None, &public, &Registry::empty()).unwrap().interaction
    }

    #[test]
    fn both_are_asked_the_same_and_what_differs_is_named() {
        let name = "FHIR::Element::\"Patient.id\", FHIR::Element::\"Patient.active\", FHIR::Element::\"Patient.name\"";
        let birth = name.replace("Patient.name", "Patient.birthDate");
        let caller = CallerSpecimen::with_roles(&["nurse"]).caller();
        let circumstances = Circumstances {
            now: Timestamp::from_second(1_767_225_700).unwrap(),
            network: IpAddr::V4(Ipv4Addr::LOCALHOST),
            purpose: Some("TREAT".to_owned()),
            emergencies: BTreeMap::new(),
        };
        let question = asked("Patient/p1");
        let permit = admit(&set(name, "Patient"), &Masks::new(), &caller, &question, &circumstances).unwrap();
        let against = |candidate: Arc<PolicySet>| {
            let candidate = Candidate::new(candidate);
            let by = permit.policies();
            (
                candidate.question(&caller, &question, &circumstances, (true, by)),
                candidate.record(&permit, &patient(), None),
            )
        };
        let (same, record) = against(set(name, "Patient"));
        assert!(!same.is_different() && !record.is_different(), "{record:?}");
        assert!(same.policies.is_empty() && record.policies.is_empty());
        let (same, record) = against(set(&birth, "Patient"));
        assert!(!same.is_different() && record.is_different());
        assert_eq!(
            (record.gained, record.lost),
            (vec!["Patient.birthDate".to_owned()], vec!["Patient.name".to_owned()])
        );
        assert_eq!(record.policies, ["read", "show"].map(str::to_owned).into());
        let (question, record) = against(set(name, "Observation"));
        assert!(question.before && !question.after && question.is_different());
        assert!(record.before && !record.after && record.gained.is_empty() && record.lost.len() == 3);
        assert_eq!((question.asked, question.resource), ("read", "Patient"));
    }
}
