//! A made-up hospital: who asks for what, from a number alone, so that nothing has to be kept.
//!
//! Owns: the shape of its records. Must never: hold anything of a real one.
//! Look next: `main`.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use chartgate::domain::audit::{Caller, Decision, Ending, Outcome, Record, Released, Verdict};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// Answers in a day.
pub(crate) const ANSWERS_IN_DAY: u64 = 20_000;
/// People who work there.
const PEOPLE: u64 = 800;

/// The hospital.
#[derive(Debug)]
pub(crate) struct Hospital {
    /// Patients.
    pub(crate) patients: u64,
}

/// Scatters numbers (the finalizer of splitmix64).
fn scatter(number: u64) -> u64 {
    let one = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    two ^ (two >> 31)
}

impl Hospital {
    /// When answer `number` is given.
    pub(crate) fn time(number: u64) -> Timestamp {
        let begin = Timestamp::from_second(1_767_225_600).unwrap_or_default();
        let millis = i64::try_from(number * 86_400_000 / ANSWERS_IN_DAY).unwrap_or_default();
        begin.checked_add(SignedDuration::from_millis(millis)).unwrap_or_default()
    }

    /// The day `days` after the first.
    pub(crate) fn day(days: u64) -> Result<Date, Box<dyn Error>> {
        Ok(Date::constant(2026, 1, 1).checked_add(i64::try_from(days)?.days())?)
    }

    /// A person's subject.
    pub(crate) fn person(number: u64) -> String {
        format!("person-{:04}", scatter(number) % PEOPLE)
    }

    /// A patient's logical id. A few patients have many accesses: the square makes it so.
    pub(crate) fn patient(&self, number: u64) -> String {
        let uniform = scatter(number ^ 0x5bd1) % 1_000_003;
        format!("pat-{:06}", uniform * uniform / 1_000_003 * self.patients / 1_000_003)
    }

    /// A record of the patient of answer `number`.
    pub(crate) fn observation(&self, number: u64) -> String {
        format!("Observation/{}-obs-{}", self.patient(number), scatter(number) % 40)
    }

    /// Of answer `number`.
    pub(crate) fn request_id(number: u64) -> String {
        format!("{:016x}{:016x}", scatter(number), scatter(number ^ 0xffff))
    }

    /// The release and the outcome of one answer.
    pub(crate) fn answer(&self, number: u64) -> [Record; 2] {
        let (time, id, patient) = (Self::time(number), Self::request_id(number), self.patient(number));
        let mut decision = Decision::new(time, id.clone(), Verdict::Permit);
        let roles = ["nurse", "physician", "clerk", "pharmacist"];
        let person = scatter(number) % PEOPLE;
        let role =
            usize::try_from(person % 4).ok().and_then(|place| roles.get(place)).copied().unwrap_or("nurse");
        decision.caller = Some(Caller {
            issuer: "https://idp.hospital.example".to_owned(),
            subject: Self::person(number),
            session: format!("s-{:016x}", scatter(number / 50)),
            token_hash: format!("{:064x}", scatter(number / 50)),
            application: Some(if person.is_multiple_of(3) { "ward-viewer" } else { "chart" }.to_owned()),
            roles: vec![role.to_owned()],
            ..Caller::default()
        });
        decision.purposes = vec![if role == "clerk" { "HPAYMT" } else { "TREAT" }.to_owned()];
        decision.source = Some(format!("10.1.{}.{}", person % 200, person % 250));
        decision.policies = vec![format!("{role}-chart"), "sensitive-labels".to_owned()];
        decision.policy_set = Some(format!("{:064x}", 7));
        decision.status = 200;
        if scatter(number ^ 0xe).is_multiple_of(500) {
            decision.emergencies = vec![format!("grant-{}", number / 40)];
        }
        let mask: Arc<Vec<String>> = Arc::new(
            [
                "Observation.code",
                "Observation.effective",
                "Observation.status",
                "Observation.subject",
                "Observation.value",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        // Half are reads of one record, half are searches.
        let count = if number.is_multiple_of(2) { 1 } else { 5 };
        let reference = |place: u64| match place {
            0 => self.observation(number),
            _ => format!("Observation/{patient}-obs-{}", scatter(number ^ place) % 40),
        };
        (decision.interaction, decision.request) = match count {
            1 => ("read".to_owned(), format!("GET {}", reference(0))),
            _ => (
                "search-type".to_owned(),
                format!("GET Observation?_count=20&category=vital-signs&patient={patient}"),
            ),
        };
        let references: BTreeSet<String> = (0..count).map(reference).collect();
        let release = |reference: String| Released {
            reference,
            version: Some("1".to_owned()),
            patients: BTreeSet::from([patient.clone()]),
            mask: Arc::clone(&mask),
        };
        decision.released = references.into_iter().map(release).collect();
        let ended = time.checked_add(SignedDuration::from_millis(12)).unwrap_or(time);
        let outcome = Outcome {
            time: ended,
            request_id: id,
            entry: None,
            ending: Ending::Complete,
            sent_bytes: Some(2_048),
        };
        [Record::Decision(Box::new(decision)), Record::Outcome(outcome)]
    }
}
