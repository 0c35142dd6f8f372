//! Laws of what leaves the machine: cosignatures, what a witness answers, proofs as files.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};

use super::*;

const ORIGIN: &str = "chartgate/test";

fn signer(seed: u8) -> LogSigner {
    LogSigner::new(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()).unwrap()
}

fn log_key(seed: u8) -> VerifierKey {
    VerifierKey::new(ORIGIN, KeyKind::Log, signer(seed).key()).unwrap()
}

fn witness_key(seed: u8) -> VerifierKey {
    VerifierKey::new("witness.example/w1", KeyKind::Witness, signer(seed).key()).unwrap()
}

/// A log with its tiles, as they stand on disk.
#[derive(Default)]
struct Log {
    tiles: Tiles,
    full: BTreeMap<Tile, Vec<u8>>,
    frontier: Frontier,
    roots: Vec<Hash>,
}

impl Log {
    fn of(name: &str, size: u64) -> Self {
        let mut log = Self { roots: vec![Hash::of(&[])], ..Self::default() };
        for n in 0..size {
            let leaf = leaf_hash(format!("{name} {n}").as_bytes());
            log.full.extend(log.tiles.push(leaf));
            log.frontier.push(leaf);
            log.roots.push(log.frontier.root());
        }
        log
    }

    fn root(&self, size: u64) -> Hash {
        self.roots[usize::try_from(size).unwrap()]
    }

    /// Subtrees out of full tiles, and out of the last leaves where there is no full tile.
    fn read(&self) -> impl FnMut(u8, u64) -> Option<Hash> {
        let floor = self.frontier.size() / 256 * 256;
        move |level, index| {
            let last = self.tiles.last_leaves();
            let mut leaf = |index: u64| last.get(usize::try_from(index.checked_sub(floor)?).ok()?).copied();
            subtree(level, index, &mut |tile| self.full.get(&tile).cloned(), &mut leaf)
        }
    }

    fn proof(&self, old: u64) -> Vec<Hash> {
        prove_consistency(&mut self.read(), old, self.frontier.size()).unwrap_or_default()
    }

    fn note(&self, size: u64, seed: u8) -> SignedCheckpoint {
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root: self.root(size) };
        SignedCheckpoint::parse(&sign(&signer(seed), &checkpoint).unwrap()).unwrap()
    }

    fn request(&self, old: u64) -> AddCheckpoint {
        AddCheckpoint { old, proof: self.proof(old), note: self.note(self.frontier.size(), 1) }
    }

    fn known(&self, size: u64) -> Known {
        Known { size, root: self.root(size) }
    }
}

fn cosigned(note: &SignedCheckpoint, seed: u8, seconds: u64) -> SignedCheckpoint {
    let line = cosign(&signer(seed), "witness.example/w1", note.text(), seconds).unwrap();
    note.with_lines(line.as_bytes()).unwrap()
}

#[test]
fn proofs_out_of_tiles_hold() {
    for size in [1, 2, 255, 256, 257, 511, 512, 600, 66_000] {
        let log = Log::of("a", size);
        let root = log.root(size);
        for index in (0..size).step_by(1 + usize::try_from(size / 17).unwrap()).chain([size - 1]) {
            let proof = prove_inclusion(&mut log.read(), index, size).unwrap();
            let leaf = leaf_hash(format!("a {index}").as_bytes());
            check_inclusion(&proof, index, leaf, size, root).unwrap();
            let old = index + 1;
            check_consistency(&log.proof(old), (old, log.root(old)), (size, root)).unwrap();
        }
    }
    let log = Log::of("a", 600);
    let torn = subtree(3, 1, &mut |_| Some(vec![0; 100]), &mut |_| None);
    assert_eq!((torn, subtree(0, 1 << 63, &mut |_| None, &mut |_| None)), (None, None));
    assert!(prove_inclusion(&mut log.read(), 0, 601).is_none(), "a leaf that is not there");
}

