//! Parameter names: what each one reads, along every chain.
//!
//! Owns: the grammar `code[:modifier]`, `code[:Type].rest` and `_has:Type:code:rest`, resolved against
//! the R4 tables into hops (T-005, T-006, T-011, T-014). Must never: let through a name of which any
//! part is not in the tables, or list fewer elements than upstream will look at.
//! Look next: `search/modifier.rs`, `search/value.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::modifier::Modifier;
use super::question::Hop;
use super::registry::Registry;
use super::value::SearchValue;
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::r4::{
    self, ElementPath, ResourceType, SearchParameter, SearchType, search_parameter,
};
use crate::limits::{CHAIN_LINKS_MAX, CHAIN_STEPS_MAX, HOPS_MAX};

/// Parameters of R4 for all types that find nothing by themselves, or only at the head of a search. A chain
/// cannot end in one.
const NOT_SUPPORTED: [&str; 20] = [
    "_total",
    "_summary",
    "_elements",
    "_contained",
    "_containedType",
    "_count",
    "_sort",
    "_format",
    "_pretty",
    "_list",
    "_query",
    "_filter",
    "_type",
    "_at",
    "_since",
    "_has",
    "_include",
    "_revinclude",
    "_include:iterate",
    "_revinclude:iterate",
];

/// Parameters of every type that are understood.
const COMMON: [&str; 8] =
    ["_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_text", "_content"];

/// `_list=id`: records that a List names. R4 publishes no definition; it compares the record's own identity.
static LIST: SearchParameter = SearchParameter {
    code: "_list",
    kind: SearchType::Special,
    reads: &[],
    targets: &[],
    components: &[],
    understood: true,
};

/// Where a name ends: the parameter that the value is compared with.
struct Leaf {
    resource: ResourceType,
    parameter: &'static SearchParameter,
    modifier: Modifier,
}

/// Everything one parameter name reads, and what its value must look like.
pub(super) struct Trail<'n> {
    names: &'n Names<'n>,
    own: BTreeSet<ElementPath>,
    later: BTreeMap<ResourceType, BTreeSet<ElementPath>>,
    leaves: Vec<Leaf>,
    steps: usize,
}

/// Where names are looked up: the searched type, the official tables and what the hospital declared.
pub(super) struct Names<'r> {
    pub(super) resource: ResourceType,
    pub(super) registry: &'r Registry,
}

