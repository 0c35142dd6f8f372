//! Tampering of every kind is found.

use super::*;
use crate::domain::ledger::{read_bundle, write_entry};

/// A closed trail of a few entries.
fn small() -> Ward {
    let ward = Ward::new();
    let journal = ward.open();
    for n in 0..3 {
        let _receipt = append(&journal, &format!("r{n}")).unwrap();
    }
    close(&journal);
    ward
}

/// A closed trail with full bundles and tiles.
fn large() -> Ward {
    let ward = Ward::new();
    let journal = ward.open();
    append_many(&journal, 530);
    close(&journal);
    ward
}

#[track_caller]
fn is_found(ward: &Ward, case: &str) {
    assert!(!ward.findings().is_empty(), "{case}");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let ward = small();
    ward.verifies();
    for (path, whole) in ward.files() {
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, changed).unwrap();
            is_found(&ward, &format!("{} byte {at}", path.display()));
        }
        fs::write(&path, &whole).unwrap();
    }
    ward.verifies();
}

#[test]
fn a_flipped_bit_in_full_tiles_is_found_and_named() {
    let ward = large();
    for (path, whole) in ward.files() {
        let name = path.strip_prefix(&ward.settings.directory).unwrap().to_string_lossy().into_owned();
        for at in (0..whole.len()).step_by(1 + whole.len() / 6) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&path, changed).unwrap();
            let findings = ward.findings();
            assert!(
                findings.iter().any(|finding| finding.place.contains(&name)),
                "{name} {at}: {findings:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_cut_file_is_found() {
    for ward in [small(), large()] {
        for (path, whole) in ward.files() {
            let lengths =
                (0..4).chain((4..whole.len()).step_by(1 + whole.len() / 8)).chain([whole.len() - 1]);
            for length in lengths.filter(|length| *length < whole.len()) {
                fs::write(&path, &whole[..length]).unwrap();
                is_found(&ward, &format!("{} cut to {length}", path.display()));
            }
            let longer = [&whole[..], b"\0"].concat();
            fs::write(&path, longer).unwrap();
            let findings = ward.findings();
            // A byte behind the last frame could be the beginning of the next one only if it began like one.
            assert!(!findings.is_empty(), "{} extended", path.display());
            fs::write(&path, &whole).unwrap();
        }
        ward.verifies();
    }
}

#[test]
fn a_deleted_or_added_file_is_found() {
    let ward = large();
    for (path, whole) in ward.files() {
        fs::remove_file(&path).unwrap();
        is_found(&ward, &format!("{} deleted", path.display()));
        fs::write(&path, &whole).unwrap();
    }
    for name in
        ["notes.txt", "tile/0/x001/000", "tile/entries/007", "tile/9/000", "segment/1", "tile/0/000.p/7x"]
    {
        let path = ward.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"x").unwrap();
        is_found(&ward, name);
        fs::remove_file(path).unwrap();
    }
    std::os::unix::fs::symlink("checkpoint", ward.path("tile/link")).unwrap();
    is_found(&ward, "a link");
    fs::remove_file(ward.path("tile/link")).unwrap();
    for name in [
        "journal.lock",
        "a.lock",
        "search-index.bin",
        "x.tmp",
        "gate.pid",
        "s.sqlite",
        "s.sqlite-wal",
        "s.db",
        "s.db3",
    ] {
        fs::write(ward.path(name), b"x").unwrap();
    }
    ward.verifies();
}

#[test]
fn swapped_entries_are_found_and_named() {
    let ward = large();
    for name in ["tile/entries/000", "tile/entries/002.p/19"] {
        let whole = fs::read(ward.path(name)).unwrap();
        let mut entries = read_bundle(&whole).unwrap();
        entries.swap(3, 4);
        let mut bundle = Vec::new();
        entries.iter().for_each(|entry| write_entry(&mut bundle, entry).unwrap());
        fs::write(ward.path(name), bundle).unwrap();
        let findings = ward.findings();
        assert!(findings.iter().any(|finding| finding.place.starts_with(name)), "{findings:?}");
        fs::write(ward.path(name), whole).unwrap();
    }
    ward.verifies();
}

