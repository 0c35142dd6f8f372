//! The reserve: what it takes when the log cannot, what a crash leaves at each step, and that every byte is covered.
//! A full disk is the writer's failure as the operating system would report it; `tests/journal_faults.rs` has real ones.

use std::collections::BTreeMap;

use super::*;
use crate::domain::audit::Event;
use crate::edge::journal::reserve::{self, ReserveKey};
use crate::limits::{RESERVE_BLOCK_BYTES, RESERVE_BYTES_MIN};

const SEGMENT: &str = "segment/00000000000000000000";
const NO_SPACE: i32 = 28;

fn with_reserve(ward: &Ward) -> Journal {
    with_reserve_of(ward, RESERVE_BYTES_MIN)
}

fn with_reserve_of(ward: &Ward, bytes: u64) -> Journal {
    let journal = ward.open();
    block(journal.keep_reserve(Some(bytes))).unwrap();
    journal
}

fn fill_up(journal: &Journal) {
    journal.state.fail("commit", &io::Error::from_raw_os_error(NO_SPACE));
}

fn spare(journal: &Journal, id: &str) -> Result<Receipt, JournalError> {
    block(journal.append_in_reserve(&[release(id, 1)]))
}

/// One acknowledged in the log, two in the reserve, one of them with its outcome.
fn used() -> Ward {
    let ward = Ward::new();
    let journal = with_reserve_of(&ward, 2 * RESERVE_BYTES_MIN);
    let receipt = append(&journal, "log").unwrap();
    assert_eq!((receipt.kept(), journal.reserve()), (Kept::Log, ReserveState::Ready));
    assert_eq!(spare(&journal, "early").unwrap().kept(), Kept::Log, "while the log works it has everything");
    fill_up(&journal);
    assert_eq!(append(&journal, "lost").unwrap_err(), JournalError::DiskFull);
    assert_eq!(spare(&journal, "first").unwrap().kept(), Kept::Reserve);
    let (receipt, slot) = block(journal.release_in_reserve("second", &[release("second", 300)])).unwrap();
    assert_eq!((receipt.kept(), receipt.sequence()), (Kept::Reserve, 1));
    slot.finish(time(), Ending::Complete, Some(7));
    assert_eq!(journal.reserve(), ReserveState::InUse);
    assert!(!journal.ready());
    block(journal.close()).unwrap_err();
    ward
}

fn events(ward: &Ward, wanted: Event) -> Vec<BTreeMap<String, String>> {
    let keys = Keys::load(&ward.settings).unwrap();
    let (mut assembly, mut found) = (audit::Assembly::default(), Vec::new());
    read_entries(&ward.settings.directory, &keys, &mut |entry| {
        let record = assembly.push(entry.sequence, entry.part.unwrap()).unwrap();
        if let Some((_, Record::Control(control))) = record
            && control.event == wanted
        {
            found.push(control.details);
        }
        Ok(())
    })
    .unwrap();
    found
}

/// Opens, and checks that what was acknowledged is there once, that the reserve is gone, and that the trail verifies.
#[track_caller]
fn takes_over(ward: &Ward, expected: &[&str], case: &str) {
    assert_eq!(ward.findings(), [], "{case}: a crash is not tampering");
    let journal = Journal::open(&ward.settings).unwrap_or_else(|error| panic!("{case}: {error}"));
    let is_left = fs::read(ward.path("reserve")).is_ok_and(|bytes| reserve::is_used(&bytes));
    assert!(!is_left, "{case}");
    close(&journal);
    assert_eq!(ward.findings(), [], "{case}: after taking over");
    assert_eq!(ward.request_ids(), expected, "{case}");
    assert!(events(ward, Event::ReserveTakenOver).len() <= 1, "{case}");
}

const ALL: [&str; 4] = ["log", "early", "first", "second"];

#[test]
fn what_the_log_could_not_take_reaches_it_once() {
    let ward = used();
    let notes = ward.inspect().notes;
    assert!(notes.iter().any(|note| note.contains("entries stand in the reserve")), "{notes:?}");
    let size = ward.verifies();
    takes_over(&ward, &ALL, "opened");
    let taken = events(&ward, Event::ReserveTakenOver);
    let entries: u64 = taken[0]["entries"].parse().unwrap();
    assert_eq!((entries >= 3, taken[0]["chain"].len()), (true, 64));
    // The record of it, and behind it what it counts.
    assert_eq!(ward.verifies(), size + 1 + entries);
    takes_over(&ward, &ALL, "opened again");
}

