//! Laws of the ledger: RFC 6962, C2SP formats, and agreement with a second implementation (azul's crates).

use aws_lc_rs::signature::Ed25519KeyPair;
use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles as azul;

use super::*;

/// The test inputs of RFC 6962's reference implementation, and the root after each.
const ENTRIES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// Subtrees straight from the leaves.
fn of(leaves: &[Hash]) -> impl FnMut(u8, u64) -> Option<Hash> {
    move |level, index| {
        let first = usize::try_from(index << level).unwrap();
        leaves.get(first..first + (1 << level)).map(root)
    }
}

fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    let count = |number: usize| u64::try_from(number).unwrap();
    prove_inclusion(&mut of(leaves), count(index), count(leaves.len()))
}

fn consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    let count = |number: usize| u64::try_from(number).unwrap();
    prove_consistency(&mut of(leaves), count(old), count(leaves.len()))
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

#[test]
fn roots_are_those_of_rfc_6962() {
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root().to_string(), ROOTS[0]);
    for (entry, should) in ENTRIES.iter().zip(&ROOTS[1..]) {
        frontier.push(leaf_hash(&unhex(entry)));
        assert_eq!(frontier.root().to_string(), *should);
    }
}

/// azul's log: all stored hashes in memory.
#[derive(Default)]
struct Azul {
    hashes: Vec<azul::Hash>,
}

