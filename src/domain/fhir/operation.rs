//! History and the operations that are served: what each one asks, after its spelling has been settled.
//!
//! Owns: [`History`], [`Operation`] and the names of both. The list of operations is closed (KF-27, KF-28):
//! what is not here is refused. Must never: hold text that was not checked, or show values in `Debug`.
//! Look next: `classify/operations.rs`, where parameters are read; `address`, where they are printed.

use std::fmt;

use serde_json::Value;

use super::interaction::LogicalId;
use super::r4::ResourceType;
use super::search::{Holds, Search, changed_since};
use super::shape::Shape;

/// Whose versions a history lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryScope {
    /// One record's.
    Instance(ResourceType, LogicalId),
    /// Those of all records of a type.
    Type(ResourceType),
    /// All there are.
    System,
}

/// `GET …/_history?…` (R4 http.html 3.1.0.11).
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct History {
    pub(super) scope: HistoryScope,
    pub(super) since: Option<String>,
    pub(super) at: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) shape: Shape,
}

impl History {
    /// Whose versions.
    #[must_use]
    pub fn scope(&self) -> &HistoryScope {
        &self.scope
    }

    /// `_since`: an R4 instant; versions made at or after it.
    #[must_use]
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// `_at`: an R4 dateTime at any precision; versions that were current then.
    #[must_use]
    pub fn at(&self) -> Option<&str> {
        self.at.as_deref()
    }

    /// `_count`: versions on a page, 1 to `SEARCH_COUNT_MAX` (a larger wish is lowered to it).
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        self.count
    }

    /// What of each version the client wants to see; never `Count`. Applied here, never asked upstream.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What upstream is asked: since, at, count; without `?`, percent-encoded.
    #[must_use]
    pub fn canonical_query(&self) -> String {
        super::address::history_query(self)
    }

    /// The type in the path, if there is one.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        match self.scope {
            HistoryScope::Instance(resource, _) | HistoryScope::Type(resource) => Some(resource),
            HistoryScope::System => None,
        }
    }

    /// FHIR's restful-interaction code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.scope {
            HistoryScope::Instance(..) => "history-instance",
            HistoryScope::Type(_) => "history-type",
            HistoryScope::System => "history-system",
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// A `$name` that is served.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// `Patient/{id}/$everything`. Like all but `$validate` by GET, or by POST with `Parameters` or without a body.
    Everything {
        /// Whose record.
        patient: LogicalId,
        /// `start`: an R4 date; care from then on.
        start: Option<String>,
        /// `end`: an R4 date; care until then.
        end: Option<String>,
        /// `_since`: an R4 instant; what was changed at or after it.
        since: Option<String>,
        /// `_type`, ordered and without repeats; empty: all.
        types: Vec<ResourceType>,
        /// `_count`, as in a search.
        count: Option<u32>,
    },
    /// `GET Observation/$lastn?…`: the newest of each code.
    LastN {
        /// Which observations: has a `patient` or `subject`, and a `category` or a code. No includes, sort,
        /// count or total.
        search: Search,
        /// How many of each code, 1 to `LASTN_MAX`; 1 unless asked otherwise.
        max: u32,
    },
    /// `POST {Type}/$validate`: whether the body could be created.
    Validate {
        /// The type in the path, which the body must be of.
        resource: ResourceType,
    },
    /// `GET ValueSet/$expand?url=…` or `GET ValueSet/{id}/$expand`.
    Expand {
        /// The value set, where the path names one; else `query` has its `url`.
        id: Option<LogicalId>,
        /// Official names and checked values, ordered by name, each name once.
        query: Vec<(&'static str, String)>,
    },
    /// `GET CodeSystem/$lookup?code=…&system=…`.
    Lookup {
        /// Official names and checked values, ordered; only `property` may repeat.
        query: Vec<(&'static str, String)>,
    },
    /// `GET $export`, `Patient/$export` or `Group/{id}/$export` (Bulk Data Access): the kick-off.
    Export {
        /// Whose data.
        level: ExportLevel,
        /// `_type`, ordered and without repeats; empty: all.
        types: Vec<ResourceType>,
        /// `_since`: an R4 instant.
        since: Option<String>,
        /// `_typeFilter`, in canonical order: criteria only, and at least one each.
        type_filters: Vec<Search>,
    },
}

/// Whose data an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportLevel {
    /// Everything there is.
    System,
    /// All patients'.
    Patient,
    /// That of the members of a group.
    Group(LogicalId),
}

impl Operation {
    /// The name of its `OperationDefinition`, without `$`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Everything { .. } => "everything",
            Self::LastN { .. } => "lastn",
            Self::Validate { .. } => "validate",
            Self::Expand { .. } => "expand",
            Self::Lookup { .. } => "lookup",
            Self::Export { .. } => "export",
        }
    }

    /// What an export asks of the records of this type, by `_since` and `_typeFilter`; `None` for nothing. Of several
    /// filters for a type one is enough.
    #[must_use]
    pub fn narrows(&self, resource: ResourceType) -> Option<Narrowing<'_>> {
        let Self::Export { since, type_filters, .. } = self else { return None };
        let filters: Vec<&Search> =
            type_filters.iter().filter(|filter| filter.resource_type() == resource).collect();
        let asks = since.is_some() || !filters.is_empty();
        asks.then_some(Narrowing { since: since.as_deref(), filters })
    }

    /// The type in the path; none for an export of the whole system.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        match self {
            Self::Everything { .. } | Self::Export { level: ExportLevel::Patient, .. } => {
                ResourceType::from_name("Patient")
            }
            Self::LastN { search, .. } => Some(search.resource_type()),
            Self::Validate { resource } => Some(*resource),
            Self::Expand { .. } => ResourceType::from_name("ValueSet"),
            Self::Lookup { .. } => ResourceType::from_name("CodeSystem"),
            Self::Export { level: ExportLevel::Group(_), .. } => ResourceType::from_name("Group"),
            Self::Export { level: ExportLevel::System, .. } => None,
        }
    }
}

/// What an export asks of the records of one type.
pub struct Narrowing<'o> {
    since: Option<&'o str>,
    filters: Vec<&'o Search>,
}

impl Narrowing<'_> {
    /// Whether it asks for this record; `record` and `here` as for [`Search::holds_for`].
    pub fn holds_for(&self, record: &Value, here: &[&str]) -> Holds {
        let since = self.since.map_or(Holds::Yes, |since| changed_since(record, since));
        if self.filters.is_empty() {
            return since;
        }
        since.and(Holds::any(self.filters.iter().map(|filter| filter.holds_for(record, here))))
    }
}

impl fmt::Debug for Narrowing<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Narrowing").field("filters", &self.filters.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "${}", self.name())
    }
}