impl Names<'_> {
    /// Looks a code up; only what is understood comes back.
    pub(super) fn parameter(
        &self,
        resource: ResourceType,
        code: &str,
    ) -> Result<&'static SearchParameter, FhirRefusal> {
        if let Some(name) = NOT_SUPPORTED.iter().find(|name| **name == code) {
            return Err(FhirRefusal::ParameterNotSupported(name));
        }
        if code.starts_with('_') && !COMMON.contains(&code) {
            return Err(FhirRefusal::UnknownParameter);
        }
        let parameter = self.find(resource, code).ok_or(FhirRefusal::UnknownParameter)?;
        if parameter.understood && !parameter.reads.is_empty() {
            Ok(parameter)
        } else {
            Err(FhirRefusal::ParameterNotSupported(parameter.code))
        }
    }

    /// The element paths of a parameter, components of a composite included.
    pub(super) fn reads(
        &self,
        resource: ResourceType,
        parameter: &'static SearchParameter,
    ) -> Result<BTreeSet<ElementPath>, FhirRefusal> {
        let mut paths = parse_paths(parameter)?;
        for code in parameter.components {
            paths.extend(parse_paths(self.component(resource, parameter, code)?)?);
        }
        Ok(paths)
    }

    /// Types that a chain goes on to: the one named, or all that could evaluate the rest.
    fn chain_targets(
        &self,
        parameter: &'static SearchParameter,
        suffix: Option<&str>,
        tail: &str,
    ) -> Result<Vec<ResourceType>, FhirRefusal> {
        let possible = target_types(parameter);
        match suffix {
            Some(name) => ResourceType::from_name(name)
                .filter(|target| possible.contains(target))
                .map(|target| vec![target])
                .ok_or(FhirRefusal::ModifierNotSupported(parameter.code)),
            None => Ok(possible.into_iter().filter(|target| self.can_continue(*target, tail)).collect()),
        }
    }

    /// Whether upstream could evaluate the rest of an untyped chain on this type.
    fn can_continue(&self, target: ResourceType, tail: &str) -> bool {
        if tail == LIST.code {
            return true;
        }
        let Some(reverse) = tail.strip_prefix("_has:") else {
            let code = tail.split([':', '.']).next().unwrap_or(tail);
            let links = tail.contains('.');
            return self
                .find(target, code)
                .is_some_and(|parameter| !links || parameter.kind == SearchType::Reference);
        };
        let mut pieces = reverse.split(':');
        let source = pieces.next().and_then(ResourceType::from_name);
        let reference = source.zip(pieces.next()).and_then(|(kind, code)| self.find(kind, code));
        reference.is_some_and(|parameter| target_types(parameter).contains(&target))
    }

    fn find(&self, resource: ResourceType, code: &str) -> Option<&'static SearchParameter> {
        search_parameter(resource, code).or_else(|| self.registry.parameter(resource, code))
    }

    fn component(
        &self,
        resource: ResourceType,
        composite: &SearchParameter,
        code: &str,
    ) -> Result<&'static SearchParameter, FhirRefusal> {
        self.parameter(resource, code).map_err(|_| FhirRefusal::ParameterNotSupported(composite.code))
    }
}

/// `_text` and `_content`: the whole record counts as read, since its text can repeat any element (T-009).
pub(super) fn reads_whole(resource: ResourceType, parameter: &SearchParameter) -> bool {
    parameter.reads.contains(&resource.name())
}

/// Types a reference parameter may point at; no list in the tables means any type.
pub(super) fn target_types(parameter: &SearchParameter) -> Vec<ResourceType> {
    if parameter.targets.is_empty() { ResourceType::all().collect() } else { parameter.targets.to_vec() }
}

fn parse_paths(parameter: &'static SearchParameter) -> Result<BTreeSet<ElementPath>, FhirRefusal> {
    parameter
        .reads
        .iter()
        .map(|path| ElementPath::parse(path))
        .collect::<Result<_, _>>()
        .map_err(|_| FhirRefusal::ParameterNotSupported(parameter.code))
}

impl<'n> Trail<'n> {
    /// Follows a whole name, starting at the searched type. `steps` were taken for the names before it:
    /// the bound holds for a whole search, since every step may look at every type.
    pub(super) fn follow(names: &'n Names<'n>, name: &str, steps: usize) -> Result<Self, FhirRefusal> {
        let mut trail = Self::unmoved(names, steps);
        trail.step(names.resource, name, 0)?;
        Ok(trail)
    }

    /// Where every trail begins: nothing read yet.
    pub(super) fn unmoved(names: &'n Names<'n>, steps: usize) -> Self {
        Self { names, own: BTreeSet::new(), later: BTreeMap::new(), leaves: Vec::new(), steps }
    }

    /// What a query by name reads, as declared. Its answer depends on which records there are at all, so the
    /// searched record's identity counts as read.
    pub(super) fn declared(names: &'n Names<'n>, reads: &[ElementPath]) -> Result<Self, FhirRefusal> {
        let mut trail = Self::unmoved(names, 0);
        let id = format!("{}.id", names.resource.name());
        trail.own.extend(ElementPath::parse(&id));
        for path in reads {
            let depth = usize::from(path.resource_type() != names.resource);
            trail.read(path.resource_type(), depth, BTreeSet::from([path.clone()]))?;
        }
        Ok(trail)
    }

