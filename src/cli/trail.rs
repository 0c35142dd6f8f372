//! `chartgate audit`: the arguments of the trail's commands.
//!
//! Owns: what can be asked of the trail on the command line. Must never: read or write the trail itself.
//! Look next: `audit`, which does.

use super::keeping::{HoldOrder, Retain};
use super::{Ending, Plain, audit, show};
use crate::domain::audit::escape;
use crate::domain::ledger::{KeyTextError, VerifierKey};
use crate::edge::journal::{self, Demand, Request};
use crate::edge::readings::{self, Reading};
use crate::{app, clock, config};
use clap::{Args, Subcommand};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `audit init|verify|index|search|export|backup|restore|summary|prove|check-proof|key`
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
    /// Make the index of the trail, or bring it up to date: searches are quick then
    Index(Index),
    /// Find records: who saw what, when and why
    Search(Box<Search>),
    /// Write records to a file for other tools: JSON lines, a table, or FHIR AuditEvents; they hold patient data in clear
    Export(Box<Export>),
    /// Copy the trail into a directory, and verify the copy; may run while the gate serves
    Backup(Backup),
    /// Put a copy in place, once it is verified
    Restore(Restore),
    /// Withhold entries that are older than the policy in the configuration; their hashes stay
    Retain(Retain),
    /// Legal holds: what stays, whatever the policy
    #[command(subcommand)]
    Hold(HoldOrder),
    /// Change the key that opens the trail; the gate must be stopped for it
    RotateKey(RotateKey),
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
    #[command(flatten)]
    reader: Reader,
}

/// `audit search --config F [filters] [--json]`; without a filter every record is printed.
#[derive(Debug, Args)]
pub(super) struct Search {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    reader: Reader,
    /// Read the whole trail, not the index: whoever can write the index could hide records from it
    #[arg(long)]
    scan: bool,
}

/// `audit backup --config F --out DIR [--json]`
#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    plain: Plain,
    /// The directory to copy into; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// `audit restore --config F --from DIR [--against CHECKPOINT] [--verify] [--json]`
#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    plain: Plain,
    /// The copy
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A checkpoint of this trail that was kept elsewhere; the copy must contain it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Verify the copy, and put nothing in place
    #[arg(long)]
    verify: bool,
}

/// `audit rotate-key --config F --new-key FILE [--json]`
#[derive(Debug, Args)]
pub(super) struct RotateKey {
    #[command(flatten)]
    plain: Plain,
    /// The file of the new key; it is made where it does not exist
    #[arg(long, value_name = "FILE")]
    new_key: PathBuf,
}

/// `audit export --config F --format X --out DIR [filters] [--json]`
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    plain: Plain,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    reader: Reader,
    /// As what
    #[arg(long)]
    format: audit::Format,
    /// The directory to write into; what is there already is not written over
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Read the whole trail, not the index
    #[arg(long)]
    scan: bool,
}

/// Reading the trail is itself recorded.
#[derive(Debug, Args)]
pub(super) struct Reader {
    /// Who reads, for the record; the account and the machine are recorded anyway
    #[arg(long = "as", value_name = "NAME")]
    operator: Option<String>,
}

impl Reader {
    /// Leaves a slip for the gate to record. Whoever may only read a copy may read it all the same, and is told.
    pub(super) fn recorded(
        &self,
        trail: &journal::Settings,
        command: &str,
        filter: BTreeMap<String, String>,
    ) {
        if !trail.directory.is_dir() {
            return;
        }
        let reading = Reading::new(command, self.operator.as_deref(), filter, clock::now());
        if let Err(why) = readings::leave(trail, &reading) {
            show::error(&escape(&format!(
                "chartgate: note: this reading of the trail is not recorded: {why}"
            )));
        }
    }
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
    #[arg(long, visible_alias = "from", value_parser = audit::parse_time)]
    since: Option<Timestamp>,
    /// Before this time or date
    #[arg(long, visible_alias = "to", value_parser = audit::parse_time)]
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
        Audit::Index(index) => &index.plain.config,
        Audit::Search(search) => &search.plain.config,
        Audit::Export(export) => &export.plain.config,
        Audit::Backup(backup) => &backup.plain.config,
        Audit::Restore(restore) => &restore.plain.config,
        Audit::RotateKey(order) => &order.plain.config,
        Audit::Retain(order) => &order.plain.config,
        Audit::Hold(order) => &order.plain().config,
        Audit::Summary(summary) => &summary.plain.config,
    };
    let all = match config::load(&config.path) {
        Ok(settings) => settings,
        Err(problems) => return show::problems(&problems, false),
    };
    let settings = app::journal_settings(&all);
    record_reading(&settings, command);
    match carry_out(command, &all, &settings) {
        Ok(audit::GOOD) if matches!(command, Audit::Init(_)) => init_sessions(&all),
        Ok(audit::GOOD) => Ending::Good,
        Ok(_) => Ending::No,
        Err(ending) => ending,
    }
}

