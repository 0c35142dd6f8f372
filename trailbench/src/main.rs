//! How fast a long audit trail is written, indexed and searched. A bench, not a test: it prints figures and judges none.
//!
//! Owns: a made-up hospital whose trail looks like a real one: every answer a release of a few records and its outcome, by
//! the journal's own writer. Must never: be in a hospital's build.
//! Look next: `edge::trail_index` of the main crate; `docs/audit.md` for figures.
//!
//! ```text
//! cargo run --release -p chartgate-trailbench -- --records 10000000 --at /var/tmp/trailbench
//! ```
//! A trail that is there already is only searched. Ten million records take about 10 GB.

mod hospital;

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use chartgate::cli::audit;
use chartgate::edge::journal::{self, Journal, Keys, Settings};
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
}

/// Answers that one group commit takes here.
const ANSWERS_IN_COMMIT: u64 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let settings = Settings {
        directory: arguments.at.join("audit"),
        signing_key: arguments.at.join("secrets/audit.key"),
        encryption_key: arguments.at.join("secrets/audit.aes"),
    };
    let hospital = Hospital { patients: arguments.patients };
    if !settings.directory.is_dir() {
        write(&settings, &hospital, arguments.records / 2)?;
    }
    index(&settings)?;
    search(&settings, &hospital, arguments.searches)?;
    summarise(&settings, &hospital, arguments.records / 2)
}

fn say(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}");
}

fn write(settings: &Settings, hospital: &Hospital, answers: u64) -> Result<(), Box<dyn Error>> {
    journal::generate_missing(settings)?;
    journal::create(settings, Hospital::time(0))?;
    let began = Instant::now();
    let journal = Journal::open(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for first in (0..answers).step_by(usize::try_from(ANSWERS_IN_COMMIT)?) {
            let end = answers.min(first + ANSWERS_IN_COMMIT);
            let records: Vec<_> = (first..end).flat_map(|number| hospital.answer(number)).collect();
            let _receipt = journal.append(&records).await?;
        }
        journal.close().await?;
        Ok::<(), Box<dyn Error>>(())
    })?;
    let took = began.elapsed();
    say(&format!("write    {} records in {took:.1?}", answers * 2));
    Ok(())
}

fn index(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let path = trail_index::default_path(&settings.directory);
    let keys = Keys::load(settings)?;
    let began = Instant::now();
    let mut index = Index::create(&path, settings)?;
    let (_, updated) =
        index.current(settings, &keys, &mut |entries| say(&format!("         {entries} entries")))?;
    let took = began.elapsed();
    drop(index);
    let bytes = std::fs::metadata(&path)?.len();
    say(&format!("index    {} entries in {took:.1?}; {} MB", updated.entries, bytes / 1_000_000));
    Ok(())
}

/// One search as the command does it, opening of the index and printing included: milliseconds and lines.
fn timed(settings: &Settings, filter: &audit::Filter) -> (f64, usize) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let code = audit::search(settings, filter, true, &mut out, &mut err);
    let took = began.elapsed().as_secs_f64() * 1_000.0;
    if code != audit::GOOD || !err.is_empty() {
        say(&format!("! {}", String::from_utf8_lossy(&err)));
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
        say(&format!("search   {name}: median {median:.1} ms, 95 % {slow:.1} ms, {lines} found on average"));
    }
    Ok(())
}

fn summarise(settings: &Settings, _hospital: &Hospital, answers: u64) -> Result<(), Box<dyn Error>> {
    let path = trail_index::default_path(&settings.directory);
    let days = answers.div_ceil(hospital::ANSWERS_IN_DAY).max(1);
    for back in [days / 2, days.saturating_sub(1)] {
        let day = Hospital::day(back)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let code = audit::summary(settings, &path, day, true, &mut out, &mut err);
        let took = began.elapsed().as_secs_f64() * 1_000.0;
        let lines = out.iter().filter(|byte| **byte == b'\n').count();
        say(&format!("summary  {day}: {took:.1} ms, {lines} lines, exit code {code}"));
    }
    Ok(())
}
