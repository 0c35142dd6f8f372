//! Checkpoints that several keys have signed, as they travel between logs, witnesses and auditors.
//!
//! Owns: verifier keys (vkeys), signed notes with any number of signatures, and cosignatures of witnesses.
//! Must never: believe a text none of whose signatures was checked; take a wrong signature by a known key for a missing one.
//! Look next: `note` for the one spelling in which the log itself writes; <https://c2sp.org/signed-note>,
//! <https://c2sp.org/tlog-cosignature>.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{ALGORITHM_ED25519, Checkpoint, LogKey, LogSigner, NoteError, is_key_name};
use super::tree::Hash;
use crate::limits::NOTE_BYTES_MAX;

/// The signature type of timestamped Ed25519 cosignatures.
const ALGORITHM_COSIGNATURE: u8 = 4;

/// What a key's signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A log's: this is my state.
    Log,
    /// A witness's: at this time, this was the largest state I had seen, and it only ever grew.
    Witness,
}

impl KeyKind {
    fn algorithm(self) -> u8 {
        match self {
            Self::Log => ALGORITHM_ED25519,
            Self::Witness => ALGORITHM_COSIGNATURE,
        }
    }
}

/// A public key under its name: `name+id+base64`, the vkey of signed notes.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
}

/// The text is no verifier key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTextError {
    /// Not `name+id+base64`.
    Malformed,
    /// A signature type other than Ed25519 (01) and Ed25519 cosignatures (04).
    Algorithm,
    /// The id is not that of the name and key: a typing mistake.
    Id,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "verifier key is not of the form name+id+base64",
            Self::Algorithm => "verifier key has a signature type that is not supported",
            Self::Id => "verifier key has an id that is not its own",
        })
    }
}

impl std::error::Error for KeyTextError {}

impl VerifierKey {
    /// The key `public` under `name`; `None` when that is no name for a key: empty, or with spaces or `+`.
    #[must_use]
    pub fn new(name: &str, kind: KeyKind, public: &LogKey) -> Option<Self> {
        is_key_name(name).then(|| Self { name: name.to_owned(), kind, public: public.public() })
    }

    /// Reads `name+id+base64`.
    ///
    /// # Errors
    /// [`KeyTextError`].
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyTextError::Malformed);
        };
        let bytes = STANDARD.decode(key).map_err(|_| KeyTextError::Malformed)?;
        let (algorithm, public) = bytes.split_first().ok_or(KeyTextError::Malformed)?;
        let kind = [KeyKind::Log, KeyKind::Witness].into_iter().find(|kind| kind.algorithm() == *algorithm);
        let kind = kind.ok_or(KeyTextError::Algorithm)?;
        let public = public.try_into().map_err(|_| KeyTextError::Malformed)?;
        let key = Self::new(name, kind, &LogKey::new(public)).ok_or(KeyTextError::Malformed)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) == id { Ok(key) } else { Err(KeyTextError::Id) }
    }

    /// Its name: a log's is usually its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key itself.
    #[must_use]
    pub fn public(&self) -> LogKey {
        LogKey::new(self.public)
    }

    /// The first 4 bytes of `SHA-256(name || "\n" || type || key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let hash = Hash::of(&[self.name.as_bytes(), b"\n", &[self.kind.algorithm()], &self.public]);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn has_signed(&self, message: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(message.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = [self.kind.algorithm()].into_iter().chain(self.public).collect();
        write!(out, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One line below a note.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (name, blob) = line.strip_prefix("— ")?.split_once(' ')?;
        let blob = STANDARD.decode(blob).ok()?;
        let (id, bytes) = blob.split_first_chunk::<4>()?;
        is_key_name(name).then(|| Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }

    fn is_by(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.id == key.id()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = [&self.id, self.bytes.as_slice()].concat();
        writeln!(out, "— {} {}", self.name, STANDARD.encode(blob))
    }
}

/// A checkpoint of any log with its signatures. Nothing of it may be believed before [`SignedCheckpoint::signed_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    signatures: Vec<Signature>,
}

