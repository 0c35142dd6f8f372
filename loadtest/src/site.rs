//! Who is measured: one upstream, and in front of it in turn nothing, nginx, a minimal pass-through, the gate.
//!
//! Owns: starting and ending each as a process of its own on loopback, so that its memory and processor time
//! can be told apart. The upstream and the issuer share this process with the clients, for everyone alike.
//! Must never: measure a gate built from other sources, unless a path to one is given.
//! Look next: `peers`, how the others are set up; `baseline` and `run`, who measure.

use crate::client::{Place, Protocol};
use crate::nginx_authz;
use crate::peers;
use crate::process::Process;
use crate::scrape;
use crate::stages::Until;
use chartgate::cli::demo::stage::{Script, Stage};
use chartgate_sandbox::emr::{self, Emr};
use chartgate_sandbox::issuer::Issuer;
use chartgate_sandbox::listen::Server;
use clap::ValueEnum as _;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// For a process to begin to listen: the gate loads thousands of policies before, in an unoptimised build for minutes.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// For the gate to be ready: before it serves it verifies the trail, some 50,000 entries a second where the machine is its own.
const READY_PATIENCE: Duration = Duration::from_secs(20 * 60);
const GATE_LOG: &str = "gate.log";
/// The name by which this executable is called when it is to be the gate.
const GATE_NAME: &str = "chartgate";

/// One of those who are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The upstream itself, plain HTTP: what the clients and the upstream can do at most.
    Direct,
    /// nginx from the distribution.
    Nginx,
    /// HAProxy from the distribution.
    Haproxy,
    /// The same with tokens verified.
    HaproxyTokens,
    /// Envoy with tokens verified.
    Envoy,
    /// nginx that asks an authorization service and filters bodies by a script.
    NginxAuthz,
    /// `pass_through`.
    PassThrough,
    /// The same with the gate's steps up to this one.
    Stage(Until),
    /// `chartgate serve`.
    Gate,
}

impl Who {
    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "upstream, no TLS",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::HaproxyTokens => "HAProxy, tokens verified",
            Self::Envoy => "Envoy, tokens verified",
            Self::NginxAuthz => "nginx, decisions asked for, bodies filtered",
            Self::PassThrough => "hyper pass-through",
            Self::Stage(Until::Identity) => "+ identity",
            Self::Stage(Until::Policy) => "+ policy",
            Self::Stage(Until::Filter) => "+ filter",
            Self::Gate => "chartgate",
        }
    }
}

/// Somebody in front of the upstream, and how to reach them.
pub(crate) struct Contender {
    pub(crate) who: Who,
    pub(crate) place: Place,
    pub(crate) process: Option<Process>,
}

/// What to start.
pub(crate) struct Wishes<'a> {
    /// Another `chartgate` than the one of these sources.
    pub(crate) gate: Option<&'a Path>,
    /// `None` leaves nginx out.
    pub(crate) nginx: Option<&'a Path>,
    /// `None` leaves HAProxy out.
    pub(crate) haproxy: Option<&'a Path>,
    /// The same, verifying tokens. `None` leaves it out.
    pub(crate) haproxy_tokens: Option<&'a Path>,
    /// Envoy, verifying tokens. `None` leaves it out.
    pub(crate) envoy: Option<&'a Path>,
    /// nginx with an authorization service and a script. `None` leaves it out.
    pub(crate) nginx_authz: Option<&'a Path>,
    /// The minimal pass-through.
    pub(crate) pass_through: bool,
    /// The same with the gate's steps switched on one by one.
    pub(crate) stages: bool,
    /// Other policies than the shipped ones.
    pub(crate) policies: Option<&'a Path>,
    pub(crate) protocol: Protocol,
}

impl<'a> Wishes<'a> {
    /// The gate alone, with the shipped policies; `gate`: another `chartgate` than the one of these sources.
    pub(crate) fn gate_only(gate: Option<&'a Path>, protocol: Protocol) -> Self {
        Self {
            gate,
            nginx: None,
            haproxy: None,
            haproxy_tokens: None,
            envoy: None,
            nginx_authz: None,
            pass_through: false,
            stages: false,
            policies: None,
            protocol,
        }
    }
}

