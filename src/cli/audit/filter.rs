//! Which records `chartgate audit search` prints.
//!
//! Owns: what each filter means. Must never: leave a record out that no filter was given against.
//! Look next: `search`, which asks it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::domain::audit::{Decision, Record};

/// Which records to print. An empty filter prints every record.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Records that released or wrote something of this patient: logical id, or `Patient/id`.
    pub patient: Option<String>,
    /// The token's `sub`.
    pub subject: Option<String>,
    /// The token's `iss`.
    pub issuer: Option<String>,
    /// `Type` or `Type/id`: released, written, or named in the request.
    pub resource: Option<String>,
    /// FHIR's code of the interaction.
    pub interaction: Option<String>,
    /// `permit` or `refuse`.
    pub decision: Option<String>,
    /// The refusal code.
    pub reason: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// A time as people write it: RFC 3339, or a date, which means its first moment in UTC.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let date = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(date))
        .map_err(|_| "expected a time such as 2026-03-01T08:00:00Z or a date such as 2026-03-01".to_owned())
}

impl Filter {
    pub(super) fn takes(&self, record: &Record) -> bool {
        let time = record.time();
        let is_in_time =
            self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until);
        let is_in_request = self.request_id.as_deref().is_none_or(|id| record.request_id() == Some(id));
        is_in_time
            && is_in_request
            && match record {
                Record::Intent(decision) | Record::Decision(decision) => self.takes_decision(decision),
                Record::Outcome(_) | Record::Control(_) => self.is_about_anything(),
            }
    }

    /// Whether nothing is asked that only a decision has.
    fn is_about_anything(&self) -> bool {
        let asked = [
            &self.patient,
            &self.subject,
            &self.issuer,
            &self.resource,
            &self.interaction,
            &self.decision,
            &self.reason,
        ];
        asked.iter().all(|asked| asked.is_none())
    }

    fn takes_decision(&self, decision: &Decision) -> bool {
        let is = |asked: &Option<String>, value: Option<&str>| {
            asked.as_deref().is_none_or(|asked| value == Some(asked))
        };
        let caller = decision.caller.as_ref();
        is(&self.subject, caller.map(|caller| caller.subject.as_str()))
            && is(&self.issuer, caller.map(|caller| caller.issuer.as_str()))
            && is(&self.interaction, Some(&decision.interaction))
            && is(&self.decision, Some(decision.verdict.code()))
            && is(&self.reason, decision.reason.as_deref())
            && self.patient.as_deref().is_none_or(|asked| concerns(decision, asked))
            && self.resource.as_deref().is_none_or(|asked| touches(decision, asked))
    }
}

fn concerns(decision: &Decision, patient: &str) -> bool {
    let id = patient.strip_prefix("Patient/").unwrap_or(patient);
    let named = format!("Patient/{id}");
    let is_theirs =
        |reference: &str, patients: &BTreeSet<String>| reference == named || patients.contains(id);
    decision.released.iter().any(|item| is_theirs(&item.reference, &item.patients))
        || decision.written.iter().any(|item| is_theirs(&item.reference, &item.patients))
        || names(&decision.request, &named)
        || ["patient", "subject"].iter().any(|name| names(&decision.request, &format!("{name}={id}")))
}

fn touches(decision: &Decision, resource: &str) -> bool {
    let is_it = |reference: &str| {
        let rest = reference.strip_prefix(resource);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    decision.released.iter().any(|item| is_it(&item.reference))
        || decision.written.iter().any(|item| is_it(&item.reference))
        || names(&decision.request, resource)
}

/// Whether `what` stands in `request` as a whole word or path.
fn names(request: &str, what: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '-' || c == '.'));
    !what.is_empty()
        && request.match_indices(what).any(|(at, _)| {
            let before = request.get(..at).and_then(|before| before.chars().next_back());
            let after = request.get(at + what.len()..).and_then(|after| after.chars().next());
            is_edge(before) && is_edge(after)
        })
}
