//! The worlds are fair: what is seen, and what is decided, is the same in both.

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
    let verdicts: Vec<Verdict<'_>> =
        view.masks.iter().map(|m| if m.is_empty() { Verdict::Withhold } else { Verdict::whole(m) }).collect();
    let mut out = Vec::new();
    document.emit(0, &verdicts, sight.references(), &bases, &mut out).ok().map(|_| out)
}

/// What is seen is the same in both worlds, byte for byte.
fn check_fair(name: &str, sight: &Sight, worlds: &Worlds) {
    let (mut pairs, mut seen) = (0, 0);
    for known in &worlds.known {
        let [Some(one), Some(two)] = &known.texts else {
            let (resource, id) = (known.resource.name(), &known.id);
            assert!(!known.shown, "{name}: {resource}/{id} is seen and in one world only");
            continue;
        };
        let both = [one, two].map(|record| shown(sight, record.to_string().as_bytes()));
        let [first, second] = both.map(|bytes| bytes.map(|bytes| String::from_utf8(bytes).unwrap()));
        assert_eq!(first, second, "{name}: {one}\n{two}");
        pairs += usize::from(one != two);
        seen += usize::from(first.is_some());
    }
    assert!(seen > 3 && pairs > 60, "{name}: {seen} seen, {pairs} differ");
}

#[test]
fn what_is_seen_is_the_same_in_both_worlds() {
    for name in ["front-desk", "patient", "physician"] {
        let sight = sight(name);
        check_fair(name, &sight, &Worlds::build(&sight, Stamps::Kept, 3).unwrap());
    }
}

#[test]
fn seeds_and_stamps_make_worlds_differ_as_they_should() {
    let sight = sight("nurse");
    let build = |stamps, seed| Worlds::build(&sight, stamps, seed).unwrap();
    let worlds = build(Stamps::Kept, 5);
    check_fair("nurse", &sight, &worlds);
    assert_eq!(worlds.steps, build(Stamps::Kept, 5).steps, "the same seed");
    let counted = build(Stamps::Counted, 6);
    assert_ne!(worlds.steps, counted.steps, "another seed");
    // An EMR that counts versions itself must count to the same number in both.
    let puts = |steps: &[Step], known: &Known| {
        let of = |step: &&Step| matches!(step, Step::Put { resource, id, .. } if *resource == known.resource.name() && *id == known.id);
        steps.iter().filter(of).count()
    };
    let [one, two] = &counted.steps;
    for known in counted.known.iter().filter(|known| known.shown) {
        assert_eq!(puts(one, known), puts(two, known), "{}/{}", known.resource.name(), known.id);
    }
}
