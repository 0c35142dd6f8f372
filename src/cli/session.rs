//! `chartgate session list|revoke|revocations|lift`: sessions and revocations, whether or not a proxy runs.
//!
//! Owns: the arguments, and what is printed. Works on the store itself: a proxy that runs notices within a second and
//! records it. Must never: need a proxy that answers.
//! Look next: `edge::sessions`, `edge::operations`, where the same is ordered over HTTP.

use super::{Ending, Plain, show};
use crate::clock;
use crate::domain::audit::escape;
use crate::domain::identity::RevocationOrigin;
use crate::edge::operations::{OrderText, RevocationView};
use crate::edge::sessions::{SessionStore, SessionView};
use crate::{app, config};
use clap::{Args, Subcommand};
use serde::Serialize;

/// `session list|revoke|revocations|lift`
#[derive(Debug, Subcommand)]
pub(super) enum Session {
    /// Sessions that are alive
    List(Plain),
    /// Revoke a token, a session, a person, a client or an issuer; in force within a second
    Revoke(Box<Revoke>),
    /// What is revoked now
    Revocations(Plain),
    /// Take a revocation back
    Lift(Lift),
}

/// `session revoke --config F --user I|S --reason R`
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    target: Target,
    /// Why; it stands in the trail
    #[arg(long)]
    reason: String,
    /// Sessions and people: later logins too, until it is lifted
    #[arg(long)]
    until_lifted: bool,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// A token, by its `jti` or by its SHA-256 in hexadecimal
    #[arg(long)]
    token: Option<String>,
    /// A session, by the id that `session list` prints
    #[arg(long)]
    session: Option<String>,
    /// Everything of a person: `issuer|subject`
    #[arg(long)]
    user: Option<String>,
    /// Everything through a client, by its `client_id`
    #[arg(long)]
    client: Option<String>,
    /// Everything an issuer vouches for, by its URL
    #[arg(long)]
    issuer: Option<String>,
}

/// `session lift --config F ID`
#[derive(Debug, Args)]
pub(super) struct Lift {
    #[command(flatten)]
    plain: Plain,
    /// The id that `session revocations` prints
    id: String,
}

pub(super) fn run(command: Session) -> Ending {
    let plain = match &command {
        Session::List(plain) | Session::Revocations(plain) => plain,
        Session::Revoke(revoke) => &revoke.plain,
        Session::Lift(lift) => &lift.plain,
    };
    let json = plain.json;
    let settings = match config::load(&plain.config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, json),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot be started: {}", error.kind())),
    };
    // A store blocks; it may on a thread that is not the runtime's own.
    let _within = runtime.enter();
    let store = match app::open_store(&settings) {
        Ok(store) => store,
        Err(error) => return fail(&error.to_string()),
    };
    let done = match command {
        Session::List(_) => list(&*store, &settings, json),
        Session::Revocations(_) => revocations(&*store, json),
        Session::Revoke(order) => revoke(&*store, *order, json),
        Session::Lift(lift) => return take_back(&*store, &lift.id),
    };
    match done {
        Ok(()) => Ending::Good,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> Ending {
    show::error(&escape(why));
    Ending::No
}

fn list(store: &dyn SessionStore, settings: &config::Settings, json: bool) -> Result<(), String> {
    let limits = app::session_settings(settings).limits;
    let views = SessionView::alive(store, &limits, clock::now()).map_err(|error| error.to_string())?;
    for view in &views {
        print(view, json, || {
            let application = view.application.as_deref().unwrap_or("-");
            format!("{}  {}  {}|{}  {application}", view.id, view.last_active, view.issuer, view.subject)
        });
    }
    if !json {
        show::line(&format!("{} sessions", views.len()));
    }
    Ok(())
}

fn revocations(store: &dyn SessionStore, json: bool) -> Result<(), String> {
    let all = store.revocations().map_err(|error| error.to_string())?;
    for revocation in &all {
        let view = RevocationView::of(revocation);
        print(&view, json, || view.to_string());
    }
    if !json {
        show::line(&format!("{} revocations", all.len()));
    }
    Ok(())
}

fn revoke(store: &dyn SessionStore, order: Revoke, json: bool) -> Result<(), String> {
    let Target { token, session, user, client, issuer } = order.target;
    let (reason, until_lifted) = (order.reason, order.until_lifted);
    let text = OrderText { token, session, user, client, issuer, reason, until_lifted };
    let now = clock::now();
    let order = text.read(store, RevocationOrigin::Command, now).map_err(|fault| fault.to_string())?;
    let revocation = order.revocation(now);
    store.revoke(&revocation).map_err(|error| error.to_string())?;
    let view = RevocationView::of(&revocation);
    print(&view, json, || format!("revoked: {view}"));
    Ok(())
}

fn take_back(store: &dyn SessionStore, id: &str) -> Ending {
    match store.lift(id) {
        Ok(true) => {
            show::line("lifted");
            Ending::Good
        }
        Ok(false) => fail("there is no such revocation"),
        Err(error) => fail(&error.to_string()),
    }
}

fn print(view: &impl Serialize, json: bool, text: impl Fn() -> String) {
    if json {
        show::line(&serde_json::to_string(view).unwrap_or_default());
    } else {
        show::line(&escape(&text()));
    }
}
