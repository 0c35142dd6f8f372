//! SMART App Launch scopes: they narrow what policy permits, and never widen it.
//!
//! Owns: the grammar of clinical scopes, v1 and v2 (SMART App Launch 2.2, "Scopes and Launch Context"), and granular
//! scopes, whose condition must hold of each record itself, however it was asked for (T-189, T-190).
//! Must never: let a scope it does not understand, or a condition it cannot judge, grant anything.
//! Look next: `admit`, where they apply to types; `permit`, where they apply to records.

use super::denial::Denial;
use crate::domain::fhir::classify;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::{Holds, Registry, Search};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What the scopes of a token, and those left to its client, leave open.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Narrowing {
    /// Each must grant: the token's scopes, then the client's. None: an ordinary access token.
    layers: Vec<Vec<Grant>>,
    /// The one patient that `patient/` scopes are about.
    patient: Option<String>,
}

/// One understood scope: a type (or all), the letters of `cruds` it gives, and what must hold of a record.
#[derive(Clone, PartialEq, Eq)]
struct Grant {
    resource: Option<ResourceType>,
    letters: String,
    only: Option<Condition>,
}

/// The condition of a granular scope. Of all types (`*`) it means for each type what it would mean for that type alone,
/// and for one that has no such search parameter it grants nothing.
#[derive(Clone)]
struct Condition {
    query: String,
    /// What it means for the types that were asked about: few of all there are.
    known: Arc<RwLock<BTreeMap<ResourceType, Option<Arc<Search>>>>>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.query == other.query
    }
}

impl Eq for Condition {}

impl Condition {
    fn new(query: &str) -> Self {
        Self { query: query.to_owned(), known: Arc::default() }
    }

