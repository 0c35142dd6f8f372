//! What patients laid down about their records: active R4 Consents, weighed for one record and one request.
//!
//! Owns: how provisions combine, and how several Consents do. Every doubt counts against whoever asks: what may deny
//! denies, what may not permit does not. Must never: ask anybody, or take a Consent that it does not understand for less
//! than an objection.
//! Look next: `read`, from a record to a directive; `criteria`, whether a provision applies; `situation`, which weighs
//! the patients of a record together.
//!
//! Sources: R4 consent.html 6.2 (base rule, nested exceptions), IHE ITI PCF (deny before permit, expired is ignored).

mod criteria;
mod purpose;
mod read;
#[cfg(test)]
mod tests;

pub use read::Reading;

use super::relation::Party;
use super::set::Action;
use crate::domain::fhir::facts::Facts;
use crate::limits;
use criteria::Applies;
use jiff::Timestamp;
use read::{Effect, Provision};
use std::fmt;

/// The active Consents of one patient.
#[derive(Default)]
pub struct Directives(Vec<Directive>);

/// One active Consent, as far as the rules look at it.
pub struct Directive(Meaning);

enum Meaning {
    /// It cannot be understood, so that it may deny anything.
    Unclear,
    Clear(Box<Consent>),
}

struct Consent {
    reach: Reach,
    /// `policyRule`, where it says in or out.
    rule: Option<Effect>,
    provision: Option<Provision>,
}

/// What a Consent of this scope may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Whole,
    /// Only where the purpose is research.
    Research,
    /// Of an unknown scope: it may deny.
    Denials,
    /// Not about privacy.
    Nothing,
}

/// What one record and one request bring to the question.
pub(super) struct Asked<'a> {
    pub action: Action,
    pub purpose: &'a str,
    /// `Type/id` of the record, or of what it is contained in.
    pub reference: Option<&'a str>,
    pub facts: &'a Facts,
    /// The caller's `fhirUser`.
    pub user: Option<&'a str>,
    /// The caller with the roles in which they act, if these are known.
    pub party: Option<&'a Party>,
    pub now: Timestamp,
}

/// What a patient's Consents come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// One of them denies, or may.
    pub objects: bool,
    /// One of them certainly permits.
    pub permits: bool,
}

/// What may come of a question: a set of silence, permit and deny, since criteria may be undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcomes(u8);

impl Outcomes {
    const SILENT: Self = Self(1);
    const PERMIT: Self = Self(2);
    const DENY: Self = Self(4);

    fn of(effect: Option<Effect>) -> Self {
        match effect {
            None => Self::SILENT,
            Some(Effect::Permit) => Self::PERMIT,
            Some(Effect::Deny) => Self::DENY,
        }
    }

    fn may(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Either of these.
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Side by side: deny wins, then permit; each of what one may be with each of what the other may be.
    fn beside(self, other: Self) -> Self {
        let each = [Self::SILENT, Self::PERMIT, Self::DENY];
        let pairs = each.into_iter().filter(|one| self.may(*one)).flat_map(|one| {
            each.into_iter().filter(|two| other.may(*two)).map(move |two| Self(one.0.max(two.0)))
        });
        pairs.fold(Self(0), Self::or)
    }

    /// Where these say nothing, what is around them does.
    fn within(self, around: Self) -> Self {
        if self.may(Self::SILENT) { Self(self.0 & !Self::SILENT.0).or(around) } else { self }
    }

    /// These where it applies, `otherwise` where it does not.
    fn if_applies(self, applies: Applies, otherwise: Self) -> Self {
        match applies {
            Applies::Yes => self,
            Applies::Maybe => self.or(otherwise),
            Applies::No => otherwise,
        }
    }

    /// The same, where a permit counts for nothing.
    fn without_permits(self) -> Self {
        if self.may(Self::PERMIT) { Self(self.0 & !Self::PERMIT.0).or(Self::SILENT) } else { self }
    }
}

impl Directives {
    /// The Consents of one patient; nothing if they are more than can be weighed.
    #[must_use]
    pub fn new(all: Vec<Directive>) -> Option<Self> {
        (all.len() <= limits::CONSENTS_OF_PATIENT_MAX).then_some(Self(all))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one speaks of somebody, so that it matters in which roles the caller acts.
    #[must_use]
    pub fn names_actors(&self) -> bool {
        self.0.iter().any(|one| match &one.0 {
            Meaning::Unclear => false,
            Meaning::Clear(consent) => consent.provision.as_ref().is_some_and(Provision::names_actors),
        })
    }

    /// What they come to, for this.
    pub(super) fn weigh(&self, asked: &Asked<'_>) -> Weight {
        let nothing = Weight { objects: false, permits: false };
        self.0.iter().map(|one| one.says(asked)).fold(nothing, |so_far, says| Weight {
            objects: so_far.objects || says.may(Outcomes::DENY),
            permits: so_far.permits || says == Outcomes::PERMIT,
        })
    }
}

impl Directive {
    fn says(&self, asked: &Asked<'_>) -> Outcomes {
        match &self.0 {
            Meaning::Unclear => Outcomes::DENY,
            Meaning::Clear(consent) => consent.says(asked),
        }
    }
}

impl Consent {
    fn says(&self, asked: &Asked<'_>) -> Outcomes {
        let said = || self.said(asked);
        match self.reach {
            Reach::Nothing => Outcomes::SILENT,
            Reach::Whole => said(),
            Reach::Denials => said().without_permits(),
            Reach::Research => match purpose::is_research(asked.purpose) {
                Applies::Yes => said(),
                Applies::Maybe => said().without_permits(),
                Applies::No => Outcomes::SILENT,
            },
        }
    }

    /// The root's period is the Consent's. A root with a type is an exception to `policyRule`, one without is its place.
    fn said(&self, asked: &Asked<'_>) -> Outcomes {
        let rule = Outcomes::of(self.rule);
        let Some(root) = &self.provision else { return rule };
        let (around, outside) = match root.effect {
            // What `policyRule` permits beside the root is not relied on.
            Some(_) => (Outcomes::of(root.effect), rule.without_permits()),
            None => (rule, Outcomes::SILENT),
        };
        let inside = root.exceptions(asked).within(around);
        inside.if_applies(root.applies(asked), outside).if_applies(root.is_in_force(asked), Outcomes::SILENT)
    }
}

impl Provision {
    /// What its exceptions say: deeper ones overrule what is around them, among equals a denial wins.
    fn exceptions(&self, asked: &Asked<'_>) -> Outcomes {
        let each = self.provision.iter().flatten().map(|one| {
            let inside = one.exceptions(asked).within(Outcomes::of(one.effect));
            inside.if_applies(one.applies(asked).min(one.is_in_force(asked)), Outcomes::SILENT)
        });
        each.fold(Outcomes::SILENT, Outcomes::beside)
    }
}

/// What patients laid down is theirs.
impl fmt::Debug for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directives({})", self.0.len())
    }
}

impl fmt::Debug for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directive").finish_non_exhaustive()
    }
}
