//! The laws of the fuzz targets, over the seeds and over a bounded number of inputs near them.
//!
//! Owns: that every target has seeds and holds without a fuzzer, in every run of the tests.
//! Must never: search without end, or differently each time; `cargo +nightly fuzz run` does that.
//! Look next: `fuzz/laws` and `fuzz/src/lib.rs`, the laws; `fuzz/seeds`, a folder a target; `fuzz/kept`, what fuzzers found
//! worth keeping.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test may stop; the laws are a crate of their own to the fuzzer"
)]

#[path = "../fuzz/laws/mod.rs"]
mod laws;
#[path = "../fuzz/src/lib.rs"]
mod targets;

mod dice;

use aws_lc_rs::signature::Ed25519KeyPair;
use chartgate::domain::ledger::{
    AddCheckpoint, Checkpoint, Frontier, Hash, InclusionProof, KeyKind, LogSigner, SignedCheckpoint,
    VerifierKey, cosign, leaf_hash, prove_consistency, prove_inclusion, sign,
};
use dice::Dice;
use std::fs;
use std::path::Path;

/// A law over any bytes; it panics where it is broken.
type Target = fn(&[u8]);

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

/// Inputs by which a fuzzer once got further, one a line: printable as it is, any other byte as `\xNN`.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/kept").join(format!("{name}.txt"));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(unescaped).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut parts = line.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
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
    for input in seeds.iter().cloned().chain(near.collect::<Vec<_>>()).chain(kept(name)) {
        let held = std::panic::catch_unwind(|| target(&input));
        assert!(held.is_ok(), "{name}: {}", String::from_utf8_lossy(&input).escape_debug());
    }
}

#[test]
fn what_leaves_is_read_again() {
    check("filter", laws::filter);
}

#[test]
fn the_filter_agrees_with_the_oracle() {
    check("oracle", laws::oracle);
}

#[test]
fn batches_are_the_whole() {
    check("pieces", laws::pieces);
}

#[test]
fn a_record_is_the_same_among_its_likes() {
    check("again", laws::again);
}

#[test]
fn compiled_masks_decide_as_named_ones() {
    check("mask", laws::mask_compiler);
}

#[test]
fn merged_patches_are_records() {
    check("change", laws::change);
}

#[test]
fn proofs_tokens_and_scopes_are_read_or_refused() {
    check("dpop", targets::dpop);
}

#[test]
fn proofs_and_notes_are_read_or_refused() {
    check("ledger", targets::ledger);
}

/// The seeds of the law above: what a log and its witness say, of keys that anybody can make. `UPDATE_SNAPSHOTS=1` writes
/// them anew.
#[test]
fn the_seeds_of_proofs_are_accepted() {
    let signer = |seed| LogSigner::new(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()).unwrap();
    let (log, witness) = (signer(11), signer(12));
    let origin = "chartgate/fuzz";
    let vkey = |name: &str, kind, signer: &LogSigner| VerifierKey::new(name, kind, signer.key()).unwrap();
    let keys = (vkey(origin, KeyKind::Log, &log), vkey("witness.example/f", KeyKind::Witness, &witness));
    let leaves: Vec<Hash> = (0..300).map(|index| leaf_hash(&targets::entry(index))).collect();
    let mut read = |level: u8, index: u64| {
        let first = usize::try_from(index << level).unwrap();
        let mut over = Frontier::default();
        leaves.get(first..first + (1 << level))?.iter().for_each(|leaf| over.push(*leaf));
        Some(over.root())
    };
    let note = |size: usize| {
        let mut over = Frontier::default();
        leaves[..size].iter().for_each(|leaf| over.push(*leaf));
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: size as u64, root: over.root() };
        SignedCheckpoint::parse(&sign(&log, &checkpoint).unwrap()).unwrap()
    };
    let line = cosign(&witness, "witness.example/f", note(300).text(), 1_679_315_147).unwrap();
    let later = note(300).with_lines(line.as_bytes()).unwrap();
    let mut included = |index: u64, extra: Vec<u8>| {
        let hashes = prove_inclusion(&mut read, index, 300).unwrap();
        InclusionProof { extra, index, hashes, note: later.clone() }.to_string()
    };
    let by_hash = leaf_hash(&targets::entry(299)).as_bytes().to_vec();
    let mut proofs = included(7, targets::entry(7)) + &included(299, by_hash);
    let grown = AddCheckpoint { old: 5, proof: prove_consistency(&mut read, 5, 300).unwrap(), note: later };
    proofs.push_str(&grown.to_string());
    let seeds = [
        ("keys", format!("{}\n{}\n", keys.0, keys.1)),
        ("earlier", note(5).to_string()),
        ("proofs", proofs),
        ("request", grown.to_string()),
        ("paths", "tile/0/x001/x234/067\ntile/entries/000.p/5\ntile/2/001\n".to_owned()),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/ledger");
    for (name, text) in &seeds {
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(folder.join(name), text).unwrap();
        }
        assert_eq!(&fs::read_to_string(folder.join(name)).unwrap(), text, "{name}");
    }
    assert_eq!(targets::accepted(&seeds[2].1), 3);
    assert_eq!(targets::accepted(&seeds[3].1), 1);
    // Each line changed in its middle: what stands there is proved no more.
    let lines: Vec<&str> = seeds[3].1.split_inclusive('\n').collect();
    for place in 0..lines.len() {
        let mut changed = lines.join("").into_bytes();
        let at = lines[..place].concat().len() + lines[place].len() / 2;
        changed[at] ^= 1;
        let held = String::from_utf8(changed).map_or(0, |text| targets::accepted(&text));
        // The last line is the witness's, which nobody was asked for here.
        assert_eq!(held, usize::from(place + 1 == lines.len() && held == 1), "line {place}");
    }
}
