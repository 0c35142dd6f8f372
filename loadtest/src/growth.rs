//! `loadtest growth WHAT`: what a request costs the gate as one quantity grows and everything else stays.
//!
//! Owns: the order of a point: lay the ground, start a gate, sign in, rehearse, open loop, closed loop, end, read the trail.
//! Must never: carry anything from one point to the next, or show a point whose trail was not read.
//! Look next: `ground`, what grows; `curve`, what is judged; docs/performance.md, how to read it.

mod curve;
#[path = "../../benches/generated/mod.rs"]
mod generated;
mod ground;
mod long_trail;
mod show;
mod sized;

use crate::Failure;
use crate::arrivals::Rate;
use crate::baseline::progress;
use crate::canary::Watch;
use crate::client::{Place, Protocol, Question, joined};
use crate::findings::Curve;
use crate::load::{Cell, Questions};
use crate::measure::Measured;
use crate::open_loop::{self, Against, Plan};
use crate::people::{self, People};
use crate::process::{Process, Usage};
use crate::program::Program;
use crate::report::{Machine, protocol_name};
use crate::run::allow_files;
use crate::scrape::{self, Counts};
use crate::site::{Site, Who, Wishes};
use crate::trail;
use clap::Args;
use curve::{Closed, FORMAT, Growth, Open, Point};
use ground::{Ground, What};
use http::HeaderValue;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Before anything of an open loop is measured, unless that is shorter itself.
const WARM_UP_SECONDS_MAX: u64 = 2;
/// Between two readings of processor time and memory.
const READING_INTERVAL: Duration = Duration::from_millis(200);
/// Connections over which people ask for the first time.
const FIRST_CONNECTIONS: usize = 16;
/// Points of one curve.
const POINTS_MAX: usize = 16;

/// `growth WHAT [--points A,B] [--seconds N] [--rate R] [--clients N] [--http 1.1|2] [--json F] [--html F]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What grows
    #[arg(value_enum)]
    what: What,
    /// Its sizes, smallest first: `10,1k,100k`, `1kb,10mb`
    #[arg(long, value_delimiter = ',', value_parser = parse_point)]
    points: Vec<u64>,
    /// Measured time of the open loop at each point; the closed loop takes half as long again
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Requests of the open loop: `200/s`, instead of the usual rate
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
    /// Clients of the closed loop, instead of the usual number
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=5_000))]
    clients: Option<usize>,
    /// What the callers speak over TLS
    #[arg(long, value_enum, default_value = "1.1")]
    http: Protocol,
    /// Everything that was found, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Table, verdicts and pictures, for a browser: one file that asks for nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Measure this `chartgate` instead of the one of these sources
    #[arg(long, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
}

impl Options {
    fn warm_up(&self) -> Duration {
        Duration::from_secs(self.seconds.min(WARM_UP_SECONDS_MAX))
    }
}

/// `250`, `10k`, `5M`, `80mb`: bytes are counted in thousands.
fn parse_point(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, each) = match (number.strip_suffix('k'), number.strip_suffix('m')) {
        (Some(number), _) => (number, 1_000),
        (_, Some(number)) => (number, 1_000_000),
        (None, None) => (number, 1),
    };
    let wrong = || format!("`{text}` is no size: write `250`, `10k` or `80mb`");
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(each)).ok_or_else(wrong)
}

/// Measures a curve and prints it.
///
/// # Errors
/// When a part does not work, or anything was missed; wrong use when the points cannot be measured.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let points = points(options).map_err(Failure::WrongUse)?;
    tokio::select! {
        done = measure(options, &points) => done.map_err(Failure::Miss),
        // Dropping the measurement ends what it started.
        _ = tokio::signal::ctrl_c() => Err(Failure::Miss("interrupted".to_owned())),
    }
}

/// The sizes, ascending, and each of them possible.
fn points(options: &Options) -> Result<Vec<u64>, String> {
    let what = options.what;
    let points = match options.points.is_empty() {
        true => what.usual_points().to_vec(),
        false => options.points.clone(),
    };
    let (least, most, why) = what.range();
    if let Some(point) = points.iter().find(|point| !(least..=most).contains(point)) {
        return Err(format!(
            "{point} {} cannot be measured (hint: between {least} and {most}: {why})",
            what.unit()
        ));
    }
    if points.len() > POINTS_MAX || !points.windows(2).all(|two| two.first() < two.last()) {
        return Err(format!(
            "--points are at most {POINTS_MAX}, each larger than the one before (hint: `10,100,1k`)"
        ));
    }
    let top = points.last().copied().unwrap_or_default();
    ground::check_rate(what, top, options.rate)?;
    if what == What::Connections {
        allow_files(top)?;
    }
    Ok(points)
}

