//! Appending, grouping, refusing.

use std::io;
use std::os::unix::fs::PermissionsExt as _;

use tlog_tiles as azul;

use super::super::writer::failure;
use super::*;
use crate::domain::audit::Outcome;
use crate::domain::ledger::{leaf_hash, read_bundle};
use crate::edge::telemetry::Telemetry;

#[test]
fn a_trail_is_made_once_and_by_command_only() {
    let ward = Ward::empty();
    assert!(matches!(Journal::open(&ward.settings), Err(OpenError::Missing(_))));
    assert!(!ward.settings.directory.exists());
    std::fs::create_dir(&ward.settings.directory).unwrap();
    generate_missing(&ward.settings).unwrap();
    assert!(matches!(Journal::open(&ward.settings), Err(OpenError::Missing(_))));
    assert!(ward.files().is_empty());
    create(&ward.settings, time()).unwrap();
    assert!(matches!(create(&ward.settings, time()), Err(OpenError::NotEmpty(_))));
    assert_eq!(ward.verifies(), 1);
    assert_eq!(generate_missing(&ward.settings).unwrap(), KeysMade::default());
    for key in [&ward.settings.signing_key, &ward.settings.encryption_key] {
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn keys_of_other_tools_load() {
    let ward = Ward::empty();
    // RFC 8410, section 10.3: version 1, without the public key, as OpenSSL writes it.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    fs::write(&ward.settings.signing_key, pem).unwrap();
    let cases = [
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", true),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", true),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", false),
        ("not base64", false),
        ("", false),
    ];
    for (key, is_good) in cases {
        fs::write(&ward.settings.encryption_key, key).unwrap();
        assert_eq!(Keys::load(&ward.settings).is_ok(), is_good, "{key}");
    }
    fs::write(&ward.settings.signing_key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        .unwrap();
    assert!(matches!(Keys::load(&ward.settings), Err(KeyError::Signing(_))));
}

#[test]
fn metrics_tell_of_every_commit() {
    let ward = Ward::new();
    let journal = ward.open();
    let telemetry = Telemetry::new();
    journal.report_to(telemetry.clone());
    for n in 0..3 {
        let _receipt = append(&journal, &format!("r{n}")).unwrap();
    }
    let text = telemetry.render();
    assert!(text.contains("chartgate_journal_records_total 3\n"), "{text}");
    assert!(text.contains("chartgate_journal_commit_seconds_count 3\n"), "{text}");
}

#[test]
fn what_is_acknowledged_is_there_at_once() {
    let ward = Ward::new();
    let journal = ward.open();
    assert!(journal.ready());
    for n in 0..5 {
        let receipt = append(&journal, &format!("r{n}")).unwrap();
        assert_eq!(receipt.sequence(), n + 1);
        // The process is killed here: nothing more is written.
        let after_kill = ward.snapshot();
        assert_eq!(after_kill.verifies(), n + 2);
        assert_eq!(after_kill.request_ids().len() as u64, n + 1);
    }
    close(&journal);
    assert!(!journal.ready());
    assert_eq!(append(&journal, "late").unwrap_err(), JournalError::Closed);
    assert_eq!(ward.verifies(), 6);
}

#[test]
fn commits_are_shared() {
    let ward = Ward::new();
    let journal = ward.open();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tasks: Vec<_> = (0..300)
        .map(|n| {
            let journal = journal.clone();
            runtime.spawn(async move {
                journal.append(&[release(&format!("r{n}"), 1)]).await.map(|r| r.sequence())
            })
        })
        .collect();
    let mut sequences: Vec<u64> =
        tasks.into_iter().map(|task| runtime.block_on(task).unwrap().unwrap()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=300).collect::<Vec<_>>(), "every append has its own place");
    let counters = journal.counters();
    assert_eq!((counters.entries, counters.size), (300, 301));
    assert!(counters.commits < 150, "{counters:?}");
    close(&journal);
    assert_eq!(ward.verifies(), 301);
}

#[test]
fn only_one_process_writes() {
    let ward = Ward::new();
    let journal = ward.open();
    assert!(matches!(Journal::open(&ward.settings), Err(OpenError::InUse(_))));
    close(&journal);
    let again = ward.open();
    let _receipt = append(&again, "r").unwrap();
    drop(again);
    // Without a close the threads end by themselves when the last handle is gone.
    let reopened = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Journal::open(&ward.settings).ok()
    });
    assert_eq!(reopened.unwrap().counters().size, 2);
}

