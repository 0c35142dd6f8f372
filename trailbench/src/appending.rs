//! How fast releases become durable when so many clients wait for theirs at a time: what group commit is for.
//!
//! Owns: clients that each append one record after the other, and the table of what they found.
//! Must never: batch for them: each waits for its own record as a request does.
//! Look next: `edge::journal::writer` of the main crate.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chartgate::edge::journal::{self, Journal, Settings};

use super::{hospital::Hospital, say};

/// How many clients append at a time.
const CLIENTS: [usize; 3] = [1, 16, 256];
/// Syncs of one group commit: the segment and the checkpoint.
const SYNCS_IN_COMMIT: u64 = 2;

/// What one round found.
struct Found {
    clients: usize,
    records: u64,
    commits: u64,
    took: Duration,
    waits: Vec<Duration>,
}

/// Measures each number of clients for `span`, in a trail of its own below `place`, which is removed again.
pub(crate) fn measure(place: &Path, hospital: &Arc<Hospital>, span: Duration) -> Result<(), Box<dyn Error>> {
    say("\n| clients | records/s | records a commit | syncs a record | p50 | p99 |");
    say("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for clients in CLIENTS {
        let folder = place.join(format!("append-{clients}"));
        let found = round(&folder, hospital, clients, span);
        let _half_made = std::fs::remove_dir_all(&folder);
        say(&found?.row());
    }
    Ok(())
}

fn round(
    folder: &Path,
    hospital: &Arc<Hospital>,
    clients: usize,
    span: Duration,
) -> Result<Found, Box<dyn Error>> {
    let settings = Settings {
        directory: folder.join("audit"),
        signing_key: folder.join("audit.key"),
        encryption_key: folder.join("audit.aes"),
    };
    std::fs::create_dir_all(folder)?;
    journal::generate_missing(&settings)?;
    journal::create(&settings, Hospital::time(0))?;
    let journal = Journal::open(&settings)?;
    let before = journal.counters();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (waits, next) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let failed = runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let (journal, hospital) = (journal.clone(), Arc::clone(hospital));
            let (waits, next) = (Arc::clone(&waits), Arc::clone(&next));
            tasks.push(tokio::spawn(async move {
                let mut own = Vec::new();
                while began.elapsed() < span {
                    let [release, _] = hospital.answer(next.fetch_add(1, Ordering::Relaxed));
                    let asked = Instant::now();
                    let appended = journal.append(&[release]).await;
                    own.push(asked.elapsed());
                    if let Err(error) = appended {
                        return Some(error.to_string());
                    }
                }
                waits.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
                None
            }));
        }
        let mut failed = None;
        for task in tasks {
            failed = failed.or(task.await.map_err(|error| error.to_string()).unwrap_or_else(Some));
        }
        failed
    });
    let (took, after) = (began.elapsed(), journal.counters());
    runtime.block_on(journal.close())?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut waits = std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner));
    waits.sort_unstable();
    let (records, commits) = (after.entries - before.entries, after.commits - before.commits);
    Ok(Found { clients, records, commits, took, waits })
}

impl Found {
    fn row(&self) -> String {
        let ratio = |one: u64, other: u64| {
            let hundreds = u128::from(one) * 100 / u128::from(other.max(1));
            format!("{}.{:02}", hundreds / 100, hundreds % 100)
        };
        let rate = u128::from(self.records) * 1_000_000 / self.took.as_micros().max(1);
        let at = |share: usize| {
            let place = (self.waits.len() * share / 100).min(self.waits.len().saturating_sub(1));
            self.waits
                .get(place)
                .map_or_else(String::new, |wait| format!("{:.2} ms", wait.as_secs_f64() * 1e3))
        };
        format!(
            "| {} | {rate} | {} | {} | {} | {} |",
            self.clients,
            ratio(self.records, self.commits),
            ratio(self.commits * SYNCS_IN_COMMIT, self.records),
            at(50),
            at(99)
        )
    }
}
