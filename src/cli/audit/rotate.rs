//! `chartgate audit rotate-key`: changes the key that the trail's data keys are wrapped for.
//!
//! Owns: the command, and what the operator is told to do next. Must never: print a key; run beside a gate.
//! Look next: `edge::journal::rotation`, which does it.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{complain, print_lines};
use crate::clock;
use crate::domain::audit::{self, escape};
use crate::edge::journal::{
    Journal, KeyError, Rotated, Settings, derived_secret, generate_encryption_key, keep_secret,
};
use crate::edge::readings;

/// Has the key in the file `next`, which is made where there is none, open the trail in the place of the configured one.
/// `keep_sessions`: the session store is made with the configured key; its secret is then kept beside the new one.
pub fn rotate_key(
    settings: &Settings,
    next: &Path,
    keep_sessions: bool,
    as_json: bool,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> u8 {
    // The configuration is read from where it stands, not from here.
    let absolute = std::path::absolute(next).unwrap_or_else(|_| next.to_owned());
    let next = absolute.as_path();
    let done = match change(settings, next, keep_sessions) {
        Ok(done) => done,
        Err(why) => return complain(err, &why),
    };
    let lines = if as_json { vec![done.as_json(next)] } else { done.as_lines(settings, next) };
    print_lines(out, &lines)
}

struct Done {
    rotated: Rotated,
    made: bool,
    sessions: Option<PathBuf>,
}

fn change(settings: &Settings, next: &Path, keep_sessions: bool) -> Result<Done, String> {
    let made = generate_encryption_key(next).map_err(|error| error.to_string())?;
    let sessions = keep_sessions.then(|| session_secret(settings, next)).transpose();
    let sessions = sessions.map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let journal = Journal::open_to_rotate(settings).map_err(|error| error.to_string())?;
    let rotated = runtime.block_on(rotate(&journal, settings, next));
    let closed = runtime.block_on(journal.close()).map_err(|error| error.to_string());
    let rotated = rotated?;
    closed?;
    Ok(Done { rotated, made, sessions })
}

async fn rotate(journal: &Journal, settings: &Settings, next: &Path) -> Result<Rotated, String> {
    // Slips are sealed under the old key: nobody could read them afterwards.
    let taken = readings::take_up(settings, clock::now()).map_err(|error| error.to_string())?;
    if !taken.records.is_empty() {
        let _receipt = journal.append(&taken.records).await.map_err(|error| error.to_string())?;
        taken.forget();
    }
    journal.rotate_key(next).await.map_err(|error| error.to_string())
}

/// Keeps what the session store was made with, so that it does not depend on the trail's key any more.
fn session_secret(settings: &Settings, next: &Path) -> Result<PathBuf, KeyError> {
    let mut name = next.as_os_str().to_owned();
    name.push(".session");
    let path = PathBuf::from(name);
    if !path.exists() {
        keep_secret(&path, &derived_secret(settings, "session store")?)?;
    }
    Ok(path)
}

impl Done {
    fn as_json(&self, next: &Path) -> String {
        audit::json(&json!({
            "from": self.rotated.from,
            "to": self.rotated.to,
            "dataKeys": self.rotated.keys,
            "encryptionKey": next.display().to_string(),
            "made": self.made,
            "sessionKey": self.sessions.as_ref().map(|path| path.display().to_string()),
        }))
    }

    fn as_lines(&self, settings: &Settings, next: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        if self.made {
            lines.push(format!("made the encryption key `{}`", next.display()));
        }
        let Rotated { from, to, keys } = &self.rotated;
        lines.push(format!("wrapped {keys} data keys for the key {to}, in the place of {from}"));
        lines.push("now change the configuration, and start the gate:".to_owned());
        lines.push(format!("  [audit]   encryption_key = \"{}\"", next.display()));
        if let Some(path) = &self.sessions {
            lines.push(format!("  [session] key = \"{}\"", path.display()));
        }
        let old = settings.encryption_key.display();
        lines.push(format!(
            "keep `{old}` until that start: it drops the wrappings for it, after which it opens nothing here"
        ));
        lines.push("backups made before still need it".to_owned());
        lines.iter().map(|line| escape(line)).collect()
    }
}