#[test]
fn outcomes_are_recorded_however_the_slot_ends() {
    let ward = Ward::new();
    let journal = ward.open();
    let (_receipt, finished) = block(journal.release("r1", &[release("r1", 1)])).unwrap();
    let (_receipt, dropped) = block(journal.release("r2", &[release("r2", 1)])).unwrap();
    finished.finish(time(), Ending::Complete, Some(77));
    drop(dropped);
    close(&journal);
    let keys = Keys::load(&ward.settings).unwrap();
    let mut endings = Vec::new();
    read_entries(&ward.settings.directory, &keys, &mut |entry| {
        let record = audit::Assembly::default().push(entry.sequence, entry.part.unwrap()).unwrap();
        if let Some((_, Record::Outcome(Outcome { request_id, ending, sent_bytes, .. }))) = record {
            endings.push((request_id, ending, sent_bytes));
        }
        Ok(())
    })
    .unwrap();
    let should = [("r1".to_owned(), Ending::Complete, Some(77)), ("r2".to_owned(), Ending::CutOff, None)];
    assert_eq!(endings, should);
}

/// What someone can do to the files under a running journal. Each is noticed by the next record.
#[test]
fn touched_files_put_the_journal_out_of_service() {
    type Touch = fn(&Ward);
    let segment = "segment/00000000000000000000";
    let cases: [(&str, Touch); 12] = [
        ("segment deleted", |ward| fs::remove_file(ward.path("segment/00000000000000000000")).unwrap()),
        ("segment truncated", |ward| {
            let file = fs::OpenOptions::new().write(true).open(ward.path("segment/00000000000000000000"));
            file.unwrap().set_len(10).unwrap();
        }),
        ("segment extended", |ward| {
            let file = fs::OpenOptions::new().append(true).open(ward.path("segment/00000000000000000000"));
            io::Write::write_all(&mut file.unwrap(), b"x").unwrap();
        }),
        ("segment replaced", |ward| {
            let path = ward.path("segment/00000000000000000000");
            fs::copy(&path, ward.path("copy.tmp")).unwrap();
            fs::rename(ward.path("copy.tmp"), path).unwrap();
        }),
        ("segment made readable", |ward| {
            let path = ward.path("segment/00000000000000000000");
            fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
        }),
        ("checkpoint deleted", |ward| fs::remove_file(ward.path("checkpoint")).unwrap()),
        ("checkpoint replaced", |ward| {
            fs::copy(ward.path("checkpoint"), ward.path("copy.tmp")).unwrap();
            fs::rename(ward.path("copy.tmp"), ward.path("checkpoint")).unwrap();
        }),
        ("lock deleted", |ward| fs::remove_file(ward.path("journal.lock")).unwrap()),
        ("directory renamed", |ward| {
            fs::rename(&ward.settings.directory, ward.place.path().join("gone")).unwrap();
        }),
        ("directory deleted", |ward| fs::remove_dir_all(&ward.settings.directory).unwrap()),
        ("checkpoint cannot be written", |ward| {
            let _gone = fs::remove_file(ward.path("checkpoint.tmp"));
            fs::create_dir(ward.path("checkpoint.tmp")).unwrap();
        }),
        ("segments replaced by a link", |ward| {
            fs::rename(ward.path("segment"), ward.path("kept.tmp")).unwrap();
            fs::create_dir(ward.path("segment")).unwrap();
        }),
    ];
    for (case, touch) in cases {
        let ward = Ward::new();
        let journal = ward.open();
        let _receipt = append(&journal, "r1").unwrap();
        assert!(ward.path(segment).exists());
        touch(&ward);
        // Its frame was written: whether it stands nobody says.
        assert_eq!(append(&journal, "r2").expect_err(case), JournalError::Doubtful, "{case}");
        assert!(!journal.ready(), "{case}");
        let failure = append(&journal, "r3").expect_err(case);
        assert!(matches!(failure, JournalError::Failed(_)), "{case}: {failure:?}");
        assert_eq!(append(&journal, "r4").unwrap_err(), failure, "{case}: it stays out of service");
        assert_eq!(block(journal.close()).unwrap_err(), failure, "{case}");
        assert!(journal.counters().failures >= 2, "{case}");
    }
}

