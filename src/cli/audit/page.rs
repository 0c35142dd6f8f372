//! How one record is printed: an object with the contract's keys, or a row of a table.
//!
//! Owns: the fields of `audit search --json` (design: section 8).
//! Must never: print text of a record to a terminal unescaped; change a field's name or meaning.
//! Look next: `told`, which says how a request ended; `docs/audit.md` for what the fields mean.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::told::Told;
use crate::domain::audit::{
    Actor, Caller, Control, Decision, Ending, Outcome, Record, Released, Verdict, Written, escape,
};

/// How the request ended, in one word.
pub(super) fn outcome_word(decision: &Decision, outcome: Option<&Outcome>) -> &'static str {
    match (decision.verdict, outcome) {
        (Verdict::Refuse, None) => "refused",
        (Verdict::Permit, None) => Ending::Unknown.code(),
        (_, Some(outcome)) => outcome.ending.code(),
    }
}

/// The outcome told with a record.
pub(super) fn outcome_of<'t>(record: &Record, told: &'t Told) -> Option<&'t Outcome> {
    match record {
        Record::Decision(decision) => told.outcome(decision),
        // Only an intent without a decision is printed: nobody knows what became of it.
        Record::Intent(_) | Record::Outcome(_) | Record::Control(_) => None,
    }
}

/// One object with the contract's keys (design.md section 8) and the rest of what is known.
pub(super) fn as_json(sequence: u64, record: &Record, told: &Told) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("sequence", json!(sequence));
    put("time", json!(record.time().to_string()));
    put("requestId", json!(record.request_id()));
    let outcome = outcome_of(record, told);
    let decision = match record {
        Record::Intent(decision) | Record::Decision(decision) => Some(decision),
        Record::Outcome(_) | Record::Control(_) => None,
    };
    let caller = decision.and_then(|decision| decision.caller.as_ref());
    put("issuer", json!(caller.map(|caller| &caller.issuer)));
    put("subject", json!(caller.map(|caller| &caller.subject)));
    put("interaction", json!(decision.map(|decision| &decision.interaction)));
    put("decision", json!(decision.map(|decision| decision.verdict.code())));
    put("reason", json!(decision.and_then(|decision| decision.reason.as_ref())));
    put("policies", json!(decision.map_or(&[][..], |decision| &decision.policies)));
    put("released", decision.map_or(json!([]), |decision| released_json(&decision.released)));
    put(
        "outcome",
        json!(match record {
            Record::Intent(decision) | Record::Decision(decision) => Some(outcome_word(decision, outcome)),
            Record::Outcome(outcome) => Some(outcome.ending.code()),
            Record::Control(control) => told.counted(control),
        }),
    );
    put("kind", json!(kind(record)));
    match record {
        Record::Intent(decision) | Record::Decision(decision) => put_decision(&mut put, decision, outcome),
        Record::Outcome(outcome) => {
            put("sentBytes", json!(outcome.sent_bytes));
            put_place(&mut put, outcome.entry, None);
        }
        Record::Control(control) => {
            put("event", json!(control.event.code()));
            put("details", json!(control.details));
        }
    }
    Value::Object(object)
}

pub(super) fn kind(record: &Record) -> &'static str {
    match record {
        Record::Intent(_) => "intent",
        Record::Decision(decision) => match decision.verdict {
            Verdict::Permit => "release",
            Verdict::Refuse => "refusal",
        },
        Record::Outcome(_) => "outcome",
        Record::Control(_) => "control",
    }
}

/// Where in a batch, a transaction or a streamed answer this is.
fn put_place(put: &mut impl FnMut(&str, Value), entry: Option<u32>, unit: Option<u32>) {
    if let Some(entry) = entry {
        put("entry", json!(entry));
    }
    if let Some(unit) = unit {
        put("unit", json!(unit));
    }
}

