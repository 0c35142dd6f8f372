//! `forward.toml`: what the operator wrote, and what it means.
//!
//! Owns: the file's keys; every problem at once, with file and line. Must never: start anything; hold a secret (only where it is).
//! Look next: `chartgate::config`, which reads the gate's own file the same way; docs/forwarding.md.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chartgate::config::section::{Located, Reader, Section};
use chartgate::config::{Problem, document};
use chartgate::edge::tls::{CertificateFiles, ClientFiles};
use http::Uri;
use jiff::SignedDuration;

use crate::limits;

/// The file, valid as far as it can be without opening anything else.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The gate's configuration file, which says where the trail is.
    pub(crate) config: PathBuf,
    /// Where the cursors are.
    pub(crate) state: PathBuf,
    /// Who reads, for the record.
    pub(crate) operator: Option<String>,
    /// Where to.
    pub(crate) receivers: Vec<Receiver>,
}

/// One receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Its name, which is the name of its cursor.
    pub(crate) name: String,
    /// Where a receiver begins that has no cursor yet.
    pub(crate) start: Start,
    /// How it is spoken to.
    pub(crate) kind: Kind,
}

/// Where a new receiver begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the first entry there is.
    Beginning,
    /// With what is written from now on.
    Now,
}

/// How a receiver is spoken to.
#[derive(Debug)]
pub(crate) enum Kind {
    /// RFC 5424 messages over RFC 5425.
    Syslog(Syslog),
    /// OTLP/HTTP.
    Otlp(Otlp),
    /// The evidence itself, into a bucket.
    S3(S3),
}

/// `[[syslog]]`
#[derive(Debug)]
pub(crate) struct Syslog {
    /// Host, as the certificate names it.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Nothing where it is plain TCP, which only loopback may be.
    pub(crate) tls: Option<ClientFiles>,
    /// Whether patients' ids go along.
    pub(crate) patients: bool,
    /// Longer messages are cut into parts.
    pub(crate) message_bytes_max: usize,
}

/// `[[otlp]]`
#[derive(Debug)]
pub(crate) struct Otlp {
    /// Such as `https://collector.example:4318/v1/logs`.
    pub(crate) url: Uri,
    /// Whom to trust, and who we are.
    pub(crate) tls: ClientFiles,
    /// The value of the `Authorization` header.
    pub(crate) authorization_file: Option<PathBuf>,
    /// Whether patients' ids go along.
    pub(crate) patients: bool,
}

/// `[[s3]]`
#[derive(Debug)]
pub(crate) struct S3 {
    /// Without the bucket.
    pub(crate) endpoint: Uri,
    /// As signatures name it.
    pub(crate) region: String,
    /// Its name.
    pub(crate) bucket: String,
    /// Before every object's name; without a slash at either end.
    pub(crate) prefix: String,
    /// Whom to trust.
    pub(crate) tls: ClientFiles,
    /// The name of the key.
    pub(crate) access_key_id: String,
    /// Where the key is.
    pub(crate) secret_access_key_file: PathBuf,
    /// The bucket must keep everything at least so long.
    pub(crate) retention_days_min: u64,
    /// How often the right edge is shipped.
    pub(crate) interval: Duration,
}

/// Reads the file at `path`; relative paths in it are relative to its folder.
///
/// # Errors
/// Every problem found.
pub(crate) fn load(path: &Path) -> Result<Settings, Vec<Problem>> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Problem::whole_file(&shown, format!("cannot be read: {}", error.kind()))])?;
    parse(&shown, &text, path.parent().unwrap_or_else(|| Path::new("")))
}

