//! `loadtest baseline`: everybody measured in turn, round after round, on the same upstream in one run.
//!
//! Owns: the order of the cells, and the rule that a run with a miss fails.
//! Must never: measure before every answer was seen to be right.
//! Look next: `report`, what is made of it; docs/performance.md, how to read it.

use crate::client::Protocol;
use crate::load::{Cell, Questions, Tally};
use crate::plan::{self, Workload};
use crate::process::Usage;
use crate::report::{self, Machine, Memory, Report, Row};
use crate::scrape::{self, Counts};
use crate::site::{Contender, Site, Who, Wishes};
use crate::trail;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use http::HeaderValue;
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `baseline [--bodies 2kb,1mb] [--seconds N] [--rounds N] [--clients N,N] [--http 1.1|2] [--json]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Measured time in all
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How often everybody has their turn
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Clients at once, each on a connection of its own
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64],
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=400))]
    clients: Vec<usize>,
    /// Answers that are asked for, by their size at the upstream
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["2kb", "100kb", "1mb"])]
    bodies: Vec<Workload>,
    /// What the clients speak over TLS
    #[arg(long, value_enum, default_value = "1.1")]
    http: Protocol,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Measure this `chartgate` instead of the one of these sources
    #[arg(long, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
    /// The nginx to measure beside
    #[arg(long, value_name = "PROGRAM", default_value = "nginx")]
    nginx: PathBuf,
    /// Leave nginx out
    #[arg(long)]
    without_nginx: bool,
    /// The HAProxy to measure beside
    #[arg(long, value_name = "PROGRAM", default_value = "haproxy")]
    haproxy: PathBuf,
    /// Leave HAProxy out
    #[arg(long)]
    without_haproxy: bool,
}

/// What everybody is asked, and the ids of the gate's answers so far.
struct Run<'o> {
    options: &'o Options,
    site: Site,
    callers: Vec<HeaderValue>,
    rows: Vec<Row>,
    answered: Vec<u128>,
}

/// Runs it all and prints the report.
///
/// # Errors
/// When a part does not work, or when an answer was not right or lacks its record.
pub(crate) async fn run(options: &Options) -> Result<(), String> {
    tokio::select! {
        done = measure(options) => done,
        // Dropping the measurement ends what it started.
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    }
}

async fn measure(options: &Options) -> Result<(), String> {
    progress("starting");
    let wishes = Wishes {
        gate: options.gate.as_deref(),
        nginx: Some(options.nginx.as_path()).filter(|_| !options.without_nginx),
        haproxy: Some(options.haproxy.as_path()).filter(|_| !options.without_haproxy),
        haproxy_tokens: None,
        envoy: None,
        nginx_authz: None,
        pass_through: true,
        stages: false,
        policies: None,
        protocol: options.http,
    };
    let site = Site::open(&wishes, plan::fill).await?;
    let machine = Machine::look(site.folder())?;
    let callers = plan::callers(site.issuer())?;
    let mut run = Run { options, site, callers, rows: Vec::new(), answered: Vec::new() };
    let questions = run.rehearse().await?;
    for round in 0..options.rounds {
        for workload in run.workloads() {
            for clients in options.clients.iter().copied() {
                run.everybody(round, workload, clients, &questions).await?;
            }
        }
    }
    let counts = scrape::counts(run.site.operations).await?;
    let memory = run.memory();
    progress("reading the trail");
    let ended = run.site.end();
    let answered: Vec<(u128, u16)> = run.answered.iter().map(|id| (*id, 200)).collect();
    let audit = trail::examine(&run.site.gate_program, &run.site.config_file(), &answered)?;
    progress("");
    let report = Report {
        machine,
        protocol: options.http,
        rounds: options.rounds,
        cell_seconds: run.cell_length().as_secs_f64(),
        rows: run.rows,
        memory,
        audit,
        counted_by_gate: counts.requests,
        notes: run.site.notes.clone(),
    };
    report::print(&report, options.json)?;
    ended.map_err(|error| error + &run.site.gate_log())?;
    report.verdict()
}

/// What everybody is asked in each workload; answers differ in length between the gate and the others.
type Asked = HashMap<(&'static str, &'static str), Arc<Questions>>;

impl Run<'_> {
    /// Every question once to everybody: the answers must be right, and are what later ones are compared with.
    async fn rehearse(&mut self) -> Result<Asked, String> {
        let mut asked = Asked::new();
        for workload in self.workloads() {
            progress(&format!("rehearsing {}", workload.name()));
            let mut originals = HashMap::new();
            for contender in &self.site.contenders {
                let is_gate = contender.who == Who::Gate;
                let mut link = contender.place.connect().await?;
                let mut lengths = HashMap::new();
                for (path, token) in workload.paths().into_iter().zip(self.callers.iter().cycle()) {
                    let heard = link.get(&path, token, true).await?;
                    let wrong = |what: &str| format!("{}: {path}: {what}", contender.who.name());
                    if heard.status != http::StatusCode::OK {
                        return Err(wrong(heard.status.as_str()) + &self.site.gate_log());
                    }
                    if is_gate {
                        workload.check(&heard.body).map_err(|what| wrong(&what))?;
                        self.answered.push(heard.request_id.ok_or_else(|| wrong("no request id"))?);
                    } else if *originals.entry(path.clone()).or_insert_with(|| heard.body.clone())
                        != heard.body
                    {
                        return Err(wrong("not what the upstream said"));
                    }
                    lengths.insert(path, heard.bytes);
                }
                let questions = Questions {
                    paths: workload.paths(),
                    callers: self.callers.clone(),
                    lengths,
                    with_ids: is_gate,
                };
                asked.insert((workload.name(), contender.who.name()), Arc::new(questions));
            }
        }
        Ok(asked)
    }

    /// One cell for each contender; who begins changes from round to round.
    async fn everybody(
        &mut self,
        round: u32,
        workload: Workload,
        clients: usize,
        asked: &Asked,
    ) -> Result<(), String> {
        let length = self.cell_length();
        let first = usize::try_from(round).unwrap_or(0) % self.site.contenders.len().max(1);
        let (late, early) = self.site.contenders.split_at(first);
        for contender in early.iter().chain(late) {
            let who = contender.who;
            let name = format!("{}, {clients} clients, {}", workload.name(), who.name());
            progress(&format!("round {} of {}: {name}", round + 1, self.options.rounds));
            let questions = asked.get(&(workload.name(), who.name())).ok_or("nothing to ask")?;
            let cell = Cell::open(&contender.place, clients, Arc::clone(questions)).await?;
            let before = Meter::read(contender, &self.site).await?;
            let (mut tally, took) = cell.run(length).await?;
            let used = Meter::read(contender, &self.site).await?.since(before);
            self.answered.append(&mut tally.ids);
            note(&mut self.rows, workload, clients, who, tally, took, used)?;
        }
        Ok(())
    }

    /// Those that were asked for, each once, small ones first.
    fn workloads(&self) -> Vec<Workload> {
        Workload::ALL.into_iter().filter(|workload| self.options.bodies.contains(workload)).collect()
    }

    fn cell_length(&self) -> Duration {
        let each = self.options.clients.len() * self.site.contenders.len() * self.workloads().len();
        let cells = self.options.rounds * u32::try_from(each).unwrap_or(u32::MAX).max(1);
        Duration::from_secs(u64::from(self.options.seconds)) / cells
    }

    fn memory(&self) -> Vec<Memory> {
        let running = self.site.contenders.iter().filter_map(|c| Some((c.who, c.process.as_ref()?)));
        running.map(|(who, process)| Memory { who, usage: process.usage() }).collect()
    }
}

/// What a cell cost the one who was measured.
#[derive(Clone, Copy, Default)]
pub(crate) struct Meter {
    pub(crate) cpu_seconds: f64,
    pub(crate) counts: Counts,
}

impl Meter {
    async fn read(contender: &Contender, site: &Site) -> Result<Self, String> {
        let usage = contender.process.as_ref().map_or_else(Usage::default, |process| process.usage());
        let counts = match contender.who {
            Who::Gate => scrape::counts(site.operations).await?,
            Who::Direct
            | Who::Nginx
            | Who::Haproxy
            | Who::HaproxyTokens
            | Who::Envoy
            | Who::PassThrough
            | Who::NginxAuthz
            | Who::Stage(_) => Counts::default(),
        };
        Ok(Self { cpu_seconds: usage.cpu_seconds, counts })
    }

    fn since(self, earlier: Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds, counts: self.counts - earlier.counts }
    }
}

/// Adds a cell to its row.
fn note(
    rows: &mut Vec<Row>,
    workload: Workload,
    clients: usize,
    who: Who,
    tally: Tally,
    took: Duration,
    used: Meter,
) -> Result<(), String> {
    let same = |row: &&mut Row| row.workload == workload && row.clients == clients && row.who == who;
    if let Some(row) = rows.iter_mut().find(same) {
        return row.add(tally, took, used);
    }
    let mut row = Row::new(workload, clients, who)?;
    row.add(tally, took, used)?;
    rows.push(row);
    Ok(())
}

/// On a terminal: what is being done, on one line.
pub(crate) fn progress(what: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _not_vital = write!(terminal, "\r\x1b[K{what}").and_then(|()| terminal.flush());
    }
}
