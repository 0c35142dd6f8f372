//! `groups.toml`: names for sets of elements, so that policies stay short.
//!
//! Owns: reading that file. Must never: accept a path that R4 does not have (a typo would silently grant
//! or withhold nothing). Look next: `load`.
//!
//! Shape: `[groups]` and then `contact = ["Patient.telecom", "Patient.address"]`.

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
}

/// Reads the file; every unknown path, repeated entry and excess is a problem of its own.
pub(super) fn parse(source: &Source, problems: &mut Vec<Problem>) -> Groups {
    let raw: Raw = match toml::from_str(&source.text) {
        Ok(raw) => raw,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            problems.push(source.problem(offset, error.message()));
            return Groups::new();
        }
    };
    let mut groups = Groups::new();
    for (name, paths) in raw.groups {
        if groups.len() >= limits::POLICY_GROUPS_MAX || paths.len() > limits::POLICY_GROUP_PATHS_MAX {
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
        groups.insert(name.into_inner(), members);
    }
    groups
}
