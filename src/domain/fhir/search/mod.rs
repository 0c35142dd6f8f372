//! Parameters of a type-level search, from decoded pairs to one canonical [`Search`].
//!
//! Owns: which parameter is what (criterion, include, sort, count), and the one query text each search
//! prints. Must never: skip a parameter. Ignoring one widens the answer, so it is known or refused.
//! Look next: `search/name.rs`, the heart of it.

mod date;
mod form;
mod modifier;
mod name;
mod value;

#[cfg(test)]
mod tests;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(super) use self::form::{Pair, decode_into};
pub(super) use self::value::SearchValue;

use self::name::Trail;
use super::classify::FhirRefusal;
use super::interaction::{Criterion, Include, Search, SortKey};
use super::path::PublicBase;
use super::r4::{ResourceType, SearchType};
use crate::limits::{INCLUDES_MAX, SEARCH_COUNT_MAX, SORT_KEYS_MAX};

/// Unreserved characters stand as they are, and those that only ever separate inside a value.
const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',');

/// Reads all parameters of one search. `pairs` holds URL and form together (T-020).
pub(super) fn read_search(
    resource: ResourceType,
    pairs: &[Pair],
    base: &PublicBase,
) -> Result<Search, FhirRefusal> {
    let mut search =
        Search { resource, criteria: Vec::new(), includes: Vec::new(), sort: Vec::new(), count: None };
    let mut steps = 0;
    for pair in pairs {
        read_pair(&mut search, pair, base, &mut steps)?;
    }
    search.criteria.sort_by_cached_key(|criterion| (criterion.name.clone(), criterion.value()));
    search.criteria.dedup();
    search.includes.sort_by_cached_key(print_include);
    search.includes.dedup();
    Ok(search)
}

/// The canonical query: criteria, includes, sort, count.
pub(super) fn print_query(search: &Search) -> String {
    let criteria = search.criteria.iter().map(|criterion| (criterion.name.clone(), criterion.value()));
    let includes = search.includes.iter().map(print_include);
    let sort = (!search.sort.is_empty()).then(|| ("_sort".to_owned(), print_sort(&search.sort)));
    let count = search.count.map(|count| ("_count".to_owned(), count.to_string()));
    let pairs: Vec<String> = criteria
        .chain(includes)
        .chain(sort)
        .chain(count)
        .map(|(name, value)| format!("{}={}", encode(&name), encode(&value)))
        .collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY_SET).to_string()
}

fn print_include(include: &Include) -> (String, String) {
    let name = if include.reverse { "_revinclude" } else { "_include" };
    let narrowed = include.narrowed.map(|target| format!(":{}", target.name())).unwrap_or_default();
    (name.to_owned(), format!("{}:{}{narrowed}", include.source.name(), include.code))
}

fn print_sort(keys: &[SortKey]) -> String {
    let keys: Vec<String> =
        keys.iter().map(|key| format!("{}{}", if key.descending { "-" } else { "" }, key.code)).collect();
    keys.join(",")
}

fn read_pair(
    search: &mut Search,
    pair: &Pair,
    base: &PublicBase,
    steps: &mut usize,
) -> Result<(), FhirRefusal> {
    match pair.name.as_str() {
        "_count" => read_count(search, &pair.value),
        "_sort" => read_sort(search, &pair.value),
        "_include" => read_include(search, &pair.value, false),
        "_revinclude" => read_include(search, &pair.value, true),
        name if name.starts_with("_include:") || name.starts_with("_revinclude:") => {
            Err(FhirRefusal::IncludeNotSupported)
        }
        _ => {
            let criterion = read_criterion(search.resource, pair, base, steps)?;
            search.criteria.push(criterion);
            Ok(())
        }
    }
}

fn read_criterion(
    resource: ResourceType,
    pair: &Pair,
    base: &PublicBase,
    steps: &mut usize,
) -> Result<Criterion, FhirRefusal> {
    let trail = Trail::follow(resource, &pair.name, *steps)?;
    *steps = trail.steps();
    let mut value = SearchValue::parse(&pair.value).ok_or(FhirRefusal::MalformedValue(trail.code()))?;
    if trail.ends_in_reference() {
        value.make_local(base);
    }
    trail.check(&value)?;
    Ok(Criterion { name: pair.name.clone(), value, hops: trail.into_hops() })
}