fn put_decision(put: &mut impl FnMut(&str, Value), decision: &Decision, outcome: Option<&Outcome>) {
    put_place(put, decision.entry, decision.unit);
    if !decision.written.is_empty() {
        put("written", written_json(&decision.written));
    }
    let caller = decision.caller.as_ref();
    put("session", json!(caller.map(|caller| &caller.session)));
    put("tokenHash", json!(caller.map(|caller| &caller.token_hash)));
    put("application", json!(caller.and_then(|caller| caller.application.as_ref())));
    put("roles", json!(caller.map_or(&[][..], |caller| &caller.roles)));
    put_more(put, caller);
    put("purposes", json!(decision.purposes));
    put("source", json!(decision.source));
    put("request", json!(decision.request));
    put("policySet", json!(decision.policy_set));
    if let Some(epoch) = decision.policy_epoch {
        put("policyEpoch", json!(epoch));
    }
    put("basis", json!(decision.basis));
    put("emergencies", json!(decision.emergencies));
    put("withheld", json!(decision.withheld));
    put("status", json!(decision.status));
    put("outcomeTime", json!(outcome.map(|outcome| outcome.time.to_string())));
    put("sentBytes", json!(outcome.and_then(|outcome| outcome.sent_bytes)));
}

/// What is told of a caller only where there is something to tell.
fn put_more(put: &mut impl FnMut(&str, Value), caller: Option<&Caller>) {
    let Some(caller) = caller else { return };
    if let Some(kind) = &caller.client_kind {
        put("clientKind", json!(kind));
    }
    if let Some(binding) = &caller.binding {
        put("binding", json!(binding));
    }
    if !caller.actors.is_empty() {
        let actor = |actor: &Actor| json!({"issuer": actor.issuer, "subject": actor.subject});
        put("actors", caller.actors.iter().map(actor).collect());
    }
}

fn released_json(released: &[Released]) -> Value {
    let object =
        |item: &Released| item_json(&item.reference, item.version.as_ref(), &item.patients, &item.mask);
    released.iter().map(object).collect()
}

fn written_json(written: &[Written]) -> Value {
    let object =
        |item: &Written| item_json(&item.reference, item.version.as_ref(), &item.patients, &item.mask);
    written.iter().map(object).collect()
}

fn item_json(
    reference: &str,
    version: Option<&String>,
    patients: &BTreeSet<String>,
    mask: &[String],
) -> Value {
    json!({"reference": reference, "version": version, "patients": patients, "mask": mask})
}

pub(super) fn as_row(sequence: u64, record: &Record, told: &Told) -> [String; 8] {
    let empty = String::new;
    let time = record.time().to_string();
    match record {
        Record::Intent(decision) | Record::Decision(decision) => [
            sequence.to_string(),
            time,
            decision.caller.as_ref().map_or_else(empty, |caller| escape(&caller.subject)),
            place_text(decision),
            decision.verdict.code().to_owned(),
            decision.reason.as_deref().map_or_else(empty, escape),
            items_text(decision),
            outcome_word(decision, outcome_of(record, told)).to_owned(),
        ],
        Record::Outcome(outcome) => [
            sequence.to_string(),
            time,
            empty(),
            "(outcome)".to_owned(),
            empty(),
            empty(),
            escape(&outcome.request_id),
            outcome.ending.code().to_owned(),
        ],
        Record::Control(control) => control_row(sequence, time, control, told),
    }
}

/// `update`, `update, entry 2`, `operation, unit 7`.
fn place_text(decision: &Decision) -> String {
    let mut text = escape(&decision.interaction);
    for (name, place) in [("entry", decision.entry), ("unit", decision.unit)] {
        if let Some(place) = place {
            let _infallible = write!(text, ", {name} {place}");
        }
    }
    text
}

fn control_row(sequence: u64, time: String, control: &Control, told: &Told) -> [String; 8] {
    let details: Vec<String> =
        control.details.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    let event = format!("({})", control.event.code());
    let ended = told.counted(control).unwrap_or_default().to_owned();
    let empty = String::new;
    [sequence.to_string(), time, empty(), event, empty(), empty(), details.join(" "), ended]
}

/// A line for each of the first items.
fn items_text(decision: &Decision) -> String {
    const ITEMS_MAX: usize = 5;
    let line = |word: &str, reference: &str, mask: &[String]| {
        format!("{word}{} [{}]", escape(reference), escape(&mask.join(" ")))
    };
    let written = decision.written.iter().map(|item| line("wrote ", &item.reference, &item.mask));
    let released = decision.released.iter().map(|item| line("", &item.reference, &item.mask));
    let mut lines: Vec<String> = written.chain(released).take(ITEMS_MAX).collect();
    let count = decision.written.len() + decision.released.len();
    if count > ITEMS_MAX {
        lines.push(format!("and {} more", count - ITEMS_MAX));
    }
    lines.join("\n")
}
