//! `chartgate doctor`: a checklist of everything around the gate, and all that is wrong with a sample token.
//!
//! Owns: the arguments, and the order in which things are looked at.
//! Must never: print a secret, a token, a subject or a patient; write anything at a neighbour or in the trail.
//! Look next: `list`, the checklist; `files`, `emr`, `issuers`, `token`, `vigil`, what is looked at.

mod emr;
mod files;
mod issuers;
mod list;
mod token;
mod vigil;
mod witnesses;

use super::{ConfigFile, Ending, show};
use crate::config::{Problem, Settings};
use crate::edge::sessions::SessionStore;
use crate::{app, config, limits};
use clap::Args;
use list::Checklist;
use std::path::PathBuf;
use std::sync::Arc;

/// `doctor --config F [--token-file T] [--json]`
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// A file with an access token, which is explained and never printed
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(doctor: &Doctor) -> Ending {
    let mut list = Checklist::default();
    match config::load(&doctor.config.path) {
        Ok(settings) => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => examine(&mut list, doctor, &settings, &runtime),
            Err(error) => {
                show::error(&format!("the runtime cannot be started: {}", error.kind()));
                return Ending::No;
            }
        },
        Err(problems) => problems.iter().for_each(|problem| note(&mut list, problem, None, true)),
    }
    list.print(doctor.json)
}

fn examine(list: &mut Checklist, doctor: &Doctor, settings: &Settings, runtime: &tokio::runtime::Runtime) {
    let (issuers, clients) = (settings.issuers.len(), settings.clients.len());
    list.pass("configuration", "configuration", format!("it reads: {issuers} issuers, {clients} clients"));
    match app::check(settings) {
        Ok(notes) => {
            list.pass("policies", "policies", "they load");
            notes.iter().for_each(|problem| note(list, problem, Some(settings), false));
        }
        Err(problems) => problems.iter().for_each(|problem| note(list, problem, Some(settings), true)),
    }
    recommended(list, settings);
    files::certificates(list, settings);
    // A store blocks; it may on a thread that is not the runtime's own.
    let within = runtime.enter();
    if let Some(store) = sessions(list, settings) {
        vigil::streams(list, settings, &*store);
    }
    drop(within);
    files::trail(list, settings);
    vigil::reviews(list, settings);
    witnesses::examine(list, settings);
    runtime.block_on(emr::examine(list, settings));
    let issuers = runtime.block_on(issuers::examine(list, settings));
    if let Some(path) = &doctor.token_file {
        runtime.block_on(token::examine(list, path, settings, &issuers));
    }
}

/// A problem of `check`, in the group it belongs to.
fn note(list: &mut Checklist, problem: &Problem, settings: Option<&Settings>, fails: bool) {
    let policies = settings.map(|settings| settings.policies.display().to_string());
    let group = match problem.file.as_str() {
        "[listen]" | "[operations]" => "TLS",
        "[upstream]" => "EMR",
        "[audit]" => "trail",
        "[policies]" | "[policies.shadow]" => "policies",
        "[session]" => "sessions",
        "[[client]]" => "clients",
        file if file.starts_with("[[issuer") || file.starts_with("[issuer") => "issuers",
        file if policies.is_some_and(|policies| file.starts_with(&policies)) => "policies",
        _ => "configuration",
    };
    // `Problem` prints its own hint on a line of its own; here it has a place.
    let at = Problem { hint: None, ..problem.clone() }.to_string();
    let hint = problem.hint.as_deref().unwrap_or("`chartgate check` says the same, with file and line");
    if fails {
        list.fail(group, "check", at, hint);
    } else {
        list.warn(group, "check", at, hint);
    }
}

/// What is allowed and not advised.
fn recommended(list: &mut Checklist, settings: &Settings) {
    let session = &settings.session;
    if session.idle_timeout <= limits::SESSION_IDLE_ADVISED_MAX {
        let minutes = session.idle_timeout.as_secs() / 60;
        list.pass("sessions", "session-idle", format!("they end after {minutes} minutes without a request"));
    }
    let hours = session.absolute_timeout.as_secs() / 3600;
    if session.absolute_timeout <= limits::SESSION_ABSOLUTE_ADVISED_MAX {
        list.pass("sessions", "session-absolute", format!("they end {hours} hours after the login"));
    } else {
        let hint = "set `session.absolute_timeout` to a shift's length, `12h`";
        list.warn("sessions", "session-absolute", format!("they last for up to {hours} hours"), hint);
    }
    if settings.clients.is_empty() {
        let hint = "register each application with `[[client]]`: purposes, scopes, binding, agreement";
        list.warn("clients", "clients-unregistered", "every client of a trusted issuer may come", hint);
    }
}

fn sessions(list: &mut Checklist, settings: &Settings) -> Option<Arc<dyn SessionStore>> {
    match app::open_store(settings).and_then(|store| store.state().map(|_| store)) {
        Ok(store) => {
            list.pass("sessions", "session-store", "the store opens");
            Some(store)
        }
        Err(error) => {
            let hint = "`chartgate audit init` makes the store with a new trail; else see docs/sessions.md";
            list.fail("sessions", "session-store", error.to_string(), hint);
            None
        }
    }
}

/// Says how far a neighbour's clock is off.
fn clock(list: &mut Checklist, group: &str, ahead_seconds: Option<i64>) {
    let hint = "synchronise both machines with a time server (NTP)";
    let Some(ahead) = ahead_seconds else { return };
    let (off, word) = (ahead.abs(), if ahead < 0 { "behind" } else { "ahead of" });
    let what = format!("its clock is {off} s {word} ours");
    if off > limits::TOKEN_LEEWAY_SECONDS {
        list.fail(group, "clock", what, hint);
    } else if off > limits::CLOCK_SKEW_ADVISED_SECONDS_MAX {
        list.warn(group, "clock", what, hint);
    } else {
        list.pass(group, "clock", format!("its clock agrees with ours to {} s", off.max(1)));
    }
}
