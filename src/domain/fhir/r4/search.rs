//! Search parameters, with the elements each one reads.
//!
//! Owns: the format of `search-parameters.txt`. Must never: hide that a
//! parameter was not understood; such a one must be refused, since what it reads is not known.
//! Look next: `tools/r4-tables/search.py`, which turns FHIRPath expressions into paths.
//!
//! `@Type` opens a type; under it stand `code kind reads targets components`, separated by tabs, lists
//! by spaces, reads `?` when not understood.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::ResourceType;

static PARAMETERS: LazyLock<Parameters> =
    LazyLock::new(|| parameters(include_str!("search-parameters.txt")).unwrap_or_default());

type Parameters = BTreeMap<ResourceType, Vec<SearchParameter>>;

/// R4's search parameter types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchType {
    /// A number, with prefixes.
    Number,
    /// A date or time, with prefixes.
    Date,
    /// Text, by its start.
    String,
    /// A code, identifier or boolean.
    Token,
    /// A reference: the only type that chains.
    Reference,
    /// Several parameters joined by `$`.
    Composite,
    /// A number with a unit.
    Quantity,
    /// A URI, by its whole.
    Uri,
    /// Anything with rules of its own.
    Special,
}

/// One official search parameter, as it applies to one resource type.
#[derive(Debug)]
pub struct SearchParameter {
    /// The name in the URL.
    pub code: &'static str,
    /// Its type.
    pub kind: SearchType,
    /// Canonical element paths it reads for this resource type, filters included; each parses as an
    /// [`super::ElementPath`]. Empty only when not `understood`.
    pub reads: &'static [&'static str],
    /// For references: what they may point at; empty when any.
    pub targets: &'static [ResourceType],
    /// For composites: the codes of their parts, in order.
    pub components: &'static [&'static str],
    /// `false`: what it reads is not known, and it must be refused.
    pub understood: bool,
}

/// The parameter of this code for this type: `_id`, `_lastUpdated` and the other common ones included.
#[must_use]
pub fn search_parameter(resource: ResourceType, code: &str) -> Option<&'static SearchParameter> {
    let found = PARAMETERS.get(&resource)?;
    found.binary_search_by(|one| one.code.cmp(code)).ok().and_then(|index| found.get(index))
}

/// All parameters of a type, ordered by code.
pub fn search_parameters(resource: ResourceType) -> impl Iterator<Item = &'static SearchParameter> {
    PARAMETERS.get(&resource).into_iter().flatten()
}

pub(super) fn parameters(text: &'static str) -> Option<Parameters> {
    let mut found = Parameters::new();
    let mut resource = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('@') {
            resource = Some(ResourceType::from_name(name)?);
        } else {
            found.entry(resource?).or_default().push(parameter(line)?);
        }
    }
    let sorted = found.values().all(|list| list.is_sorted_by(|one, other| one.code < other.code));
    sorted.then_some(found)
}

fn parameter(line: &'static str) -> Option<SearchParameter> {
    let mut fields = line.split('\t');
    let (code, kind, reads) = (fields.next()?, SearchType::from_name(fields.next()?)?, fields.next()?);
    let targets: Option<Vec<_>> = words(fields.next()).map(ResourceType::from_name).collect();
    let components = words(fields.next()).collect();
    let understood = reads != "?";
    let reads: Vec<_> = if understood { words(Some(reads)).collect() } else { Vec::new() };
    let complete = fields.next().is_none() && understood != reads.is_empty();
    let (reads, targets, components) = (Vec::leak(reads), Vec::leak(targets?), Vec::leak(components));
    complete.then_some(SearchParameter { code, kind, reads, targets, components, understood })
}

pub(super) fn words(field: Option<&'static str>) -> impl Iterator<Item = &'static str> {
    field.into_iter().flat_map(|field| field.split(' ')).filter(|word| !word.is_empty())
}

impl SearchType {
    /// The type of this R4 code: `token`, `reference`.
    #[must_use]
    pub fn from_name(word: &str) -> Option<Self> {
        Some(match word {
            "number" => SearchType::Number,
            "date" => SearchType::Date,
            "string" => SearchType::String,
            "token" => SearchType::Token,
            "reference" => SearchType::Reference,
            "composite" => SearchType::Composite,
            "quantity" => SearchType::Quantity,
            "uri" => SearchType::Uri,
            "special" => SearchType::Special,
            _ => return None,
        })
    }
}