fn parse(file: &str, text: &str, folder: &Path) -> Result<Settings, Vec<Problem>> {
    let document = document(file, text).map_err(|problem| vec![problem])?;
    let mut meaning = Meaning { reader: Reader::new(file, text), folder, names: BTreeSet::new() };
    let mut root = Section::root(&document);
    let mut trail = root.table(&mut meaning.reader, "trail", true);
    let config = meaning.required_path(&mut trail, "config");
    let state = meaning.required_path(&mut trail, "state");
    let operator = trail.text(&mut meaning.reader, "as").map(|operator| operator.value);
    trail.finish(&mut meaning.reader);
    let mut receivers = Vec::new();
    for key in ["syslog", "otlp", "s3"] {
        for mut section in root.tables(&mut meaning.reader, key) {
            let name = meaning.name(&mut section);
            let kind = meaning.kind(key, &mut section);
            let start = if key == "s3" { Some(Start::Beginning) } else { meaning.start(&mut section) };
            section.finish(&mut meaning.reader);
            if let (Some(name), Some(start), Some(kind)) = (name, start, kind) {
                receivers.push(Receiver { name, start, kind });
            }
        }
    }
    root.finish(&mut meaning.reader);
    if meaning.names.is_empty() && meaning.reader.problems.is_empty() {
        meaning.reader.problems.push(
            Problem::whole_file(file, "there is nobody to forward to")
                .with_hint("add a `[[syslog]]`, an `[[otlp]]` or an `[[s3]]`"),
        );
    }
    match (config, state) {
        (Some(config), Some(state)) if meaning.reader.problems.is_empty() => {
            Ok(Settings { config, state, operator, receivers })
        }
        _ => Err(Problem::sorted(meaning.reader.problems)),
    }
}

/// Turns keys into settings.
struct Meaning<'t> {
    reader: Reader<'t>,
    folder: &'t Path,
    names: BTreeSet<String>,
}

