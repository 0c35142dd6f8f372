//! How fast a long audit trail is written, verified, indexed and searched, and how fast records become durable. A bench, not
//! a test: it prints figures, as tables for docs/audit.md, and judges none.
//!
//! Owns: a made-up hospital whose trail looks like a real one: every answer a release of a few records and its outcome, by
//! the journal's own writer. Must never: be in a hospital's build.
//! Look next: `edge::trail_index` of the main crate; `docs/audit.md` for figures.
//!
//! ```text
//! cargo run --release -p chartgate-trailbench -- --records 10000000 --at /var/tmp/trailbench
//! ```
//! A trail that is there already is not written again. Ten million records take about 9 GB, the index with them.

mod appending;
mod hospital;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chartgate::cli::audit;
use chartgate::edge::journal::{self, Journal, Keys, Request, Settings};
use chartgate::edge::trail_index::{self, Index};
use clap::Parser;
use jiff::civil::Date;

use hospital::Hospital;

/// What is measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// Records in the trail: half of them releases, half outcomes
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Where the trail is made
    #[arg(long)]
    at: PathBuf,
    /// Patients of the hospital; accesses are spread unevenly over them
    #[arg(long, default_value_t = 50_000)]
    patients: u64,
    /// Searches of each kind
    #[arg(long, default_value_t = 20)]
    searches: u64,
    /// Seconds for each number of clients that append
    #[arg(long, default_value_t = 5)]
    append_seconds: u64,
}

/// Answers that one append takes here, and so one frame: the trail is to be long, not slow.
const ANSWERS_IN_FRAME: u64 = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let settings = Settings {
        directory: arguments.at.join("audit"),
        signing_key: arguments.at.join("secrets/audit.key"),
        encryption_key: arguments.at.join("secrets/audit.aes"),
    };
    let hospital = Arc::new(Hospital { patients: arguments.patients });
    say("Append, each client waiting for its own record:");
    appending::measure(&arguments.at, &hospital, Duration::from_secs(arguments.append_seconds))?;
    say(&format!("\nA trail of {} records:\n", arguments.records));
    say("| what | took | rate or size |");
    say("| --- | ---: | ---: |");
    if !settings.directory.is_dir() {
        write(&settings, &hospital, arguments.records / 2)?;
    }
    verify(&settings)?;
    index(&settings)?;
    say("\n| looked up | median | 95 % | found on average |");
    say("| --- | ---: | ---: | ---: |");
    search(&settings, &hospital, arguments.searches)?;
    summarise(&settings, arguments.records / 2)
}

pub(crate) fn say(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}");
}

/// Tells how far it is, beside the tables.
fn tell(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{text}");
}

fn row(what: &str, took: Duration, more: &str) {
    say(&format!("| {what} | {:.1} s | {more} |", took.as_secs_f64()));
}

fn each_second(count: u64, took: Duration) -> String {
    let rate = u128::from(count) * 1_000_000 / took.as_micros().max(1);
    format!("{rate} records/s")
}

/// Two frames are under way at a time: one is encoded while the other is encrypted and synced.
fn write(settings: &Settings, hospital: &Hospital, answers: u64) -> Result<(), Box<dyn Error>> {
    journal::generate_missing(settings)?;
    journal::create(settings, Hospital::time(0))?;
    let began = Instant::now();
    let journal = Journal::open(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let frame = |first: u64| -> Vec<_> {
            let end = answers.min(first + ANSWERS_IN_FRAME);
            (first..end.max(first)).flat_map(|number| hospital.answer(number)).collect()
        };
        let mut first = 0;
        while first < answers {
            let (one, other) = (frame(first), frame(first + ANSWERS_IN_FRAME));
            let (one, other) = tokio::join!(journal.append(&one), append_some(&journal, &other));
            let _receipt = one?;
            other?;
            first += 2 * ANSWERS_IN_FRAME;
            if first.is_multiple_of(500_000) {
                tell(&format!("wrote {} of {} records", first * 2, answers * 2));
            }
        }
        journal.close().await?;
        Ok::<(), Box<dyn Error>>(())
    })?;
    let took = began.elapsed();
    row("written in large frames", took, &each_second(answers * 2, took));
    Ok(())
}

async fn append_some(
    journal: &Journal,
    records: &[chartgate::domain::audit::Record],
) -> Result<(), journal::JournalError> {
    if records.is_empty() { Ok(()) } else { journal.append(records).await.map(|_receipt| ()) }
}

