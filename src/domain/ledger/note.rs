//! C2SP checkpoints and signed notes.
//!
//! Owns: the checkpoint text, the Ed25519 note signature, and their only accepted spelling.
//! Must never: make or read a key; accept a note that [`sign`] would not have written byte for byte, apart
//! from further signatures by others where the caller allows them.
//! Look next: `signed` for notes that others signed too; <https://c2sp.org/tlog-checkpoint>, <https://c2sp.org/signed-note>.
//!
//! ```text
//! chartgate/0b1c…                                 origin
//! 1042                                            size
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root
//!
//! — chartgate/0b1c… Az3grlgtzPICa5OS8npVmf1Myq/…  signature: base64(key id 4 bytes || Ed25519 64 bytes)
//! ```

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::Hash;
use crate::limits::CHECKPOINT_BYTES_MAX;

/// What a log commits to: so many entries, with this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's unique name; also the name of its key.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// The public key of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogKey {
    public: [u8; 32],
}

impl fmt::Debug for LogKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LogKey({})", STANDARD.encode(self.public))
    }
}

impl LogKey {
    /// An Ed25519 public key.
    #[must_use]
    pub fn new(public: [u8; 32]) -> Self {
        Self { public }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The key id under the name `origin`: the first 4 bytes of `SHA-256(name || "\n" || 0x01 || key)`.
    #[must_use]
    pub fn id(&self, origin: &str) -> [u8; 4] {
        let hash = Hash::of(&[origin.as_bytes(), b"\n", &[ALGORITHM_ED25519], &self.public]);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The verifier key `name+id+base64`, as other tools of the family take it.
    #[must_use]
    pub fn verifier(&self, origin: &str) -> String {
        let id = u32::from_be_bytes(self.id(origin));
        let key: Vec<u8> = [ALGORITHM_ED25519].into_iter().chain(self.public).collect();
        format!("{origin}+{id:08x}+{}", STANDARD.encode(key))
    }
}

/// A log's signing key.
pub struct LogSigner {
    pair: Ed25519KeyPair,
    key: LogKey,
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.key, out)
    }
}

impl LogSigner {
    /// A signer over `pair`; `None` if its public key has not 32 bytes.
    #[must_use]
    pub fn new(pair: Ed25519KeyPair) -> Option<Self> {
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, key: LogKey::new(public) })
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> &LogKey {
        &self.key
    }

    pub(super) fn sign_text(&self, text: &str) -> Result<Vec<u8>, NoteError> {
        let signature = self.pair.try_sign(text.as_bytes()).map_err(|_| NoteError::Unsigned)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// The signature type of Ed25519 in signed notes.
pub(super) const ALGORITHM_ED25519: u8 = 1;

/// Why a note is not the log's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteError {
    /// Not a checkpoint in its only spelling.
    Malformed,
    /// No signature by the log's key: another key's checkpoint.
    NotOurs,
    /// Names the log's key, but the signature is wrong.
    BadSignature,
    /// The key would not sign.
    Unsigned,
}

impl fmt::Display for NoteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "checkpoint is malformed",
            Self::NotOurs => "checkpoint is not signed by the configured key",
            Self::BadSignature => "checkpoint has a wrong signature",
            Self::Unsigned => "checkpoint could not be signed",
        })
    }
}

impl std::error::Error for NoteError {}

impl Checkpoint {
    /// The signed text: three lines.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The checkpoint with exactly this text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| is_key_name(origin))?.to_owned();
        let size = lines.next()?.parse().ok()?;
        let root = Hash::from_slice(&STANDARD.decode(lines.next()?).ok()?)?;
        let checkpoint = Self { origin, size, root };
        (checkpoint.text() == text).then_some(checkpoint)
    }
}

/// Names in signed notes are not empty and have neither spaces nor `+`.
pub(super) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// The checkpoint as a signed note. Ed25519 is deterministic: one checkpoint and key give one note.
///
/// # Errors
/// [`NoteError::Unsigned`] when the cryptographic library fails.
pub fn sign(signer: &LogSigner, checkpoint: &Checkpoint) -> Result<Vec<u8>, NoteError> {
    sign_note(signer, &checkpoint.origin, &checkpoint.text())
}

/// `text` with the log's signature below it.
pub(super) fn sign_note(signer: &LogSigner, origin: &str, text: &str) -> Result<Vec<u8>, NoteError> {
    let mut blob = signer.key.id(origin).to_vec();
    blob.extend(signer.sign_text(text)?);
    Ok(format!("{text}\n— {origin} {}\n", STANDARD.encode(blob)).into_bytes())
}

/// Reads a note that must consist of a checkpoint and the one signature by `key`, as [`sign`] writes it.
/// Inside the audit directory nothing else is ours, so nothing else is accepted: a bit that is flipped
/// anywhere in the note is found.
///
/// # Errors
/// [`NoteError`] says in which way it is not such a note.
pub fn verify(key: &LogKey, note: &[u8]) -> Result<Checkpoint, NoteError> {
    if note.len() > CHECKPOINT_BYTES_MAX {
        return Err(NoteError::Malformed);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    let (text, signatures) = note.split_once("\n\n").ok_or(NoteError::Malformed)?;
    let text = format!("{text}\n");
    let checkpoint = Checkpoint::parse(&text).ok_or(NoteError::Malformed)?;
    check_signature(key, &checkpoint.origin, &text, signatures)?;
    Ok(checkpoint)
}

/// Checks that `signatures` is the one line with the signature by `key`, under the name `origin`, over `text`.
pub(super) fn check_signature(
    key: &LogKey,
    origin: &str,
    text: &str,
    signatures: &str,
) -> Result<(), NoteError> {
    let blob = signatures
        .strip_prefix("— ")
        .and_then(|line| line.strip_suffix('\n'))
        .and_then(|line| line.split_once(' '))
        .filter(|(name, _)| *name == origin)
        .and_then(|(_, blob)| STANDARD.decode(blob).ok())
        .ok_or(NoteError::Malformed)?;
    let (id, signature) = blob.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
    if *id != key.id(origin) {
        return Err(NoteError::NotOurs);
    }
    UnparsedPublicKey::new(&ED25519, key.public)
        .verify(text.as_bytes(), signature)
        .map_err(|_| NoteError::BadSignature)
}
