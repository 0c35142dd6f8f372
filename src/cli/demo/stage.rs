//! A whole small hospital on loopback: the sandbox's EMR and issuer, and the gate in front of them, started from a
//! configuration file like any other.
//!
//! Owns: a temporary folder with generated certificates, keys, policies, configuration and trail.
//! Must never: listen beyond loopback, or be part of a hospital's build (feature `demo`).
//! Look next: `tour`, which walks through it; the journey tests, which do too.

use crate::app::{self, Running};
use crate::config::{self, Problem};
use chartgate_sandbox::charts;
use chartgate_sandbox::emr::{self, Emr};
use chartgate_sandbox::issuer::{Issuer, ROLE_NAMES};
use chartgate_sandbox::listen::Server;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fmt::{self, Display, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

/// The shipped policies of the roles that the issuer's people have, so that the demo needs no file beside the program.
pub const POLICIES: &[(&str, &str)] = &[
    ("billing-clerk.cedar", include_str!("../../../policies/billing-clerk.cedar")),
    ("everyone.cedar", include_str!("../../../policies/everyone.cedar")),
    ("front-desk.cedar", include_str!("../../../policies/front-desk.cedar")),
    ("groups.toml", include_str!("../../../policies/groups.toml")),
    ("integration.cedar", include_str!("../../../policies/integration.cedar")),
    ("nurse.cedar", include_str!("../../../policies/nurse.cedar")),
    ("patient.cedar", include_str!("../../../policies/patient.cedar")),
    ("physician.cedar", include_str!("../../../policies/physician.cedar")),
    ("researcher.cedar", include_str!("../../../policies/researcher.cedar")),
];

/// What is to be different from the plain demo.
#[derive(Debug, Default)]
pub struct Script {
    /// A policies directory; the shipped policies when absent.
    pub policies: Option<PathBuf>,
    /// The port clients use; a free one when absent or taken.
    pub port: Option<u16>,
    /// Another EMR than the sandbox's.
    pub upstream: Option<String>,
    /// More text for the configuration file: further issuers.
    pub more: String,
    /// No synthetic charts are loaded.
    pub empty: bool,
    /// Text of the configuration to replace, and by what.
    pub replace: Vec<(String, String)>,
}

/// The hospital while it stands. Dropping it removes its folder.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    emr: Emr,
    issuer: Issuer,
    neighbours: Vec<Server>,
    running: Option<Running>,
    base_url: String,
}

/// Why it does not stand.
#[derive(Debug)]
pub enum StageError {
    /// A file could not be written, or a certificate not be made.
    Scenery(String),
    /// The gate found problems.
    Gate(Vec<Problem>),
}

impl Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scenery(what) => f.write_str(what),
            Self::Gate(problems) => problems.iter().try_for_each(|problem| writeln!(f, "{problem}")),
        }
    }
}

impl std::error::Error for StageError {}

fn scenery(error: impl Display) -> StageError {
    StageError::Scenery(error.to_string())
}

impl Stage {
    /// Builds the hospital and opens its gate.
    ///
    /// # Errors
    /// [`StageError`]; nothing is left running then.
    pub async fn open(script: Script) -> Result<Self, StageError> {
        let folder = TempDir::with_prefix("chartgate-").map_err(scenery)?;
        let emr = Emr::new();
        if !script.empty {
            charts::load(&emr).map_err(scenery)?;
        }
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let emr_server = emr::serve(&emr, anywhere).await.map_err(scenery)?;
        let port = free_port(script.port)?;
        let base_url = format!("https://localhost:{port}/fhir");
        let (issuer, issuer_server) = Issuer::start(anywhere, &base_url).await.map_err(scenery)?;
        let upstream =
            script.upstream.clone().unwrap_or_else(|| format!("http://{}/fhir", emr_server.local_addr()));
        write_certificates(folder.path())?;
        let policies = write_policies(folder.path(), script.policies.as_deref())?;
        let mut text = configuration(port, &base_url, &upstream, &issuer, &policies);
        text.push_str(&script.more);
        for (from, to) in &script.replace {
            text = text.replace(from, to);
        }
        std::fs::write(folder.path().join("chartgate.toml"), text).map_err(scenery)?;
        let neighbours = vec![emr_server, issuer_server];
        let mut stage = Self { folder, emr, issuer, neighbours, running: None, base_url };
        stage.init_trail()?;
        stage.start().await?;
        Ok(stage)
    }

