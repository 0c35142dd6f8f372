//! Signed bundles of policies on disk, and what the trail tells of their versions.
//!
//! Owns: the manifest's file and signature, and finding the last record that tells of versions.
//! Must never: take a directory that holds more or less than what was signed; print or return a private key.
//! Look next: `domain::access::Manifest`, its lines; `policy_files`, the directory; `app::policies`, who asks.

use std::path::Path;

use jiff::Timestamp;

use super::journal::{Finding, Found, KeyError, Keys, Reader, Settings, make_signing_key, signing_key};
use super::policy_files::{Extent, Folder};
use crate::domain::access::{Manifest, Problem, Release, Versions};
use crate::domain::audit::{Assembly, Event, Record};
use crate::domain::ledger::{KeyKind, NoteError, VerifierKey, sign_statement, verify_statement};
use crate::limits;

/// The manifest's name in a policies directory; the only file that it does not cover.
pub const MANIFEST: &str = "bundle.note";

const KIND: &str = "chartgate policy bundle";

/// A manifest that one of the keys has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The bundle's name, which is its key's.
    pub name: String,
    /// What is in it.
    pub manifest: Manifest,
}

/// The public half of the key in `path` under `name`; the key is made when the file is not there and `make` is set.
///
/// # Errors
/// When the file is no key, is not there, or cannot be written; or `name` is none for a key.
pub fn verifier(name: &str, path: &Path, make: bool) -> Result<VerifierKey, String> {
    if make && !path.exists() {
        make_signing_key(path).map_err(|error| error.to_string())?;
    }
    let signer = signing_key(path).map_err(|error: KeyError| error.to_string())?;
    VerifierKey::new(name, KeyKind::Log, signer.key())
        .ok_or_else(|| "a name has neither spaces nor `+`, and is not empty".to_owned())
}

/// The signed manifest of the directory as it is now.
///
/// # Errors
/// What is wrong with the directory, its policies or the key.
pub fn sign(
    directory: &Path,
    (name, key): (&str, &Path),
    version: u64,
    now: Timestamp,
) -> Result<(Manifest, Vec<u8>), Vec<Problem>> {
    let wrong = |message: String| vec![about(directory, message)];
    let folder = Folder::settled(directory, Extent::Everything).map_err(|problem| vec![problem])?;
    let set = folder.load()?;
    let release = Release::new(version, set.hash()).ok_or_else(|| wrong("has no hash".to_owned()))?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let manifest = Manifest::of(release, now, covered(&folder))
        .ok_or_else(|| wrong("holds a file whose path cannot be signed: too long, or with control characters".to_owned()))?;
    let _is_a_name = verifier(name, key, false).map_err(&wrong)?;
    let signer = signing_key(key).map_err(|error| wrong(error.to_string()))?;
    let note = sign_statement(&signer, KIND, name, &manifest.lines()).map_err(|error| wrong(error.to_string()))?;
    Ok((manifest, note))
}

/// The manifest of a directory that one of `signers` has signed and that covers every file of it exactly. `folder` must
/// hold everything.
///
/// # Errors
/// Every way in which it is not so.
pub fn verify(folder: &Folder, signers: &[VerifierKey]) -> Result<Signed, Vec<Problem>> {
    let wrong = |message: &str| about(Path::new(MANIFEST), message.to_owned());
    let Some(note) = folder.bytes(MANIFEST) else {
        let problem = wrong("the policies are not signed, and `policies.signers` asks for it");
        return Err(vec![problem.with_hint("`chartgate policy sign` makes it")]);
    };
    if note.len() as u64 > limits::MANIFEST_BYTES_MAX {
        return Err(vec![wrong("is longer than a manifest can be")]);
    }
    let mut fault = NoteError::NotOurs;
    for signer in signers {
        match verify_statement(&signer.public(), KIND, signer.name(), note) {
            Ok(lines) => {
                let manifest = Manifest::parse(&lines).ok_or_else(|| vec![wrong("is no manifest")])?;
                let found = manifest.differences(covered(folder));
                let differs = |(path, what): (String, &str)| about(Path::new(&path), what.to_owned());
                let problems: Vec<Problem> = found.into_iter().map(differs).collect();
                let signed = Signed { name: signer.name().to_owned(), manifest };
                return if problems.is_empty() { Ok(signed) } else { Err(problems) };
            }
            Err(NoteError::NotOurs) => {}
            Err(worse) => fault = worse,
        }
    }
    Err(vec![match fault {
        NoteError::NotOurs => wrong("none of `policies.signers` has signed it"),
        NoteError::BadSignature => wrong("has a wrong signature: it was changed after it was signed"),
        NoteError::Malformed | NoteError::Unsigned => wrong("is no signed manifest"),
    }])
}

fn covered(folder: &Folder) -> impl Iterator<Item = (&str, &[u8])> {
    folder.files().filter(|(path, _)| *path != MANIFEST)
}

/// Which versions were in force, as the trail tells: the last record that says so, and rollbacks since. Reads from the
/// end of the trail, so that it is found soon: each start and stop repeats it.
///
/// # Errors
/// When the trail cannot be read as far back as that, or entries are withheld that may have told.
pub fn recorded(trail: &Settings, keys: &Keys) -> Result<Versions, Finding> {
    let mut reader = Reader::open(&trail.directory, keys)?.reading_on();
    let (mut rollback, mut is_withheld) = (None, false);
    for sequence in (0..reader.checkpoint().size).rev() {
        let part = match reader.entry(sequence)?.1 {
            Found::Part(part) => *part,
            Found::Wrong(finding) => return Err(finding),
            Found::Withheld => {
                is_withheld = true;
                continue;
            }
        };
        // What is no whole record is a part of a decision.
        let Ok(Some((_, Record::Control(control)))) = Assembly::default().push(sequence, part) else { continue };
        if control.event == Event::PoliciesRollback {
            rollback = rollback.or_else(|| Versions::rolled_back(&control.details));
        } else if let Some(versions) = Versions::recorded(&control.details) {
            return Ok(with(versions, rollback));
        }
    }
    match rollback {
        None if is_withheld => {
            let what = "does not tell any more which version of the policies was in force: name one with `chartgate policy rollback`";
            Err(Finding { place: "audit trail".to_owned(), what: what.to_owned() })
        }
        // What came before is not known any more: nothing below the version that was named, then.
        Some(release) if is_withheld => Ok(Versions::default().with(&release).unwrap_or_default()),
        rollback => Ok(with(Versions::default(), rollback)),
    }
}

fn with(mut versions: Versions, rollback: Option<Release>) -> Versions {
    if let Some(release) = rollback {
        versions.allow(release);
    }
    versions
}

fn about(file: &Path, message: String) -> Problem {
    Problem { file: file.display().to_string(), line: 1, column: 1, message, hint: None }
}
