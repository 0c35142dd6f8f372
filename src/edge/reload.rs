//! Files that are read again when they change.
//!
//! Owns: looking at content (not times, which copies and mounts keep) every `WATCH_SECONDS`; waiting until
//! it holds still, so that a half-written directory is not applied; a hang-up signal as a nudge.
//! Must never: know what the files mean; drop what is in force because the new does not work: that is the
//! applying function's duty, and it is told again later.
//! Look next: `tls` and `upstream`, whose `files` and `reload` fit in here, and `app`, which wires them.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::listener::Stop;
use super::telemetry::Telemetry;
use crate::limits::{
    WATCH_RETRY_SECONDS, WATCH_SECONDS, WATCHED_DEPTH_MAX, WATCHED_FILE_BYTES_MAX, WATCHED_FILES_MAX,
};

/// Looks to wait before what failed is tried again.
const RETRY_LOOKS: u64 = WATCH_RETRY_SECONDS / WATCH_SECONDS;

/// Files and directories under watch. Begin it before the first load, so that no change falls between.
#[derive(Debug)]
pub struct Watch {
    what: &'static str,
    paths: Vec<PathBuf>,
    memory: Memory,
    every: Duration,
}

/// Makes every [`Nudge`] apply its files now.
#[derive(Debug)]
pub struct Nudger(watch::Sender<u64>);

/// Hears a [`Nudger`].
#[derive(Clone, Debug)]
pub struct Nudge(watch::Receiver<u64>);

type Fingerprint = [u8; 32];

/// What was seen and what was tried.
#[derive(Debug)]
struct Memory {
    tried: Fingerprint,
    seen: Fingerprint,
    retry_in: Option<u64>,
}

/// A nudger and its nudge.
#[must_use]
pub fn nudge() -> (Nudger, Nudge) {
    let (sender, receiver) = watch::channel(0);
    (Nudger(sender), Nudge(receiver))
}

impl Nudger {
    /// Apply everything now.
    pub fn nudge(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Turns each SIGHUP of the process into a nudge, until `stop`.
    ///
    /// # Errors
    /// When the signal cannot be heard.
    pub async fn forward_hangups(self, mut stop: Stop) -> io::Result<()> {
        let mut hangups = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                heard = hangups.recv() => if heard.is_none() { return Ok(()) },
            }
            self.nudge();
        }
    }
}

impl Nudge {
    async fn heard(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Watch {
    /// Remembers the present content of `paths` as loaded. Reads files: call it before serving begins.
    /// `what` names them in the log and in metrics.
    #[must_use]
    pub fn begin(what: &'static str, paths: Vec<PathBuf>) -> Self {
        let now = fingerprint(&paths);
        let memory = Memory { tried: now, seen: now, retry_in: None };
        Self { what, paths, memory, every: Duration::from_secs(WATCH_SECONDS) }
    }

    /// Calls `apply`, on a thread where it may block, when the content changed and then held still for one
    /// look, and at every nudge; again every `WATCH_RETRY_SECONDS` while it fails. Returns at `stop`.
    pub async fn run<F, E>(mut self, apply: F, mut nudge: Nudge, mut stop: Stop, telemetry: Telemetry)
    where
        F: Fn() -> Result<(), E> + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let apply = Arc::new(apply);
        let mut looks = interval(self.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let nudged = tokio::select! {
                () = stop.requested() => return,
                () = nudge.heard() => true,
                _ = looks.tick() => false,
            };
            let paths = self.paths.clone();
            let Ok(now) = spawn_blocking(move || fingerprint(&paths)).await else { continue };
            if self.memory.look(now) || nudged {
                let apply = Arc::clone(&apply);
                let outcome = spawn_blocking(move || apply().map_err(|error| error.to_string())).await;
                self.note(now, outcome.unwrap_or_else(|_panic| Err("it panicked".to_owned())), &telemetry);
            }
        }
    }

    fn note(&mut self, now: Fingerprint, outcome: Result<(), String>, telemetry: &Telemetry) {
        telemetry.reloaded(self.what, outcome.is_ok());
        self.memory.tried(now, outcome.is_ok());
        match outcome {
            Ok(()) => tracing::info!(what = self.what, "read again and put in force"),
            Err(reason) => tracing::error!(what = self.what, reason, "kept the last good version"),
        }
    }
}

impl Memory {
    /// Whether to apply now.
    fn look(&mut self, now: Fingerprint) -> bool {
        let still = now == self.seen;
        self.seen = now;
        if let Some(looks) = &mut self.retry_in {
            *looks = looks.saturating_sub(1);
        }
        still && (now != self.tried || self.retry_in == Some(0))
    }

