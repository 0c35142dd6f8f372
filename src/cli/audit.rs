//! `chartgate audit init`, `verify` and `search`.
//!
//! Owns: what these commands print, and their exit codes: 0 good, 1 no or problems found.
//! Must never: take the journal's lock (so that they work while the gateway serves); print text of an audit
//! record to a terminal unescaped.
//! Look next: `edge::journal`, which does the work.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::domain::audit::{
    self, Assembly, Control, Decision, Ending, Outcome, Record, Released, Verdict, escape,
};
use crate::edge::journal::{
    self, Entry, Finding, Inspection, Keys, Request, Settings, generate_missing, inspect, read_entries,
};

/// The command did what was asked.
pub const GOOD: u8 = 0;
/// The answer is no, or problems were found.
pub const PROBLEM: u8 = 1;

/// Makes the keys that are missing, and the audit directory. Prints what it made.
pub fn init(settings: &Settings, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let keys = match generate_missing(settings) {
        Ok(keys) => keys,
        Err(error) => return complain(err, &error),
    };
    let mut lines = Vec::new();
    if keys.signing {
        lines.push(format!("made the signing key `{}`", settings.signing_key.display()));
    }
    if keys.encryption {
        lines.push(format!("made the encryption key `{}`", settings.encryption_key.display()));
        lines.push("keep a copy of the encryption key: without it the trail cannot be read".to_owned());
    }
    if let Err(error) = journal::create(settings, clock::now()) {
        print_lines(out, &lines);
        return complain(err, &error);
    }
    lines.push(format!("made the audit trail `{}`", settings.directory.display()));
    print_lines(out, &lines)
}

/// The keys of a trail that is there, or what is missing.
fn keys_of_trail(settings: &Settings) -> Result<Keys, String> {
    let keys = Keys::load(settings).map_err(|error| error.to_string())?;
    if settings.directory.is_dir() {
        Ok(keys)
    } else {
        Err(format!("there is no audit trail in `{}`", settings.directory.display()))
    }
}

/// Verifies the trail: every byte of every file of evidence. `against` is a checkpoint of this trail that was
/// kept elsewhere, and must be contained in it.
pub fn verify(
    settings: &Settings,
    against: Option<&[u8]>,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let found = match inspect(&settings.directory, &keys, Request { decode: true, against }) {
        Ok(found) => found,
        Err(error) => {
            return complain(err, &format!("audit directory `{}`: {error}", settings.directory.display()));
        }
    };
    let lines = if as_json { vec![verdict_json(&found)] } else { verdict_lines(&found) };
    let printed = print_lines(out, &lines);
    if found.findings.is_empty() { printed } else { PROBLEM }
}

fn verdict_json(found: &Inspection) -> String {
    let findings: Vec<Value> =
        found.findings.iter().map(|finding| json!({"place": finding.place, "what": finding.what})).collect();
    audit::json(&json!({
        "verified": found.findings.is_empty(),
        "origin": found.origin,
        "verifier": found.verifier,
        "size": found.size,
        "root": found.root,
        "checkpointSize": found.checkpoint_size,
        "publishedSize": found.published_size,
        "records": found.records,
        "firstTime": found.times.map(|(first, _)| first.to_string()),
        "lastTime": found.times.map(|(_, last)| last.to_string()),
        "findings": findings,
        "notes": found.notes,
    }))
}

fn verdict_lines(found: &Inspection) -> Vec<String> {
    let mut lines: Vec<String> =
        found.findings.iter().map(|finding| format!("problem: {}", escape(&finding.to_string()))).collect();
    lines.extend(found.notes.iter().map(|note| format!("note: {}", escape(note))));
    lines.push(format!("log      {}", escape(&found.origin)));
    lines.push(format!("entries  {} ({} records)", found.size, found.records));
    lines.push(format!("root     {}", found.root));
    if let Some((first, last)) = found.times {
        lines.push(format!("time     {first} to {last}"));
    }
    lines.push(match found.findings.len() {
        0 => "the trail verifies: nothing was changed".to_owned(),
        count => format!("the trail DOES NOT verify: {count} problems"),
    });
    lines
}

