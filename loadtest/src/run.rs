//! `loadtest run SCENARIO`: the gate, and whoever is to stand beside it, under a fixed schedule of requests.
//!
//! Owns: the order of a run: start, rehearse, measure in turns, end, read the trail, report.
//! Must never: report before the trail was read, or call a run good in which anything was missed.
//! Look next: `open_loop`, which measures; `findings`, which judges.

use crate::arrivals::{Pace, Rate};
use crate::baseline::progress;
use crate::client::{Protocol, Question};
use crate::findings::{Cost, FORMAT, Findings, Setting, Side};
use crate::lanes::Lanes;
use crate::measure::Measured;
use crate::open_loop::{self, Against, Plan};
use crate::people::{self, People};
use crate::program::{Due, Program};
use crate::report::{Machine, protocol_name};
use crate::scenario::{CONNECTIONS_MAX, SECONDS_MAX, Scenario};
use crate::scrape::{self, Counts};
use crate::site::{Contender, Site, Who, Wishes};
use crate::stages::Until;
use crate::writes::{self, Wrote};
use crate::{Failure, hospital, page, tell, trail};
use bytes::Bytes;
use chartgate_sandbox::emr::Emr;
use clap::{Args, ValueEnum};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Files that a run needs beside its connections: the upstream's side, the trail, the programs' own.
const FILES_BESIDE: u64 = 1_500;

/// `run SCENARIO [--rate R] [--seconds N] [--http 1.1|2] [--connections N] [--beside …] [--json F] [--html F]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A scenario by its name (`loadtest list`), or a file that ends in .toml
    scenario: String,
    /// Visits: `5/s` or `90/min`, instead of the scenario's
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
    /// Measured time for each of those who are measured, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// Time before it that is not measured, in each round
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: Option<u64>,
    /// What the callers speak over TLS
    #[arg(long, value_enum, default_value = "1.1")]
    http: Protocol,
    /// Connections held open, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: Option<u64>,
    /// Patients whose charts are in the hospital, some 80 records each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    patients: u32,
    /// The same seed gives the same requests at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Who else is measured, in turns with the gate
    #[arg(long, value_enum, value_delimiter = ',')]
    beside: Vec<Beside>,
    /// How often everybody has their turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Everything that was found, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The report, for a browser: one file that asks for nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Other policies than the shipped ones
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    /// Measure this `chartgate` instead of the one of these sources
    #[arg(long, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
    /// The nginx to measure beside
    #[arg(long, value_name = "PROGRAM", default_value = "nginx")]
    nginx: PathBuf,
    /// The HAProxy to measure beside
    #[arg(long, value_name = "PROGRAM", default_value = "haproxy")]
    haproxy: PathBuf,
    /// The Envoy to measure beside
    #[arg(long, value_name = "PROGRAM", default_value = "envoy")]
    envoy: PathBuf,
}

/// Who may stand beside the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Beside {
    /// The upstream itself, without TLS
    Direct,
    /// nginx as a plain TLS reverse proxy
    Nginx,
    /// HAProxy as a plain TLS reverse proxy
    Haproxy,
    /// The same, which verifies signature, end and second factor of each token
    HaproxyTokens,
    /// Envoy, which verifies each token and looks for a second factor in it
    Envoy,
    /// nginx that asks an authorization service about each request and filters bodies by a script
    NginxAuthz,
    /// The least that a proxy from the gate's own libraries can do
    Hyper,
    /// The same with identity, policy and filter put in one by one: three rows
    Stages,
}

