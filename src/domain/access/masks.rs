//! Decisions, made once for each different situation and kept.
//!
//! Owns: turning answers into element masks, and the bounded cache of them. Must never: give an answer from
//! the cache that asking again would not give. Look next: `key`, which makes that so; `permit`, the user.

use super::denial::RecordDenial;
use super::engine::{Answer, Engine, Fault, Record, Verdict};
use super::key::{Key, KeyParts, Situated};
use super::set::{Action, PolicySet};
use super::situation::Situation;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::limits;
use moka::sync::Cache;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What may leave of one record, and by which policies. (Within this room also what may enter.)
#[derive(Clone, Debug)]
#[must_use]
pub struct Disclosure {
    mask: Arc<Mask>,
    policies: Arc<[String]>,
    basis: Arc<[String]>,
    grant: Option<Arc<str>>,
    reserve: Option<Arc<str>>,
}

impl Disclosure {
    /// The elements that may leave.
    pub fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// Ids of the policies that permit it, sorted.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// What it rests on beside roles and purpose: the relations in which the caller stands to the patient and the
    /// emergency, as far as the policies that decided asked about them. Sorted names.
    #[must_use]
    pub fn basis(&self) -> &[String] {
        &self.basis
    }

    /// The grant of emergency access without which less would be let out.
    #[must_use]
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }

    /// The grant of emergency access under which a policy lets this much out even while the journal takes no records,
    /// so that the journal's reserve has it.
    #[must_use]
    pub fn reserve(&self) -> Option<&str> {
        self.reserve.as_deref()
    }

    /// The same, let out under this grant.
    pub(super) fn under(mut self, grant: &str) -> Self {
        self.grant = Some(grant.into());
        self
    }

    /// The same, which the journal's reserve may have under this grant.
    pub(super) fn reserved(mut self, grant: &str) -> Self {
        self.reserve = Some(grant.into());
        self
    }
}

/// What may be written of one record, and by which policies.
#[derive(Clone, Debug)]
#[must_use]
pub struct Change {
    pub(super) modify: Arc<Mask>,
    pub(super) policies: Vec<String>,
    pub(super) basis: Vec<String>,
    pub(super) grant: Option<String>,
}

impl Change {
    /// The elements that may be written: those that the record as it is and the record as it will be both let
    /// in. Empty for a deletion, which writes none.
    pub fn modify(&self) -> &Arc<Mask> {
        &self.modify
    }

    /// Ids of the policies that permit it, sorted.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// What it rests on, as [`Disclosure::basis`].
    #[must_use]
    pub fn basis(&self) -> &[String] {
        &self.basis
    }

    /// The grant of emergency access without which it would not be permitted like this.
    #[must_use]
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }
}

/// What can be said about a type, for one action, before any record of it is seen. The masks are of elements
/// outward (`disclose`) or inward (`modify`), as the action has it.
#[derive(Clone, Debug)]
pub(super) struct TypeView {
    /// Whether the action is permitted.
    pub verdict: Verdict,
    /// The action moves elements, so that without one it is not permitted.
    pub moves: bool,
    /// Every record gets this answer, with the mask `definite`.
    pub settled: bool,
    /// Elements that pass for some record.
    pub possible: Arc<Mask>,
    /// Elements that pass for every record.
    pub definite: Arc<Mask>,
    /// Policies that certainly permit.
    pub policies: Arc<[String]>,
}

impl TypeView {
    /// For some record of the type the action is permitted, and one element at least if it moves any.
    pub(super) fn is_open(&self) -> bool {
        self.verdict != Verdict::No && (!self.moves || !self.possible.is_empty())
    }
}

/// What can be said about the elements of a type, in one direction: the same for all actions that move them so.
#[derive(Debug)]
struct Elements {
    settled: bool,
    policies: BTreeSet<String>,
    possible: Arc<Mask>,
    definite: Arc<Mask>,
}

type Judgement = Result<Disclosure, RecordDenial>;

#[derive(Clone)]
enum Kept {
    Type(Result<Arc<TypeView>, Fault>),
    Elements(Result<Arc<Elements>, Fault>),
    Record(Judgement),
}

impl Kept {
    /// Roughly what it takes: nearly all of it is masks. One that others share counts for each of them, so that the bound holds.
    fn bytes(&self) -> usize {
        let masks = match self {
            Self::Type(Ok(view)) => view.possible.bytes() + view.definite.bytes(),
            Self::Elements(Ok(elements)) => elements.possible.bytes() + elements.definite.bytes(),
            Self::Record(Ok(disclosure)) => disclosure.mask.bytes(),
            Self::Type(Err(_)) | Self::Elements(Err(_)) | Self::Record(Err(_)) => 0,
        };
        ENTRY_BYTES + masks
    }
}