impl Meaning<'_> {
    fn kind(&mut self, key: &str, section: &mut Section<'_>) -> Option<Kind> {
        match key {
            "syslog" => self.syslog(section),
            "otlp" => self.otlp(section),
            _ => self.s3(section),
        }
    }

    fn syslog(&mut self, section: &mut Section<'_>) -> Option<Kind> {
        let address = section.required_text(&mut self.reader, "address");
        let plain = section.switch(&mut self.reader, "plain");
        let tls = self.tls(section);
        let patients = self.patients(section);
        let message_bytes_max = self.number(
            section,
            "message_bytes_max",
            limits::SYSLOG_MESSAGE_BYTES_DEFAULT,
            limits::SYSLOG_MESSAGE_BYTES_MIN..=limits::SYSLOG_MESSAGE_BYTES_MAX,
        );
        let (host, port) = self.address(address?, plain)?;
        let tls = if plain { None } else { Some(tls?) };
        let message_bytes_max = usize::try_from(message_bytes_max?).unwrap_or(usize::MAX);
        Some(Kind::Syslog(Syslog { host, port, tls, patients, message_bytes_max }))
    }

    fn otlp(&mut self, section: &mut Section<'_>) -> Option<Kind> {
        let url = section.required_text(&mut self.reader, "url");
        let url = url.and_then(|url| self.url("url", &url));
        let tls = self.tls(section);
        let authorization_file = self.path(section, "authorization_file");
        let patients = self.patients(section);
        Some(Kind::Otlp(Otlp { url: url?, tls: tls?, authorization_file, patients }))
    }

    fn s3(&mut self, section: &mut Section<'_>) -> Option<Kind> {
        let endpoint = section.required_text(&mut self.reader, "endpoint");
        let endpoint = endpoint.and_then(|endpoint| self.url("endpoint", &endpoint));
        let region = self.word(section, "region");
        let bucket = self.word(section, "bucket");
        let prefix = section.text(&mut self.reader, "prefix");
        let tls = self.tls(section);
        let access_key_id = self.word(section, "access_key_id");
        let secret_access_key_file = self.required_path(section, "secret_access_key_file");
        let days = limits::RETENTION_DAYS_DEFAULT;
        let retention_days_min =
            self.number(section, "retention_days_min", days, 1..=limits::RETENTION_DAYS_MAX);
        let interval = self.interval(section);
        Some(Kind::S3(S3 {
            endpoint: endpoint?,
            region: region?,
            bucket: bucket?,
            prefix: prefix.map(|prefix| prefix.value.trim_matches('/').to_owned()).unwrap_or_default(),
            tls: tls?,
            access_key_id: access_key_id?,
            secret_access_key_file: secret_access_key_file?,
            retention_days_min: retention_days_min?,
            interval: interval?,
        }))
    }

    /// The receiver's name: a file's name, and each once.
    fn name(&mut self, section: &mut Section<'_>) -> Option<String> {
        let name = section.required_text(&mut self.reader, "name")?;
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=limits::NAME_BYTES_MAX).contains(&name.value.len());
        if !fits || !name.value.bytes().all(is_plain) {
            let message = "`name` must be of small letters, digits and hyphens, at most 40".to_owned();
            self.reader.report(name.offset, message);
            return None;
        }
        if !self.names.insert(name.value.clone()) {
            let message = format!("`name`: there is a receiver `{}` already", name.value);
            self.reader.report_with_hint(
                name.offset,
                message,
                "each receiver has a cursor under its name".to_owned(),
            );
            return None;
        }
        Some(name.value)
    }

    fn start(&mut self, section: &mut Section<'_>) -> Option<Start> {
        let Some(start) = section.text(&mut self.reader, "start") else { return Some(Start::Beginning) };
        match start.value.as_str() {
            "beginning" => Some(Start::Beginning),
            "now" => Some(Start::Now),
            _ => {
                self.reader.report(start.offset, "`start` must be `beginning` or `now`".to_owned());
                None
            }
        }
    }

    /// Patients' ids go along unless it is said that they do not: `without_patients = true`.
    fn patients(&mut self, section: &mut Section<'_>) -> bool {
        !section.switch(&mut self.reader, "without_patients")
    }

    fn word(&mut self, section: &mut Section<'_>, key: &'static str) -> Option<String> {
        let text = section.required_text(&mut self.reader, key)?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-._/+=".contains(c);
        if !text.value.is_empty() && text.value.chars().all(is_word) {
            return Some(text.value);
        }
        self.reader.report(
            text.offset,
            format!("`{key}` must not be empty, nor have blanks or signs that need quoting"),
        );
        None
    }

    fn number(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let Some(number) = section.number(&mut self.reader, key) else { return Some(default) };
        if range.contains(&number.value) {
            return Some(number.value);
        }
        self.reader
            .report(number.offset, format!("`{key}` must be from {} to {}", range.start(), range.end()));
        None
    }

    fn interval(&mut self, section: &mut Section<'_>) -> Option<Duration> {
        let Some(text) = section.text(&mut self.reader, "interval") else {
            return Some(limits::SHIP_INTERVAL_DEFAULT);
        };
        let read = text.value.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        if let Some(interval) =
            read.filter(|interval| !interval.is_zero() && *interval <= limits::SHIP_INTERVAL_MAX)
        {
            return Some(interval);
        }
        self.reader
            .report(text.offset, "`interval` must be a duration such as `60s`, at most an hour".to_owned());
        None
    }

    fn path(&mut self, section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
        section.text(&mut self.reader, key).map(|path| self.folder.join(path.value))
    }

    fn required_path(&mut self, section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
        section.required_text(&mut self.reader, key).map(|path| self.folder.join(path.value))
    }

    /// `ca`, `certificate` and `private_key`.
    fn tls(&mut self, section: &mut Section<'_>) -> Option<ClientFiles> {
        let offset = section.offset();
        let ca = self.path(section, "ca");
        let own = match (self.path(section, "certificate"), self.path(section, "private_key")) {
            (Some(certificate), Some(private_key)) => Some(CertificateFiles { certificate, private_key }),
            (None, None) => None,
            _ => {
                self.reader.report(offset, "`certificate` and `private_key` belong together".to_owned());
                return None;
            }
        };
        Some(ClientFiles { ca, own })
    }

    /// https, or http to loopback: records name patients.
    fn url(&mut self, key: &str, text: &Located<String>) -> Option<Uri> {
        let uri = text.value.parse::<Uri>().ok();
        let uri = uri.filter(|uri| uri.query().is_none() && uri.authority().is_some());
        let problem = match uri.as_ref().and_then(Uri::scheme_str) {
            Some("https") => return uri,
            Some("http") if uri.as_ref().and_then(Uri::host).is_some_and(is_loopback) => return uri,
            Some("http") => format!("`{key}` must be https; plain http only to loopback"),
            _ => format!("`{key}` must be a URL with a scheme and a host, and without a query"),
        };
        self.reader.report(text.offset, problem);
        None
    }

    fn address(&mut self, address: Located<String>, plain: bool) -> Option<(String, u16)> {
        let parts = address.value.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        let Some((host, Ok(port))) = parts.filter(|(host, _)| !host.is_empty()) else {
            let message = "`address` must be a host and a port, such as `siem.hospital.example:6514`";
            self.reader.report(address.offset, message.to_owned());
            return None;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if plain && !is_loopback(&host) {
            let message = "`plain` is for loopback only: records name people, and patients".to_owned();
            let hint = "leave it out: TLS is what happens then".to_owned();
            self.reader.report_with_hint(address.offset, message, hint);
            return None;
        }
        Some((host, port))
    }
}