    /// Takes over what another trail of the same search reads, and the steps it has counted.
    pub(super) fn absorb(&mut self, other: Self) -> Result<(), FhirRefusal> {
        self.steps = other.steps;
        self.own.extend(other.own);
        for (resource, paths) in other.later {
            self.read(resource, 1, paths)?;
        }
        Ok(())
    }

    /// Types of the parameters this name may end in.
    pub(super) fn kinds(&self) -> impl Iterator<Item = SearchType> {
        self.leaves.iter().map(|leaf| leaf.parameter.kind)
    }

    /// True when a literal of `_filter` fits every parameter this name may end in.
    pub(super) fn takes_literal(&self, text: &str) -> bool {
        self.leaves.iter().all(|leaf| SearchValue::takes_literal(text, leaf.parameter.kind, leaf.modifier))
    }

    /// Steps taken so far, those before this name included.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// True when the value fits every parameter this name may end in.
    pub(super) fn check(&self, value: &SearchValue) -> Result<(), FhirRefusal> {
        for leaf in &self.leaves {
            let kinds = self.component_kinds(leaf)?;
            if !value.fits(leaf.parameter.kind, leaf.modifier, &kinds) {
                return Err(FhirRefusal::MalformedValue(leaf.parameter.code));
            }
        }
        Ok(())
    }

    fn component_kinds(&self, leaf: &Leaf) -> Result<Vec<SearchType>, FhirRefusal> {
        let parameter = leaf.parameter;
        let kind = |code: &&str| self.names.component(leaf.resource, parameter, code).map(|found| found.kind);
        parameter.components.iter().map(kind).collect()
    }

    /// True when the value is a plain reference wherever the name may end.
    pub(super) fn ends_in_reference(&self) -> bool {
        self.leaves
            .iter()
            .all(|leaf| leaf.parameter.kind == SearchType::Reference && leaf.modifier == Modifier::Absent)
    }

    /// The types of the value's components, wherever the name may end; one for a plain value. Empty when
    /// that depends, or when a modifier gives the value another form.
    pub(super) fn value_kinds(&self) -> Result<Vec<SearchType>, FhirRefusal> {
        let [leaf, others @ ..] = self.leaves.as_slice() else { return Ok(Vec::new()) };
        let plain = |leaf: &Leaf| leaf.modifier == Modifier::Absent;
        if leaf.parameter.kind == SearchType::Composite && others.is_empty() && plain(leaf) {
            return self.component_kinds(leaf);
        }
        let same = |other: &Leaf| other.parameter.kind == leaf.parameter.kind && plain(other);
        Ok(if plain(leaf) && others.iter().all(same) { vec![leaf.parameter.kind] } else { Vec::new() })
    }