/// The decisions made so far, for all policy sets (the set's hash is in every key). Cheap to clone; the clones
/// share what they hold. Bounded by `limits::DECISIONS_CACHE_BYTES_MAX`.
#[derive(Clone)]
pub struct Masks(Arc<Caches>);

struct Caches {
    decisions: Cache<Key, Kept>,
    /// Numbers that stand for policy sets and situations in keys; none is given twice.
    situated: Cache<Arc<[u8]>, u64>,
    next: AtomicU64,
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").field("decisions", &self.len()).finish()
    }
}

#[expect(clippy::new_without_default, reason = "a cache of decisions is made on purpose, in one place")]
impl Masks {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        let weight = |key: &Key, kept: &Kept| u32::try_from(key.len() + kept.bytes()).unwrap_or(u32::MAX);
        let decisions =
            Cache::builder().weigher(weight).max_capacity(limits::DECISIONS_CACHE_BYTES_MAX).build();
        let weight =
            |bytes: &Arc<[u8]>, _: &u64| u32::try_from(bytes.len() + NUMBER_BYTES).unwrap_or(u32::MAX);
        let situated =
            Cache::builder().weigher(weight).max_capacity(limits::SITUATIONS_CACHE_BYTES_MAX).build();
        Self(Arc::new(Caches { decisions, situated, next: AtomicU64::default() }))
    }

    /// How many decisions are kept, about.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.decisions.entry_count()
    }

    /// The number of a policy set and situation. One that was forgotten gets another: what is kept under the old one is
    /// not found any more, and never under a wrong one.
    fn number(&self, situated: &Situated) -> u64 {
        if let Some(number) = self.0.situated.get(situated.bytes()) {
            return number;
        }
        let new = || self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.situated.get_with(situated.bytes().into(), new)
    }

    /// Nothing is kept yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rough size of a kept decision beside its key and its masks.
const ENTRY_BYTES: usize = 512;

/// Rough size of a number and of the cache's own beside a situation.
const NUMBER_BYTES: usize = 128;

/// One request's way to decisions: policy set, situation, cache and the common part of the keys.
pub(super) struct Desk {
    pub set: Arc<PolicySet>,
    pub situation: Situation,
    masks: Masks,
    parts: KeyParts,
    /// The first views asked for: most requests are about one type or two, and ask for it again with each record.
    views: [OnceLock<Viewed>; VIEWS],
}

/// A view with what it is of.
type Viewed = (Action, ResourceType, Arc<TypeView>);

/// Views that a desk has at hand.
const VIEWS: usize = 4;

impl Desk {
    pub(super) fn new(set: Arc<PolicySet>, masks: Masks, situation: Situation) -> Self {
        let uses = set.uses(&situation.who.roles);
        let number = masks.number(&Situated::new(&set, &situation, &uses));
        let parts = KeyParts::new(number, uses);
        Self { set, situation, masks, parts, views: Default::default() }
    }

    /// The view of a type, at hand, kept or new.
    pub(super) fn view(&self, action: Action, resource: ResourceType) -> Result<Arc<TypeView>, Fault> {
        for place in &self.views {
            match place.get() {
                Some((of, about, view)) if (*of, *about) == (action, resource) => {
                    return Ok(Arc::clone(view));
                }
                Some(_) => {}
                None => {
                    let view = self.kept_view(action, resource)?;
                    // Another thread may have taken the place; then this view is looked up again.
                    let _taken = place.set((action, resource, Arc::clone(&view)));
                    return Ok(view);
                }
            }
        }
        self.kept_view(action, resource)
    }

    fn kept_view(&self, action: Action, resource: ResourceType) -> Result<Arc<TypeView>, Fault> {
        let key = self.parts.for_type((action, self.situation.operation), resource);
        if let Some(Kept::Type(view)) = self.masks.0.decisions.get(&key) {
            return view;
        }
        let view = self.new_view(action, resource).map(Arc::new);
        self.masks.0.decisions.insert(key, Kept::Type(view.clone()));
        view
    }

