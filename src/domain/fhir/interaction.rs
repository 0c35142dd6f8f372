//! The one thing a request asks for, after everything about its spelling has been settled.
//!
//! Owns: [`Interaction`] and its parts. Evidence: [`super::classify::classify`] is the only function
//! that can make one, since [`LogicalId`], [`VersionId`], [`PageToken`] and [`Search`] have no other
//! constructor. Must never: hold text that was not checked, or show values in `Debug`.
//! Look next: `search`, where criteria are read and [`Search`] is; `domain::narrow`, which asks them upstream.

use std::fmt;

use super::r4::ResourceType;

pub use super::search::{Compartment, Criterion, Hop, Include, Registry, Search, SortKey, Total};

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
