//! Retention: withholding entries that are older than the policy, and destroying the data keys that sealed nothing else.
//!
//! Owns: which bundles may go, and the order in which they do.
//! Must never: remove a bundle before the trail itself records it and `withheld` says so; touch one that holds an entry under
//! hold, an entry that cannot be read, or one that a segment still has; remove a hash.
//! Look next: `withheld` for the file, `domain::audit::retention` for policy, holds and record.
//!
//! Whoever calls this has the journal open, and so its lock. What a crash leaves after each step:
//!
//! 1. A `pruned` record is committed: the policy, and everything withheld from now on. Crash: nothing is missing, and the next
//!    prune records it again.
//! 2. `withheld` is replaced and synced. Crash: it names bundles that are there, which is no fault; the next prune removes them.
//! 3. The bundles are removed, and their directories synced: one that came back after its key is gone could not be read.
//!    Crash: some are there, as in 2.
//! 4. Data keys whose entries are all withheld are destroyed, and their directory synced. Crash: the next prune does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::rand;
use jiff::Timestamp;

use super::datakeys::{KeyFiles, Ring, path as key_path, sync_keys};
use super::inspect::Finding;
use super::keys::Keys;
use super::layout::sync_directory;
use super::prove::verifier;
use super::snapshot::{Entry, Snapshot, read_entries};
use super::withheld::Withheld;
use super::{Journal, Kept, Settings};
use crate::domain::audit::{Assembly, Bundles, Holds, Keep, Pruned, Record};
use crate::domain::ledger::{Tile, TileKind};

/// What a prune would do now.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The policy.
    pub keep: Keep,
    /// What is older may go.
    pub before: Timestamp,
    /// Bundles that would be withheld now.
    pub bundles: Bundles,
    /// Bundles that are old enough, and stay because of a hold.
    pub held: u64,
    /// Bundles that stay because an entry in them cannot be read.
    pub unreadable: u64,
    /// Bundles that are old enough, and wait until fewer ranges are withheld: a record names only so many.
    pub postponed: u64,
    /// Bundles that an interrupted prune left.
    pub unfinished: u64,
    /// Why bundles stay.
    stays: Stays,
    earlier: Bundles,
}

/// What a prune did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Bundles that were removed now.
    pub bundles: u64,
    /// Data keys that were destroyed.
    pub keys: usize,
    /// The entry that records it, where something new was withheld.
    pub sequence: Option<u64>,
}

/// Bundles that stay, and why.
#[derive(Clone, Debug, Default)]
struct Stays {
    young: BTreeSet<u64>,
    held: BTreeSet<u64>,
    unreadable: BTreeSet<u64>,
}

impl Stays {
    fn contains(&self, bundle: u64) -> bool {
        self.young.contains(&bundle) || self.held.contains(&bundle) || self.unreadable.contains(&bundle)
    }
}

/// Reads the whole trail and says what a prune would do. Removes nothing; needs no lock.
///
/// # Errors
/// When the trail cannot be read.
pub fn plan(directory: &Path, keys: &Keys, keep: Keep, now: Timestamp) -> Result<Plan, Finding> {
    let fault = |error: io::Error| Finding { place: "audit directory".to_owned(), what: error.to_string() };
    let before =
        keep.cutoff(now).ok_or_else(|| fault(io::Error::other("the policy reaches too far back")))?;
    let log = verifier(directory, keys)?;
    let earlier = Withheld::load(directory, log.name(), keys).map_err(fault)?.bundles;
    let end = removable(directory).map_err(fault)?;
    let stays = stays(directory, keys, before)?;
    let is_there = |bundle: u64| directory.join(Tile::full(TileKind::Entries, bundle).path()).exists();
    let old: Vec<u64> = (0..end).filter(|bundle| !earlier.contains(*bundle)).collect();
    let (mut bundles, mut all, mut postponed) = (Bundles::default(), earlier.clone(), 0);
    for bundle in old.iter().copied().filter(|bundle| !stays.contains(*bundle)) {
        match all.with(bundle).zip(bundles.with(bundle)) {
            Some((more, added)) => (all, bundles) = (more, added),
            None => postponed += 1,
        }
    }
    let count = |bundles: &BTreeSet<u64>| {
        bundles.iter().filter(|bundle| **bundle < end && !stays.young.contains(bundle)).count() as u64
    };
    let left = earlier.iter().filter(|bundle| is_there(*bundle) && !stays.contains(*bundle));
    let unfinished = left.count() as u64;
    let (held, unreadable) = (count(&stays.held), count(&stays.unreadable));
    Ok(Plan { keep, before, bundles, held, unreadable, postponed, unfinished, stays, earlier })
}

