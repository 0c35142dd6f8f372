//! One stored entry: an encrypted part of an audit record.
//!
//! Owns: the entry format and its cipher, AES-256-GCM, which wraps keys too.
//! Must never: use a nonce twice; show a key; open an entry at a place it was not sealed for.
//! Look next: `docs/audit.md` for the format, `datakeys` for the keys, `writer` which seals, `inspect` which opens.
//!
//! ```text
//! version  1 byte   2; 1 in old trails and in the reserve
//! key id   8 bytes  SHA-256("chartgate audit encryption key\n" || key), its beginning
//! nonce   12 bytes  random
//! sealed            AES-256-GCM of: 16 random bytes, then (from version 2 on) a coding, then the record part
//! ```
//! The coding is one byte: 0, the part stands there as it is; 1, as one zstd frame, where that is shorter. Version 1 was
//! sealed with the configured key, version 2 is sealed with a data key.
//!
//! The associated data is the log's origin, the entry's index and the header, so that an entry cannot be
//! moved inside the log or into another, whatever else was changed. The random bytes inside (L-98) keep leaf
//! hashes from being guessed even by one who knows the key and the record.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zstd::bulk::Compressor;

use crate::domain::ledger::Hash;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_OVERHEAD_BYTES, ENTRY_ZSTD_LEVEL, RECORD_PART_BYTES_MAX};

/// Sealed with the configured key itself.
pub(super) const DIRECT: u8 = 1;
/// Sealed with a data key, and compressed where that is shorter.
pub(super) const PACKED: u8 = 2;
const AS_IT_IS: u8 = 0;
const ZSTD: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const _: () = assert!(HEADER_BYTES + NONCE_BYTES + SALT_BYTES + 1 + TAG_BYTES == ENTRY_OVERHEAD_BYTES);

/// What names a key: the beginning of its hash.
pub(super) type KeyId = [u8; KEY_ID_BYTES];

/// A wrapped key: nonce, 32 bytes, tag.
pub(super) const WRAPPED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;

/// A key, ready for use.
pub(super) struct Cipher {
    key: LessSafeKey,
    id: KeyId,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cipher({:02x?})", self.id)
    }
}

/// What compresses entries: made once, since making it costs more than a short entry does.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub(super) fn new() -> Result<Self, EntryError> {
        Compressor::new(ENTRY_ZSTD_LEVEL).map(Self).map_err(|_| EntryError::Cipher)
    }
}

/// Why an entry could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryError {
    /// Too long for one entry.
    TooLong,
    /// No random numbers, or the cipher failed.
    Cipher,
    /// Not an entry of this version.
    Malformed,
    /// Sealed with another key.
    OtherKey,
    /// Changed, or not at the place it was sealed for.
    Tampered,
    /// Its key is not there, or not for the configured key.
    NoKey,
}

impl fmt::Display for EntryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "entry is too long",
            Self::Cipher => "entry could not be encrypted",
            Self::Malformed => "entry has an unknown format",
            Self::OtherKey => "entry was encrypted with another key",
            Self::NoKey => "the data key of the entry is not there, or cannot be unwrapped",
            Self::Tampered => "entry was changed or moved: it does not decrypt at this place",
        })
    }
}

impl std::error::Error for EntryError {}

