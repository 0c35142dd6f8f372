//! What a run found: tables for people, one JSON object for machines.
//!
//! Owns: [`Report`] and its arithmetic.
//! Must never: round a miss away, or leave out what the numbers depend on.
//! Look next: docs/performance.md.

use crate::baseline::Meter;
use crate::client::Protocol;
use crate::load::Tally;
use crate::plan::Workload;
use crate::process::Usage;
use crate::site::Who;
use crate::trail::Audit;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Syncs tried before the run, to know what a durable write costs here.
const SYNCS: usize = 50;

/// One workload, one number of clients, one contender: all rounds together.
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) clients: usize,
    pub(crate) who: Who,
    tally: Tally,
    took: Duration,
    used: Meter,
    /// Requests per second of each round.
    rates: Vec<f64>,
}

impl Row {
    /// Without numbers yet.
    ///
    /// # Errors
    /// As [`Tally::empty`].
    pub(crate) fn new(workload: Workload, clients: usize, who: Who) -> Result<Self, String> {
        let (tally, used) = (Tally::empty()?, Meter::default());
        Ok(Self { workload, clients, who, tally, took: Duration::ZERO, used, rates: Vec::new() })
    }

    /// Adds a round.
    ///
    /// # Errors
    /// As [`Tally::add`].
    pub(crate) fn add(&mut self, tally: Tally, took: Duration, used: Meter) -> Result<(), String> {
        self.rates.push(per(tally.latency.len(), took.as_secs_f64()));
        self.tally.add(tally)?;
        self.took += took;
        self.used.cpu_seconds += used.cpu_seconds;
        self.used.counts.requests += used.counts.requests;
        self.used.counts.commits += used.counts.commits;
        self.used.counts.commit_seconds += used.counts.commit_seconds;
        Ok(())
    }

    fn requests(&self) -> u64 {
        self.tally.latency.len()
    }

    fn rate(&self) -> f64 {
        per(self.requests(), self.took.as_secs_f64())
    }

    fn megabytes_per_second(&self) -> f64 {
        per(self.tally.bytes, self.took.as_secs_f64()) / 1e6
    }

    fn milliseconds(&self, quantile: f64) -> f64 {
        millis(self.tally.latency.value_at_quantile(quantile))
    }

    fn cpu_micros_per_request(&self) -> Option<f64> {
        let known = self.who != Who::Direct && self.requests() > 0;
        known.then(|| self.used.cpu_seconds * 1e6 / per(self.requests(), 1.0))
    }

    fn commits_per_request(&self) -> Option<f64> {
        let counts = self.used.counts;
        (counts.requests > 0.0).then(|| counts.commits / counts.requests)
    }

    fn commit_milliseconds(&self) -> Option<f64> {
        let counts = self.used.counts;
        (counts.commits > 0.0).then(|| counts.commit_seconds * 1e3 / counts.commits)
    }
}

fn per(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^52")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

fn millis(micros: u64) -> f64 {
    per(micros, 1e3)
}

/// What the numbers depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) memory_mib: u64,
    /// The load average over the last minute.
    pub(crate) load_before: String,
    /// The median of a synced write.
    pub(crate) sync_ms: f64,
    pub(crate) optimised: bool,
}

impl Machine {
    /// Looks at the machine, and tries the disk under `folder`.
    ///
    /// # Errors
    /// When the disk cannot be tried.
    pub(crate) fn look(folder: &Path) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
        };
        let kib = after(&read("/proc/meminfo"), "MemTotal");
        Ok(Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: after(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kib.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024,
            load_before: read("/proc/loadavg").split(' ').take(1).collect(),
            sync_ms: sync_ms(folder).map_err(|error| error.to_string())?,
            optimised: !cfg!(debug_assertions),
        })
    }
}

/// The median of appending 1 KB and syncing it.
fn sync_ms(folder: &Path) -> std::io::Result<f64> {
    let path = folder.join("sync-trial");
    let mut file = File::create(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    fs::remove_file(&path)?;
    took.sort();
    Ok(took.get(SYNCS / 2).map_or(0.0, |middle| middle.as_secs_f64() * 1e3))
}

/// What a contender holds at the end of the run.
pub(crate) struct Memory {
    pub(crate) who: Who,
    pub(crate) usage: Usage,
}

/// Everything that a run found.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) protocol: Protocol,
    pub(crate) rounds: u32,
    pub(crate) cell_seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) audit: Audit,
    /// Requests that the gate's own metrics counted.
    pub(crate) counted_by_gate: f64,
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// Good, or what was missed.
    ///
    /// # Errors
    /// The first miss.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let failed = self.rows.iter().find_map(|row| {
            let why = row.tally.first_failure.as_deref()?;
            Some(format!("{} failed answers from {}, first: {why}", row.tally.failures, row.who.name()))
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        if !self.audit.is_good() {
            return Err(format!("the trail does not match the answers: {:?}", self.audit));
        }
        if (self.counted_by_gate - per(self.audit.answered, 1.0)).abs() > 0.5 {
            return Err(format!("the gate counted {} requests", self.counted_by_gate));
        }
        Ok(())
    }

    /// Throughput in relation to `other` in the same cell.
    fn ratio(&self, row: &Row, other: Who) -> Option<f64> {
        let same = |candidate: &&Row| {
            candidate.who == other && candidate.workload == row.workload && candidate.clients == row.clients
        };
        let beside = self.rows.iter().find(same)?.rate();
        (row.who != other && row.who != Who::Direct && beside > 0.0).then(|| row.rate() / beside)
    }
}