#[test]
fn verifier_keys_have_one_spelling() {
    for key in [log_key(1), witness_key(2)] {
        let text = key.to_string();
        assert_eq!(VerifierKey::parse(&text), Ok(key.clone()));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert_ne!(VerifierKey::parse(&changed), Ok(key.clone()), "{changed}");
            assert!(VerifierKey::parse(&changed).is_err(), "{changed}");
        }
    }
    assert_eq!(log_key(1).to_string(), signer(1).key().verifier(ORIGIN));
    let name = log_key(1).to_string().replacen("chartgate/test", "chartgate/tost", 1);
    assert_eq!(VerifierKey::parse(&name), Err(KeyTextError::Id));
    let ecdsa = format!("x+00000000+{}", STANDARD.encode([2; 33]));
    assert_eq!(VerifierKey::parse(&ecdsa), Err(KeyTextError::Algorithm));
    for wrong in ["", "x", "x+1", "x+00000000+!", "+00000000+AQ=="] {
        assert_eq!(VerifierKey::parse(wrong), Err(KeyTextError::Malformed), "{wrong}");
    }
}

/// The message is put together here as the specification writes it.
#[test]
fn a_cosignature_is_what_the_specification_says() {
    let note = Log::of("a", 5).note(5, 1);
    let line = cosign(&signer(2), "witness.example/w1", note.text(), 1_679_315_147).unwrap();
    let blob = STANDARD.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
    let public = signer(2).key().public();
    let id = Hash::of(&[b"witness.example/w1\n\x04", &public]);
    assert_eq!(blob[..4], id.as_bytes()[..4]);
    assert_eq!(blob[4..12], 1_679_315_147u64.to_be_bytes());
    let message = format!("cosignature/v1\ntime 1679315147\n{}", note.text());
    UnparsedPublicKey::new(&ED25519, public).verify(message.as_bytes(), &blob[12..]).unwrap();
    assert_eq!(blob.len(), 76);

    let both = cosigned(&note, 2, 1_679_315_147);
    assert_eq!((both.signed_by(&log_key(1)), both.cosigned_by(&witness_key(2))), (Ok(()), Ok(1_679_315_147)));
    let verifier = StandardVerifier::new(&log_key(1).to_string()).unwrap();
    let text = both.to_string();
    let theirs = Note::from_bytes(text.as_bytes()).unwrap();
    let (known, unknown) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((known.len(), unknown.len()), (1, 1), "a second implementation reads the note");
}