/// The version and the key id of an entry: they stand in clear.
pub(super) fn header(entry: &[u8]) -> Option<(u8, KeyId)> {
    let (version, rest) = entry.split_first()?;
    rest.first_chunk().map(|id| (*version, *id))
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Option<Self> {
        let hash = Hash::of(&[b"chartgate audit encryption key\n", key]);
        let id = hash.as_bytes().first_chunk().copied()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { key, id })
    }

    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// Seals `part` for its place in the reserve, as it is.
    pub(super) fn seal(&self, name: &str, index: u64, part: &[u8]) -> Result<Vec<u8>, EntryError> {
        self.seal_as(DIRECT, name, index, &[part])
    }

    /// Seals `part` for its place in the log; compressed where that is shorter.
    pub(super) fn pack(
        &self,
        packer: &mut Packer,
        origin: &str,
        index: u64,
        part: &[u8],
    ) -> Result<Vec<u8>, EntryError> {
        let packed = packer.0.compress(part).map_err(|_| EntryError::Cipher)?;
        if packed.len() < part.len() {
            self.seal_as(PACKED, origin, index, &[&[ZSTD], &packed])
        } else {
            self.seal_as(PACKED, origin, index, &[&[AS_IT_IS], part])
        }
    }

    fn seal_as(
        &self,
        version: u8,
        origin: &str,
        index: u64,
        content: &[&[u8]],
    ) -> Result<Vec<u8>, EntryError> {
        let mut salt = [0u8; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| EntryError::Cipher)?;
        let mut plain = salt.to_vec();
        content.iter().for_each(|piece| plain.extend(*piece));
        let header: Vec<u8> = [version].into_iter().chain(self.id).collect();
        let place = place(origin, index, &header);
        let entry = [header, self.seal_bytes(&place, plain)?].concat();
        if entry.len() > ENTRY_BYTES_MAX { Err(EntryError::TooLong) } else { Ok(entry) }
    }

    /// The part that was sealed for this place.
    pub(super) fn open(&self, origin: &str, index: u64, entry: &[u8]) -> Result<Vec<u8>, EntryError> {
        let (head, sealed) = entry.split_at_checked(HEADER_BYTES).ok_or(EntryError::Malformed)?;
        let (version, id) = header(head).ok_or(EntryError::Malformed)?;
        if !(DIRECT..=PACKED).contains(&version) {
            return Err(EntryError::Malformed);
        }
        if id != self.id {
            return Err(EntryError::OtherKey);
        }
        let plain = self.open_bytes(&place(origin, index, head), sealed)?;
        let (_salt, content) = plain.split_at_checked(SALT_BYTES).ok_or(EntryError::Malformed)?;
        if version == DIRECT { Ok(content.to_vec()) } else { unpack(content) }
    }

    /// Wraps the key `id` of the log `origin`.
    pub(super) fn wrap(
        &self,
        origin: &str,
        id: KeyId,
        key: &[u8; 32],
    ) -> Result<[u8; WRAPPED_BYTES], EntryError> {
        let wrapped = self.seal_bytes(&wrapping(origin, id), key.to_vec())?;
        wrapped.try_into().map_err(|_| EntryError::Cipher)
    }

    /// The key `id` of the log `origin`, which was wrapped for this one.
    pub(super) fn unwrap(
        &self,
        origin: &str,
        id: KeyId,
        wrapped: &[u8; WRAPPED_BYTES],
    ) -> Result<[u8; 32], EntryError> {
        let key = self.open_bytes(&wrapping(origin, id), wrapped)?;
        key.try_into().map_err(|_| EntryError::Malformed)
    }

    /// Nonce, ciphertext, tag.
    fn seal_bytes(&self, about: &[u8], mut plain: Vec<u8>) -> Result<Vec<u8>, EntryError> {
        let mut nonce = [0u8; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| EntryError::Cipher)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut plain)
            .map_err(|_| EntryError::Cipher)?;
        Ok([&nonce, plain.as_slice(), tag.as_ref()].concat())
    }

    fn open_bytes(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, EntryError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(EntryError::Malformed)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(about), &mut sealed);
        let length = opened.map_err(|_| EntryError::Tampered)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// The associated data of an entry.
fn place(origin: &str, index: u64, header: &[u8]) -> Vec<u8> {
    [b"chartgate audit entry\n", origin.as_bytes(), b"\n", &index.to_be_bytes(), header].concat()
}

/// The associated data of a wrapped key.
fn wrapping(origin: &str, id: KeyId) -> Vec<u8> {
    [b"chartgate audit data key\n", origin.as_bytes(), b"\n", &id].concat()
}

