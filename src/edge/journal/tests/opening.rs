//! Opening a long trail: what is passed over, what is not, and that all of it is read in the end.

use std::time::Instant;

use super::*;
use crate::domain::ledger::{Tile, TileKind};
use crate::edge::journal::inspect::{Reading, Trust, read};
use crate::edge::journal::open::Purpose;

/// Tiles of leaves stand for bundles, so that a trail of some bundles is a long one.
const TRUST: Trust = Trust { level: 0, newest: 256 };

/// Seven bundles and a part, in segments with keys of their own.
fn long() -> Ward {
    let ward = Ward::new();
    for count in [300, 300, 600, 650] {
        let journal = ward.open();
        append_many(&journal, count);
        close(&journal);
    }
    ward
}

fn trusting(ward: &Ward) -> Result<Journal, OpenError> {
    Journal::open_trusting(&ward.settings, (Purpose::Writing, Some(TRUST)))
}

fn read_by(ward: &Ward, reading: Reading<'_>) -> Inspection {
    let keys = Keys::load(&ward.settings).unwrap();
    read(&ward.settings.directory, &keys, Request::default(), reading).unwrap()
}

#[track_caller]
fn waits_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_the_writer_needs_is_the_same_whatever_was_read() {
    let ward = long();
    for count in [0, 5, 180, 300] {
        let journal = ward.open();
        if count > 0 {
            append_many(&journal, count);
        }
        close(&journal);
        let whole = read_by(&ward, Reading::Whole(&mut || Ok(())));
        for newest in [0, 255, 256, 700] {
            let short = read_by(&ward, Reading::Start(Trust { newest, ..TRUST }));
            assert_eq!((short.size, &short.root, &short.findings), (whole.size, &whole.root, &vec![]));
            let read = |found: &Inspection| {
                let resume = &found.resume;
                let keys = resume.key_files.files.iter().map(|file| file.id).collect::<Vec<_>>();
                (
                    resume.frontier.clone(),
                    resume.tiles.clone(),
                    resume.entries.clone(),
                    resume.note.clone(),
                    resume.is_current,
                    keys,
                )
            };
            assert_eq!(read(&short), read(&whole), "{count} {newest}");
            assert_eq!(short.resume.last_sealed, whole.resume.last_sealed);
            assert!(short.resume.used_keys.is_superset(&whole.resume.used_keys));
            // Not the first bundle, and not what still stands in a segment.
            let most = (whole.size.saturating_sub(newest) / 256).saturating_sub(1) * 256;
            let unread = short.resume.unread;
            assert!(whole.resume.unread == 0 && (1..=most).contains(&unread), "{count} {newest}: {unread}");
        }
    }
}

#[test]
fn a_long_trail_is_opened_written_and_verified_behind() {
    let ward = long();
    let keys = fs::read_dir(ward.path("keys")).unwrap().count();
    let journal = trusting(&ward).unwrap();
    assert!(journal.counters().unverified > 0);
    let _receipt = append(&journal, "early").unwrap();
    waits_until(|| journal.counters().unverified == 0);
    assert!(journal.ready());
    let _receipt = append(&journal, "late").unwrap();
    close(&journal);
    // One more for the segment that was begun.
    assert_eq!(fs::read_dir(ward.path("keys")).unwrap().count(), keys + 1);
    assert_eq!(ward.verifies(), 1 + 1850 + 2);
}

#[test]
fn what_was_passed_over_and_changed_puts_the_journal_out_of_service() {
    let ward = long();
    for (case, changed) in [
        ("a byte of an entry", Tile::full(TileKind::Entries, 2)),
        ("the order of entries", Tile::full(TileKind::Entries, 3)),
    ] {
        let path = ward.path(&changed.path());
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        if case.starts_with("a byte") {
            bytes[200] ^= 1
        } else {
            bytes.rotate_left(1)
        }
        fs::write(&path, bytes).unwrap();
        assert!(Journal::open_to_rotate(&ward.settings).is_err(), "{case}: the whole is read there");
        let journal = trusting(&ward).unwrap();
        waits_until(|| !journal.ready());
        let failure = append(&journal, "r").unwrap_err();
        let JournalError::Failed(why) = &failure else { panic!("{case}: {failure:?}") };
        let named = format!("/{:03}", changed.index);
        assert!(why.starts_with("verification: tile/") && why.contains(&named), "{case}: {why}");
        assert!(block(journal.append_in_reserve(&[release("r", 1)])).is_err(), "{case}");
        assert!(block(journal.close()).is_err());
        fs::write(&path, whole).unwrap();
    }
    ward.verifies();
}

#[test]
fn what_opening_reads_must_be_there_and_agree() {
    let ward = long();
    let path = ward.path(&Tile::full(TileKind::Hashes(0), 2).path());
    // Without the tile the entries are read; that it is missing is seen at once.
    let tile = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(trusting(&ward), Err(OpenError::Damaged(..))));
    // A tile that says something else does not agree with what was signed.
    let mut other = tile.clone();
    other[40] ^= 1;
    fs::write(&path, other).unwrap();
    assert!(matches!(trusting(&ward), Err(OpenError::Damaged(..))));
    fs::write(&path, tile).unwrap();
    // The first entry and the newest are read.
    for index in [0, 6] {
        let bundle = ward.path(&Tile::full(TileKind::Entries, index).path());
        let whole = fs::read(&bundle).unwrap();
        let mut other = whole.clone();
        other[300] ^= 1;
        fs::write(&bundle, other).unwrap();
        assert!(matches!(trusting(&ward), Err(OpenError::Damaged(..))), "{index}");
        fs::write(&bundle, whole).unwrap();
    }
    // What is gone is missed by its name.
    let bundle = ward.path(&Tile::full(TileKind::Entries, 3).path());
    let whole = fs::read(&bundle).unwrap();
    fs::remove_file(&bundle).unwrap();
    assert!(matches!(trusting(&ward), Err(OpenError::Damaged(..))));
    fs::write(&bundle, whole).unwrap();
    close(&trusting(&ward).unwrap());
    ward.verifies();
}

#[test]
fn a_kept_checkpoint_is_compared_at_its_place() {
    let ward = long();
    let keys = Keys::load(&ward.settings).unwrap();
    for size in [700, 512, 1] {
        let mut frontier = crate::domain::ledger::Frontier::default();
        let origin = ward.inspect_origin();
        let mut reader = Reader::open(&ward.settings.directory, &keys).unwrap();
        for sequence in 0..size {
            frontier.push(reader.entry(sequence).unwrap().0);
        }
        for (root, is_ours) in [(frontier.root(), true), (crate::domain::ledger::Hash::of(&[b"x"]), false)] {
            let checkpoint = crate::domain::ledger::Checkpoint { origin: origin.clone(), size, root };
            let kept = crate::domain::ledger::sign(&keys.signer, &checkpoint).unwrap();
            let request = Request { against: Some(&kept), ..Request::default() };
            let found = read(&ward.settings.directory, &keys, request, Reading::Start(TRUST)).unwrap();
            assert_eq!(found.findings.is_empty(), is_ours, "{size}");
            assert!(found.resume.unread > 0);
        }
    }
}
