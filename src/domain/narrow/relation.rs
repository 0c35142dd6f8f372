//! What the EMR is asked, with the gate's own credential, about how a caller stands to patients.
//!
//! Owns: the searches for each relation, for all patients of a page together. They find candidates only: what a record
//! proves is for `access` to say. Must never: put anything into a query that is not a logical id, a fixed word or a
//! time of ours.
//! Look next: `domain::access::relation`, the rules of proof; `gateway::relations`, which sends these.
//!
//! Search parameters by R4: careteam.html, encounter.html, appointment.html, practitionerrole.html, patient.html,
//! relatedperson.html, consent.html.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::{Expected, FORM, Plan, STRICT};
use crate::domain::access::{Party, Relation, Windows};
use crate::domain::fhir::interaction::is_id;
use crate::domain::fhir::r4::ResourceType;
use crate::limits::{RELATION_PATIENTS_MAX, RELATION_RECORDS_MAX, UPSTREAM_QUERY_BYTES_MAX};

/// One search: what it is for and what to send.
pub struct Look {
    /// The relation that what it finds may prove.
    pub relation: Relation,
    /// For these patients, logical ids.
    pub patients: Vec<String>,
    /// The search.
    pub plan: Plan,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").field("relation", &self.relation).finish_non_exhaustive()
    }
}

/// The search for the roles in which a practitioner acts; none for others.
#[must_use]
pub fn plan_roles(party: &Party) -> Option<Plan> {
    let criterion = match party.user().split_once('/')? {
        ("Practitioner", _) => format!("practitioner={}", party.user()),
        ("PractitionerRole", id) => format!("_id={id}"),
        _ => return None,
    };
    search("PractitionerRole", &criterion)
}

/// The searches for these relations, each with the patients it is asked about, in bounded steps.
#[must_use]
pub fn plan_relations(
    party: &Party,
    wanted: &BTreeMap<Relation, BTreeSet<String>>,
    now: Timestamp,
    windows: Windows,
) -> Vec<Look> {
    let all = wanted.iter().flat_map(|(relation, patients)| {
        in_steps(*relation, patients, |ids| searches(party, *relation, ids, now, windows))
    });
    all.collect()
}

/// The searches for the active Consents of these patients, in bounded steps.
#[must_use]
pub fn plan_consents(patients: &BTreeSet<String>) -> Vec<Look> {
    let searches =
        |ids: &str| search("Consent", &format!("patient={ids}&status=active")).into_iter().collect();
    in_steps(Relation::Consent, patients, searches)
}

fn in_steps(
    relation: Relation,
    patients: &BTreeSet<String>,
    searches: impl Fn(&str) -> Vec<Plan>,
) -> Vec<Look> {
    let patients: Vec<&String> = patients.iter().filter(|id| is_id(id)).collect();
    let mut looks = Vec::new();
    for some in patients.chunks(RELATION_PATIENTS_MAX) {
        let ids = some.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",");
        for plan in searches(&ids) {
            let patients = some.iter().map(|id| (*id).clone()).collect();
            looks.push(Look { relation, patients, plan });
        }
    }
    looks
}

fn searches(party: &Party, relation: Relation, ids: &str, now: Timestamp, windows: Windows) -> Vec<Plan> {
    const PRESENT: &str = "status=planned,arrived,triaged,in-progress,onleave";
    let who = party.names().collect::<Vec<_>>().join(",");
    let since = |window: SignedDuration| format!("date=ge{}", second(now, -window));
    let mut found = Vec::new();
    match relation {
        Relation::Own | Relation::Launch | Relation::NoObjection | Relation::Consent => {}
        Relation::RelatedPerson => {
            let own = party.user().split_once('/').filter(|(kind, _)| *kind == "RelatedPerson");
            found.extend(own.and_then(|(_, id)| search("RelatedPerson", &format!("_id={id}"))));
        }
        Relation::CareTeam => {
            found.extend(search("CareTeam", &format!("patient={ids}&participant={who}&status=active")));
        }
        Relation::Encounter => {
            let theirs = format!("patient={ids}&participant={who}");
            found.extend(search("Encounter", &format!("{theirs}&{PRESENT}")));
            let over = format!("{theirs}&status=finished&{}", since(windows.encounter));
            found.extend(search("Encounter", &over));
        }
        Relation::Appointment => {
            // A day more on either side: an appointment may be long, and an EMR may search by its start alone.
            let day = SignedDuration::from_hours(24);
            let until = format!("date=le{}", second(now, windows.appointment + day));
            let theirs = format!("patient={ids}&actor={who}&status=booked,arrived,checked-in");
            let near = format!("{theirs}&{}&{until}", since(windows.appointment + day));
            found.extend(search("Appointment", &near));
        }
        Relation::Organization => {
            let houses = party.organizations().collect::<Vec<_>>().join(",");
            if !houses.is_empty() {
                found.extend(search("Patient", &format!("_id={ids}")));
                let there = format!("patient={ids}&service-provider={houses}&{PRESENT}");
                found.extend(search("Encounter", &there));
            }
        }
        Relation::GeneralPractitioner => found.extend(search("Patient", &format!("_id={ids}"))),
    }
    found
}

