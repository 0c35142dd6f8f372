//! Data keys and the key they are wrapped for: old trails, changing the key, and what a crash leaves.

use super::*;
use crate::domain::ledger::{Checkpoint, Frontier, Hash, leaf_hash, sign};
use crate::edge::journal::layout::{make_directory, replace};

/// Settings of the same trail with another encryption key.
fn with_key(ward: &Ward, name: &str) -> Settings {
    Settings { encryption_key: ward.place.path().join(name), ..ward.settings.clone() }
}

fn is_found(settings: &Settings) -> bool {
    let keys = Keys::load(settings).unwrap();
    let request = Request { decode: true, ..Request::default() };
    !inspect(&settings.directory, &keys, request).unwrap().findings.is_empty()
}

fn key_files(ward: &Ward) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(ward.path("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn new_key(ward: &Ward, name: &str) -> Settings {
    let settings = with_key(ward, name);
    generate_encryption_key(&settings.encryption_key).unwrap();
    settings
}

fn rotate(ward: &Ward, next: &Settings) -> Rotated {
    let journal = Journal::open_to_rotate(&ward.settings).unwrap();
    let rotated = block(journal.rotate_key(&next.encryption_key)).unwrap();
    close(&journal);
    rotated
}

/// A trail of several segments, each with a data key.
fn many_keys() -> Ward {
    let ward = Ward::new();
    for _ in 0..3 {
        let journal = ward.open();
        append_many(&journal, 300);
        close(&journal);
    }
    let journal = ward.open();
    let _receipt = append(&journal, "last").unwrap();
    close(&journal);
    ward
}

/// A trail as it was written before there were data keys: entries of version 1, sealed with the configured key.
fn old_trail() -> Ward {
    let ward = Ward::empty();
    generate_missing(&ward.settings).unwrap();
    let keys = Keys::load(&ward.settings).unwrap();
    let directory = &ward.settings.directory;
    make_directory(directory).unwrap();
    make_directory(&directory.join("segment")).unwrap();
    let origin = "chartgate/0123456789abcdef0123456789abcdef";
    let details = BTreeMap::from([("origin".to_owned(), origin.to_owned())]);
    let control = audit::Control { time: time(), event: audit::Event::Created, details };
    let (mut frontier, mut entries) = (Frontier::default(), Vec::new());
    for record in [Record::Control(control), release("old-1", 1), release("old-2", 1)] {
        for part in audit::encode(&record).unwrap() {
            let entry = keys.cipher.seal(origin, frontier.size(), &part).unwrap();
            frontier.push(leaf_hash(&entry));
            entries.push(entry);
        }
    }
    let note =
        |size, root| sign(&keys.signer, &Checkpoint { origin: origin.to_owned(), size, root }).unwrap();
    let note_now = note(frontier.size(), frontier.root());
    fs::write(ward.path("segment/00000000000000000000"), frame::write(0, &entries, &note_now).unwrap())
        .unwrap();
    replace(&ward.path("published"), &note(0, Hash::of(&[]))).unwrap();
    replace(&ward.path("checkpoint"), &note_now).unwrap();
    ward
}

#[test]
fn every_segment_has_a_data_key_of_its_own() {
    let ward = many_keys();
    assert_eq!(ward.verifies(), 902);
    assert_eq!(key_files(&ward).len(), 4, "the later openings began a segment");
    let whole = fs::read_to_string(&key_files(&ward)[0]).unwrap();
    let master = fs::read_to_string(&ward.settings.encryption_key).unwrap();
    assert!(whole.starts_with("chartgate audit data key\nchartgate/") && !whole.contains(master.trim()));
    let journal = ward.open();
    for n in 0..24 {
        let _receipt = block(journal.append(&[release(&format!("b{n}"), 5_000)])).unwrap();
    }
    close(&journal);
    ward.verifies();
    assert!(key_files(&ward).len() > 4, "so did those that were full");
}

#[test]
fn a_trail_from_before_data_keys_stays_readable_and_goes_on() {
    let ward = old_trail();
    assert_eq!(ward.verifies(), 3);
    let journal = ward.open();
    let _receipt = append(&journal, "new").unwrap();
    close(&journal);
    assert_eq!(ward.request_ids(), ["old-1", "old-2", "new"]);
    ward.verifies();
    // And after the key was changed, when the old one is a data key itself.
    let next = new_key(&ward, "next.aes");
    assert_eq!(rotate(&ward, &next).keys, 2);
    let journal = Journal::open(&next).unwrap();
    close(&journal);
    assert!(!is_found(&next) && is_found(&ward.settings));
    let changed = Ward { settings: next, place: ward.place };
    assert_eq!(changed.request_ids(), ["old-1", "old-2", "new"]);
    // Its file is demanded, like any other.
    let old =
        key_files(&changed).into_iter().find(|path| fs::read_to_string(path).unwrap().contains("\n0\n"));
    fs::remove_file(old.unwrap()).unwrap();
    assert!(is_found(&changed.settings));
}

#[test]
fn the_key_can_be_changed() {
    let ward = many_keys();
    let next = new_key(&ward, "next.aes");
    let rotated = rotate(&ward, &next);
    assert_eq!(rotated.keys, 4);
    assert_eq!(rotated.to, Keys::load(&next).unwrap().encryption_key_id());
    // Both read; only the new one writes.
    assert!(!is_found(&ward.settings) && !is_found(&next));
    assert_eq!(ward.inspect().notes.len(), 1);
    assert!(matches!(Journal::open(&ward.settings), Err(OpenError::KeyRotated(to)) if to == rotated.to));
    let lost = ward.snapshot();
    let journal = Journal::open(&next).unwrap();
    let _receipt = append(&journal, "after").unwrap();
    close(&journal);
    // From here on the old one opens nothing, not even with its files of before.
    assert!(is_found(&ward.settings) && !is_found(&next));
    assert!(matches!(Journal::open(&ward.settings), Err(OpenError::Damaged(..))));
    for file in key_files(&ward) {
        let name = file.file_name().unwrap().to_owned();
        let now = fs::read(&file).unwrap();
        fs::copy(lost.path("keys").join(&name), &file).unwrap();
        // A wrapping that was dropped and put back opens nothing new: the note says so, and the next opening drops it again.
        assert!(!is_found(&next));
        fs::write(&file, now).unwrap();
    }
    // The new key was lost before the configuration named it: once more, from the old one.
    let third = new_key(&lost, "third.aes");
    rotate(&lost, &third);
    let journal = Journal::open(&third).unwrap();
    close(&journal);
    assert!(!is_found(&third) && is_found(&lost.settings));
    let changed = Ward { settings: third, place: lost.place };
    let keys = Keys::load(&changed.settings).unwrap();
    let mut changes = 0;
    read_entries(&changed.settings.directory, &keys, &mut |entry| {
        let record = audit::Assembly::default().push(entry.sequence, entry.part.unwrap()).unwrap();
        changes += usize::from(matches!(record, Some((_, Record::Control(control)))
            if control.event == audit::Event::KeyRotated && control.details["from"] != control.details["to"]));
        Ok(())
    })
    .unwrap();
    assert_eq!(changes, 2);
}

/// Every mixture of files of before and after: the old key opens the trail until the last file is there, then the new one does.
#[test]
fn a_change_of_the_key_may_end_anywhere() {
    let ward = many_keys();
    let next = new_key(&ward, "next.aes");
    let before = ward.snapshot();
    rotate(&ward, &next);
    let both = ward.snapshot();
    close(&Journal::open(&next).unwrap());
    let after = ward.snapshot();
    let names: Vec<_> = key_files(&ward).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    for (from, to, is_second_half) in [(&before, &both, false), (&both, &after, true)] {
        for mixture in 0..1_u32 << names.len() {
            let crashed = both.snapshot();
            for (at, name) in names.iter().enumerate() {
                let source = if mixture & (1 << at) == 0 { from } else { to };
                fs::copy(source.path("keys").join(name), crashed.path("keys").join(name)).unwrap();
            }
            fs::write(crashed.path("keys").join("0123456789abcdef.tmp"), "half a k").unwrap();
            let done = is_second_half || mixture + 1 == 1 << names.len();
            let (opens, other) = (with_key(&crashed, "next.aes"), crashed.settings.clone());
            let (opens, other) = if done { (opens, other) } else { (other, opens) };
            assert!(!is_found(&opens), "{mixture}");
            assert!(Journal::open(&other).is_err(), "{mixture}");
            let journal = Journal::open(&opens).unwrap_or_else(|error| panic!("{mixture}: {error}"));
            let _receipt = append(&journal, "after").unwrap();
            close(&journal);
            let recovered = Ward { settings: opens, place: crashed.place };
            recovered.verifies();
            assert_eq!(recovered.request_ids().last().unwrap(), "after");
            for file in key_files(&recovered) {
                assert!(
                    file.extension().is_some() || fs::read_to_string(&file).unwrap().lines().count() == 7
                );
            }
        }
    }
}

#[test]
fn a_data_key_under_which_nothing_stands_is_dropped() {
    let ward = Ward::new();
    let keys = Keys::load(&ward.settings).unwrap();
    let origin = ward.inspect().origin;
    let orphan = datakeys::keep(&ward.settings.directory, &origin, &keys, (&[3; 32], 1), None).unwrap();
    let path = ward.path(&datakeys::path(orphan.id()));
    assert!(path.exists());
    assert_eq!(ward.findings(), [], "a crash is not tampering");
    close(&ward.open());
    assert!(!path.exists());
    ward.verifies();
}

#[test]
fn what_is_done_to_key_files_is_found_and_named() {
    let ward = many_keys();
    let files = key_files(&ward);
    let whole: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let (origin, keys) = (ward.inspect().origin, Keys::load(&ward.settings).unwrap());
    let places = |ward: &Ward| -> String { ward.findings().iter().map(ToString::to_string).collect() };
    let name = |at: usize| files[at].file_name().unwrap().to_string_lossy().into_owned();
    for (at, file) in files.iter().enumerate() {
        for byte in 0..whole[at].len() {
            let mut changed = whole[at].clone();
            changed[byte] ^= 1 << (byte % 8);
            fs::write(file, changed).unwrap();
            let id = datakeys::id_of(&format!("keys/{}", name(at))).unwrap();
            let read = datakeys::KeyFile::read(id, &fs::read(file).unwrap(), &origin, &keys);
            assert!(read.is_err(), "byte {byte}");
            if byte % 200 == 0 {
                assert!(places(&ward).contains(&name(at)), "byte {byte}");
            }
        }
        // Another's content under this name; deleted; emptied.
        fs::write(file, &whole[(at + 1) % 4]).unwrap();
        assert!(places(&ward).contains("the file of another data key"), "{}", places(&ward));
        fs::write(file, "").unwrap();
        assert!(places(&ward).contains(&name(at)));
        fs::remove_file(file).unwrap();
        assert!(places(&ward).contains("missing or damaged"), "{}", places(&ward));
        assert!(matches!(Journal::open(&ward.settings), Err(OpenError::Damaged(..))));
        fs::write(file, &whole[at]).unwrap();
    }
    ward.verifies();
}

/// Somebody with the signing key, but not the other: a data key of theirs opens nothing, and one of another trail is no better.
#[test]
fn a_key_file_signed_by_the_log_for_another_key_is_found() {
    let ward = many_keys();
    let origin = ward.inspect().origin;
    let mut strangers = Keys::load(&new_key(&ward, "stranger.aes")).unwrap();
    let made = datakeys::keep(&ward.settings.directory, &origin, &strangers, (&[9; 32], 0), None).unwrap();
    assert!(!ward.findings().is_empty());
    fs::remove_file(ward.path(&datakeys::path(made.id()))).unwrap();
    strangers = Keys::load(&ward.settings).unwrap();
    let made = datakeys::keep(&ward.settings.directory, "chartgate/other", &strangers, (&[9; 32], 0), None);
    assert!(!ward.findings().is_empty());
    fs::remove_file(ward.path(&datakeys::path(made.unwrap().id()))).unwrap();
    // With both keys, and a range that is not its own: the entries there name another.
    let made = datakeys::keep(&ward.settings.directory, &origin, &strangers, (&[9; 32], 100), None).unwrap();
    assert!(ward.findings()[0].what.contains("another stretch"), "{:?}", ward.findings());
    fs::remove_file(ward.path(&datakeys::path(made.id()))).unwrap();
    ward.verifies();
}

/// The journal stops, readiness says so, and nothing more is acknowledged under a key that is gone.
#[test]
fn a_key_file_that_goes_while_the_journal_works_stops_it() {
    let ward = Ward::new();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let file = key_files(&ward).remove(0);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(append(&journal, "r2").is_err());
    assert!(!journal.ready());
    fs::write(&file, whole).unwrap();
    assert_eq!(ward.findings(), []);
}
