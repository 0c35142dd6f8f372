//! Laws of counting: nothing is lost, nothing is counted twice, and nothing grows without bound.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::limits::{REFUSAL_CODES_MAX, REFUSAL_SOURCES_MAX, REFUSALS_TOGETHER_FACTOR};

const BUDGET: Budget = Budget { strangers: 3, known: 7 };

fn second(number: usize) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::try_from(number).unwrap())
}

fn address(number: usize) -> Source {
    Source::stranger(IpAddr::from([
        10,
        0,
        u8::try_from(number / 256).unwrap(),
        u8::try_from(number % 256).unwrap(),
    ]))
}

fn known(number: usize) -> Source {
    Source::Known { issuer: "https://idp".to_owned(), subject: format!("s{number}") }
}

fn note(window: &mut Window, source: &Source, code: &str, number: usize) -> Noted {
    let request_id = format!("r{number}");
    window.note(Refused { source, code, request_id: &request_id, time: second(number) })
}

/// How many each closing record counts, by code.
fn counted(closings: &[Control]) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for closing in closings {
        let told = closing.refusals().unwrap().codes.unwrap();
        assert_eq!(closing.details["counted"], told.values().sum::<u64>().to_string());
        for (code, number) in told {
            *codes.entry(code.to_owned()).or_default() += number;
        }
    }
    codes
}

#[test]
fn a_source_is_counted_beyond_its_budget() {
    let mut window = Window::new(BUDGET, second(0));
    let notes: Vec<Noted> = (0..10).map(|n| note(&mut window, &address(1), "token-expired", n)).collect();
    assert_eq!(notes.iter().filter(|noted| **noted == Noted::Alone).count(), 3);
    let Noted::Counted(opening) = &notes[3] else { panic!("{:?}", notes[3]) };
    assert!(notes[3..].iter().all(|noted| *noted == Noted::Counted(opening.clone())), "one record for all");
    let details = [
        ("code", "token-expired"),
        ("first", "r3"),
        ("of", "address"),
        ("recordedBefore", "3"),
        ("source", "10.0.0.1"),
    ];
    let details: BTreeMap<String, String> =
        details.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(
        (opening.event, opening.time, &opening.details),
        (Event::RefusalsCounting, second(3), &details)
    );
    // Somebody else, and a known caller at the same address, are not counted for it.
    assert_eq!(note(&mut window, &address(2), "token-expired", 20), Noted::Alone);
    assert_eq!(note(&mut window, &known(1), "token-expired", 21), Noted::Alone);
    note(&mut window, &address(1), "token-missing", 22);
    let closed = window.close(second(60));
    let [(same, closings)] = closed.as_slice() else { panic!("{closed:?}") };
    assert_eq!(same, opening);
    assert_eq!(counted(closings), [("token-expired".to_owned(), 7), ("token-missing".to_owned(), 1)].into());
    let said = |name: &str| closings[0].details[name].as_str();
    assert_eq!((said("first"), said("last"), said("counted")), ("r3", "r22", "8"));
    assert_eq!((said("firstTime"), said("lastTime")), ("1970-01-01T00:00:03Z", "1970-01-01T00:00:22Z"));
}

#[test]
fn sources_are_subscribers_and_people() {
    let of = |text: &str| Source::stranger(text.parse().unwrap());
    assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::1"), "one /64");
    assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"), "an IPv4 client of an IPv6 socket");
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    let mut window = Window::new(Budget { strangers: 0, known: 0 }, second(0));
    let Noted::Counted(opening) = note(&mut window, &of("2001:db8:1:2::7"), "x", 1) else { panic!() };
    assert_eq!(opening.details["source"], "2001:db8:1:2::/64");
    let Noted::Counted(opening) = note(&mut window, &known(4), "x", 2) else { panic!() };
    assert_eq!(opening.refusals().unwrap().caller, Some(("https://idp", "s4")));
    assert!(opening.refusals().unwrap().has("x") && !opening.refusals().unwrap().has("y"));
}

/// Many addresses do not get more than a few, and the table does not grow.
#[test]
fn many_sources_share_one_budget() {
    let mut window = Window::new(BUDGET, second(0));
    let mut alone = 0;
    for number in 0..REFUSAL_SOURCES_MAX * 3 {
        alone += u64::from(note(&mut window, &address(number), "token-missing", number) == Noted::Alone);
    }
    assert_eq!(alone, BUDGET.strangers * REFUSALS_TOGETHER_FACTOR);
    assert_eq!(
        note(&mut window, &known(1), "not-found", 1),
        Noted::Alone,
        "not at the cost of known callers"
    );
    let closed = window.close(second(60));
    assert!(closed.len() <= REFUSAL_SOURCES_MAX + 1, "{}", closed.len());
    let rest = closed.iter().find(|(opening, _)| opening.details["of"] == "other addresses").unwrap();
    assert_eq!(counted(&rest.1)["token-missing"], u64::try_from(REFUSAL_SOURCES_MAX * 2).unwrap());
}

