//! Files: certificates that come to their end, and the trail's directory and keys.
//!
//! Owns: what is said of them. Must never: take the trail's lock, or make a file.
//! Look next: `edge::tls`, `edge::journal`.

use super::list::Checklist;
use crate::config::Settings;
use crate::edge::tls::chain_end;
use crate::{clock, limits};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const TRAIL: &str = "trail";

/// The end of each certificate. That it is there and fits its key is `check`'s to say.
pub(super) fn certificates(list: &mut Checklist, settings: &Settings) {
    let operations = settings.operations.certificate.as_ref().map(|pair| ("[operations]", &pair.0));
    let upstream = settings.upstream.client_certificate.as_ref().map(|pair| ("[upstream]", &pair.0));
    let all = [Some(("[listen]", &settings.listen.certificate)), operations, upstream];
    for (name, path) in all.into_iter().flatten() {
        certificate(list, name, path);
    }
}

fn certificate(list: &mut Checklist, name: &str, path: &Path) {
    let hint = "have a new certificate made and put it in the same place: it is read again without a restart";
    let Ok(end) = chain_end(path) else { return };
    let days = end.as_second().saturating_sub(clock::now().as_second()).div_euclid(86_400);
    let what = format!("the certificate of {name} ends in {days} days");
    if days < 0 {
        list.fail("TLS", "certificate-end", format!("the certificate of {name} ended on {end}"), hint);
    } else if days < limits::CERTIFICATE_WARNING_DAYS {
        list.warn("TLS", "certificate-end", what, hint);
    } else {
        list.pass("TLS", "certificate-end", what);
    }
}

/// The trail's directory, its lock, and who may read its keys.
pub(super) fn trail(list: &mut Checklist, settings: &Settings) {
    let audit = &settings.audit;
    for key in [&audit.signing_key, &audit.encryption_key] {
        private(list, TRAIL, key, 0o077, "chmod 600");
    }
    private(list, "TLS", &settings.listen.private_key, 0o007, "chmod 640");
    if let Some(key) = &settings.session.key {
        private(list, "sessions", key, 0o077, "chmod 600");
    }
    if !audit.directory.join("checkpoint").is_file() {
        let hint = "`chartgate audit init` makes it, once; `serve` never does";
        let what = format!("there is no trail in `{}`", audit.directory.display());
        list.fail(TRAIL, "trail-missing", what, hint);
        return;
    }
    private(list, TRAIL, &audit.directory, 0o077, "chmod 700");
    let lock = audit.directory.join("journal.lock");
    let opened = OpenOptions::new().write(true).open(&lock);
    match opened {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let hint = "run `doctor` and `serve` as the user that made the trail";
            let what = format!("the trail's lock cannot be opened: {}", error.kind());
            list.fail(TRAIL, "trail-lock", what, hint);
        }
        Ok(_) | Err(_) => {
            list.pass(TRAIL, "trail", "it is there; `chartgate audit verify` checks every byte of it");
        }
    }
}

/// Whether others than its owner may use a file.
fn private(list: &mut Checklist, group: &str, path: &Path, forbidden: u32, remedy: &str) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = metadata.permissions().mode();
    if mode & forbidden != 0 {
        let what = format!("`{}` is open to other users (mode {:o})", path.display(), mode & 0o777);
        list.warn(group, "file-mode", what, &format!("`{remedy}` takes that away"));
    }
}