/// A wish above the bound is lowered, which R4 search.html 3.1.1.5.3 leaves to the server.
fn read_count(search: &mut Search, value: &str) -> Result<(), FhirRefusal> {
    if search.count.is_some() {
        return Err(FhirRefusal::RepeatedParameter("_count"));
    }
    let plain = value::is_digits(value) && !value.starts_with('0') && value.len() <= 9;
    let count = value.parse::<u32>().ok().filter(|_| plain);
    let count = count.ok_or(FhirRefusal::MalformedValue("_count"))?;
    search.count = Some(count.min(SEARCH_COUNT_MAX));
    Ok(())
}

fn read_sort(search: &mut Search, value: &str) -> Result<(), FhirRefusal> {
    if !search.sort.is_empty() {
        return Err(FhirRefusal::RepeatedParameter("_sort"));
    }
    for text in value.split(',') {
        if search.sort.len() >= SORT_KEYS_MAX {
            return Err(FhirRefusal::TooManyParameters);
        }
        let key = read_sort_key(search.resource, text)?;
        if search.sort.iter().any(|earlier| earlier.code == key.code) {
            return Err(FhirRefusal::MalformedValue("_sort"));
        }
        search.sort.push(key);
    }
    Ok(())
}

fn read_sort_key(resource: ResourceType, text: &str) -> Result<SortKey, FhirRefusal> {
    let (code, descending) = match text.strip_prefix('-') {
        Some(code) => (code, true),
        None => (text, false),
    };
    let parameter = name::known_parameter(resource, code)?;
    if matches!(parameter.kind, SearchType::Composite | SearchType::Special) {
        return Err(FhirRefusal::MalformedValue("_sort"));
    }
    let reads = name::reads(resource, parameter)?.into_iter().collect();
    Ok(SortKey { code: parameter.code, descending, reads })
}

/// `Source:code[:Target]`; wildcards are refused because they read every reference there is.
fn read_include(search: &mut Search, value: &str, reverse: bool) -> Result<(), FhirRefusal> {
    if search.includes.len() >= INCLUDES_MAX {
        return Err(FhirRefusal::TooManyParameters);
    }
    if value.contains('*') {
        return Err(FhirRefusal::IncludeNotSupported);
    }
    let mut pieces = value.splitn(3, ':');
    let source = pieces.next().and_then(ResourceType::from_name);
    let (Some(source), Some(code)) = (source, pieces.next()) else {
        return Err(FhirRefusal::MalformedParameter);
    };
    let narrowed = match pieces.next() {
        None => None,
        Some(name) => Some(ResourceType::from_name(name).ok_or(FhirRefusal::MalformedParameter)?),
    };
    let include = resolve_include(search.resource, reverse, source, code, narrowed)?;
    search.includes.push(include);
    Ok(())
}

fn resolve_include(
    searched: ResourceType,
    reverse: bool,
    source: ResourceType,
    code: &str,
    narrowed: Option<ResourceType>,
) -> Result<Include, FhirRefusal> {
    let parameter = name::known_parameter(source, code)?;
    let possible = name::target_types(parameter);
    let wanted = if reverse { Some(searched) } else { narrowed };
    let fits = parameter.kind == SearchType::Reference
        && (reverse || source == searched)
        && wanted.is_none_or(|target| possible.contains(&target))
        && (!reverse || narrowed.is_none_or(|target| target == searched));
    if !fits {
        return Err(FhirRefusal::MalformedParameter);
    }
    let targets = wanted.map_or(possible, |target| vec![target]);
    let reads = name::reads(source, parameter)?.into_iter().collect();
    // A reverse include can only point at the searched type: naming it says nothing new.
    let narrowed = narrowed.filter(|_| !reverse);
    Ok(Include { reverse, source, code: parameter.code, narrowed, reads, targets })
}
