//! `[policies]`: where they are, and what a set must meet before it is put in force.
//!
//! Owns: these keys, their meaning and defaults. Must never: read the directory.
//! Look next: `app::policies`, which holds sets to it; docs/operators.md.

use super::raw::{Text, Texts};
use super::section::{Reader, Section};
use super::settings::Meaning;
use crate::domain::ledger::{KeyKind, VerifierKey};
use crate::limits;
use std::path::PathBuf;

/// What a set must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTerms {
    /// The cases beside the policies must pass.
    pub tests: bool,
    /// One of these must have signed it; empty: no signature is asked for.
    pub signers: Vec<VerifierKey>,
}

pub(super) struct RawPolicies {
    directory: Text,
    tests: bool,
    signers: Texts,
}

pub(super) fn policies(reader: &mut Reader<'_>, root: &mut Section<'_>) -> RawPolicies {
    let mut section = root.table(reader, "policies", true);
    let policies = RawPolicies {
        directory: section.required_text(reader, "directory"),
        // What fails its own cases is not what its authors meant.
        tests: section.switch_or(reader, "tests", true),
        signers: section.texts(reader, "signers"),
    };
    section.finish(reader);
    policies
}

impl Meaning<'_, '_> {
    pub(super) fn policies(&mut self, raw: RawPolicies) -> Option<(PathBuf, PolicyTerms)> {
        let signers = self.signers(raw.signers);
        Some((self.path(raw.directory)?, PolicyTerms { tests: raw.tests, signers }))
    }

    /// An empty list would read as "signed by nobody" and mean "unsigned".
    fn signers(&mut self, texts: Texts) -> Vec<VerifierKey> {
        const KEY: &str = "policies.signers";
        let Some(texts) = texts else { return Vec::new() };
        if texts.value.is_empty() || texts.value.len() > limits::POLICY_SIGNERS_MAX {
            let most = limits::POLICY_SIGNERS_MAX;
            let hint = "leave it out where no signature is asked for";
            self.reader.report_with_hint(texts.offset, format!("`{KEY}` must name 1 to {most} keys"), hint.to_owned());
        }
        let mut keys: Vec<VerifierKey> = Vec::new();
        for text in texts.value {
            let offset = text.offset;
            match VerifierKey::parse(&text.value) {
                Ok(key) if key.kind() != KeyKind::Log || key.name().len() > limits::ORIGIN_BYTES_MAX => {
                    let hint = "`chartgate policy key` prints it";
                    self.reader.report_with_hint(offset, format!("`{KEY}` holds no key of a bundle"), hint.to_owned());
                }
                Ok(key) if keys.iter().any(|known| known.public() == key.public()) => {
                    self.reader.report(offset, format!("`{KEY}` names a key twice"));
                }
                Ok(key) => keys.push(key),
                Err(error) => {
                    let hint = "`chartgate policy key` prints it";
                    self.reader.report_with_hint(offset, format!("`{KEY}`: {error}"), hint.to_owned());
                }
            }
        }
        keys
    }
}
