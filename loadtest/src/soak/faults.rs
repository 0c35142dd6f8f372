//! What breaks during a soak, and comes back.
//!
//! Owns: each fault's beginning and end, what callers may see of it, and whether it took effect.
//! Must never: leave anything broken, whichever way it ends.
//! Look next: `mod`, when each comes.

use crate::client::Place;
use crate::process::Process;
use crate::scrape;
use crate::site::Site;
use chartgate_sandbox::issuer::Outage;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    IssuerDown,
    UpstreamSlow,
    UpstreamDown,
    UpstreamHangs,
    DiskSlow,
    Certificate,
    Policies,
    Frozen,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) about: &'static str,
    /// What callers may see of it, in words, and as statuses instead of the one that is expected.
    pub(crate) promise: &'static str,
    pub(super) statuses: &'static [u16],
    /// Answers under way may break off: what they come from does.
    pub(super) may_break: bool,
    pub(super) kind: Kind,
}

const NOTHING: &str = "nothing";

/// All of them, in their order.
pub(crate) const FAULTS: [Fault; 8] = [
    fault("issuer-down", Kind::IssuerDown, "the issuer takes requests and answers none", NOTHING, &[]),
    fault(
        "upstream-slow",
        Kind::UpstreamSlow,
        "each answer of the record system waits 300 ms",
        "later answers",
        &[],
    ),
    Fault {
        may_break: true,
        ..fault(
            "upstream-down",
            Kind::UpstreamDown,
            "the record system's connections break, and new ones are refused",
            "502, 503, 504; an answer that was under way may break off",
            &[502, 503, 504],
        )
    },
    fault(
        "upstream-hangs",
        Kind::UpstreamHangs,
        "the record system takes requests and answers after its time-out of 10 s",
        "503 or 504, after 10 s",
        &[503, 504],
    ),
    fault(
        "disk-slow",
        Kind::DiskSlow,
        "three writers beside the trail sync 4 MB each, again and again",
        "later answers; 503 where the trail takes nothing for 5 s",
        &[503],
    ),
    fault("certificate", Kind::Certificate, "a new certificate and key, and a hang-up signal", NOTHING, &[]),
    fault("policies", Kind::Policies, "a policy file changes, and a hang-up signal", NOTHING, &[]),
    fault(
        "frozen",
        Kind::Frozen,
        "the gate's process is held for a second, as a machine that moves is",
        "later answers",
        &[],
    ),
];

const fn fault(
    name: &'static str,
    kind: Kind,
    about: &'static str,
    promise: &'static str,
    statuses: &'static [u16],
) -> Fault {
    Fault { name, about, promise, statuses, may_break: false, kind }
}

