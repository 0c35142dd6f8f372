//! Paging links: a place in the EMR's rows, sealed so that it works for the same caller only and expires.
//!
//! Owns: what a sealed link holds and whom it is bound to.
//! Must never: show a client any part of the EMR's link (cursors may hold withheld values), or let a page skip
//! a question that the first page was asked: the question is judged again, from its own text.
//! Look next: `edge::seal`, the cipher; `narrow`, which decides whether an EMR's link may be followed.

use super::refusal::Refusal;
use super::rows::Leg;
use super::visit::Visit;
use crate::domain::fhir::classify;
use crate::domain::fhir::interaction::{Interaction, PageToken};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::identity::Caller;
use crate::domain::narrow::{self, Plan};
use crate::limits;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A place in the rows of a question.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Which of the question's searches.
    pub(super) leg: usize,
    /// The EMR's link to the page; none: its first page.
    pub(super) link: Option<String>,
    /// Rows of that page that were answered before.
    pub(super) skip: usize,
}

impl Cursor {
    pub(super) fn start(leg: usize) -> Self {
        Self { leg, link: None, skip: 0 }
    }

    /// Whether nothing was answered before.
    pub(super) fn is_start(&self) -> bool {
        self.leg == 0 && self.link.is_none() && self.skip == 0
    }
}

/// What a sealed link holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The question the first page was asked for, as its canonical address.
    question: String,
    cursor: Cursor,
    /// So that the link's length does not tell what the EMR put into its own.
    padding: String,
}

/// Seals a place in the rows of `question` for the caller; gives the public URL.
pub(super) fn seal_next(visit: &Visit<'_>, question: &Interaction, cursor: &Cursor) -> Option<String> {
    let public = &visit.gate.public;
    let mut sealed = Sealed { question: question.address(), cursor: cursor.clone(), padding: String::new() };
    let bare = serde_json::to_vec(&sealed).ok()?.len();
    let padded = bare.next_multiple_of(limits::PAGE_LINK_STEP_BYTES);
    sealed.padding = " ".repeat(padded - bare);
    let plaintext = serde_json::to_vec(&sealed).ok()?;
    let lifetime = SignedDuration::try_from(limits::PAGE_LINK_LIFETIME).ok()?;
    let expires = visit.now().checked_add(lifetime).ok()?;
    let token = visit.gate.seal.seal(&plaintext, &bound_to(&visit.caller), expires).ok()?;
    Some(public.page_url(question.resource_type(), &token))
}

/// Opens a sealed link for the caller, and reads the question in it as if it had just been asked.
pub(super) fn open(
    visit: &Visit<'_>,
    resource: Option<ResourceType>,
    token: &PageToken,
) -> Result<(Interaction, Cursor), Refusal> {
    let gate = visit.gate;
    let opened = gate.seal.open(token.as_str(), &bound_to(&visit.caller), visit.now());
    let sealed: Sealed =
        opened.ok().and_then(|plain| serde_json::from_slice(&plain).ok()).ok_or(Refusal::PageLink)?;
    let question = classify::continued(&sealed.question, &gate.public, &gate.parameters)
        .map_err(|_| Refusal::PageLink)?;
    if question.resource_type() != resource {
        return Err(Refusal::PageLink);
    }
    Ok((question, sealed.cursor))
}

/// The upstream request for a page. The EMR may name itself by its own base or by the public one.
pub(super) fn plan(link: &str, leg: &Leg, upstream: &str, public: &str) -> Result<Plan, Refusal> {
    narrow::plan_page(&leg.question, &leg.permit, link, upstream)
        .or_else(|_| narrow::plan_page(&leg.question, &leg.permit, link, public))
        .map_err(|_| Refusal::AnswerUnsound)
}

/// Issuer, subject and application, each with its length so that no two callers share a text.
pub(super) fn bound_to(caller: &Caller) -> Vec<u8> {
    let parts = [caller.issuer(), caller.subject(), caller.application().unwrap_or("")];
    parts.iter().flat_map(|part| format!("{}:{part}", part.len()).into_bytes()).collect()
}