    /// The official code to name in a complaint about the value.
    pub(super) fn code(&self) -> &'static str {
        self.leaves.first().map_or("_has", |leaf| leaf.parameter.code)
    }

    /// Hop 0 is the searched type; the others follow in the order of the types.
    pub(super) fn into_hops(self) -> Vec<Hop> {
        let own = Hop { resource: self.names.resource, reads: self.own.into_iter().collect() };
        let later = self
            .later
            .into_iter()
            .map(|(resource, reads)| Hop { resource, reads: reads.into_iter().collect() });
        std::iter::once(own).chain(later).collect()
    }

    /// One link of the name. `depth` links have been followed already; recursion ends at
    /// `CHAIN_LINKS_MAX`.
    fn step(&mut self, resource: ResourceType, rest: &str, depth: usize) -> Result<(), FhirRefusal> {
        self.steps += 1;
        if depth > CHAIN_LINKS_MAX || self.steps > CHAIN_STEPS_MAX {
            return Err(FhirRefusal::ChainTooLong);
        }
        if let Some(reverse) = rest.strip_prefix("_has:") {
            return self.step_back(resource, reverse, depth);
        }
        if rest == LIST.code {
            return self.end_in_list(resource, depth);
        }
        let (head, tail) = match rest.split_once('.') {
            Some((head, tail)) => (head, Some(tail)),
            None => (rest, None),
        };
        let (code, suffix) = match head.split_once(':') {
            Some((code, suffix)) => (code, Some(suffix)),
            None => (head, None),
        };
        let parameter = self.names.parameter(resource, code)?;
        match tail {
            None => self.end(resource, parameter, suffix, depth),
            Some(tail) => self.chain(resource, parameter, suffix, tail, depth),
        }
    }

    /// `_has:Type:code:rest`: records of `Type` whose reference `code` points here.
    fn step_back(&mut self, here: ResourceType, text: &str, depth: usize) -> Result<(), FhirRefusal> {
        let mut pieces = text.splitn(3, ':');
        let (Some(kind), Some(code), Some(rest)) = (pieces.next(), pieces.next(), pieces.next()) else {
            return Err(FhirRefusal::MalformedParameter);
        };
        let there = ResourceType::from_name(kind).ok_or(FhirRefusal::MalformedParameter)?;
        let parameter = self.names.parameter(there, code)?;
        if parameter.kind != SearchType::Reference || !target_types(parameter).contains(&here) {
            return Err(FhirRefusal::MalformedParameter);
        }
        // What is matched here is the record's own identity.
        self.read_path(here, depth, &format!("{}.id", here.name()), parameter)?;
        self.read(there, depth + 1, self.names.reads(there, parameter)?)?;
        self.step(there, rest, depth + 1)
    }

    /// `code[:Type].rest`: every type the reference may lead to and that has the next parameter.
    fn chain(
        &mut self,
        resource: ResourceType,
        parameter: &'static SearchParameter,
        suffix: Option<&str>,
        tail: &str,
        depth: usize,
    ) -> Result<(), FhirRefusal> {
        if parameter.kind != SearchType::Reference {
            return Err(FhirRefusal::MalformedParameter);
        }
        self.read(resource, depth, self.names.reads(resource, parameter)?)?;
        let targets = self.names.chain_targets(parameter, suffix, tail)?;
        if targets.is_empty() {
            return Err(FhirRefusal::UnknownParameter);
        }
        for target in targets {
            self.step(target, tail, depth + 1)?;
        }
        Ok(())
    }

    /// The last parameter of the name, with its modifier.
    fn end(
        &mut self,
        resource: ResourceType,
        parameter: &'static SearchParameter,
        suffix: Option<&str>,
        depth: usize,
    ) -> Result<(), FhirRefusal> {
        let refused = FhirRefusal::ModifierNotSupported(parameter.code);
        let modifier = Modifier::parse(suffix, parameter.kind).ok_or(refused)?;
        if modifier != Modifier::Absent && reads_whole(resource, parameter) {
            return Err(refused);
        }
        let own = self.names.reads(resource, parameter)?;
        match (modifier, parameter.kind) {
            (Modifier::Identifier, _) => self.read_identifiers(resource, parameter, depth)?,
            (Modifier::Type(target), _) if !target_types(parameter).contains(&target) => {
                return Err(refused);
            }
            (Modifier::OfType, _) if !own.iter().all(holds_identifier) => return Err(refused),
            // Upstream looks the set or the hierarchy up in a record of its own. Which of that
            // record's elements it uses is up to the server: the whole of it counts as read.
            (Modifier::In | Modifier::NotIn, _) => self.read_whole("ValueSet", depth, refused)?,
            (Modifier::Above | Modifier::Below, SearchType::Token) => {
                self.read_whole("CodeSystem", depth, refused)?;
            }
            (Modifier::Above | Modifier::Below, SearchType::Reference) => {
                self.read_hierarchies(parameter, depth)?;
            }
            (Modifier::Missing, SearchType::Reference) => {
                self.read_holders(resource, parameter, depth)?;
            }
            _ => {}
        }
        if modifier != Modifier::Identifier {
            self.read(resource, depth, own)?;
        }
        self.leaves.push(Leaf { resource, parameter, modifier });
        Ok(())
    }

    /// `_list`: what the List names is compared with the record's own identity (T-012, T-025).
    fn end_in_list(&mut self, resource: ResourceType, depth: usize) -> Result<(), FhirRefusal> {
        let list = ResourceType::from_name("List").ok_or(FhirRefusal::UnknownParameter)?;
        self.read_path(resource, depth, &format!("{}.id", resource.name()), &LIST)?;
        self.read_path(list, depth + 1, "List.id", &LIST)?;
        self.read_path(list, depth + 1, "List.entry", &LIST)?;
        self.leaves.push(Leaf { resource, parameter: &LIST, modifier: Modifier::Member });
        Ok(())
    }

    /// `:identifier` reads the reference's own identifier here and, as some servers resolve it, the
    /// identifiers of every type it may point at.
    fn read_identifiers(
        &mut self,
        resource: ResourceType,
        parameter: &'static SearchParameter,
        depth: usize,
    ) -> Result<(), FhirRefusal> {
        let refused = FhirRefusal::ModifierNotSupported(parameter.code);
        if !parameter.reads.iter().any(|path| path.ends_with(".reference")) {
            return Err(refused);
        }
        for path in parameter.reads {
            match path.strip_suffix(".reference") {
                Some(holder) => {
                    self.read_path(resource, depth, &format!("{holder}.identifier"), parameter)?;
                }
                // What the expression filters on is read all the same.
                None => self.read_path(resource, depth, path, parameter)?,
            }
        }
        for target in target_types(parameter) {
            if let Ok(path) = ElementPath::parse(&format!("{}.identifier", target.name())) {
                self.read(target, depth + 1, BTreeSet::from([path]))?;
            }
        }
        Ok(())
    }

    /// `:missing` on a reference asks for the whole element: it may hold an identifier alone.
    fn read_holders(
        &mut self,
        resource: ResourceType,
        parameter: &'static SearchParameter,
        depth: usize,
    ) -> Result<(), FhirRefusal> {
        for holder in parameter.reads.iter().filter_map(|path| path.strip_suffix(".reference")) {
            self.read_path(resource, depth, holder, parameter)?;
        }
        Ok(())
    }

    fn read_hierarchies(
        &mut self,
        parameter: &'static SearchParameter,
        depth: usize,
    ) -> Result<(), FhirRefusal> {
        for target in parameter.targets {
            self.read(*target, depth + 1, BTreeSet::from([ElementPath::root(*target)]))?;
        }
        if parameter.targets.is_empty() {
            return Err(FhirRefusal::ModifierNotSupported(parameter.code));
        }
        Ok(())
    }

    fn read_whole(&mut self, kind: &str, depth: usize, refused: FhirRefusal) -> Result<(), FhirRefusal> {
        let resource = ResourceType::from_name(kind).ok_or(refused)?;
        self.read(resource, depth + 1, BTreeSet::from([ElementPath::root(resource)]))
    }

    fn read_path(
        &mut self,
        resource: ResourceType,
        depth: usize,
        path: &str,
        parameter: &'static SearchParameter,
    ) -> Result<(), FhirRefusal> {
        let path = ElementPath::parse(path).map_err(|_| FhirRefusal::ModifierNotSupported(parameter.code))?;
        self.read(resource, depth, BTreeSet::from([path]))
    }

    /// Depth 0 is the searched record itself; the same type further along is another record.
    fn read(
        &mut self,
        resource: ResourceType,
        depth: usize,
        paths: BTreeSet<ElementPath>,
    ) -> Result<(), FhirRefusal> {
        if depth == 0 {
            self.own.extend(paths);
            return Ok(());
        }
        self.later.entry(resource).or_default().extend(paths);
        if self.later.len() > HOPS_MAX { Err(FhirRefusal::ChainTooLong) } else { Ok(()) }
    }
}

fn holds_identifier(path: &ElementPath) -> bool {
    path.element().is_some_and(|element| {
        element.types.iter().any(|structure| r4::type_name(*structure) == "Identifier")
    })
}
