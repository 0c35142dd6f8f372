//! `chartgate audit`: the arguments of the trail's commands.
//!
//! Owns: what can be asked of the trail on the command line. Must never: read or write the trail itself.
//! Look next: `audit`, which does.

use super::{Ending, Plain, audit, show};
use crate::{app, config};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use std::path::PathBuf;

/// `audit init|verify|index|search|summary`
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Make the trail's directory, and its keys where there are none
    Init(Plain),
    /// Check every byte of the trail; exits 1 and names the place when anything was changed
    Verify(Verify),
    /// Make the index of the trail, or bring it up to date: searches are quick then
    Index(Index),
    /// Find records: who saw what, when and why
    Search(Box<Search>),
    /// How often whom was answered on a day, by role, purpose and decision; needs the index
    Summary(Summary),
}

/// `audit index --config F [--rebuild] [--json]`
#[derive(Debug, Args)]
pub(super) struct Index {
    #[command(flatten)]
    plain: Plain,
    /// From nothing, whatever is there
    #[arg(long)]
    rebuild: bool,
}

/// `audit summary --config F --day D [--json]`
#[derive(Debug, Args)]
pub(super) struct Summary {
    #[command(flatten)]
    plain: Plain,
    /// A day such as 2026-03-01, from midnight to midnight in UTC
    #[arg(long)]
    day: Date,
}

/// `audit search --config F [filters] [--json]`; without a filter every record is printed.
#[derive(Debug, Args)]
pub(super) struct Search {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    which: Which,
    /// Read the whole trail, not the index: whoever can write the index could hide records from it
    #[arg(long)]
    scan: bool,
}

/// Which records.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// A patient's logical id
    #[arg(long)]
    patient: Option<String>,
    /// A person's subject
    #[arg(long, visible_alias = "person")]
    subject: Option<String>,
    /// The issuer that vouched for the person
    #[arg(long)]
    issuer: Option<String>,
    /// `Type` or `Type/id`
    #[arg(long)]
    resource: Option<String>,
    /// FHIR interaction code: read, vread, search-type, ...
    #[arg(long)]
    interaction: Option<String>,
    /// permit or refuse
    #[arg(long)]
    decision: Option<String>,
    /// Refusal code
    #[arg(long)]
    reason: Option<String>,
    /// The application that asked on the person's behalf
    #[arg(long)]
    application: Option<String>,
    /// A role of the person
    #[arg(long)]
    role: Option<String>,
    /// A purpose of use
    #[arg(long)]
    purpose: Option<String>,
    /// An element path such as Patient.name: it was released or written, or something inside it, or what it is inside of
    #[arg(long)]
    element: Option<String>,
    /// A grant of emergency access, or `any`
    #[arg(long)]
    emergency: Option<String>,
    /// X-Request-Id of an answer
    #[arg(long)]
    request_id: Option<String>,
    /// From this time or date on
    #[arg(long, value_parser = audit::parse_time)]
    since: Option<Timestamp>,
    /// Before this time or date
    #[arg(long, value_parser = audit::parse_time)]
    until: Option<Timestamp>,
}

/// `audit verify --config F [--against CHECKPOINT] [--json]`
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    plain: Plain,
    /// A checkpoint of this trail that was kept elsewhere; the trail must contain it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

pub(super) fn run(command: &Audit) -> Ending {
    let config = match command {
        Audit::Init(init) => &init.config,
        Audit::Verify(verify) => &verify.plain.config,
        Audit::Index(index) => &index.plain.config,
        Audit::Search(search) => &search.plain.config,
        Audit::Summary(summary) => &summary.plain.config,
    };
    let all = match config::load(&config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, false),
    };
    let settings = app::journal_settings(&all);
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    let code = match command {
        Audit::Init(_) => match audit::init(&settings, &mut out, &mut err) {
            audit::GOOD => {
                drop((out, err));
                return init_sessions(&all);
            }
            problem => problem,
        },
        Audit::Verify(verify) => {
            let against = match verify.against.as_ref().map(std::fs::read).transpose() {
                Ok(against) => against,
                Err(error) => {
                    drop(err);
                    show::error(&format!("the checkpoint cannot be read: {}", error.kind()));
                    return Ending::WrongUse;
                }
            };
            audit::verify(&settings, against.as_deref(), verify.plain.json, &mut out, &mut err)
        }
        Audit::Index(order) => {
            audit::index(&settings, &all.audit.index, order.rebuild, order.plain.json, &mut out, &mut err)
        }
        Audit::Search(search) => {
            let index = (!search.scan).then_some(all.audit.index.as_path());
            let (filter, json) = (search.which.filter(), search.plain.json);
            audit::search_with(&settings, index, &filter, json, &mut out, &mut err)
        }
        Audit::Summary(order) => {
            audit::summary(&settings, &all.audit.index, order.day, order.plain.json, &mut out, &mut err)
        }
    };
    if code == audit::GOOD { Ending::Good } else { Ending::No }
}

fn init_sessions(settings: &config::Settings) -> Ending {
    match app::init_sessions(settings) {
        Ok(Some(path)) => show::line(&format!("made the session store `{}`", path.display())),
        Ok(None) => {}
        Err(error) => {
            show::error(&error.to_string());
            return Ending::No;
        }
    }
    Ending::Good
}

impl Which {
    fn filter(&self) -> audit::Filter {
        audit::Filter {
            patient: self.patient.clone(),
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            resource: self.resource.clone(),
            interaction: self.interaction.clone(),
            decision: self.decision.clone(),
            reason: self.reason.clone(),
            application: self.application.clone(),
            role: self.role.clone(),
            purpose: self.purpose.clone(),
            element: self.element.clone(),
            emergency: self.emergency.clone(),
            request_id: self.request_id.clone(),
            since: self.since,
            until: self.until,
        }
    }
}
