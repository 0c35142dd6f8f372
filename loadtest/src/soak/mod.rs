//! `loadtest soak [--minutes N]`: a mixed day, while one thing after the other breaks and comes back.
//!
//! Owns: the order of it: a calm time, then each fault with the load across its beginning and its end, then a calm time.
//! Must never: call a soak good in which anybody saw more than the fault's promise, or in which a record was lost.
//! Look next: `faults`, what breaks; `findings`, what fails the run; docs/performance.md, how to read it.

mod faults;
mod findings;

use crate::arrivals::Rate;
use crate::baseline::progress;
use crate::client::{Place, Protocol};
use crate::open_loop::{self, Against, Plan};
use crate::people::People;
use crate::program::Program;
use crate::report::{Machine, protocol_name};
use crate::scenario::Scenario;
use crate::scrape;
use crate::site::{Site, Wishes};
use crate::vitals::Vitals;
use crate::{Failure, hospital, run as scenarios, trail};
use clap::Args;
use faults::{Authority, Fault, Scene};
use findings::{Findings, Phase, Setting, What};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sent and checked, but not counted, at the beginning of each phase: its connections are new.
const WARM_UP: Duration = Duration::from_millis(500);
/// A fault and the calm after it take this long at the most; in a long soak they come again.
const TURN_MAX: Duration = Duration::from_secs(90);
/// The least that a phase can be told from.
const PHASE_MIN: Duration = Duration::from_secs(1);

/// `soak [--minutes N] [--faults …] [--rate R] [--http 1.1|2] [--json F] [--html F]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long in all; parts of a minute may be given
    #[arg(long, default_value = "2", value_parser = minutes)]
    minutes: Duration,
    /// What breaks in turn: names, `all` or `none`
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,
    /// The load: a scenario by its name, or a file that ends in .toml
    #[arg(long, default_value = "mixed-day")]
    scenario: String,
    /// Visits: `5/s` or `90/min`, instead of the scenario's
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
    /// Connections held open
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=4_000))]
    connections: u64,
    /// What the callers speak over TLS
    #[arg(long, value_enum, default_value = "1.1")]
    http: Protocol,
    /// The gate's memory may grow by this many MiB at the most after the first third of the time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    growth_mib: u64,
    /// Patients whose charts are in the hospital
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    patients: u32,
    /// The same seed gives the same requests at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Everything that was found, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The report, for a browser: one file that asks for nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Soak this `chartgate` instead of the one of these sources
    #[arg(long, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes, such as 2 or 0.5".to_owned())?;
    if !(0.05..=1_440.0).contains(&minutes) {
        return Err("between 0.05 and 1440 minutes".to_owned());
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

/// How the time is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timetable {
    /// Calm at the beginning.
    first: Duration,
    /// Load across a fault: it begins after a sixth of it and ends after four.
    across: Duration,
    /// Calm after it.
    after: Duration,
    rounds: u32,
}

impl Timetable {
    fn of(whole: Duration, faults: usize) -> Self {
        let faults = u32::try_from(faults).unwrap_or(1);
        if faults == 0 {
            return Self { first: whole, across: Duration::ZERO, after: Duration::ZERO, rounds: 0 };
        }
        let first = (whole / 8).clamp(PHASE_MIN, TURN_MAX);
        let left = whole.saturating_sub(first);
        let turns_max = TURN_MAX.as_secs_f64() * f64::from(faults);
        let mut rounds = 1;
        while left.as_secs_f64() / f64::from(rounds) > turns_max {
            rounds += 1;
        }
        let turn = left / (faults * rounds);
        Self { first, across: (turn * 3 / 5).max(PHASE_MIN), after: (turn * 2 / 5).max(PHASE_MIN), rounds }
    }
}

/// Runs it all and prints the table.
///
/// # Errors
/// When a part does not work, or anything was missed; wrong use when there is no such fault or scenario.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let faults = faults::named(&options.faults).map_err(Failure::WrongUse)?;
    let scenario = Scenario::find(&options.scenario).map_err(Failure::WrongUse)?;
    tokio::select! {
        done = soak(options, &faults, Arc::new(scenario)) => done.map_err(Failure::Miss),
        _ = tokio::signal::ctrl_c() => Err(Failure::Miss("interrupted".to_owned())),
    }
}

async fn soak(options: &Options, faults: &[Fault], scenario: Arc<Scenario>) -> Result<(), String> {
    scenarios::allow_files(options.connections)?;
    progress("starting");
    let wishes = Wishes::gate_only(options.gate.as_deref(), options.http);
    let patients = options.patients;
    let site =
        Site::open(&wishes, |emr| hospital::fill(emr, patients).map_err(|error| error.to_string())).await?;
    let machine = Machine::look(site.folder())?;
    let soak = Soak::new(options, scenario, site)?;
    soak.last(faults, machine).await?.publish(options.json.as_deref(), options.html.as_deref())
}

/// One gate through its day.
struct Soak<'o> {
    options: &'o Options,
    scenario: Arc<Scenario>,
    rate: Rate,
    site: Site,
    /// Where clients find the gate, whose certificates both authorities may have signed.
    place: Place,
    authority: Authority,
    began: Instant,
}

impl<'o> Soak<'o> {
    fn new(options: &'o Options, scenario: Arc<Scenario>, site: Site) -> Result<Self, String> {
        let authority = Authority::trusted_by(&site.ca_file())?;
        let port = site.gate()?.place.port();
        let place = Place::secure(port.ok_or("the gate has no port")?, &site.ca_file(), options.http)?;
        let rate = options.rate.unwrap_or(scenario.rate);
        Ok(Self { options, scenario, rate, site, place, authority, began: Instant::now() })
    }