/// The first bundle that must stay, because it is not full, not published, or in a segment too.
fn removable(directory: &Path) -> io::Result<u64> {
    let snapshot = Snapshot::take(directory)?;
    let segment = snapshot.segments.first().map_or(0, |segment| segment.first);
    let full = snapshot.tiles.iter().filter(|tile| tile.kind == TileKind::Hashes(0) && tile.is_full());
    Ok((segment / 256).min(full.count() as u64))
}

/// Which bundles stay: with a record that is younger, held or unreadable in them.
fn stays(directory: &Path, keys: &Keys, before: Timestamp) -> Result<Stays, Finding> {
    let mut holds = Holds::default();
    read_records(directory, keys, &mut |read| {
        if let Read::Record(sequences, record) = read {
            holds.learn(sequences.0, record);
        }
    })?;
    let holds: Vec<_> = holds.in_force().cloned().collect();
    let mut stays = Stays::default();
    // An outcome names neither patient nor person: it is held with the decision it belongs to.
    let mut requests = BTreeSet::new();
    read_records(directory, keys, &mut |read| match read {
        Read::Record((first, last), record) => {
            let bundles = first / 256..=last / 256;
            if record.time() >= before {
                stays.young.extend(bundles.clone());
            }
            let is_hold = holds.iter().any(|held| held.sequence == first);
            if is_hold || holds.iter().any(|held| held.hold.takes(record)) {
                stays.held.extend(bundles);
                requests.extend(record.request_id().map(str::to_owned));
            }
        }
        Read::Unreadable(sequence) => drop(stays.unreadable.insert(sequence / 256)),
    })?;
    if !requests.is_empty() {
        read_records(directory, keys, &mut |read| {
            if let Read::Record((first, last), record) = read
                && record.request_id().is_some_and(|id| requests.contains(id))
            {
                stays.held.extend(first / 256..=last / 256);
            }
        })?;
    }
    Ok(stays)
}

enum Read<'r> {
    /// A record, and its first and last entry.
    Record((u64, u64), &'r Record),
    Unreadable(u64),
}