/// The details of a record are bounded; a source with very many codes has more records, and none is left out.
#[test]
fn every_code_is_told() {
    let mut window = Window::new(Budget { strangers: 0, known: 0 }, second(0));
    for number in 0..REFUSAL_CODES_MAX * 2 + 5 {
        note(&mut window, &known(0), &format!("code-{number}"), number);
    }
    let closed = window.close(second(60));
    assert_eq!(closed[0].1.len(), 3);
    let whole: Vec<Control> = closed[0]
        .1
        .iter()
        .map(|closing| {
            let entry = encode(&Record::Control(closing.clone())).unwrap().remove(0);
            let read = Assembly::default().push(0, decode(&entry).unwrap()).unwrap().unwrap().1;
            let Record::Control(read) = read else { panic!() };
            read
        })
        .collect();
    assert_eq!(counted(&whole).len(), REFUSAL_CODES_MAX * 2 + 5, "what is read is what was counted");
}

#[test]
fn documents_have_a_budget_too() {
    let mut window = Window::new(BUDGET, second(0));
    let had = (0..10).filter(|_| window.may_have_document(&address(1))).count();
    assert_eq!(had, 3);
    let more = (0..1000).filter(|n| window.may_have_document(&address(*n))).count();
    assert_eq!(more, 9, "all together");
    assert!(window.is_quiet(), "they are refused then, and those refusals are counted");
    assert_eq!(note(&mut window, &address(1), "busy", 1), Noted::Alone, "a budget of their own");
}

/// No release, no write and no part of an answer is ever counted.
#[test]
fn only_mere_refusals_may_be_counted() {
    let refused = || Decision::new(second(0), "r1".to_owned(), Verdict::Refuse);
    let mask = std::sync::Arc::new(vec!["Patient.name".to_owned()]);
    let (reference, patients) = ("Patient/p1".to_owned(), ["p1".to_owned()]);
    let released = Released {
        reference: reference.clone(),
        version: None,
        patients: patients.clone().into(),
        mask: mask.clone(),
    };
    let written = Written { reference, version: None, patients: patients.into(), mask };
    assert!(refused().is_mere_refusal());
    let others = [
        ("a release", Decision { verdict: Verdict::Permit, ..refused() }),
        ("something left", Decision { released: vec![released], ..refused() }),
        ("something was to be written", Decision { written: vec![written], ..refused() }),
        ("an entry of a batch", Decision { entry: Some(0), ..refused() }),
        ("a unit of an answer", Decision { unit: Some(0), ..refused() }),
    ];
    for (what, decision) in others {
        assert!(!decision.is_mere_refusal(), "{what}");
    }
}

proptest! {
    /// Whatever comes in whatever order: each refusal has a record of its own or is in exactly one count, under its code.
    #[test]
    fn alone_and_counted_are_all(
        asked in proptest::collection::vec((0_usize..600, any::<bool>(), 0_usize..4), 0..900),
        strangers in 0_u64..9,
        more in 0_u64..9,
    ) {
        let budget = Budget { strangers, known: strangers + more };
        let mut window = Window::new(budget, second(0));
        let (mut alone, mut all) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        let (mut by_kind, mut openings) = ([0_u64; 2], std::collections::BTreeSet::new());
        for (number, (who, is_known, code)) in asked.iter().enumerate() {
            let source = if *is_known { known(*who) } else { address(*who) };
            let code = format!("c{code}");
            *all.entry(code.clone()).or_default() += 1;
            match note(&mut window, &source, &code, number) {
                Noted::Alone => {
                    *alone.entry(code).or_default() += 1;
                    by_kind[usize::from(*is_known)] += 1;
                }
                Noted::Counted(opening) => drop(openings.insert(opening.details["first"].clone())),
            }
        }
        prop_assert!(by_kind[0] <= budget.strangers * REFUSALS_TOGETHER_FACTOR);
        prop_assert!(by_kind[1] <= budget.known * REFUSALS_TOGETHER_FACTOR);
        prop_assert_eq!(window.is_quiet(), openings.is_empty());
        let closed = window.close(second(1_000));
        prop_assert!(closed.len() <= 2 * (REFUSAL_SOURCES_MAX + 1));
        prop_assert_eq!(closed.len(), openings.len(), "what was opened is closed");
        for (opening, closings) in &closed {
            prop_assert!(openings.contains(&opening.details["first"]));
            for (code, number) in counted(closings) {
                *alone.entry(code).or_default() += number;
            }
        }
        prop_assert_eq!(alone, all);
    }
}
