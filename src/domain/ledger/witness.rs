//! What a witness decides: C2SP tlog-witness, `add-checkpoint`.
//!
//! Owns: the request's form, and the one order in which it is judged.
//! Must never: let a log's size shrink or its history change, whoever signed it; know a socket, a file or the time.
//! Look next: `edge::witness`, which keeps the state this judges by; <https://c2sp.org/tlog-witness>.
//!
//! ```text
//! old 1040                                        the size the witness is thought to know
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=    consistency proof, up to 63 hashes
//!
//! chartgate/0b1c…                                 the new checkpoint with its signatures
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::proof::check_consistency;
use super::signed::{SignedCheckpoint, VerifierKey};
use super::tree::Hash;
use crate::limits::CONSISTENCY_HASHES_MAX;

/// A log that a witness follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedLog {
    /// The first line of its checkpoints.
    pub origin: String,
    /// Its key.
    pub key: VerifierKey,
}

/// The latest state of a log that a witness cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Entries.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

impl Known {
    /// A log of which nothing was cosigned.
    #[must_use]
    pub fn nothing() -> Self {
        Self { size: 0, root: Hash::of(&[]) }
    }
}

/// Why a checkpoint is not cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a request of this form, or one that would go back in size by its own words.
    Malformed,
    /// No log of this origin is followed.
    UnknownLog,
    /// Not signed by that log's key.
    UnknownKey,
    /// Another size than the one the request begins at, or the same size with another root: so many entries are known.
    Conflict(u64),
    /// The proof does not prove that the log only grew.
    NotConsistent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "request is malformed",
            Self::UnknownLog => "log is not known",
            Self::UnknownKey => "checkpoint is not signed by the log's key",
            Self::Conflict(_) => "another state of the log is known",
            Self::NotConsistent => "proof does not hold",
        })
    }
}

impl std::error::Error for Refusal {}

/// The body of `add-checkpoint`; also how a consistency proof is written into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size from which the proof leads.
    pub old: u64,
    /// The consistency proof (RFC 6962 section 2.1.2).
    pub proof: Vec<Hash>,
    /// The state it leads to.
    pub note: SignedCheckpoint,
}

impl AddCheckpoint {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        Self::read(body).ok_or(Refusal::Malformed)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let body = std::str::from_utf8(body).ok()?;
        let (head, note) = body.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = number(lines.next()?.strip_prefix("old ")?)?;
        let proof = hashes(lines)?;
        let note = SignedCheckpoint::parse(note.as_bytes()).ok()?;
        (proof.len() <= CONSISTENCY_HASHES_MAX).then_some(Self { old, proof, note })
    }
}

/// The body as it is sent.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "old {}", self.old)?;
        write_hashes(out, &self.proof)?;
        write!(out, "\n{}", self.note)
    }
}

/// Judges a request by what is known of its log. The answer is the state to keep, durably, before cosigning.
///
/// # Errors
/// The first [`Refusal`] in the order of the specification.
pub fn judge(request: &AddCheckpoint, log: Option<&TrustedLog>, known: Known) -> Result<Known, Refusal> {
    let new = request.note.checkpoint();
    let log = log.filter(|log| log.origin == new.origin).ok_or(Refusal::UnknownLog)?;
    request.note.signed_by(&log.key).map_err(|_| Refusal::UnknownKey)?;
    if request.old > new.size {
        return Err(Refusal::Malformed);
    }
    if request.old != known.size || (new.size == known.size && new.root != known.root) {
        return Err(Refusal::Conflict(known.size));
    }
    let is_consistent = match request.old {
        0 => request.proof.is_empty(),
        old => check_consistency(&request.proof, (old, known.root), (new.size, new.root)).is_ok(),
    };
    if is_consistent { Ok(Known { size: new.size, root: new.root }) } else { Err(Refusal::NotConsistent) }
}

/// A decimal number without leading zeros.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// One hash in base64 a line.
pub(super) fn hashes<'t>(lines: impl Iterator<Item = &'t str>) -> Option<Vec<Hash>> {
    lines.map(|line| Hash::from_slice(&STANDARD.decode(line).ok()?)).collect()
}

pub(super) fn write_hashes(out: &mut fmt::Formatter<'_>, hashes: &[Hash]) -> fmt::Result {
    hashes.iter().try_for_each(|hash| writeln!(out, "{}", STANDARD.encode(hash.as_bytes())))
}
