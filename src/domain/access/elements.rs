//! Which elements a policy set has an opinion about.
//!
//! Owns: for each resource type, the paths whose decisions differ, and how they hang together. A decision
//! about an element depends only on which *named* paths it lies in or is, so the named ones (and their
//! ancestors) are asked and all others inherit. Must never: leave out a path where the answer may change.
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

/// The branches of every type that some policy or group names.
#[derive(Debug, Default)]
pub(super) struct Elements {
    named: BTreeMap<ResourceType, Vec<Branch>>,
}

impl Elements {
    /// `covering` paths speak for all below them; `exact` ones only for themselves (`==`), so that their
    /// children must be asked too.
    pub(super) fn new(groups: &Groups, covering: Vec<ElementPath>, exact: Vec<ElementPath>) -> Self {
        let mut paths: BTreeSet<ElementPath> = groups.values().flatten().cloned().collect();
        paths.extend(covering);
        for path in exact {
            paths.extend(children(&path));
            paths.insert(path);
        }
        let mut by_type: BTreeMap<ResourceType, BTreeSet<ElementPath>> = BTreeMap::new();
        for path in paths {
            by_type.entry(path.resource_type()).or_default().insert(path);
        }
        let mut of_path: BTreeMap<&ElementPath, Vec<String>> = BTreeMap::new();
        for (name, members) in groups {
            members.iter().for_each(|path| of_path.entry(path).or_default().push(name.clone()));
        }
        let branches = |(resource, paths)| (resource, branches(resource, paths, &of_path));
        Self { named: by_type.into_iter().map(branches).collect() }
    }

    /// The branches of a type, the root first, parents before children.
    pub(super) fn of(&self, resource: ResourceType) -> Vec<Branch> {
        match self.named.get(&resource) {
            Some(branches) => branches.clone(),
            None => branches(resource, BTreeSet::new(), &BTreeMap::new()),
        }
    }
}

/// The branches of a type when just these paths are told apart, whatever the groups.
#[cfg(feature = "prove")]
pub(super) fn branches_of(resource: ResourceType, paths: BTreeSet<ElementPath>) -> Vec<Branch> {
    branches(resource, paths, &BTreeMap::new())
}

fn branches(
    resource: ResourceType,
    mut paths: BTreeSet<ElementPath>,
    groups: &BTreeMap<&ElementPath, Vec<String>>,
) -> Vec<Branch> {
    let own_extension = format!("{}.extension", resource.name());
    paths.insert(ElementPath::root(resource));
    paths.extend(ElementPath::parse(&own_extension));
    let ancestors: Vec<ElementPath> = paths.iter().flat_map(ancestors).collect();
    paths.extend(ancestors);
    let branch = |path: ElementPath| Branch {
        parent: parent(path.as_str()).map(str::to_owned),
        groups: groups.get(&path).cloned().unwrap_or_default(),
        own_extension: path.as_str().starts_with(&own_extension)
            && (path.as_str() == own_extension || path.extension_url().is_some()),
        path,
    };
    paths.into_iter().map(branch).collect()
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
