//! Looking things up: which records may match a filter, and how many answers a day had.
//!
//! Owns: evaluating clauses shard by shard, cheapest first.
//! Must never: leave out a record that matches; what it finds too much, its reader sorts out.
//! Look next: `terms`, which says what to ask; `cli::audit::search`, which decrypts what is found.

use rusqlite::{OptionalExtension as _, params};

use super::posting::{both, either, read};
use super::tables::sequence;
use super::terms::{About, Clause, Term};
use super::{Index, IndexError};
use crate::domain::audit::{Filter, covers};
use crate::edge::journal::Finding;
use crate::limits::INDEX_CANDIDATES_MAX;

/// Entries from the first to below the second.
type Range = (u64, u64);

/// How often something was answered on a day. Names are those of the trail; the person is found in the record `sample`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTally {
    /// A record of the person; none for requests whose caller was not established.
    pub sample: Option<u64>,
    /// The client, or nothing.
    pub application: String,
    /// The roles, with a space between.
    pub roles: String,
    /// The purposes, with a space between.
    pub purposes: String,
    /// `permit` or `refuse`.
    pub decision: String,
    /// The refusal code, or nothing.
    pub reason: String,
    /// Whether a grant of emergency access was used.
    pub emergency: bool,
    /// Answers; one that came in units is one.
    pub answers: u64,
    /// FHIR records released.
    pub records: u64,
}