impl SignedCheckpoint {
    /// Reads a note. Extension lines are kept, as the signatures cover them.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        Self::read(note).ok_or(NoteError::Malformed)
    }

    fn read(note: &[u8]) -> Option<Self> {
        let note = std::str::from_utf8(note).ok().filter(|note| note.len() <= NOTE_BYTES_MAX)?;
        if note.chars().any(|letter| letter.is_control() && letter != '\n') {
            return None;
        }
        let (text, signatures) = note.rsplit_once("\n\n")?;
        let text = format!("{text}\n");
        let checkpoint = read_text(&text)?;
        let signatures = signatures.strip_suffix('\n')?.split('\n').map(Signature::parse);
        Some(Self { checkpoint, text, signatures: signatures.collect::<Option<_>>()? })
    }

    /// What it says.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The text that was signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks that the log with this key signed it.
    ///
    /// # Errors
    /// [`NoteError::NotOurs`] without a signature by the key, [`NoteError::BadSignature`] with a wrong one.
    pub fn signed_by(&self, log: &VerifierKey) -> Result<(), NoteError> {
        let mut found = false;
        for signature in self.signatures.iter().filter(|signature| signature.is_by(log)) {
            if log.kind != KeyKind::Log || !log.has_signed(&self.text, &signature.bytes) {
                return Err(NoteError::BadSignature);
            }
            found = true;
        }
        if found { Ok(()) } else { Err(NoteError::NotOurs) }
    }

    /// When this witness last cosigned it, in seconds since 1970.
    ///
    /// # Errors
    /// As [`SignedCheckpoint::signed_by`].
    pub fn cosigned_by(&self, witness: &VerifierKey) -> Result<u64, NoteError> {
        let mut latest = None;
        for signature in self.signatures.iter().filter(|signature| signature.is_by(witness)) {
            latest = latest.max(Some(self.cosigned_at(witness, &signature.bytes)?));
        }
        latest.ok_or(NoteError::NotOurs)
    }

    fn cosigned_at(&self, witness: &VerifierKey, bytes: &[u8]) -> Result<u64, NoteError> {
        let (seconds, signature) = bytes.split_first_chunk::<8>().ok_or(NoteError::BadSignature)?;
        let seconds = u64::from_be_bytes(*seconds);
        let message = cosigned_message(&self.text, seconds);
        let is_time = i64::try_from(seconds).is_ok();
        if witness.kind == KeyKind::Witness && is_time && witness.has_signed(&message, signature) {
            Ok(seconds)
        } else {
            Err(NoteError::BadSignature)
        }
    }

    /// The same checkpoint with these signature lines behind its own: what a witness answered.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] when they are no signature lines.
    pub fn with_lines(&self, lines: &[u8]) -> Result<Self, NoteError> {
        Self::parse(&[self.to_string().as_bytes(), lines].concat())
    }

    /// The same checkpoint with the first signature by each of `keys` and no other.
    #[must_use]
    pub fn only(&self, keys: &[&VerifierKey]) -> Self {
        let of = |key: &&VerifierKey| self.signatures.iter().find(|signature| signature.is_by(key)).cloned();
        Self { signatures: keys.iter().filter_map(of).collect(), ..self.clone() }
    }

    /// Its signature lines alone.
    #[must_use]
    pub fn signature_lines(&self) -> String {
        self.signatures.iter().map(ToString::to_string).collect()
    }

    /// The name in the last signature line.
    #[must_use]
    pub fn last_name(&self) -> &str {
        self.signatures.last().map_or("", |signature| &signature.name)
    }
}

/// The note as it is written.
impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(out, "{signature}"))
    }
}

/// Origin, size and root, each in its only spelling, and extension lines that are not empty.
fn read_text(text: &str) -> Option<Checkpoint> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
    let digits = lines.next()?;
    let size: u64 = digits.parse().ok()?;
    let root = Hash::from_slice(&STANDARD.decode(lines.next()?).ok()?)?;
    let is_only_spelling = size.to_string() == digits && lines.all(|line| !line.is_empty());
    is_only_spelling.then_some(Checkpoint { origin, size, root })
}

fn cosigned_message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// A witness's cosignature line over a checkpoint's text, at a time in seconds since 1970.
///
/// # Errors
/// [`NoteError::Unsigned`] when the cryptographic library fails, or `name` is no name for a key.
pub fn cosign(signer: &LogSigner, name: &str, text: &str, seconds: u64) -> Result<String, NoteError> {
    let key = VerifierKey::new(name, KeyKind::Witness, signer.key()).ok_or(NoteError::Unsigned)?;
    let signature = signer.sign_text(&cosigned_message(text, seconds))?;
    let bytes = [&seconds.to_be_bytes(), signature.as_slice()].concat();
    Ok(Signature { name: name.to_owned(), id: key.id(), bytes }.to_string())
}
