//! SMART App Launch scopes: they narrow what policy permits, and never widen it.
//!
//! Owns: the grammar of clinical scopes, v1 and v2 (SMART App Launch 2.2, "Scopes and Launch Context").
//! Must never: let a scope it does not understand grant anything. Granular scopes (`?query`) are not
//! understood yet and grant nothing. Look next: `admit`, where they apply.

use super::denial::Denial;
use crate::domain::fhir::r4::ResourceType;

/// What the scopes of a token leave open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Narrowing {
    /// No clinical scope: an ordinary access token.
    Open,
    /// Only what is granted, and only about one patient if the scopes are `patient/` scopes.
    To { grants: Vec<Grant>, patient: Option<String> },
}

/// One understood scope: a type (or all) and the letters of `cruds` it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    resource: Option<ResourceType>,
    letters: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Patient,
    User,
    System,
}

impl Narrowing {
    /// Reads a token's scopes.
    pub(super) fn read(scopes: &[String], launch_patient: Option<&str>) -> Result<Self, Denial> {
        let clinical: Vec<(Level, &str)> = scopes.iter().filter_map(|scope| level(scope)).collect();
        let Some((first, _)) = clinical.first().copied() else { return Ok(Narrowing::Open) };
        if clinical.iter().any(|(level, _)| *level != first) {
            return Err(Denial::ScopesMixed);
        }
        let patient = match (first, launch_patient) {
            (Level::Patient, None | Some("")) => return Err(Denial::LaunchPatientMissing),
            (Level::Patient, Some(patient)) => Some(patient.to_owned()),
            (Level::User | Level::System, _) => None,
        };
        let grants = clinical.iter().filter_map(|(_, rest)| grant(rest)).collect();
        Ok(Narrowing::To { grants, patient })
    }

    /// Whether an interaction letter on a type is left open: `c` create, `r` read, vread and history, `u` update
    /// and patch, `d` delete, `s` search and what collects records (`$everything`, `$lastn`, export).
    pub(super) fn allows(&self, resource: ResourceType, letter: char) -> bool {
        match self {
            Narrowing::Open => true,
            Narrowing::To { grants, .. } => {
                grants.iter().any(|g| g.resource.is_none_or(|r| r == resource) && g.letters.contains(letter))
            }
        }
    }

    /// The one patient whose records are left open, if that is so.
    pub(super) fn patient(&self) -> Option<&str> {
        match self {
            Narrowing::Open => None,
            Narrowing::To { patient, .. } => patient.as_deref(),
        }
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

/// `Observation.rs`, `*.read`. Anything else grants nothing.
fn grant(rest: &str) -> Option<Grant> {
    let (resource, permissions) = rest.split_once('.')?;
    let resource = match resource {
        "*" => None,
        name => Some(ResourceType::from_name(name)?),
    };
    let letters = match permissions {
        "read" => "rs",
        "write" => "cud",
        "*" => "cruds",
        letters if in_order(letters) => letters,
        _ => return None,
    };
    Some(Grant { resource, letters: letters.to_owned() })
}

/// Letters of `cruds`, each at most once, in that order, at least one.
fn in_order(letters: &str) -> bool {
    let mut rest = "cruds".chars();
    !letters.is_empty() && letters.chars().all(|letter| rest.any(|known| known == letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(scopes: &str, patient: Option<&str>) -> Result<Narrowing, Denial> {
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        Narrowing::read(&scopes, patient)
    }

    #[test]
    fn scopes_allow_what_they_name_and_nothing_else() {
        let cases = [
            ("openid fhirUser", "Observation", "cruds"),
            ("user/Observation.rs", "Observation", "rs"),
            ("user/Observation.r", "Observation", "r"),
            ("user/Observation.read", "Observation", "rs"),
            ("user/Observation.*", "Observation", "cruds"),
            ("user/*.s", "Observation", "s"),
            ("user/Observation.write", "Observation", "cud"),
            ("user/Observation.c", "Observation", "c"),
            ("user/Observation.cu", "Observation", "cu"),
            ("user/Observation.uc", "Observation", ""),
            ("user/Observation.sr", "Observation", ""),
            ("user/Observation.rr", "Observation", ""),
            ("user/Observation.rs?category=laboratory", "Observation", ""),
            ("user/observation.rs", "Observation", ""),
            ("user/Patient.rs", "Observation", ""),
            ("user/Observation", "Observation", ""),
            ("user/", "Observation", ""),
            ("user/.rs", "Observation", ""),
            ("openid user/Patient.rs user/Observation.s", "Observation", "s"),
            ("system/*.cruds", "Observation", "cruds"),
        ];
        for (scopes, resource, expected) in cases {
            let narrowing = read(scopes, None).unwrap();
            let resource = ResourceType::from_name(resource).unwrap();
            let allowed: String = "cruds".chars().filter(|l| narrowing.allows(resource, *l)).collect();
            assert_eq!(allowed, expected, "{scopes}");
        }
    }

    #[test]
    fn contexts_do_not_mix_and_patient_scopes_need_a_patient() {
        assert_eq!(read("patient/*.rs user/*.rs", Some("p1")), Err(Denial::ScopesMixed));
        assert_eq!(read("patient/nonsense user/*.rs", Some("p1")), Err(Denial::ScopesMixed));
        assert_eq!(read("patient/*.rs", None), Err(Denial::LaunchPatientMissing));
        assert_eq!(read("patient/*.rs", Some("")), Err(Denial::LaunchPatientMissing));
        assert_eq!(read("patient/*.rs", Some("p1")).unwrap().patient(), Some("p1"));
        assert_eq!(read("user/*.rs", Some("p1")).unwrap().patient(), None);
    }
}
