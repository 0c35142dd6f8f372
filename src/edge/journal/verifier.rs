//! Verifying, while the gate answers, what opening the trail passed over.
//!
//! Owns: the thread that reads every byte of the trail once after each start, slowly.
//! Must never: write; let the journal go on when something is wrong; keep a journal alive that was closed.
//! Look next: `inspect::spans` for what is passed over, `inspect` for the reading.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use super::State;
use super::inspect::{self, Reading, Request};
use super::keys::Keys;
use crate::limits::{VERIFIER_REST, VERIFIER_TRIES_MAX};

/// Verifies the whole directory in a thread of its own; `unread` entries of it were passed over. What it finds puts the
/// journal out of service.
pub(super) fn start(directory: PathBuf, keys: Keys, state: &Arc<State>, unread: u64) -> io::Result<()> {
    state.unverified.store(unread, Ordering::Relaxed);
    let state = Arc::downgrade(state);
    thread::Builder::new().name("audit-verifier".to_owned()).spawn(move || {
        tracing::info!(entries = unread, "older entries of the audit trail are verified from now on");
        run(&directory, &keys, &state);
    })?;
    Ok(())
}

fn run(directory: &Path, keys: &Keys, state: &Weak<State>) {
    let begun = Instant::now();
    let wrong = verify(directory, keys, state);
    // Closed meanwhile: there is nothing to put out of service, and the next opening begins again.
    let Some(state) = state.upgrade() else { return };
    match wrong {
        None => {
            state.unverified.store(0, Ordering::Relaxed);
            state.tell_unverified();
            tracing::info!(seconds = begun.elapsed().as_secs(), "every entry of the audit trail is verified");
        }
        Some(what) => {
            tracing::error!(%what, "the audit trail does not verify; nothing is released any more");
            state.fail("verification", &io::Error::other(what));
        }
    }
}

/// What is wrong. A prune may take a bundle away between its listing and its reading: then all is read again.
fn verify(directory: &Path, keys: &Keys, state: &Weak<State>) -> Option<String> {
    let mut missed = String::new();
    for _ in 0..VERIFIER_TRIES_MAX {
        let mut read_at = Instant::now();
        let mut rest = || rest(state, &mut read_at);
        match inspect::read(directory, keys, Request::default(), Reading::Whole(&mut rest)) {
            Ok(found) => {
                let more = found.findings.len().saturating_sub(1);
                let also = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                return found.findings.first().map(|finding| format!("{finding}{also}"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missed = error.to_string(),
            Err(error) => return Some(error.to_string()),
        }
    }
    Some(missed)
}

/// Rests for a multiple of the time the last bundle took: commits need the disk, and answers the processor.
fn rest(state: &Weak<State>, read_at: &mut Instant) -> io::Result<()> {
    if state.strong_count() == 0 {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "the journal was closed"));
    }
    thread::sleep(read_at.elapsed().saturating_mul(VERIFIER_REST));
    *read_at = Instant::now();
    Ok(())
}
