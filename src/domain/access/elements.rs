//! Which elements some policies have an opinion about.
//!
//! Owns: for a question's policies, the paths whose decisions differ, and how they hang together. A decision
//! about an element depends only on which paths *named by these policies* it lies in or is, so the named ones (and their
//! ancestors) are asked and all others inherit. What policies of other roles name makes no difference, and costs nothing.
//! Must never: leave out a path where the answer may change.
//! Look next: `engine`, which asks.

use super::groups::Groups;
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use std::collections::{BTreeMap, BTreeSet};

/// One element to ask about.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// Which.
    pub path: ElementPath,
    /// The element it lies in.
    pub parent: Option<String>,
    /// Groups that list it.
    pub groups: Vec<String>,
    /// The record's own `extension`, or one of them by URL: these pass only by a grant of their own
    /// (design.md section 5), so `parent` counts for forbids only.
    pub own_extension: bool,
}

/// Paths by type, each with its ancestors.
type ByType = BTreeMap<ResourceType, BTreeSet<ElementPath>>;

/// What one policy names.
#[derive(Debug, Default)]
pub(super) struct Names {
    paths: ByType,
    groups: BTreeSet<String>,
}

impl Names {
    /// `covering` paths speak for all below them; `exact` ones only for themselves (`==`), so that their
    /// children must be asked too.
    pub(super) fn new(covering: Vec<ElementPath>, exact: Vec<ElementPath>, groups: BTreeSet<String>) -> Self {
        let below: Vec<ElementPath> = exact.iter().flat_map(children).collect();
        Self { paths: by_type(covering.into_iter().chain(exact).chain(below)), groups }
    }
}

/// A group: its members by type with their ancestors, and the members alone.
type Members = (ByType, BTreeSet<ElementPath>);

/// The groups' members.
#[derive(Debug, Default)]
pub(super) struct Elements {
    groups: BTreeMap<String, Members>,
}

impl Elements {
    pub(super) fn new(groups: &Groups) -> Self {
        let group = |(name, members): (&String, &BTreeSet<ElementPath>)| {
            (name.clone(), (by_type(members.iter().cloned()), members.clone()))
        };
        Self { groups: groups.iter().map(group).collect() }
    }

    /// Every group with its members, those that no policy names included: invariants may.
    #[cfg(feature = "prove")]
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &BTreeSet<ElementPath>)> {
        self.groups.iter().map(|(name, (_, members))| (name.as_str(), members))
    }

    /// The branches of a type for policies that name this, the root first, parents before children.
    pub(super) fn among<'n>(
        &self,
        resource: ResourceType,
        names: impl IntoIterator<Item = &'n Names>,
    ) -> Vec<Branch> {
        let mut paths: BTreeSet<&ElementPath> = BTreeSet::new();
        let mut groups: BTreeSet<&str> = BTreeSet::new();
        for name in names {
            paths.extend(name.paths.get(&resource).into_iter().flatten());
            groups.extend(name.groups.iter().map(String::as_str));
        }
        let known: Vec<(&str, &Members)> =
            groups.into_iter().filter_map(|name| Some((name, self.groups.get(name)?))).collect();
        for (_, (members, _)) in &known {
            paths.extend(members.get(&resource).into_iter().flatten());
        }
        let root = ElementPath::root(resource);
        let own_extension = format!("{}.extension", resource.name());
        let extension = ElementPath::parse(&own_extension).ok();
        paths.extend([&root]);
        paths.extend(&extension);
        let branch = |path: &ElementPath| Branch {
            path: path.clone(),
            parent: parent(path.as_str()).map(str::to_owned),
            groups: known
                .iter()
                .filter(|(_, (_, members))| members.contains(path))
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            own_extension: path.as_str().starts_with(&own_extension)
                && (path.as_str() == own_extension || path.extension_url().is_some()),
        };
        paths.into_iter().map(branch).collect()
    }
}

/// The branches of a type when just these paths are told apart, whatever the groups.
#[cfg(feature = "prove")]
pub(super) fn branches_of(resource: ResourceType, paths: BTreeSet<ElementPath>) -> Vec<Branch> {
    let names = Names::new(paths.into_iter().collect(), Vec::new(), BTreeSet::new());
    Elements::default().among(resource, [&names])
}

fn by_type(paths: impl Iterator<Item = ElementPath>) -> ByType {
    let mut by_type = ByType::new();
    for path in paths {
        let of_type = by_type.entry(path.resource_type()).or_default();
        of_type.extend(ancestors(&path));
        of_type.insert(path);
    }
    by_type
}

/// The path one step up: `Patient.name` for `Patient.name.family`, `X.extension` for `X.extension('…')`.
fn parent(path: &str) -> Option<&str> {
    match path.split_once(".extension('") {
        Some((owner, _)) => path.get(..owner.len() + ".extension".len()),
        None => path.rsplit_once('.').map(|(parent, _)| parent),
    }
}

fn ancestors(path: &ElementPath) -> Vec<ElementPath> {
    std::iter::successors(parent(path.as_str()), |path| parent(path))
        .filter_map(|text| ElementPath::parse(text).ok())
        .collect()
}

/// The elements one step below. A content reference continues elsewhere and is decided there.
pub(super) fn children(path: &ElementPath) -> Vec<ElementPath> {
    let below: Vec<r4::Structure> = match path.element() {
        None => vec![r4::root(path.resource_type())],
        Some(element) => element.types.to_vec(),
    };
    let names: BTreeSet<&str> = below.iter().flat_map(|s| r4::elements(*s)).map(|e| e.name).collect();
    names.iter().filter_map(|name| ElementPath::parse(&format!("{path}.{name}")).ok()).collect()
}
