//! `chartgate policy replay`: a recorded day, decided again by a candidate set.
//!
//! Owns: the command's arguments and output. Must never: hold the day in memory; guess what was not recorded.
//! Look next: `domain::workbench::replay`; `recorded`, which reads the trail.

use super::recorded::Trail;
use crate::cli::audit::{self, Filter};
use crate::cli::trail::Reader;
use crate::cli::{Ending, show};
use crate::domain::access::PolicySet;
use crate::domain::audit::{self as records, escape};
use crate::domain::workbench::replay::{Change, Count, Found, Replay as Engine, Summary};
use crate::{app, config, limits};
use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// `policy replay --config F [--day D | --from T --to T] CANDIDATE [--scan] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Replay {
    /// The policies directory to try
    candidate: PathBuf,
    /// The configuration file, for the trail and the policies in force
    #[arg(long = "config", value_name = "FILE")]
    config: PathBuf,
    /// A day such as 2026-03-01, from midnight to midnight in UTC
    #[arg(long, conflicts_with_all = ["from", "to"])]
    day: Option<Date>,
    /// From this time or date on
    #[arg(long, value_parser = audit::parse_time)]
    from: Option<Timestamp>,
    /// Before this time or date
    #[arg(long, value_parser = audit::parse_time)]
    to: Option<Timestamp>,
    #[command(flatten)]
    reader: Reader,
    /// Read the whole trail, not the index
    #[arg(long)]
    scan: bool,
    /// One JSON object a line: each flip, then the count
    #[arg(long)]
    json: bool,
}

pub(super) fn run(order: &Replay) -> Ending {
    let (settings, present, candidate) = match sets(order) {
        Ok(found) => found,
        Err(problems) => return show::problems(&problems, order.json),
    };
    let Some((from, to)) = order.span() else {
        show::error("`--day` is not a day that there was");
        return Ending::WrongUse;
    };
    let filter = Filter { since: from, until: to, ..Filter::default() };
    let times = [("since", from), ("until", to)].into_iter();
    let mut asked: BTreeMap<String, String> =
        times.filter_map(|(name, time)| Some((name.to_owned(), time?.to_string()))).collect();
    asked.insert("candidate".to_owned(), candidate.hash().to_owned());
    let trail = match Trail::open(&settings, &order.reader, "policy replay", asked) {
        Ok(trail) => trail,
        Err(why) => {
            show::error(&why);
            return Ending::No;
        }
    };
    let mut run = Run::new(order, Engine::new(&present, &candidate));
    let code = trail.each(&filter, order.scan, &mut |_, recorded| {
        run.progress();
        let (engine, told) = (&mut run.engine, &mut run.told);
        engine
            .replay(recorded, &mut |found| told.take(&found))
            .map_err(|denial| io::Error::other(denial.to_string()))
    });
    run.conclude(&present, &candidate, code)
}

type Sets = (config::Settings, Arc<PolicySet>, Arc<PolicySet>);

fn sets(order: &Replay) -> Result<Sets, Vec<config::Problem>> {
    let settings = config::load(&order.config)?;
    let present = app::load_policies(&settings.policies)?;
    let candidate = app::load_policies(&order.candidate)?;
    Ok((settings, Arc::new(present), Arc::new(candidate)))
}

impl Replay {
    fn span(&self) -> Option<(Option<Timestamp>, Option<Timestamp>)> {
        let Some(day) = self.day else { return Some((self.from, self.to)) };
        let at = |day: Date| day.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
        Some((Some(at(day)?), Some(at(day.checked_add(1.day()).ok()?)?)))
    }
}

struct Run {
    engine: Engine,
    told: Told,
    terminal: bool,
}

/// What is printed on the way, and kept for the table.
struct Told {
    json: bool,
    summary: Summary,
}

impl Told {
    fn take(&mut self, found: &Found<'_>) {
        if self.json {
            show::line(&records::json(&as_json(found)));
        } else {
            self.summary.add(found);
        }
    }
}

impl Run {
    fn new(order: &Replay, engine: Engine) -> Self {
        let told = Told { json: order.json, summary: Summary::default() };
        Self { engine, told, terminal: io::stderr().is_terminal() }
    }

    fn progress(&self) {
        let done = self.engine.count().decisions;
        if self.terminal && done.is_multiple_of(limits::REPLAY_PROGRESS_EVERY) {
            let _closed = write!(io::stderr().lock(), "\r\x1b[K{done} decisions");
        }
    }

    fn conclude(&self, present: &PolicySet, candidate: &PolicySet, code: u8) -> Ending {
        if self.terminal {
            let _closed = write!(io::stderr().lock(), "\r\x1b[K");
        }
        let count = self.engine.count();
        let good = code == audit::GOOD && count.flipped == 0 && count.undecided == 0;
        if self.told.json {
            show::line(&count_json(&count, present, candidate, good).to_string());
        } else {
            self.table(&count);
        }
        if good { Ending::Good } else { Ending::No }
    }

    fn table(&self, count: &Count) {
        let mut last = (String::new(), String::new());
        for (row, records, patients) in self.told.summary.rows() {
            let who = (row.roles.clone(), row.subject.clone());
            if who != last {
                show::line(&escape(&format!("{} ({})", row.subject, row.roles)));
                last = who;
            }
            let names: Vec<&str> = patients.iter().map(String::as_str).collect();
            let whom = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
            show::line(&escape(&format!("  {records:>6} x {}{whom}: {}", row.what, row.change)));
        }
        if self.told.summary.is_cut_short() {
            show::line("there are more lines than are shown: `--json` gives every one");
        }
        let Count { decisions, records, same, flipped, undecided, withheld, of_other_sets, .. } = count;
        show::line(&format!(
            "{decisions} decisions with {records} records: {same} stay, {flipped} flip, {undecided} undecided"
        ));
        if *withheld > 0 {
            show::line(&format!(
                "{withheld} records were withheld from answers; the trail does not name them"
            ));
        }
        if *of_other_sets > 0 {
            show::line(&format!(
                "{of_other_sets} decisions are of another set than the one in force: compared with what they let out"
            ));
        }
    }
}

fn as_json(found: &Found<'_>) -> Value {
    let recorded = found.recorded;
    let Change { permitted, hidden, shown, missing } = found.change;
    json!({
        "time": recorded.time.to_string(), "requestId": recorded.request_id, "issuer": recorded.issuer,
        "subject": recorded.subject, "roles": recorded.roles, "purpose": recorded.purpose,
        "interaction": recorded.interaction,
        "reference": found.item.map(|item| &item.reference), "patients": found.item.map(|item| &item.patients),
        "was": if recorded.permitted { "permit" } else { "refuse" },
        "becomes": permitted.map(|permitted| if permitted { "permit" } else { "refuse" }),
        "hidden": hidden, "shown": shown,
        "undecided": missing.iter().map(|fact| fact.name()).collect::<Vec<_>>(),
    })
}

fn count_json(count: &Count, present: &PolicySet, candidate: &PolicySet, good: bool) -> Value {
    json!({
        "ok": good, "present": present.hash(), "candidate": candidate.hash(), "decisions": count.decisions,
        "records": count.records, "same": count.same, "flipped": count.flipped, "undecided": count.undecided,
        "withheld": count.withheld, "ofOtherSets": count.of_other_sets, "situations": count.situations,
    })
}