    fn tried(&mut self, now: Fingerprint, succeeded: bool) {
        self.tried = now;
        self.retry_in = (!succeeded).then_some(RETRY_LOOKS);
    }
}

/// A digest over names and content of all files at or below `paths`.
fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut files = BTreeSet::new();
    for path in paths {
        gather(path, 0, &mut files);
    }
    let mut whole = Context::new(&SHA256);
    for file in &files {
        feed(&mut whole, file.as_os_str().as_encoded_bytes());
        feed(&mut whole, &content(file));
    }
    finish(whole)
}

fn gather(path: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) {
    if files.len() >= WATCHED_FILES_MAX {
        return;
    }
    // What cannot be listed counts as a file, whose content then is "unreadable".
    let Ok(entries) = fs::read_dir(path) else {
        files.insert(path.to_owned());
        return;
    };
    if depth < WATCHED_DEPTH_MAX {
        let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        below.sort();
        for path in below {
            gather(&path, depth + 1, files);
        }
    }
}

/// The digest of a file's content, or the kind of failure.
fn content(path: &Path) -> Vec<u8> {
    let digest = || -> io::Result<Fingerprint> {
        // Anything but a file (a pipe, say) could make reading wait for ever.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(WATCHED_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let mut digest = Context::new(&SHA256);
        digest.update(&bytes);
        Ok(finish(digest))
    };
    digest().map_or_else(|error| error.kind().to_string().into_bytes(), |digest| digest.to_vec())
}

fn feed(digest: &mut Context, bytes: &[u8]) {
    digest.update(&(bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

fn finish(digest: Context) -> Fingerprint {
    digest.finish().as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::edge::listener::stop_signal;

    #[test]
    fn applies_what_held_still_once_and_what_failed_again() {
        let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
        let mut memory = Memory { tried: a, seen: a, retry_in: None };
        assert!(!memory.look(a), "nothing new");
        assert!(!memory.look(b), "new, may still be written");
        assert!(!memory.look(c), "indeed");
        assert!(memory.look(c), "held still");
        memory.tried(c, true);
        assert!(!memory.look(c), "done");
        assert!(!memory.look(b));
        assert!(memory.look(b));
        memory.tried(b, false);
        let again = (1..100).find(|_| memory.look(b));
        assert_eq!(again, Some(RETRY_LOOKS), "tried again later");
        memory.tried(b, true);
        assert!((0..100).all(|_| !memory.look(b)));
        assert!(!memory.look(a) && !memory.look(b), "there and back again is no change");
        assert!(!memory.look(b));
    }

    #[test]
    fn any_change_of_name_or_content_shows() {
        let directory = tempfile::tempdir().unwrap();
        let paths = [directory.path().to_owned(), directory.path().join("later.pem")];
        let mut seen = BTreeSet::from([fingerprint(&paths)]);
        let steps: [&dyn Fn(); 6] = [
            &|| fs::write(directory.path().join("a.cedar"), "permit").unwrap(),
            &|| fs::write(directory.path().join("a.cedar"), "forbid").unwrap(),
            &|| fs::rename(directory.path().join("a.cedar"), directory.path().join("b.cedar")).unwrap(),
            &|| fs::create_dir(directory.path().join("more")).unwrap(),
            &|| fs::write(directory.path().join("more/c.cedar"), "").unwrap(),
            &|| fs::write(directory.path().join("later.pem"), "").unwrap(),
        ];
        for (number, step) in steps.iter().enumerate() {
            step();
            let new = seen.insert(fingerprint(&paths));
            assert_eq!(new, number != 3, "step {number}; an empty directory is nothing");
            assert!(!seen.insert(fingerprint(&paths)), "the same twice");
        }
    }

    #[tokio::test]
    async fn a_change_is_applied_and_a_nudge_applies_without_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut under_watch = Watch::begin("policies", vec![directory.path().to_owned()]);
        under_watch.every = Duration::from_millis(20);
        let (nudger, nudge) = nudge();
        let (stopper, stop) = stop_signal();
        let applied = Arc::new(AtomicUsize::new(0));
        let broken = Arc::new(AtomicBool::new(false));
        let (counted, fails) = (Arc::clone(&applied), Arc::clone(&broken));
        let apply = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            if fails.load(Ordering::SeqCst) { Err("line 3") } else { Ok(()) }
        };
        let telemetry = Telemetry::new();
        let task = tokio::spawn(under_watch.run(apply, nudge, stop, telemetry.clone()));
        let reach = async |count: usize| {
            for _ in 0..500 {
                if applied.load(Ordering::SeqCst) >= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not applied {count} times");
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(applied.load(Ordering::SeqCst), 0, "nothing changed");
        fs::write(directory.path().join("a.cedar"), "permit").unwrap();
        reach(1).await;
        broken.store(true, Ordering::SeqCst);
        nudger.nudge();
        reach(2).await;
        reach(3).await;
        broken.store(false, Ordering::SeqCst);
        stopper.stop();
        task.await.unwrap();
        let metrics = telemetry.render();
        assert!(metrics.contains(r#"outcome="kept-last-good""#), "{metrics}");
    }
}
