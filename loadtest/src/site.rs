//! Who is measured: one upstream, and in front of it in turn nothing, nginx, a minimal pass-through, the gate.
//!
//! Owns: starting and ending each as a process of its own on loopback, so that its memory and processor time
//! can be told apart. The upstream and the issuer share this process with the clients, for everyone alike.
//! Must never: measure a gate built from other sources, unless a path to one is given.
//! Look next: `baseline`.

use crate::client::{Place, Protocol};
use crate::process::Process;
use crate::{plan, scrape};
use chartgate::cli::demo::stage::{Script, Stage};
use chartgate_sandbox::emr::{self, Emr};
use chartgate_sandbox::issuer::Issuer;
use chartgate_sandbox::listen::Server;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// For a process to begin to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);
const GATE_LOG: &str = "gate.log";

/// One of those who are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The upstream itself, plain HTTP: what the clients and the upstream can do at most.
    Direct,
    /// nginx from the distribution.
    Nginx,
    /// `pass_through`.
    PassThrough,
    /// `chartgate serve`.
    Gate,
}

impl Who {
    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "upstream, no TLS",
            Self::Nginx => "nginx",
            Self::PassThrough => "hyper pass-through",
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
    pub(crate) protocol: Protocol,
}

/// Everything that runs. Dropping it ends the processes, then removes the folder.
pub(crate) struct Site {
    pub(crate) contenders: Vec<Contender>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    /// The gate's executable.
    pub(crate) gate_program: PathBuf,
    /// The gate's operations listener.
    pub(crate) operations: SocketAddr,
    stage: Stage,
    upstream: Server,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn free_port() -> Result<u16, String> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    socket.local_addr().map(|address| address.port()).map_err(text)
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// When a part cannot be had; nothing is left running then. A missing nginx is a note, not an error.
    pub(crate) async fn open(wishes: &Wishes<'_>) -> Result<Self, String> {
        let gate_program = gate_program(wishes.gate)?;
        let emr = Emr::new();
        emr.set_recording(false);
        plan::fill(&emr)?;
        let upstream = emr::serve(&emr, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.map_err(text)?;
        let operations = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let script = Script {
            upstream: Some(format!("http://{}/fhir", upstream.local_addr())),
            empty: true,
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
        let mut site =
            Self { contenders: vec![direct], notes: Vec::new(), gate_program, operations, stage, upstream };
        site.add_nginx(wishes).await?;
        site.add_pass_through(wishes.protocol).await?;
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

    fn upstream_address(&self) -> SocketAddr {
        self.upstream.local_addr()
    }

    fn secure(&self, port: u16, protocol: Protocol) -> Result<Place, String> {
        Place::secure(port, &self.stage.ca_file(), protocol)
    }

    async fn add_nginx(&mut self, wishes: &Wishes<'_>) -> Result<(), String> {
        let Some(program) = wishes.nginx else {
            self.notes.push("nginx was left out, as asked".to_owned());
            return Ok(());
        };
        let quiet = || Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !quiet().is_ok_and(|status| status.success()) {
            self.notes.push(format!("`{}` is not installed: no row for it", program.display()));
            return Ok(());
        }
        let port = free_port()?;
        let folder = self.folder().join("nginx");
        fs::create_dir(&folder).map_err(text)?;
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx_config(&folder, self.folder(), port, self.upstream_address()))
            .map_err(text)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start("nginx", &mut command)?;
        self.take_in(Who::Nginx, self.secure(port, wishes.protocol)?, process).await
    }

    async fn add_pass_through(&mut self, protocol: Protocol) -> Result<(), String> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.arg("pass-through").args(["--port", &port.to_string()]);
        command.arg("--certificate").arg(self.folder().join("server.pem"));
        command.arg("--private-key").arg(self.folder().join("server.key"));
        command
            .args(["--upstream", &self.upstream_address().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Process::start("pass-through", &mut command)?;
        self.take_in(Who::PassThrough, self.secure(port, protocol)?, process).await
    }

    async fn add_gate(&mut self, protocol: Protocol) -> Result<(), String> {
        let port =
            self.stage.base_url().rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
        let port = port.ok_or("the gate's base URL has no port")?;
        let log = File::create(self.folder().join(GATE_LOG)).map_err(text)?;
        let mut command = Command::new(&self.gate_program);
        command.args(["serve", "--config"]).arg(self.config_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::start("chartgate", &mut command)?;
        self.take_in(Who::Gate, self.secure(port, protocol)?, process)
            .await
            .map_err(|error| error + &self.gate_log())?;
        let deadline = Instant::now() + START_PATIENCE;
        while !scrape::is_ready(self.operations).await {
            if Instant::now() > deadline {
                return Err(format!("the gate does not become ready{}", self.gate_log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
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

/// The gate of these sources: built now when cargo runs us, else the one beside this executable.
fn gate_program(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let own = std::env::current_exe().map_err(text)?;
    if let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    {
        build_gate(Path::new(&cargo), Path::new(&manifest), &own)?;
    }
    let beside = own.with_file_name("chartgate");
    if beside.is_file() { Ok(beside) } else { Err(format!("there is no `{}`", beside.display())) }
}

fn build_gate(cargo: &Path, manifest: &Path, own: &Path) -> Result<(), String> {
    let target = own.parent().and_then(Path::parent).ok_or("this executable is not in a target directory")?;
    let mut command = Command::new(cargo);
    // Both packages, so that their dependencies are built with the same features as we were.
    command.args(["build", "--quiet", "-p", "chartgate", "-p", "loadtest", "--bins"]);
    command.arg("--manifest-path").arg(manifest.join("Cargo.toml")).arg("--target-dir").arg(target);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err("cargo cannot build the gate".to_owned()),
    }
}

/// A plain TLS reverse proxy as its manual would have it: a worker for each processor, upstream connections
/// kept, answers buffered in memory, nothing logged.
fn nginx_config(folder: &Path, stage: &Path, port: u16, upstream: SocketAddr) -> String {
    let (folder, stage) = (folder.display(), stage.display());
    format!(
        "daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream emr {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {stage}/server.pem;
        ssl_certificate_key {stage}/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        keepalive_requests 100000000;
        location / {{
            proxy_pass http://emr;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_buffer_size 16k;
            proxy_buffers 64 32k;
            proxy_busy_buffers_size 256k;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}