#[test]
fn every_changed_bit_of_a_cosigned_checkpoint_is_found() {
    let whole = cosigned(&Log::of("a", 5).note(5, 1), 2, 7).to_string().into_bytes();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let holds = SignedCheckpoint::parse(&changed).is_ok_and(|note| {
                note.signed_by(&log_key(1)).is_ok() && note.cosigned_by(&witness_key(2)).is_ok()
            });
            assert!(!holds, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn signatures_are_told_apart() {
    let note = cosigned(&Log::of("a", 5).note(5, 1), 2, 7);
    assert_eq!(note.signed_by(&log_key(3)), Err(NoteError::NotOurs));
    assert_eq!(note.cosigned_by(&witness_key(3)), Err(NoteError::NotOurs));
    let other = cosigned(&note, 3, 9);
    assert_eq!((other.cosigned_by(&witness_key(2)), other.cosigned_by(&witness_key(3))), (Ok(7), Ok(9)));
    assert_eq!(other.only(&[&log_key(1), &witness_key(2)]), note);
    let twice = cosigned(&note, 2, 8);
    assert_eq!(twice.cosigned_by(&witness_key(2)), Ok(8));
    let foreign = Log::of("b", 5).note(5, 1);
    let lines = cosign(&signer(2), "witness.example/w1", foreign.text(), 7).unwrap();
    let wrong = note.only(&[&log_key(1)]).with_lines(lines.as_bytes()).unwrap();
    assert_eq!(wrong.cosigned_by(&witness_key(2)), Err(NoteError::BadSignature), "over another text");
    let long = cosign(&signer(2), "witness.example/w1", note.text(), 1 << 63).unwrap();
    let long = note.only(&[&log_key(1)]).with_lines(long.as_bytes()).unwrap();
    assert_eq!(long.cosigned_by(&witness_key(2)), Err(NoteError::BadSignature), "time above 2^63 - 1");
    // A log's key that is used as a witness's, and the other way round, has another id.
    let as_log = VerifierKey::new("witness.example/w1", KeyKind::Log, signer(2).key()).unwrap();
    assert_eq!(note.signed_by(&as_log), Err(NoteError::NotOurs));
    assert!(cosign(&signer(2), "no name", note.text(), 7).is_err());
}

#[test]
fn a_witness_judges_in_the_order_of_the_specification() {
    let log = Log::of("a", 300);
    let fork = Log::of("b", 300);
    let known = log.known(5);
    let trusted = TrustedLog { origin: ORIGIN.to_owned(), key: log_key(1) };
    let good = log.request(5);
    let by = |seed| AddCheckpoint { note: log.note(300, seed), ..good.clone() };
    let small = |old, proof| AddCheckpoint { old, proof, note: log.note(5, 1) };
    let cases = [
        ("the next state", good.clone(), known, Ok(log.known(300))),
        ("the first state", log.request(0), Known::nothing(), Ok(log.known(300))),
        ("the same state again", small(5, vec![]), known, Ok(known)),
        ("another key", by(3), known, Err(Refusal::UnknownKey)),
        ("a smaller state by its own words", small(7, vec![]), log.known(7), Err(Refusal::Malformed)),
        ("a rollback", small(5, vec![]), log.known(300), Err(Refusal::Conflict(300))),
        ("a rollback to nothing", log.request(0), known, Err(Refusal::Conflict(5))),
        ("a stale old size", log.request(4), known, Err(Refusal::Conflict(5))),
        ("a fork of the same size", small(5, vec![]), fork.known(5), Err(Refusal::Conflict(5))),
        ("a fork that grew", fork.request(5), known, Err(Refusal::NotConsistent)),
        ("no proof", AddCheckpoint { proof: vec![], ..good.clone() }, known, Err(Refusal::NotConsistent)),
        (
            "a proof from nothing",
            AddCheckpoint { old: 0, ..good.clone() },
            Known::nothing(),
            Err(Refusal::NotConsistent),
        ),
        ("a proof too many", small(5, log.proof(5)), known, Err(Refusal::NotConsistent)),
    ];
    for (case, request, known, answer) in cases {
        assert_eq!(judge(&request, Some(&trusted), known), answer, "{case}");
        assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()), Ok(request), "{case}");
    }
    let elsewhere = TrustedLog { origin: "another".to_owned(), ..trusted };
    assert_eq!(judge(&good, None, known), Err(Refusal::UnknownLog));
    assert_eq!(judge(&good, Some(&elsewhere), known), Err(Refusal::UnknownLog));
}

#[test]
fn requests_have_one_spelling() {
    let whole = Log::of("a", 300).request(5).to_string();
    let more = |hash: &str, count| whole.replacen("old 5\n", &format!("old 5\n{}", hash.repeat(count)), 1);
    let hash = format!("{}\n", STANDARD.encode([7; 32]));
    assert!(AddCheckpoint::parse(more(&hash, 50).as_bytes()).is_ok());
    for wrong in [
        more(&hash, 63),
        more("AAAA\n", 1),
        more("\n", 1),
        whole.replacen("old 5", "old 05", 1),
        whole.replacen("old 5", "old +5", 1),
        whole.replacen("old 5", "Old 5", 1),
        whole.replacen("old 5", "old  5", 1),
        whole.replacen("300\n", "0300\n", 1),
        whole.replace('\n', "\r\n"),
        whole.trim_end().to_owned(),
        format!("{whole}\n"),
        String::new(),
    ] {
        assert_eq!(AddCheckpoint::parse(wrong.as_bytes()), Err(Refusal::Malformed), "{wrong}");
    }
}