    fn new_view(&self, action: Action, resource: ResourceType) -> Result<TypeView, Fault> {
        let engine = Engine::new(&self.set, &self.situation)?;
        let Answer { verdict, settled, mut policies } = engine.type_action(action, resource)?;
        let elements = match (verdict, action.elements()) {
            // Nothing of the type is reachable, or no element is moved: what they would be does not matter.
            (Verdict::No, _) | (_, None) => Arc::new(Elements::none(resource)),
            (Verdict::Maybe | Verdict::Yes, Some(family)) => self.elements(&engine, family, resource)?,
        };
        policies.extend(elements.policies.iter().cloned());
        Ok(TypeView {
            verdict,
            moves: action.elements().is_some(),
            settled: settled && elements.settled,
            possible: Arc::clone(&elements.possible),
            definite: Arc::clone(&elements.definite),
            policies: policies.into_iter().collect(),
        })
    }

    /// The elements of a type outward (`disclose`) or inward (`modify`), kept or new.
    fn elements(
        &self,
        engine: &Engine<'_>,
        family: Action,
        resource: ResourceType,
    ) -> Result<Arc<Elements>, Fault> {
        let key = self.parts.for_type((family, None), resource);
        if let Some(Kept::Elements(elements)) = self.masks.0.decisions.get(&key) {
            return elements;
        }
        let elements = engine
            .type_elements(family, resource)
            .map(|(decided, answer)| Arc::new(Elements::new(resource, &decided, answer)));
        self.masks.0.decisions.insert(key, Kept::Elements(elements.clone()));
        elements
    }

    /// The decision about a record, kept or new.
    pub(super) fn judge(&self, action: Action, record: &Record<'_>) -> Judgement {
        let view = self.view(action, record.facts.resource_type)?;
        if !view.is_open() {
            return Err(RecordDenial::NotPermitted);
        }
        if view.settled {
            return decision(action, Arc::clone(&view.definite), Arc::clone(&view.policies), Arc::from([]));
        }
        let key = self.parts.for_record((action, self.situation.operation), record);
        if let Some(Kept::Record(judgement)) = self.masks.0.decisions.get(&key) {
            return judgement;
        }
        let judgement = judge(&self.set, &self.situation, action, record);
        self.masks.0.decisions.insert(key, Kept::Record(judgement.clone()));
        judgement
    }
}

impl Elements {
    fn new(resource: ResourceType, decided: &[(ElementPath, Verdict)], answer: Answer) -> Self {
        let mask = |least: Verdict| {
            Arc::new(Mask::new(resource, decided.iter().map(|(path, v)| (path.clone(), *v >= least))))
        };
        let (settled, policies) = (answer.settled, answer.policies);
        Self { settled, policies, possible: mask(Verdict::Maybe), definite: mask(Verdict::Yes) }
    }

    fn none(resource: ResourceType) -> Self {
        let answer = Answer { verdict: Verdict::No, settled: true, policies: BTreeSet::new() };
        Self::new(resource, &[], answer)
    }
}

/// The decision about a record from scratch: the action first, then each element.
pub(super) fn judge(
    set: &PolicySet,
    situation: &Situation,
    action: Action,
    record: &Record<'_>,
) -> Judgement {
    let engine = Engine::new(set, situation)?;
    let mut policies = engine.record(action, record)?.ok_or(RecordDenial::NotPermitted)?;
    let mut decided = Vec::new();
    if let Some(family) = action.elements() {
        let elements;
        (decided, elements) = engine.record_elements(family, record)?;
        policies.extend(elements);
    }
    let mask = Mask::new(record.facts.resource_type, decided);
    let actions = std::iter::once(action).chain(action.elements());
    let basis = set.basis(actions, &situation.who.roles, &policies, record);
    decision(action, Arc::new(mask), policies.into_iter().collect(), basis.into_iter().collect())
}

/// An action that moves elements is permitted only with one at least.
fn decision(action: Action, mask: Arc<Mask>, policies: Arc<[String]>, basis: Arc<[String]>) -> Judgement {
    match action.elements() {
        Some(Action::Modify) if mask.is_empty() => Err(RecordDenial::NothingModifiable),
        Some(_) if mask.is_empty() => Err(RecordDenial::NothingDisclosed),
        Some(_) | None => Ok(Disclosure { mask, policies, basis, grant: None, reserve: None }),
    }
}

impl From<Fault> for RecordDenial {
    fn from(Fault(policies): Fault) -> Self {
        RecordDenial::PolicyFault { policies }
    }
}

impl From<Fault> for super::denial::Denial {
    fn from(Fault(policies): Fault) -> Self {
        super::denial::Denial::PolicyFault { policies }
    }
}