impl Index {
    /// The first entries of all records that may match `filter`, rising. `None` when the index cannot tell where to look, or
    /// when that is too much: the trail must be read as a whole.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn find(&mut self, filter: &Filter) -> Result<Option<Vec<u64>>, IndexError> {
        let masks = filter.element.as_deref().map(|element| self.masks_with(element)).transpose()?;
        let clauses = self.terms.asked(filter, masks.unwrap_or_default());
        if clauses.is_empty() {
            return Ok(None);
        }
        let ranges = self.ranges(filter)?;
        let mut found = Vec::new();
        for (shard, first, until) in self.shards()? {
            let within: Option<Vec<Range>> = ranges.as_ref().map(|ranges| overlap(ranges, first, until));
            if within.as_ref().is_some_and(Vec::is_empty) {
                continue;
            }
            found.extend(self.find_in(shard, &clauses, within.as_deref())?);
            if found.len() > INDEX_CANDIDATES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The first entries of all records of a request, rising.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn of_request(&mut self, request_id: &str) -> Result<Vec<u64>, IndexError> {
        let term = self.terms.term(About::Request, request_id);
        let mut found = Vec::new();
        for (shard, _, _) in self.shards()? {
            found.extend(self.posting(shard, term)?);
        }
        Ok(found)
    }

    /// What was wrong with entries when they were indexed.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn faults(&self) -> Result<Vec<Finding>, IndexError> {
        let mut statement =
            self.connection.prepare_cached("SELECT place, what FROM fault ORDER BY sequence")?;
        let rows = statement.query_map([], |row| Ok(Finding { place: row.get(0)?, what: row.get(1)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was answered on a day, in UTC, counted from 1970.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn day(&self, day: i64) -> Result<Vec<DayTally>, IndexError> {
        let query =
            "SELECT sample, application, roles, purposes, decision, reason, emergency, answers, records
            FROM tally LEFT JOIN person ON person.term = tally.person WHERE day = ?1";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map([day], |row| {
            Ok(DayTally {
                sample: row.get::<_, Option<i64>>(0)?.map(sequence),
                application: row.get(1)?,
                roles: row.get(2)?,
                purposes: row.get(3)?,
                decision: row.get(4)?,
                reason: row.get(5)?,
                emergency: row.get(6)?,
                answers: sequence(row.get(7)?),
                records: sequence(row.get(8)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn masks_with(&self, element: &str) -> Result<Vec<Term>, IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT term, paths FROM mask")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let all = rows.collect::<Result<Vec<(Term, String)>, _>>()?;
        let holds = |paths: &str| paths.lines().any(|path| covers(path, element));
        Ok(all.into_iter().filter(|(_, paths)| holds(paths)).map(|(term, _)| term).collect())
    }

    /// Where the times asked for may be; `None` when no time is asked for.
    fn ranges(&self, filter: &Filter) -> Result<Option<Vec<Range>>, IndexError> {
        if filter.since.is_none() && filter.until.is_none() {
            return Ok(None);
        }
        let since = filter.since.map_or(i64::MIN, |time| time.as_microsecond());
        // A bound between two microseconds must not leave out the one before it.
        let until = filter.until.map_or(i64::MAX, |time| time.as_microsecond());
        let query = "SELECT first, until FROM span WHERE latest >= ?1 AND earliest <= ?2 ORDER BY first";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement
            .query_map(params![since, until], |row| Ok((sequence(row.get(0)?), sequence(row.get(1)?))))?;
        Ok(Some(rows.collect::<Result<_, _>>()?))
    }

    fn shards(&self) -> Result<Vec<(i64, u64, u64)>, IndexError> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, first, until FROM shard ORDER BY first")?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, sequence(row.get(1)?), sequence(row.get(2)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn find_in(
        &self,
        shard: i64,
        clauses: &[Clause],
        within: Option<&[Range]>,
    ) -> Result<Vec<u64>, IndexError> {
        let mut priced = Vec::with_capacity(clauses.len());
        for clause in clauses {
            priced.push((self.price(shard, clause)?, clause));
        }
        priced.sort_by_key(|(price, _)| *price);
        let mut found: Option<Vec<u64>> = None;
        for (price, clause) in priced {
            match &mut found {
                None => {
                    let mut numbers = self.numbers(shard, clause)?;
                    if let Some(within) = within {
                        numbers.retain(|number| is_within(*number, within));
                    }
                    found = Some(numbers);
                }
                Some(numbers) if numbers.is_empty() => break,
                Some(numbers) if price <= numbers.len().saturating_mul(self.candidate_bytes) => {
                    *numbers = both(numbers, &self.numbers(shard, clause)?);
                }
                // Dearer to read than the records it would leave out.
                Some(_) => {}
            }
        }
        Ok(found.unwrap_or_default())
    }

    /// The bytes of the lists a clause needs.
    fn price(&self, shard: i64, clause: &Clause) -> Result<usize, IndexError> {
        let query = "SELECT length(body) FROM posting WHERE shard = ?1 AND term = ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut price = 0_usize;
        for term in clause.iter().flatten() {
            let length: Option<i64> =
                statement.query_row(params![shard, term], |row| row.get(0)).optional()?;
            price = price.saturating_add(usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX));
        }
        Ok(price)
    }

    fn numbers(&self, shard: i64, clause: &Clause) -> Result<Vec<u64>, IndexError> {
        let mut found = Vec::new();
        for all in clause {
            let mut lists = Vec::with_capacity(all.len());
            for term in all {
                lists.push(self.posting(shard, *term)?);
            }
            lists.sort_by_key(Vec::len);
            let mut lists = lists.into_iter();
            let fewest = lists.next().unwrap_or_default();
            found = either(found, lists.fold(fewest, |found, list| both(&found, &list)));
        }
        Ok(found)
    }

    fn posting(&self, shard: i64, term: Term) -> Result<Vec<u64>, IndexError> {
        let query = "SELECT body FROM posting WHERE shard = ?1 AND term = ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let body: Option<Vec<u8>> = statement.query_row(params![shard, term], |row| row.get(0)).optional()?;
        body.map_or(Ok(Vec::new()), |body| read(&body).ok_or(IndexError::Damaged))
    }

    /// How many entries and how many shards there are, for who wants to know.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn shape(&self) -> Result<(u64, u64), IndexError> {
        let query = "SELECT COALESCE(MAX(until), 0), COUNT(*) FROM shard";
        Ok(self.connection.query_row(query, [], |row| Ok((sequence(row.get(0)?), sequence(row.get(1)?))))?)
    }
}

fn overlap(ranges: &[Range], first: u64, until: u64) -> Vec<Range> {
    ranges.iter().copied().filter(|(begin, end)| *begin < until && first < *end).collect()
}

fn is_within(number: u64, ranges: &[Range]) -> bool {
    let after = ranges.partition_point(|(_, end)| *end <= number);
    ranges.get(after).is_some_and(|(begin, _)| *begin <= number)
}
