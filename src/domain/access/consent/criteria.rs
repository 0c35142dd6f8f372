//! Whether a provision applies to one record and one request: each of its criteria, in three values.
//!
//! Owns: what actor, action, period, label, purpose, class, code and data mean. What is no fact here, or not certain, is
//! undecided. Must never: decide what undecided comes to; the combination above does.
//! Look next: `mod.rs`, the combination; `read`, the shapes.
//!
//! Sources: R4 consent.html (elements of `provision`), v3-Confidentiality, v3-ParticipationType, consentaction.

use super::Asked;
use super::purpose;
use super::read::{Actor, Coding, Concept, DataMeaning, Datum, Period, Provision};
use crate::domain::access::relation::span;
use crate::domain::access::set::Action;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::ResourceType;
use crate::limits;
use jiff::{SignedDuration, Timestamp};

const ACTIONS: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const REASONS: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const TYPES: &str = "http://hl7.org/fhir/resource-types";

/// Confidentiality from the least to the most.
const LEVELS: [&str; 6] = ["U", "L", "M", "N", "R", "V"];
/// A record that bears no confidentiality is taken for a normal one.
const NORMAL: usize = 3;

/// Whether something applies. The least of several is their `and`, the greatest their `or`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Applies {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Applies {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

impl Provision {
    /// Whether all criteria but its own period hold.
    pub(super) fn applies(&self, asked: &Asked<'_>) -> Applies {
        // Of what time a record tells is no fact.
        let dated = self.data_period.as_ref().map_or(Applies::Yes, |_| Applies::Maybe);
        dated
            .min(any(self.actor.as_deref(), |one| actor(one, asked)))
            .min(any(self.action.as_deref(), |one| action(one, asked.action)))
            .min(any(self.security_label.as_deref(), |one| label(one, asked.facts)))
            .min(any(self.purpose.as_deref(), |one| wanted_for(one, asked.purpose)))
            .min(any(self.class.as_deref(), |one| class(one, asked.facts.resource_type)))
            .min(any(self.code.as_deref(), |one| code(one, asked.facts)))
            .min(any(self.data.as_deref(), |one| datum(one, asked.reference)))
    }

    /// Whether its period has now.
    pub(super) fn is_in_force(&self, asked: &Asked<'_>) -> Applies {
        self.period.as_ref().map_or(Applies::Yes, |period| covers(period, asked.now))
    }
}

/// A criterion with several values holds when one does; one that is not there holds always.
fn any<T>(values: Option<&[T]>, holds: impl Fn(&T) -> Applies) -> Applies {
    values.map_or(Applies::Yes, |values| values.iter().map(holds).max().unwrap_or(Applies::Maybe))
}

/// The caller is meant: by themselves, by a role in which they act, or by an organisation that they work for. In whose
/// hands a record is, or who wrote it, is no fact, so a part in it other than receiving is undecided.
fn actor(actor: &Actor, asked: &Asked<'_>) -> Applies {
    let receives = |one: &Coding| {
        one.system.as_deref() == Some(PARTICIPATION) && matches!(one.code.as_deref(), Some("IRCP" | "PRCP"))
    };
    let name = actor.reference.as_ref().and_then(|reference| reference.reference.as_deref());
    match name {
        Some(name) if actor.role.as_ref().is_none_or(|role| role.coding.iter().any(receives)) => {
            is_caller(name, asked)
        }
        _ => Applies::Maybe,
    }
}

fn is_caller(name: &str, asked: &Asked<'_>) -> Applies {
    let kind = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let Some(user) = asked.user else { return Applies::Maybe };
    let is_staff = matches!(kind(user).as_str(), "Practitioner" | "PractitionerRole");
    match kind(name).as_str() {
        _ if name == user => Applies::Yes,
        "Patient" | "RelatedPerson" => Applies::No,
        "Practitioner" | "PractitionerRole" | "Organization" if !is_staff => Applies::No,
        "Practitioner" if kind(user) == "Practitioner" => Applies::No,
        "PractitionerRole" => {
            asked.party.map_or(Applies::Maybe, |party| party.names().any(|own| own == name).into())
        }
        "Organization" => {
            let mut theirs = asked.party.into_iter().flat_map(|party| party.organizations()).peekable();
            // Nobody wrote down where they work.
            if theirs.peek().is_none() { Applies::Maybe } else { theirs.any(|own| own == name).into() }
        }
        _ => Applies::Maybe,
    }
}

fn action(concept: &Concept, asked: Action) -> Applies {
    let writes =
        matches!(asked, Action::Create | Action::Update | Action::Patch | Action::Delete | Action::Modify);
    of_concept(concept, |one| {
        let applies = match one.code.as_deref() {
            Some("access" | "use" | "disclose") => (!writes).into(),
            Some("collect" | "correct") => writes.into(),
            _ => Applies::Maybe,
        };
        of_system(one, ACTIONS, applies)
    })
}

