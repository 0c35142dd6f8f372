//! `_include` and `_revinclude`, with `:iterate`.
//!
//! Owns: which references add which types, and from which types an iterated one may start (T-031, T-032).
//! Must never: take a wildcard, which reads every reference there is, or `:recurse`, which is no R4.
//! Look next: `search/question.rs`, where [`Include`] is.

use std::collections::BTreeSet;

use super::name::{Names, target_types};
use super::question::Include;
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::r4::{ElementPath, ResourceType, SearchParameter, SearchType};

/// One include as it was asked for. What it adds may depend on the others.
pub(super) struct Wish {
    reverse: bool,
    iterate: bool,
    source: ResourceType,
    parameter: &'static SearchParameter,
    reads: Vec<ElementPath>,
    narrowed: Option<ResourceType>,
}

impl Wish {
    /// Whether a parameter of this name is an include, well formed or not.
    pub(super) fn is_name(name: &str) -> bool {
        let kind = name.split_once(':').map_or(name, |(kind, _)| kind);
        matches!(kind, "_include" | "_revinclude")
    }

    /// Reads `Source:code[:Target]`.
    pub(super) fn read(names: &Names<'_>, name: &str, value: &str) -> Result<Self, FhirRefusal> {
        let (reverse, iterate) = match name {
            "_include" => (false, false),
            "_revinclude" => (true, false),
            "_include:iterate" => (false, true),
            "_revinclude:iterate" => (true, true),
            _ => return Err(FhirRefusal::IncludeNotSupported),
        };
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
        let parameter = names.parameter(source, code)?;
        let fits = narrowed.is_none_or(|target| target_types(parameter).contains(&target));
        if parameter.kind != SearchType::Reference || !fits {
            return Err(FhirRefusal::MalformedParameter);
        }
        let reads = names.reads(source, parameter)?.into_iter().collect();
        Ok(Self { reverse, iterate, source, parameter, reads, narrowed })
    }

    /// Types the reference may point at, as far as it was narrowed.
    fn possible(&self) -> Vec<ResourceType> {
        self.narrowed.map_or_else(|| target_types(self.parameter), |target| vec![target])
    }

    /// The reference's targets when the answer holds records of `present` types. `None`: it adds nothing.
    fn targets(&self, present: &BTreeSet<ResourceType>) -> Option<Vec<ResourceType>> {
        let mut targets = self.possible();
        if !self.reverse {
            return present.contains(&self.source).then_some(targets);
        }
        targets.retain(|target| present.contains(target));
        (!targets.is_empty()).then_some(targets)
    }

    fn resolve(&self, present: &BTreeSet<ResourceType>) -> Option<Include> {
        let targets = self.targets(present)?;
        // Without `:iterate` a reverse include can only point at the searched type: naming it says nothing.
        let narrowed = self.narrowed.filter(|_| !self.reverse || self.iterate);
        let (reverse, iterate, source, code) = (self.reverse, self.iterate, self.source, self.parameter.code);
        Some(Include { reverse, iterate, source, code, narrowed, reads: self.reads.clone(), targets })
    }
}

/// Every wish as an include. One that starts from a type which cannot be in the answer is refused.
pub(super) fn resolve(searched: ResourceType, wishes: &[Wish]) -> Result<Vec<Include>, FhirRefusal> {
    let matches = BTreeSet::from([searched]);
    let present = closure(&matches, wishes);
    wishes
        .iter()
        .map(|wish| wish.resolve(if wish.iterate { &present } else { &matches }))
        .collect::<Option<Vec<_>>>()
        .ok_or(FhirRefusal::MalformedParameter)
}

/// All types that may be in the answer. Ends: each round but the last adds at least one of 146 types.
fn closure(matches: &BTreeSet<ResourceType>, wishes: &[Wish]) -> BTreeSet<ResourceType> {
    let mut present = matches.clone();
    loop {
        let before = present.len();
        for wish in wishes {
            let from = if wish.iterate { &present } else { matches };
            match wish.targets(from) {
                None => {}
                Some(_) if wish.reverse => drop(present.insert(wish.source)),
                Some(targets) => present.extend(targets),
            }
        }
        if present.len() == before {
            return present;
        }
    }
}
