//! What of each record the client wants to see: `_elements` and `_summary`.
//!
//! Owns: [`Shape`], its reading and its one spelling. Must never: be asked upstream; the answer is shaped
//! here, from the full record. Look next: `mask`, which it becomes.

use super::r4::ResourceType;

/// The wished form of each record of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Shape {
    /// Everything.
    #[default]
    Whole,
    /// `_elements`: these top-level elements.
    Elements(Vec<String>),
    /// `_summary=true`.
    Summary,
    /// `_summary=text`.
    Text,
    /// `_summary=data`.
    Data,
    /// `_summary=count`.
    Count,
}

impl Shape {
    /// Reads the two parameters. `None`: malformed, or in conflict.
    #[must_use]
    pub fn read(elements: Option<&str>, summary: Option<&str>, _types: &[ResourceType]) -> Option<Self> {
        match (elements, summary) {
            (None, None | Some("false")) => Some(Self::Whole),
            (None, Some("true")) => Some(Self::Summary),
            (None, Some("text")) => Some(Self::Text),
            (None, Some("data")) => Some(Self::Data),
            (None, Some("count")) => Some(Self::Count),
            (Some(_) | None, Some(_)) => None,
            (Some(names), None) => {
                let mut names: Vec<String> = names.split(',').map(str::to_owned).collect();
                names.sort();
                names.dedup();
                names.iter().all(|name| !name.is_empty()).then_some(Self::Elements(names))
            }
        }
    }

    /// Name and value of the one parameter that says this.
    #[must_use]
    pub fn canonical(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Whole => None,
            Self::Elements(names) => Some(("_elements", names.join(","))),
            Self::Summary => Some(("_summary", "true".to_owned())),
            Self::Text => Some(("_summary", "text".to_owned())),
            Self::Data => Some(("_summary", "data".to_owned())),
            Self::Count => Some(("_summary", "count".to_owned())),
        }
    }
}
