//! The others: programs from the distribution, set up as their manuals would have it.
//!
//! Owns: their configuration files. They know nothing of callers or records; they are what the gate is compared with.
//! Must never: give one of them less than it needs to do well, or let it write a log.
//! Look next: `site`, which starts them.

use chartgate_sandbox::issuer::ACR_TWO_FACTORS;
use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

const ENVOY: &str = include_str!("envoy.yaml");

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Whether `program` can be run: it says its version.
pub(crate) fn is_installed(program: &Path, how: &str) -> bool {
    let quiet = Command::new(program).arg(how).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Says nothing and asks nothing.
pub(crate) fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// nginx in front of `upstream`; `stage` is the folder with the certificate.
///
/// # Errors
/// When its files cannot be written.
pub(crate) fn nginx(
    program: &Path,
    stage: &Path,
    port: u16,
    upstream: SocketAddr,
) -> Result<Command, String> {
    let folder = stage.join("nginx");
    fs::create_dir(&folder).map_err(text)?;
    let config = folder.join("nginx.conf");
    fs::write(&config, nginx_config(&folder, stage, port, upstream)).map_err(text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("error.log"));
    Ok(quiet(command))
}

/// HAProxy in front of `upstream`; with the issuer's key (PEM) it lets in nobody without a good token of two factors.
///
/// # Errors
/// When its files cannot be written.
pub(crate) fn haproxy(
    program: &Path,
    stage: &Path,
    port: u16,
    upstream: SocketAddr,
    key: Option<&str>,
) -> Result<Command, String> {
    let folder = stage.join(if key.is_some() { "haproxy-tokens" } else { "haproxy" });
    fs::create_dir(&folder).map_err(text)?;
    // It wants certificate and key in one file.
    let pair = ["server.pem", "server.key"].map(|name| fs::read_to_string(stage.join(name)));
    let [certificate, private_key] = pair;
    let both = folder.join("both.pem");
    fs::write(&both, certificate.map_err(text)? + &private_key.map_err(text)?).map_err(text)?;
    let config = folder.join("haproxy.cfg");
    let tokens = match key {
        Some(key) => {
            let file = folder.join("issuer.pem");
            fs::write(&file, key).map_err(text)?;
            tokens_verified(&file)
        }
        None => String::new(),
    };
    fs::write(&config, haproxy_config(&both, port, upstream, &tokens)).map_err(text)?;
    let mut command = Command::new(program);
    command.args(["-db", "-q", "-f"]).arg(&config);
    Ok(quiet(command))
}

/// Whose tokens a peer verifies.
pub(crate) struct Tokens<'t> {
    pub(crate) issuer: &'t str,
    pub(crate) audience: &'t str,
    /// The issuer's key set.
    pub(crate) keys: &'t str,
}

/// Envoy in front of `upstream`, which lets in nobody without a good token of two factors.
///
/// # Errors
/// When its files cannot be written.
pub(crate) fn envoy(
    program: &Path,
    stage: &Path,
    port: u16,
    upstream: SocketAddr,
    tokens: &Tokens<'_>,
) -> Result<Command, String> {
    let folder = stage.join("envoy");
    fs::create_dir(&folder).map_err(text)?;
    fs::write(folder.join("keys.json"), tokens.keys).map_err(text)?;
    let filled = [
        ("<port>", port.to_string()),
        ("<upstream_port>", upstream.port().to_string()),
        ("<stage>", stage.display().to_string()),
        ("<folder>", folder.display().to_string()),
        ("<issuer>", tokens.issuer.to_owned()),
        ("<audience>", tokens.audience.to_owned()),
    ];
    let config = filled.iter().fold(ENVOY.to_owned(), |config, (name, value)| config.replace(name, value));
    let file = folder.join("envoy.yaml");
    fs::write(&file, config).map_err(text)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).args(["--concurrency", &workers, "-l", "off", "--disable-hot-restart"]);
    Ok(quiet(command))
}

/// A plain TLS reverse proxy: a thread for each processor, upstream connections kept and shared.
fn haproxy_config(both: &Path, port: u16, upstream: SocketAddr, tokens: &str) -> String {
    let both = both.display();
    format!(
        "global
    maxconn 8192
    tune.bufsize 32768
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    http-reuse always
frontend tls
    bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.2
{tokens}    default_backend emr
backend emr
    server emr {upstream} pool-max-conn 256
"
    )
}

/// Signature, end and second factor of each token. It cannot look into the list that `amr` is, so it asks for `acr`.
fn tokens_verified(key: &Path) -> String {
    let key = key.display();
    format!(
        "    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request set-var(txn.end) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{key}\") -m int 1 }}
    http-request deny deny_status 401 if {{ var(txn.end),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.acr') -m str {ACR_TWO_FACTORS} }}
"
    )
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
