//! `chartgate-forward`: a process beside the gate that follows the audit trail on disk and sends it to receivers.
//!
//! Owns: the commands, the threads (one for each receiver), signals, and saying in the trail that it is read.
//! Must never: write into the trail's directory, but for the slip that says so; hold the gate up (it shares nothing with it but files).
//! Look next: `pump`, `s3`; docs/forwarding.md.

mod fetch;
mod follow;
mod http;
mod limits;
mod otlp;
mod pace;
mod pump;
mod s3;
mod secret;
mod settings;
mod state;
mod status;
mod syslog;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use chartgate::config::Problem;
use chartgate::domain::audit::escape;
use chartgate::edge::journal::{self, Keys};
use chartgate::edge::readings::{self, Reading};
use chartgate::edge::telemetry::{self, LogFormat};
use chartgate::edge::tls::{ClientFiles, client_config};
use chartgate::{app, clock, config};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use otlp::OtlpSender;
use pace::{Stop, stop_signal};
use pump::{Pump, Sender};
use s3::{Bucket, LockFault, Shipper};
use settings::{Kind, Receiver, Settings};
use state::State;
use syslog::SyslogSender;

/// Follows Chartgate's audit trail and sends it on: to syslog over TLS, OpenTelemetry, and S3 with Object Lock.
#[derive(Debug, Parser)]
#[command(name = "chartgate-forward", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward, until a signal ends it
    Run(Run),
    /// Check the file, and everything it names; every problem with file and line
    Check(File),
    /// How far each receiver has come; exits 1 when something is wrong with one
    Status(Shown),
    /// Bring a copy of the trail back from a bucket, and verify it
    Fetch(Fetch),
}

#[derive(Debug, Args)]
struct File {
    /// The forwarder's configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    file: File,
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Log {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct Shown {
    #[command(flatten)]
    file: File,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Fetch {
    #[command(flatten)]
    file: File,
    /// The name of an `[[s3]]`
    #[arg(long, value_name = "NAME")]
    receiver: String,
    /// The directory to write into; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The copy of so many entries, and not the newest
    #[arg(long, value_name = "ENTRIES")]
    size: Option<u64>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(order) => run(&order),
        Command::Check(file) => check(&file),
        Command::Status(order) => show(&order),
        Command::Fetch(order) => bring(&order),
    };
    match done {
        Ok(code) => code,
        Err(problems) => {
            problems.iter().for_each(|problem| complain(&problem.to_string()));
            ExitCode::FAILURE
        }
    }
}

type Done = Result<ExitCode, Vec<Problem>>;

fn complain(what: &str) {
    let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "chartgate-forward: {}", escape(what));
}

fn print(line: &str) {
    let _closed_pipe = writeln!(std::io::stdout(), "{line}");
}

fn one(what: impl Into<String>) -> Vec<Problem> {
    vec![Problem::whole_file("chartgate-forward", what)]
}

/// Both files.
fn load(file: &File) -> Result<(Settings, journal::Settings), Vec<Problem>> {
    let settings = settings::load(&file.config)?;
    let gate = config::load(&settings.config)?;
    Ok((settings, app::journal_settings(&gate)))
}

fn runtime() -> Result<Runtime, Vec<Problem>> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| one(format!("the runtime cannot be started: {}", error.kind())))
}

/// What can be wrong without asking anybody.
fn local_problems(settings: &Settings, trail: &journal::Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |place: &str, wrong: Option<String>| {
        problems.extend(wrong.map(|what| Problem::whole_file(place, what)));
    };
    note("[trail]", Keys::load(trail).err().map(|error| error.to_string()));
    // Whatever lies in the trail's directory and is none of its files is a finding of `audit verify`.
    if settings.state.starts_with(&trail.directory) {
        note("[trail]", Some("`state` must not be inside the trail's directory".to_owned()));
    }
    for receiver in &settings.receivers {
        let place = format!("`{}`", receiver.name);
        let tls = |files: &ClientFiles| client_config(files).err().map(|error| error.to_string());
        let secret = |file: &PathBuf| secret::read(file, limits::SECRET_BYTES_MAX).err();
        match &receiver.kind {
            Kind::Syslog(syslog) => note(&place, syslog.tls.as_ref().and_then(tls)),
            Kind::Otlp(otlp) => {
                note(&place, tls(&otlp.tls));
                note(&place, otlp.authorization_file.as_ref().and_then(secret));
            }
            Kind::S3(s3) => {
                note(&place, tls(&s3.tls));
                note(&place, secret(&s3.secret_access_key_file));
            }
        }
    }
    problems
}

/// A bucket that answers and keeps nothing is refused; one that does not answer is waited for later.
async fn lock_problem(name: &str, bucket: &Bucket) -> Result<(), Vec<Problem>> {
    let place = format!("`{name}`");
    let open = bucket.open().map_err(|what| vec![Problem::whole_file(&place, what)])?;
    match open.check_lock().await {
        Ok(()) => Ok(()),
        Err(LockFault::Unlocked(what)) => Err(vec![
            Problem::whole_file(&place, what)
                .with_hint("make the bucket with Object Lock and a default retention in COMPLIANCE mode"),
        ]),
        Err(LockFault::Unknown(what)) => {
            tracing::warn!(
                receiver = name,
                what = escape(&what),
                "whether the bucket keeps what it is given is not known yet"
            );
            Ok(())
        }
    }
}

