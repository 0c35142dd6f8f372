//! The peer that does equal work: nginx, which asks an authorization service and filters bodies by a script.
//!
//! Owns: its configuration, and the service beside it. Which of the gate's work it does: docs/performance.md.
//! Must never: give it less than it needs to do well.
//! Look next: `nginx-authz.lua`, the script; `authorize`, the service; `site`, which starts both.

use crate::peers::quiet;
use crate::process::Process;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = include_str!("nginx-authz.conf");
const SCRIPT: &str = include_str!("nginx-authz.lua");
/// nginx's modules that it takes (Debian: `libnginx-mod-http-lua`; the script wants `lua-cjson`).
const MODULES: [&str; 2] = ["ndk_http_module.so", "ngx_http_lua_module.so"];

/// Where to put it.
pub(crate) struct Seat<'s> {
    /// The folder with the certificate.
    pub(crate) stage: &'s Path,
    pub(crate) port: u16,
    pub(crate) upstream: SocketAddr,
    /// Where the service listens.
    pub(crate) authorize: SocketAddr,
}

/// The modules' folder of this nginx.
///
/// # Errors
/// What is not installed.
pub(crate) fn modules(program: &Path) -> Result<PathBuf, String> {
    let told = Command::new(program).arg("-V").output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let path = told.split_whitespace().find_map(|word| word.strip_prefix("--modules-path="));
    let folder = PathBuf::from(path.unwrap_or("/usr/lib/nginx/modules"));
    match MODULES.iter().find(|name| !folder.join(name).exists()) {
        Some(name) => Err(format!("nginx has no `{name}` (Debian: libnginx-mod-http-lua, lua-cjson)")),
        None => Ok(folder),
    }
}

/// nginx, with `service` beside it.
///
/// # Errors
/// When its files cannot be written, or it cannot be started.
pub(crate) fn start(
    program: &Path,
    modules: &Path,
    seat: &Seat<'_>,
    service: Process,
) -> Result<Process, String> {
    let text = |error: std::io::Error| error.to_string();
    let folder = folder(seat.stage);
    fs::create_dir(&folder).map_err(text)?;
    let filled = [
        ("<port>", seat.port.to_string()),
        ("<upstream>", seat.upstream.to_string()),
        ("<authorize>", seat.authorize.to_string()),
        ("<stage>", seat.stage.display().to_string()),
        ("<folder>", folder.display().to_string()),
        ("<modules>", modules.display().to_string()),
    ];
    let config = filled.iter().fold(CONFIG.to_owned(), |config, (name, value)| config.replace(name, value));
    let file = folder.join("nginx.conf");
    fs::write(&file, config).map_err(text)?;
    fs::write(folder.join("gate.lua"), SCRIPT).map_err(text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
    Ok(Process::start("nginx with a script", &mut quiet(command))?.with(service))
}

fn folder(stage: &Path) -> PathBuf {
    stage.join("nginx-authz")
}

/// Why it did not start, as nginx tells it.
pub(crate) fn complaint(stage: &Path) -> String {
    let log = fs::read_to_string(folder(stage).join("error.log")).unwrap_or_default();
    log.lines()
        .find(|line| line.contains("[emerg]") || line.contains("[error]"))
        .unwrap_or_default()
        .to_owned()
}
