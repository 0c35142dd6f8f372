//! `[policies]`: where they are, and what a set must meet before it is put in force.
//!
//! Owns: these keys, their meaning and defaults. Must never: read the directory.
//! Look next: `app::policies`, which holds sets to it; docs/operators.md.

use super::raw::{Text, Texts};
use super::section::{Reader, Section};
use super::settings::Meaning;
use crate::clock;
use crate::domain::ledger::{KeyKind, VerifierKey};
use crate::limits;
use jiff::Timestamp;
use std::path::PathBuf;

/// What a set must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTerms {
    /// The cases beside the policies must pass.
    pub tests: bool,
    /// One of these must have signed it; empty: no signature is asked for.
    pub signers: Vec<VerifierKey>,
}

/// `[policies.shadow]`: a candidate set that is asked beside the one in force, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowTerms {
    /// Its directory.
    pub directory: PathBuf,
    /// When it is asked no more, whatever happens.
    pub until: Timestamp,
}

pub(super) struct RawShadow {
    directory: Text,
    until: Text,
}

pub(super) struct RawPolicies {
    shadow: Option<RawShadow>,
    directory: Text,
    tests: bool,
    signers: Texts,
}

pub(super) fn policies(reader: &mut Reader<'_>, root: &mut Section<'_>) -> RawPolicies {
    let mut section = root.table(reader, "policies", true);
    let policies = RawPolicies {
        directory: section.required_text(reader, "directory"),
        // Cases cost seconds of processor time at each start and change: who wants them asks for them.
        tests: section.switch_or(reader, "tests", false),
        signers: section.texts(reader, "signers"),
        shadow: shadow(reader, &mut section),
    };
    section.finish(reader);
    policies
}

fn shadow(reader: &mut Reader<'_>, policies: &mut Section<'_>) -> Option<RawShadow> {
    let mut section = policies.table(reader, "shadow", false);
    let shadow = section.is_present().then(|| RawShadow {
        directory: section.required_text(reader, "directory"),
        until: section.required_text(reader, "until"),
    });
    section.finish(reader);
    shadow
}

/// Directory, terms, and the candidate if there is one.
pub(super) type Policies = (PathBuf, PolicyTerms, Option<ShadowTerms>);

impl Meaning<'_, '_> {
    pub(super) fn policies(&mut self, raw: RawPolicies) -> Option<Policies> {
        let signers = self.signers(raw.signers);
        let shadow = raw.shadow.and_then(|raw| self.shadow(raw));
        Some((self.path(raw.directory)?, PolicyTerms { tests: raw.tests, signers }, shadow))
    }

    /// Never without an end, so that nobody leaves it on and forgets (T-214). An end that is past is no mistake: it is over.
    fn shadow(&mut self, raw: RawShadow) -> Option<ShadowTerms> {
        const KEY: &str = "policies.shadow.until";
        let until = raw.until?;
        let Ok(end) = until.value.parse::<Timestamp>() else {
            self.reader
                .report(until.offset, format!("`{KEY}` must be a time such as `2026-12-24T00:00:00Z`"));
            return None;
        };
        let last = clock::now().checked_add(limits::SHADOW_MAX).unwrap_or(Timestamp::MAX);
        if end > last {
            let days = limits::SHADOW_MAX.as_secs() / 86_400;
            let hint = "set it anew when that time is over";
            let message = format!("`{KEY}` must be within {days} days");
            self.reader.report_with_hint(until.offset, message, hint.to_owned());
        }
        Some(ShadowTerms { directory: self.path(raw.directory)?, until: end })
    }

    /// An empty list would read as "signed by nobody" and mean "unsigned".
    fn signers(&mut self, texts: Texts) -> Vec<VerifierKey> {
        const KEY: &str = "policies.signers";
        let Some(texts) = texts else { return Vec::new() };
        if texts.value.is_empty() || texts.value.len() > limits::POLICY_SIGNERS_MAX {
            let most = limits::POLICY_SIGNERS_MAX;
            let hint = "leave it out where no signature is asked for";
            self.reader.report_with_hint(
                texts.offset,
                format!("`{KEY}` must name 1 to {most} keys"),
                hint.to_owned(),
            );
        }
        let mut keys: Vec<VerifierKey> = Vec::new();
        for text in texts.value {
            let offset = text.offset;
            match VerifierKey::parse(&text.value) {
                Ok(key) if key.kind() != KeyKind::Log || key.name().len() > limits::ORIGIN_BYTES_MAX => {
                    let hint = "`chartgate policy key` prints it";
                    self.reader.report_with_hint(
                        offset,
                        format!("`{KEY}` holds no key of a bundle"),
                        hint.to_owned(),
                    );
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