/// Gives the exit code of the command, or how it ended before it began.
fn carry_out(command: &Audit, all: &config::Settings, trail: &journal::Settings) -> Result<u8, Ending> {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    let (out, err): (&mut dyn Write, &mut dyn Write) = (&mut out, &mut err);
    let indexed = |scan: bool| (!scan).then_some(all.audit.index.as_path());
    Ok(match command {
        Audit::CheckProof(_) => audit::GOOD,
        Audit::Init(_) => audit::init(trail, out, err),
        Audit::Key(_) => audit::key(trail, out, err),
        Audit::Verify(verify) => {
            let against = read_checkpoint(verify.against.as_deref())?;
            let (witnesses, age) = (app::witness_keys(all), all.audit.witness_max_age);
            let demand = Demand { witnesses: &witnesses, age_max: SignedDuration::try_from(age).ok() };
            let request = Request { decode: true, against: against.as_deref(), demand };
            audit::verify(trail, request, verify.plain.json, out, err)
        }
        Audit::Prove(prove) => audit::prove(trail, &prove.wish()?, out, err),
        Audit::Index(order) => {
            audit::index(trail, &all.audit.index, order.rebuild, order.plain.json, out, err)
        }
        Audit::Search(search) => {
            let (filter, json) = (search.which.filter(), search.plain.json);
            audit::search_with(trail, indexed(search.scan), &filter, json, out, err)
        }
        Audit::Backup(order) => audit::backup(trail, &order.out, order.plain.json, out, err),
        Audit::Restore(order) => {
            let against = read_checkpoint(order.against.as_deref())?;
            let (against, json) = (against.as_deref(), order.plain.json);
            audit::restore(trail, &order.from, against, order.verify, json, (out, err))
        }
        Audit::Retain(order) => order.run(all, trail, out, err),
        Audit::Hold(order) => order.run(trail, out, err),
        Audit::RotateKey(order) => {
            let (is_derived, json) = (all.session.key.is_none(), order.plain.json);
            audit::rotate_key(trail, &order.new_key, is_derived, json, (out, err))
        }
        Audit::Export(order) => {
            let (filter, base) = (order.which.filter(), &all.public_base);
            let export = audit::Export { filter: &filter, format: order.format, out: &order.out, base };
            audit::export(trail, indexed(order.scan), &export, order.plain.json, out, err)
        }
        Audit::Summary(order) => {
            audit::summary(trail, &all.audit.index, order.day, order.plain.json, out, err)
        }
    })
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

/// Before anything is shown: also what found nothing was a reading.
fn record_reading(trail: &journal::Settings, command: &Audit) {
    match command {
        Audit::Init(_)
        | Audit::Verify(_)
        | Audit::Index(_)
        | Audit::Backup(_)
        | Audit::Restore(_)
        | Audit::RotateKey(_)
        | Audit::Retain(_)
        | Audit::Hold(HoldOrder::Add(_) | HoldOrder::Lift(_))
        | Audit::Prove(_)
        | Audit::CheckProof(_)
        | Audit::Key(_) => {}
        Audit::Hold(HoldOrder::List(_)) => {
            Reader { operator: None }.recorded(trail, "hold list", BTreeMap::new());
        }
        Audit::Search(search) => search.reader.recorded(trail, "search", search.which.told()),
        Audit::Export(export) => export.reader.recorded(trail, "export", export.which.told()),
        Audit::Summary(summary) => {
            let day = BTreeMap::from([("day".to_owned(), summary.day.to_string())]);
            summary.reader.recorded(trail, "summary", day);
        }
    }
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
    /// What was asked for, for the record.
    fn told(&self) -> BTreeMap<String, String> {
        let texts = [
            ("patient", &self.patient),
            ("subject", &self.subject),
            ("issuer", &self.issuer),
            ("resource", &self.resource),
            ("interaction", &self.interaction),
            ("decision", &self.decision),
            ("reason", &self.reason),
            ("application", &self.application),
            ("role", &self.role),
            ("purpose", &self.purpose),
            ("element", &self.element),
            ("emergency", &self.emergency),
            ("request id", &self.request_id),
        ];
        let times = [("since", self.since), ("until", self.until)];
        let times = times.into_iter().filter_map(|(name, time)| Some((name, time?.to_string())));
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
        texts.chain(times).map(|(name, text)| (name.to_owned(), text)).collect()
    }

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
