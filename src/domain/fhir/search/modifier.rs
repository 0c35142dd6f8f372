//! Modifiers: which ones each parameter type has.
//!
//! Owns: the allow-list of R4 search.html 3.1.1.4.5 (T-002, T-004). Must never: let an unlisted modifier
//! through. Look next: `search/name.rs`, which says what each one reads.

use crate::domain::fhir::r4::{ResourceType, SearchType};

/// What stands after the colon of the last parameter in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modifier {
    Absent,
    Missing,
    Exact,
    Contains,
    Text,
    Not,
    Above,
    Below,
    In,
    NotIn,
    OfType,
    Identifier,
    Type(ResourceType),
    /// Never written: the value of `_list` is the id of a List.
    Member,
}

impl Modifier {
    /// `None` when this type of parameter has no such modifier.
    pub(super) fn parse(text: Option<&str>, kind: SearchType) -> Option<Self> {
        let Some(text) = text else { return Some(Self::Absent) };
        match (kind, text) {
            // Whether a composite or a place is missing is not defined.
            (SearchType::Composite | SearchType::Special, _) => None,
            (_, "missing") => Some(Self::Missing),
            (SearchType::String, _) => string_modifier(text),
            (SearchType::Token, _) => token_modifier(text),
            (SearchType::Reference, _) => reference_modifier(text),
            (SearchType::Uri, _) => hierarchy_modifier(text),
            (SearchType::Number | SearchType::Date | SearchType::Quantity, _) => None,
        }
    }
}

fn string_modifier(text: &str) -> Option<Modifier> {
    match text {
        "exact" => Some(Modifier::Exact),
        "contains" => Some(Modifier::Contains),
        _ => None,
    }
}

fn token_modifier(text: &str) -> Option<Modifier> {
    match text {
        "text" => Some(Modifier::Text),
        "not" => Some(Modifier::Not),
        "in" => Some(Modifier::In),
        "not-in" => Some(Modifier::NotIn),
        "of-type" => Some(Modifier::OfType),
        _ => hierarchy_modifier(text),
    }
}

fn reference_modifier(text: &str) -> Option<Modifier> {
    match text {
        "identifier" => Some(Modifier::Identifier),
        _ => hierarchy_modifier(text).or_else(|| ResourceType::from_name(text).map(Modifier::Type)),
    }
}

fn hierarchy_modifier(text: &str) -> Option<Modifier> {
    match text {
        "above" => Some(Modifier::Above),
        "below" => Some(Modifier::Below),
        _ => None,
    }
}
