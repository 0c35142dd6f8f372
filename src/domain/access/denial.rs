//! Why access was refused.
//!
//! Owns: the room's two refusal types. Must never: hold patient data, token text or values; policy ids and
//! parameter names are ours. Look next: `gateway::refusal`, which turns them into answers.

use crate::domain::fhir::r4::ResourceType;
use std::fmt;

/// A request that goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No record of this type could be permitted, or nothing of it would be disclosed.
    TypeNotPermitted {
        /// The type asked for.
        resource: ResourceType,
    },
    /// A parameter, sort key or include reads elements the caller may not see.
    CriterionWithheld {
        /// Its name as asked; made of official names only.
        parameter: String,
    },
    /// The scopes of the token do not cover this interaction.
    ScopeInsufficient {
        /// The type asked for.
        resource: ResourceType,
    },
    /// The token holds SMART scopes of more than one context (`patient/`, `user/`, `system/`).
    ScopesMixed,
    /// `patient/` scopes without a launch patient.
    LaunchPatientMissing,
    /// A policy forbids where the caller stands in a relation, and the token does not say who they are to the EMR.
    FhirUserMissing,
    /// The purpose of use asked for is not one the token allows.
    PurposeNotAllowed,
    /// The token allows several purposes of use and the request names none.
    PurposeAmbiguous,
    /// The interaction asks for no record (capabilities), or is a sealed page link still shut.
    NothingToDecide,
    /// A policy could not be evaluated. Raise an alarm.
    PolicyFault {
        /// Ids of the policies, empty where it was the question itself.
        policies: Vec<String>,
    },
}

/// A record that is not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordDenial {
    /// No policy permits it, or one forbids it.
    NotPermitted,
    /// It is permitted, and every element of it is withheld.
    NothingDisclosed,
    /// Writing it is permitted, and no element of it may be written.
    NothingModifiable,
    /// A criterion, sort key or include reads an element that is withheld from this record, so that
    /// showing it would tell the element's value.
    CriterionWithheld,
    /// The scopes leave open only records of which something else holds.
    OutsideScopes,
    /// It belongs to another patient than the launch patient, or would after the change.
    OutsideLaunch,
    /// Upstream returned a record that was not asked for; or it is a change that was not asked for.
    NotAsked,
    /// It lacks its status, which R4 demands and policies may look at.
    StatusMissing,
    /// A policy could not be evaluated. Raise an alarm.
    PolicyFault {
        /// Ids of the policies, empty where it was the question itself.
        policies: Vec<String>,
    },
}

impl Denial {
    /// Something is wrong with the policies, not with the request.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self, Denial::PolicyFault { .. })
    }
}

impl RecordDenial {
    /// Something is wrong with the policies, not with the record.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self, RecordDenial::PolicyFault { .. })
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::TypeNotPermitted { resource } => write!(f, "no access to {}", resource.name()),
            Denial::CriterionWithheld { parameter } => {
                write!(f, "`{parameter}` reads elements that are withheld")
            }
            Denial::ScopeInsufficient { resource } => {
                write!(f, "the token's scopes do not cover {}", resource.name())
            }
            Denial::ScopesMixed => f.write_str("the token mixes scopes of several contexts"),
            Denial::LaunchPatientMissing => f.write_str("the token has patient scopes and no launch patient"),
            Denial::FhirUserMissing => {
                f.write_str("the token does not say who the caller is to the record system")
            }
            Denial::PurposeNotAllowed => f.write_str("the purpose of use is not one the token allows"),
            Denial::PurposeAmbiguous => f.write_str("the purpose of use must be chosen"),
            Denial::NothingToDecide => f.write_str("the interaction asks for no record"),
            Denial::PolicyFault { .. } => f.write_str("a policy could not be evaluated"),
        }
    }
}

impl fmt::Display for RecordDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordDenial::NotPermitted => "not permitted",
            RecordDenial::NothingDisclosed => "nothing of it is disclosed",
            RecordDenial::NothingModifiable => "nothing of it may be written",
            RecordDenial::CriterionWithheld => "a criterion reads a withheld element of it",
            RecordDenial::OutsideScopes => "outside the token's scopes",
            RecordDenial::OutsideLaunch => "outside the launch patient's records",
            RecordDenial::NotAsked => "not what was asked for",
            RecordDenial::StatusMissing => "its status is missing",
            RecordDenial::PolicyFault { .. } => "a policy could not be evaluated",
        })
    }
}

impl std::error::Error for Denial {}

impl std::error::Error for RecordDenial {}
