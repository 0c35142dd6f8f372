//! Files: certificates that come to their end, and the trail's directory and keys.
//!
//! Owns: what is said of them. Must never: take the trail's lock, or make a file.
//! Look next: `edge::tls`, `edge::journal`.

use super::list::Checklist;
use crate::config::Settings;
use crate::config::clients::ClientAuthentication;
use crate::edge::journal::{Presence, presence};
use crate::edge::tls::chain_end;
use crate::{clock, limits};
use jiff::Timestamp;
use std::fs;
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
    if let Ok(end) = chain_end(path) {
        certificate_end(list, name, end, clock::now());
    }
}

fn certificate_end(list: &mut Checklist, name: &str, end: Timestamp, now: Timestamp) {
    let hint = "have a new certificate made and put it in the same place: it is read again without a restart";
    let days = end.as_second().saturating_sub(now.as_second()).div_euclid(86_400);
    let what = format!("the certificate of {name} ends in {days} days");
    if days < 0 {
        list.fail("TLS", "certificate-end", format!("the certificate of {name} ended on {end}"), hint);
    } else if days < limits::CERTIFICATE_WARNING_DAYS {
        list.warn("TLS", "certificate-end", what, hint);
    } else {
        list.pass("TLS", "certificate-end", what);
    }
}

/// The trail's directory, its lock, and who may read its keys and the other secrets.
pub(super) fn trail(list: &mut Checklist, settings: &Settings) {
    let audit = &settings.audit;
    for key in [&audit.signing_key, &audit.encryption_key] {
        private(list, TRAIL, key, 0o077, "chmod 600");
    }
    private(list, "TLS", &settings.listen.private_key, 0o007, "chmod 640");
    secrets(list, settings);
    match presence(&audit.directory) {
        Presence::Missing => {
            let hint = "`chartgate audit init` makes it, once; `serve` never does";
            let what = format!("there is no trail in `{}`", audit.directory.display());
            list.fail(TRAIL, "trail-missing", what, hint);
            return;
        }
        Presence::LockRefused(kind) => {
            let hint = "run `doctor` and `serve` as the user that made the trail";
            list.fail(TRAIL, "trail-lock", format!("the trail's lock cannot be opened: {kind}"), hint);
        }
        Presence::There => {
            list.pass(TRAIL, "trail", "it is there; `chartgate audit verify` checks every byte of it");
        }
    }
    private(list, TRAIL, &audit.directory, 0o077, "chmod 700");
    let hint =
        "copy the directory from a timer, and run `chartgate audit verify --against` the copy's checkpoint";
    let what = "nothing here tells when the trail was last copied elsewhere, or whether it ever was";
    list.warn(TRAIL, "trail-backup", what, hint);
}

/// Secrets that the session store and the issuers' questions need.
fn secrets(list: &mut Checklist, settings: &Settings) {
    if let Some(key) = &settings.session.key {
        private(list, "sessions", key, 0o077, "chmod 600");
    }
    for issuer in &settings.issuers {
        let asked = issuer.introspection.as_ref().map(|asked| match &asked.authentication {
            ClientAuthentication::Secret(file) | ClientAuthentication::Key { file, .. } => file,
        });
        if let Some(file) = asked {
            private(list, &format!("issuer {}", issuer.url), file, 0o077, "chmod 600");
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

#[cfg(test)]
mod tests {
    use super::super::list::Status;
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_a_month_before_its_end() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        const DAY: i64 = 86_400;
        let cases = [
            ("a year", 365 * DAY, Status::Pass),
            ("thirty days", 30 * DAY, Status::Pass),
            ("a second less", 30 * DAY - 1, Status::Warn),
            ("the last second", 0, Status::Warn),
            ("ended", -1, Status::Fail),
        ];
        for (name, left, status) in cases {
            let mut list = Checklist::default();
            certificate_end(&mut list, "[listen]", at(left), at(0));
            assert_eq!(list.only(), ("certificate-end", status), "{name}");
        }
    }
}
