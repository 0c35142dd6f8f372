//! The worlds are fair: what is seen, and what is decided, is the same in both.

use super::super::sight::Role;
use super::*;
use crate::domain::filter::{self, Bases, Verdict};
use std::path::Path;
use std::sync::Arc;

fn sight(name: &str) -> Sight {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let policies = Arc::new(crate::app::load_policies(&directory).unwrap());
    Sight::new(&policies, &crate::cli::leakcheck::role(name).unwrap()).unwrap()
}

/// The record as the filter would let it out.
fn shown(sight: &Sight, text: &[u8]) -> Option<Vec<u8>> {
    let bases = Bases { upstream: &[], public: "https://x.invalid" };
    let document = filter::parse(text, &bases).unwrap();
    let view = sight.look(text).unwrap();
    let verdicts: Vec<Verdict<'_>> = view
        .masks
        .iter()
        .map(|m| if m.is_empty() { Verdict::Withhold } else { Verdict::Release(m) })
        .collect();
    let mut out = Vec::new();
    document.emit(0, &verdicts, sight.references(), &bases, &mut out).ok().map(|_| out)
}

#[test]
fn what_is_seen_is_the_same_in_both_worlds() {
    for name in ["nurse", "front-desk", "patient", "physician"] {
        let sight = sight(name);
        let worlds = Worlds::build(&sight, Stamps::Kept, 3).unwrap();
        let (mut pairs, mut seen) = (0, 0);
        for known in &worlds.known {
            let [Some(one), Some(two)] = &known.texts else {
                assert!(
                    !known.shown,
                    "{name}: {}/{} is seen and in one world only",
                    known.resource.name(),
                    known.id
                );
                continue;
            };
            let (first, second) =
                (shown(&sight, one.to_string().as_bytes()), shown(&sight, two.to_string().as_bytes()));
            let text =
                |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            assert_eq!(text(&first), text(&second), "{name}: {one}\n{two}");
            pairs += usize::from(one != two);
            seen += usize::from(first.is_some());
        }
        assert!(seen > 3 && pairs > 60, "{name}: {seen} seen, {pairs} differ");
    }
}

#[test]
fn the_same_seed_gives_the_same_worlds() {
    let sight = sight("nurse");
    let steps = |seed| Worlds::build(&sight, Stamps::Kept, seed).unwrap().steps;
    assert_eq!(steps(5), steps(5));
    assert_ne!(steps(5), steps(6));
}

#[test]
fn an_emr_that_counts_versions_gets_as_many_in_both() {
    let sight = sight("nurse");
    let worlds = Worlds::build(&sight, Stamps::Counted, 3).unwrap();
    let count = |steps: &[Step], known: &Known| {
        let puts = steps.iter().filter(|step| matches!(step, Step::Put { resource, id, .. } if *resource == known.resource.name() && *id == known.id));
        puts.count()
    };
    for known in worlds.known.iter().filter(|known| known.shown) {
        let [one, two] = &worlds.steps;
        assert_eq!(count(one, known), count(two, known), "{}/{}", known.resource.name(), known.id);
    }
}

#[test]
fn roles_are_different_people() {
    let hidden = |name: &str| {
        let sight = sight(name);
        Worlds::build(&sight, Stamps::Kept, 1).unwrap().shown()
    };
    assert!(hidden("physician") > hidden("front-desk"));
    let _: Option<Role> = crate::cli::leakcheck::role("lab-tech:TREAT");
}
