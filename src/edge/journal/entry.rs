//! One stored entry: an encrypted part of an audit record.
//!
//! Owns: the entry format and its cipher, AES-256-GCM.
//! Must never: use a nonce twice; show a key; open an entry at a place it was not sealed for.
//! Look next: `docs/audit.md` for the format, `writer` which seals, `inspect` which opens.
//!
//! ```text
//! version  1 byte   1
//! key id   8 bytes  SHA-256("chartgate audit encryption key\n" || key), its beginning
//! nonce   12 bytes  random
//! sealed            AES-256-GCM of: 16 random bytes, then the record part
//! ```
//! The associated data is the log's origin, the entry's index and the header, so that an entry cannot be
//! moved inside the log or into another, whatever else was changed. The random bytes inside (L-98) keep leaf
//! hashes from being guessed even by one who knows the key and the record.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;

use crate::domain::ledger::Hash;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_OVERHEAD_BYTES};

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const _: () = assert!(HEADER_BYTES + NONCE_BYTES + SALT_BYTES + TAG_BYTES == ENTRY_OVERHEAD_BYTES);

/// The encryption key, ready for use.
pub(super) struct Cipher {
    key: LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for Cipher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cipher({:02x?})", self.id)
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
}

impl fmt::Display for EntryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "entry is too long",
            Self::Cipher => "entry could not be encrypted",
            Self::Malformed => "entry has an unknown format",
            Self::OtherKey => "entry was encrypted with another key",
            Self::Tampered => "entry was changed or moved: it does not decrypt at this place",
        })
    }
}

impl std::error::Error for EntryError {}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Option<Self> {
        let hash = Hash::of(&[b"chartgate audit encryption key\n", key]);
        let id = hash.as_bytes().first_chunk().copied()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { key, id })
    }

    pub(super) fn id(&self) -> [u8; KEY_ID_BYTES] {
        self.id
    }

    /// Seals `part` for its place in the log.
    pub(super) fn seal(&self, origin: &str, index: u64, part: &[u8]) -> Result<Vec<u8>, EntryError> {
        if part.len() + ENTRY_OVERHEAD_BYTES > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong);
        }
        let mut random = [0u8; NONCE_BYTES + SALT_BYTES];
        rand::fill(&mut random).map_err(|_| EntryError::Cipher)?;
        let (nonce, salt) = random.split_first_chunk::<NONCE_BYTES>().ok_or(EntryError::Cipher)?;
        let mut sealed = Vec::with_capacity(part.len() + ENTRY_OVERHEAD_BYTES);
        sealed.extend(salt);
        sealed.extend(part);
        let place = Aad::from(self.place(origin, index));
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), place, &mut sealed)
            .map_err(|_| EntryError::Cipher)?;
        let mut entry = Vec::with_capacity(part.len() + ENTRY_OVERHEAD_BYTES);
        entry.push(VERSION);
        entry.extend(self.id);
        entry.extend(nonce);
        entry.extend(sealed);
        entry.extend(tag.as_ref());
        Ok(entry)
    }

    /// The part that was sealed for this place.
    pub(super) fn open(&self, origin: &str, index: u64, entry: &[u8]) -> Result<Vec<u8>, EntryError> {
        let (header, rest) = entry.split_first_chunk::<HEADER_BYTES>().ok_or(EntryError::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(EntryError::Malformed)?;
        let (version, id) = header.split_first().ok_or(EntryError::Malformed)?;
        if *version != VERSION {
            return Err(EntryError::Malformed);
        }
        if *id != self.id {
            return Err(EntryError::OtherKey);
        }
        let place = Aad::from(self.place(origin, index));
        let mut sealed = sealed.to_vec();
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), place, &mut sealed)
            .map_err(|_| EntryError::Tampered)?;
        let (_salt, part) = opened.split_at_checked(SALT_BYTES).ok_or(EntryError::Malformed)?;
        Ok(part.to_vec())
    }

    /// The associated data.
    fn place(&self, origin: &str, index: u64) -> Vec<u8> {
        let mut place = b"chartgate audit entry\n".to_vec();
        place.extend(origin.as_bytes());
        place.push(b'\n');
        place.extend(index.to_be_bytes());
        place.push(VERSION);
        place.extend(self.id);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_opens_at_its_place_only() {
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let other = Cipher::new(&[8; 32]).unwrap();
        let entry = cipher.seal("log", 5, b"record").unwrap();
        assert_eq!(cipher.open("log", 5, &entry).unwrap(), b"record");
        assert_eq!(cipher.open("log", 6, &entry), Err(EntryError::Tampered));
        assert_eq!(cipher.open("gol", 5, &entry), Err(EntryError::Tampered));
        assert_eq!(other.open("log", 5, &entry), Err(EntryError::OtherKey));
        for at in 0..entry.len() {
            let mut changed = entry.clone();
            changed[at] ^= 1;
            assert!(cipher.open("log", 5, &changed).is_err(), "byte {at}");
            assert!(cipher.open("log", 5, &entry[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_longest_part_fits() {
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let longest = vec![0; ENTRY_BYTES_MAX - ENTRY_OVERHEAD_BYTES];
        assert_eq!(cipher.seal("log", 0, &longest).unwrap().len(), ENTRY_BYTES_MAX);
        assert_eq!(cipher.seal("log", 0, &[&longest[..], b"x"].concat()), Err(EntryError::TooLong));
    }
}
