//! `chartgate audit search`: the trail's records, each told once and with its end.
//!
//! Owns: which records belong together (a decision, its intent, its outcome), and how they are printed.
//! Must never: print text of a record to a terminal unescaped; take the journal's lock.
//! Look next: `filter`; `docs/audit.md` for what the fields mean.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::{Filter, GOOD, complain, keys_of_trail};
use crate::domain::audit::{
    self, Actor, Assembly, Caller, Control, Decision, Ending, Outcome, Record, Released, Verdict, Written,
    escape,
};
use crate::edge::journal::{Entry, Finding, Keys, Settings, read_entries};

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
    let told = Told::read(settings, keys);
    let mut assembly = Assembly::default();
    read_entries(&settings.directory, keys, &mut |entry: Entry| {
        let sequence = entry.sequence;
        if sequence >= told.end {
            return Ok(());
        }
        match join(&mut assembly, entry) {
            Ok(Some((first, record))) if filter.takes(&record) && told.prints(&record) => {
                page.print(first, &record, &told)
            }
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

/// What a first reading of the trail says about how requests ended.
#[derive(Default)]
struct Told {
    requests: HashMap<String, Request>,
    /// Entries from here on were not there yet: the second reading leaves them out, so that no intent is
    /// printed as one whose decision is missing when it came in between.
    end: u64,
}

/// One request, and the entries of its batch or transaction.
#[derive(Default)]
struct Request {
    whole: Known,
    entries: HashMap<u32, Known>,
}

#[derive(Default)]
struct Known {
    outcome: Option<Outcome>,
    is_intended: bool,
    is_permitted: bool,
    is_refused: bool,
}

impl Told {
    fn read(settings: &Settings, keys: &Keys) -> Self {
        let mut told = Self::default();
        let mut assembly = Assembly::default();
        // Faults are reported by the second reading; here they only lose an outcome, which then reads `unknown`.
        let read = read_entries(&settings.directory, keys, &mut |entry| {
            told.end = entry.sequence.saturating_add(1);
            if let Ok(Some((_, record))) = join(&mut assembly, entry) {
                told.learn(record);
            }
            Ok(())
        });
        if read.is_err() {
            told.end = u64::MAX;
        }
        told
    }

    fn learn(&mut self, record: Record) {
        match record {
            Record::Intent(intent) => self.known(intent.request_id, intent.entry).is_intended = true,
            Record::Decision(decision) => {
                let known = self.known(decision.request_id, decision.entry);
                match decision.verdict {
                    Verdict::Permit => known.is_permitted = true,
                    Verdict::Refuse => known.is_refused = true,
                }
            }
            Record::Outcome(outcome) => {
                let known = self.known(outcome.request_id.clone(), outcome.entry);
                known.outcome = Some(outcome);
            }
            Record::Control(_) => {}
        }
    }

    fn known(&mut self, request_id: String, entry: Option<u32>) -> &mut Known {
        let request = self.requests.entry(request_id).or_default();
        match entry {
            None => &mut request.whole,
            Some(entry) => request.entries.entry(entry).or_default(),
        }
    }

    /// Whether `record` is printed as an object of its own. An intent is told with its decision, an outcome
    /// with the decision or intent it belongs to.
    fn prints(&self, record: &Record) -> bool {
        let request = record.request_id().and_then(|id| self.requests.get(id));
        match (record, request) {
            (Record::Intent(intent), Some(request)) => {
                !request.of(intent.entry).is_some_and(|known| known.is_permitted || known.is_refused)
            }
            (Record::Outcome(outcome), Some(request)) => !request.tells(outcome),
            (Record::Decision(_) | Record::Control(_), _)
            | (Record::Intent(_) | Record::Outcome(_), None) => true,
        }
    }

    /// The outcome that is told with `decision`.
    fn outcome(&self, decision: &Decision) -> Option<&Outcome> {
        let request = self.requests.get(&decision.request_id)?;
        let known = request.of(decision.entry)?;
        match decision.verdict {
            Verdict::Permit => known.outcome.as_ref().or(request.whole.outcome.as_ref()),
            // What was refused did not happen, unless it was sent to the EMR and nobody knows.
            Verdict::Refuse => {
                let whole = request.whole.outcome.as_ref().filter(|_| known.is_intended);
                known.outcome.as_ref().or(whole).filter(|outcome| outcome.ending == Ending::Unknown)
            }
        }
    }
}

impl Request {
    fn of(&self, entry: Option<u32>) -> Option<&Known> {
        entry.map_or(Some(&self.whole), |entry| self.entries.get(&entry))
    }

    fn tells(&self, outcome: &Outcome) -> bool {
        let goes_on = |known: &Known| known.is_permitted || known.is_intended;
        let own = self
            .of(outcome.entry)
            .is_some_and(|known| goes_on(known) || (known.is_refused && outcome.ending == Ending::Unknown));
        own || (outcome.entry.is_none() && self.entries.values().any(goes_on))
    }
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
    fn print(&mut self, sequence: u64, record: &Record, told: &Told) -> io::Result<()> {
        if self.as_json {
            return writeln!(self.out, "{}", audit::json(&as_json(sequence, record, told)));
        }
        self.rows.push(as_row(sequence, record, told));
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
                "released or written",
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
    match (decision.verdict, outcome) {
        (Verdict::Refuse, None) => "refused",
        (Verdict::Permit, None) => Ending::Unknown.code(),
        (_, Some(outcome)) => outcome.ending.code(),
    }
}

/// The outcome told with a record.
fn outcome_of<'t>(record: &Record, told: &'t Told) -> Option<&'t Outcome> {
    match record {
        Record::Decision(decision) => told.outcome(decision),
        // Only an intent without a decision is printed: nobody knows what became of it.
        Record::Intent(_) | Record::Outcome(_) | Record::Control(_) => None,
    }
}

/// One object with the contract's keys (design.md section 8) and the rest of what is known.
fn as_json(sequence: u64, record: &Record, told: &Told) -> Value {
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
            Record::Control(_) => None,
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

fn kind(record: &Record) -> &'static str {
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

fn as_row(sequence: u64, record: &Record, told: &Told) -> [String; 8] {
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
        Record::Control(control) => control_row(sequence, time, control),
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

fn control_row(sequence: u64, time: String, control: &Control) -> [String; 8] {
    let details: Vec<String> =
        control.details.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    let event = format!("({})", control.event.code());
    let empty = String::new;
    [sequence.to_string(), time, empty(), event, empty(), empty(), details.join(" "), empty()]
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

fn output_fault(error: io::Error) -> Finding {
    Finding { place: "output".to_owned(), what: error.to_string() }
}
