//! `loadtest hostile [ATTACK,…]`: callers who behave go on at a fixed rate while others attack the same gate.
//!
//! Owns: the order of such a run: for each attack a calm time, then the attack; then the trail.
//! Must never: leave loopback, or call a run good in which somebody who behaved was refused or not answered.
//! Look next: `attacks`, which there are; `findings`, what fails a run; docs/performance.md, how to read it.

mod attacks;
mod evidence;
mod findings;
mod floods;
mod frames;
mod ground;
mod lanes;
mod tally;

use crate::arrivals::Rate;
use crate::baseline::progress;
use crate::client::{Protocol, Question};
use crate::lanes::Lanes;
use crate::measure::Measured;
use crate::open_loop::{self, Against, Plan};
use crate::people::{self, People};
use crate::program::Program;
use crate::report::Machine;
use crate::scenario::{self, Scenario};
use crate::site::{Site, Who, Wishes};
use crate::vitals::Vitals;
use crate::{Failure, hospital, run, scrape};
use attacks::Attack;
use clap::Args;
use findings::{Findings, Row, Setting};
use ground::Ground;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tally::Told;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const BYSTANDERS: &str = include_str!("bystanders.toml");
/// The attack goes on for so long before those who behave are measured, who are there and checked already.
const WARM_UP: Duration = Duration::from_millis(500);
/// Attackers lay siege for this much longer than it is measured, so that no measured request misses them.
const OVERHANG: Duration = Duration::from_millis(250);
/// For attackers to leave when time is up.
const LEAVING: Duration = Duration::from_secs(5);

/// `hostile [ATTACK,…|all] [--seconds N] [--rate R] [--strength P] [--http 1.1|2] [--json F] [--html F]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Attacks by their names, or `all`
    #[arg(value_delimiter = ',', default_value = "all")]
    attacks: Vec<String>,
    /// Measured time, calm and under each attack
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Visits of those who behave: `8/s` or `90/min`
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
    /// Percent of the attackers that an attack has by itself
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    strength: u32,
    /// What those who behave speak over TLS
    #[arg(long, value_enum, default_value = "1.1")]
    http: Protocol,
    /// The gate may never have more memory resident than this, in MiB
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(64..=65_536))]
    memory_mib: u64,
    /// Patients whose charts are in the hospital
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    patients: u32,
    /// Everything that was found, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The report, for a browser: one file that asks for nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Attack this `chartgate` instead of the one of these sources
    #[arg(long, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
}

/// Runs it all and prints the table.
///
/// # Errors
/// When a part does not work, or anything was missed; wrong use when there is no such attack.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let attacks = attacks::named(&options.attacks).map_err(Failure::WrongUse)?;
    tokio::select! {
        done = measure(options, &attacks) => done.map_err(Failure::Miss),
        _ = tokio::signal::ctrl_c() => Err(Failure::Miss("interrupted".to_owned())),
    }
}

async fn measure(options: &Options, attacks: &[Attack]) -> Result<(), String> {
    let most = attacks.iter().map(|attack| lanes_of(attack, options.strength)).max().unwrap_or(0);
    run::allow_files(most as u64)?;
    let scenario = scenario::read("bystanders", "bystanders.toml", BYSTANDERS);
    let scenario = Arc::new(scenario.map_err(|problems| format!("{problems:?}"))?);
    progress("starting");
    let site = open(options).await?;
    let machine = Machine::look(site.folder())?;
    let siege = Siege::new(options, scenario, site, attacks)?;
    siege.hold(attacks, machine).await?.publish(options.json.as_deref(), options.html.as_deref())
}

async fn open(options: &Options) -> Result<Site, String> {
    let wishes = Wishes::gate_only(options.gate.as_deref(), options.http);
    let patients = options.patients;
    let fill = |emr: &_| {
        hospital::fill(emr, patients).map_err(|error| error.to_string())?;
        ground::fill(emr)
    };
    Site::open(&wishes, fill).await
}

