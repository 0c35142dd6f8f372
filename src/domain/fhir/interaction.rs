//! The one thing a request asks for, after everything about its spelling has been settled.
//!
//! Owns: [`Interaction`] and its parts. Evidence: [`super::classify`] alone can make one that asks for
//! records, since [`LogicalId`], [`VersionId`], [`PageToken`], [`History`] and [`Search`] have no other
//! constructor. Must never: hold text that was not checked, or show values in `Debug`.
//! Look next: `search`, where criteria are read and [`Search`] is; `domain::narrow`, which asks them upstream.

use std::fmt;

use super::r4::ResourceType;
use super::shape::Shape;

pub use super::operation::{ExportLevel, History, HistoryScope, Operation};
pub use super::search::{Compartment, Criterion, Hop, Include, Registry, Search, SortKey, Total};

/// A FHIR interaction the proxy understands (R4 http.html).
///
/// `PartialEq` is canonical: two spellings of one request are equal here. [`Interaction::address`] is the
/// one spelling.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub enum Interaction {
    /// `GET base/{Type}/{id}`.
    Read {
        /// The type asked for.
        resource: ResourceType,
        /// Its logical id.
        id: LogicalId,
        /// What of the record the client wants to see; never `Count`.
        shape: Shape,
    },
    /// `GET base/{Type}/{id}/_history/{vid}`.
    Vread {
        /// The type asked for.
        resource: ResourceType,
        /// Its logical id.
        id: LogicalId,
        /// The version of that record.
        version: VersionId,
        /// What of the record the client wants to see; never `Count`.
        shape: Shape,
    },
    /// `GET …/_history` of a record, a type or everything.
    History(History),
    /// A search over one type: `GET base/{Type}?…`, `POST base/{Type}/_search`, and within a compartment
    /// `base/{Owner}/{id}/{Type}`.
    Search(Search),
    /// A search over several types, one leg each: `GET base?…`, `POST base/_search`, `base/{Owner}/{id}/*`.
    SearchMany {
        /// The search of each type, ordered by type. Never empty, and all ask the same.
        legs: Vec<Search>,
        /// Whether the client listed the types in `_type`; otherwise they are all there are.
        named: bool,
    },
    /// `GET base/{Type}?~page=…` or `GET base?~page=…`: the next page of an answer this proxy began.
    NextPage {
        /// The type in the path, for a search by type; the token must agree with it when it is opened.
        resource: Option<ResourceType>,
        /// The sealed link, still shut.
        token: PageToken,
    },
    /// `POST base/{Type}`.
    Create {
        /// The type to create.
        resource: ResourceType,
        /// `If-None-Exist`: create only when this finds nothing.
        if_none_exist: Option<Search>,
    },
    /// `PUT base/{Type}/{id}` or `PUT base/{Type}?…`.
    Update {
        /// The type to update.
        resource: ResourceType,
        /// Which record.
        target: Target,
    },
    /// `PATCH base/{Type}/{id}` or `PATCH base/{Type}?…`.
    Patch {
        /// The type to patch.
        resource: ResourceType,
        /// Which record.
        target: Target,
        /// The language of the patch in the body.
        format: PatchFormat,
    },
    /// `DELETE base/{Type}/{id}` or `DELETE base/{Type}?…`.
    Delete {
        /// The type to delete from.
        resource: ResourceType,
        /// Which record.
        target: Target,
    },
    /// `POST base`: a batch or a transaction. Its entries are classified one by one by
    /// [`super::classify::entry`].
    Bundle,
    /// `$name`.
    Operation(Operation),
    /// `GET base/~export/{token}`: how an export is doing.
    ExportStatus {
        /// The sealed name of the export.
        token: PageToken,
    },
    /// `DELETE base/~export/{token}`.
    ExportCancel {
        /// The sealed name of the export.
        token: PageToken,
    },
    /// `GET base/~file/{token}`: one NDJSON file of an export.
    ExportFile {
        /// The sealed name of the file.
        token: PageToken,
    },
    /// `GET base/metadata`.
    Capabilities,
    /// `GET base/.well-known/smart-configuration`.
    SmartConfiguration,
}

/// Which record a write is for.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// The record of this id.
    Id(LogicalId),
    /// The one record that these criteria find: criteria only, and at least one.
    Match(Search),
}

/// The language of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchFormat {
    /// RFC 6902, `application/json-patch+json`.
    JsonPatch,
    /// R4 fhirpatch.html: a `Parameters` resource, `application/fhir+json`.
    FhirPath,
}

impl Interaction {
    /// FHIR's restful-interaction code. `Bundle` counts as `batch`, since only its body tells more; the
    /// export's own paths count as `operation`, and the SMART document as `capabilities`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Vread { .. } => "vread",
            Self::History(history) => history.code(),
            Self::Search(_) | Self::NextPage { resource: Some(_), .. } => "search-type",
            Self::SearchMany { .. } | Self::NextPage { resource: None, .. } => "search-system",
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Patch { .. } => "patch",
            Self::Delete { .. } => "delete",
            Self::Bundle => "batch",
            Self::Operation(_)
            | Self::ExportStatus { .. }
            | Self::ExportCancel { .. }
            | Self::ExportFile { .. } => "operation",
            Self::Capabilities | Self::SmartConfiguration => "capabilities",
        }
    }

    /// The resource type in the path, if the interaction has one.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        match self {
            Self::Read { resource, .. }
            | Self::Vread { resource, .. }
            | Self::Create { resource, .. }
            | Self::Update { resource, .. }
            | Self::Patch { resource, .. }
            | Self::Delete { resource, .. } => Some(*resource),
            Self::NextPage { resource, .. } => *resource,
            Self::Search(search) => Some(search.resource_type()),
            Self::History(history) => history.resource_type(),
            Self::Operation(operation) => operation.resource_type(),
            Self::SearchMany { .. }
            | Self::Bundle
            | Self::ExportStatus { .. }
            | Self::ExportCancel { .. }
            | Self::ExportFile { .. }
            | Self::Capabilities
            | Self::SmartConfiguration => None,
        }
    }
}

/// Ids point at patients: only the kind of question is shown.
impl fmt::Debug for Interaction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())?;
        match self.resource_type() {
            Some(resource) => write!(out, " {}", resource.name()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Id(_) => "Id(…)",
            Self::Match(_) => "Match(…)",
        })
    }
}

/// Makes a checked piece of text that only this room can construct and that `Debug` does not show.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The text as it stands in a canonical URL; it needs no percent-encoding.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

checked_text! {
    /// A logical id: 1 to 64 of `A-Z a-z 0-9 - .` (R4 datatypes.html, id), and neither `.` nor `..`.
    LogicalId
}

checked_text! {
    /// A version id; same alphabet as [`LogicalId`].
    VersionId
}

checked_text! {
    /// A sealed page link: 1 to `PAGE_TOKEN_BYTES_MAX` of `A-Z a-z 0-9 - _ .`.
    PageToken
}

impl LogicalId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| Self(text.to_owned()))
    }
}

impl VersionId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| Self(text.to_owned()))
    }
}

impl PageToken {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let shaped = !text.is_empty()
            && text.len() <= crate::limits::PAGE_TOKEN_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        shaped.then(|| Self(text.to_owned()))
    }
}

/// R4's `id`. A lone `.` or `..` is in its alphabet but would be a path step upstream (T-144).
pub(super) fn is_id(text: &str) -> bool {
    (1..=crate::limits::ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        && text.bytes().any(|byte| byte != b'.')
}
