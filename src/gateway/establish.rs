//! Who is asking: from the request's head to a caller whose session is not over.
//!
//! Owns: the order in which token, keys, and session are asked.
//! Must never: judge a token (that is `domain::identity`), or let anyone through whose session is unknown.
//! Look next: `edge::keyring`, `edge::sessions`.

use super::Gate;
use super::draft::Draft;
use super::refusal::Refusal;
use crate::domain::identity::{self, Caller, IdentityRefusal, Unverified};
use http::{HeaderValue, header, request};
use std::sync::Arc;

/// The caller behind the bearer token, with a session that is not over.
pub(super) async fn establish(
    gate: &Gate,
    parts: &request::Parts,
    draft: &mut Draft,
) -> Result<Arc<Caller>, Refusal> {
    let given = parts.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let token = identity::bearer(given).map_err(Refusal::Identity)?;
    let unverified = Unverified::inspect(token).map_err(Refusal::Identity)?;
    let unknown = || Refusal::Identity(IdentityRefusal::IssuerUnknown);
    let issuer = gate.keyring.issuer(unverified.issuer()).ok_or_else(unknown)?;
    let keys = gate.keyring.key_set(unverified.issuer(), unverified.key_id()).await;
    let keys = keys.map_err(|error| Refusal::Identity(error.into()))?;
    let caller =
        gate.tokens.authenticate(&unverified, issuer, &keys, draft.began).map_err(Refusal::Identity)?;
    draft.knows(&caller);
    draft.standing = Some(gate.sessions.admit(&caller, &parts.headers, draft.began).await?);
    Ok(caller)
}
