//! How callers stand to the patients of an answer: asked of the EMR with the gate's own credential, and kept a while.
//!
//! Owns: which patients and relations are looked up, for a whole page together, and how long what was found counts.
//! Must never: count what is stale, or what could not be asked; doubt is absence, and the request is decided without.
//! Look next: `domain::access::relation`, what a record proves; `domain::narrow::relation`, what is asked; `consents`,
//! what patients laid down.

use super::Gate;
use super::refusal::Refusal;
use super::visit::{Visit, request_of};
use crate::domain::access::{Directives, Evidence, Party, Permit, Relation, Relations, Windows};
use crate::domain::fhir::facts::Facts;
use crate::domain::filter::{self, Bases};
use crate::domain::narrow::{self, Look, Plan};
use crate::limits;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use moka::sync::Cache;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::time::timeout;

/// `[relations]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Relations that are looked up.
    pub lookups: BTreeSet<Relation>,
    /// How long a relation that was found counts.
    pub max_age: SignedDuration,
    /// How long one that was not found counts as absent.
    pub absent_max_age: SignedDuration,
    /// How near encounters and appointments must be.
    pub windows: Windows,
}

/// What was found lately.
pub struct Standing {
    settings: Settings,
    found: Cache<(String, String), BTreeMap<Relation, Seen>>,
    parties: Cache<String, (Party, Timestamp)>,
    pub(super) consents: Cache<String, (Arc<Directives>, Timestamp)>,
}

#[derive(Clone, Copy)]
struct Seen {
    holds: bool,
    at: Timestamp,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Standing {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let lives = std::time::Duration::try_from(settings.max_age).unwrap_or_default();
        Self {
            settings,
            found: Cache::builder().max_capacity(limits::RELATIONS_CACHE_MAX).time_to_live(lives).build(),
            parties: Cache::builder().max_capacity(limits::RELATION_PARTIES_MAX).time_to_live(lives).build(),
            consents: Cache::builder().max_capacity(limits::CONSENTS_CACHE_MAX).time_to_live(lives).build(),
        }
    }

    /// Whether what was seen at that time counts still.
    pub(super) fn counts(&self, found: bool, at: Timestamp, now: Timestamp) -> bool {
        let bound = if found { self.settings.max_age } else { self.settings.absent_max_age };
        // A clock that went back makes everything stale.
        (SignedDuration::ZERO..=bound).contains(&now.duration_since(at))
    }
}

impl Visit<'_> {
    /// How the caller stands to everybody that these records' decisions can depend on; nothing where no policy asks.
    pub(super) async fn relations<'f>(
        &self,
        permit: &Permit,
        facts: impl IntoIterator<Item = &'f Facts>,
    ) -> Option<Relations> {
        let inquiry = self.inquiry(permit)?;
        let mut patients = permit.concerns(facts);
        while patients.len() > limits::RELATION_PATIENTS_OF_PAGE_MAX {
            patients.pop_last();
        }
        Some(Box::pin(inquiry.about(self.gate, &patients, self.now())).await)
    }

    /// What is asked about whomever the caller's decisions under this permit concern; nothing where no policy asks.
    pub(super) fn inquiry(&self, permit: &Permit) -> Option<Inquiry> {
        let lookups = &self.gate.relations.settings.lookups;
        let mut asked = permit.looks_up();
        asked.retain(|relation| relation.lookup().is_some_and(|lookup| lookups.contains(&lookup)));
        let every = asked.len();
        asked.retain(|relation| relation.lookup() != Some(Relation::Consent));
        let consents = asked.len() < every;
        if every == 0 {
            return None;
        }
        let party = self.caller.fhir_user().and_then(Party::new);
        if party.is_none() {
            asked.clear();
        }
        let user = party.as_ref().map_or("", Party::user);
        let who = format!("{}|{}|{user}", self.caller.issuer(), self.caller.subject());
        (consents || !asked.is_empty()).then_some(Inquiry { who, party, asked, consents })
    }
}

/// Who asks, and after which relations: all that a lookup needs besides the patients, also when the visit is over.
pub(super) struct Inquiry {
    who: String,
    party: Option<Party>,
    /// Relations of the caller's own.
    asked: BTreeSet<Relation>,
    /// Whether it is asked what the patients laid down.
    consents: bool,
}

