//! What a crash leaves at each step of the write path, and what opening makes of it. The states are built
//! from copies of the directory before and after a step; the steps are those in the headers of `writer` and
//! `publisher`.

use std::io::Write as _;

use super::*;

const SEGMENT: &str = "segment/00000000000000000000";

/// Opens what a crash left, appends, and checks that nothing acknowledged is lost.
fn recovers(ward: &Ward, acknowledged: &[&str], case: &str) {
    assert_eq!(ward.findings(), [], "{case}: a crash is not tampering");
    let journal = Journal::open(&ward.settings).unwrap_or_else(|error| panic!("{case}: {error}"));
    let _receipt = append(&journal, "after").unwrap();
    close(&journal);
    assert_eq!(ward.findings(), [], "{case}: after recovery");
    let ids = ward.request_ids();
    let is_there = |id: &&str| ids.iter().any(|there| there == id);
    assert!(acknowledged.iter().all(is_there) && is_there(&"after"), "{case}: {ids:?}");
}

#[test]
fn a_torn_frame_of_any_length_is_dropped() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let before = ward.snapshot();
    let _receipt = append(&journal, "r2").unwrap();
    let whole = fs::read(ward.path(SEGMENT)).unwrap();
    let old = fs::read(before.path(SEGMENT)).unwrap();
    assert!(whole.starts_with(&old));
    for cut in old.len()..whole.len() {
        let torn = before.snapshot();
        fs::write(torn.path(SEGMENT), &whole[..cut]).unwrap();
        let notes = torn.inspect().notes;
        assert_eq!(notes.len(), usize::from(cut > old.len()), "{notes:?}");
        recovers(&torn, &["r1"], &format!("cut at {cut}"));
        assert!(!torn.request_ids().contains(&"r2".to_owned()));
    }
    close(&journal);
}

#[test]
fn a_whole_frame_behind_the_checkpoint_is_kept() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let before = ward.snapshot();
    let _receipt = append(&journal, "r2").unwrap();
    let after = ward.snapshot();
    // Power cut: the segment was synced, the rename of the checkpoint was not.
    fs::copy(before.path("checkpoint"), after.path("checkpoint")).unwrap();
    fs::write(after.path("checkpoint.tmp"), b"half a check").unwrap();
    assert_eq!(after.inspect().notes.len(), 1);
    recovers(&after, &["r1", "r2"], "checkpoint not renamed");
    close(&journal);
}

#[test]
fn a_changed_frame_behind_the_checkpoint_is_tampering() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let before = ward.snapshot();
    let _receipt = append(&journal, "r2").unwrap();
    let start = fs::read(before.path(SEGMENT)).unwrap().len();
    let after = ward.snapshot();
    fs::copy(before.path("checkpoint"), after.path("checkpoint")).unwrap();
    let whole = fs::read(after.path(SEGMENT)).unwrap();
    for at in start..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(after.path(SEGMENT), changed).unwrap();
        assert!(!after.findings().is_empty(), "byte {at}");
        assert!(matches!(Journal::open(&after.settings), Err(OpenError::Damaged(..))), "byte {at}");
    }
    close(&journal);
}

/// Every subset that matters of what one publication writes and removes.
#[test]
fn a_publication_may_end_anywhere() {
    let ward = Ward::new();
    let journal = ward.open();
    append_many(&journal, 250);
    close(&journal);
    let before = ward.snapshot();
    let journal = ward.open();
    append_many(&journal, 300);
    let mid = ward.snapshot();
    close(&journal);
    let acknowledged = ["many-0", "many-249", "many-299"];
    // Step 1: the first n new tiles are there, in the order of their names, forwards and backwards.
    let root = &ward.settings.directory;
    let old = before.files();
    let mut new: Vec<_> = ward
        .files()
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes))
        .filter(|(path, _)| {
            path.starts_with("tile") && !old.contains_key(&before.settings.directory.join(path))
        })
        .collect();
    assert!(new.len() >= 6, "{}", new.len());
    for _ in 0..2 {
        for count in 0..=new.len() {
            let crashed = mid.snapshot();
            for (path, bytes) in &new[..count] {
                let path = crashed.settings.directory.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            recovers(&crashed, &acknowledged, &format!("{count} tiles"));
        }
        new.reverse();
    }
    // Step 2 done, step 3 not: the partial tiles of the publication before are still there.
    let crashed = ward.snapshot();
    for (path, bytes) in old.iter().filter(|(path, _)| path.to_string_lossy().contains(".p/")) {
        let path = crashed.settings.directory.join(path.strip_prefix(&before.settings.directory).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    assert!(crashed.files().len() > ward.files().len());
    recovers(&crashed, &acknowledged, "old partial tiles");
}

#[test]
fn a_rotation_may_end_anywhere() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let crashed = ward.snapshot();
    // The new segment is made, and nothing is in it yet.
    fs::File::create(crashed.path("segment/00000000000000000002")).unwrap();
    recovers(&crashed, &["r1"], "empty segment");
    // The segment is closed, its entries are published, and it is still there after they moved to bundles.
    append_many(&journal, 600);
    let mid = ward.snapshot();
    for n in 0..40 {
        let _receipt = block(journal.append(&[release(&format!("b{n}"), 5000)])).unwrap();
    }
    close(&journal);
    assert!(!ward.path(SEGMENT).exists(), "the first segment was removed");
    let whole = ward.snapshot();
    let bundles = ["tile/entries/000", "tile/entries/001", "tile/entries/002"];
    let old = fs::read(mid.path(SEGMENT)).unwrap();
    // Rebuild the removed segment: what it held before, then the frames that followed in it are lost to us,
    // so only its presence with entries that the bundles hold too is checked.
    assert!(bundles.iter().all(|bundle| whole.path(bundle).exists()) && !old.is_empty());
    recovers(&whole, &["r1", "many-599", "b39"], "rotated");
}

#[test]
fn recovery_may_be_interrupted() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let before = ward.snapshot();
    let _receipt = append(&journal, "r2").unwrap();
    let crashed = ward.snapshot();
    fs::copy(before.path("checkpoint"), crashed.path("checkpoint")).unwrap();
    let mut segment = fs::OpenOptions::new().append(true).open(crashed.path(SEGMENT)).unwrap();
    segment.write_all(b"cgf1\0\0\0\0").unwrap();
    let reopened = crashed.open();
    // Killed right after opening, before anything was appended.
    let again = crashed.snapshot();
    recovers(&again, &["r1", "r2"], "opened twice");
    close(&reopened);
    recovers(&crashed, &["r1", "r2"], "opened once");
    close(&journal);
}

#[test]
fn a_damaged_trail_is_not_opened() {
    let ward = Ward::new();
    let journal = ward.open();
    append_many(&journal, 20);
    close(&journal);
    for name in ["checkpoint", "published"] {
        let damaged = ward.snapshot();
        fs::write(damaged.path(name), b"").unwrap();
        assert!(matches!(Journal::open(&damaged.settings), Err(OpenError::Damaged(..))), "{name}");
    }
    let other = Ward::new();
    let mixed = ward.snapshot();
    fs::copy(&other.settings.signing_key, &mixed.settings.signing_key).unwrap();
    assert!(matches!(Journal::open(&mixed.settings), Err(OpenError::Damaged(..))), "another signing key");
    let mixed = ward.snapshot();
    fs::copy(&other.settings.encryption_key, &mixed.settings.encryption_key).unwrap();
    assert!(matches!(Journal::open(&mixed.settings), Err(OpenError::Damaged(..))), "another encryption key");
}
