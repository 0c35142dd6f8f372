//! A run of entries, indexed: in memory while it is made, then one shard of the file.
//!
//! Owns: what the index keeps of a record; writing a shard, and merging small ones.
//! Must never: write outside the caller's transaction.
//! Look next: `terms`, what a record is known by; `find`, which reads this again.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::IndexError;
use super::posting::{self, Posting};
use super::tables::{number, sequence};
use super::terms::{Term, Terms, items, mask_text};
use crate::domain::audit::{Control, Decision, Record, Verdict};
use crate::edge::journal::Finding;
use crate::limits::{INDEX_SHARD_ENTRIES_MAX, INDEX_SPAN_ENTRIES};

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// Entries that were indexed and are not written yet.
#[derive(Debug, Default)]
pub(super) struct Shard {
    first: u64,
    postings: HashMap<Term, Posting>,
    spans: Vec<Span>,
    masks: HashMap<Term, String>,
    people: HashMap<Term, u64>,
    tallies: HashMap<TallyKey, Tally>,
    faults: Vec<(u64, Finding)>,
}

#[derive(Debug)]
struct Span {
    first: u64,
    earliest: i64,
    latest: i64,
}

/// What decisions are counted by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TallyKey {
    day: i64,
    person: Term,
    application: String,
    roles: String,
    purposes: String,
    decision: &'static str,
    reason: String,
    emergency: bool,
}

#[derive(Debug, Default)]
struct Tally {
    answers: i64,
    records: i64,
}

/// The day of a time in UTC, counted from 1970.
pub(super) fn day_of(time: Timestamp) -> i64 {
    time.as_microsecond().div_euclid(DAY)
}

