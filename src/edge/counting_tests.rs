//! Counts in a real trail: begun before an answer leaves, closed exactly, and honest about a process that was killed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::domain::audit::{Assembly, Event};
use crate::edge::journal::{Keys, Settings, create, generate_missing, read_entries};
use crate::edge::listener::stop_signal;

fn trail(place: &Path) -> Settings {
    let settings = Settings {
        directory: place.join("audit"),
        signing_key: place.join("audit.key"),
        encryption_key: place.join("audit.aes"),
    };
    generate_missing(&settings).unwrap();
    create(&settings, Timestamp::UNIX_EPOCH).unwrap();
    settings
}

/// The control records of counting, in their order.
fn told(settings: &Settings) -> Vec<Control> {
    let keys = Keys::load(settings).unwrap();
    let (mut found, mut assembly) = (Vec::new(), Assembly::default());
    read_entries(&settings.directory, &keys, &mut |entry| {
        if let Some((_, Record::Control(control))) =
            assembly.push(entry.sequence, entry.part.unwrap()).unwrap()
            && control.refusals().is_some()
        {
            found.push(control);
        }
        Ok(())
    })
    .unwrap();
    found
}

async fn refuse(counting: &Counting, number: usize) -> Result<Entry, JournalError> {
    let source = Source::stranger(IpAddr::from([192, 0, 2, 1]));
    let (request_id, code) = (format!("r{number}"), if number.is_multiple_of(3) { "a" } else { "b" });
    counting.refused(Refused { source: &source, code, request_id: &request_id, time: clock::now() }).await
}

const BUDGET: Budget = Budget { strangers: 5, known: 5 };

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_counted_exactly_under_one_durable_beginning() {
    let place = TempDir::new().unwrap();
    let settings = trail(place.path());
    let journal = Journal::open(&settings).unwrap();
    let counting = Arc::new(Counting::new(journal.clone(), Telemetry::new(), BUDGET));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        let (counting, settings) = (Arc::clone(&counting), settings.clone());
        tasks.spawn(async move {
            let entry = refuse(&counting, number).await.unwrap();
            // The answer could leave now: what it rests on must be on disk.
            let is_counted = matches!(entry, Entry::Counted(_));
            assert!(!is_counted || number % 50 != 0 || told(&settings).len() == 1, "{number}");
            (number, is_counted)
        });
    }
    let all: Vec<(usize, bool)> = tasks.join_all().await;
    assert_eq!(all.iter().filter(|(_, is_counted)| !is_counted).count(), 5);
    assert_eq!(told(&settings).len(), 1, "begun, and not ended");
    let mut should = BTreeMap::new();
    for (number, _) in all.iter().filter(|(_, is_counted)| *is_counted) {
        *should.entry(if number.is_multiple_of(3) { "a" } else { "b" }).or_default() += 1_u64;
    }
    counting.finish().await.unwrap();
    let records = told(&settings);
    let [began, ended] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((began.event, ended.event), (Event::RefusalsCounting, Event::RefusalsCounted));
    let (began, ended) = (began.refusals().unwrap(), ended.refusals().unwrap());
    assert_eq!((began.first, began.codes), (ended.first, None));
    assert_eq!(ended.codes, Some(should));
    // After the end nothing is counted any more: it has a record of its own, or no answer.
    assert!(matches!(refuse(&counting, 900).await, Ok(Entry::Alone)));
    journal.close().await.unwrap();
}

#[tokio::test]
async fn a_window_ends_by_itself_and_the_next_has_a_budget_again() {
    let place = TempDir::new().unwrap();
    let settings = trail(place.path());
    let journal = Journal::open(&settings).unwrap();
    let interval = Duration::from_millis(1500);
    let counting = Arc::new(Counting::every(interval, journal.clone(), Telemetry::new(), BUDGET));
    let (stopper, stop) = stop_signal();
    let running = tokio::spawn(Arc::clone(&counting).run(stop));
    let mut alone = 0;
    for round in 0..2 {
        for number in 0..8 {
            alone +=
                usize::from(matches!(refuse(&counting, round * 100 + number).await.unwrap(), Entry::Alone));
        }
        let begin = std::time::Instant::now();
        while told(&settings).len() < (round + 1) * 2 {
            assert!(begin.elapsed() < Duration::from_secs(20), "the window does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(alone, 10, "twice the budget");
    stopper.stop();
    running.await.unwrap();
    counting.finish().await.unwrap();
    let counted: u64 =
        told(&settings).iter().filter_map(|it| it.refusals()?.codes).flat_map(BTreeMap::into_values).sum();
    assert_eq!(counted, 6);
    journal.close().await.unwrap();
}

/// No record, no answer: neither while a count cannot begin nor while it could not be ended any more.
#[tokio::test]
async fn nothing_is_counted_into_a_trail_that_takes_nothing() {
    for was_begun in [false, true] {
        let place = TempDir::new().unwrap();
        let settings = trail(place.path());
        let journal = Journal::open(&settings).unwrap();
        let counting = Counting::new(journal.clone(), Telemetry::new(), BUDGET);
        let before = if was_begun { 7 } else { 5 };
        for number in 0..before {
            assert!(refuse(&counting, number).await.is_ok());
        }
        journal.close().await.unwrap();
        for number in before..before + 3 {
            assert_eq!(refuse(&counting, number).await.unwrap_err(), JournalError::Closed, "{was_begun}");
        }
        assert!(counting.finish().await.is_err(), "it says that counts are lost");
        assert_eq!(told(&settings).len(), usize::from(was_begun));
    }
}