impl Inquiry {
    /// How the caller stands to these patients now.
    pub(super) async fn about(&self, gate: &Gate, patients: &BTreeSet<String>, now: Timestamp) -> Relations {
        let ask = Ask { gate, who: self.who.clone(), now };
        let own = async {
            match self.party.clone() {
                Some(party) => ask.all(party, &self.asked, patients).await,
                None => Relations::none(),
            }
        };
        let laid_down = async {
            match self.consents {
                true => ask.consents(self.party.clone(), patients).await,
                false => None,
            }
        };
        let (mut known, laid_down) = tokio::join!(own, laid_down);
        if let Some((of, party)) = laid_down {
            known.directed(of, party, now);
        }
        known
    }
}

/// One page of a search.
struct Page<T> {
    records: Vec<T>,
    next: Option<String>,
}

/// What a search found; not all of it, if there was more than is read.
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    pub(super) is_all: bool,
}

/// One caller's question.
pub(super) struct Ask<'g> {
    pub(super) gate: &'g Gate,
    who: String,
    pub(super) now: Timestamp,
}

impl Ask<'_> {
    async fn all(&self, party: Party, asked: &BTreeSet<Relation>, patients: &BTreeSet<String>) -> Relations {
        let standing = &self.gate.relations;
        let mut known = Relations::none();
        let mut wanted: BTreeMap<Relation, BTreeSet<String>> = BTreeMap::new();
        for patient in patients {
            let seen = standing.found.get(&(self.who.clone(), patient.clone())).unwrap_or_default();
            for relation in asked {
                match seen.get(relation).filter(|seen| standing.counts(seen.holds, seen.at, self.now)) {
                    Some(seen) if seen.holds => known.note(patient, *relation),
                    Some(_) => {}
                    None => drop(wanted.entry(*relation).or_default().insert(patient.clone())),
                }
            }
        }
        if wanted.is_empty() {
            return known;
        }
        match timeout(limits::RELATION_LOOKUP_TIMEOUT, self.look_up(party, &wanted)).await {
            Ok(found) => found.iter().for_each(|(patient, relation)| known.note(patient, *relation)),
            Err(_) => self.failed("timed-out"),
        }
        known
    }

    /// Asks the EMR, all at once, and keeps what it says.
    async fn look_up(
        &self,
        party: Party,
        wanted: &BTreeMap<Relation, BTreeSet<String>>,
    ) -> BTreeSet<(String, Relation)> {
        let windows = self.gate.relations.settings.windows;
        let Some(party) = self.party(party).await else { return BTreeSet::new() };
        let looks = narrow::plan_relations(&party, wanted, self.now, windows);
        let answers = together(looks.iter().map(|look| self.look(look, &party))).await;
        let (mut proven, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
        for (look, answer) in looks.iter().zip(answers) {
            let pairs = || look.patients.iter().map(|patient| (patient.clone(), look.relation));
            match answer {
                Some(found) => {
                    proven.extend(found.into_iter().filter(|pair| {
                        wanted.get(&pair.1).is_some_and(|patients| patients.contains(&pair.0))
                    }))
                }
                None => doubtful.extend(pairs()),
            }
        }
        self.keep(wanted, &proven, &doubtful);
        proven
    }

    fn keep(
        &self,
        wanted: &BTreeMap<Relation, BTreeSet<String>>,
        proven: &BTreeSet<(String, Relation)>,
        doubtful: &BTreeSet<(String, Relation)>,
    ) {
        let mut fresh: BTreeMap<&String, BTreeMap<Relation, Seen>> = BTreeMap::new();
        for (relation, patients) in wanted {
            for patient in patients {
                let pair = (patient.clone(), *relation);
                let holds = proven.contains(&pair);
                if holds || !doubtful.contains(&pair) {
                    fresh.entry(patient).or_default().insert(*relation, Seen { holds, at: self.now });
                }
            }
        }
        for (patient, seen) in fresh {
            let key = (self.who.clone(), patient.clone());
            let mut all = self.gate.relations.found.get(&key).unwrap_or_default();
            all.extend(seen);
            self.gate.relations.found.insert(key, all);
        }
    }

    /// The caller with the roles in which they act; nothing when the EMR cannot tell.
    pub(super) async fn party(&self, mut party: Party) -> Option<Party> {
        let standing = &self.gate.relations;
        let Some(plan) = narrow::plan_roles(&party) else { return Some(party) };
        if let Some((known, at)) = standing.parties.get(&self.who)
            && standing.counts(true, at, self.now)
        {
            return Some(known);
        }
        for role in self.ask(&plan, Evidence::read).await?.records {
            party.take_on(&role, &self.gate.upstream_base, self.now);
        }
        standing.parties.insert(self.who.clone(), (party.clone(), self.now));
        Some(party)
    }

    async fn look(&self, look: &Look, party: &Party) -> Option<Vec<(String, Relation)>> {
        let windows = self.gate.relations.settings.windows;
        let proves = |record: &Evidence| record.proves(party, &self.gate.upstream_base, self.now, windows);
        Some(self.ask(&look.plan, Evidence::read).await?.records.iter().flat_map(proves).collect())
    }

    /// What a search finds, each record by `read`; nothing when there is no sound answer.
    pub(super) async fn ask<T>(
        &self,
        plan: &Plan,
        read: impl Fn(&[u8]) -> Option<T> + Copy,
    ) -> Option<Found<T>> {
        let mut found = self.heard(plan, read).await?;
        for _ in 1..limits::RELATION_PAGES_MAX {
            let Some(link) = found.next.take() else { break };
            let Ok(following) = narrow::plan_next_look(plan, &link, &self.gate.upstream_base) else {
                self.failed(Refusal::AnswerUnsound.code());
                return None;
            };
            let page = self.heard(&following, read).await?;
            found.records.extend(page.records);
            found.next = page.next;
        }
        if found.next.is_some() {
            self.gate.telemetry.relation_lookup("cut-off");
            tracing::warn!("a search for how a caller stands to patients has more pages than are read");
        }
        Some(Found { is_all: found.next.is_none(), records: found.records })
    }

    async fn heard<T>(&self, plan: &Plan, read: impl Fn(&[u8]) -> Option<T>) -> Option<Page<T>> {
        match self.answer(plan, read).await {
            Ok(page) => {
                self.gate.telemetry.relation_lookup("answered");
                Some(page)
            }
            Err(refusal) => {
                self.failed(refusal.code());
                None
            }
        }
    }

    async fn answer<T>(&self, plan: &Plan, read: impl Fn(&[u8]) -> Option<T>) -> Result<Page<T>, Refusal> {
        let answer = self.gate.upstream.send(request_of(plan)).await.map_err(Refusal::Upstream)?;
        if answer.status != StatusCode::OK {
            return Err(Refusal::QueryRefusedUpstream);
        }
        let body = answer.body.read(limits::RELATION_ANSWER_BYTES_MAX).await.map_err(Refusal::Upstream)?;
        let upstream = [self.gate.upstream_base.as_str()];
        let bases = Bases { upstream: &upstream, public: self.gate.public.as_str() };
        let document = filter::parse(&body, &bases).map_err(|_| Refusal::AnswerUnsound)?;
        let envelope = document.bundle().filter(|envelope| envelope.kind == "searchset");
        let envelope = envelope.ok_or(Refusal::AnswerUnsound)?;
        let next = envelope.links.iter().find(|(relation, _)| relation == "next");
        let next = next.map(|(_, link)| link.clone());
        // An entry without a record is one that cannot be read.
        let raw = envelope.entries.iter().map(|entry| entry.record.map_or(&[][..], |at| document.raw(at)));
        Ok(Page { records: raw.filter_map(read).collect(), next })
    }

    pub(super) fn failed(&self, code: &'static str) {
        self.gate.telemetry.relation_lookup("failed");
        tracing::warn!(code, "how a caller stands to patients could not be asked: decided without");
    }
}

/// Runs all at once, and gives what they give in their order.
pub(super) async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut under_way: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = under_way.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in under_way.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none())
        {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
