//! What the fuzzer asks of proofs, notes, verifier keys and requests to a witness, the texts that strangers hand in.
//!
//! Owns: the law: any bytes are read or refused; what is read has one spelling; what is accepted under the keys in
//! `seeds/ledger/keys` is what the log of these seeds says, and the second opinion accepts it as well.
//! Must never: hold a signing key: then nothing but the seeds can be accepted, however the fuzzer changes them.
//! Look next: `tests/fuzz.rs`, which makes the seeds.

use chartgate::domain::ledger::{
    AddCheckpoint, Known, LogKey, Piece, SignedCheckpoint, Tile, TrustedLog, VerifierKey, judge, leaf_hash,
    pieces, read_bundle, verify, write_entry,
};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles as azul;

/// Verifier keys: the log's, then the witness's.
const KEYS: &str = include_str!("../seeds/ledger/keys");
/// The log's state at 5 entries.
const EARLIER: &str = include_str!("../seeds/ledger/earlier");
/// Proofs under its state at 300 entries.
const PROOFS: &str = include_str!("../seeds/ledger/proofs");

/// When the witness cosigned the larger state.
const COSIGNED: u64 = 1_679_315_147;

/// Entry `index` of the log of the seeds.
pub fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn keys() -> Option<(VerifierKey, VerifierKey)> {
    let mut keys = KEYS.lines().filter_map(|line| VerifierKey::parse(line).ok());
    Some((keys.next()?, keys.next()?))
}

/// The text, size and root of the two states that the log ever signed.
fn is_known(note: &SignedCheckpoint) -> bool {
    let later = pieces(PROOFS).ok().and_then(|pieces| pieces.into_iter().next());
    let later = later.map(|piece| match piece {
        Piece::Inclusion(proof) => proof.note,
        Piece::Consistency(proof) => proof.note,
    });
    let earlier = SignedCheckpoint::parse(EARLIER.as_bytes()).ok();
    earlier.into_iter().chain(later).any(|known| known.text() == note.text())
}

fn theirs(hash: chartgate::domain::ledger::Hash) -> azul::Hash {
    azul::Hash(*hash.as_bytes())
}

/// The second opinion on a note that was accepted.
fn note_accepted(note: &SignedCheckpoint, log: &VerifierKey) {
    assert!(is_known(note), "a state that the log never signed");
    let text = note.to_string();
    let verifier = StandardVerifier::new(&log.to_string()).expect("a key of the seeds");
    let read = Note::from_bytes(text.as_bytes()).expect("the second opinion reads the note");
    let (known, _) = read.verify(&VerifierList::new(vec![Box::new(verifier)])).expect("and believes it");
    assert_eq!(known.len(), 1);
}

fn note(bytes: &[u8], log: &VerifierKey) {
    let read = SignedCheckpoint::parse(bytes);
    if let Ok(checkpoint) = verify(&LogKey::new(log.public().public()), bytes) {
        assert!(read.as_ref().is_ok_and(|read| *read.checkpoint() == checkpoint && is_known(read)));
    }
    let Ok(read) = read else { return };
    assert_eq!(read.to_string().as_bytes(), bytes, "a note has one spelling");
    if read.signed_by(log).is_ok() {
        note_accepted(&read, log);
    }
}

fn request(bytes: &[u8], log: &VerifierKey) {
    let Ok(request) = AddCheckpoint::parse(bytes) else { return };
    assert_eq!(request.to_string().as_bytes(), bytes, "a request has one spelling");
    let Ok(earlier) = SignedCheckpoint::parse(EARLIER.as_bytes()) else { return };
    let known = Known { size: earlier.checkpoint().size, root: earlier.checkpoint().root };
    let trusted = TrustedLog { origin: log.name().to_owned(), key: log.clone() };
    if let Ok(next) = judge(&request, Some(&trusted), known) {
        note_accepted(&request.note, log);
        grew(&request, next, known);
    }
}

fn grew(request: &AddCheckpoint, next: Known, known: Known) {
    let proof = request.proof.iter().map(|hash| theirs(*hash)).collect();
    let held = azul::check_tree(&proof, next.size, theirs(next.root), known.size, theirs(known.root));
    assert!(held.is_ok() && next.size >= known.size, "the second opinion on growth: {held:?}");
}

/// Proofs in a text that hold; every one is believed by the second opinion as well.
pub fn accepted(text: &str) -> usize {
    let (Some((log, witness)), Ok(found)) = (keys(), pieces(text)) else { return 0 };
    let spelt: String = found
        .iter()
        .map(|piece| match piece {
            Piece::Inclusion(proof) => proof.to_string(),
            Piece::Consistency(proof) => proof.to_string(),
        })
        .collect();
    assert_eq!(spelt, text, "proofs have one spelling");
    let earlier = SignedCheckpoint::parse(EARLIER.as_bytes()).ok();
    let mut held = 0;
    for piece in &found {
        if let Ok(checked) = piece.check(&log, std::slice::from_ref(&witness), earlier.as_ref()) {
            assert_eq!(checked.cosigned, [(witness.name().to_owned(), COSIGNED)]);
        }
        let Ok(checked) = piece.check(&log, &[], earlier.as_ref()) else { continue };
        held += 1;
        let (size, root) = (checked.checkpoint.size, checked.checkpoint.root);
        match piece {
            Piece::Inclusion(proof) => {
                note_accepted(&proof.note, &log);
                assert_eq!(proof.leaf(), leaf_hash(&entry(proof.index)), "an entry that is not in the log");
                let hashes = proof.hashes.iter().map(|hash| theirs(*hash)).collect();
                let theirs =
                    azul::check_record(&hashes, size, theirs(root), proof.index, theirs(proof.leaf()));
                assert!(theirs.is_ok(), "the second opinion on inclusion: {theirs:?}");
            }
            Piece::Consistency(proof) => {
                note_accepted(&proof.note, &log);
                let from = earlier.as_ref().expect("it held").checkpoint();
                grew(proof, Known { size, root }, Known { size: from.size, root: from.root });
            }
        }
    }
    held
}

/// Any bytes as each of the texts that strangers hand in.
pub fn ledger(bytes: &[u8]) {
    let Some((log, _)) = keys() else { return };
    note(bytes, &log);
    request(bytes, &log);
    if let Ok(entries) = read_bundle(bytes) {
        let mut again = Vec::new();
        entries.iter().for_each(|entry| write_entry(&mut again, entry).expect("it was read"));
        assert_eq!(again, bytes, "a bundle has one spelling");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    accepted(text);
    for line in text.lines().take(16) {
        if let Ok(key) = VerifierKey::parse(line) {
            assert_eq!(key.to_string(), line, "a key has one spelling");
        }
        if let Some(tile) = Tile::from_path(line) {
            assert_eq!(tile.path(), line, "a tile has one path");
        }
    }
}
