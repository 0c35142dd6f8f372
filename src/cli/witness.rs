//! `chartgate witness init|key|serve`: the witness of somebody else's trail, with a configuration of its own.
//!
//! Owns: the arguments, and what is printed. Must never: read a gate's configuration.
//! Look next: `edge::witness`, docs/witness.md.

use super::{ConfigFile, Ending, show};
use crate::config::witness::{WitnessSettings, load_witness};
use crate::edge::telemetry::{self, LogFormat};
use crate::{app, edge};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// `witness init|key|serve`
#[derive(Debug, Subcommand)]
pub(super) enum Witness {
    /// Make the key, unless it is there, and an empty state; prints the verifier key
    Init(ConfigFile),
    /// Print the verifier key that logs and auditors need
    Key(ConfigFile),
    /// Cosign what the configured logs show, as long as they only grow
    Serve(ConfigFile),
}

pub(super) fn run(command: &Witness) -> Ending {
    let (Witness::Init(config) | Witness::Key(config) | Witness::Serve(config)) = command;
    let settings = match load_witness(&config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, false),
    };
    let key = match command {
        Witness::Init(_) => edge::witness::init(&app::witness_settings(&settings)),
        Witness::Key(_) => edge::witness::verifier(&settings.name, &settings.signing_key),
        Witness::Serve(_) => return serve(&settings),
    };
    match key {
        Ok(key) => {
            show::line(&key.to_string());
            Ending::Good
        }
        Err(error) => {
            show::error(&error.to_string());
            Ending::No
        }
    }
}

fn serve(settings: &WitnessSettings) -> Ending {
    let _already_started = telemetry::start_log(LogFormat::Text, LevelFilter::INFO);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_signalled(settings)),
        Err(error) => {
            show::error(&format!("the runtime cannot be started: {}", error.kind()));
            Ending::No
        }
    }
}

async fn until_signalled(settings: &WitnessSettings) -> Ending {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        show::error("signals cannot be heard");
        return Ending::No;
    };
    let running = match app::start_witness(settings).await {
        Ok(running) => running,
        Err(problems) => return show::problems(&problems, false),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => running.reload(),
        }
    }
    running.stop().await;
    Ending::Good
}