impl Options {
    fn wishes(&self) -> Wishes<'_> {
        let wants = |who: Beside| self.beside.contains(&who);
        Wishes {
            gate: self.gate.as_deref(),
            nginx: Some(self.nginx.as_path()).filter(|_| wants(Beside::Nginx)),
            haproxy: Some(self.haproxy.as_path()).filter(|_| wants(Beside::Haproxy)),
            haproxy_tokens: Some(self.haproxy.as_path()).filter(|_| wants(Beside::HaproxyTokens)),
            envoy: Some(self.envoy.as_path()).filter(|_| wants(Beside::Envoy)),
            nginx_authz: Some(self.nginx.as_path()).filter(|_| wants(Beside::NginxAuthz)),
            pass_through: wants(Beside::Hyper),
            stages: wants(Beside::Stages),
            policies: self.policies.as_deref(),
            protocol: self.http,
        }
    }

    /// The gate comes first.
    fn sides(&self) -> Vec<Who> {
        let who = |beside: &Beside| match beside {
            Beside::Direct => vec![Who::Direct],
            Beside::Nginx => vec![Who::Nginx],
            Beside::Haproxy => vec![Who::Haproxy],
            Beside::HaproxyTokens => vec![Who::HaproxyTokens],
            Beside::Envoy => vec![Who::Envoy],
            Beside::NginxAuthz => vec![Who::NginxAuthz],
            Beside::Hyper => vec![Who::PassThrough],
            Beside::Stages => [Until::Identity, Until::Policy, Until::Filter].map(Who::Stage).to_vec(),
        };
        let mut sides = vec![Who::Gate];
        for beside in self.beside.iter().flat_map(who) {
            if !sides.contains(&beside) {
                sides.push(beside);
            }
        }
        sides
    }
}

/// Runs it all and prints the summary.
///
/// # Errors
/// When a part does not work, or anything was missed; wrong use when the scenario is none.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let scenario = Scenario::find(&options.scenario).map_err(Failure::WrongUse)?;
    tokio::select! {
        done = measure(options, Arc::new(scenario)) => done.map_err(Failure::Miss),
        // Dropping the measurement ends what it started.
        _ = tokio::signal::ctrl_c() => Err(Failure::Miss("interrupted".to_owned())),
    }
}

async fn measure(options: &Options, scenario: Arc<Scenario>) -> Result<(), String> {
    let connections = options.connections.unwrap_or(scenario.connections);
    allow_files(connections)?;
    progress("starting");
    let patients = options.patients;
    let fill = |emr: &_| hospital::fill(emr, patients).map_err(|error| error.to_string());
    let site = Site::open(&options.wishes(), fill).await?;
    let machine = Machine::look(site.folder())?;
    let mut run = Run::new(options, scenario, connections, site);
    run.rehearse().await?;
    if run.scenario.cold {
        run.counted += scrape::counts(run.site.operations).await?.requests;
        run.site.restart_gate().await?;
    }
    let mut sides: Vec<Turn> = options.sides().into_iter().map(Turn::new).collect();
    for round in 0..options.rounds {
        let first = usize::try_from(round).unwrap_or(0) % sides.len().max(1);
        sides.rotate_left(first);
        for side in &mut sides {
            run.turn(round, side).await?;
        }
        sides.rotate_right(first);
    }
    run.counted += scrape::counts(run.site.operations).await?.requests;
    let findings = run.close(machine, sides)?;
    publish(options, &findings)
}

/// Shows the findings and writes the files that were asked for.
fn publish(options: &Options, findings: &Findings) -> Result<(), String> {
    progress("");
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &options.json {
        write(path, serde_json::to_string(findings).map_err(|error| error.to_string())?)?;
    }
    if let Some(path) = &options.html {
        write(path, page::page(findings)?)?;
    }
    let shown = writeln!(std::io::stdout().lock(), "{}", tell::summary(findings));
    shown.map_err(|error| error.to_string())?;
    match findings.misses.first() {
        None => Ok(()),
        Some(miss) => Err(format!("{} misses, first: {miss}", findings.misses.len())),
    }
}

/// Raises the bound of open files as far as this run needs it, for the programs that it starts, too.
///
/// # Errors
/// When this account may not have so many.
pub(crate) fn allow_files(connections: u64) -> Result<(), String> {
    let needed = connections * 2 + FILES_BESIDE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(format!(
            "{connections} connections need {needed} open files, and this account may have {hard} (hint: `ulimit -Hn`, \
             or fewer --connections)"
        ));
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("open files: {error}"))
}

/// One side, and what its rounds came to.
struct Turn {
    who: Who,
    measured: Option<Measured>,
    cost: Cost,
}