async fn measure(options: &Options, points: &[u64]) -> Result<(), String> {
    let what = options.what;
    let top = points.last().copied().unwrap_or_default();
    // A folder of its own: another run may be looking at the same disk.
    let trial = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut growth = Growth {
        format: FORMAT.to_owned(),
        what: what.name().to_owned(),
        unit: what.unit().to_owned(),
        protocol: protocol_name(options.http).to_owned(),
        seconds: options.seconds,
        machine: Machine::look(trial.path())?,
        points: Vec::new(),
        verdicts: Vec::new(),
        misses: Vec::new(),
        doubts: Vec::new(),
        notes: Vec::new(),
    };
    for (number, at) in points.iter().copied().enumerate() {
        let told = format!("{} {}: point {} of {}", curve::count(at), what.unit(), number + 1, points.len());
        let ground = Ground::lay(what, at, top, options.seconds, (options.rate, options.clients))?;
        let bench = Bench::open(options, &ground, told).await?;
        growth.points.push(bench.point(&mut growth.notes).await?);
    }
    growth.judge(what);
    publish(options, &growth)
}

/// Shows the curve and writes the files that were asked for.
fn publish(options: &Options, growth: &Growth) -> Result<(), String> {
    progress("");
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &options.json {
        write(path, serde_json::to_string(growth).map_err(|error| error.to_string())?)?;
    }
    if let Some(path) = &options.html {
        write(path, show::page(options.what, growth)?)?;
    }
    let shown = writeln!(std::io::stdout().lock(), "{}", show::markdown(options.what, growth));
    shown.map_err(|error| error.to_string())?;
    match growth.misses.first() {
        None => Ok(()),
        Some(miss) => Err(format!("{} misses, first: {miss}", growth.misses.len())),
    }
}

/// One point while it is measured.
struct Bench<'o> {
    options: &'o Options,
    ground: &'o Ground,
    told: String,
    site: Site,
    /// Records from before this time are made up.
    since: Option<String>,
    /// What came of requests outside of the open loop.
    answered: Vec<(u128, u16)>,
    misses: Vec<String>,
}

/// A reading of the gate.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    usage: Usage,
    counts: Counts,
    connections: f64,
}

impl<'o> Bench<'o> {
    /// Starts everything; the gate anew once more where its trail is to be long already.
    async fn open(options: &'o Options, ground: &'o Ground, told: String) -> Result<Self, String> {
        progress(&format!("{told}: starting"));
        let wishes = Wishes {
            policies: ground.policies.as_ref().map(tempfile::TempDir::path),
            ..Wishes::gate_only(options.gate.as_deref(), options.http)
        };
        let mut site = Site::open(&wishes, |emr| ground.fill(emr)).await?;
        let since = match ground.entries {
            0 => None,
            entries => {
                let gate = site.contenders.iter_mut().find(|contender| contender.who == Who::Gate);
                if let Some(mut old) = gate.and_then(|gate| gate.process.take()) {
                    old.end()?;
                }
                long_trail::lengthen(&site.config_file(), entries).await?;
                let since = chartgate::clock::now().to_string();
                site.restart_gate().await?;
                Some(since)
            }
        };
        Ok(Self { options, ground, told, site, since, answered: Vec::new(), misses: Vec::new() })
    }

    fn gate(&self) -> Result<(&Process, &Place), String> {
        let gate = self.site.contenders.iter().find(|contender| contender.who == Who::Gate);
        let found = gate.and_then(|gate| Some((gate.process.as_ref()?, &gate.place)));
        found.ok_or_else(|| "the gate is not there".to_owned())
    }

    async fn reading(&self) -> Result<Reading, String> {
        let operations = self.site.operations;
        let counts = scrape::counts(operations).await?;
        let connections = scrape::connections(operations).await?;
        Ok(Reading { at: Instant::now(), usage: self.gate()?.0.usage(), counts, connections })
    }