/// A label that the record bears. Confidentiality has an order: what is above the one named is undecided, what is below is
/// not meant. (R4 calls it a high-water mark; a denial of what is restricted is not one of everything below.)
fn label(wanted: &Coding, facts: &Facts) -> Applies {
    let Some(code) = wanted.code.as_deref() else { return Applies::Maybe };
    let level = |code: &str| LEVELS.iter().position(|one| *one == code);
    let of_level = wanted.system.as_deref().is_none_or(|system| system == CONFIDENTIALITY);
    match level(code).filter(|_| of_level) {
        None => borne(wanted, code, facts.labels.iter()),
        Some(named) => {
            let highest = facts.labels.iter().filter_map(|label| level(label)).max();
            match highest {
                Some(highest) if highest == named => borne(wanted, code, facts.labels.iter()),
                Some(highest) if highest > named => Applies::Maybe,
                None if named <= NORMAL => Applies::Maybe,
                Some(_) | None => Applies::No,
            }
        }
    }
}

fn wanted_for(wanted: &Coding, asked: &str) -> Applies {
    let applies = wanted.code.as_deref().map_or(Applies::Maybe, |code| purpose::is_part_of(asked, code));
    of_system(wanted, REASONS, applies)
}

fn class(wanted: &Coding, resource: ResourceType) -> Applies {
    let named = wanted.code.as_deref().and_then(ResourceType::from_name);
    of_system(wanted, TYPES, named.map_or(Applies::Maybe, |named| (named == resource).into()))
}

/// A code that the record has in `code` or `category`. One that has no code may have it elsewhere; a Patient has none.
fn code(wanted: &Concept, facts: &Facts) -> Applies {
    let is_coded = !facts.code.is_empty() || facts.resource_type.name() == "Patient";
    of_concept(wanted, |one| match one.code.as_deref() {
        None => Applies::Maybe,
        Some(code) => {
            let borne = borne(one, code, facts.code.iter().chain(facts.category.iter()));
            if is_coded { borne } else { borne.max(Applies::Maybe) }
        }
    })
}

fn datum(wanted: &Datum, asked: Option<&str>) -> Applies {
    let Some(wanted_name) = wanted.reference.reference.as_deref() else { return Applies::Maybe };
    let is_it = asked == Some(wanted_name);
    match wanted.meaning {
        DataMeaning::Instance => is_it.into(),
        DataMeaning::Related | DataMeaning::Dependents if is_it => Applies::Yes,
        DataMeaning::Related | DataMeaning::Dependents | DataMeaning::AuthoredBy => Applies::Maybe,
    }
}

/// Whether a record bears a code: certainly under its system, perhaps under another.
fn borne<'f>(wanted: &Coding, code: &str, mut borne: impl Iterator<Item = &'f String> + Clone) -> Applies {
    let whole = wanted.system.as_deref().map(|system| format!("{system}|{code}"));
    if whole.is_some_and(|whole| borne.clone().any(|one| *one == whole)) {
        return Applies::Yes;
    }
    if borne.any(|one| one == code) { Applies::Maybe } else { Applies::No }
}

/// A concept that is only text, or has no codes, may mean anything.
fn of_concept(concept: &Concept, holds: impl Fn(&Coding) -> Applies) -> Applies {
    concept.coding.iter().map(holds).max().unwrap_or(Applies::Maybe)
}

/// What a code says in its own system; in another it may mean something else.
fn of_system(coding: &Coding, system: &str, applies: Applies) -> Applies {
    if coding.system.as_deref() == Some(system) { applies } else { Applies::Maybe }
}

/// Whether a period has now. A day without a time zone is that of UTC, and near its borders undecided.
fn covers(period: &Period, now: Timestamp) -> Applies {
    let border = |text: &Option<String>,
                  passed: fn((Timestamp, Timestamp), Timestamp, SignedDuration) -> bool| {
        let Some(text) = text.as_deref() else { return Applies::Yes };
        let Some(span) = span(text) else { return Applies::Maybe };
        let doubt = if text.contains('T') { SignedDuration::ZERO } else { limits::CONSENT_DAY_DOUBT };
        match (passed(span, now, SignedDuration::ZERO), passed(span, now, doubt)) {
            (true, _) => Applies::Yes,
            (false, true) => Applies::Maybe,
            (false, false) => Applies::No,
        }
    };
    let begun = border(&period.start, |(from, _), now, doubt| from.duration_since(now) <= doubt);
    let open = border(&period.end, |(_, until), now, doubt| now.duration_since(until) <= doubt);
    begun.min(open)
}
