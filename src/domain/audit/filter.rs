//! Which records somebody asks for.
//!
//! Owns: what each filter means. Must never: leave a record out that no filter was given against.
//! Look next: `cli::audit`, which prints what it takes; `edge::trail_index`, which finds where to look.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::record::{Caller, Control, Decision, Record, Verdict};

/// In [`Filter::emergency`]: whichever grant.
pub const ANY_EMERGENCY: &str = "any";

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
    /// The client that asked on the person's behalf.
    pub application: Option<String>,
    /// One of the caller's roles.
    pub role: Option<String>,
    /// A purpose of use that was in force.
    pub purpose: Option<String>,
    /// An element path: released or written itself, inside something that was, or with something inside that was.
    pub element: Option<String>,
    /// Decided under this grant of emergency access, or [`ANY_EMERGENCY`].
    pub emergency: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether `record` is asked for.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        let time = record.time();
        let is_in_time =
            self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until);
        let is_in_request = self.request_id.as_deref().is_none_or(|id| record.request_id() == Some(id));
        is_in_time
            && is_in_request
            && match record {
                Record::Intent(decision) | Record::Decision(decision) => self.takes_decision(decision),
                Record::Outcome(_) => self.is_about_anything(),
                Record::Control(control) => self.is_about_anything() || self.takes_counted(control),
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
            &self.application,
            &self.role,
            &self.purpose,
            &self.element,
            &self.emergency,
        ];
        asked.iter().all(|asked| asked.is_none())
    }

    /// Counted refusals are found by whose they are, as refusals, and by code.
    fn takes_counted(&self, control: &Control) -> bool {
        let Some(refusals) = control.refusals() else { return false };
        let rest = Self { subject: None, issuer: None, decision: None, reason: None, ..self.clone() };
        let is = |asked: &Option<String>, value: Option<&str>| {
            asked.as_deref().is_none_or(|asked| value == Some(asked))
        };
        let (issuer, subject) = refusals.caller.unzip();
        rest.is_about_anything()
            && is(&self.subject, subject)
            && is(&self.issuer, issuer)
            && is(&self.decision, Some(Verdict::Refuse.code()))
            && self.reason.as_deref().is_none_or(|code| refusals.has(code))
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
            && is(&self.application, caller.and_then(|caller| caller.application.as_deref()))
            && self.takes_circumstances(decision)
            && self.patient.as_deref().is_none_or(|asked| concerns(decision, asked))
            && self.resource.as_deref().is_none_or(|asked| touches(decision, asked))
    }

    fn takes_circumstances(&self, decision: &Decision) -> bool {
        let has = |asked: &Option<String>, values: &[String]| {
            asked.as_ref().is_none_or(|asked| values.contains(asked))
        };
        let roles = decision.caller.as_ref().map_or(&[][..], |caller: &Caller| &caller.roles);
        let mut masks = decision.released.iter().map(|item| &item.mask);
        let mut written = decision.written.iter().map(|item| &item.mask);
        let mut is_touched = |asked: &String| {
            masks.any(|mask| mask.iter().any(|path| covers(path, asked)))
                || written.any(|mask| mask.iter().any(|path| covers(path, asked)))
        };
        has(&self.role, roles)
            && has(&self.purpose, &decision.purposes)
            && self.element.as_ref().is_none_or(&mut is_touched)
            && match self.emergency.as_deref() {
                Some(ANY_EMERGENCY) => !decision.emergencies.is_empty(),
                _ => has(&self.emergency, &decision.emergencies),
            }
    }
}

/// Whether element `asked` left or was written when `path` did: the one is the other, or inside it.
#[must_use]
pub fn covers(path: &str, asked: &str) -> bool {
    let asked = asked.strip_suffix("[x]").unwrap_or(asked);
    let is_inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    is_inside(path, asked) || is_inside(asked, path)
}

/// The logical id somebody means who writes `id` or `Patient/id`.
#[must_use]
pub fn patient_id(patient: &str) -> &str {
    patient.strip_prefix("Patient/").unwrap_or(patient)
}

fn concerns(decision: &Decision, patient: &str) -> bool {
    let id = patient_id(patient);
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
    let is_edge = |c: Option<char>| c.is_none_or(|c| !is_word(c));
    !what.is_empty()
        && request.match_indices(what).any(|(at, _)| {
            let before = request.get(..at).and_then(|before| before.chars().next_back());
            let after = request.get(at + what.len()..).and_then(|after| after.chars().next());
            is_edge(before) && is_edge(after)
        })
}

/// The words of a request line: what stands there whole between anything that is neither letter, digit, `-` nor `.`.
/// Whatever [`Filter`] finds in a request line consists of such words, each whole.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '.'
}
