//! `chartgate check`: everything that can be wrong before serving, found without serving.
//!
//! Owns: the command's arguments and output. Must never: open a socket, or take the lock of the trail.
//! Look next: `app::check`.

use super::{ConfigFile, Ending, show};
use crate::{app, config};
use clap::Args;

/// `check --config F [--json]`
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(check: &Check) -> Ending {
    let checked = config::load(&check.config.path).and_then(|settings| app::check(&settings));
    match checked {
        Ok(lints) => {
            for lint in &lints {
                show::error(&format!("note: {lint}"));
            }
            show::line(if check.json { r#"{"ok":true}"# } else { "no problems found" });
            Ending::Good
        }
        Err(problems) => show::problems(&problems, check.json),
    }
}