fn read_records(directory: &Path, keys: &Keys, each: &mut dyn FnMut(Read<'_>)) -> Result<(), Finding> {
    let mut assembly = Assembly::default();
    read_entries(directory, keys, &mut |Entry { sequence, part }| {
        let joined = part.map(|part| assembly.push(sequence, part));
        match joined {
            Ok(Ok(Some((first, record)))) => each(Read::Record((first, sequence), &record)),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => each(Read::Unreadable(sequence)),
        }
        Ok(())
    })
}

/// A name for a hold, never used before. `None` when no random numbers can be had.
#[must_use]
pub fn hold_id() -> Option<String> {
    let mut id = [0; 8];
    rand::fill(&mut id).ok()?;
    Some(format!("{:016x}", u64::from_be_bytes(id)))
}

/// The holds of a trail.
///
/// # Errors
/// When the trail cannot be read.
pub fn holds(directory: &Path, keys: &Keys) -> Result<Holds, Finding> {
    let mut holds = Holds::default();
    read_records(directory, keys, &mut |read| {
        if let Read::Record((first, _), record) = read {
            holds.learn(first, record);
        }
    })?;
    Ok(holds)
}

impl Plan {
    /// The record of it, with all that is withheld afterwards. `None` when nothing is added.
    fn pruned(&self, operator: &str) -> Option<Pruned> {
        let added = self.bundles.count();
        let add = |all: Bundles, bundle| all.with(bundle).unwrap_or(all);
        let bundles = self.bundles.iter().fold(self.earlier.clone(), add);
        let (keep, before, operator) = (self.keep, self.before, operator.to_owned());
        (added > 0).then_some(Pruned { keep, before, bundles, added, operator })
    }
}

/// Carries a plan out, and finishes what an interrupted prune left. `journal` is the open one of this trail.
///
/// # Errors
/// A sentence that says what could not be done; it is finished by the next prune.
pub async fn retain(
    journal: &Journal,
    trail: &Settings,
    plan: Plan,
    operator: &str,
    now: Timestamp,
) -> Result<Retained, String> {
    let mut sequence = None;
    let pruned = plan.pruned(operator);
    if let Some(pruned) = &pruned {
        let receipt = journal.append(&[pruned.record(now)]).await.map_err(|error| error.to_string())?;
        if receipt.kept() != Kept::Log {
            return Err("the prune was not recorded in the log".to_owned());
        }
        sequence = Some(receipt.sequence());
    }
    let (trail, named) = (trail.clone(), sequence.zip(pruned.map(|pruned| pruned.bundles)));
    let removed = tokio::task::spawn_blocking(move || remove(&trail, &plan, named)).await;
    let (bundles, keys) = removed.map_err(|error| error.to_string())??;
    Ok(Retained { bundles, keys, sequence })
}

/// Says what is withheld, and then removes it.
fn remove(trail: &Settings, plan: &Plan, named: Option<(u64, Bundles)>) -> Result<(u64, usize), String> {
    let keys = Keys::load(trail).map_err(|error| error.to_string())?;
    let directory = &trail.directory;
    let log = verifier(directory, &keys).map_err(|finding| finding.to_string())?;
    let fault = |error: io::Error| error.to_string();
    if let Some((sequence, bundles)) = named {
        Withheld { sequence, bundles }.write(directory, log.name(), &keys).map_err(fault)?;
    }
    let withheld = Withheld::load(directory, log.name(), &keys).map_err(fault)?;
    let (mut removed, mut changed) = (0, BTreeSet::new());
    // A hold that came after an interrupted prune keeps what is still there.
    for bundle in withheld.bundles.iter().filter(|bundle| !plan.stays.contains(*bundle)) {
        let path = directory.join(Tile::full(TileKind::Entries, bundle).path());
        match fs::remove_file(&path) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.to_string()),
        }
        changed.extend(path.parent().map(Path::to_owned));
    }
    changed.iter().try_for_each(|folder| sync_directory(folder)).map_err(fault)?;
    let shredded = shred(directory, log.name(), &keys).map_err(fault)?;
    Ok((removed, shredded))
}

/// Destroys every data key all of whose entries are gone.
fn shred(directory: &Path, origin: &str, keys: &Keys) -> io::Result<usize> {
    let snapshot = Snapshot::take(directory)?;
    let (files, wrong) = KeyFiles::read(&snapshot.data_keys, &Ring::new(directory, origin, keys));
    // A stretch ends where the next key begins: without every file nobody knows where.
    if let Some((place, what)) = wrong.into_iter().next() {
        return Err(io::Error::other(format!("`{place}` {what}")));
    }
    let withheld = Withheld::load(directory, origin, keys)?;
    let there: BTreeMap<u64, ()> = snapshot.tiles.iter().filter_map(bundle_of).map(|at| (at, ())).collect();
    let is_gone = |bundle: u64| withheld.bundles.contains(bundle) && !there.contains_key(&bundle);
    let mut shredded = 0;
    for file in &files.files {
        let Some((first, end)) = files.stretch(file.id).filter(|(_, end)| *end < u64::MAX) else { continue };
        if first < end && (first / 256..=(end - 1) / 256).all(is_gone) {
            fs::remove_file(directory.join(key_path(file.id)))?;
            shredded += 1;
        }
    }
    if shredded > 0 {
        sync_keys(directory)?;
    }
    Ok(shredded)
}

fn bundle_of(tile: &Tile) -> Option<u64> {
    (tile.kind == TileKind::Entries && tile.is_full()).then_some(tile.index)
}
