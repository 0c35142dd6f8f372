//! The trail's keys.
//!
//! Owns: reading the signing and the encryption key, and making them for `audit init`.
//! Must never: print or return key material; overwrite a key file.
//! Look next: `entry` and `domain::ledger`, which use them.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::Settings;
use super::entry::Cipher;
use super::layout::sync_directory;
use super::reserve::ReserveKey;
use crate::domain::ledger::LogSigner;
use crate::edge::seal::{Seal, derived_key};

/// Both keys, ready for use.
#[derive(Debug)]
pub struct Keys {
    pub(super) signer: LogSigner,
    /// The configured key: data keys are wrapped for it, and entries of version 1 were sealed with it.
    pub(super) cipher: Cipher,
    /// The same, to be wrapped itself when it is changed.
    pub(super) direct: Direct,
    pub(super) reserve: ReserveKey,
}

/// The bytes of the configured key.
pub(super) struct Direct(pub(super) [u8; 32]);

impl fmt::Debug for Direct {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Direct")
    }
}

/// Why a key could not be used. Names the file, never its content.
#[derive(Debug)]
pub enum KeyError {
    /// The file could not be read or written.
    File(PathBuf, io::Error),
    /// Not an Ed25519 private key in PKCS#8 PEM.
    Signing(PathBuf),
    /// Not 32 bytes in base64.
    Encryption(PathBuf),
    /// The random number generator failed.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(out, "key file `{}`: {error}", path.display()),
            Self::Signing(path) => {
                write!(out, "`{}` is not an Ed25519 private key in PKCS#8 PEM", path.display())
            }
            Self::Encryption(path) => write!(out, "`{}` is not 32 bytes in base64", path.display()),
            Self::Random => out.write_str("random number generator failed"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Keys {
    /// Reads both key files.
    ///
    /// # Errors
    /// [`KeyError`] names the file that cannot be used.
    pub fn load(settings: &Settings) -> Result<Self, KeyError> {
        let signer = signing_key(&settings.signing_key)?;
        let (direct, cipher, reserve) = encryption_keys(&settings.encryption_key)?;
        Ok(Self { signer, cipher, direct, reserve })
    }

    /// The encryption key's id as hexadecimal: safe to print.
    #[must_use]
    pub fn encryption_key_id(&self) -> String {
        self.cipher.id().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|error| KeyError::File(path.to_owned(), error))
}

/// Reads an Ed25519 private key, PKCS#8 PEM.
pub(in crate::edge) fn signing_key(path: &Path) -> Result<LogSigner, KeyError> {
    let wrong = || KeyError::Signing(path.to_owned());
    let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(|_| wrong())?;
    // OpenSSL writes version 1, without the public key; it is derived then.
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| wrong())?;
    LogSigner::new(pair).ok_or_else(wrong)
}

/// A seal for what must outlast the process, under a key derived from the trail's encryption key. The two keys tell nothing
/// of each other.
///
/// # Errors
/// [`KeyError`] names the file that cannot be used.
pub fn lasting_seal(settings: &Settings, purpose: &'static str) -> Result<Seal, KeyError> {
    let key = secret(&settings.encryption_key)?;
    Seal::lasting(&key, purpose).map_err(|_| KeyError::Encryption(settings.encryption_key.clone()))
}

/// A secret for one purpose, derived from the trail's encryption key (HKDF, RFC 5869). The two tell nothing of each other.
///
/// # Errors
/// [`KeyError`] names the file that cannot be used.
pub fn derived_secret(settings: &Settings, purpose: &str) -> Result<[u8; 32], KeyError> {
    let key = derived_key(b"chartgate audit encryption key", &secret(&settings.encryption_key)?, purpose);
    key.ok_or_else(|| KeyError::Encryption(settings.encryption_key.clone()))
}

fn encryption_keys(path: &Path) -> Result<(Direct, Cipher, ReserveKey), KeyError> {
    let key = secret(path)?;
    let made = Cipher::new(&key).zip(ReserveKey::new(&key));
    let (cipher, reserve) = made.ok_or_else(|| KeyError::Encryption(path.to_owned()))?;
    Ok((Direct(key), cipher, reserve))
}

/// The key in a file, to wrap with.
pub(super) fn outer_key(path: &Path) -> Result<Cipher, KeyError> {
    Cipher::new(&secret(path)?).ok_or_else(|| KeyError::Encryption(path.to_owned()))
}

/// Makes an encryption key in `path`, where nothing is; it and its name last when this returns. Leaves a file that is there.
///
/// # Errors
/// When it cannot be written, or what is there is no key.
pub fn generate_encryption_key(path: &Path) -> Result<bool, KeyError> {
    if path.exists() {
        return outer_key(path).map(|_| false);
    }
    make_encryption_key(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(folder).map_err(|error| KeyError::File(path.to_owned(), error))?;
    Ok(true)
}

/// Writes a secret of 32 bytes in base64 into a file that is not there yet, readable by its owner only.
///
/// # Errors
/// When the file is there, or cannot be written.
pub fn keep_secret(path: &Path, secret: &[u8; 32]) -> Result<(), KeyError> {
    write_secret(path, &format!("{}\n", STANDARD.encode(secret)))
}

fn make_encryption_key(path: &Path) -> Result<(), KeyError> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| KeyError::Random)?;
    keep_secret(path, &key)
}

fn secret(path: &Path) -> Result<[u8; 32], KeyError> {
    let wrong = || KeyError::Encryption(path.to_owned());
    let text = String::from_utf8(read(path)?).map_err(|_| wrong())?;
    let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
    bytes.try_into().map_err(|_| wrong())
}

/// Which key files [`generate_missing`] made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeysMade {
    /// The signing key file was made.
    pub signing: bool,
    /// The encryption key file was made.
    pub encryption: bool,
}

/// Makes the key files that do not exist, readable by their owner only; leaves the others as they are.
///
/// # Errors
/// When a file cannot be written or no random numbers can be had.
pub fn generate_missing(settings: &Settings) -> Result<KeysMade, KeyError> {
    let mut made = KeysMade::default();
    if !settings.signing_key.exists() {
        make_signing_key(&settings.signing_key)?;
        made.signing = true;
    }
    if !settings.encryption_key.exists() {
        make_encryption_key(&settings.encryption_key)?;
        made.encryption = true;
    }
    Ok(made)
}

/// Makes an Ed25519 private key in a file that is not there yet.
pub(in crate::edge) fn make_signing_key(path: &Path) -> Result<(), KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
    let der = pair.to_pkcs8v1().map_err(|_| KeyError::Random)?;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    write_secret(path, &pem)
}

fn write_secret(path: &Path, text: &str) -> Result<(), KeyError> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| KeyError::File(path.to_owned(), error))
}
