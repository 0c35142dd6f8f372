//! The one thing a request asks for, after everything about its spelling has been settled.
//!
//! Owns: [`Interaction`] and its parts. Evidence: [`super::classify::classify`] is the only function
//! that can make one, since [`LogicalId`], [`VersionId`], [`PageToken`] and [`Search`] have no other
//! constructor. Must never: hold text that was not checked, or show values in `Debug`.
//! Look next: `search`, where criteria are read; `domain::narrow`, which asks them upstream.

use std::fmt;

use super::r4::{ElementPath, ResourceType};
use super::search::SearchValue;

/// A FHIR interaction the proxy understands (R4 http.html).
///
/// `PartialEq` is canonical: two spellings of one request are equal here.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub enum Interaction {
    /// `GET base/{Type}/{id}`.
    Read {
        /// The type asked for.
        resource: ResourceType,
        /// Its logical id.
        id: LogicalId,
    },
    /// `GET base/{Type}/{id}/_history/{vid}`.
    Vread {
        /// The type asked for.
        resource: ResourceType,
        /// Its logical id.
        id: LogicalId,
        /// The version of that record.
        version: VersionId,
    },
    /// `GET base/{Type}?…` or `POST base/{Type}/_search`.
    Search(Search),
    /// `GET base/{Type}?~page=…`: the next page of a search this proxy answered before.
    NextPage {
        /// The type in the path; the token must agree with it when it is opened.
        resource: ResourceType,
        /// The sealed link, still shut.
        token: PageToken,
    },
    /// `GET base/metadata`.
    Capabilities,
    /// `GET base/.well-known/smart-configuration`.
    SmartConfiguration,
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
    /// FHIR's restful-interaction code: `read`, `vread`, `search-type` or `capabilities`. The SMART
    /// document has no code of its own and counts as `capabilities`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Vread { .. } => "vread",
            Self::Search(_) | Self::NextPage { .. } => "search-type",
            Self::Capabilities | Self::SmartConfiguration => "capabilities",
        }
    }

    /// The resource type in the path, if the interaction has one.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        match self {
            Self::Read { resource, .. } | Self::Vread { resource, .. } | Self::NextPage { resource, .. } => {
                Some(*resource)
            }
            Self::Search(search) => Some(search.resource_type()),
            Self::Capabilities | Self::SmartConfiguration => None,
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

/// A type-level search, with all parameters known and in canonical order.
///
/// Criteria are joined by AND, so they are sorted and repeats of one and the same are dropped.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct Search {
    pub(super) resource: ResourceType,
    pub(super) criteria: Vec<Criterion>,
    pub(super) includes: Vec<Include>,
    pub(super) sort: Vec<SortKey>,
    pub(super) count: Option<u32>,
}

impl Search {
    /// The type searched.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        self.resource
    }

    /// What filters the records, in canonical order; each one must hold.
    #[must_use]
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// `_include` and `_revinclude`, in canonical order.
    #[must_use]
    pub fn includes(&self) -> &[Include] {
        &self.includes
    }

    /// `_sort` keys, in the order asked for.
    #[must_use]
    pub fn sort(&self) -> &[SortKey] {
        &self.sort
    }

    /// `_count`: records on a page, 1 to `SEARCH_COUNT_MAX` (a larger wish is lowered to it).
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        self.count
    }

    /// The query without `?`, percent-encoded, one spelling for one search. Holds what the client
    /// asked with, so it may hold patient data.
    #[must_use]
    pub fn canonical_query(&self) -> String {
        super::search::print_query(self)
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Search")
            .field("resource", &self.resource.name())
            .field("criteria", &self.criteria)
            .field("includes", &self.includes.len())
            .field("sort", &self.sort.len())
            .field("count", &self.count)
            .finish()
    }
}

/// One filter parameter, with everything it reads.
#[derive(Clone, PartialEq, Eq)]
pub struct Criterion {
    pub(super) name: String,
    pub(super) value: SearchValue,
    pub(super) hops: Vec<Hop>,
}

impl Criterion {
    /// The whole parameter name: `birthdate`, `name:exact`, `subject:Patient.name`,
    /// `_has:Observation:patient:code`. Made of official names only.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Types and elements the answer depends on: first the searched type, then each type reached by
    /// a chain, by `_has`, or by a modifier that looks into another record. Never empty.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The value in FHIR's escaping, not percent-encoded. May be patient data.
    #[must_use]
    pub fn value(&self) -> String {
        self.value.to_string()
    }
}

impl fmt::Debug for Criterion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}=…", self.name)
    }
}

/// The elements of one type that a criterion reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub(super) resource: ResourceType,
    pub(super) reads: Vec<ElementPath>,
}

impl Hop {
    /// The type of the records looked into.
    #[must_use]
    pub fn resource(&self) -> ResourceType {
        self.resource
    }

    /// Sorted element paths; never empty. Each counts with everything below it.
    #[must_use]
    pub fn reads(&self) -> &[ElementPath] {
        &self.reads
    }
}

/// One `_include` or `_revinclude`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    pub(super) reverse: bool,
    pub(super) source: ResourceType,
    pub(super) code: &'static str,
    pub(super) narrowed: Option<ResourceType>,
    pub(super) reads: Vec<ElementPath>,
    pub(super) targets: Vec<ResourceType>,
}

impl Include {
    /// True for `_revinclude`.
    #[must_use]
    pub fn reverse(&self) -> bool {
        self.reverse
    }

    /// The type that holds the reference: the searched type, or for `_revinclude` the added one.
    #[must_use]
    pub fn source(&self) -> ResourceType {
        self.source
    }

    /// Element paths of the reference within `source`.
    #[must_use]
    pub fn reads(&self) -> &[ElementPath] {
        &self.reads
    }

    /// Types the reference may point at; for `_revinclude` the searched type alone.
    #[must_use]
    pub fn targets(&self) -> &[ResourceType] {
        &self.targets
    }

    /// Types this adds to the answer: `targets`, or for `_revinclude` the source.
    #[must_use]
    pub fn added(&self) -> &[ResourceType] {
        if self.reverse { std::slice::from_ref(&self.source) } else { &self.targets }
    }
}

/// One key of `_sort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    pub(super) code: &'static str,
    pub(super) descending: bool,
    pub(super) reads: Vec<ElementPath>,
}

impl SortKey {
    /// The search parameter sorted by.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.code
    }

    /// True when written with a leading `-`.
    #[must_use]
    pub fn descending(&self) -> bool {
        self.descending
    }

    /// Element paths of the searched type that the order depends on; never empty.
    #[must_use]
    pub fn reads(&self) -> &[ElementPath] {
        &self.reads
    }
}