impl azul::HashReader for Azul {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<azul::Hash>, azul::Error> {
        Ok(indexes.iter().map(|index| self.hashes[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Azul {
    fn of(leaves: &[Hash]) -> Self {
        let mut log = Self::default();
        for (n, leaf) in (0..).zip(leaves) {
            let hash = azul::Hash(*leaf.as_bytes());
            let stored = azul::stored_hashes_for_record_hash(n, hash, &log).unwrap();
            log.hashes.extend(stored);
        }
        log
    }
}

fn theirs(hash: Hash) -> azul::Hash {
    azul::Hash(*hash.as_bytes())
}

#[test]
fn roots_and_proofs_agree_with_a_second_implementation() {
    let all = leaves(300);
    let log = Azul::of(&all);
    for size in (1..40).chain([63, 64, 65, 127, 255, 256, 257, 300]) {
        let ours = root(&all[..size]);
        let count = u64::try_from(size).unwrap();
        assert_eq!(azul::tree_hash(count, &log).unwrap(), theirs(ours));
        for index in (0..size).step_by(1 + size / 20) {
            let n = u64::try_from(index).unwrap();
            let proof = inclusion(&all[..size], index).unwrap();
            let proof_theirs = azul::prove_record(count, n, &log).unwrap();
            assert_eq!(proof.iter().map(|hash| theirs(*hash)).collect::<Vec<_>>(), proof_theirs);
            check_inclusion(&proof, n, all[index], count, ours).unwrap();
            azul::check_record(&proof_theirs, count, theirs(ours), n, theirs(all[index])).unwrap();
        }
        for old in (1..=size).step_by(1 + size / 20) {
            let n = u64::try_from(old).unwrap();
            let proof = consistency(&all[..size], old).unwrap();
            let proof_theirs = azul::prove_tree(count, n, &log).unwrap();
            assert_eq!(proof.iter().map(|hash| theirs(*hash)).collect::<Vec<_>>(), proof_theirs);
            check_consistency(&proof, (n, root(&all[..old])), (count, ours)).unwrap();
        }
    }
    assert!(inclusion(&all, 300).is_none());
    assert!(consistency(&all, 0).is_none() && consistency(&all, 301).is_none());
}

proptest! {
    #[test]
    fn a_changed_proof_does_not_hold(size in 2usize..200, at in any::<prop::sample::Index>(), bit in 0usize..256) {
        let all = leaves(size);
        let count = u64::try_from(size).unwrap();
        let index = at.index(size);
        let n = u64::try_from(index).unwrap();
        let mut proof = inclusion(&all, index).unwrap();
        check_inclusion(&proof, n, all[index], count, root(&all)).unwrap();
        prop_assert!(check_inclusion(&proof[1..], n, all[index], count, root(&all)).is_err());
        let place = at.index(proof.len());
        let mut bytes = *proof[place].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        proof[place] = Hash::new(bytes);
        prop_assert!(check_inclusion(&proof, n, all[index], count, root(&all)).is_err());
        proof.push(Hash::of(&[]));
        prop_assert!(check_inclusion(&proof, n, all[index], count, root(&all)).is_err());
    }

    #[test]
    fn another_history_is_not_consistent(size in 2usize..200, at in any::<prop::sample::Index>()) {
        let old = 1 + at.index(size - 1);
        let mut all = leaves(size);
        let old_root = root(&all[..old]);
        all[at.index(old)] = Hash::of(&[b"another"]);
        let proof = consistency(&all, old).unwrap();
        let (old, size) = (u64::try_from(old).unwrap(), u64::try_from(size).unwrap());
        prop_assert!(check_consistency(&proof, (old, old_root), (size, root(&all))).is_err());
    }

    #[test]
    fn tile_paths_are_read_back(level in 0u8..8, index in any::<u64>(), width in 1u16..=256, entries: bool) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        let tile = Tile { kind, index, width };
        prop_assert_eq!(Tile::from_path(&tile.path()), Some(tile));
    }

    #[test]
    fn reading_never_panics(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _any = Tile::from_path(&text);
        let _any = Tile::from_path(&format!("tile/{text}"));
        let _any = read_bundle(&bytes);
        let _any = verify(&LogKey::new([7; 32]), &bytes);
        let _any = verify(&LogKey::new([7; 32]), text.as_bytes());
    }

    #[test]
    fn bundles_are_read_back(entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let mut bundle = Vec::new();
        entries.iter().for_each(|entry| write_entry(&mut bundle, entry).unwrap());
        prop_assert_eq!(read_bundle(&bundle).unwrap(), entries);
        bundle.push(0);
        prop_assert_eq!(read_bundle(&bundle), Err(BundleError::CutShort));
    }
}

#[test]
fn tile_paths_have_one_spelling() {
    let cases = [
        ("tile/0/x001/x234/067", Some((TileKind::Hashes(0), 1_234_067, 256))),
        ("tile/entries/000.p/5", Some((TileKind::Entries, 0, 5))),
        ("tile/3/999", Some((TileKind::Hashes(3), 999, 256))),
        ("tile/00/000", None),
        ("tile/8/000", None),
        ("tile/+1/000", None),
        ("tile/0/1", None),
        ("tile/0/0000", None),
        ("tile/0/x000/000", None),
        ("tile/0/x001/67", None),
        ("tile/0/001/067", None),
        ("tile/0/000.p/0", None),
        ("tile/0/000.p/256", None),
        ("tile/0/000.p/05", None),
        ("tile/0/000.p/5.tmp", None),
        ("tile/data/000", None),
        ("tile/0/", None),
        ("checkpoint", None),
    ];
    for (path, should) in cases {
        let should = should.map(|(kind, index, width)| Tile { kind, index, width });
        assert_eq!(Tile::from_path(path), should, "{path}");
    }
}

/// Every size in turn: the tiles in memory are the tiles the second implementation would publish.
#[test]
fn tiles_agree_with_a_second_implementation() {
    let all = leaves(700);
    let log = Azul::of(&all);
    let mut tiles = Tiles::default();
    for (size, leaf) in (1..).zip(&all) {
        let mut ours = tiles.push(*leaf);
        ours.extend(tiles.partial());
        for (tile, bytes) in &ours {
            let TileKind::Hashes(level) = tile.kind else { panic!("not a hash tile") };
            let theirs = azul::Tile::new(8, level, tile.index, u32::from(tile.width), false);
            assert_eq!(theirs.path().replacen("tile/8/", "tile/", 1), tile.path());
            assert_eq!(&theirs.read_data(&log).unwrap(), bytes);
        }
        let named: Vec<String> =
            Tile::of_tree(0, size).map(|tile| tile.path()).filter(|path| !path.contains("entries")).collect();
        let mut published: Vec<String> = azul::Tile::new_tiles(8, 0, size)
            .iter()
            .map(|tile| tile.path().replacen("tile/8/", "tile/", 1))
            .collect();
        published.sort();
        let mut named_sorted = named.clone();
        named_sorted.sort();
        assert_eq!(named_sorted, published, "{size}");
    }
}

/// A tree that is told whole tiles is the tree that is told their leaves, at every level and place.
#[test]
fn whole_tiles_stand_for_their_leaves() {
    for (level, spans, rest) in [(0, 1, 0), (0, 3, 7), (0, 256, 5), (1, 1, 0), (1, 2, 300)] {
        let span = 256usize.pow(u32::from(level) + 1);
        let leaves = leaves(span * spans + rest);
        let (mut by_leaf, mut frontier, mut told) = (Tiles::default(), Frontier::default(), Vec::new());
        for leaf in &leaves {
            told.extend(by_leaf.push(*leaf));
            frontier.push(*leaf);
        }
        let (mut by_tile, mut short) = (Tiles::default(), Frontier::default());
        let mut completed = Vec::new();
        for index in 0..spans as u64 {
            let tile = Tile::full(TileKind::Hashes(level), index);
            let (_, bytes) = told.iter().find(|(other, _)| *other == tile).unwrap();
            let hashes: Vec<Hash> = bytes.chunks(32).filter_map(Hash::from_slice).collect();
            completed.extend(by_tile.push_tile(level, &hashes).unwrap());
            assert!(hashes.iter().all(|hash| short.push_subtree(8 * u32::from(level), *hash)));
        }
        for leaf in &leaves[span * spans..] {
            completed.extend(by_tile.push(*leaf));
            short.push(*leaf);
        }
        assert_eq!((by_tile, short), (by_leaf, frontier), "{level} {spans} {rest}");
        // A tile below is completed by its leaves alone: those of the spans are not.
        let above = |tile: &Tile| matches!(tile.kind, TileKind::Hashes(row) if row >= level);
        let told: Vec<_> = told
            .into_iter()
            .filter(|(tile, _)| above(tile) || tile.entries_needed() > (span * spans) as u64)
            .collect();
        assert_eq!(completed, told, "{level} {spans} {rest}");
    }
}

#[test]
fn a_tile_inside_a_tile_is_not_taken() {
    let hash = Hash::of(&[b"x"]);
    let (mut tiles, mut frontier) = (Tiles::default(), Frontier::default());
    assert_eq!(tiles.push_tile(0, &[hash; 255]), None);
    assert_eq!(tiles.push_tile(8, &[hash; 256]), None);
    tiles.push(hash);
    frontier.push(hash);
    let before = (tiles.clone(), frontier.clone());
    assert_eq!(tiles.push_tile(0, &[hash; 256]), None);
    assert_eq!(tiles.push_tile(1, &[hash; 256]), None);
    assert!(!frontier.push_subtree(1, hash) && !frontier.push_subtree(64, hash));
    assert_eq!((tiles, frontier), before);
}

fn signer(seed: u8) -> LogSigner {
    LogSigner::new(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: "chartgate/test".to_owned(), size: 1042, root: Hash::of(&[b"root"]) }
}

#[test]
fn golden_note() {
    let note = String::from_utf8(sign(&signer(1), &checkpoint()).unwrap()).unwrap();
    assert_eq!(
        note.lines().take(4).collect::<Vec<_>>(),
        ["chartgate/test", "1042", "SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=", ""]
    );
    assert!(note.starts_with(&checkpoint().text()) && note.ends_with("\n"));
}

#[test]
fn notes_agree_with_a_second_implementation() {
    let signer = signer(1);
    let bytes = sign(&signer, &checkpoint()).unwrap();
    let verifier = StandardVerifier::new(&signer.key().verifier("chartgate/test")).unwrap();
    let note = Note::from_bytes(&bytes).unwrap();
    let (verified, unverified) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((verified.len(), unverified.len()), (1, 0));
    let theirs = azul::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(theirs.origin(), "chartgate/test");
    assert_eq!((theirs.size(), theirs.hash().0), (1042, *checkpoint().root.as_bytes()));
    assert_eq!(verify(signer.key(), &bytes), Ok(checkpoint()));
}

#[test]
fn every_changed_bit_of_a_note_is_found() {
    let signer = signer(1);
    let note = sign(&signer, &checkpoint()).unwrap();
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut changed = note.clone();
            changed[at] ^= 1 << bit;
            assert!(verify(signer.key(), &changed).is_err(), "byte {at} bit {bit}");
        }
        assert!(verify(signer.key(), &note[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn foreign_notes_are_told_apart() {
    let (ours, other) = (signer(1), signer(2));
    let foreign = sign(&other, &checkpoint()).unwrap();
    assert_eq!(verify(ours.key(), &foreign), Err(NoteError::NotOurs));
    let twice = [sign(&ours, &checkpoint()).unwrap(), b"\xe2\x80\x94 x AAAA\n".to_vec()].concat();
    assert!(verify(ours.key(), &twice).is_err());
    let text = String::from_utf8(sign(&ours, &checkpoint()).unwrap()).unwrap();
    for changed in [
        text.replace("1042", "01042"),
        text.replace("1042", "+1042"),
        text.replace("1042\n", "1042\r\n"),
        text.replace("\n\n", "\nextension\n\n"),
        format!("{text}\n"),
    ] {
        assert!(verify(ours.key(), changed.as_bytes()).is_err(), "{changed}");
    }
}