fn lanes_of(attack: &Attack, percent: u32) -> usize {
    let percent = usize::try_from(percent).unwrap_or(100);
    (attack.lanes * percent / 100).max(1)
}

/// One gate, and both kinds of callers.
struct Siege<'o> {
    options: &'o Options,
    scenario: Arc<Scenario>,
    rate: Rate,
    site: Site,
    ground: Arc<Ground>,
    people: Arc<People>,
    began: Instant,
}

/// A time that was measured, calm or not.
struct Spell {
    measured: Result<Measured, String>,
    vitals: Vitals,
    told: Told,
}

impl<'o> Siege<'o> {
    fn new(
        options: &'o Options,
        scenario: Arc<Scenario>,
        site: Site,
        attacks: &[Attack],
    ) -> Result<Self, String> {
        let port = site.gate()?.place.port().ok_or("the gate has no port")?;
        let ground = Ground::of(&site, port, attacks)?;
        let rate = options.rate.unwrap_or(scenario.rate);
        let program = program(&scenario, rate, options, 0);
        let people = People::gather(site.issuer(), &scenario, rate, program, options.patients)?;
        let (ground, people) = (Arc::new(ground), Arc::new(people));
        Ok(Self { options, scenario, rate, site, ground, people, began: Instant::now() })
    }

    /// Attack after attack, and what they came to.
    async fn hold(mut self, attacks: &[Attack], machine: Machine) -> Result<Findings, String> {
        let mut behaved = self.rehearse().await?;
        let (mut attackers, mut rows, mut misses) = (Vec::new(), Vec::new(), Vec::new());
        for (number, attack) in attacks.iter().enumerate() {
            let round = u64::try_from(number).unwrap_or(0) * 2;
            let calm = self.spell(None, round).await?;
            let siege = self.spell(Some(attack), round + 1).await?;
            let row = Row::of(attack, lanes_of(attack, self.options.strength), &calm, &siege);
            for (spell, when) in [(calm, "before"), (siege, "under")] {
                match spell.measured {
                    Ok(measured) => behaved.extend(measured.answered),
                    Err(why) => misses.push(format!("{when} {}: {why}", attack.name)),
                }
                attackers.extend(spell.told.answered);
            }
            rows.push(row);
            if let Err(why) = scrape::counts(self.site.operations).await {
                misses.push(format!(
                    "the gate does not answer after {}: {why}{}",
                    attack.name,
                    self.site.gate_log()
                ));
                break;
            }
        }
        misses.extend(self.panics().await);
        let setting = self.setting(machine);
        let peak = self.site.gate()?.process.as_ref().map(|process| process.usage().peak_kib).unwrap_or(0);
        progress("reading the trail");
        if let Err(why) = self.site.end() {
            misses.push(why + &self.site.gate_log());
        }
        let (program, config) = (&self.site.gate_program, self.site.config_file());
        let evidence = evidence::examine(program, &config, &behaved, &attackers)?;
        Ok(Findings::judged(setting, rows, evidence, peak, misses))
    }

    /// Everything that those who behave ask, once.
    async fn rehearse(&self) -> Result<Vec<(u128, u16)>, String> {
        progress("rehearsing");
        let lanes = Lanes::new(self.site.gate()?.place.clone(), 1);
        let mut answered = Vec::new();
        for (number, visit) in self.scenario.visits.iter().enumerate() {
            let token = people::sign(self.site.issuer(), visit, number, 0, self.options.patients)?;
            for step in &visit.steps {
                let path = format!("/fhir{}", step.target.replace("{patient}", "c1"));
                let question = Question { path: &path, token: &token, prefers_async: false, write: None };
                let heard = lanes.ask(question, &mut |_| ()).await?.heard;
                let id = heard.request_id.filter(|_| heard.status.as_u16() == step.status);
                let id = id.ok_or_else(|| format!("{}, {}: {}", visit.name, step.name, heard.status))?;
                answered.push((id, step.status));
            }
        }
        Ok(answered)
    }

