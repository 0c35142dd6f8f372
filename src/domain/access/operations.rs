//! The front door for history and for `$name`: what may be in such an answer, and what the question reads.
//!
//! Owns: which types an answer over many types may hold, and the elements that `_since`, `start` and `$lastn` itself
//! read. Must never: know an operation that the gate does not. Look next: `permit`, which judges what comes back.

use super::admit::{Door, covers};
use super::denial::Denial;
use super::engine::Verdict;
use super::permit::{Basis, Permit, Reads, Wanted};
use super::set::Action;
use crate::domain::fhir::interaction::{ExportLevel, History, HistoryScope, Operation, Search};
use crate::domain::fhir::r4::{self, ElementPath, ResourceType, SearchType};
use std::collections::BTreeSet;

/// The name that policies know the operation by; none for an export, which is an action of its own.
pub(super) fn name(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Everything { .. } => Some("$everything"),
        Operation::LastN { .. } => Some("$lastn"),
        Operation::Validate { .. } => Some("$validate"),
        Operation::Expand { .. } => Some("$expand"),
        Operation::Lookup { .. } => Some("$lookup"),
        Operation::Export { .. } => None,
    }
}

/// Parameters that read an element of every type.
#[derive(Clone, Copy)]
struct Period {
    /// A parameter that reads when a record was last updated.
    updated: Option<&'static str>,
    /// A parameter that reads when what a record tells of took place.
    took_place: Option<&'static str>,
}

impl Door {
    pub(super) fn history(&self, history: &History) -> Result<Permit, Denial> {
        let updated = history.since().map(|_| "_since").or(history.at().map(|_| "_at"));
        let period = Period { updated, took_place: None };
        let (action, letter) = (Action::History, 'r');
        match history.scope() {
            HistoryScope::Instance(resource, id) => {
                let view = self.open(action, letter, *resource)?;
                let mut reads = self.among(action, letter, &[*resource], period)?;
                let reads = reads.remove(resource).unwrap_or_default();
                let id = id.as_str().to_owned();
                let wanted = Wanted::One { resource: *resource, id, version: None, reads };
                self.permit(action, action, wanted, Some(&view))
            }
            HistoryScope::Type(resource) => {
                let view = self.open(action, letter, *resource)?;
                let reads = self.among(action, letter, &[*resource], period)?;
                self.permit(action, action, Wanted::Rows { resource: Some(*resource), reads }, Some(&view))
            }
            HistoryScope::System => {
                let reads = self.among(action, letter, &[], period)?;
                self.permit(action, action, Wanted::Rows { resource: None, reads }, None)
            }
        }
    }

    pub(super) fn operation(&self, operation: &Operation) -> Result<Permit, Denial> {
        match operation {
            Operation::Everything { patient, start, end, since, types, .. } => {
                let period = Period {
                    updated: since.as_ref().map(|_| "_since"),
                    took_place: start.as_ref().map(|_| "start").or(end.as_ref().map(|_| "end")),
                };
                self.everything(patient.as_str(), types, period)
            }
            Operation::LastN { search, .. } => self.last_n(search),
            Operation::Validate { resource } => {
                let view = self.open(Action::Operate, 'r', *resource)?;
                let wanted = Wanted::Nothing { resource: *resource };
                self.permit(Action::Operate, Action::Read, wanted, Some(&view))
            }
            Operation::Expand { .. } => self.terminology("ValueSet", "ValueSet", "ValueSet.expansion"),
            Operation::Lookup { .. } => self.terminology("CodeSystem", "Parameters", "Parameters.parameter"),
            Operation::Export { level, types, since, type_filters } => {
                let period = Period { updated: since.as_ref().map(|_| "_since"), took_place: None };
                self.export(level, types, period, type_filters)
            }
        }
    }

    /// The operation on the patient; then every row is read on its own.
    fn everything(&self, patient: &str, types: &[ResourceType], period: Period) -> Result<Permit, Denial> {
        let resource = known("Patient")?;
        let view = self.open(Action::Operate, 's', resource)?;
        self.open(Action::Read, 'r', resource)?;
        let reads = self.among(Action::Read, 's', types, period)?;
        let action = Some(Action::Operate);
        let basis = Basis { resource, id: patient.to_owned(), reads: BTreeSet::new(), action };
        let wanted = Wanted::Rows { resource: Some(resource), reads };
        let permit = self.permit(Action::Operate, Action::Read, wanted, Some(&view))?;
        Ok(Permit { basis: Some(basis), letter: 's', ..permit })
    }

    /// `$lastn` is a search which itself groups by code and picks by time, so that it reads both.
    fn last_n(&self, search: &Search) -> Result<Permit, Denial> {
        let resource = search.resource_type();
        let view = self.open(Action::Operate, 's', resource)?;
        self.open(Action::Search, 's', resource)?;
        let seen = self.open(Action::Read, 's', resource)?;
        let mut reads = self.rows(search, &seen)?;
        let own = [path("Observation.code")?, path("Observation.effective")?];
        if !covers(&seen.possible, &own) {
            return Err(Denial::CriterionWithheld { parameter: "$lastn".to_owned() });
        }
        reads.entry(resource).or_default().extend(own);
        let wanted = Wanted::Rows { resource: Some(resource), reads };
        let permit = self.permit(Action::Operate, Action::Read, wanted, Some(&view))?;
        Ok(Permit { letter: 's', ..permit })
    }

