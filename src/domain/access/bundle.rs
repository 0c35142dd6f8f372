//! Signed bundles of policies: what a manifest says, and which version may come into force after which (T-205).
//!
//! Owns: the lines of a manifest in their only spelling, and the rule of versions. Must never: check a signature or read a
//! file (`edge::policy_bundle` does); let an older version in that nobody named.
//! Look next: `edge::policy_bundle`, `app::policies`.
//!
//! ```text
//! version 7                      grows with each bundle
//! created 2026-11-22T14:00:00Z
//! set 9c1f…                      hash of the set that these files make
//! file 3a7b… nurse.cedar         SHA-256 and path, one line a file, by path
//! ```

use crate::limits;
use aws_lc_rs::digest;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// One version of a bundle: its number and the hash of the set it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Grows with each bundle.
    pub version: u64,
    /// [`super::PolicySet::hash`].
    pub set: String,
}

impl Release {
    /// A version under the hash of its set, 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn new(version: u64, set: &str) -> Option<Self> {
        is_hash(set).then(|| Self { version, set: set.to_owned() })
    }

    /// The spelling of [`Release`]'s `Display`.
    fn parse(text: &str) -> Option<Self> {
        let (version, set) = text.split_once(' ')?;
        Self::new(number(version)?, set)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.version, self.set)
    }
}

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Number and set.
    pub release: Release,
    /// When it was made.
    pub created: Timestamp,
    /// SHA-256 of each file, lower-case hexadecimal, by its path in the directory.
    files: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest of these files. None for a path that a line cannot hold.
    #[must_use]
    pub fn of<'f>(
        release: Release,
        created: Timestamp,
        files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Option<Self> {
        let of = |(path, bytes): (&str, &[u8])| is_path(path).then(|| (path.to_owned(), digest_of(bytes)));
        let files = files.into_iter().map(of).collect::<Option<_>>()?;
        Some(Self { release, created, files })
    }

    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let head = [
            format!("version {}", self.release.version),
            format!("created {}", self.created),
            format!("set {}", self.release.set),
        ];
        head.into_iter()
            .chain(self.files.iter().map(|(path, digest)| format!("file {digest} {path}")))
            .collect()
    }

    /// The manifest with exactly these lines.
    #[must_use]
    pub fn parse(lines: &[String]) -> Option<Self> {
        let [version, created, set, files @ ..] = lines else { return None };
        let release = Release::new(number(version.strip_prefix("version ")?)?, set.strip_prefix("set ")?)?;
        let created = created.strip_prefix("created ")?.parse().ok()?;
        let file = |line: &String| {
            let (digest, path) = line.strip_prefix("file ")?.split_once(' ')?;
            (is_hash(digest) && is_path(path)).then(|| (path.to_owned(), digest.to_owned()))
        };
        let files = files.iter().map(file).collect::<Option<_>>()?;
        let manifest = Self { release, created, files };
        (manifest.lines() == lines).then_some(manifest)
    }

    /// How many files it covers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// It covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// In what way these files are not exactly those it covers: path and what is wrong, by path.
    #[must_use]
    pub fn differences<'f>(
        &self,
        files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Vec<(String, &'static str)> {
        let mut left = self.files.clone();
        let mut found = BTreeMap::new();
        for (path, bytes) in files {
            match left.remove(path) {
                Some(digest) if digest == digest_of(bytes) => {}
                Some(_) => drop(found.insert(path.to_owned(), "was changed after it was signed")),
                None => drop(found.insert(path.to_owned(), "is not in the signed bundle")),
            }
        }
        found.extend(left.into_keys().map(|path| (path, "is in the signed bundle and missing here")));
        found.into_iter().collect()
    }
}

/// Which versions were in force: the highest, and the one that somebody allowed to be taken again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    highest: Option<Release>,
    allowed: Option<Release>,
}

/// Why a version may not come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionFault {
    /// A higher one was in force.
    Older {
        /// The one offered.
        offered: u64,
        /// The highest.
        highest: u64,
    },
    /// The highest one was another set.
    Another(u64),
}

impl fmt::Display for VersionFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older { offered, highest } => {
                write!(out, "version {offered} of the policies is older than {highest}, which was in force")
            }
            Self::Another(version) => {
                write!(out, "version {version} of the policies was in force with another content")
            }
        }
    }
}