/// Someone with the log's own code, but not its signing key, who changes entries and rebuilds everything.
#[test]
fn a_foreign_log_is_found() {
    let (ours, other) = (small(), small());
    let mut swapped = vec!["checkpoint", "published"];
    for name in &swapped {
        let kept = fs::read(ours.path(name)).unwrap();
        fs::copy(other.path(name), ours.path(name)).unwrap();
        is_found(&ours, name);
        fs::write(ours.path(name), kept).unwrap();
    }
    swapped.push("segment/00000000000000000000");
    let forged = ours.snapshot();
    fs::remove_dir_all(&forged.settings.directory).unwrap();
    fs::create_dir(&forged.settings.directory).unwrap();
    copy_all(&other.settings.directory, &forged.settings.directory);
    is_found(&forged, "a whole foreign directory");
}

#[test]
fn two_logs_of_one_key_cannot_be_mixed() {
    let ours = small();
    let sibling = ours.snapshot();
    fs::remove_dir_all(&sibling.settings.directory).unwrap();
    create(&sibling.settings, time()).unwrap();
    let journal = sibling.open();
    for n in 0..3 {
        let _receipt = append(&journal, &format!("r{n}")).unwrap();
    }
    close(&journal);
    sibling.verifies();
    for (path, _) in sibling.files() {
        let name = path.strip_prefix(&sibling.settings.directory).unwrap();
        let mixed = ours.snapshot();
        fs::copy(&path, mixed.settings.directory.join(name)).unwrap();
        is_found(&mixed, &name.display().to_string());
    }
}

#[test]
fn an_older_version_of_any_file_is_found() {
    let ward = small();
    let before = ward.snapshot();
    let journal = ward.open();
    append_many(&journal, 3);
    close(&journal);
    for (path, whole) in before.files() {
        let name = path.strip_prefix(&before.settings.directory).unwrap();
        let rolled = ward.snapshot();
        let target = rolled.settings.directory.join(name);
        if target.exists() && fs::read(&target).unwrap() != whole {
            fs::write(&target, whole).unwrap();
            is_found(&rolled, &format!("{} put back", name.display()));
        }
    }
}

#[test]
fn a_checkpoint_kept_elsewhere_finds_a_whole_rollback() {
    let ward = small();
    let before = ward.snapshot();
    let early = fs::read(ward.path("checkpoint")).unwrap();
    let journal = ward.open();
    append_many(&journal, 3);
    close(&journal);
    let late = fs::read(ward.path("checkpoint")).unwrap();
    let keys = Keys::load(&ward.settings).unwrap();
    let check = |ward: &Ward, kept: &[u8]| {
        let request = Request { decode: true, against: Some(kept), ..Request::default() };
        inspect(&ward.settings.directory, &keys, request).unwrap().findings.is_empty()
    };
    assert!(check(&ward, &early) && check(&ward, &late) && check(&before, &early));
    assert!(!check(&before, &late), "the directory was put back");
    assert!(!check(&ward, b"nonsense"));
    let fork = before.snapshot();
    let journal = fork.open();
    append_many(&journal, 3);
    close(&journal);
    fork.verifies();
    assert!(!check(&fork, &late), "another history of the same length");
}

#[test]
fn equal_records_have_different_entries() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = block(journal.append(&[release("same", 1), release("same", 1)])).unwrap();
    close(&journal);
    let bundle = fs::read(ward.path("tile/entries/000.p/3")).unwrap();
    let entries = read_bundle(&bundle).unwrap();
    // Version and key id are equal, everything behind is not.
    assert_eq!(entries[1][..9], entries[2][..9]);
    assert_ne!(entries[1][9..21], entries[2][9..21]);
    let equal = entries[1][21..].iter().zip(&entries[2][21..]).filter(|(one, two)| one == two).count();
    assert!(equal < entries[1].len() / 10);
    for (path, bytes) in ward.files() {
        let is_readable = bytes.windows(4).any(|window| window == b"same");
        assert!(!is_readable, "{}", path.display());
    }
}
