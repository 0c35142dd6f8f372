//! Parameters of a search over one type, from decoded pairs to one canonical [`Search`].
//!
//! Owns: which parameter is what (criterion, include, sort, count, total, shape). Must never: skip a
//! parameter. Ignoring one widens the answer, so it is known or refused.
//! Look next: `search/name.rs`, the heart of it; `search/question.rs`, what comes out.

mod date;
mod filter;
mod filter_reads;
mod form;
mod found;
mod include;
mod judge;
mod modifier;
mod name;
mod print;
mod question;
mod registry;
mod span;
mod value;

#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod include_tests;
#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod tests;

pub use self::judge::Holds;
pub(super) use self::judge::changed_since;
pub use self::question::{Compartment, Criterion, Hop, Include, Search, SortKey, Total};
pub use self::registry::{DeclarationError, Registry};

pub(super) use self::form::{Pair, decode_into, parameters_into};

pub(super) use self::date::is_date;
use self::filter::Filter;
use self::include::Wish;
use self::name::{Names, Trail};
pub(super) use self::print::encode;

use self::print::{print_include, print_query, print_question};
use self::question::Asked;
use self::value::SearchValue;
use super::classify::FhirRefusal;
use super::path::PublicBase;
use super::r4::{ResourceType, SearchType};
use super::shape::Shape;
use crate::limits::{INCLUDES_MAX, SEARCH_COUNT_MAX, SORT_KEYS_MAX};

/// Reads all parameters of one search. `pairs` holds URL and form together (T-020).
pub(super) fn read_search(
    resource: ResourceType,
    compartment: Option<Compartment>,
    pairs: &[Pair],
    base: &PublicBase,
    registry: &Registry,
) -> Result<Search, FhirRefusal> {
    let mut reading = Reading::new(resource, base, registry);
    for pair in pairs {
        reading.pair(pair)?;
    }
    reading.finish(compartment)
}

/// Reads a search that only finds records: `If-None-Exist`, and the query of a conditional update, patch or
/// delete. At least one criterion must be there (it would hold for every record), and nothing that shapes
/// an answer may be.
pub(super) fn read_criteria(
    resource: ResourceType,
    pairs: &[Pair],
    base: &PublicBase,
    registry: &Registry,
) -> Result<Search, FhirRefusal> {
    let mut reading = Reading::new(resource, base, registry);
    for pair in pairs {
        reading.criterion(pair)?;
    }
    let search = reading.finish(None)?;
    if search.criteria.is_empty() { Err(FhirRefusal::MalformedQuery) } else { Ok(search) }
}

/// A search, as far as it has been read.
struct Reading<'r> {
    names: Names<'r>,
    base: &'r PublicBase,
    criteria: Vec<Criterion>,
    wishes: Vec<Wish>,
    sort: Vec<SortKey>,
    count: Option<u32>,
    total: Total,
    elements: Option<String>,
    summary: Option<String>,
    steps: usize,
}

impl<'r> Reading<'r> {
    fn new(resource: ResourceType, base: &'r PublicBase, registry: &'r Registry) -> Self {
        Self {
            names: Names { resource, registry },
            base,
            criteria: Vec::new(),
            wishes: Vec::new(),
            sort: Vec::new(),
            count: None,
            total: Total::Unstated,
            elements: None,
            summary: None,
            steps: 0,
        }
    }

    fn pair(&mut self, pair: &Pair) -> Result<(), FhirRefusal> {
        match pair.name.as_str() {
            "_count" => self.count(&pair.value),
            "_sort" => self.sort(&pair.value),
            "_total" => self.total(&pair.value),
            "_elements" => once(&mut self.elements, "_elements", &pair.value),
            "_summary" => once(&mut self.summary, "_summary", &pair.value),
            "_contained" => without_contained(&pair.value),
            name if Wish::is_name(name) => self.include(name, &pair.value),
            _ => self.criterion(pair),
        }
    }

    fn criterion(&mut self, pair: &Pair) -> Result<(), FhirRefusal> {
        let criterion = match pair.name.as_str() {
            "_filter" => self.filter(&pair.value)?,
            "_query" => self.query(&pair.value)?,
            _ => self.values(pair)?,
        };
        self.criteria.push(criterion);
        Ok(())
    }

    fn values(&mut self, pair: &Pair) -> Result<Criterion, FhirRefusal> {
        let trail = Trail::follow(&self.names, &pair.name, self.steps)?;
        self.steps = trail.steps();
        let mut value = SearchValue::parse(&pair.value).ok_or(FhirRefusal::MalformedValue(trail.code()))?;
        value.make_local(&trail.value_kinds()?, self.base);
        trail.check(&value)?;
        Ok(Criterion { name: pair.name.clone(), value: Asked::Values(value), hops: trail.into_hops() })
    }

    fn filter(&mut self, value: &str) -> Result<Criterion, FhirRefusal> {
        let mut filter = Filter::parse(value).ok_or(FhirRefusal::MalformedValue("_filter"))?;
        let trail = filter_reads::follow(&mut filter, &self.names, self.base, self.steps)?;
        self.steps = trail.steps();
        Ok(Criterion { name: "_filter".to_owned(), value: Asked::Filter(filter), hops: trail.into_hops() })
    }

