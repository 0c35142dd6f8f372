//! Searches by where they look: one type, a compartment, several types; and searches that only find.
//!
//! Owns: how a search over several types becomes one leg per type (T-012), and which parameters all types
//! have in common. Must never: ask a type that is no member of a compartment (T-029), or let a parameter
//! mean one thing for one leg and another for the next.
//! Look next: `super::search`, which reads each leg.

use super::Known;
use super::parameters::Parameters;
use super::refusal::FhirRefusal;
use super::route::Range;
use crate::domain::fhir::interaction::{Interaction, LogicalId, PageToken};
use crate::domain::fhir::r4::{ResourceType, compartment_members};
use crate::domain::fhir::search::{Compartment, Pair, Search, read_criteria, read_search};

/// What is asked of every type alike, by the name before a modifier.
const COMMON: [&str; 8] =
    ["_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_count", "_total"];

/// Official parameters that a search over several types might have elsewhere.
const UNCOMMON: [&str; 10] = [
    "_sort",
    "_include",
    "_revinclude",
    "_has",
    "_text",
    "_content",
    "_list",
    "_filter",
    "_query",
    "_contained",
];

/// Reads the search of a range.
pub(super) fn read(
    range: Range,
    parameters: Parameters,
    known: &Known<'_>,
) -> Result<Interaction, FhirRefusal> {
    match range {
        Range::Type(resource) => one(resource, None, parameters.rest(), known).map(Interaction::Search),
        Range::Members(owner, id, member) => {
            let compartment = holding(owner, &id, member)?;
            one(member, Some(compartment), parameters.rest(), known).map(Interaction::Search)
        }
        Range::AllMembers(owner, id) => {
            let members: Vec<ResourceType> = compartment_members(owner).collect();
            if members.is_empty() {
                return Err(FhirRefusal::UnknownPath);
            }
            let owned = |member| holding(owner, &id, member).map(Some);
            many(&members, parameters, known, owned)
        }
        Range::System => many(&ResourceType::all().collect::<Vec<_>>(), parameters, known, |_| Ok(None)),
    }
}

/// The page link of a range: whole in itself, so nothing may be added to it. `_count` is checked and changes nothing,
/// because the link holds the page's size: there are clients that put it on every link they follow.
pub(super) fn read_page(range: &Range, mut parameters: Parameters) -> Result<Interaction, FhirRefusal> {
    let resource = match range {
        Range::Type(resource) => Some(*resource),
        Range::System => None,
        Range::Members(..) | Range::AllMembers(..) => return Err(FhirRefusal::MalformedPageToken),
    };
    parameters.count()?;
    match parameters.rest() {
        [page] => PageToken::parse(&page.value)
            .map(|token| Interaction::NextPage { resource, token })
            .ok_or(FhirRefusal::MalformedPageToken),
        _ => Err(FhirRefusal::MalformedPageToken),
    }
}

/// Criteria of a conditional interaction: at least one, and nothing that shapes an answer. None would mean
/// every record of the type (T-067, KF-35).
pub(super) fn criteria(
    resource: ResourceType,
    parameters: &Parameters,
    known: &Known<'_>,
) -> Result<Search, FhirRefusal> {
    if parameters.rest().is_empty() {
        return Err(FhirRefusal::MissingCriteria);
    }
    read_criteria(resource, parameters.rest(), known.base, known.registry)
}

/// A type that is no member of the compartment has no such path (T-029).
fn holding(owner: ResourceType, id: &LogicalId, member: ResourceType) -> Result<Compartment, FhirRefusal> {
    Compartment::holding(owner, id.clone(), member).ok_or(FhirRefusal::UnknownPath)
}

/// Of one type `_type` says nothing new, or something else than the path.
fn one(
    resource: ResourceType,
    compartment: Option<Compartment>,
    pairs: &[Pair],
    known: &Known<'_>,
) -> Result<Search, FhirRefusal> {
    if pairs.iter().any(|pair| pair.name == "_type") {
        return Err(FhirRefusal::ParameterNotSupported("_type"));
    }
    read_search(resource, compartment, pairs, known.base, known.registry)
}

/// One leg per type; all of them ask the same.
fn many(
    possible: &[ResourceType],
    mut parameters: Parameters,
    known: &Known<'_>,
    compartment: impl Fn(ResourceType) -> Result<Option<Compartment>, FhirRefusal>,
) -> Result<Interaction, FhirRefusal> {
    let listed = parameters.types()?;
    let types = listed.as_deref().unwrap_or(possible);
    if !types.iter().all(|one| possible.contains(one)) {
        return Err(FhirRefusal::MalformedValue("_type"));
    }
    let shape = parameters.shape(types)?;
    parameters.rest().iter().try_for_each(check_common)?;
    let leg = |resource: &ResourceType| {
        let search = one(*resource, compartment(*resource)?, parameters.rest(), known)?;
        Ok(search.shaped(shape.clone()))
    };
    let legs = types.iter().map(leg).collect::<Result<Vec<_>, FhirRefusal>>()?;
    Ok(Interaction::SearchMany { legs, named: listed.is_some() })
}

fn check_common(pair: &Pair) -> Result<(), FhirRefusal> {
    let name = pair.name.split([':', '.']).next().unwrap_or_default();
    if COMMON.contains(&name) {
        return Ok(());
    }
    Err(UNCOMMON
        .iter()
        .find(|uncommon| **uncommon == name)
        .map_or(FhirRefusal::UnknownParameter, |name| FhirRefusal::ParameterNotSupported(name)))
}
