//! Witnesses: the ones a gate asks (`[[audit.witness]]`), and the file of a witness itself.
//!
//! Owns: the keys of both and what they mean.
//! Must never: need anything of a gate to configure a witness, or accept a verifier key with a typing mistake.
//! Look next: `edge::cosigning`, `edge::witness`, docs/witness.md.

use super::Problem;
use super::raw::{Text, document};
use super::section::{Located, Reader, Section};
use super::settings::{Meaning, Scheme};
use crate::domain::audit::Budget;
use crate::domain::ledger::{KeyKind, TrustedLog, VerifierKey};
use crate::limits;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[[audit.witness]]`.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Below which `add-checkpoint` is; https, or http to loopback.
    pub url: String,
    /// Checks its cosignatures.
    pub key: VerifierKey,
    /// Certificate authority of the witness; the system's when absent.
    pub ca: Option<PathBuf>,
}

/// The configuration of a witness.
#[derive(Debug, Clone)]
pub struct WitnessSettings {
    /// Where to answer.
    pub address: SocketAddr,
    /// Certificate chain and private key, PEM; without them loopback only.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Its name in cosignatures.
    pub name: String,
    /// Ed25519 private key, PKCS#8 PEM.
    pub signing_key: PathBuf,
    /// The file of its state.
    pub state: PathBuf,
    /// The logs it follows.
    pub logs: Vec<TrustedLog>,
}

pub(super) struct RawWitness {
    offset: usize,
    url: Text,
    key: Text,
    ca: Text,
}

pub(super) fn witnesses(reader: &mut Reader<'_>, audit: &mut Section<'_>) -> Vec<RawWitness> {
    let sections = audit.tables(reader, "witness");
    let read = |mut section: Section<'_>| {
        let witness = RawWitness {
            offset: section.offset(),
            url: section.required_text(reader, "url"),
            key: section.required_text(reader, "key"),
            ca: section.text(reader, "ca"),
        };
        section.finish(reader);
        witness
    };
    sections.into_iter().map(read).collect()
}

impl Meaning<'_, '_> {
    pub(super) fn witnesses(&mut self, raw: Vec<RawWitness>) -> Vec<Witness> {
        let mut witnesses: Vec<Witness> = Vec::new();
        for raw in raw {
            let offset = raw.offset;
            let url = self.base_url(raw.url, "audit.witness.url", Scheme::HttpsOrLoopback);
            let key = self.verifier_key(raw.key, "audit.witness.key", KeyKind::Witness);
            let (Some(url), Some(key)) = (url, key) else { continue };
            if witnesses.iter().any(|other| other.key.public() == key.public()) {
                self.reader.report(offset, "this witness's `key` is given twice".to_owned());
            }
            if witnesses.len() >= limits::WITNESSES_MAX {
                let message = format!("at most {} witnesses can be asked", limits::WITNESSES_MAX);
                self.reader.report(offset, message);
            }
            witnesses.push(Witness { url, key, ca: self.path(raw.ca) });
        }
        witnesses
    }

    /// Beyond `witness_max_age`, which only calls: nobody should be refused before somebody was told.
    #[expect(clippy::option_option, reason = "not said, and said wrongly")]
    pub(super) fn witness_refuse_after(
        &mut self,
        text: Text,
        called: Option<Duration>,
    ) -> Option<Option<Duration>> {
        const KEY: &str = "audit.witness_refuse_after";
        let Some(text) = text else { return Some(None) };
        let offset = text.offset;
        let after = self.duration(Some(text), KEY, limits::WITNESS_AGE_MAX, limits::WITNESS_AGE_MAX)?;
        if called.is_some_and(|called| after < called.saturating_add(limits::WITNESS_PAUSE)) {
            let pause = limits::WITNESS_PAUSE.as_secs();
            let message =
                format!("`{KEY}` must be longer than `audit.witness_max_age` by {pause} s at least");
            self.reader.report(offset, message);
            return None;
        }
        Some(Some(after))
    }

    /// How many refusals have a record each, of an address and of a caller.
    pub(super) fn budget(
        &mut self,
        strangers: Option<Located<u64>>,
        known: Option<Located<u64>>,
    ) -> Option<Budget> {
        let (least, most) = (limits::REFUSALS_MIN, limits::REFUSALS_MAX);
        let mut one = |number: Option<Located<u64>>, key: &str, default| match number {
            None => Some(default),
            Some(number) if (least..=most).contains(&number.value) => Some(number.value),
            Some(number) => {
                self.reader.report(number.offset, format!("`audit.{key}` must be {least} to {most}"));
                None
            }
        };
        let strangers = one(strangers, "refusals_per_minute", limits::REFUSALS_DEFAULT);
        let known = one(known, "known_refusals_per_minute", limits::REFUSALS_KNOWN_DEFAULT);
        Some(Budget { strangers: strangers?, known: known? })
    }

    fn verifier_key(&mut self, text: Text, key: &str, kind: KeyKind) -> Option<VerifierKey> {
        let text = text?;
        let message = match VerifierKey::parse(&text.value) {
            Ok(read) if read.kind() == kind && read.name().len() <= limits::ORIGIN_BYTES_MAX => {
                return Some(read);
            }
            Ok(_) if kind == KeyKind::Witness => {
                "is not the key of a witness (`chartgate witness key` prints it)".to_owned()
            }
            Ok(_) => "is not the key of a log (`chartgate audit key` prints it)".to_owned(),
            Err(error) => format!("is no verifier key: {error}"),
        };
        self.reader.report(text.offset, format!("`{key}` {message}"));
        None
    }

    fn logs(&mut self, raw: Vec<RawLog>) -> Vec<TrustedLog> {
        let mut logs: Vec<TrustedLog> = Vec::new();
        for raw in raw {
            let Some(key) = self.verifier_key(raw.key, "log.key", KeyKind::Log) else { continue };
            let origin = match raw.origin {
                Some(origin) => self.not_empty(Some(origin), "log.origin"),
                None => Some(key.name().to_owned()),
            };
            let Some(origin) = origin else { continue };
            if origin.len() > limits::ORIGIN_BYTES_MAX || origin.contains(char::is_control) {
                self.reader
                    .report(raw.offset, "`log.origin` must be one line of at most 256 bytes".to_owned());
            }
            if logs.iter().any(|other| other.origin == origin) {
                self.reader.report(raw.offset, "this log's origin is given twice".to_owned());
            }
            logs.push(TrustedLog { origin, key });
        }
        logs
    }
}

struct RawLog {
    offset: usize,
    origin: Text,
    key: Text,
}

/// Reads and checks a witness's configuration file; relative paths in it are relative to its folder.
///
/// # Errors
/// Every problem found.
pub fn load_witness(path: &Path) -> Result<WitnessSettings, Vec<Problem>> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Problem::whole_file(&shown, format!("cannot be read: {}", error.kind()))])?;
    parse_witness(&shown, &text, path.parent().unwrap_or_else(|| Path::new("")))
}

/// Checks the `text` of a witness's configuration.
///
/// # Errors
/// Every problem found.
pub fn parse_witness(file: &str, text: &str, folder: &Path) -> Result<WitnessSettings, Vec<Problem>> {
    let document = document(file, text).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(file, text);
    let mut root = Section::root(&document);
    let settings = read(&mut reader, &mut root, folder);
    root.finish(&mut reader);
    match settings {
        Some(settings) if reader.problems.is_empty() => Ok(settings),
        Some(_) | None => Err(Problem::sorted(reader.problems)),
    }
}

fn read(reader: &mut Reader<'_>, root: &mut Section<'_>, folder: &Path) -> Option<WitnessSettings> {
    let mut listen = root.table(reader, "listen", true);
    let (at, address) = (listen.offset(), listen.required_text(reader, "address"));
    let (certificate, private_key) = (listen.text(reader, "certificate"), listen.text(reader, "private_key"));
    listen.finish(reader);
    let mut witness = root.table(reader, "witness", true);
    let name = witness.required_text(reader, "name");
    let signing_key = witness.required_text(reader, "signing_key");
    let state = witness.required_text(reader, "state");
    witness.finish(reader);
    let logs = raw_logs(reader, root);

    let mut meaning = Meaning { reader, folder };
    let certificate = meaning.pair(certificate, private_key, "`listen.certificate` and `listen.private_key`");
    let address = meaning.address(address, "listen.address");
    if certificate.is_none() && address.is_some_and(|address| !address.ip().is_loopback()) {
        let message = "`listen.address` must be loopback unless it is given a certificate";
        meaning.reader.report(at, message.to_owned());
    }
    let name = meaning.witness_name(name);
    let (signing_key, state) = (meaning.path(signing_key), meaning.path(state));
    let logs = meaning.logs(logs);
    Some(WitnessSettings {
        address: address?,
        certificate,
        name: name?,
        signing_key: signing_key?,
        state: state?,
        logs,
    })
}

fn raw_logs(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Vec<RawLog> {
    let sections = root.tables(reader, "log");
    if sections.len() > limits::WITNESSED_LOGS_MAX {
        reader.report(0, format!("at most {} logs can be followed", limits::WITNESSED_LOGS_MAX));
    }
    let read = |mut section: Section<'_>| {
        let log = RawLog {
            offset: section.offset(),
            origin: section.text(reader, "origin"),
            key: section.required_text(reader, "key"),
        };
        section.finish(reader);
        log
    };
    sections.into_iter().map(read).collect()
}

impl Meaning<'_, '_> {
    /// As it will stand in cosignatures.
    fn witness_name(&mut self, text: Text) -> Option<String> {
        let text = text?;
        let is_name = !text.value.is_empty()
            && text.value.len() <= limits::ORIGIN_BYTES_MAX
            && !text.value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
        if !is_name {
            let message =
                "`witness.name` must be a name such as `witness.privacy.hospital.example`: no spaces, no `+`";
            self.reader.report(text.offset, message.to_owned());
        }
        is_name.then_some(text.value)
    }
}
