//! What the forwarder makes of a trail: gaps, other histories, patients left out, receivers that hang.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use chartgate::clock;
use chartgate::domain::audit::{Event, Record};
use chartgate::edge::readings;
use jiff::Timestamp;

use crate::ear::Ear;
use crate::town::{Town, assert_all, once_each, until};

fn plain(name: &str, ear: &Ear, more: &str) -> String {
    format!("[[syslog]]\nname = \"{name}\"\naddress = \"127.0.0.1:{}\"\nplain = true\n{more}\n", ear.port)
}

#[test]
fn a_receiver_that_never_reads_holds_up_nobody_and_costs_no_memory() {
    let town = Town::new();
    let (deaf, good) = (Ear::deaf(), Ear::listening());
    town.configure(&(plain("deaf", &deaf, "message_bytes_max = 1000000") + &plain("good", &good, "")));
    let forwarder = town.forward();
    let peak_after = |answers: u64| {
        town.write_quickly(answers, 60);
        town.settle("good");
        let waiting: usize = good.messages().iter().map(String::len).sum();
        (forwarder.memory_peak_kib(), waiting / 1024)
    };
    let ((before, early), (after, late)) = (peak_after(1_500), peak_after(2_000));
    eprintln!("peak memory: {before} KiB with {early} KiB waiting, {after} KiB with {late} KiB waiting");
    // Were they held for the deaf one, it would show.
    assert!(late - early > 16 * 1024 && after < before + 10 * 1024);
    let (heard, again) = once_each(good.heard().into_iter());
    assert_all(&heard, &town.expected(true));
    assert_eq!(again, 0, "nothing failed, so nothing came twice");
    assert_eq!(town.status("deaf")["next"], 0);
    assert!(forwarder.stop(), "it ends well, whoever hangs");
}

#[test]
fn long_records_are_cut_and_patients_are_left_out() {
    let town = Town::new();
    let (good, shy) = (Ear::listening(), Ear::listening());
    let good_one = plain("good", &good, "message_bytes_max = 4096");
    town.configure(&(good_one + &plain("shy", &shy, "without_patients = true")));
    let _forwarder = town.forward();
    town.write(20, 100);
    ["good", "shy"].iter().for_each(|name| town.settle(name));
    assert_all(&once_each(good.heard().into_iter()).0, &town.expected(true));
    assert!(good.messages().iter().all(|message| message.len() <= 4_096));
    assert!(good.messages().iter().any(|message| message.contains("\"parts\":")));
    assert_all(&once_each(shy.heard().into_iter()).0, &town.expected(false));
    let said = shy.messages().concat();
    assert!(!said.contains("patient-") && said.contains("not-permitted"));
}

#[test]
fn what_is_missing_is_told_as_a_gap_and_the_rest_goes_on() {
    let town = Town::new();
    town.write(400, 1);
    let bundle = town.trail.directory.join("tile/entries/001");
    until(Duration::from_secs(20), || bundle.exists().then_some(())).unwrap();
    let expected = town.expected(true);
    fs::remove_file(bundle).unwrap();
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    let _forwarder = town.forward();
    town.settle("ear");
    let (mut heard, _) = once_each(ear.heard().into_iter());
    let gaps: Vec<_> = heard.values().filter(|item| item["kind"] == "gap").cloned().collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (from, to) = (gaps[0]["from"].as_u64().unwrap(), gaps[0]["to"].as_u64().unwrap());
    assert!((255..=256).contains(&from) && (511..=512).contains(&to), "{from} to {to}");
    heard.remove(&from);
    let rest = expected.into_iter().filter(|(sequence, _)| !(from..=to).contains(sequence)).collect();
    assert_all(&heard, &rest);
    assert_eq!(town.status("ear")["gaps"], to - from + 1);
}

#[test]
fn a_trail_put_back_or_another_one_is_told_and_nothing_of_it_is_sent() {
    let town = Town::new();
    town.write(20, 1);
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    let forwarder = town.forward();
    town.settle("ear");
    drop(forwarder);
    let count = ear.messages().len();
    let cursor = town.path("state/ear.cursor");
    let good = fs::read_to_string(&cursor).unwrap();
    let changed = |from: &str, to: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        text
    };
    let next = town.status("ear")["next"].as_u64().unwrap();
    let last: String = good.split("\"last\":\"").nth(1).unwrap().chars().take(8).collect();
    let cases = [
        (
            changed(&format!("\"next\":{next}"), &format!("\"next\":{}", next + 50)),
            "put back to an older state",
        ),
        (changed(&last, "00000000"), "another history"),
        (changed("chartgate/", "chartgate-other/"), "was forwarded before"),
        ("{".to_owned(), "ear.cursor"),
    ];
    for (text, told) in cases {
        fs::write(&cursor, text).unwrap();
        let _forwarder = town.forward();
        town.write(2, 1);
        let trouble = until(Duration::from_secs(20), || {
            let (_, said) = town.ask(&["status", "--json"]);
            said.contains(told).then_some(said)
        });
        assert!(trouble.is_some(), "{told}");
        assert_eq!(ear.messages().len(), count, "{told}");
        assert!(!town.ask(&["status"]).0, "{told}");
    }
    fs::write(&cursor, good).unwrap();
    let _forwarder = town.forward();
    town.settle("ear");
    assert_all(&once_each(ear.heard().into_iter()).0, &town.expected(true));
}