    /// From the first calm time to the trail.
    async fn last(mut self, faults: &[Fault], machine: Machine) -> Result<Findings, String> {
        let times = Timetable::of(self.options.minutes, faults.len());
        let mut whole = Whole::default();
        self.phase(What::First, times.first, &mut whole).await?;
        for _ in 0..times.rounds {
            for fault in faults {
                self.phase(What::Fault(*fault), times.across, &mut whole).await?;
                self.phase(What::After(*fault), times.after, &mut whole).await?;
            }
        }
        let log = self.site.whole_gate_log();
        if let Some(line) = log.lines().find(|line| line.contains("panic")) {
            whole.misses.push(format!("the gate's log: {line}"));
        }
        progress("reading the trail");
        if let Err(why) = self.site.end() {
            whole.misses.push(why + &self.site.gate_log());
        }
        let config = self.site.config_file();
        let audit = trail::examine(&self.site.gate_program, &config, &whole.answered)?;
        let setting = self.setting(machine);
        Ok(Findings::judged(setting, whole.phases, audit, &whole.vitals, whole.misses))
    }

    /// A stretch of load, with or without a fault in its middle.
    async fn phase(&self, what: What, length: Duration, whole: &mut Whole) -> Result<(), String> {
        progress(&format!(
            "{}, {} s of {}",
            what.name(),
            self.began.elapsed().as_secs(),
            self.options.minutes.as_secs()
        ));
        let number = u64::try_from(whole.phases.len()).unwrap_or(0);
        let (patients, measured_length) = (self.options.patients, WARM_UP + length);
        let seed = self.options.seed.wrapping_add(number << 32);
        let program = Program::new(&self.scenario, self.rate, measured_length, patients, seed);
        let people =
            People::gather(self.site.issuer(), &self.scenario, self.rate, program.clone(), patients)?;
        let plan = Plan {
            alone: false,
            scenario: Arc::clone(&self.scenario),
            program,
            warm_up: WARM_UP,
            length: measured_length,
            patients,
            connections: usize::try_from(self.options.connections).unwrap_or(1),
            name: what.name(),
        };
        let against = Against { place: self.place.clone(), is_gate: true, decides: true, filters: true };
        let process = self.site.gate()?.process.as_ref().ok_or("the gate has no process")?;
        let (done, started) = (AtomicBool::new(false), Instant::now());
        let counts = scrape::counts(self.site.operations).await?;
        let load = async {
            let measured = open_loop::run(plan, against, Arc::new(people)).await;
            done.store(true, Ordering::Relaxed);
            measured
        };
        let scene = Scene { site: &self.site, process, place: &self.place, authority: &self.authority };
        let breaking = async {
            let What::Fault(fault) = what else { return Ok(()) };
            let at = |sixths: u32| started + WARM_UP + length * sixths / 6;
            scene.play(&fault, at(1), at(4)).await
        };
        let (measured, vitals, broken) =
            tokio::join!(load, Vitals::watch(process, self.began, &done), breaking);
        if let Err(why) = broken {
            whole.misses.push(format!("{}: {why}", what.name()));
        }
        let measured = measured.map_err(|why| format!("{}: {why}{}", what.name(), self.site.gate_log()))?;
        let counts = match scrape::counts(self.site.operations).await {
            Ok(now) => now - counts,
            Err(why) => return Err(format!("after {}: {why}{}", what.name(), self.site.gate_log())),
        };
        let at = started.saturating_duration_since(self.began).as_secs_f64();
        whole.phases.push(Phase::of(what, at, &measured, &vitals, counts));
        whole.answered.extend(measured.answered);
        whole.vitals.add(vitals);
        Ok(())
    }

    fn setting(&self, machine: Machine) -> Setting {
        Setting {
            machine,
            scenario: self.scenario.name.clone(),
            protocol: protocol_name(self.options.http).to_owned(),
            visits_per_second: self.rate.per_second(),
            minutes: self.options.minutes.as_secs_f64() / 60.0,
            connections: self.options.connections,
            patients: self.options.patients,
            growth_mib_max: self.options.growth_mib,
            seed: self.options.seed,
        }
    }
}

/// What all phases came to.
#[derive(Default)]
struct Whole {
    phases: Vec<Phase>,
    answered: Vec<(u128, u16)>,
    vitals: Vitals,
    misses: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_among_the_faults() {
        let seconds = Duration::from_secs;
        let two_minutes = Timetable::of(seconds(120), 7);
        assert_eq!((two_minutes.first, two_minutes.rounds), (seconds(15), 1));
        assert_eq!((two_minutes.across, two_minutes.after), (seconds(9), seconds(6)));
        let hour = Timetable::of(seconds(3_600), 8);
        assert!(hour.rounds > 1 && hour.across + hour.after <= TURN_MAX, "{hour:?}");
        let all = hour.first + (hour.across + hour.after) * 8 * hour.rounds;
        assert!(all > seconds(3_500) && all <= seconds(3_600), "{all:?}");
        assert_eq!(Timetable::of(seconds(60), 0).first, seconds(60));
        assert_eq!(Timetable::of(seconds(3), 2).after, PHASE_MIN);
    }

    #[test]
    fn minutes_are_a_number_within_bounds() {
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        assert!(["0", "-1", "NaN", "x", "99999"].iter().all(|text| minutes(text).is_err()));
    }
}