#[test]
fn an_outcome_follows_its_release_into_the_reserve() {
    let ward = used();
    close(&ward.open());
    let keys = Keys::load(&ward.settings).unwrap();
    let (mut assembly, mut endings) = (audit::Assembly::default(), Vec::new());
    read_entries(&ward.settings.directory, &keys, &mut |entry| {
        if let Some((_, Record::Outcome(end))) = assembly.push(entry.sequence, entry.part.unwrap()).unwrap() {
            endings.push((end.request_id, end.ending, end.sent_bytes));
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(endings, [("second".to_owned(), Ending::Complete, Some(7))]);
}

/// Every place where a takeover can end: inside its frame, and between its frame and the removal of the file.
#[test]
fn taking_over_may_end_anywhere() {
    let before = used();
    let after = before.snapshot();
    let journal = after.open();
    let done = after.snapshot();
    close(&journal);
    let (old, new) = (fs::read(before.path(SEGMENT)).unwrap(), fs::read(done.path(SEGMENT)).unwrap());
    assert!(new.starts_with(&old) && new.len() > old.len());
    let step = (new.len() - old.len()) / 40;
    for cut in (old.len()..new.len()).step_by(step) {
        let crashed = before.snapshot();
        fs::write(crashed.path(SEGMENT), &new[..cut]).unwrap();
        takes_over(&crashed, &ALL, &format!("cut at {cut}"));
        assert_eq!(events(&crashed, Event::ReserveTakenOver).len(), 1);
    }
    for checkpoint in [&before, &done] {
        let crashed = before.snapshot();
        fs::write(crashed.path(SEGMENT), &new).unwrap();
        fs::copy(checkpoint.path("checkpoint"), crashed.path("checkpoint")).unwrap();
        assert!(crashed.inspect().notes.iter().any(|note| note.contains("was taken over")));
        takes_over(&crashed, &ALL, "not removed");
        assert_eq!(events(&crashed, Event::ReserveTakenOver).len(), 1);
    }
}

/// Every place where writing into it can end, in the order that the header of `reserve` gives.
#[test]
fn writing_into_it_may_end_anywhere() {
    let ward = Ward::new();
    let journal = with_reserve(&ward);
    fill_up(&journal);
    let mut images = vec![fs::read(ward.path("reserve")).unwrap()];
    for id in ["a", "b", "c"] {
        let _receipt = spare(&journal, id).unwrap();
        images.push(fs::read(ward.path("reserve")).unwrap());
    }
    block(journal.close()).unwrap_err();
    let ids = ["a", "b", "c"];
    for (count, pair) in images.windows(2).enumerate() {
        let (old, new) = (&pair[0], &pair[1]);
        let frames = 3 * RESERVE_BLOCK_BYTES;
        let start = frames + first_difference(&old[frames..], &new[frames..]);
        assert_eq!(start % RESERVE_BLOCK_BYTES, 0);
        let end = start + new[start..].iter().rposition(|byte| *byte != 0).unwrap()
            - old[start..].iter().filter(|byte| **byte != 0).count()
            + 1;
        let mut states: Vec<(String, Vec<u8>, usize)> = vec![("nothing".to_owned(), old.clone(), count)];
        for cut in [start + 92, start + 93, start + 200, end - 32, end - 1] {
            let mut torn = old.clone();
            torn[start..cut].copy_from_slice(&new[start..cut]);
            states.push((format!("frame cut at {}", cut - start), torn, count));
        }
        // The end of the frame reached the disk before its middle.
        let mut torn = old.clone();
        torn[start..start + 92].copy_from_slice(&new[start..start + 92]);
        torn[end - 40..end].copy_from_slice(&new[end - 40..end]);
        states.push(("frame with a hole".to_owned(), torn, count));
        let mut whole = old.clone();
        whole[start..].copy_from_slice(&new[start..]);
        states.push(("frame without its mark".to_owned(), whole, count + 1));
        states.push(("all".to_owned(), new.clone(), count + 1));
        for (what, image, there) in states {
            let crashed = ward.snapshot();
            fs::write(crashed.path("reserve"), image).unwrap();
            takes_over(&crashed, &ids[..there], &format!("after {count}: {what}"));
        }
    }
}

fn first_difference(old: &[u8], new: &[u8]) -> usize {
    old.iter().zip(new).position(|(old, new)| old != new).unwrap()
}

/// A changed bit anywhere, in what is used and in what is not.
#[test]
fn every_byte_of_it_is_covered() {
    let (used, unused) = (used(), Ward::new());
    close(&with_reserve(&unused));
    for (ward, case) in [(&used, "used"), (&unused, "unused")] {
        let whole = fs::read(ward.path("reserve")).unwrap();
        let keys = Keys::load(&ward.settings).unwrap();
        let origin = ward.inspect().origin;
        assert!(reserve::read(&whole, &origin, &keys.reserve).is_ok());
        for at in 0..whole.len() {
            // All of what is not an entry, and of the rest enough.
            let is_head = whole[at] != 0 && at % RESERVE_BLOCK_BYTES < 160;
            if !is_head && at % 61 != 0 {
                continue;
            }
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            let found = reserve::read(&changed, &origin, &keys.reserve);
            assert!(found.is_err(), "{case}: byte {at}");
            if at % 997 == 0 {
                fs::write(ward.path("reserve"), changed).unwrap();
                let findings = ward.findings();
                assert_eq!((findings.len(), findings[0].place.as_str()), (1, "reserve"), "{case}: byte {at}");
                let opened = Journal::open(&ward.settings);
                assert!(matches!(opened, Err(OpenError::Damaged(..))), "{case}: byte {at}");
            }
        }
        for other in
            [&whole[..whole.len() - 1], &whole[..RESERVE_BLOCK_BYTES], b"", &[&whole[..], b"\0"].concat()]
        {
            assert!(reserve::read(other, &origin, &keys.reserve).is_err(), "{case}: {} bytes", other.len());
        }
        assert!(reserve::read(&whole, "chartgate/other", &keys.reserve).is_err(), "{case}: another log");
        let other = ReserveKey::new(&[7; 32]).unwrap();
        assert!(reserve::read(&whole, &origin, &other).is_err(), "{case}: another key");
        fs::write(ward.path("reserve"), whole).unwrap();
    }
}

/// What was acknowledged cannot be made to look like a crash: a frame that its mark covers must be whole.
#[test]
fn an_acknowledged_record_cannot_be_torn_out() {
    let ward = used();
    let whole = fs::read(ward.path("reserve")).unwrap();
    let last = whole.iter().rposition(|byte| *byte != 0).unwrap() / RESERVE_BLOCK_BYTES;
    for block in 3..=last {
        let mut cut = whole.clone();
        cut[block * RESERVE_BLOCK_BYTES..].fill(0);
        fs::write(ward.path("reserve"), &cut).unwrap();
        assert_ne!(ward.findings(), [], "from block {block} on");
        // Its newest mark is gone as well.
        for mark in [1, 2] {
            let mut both = cut.clone();
            both[mark * RESERVE_BLOCK_BYTES..(mark + 1) * RESERVE_BLOCK_BYTES].fill(0);
            fs::write(ward.path("reserve"), both).unwrap();
            assert_ne!(ward.findings(), [], "from block {block} on, and mark {mark}");
        }
    }
}

#[test]
fn another_file_in_its_place_is_found() {
    let ward = used();
    let finds = |ward: &Ward, case: &str| {
        let findings = ward.findings();
        assert_eq!((findings.len(), findings[0].place.as_str()), (1, "reserve"), "{case}: {findings:?}");
    };
    let gone = ward.snapshot();
    fs::remove_file(gone.path("reserve")).unwrap();
    finds(&gone, "deleted");
    let foreign = ward.snapshot();
    fs::copy(used().path("reserve"), foreign.path("reserve")).unwrap();
    finds(&foreign, "of another trail");
    // Of the same trail, from another time: taken over long ago, and back again.
    let later = ward.snapshot();
    let journal = with_reserve(&later);
    close(&journal);
    assert_eq!(later.findings(), []);
    fs::copy(ward.path("reserve"), later.path("reserve")).unwrap();
    finds(&later, "put back");
    assert!(matches!(Journal::open(&later.settings), Err(OpenError::Damaged(..))));
    // The log was cut behind what the reserve says that it held.
    let cut = ward.snapshot();
    let old = Ward::new();
    drop(old);
    let bytes = fs::read(cut.path(SEGMENT)).unwrap();
    fs::write(cut.path(SEGMENT), &bytes[..bytes.len() - 40]).unwrap();
    let findings = cut.findings();
    assert!(findings.iter().any(|finding| finding.what.contains("`reserve` covers them")), "{findings:?}");
}

#[test]
fn a_trail_that_somebody_touched_uses_no_reserve() {
    let ward = Ward::new();
    let journal = with_reserve(&ward);
    fs::copy(ward.path(SEGMENT), ward.path("copy")).unwrap();
    fs::rename(ward.path("copy"), ward.path(SEGMENT)).unwrap();
    assert_eq!(append(&journal, "log").unwrap_err(), JournalError::Doubtful);
    assert!(matches!(spare(&journal, "spare"), Err(JournalError::Failed(_))));
    assert_eq!(journal.reserve(), ReserveState::Ready);
    drop(journal);
    let ward = Ward::new();
    let journal = with_reserve(&ward);
    fs::remove_file(ward.path("checkpoint")).unwrap();
    assert_eq!(append(&journal, "log").unwrap_err(), JournalError::Doubtful);
    assert!(matches!(spare(&journal, "spare"), Err(JournalError::Failed(_))), "a name that is gone");
}

#[test]
fn a_reserve_that_is_full_or_touched_refuses() {
    let ward = Ward::new();
    let journal = with_reserve(&ward);
    fill_up(&journal);
    let big = block(journal.append_in_reserve(&[release("big", 3000)]));
    assert_eq!(big.unwrap_err(), JournalError::DiskFull, "no room for it");
    let mut taken = Vec::new();
    for n in 0..20 {
        match spare(&journal, &format!("r{n}")) {
            Ok(_) => taken.push(format!("r{n}")),
            Err(error) => assert_eq!(error, JournalError::DiskFull),
        }
    }
    // 64 KiB less three blocks, a block each.
    assert_eq!((taken.len(), journal.reserve()), (13, ReserveState::InUse));
    block(journal.close()).unwrap_err();
    takes_over(&ward, &taken.iter().map(String::as_str).collect::<Vec<_>>(), "full");

    let ward = Ward::new();
    let journal = with_reserve(&ward);
    fs::copy(ward.path("reserve"), ward.path("copy")).unwrap();
    fs::rename(ward.path("copy"), ward.path("reserve")).unwrap();
    fill_up(&journal);
    assert!(spare(&journal, "touched").is_err());
    assert_eq!(journal.reserve(), ReserveState::Broken);
    let without = Ward::new();
    let journal = without.open();
    fill_up(&journal);
    assert_eq!(spare(&journal, "none").unwrap_err(), JournalError::DiskFull);
    assert_eq!(journal.reserve(), ReserveState::None);
}

#[test]
fn a_reserve_is_kept_changed_and_given_up() {
    let ward = Ward::new();
    let journal = with_reserve(&ward);
    let first = fs::read(ward.path("reserve")).unwrap();
    assert_eq!(first.len() as u64, RESERVE_BYTES_MIN);
    close(&journal);
    close(&with_reserve(&ward));
    assert_eq!(fs::read(ward.path("reserve")).unwrap(), first, "it stands ready as it is");
    let journal = ward.open();
    block(journal.keep_reserve(Some(2 * RESERVE_BYTES_MIN))).unwrap();
    close(&journal);
    let _size = ward.verifies();
    assert_eq!(fs::read(ward.path("reserve")).unwrap().len() as u64, 2 * RESERVE_BYTES_MIN);
    close(&with_reserve(&ward));
    assert_eq!(fs::read(ward.path("reserve")).unwrap().len() as u64, RESERVE_BYTES_MIN, "a shorter one");
    assert_eq!(events(&ward, Event::ReserveReady).len(), 4);
    let journal = ward.open();
    let there = ward.snapshot();
    block(journal.keep_reserve(None)).unwrap();
    let gone = ward.snapshot();
    assert!(!ward.path("reserve").exists());
    close(&journal);
    let _size = ward.verifies();
    // Ended between the record and the removal; and between a new file and its record.
    fs::copy(there.path("reserve"), gone.path("reserve")).unwrap();
    assert_eq!((gone.findings(), !gone.inspect().notes.is_empty()), (vec![], true));
    close(&with_reserve(&gone));
    let _size = gone.verifies();
    let made = Ward::new();
    let other = made.snapshot();
    close(&with_reserve(&made));
    fs::copy(made.path("reserve"), other.path("reserve")).unwrap();
    assert_eq!((other.findings(), other.inspect().notes.len()), (vec![], 1));
}