impl Shard {
    pub(super) fn new(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Adds the record whose first part is the entry `first`.
    pub(super) fn add(&mut self, first: u64, record: &Record, terms: &mut Terms) {
        for term in terms.of(record) {
            self.postings.entry(term).or_default().push(first);
        }
        self.note_time(first, record.time().as_microsecond());
        match record {
            Record::Decision(decision) => {
                self.keep_masks(decision, terms);
                self.count(first, decision, terms);
            }
            Record::Intent(decision) => self.keep_masks(decision, terms),
            Record::Control(control) => self.count_counted(first, control, terms),
            Record::Outcome(_) => {}
        }
    }

    pub(super) fn fault(&mut self, sequence: u64, finding: Finding) {
        self.faults.push((sequence, finding));
    }

    fn note_time(&mut self, first: u64, time: i64) {
        match self.spans.last_mut() {
            Some(span) if first - span.first < INDEX_SPAN_ENTRIES => {
                span.earliest = span.earliest.min(time);
                span.latest = span.latest.max(time);
            }
            Some(_) | None => self.spans.push(Span { first, earliest: time, latest: time }),
        }
    }

    fn keep_masks(&mut self, decision: &Decision, terms: &mut Terms) {
        for (_, _, mask) in items(decision) {
            self.masks.entry(terms.mask(mask)).or_insert_with(|| mask_text(mask));
        }
    }

    fn count(&mut self, first: u64, decision: &Decision, terms: &mut Terms) {
        let caller = decision.caller.as_ref();
        let person = caller.map_or(0, |caller| terms.person(&caller.issuer, &caller.subject));
        if caller.is_some() {
            self.people.entry(person).or_insert(first);
        }
        let key = TallyKey {
            day: day_of(decision.time),
            person,
            application: caller.and_then(|caller| caller.application.clone()).unwrap_or_default(),
            roles: caller.map(|caller| sorted(&caller.roles)).unwrap_or_default(),
            purposes: sorted(&decision.purposes),
            decision: decision.verdict.code(),
            reason: decision.reason.clone().unwrap_or_default(),
            emergency: !decision.emergencies.is_empty(),
        };
        let tally = self.tallies.entry(key).or_default();
        // A long answer comes in units, and is one answer.
        tally.answers += i64::from(decision.unit.is_none_or(|unit| unit == 0));
        tally.records += i64::try_from(decision.released.len()).unwrap_or_default();
    }

    /// Refusals that were counted are answers like any other; their day is that of the record.
    fn count_counted(&mut self, first: u64, control: &Control, terms: &mut Terms) {
        let Some(refusals) = control.refusals() else { return };
        let person = refusals.caller.map_or(0, |(issuer, subject)| terms.person(issuer, subject));
        if refusals.caller.is_some() {
            self.people.entry(person).or_insert(first);
        }
        for (code, number) in refusals.codes.iter().flatten() {
            let key = TallyKey {
                day: day_of(control.time),
                person,
                application: String::new(),
                roles: String::new(),
                purposes: String::new(),
                decision: Verdict::Refuse.code(),
                reason: (*code).to_owned(),
                emergency: false,
            };
            let answers = i64::try_from(*number).unwrap_or(i64::MAX);
            let tally = self.tallies.entry(key).or_default();
            tally.answers = tally.answers.saturating_add(answers);
        }
    }

    /// Writes it as the entries up to `until`, and merges it with those before it that are no larger than twice its size.
    pub(super) fn write(self, connection: &Connection, until: u64) -> Result<(), IndexError> {
        let values = params![number(self.first), number(until)];
        connection.execute("INSERT INTO shard (first, until) VALUES (?1, ?2)", values)?;
        let id = connection.last_insert_rowid();
        let mut postings: Vec<(Term, Posting)> = self.postings.into_iter().collect();
        postings.sort_unstable_by_key(|(term, _)| *term);
        let rows = postings.iter().map(|(term, posting)| (*term, posting.bytes()));
        write_postings(connection, id, rows)?;
        let mut ends = self.spans.iter().skip(1).map(|span| span.first).chain([until]);
        let mut statement = connection.prepare_cached("INSERT INTO span VALUES (?1, ?2, ?3, ?4)")?;
        for span in &self.spans {
            let end = ends.next().unwrap_or(until);
            statement.execute(params![number(span.first), number(end), span.earliest, span.latest])?;
        }
        let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO mask VALUES (?1, ?2)")?;
        for (term, paths) in &self.masks {
            statement.execute(params![term, paths])?;
        }
        let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO person VALUES (?1, ?2)")?;
        for (term, sample) in &self.people {
            statement.execute(params![term, number(*sample)])?;
        }
        let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO fault VALUES (?1, ?2, ?3)")?;
        for (sequence, finding) in &self.faults {
            statement.execute(params![number(*sequence), finding.place, finding.what])?;
        }
        write_tallies(connection, &self.tallies)?;
        merge(connection)
    }
}

fn sorted(names: &[String]) -> String {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

fn write_postings<'p>(
    connection: &Connection,
    shard: i64,
    rows: impl Iterator<Item = (Term, &'p [u8])>,
) -> Result<(), IndexError> {
    let mut statement = connection.prepare_cached("INSERT INTO posting VALUES (?1, ?2, ?3)")?;
    for (term, body) in rows {
        statement.execute(params![shard, term, body])?;
    }
    Ok(())
}

fn write_tallies(connection: &Connection, tallies: &HashMap<TallyKey, Tally>) -> Result<(), IndexError> {
    let statement = "INSERT INTO tally VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, records = records + excluded.records";
    let mut statement = connection.prepare_cached(statement)?;
    for (key, tally) in tallies {
        statement.execute(params![
            key.day,
            key.person,
            key.application,
            key.roles,
            key.purposes,
            key.decision,
            key.reason,
            key.emergency,
            tally.answers,
            tally.records
        ])?;
    }
    Ok(())
}

/// Merges the last two shards as long as the earlier one is no larger than twice the later and both together are not too
/// large: so there are few of them, and each entry is written anew a few times.
fn merge(connection: &Connection) -> Result<(), IndexError> {
    loop {
        let shards = last_two(connection)?;
        let [(later, middle, until), (earlier, first, _)] = shards.as_slice() else { return Ok(()) };
        let (left, right) = (middle.saturating_sub(*first), until.saturating_sub(*middle));
        if left > right.saturating_mul(2) || left + right > INDEX_SHARD_ENTRIES_MAX {
            return Ok(());
        }
        let values = params![number(*first), number(*until)];
        connection.execute("INSERT INTO shard (first, until) VALUES (?1, ?2)", values)?;
        let id = connection.last_insert_rowid();
        let joined = joined(postings(connection, *earlier)?, postings(connection, *later)?)?;
        write_postings(connection, id, joined.iter().map(|(term, body)| (*term, body.as_slice())))?;
        for shard in [earlier, later] {
            connection.execute("DELETE FROM posting WHERE shard = ?1", [shard])?;
            connection.execute("DELETE FROM shard WHERE id = ?1", [shard])?;
        }
        join_spans(connection, *first)?;
    }
}

/// The last shard and the one before it: id, first, until.
fn last_two(connection: &Connection) -> Result<Vec<(i64, u64, u64)>, IndexError> {
    let mut statement =
        connection.prepare_cached("SELECT id, first, until FROM shard ORDER BY first DESC LIMIT 2")?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, sequence(row.get(1)?), sequence(row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

type Row = (Term, Vec<u8>);

fn postings(connection: &Connection, shard: i64) -> Result<Vec<Row>, IndexError> {
    let mut statement =
        connection.prepare_cached("SELECT term, body FROM posting WHERE shard = ?1 ORDER BY term")?;
    let rows = statement.query_map([shard], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Both by term; where a term is in both, the earlier numbers first.
fn joined(earlier: Vec<Row>, later: Vec<Row>) -> Result<Vec<Row>, IndexError> {
    let mut rows = earlier;
    rows.extend(later);
    // A stable sort: of two rows of one term, the earlier shard's stays first.
    rows.sort_by_key(|(term, _)| *term);
    let mut joined: Vec<Row> = Vec::with_capacity(rows.len());
    for (term, body) in rows {
        match joined.last_mut() {
            Some((last, before)) if *last == term => {
                let mut posting = Posting::default();
                for bytes in [&*before, &body] {
                    posting::read(bytes)
                        .ok_or(IndexError::Damaged)?
                        .into_iter()
                        .for_each(|number| posting.push(number));
                }
                *before = posting.bytes().to_vec();
            }
            Some(_) | None => joined.push((term, body)),
        }
    }
    Ok(joined)
}

/// Joins neighbouring spans of the entries from `first` on that are short.
fn join_spans(connection: &Connection, first: u64) -> Result<(), IndexError> {
    let spans: Vec<(u64, u64, i64, i64)> = {
        let query = "SELECT first, until, earliest, latest FROM span WHERE first >= ?1 ORDER BY first";
        let mut statement = connection.prepare_cached(query)?;
        let rows = statement.query_map([number(first)], |row| {
            Ok((sequence(row.get(0)?), sequence(row.get(1)?), row.get(2)?, row.get(3)?))
        })?;
        rows.collect::<Result<_, _>>()?
    };
    let mut joined: Vec<(u64, u64, i64, i64)> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.1 - last.0 <= INDEX_SPAN_ENTRIES => {
                *last = (last.0, span.1, last.2.min(span.2), last.3.max(span.3));
            }
            Some(_) | None => joined.push(span),
        }
    }
    connection.execute("DELETE FROM span WHERE first >= ?1", [number(first)])?;
    let mut statement = connection.prepare_cached("INSERT INTO span VALUES (?1, ?2, ?3, ?4)")?;
    for (first, until, earliest, latest) in joined {
        statement.execute(params![number(first), number(until), earliest, latest])?;
    }
    Ok(())
}