/// What was compressed, within the bound of a part: whatever a frame claims, no more room is taken.
fn unpack(content: &[u8]) -> Result<Vec<u8>, EntryError> {
    match content.split_first() {
        Some((&AS_IT_IS, part)) => Ok(part.to_vec()),
        Some((&ZSTD, packed)) => {
            zstd::bulk::decompress(packed, RECORD_PART_BYTES_MAX).map_err(|_| EntryError::Malformed)
        }
        Some(_) | None => Err(EntryError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_opens_at_its_place_only() {
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let other = Cipher::new(&[8; 32]).unwrap();
        for entry in [
            cipher.seal("log", 5, b"record").unwrap(),
            cipher.pack(&mut Packer::new().unwrap(), "log", 5, b"record").unwrap(),
        ] {
            assert_eq!(cipher.open("log", 5, &entry).unwrap(), b"record");
            assert_eq!(cipher.open("log", 6, &entry), Err(EntryError::Tampered));
            assert_eq!(cipher.open("gol", 5, &entry), Err(EntryError::Tampered));
            assert_eq!(other.open("log", 5, &entry), Err(EntryError::OtherKey));
            for at in 0..entry.len() {
                let mut changed = entry.clone();
                changed[at] ^= 1;
                assert!(cipher.open("log", 5, &changed).is_err(), "byte {at}");
                // One version cannot be passed off as the other.
                changed[at] ^= 3;
                assert!(cipher.open("log", 5, &changed).is_err(), "byte {at}");
                assert!(cipher.open("log", 5, &entry[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn the_longest_part_fits_and_no_longer_one_opens() {
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let mut longest = vec![0; RECORD_PART_BYTES_MAX];
        rand::fill(&mut longest).unwrap();
        let entry = cipher.pack(&mut Packer::new().unwrap(), "log", 0, &longest).unwrap();
        assert_eq!(entry.len(), longest.len() + ENTRY_OVERHEAD_BYTES, "what does not shrink stays as it is");
        assert_eq!(cipher.open("log", 0, &entry).unwrap(), longest);
        let too_long = vec![0; ENTRY_BYTES_MAX];
        assert_eq!(cipher.seal("log", 0, &too_long), Err(EntryError::TooLong));
        // A frame that would need more room than a part may have: 1 MB of zeros in some 50 bytes.
        let bomb = cipher.pack(&mut Packer::new().unwrap(), "log", 0, &vec![0; 1024 * 1024]).unwrap();
        assert!(bomb.len() < 200, "{}", bomb.len());
        assert_eq!(cipher.open("log", 0, &bomb), Err(EntryError::Malformed));
    }

    #[test]
    fn what_compresses_is_shorter() {
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let part = br#"{"kind":"release","patients":["p1","p1","p1","p1","p1","p1","p1","p1"]}"#.repeat(4);
        let entry = cipher.pack(&mut Packer::new().unwrap(), "log", 0, &part).unwrap();
        assert!(entry.len() < part.len() / 2, "{} of {}", entry.len(), part.len());
        assert_eq!(cipher.open("log", 0, &entry).unwrap(), part);
    }

    proptest! {
        #[test]
        fn a_wrapped_key_opens_for_its_wrapper_log_and_id_alone(
            key: [u8; 32], outer: [u8; 32], other: [u8; 32], flip in 0..WRAPPED_BYTES, bit in 0..8u8,
        ) {
            prop_assume!(outer != other);
            let (inner, outer) = (Cipher::new(&key).unwrap(), Cipher::new(&outer).unwrap());
            let wrapped = outer.wrap("log", inner.id(), &key).unwrap();
            prop_assert_eq!(outer.unwrap("log", inner.id(), &wrapped), Ok(key));
            let other = Cipher::new(&other).unwrap();
            prop_assert!(other.unwrap("log", inner.id(), &wrapped).is_err());
            prop_assert!(outer.unwrap("gol", inner.id(), &wrapped).is_err());
            prop_assert!(outer.unwrap("log", outer.id(), &wrapped).is_err() || inner.id() == outer.id());
            let mut changed = wrapped;
            changed[flip] ^= 1 << bit;
            prop_assert!(outer.unwrap("log", inner.id(), &changed).is_err());
        }

        #[test]
        fn whatever_is_packed_comes_back(part in proptest::collection::vec(any::<u8>(), 0..3_000)) {
            let cipher = Cipher::new(&[7; 32]).unwrap();
            let entry = cipher.pack(&mut Packer::new().unwrap(), "log", 9, &part).unwrap();
            prop_assert!(entry.len() <= part.len() + ENTRY_OVERHEAD_BYTES);
            prop_assert_eq!(cipher.open("log", 9, &entry).unwrap(), part);
        }

        #[test]
        fn no_content_makes_unpacking_panic(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(part) = unpack(&[&[ZSTD], content.as_slice()].concat()) {
                prop_assert!(part.len() <= RECORD_PART_BYTES_MAX);
            }
        }
    }
}