    /// Terminology is no record of a patient, and what comes back is made for this answer: it need have no id. The EMR
    /// makes it from ValueSets and CodeSystems that it does not name, so every one of them must be open whole:
    /// otherwise the answer would tell of what is withheld (P4).
    fn terminology(&self, asked: &str, given: &str, holds: &str) -> Result<Permit, Denial> {
        let view = self.open(Action::Operate, 'r', known(asked)?)?;
        for source in ["ValueSet", "CodeSystem"] {
            self.open_whole(known(source)?)?;
        }
        let (resource, holds) = (known(given)?, path(holds)?);
        let seen = self.desk.view(Action::Read, resource)?;
        if !seen.is_open() || !seen.possible.covers(&holds) {
            return Err(Denial::TypeNotPermitted { resource });
        }
        let reads = Reads::from([(resource, BTreeSet::from([holds]))]);
        let wanted = Wanted::Output { resource, reads, readable: true, target: None };
        self.permit(Action::Operate, Action::Read, wanted, Some(&view))
    }

    /// Every record of the type may be read, and every element of it.
    fn open_whole(&self, resource: ResourceType) -> Result<(), Denial> {
        let view = self.open(Action::Read, 'r', resource)?;
        let whole = view.verdict == Verdict::Yes && view.definite.is_total();
        if whole { Ok(()) } else { Err(Denial::TypeNotPermitted { resource }) }
    }

    /// Every type asked for must be open for export; none asked for is all that are. A Binary leaves only by way of the
    /// record that owns it (T-100), so never in bulk.
    fn export(
        &self,
        level: &ExportLevel,
        types: &[ResourceType],
        period: Period,
        filters: &[Search],
    ) -> Result<Permit, Denial> {
        let (action, letter) = (Action::Export, 's');
        let binary = known("Binary")?;
        let mut named = types.iter().copied().chain(filters.iter().map(Search::resource_type));
        if named.any(|resource| resource == binary) {
            return Err(Denial::TypeNotPermitted { resource: binary });
        }
        let mut reads = self.among(action, letter, types, period)?;
        if reads.remove(&binary).is_some() && reads.is_empty() {
            return Err(Denial::TypeNotPermitted { resource: binary });
        }
        for filter in filters {
            let view = self.open(action, letter, filter.resource_type())?;
            for (resource, more) in self.rows(filter, &view)? {
                reads.entry(resource).or_default().extend(more);
            }
        }
        let (resource, basis) = match level {
            ExportLevel::System => (None, None),
            ExportLevel::Patient => (Some(known("Patient")?), None),
            ExportLevel::Group(id) => {
                let resource = known("Group")?;
                let member = path("Group.member.entity.reference")?;
                let seen = self.open(Action::Read, 'r', resource)?;
                if !seen.possible.covers(&member) {
                    return Err(Denial::CriterionWithheld { parameter: "Group".to_owned() });
                }
                let reads = BTreeSet::from([member]);
                let basis = Basis { resource, id: id.as_str().to_owned(), reads, action: None };
                (Some(resource), Some(basis))
            }
        };
        let permit = self.permit(action, action, Wanted::Rows { resource, reads }, None)?;
        Ok(Permit { basis, letter: 's', ..permit })
    }

    /// The types an answer may hold, with what is read of each: those named, each of which must be open, or all
    /// that are open. There must be one.
    fn among(
        &self,
        action: Action,
        letter: char,
        named: &[ResourceType],
        period: Period,
    ) -> Result<Reads, Denial> {
        let mut reads = Reads::new();
        for resource in named {
            let view = self.open(action, letter, *resource)?;
            let (read, parameter) = period.reads(*resource);
            if !read.iter().all(|path| view.possible.covers(path)) {
                return Err(Denial::CriterionWithheld { parameter: parameter.to_owned() });
            }
            reads.insert(*resource, read);
        }
        if !named.is_empty() {
            return Ok(reads);
        }
        let mut refusal = Denial::NothingToDecide;
        for resource in ResourceType::all() {
            match self.open(action, letter, resource) {
                Ok(_) => drop(reads.insert(resource, period.reads(resource).0)),
                Err(fault @ Denial::PolicyFault { .. }) => return Err(fault),
                Err(denial) => refusal = denial,
            }
        }
        if reads.is_empty() { Err(refusal) } else { Ok(reads) }
    }
}

impl Period {
    /// What is read of a record of this type, and the name of a parameter that reads it. Which date of a record
    /// `$everything` goes by is the EMR's choice (R4 operation-patient-everything.html), so it may be any.
    fn reads(self, resource: ResourceType) -> (BTreeSet<ElementPath>, &'static str) {
        let mut reads: BTreeSet<ElementPath> = BTreeSet::new();
        if self.updated.is_some() {
            reads.extend(ElementPath::parse(&format!("{}.meta.lastUpdated", resource.name())));
        }
        if self.took_place.is_some() {
            let dates = r4::search_parameters(resource)
                .filter(|parameter| parameter.kind == SearchType::Date && parameter.code != "_lastUpdated");
            let paths =
                dates.flat_map(|parameter| parameter.reads).filter_map(|path| ElementPath::parse(path).ok());
            reads.extend(paths);
        }
        (reads, self.updated.or(self.took_place).unwrap_or("_type"))
    }
}

fn known(name: &str) -> Result<ResourceType, Denial> {
    ResourceType::from_name(name).ok_or(Denial::NothingToDecide)
}

fn path(text: &str) -> Result<ElementPath, Denial> {
    ElementPath::parse(text).map_err(|_| Denial::NothingToDecide)
}