/// Which records to print. An empty filter prints every record.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Records that released something of this patient: logical id, or `Patient/id`.
    pub patient: Option<String>,
    /// The token's `sub`.
    pub subject: Option<String>,
    /// The token's `iss`.
    pub issuer: Option<String>,
    /// `Type` or `Type/id`: released, or named in the request.
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
    fn takes(&self, record: &Record) -> bool {
        let time = record.time();
        let is_in_time =
            self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until);
        let is_in_request = self.request_id.as_deref().is_none_or(|id| record.request_id() == Some(id));
        is_in_time
            && is_in_request
            && match record {
                Record::Decision(decision) => self.takes_decision(decision),
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
    let reference = format!("Patient/{id}");
    decision.released.iter().any(|released| released.patients.contains(id) || released.reference == reference)
        || names(&decision.request, &reference)
        || ["patient", "subject"].iter().any(|name| names(&decision.request, &format!("{name}={id}")))
}

fn touches(decision: &Decision, resource: &str) -> bool {
    let is_it = |released: &Released| {
        let rest = released.reference.strip_prefix(resource);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    decision.released.iter().any(is_it) || names(&decision.request, resource)
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

/// Prints the records that `filter` takes, in sequence: a table, or one JSON object a line. Parts of a record
/// are joined, and a request's outcome is told with its release.
pub fn search(
    settings: &Settings,
    filter: &Filter,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let mut page = Page { as_json, rows: Vec::new(), out };
    let mut faults = Vec::new();
    let printed = run(settings, &keys, filter, &mut page, &mut faults);
    let printed = printed.and_then(|()| page.flush().map_err(output_fault));
    faults.extend(printed.err());
    faults.dedup();
    faults.iter().map(|fault| complain(err, fault)).max().unwrap_or(GOOD)
}

fn run(
    settings: &Settings,
    keys: &Keys,
    filter: &Filter,
    page: &mut Page<'_>,
    faults: &mut Vec<Finding>,
) -> Result<(), Finding> {
    let endings = endings(settings, keys);
    let mut assembly = Assembly::default();
    read_entries(&settings.directory, keys, &mut |entry: Entry| {
        let sequence = entry.sequence;
        match join(&mut assembly, entry) {
            Ok(Some((first, record))) if filter.takes(&record) => page.print(first, &record, &endings),
            Ok(_) => Ok(()),
            Err(mut fault) => {
                if fault.place.is_empty() {
                    fault.place = format!("entry {sequence}");
                }
                faults.push(fault);
                Ok(())
            }
        }
    })
}

fn join(assembly: &mut Assembly, entry: Entry) -> Result<Option<(u64, Record)>, Finding> {
    let part = entry.part?;
    assembly
        .push(entry.sequence, part)
        .map_err(|error| Finding { place: String::new(), what: error.to_string() })
}

/// What the trail says about the end of each request: by request id.
#[derive(Default)]
struct Known {
    outcome: Option<Outcome>,
    is_decided: bool,
}

fn endings(settings: &Settings, keys: &Keys) -> HashMap<String, Known> {
    let mut endings: HashMap<String, Known> = HashMap::new();
    let mut assembly = Assembly::default();
    // Faults are reported by the second reading; here they only lose an outcome, which then reads `unknown`.
    let _second_reading_tells = read_entries(&settings.directory, keys, &mut |entry| {
        match join(&mut assembly, entry) {
            Ok(Some((_, Record::Outcome(outcome)))) => {
                let known = endings.entry(outcome.request_id.clone()).or_default();
                known.outcome = Some(outcome);
            }
            Ok(Some((_, Record::Decision(decision)))) if decision.verdict == Verdict::Permit => {
                endings.entry(decision.request_id.clone()).or_default().is_decided = true;
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    });
    endings
}

/// What is printed, and how.
struct Page<'o> {
    as_json: bool,
    rows: Vec<[String; 8]>,
    out: &'o mut dyn Write,
}

/// Rows of one table: a table is laid out as a whole, a trail is not held in memory.
const ROWS_MAX: usize = 500;

impl Page<'_> {
    fn print(&mut self, sequence: u64, record: &Record, endings: &HashMap<String, Known>) -> io::Result<()> {
        let known = record.request_id().and_then(|id| endings.get(id));
        if matches!(record, Record::Outcome(_)) && known.is_some_and(|known| known.is_decided) {
            return Ok(());
        }
        let outcome = known.and_then(|known| known.outcome.as_ref());
        if self.as_json {
            return writeln!(self.out, "{}", audit::json(&as_json(sequence, record, outcome)));
        }
        self.rows.push(as_row(sequence, record, outcome));
        if self.rows.len() >= ROWS_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.rows.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::UTF8_BORDERS_ONLY);
            table.set_header([
                "seq",
                "time",
                "who",
                "interaction",
                "decision",
                "reason",
                "released",
                "outcome",
            ]);
            table.add_rows(self.rows.drain(..));
            writeln!(self.out, "{table}")?;
        }
        self.out.flush()
    }
}

