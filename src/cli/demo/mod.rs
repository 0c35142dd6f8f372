//! `chartgate demo`: everything on loopback, in memory, nothing to install.
//!
//! Owns: the command's arguments and what it prints. Must never: be part of a hospital's build, or touch an
//! address beyond loopback.
//! Look next: `stage`, what is started; `tour`, what `--tour` does.

pub mod client;
pub mod stage;
mod tour;

use super::{Ending, show};
use clap::Args;
use stage::{Script, Stage, StageError};
use std::path::PathBuf;

const PORT: u16 = 8443;

/// `demo [--tour] [--policies DIRECTORY]`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Make the requests here, print who saw what, verify the trail, and end
    #[arg(long)]
    tour: bool,
    /// Use these policies instead of the shipped ones; they are read again when they change
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
}

pub(super) fn run(demo: &Demo) -> Ending {
    let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = ended.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(play(demo)));
    match ended {
        Ok(ending) => ending,
        Err(error) => {
            show::error(&error);
            Ending::No
        }
    }
}

async fn play(demo: &Demo) -> Result<Ending, String> {
    let script = Script { policies: demo.policies.clone(), port: Some(PORT), ..Script::default() };
    let stage = Stage::open(script).await.map_err(|error: StageError| error.to_string())?;
    let ending = if demo.tour { tour::walk(&stage).await? } else { stay(&stage).await? };
    stage.close().await.map_err(|error| error.to_string())?;
    Ok(ending)
}

async fn stay(stage: &Stage) -> Result<Ending, String> {
    show::line(&format!(
        "Chartgate serves {} in front of a sandbox EMR with synthetic patients.\n",
        stage.base_url()
    ));
    show::line("One line for each persona; the token in it holds for its lifetime of an hour:\n");
    let ca = stage.ca_file();
    for persona in stage.issuer().personas() {
        let token = stage.issuer().token(persona.name).map_err(|error| error.to_string())?;
        show::line(&format!("# {}", persona.name));
        show::line(&format!(
            "curl --cacert {} -H 'Authorization: Bearer {token}' {}/Patient/p1\n",
            ca.display(),
            stage.base_url()
        ));
    }
    show::line(&format!(
        "Sign in as an application would: {}/.well-known/openid-configuration",
        stage.issuer().url()
    ));
    for persona in stage.issuer().personas() {
        show::line(&format!(
            "  user {:<14} password {:<20} one-time code secret {}",
            persona.user,
            persona.password,
            persona.totp_secret()
        ));
    }
    let config = stage.config_file();
    show::line(&format!(
        "\nThe trail, in another terminal: chartgate audit search --config {}",
        config.display()
    ));
    if let Some(running) = stage.running() {
        show::line(&format!("Metrics: http://{}/metrics", running.operations_address()));
    }
    show::line("Ctrl-C ends it and leaves nothing behind.");
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())?;
    Ok(Ending::Good)
}