    /// A query by name reads what its declaration says; without one it is refused (T-011).
    fn query(&mut self, value: &str) -> Result<Criterion, FhirRefusal> {
        if self.criteria.iter().any(|earlier| earlier.name == "_query") {
            return Err(FhirRefusal::RepeatedParameter("_query"));
        }
        let refused = FhirRefusal::ParameterNotSupported("_query");
        let reads = self.names.registry.query(self.names.resource, value).ok_or(refused)?;
        let value = SearchValue::parse(value).ok_or(refused)?;
        let hops = Trail::declared(&self.names, reads)?.into_hops();
        Ok(Criterion { name: "_query".to_owned(), value: Asked::Values(value), hops })
    }

    /// A wish above the bound is lowered, which R4 search.html 3.1.1.5.3 leaves to the server.
    fn count(&mut self, value: &str) -> Result<(), FhirRefusal> {
        if self.count.is_some() {
            return Err(FhirRefusal::RepeatedParameter("_count"));
        }
        let plain = value::is_digits(value) && !value.starts_with('0') && value.len() <= 9;
        let count = value.parse::<u32>().ok().filter(|_| plain);
        let count = count.ok_or(FhirRefusal::MalformedValue("_count"))?;
        self.count = Some(count.min(SEARCH_COUNT_MAX));
        Ok(())
    }

    fn total(&mut self, value: &str) -> Result<(), FhirRefusal> {
        if self.total != Total::Unstated {
            return Err(FhirRefusal::RepeatedParameter("_total"));
        }
        self.total = Total::read(value).ok_or(FhirRefusal::MalformedValue("_total"))?;
        Ok(())
    }

    fn sort(&mut self, value: &str) -> Result<(), FhirRefusal> {
        if !self.sort.is_empty() {
            return Err(FhirRefusal::RepeatedParameter("_sort"));
        }
        for text in value.split(',') {
            if self.sort.len() >= SORT_KEYS_MAX {
                return Err(FhirRefusal::TooManyParameters);
            }
            let key = sort_key(&self.names, text)?;
            if self.sort.iter().any(|earlier| earlier.code == key.code) {
                return Err(FhirRefusal::MalformedValue("_sort"));
            }
            self.sort.push(key);
        }
        Ok(())
    }

    fn include(&mut self, name: &str, value: &str) -> Result<(), FhirRefusal> {
        if self.wishes.len() >= INCLUDES_MAX {
            return Err(FhirRefusal::TooManyParameters);
        }
        self.wishes.push(Wish::read(&self.names, name, value)?);
        Ok(())
    }

    fn finish(mut self, compartment: Option<Compartment>) -> Result<Search, FhirRefusal> {
        let resource = self.names.resource;
        self.criteria.sort_by_cached_key(|criterion| (criterion.name.clone(), criterion.value()));
        self.criteria.dedup();
        let mut includes = include::resolve(resource, &self.wishes)?;
        includes.sort_by_cached_key(print_include);
        includes.dedup();
        let mut types: Vec<ResourceType> = includes.iter().flat_map(Include::added).copied().collect();
        types.push(resource);
        types.sort_unstable();
        types.dedup();
        let asked = if self.elements.is_some() { "_elements" } else { "_summary" };
        let shape = Shape::read(self.elements.as_deref(), self.summary.as_deref(), &types)
            .ok_or(FhirRefusal::MalformedValue(asked))?;
        Ok(Search {
            resource,
            compartment,
            criteria: self.criteria,
            includes,
            sort: self.sort,
            count: self.count,
            total: self.total,
            shape,
        })
    }
}

fn once(slot: &mut Option<String>, name: &'static str, value: &str) -> Result<(), FhirRefusal> {
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(FhirRefusal::RepeatedParameter(name)),
    }
}

/// `false` is what happens anyway. With the others records would come back that stand in other records,
/// and could not be decided on their own.
fn without_contained(value: &str) -> Result<(), FhirRefusal> {
    match value {
        "false" => Ok(()),
        "true" | "both" => Err(FhirRefusal::ParameterNotSupported("_contained")),
        _ => Err(FhirRefusal::MalformedValue("_contained")),
    }
}

fn sort_key(names: &Names<'_>, text: &str) -> Result<SortKey, FhirRefusal> {
    let (code, descending) = match text.strip_prefix('-') {
        Some(code) => (code, true),
        None => (text, false),
    };
    let parameter = names.parameter(names.resource, code)?;
    let unordered = matches!(parameter.kind, SearchType::Composite | SearchType::Special);
    if unordered || name::reads_whole(names.resource, parameter) {
        return Err(FhirRefusal::MalformedValue("_sort"));
    }
    let reads = names.reads(names.resource, parameter)?.into_iter().collect();
    Ok(SortKey { code: parameter.code, descending, reads })
}