/// A time to the second, as a search has it.
fn second(now: Timestamp, shift: SignedDuration) -> String {
    let at = now.checked_add(shift).unwrap_or(now);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn search(name: &str, query: &str) -> Option<Plan> {
    let resource = ResourceType::from_name(name)?;
    let query = format!("{query}&_count={RELATION_RECORDS_MAX}");
    let mut plan = Plan::get(format!("{name}?{query}"), Expected::Searchset { resource });
    plan.prefer = Some(STRICT);
    if query.len() > UPSTREAM_QUERY_BYTES_MAX {
        plan.method = Method::POST;
        plan.target = format!("{name}/_search");
        plan.body = Some((FORM, Bytes::from(query)));
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(relation: Relation, user: &str, patients: &[&str]) -> Vec<String> {
        let party = Party::new(user).unwrap();
        let patients = patients.iter().map(|id| (*id).to_owned()).collect();
        let windows = Windows {
            encounter: SignedDuration::from_hours(24),
            appointment: SignedDuration::from_hours(12),
        };
        let now = "2026-03-10T12:00:00.5Z".parse().unwrap();
        let looks = plan_relations(&party, &BTreeMap::from([(relation, patients)]), now, windows);
        looks.iter().map(|look| look.plan.path_and_query().to_owned()).collect()
    }

    #[test]
    fn a_page_of_patients_is_asked_about_together() {
        let cases: [(Relation, &str, &[&str]); 7] = [
            (
                Relation::CareTeam,
                "Practitioner/n1",
                &["CareTeam?patient=p1,p2&participant=Practitioner/n1&status=active&_count=200"],
            ),
            (
                Relation::Encounter,
                "PractitionerRole/r1",
                &[
                    "Encounter?patient=p1,p2&participant=PractitionerRole/r1&status=planned,arrived,triaged,\
                 in-progress,onleave&_count=200",
                    "Encounter?patient=p1,p2&participant=PractitionerRole/r1&status=finished&\
                 date=ge2026-03-09T12:00:00Z&_count=200",
                ],
            ),
            (
                Relation::Appointment,
                "Practitioner/n1",
                &["Appointment?patient=p1,p2&actor=Practitioner/n1&status=booked,arrived,checked-in&\
                 date=ge2026-03-09T00:00:00Z&date=le2026-03-12T00:00:00Z&_count=200"],
            ),
            (Relation::GeneralPractitioner, "Practitioner/n1", &["Patient?_id=p1,p2&_count=200"]),
            (Relation::RelatedPerson, "RelatedPerson/m1", &["RelatedPerson?_id=m1&_count=200"]),
            (Relation::RelatedPerson, "Practitioner/n1", &[]),
            (Relation::Organization, "Practitioner/n1", &[]),
        ];
        for (relation, user, expected) in cases {
            assert_eq!(targets(relation, user, &["p1", "p2"]), expected, "{relation:?}");
        }
        assert_eq!(
            targets(Relation::CareTeam, "Practitioner/n1", &["p1&status=x", ".."]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn consents_are_asked_for_by_patient() {
        let patients = ["p1", "p2", "p3&status=x"].map(str::to_owned).into();
        let looks = plan_consents(&patients);
        let found: Vec<&str> = looks.iter().map(|look| look.plan.path_and_query()).collect();
        assert_eq!(found, ["Consent?patient=p1,p2&status=active&_count=200"]);
        assert_eq!(looks[0].patients, ["p1", "p2"]);
    }

    #[test]
    fn a_long_question_is_a_form_and_a_longer_one_several() {
        let ids: Vec<String> =
            (0..RELATION_PATIENTS_MAX + 1).map(|n| format!("patient-number-{n:05}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = targets(Relation::CareTeam, "Practitioner/n1", &ids);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], "CareTeam/_search");
        assert!(found[1].starts_with("CareTeam?patient=patient-number-"), "{found:?}");
    }

    #[test]
    fn roles_are_asked_of_staff_alone() {
        let target =
            |user| plan_roles(&Party::new(user).unwrap()).map(|plan| plan.path_and_query().to_owned());
        assert_eq!(
            target("Practitioner/n1").as_deref(),
            Some("PractitionerRole?practitioner=Practitioner/n1&_count=200")
        );
        assert_eq!(target("PractitionerRole/r1").as_deref(), Some("PractitionerRole?_id=r1&_count=200"));
        assert_eq!(target("RelatedPerson/m1"), None);
    }
}