/// How the request ended, in one word.
fn outcome_word(decision: &Decision, outcome: Option<&Outcome>) -> &'static str {
    match decision.verdict {
        Verdict::Refuse => "refused",
        Verdict::Permit => outcome.map_or(Ending::Unknown, |outcome| outcome.ending).code(),
    }
}

/// One object with the contract's keys (design.md section 8) and the rest of what is known.
fn as_json(sequence: u64, record: &Record, outcome: Option<&Outcome>) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("sequence", json!(sequence));
    put("time", json!(record.time().to_string()));
    put("requestId", json!(record.request_id()));
    let decision = match record {
        Record::Decision(decision) => Some(decision),
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
            Record::Decision(decision) => Some(outcome_word(decision, outcome)),
            Record::Outcome(outcome) => Some(outcome.ending.code()),
            Record::Control(_) => None,
        }),
    );
    match record {
        Record::Decision(decision) => put_decision(&mut put, decision, outcome),
        Record::Outcome(outcome) => {
            put("kind", json!("outcome"));
            put("sentBytes", json!(outcome.sent_bytes));
        }
        Record::Control(control) => {
            put("kind", json!("control"));
            put("event", json!(control.event.code()));
            put("details", json!(control.details));
        }
    }
    Value::Object(object)
}

fn put_decision(put: &mut impl FnMut(&str, Value), decision: &Decision, outcome: Option<&Outcome>) {
    put(
        "kind",
        json!(match decision.verdict {
            Verdict::Permit => "release",
            Verdict::Refuse => "refusal",
        }),
    );
    let caller = decision.caller.as_ref();
    put("session", json!(caller.map(|caller| &caller.session)));
    put("tokenHash", json!(caller.map(|caller| &caller.token_hash)));
    put("application", json!(caller.and_then(|caller| caller.application.as_ref())));
    put("roles", json!(caller.map_or(&[][..], |caller| &caller.roles)));
    put("purposes", json!(decision.purposes));
    put("source", json!(decision.source));
    put("request", json!(decision.request));
    put("policySet", json!(decision.policy_set));
    put("withheld", json!(decision.withheld));
    put("status", json!(decision.status));
    put("outcomeTime", json!(outcome.map(|outcome| outcome.time.to_string())));
    put("sentBytes", json!(outcome.and_then(|outcome| outcome.sent_bytes)));
}

fn released_json(released: &[Released]) -> Value {
    released
        .iter()
        .map(|item| {
            json!({
                "reference": item.reference,
                "version": item.version,
                "patients": item.patients,
                "mask": *item.mask,
            })
        })
        .collect()
}

fn as_row(sequence: u64, record: &Record, outcome: Option<&Outcome>) -> [String; 8] {
    let empty = String::new;
    let time = record.time().to_string();
    match record {
        Record::Decision(decision) => [
            sequence.to_string(),
            time,
            decision.caller.as_ref().map_or_else(empty, |caller| escape(&caller.subject)),
            escape(&decision.interaction),
            decision.verdict.code().to_owned(),
            decision.reason.as_deref().map_or_else(empty, escape),
            released_text(&decision.released),
            outcome_word(decision, outcome).to_owned(),
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
        Record::Control(control) => control_row(sequence, time, control),
    }
}

fn control_row(sequence: u64, time: String, control: &Control) -> [String; 8] {
    let details: Vec<String> =
        control.details.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    let event = format!("({})", control.event.code());
    let empty = String::new;
    [sequence.to_string(), time, empty(), event, empty(), empty(), details.join(" "), empty()]
}

/// A line for each of the first items.
fn released_text(released: &[Released]) -> String {
    const ITEMS_MAX: usize = 5;
    let mut lines: Vec<String> = released
        .iter()
        .take(ITEMS_MAX)
        .map(|item| format!("{} [{}]", escape(&item.reference), escape(&item.mask.join(" "))))
        .collect();
    if released.len() > ITEMS_MAX {
        lines.push(format!("and {} more", released.len() - ITEMS_MAX));
    }
    lines.join("\n")
}

fn output_fault(error: io::Error) -> Finding {
    Finding { place: "output".to_owned(), what: error.to_string() }
}

fn print_lines(out: &mut dyn Write, lines: &[String]) -> u8 {
    let printed = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    if printed.is_ok() { GOOD } else { PROBLEM }
}

/// Says what is wrong, on one line.
fn complain(err: &mut dyn Write, error: &dyn Display) -> u8 {
    let _nowhere_else_to_say_it = writeln!(err, "chartgate: {}", escape(&error.to_string()));
    PROBLEM
}