impl std::error::Error for VersionFault {}

/// The details of records that tell of versions.
const IN_FORCE: &str = "policyVersion";
const HIGHEST: &str = "policyHighest";
const ALLOWED: &str = "policyAllowed";
const ROLLED_BACK: (&str, &str) = ("version", "policySet");

impl Versions {
    /// What a record of a set's coming into force tells, if it tells of versions.
    #[must_use]
    pub fn recorded(details: &BTreeMap<String, String>) -> Option<Self> {
        let highest = Some(Release::parse(details.get(HIGHEST)?)?);
        let allowed = details.get(ALLOWED).and_then(|text| Release::parse(text));
        Some(Self { highest, allowed })
    }

    /// What a record of a rollback allows.
    #[must_use]
    pub fn rolled_back(details: &BTreeMap<String, String>) -> Option<Release> {
        Release::new(number(details.get(ROLLED_BACK.0)?)?, details.get(ROLLED_BACK.1)?)
    }

    /// The details of a record of a rollback.
    #[must_use]
    pub fn rollback(release: &Release, reason: &str, operator: &str) -> BTreeMap<String, String> {
        let details = [
            (ROLLED_BACK.0, release.version.to_string()),
            (ROLLED_BACK.1, release.set.clone()),
            ("reason", reason.to_owned()),
            ("operator", operator.to_owned()),
        ];
        details.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// Lets this version be taken, until a higher one than ever is.
    pub fn allow(&mut self, release: Release) {
        self.allowed = Some(release);
    }

    /// The version that may be taken although it is older.
    #[must_use]
    pub fn allowed(&self) -> Option<&Release> {
        self.allowed.as_ref()
    }

    /// The highest version that was in force.
    #[must_use]
    pub fn highest(&self) -> Option<&Release> {
        self.highest.as_ref()
    }

    /// What is so once this version is in force.
    ///
    /// # Errors
    /// [`VersionFault`]: it may not be.
    pub fn with(&self, offered: &Release) -> Result<Self, VersionFault> {
        match &self.highest {
            _ if self.allowed.as_ref() == Some(offered) => Ok(self.clone()),
            Some(highest) if offered == highest => Ok(self.clone()),
            Some(highest) if offered.version == highest.version => {
                Err(VersionFault::Another(offered.version))
            }
            Some(highest) if offered.version < highest.version => {
                Err(VersionFault::Older { offered: offered.version, highest: highest.version })
            }
            Some(_) | None => Ok(Self { highest: Some(offered.clone()), allowed: None }),
        }
    }

    /// What a record says once this version is in force.
    #[must_use]
    pub fn details(&self, in_force: &Release) -> BTreeMap<String, String> {
        let highest = self.highest.iter().map(|release| (HIGHEST, release.to_string()));
        let allowed = self.allowed.iter().map(|release| (ALLOWED, release.to_string()));
        let all = highest.chain(allowed).chain([(IN_FORCE, in_force.version.to_string())]);
        all.map(|(name, text)| (name.to_owned(), text)).collect()
    }
}

/// Digits without a leading zero.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_path(path: &str) -> bool {
    (1..=limits::MANIFEST_PATH_BYTES_MAX).contains(&path.len()) && !path.contains(char::is_control)
}

