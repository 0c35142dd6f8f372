//! What policy asks about one record.
//!
//! Owns: the shape of a record's facts. Reading them off a record is `filter`'s work, which has the bytes.
//! Must never: reach a log or an error; facts are patient data, so `Debug` names the type only.
//! Look next: `filter::bind`, where they are gathered; `access`, where Cedar weighs them.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::r4::ResourceType;
use super::texts::Texts;

/// The facts of one record, taken from its full content before anything is withheld.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts {
    /// The record's type.
    pub resource_type: ResourceType,
    /// `id`: logical, or for a contained record local to its container.
    pub id: Option<String>,
    /// `meta.versionId`.
    pub version: Option<String>,
    /// `meta.lastUpdated`, as written.
    pub last_updated: Option<String>,
    /// Logical ids of the patients whose official compartment the record is in; a Patient is in its own.
    /// A contained record is also in those of its container.
    pub patients: Texts,
    /// Logical ids of every Patient referred to anywhere in the record and in what it contains.
    pub mentions: Texts,
    /// Security labels, bare `code` and `system|code`: `meta.security` and inline labels, of the record,
    /// of what it contains and of what contains it.
    pub labels: Texts,
    /// The element `status`, if it is a code.
    pub status: Option<String>,
    /// Codings of the element `category`, bare and `system|code`.
    pub category: Texts,
    /// Codings of the element `code`, bare and `system|code`.
    pub code: Texts,
    /// The whole record, read strictly, where a decision needs it.
    pub content: Option<Arc<Value>>,
}

impl Facts {
    /// A record of which only the type is known.
    #[must_use]
    pub fn of_type(resource_type: ResourceType) -> Self {
        Self {
            resource_type,
            id: None,
            version: None,
            last_updated: None,
            patients: Texts::new(),
            mentions: Texts::new(),
            labels: Texts::new(),
            status: None,
            category: Texts::new(),
            code: Texts::new(),
            content: None,
        }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("resource_type", &self.resource_type.name()).finish_non_exhaustive()
    }
}
