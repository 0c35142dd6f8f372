//! `chartgate audit`: the arguments of the trail's commands.
//!
//! Owns: what can be asked of the trail on the command line. Must never: read or write the trail itself.
//! Look next: `audit`, which does.

use super::{ConfigFile, Ending, Plain, audit, show};
use crate::domain::ledger::{KeyTextError, VerifierKey};
use crate::edge::journal::{Demand, Request};
use crate::{app, config};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};

/// `audit init|verify|search|prove|check-proof|key`
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Make the trail's directory, and its keys where there are none
    Init(Plain),
    /// Check every byte of the trail; exits 1 and names the place when anything was changed
    Verify(Verify),
    /// Prove that entries are in the log, to people who have nothing but its public key
    Prove(Box<Prove>),
    /// Check proofs with public keys alone: needs no configuration, no trail and no secret
    CheckProof(CheckProof),
    /// Print the log's verifier key, which witnesses and auditors need
    Key(Plain),
    /// Find records: who saw what, when and why
    Search(Box<Search>),
}

/// `audit search --config F [filters] [--json]`; without a filter every record is printed.
#[derive(Debug, Args)]
pub(super) struct Search {
    #[command(flatten)]
    config: ConfigFile,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
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

/// `audit prove --config F (--sequence N | --request-id ID | --from CHECKPOINT) [--hash-only] [--witnessed] [--out FILE] [--json]`
#[derive(Debug, Args)]
pub(super) struct Prove {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    what: Proven,
    /// The entry's leaf hash in place of the encrypted entry
    #[arg(long)]
    hash_only: bool,
    /// Against the largest checkpoint that witnesses cosigned, not the newest one
    #[arg(long)]
    witnessed: bool,
    /// Write the proofs there, not to the terminal
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// At least one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Proven {
    /// Sequence number of an entry
    #[arg(long, value_name = "N", conflicts_with = "request_id")]
    sequence: Option<u64>,
    /// X-Request-Id of an answer: every entry of every record of it
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// An earlier checkpoint of this trail: also prove that the log only grew since
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
}

/// `audit check-proof FILE --key VKEY [--witness VKEY]... [--from CHECKPOINT] [--json]`
#[derive(Debug, Args)]
pub(super) struct CheckProof {
    /// A file of proofs, as `audit prove` writes it
    file: PathBuf,
    /// The log's verifier key, as `audit key` prints it
    #[arg(long, value_parser = verifier_key)]
    key: VerifierKey,
    /// The verifier key of a witness that must have cosigned
    #[arg(long, value_parser = verifier_key)]
    witness: Vec<VerifierKey>,
    /// The earlier checkpoint at which a consistency proof begins
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

fn verifier_key(text: &str) -> Result<VerifierKey, KeyTextError> {
    VerifierKey::parse(text)
}

pub(super) fn run(command: &Audit) -> Ending {
    let config = match command {
        Audit::CheckProof(check) => return check_proof(check),
        Audit::Prove(prove) => &prove.plain.config,
        Audit::Key(key) => &key.config,
        Audit::Init(init) => &init.config,
        Audit::Verify(verify) => &verify.plain.config,
        Audit::Search(search) => &search.config,
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
            let against = match read_checkpoint(verify.against.as_deref()) {
                Ok(against) => against,
                Err(ending) => return ending,
            };
            let (witnesses, age) = (app::witness_keys(&all), all.audit.witness_max_age);
            let demand = Demand { witnesses: &witnesses, age_max: SignedDuration::try_from(age).ok() };
            let request = Request { decode: true, against: against.as_deref(), demand };
            audit::verify(&settings, request, verify.plain.json, &mut out, &mut err)
        }
        Audit::Prove(prove) => match prove.wish() {
            Ok(wish) => audit::prove(&settings, &wish, &mut out, &mut err),
            Err(ending) => return ending,
        },
        Audit::Key(_) => audit::key(&settings, &mut out, &mut err),
        Audit::CheckProof(_) => audit::GOOD,
        Audit::Search(search) => audit::search(&settings, &search.filter(), search.json, &mut out, &mut err),
    };
    if code == audit::GOOD { Ending::Good } else { Ending::No }
}

/// A checkpoint's bytes, where one is named.
fn read_checkpoint(path: Option<&Path>) -> Result<Option<Vec<u8>>, Ending> {
    path.map(std::fs::read).transpose().map_err(|error| {
        show::error(&format!("the checkpoint cannot be read: {}", error.kind()));
        Ending::WrongUse
    })
}

impl Prove {
    fn wish(&self) -> Result<audit::Wish, Ending> {
        Ok(audit::Wish {
            sequence: self.what.sequence,
            request_id: self.what.request_id.clone(),
            hash_only: self.hash_only,
            witnessed: self.witnessed,
            from: read_checkpoint(self.what.from.as_deref())?,
            as_json: self.plain.json,
            into: self.out.clone(),
        })
    }
}

fn check_proof(check: &CheckProof) -> Ending {
    let text = match std::fs::read_to_string(&check.file) {
        Ok(text) => text,
        Err(error) => {
            show::error(&format!("the proof cannot be read: {}", error.kind()));
            return Ending::WrongUse;
        }
    };
    let earlier = match read_checkpoint(check.from.as_deref()) {
        Ok(earlier) => earlier,
        Err(ending) => return ending,
    };
    let keys = (&check.key, check.witness.as_slice());
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    let code = audit::check_proof(&text, keys, earlier.as_deref(), check.json, &mut out, &mut err);
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

impl Search {
    fn filter(&self) -> audit::Filter {
        audit::Filter {
            patient: self.patient.clone(),
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            resource: self.resource.clone(),
            interaction: self.interaction.clone(),
            decision: self.decision.clone(),
            reason: self.reason.clone(),
            request_id: self.request_id.clone(),
            since: self.since,
            until: self.until,
        }
    }
}