    /// What must hold of a record of this type; nothing where no record can be judged by it.
    fn of(&self, resource: ResourceType) -> Option<Arc<Search>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&resource).cloned();
        known.unwrap_or_else(|| {
            let read = condition(resource, &self.query).map(Arc::new);
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(resource, read.clone());
            read
        })
    }

    /// Whether there are records that it can be asked of.
    fn means_something(&self, resource: Option<ResourceType>) -> bool {
        match resource {
            Some(resource) => self.of(resource).is_some(),
            None => ResourceType::all().any(|resource| self.of(resource).is_some()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Patient,
    User,
    System,
}

/// Which version's permissions a scope is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Whether a scope is a clinical one of the grammar, or none of them at all, such as `openid`.
#[must_use]
pub fn is_scope(text: &str) -> bool {
    level(text).is_none_or(|(_, rest)| grant(rest).is_some())
}

impl Narrowing {
    /// Reads a token's scopes. `left`: those that the register of clients leaves to its application, if it names any;
    /// then a token without clinical scopes has none of them.
    pub(super) fn read(
        scopes: &[String],
        left: Option<&[String]>,
        launch_patient: Option<&str>,
    ) -> Result<Self, Denial> {
        let clinical: Vec<(Level, &str)> = scopes.iter().filter_map(|scope| level(scope)).collect();
        let Some((context, _)) = clinical.first().copied() else {
            let layers = left.map(|_| Vec::new()).into_iter().collect();
            return Ok(Self { layers, patient: None });
        };
        let granted: Vec<(Version, Grant)> = clinical.iter().filter_map(|(_, rest)| grant(rest)).collect();
        let versions = |wanted| granted.iter().any(|(version, _)| *version == wanted);
        let mixes_contexts = clinical.iter().any(|(level, _)| *level != context);
        if mixes_contexts || (versions(Version::V1) && versions(Version::V2)) {
            return Err(Denial::ScopesMixed);
        }
        let patient = match (context, launch_patient) {
            (Level::Patient, None | Some("")) => return Err(Denial::LaunchPatientMissing),
            (Level::Patient, Some(patient)) => Some(patient.to_owned()),
            (Level::User | Level::System, _) => None,
        };
        let own = granted.into_iter().map(|(_, grant)| grant).collect();
        let of_client = left.map(|left| {
            let same = left.iter().filter_map(|scope| level(scope)).filter(|(level, _)| *level == context);
            same.filter_map(|(_, rest)| grant(rest)).map(|(_, grant)| grant).collect()
        });
        Ok(Self { layers: std::iter::once(own).chain(of_client).collect(), patient })
    }

    /// Whether an interaction letter on a type is left open, for some record at least: `c` create, `r` read, vread and
    /// history, `u` update and patch, `d` delete, `s` search and what collects records (`$everything`, `$lastn`, export).
    pub(super) fn allows(&self, resource: ResourceType, letter: char) -> bool {
        self.layers.iter().all(|grants| grants.iter().any(|grant| grant.names(resource, letter)))
    }

    /// The same for every record of the type, whatever it says.
    pub(super) fn allows_every(&self, resource: ResourceType, letter: char) -> bool {
        let plain = |grant: &Grant| grant.names(resource, letter) && grant.only.is_none();
        self.layers.iter().all(|grants| grants.iter().any(plain))
    }

    /// Whether it depends on the record what is left open of a type.
    pub(super) fn judges(&self, resource: ResourceType, letter: char) -> bool {
        self.allows(resource, letter) && !self.allows_every(resource, letter)
    }

    /// Whether any scope looks at records.
    pub(super) fn is_granular(&self) -> bool {
        self.layers.iter().flatten().any(|grant| grant.only.is_some())
    }

    /// Whether this record is left open. Of a record whose content is not known, nothing is.
    pub(super) fn holds_for(&self, letter: char, facts: &Facts) -> bool {
        let fits = |grant: &Grant| grant.names(facts.resource_type, letter) && grant.holds_for(facts);
        self.layers.iter().all(|grants| grants.iter().any(fits))
    }

    /// The one patient whose records are left open, if that is so.
    pub(super) fn patient(&self) -> Option<&str> {
        self.patient.as_deref()
    }
}

impl Grant {
    fn names(&self, resource: ResourceType, letter: char) -> bool {
        self.resource.is_none_or(|named| named == resource)
            && self.letters.contains(letter)
            && self.only.as_ref().is_none_or(|only| only.of(resource).is_some())
    }

    fn holds_for(&self, facts: &Facts) -> bool {
        let Some(only) = &self.only else { return true };
        let judged = only.of(facts.resource_type).zip(facts.content.as_ref());
        judged.is_some_and(|(only, content)| only.holds_for(content, &[]) == Holds::Yes)
    }
}

fn level(scope: &str) -> Option<(Level, &str)> {
    let (level, rest) = scope.split_once('/')?;
    match level {
        "patient" => Some((Level::Patient, rest)),
        "user" => Some((Level::User, rest)),
        "system" => Some((Level::System, rest)),
        _ => None,
    }
}

/// `Observation.rs`, `*.read`, `Observation.rs?category=laboratory`, `*.rs?_security=N`. Anything else grants nothing.
fn grant(rest: &str) -> Option<(Version, Grant)> {
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (resource, permissions) = rest.split_once('.')?;
    let resource = match resource {
        "*" => None,
        name => Some(ResourceType::from_name(name)?),
    };
    let (version, letters) = match permissions {
        "read" => (Version::V1, "rs"),
        "write" => (Version::V1, "cud"),
        "*" => (Version::V1, "cruds"),
        letters if in_order(letters) => (Version::V2, letters),
        _ => return None,
    };
    let only = match (query, version) {
        (None, _) => None,
        (Some(query), Version::V2) => {
            Some(Condition::new(query)).filter(|only| only.means_something(resource)).map(Some)?
        }
        (Some(_), Version::V1) => return None,
    };
    Some((version, Grant { resource, letters: letters.to_owned(), only }))
}

/// The condition of a granular scope: search criteria that a record alone can answer. Parameters that only this
/// hospital's EMR knows are none of them, nor is a URL of ours in a value taken for a local reference.
fn condition(resource: ResourceType, query: &str) -> Option<Search> {
    let nowhere = PublicBase::parse("https://scope.invalid").ok()?;
    let criteria = classify::criteria(resource, query, &nowhere, &Registry::empty()).ok()?;
    criteria.is_judgeable().then_some(criteria)
}

/// Letters of `cruds`, each at most once, in that order, at least one.
fn in_order(letters: &str) -> bool {
    let mut rest = "cruds".chars();
    !letters.is_empty() && letters.chars().all(|letter| rest.any(|known| known == letter))
}

#[cfg(test)]
#[path = "scopes_tests.rs"]
mod tests;