#[test]
fn a_publisher_that_fails_puts_the_journal_out_of_service() {
    let ward = Ward::new();
    fs::create_dir(ward.path("published.tmp")).unwrap();
    let journal = ward.open();
    let _receipt = append(&journal, "r1").unwrap();
    let failed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(30));
        !journal.ready()
    });
    assert!(failed && append(&journal, "r2").is_err());
}

#[test]
fn a_full_disk_is_told_apart() {
    // ENOSPC, EDQUOT, EFBIG
    for code in [28, 122, 27] {
        assert_eq!(failure("commit", &io::Error::from_raw_os_error(code)), JournalError::DiskFull);
    }
    assert!(matches!(failure("commit", &io::Error::from_raw_os_error(5)), JournalError::Failed(_)));
}

#[test]
fn segments_give_way_to_tiles() {
    let ward = Ward::new();
    let journal = ward.open();
    for n in 0..40 {
        let _receipt = block(journal.append(&[release(&format!("r{n}"), 4000)])).unwrap();
    }
    close(&journal);
    let segments = fs::read_dir(ward.path("segment")).unwrap().count();
    assert!((1..=3).contains(&segments), "{segments}");
    assert!(!ward.path("segment/00000000000000000000").exists());
    assert!(ward.path("tile/entries/000").exists() && ward.path("tile/0/000").exists());
    let size = ward.verifies();
    let journal = ward.open();
    assert_eq!(journal.counters().size, size);
    append_many(&journal, 300);
    close(&journal);
    assert_eq!(ward.verifies(), size + 300);
    assert_eq!(ward.request_ids().len(), 340);
}

/// A directory of ours, read by tools that know only C2SP's specifications.
struct Reader<'w>(&'w Ward);

impl azul::TileReader for Reader<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[azul::Tile]) -> Result<Vec<Vec<u8>>, azul::Error> {
        let path = |tile: &azul::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        Ok(tiles.iter().map(|tile| fs::read(self.0.path(&path(tile))).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[azul::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn a_second_implementation_reads_the_directory() {
    let ward = Ward::new();
    let journal = ward.open();
    append_many(&journal, 600);
    close(&journal);
    let note = signed_note::Note::from_bytes(&fs::read(ward.path("checkpoint")).unwrap()).unwrap();
    let verifier = signed_note::StandardVerifier::new(&ward.inspect().verifier).unwrap();
    note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
    let checkpoint = azul::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(checkpoint.size(), 601);
    let reader = Reader(&ward);
    let hashes = azul::TileHashReader::new(checkpoint.size(), *checkpoint.hash(), &reader);
    let bundle = fs::read(ward.path("tile/entries/002.p/89")).unwrap();
    for (index, entry) in (512..).zip(read_bundle(&bundle).unwrap()) {
        let proof = azul::prove_record(601, index, &hashes).unwrap();
        let leaf = azul::Hash(*leaf_hash(entry).as_bytes());
        azul::check_record(&proof, 601, *checkpoint.hash(), index, leaf).unwrap();
    }
}

#[test]
fn verification_does_not_disturb_and_is_not_disturbed() {
    let ward = Ward::new();
    let journal = ward.open();
    let writing = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..150 {
                let items = if n % 10 == 0 { 6000 } else { 3 };
                let _receipt = block(journal.append(&[release(&format!("r{n}"), items)])).unwrap();
            }
        });
        let mut readings = 0;
        while !writer.is_finished() {
            assert_eq!(ward.findings(), [], "reading {readings}");
            readings += 1;
        }
        readings
    });
    assert!(writing > 1);
    close(&journal);
    ward.verifies();
}

#[test]
fn an_append_too_large_for_the_queue_is_refused() {
    let ward = Ward::new();
    let journal = ward.open();
    let large = vec![release("r", 60_000); 6];
    assert_eq!(block(journal.append(&large)).unwrap_err(), JournalError::TooLarge);
    assert!(journal.ready());
    close(&journal);
}

#[test]
fn nothing_gets_no_receipt_and_leaves_no_frame() {
    let ward = Ward::new();
    let journal = ward.open();
    assert!(block(journal.append(&[])).is_err() && block(journal.release("r", &[])).is_err());
    let _receipt = append(&journal, "r").unwrap();
    close(&journal);
    assert_eq!(ward.verifies(), 2);
}