impl Turn {
    fn new(who: Who) -> Self {
        Self { who, measured: None, cost: Cost::default() }
    }
}

struct Run<'o> {
    options: &'o Options,
    scenario: Arc<Scenario>,
    rate: Rate,
    connections: u64,
    seconds: u64,
    warm_up: Duration,
    site: Site,
    /// Answers of the gate in the rehearsal.
    rehearsed: Vec<(u128, u16)>,
    /// What the EMR held before anybody wrote.
    filled: Emr,
    /// What was found to be wrong before the trail was read.
    misses: Vec<String>,
    /// Requests that the gate counted before it was started anew.
    counted: f64,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options, scenario: Arc<Scenario>, connections: u64, site: Site) -> Self {
        let filled = Emr::new();
        filled.mirror(site.emr());
        Self {
            options,
            rate: options.rate.unwrap_or(scenario.rate),
            seconds: options.seconds.unwrap_or(scenario.seconds),
            warm_up: Duration::from_secs(options.warm_up.unwrap_or(scenario.warm_up_seconds)),
            scenario,
            connections,
            filled,
            misses: Vec::new(),
            site,
            rehearsed: Vec::new(),
            counted: 0.0,
        }
    }

    /// The measured time of one round.
    fn slice(&self) -> Duration {
        Duration::from_secs(self.seconds) / self.options.rounds.max(1)
    }

    fn program(&self, round: u32) -> Program {
        let length = self.warm_up + self.slice();
        let seed = self.options.seed.wrapping_add(u64::from(round) << 32);
        Program::new(&self.scenario, self.rate, length, self.options.patients, seed)
    }

    /// Every step once to the gate: it must work before it is measured.
    async fn rehearse(&mut self) -> Result<(), String> {
        progress("rehearsing");
        let gate = self.contender(Who::Gate)?.place.clone();
        let lanes = Lanes::new(gate, 1);
        for (number, visit) in self.scenario.visits.iter().enumerate() {
            let token = people::sign(self.site.issuer(), visit, number, 0, self.options.patients)?;
            for step in &visit.steps {
                let due = Due { patient: 1, other: 2, ..Due::default() };
                let own = format!("/fhir{}", writes::filled(&step.target, due));
                let written = step
                    .write
                    .as_ref()
                    .map(|write| (write.how, Bytes::from(writes::filled(&write.body, due))));
                let mut body = Vec::new();
                let prefers_async = step.follow == crate::scenario::Follow::Export;
                let write = written.as_ref().map(|(how, body)| (*how, body));
                let question = Question { path: &own, token: &token, prefers_async, write };
                let asked = lanes.ask(question, &mut |piece| body.extend_from_slice(piece)).await;
                let wrong = |what: String| format!("{}, {}: {what}", visit.name, step.name);
                let heard = asked.map_err(|what| wrong(what) + &self.site.gate_log())?.heard;
                let status = heard.status.as_u16();
                if status != step.status {
                    let start = String::from_utf8_lossy(body.get(..600.min(body.len())).unwrap_or_default());
                    return Err(wrong(format!("answered with {status} instead of {}: {start}", step.status)));
                }
                let id = heard.request_id.ok_or_else(|| wrong("no request id".to_owned()))?;
                self.rehearsed.push((id, status));
            }
        }
        Ok(())
    }

    fn contender(&self, who: Who) -> Result<&Contender, String> {
        let found = self.site.contenders.iter().find(|contender| contender.who == who);
        found.ok_or_else(|| format!("{} is not there", who.name()))
    }

    async fn cost(&self, who: Who) -> Result<(crate::process::Usage, Counts), String> {
        let usage = self.contender(who)?.process.as_ref().map(crate::process::Process::usage);
        let counts =
            if who == Who::Gate { scrape::counts(self.site.operations).await? } else { Counts::default() };
        Ok((usage.unwrap_or_default(), counts))
    }

    /// One round of one side.
    async fn turn(&mut self, round: u32, turn: &mut Turn) -> Result<(), String> {
        let Ok(contender) = self.contender(turn.who) else { return Ok(()) };
        progress(&format!("signing tokens for {}", self.scenario.title));
        let (patients, program) = (self.options.patients, self.program(round));
        let people =
            People::gather(self.site.issuer(), &self.scenario, self.rate, program.clone(), patients)?;
        let plan = Plan {
            scenario: Arc::clone(&self.scenario),
            program,
            warm_up: self.warm_up,
            length: self.warm_up + self.slice(),
            patients,
            connections: usize::try_from(self.connections).unwrap_or(1),
            alone: false,
            name: format!("{}, {}", self.scenario.name, turn.who.name()),
        };
        let filters = matches!(turn.who, Who::Gate | Who::NginxAuthz | Who::Stage(Until::Filter));
        let decides = matches!(turn.who, Who::Gate | Who::NginxAuthz);
        let is_gate = turn.who == Who::Gate;
        let against = Against { place: contender.place.clone(), is_gate, decides, filters };
        // Everybody finds what the first one found.
        self.site.emr().mirror(&self.filled);
        let before = self.cost(turn.who).await?;
        let measured = open_loop::run(plan, against, Arc::new(people)).await?;
        turn.cost.add(Cost::between(before, self.cost(turn.who).await?, measured.taken));
        self.misses.extend(writes::read_back(self.site.emr(), &self.filled, &measured.wrote));
        match &mut turn.measured {
            Some(sum) => sum.add(measured)?,
            None => turn.measured = Some(measured),
        }
        Ok(())
    }

    /// Ends everybody, reads the trail, and puts it together.
    fn close(mut self, machine: Machine, turns: Vec<Turn>) -> Result<Findings, String> {
        progress("reading the trail");
        let mut answered = self.rehearsed.clone();
        let mut notes = self.site.notes.clone();
        let ended = self.site.end();
        for turn in &turns {
            match &turn.measured {
                Some(measured) if turn.who == Who::Gate => answered.extend(&measured.answered),
                Some(_) => {}
                None => notes.push(format!("{} was not measured", turn.who.name())),
            }
        }
        notes.retain(|note| !note.ends_with("was left out"));
        let (program, config) = (&self.site.gate_program, self.site.config_file());
        let audit = trail::examine(program, &config, &answered)?;
        let wrote = turns
            .iter()
            .filter_map(|turn| turn.measured.as_ref())
            .flat_map(|measured| measured.wrote.clone());
        let wrote: Vec<Wrote> = wrote.collect();
        let unrecorded = writes::unrecorded(program, &config, &wrote)?;
        if unrecorded > 0 {
            self.misses.push(format!("{unrecorded} writes have no record that says what was written"));
        }
        let side = |turn: &Turn| Some(Side::of(turn.who.name(), turn.measured.as_ref()?, turn.cost));
        let mut findings = Findings {
            format: FORMAT.to_owned(),
            setting: self.setting(),
            machine,
            sides: turns.iter().filter_map(side).collect(),
            audit,
            counted_by_gate: self.counted,
            written: wrote.len() as u64,
            misses: std::mem::take(&mut self.misses),
            doubts: Vec::new(),
            notes,
        };
        if let Err(why) = ended {
            findings.misses.push(why + &self.site.gate_log());
        }
        findings.judge();
        Ok(findings)
    }

    fn setting(&self) -> Setting {
        let (scenario, options) = (&self.scenario, self.options);
        let people = scenario.visits.iter().filter(|visit| !visit.new_session);
        Setting {
            scenario: scenario.name.clone(),
            title: scenario.title.clone(),
            about: scenario.about.clone(),
            pace: match scenario.pace {
                Pace::Constant => "constant",
                Pace::Poisson => "Poisson",
            }
            .to_owned(),
            visits_per_second: self.rate.per_second(),
            seconds: self.seconds,
            warm_up_seconds: self.warm_up.as_secs(),
            rounds: options.rounds,
            protocol: protocol_name(options.http).to_owned(),
            connections: self.connections,
            patients: options.patients,
            people: people.map(|visit| u64::from(scenario.people(visit, self.rate))).sum(),
            seed: options.seed,
        }
    }
}
