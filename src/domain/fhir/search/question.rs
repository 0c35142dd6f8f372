//! A search as it was understood, part by part.
//!
//! Owns: [`Search`] and what it is made of. Evidence: [`super::read_search`] and [`super::read_criteria`]
//! are the only makers. Must never: hold a parameter that was not resolved to the elements it reads, or
//! show values in `Debug`.
//! Look next: `search/mod.rs`, which reads one; `search/print.rs`, which prints one.

use std::fmt;

use super::filter::Filter;
use super::value::SearchValue;
use crate::domain::fhir::interaction::LogicalId;
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use crate::domain::fhir::shape::Shape;

/// A search over one type, with all parameters known and in canonical order.
///
/// Criteria are joined by AND, so they are sorted and repeats of one and the same are dropped. A criteria
/// search (`If-None-Exist`, conditional update and delete) is one with criteria and nothing else.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct Search {
    pub(super) resource: ResourceType,
    pub(super) compartment: Option<Compartment>,
    pub(super) criteria: Vec<Criterion>,
    pub(super) includes: Vec<Include>,
    pub(super) sort: Vec<SortKey>,
    pub(super) count: Option<u32>,
    pub(super) total: Total,
    pub(super) shape: Shape,
}

impl Search {
    /// The type searched.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        self.resource
    }

    /// The compartment the records must belong to: `Patient/1` in `Patient/1/Observation`. It is no part of
    /// the query text.
    #[must_use]
    pub fn compartment(&self) -> Option<&Compartment> {
        self.compartment.as_ref()
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

    /// `_total`: whether the client wants to know how many records match.
    #[must_use]
    pub fn total(&self) -> Total {
        self.total
    }

    /// `_elements` and `_summary`: what the client wants to see of each record. Applied here, never asked
    /// upstream (T-035).
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// This search with another shape: one leg of a search over several types, whose `_elements` are read
    /// against all of them.
    pub(in crate::domain::fhir) fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// What upstream is asked: criteria, includes, sort, count, total. Without `?`, percent-encoded, one
    /// spelling for one search. Holds what the client asked with, so it may hold patient data.
    #[must_use]
    pub fn canonical_query(&self) -> String {
        super::print_query(self)
    }

    /// What the client asked: the canonical query and the shape. Read again, it gives an equal search.
    #[must_use]
    pub fn canonical_question(&self) -> String {
        super::print_question(self)
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
            .field("total", &self.total)
            .field("compartment", &self.compartment)
            .finish()
    }
}

/// What `_total` asks for (R4 search.html 3.1.1.5.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Total {
    /// Nothing was said.
    #[default]
    Unstated,
    /// `none`.
    None,
    /// `estimate`.
    Estimate,
    /// `accurate`.
    Accurate,
}

impl Total {
    /// The word in the query.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Unstated => None,
            Self::None => Some("none"),
            Self::Estimate => Some("estimate"),
            Self::Accurate => Some("accurate"),
        }
    }

    pub(super) fn read(word: &str) -> Option<Self> {
        [Self::None, Self::Estimate, Self::Accurate].into_iter().find(|total| total.word() == Some(word))
    }
}

/// One record of a type that has compartments, as the owner of one.
#[derive(Clone, PartialEq, Eq)]
pub struct Compartment {
    owner: ResourceType,
    id: LogicalId,
}

impl Compartment {
    /// The compartment of `owner/id`, for records of type `member`. `None`: R4 has no such compartment, or
    /// the type is in none of its kind (T-029).
    pub(in crate::domain::fhir) fn holding(
        owner: ResourceType,
        id: LogicalId,
        member: ResourceType,
    ) -> Option<Self> {
        r4::compartment(owner, member).map(|_| Self { owner, id })
    }

    /// The owner's type: `Patient`, `Encounter`, `RelatedPerson`, `Practitioner` or `Device`.
    #[must_use]
    pub fn owner(&self) -> ResourceType {
        self.owner
    }

    /// The owner's id.
    #[must_use]
    pub fn id(&self) -> &LogicalId {
        &self.id
    }
}

impl fmt::Debug for Compartment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/…", self.owner.name())
    }
}

/// What stands after the `=` of a criterion.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Values of the parameter's type.
    Values(SearchValue),
    /// The expression of `_filter`.
    Filter(Filter),
}

/// One parameter that finds records, with everything it reads.
#[derive(Clone, PartialEq, Eq)]
pub struct Criterion {
    pub(super) name: String,
    pub(super) value: Asked,
    pub(super) hops: Vec<Hop>,
}

impl Criterion {
    /// The whole parameter name: `birthdate`, `name:exact`, `subject:Patient.name`,
    /// `_has:Observation:patient:code`, `_filter`. Made of official and declared names only.
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

    /// The value in FHIR's escaping (`_filter`: its expression), not percent-encoded. May be patient data.
    #[must_use]
    pub fn value(&self) -> String {
        match &self.value {
            Asked::Values(value) => value.to_string(),
            Asked::Filter(filter) => filter.to_string(),
        }
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
    pub(super) iterate: bool,
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

    /// True for `:iterate`: it also holds for records that includes added.
    #[must_use]
    pub fn iterate(&self) -> bool {
        self.iterate
    }

    /// The type that holds the reference: the searched type (with `:iterate` perhaps one that another
    /// include adds), or for `_revinclude` the added one.
    #[must_use]
    pub fn source(&self) -> ResourceType {
        self.source
    }

    /// Element paths of the reference within `source`.
    #[must_use]
    pub fn reads(&self) -> &[ElementPath] {
        &self.reads
    }

    /// Types the reference may point at; for `_revinclude` the searched type alone, or with `:iterate` all
    /// types in the answer that it may point at.
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