fn digest_of(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn release(version: u64, set: char) -> Release {
        Release::new(version, &set.to_string().repeat(64)).unwrap()
    }

    fn manifest() -> Manifest {
        let files: [(&str, &[u8]); 2] = [("nurse.cedar", b"permit"), ("tests/a b.toml", b"")];
        Manifest::of(release(7, 'a'), Timestamp::UNIX_EPOCH, files).unwrap()
    }

    #[test]
    fn a_manifest_has_one_spelling() {
        let lines = manifest().lines();
        assert_eq!(Manifest::parse(&lines), Some(manifest()));
        let line = |n: usize, text: String| {
            let mut lines = lines.clone();
            lines[n] = text;
            lines
        };
        let swapped = {
            let mut lines = lines.clone();
            lines.swap(3, 4);
            lines
        };
        let twice = [lines.clone(), vec![lines[4].clone()]].concat();
        for wrong in [
            line(0, "version 07".to_owned()),
            line(0, "version -7".to_owned()),
            line(1, "created 1970-01-01T00:00:00.0Z".to_owned()),
            line(2, format!("set {}", "A".repeat(64))),
            line(3, lines[3].replace("file ", "file  ")),
            swapped,
            twice,
            lines[..2].to_vec(),
        ] {
            assert_eq!(Manifest::parse(&wrong), None, "{wrong:?}");
        }
        let empty: [(&str, &[u8]); 1] = [("a\nb", b"")];
        assert_eq!(Manifest::of(release(7, 'a'), Timestamp::UNIX_EPOCH, empty), None);
    }

    #[test]
    fn a_bundle_is_exactly_its_files() {
        type Files<'f> = &'f [(&'f str, &'f [u8])];
        let cases: [(Files<'_>, &[(&str, &str)]); 4] = [
            (&[("nurse.cedar", b"permit"), ("tests/a b.toml", b"")], &[]),
            (&[("nurse.cedar", b"forbid"), ("tests/a b.toml", b"")], &[("nurse.cedar", "was changed")]),
            (&[("nurse.cedar", b"permit")], &[("tests/a b.toml", "is in the signed bundle and missing")]),
            (
                &[("more.cedar", b""), ("nurse.cedar", b"permit"), ("tests/a b.toml", b"")],
                &[("more.cedar", "is not in the signed bundle")],
            ),
        ];
        for (files, expected) in cases {
            let found = manifest().differences(files.iter().copied());
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((path, what), (file, part)) in found.iter().zip(expected) {
                assert!(path == file && what.starts_with(part), "{found:?}");
            }
        }
    }

    #[test]
    fn versions_only_grow_unless_one_was_named() {
        let mut versions = Versions::default();
        for (offered, expected) in [
            (release(5, 'a'), Ok(())),
            (release(5, 'a'), Ok(())),
            (release(5, 'b'), Err(VersionFault::Another(5))),
            (release(4, 'c'), Err(VersionFault::Older { offered: 4, highest: 5 })),
            (release(7, 'd'), Ok(())),
            (release(6, 'e'), Err(VersionFault::Older { offered: 6, highest: 7 })),
        ] {
            let after = versions.with(&offered);
            assert_eq!(after.clone().map(|_| ()), expected, "{offered}");
            versions = after.unwrap_or(versions);
        }
        versions.allow(release(5, 'a'));
        versions = versions.with(&release(5, 'a')).unwrap();
        assert_eq!(versions.highest(), Some(&release(7, 'd')), "a rollback lowers nothing");
        assert!(versions.with(&release(5, 'b')).is_err(), "the very set that was named");
        assert!(versions.with(&release(4, 'c')).is_err());
        versions = versions.with(&release(7, 'd')).unwrap();
        versions = versions.with(&release(8, 'f')).unwrap();
        assert!(versions.with(&release(5, 'a')).is_err(), "it was for once");
    }

    #[test]
    fn what_a_record_tells_is_what_was_so() {
        let mut versions = Versions::default().with(&release(7, 'd')).unwrap();
        assert_eq!(Versions::recorded(&versions.details(&release(7, 'd'))), Some(versions.clone()));
        versions.allow(release(5, 'a'));
        let details = versions.details(&release(5, 'a'));
        assert_eq!(Versions::recorded(&details), Some(versions));
        assert_eq!(details["policyVersion"], "5");
        assert_eq!(Versions::recorded(&BTreeMap::new()), None, "a gate that asked for no signature");
        let order = Versions::rollback(&release(5, 'a'), "the new one withholds allergies", "jdoe");
        assert_eq!(Versions::rolled_back(&order), Some(release(5, 'a')));
    }

    proptest! {
        /// Whatever is offered, the highest version never falls, and equal versions are equal sets.
        #[test]
        fn the_highest_never_falls(offers in prop::collection::vec((0_u64..6, 0_u8..3, any::<bool>()), 0..40)) {
            let mut versions = Versions::default();
            for (version, set, named) in offers {
                let offered = release(version, char::from(b'a' + set));
                if named {
                    versions.allow(offered.clone());
                }
                let before = versions.highest().cloned();
                if let Ok(after) = versions.with(&offered) {
                    prop_assert!(after.highest().map(|one| one.version) >= before.map(|one| one.version));
                    versions = after;
                }
            }
        }
    }
}
