//! What the store's secret does: names that are looked up become keyed digests, all else about people is sealed.
//!
//! Owns: the two keys derived from the secret, and the form of what is sealed.
//! Must never: show a key; read what was sealed under another key, or for another row, as if there were nothing.
//! Look next: `row`, which says what of a row is which; `docs/sessions.md`, where the secret comes from.
//!
//! ```text
//! name     HMAC-SHA-256 (RFC 2104) of what it names, each part after its length; 64 hexadecimal digits
//! sealed   nonce (12 bytes, random), AES-256-GCM ciphertext, tag (16 bytes); the associated data is the row's place
//! ```
//! Random nonces are safe for 2^32 values under one secret: a hundred thousand sessions a day for a century.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::store::StoreError;
use crate::edge::seal::derived_key;

/// The secret of one store, the same in every proxy that uses it. Cloning shares it.
#[derive(Clone)]
pub struct StoreKey(Arc<Keys>);

struct Keys {
    names: hmac::Key,
    values: RandomizedNonceKey,
}

impl StoreKey {
    /// The keys of this secret (HKDF with SHA-256, RFC 5869): two, which tell nothing of each other.
    ///
    /// # Errors
    /// [`StoreError::Settings`] when the cryptographic library refuses, which it does not on a sound machine.
    pub fn new(secret: &[u8; 32]) -> Result<Self, StoreError> {
        let wrong = || StoreError::Settings("its keys cannot be derived".to_owned());
        let derive = |purpose| derived_key(b"chartgate session store", secret, purpose).ok_or_else(wrong);
        let names = hmac::Key::new(hmac::HMAC_SHA256, &derive("names")?);
        let values = RandomizedNonceKey::new(&AES_256_GCM, &derive("values")?).map_err(|_| wrong())?;
        Ok(Self(Arc::new(Keys { names, values })))
    }

    /// The secret in a file: 32 bytes in base64.
    ///
    /// # Errors
    /// [`StoreError::Settings`] names the file, never its content.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Settings(format!("`{}` {what}", path.display()));
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(&format!("cannot be read: {}", error.kind())))?;
        let secret = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        Self::new(&secret.ok_or_else(|| wrong("is not 32 bytes in base64"))?)
    }

    /// Stands in the store, so that another key is noticed before anything is looked up with it.
    pub(super) fn mark(&self) -> String {
        self.name("key", &[])
    }

    /// Checks the mark that stands in a store.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub(super) fn check(&self, mark: &str) -> Result<(), StoreError> {
        let same = constant_time::verify_slices_are_equal(self.mark().as_bytes(), mark.as_bytes());
        same.map_err(|_| StoreError::Key)
    }

    /// What stands in the store for a name of this kind.
    pub(super) fn name(&self, kind: &str, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.0.names);
        for part in std::iter::once(&kind).chain(parts) {
            // Lengths first, so that no two names read alike.
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals a value for its row: `table`, and the row's name in it.
    pub(super) fn seal(&self, table: &str, row: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut value = plain.to_vec();
        let sealed = self.0.values.seal_in_place_append_tag(place(table, row), &mut value);
        let nonce = sealed.map_err(|_| StoreError::Unavailable("a value cannot be sealed".to_owned()))?;
        Ok([nonce.as_ref().as_slice(), &value].concat())
    }

    /// Opens what was sealed for this row.
    ///
    /// # Errors
    /// [`StoreError::Unsound`]: changed, of another row, or under another key.
    pub(super) fn open(&self, table: &str, row: &str, mut sealed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let (nonce, value) = sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or(StoreError::Unsound)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.values.open_in_place(nonce, place(table, row), value);
        plain.map(|plain| plain.to_vec()).map_err(|_| StoreError::Unsound)
    }
}

fn place(table: &str, row: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("chartgate session store 2\n{table}\n{row}").into_bytes())
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(withheld)")
    }
}

#[cfg(test)]
impl StoreKey {
    /// Any key, always the same.
    pub(crate) fn specimen() -> Self {
        Self::new(&[7; 32]).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> StoreKey {
        StoreKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_row_under_its_key_only() {
        let sealed = key(1).seal("session", "row", b"nurse-1").unwrap();
        assert_eq!(key(1).open("session", "row", sealed.clone()).unwrap(), b"nurse-1");
        assert_ne!(key(1).seal("session", "row", b"nurse-1").unwrap(), sealed, "two of the same differ");
        for (other, table, row) in [(2, "session", "row"), (1, "document", "row"), (1, "session", "wor")] {
            assert_eq!(
                key(other).open(table, row, sealed.clone()),
                Err(StoreError::Unsound),
                "{table} {row}"
            );
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key(1).open("session", "row", changed), Err(StoreError::Unsound), "byte {at}");
            assert!(key(1).open("session", "row", sealed[..at].to_vec()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_tell_apart_what_they_name_and_nothing_else() {
        let one = key(1).name("person", &["https://i", "nurse"]);
        assert_eq!((one.len(), &one), (64, &key(1).name("person", &["https://i", "nurse"])));
        let others = [
            key(2).name("person", &["https://i", "nurse"]),
            key(1).name("session", &["https://i", "nurse"]),
            key(1).name("person", &["https://in", "urse"]),
            key(1).name("person", &["https://i", "nurse", ""]),
        ];
        assert!(others.iter().all(|other| *other != one), "{others:?}");
    }

    #[test]
    fn a_secret_is_32_bytes_in_base64() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(StoreKey::read(&path), Err(StoreError::Settings(_))));
        for (bytes, good) in [(31, false), (32, true), (33, false)] {
            std::fs::write(&path, STANDARD.encode(vec![7; bytes]) + "\n").unwrap();
            assert_eq!(StoreKey::read(&path).is_ok(), good, "{bytes}");
        }
        let told = StoreKey::read(&path).unwrap_err().to_string();
        assert!(told.contains("base64") && !told.contains("Bwc"), "{told}");
        std::fs::write(&path, STANDARD.encode([7; 32])).unwrap();
        assert_eq!(StoreKey::read(&path).unwrap().mark(), key(7).mark());
        assert_eq!(key(7).check(&key(8).mark()), Err(StoreError::Key));
        assert_eq!(key(7).check(""), Err(StoreError::Key));
    }
}
