//! Who is asking: from the request's head to a caller whose session is not over.
//!
//! Owns: the order in which token, proof, keys or issuer, replays, application, session and their share are asked.
//! Must never: judge a token (that is `domain::identity`), or let anyone through whose session is unknown.
//! Look next: `edge::keyring`, `edge::introspection`, `edge::replay`, `edge::sessions`.

use super::Gate;
use super::draft::Draft;
use super::refusal::Refusal;
use crate::domain::identity::{
    self, Caller, Credentials, IdentityRefusal, Possession, Proof, ProofRefusal, Proven, Scheme, Unverified,
};
use crate::edge::listener::Peer;
use crate::edge::replay::Memory;
use http::{HeaderName, HeaderValue, header, request};
use jiff::Timestamp;
use std::sync::Arc;

const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Under which proofs are remembered.
const PROOFS: &str = "dpop-proof";

/// The caller behind the token, who holds what it is bound to, with an application that may be used, a session
/// that is not over, and a place for this request.
pub(super) async fn establish(
    gate: &Gate,
    parts: &request::Parts,
    peer: &Peer,
    draft: &mut Draft,
) -> Result<Arc<Caller>, Refusal> {
    let given = identity::credentials(values(parts, &header::AUTHORIZATION)).map_err(Refusal::Identity)?;
    draft.scheme = given.scheme;
    let caller = prove(gate, parts, peer, given, draft).await.map_err(Refusal::Identity)?;
    draft.standing = Some(gate.sessions.admit(&caller, &parts.headers, draft.began).await?);
    draft.share = Some(gate.shares.take(&caller).await?);
    Ok(caller)
}

async fn prove(
    gate: &Gate,
    parts: &request::Parts,
    peer: &Peer,
    given: Credentials<'_>,
    draft: &mut Draft,
) -> Result<Arc<Caller>, IdentityRefusal> {
    let proof = match given.scheme {
        Scheme::Bearer => None,
        Scheme::Dpop => Some(proof(gate, parts, given.token, draft.began)?),
    };
    let shown = Possession::new(given.scheme, peer.certificate_sha256, proof.as_ref());
    let caller = authenticate(gate, given.token, &shown, draft.began).await?;
    draft.knows(&caller);
    if let Some(proof) = &proof {
        // Only now: nobody can fill the memory without a good token.
        use_once(gate, proof).await?;
    }
    caller.admitted(draft.began)?;
    Ok(caller)
}

/// The proof in the `DPoP` header, for this request as clients address it.
fn proof(gate: &Gate, parts: &request::Parts, token: &str, now: Timestamp) -> Result<Proof, ProofRefusal> {
    let base = &gate.public;
    let url = format!("{}://{}{}", base.scheme(), base.authority(), parts.uri.path());
    let request = Proven { method: parts.method.as_str(), url: &url, token };
    Proof::verify(values(parts, &DPOP), request, gate.nonces.as_ref(), now)
}

/// A JWT by its issuer's keys, anything else by its issuer's word, if there is an issuer who gives it.
async fn authenticate(
    gate: &Gate,
    token: &str,
    shown: &Possession<'_>,
    now: Timestamp,
) -> Result<Arc<Caller>, IdentityRefusal> {
    if let Some(introspector) = gate.introspector.as_ref().filter(|_| identity::is_opaque(token)) {
        let answer = introspector.ask(token).await.map_err(|_| IdentityRefusal::IntrospectionUnavailable)?;
        return answer.authenticate(introspector.issuer(), shown, now);
    }
    if let Some(answer) = recognise(gate, token, shown, now).await {
        return answer;
    }
    let unverified = Unverified::inspect(token)?;
    let issuer = gate.keyring.issuer(unverified.issuer()).ok_or(IdentityRefusal::IssuerUnknown)?;
    let keys = gate.keyring.key_set(unverified.issuer(), unverified.key_id()).await?;
    gate.tokens.authenticate(&unverified, issuer, &keys, shown, now)
}

/// The caller of a token that was verified before: the text is the same, so it is not taken apart again.
async fn recognise(
    gate: &Gate,
    token: &str,
    shown: &Possession<'_>,
    now: Timestamp,
) -> Option<Result<Arc<Caller>, IdentityRefusal>> {
    let seen = gate.tokens.recall(token)?;
    let issuer = gate.keyring.issuer(seen.issuer())?;
    match gate.keyring.key_set(seen.issuer(), seen.key_id()).await {
        Ok(keys) => gate.tokens.again(&seen, issuer, &keys, shown, now),
        Err(refusal) => Some(Err(refusal.into())),
    }
}

async fn use_once(gate: &Gate, proof: &Proof) -> Result<(), ProofRefusal> {
    match gate.replay.remember_once(PROOFS, proof.identifier(), proof.forgettable_at()).await {
        Ok(Memory::New) => Ok(()),
        Ok(Memory::Known) => Err(ProofRefusal::Replayed),
        Err(_not_remembered) => Err(ProofRefusal::NotRemembered),
    }
}

fn values<'p>(parts: &'p request::Parts, name: &HeaderName) -> impl Iterator<Item = &'p [u8]> {
    parts.headers.get_all(name).iter().map(HeaderValue::as_bytes)
}
