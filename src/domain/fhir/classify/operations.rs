//! History and `$operations`: the parameters of each.
//!
//! Owns: the closed list of parameters that each operation takes, with what their values must look like
//! (T-090, T-092, T-094). Must never: take an official parameter whose effect on the answer is not judged.
//! Look next: `route`, which says where each operation stands; `super::operation`, what comes out.

use super::Known;
use super::parameters::{
    Parameters, is_boolean, is_code, is_date_time, is_instant, is_language, is_number, is_plain_date,
    is_positive, is_text, is_uri,
};
use super::ranges;
use super::refusal::FhirRefusal;
use super::route::Operating;
use crate::domain::fhir::interaction::{ExportLevel, History, HistoryScope, LogicalId, Operation, Search};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::{Total, read_search};
use crate::domain::fhir::shape::Shape;
use crate::limits::{LASTN_MAX, TYPE_FILTERS_MAX};

/// A parameter name, and whether a value suits it.
type Listed = (&'static str, fn(&str) -> bool);

/// `ValueSet/$expand`, ordered by name.
const EXPAND: [Listed; 9] = [
    ("activeOnly", is_boolean),
    ("count", is_number),
    ("date", is_date_time),
    ("displayLanguage", is_language),
    ("filter", is_text),
    ("includeDesignations", is_boolean),
    ("offset", is_number),
    ("url", is_uri),
    ("valueSetVersion", is_text),
];

/// `CodeSystem/$lookup` but for `property`, ordered by name.
const LOOKUP: [Listed; 5] = [
    ("code", is_code),
    ("date", is_date_time),
    ("displayLanguage", is_language),
    ("system", is_uri),
    ("version", is_text),
];

/// `GET …/_history?…`.
pub(super) fn history(scope: HistoryScope, mut parameters: Parameters) -> Result<History, FhirRefusal> {
    let types: Vec<ResourceType> = match scope {
        HistoryScope::Instance(resource, _) | HistoryScope::Type(resource) => vec![resource],
        HistoryScope::System => ResourceType::all().collect(),
    };
    let since = parameters.checked("_since", is_instant)?;
    let at = parameters.checked("_at", is_date_time)?;
    let count = parameters.count()?;
    let shape = parameters.shape_of_records(&types)?;
    parameters.finish()?;
    Ok(History { scope, since, at, count, shape })
}

/// The parameters of an operation.
pub(super) fn read(
    operating: Operating,
    parameters: Parameters,
    known: &Known<'_>,
) -> Result<Operation, FhirRefusal> {
    match operating {
        Operating::Everything(patient) => everything(patient, parameters),
        Operating::LastN(resource) => last_n(resource, parameters, known),
        Operating::Validate(resource) => validate(resource, parameters),
        Operating::Expand(id) => expand(id, parameters),
        Operating::Lookup => lookup(parameters),
        Operating::Export(level) => export(level, parameters, known),
    }
}

fn everything(patient: LogicalId, mut parameters: Parameters) -> Result<Operation, FhirRefusal> {
    let start = parameters.checked("start", is_plain_date)?;
    let end = parameters.checked("end", is_plain_date)?;
    let since = parameters.checked("_since", is_instant)?;
    let types = parameters.types()?.unwrap_or_default();
    let count = parameters.count()?;
    parameters.finish()?;
    Ok(Operation::Everything { patient, start, end, since, types, count })
}

/// R4 observation-operation-lastn.html: a subject, and a category or a code, must be given.
fn last_n(
    resource: ResourceType,
    mut parameters: Parameters,
    known: &Known<'_>,
) -> Result<Operation, FhirRefusal> {
    let max = parameters.checked("max", is_positive)?;
    let max = max.map_or(Some(1), |max| max.parse().ok()).filter(|max| *max <= LASTN_MAX);
    let max = max.ok_or(FhirRefusal::MalformedValue("max"))?;
    let search = read_search(resource, None, parameters.rest(), known.base, known.registry)?;
    refuse_page_wishes(&search)?;
    if !asks_for(&search, |name| matches!(name, "patient" | "subject")) {
        return Err(FhirRefusal::MissingParameter("patient"));
    }
    if !asks_for(&search, |name| name == "category" || name.contains("code")) {
        return Err(FhirRefusal::MissingParameter("category"));
    }
    Ok(Operation::LastN { search, max })
}

/// The answer is no page of a search: none of what makes pages has a meaning.
fn refuse_page_wishes(search: &Search) -> Result<(), FhirRefusal> {
    let wishes = [
        ("_include", !search.includes().is_empty()),
        ("_sort", !search.sort().is_empty()),
        ("_count", search.count().is_some()),
        ("_total", search.total() != Total::Unstated),
        ("_summary", *search.shape() == Shape::Count),
    ];
    match wishes.into_iter().find(|(_, wished)| *wished) {
        Some((name, _)) => Err(FhirRefusal::ParameterNotSupported(name)),
        None => Ok(()),
    }
}

/// Whether a criterion is about one of these parameters of the record itself, and no chain from it.
fn asks_for(search: &Search, is: impl Fn(&str) -> bool) -> bool {
    let own = |name: &str| (!name.contains('.')).then(|| name.split(':').next().is_some_and(&is));
    search.criteria().iter().any(|criterion| own(criterion.name()).unwrap_or(false))
}

/// Only whether the body could be created: other modes, and profiles, are about other records.
fn validate(resource: ResourceType, mut parameters: Parameters) -> Result<Operation, FhirRefusal> {
    match parameters.single("mode")?.as_deref() {
        None | Some("create") => {}
        Some(_) => return Err(FhirRefusal::ParameterNotSupported("mode")),
    }
    if parameters.has("profile") {
        return Err(FhirRefusal::ParameterNotSupported("profile"));
    }
    parameters.finish()?;
    Ok(Operation::Validate { resource })
}

fn expand(id: Option<LogicalId>, mut parameters: Parameters) -> Result<Operation, FhirRefusal> {
    let query = listed(&EXPAND, &mut parameters)?;
    parameters.finish()?;
    let url = query.iter().any(|(name, _)| *name == "url");
    match (&id, url) {
        (None, false) => Err(FhirRefusal::MissingParameter("url")),
        (Some(_), true) => Err(FhirRefusal::ParameterNotSupported("url")),
        _ => Ok(Operation::Expand { id, query }),
    }
}

fn lookup(mut parameters: Parameters) -> Result<Operation, FhirRefusal> {
    let mut query = listed(&LOOKUP, &mut parameters)?;
    for needed in ["code", "system"] {
        if !query.iter().any(|(name, _)| *name == needed) {
            return Err(FhirRefusal::MissingParameter(needed));
        }
    }
    let properties = parameters.every("property");
    if !properties.iter().all(|property| is_code(property)) {
        return Err(FhirRefusal::MalformedValue("property"));
    }
    query.extend(properties.into_iter().map(|property| ("property", property)));
    query.sort();
    query.dedup();
    parameters.finish()?;
    Ok(Operation::Lookup { query })
}

fn listed(known: &[Listed], parameters: &mut Parameters) -> Result<Vec<(&'static str, String)>, FhirRefusal> {
    let mut query = Vec::new();
    for (name, fits) in known {
        query.extend(parameters.checked(name, fits)?.map(|value| (*name, value)));
    }
    Ok(query)
}

/// Bulk Data Access, kick-off. Its `_typeFilter` is a search within a value (T-094).
fn export(
    level: ExportLevel,
    mut parameters: Parameters,
    known: &Known<'_>,
) -> Result<Operation, FhirRefusal> {
    parameters.checked("_outputFormat", is_ndjson)?;
    let since = parameters.checked("_since", is_instant)?;
    let types = parameters.types()?.unwrap_or_default();
    let mut type_filters = Vec::new();
    for list in parameters.every("_typeFilter") {
        for filter in split_filters(&list) {
            if type_filters.len() >= TYPE_FILTERS_MAX {
                return Err(FhirRefusal::TooManyParameters);
            }
            type_filters.push(type_filter(filter, &types, known)?);
        }
    }
    parameters.finish()?;
    type_filters.sort_by_cached_key(|filter| (filter.resource_type(), filter.canonical_query()));
    type_filters.dedup();
    Ok(Operation::Export { level, types, since, type_filters })
}

/// A `+` that was not encoded arrives as a space, as in `_format`.
fn is_ndjson(text: &str) -> bool {
    matches!(text, "application/fhir+ndjson" | "application/fhir ndjson" | "application/ndjson" | "ndjson")
}

/// Filters are separated by commas, and so are values within one: a comma ends a filter where the next one
/// begins with a type and `?`. The canonical spelling has `?` encoded everywhere else.
fn split_filters(list: &str) -> Vec<&str> {
    let mut filters = Vec::new();
    let mut rest = list;
    while let Some((filter, later)) = split_filter(rest) {
        filters.push(filter);
        rest = later;
    }
    filters.push(rest);
    filters
}

fn split_filter(list: &str) -> Option<(&str, &str)> {
    list.match_indices(',').find_map(|(at, _)| {
        let (filter, later) = list.split_at_checked(at)?;
        let later = later.strip_prefix(',')?;
        let (name, _) = later.split_once('?')?;
        ResourceType::from_name(name).map(|_| (filter, later))
    })
}

fn type_filter(text: &str, types: &[ResourceType], known: &Known<'_>) -> Result<Search, FhirRefusal> {
    const MALFORMED: FhirRefusal = FhirRefusal::MalformedValue("_typeFilter");
    let (name, query) = text.split_once('?').ok_or(MALFORMED)?;
    let resource = ResourceType::from_name(name).ok_or(MALFORMED)?;
    if !types.is_empty() && !types.contains(&resource) {
        return Err(MALFORMED);
    }
    let filter = ranges::criteria(resource, &Parameters::decode(query)?, known)?;
    // It is judged on every record that comes: what could not be told from a record is not asked (P4).
    if filter.is_judgeable() { Ok(filter) } else { Err(FhirRefusal::ParameterNotSupported("_typeFilter")) }
}