    /// Measures it all, ends everybody and reads the trail.
    async fn point(mut self, notes: &mut Vec<String>) -> Result<Point, String> {
        let fresh = self.gate()?.0.usage();
        progress(&format!("{}: {} people sign in", self.told, self.ground.people));
        let tokens = self.sign()?;
        let lengths = self.rehearse(&tokens).await?;
        self.sign_in(&tokens).await?;
        if !self.gate()?.0.forget_peak() {
            notes.push("the system does not let a peak be measured anew: it holds the start, too".to_owned());
            notes.dedup();
        }
        let (open, measured) = self.open_loop(tokens.clone()).await?;
        let closed = self.closed_loop(tokens, lengths).await?;
        let counted_by_gate = scrape::counts(self.site.operations).await?.requests;
        progress(&format!("{}: reading the trail", self.told));
        self.answered.extend(&measured.answered);
        if let (Some(bad), count) = (&measured.first_bad, measured.bad) {
            self.misses.push(format!("{count} answers were not as they should be, first: {bad}"));
        }
        if let Err(why) = self.site.end() {
            self.misses.push(why + &self.site.gate_log());
        }
        let (gate, config) = (&self.site.gate_program, self.site.config_file());
        let audit = trail::examine_since(gate, &config, &self.answered, self.since.as_deref())?;
        let mut point = Point {
            at: self.ground.at,
            start_seconds: self.site.gate_start.as_secs_f64(),
            start_resident_kib: fresh.resident_kib,
            start_peak_kib: fresh.peak_kib,
            open,
            closed,
            audit,
            counted_by_gate,
            misses: self.misses,
        };
        point.judge();
        Ok(point)
    }

    /// A token for each person, on all processors.
    fn sign(&self) -> Result<Vec<HeaderValue>, String> {
        let visit = self.ground.scenario.visits.first().ok_or("nobody comes")?;
        let (issuer, patients) = (self.site.issuer(), self.ground.patients);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let persons: Vec<u32> =
            (0..u32::try_from(self.ground.people).map_err(|error| error.to_string())?).collect();
        let share = persons.len().div_ceil(threads).max(1);
        let part = |persons: &[u32]| {
            persons.iter().map(|person| people::sign(issuer, visit, 0, *person, patients)).collect()
        };
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let signing: Vec<_> =
                    persons.chunks(share).map(|persons| scope.spawn(move || part(persons))).collect();
                let signed = signing
                    .into_iter()
                    .map(|thread| thread.join().map_err(|_| "signing failed".to_owned())?);
                signed.collect::<Result<Vec<Vec<HeaderValue>>, String>>().map(|parts| parts.concat())
            })
        })
    }

    /// Every question once: it must be answered, and hold nothing that is withheld. Gives the answers' lengths.
    async fn rehearse(&mut self, tokens: &[HeaderValue]) -> Result<HashMap<String, u64>, String> {
        let mut link = self.gate()?.1.connect().await?;
        let mut lengths = HashMap::new();
        for (path, token) in self.ground.paths().into_iter().zip(tokens.iter().cycle()) {
            let mut watch = Watch::new(self.ground.role(), None);
            let question = Question { path: &path, token, prefers_async: false, write: None };
            let heard = link.ask(question, &mut |piece| watch.see(piece)).await;
            let wrong = |what: &str| format!("{path}: {what}{}", self.site.gate_log());
            let heard = heard.map_err(|what| wrong(&what))?;
            if heard.status != http::StatusCode::OK {
                return Err(wrong(heard.status.as_str()));
            }
            let id = heard.request_id.ok_or_else(|| wrong("no request id"))?;
            self.answered.push((id, heard.status.as_u16()));
            self.misses.extend(watch.found());
            lengths.insert(path, heard.bytes);
        }
        Ok(lengths)
    }

    /// Everybody asks once, so that the gate knows them all: in order, so that those who come first are those it saw longest ago.
    async fn sign_in(&mut self, tokens: &[HeaderValue]) -> Result<(), String> {
        let path = self.ground.first_path();
        let place = self.gate()?.1.clone();
        let mut asking = JoinSet::new();
        for number in 0..FIRST_CONNECTIONS.min(tokens.len()) {
            let own: Vec<HeaderValue> =
                tokens.iter().skip(number).step_by(FIRST_CONNECTIONS).cloned().collect();
            let (place, path) = (place.clone(), path.clone());
            asking.spawn(async move {
                let mut link = place.connect().await?;
                let mut ids = Vec::with_capacity(own.len());
                for token in &own {
                    let heard = link.get(&path, token, false).await?;
                    let id =
                        heard.request_id.ok_or_else(|| "a first answer without a request id".to_owned())?;
                    ids.push((id, heard.status.as_u16()));
                }
                Ok(ids)
            });
        }
        while let Some(ids) = joined(&mut asking).await? {
            if let Some((_, status)) = ids.iter().find(|(_, status)| *status != 200) {
                self.misses.push(format!("somebody's first request was answered with {status}"));
            }
            self.answered.extend(ids);
        }
        Ok(())
    }

    async fn open_loop(&self, tokens: Vec<HeaderValue>) -> Result<(Open, Measured), String> {
        let ground = self.ground;
        let warm_up = self.options.warm_up();
        let length = warm_up + Duration::from_secs(self.options.seconds);
        // Where fewer people are asked for than come in turn, they come again.
        let tokens = tokens.into_iter().cycle().take(ground.turns).collect();
        let scenario = Arc::new(ground.scenario.clone());
        let plan = Plan {
            program: Program::new(&scenario, ground.rate, length, ground.patients, 1),
            scenario,
            warm_up,
            length,
            patients: ground.patients,
            connections: ground.connections,
            alone: ground.is_alone(),
            name: self.told.clone(),
        };
        let against = Against { place: self.gate()?.1.clone(), is_gate: true, decides: true, filters: true };
        let first = self.reading().await?;
        let mut readings = vec![first];
        let mut running = pin!(open_loop::run(plan, against, Arc::new(People::of(tokens))));
        let mut ticks = tokio::time::interval(READING_INTERVAL);
        let measured = loop {
            tokio::select! {
                measured = &mut running => break measured?,
                _ = ticks.tick() => readings.extend(self.reading().await),
            }
        };
        let last = self.gate()?.0.usage();
        Ok((open(ground, &measured, (&readings, warm_up), last), measured))
    }

    async fn closed_loop(
        &mut self,
        tokens: Vec<HeaderValue>,
        lengths: HashMap<String, u64>,
    ) -> Result<Closed, String> {
        let clients = self.ground.clients;
        progress(&format!("{}: {clients} clients in a closed loop", self.told));
        let questions = Questions { paths: self.ground.paths(), callers: tokens, lengths, with_ids: true };
        let cell = Cell::open(self.gate()?.1, clients, Arc::new(questions)).await?;
        let before = self.reading().await?;
        let (mut tally, took) = cell.run(Duration::from_secs(self.options.seconds) / 2).await?;
        let after = self.reading().await?;
        self.answered.extend(tally.ids.drain(..).map(|id| (id, 200)));
        if let Some(failure) = &tally.first_failure {
            self.misses.push(format!("{} failures in the closed loop, first: {failure}", tally.failures));
        }
        let requests = tally.latency.len();
        let counts = after.counts - before.counts;
        let cpu_seconds = after.usage.cpu_seconds - before.usage.cpu_seconds;
        let millis = |quantile: f64| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Closed {
            clients,
            requests,
            per_second: requests as f64 / took.as_secs_f64().max(1e-3),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            cpu_us_per_request: (counts.requests > 0.0).then(|| cpu_seconds * 1e6 / counts.requests),
            commits_per_request: counts.commits / counts.requests.max(1.0),
            peak_kib: after.usage.peak_kib,
        })
    }
}