/// The faults of these names; `all` for every one, `none` for none.
///
/// # Errors
/// When there is no fault of a name.
pub(super) fn named(names: &[String]) -> Result<Vec<Fault>, String> {
    match names {
        [one] if one == "all" => return Ok(FAULTS.to_vec()),
        [one] if one == "none" => return Ok(Vec::new()),
        _ => {}
    }
    let find = |name: &String| {
        FAULTS.iter().find(|fault| fault.name == name).copied().ok_or_else(|| {
            let known: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
            format!("there is no fault `{name}` (hint: `all`, `none`, or some of {})", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

impl Fault {
    /// Whether what a caller met is what the fault may do: `answered with 503 instead of 200`, behind the row's name.
    pub(super) fn allows(&self, what: &str) -> bool {
        match what.split_once("answered with ") {
            Some((_, rest)) => {
                let status = rest.split(' ').next().and_then(|status| status.parse().ok());
                rest.contains(" instead of ")
                    && status.is_some_and(|status: u16| self.statuses.contains(&status))
            }
            None => self.may_break && broke_off(what),
        }
    }
}

/// What the client's library says when an answer ends before its end.
pub(super) fn broke_off(what: &str) -> bool {
    ["error reading a body", "end of file before message length", "connection closed", "incomplete message"]
        .iter()
        .any(|sign| what.contains(sign))
}

const SLOW: Duration = Duration::from_millis(300);
/// Longer than the gate waits (the demo's `upstream.timeout`).
const HANGS: Duration = Duration::from_secs(15);
const FROZEN: Duration = Duration::from_secs(1);
const WRITERS: usize = 3;
const WRITTEN_BYTES: usize = 4 * 1024 * 1024;
/// For files that changed to be applied.
const APPLIED_PATIENCE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whom faults happen to.
pub(super) struct Scene<'s> {
    pub(super) site: &'s Site,
    pub(super) process: &'s Process,
    pub(super) place: &'s Place,
    pub(super) authority: &'s Authority,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Scene<'_> {
    /// Breaks it at `begin` and mends it at `end`.
    ///
    /// # Errors
    /// When the fault could not be made, or what should have taken effect did not.
    pub(super) async fn play(&self, fault: &Fault, begin: Instant, end: Instant) -> Result<(), String> {
        sleep_until(begin.into()).await;
        let (issuer, emr) = (self.site.issuer(), self.site.emr());
        let until = sleep_until(end.into());
        match fault.kind {
            Kind::IssuerDown => {
                issuer.set_outage(Some(Outage::Hang));
                until.await;
                issuer.set_outage(None);
            }
            Kind::UpstreamSlow | Kind::UpstreamHangs => {
                emr.set_delay(if fault.kind == Kind::UpstreamSlow { SLOW } else { HANGS });
                until.await;
                emr.set_delay(Duration::ZERO);
            }
            Kind::UpstreamDown => {
                self.site.end_upstream().await;
                until.await;
                self.site.start_upstream().await?;
            }
            Kind::DiskSlow => {
                let _writers = Writers::start(self.site.folder());
                until.await;
            }
            Kind::Certificate => self.new_certificate().await?,
            Kind::Policies => self.new_policies().await?,
            Kind::Frozen => {
                let _ice = Ice::of(self.process);
                sleep(FROZEN).await;
            }
        }
        Ok(())
    }

    async fn new_certificate(&self) -> Result<(), String> {
        let (certificate, key, der) = self.authority.certificate()?;
        replace(&self.site.folder().join("server.key"), &key)?;
        replace(&self.site.folder().join("server.pem"), &certificate)?;
        self.process.hang_up();
        let deadline = Instant::now() + APPLIED_PATIENCE;
        while Instant::now() < deadline {
            let shaken = self.place.shake_hands(self.place.reach(None).await?).await?;
            let shown = shaken.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            if shown.is_some_and(|shown| shown.as_ref() == der) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Err("the new certificate was not taken".to_owned())
    }

    async fn new_policies(&self) -> Result<(), String> {
        let epoch = || scrape::one(self.site.operations, "chartgate_policy_epoch");
        let before = epoch().await?;
        let path = self.site.policies().join("nurse.cedar");
        let old = std::fs::read_to_string(&path).map_err(text)?;
        replace(&path, &format!("{old}\n// The same, and one line more.\n"))?;
        self.process.hang_up();
        let deadline = Instant::now() + APPLIED_PATIENCE;
        while Instant::now() < deadline {
            if epoch().await? > before {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Err("the new policies were not taken".to_owned())
    }
}

/// Whole or not at all.
fn replace(path: &Path, content: &str) -> Result<(), String> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).map_err(text)?;
    std::fs::rename(&beside, path).map_err(text)
}

/// Writers that keep the disk busy until this is dropped.
struct Writers(Arc<AtomicBool>);

impl Writers {
    fn start(folder: &Path) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        for number in 0..WRITERS {
            let (path, done) = (folder.join(format!("busy-{number}")), Arc::clone(&done));
            tokio::task::spawn_blocking(move || {
                let worked = keep_busy(&path, &done);
                let _gone_with_the_folder = std::fs::remove_file(&path);
                worked
            });
        }
        Self(done)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn keep_busy(path: &Path, done: &AtomicBool) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let bytes = vec![7; WRITTEN_BYTES];
    while !done.load(Ordering::Relaxed) {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Holds a process until it is dropped.
struct Ice<'p>(&'p Process);

impl<'p> Ice<'p> {
    fn of(process: &'p Process) -> Self {
        process.freeze();
        Self(process)
    }
}

impl Drop for Ice<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

/// A second certificate authority, which signs the certificates that come while the gate runs.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A fresh one, which the clients' file vouches for from now on, beside the first.
    ///
    /// # Errors
    /// When no key can be made, or the file not be written.
    pub(super) fn trusted_by(ca_file: &Path) -> Result<Self, String> {
        let mut params = CertificateParams::new(Vec::new()).map_err(text)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "Chartgate soak CA");
        let key = KeyPair::generate().map_err(text)?;
        let authority = CertifiedIssuer::self_signed(params, key).map_err(text)?;
        let mut trusted = std::fs::read_to_string(ca_file).map_err(text)?;
        trusted.push('\n');
        trusted.push_str(&authority.pem());
        std::fs::write(ca_file, trusted).map_err(text)?;
        Ok(Self(authority))
    }

    /// A server certificate, its key, and the certificate as it is shown in a handshake.
    fn certificate(&self) -> Result<(String, String, Vec<u8>), String> {
        let key = KeyPair::generate().map_err(text)?;
        let params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(text)?;
        let certificate = params.signed_by(&key, &self.0).map_err(text)?;
        Ok((certificate.pem(), key.serialize_pem(), certificate.der().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind) -> Fault {
        *FAULTS.iter().find(|fault| fault.kind == kind).unwrap()
    }

    #[test]
    fn only_what_was_promised_is_allowed() {
        let cases = [
            (Kind::UpstreamDown, "a, b: answered with 502 instead of 200", true),
            (Kind::UpstreamDown, "a, b: answered with 500 instead of 200", false),
            (Kind::UpstreamDown, "a, b: error reading a body from connection", true),
            (Kind::UpstreamDown, "a, b: no connection: refused", false),
            (Kind::UpstreamDown, "a, b: the withheld value `x` crossed", false),
            (Kind::UpstreamHangs, "a, b: answered with 504 instead of 200", true),
            (Kind::UpstreamHangs, "a, b: error reading a body from connection", false),
            (Kind::IssuerDown, "a, b: answered with 503 instead of 200", false),
            (Kind::DiskSlow, "a, b: answered with 503 instead of 200", true),
            (Kind::DiskSlow, "a, b: answered without a request id", false),
        ];
        for (kind, what, expected) in cases {
            assert_eq!(of(kind).allows(what), expected, "{kind:?} {what}");
        }
    }

    #[test]
    fn faults_are_found_by_their_names() {
        assert_eq!(named(&["all".to_owned()]).unwrap().len(), FAULTS.len());
        assert!(named(&["none".to_owned()]).unwrap().is_empty());
        assert_eq!(named(&["frozen".to_owned()]).unwrap()[0].kind, Kind::Frozen);
        assert!(named(&["quake".to_owned()]).unwrap_err().contains("upstream-hangs"));
    }

    #[test]
    fn writers_write_until_they_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| keep_busy(&path, &done));
            while std::fs::metadata(&path).map_or(0, |file| file.len()) < WRITTEN_BYTES as u64 {
                std::thread::sleep(Duration::from_millis(5));
            }
            done.store(true, Ordering::Relaxed);
            assert!(writer.join().unwrap().is_ok());
        });
    }
}
