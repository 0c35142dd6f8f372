//! `groups.toml`: names for sets of elements, so that policies stay short.
//!
//! Owns: reading that file. Must never: accept a path that R4 does not have (a typo would silently grant
//! or withhold nothing). Look next: `load`.
//!
//! Shape: `[groups]` and then `contact = ["Patient.telecom", "Patient.address"]`; `[unused]` and then `spare = "why a
//! group that no policy names is kept"`.

use super::source::{Problem, Source};
use crate::domain::fhir::r4::ElementPath;
use crate::limits;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// The groups by name. A path may be in several.
pub(super) type Groups = BTreeMap<String, BTreeSet<ElementPath>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    #[serde(default)]
    unused: BTreeMap<Spanned<String>, String>,
}

/// The file as read.
#[derive(Default)]
pub(super) struct Read {
    /// The groups.
    pub groups: Groups,
    /// Where each group is named that is expected to be of use: those in `[unused]` are kept for later.
    pub places: BTreeMap<String, usize>,
}

/// Reads the file; every unknown path, repeated entry and excess is a problem of its own.
pub(super) fn parse(source: &Source, problems: &mut Vec<Problem>) -> Read {
    let raw: Raw = match toml::from_str(&source.text) {
        Ok(raw) => raw,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            problems.push(source.problem(offset, error.message()));
            return Read::default();
        }
    };
    let mut read = Read::default();
    for (name, paths) in raw.groups {
        if read.groups.len() >= limits::POLICY_GROUPS_MAX || paths.len() > limits::POLICY_GROUP_PATHS_MAX {
            problems.push(source.problem(name.span().start, "too many element groups, or too long a group"));
            break;
        }
        let mut members = BTreeSet::new();
        for path in &paths {
            match ElementPath::parse(path.get_ref()) {
                Ok(parsed) if members.insert(parsed.clone()) => {}
                Ok(_) => problems
                    .push(source.problem(path.span().start, format!("`{}` is listed twice", path.get_ref()))),
                Err(error) => problems.push(source.problem(path.span().start, error.to_string())),
            }
        }
        read.places.insert(name.get_ref().clone(), name.span().start);
        read.groups.insert(name.into_inner(), members);
    }
    for (name, reason) in raw.unused {
        if reason.trim().is_empty() || read.places.remove(name.get_ref()).is_none() {
            let message = "`[unused]` names a group that there is not, or gives no reason";
            problems.push(source.problem(name.span().start, message));
        }
    }
    read
}