/// Whether a host is this machine by its name or address.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[trail]
config = "chartgate.toml"
state = "state"

[[syslog]]
name = "siem"
address = "siem.hospital.example:6514"
ca = "ca.pem"
without_patients = true

[[syslog]]
name = "local"
address = "[::1]:514"
plain = true

[[otlp]]
name = "collector"
url = "http://127.0.0.1:4318/v1/logs"
start = "now"

[[s3]]
name = "vault"
endpoint = "https://s3.example"
region = "eu-central-1"
bucket = "trail"
prefix = "/gate-1/"
access_key_id = "AKIA0"
secret_access_key_file = "s3.key"
interval = "5s"
"#;

    fn check(text: &str, expected: &[&str]) {
        let problems = parse("f.toml", text, Path::new("/etc/x")).err().unwrap_or_default();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn a_good_file_says_everything() {
        let settings = parse("f.toml", GOOD, Path::new("/etc/x")).unwrap();
        assert_eq!(settings.config, Path::new("/etc/x/chartgate.toml"));
        let names: Vec<&str> = settings.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        assert_eq!(names, ["siem", "local", "collector", "vault"]);
        assert_eq!(settings.receivers[2].start, Start::Now);
        let (Kind::Syslog(siem), Kind::Syslog(local)) =
            (&settings.receivers[0].kind, &settings.receivers[1].kind)
        else {
            panic!("{settings:?}");
        };
        assert!(!siem.patients && siem.tls.is_some() && siem.message_bytes_max == 8_192);
        assert!(local.patients && local.tls.is_none() && local.host == "::1");
        let Kind::S3(vault) = &settings.receivers[3].kind else { panic!("{settings:?}") };
        assert_eq!((vault.prefix.as_str(), vault.interval), ("gate-1", Duration::from_secs(5)));
        assert_eq!(vault.retention_days_min, limits::RETENTION_DAYS_DEFAULT);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_place() {
        let text = GOOD
            .replace("state = \"state\"", "stat = \"state\"")
            .replace("\"siem.hospital.example:6514\"", "\"siem.hospital.example\"")
            .replace("\"[::1]:514\"", "\"10.0.0.1:514\"")
            .replace("http://127.0.0.1", "http://collector")
            .replace("start = \"now\"", "start = \"later\"")
            .replace("\"vault\"", "\"siem\"")
            .replace("\"5s\"", "\"2h\"");
        check(
            &text,
            &[
                "f.toml:2:1: `trail.state` is missing",
                "f.toml:4:1: unknown key `trail.stat` (hint: did you mean `state`?)",
                "f.toml:8:11: `address` must be a host and a port, such as `siem.hospital.example:6514`",
                "f.toml:14:11: `plain` is for loopback only: records name people, and patients (hint: leave it out: TLS is what happens then)",
                "f.toml:19:7: `url` must be https; plain http only to loopback",
                "f.toml:20:9: `start` must be `beginning` or `now`",
                "f.toml:23:8: `name`: there is a receiver `siem` already (hint: each receiver has a cursor under its name)",
                "f.toml:30:12: `interval` must be a duration such as `60s`, at most an hour",
            ],
        );
    }

    #[test]
    fn what_would_forward_nothing_or_half_is_refused() {
        let nobody = "[trail]\nconfig = \"c\"\nstate = \"s\"\n";
        check(
            nobody,
            &[
                "f.toml: there is nobody to forward to (hint: add a `[[syslog]]`, an `[[otlp]]` or an `[[s3]]`)",
            ],
        );
        let half =
            format!("{nobody}[[otlp]]\nname = \"a b\"\nurl = \"https://c/\"\ncertificate = \"c.pem\"\n");
        check(
            &half,
            &[
                "f.toml:4:1: `certificate` and `private_key` belong together",
                "f.toml:5:8: `name` must be of small letters, digits and hyphens, at most 40",
            ],
        );
    }
}