/// Everything `audit verify` does: every byte of every file, and every entry decrypted.
fn verify(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let keys = Keys::load(settings)?;
    let began = Instant::now();
    let request = Request { decode: true, ..Request::default() };
    let found = journal::inspect(&settings.directory, &keys, request)?;
    let took = began.elapsed();
    if let Some(finding) = found.findings.first() {
        return Err(finding.to_string().into());
    }
    row("verified, every entry decrypted", took, &each_second(found.size, took));
    let megabytes = bytes_below(&settings.directory)? / 1_000_000;
    say(&format!("| trail on disk | | {megabytes} MB |"));
    Ok(())
}

fn bytes_below(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let (mut bytes, mut open) = (0, vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                open.push(entry.path());
            } else {
                bytes += about.len();
            }
        }
    }
    Ok(bytes)
}

fn index(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let path = trail_index::default_path(&settings.directory);
    let keys = Keys::load(settings)?;
    let began = Instant::now();
    let mut index = Index::create(&path, settings)?;
    let (_, updated) =
        index.current(settings, &keys, &mut |entries| tell(&format!("indexed {entries} entries")))?;
    let took = began.elapsed();
    drop(index);
    row("indexed", took, &each_second(updated.entries, took));
    say(&format!("| index on disk | | {} MB |", std::fs::metadata(&path)?.len() / 1_000_000));
    Ok(())
}

/// One search as the command does it, opening of the index and printing included: milliseconds and lines.
fn timed(settings: &Settings, filter: &audit::Filter) -> (f64, usize) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let code = audit::search(settings, filter, true, &mut out, &mut err);
    let took = began.elapsed().as_secs_f64() * 1_000.0;
    if code != audit::GOOD || !err.is_empty() {
        tell(&format!("! {}", String::from_utf8_lossy(&err)));
    }
    (took, out.iter().filter(|byte| **byte == b'\n').count())
}

fn search(settings: &Settings, hospital: &Hospital, searches: u64) -> Result<(), Box<dyn Error>> {
    let some = |text: String| Some(text);
    let none = audit::Filter::default;
    let day: Date = Hospital::day(0)?;
    let kinds: [(&str, &dyn Fn(u64) -> audit::Filter); 6] = [
        ("a patient's accesses", &|n| audit::Filter { patient: some(hospital.patient(n * 7)), ..none() }),
        ("a record's", &|n| audit::Filter { resource: some(hospital.observation(n * 13 + 5)), ..none() }),
        ("a patient's by one person", &|n| audit::Filter {
            patient: some(hospital.patient(n)),
            subject: some(Hospital::person(n)),
            ..none()
        }),
        ("emergencies of a person", &|n| audit::Filter {
            emergency: some("any".to_owned()),
            subject: some(Hospital::person(n)),
            ..none()
        }),
        ("one request", &|n| audit::Filter { request_id: some(Hospital::request_id(n * 101)), ..none() }),
        ("ten minutes", &|n| {
            let begin = audit::parse_time(&format!("{day}T08:{:02}:00Z", n % 50)).ok();
            let until = begin.and_then(|time| time.checked_add(jiff::SignedDuration::from_mins(10)).ok());
            audit::Filter { since: begin, until, ..none() }
        }),
    ];
    for (name, filter) in kinds {
        let mut times: Vec<(f64, usize)> = (0..searches).map(|n| timed(settings, &filter(n))).collect();
        times.sort_by(|left, right| left.0.total_cmp(&right.0));
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied();
        let (Some((median, _)), Some((slow, _))) = (at(50), at(95)) else { continue };
        let lines = times.iter().map(|(_, lines)| lines).sum::<usize>() / times.len();
        say(&format!("| {name} | {median:.1} ms | {slow:.1} ms | {lines} |"));
    }
    Ok(())
}

fn summarise(settings: &Settings, answers: u64) -> Result<(), Box<dyn Error>> {
    let path = trail_index::default_path(&settings.directory);
    let days = answers.div_ceil(hospital::ANSWERS_IN_DAY).max(1);
    let (mut times, mut lines) = (Vec::new(), 0);
    for back in [days / 4, days / 2, days.saturating_sub(1)] {
        let day = Hospital::day(back)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let code = audit::summary(settings, &path, day, true, &mut out, &mut err);
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
        lines = out.iter().filter(|byte| **byte == b'\n').count();
        if code != audit::GOOD {
            return Err(String::from_utf8_lossy(&err).into_owned().into());
        }
    }
    times.sort_by(f64::total_cmp);
    let (median, most) = (times.get(1), times.last());
    if let (Some(median), Some(most)) = (median, most) {
        say(&format!("| a day's summary | {median:.1} ms | {most:.1} ms | {lines} |"));
    }
    Ok(())
}