/// Everything that runs. Dropping it ends the processes, then removes the folder.
pub(crate) struct Site {
    pub(crate) contenders: Vec<Contender>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    /// The gate's executable.
    pub(crate) gate_program: GateProgram,
    /// The gate's operations listener.
    pub(crate) operations: SocketAddr,
    /// From starting the gate until it was ready.
    pub(crate) gate_start: Duration,
    /// The policies in force.
    policies: PathBuf,
    stage: Stage,
    emr: Emr,
    upstream: Mutex<Option<Server>>,
    upstream_address: SocketAddr,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn free_port() -> Result<u16, String> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    socket.local_addr().map(|address| address.port()).map_err(text)
}

/// Waits until it takes connections.
async fn listens(place: &Place) -> Result<(), String> {
    let deadline = Instant::now() + START_PATIENCE;
    while let Err(error) = place.connect().await {
        if Instant::now() > deadline {
            return Err(format!("the authorization service does not serve: {error}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// When a part cannot be had; nothing is left running then. A missing nginx is a note, not an error.
    pub(crate) async fn open(
        wishes: &Wishes<'_>,
        fill: impl FnOnce(&Emr) -> Result<(), String>,
    ) -> Result<Self, String> {
        let gate_program = GateProgram::find(wishes.gate)?;
        let emr = Emr::new();
        emr.set_recording(false);
        fill(&emr)?;
        let upstream = emr::serve(&emr, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.map_err(text)?;
        let operations = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let script = Script {
            upstream: Some(format!("http://{}/fhir", upstream.local_addr())),
            empty: true,
            policies: wishes.policies.map(Path::to_owned),
            replace: vec![(
                "[operations]\naddress = \"127.0.0.1:0\"".to_owned(),
                format!("[operations]\naddress = \"{operations}\""),
            )],
            ..Script::default()
        };
        // The stage writes certificates, keys, policies and the trail; its own gate makes way for the process.
        let mut stage = Stage::open(script).await.map_err(text)?;
        stage.stop().await.map_err(text)?;
        let direct =
            Contender { who: Who::Direct, place: Place::plain(upstream.local_addr()), process: None };
        let policies = wishes.policies.map_or_else(|| stage.folder().join("policies"), Path::to_owned);
        let notes = Vec::new();
        let upstream_address = upstream.local_addr();
        let mut site = Self {
            contenders: vec![direct],
            notes,
            gate_program,
            operations,
            gate_start: Duration::ZERO,
            policies,
            stage,
            emr,
            upstream: Mutex::new(Some(upstream)),
            upstream_address,
        };
        site.add_peers(wishes).await?;
        site.add_equal(wishes).await?;
        if wishes.pass_through {
            site.add_pass_through(wishes.protocol, None).await?;
        }
        if wishes.stages {
            for until in [Until::Identity, Until::Policy, Until::Filter] {
                site.add_pass_through(wishes.protocol, Some(until)).await?;
            }
        }
        site.add_gate(wishes.protocol).await?;
        Ok(site)
    }

    /// The issuer whose tokens the gate trusts.
    pub(crate) fn issuer(&self) -> &Issuer {
        self.stage.issuer()
    }

    /// The gate's configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.stage.config_file()
    }

    /// Where the trail and everything else of this run is.
    pub(crate) fn folder(&self) -> &Path {
        self.stage.folder()
    }

    /// The last lines of the gate's log.
    pub(crate) fn gate_log(&self) -> String {
        let log = fs::read_to_string(self.folder().join(GATE_LOG)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().map(|line| format!("\n  gate: {line}")).collect()
    }

    /// Everything that the gate said so far.
    pub(crate) fn whole_gate_log(&self) -> String {
        fs::read_to_string(self.folder().join(GATE_LOG)).unwrap_or_default()
    }

    /// The EMR behind everybody.
    pub(crate) fn emr(&self) -> &Emr {
        &self.emr
    }

    /// The certificate authority that clients trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.stage.ca_file()
    }

    /// Where the policies in force are.
    pub(crate) fn policies(&self) -> &Path {
        &self.policies
    }

    /// The gate, while it is there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn gate(&self) -> Result<&Contender, String> {
        let found = self.contenders.iter().find(|contender| contender.who == Who::Gate);
        found.ok_or_else(|| "the gate is not there".to_owned())
    }

    /// Ends the upstream: its connections break, and new ones are refused.
    pub(crate) async fn end_upstream(&self) {
        if let Some(server) = self.upstream.lock().await.take() {
            server.shutdown().await;
        }
    }

    /// Starts the upstream again where it was, with what it had.
    ///
    /// # Errors
    /// When its address was taken meanwhile.
    pub(crate) async fn start_upstream(&self) -> Result<(), String> {
        let mut upstream = self.upstream.lock().await;
        if upstream.is_none() {
            *upstream = Some(emr::serve(&self.emr, self.upstream_address).await.map_err(text)?);
        }
        Ok(())
    }

    fn upstream_address(&self) -> SocketAddr {
        self.upstream_address
    }

    fn secure(&self, port: u16, protocol: Protocol) -> Result<Place, String> {
        Place::secure(port, &self.stage.ca_file(), protocol)
    }

    async fn add_peers(&mut self, wishes: &Wishes<'_>) -> Result<(), String> {
        let asked = [
            (Who::Nginx, wishes.nginx),
            (Who::Haproxy, wishes.haproxy),
            (Who::HaproxyTokens, wishes.haproxy_tokens),
            (Who::Envoy, wishes.envoy),
        ];
        for (who, program) in asked {
            let version = if who == Who::Envoy { "--version" } else { "-v" };
            let Some(program) = program else {
                self.notes.push(format!("{} was left out", who.name()));
                continue;
            };
            if !peers::is_installed(program, version) {
                self.notes.push(format!("`{}` is not installed: no row for it", program.display()));
                continue;
            }
            let port = free_port()?;
            let (folder, upstream) = (self.folder(), self.upstream_address());
            let mut command = match who {
                Who::Haproxy => peers::haproxy(program, folder, port, upstream, None)?,
                Who::HaproxyTokens => {
                    let key = self.issuer().public_pem().map_err(text)?;
                    peers::haproxy(program, folder, port, upstream, Some(&key))?
                }
                Who::Envoy => {
                    let keys = self.issuer().jwks().to_string();
                    let (issuer, audience) = (self.issuer().url(), self.issuer().audience());
                    let tokens = peers::Tokens { issuer, audience, keys: &keys };
                    peers::envoy(program, folder, port, upstream, &tokens)?
                }
                Who::Nginx | Who::NginxAuthz | Who::Direct | Who::PassThrough | Who::Stage(_) | Who::Gate => {
                    peers::nginx(program, folder, port, upstream)?
                }
            };
            let process = Process::start(who.name(), &mut command)?;
            self.take_in(who, self.secure(port, wishes.protocol)?, process).await?;
        }
        Ok(())
    }

    /// The peer that does the gate's work with other means. What of it is not installed is a note.
    async fn add_equal(&mut self, wishes: &Wishes<'_>) -> Result<(), String> {
        let Some(program) = wishes.nginx_authz else { return Ok(()) };
        if wishes.protocol == Protocol::Http2 {
            // `ngx.location.capture` of Debian's module refuses it.
            self.notes.push("nginx cannot ask from a script over HTTP/2: no row for it".to_owned());
            return Ok(());
        }
        let modules = match nginx_authz::modules(program) {
            Ok(modules) => modules,
            Err(why) => {
                self.notes.push(format!("{why}: no row for it"));
                return Ok(());
            }
        };
        let (port, asked) = (free_port()?, free_port()?);
        let service = self.start_service(port, asked)?;
        let seat = nginx_authz::Seat {
            stage: self.folder(),
            port,
            upstream: self.upstream_address(),
            authorize: SocketAddr::from((Ipv4Addr::LOCALHOST, asked)),
        };
        listens(&Place::plain(seat.authorize)).await?;
        let process = nginx_authz::start(program, &modules, &seat, service)?;
        let place = self.secure(port, wishes.protocol)?;
        if let Err(why) = self.take_in(Who::NginxAuthz, place, process).await {
            self.notes.push(format!("{why}: no row for it ({})", nginx_authz::complaint(self.folder())));
        }
        Ok(())
    }

    /// The authorization service beside a proxy on `port`.
    fn start_service(&self, port: u16, asked: u16) -> Result<Process, String> {
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.args(["authorize", "--port", &asked.to_string(), "--public-port", &port.to_string()]);
        command.arg("--audit").arg(self.folder().join("authorize.log"));
        command.args(["--upstream", &self.upstream_address().to_string()]);
        self.let_decide(&mut command, Until::Policy)?;
        Process::start("authorize", &mut peers::quiet(command))
    }

    /// What the gate's steps want to know.
    fn let_decide(&self, command: &mut Command, until: Until) -> Result<(), String> {
        let Some(name) = until.to_possible_value() else { return Ok(()) };
        let keys = self.folder().join("keys.json");
        fs::write(&keys, self.issuer().jwks().to_string()).map_err(text)?;
        command.args(["--until", name.get_name()]).arg("--keys").arg(&keys);
        command.args(["--issuer", self.issuer().url(), "--audience", self.issuer().audience()]);
        command.arg("--policies").arg(&self.policies);
        Ok(())
    }

    async fn add_pass_through(&mut self, protocol: Protocol, until: Option<Until>) -> Result<(), String> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.arg("pass-through").args(["--port", &port.to_string()]);
        command.arg("--certificate").arg(self.folder().join("server.pem"));
        command.arg("--private-key").arg(self.folder().join("server.key"));
        command
            .args(["--upstream", &self.upstream_address().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(until) = until {
            self.let_decide(&mut command, until)?;
        }
        let process = Process::start("pass-through", &mut command)?;
        let who = until.map_or(Who::PassThrough, Who::Stage);
        self.take_in(who, self.secure(port, protocol)?, process).await
    }

    async fn add_gate(&mut self, protocol: Protocol) -> Result<(), String> {
        let port =
            self.stage.base_url().rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
        let port = port.ok_or("the gate's base URL has no port")?;
        let began = Instant::now();
        let process = self.start_gate()?;
        self.take_in(Who::Gate, self.secure(port, protocol)?, process)
            .await
            .map_err(|error| error + &self.gate_log())?;
        self.gate_is_ready(began).await
    }

    fn start_gate(&self) -> Result<Process, String> {
        let log = File::options().create(true).append(true).open(self.folder().join(GATE_LOG));
        let mut command = self.gate_program.command();
        command.args(["serve", "--config"]).arg(self.config_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_err(text)?);
        Process::start("chartgate", &mut command)
    }

    async fn gate_is_ready(&mut self, began: Instant) -> Result<(), String> {
        let deadline = began + READY_PATIENCE;
        let gate = |one: &&mut Contender| one.who == Who::Gate;
        while !scrape::is_ready(self.operations).await {
            let process = self.contenders.iter_mut().find(gate).and_then(|one| one.process.as_mut());
            if process.is_some_and(Process::has_ended) || Instant::now() > deadline {
                return Err(format!("the gate does not become ready{}", self.gate_log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.gate_start = began.elapsed();
        Ok(())
    }

    /// Ends everybody, the gate with whatever is under way finished.
    ///
    /// # Errors
    /// When the gate does not end well. Others may end by the signal itself: they have nothing to finish.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let mut ended = Ok(());
        for contender in &mut self.contenders {
            let end = contender.process.as_mut().map_or(Ok(()), Process::end);
            if contender.who == Who::Gate {
                ended = end;
            }
        }
        ended
    }

    /// Ends the gate and starts it anew on the same trail, so that it knows nobody.
    ///
    /// # Errors
    /// When it does not end well, or not come back.
    pub(crate) async fn restart_gate(&mut self) -> Result<(), String> {
        let gate = |contender: &&mut Contender| contender.who == Who::Gate;
        let old = self.contenders.iter_mut().find(gate).and_then(|contender| contender.process.take());
        if let Some(mut old) = old {
            old.end()?;
        }
        let began = Instant::now();
        let process = self.start_gate()?;
        if let Some(contender) = self.contenders.iter_mut().find(gate) {
            contender.process = Some(process);
        }
        self.gate_is_ready(began).await
    }

    /// Waits until it shakes hands, and counts it among those who are measured.
    async fn take_in(&mut self, who: Who, place: Place, mut process: Process) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        while let Err(error) = place.connect().await {
            if process.has_ended() || Instant::now() > deadline {
                return Err(format!("{} does not serve: {error}", who.name()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.contenders.push(Contender { who, place, process: Some(process) });
        Ok(())
    }
}

/// The gate's executable.
#[derive(Clone, Debug)]
pub(crate) enum GateProgram {
    /// This executable, which is the gate when it is called by its name: the same sources, never an old build.
    Own(PathBuf),
    /// Another one.
    Given(PathBuf),
}

impl GateProgram {
    fn find(given: Option<&Path>) -> Result<Self, String> {
        match given {
            Some(given) => Ok(Self::Given(given.to_owned())),
            None => std::env::current_exe().map(Self::Own).map_err(text),
        }
    }

    /// The program, to be given its arguments.
    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Given(path) => Command::new(path),
            Self::Own(path) => {
                let mut command = Command::new(path);
                command.arg0(GATE_NAME);
                command
            }
        }
    }
}

/// Whether this executable was called as the gate.
pub(crate) fn is_called_as_gate() -> bool {
    std::env::args_os().next().is_some_and(|name| name == GATE_NAME)
}
