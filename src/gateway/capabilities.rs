//! `/metadata`: what the gate and the EMR behind it can do together.
//!
//! Owns: when the EMR is asked for its own statement, and how long that is taken for true.
//! Must never: pass a word of the EMR's statement on, or ask the EMR as often as anyone asks us: `/metadata` is open.
//! Look next: `domain::fhir::capabilities`, where the two are brought together.

use super::Gate;
use crate::clock;
use crate::domain::fhir::capabilities::{Gatehouse, IssuerEndpoints, Offer, capability_statement};
use crate::edge::upstream::UpstreamRequest;
use crate::limits;
use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use std::fmt;
use tokio::sync::Mutex;

/// The statement as it was last put together.
#[derive(Default)]
pub struct Statement(Mutex<Option<Known>>);

#[derive(Clone)]
struct Known {
    /// What clients are told.
    document: Bytes,
    /// It rests on what the EMR said.
    is_whole: bool,
    /// When the EMR was last asked.
    asked: Timestamp,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").finish_non_exhaustive()
    }
}

impl Known {
    fn is_fresh(&self, now: Timestamp) -> bool {
        let kept = if self.is_whole { limits::CAPABILITIES_KEPT } else { limits::CAPABILITIES_RETRY };
        super::span(self.asked, now) < kept
    }
}

/// The statement, fresh or as it was last known. One request at a time asks the EMR, the others wait for it: no longer
/// than the upstream time-out, and each finds an answer then. When the EMR does not say, the last statement stays; when
/// it never said, reads and searches alone are promised.
pub(super) async fn statement(gate: &Gate) -> Bytes {
    let mut known = gate.statement.0.lock().await;
    let now = clock::now();
    if let Some(known) = known.as_ref().filter(|known| known.is_fresh(now)) {
        return known.document.clone();
    }
    let offer = ask(gate).await;
    let last = known.take().filter(|_| offer.is_none());
    let document = match last {
        Some(last) => Known { asked: now, ..last },
        None => Known { document: document(gate, offer.as_ref()), is_whole: offer.is_some(), asked: now },
    };
    known.insert(document).document.clone()
}

/// The issuers, with what their discovery documents said last.
pub(super) fn issuers(gate: &Gate) -> Vec<IssuerEndpoints> {
    let known = gate.issuers.iter();
    known
        .map(|set| gate.keyring.endpoints(&set.issuer).map_or_else(|| set.clone(), |told| (*told).clone()))
        .collect()
}

fn document(gate: &Gate, offer: Option<&Offer>) -> Bytes {
    let gatehouse = Gatehouse {
        base: &gate.public,
        issuers: &issuers(gate),
        date: &gate.started,
        version: env!("CARGO_PKG_VERSION"),
        parameters: &gate.parameters,
    };
    capability_statement(&gatehouse, offer).into()
}

/// The EMR's own statement, asked for with the gate's credentials.
async fn ask(gate: &Gate) -> Option<Offer> {
    let answer = gate.upstream.send(UpstreamRequest::new(Method::GET, "metadata")).await;
    let answer =
        answer.inspect_err(|error| tracing::warn!(%error, "the EMR does not say what it can do")).ok()?;
    if answer.status != StatusCode::OK {
        tracing::warn!(status = answer.status.as_u16(), "the EMR does not say what it can do");
        return None;
    }
    let body = answer.body.read(limits::CAPABILITIES_BYTES_MAX).await.ok()?;
    Offer::read(&body)
}