    fn init_trail(&self) -> Result<(), StageError> {
        let settings = config::load(&self.config_file()).map_err(StageError::Gate)?;
        let mut complaint = Vec::new();
        match crate::cli::audit::init(&app::journal_settings(&settings), &mut std::io::sink(), &mut complaint)
        {
            crate::cli::audit::GOOD => app::init_sessions(&settings).map(|_| ()).map_err(scenery),
            _ => Err(scenery(String::from_utf8_lossy(&complaint))),
        }
    }

    /// Opens the gate, again after [`Stage::stop`].
    ///
    /// # Errors
    /// [`StageError::Gate`].
    pub async fn start(&mut self) -> Result<(), StageError> {
        let settings = config::load(&self.config_file()).map_err(StageError::Gate)?;
        self.running = Some(app::start(&settings).await.map_err(StageError::Gate)?);
        Ok(())
    }

    /// Closes the gate in order; the neighbours go on.
    ///
    /// # Errors
    /// What the trail says when it could not be closed.
    pub async fn stop(&mut self) -> Result<(), StageError> {
        match self.running.take() {
            Some(running) => running.stop().await.map_err(scenery),
            None => Ok(()),
        }
    }

    /// Closes everything and removes the folder.
    ///
    /// # Errors
    /// As [`Stage::stop`].
    pub async fn close(mut self) -> Result<(), StageError> {
        self.stop().await?;
        for server in self.neighbours.drain(..) {
            server.shutdown().await;
        }
        self.folder.close().map_err(scenery)
    }

    /// The gate.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// The sandbox's EMR.
    #[must_use]
    pub fn emr(&self) -> &Emr {
        &self.emr
    }

    /// The sandbox's issuer.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What clients use, without a slash at its end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The certificate authority that clients must trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("chartgate.toml")
    }

    /// The temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The wished port if nobody has it, else a free one below those that systems give to outgoing connections (32768 and
/// up on Linux): a port of that range may be taken between our look and the gate's. Each stage of a process looks from
/// another place on.
fn free_port(wished: Option<u16>) -> Result<u16, StageError> {
    static LOOKED: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    if let Some(port) = wished.filter(is_free) {
        return Ok(port);
    }
    let own = u16::try_from(std::process::id() % u32::from(PORTS.1)).unwrap_or(0);
    let mut ports = std::iter::repeat_with(|| {
        let step = LOOKED.fetch_add(1, Ordering::Relaxed);
        PORTS.0 + own.wrapping_add(step.wrapping_mul(7)) % PORTS.1
    });
    let found = ports.by_ref().take(usize::from(PORTS.1)).find(is_free);
    found.ok_or_else(|| scenery("no port of loopback is free"))
}

/// The first port that stages take, and how many there are.
const PORTS: (u16, u16) = (20_000, 12_000);

/// A certificate authority for this run, and a server certificate for `localhost`.
fn write_certificates(folder: &Path) -> Result<(), StageError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(scenery)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "Chartgate demo CA");
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(scenery)?).map_err(scenery)?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().map_err(scenery)?;
    let server = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &authority))
        .map_err(scenery)?;
    for (name, text) in
        [("ca.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).map_err(scenery)?;
    }
    Ok(())
}

fn write_policies(folder: &Path, given: Option<&Path>) -> Result<PathBuf, StageError> {
    if let Some(directory) = given {
        return directory.canonicalize().map_err(scenery);
    }
    let directory = folder.join("policies");
    std::fs::create_dir(&directory).map_err(scenery)?;
    for (name, text) in POLICIES {
        std::fs::write(directory.join(name), text).map_err(scenery)?;
    }
    Ok(directory)
}

fn configuration(port: u16, base_url: &str, upstream: &str, issuer: &Issuer, policies: &Path) -> String {
    let mut roles = String::new();
    for (raw, name) in ROLE_NAMES {
        let _infallible = write!(roles, "{}{raw:?} = {name:?}", if roles.is_empty() { "" } else { ", " });
    }
    format!(
        r#"[listen]
address = "127.0.0.1:{port}"
certificate = "server.pem"
private_key = "server.key"

[operations]
address = "127.0.0.1:0"

[public]
base_url = "{base_url}"

[upstream]
base_url = "{upstream}"
timeout = "10s"

[[issuer]]
url = "{issuer}"
audience = "{base_url}"
algorithms = ["RS256", "ES256"]
roles_claim = "/roles"
roles = {{ {roles} }}
purpose_claim = "/purpose_of_use"

[issuer.mfa]
amr = ["mfa", "otp"]
max_age = "12h"

[session]
idle_timeout = "15m"
absolute_timeout = "12h"

[policies]
directory = {policies:?}

[audit]
directory = "audit"
signing_key = "audit.key"
encryption_key = "audit.aes"
"#,
        issuer = issuer.url(),
    )
}