fn check(file: &File) -> Done {
    let (settings, trail) = load(file)?;
    let mut problems = local_problems(&settings, &trail);
    let runtime = runtime()?;
    for receiver in settings.receivers {
        if let Kind::S3(s3) = receiver.kind
            && problems.is_empty()
        {
            let bucket = Bucket::new(s3);
            problems
                .extend(runtime.block_on(lock_problem(&receiver.name, &bucket)).err().unwrap_or_default());
        }
    }
    if problems.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(problems) }
}

fn show(order: &Shown) -> Done {
    let (settings, trail) = load(&order.file)?;
    let standings = status::standings(&settings, &trail).map_err(one)?;
    for standing in &standings {
        print(&if order.json { standing.json() } else { standing.line() });
    }
    let is_good = standings.iter().all(status::Standing::is_good);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bring(order: &Fetch) -> Done {
    let (settings, trail) = load(&order.file)?;
    let receiver = settings.receivers.into_iter().find(|receiver| receiver.name == order.receiver);
    let Some(Receiver { kind: Kind::S3(s3), .. }) = receiver else {
        return Err(one(format!("there is no `[[s3]]` named `{}`", order.receiver)));
    };
    let bucket = Bucket::new(s3);
    let fetched = runtime()?.block_on(async {
        let open = bucket.open()?;
        fetch::fetch(&open, order.size, &order.out).await
    });
    let size = fetched.map_err(one)?;
    let found = journal::verify_copy(&trail, &order.out, None).map_err(|error| one(error.to_string()))?;
    print(&format!(
        "fetched {size} entries ({} records) into `{}`: the copy verifies",
        found.records,
        order.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn run(order: &Run) -> Done {
    let format = match order.log {
        Log::Text => LogFormat::Text,
        Log::Json => LogFormat::Json,
    };
    let _already_started = telemetry::start_log(format, LevelFilter::INFO);
    let (settings, trail) = load(&order.file)?;
    let problems = local_problems(&settings, &trail);
    if !problems.is_empty() {
        return Err(problems);
    }
    let state = State::open(&settings.state).map_err(one)?;
    let receivers = settings.receivers.iter().map(|receiver| receiver.name.clone()).collect::<Vec<_>>();
    let told = Told { trail: trail.clone(), operator: settings.operator.clone(), receivers };
    let mut jobs = Vec::new();
    let runtime = runtime()?;
    for Receiver { name, start, kind } in settings.receivers {
        let job = match kind {
            Kind::Syslog(syslog) => Job::Items(start, Sender::Syslog(SyslogSender::new(syslog))),
            Kind::Otlp(otlp) => Job::Items(start, Sender::Otlp(Box::new(OtlpSender::new(otlp)))),
            Kind::S3(s3) => {
                let bucket = Bucket::new(s3);
                runtime.block_on(lock_problem(&name, &bucket))?;
                Job::Evidence(bucket)
            }
        };
        jobs.push((name, job));
    }
    at_work(&runtime, jobs, &state, &told)
}

/// What one thread does.
#[derive(Debug)]
enum Job {
    Items(settings::Start, Sender),
    Evidence(Bucket),
}

/// A thread for each receiver, so that none waits for another; here it is waited for the signal.
fn at_work(runtime: &Runtime, jobs: Vec<(String, Job)>, state: &State, told: &Told) -> Done {
    let (stopper, stop) = stop_signal();
    let _runtime = runtime.enter();
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return Err(one("signals cannot be heard"));
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, job) in jobs {
            let (stop, trail) = (stop.clone(), told.trail.clone());
            threads.push(scope.spawn(move || forward(&name, job, trail, state, stop)));
        }
        tracing::info!(receivers = threads.len(), "forwarding");
        let mut said = None::<Instant>;
        let is_good = runtime.block_on(async {
            loop {
                if said.is_none_or(|at| at.elapsed() >= limits::READING_INTERVAL) {
                    told.leave();
                    said = Some(Instant::now());
                }
                tokio::select! {
                    _ = terminate.recv() => return true,
                    _ = interrupt.recv() => return true,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
                if threads.iter().any(thread::ScopedJoinHandle::is_finished) {
                    tracing::error!("a receiver's thread has ended; the program ends, to be started again");
                    return false;
                }
            }
        });
        stopper.stop();
        let ended_well = threads.into_iter().all(|thread| thread.join().unwrap_or(false));
        Ok(if is_good && ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Answers whether the thread could do its work.
fn forward(name: &str, job: Job, trail: journal::Settings, state: &State, stop: Stop) -> bool {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return false };
    match job {
        Job::Items(start, sender) => runtime.block_on(Pump::new(name, start, sender, trail, state).run(stop)),
        Job::Evidence(bucket) => {
            let shipper = Shipper { name, bucket, trail, state };
            runtime.block_on(shipper.run(stop));
        }
    }
    true
}

/// Reading the trail is itself recorded: at the start, and once a day while it goes on.
#[derive(Debug)]
struct Told {
    trail: journal::Settings,
    operator: Option<String>,
    receivers: Vec<String>,
}

impl Told {
    fn leave(&self) {
        let filter = BTreeMap::from([("receivers".to_owned(), self.receivers.join(" "))]);
        let reading = Reading::new("forward", self.operator.as_deref(), filter, clock::now());
        if let Err(why) = readings::leave(&self.trail, &reading) {
            tracing::warn!(why = escape(&why), "this reading of the trail is not recorded");
        }
    }
}