#[test]
fn proofs_are_handed_out_and_checked() {
    let log = Log::of("a", 300);
    let note = cosigned(&log.note(300, 1), 2, 7);
    let hashes = prove_inclusion(&mut log.read(), 299, 300).unwrap();
    let entry = InclusionProof { extra: b"a 299".to_vec(), index: 299, hashes, note: note.clone() };
    let hash = InclusionProof { extra: leaf_hash(b"a 299").as_bytes().to_vec(), ..entry.clone() };
    let grown = AddCheckpoint { old: 5, proof: log.proof(5), note: note.clone() };
    let earlier = log.note(5, 1);
    let file = format!("{entry}{hash}{grown}");
    let read = pieces(&file).unwrap();
    assert_eq!(read, [Piece::Inclusion(entry.clone()), Piece::Inclusion(hash), Piece::Consistency(grown)]);
    for piece in &read {
        let checked = piece.check(&log_key(1), &[witness_key(2)], Some(&earlier)).unwrap();
        assert_eq!(
            (checked.checkpoint.size, &checked.cosigned[..]),
            (300, &[("witness.example/w1".to_owned(), 7)][..])
        );
        let fault = |log: &VerifierKey, witness: VerifierKey| {
            piece.check(log, &[witness], Some(&earlier)).unwrap_err()
        };
        assert_eq!(fault(&log_key(3), witness_key(2)), ProofFault::Note(NoteError::NotOurs));
        let missing = ProofFault::Witness("witness.example/w1".to_owned(), NoteError::NotOurs);
        assert_eq!(fault(&log_key(1), witness_key(3)), missing);
    }
    let fault = |piece: Piece, earlier: Option<SignedCheckpoint>| {
        piece.check(&log_key(1), &[], earlier.as_ref()).unwrap_err()
    };
    assert_eq!(fault(read[2].clone(), None), ProofFault::Earlier);
    assert_eq!(fault(read[2].clone(), Some(log.note(6, 1))), ProofFault::Earlier);
    assert_eq!(fault(read[2].clone(), Some(Log::of("b", 5).note(5, 1))), ProofFault::Hashes);
    assert_eq!(fault(read[2].clone(), Some(log.note(5, 3))), ProofFault::Note(NoteError::NotOurs));
    for wrong in [
        InclusionProof { extra: b"a 298".to_vec(), ..entry.clone() },
        InclusionProof { index: 298, ..entry.clone() },
        InclusionProof { index: 300, ..entry.clone() },
        InclusionProof { hashes: entry.hashes[1..].to_vec(), ..entry.clone() },
        InclusionProof { note: log.note(299, 1), ..entry },
    ] {
        assert_eq!(fault(Piece::Inclusion(wrong), None), ProofFault::Hashes);
    }
    for cut in [file.strip_prefix('c').unwrap(), file.trim_end(), "", "c2sp.org/tlog-proof@v1\n"] {
        assert_eq!(pieces(cut), Err(ProofFault::Malformed));
    }
}

proptest! {
    #[test]
    fn reading_never_panics(text in "(?s).{0,120}", bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _any = (VerifierKey::parse(&text), pieces(&text), AddCheckpoint::parse(&bytes));
        let _any = (SignedCheckpoint::parse(&bytes), SignedCheckpoint::parse(text.as_bytes()));
    }

    /// Whatever is asked in whatever order, a witness's states form one history that only grows.
    #[test]
    fn a_witness_never_goes_back(asked in proptest::collection::vec((0u64..40, 0u64..40, any::<bool>()), 1..30)) {
        let (one, two): (Vec<Log>, Vec<Log>) = (0..40).map(|size| (Log::of("a", size), Log::of("b", size))).unzip();
        let trusted = TrustedLog { origin: ORIGIN.to_owned(), key: log_key(1) };
        let mut known = Known::nothing();
        let mut kept = vec![known];
        for (old, new, is_fork) in asked {
            let logs = if is_fork { &two } else { &one };
            let request = logs[usize::try_from(new).unwrap()].request(old);
            if let Ok(next) = judge(&request, Some(&trusted), known) {
                prop_assert!(next.size >= known.size);
                known = next;
                kept.push(known);
            }
        }
        let log = &one[39];
        let fork = &two[39];
        prop_assert!(kept.iter().all(|known| known.root == log.root(known.size)) || kept.iter().all(|known| known.root == fork.root(known.size)));
    }
}
