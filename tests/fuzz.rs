//! The laws of the fuzz targets, over the seeds and over a bounded number of inputs near them.
//!
//! Owns: that every target has seeds and holds without a fuzzer, in every run of the tests.
//! Must never: search without end, or differently each time; `cargo +nightly fuzz run` does that.
//! Look next: `fuzz/src/lib.rs`, the laws; `fuzz/seeds`, a folder a target.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test may stop; the laws are a crate of their own to the fuzzer"
)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

mod dice;

use dice::Dice;
use std::fs;
use std::path::Path;

use targets::Target;

/// Changed seeds for each target: a second or so in all.
const CHANGED: usize = 1200;
/// Bytes with a meaning somewhere.
const TELLING: &[u8] = b"\"\\{}[],: \n0129-.eE#/u\xc3\xa9\xff\x00";

/// A few edits: a byte set, put in or taken out, a stretch doubled or cut off, and often other choices in front.
fn changed(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    if dice.roll(2) == 0 {
        bytes.iter_mut().take(8).for_each(|byte| *byte = u8::try_from(dice.roll(256)).unwrap());
    }
    for _ in 0..dice.roll(4) {
        let at = dice.roll(bytes.len());
        let to = (at + dice.roll(40)).min(bytes.len());
        let byte = TELLING[dice.roll(TELLING.len())];
        match dice.roll(6) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let stretch = bytes[at..to].to_vec();
                bytes.splice(to..to, stretch);
            }
            4 => drop(bytes.drain(at..to)),
            _ => {
                let (stretch, place) = (bytes[at..to].to_vec(), dice.roll(bytes.len()));
                bytes.splice(place..place, stretch);
            }
        }
    }
    bytes
}

/// Runs a target; the input in which the law was broken is shown as text.
fn check(name: &str, target: Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(seeds.len() >= 2, "{} has seeds", folder.display());
    let mut dice = Dice(20_261_122);
    let near = (0..CHANGED).map(|turn| changed(&seeds[turn % seeds.len()], &mut dice));
    for input in seeds.iter().cloned().chain(near.collect::<Vec<_>>()) {
        let held = std::panic::catch_unwind(|| target(&input));
        assert!(held.is_ok(), "{name}: {}", String::from_utf8_lossy(&input).escape_debug());
    }
}

#[test]
fn what_leaves_is_read_again() {
    check("filter", targets::filter);
}

#[test]
fn the_filter_agrees_with_the_oracle() {
    check("oracle", targets::oracle);
}

#[test]
fn batches_are_the_whole() {
    check("pieces", targets::pieces);
}

#[test]
fn compiled_masks_decide_as_named_ones() {
    check("mask", targets::mask_compiler);
}

#[test]
fn merged_patches_are_records() {
    check("change", targets::change);
}

#[test]
fn proofs_tokens_and_scopes_are_read_or_refused() {
    check("dpop", targets::dpop);
}
