//! The official compartments: which records belong to a patient, an encounter, a relative, a practitioner, a
//! device.
//!
//! Owns: the formats of `compartment.txt` and `compartments.txt`. Must never: be taken for permission;
//! who may see a record is for policy (T-028).
//! Look next: `tools/r4-tables/search.py`, which writes both.
//!
//! `compartment.txt` is for patients alone: `Type path…`, one line a type. In `compartments.txt` stand
//! `owner type codes paths`, separated by tabs, lists by spaces.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::ResourceType;
use super::search::words;

static PATIENT: LazyLock<Patient> =
    LazyLock::new(|| patient(include_str!("compartment.txt")).unwrap_or_default());
static ALL: LazyLock<All> = LazyLock::new(|| all(include_str!("compartments.txt")).unwrap_or_default());

type Patient = BTreeMap<ResourceType, Vec<&'static str>>;
type All = BTreeMap<(ResourceType, ResourceType), Membership>;

struct Membership {
    codes: Vec<&'static str>,
    paths: Vec<&'static str>,
}

/// The Reference elements whose Patient targets put a record of this type into those patients'
/// compartments (CompartmentDefinition/patient and no other rule). Empty: the type is in none.
///
/// A Patient record is itself the centre of its own compartment, which no element says.
#[must_use]
pub fn patient_compartment(resource: ResourceType) -> &'static [&'static str] {
    PATIENT.get(&resource).map_or(&[], Vec::as_slice)
}

/// The elements that put a record of type `member` into the compartments of `owner` (R4
/// compartmentdefinition.html): Reference elements with targets of that type, or for a record of the owner's
/// own type its id, where the definition says that it is in its own compartment. `None`: the owner's type
/// has no compartment, or no record of this type is in one (T-029).
#[must_use]
pub fn compartment(owner: ResourceType, member: ResourceType) -> Option<&'static [&'static str]> {
    ALL.get(&(owner, member)).map(|found| found.paths.as_slice())
}

/// The search parameters that give membership; `{def}` is the record's own identity. Empty as
/// [`compartment`] is `None`.
#[must_use]
pub fn compartment_parameters(owner: ResourceType, member: ResourceType) -> &'static [&'static str] {
    ALL.get(&(owner, member)).map_or(&[], |found| found.codes.as_slice())
}

/// The types with records in compartments of this owner, ordered by name. Empty: it has none.
pub fn compartment_members(owner: ResourceType) -> impl Iterator<Item = ResourceType> {
    ALL.keys().filter(move |(found, _)| *found == owner).map(|(_, member)| *member)
}

pub(super) fn patient(text: &'static str) -> Option<Patient> {
    let entry = |line: &'static str| -> Option<_> {
        let (name, paths) = line.split_once(' ')?;
        Some((ResourceType::from_name(name)?, words(Some(paths)).collect()))
    };
    text.lines().map(entry).collect()
}

fn all(text: &'static str) -> Option<All> {
    text.lines().map(membership).collect()
}

fn membership(line: &'static str) -> Option<((ResourceType, ResourceType), Membership)> {
    let mut fields = line.split('\t');
    let owner = fields.next().and_then(ResourceType::from_name)?;
    let member = fields.next().and_then(ResourceType::from_name)?;
    let (codes, paths) = (words(fields.next()).collect(), words(fields.next()).collect());
    Some(((owner, member), Membership { codes, paths }))
}
