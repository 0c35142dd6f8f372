//! `chartgate serve`: the program at work, until a signal ends it.
//!
//! Owns: signals and the log's start. Must never: make a trail, or serve with any part missing.
//! Look next: `app::start`.

use super::{ConfigFile, Ending, show};
use crate::edge::open_files;
use crate::edge::telemetry::{self, LogFormat};
use crate::{app, config};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// `serve --config F`
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

pub(super) fn run(serve: &Serve) -> Ending {
    let format = match serve.log {
        Log::Text => LogFormat::Text,
        Log::Json => LogFormat::Json,
    };
    let _already_started = telemetry::start_log(format, LevelFilter::INFO);
    open_files::raise();
    let settings = match config::load(&serve.config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, false),
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_signalled(&settings)),
        Err(error) => {
            show::error(&format!("the runtime cannot be started: {}", error.kind()));
            Ending::No
        }
    }
}

async fn until_signalled(settings: &config::Settings) -> Ending {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        show::error("signals cannot be heard");
        return Ending::No;
    };
    let running = match app::start(settings).await {
        Ok(running) => running,
        Err(problems) => return show::problems(&problems, false),
    };
    running.keep_panics_quiet();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = reload_at(hangup, &running) => {}
    }
    match running.stop().await {
        Ok(()) => Ending::Good,
        Err(error) => {
            show::error(&error);
            Ending::No
        }
    }
}

/// Reads everything again at each SIGHUP; never ends while signals can be heard.
async fn reload_at(mut hangup: Signal, running: &app::Running) {
    while hangup.recv().await.is_some() {
        running.reload();
    }
}