/// Frames that no checkpoint covers may not be synced: a power cut could put other records in their place.
#[test]
fn what_no_checkpoint_covers_is_not_sent() {
    let town = Town::new();
    let checkpoint = town.trail.directory.join("checkpoint");
    town.write(10, 1);
    let early = fs::read(&checkpoint).unwrap();
    let covered = town.expected(true);
    town.write(10, 1);
    let late = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, early).unwrap();
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    let _forwarder = town.forward();
    until(Duration::from_secs(20), || (ear.heard().len() >= covered.len()).then_some(())).unwrap();
    thread::sleep(Duration::from_secs(2));
    assert_all(&once_each(ear.heard().into_iter()).0, &covered);
    fs::write(&checkpoint, late).unwrap();
    town.settle("ear");
    assert_all(&once_each(ear.heard().into_iter()).0, &town.expected(true));
}

/// What a receiver had in memory may be gone with it, though it was confirmed.
#[test]
fn a_receiver_that_failed_gets_the_last_entries_again() {
    let town = Town::new();
    town.write(30, 1);
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    let _forwarder = town.forward();
    town.settle("ear");
    let count = town.expected(true).len();
    ear.broken.store(true, Ordering::Relaxed);
    town.write(30, 1);
    let told =
        until(Duration::from_secs(20), || town.status("ear")["trouble"]["what"].as_str().map(str::to_owned));
    assert!(told.unwrap().starts_with("delivery: "));
    assert_eq!(town.status("ear")["next"], 0, "back to where this forwarder began");
    ear.broken.store(false, Ordering::Relaxed);
    town.settle("ear");
    let (heard, again) = once_each(ear.heard().into_iter());
    assert_all(&heard, &town.expected(true));
    assert_eq!(again, count, "everything from before the failure came twice, and nothing else");
    assert!(town.status("ear")["trouble"].is_null());
}

#[test]
fn a_new_receiver_may_begin_with_now() {
    let town = Town::new();
    town.write(30, 1);
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, "start = \"now\""));
    let _forwarder = town.forward();
    until(Duration::from_secs(20), || town.status("ear")["next"].as_u64()).unwrap();
    let before = town.expected(true).len();
    town.write(5, 1);
    town.settle("ear");
    assert_eq!(once_each(ear.heard().into_iter()).0.len(), town.expected(true).len() - before);
}

/// KF-62: whoever follows the trail is in it.
#[test]
fn forwarding_is_a_reading_of_the_trail() {
    let town = Town::new();
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    let _forwarder = town.forward();
    town.settle("ear");
    let taken = until(Duration::from_secs(10), || {
        let taken = readings::take_up(&town.trail, clock::now()).unwrap();
        (!taken.records.is_empty()).then_some(taken)
    });
    let taken = taken.unwrap();
    let [Record::Control(control)] = taken.records.as_slice() else { panic!("{:?}", taken.records) };
    assert_eq!(control.event, Event::TrailRead);
    let told = |name: &str| control.details[name].as_str();
    assert_eq!((told("command"), told("operator"), told("filter receivers")), ("forward", "tests", "ear"));
    assert!(control.time > Timestamp::UNIX_EPOCH);
}

#[test]
fn one_forwarder_at_a_time_and_problems_before_the_start() {
    let town = Town::new();
    let ear = Ear::listening();
    town.configure(&plain("ear", &ear, ""));
    assert_eq!(town.ask(&["check"]), (true, String::new()));
    let _forwarder = town.forward();
    town.settle("ear");
    let (is_good, said) = town.ask(&["run"]);
    assert!(!is_good && said.contains("another forwarder is at work"), "{said}");
    town.configure("[[otlp]]\nname = \"o\"\nurl = \"https://127.0.0.1/\"\nca = \"no.pem\"\nauthorization_file = \"no\"\n");
    let (is_good, said) = town.ask(&["check"]);
    assert!(!is_good && said.contains("no.pem") && said.contains("/no`"), "{said}");
    let inside =
        fs::read_to_string(town.path("forward.toml")).unwrap().replace("\"state\"", "\"audit/state\"");
    fs::write(town.path("forward.toml"), inside).unwrap();
    let (is_good, said) = town.ask(&["check"]);
    assert!(!is_good && said.contains("must not be inside the trail's directory"), "{said}");
}