    /// A calm time, or one under attack.
    async fn spell(&self, attack: Option<&Attack>, round: u64) -> Result<Spell, String> {
        let options = self.options;
        let length = WARM_UP + Duration::from_secs(options.seconds);
        let name = attack.map_or("calm", |attack| attack.name);
        progress(name);
        let gate = self.site.gate()?;
        let plan = Plan {
            alone: false,
            scenario: Arc::clone(&self.scenario),
            program: program(&self.scenario, self.rate, options, round),
            warm_up: WARM_UP,
            length,
            patients: options.patients,
            connections: usize::try_from(self.scenario.connections).unwrap_or(1),
            name: name.to_owned(),
        };
        let against = Against {
            place: gate.place.clone(),
            is_gate: gate.who == Who::Gate,
            decides: true,
            filters: true,
        };
        let done = AtomicBool::new(false);
        let load = async {
            let measured = open_loop::run(plan, against, Arc::clone(&self.people)).await;
            done.store(true, Ordering::Relaxed);
            measured
        };
        let process = gate.process.as_ref().ok_or("the gate has no process")?;
        let (measured, vitals, besieged) = tokio::join!(
            load,
            Vitals::watch(process, self.began, &done),
            besiege(attack, options.strength, &self.ground, length + OVERHANG),
        );
        besieged?;
        Ok(Spell { measured, vitals, told: self.ground.tally.take() })
    }

    /// What the gate says of panics, which must be nothing.
    async fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for name in ["chartgate_panics_total", "chartgate_handler_panics_total"] {
            match scrape::one(self.site.operations, name).await {
                Ok(count) if count > 0.0 => found.push(format!("the gate counts {count} in {name}")),
                Ok(_) => {}
                Err(why) => found.push(format!("the gate does not tell {name}: {why}")),
            }
        }
        let log = self.site.whole_gate_log();
        found.extend(
            log.lines().find(|line| line.contains("panic")).map(|line| format!("the gate's log: {line}")),
        );
        found
    }

    fn setting(&self, machine: Machine) -> Setting {
        Setting {
            machine,
            protocol: crate::report::protocol_name(self.options.http).to_owned(),
            visits_per_second: self.rate.per_second(),
            seconds: self.options.seconds,
            strength_percent: self.options.strength,
            memory_mib_max: self.options.memory_mib,
            patients: self.options.patients,
        }
    }
}

fn program(scenario: &Scenario, rate: Rate, options: &Options, round: u64) -> Program {
    Program::new(scenario, rate, WARM_UP + Duration::from_secs(options.seconds), options.patients, 1 + round)
}

/// Attackers on a thread of their own, until time is up.
async fn besiege(
    attack: Option<&Attack>,
    strength: u32,
    ground: &Arc<Ground>,
    length: Duration,
) -> Result<(), String> {
    let Some(attack) = attack else { return Ok(()) };
    let (way, lanes, ground) = (attack.way, lanes_of(attack, strength), Arc::clone(ground));
    let siege = move || -> Result<(), String> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let mut all = JoinSet::new();
            for number in 0..lanes {
                let ground = Arc::clone(&ground);
                all.spawn(async move { lanes::attack(way, &ground, number).await });
            }
            tokio::time::sleep(length).await;
            all.shutdown().await;
        });
        runtime.shutdown_timeout(LEAVING);
        Ok(())
    };
    tokio::task::spawn_blocking(siege).await.map_err(|error| error.to_string())?
}

/// Reports as they were asked for: Markdown to standard output, the others into their files.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(
    path: Option<&Path>,
    text: impl FnOnce() -> Result<String, String>,
) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()?).map_err(|error| format!("{}: {error}", path.display()))
}
