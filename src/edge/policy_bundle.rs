//! Signed bundles of policies on disk, and what the trail tells of their versions.
//!
//! Owns: the manifest's file and signature, and finding the last record that tells of versions.
//! Must never: take a directory that holds more or less than what was signed; print or return a private key.
//! Look next: `domain::access::Manifest`, its lines; `policy_files`, the directory; `app::policies`, who asks.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::journal::{Finding, KeyError, Keys, Settings, make_signing_key, replace, signing_key};
use super::newest_control::newest;
use super::policy_files::{Extent, Folder};
use crate::domain::access::{Manifest, Problem, Release, Versions};
use crate::domain::audit::Event;
use crate::domain::ledger::{KeyKind, NoteError, VerifierKey, sign_statement, verify_statement};
use crate::domain::workbench::try_cases;
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

/// The signed manifest of the directory as it is now. Its cases are run first.
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
    let set = Arc::new(folder.load()?);
    // Nobody should sign what a gate would not take.
    try_cases(&set, &folder.cases()?, folder.records())?;
    let release = Release::new(version, set.hash()).ok_or_else(|| wrong("has no hash".to_owned()))?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let manifest = Manifest::of(release, now, covered(&folder)).ok_or_else(|| {
        wrong("holds a file whose path cannot be signed: too long, or with control characters".to_owned())
    })?;
    let _is_a_name = verifier(name, key, false).map_err(&wrong)?;
    let signer = signing_key(key).map_err(|error| wrong(error.to_string()))?;
    let note =
        sign_statement(&signer, KIND, name, &manifest.lines()).map_err(|error| wrong(error.to_string()))?;
    Ok((manifest, note))
}

