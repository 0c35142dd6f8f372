//! Paging links: the EMR's own `next`, sealed so that it works for the same caller only and expires.
//!
//! Owns: what a sealed link holds and whom it is bound to.
//! Must never: show a client any part of the EMR's link (cursors may hold withheld values), or let a page skip
//! a question that the first page was asked: the search is judged again, from its own text.
//! Look next: `edge::seal`, the cipher; `narrow`, which decides whether an EMR's link may be followed.

use super::refusal::Refusal;
use crate::domain::access::Permit;
use crate::domain::fhir::classify;
use crate::domain::fhir::interaction::{Interaction, PageToken, Registry, Search};
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::identity::Caller;
use crate::domain::narrow::{self, Plan};
use crate::edge::seal::Seal;
use crate::limits;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What a sealed link holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The search the first page was asked for: its type, and its address.
    resource: String,
    question: String,
    /// The EMR's link for this page, below its base.
    link: String,
}

/// A page that may be asked for: the search it belongs to, and the EMR's link.
pub(super) struct Page {
    pub(super) search: Interaction,
    pub(super) link: String,
}

/// Seals the EMR's link to the next page of `search` for `caller`; gives the public URL.
pub(super) fn seal_next(
    seal: &Seal,
    base: &PublicBase,
    caller: &Caller,
    search: &Search,
    link: &str,
    now: Timestamp,
) -> Option<String> {
    let resource = search.resource_type().name();
    let question = Interaction::Search(search.clone()).address();
    let sealed = Sealed { resource: resource.to_owned(), question, link: link.to_owned() };
    let plaintext = serde_json::to_vec(&sealed).ok()?;
    let lifetime = SignedDuration::try_from(limits::PAGE_LINK_LIFETIME).ok()?;
    let expires = now.checked_add(lifetime).ok()?;
    let token = seal.seal(&plaintext, &bound_to(caller), expires).ok()?;
    Some(base.page_url(Some(search.resource_type()), &token))
}

/// Opens a sealed link for `caller`, and reads the search in it as if it had just been asked.
pub(super) fn open(
    seal: &Seal,
    base: &PublicBase,
    caller: &Caller,
    resource: ResourceType,
    token: &PageToken,
    now: Timestamp,
) -> Result<Page, Refusal> {
    let plaintext = seal.open(token.as_str(), &bound_to(caller), now).map_err(|_| Refusal::PageLink)?;
    let sealed: Sealed = serde_json::from_slice(&plaintext).map_err(|_| Refusal::PageLink)?;
    if sealed.resource != resource.name() {
        return Err(Refusal::PageLink);
    }
    let search = classify::continued(&sealed.question, base, &Registry::empty());
    let search = search.map_err(|_| Refusal::PageLink)?;
    if search.resource_type() != Some(resource) {
        return Err(Refusal::PageLink);
    }
    Ok(Page { search, link: sealed.link })
}

/// The upstream request for a page. The EMR may name itself by its own base or by the public one.
pub(super) fn plan(page: &Page, permit: &Permit, upstream: &str, public: &str) -> Result<Plan, Refusal> {
    narrow::plan_page(permit, &page.link, upstream)
        .or_else(|_| narrow::plan_page(permit, &page.link, public))
        .map_err(|_| Refusal::AnswerUnsound)
}

/// Issuer, subject and application, each with its length so that no two callers share a text.
fn bound_to(caller: &Caller) -> Vec<u8> {
    let parts = [caller.issuer(), caller.subject(), caller.application().unwrap_or("")];
    parts.iter().flat_map(|part| format!("{}:{part}", part.len()).into_bytes()).collect()
}