/// What the open loop came to. Processor time is counted between readings after the warm-up, so that no handshake is in it.
fn open(
    ground: &Ground,
    measured: &Measured,
    (readings, warm_up): (&[Reading], Duration),
    last: Usage,
) -> Open {
    let response = Curve::of(&measured.response);
    let idle = readings.first().map_or(0.0, |reading| reading.counts.requests);
    let began = readings.iter().find(|reading| reading.counts.requests > idle).map(|reading| reading.at);
    let window: Vec<&Reading> =
        readings.iter().filter(|reading| began.is_some_and(|began| reading.at >= began + warm_up)).collect();
    let spent = window.first().zip(window.last()).map(|(first, last)| {
        (last.usage.cpu_seconds - first.usage.cpu_seconds, last.counts.requests - first.counts.requests)
    });
    let mut resident: Vec<u64> = window.iter().map(|reading| reading.usage.resident_kib).collect();
    resident.sort_unstable();
    let busy = readings.iter().filter(|reading| began.is_some_and(|began| reading.at >= began));
    let connections = busy.map(|reading| reading.connections).reduce(f64::min).unwrap_or_default();
    let bytes: u64 = measured.rows.iter().map(|row| row.bytes).sum();
    Open {
        per_second: ground.rate.per_second(),
        requests: response.count,
        p50_ms: response.p50_ms,
        p99_ms: response.p99_ms,
        max_ms: response.max_ms,
        lag_p99_ms: Curve::of(&measured.lag).p99_ms,
        unsent: measured.unsent,
        answer_bytes: bytes / response.count.max(1),
        connections: Duration::try_from_secs_f64(connections).map_or(0, |whole| whole.as_secs()),
        cpu_us_per_request: spent
            .filter(|(_, requests)| *requests > 0.0)
            .map(|(seconds, requests)| seconds * 1e6 / requests),
        resident_kib: resident.get(resident.len() / 2).copied().unwrap_or(last.resident_kib),
        peak_kib: last.peak_kib,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("250", Some(250)),
            ("10k", Some(10_000)),
            ("10KB", Some(10_000)),
            ("80mb", Some(80_000_000)),
            ("5M", Some(5_000_000)),
            ("7b", Some(7)),
            ("", None),
            ("-1", None),
            ("1.5k", None),
            ("99999999999999999999k", None),
            ("18446744073709551615k", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_point(text).ok(), expected, "{text}");
        }
    }
}