/// Writes a manifest, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, note: &[u8]) -> std::io::Result<()> {
    replace(path, note)
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
    let mut rollback = None;
    let (told, is_withheld) = newest(trail, keys, |control| {
        if control.event == Event::PoliciesRollback {
            rollback = rollback.take().or_else(|| Versions::rolled_back(&control.details));
            return None;
        }
        Versions::recorded(&control.details)
    })?;
    if let Some(versions) = told {
        return Ok(with(versions, rollback));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::domain::audit::{Control, Decision, Record, Verdict};
    use crate::edge::journal::{Journal, create, generate_missing};
    use std::collections::BTreeMap;
    use std::fs;
    use tempfile::TempDir;

    const PERMIT: &str = "@why(\"why (ground)\") permit(principal in Role::\"nurse\", action == Action::\"read\", resource is FHIR::Patient);";

    fn bundle(version: u64) -> (TempDir, VerifierKey) {
        let place = TempDir::new().unwrap();
        fs::create_dir_all(place.path().join("policies/tests")).unwrap();
        fs::write(place.path().join("policies/nurse.cedar"), PERMIT).unwrap();
        fs::write(place.path().join("policies/tests/README.md"), "cases").unwrap();
        let key = verifier("town", &place.path().join("key.pem"), true).unwrap();
        let (_, note) = sign(
            &place.path().join("policies"),
            ("town", &place.path().join("key.pem")),
            version,
            clock::now(),
        )
        .unwrap();
        write(&place.path().join("policies").join(MANIFEST), &note).unwrap();
        (place, key)
    }

    fn verified(place: &TempDir, signers: &[VerifierKey]) -> Result<u64, String> {
        let folder = Folder::read(&place.path().join("policies"), Extent::Everything).unwrap();
        let signed = verify(&folder, signers);
        signed
            .map(|signed| signed.manifest.release.version)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// What is done to a signed directory, and what is said of it.
    #[test]
    fn only_exactly_what_was_signed_verifies() {
        type Deed = fn(&Path);
        let cases: [(Deed, &str); 7] = [
            (|_| {}, ""),
            (|at| fs::write(at.join("nurse.cedar"), "").unwrap(), "nurse.cedar:1:1: was changed after"),
            (
                |at| fs::remove_file(at.join("nurse.cedar")).unwrap(),
                "nurse.cedar:1:1: is in the signed bundle and",
            ),
            (
                |at| fs::write(at.join("tests/more.toml"), "").unwrap(),
                "tests/more.toml:1:1: is not in the signed",
            ),
            (|at| fs::remove_file(at.join(MANIFEST)).unwrap(), "are not signed"),
            (
                |at| {
                    let note = fs::read_to_string(at.join(MANIFEST)).unwrap();
                    fs::write(at.join(MANIFEST), note.replace("version 3", "version 9")).unwrap();
                },
                "wrong signature",
            ),
            (|at| fs::write(at.join(MANIFEST), "anything").unwrap(), "is no signed manifest"),
        ];
        for (deed, said) in cases {
            let (place, key) = bundle(3);
            deed(&place.path().join("policies"));
            match verified(&place, std::slice::from_ref(&key)) {
                Ok(version) => assert!(said.is_empty() && version == 3, "{said}"),
                Err(error) => assert!(!said.is_empty() && error.contains(said), "{said}: {error}"),
            }
        }
    }

    #[test]
    fn a_bundle_is_of_one_of_the_keys_under_its_name() {
        let (place, key) = bundle(3);
        let (_elsewhere, stranger) = bundle(3);
        let renamed = VerifierKey::new("city", KeyKind::Log, &key.public()).unwrap();
        assert_eq!(verified(&place, &[stranger.clone(), key]), Ok(3));
        for signer in [stranger, renamed] {
            let error = verified(&place, std::slice::from_ref(&signer)).unwrap_err();
            assert!(error.contains("none of `policies.signers`"), "{error}");
        }
        assert!(verified(&place, &[]).is_err());
    }

    #[test]
    fn what_fails_its_cases_is_not_signed() {
        let (place, _) = bundle(3);
        let case = "[[case]]\nname = \"x\"\nrole = \"nurse\"\npurpose = \"TREAT\"\ntype = \"Observation\"\nexpect = \"permit\"\n";
        fs::write(place.path().join("policies/tests/nurse.toml"), case).unwrap();
        let key = place.path().join("key.pem");
        let problems = sign(&place.path().join("policies"), ("town", &key), 4, clock::now()).unwrap_err();
        assert_eq!((problems[0].file.as_str(), problems[0].line), ("tests/nurse.toml", 1), "{problems:?}");
    }

    fn told(event: Event, details: BTreeMap<String, String>) -> Record {
        Record::Control(Control { time: clock::now(), event, details })
    }

    /// The last record that tells is found behind whatever came later, and rollbacks since are added.
    #[tokio::test]
    async fn the_trail_tells_which_versions_were_in_force() {
        let place = TempDir::new().unwrap();
        let trail = Settings {
            directory: place.path().join("audit"),
            signing_key: place.path().join("audit.key"),
            encryption_key: place.path().join("audit.aes"),
        };
        generate_missing(&trail).unwrap();
        create(&trail, clock::now()).unwrap();
        let keys = Keys::load(&trail).unwrap();
        assert_eq!(recorded(&trail, &keys).unwrap(), Versions::default());
        let journal = Journal::open(&trail).unwrap();
        let release = |version: u64| Release::new(version, &"a".repeat(64)).unwrap();
        let five = Versions::default().with(&release(5)).unwrap();
        let loaded = told(Event::PoliciesLoaded, five.details(&release(5)));
        let unsigned = told(Event::Started, BTreeMap::new());
        let traffic: Vec<Record> = (0..300)
            .map(|n| {
                Record::Decision(Box::new(Decision::new(clock::now(), format!("r{n}"), Verdict::Refuse)))
            })
            .collect();
        let _kept = journal.append(&[loaded, unsigned]).await.unwrap();
        let _kept = journal.append(&traffic).await.unwrap();
        assert_eq!(recorded(&trail, &keys).unwrap(), five);
        for (version, reason) in [(2, "first"), (3, "last")] {
            let order = told(Event::PoliciesRollback, Versions::rollback(&release(version), reason, "jdoe"));
            let _kept = journal.append(&[order]).await.unwrap();
        }
        let versions = recorded(&trail, &keys).unwrap();
        assert_eq!((versions.highest(), versions.allowed()), (Some(&release(5)), Some(&release(3))));
        journal.close().await.unwrap();
    }
}