/// Prints it to standard output.
///
/// # Errors
/// When nobody reads.
pub(crate) fn print(report: &Report, as_json: bool) -> Result<(), String> {
    let text = if as_json { json_text(report) } else { tables(report) };
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| error.to_string())
}

/// As people write it.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
    }
}

/// A number, or a dash.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A table that is Markdown, too; all columns but the first are numbers.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn tables(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{} processors ({}), {} MiB; load before: {}; a synced write of 1 KB takes {:.2} ms\n\
         TLS, {}, closed loop, {} rounds of {:.2} s each\n",
        machine.processors,
        machine.model,
        machine.memory_mib,
        machine.load_before,
        machine.sync_ms,
        protocol_name(report.protocol),
        report.rounds,
        report.cell_seconds
    );
    if !machine.optimised {
        text.push_str("NOT an optimised build: these numbers say nothing. Use --release.\n");
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for workload in Workload::ALL {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.workload == workload).collect();
        if !rows.is_empty() {
            text.push_str(&format!("\n{}\n{}\n", workload.name(), load_table(report, rows)));
        }
    }
    let memory = report.memory.iter().map(|memory| {
        let mib = |kib: u64| format!("{}", kib / 1024);
        vec![
            memory.who.name().to_owned(),
            mib(memory.usage.resident_kib),
            mib(memory.usage.peak_kib),
            format!("{:.1}", memory.usage.cpu_seconds),
        ]
    });
    let memory = table(&["memory", "resident MiB", "peak MiB", "CPU s"], memory);
    text.push_str(&format!("\n{memory}\n\n{}", audit_text(&report.audit)));
    text
}

fn load_table(report: &Report, mut rows: Vec<&Row>) -> String {
    let order = [Who::Direct, Who::Nginx, Who::Haproxy, Who::PassThrough, Who::Gate];
    rows.sort_by_key(|row| (row.clients, order.iter().position(|who| *who == row.who)));
    let header = [
        "",
        "clients",
        "requests",
        "req/s",
        "rounds",
        "MB/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "of nginx",
        "of hyper",
        "CPU us/req",
        "commits/req",
        "commit ms",
    ];
    let cells = |row: &&Row| {
        let (low, high) =
            row.rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
        vec![
            row.who.name().to_owned(),
            row.clients.to_string(),
            row.requests().to_string(),
            format!("{:.0}", row.rate()),
            format!("{low:.0}-{high:.0}"),
            format!("{:.1}", row.megabytes_per_second()),
            format!("{:.2}", row.milliseconds(0.5)),
            format!("{:.2}", row.milliseconds(0.9)),
            format!("{:.2}", row.milliseconds(0.99)),
            format!("{:.2}", millis(row.tally.latency.max())),
            number(report.ratio(row, Who::Nginx), 2),
            number(report.ratio(row, Who::PassThrough), 2),
            number(row.cpu_micros_per_request(), 0),
            number(row.commits_per_request(), 2),
            number(row.commit_milliseconds(), 2),
        ]
    };
    table(&header, rows.iter().map(cells))
}

fn audit_text(audit: &Audit) -> String {
    if audit.is_good() {
        return format!("{} answers of the gate, each with its record; the trail verifies", audit.answered);
    }
    format!("THE RUN FAILS: {audit:?}")
}

fn json_text(report: &Report) -> String {
    let machine = &report.machine;
    let rows = report.rows.iter().map(|row| row_json(report, row));
    let memory = report.memory.iter().map(|memory| {
        json!({
            "who": memory.who.name(),
            "residentKib": memory.usage.resident_kib,
            "peakKib": memory.usage.peak_kib,
            "cpuSeconds": memory.usage.cpu_seconds,
        })
    });
    let audit = &report.audit;
    json!({
        "machine": machine,
        "protocol": protocol_name(report.protocol),
        "rounds": report.rounds,
        "cellSeconds": report.cell_seconds,
        "rows": rows.collect::<Vec<Value>>(),
        "memory": memory.collect::<Vec<Value>>(),
        "audit": audit,
        "good": report.verdict().is_ok(),
        "notes": report.notes,
    })
    .to_string()
}

fn row_json(report: &Report, row: &Row) -> Value {
    json!({
        "workload": row.workload.name(),
        "clients": row.clients,
        "who": row.who.name(),
        "requests": row.requests(),
        "failures": row.tally.failures,
        "requestsPerSecond": row.rate(),
        "roundRates": row.rates,
        "megabytesPerSecond": row.megabytes_per_second(),
        "p50Ms": row.milliseconds(0.5),
        "p90Ms": row.milliseconds(0.9),
        "p99Ms": row.milliseconds(0.99),
        "maxMs": millis(row.tally.latency.max()),
        "ofNginx": report.ratio(row, Who::Nginx),
        "ofPassThrough": report.ratio(row, Who::PassThrough),
        "cpuMicrosPerRequest": row.cpu_micros_per_request(),
        "commitsPerRequest": row.commits_per_request(),
        "commitMs": row.commit_milliseconds(),
    })
}
