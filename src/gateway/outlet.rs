//! The way out for a long list: its rows leave unit by unit while the EMR still answers.
//!
//! Owns: when the reply begins, and the order of a unit: durable in the trail before a byte of it is handed over (P2).
//! Must never: hold more than one unit, or end a list as whole that was broken off.
//! Look next: `rows`, which fills it; `stream`, the same for files; `reply`, which sends.

use super::draft::Draft;
use super::refusal::Refusal;
use super::release::Release;
use super::reply::{Answer, ReplyBody};
use super::stream::{self, Part};
use super::{Gate, leave};
use crate::domain::fhir::classify::Wishes;
use crate::edge::sessions::Standing;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Where an answer leaves: at once when it is whole, or in units before that.
pub(super) struct Outlet {
    gate: Arc<Gate>,
    /// Whoever waits for the reply, until it begins.
    opening: Option<oneshot::Sender<Response<ReplyBody>>>,
    parts: Option<mpsc::Sender<Part>>,
    passes: bool,
    number: u32,
    /// Nobody listens any more.
    is_left: bool,
}

impl Outlet {
    /// Nothing has left yet.
    pub(super) fn new(gate: Arc<Gate>, opening: oneshot::Sender<Response<ReplyBody>>) -> Self {
        Self { gate, opening: Some(opening), parts: None, passes: false, number: 0, is_left: false }
    }

    /// Lets units pass, if the client wants the answer as it is: what is indented, compressed, or only measured must
    /// be whole first.
    pub(super) fn allow(&mut self, wishes: &Wishes) {
        let compressed = self.gate.compresses && !wishes.codings.is_empty();
        self.passes = !wishes.pretty && !wishes.head_only && !compressed;
    }

    /// Whether a list may leave in units.
    pub(super) fn passes(&self) -> bool {
        self.passes
    }

    /// Whether something has left.
    pub(super) fn has_begun(&self) -> bool {
        self.parts.is_some()
    }

    /// Releases a unit: recorded, then handed over, at the client's pace. The first one begins the reply.
    ///
    /// # Errors
    /// [`Refusal::TrailUnavailable`] when it cannot be recorded; [`Refusal::Session`] when its caller was revoked;
    /// [`Refusal::Internal`] when nobody listens any more.
    pub(super) async fn unit(&mut self, draft: &Draft, mut unit: Release) -> Result<(), Refusal> {
        // Whoever was revoked meanwhile gets nothing more, and nothing more is recorded as released (T-193).
        draft.standing.as_ref().map_or(Ok(()), Standing::check)?;
        self.gate.telemetry.filtered(0, unit.body.len() as u64);
        let Some(parts) = self.parts.clone() else { return self.begin(draft, unit).await };
        let Ok(place) = parts.reserve().await else { return self.left() };
        self.number = self.number.saturating_add(1);
        let body = Bytes::from(std::mem::take(&mut unit.body));
        let receipt = stream::record(&self.gate, draft.unit(self.number, &mut unit)).await?;
        place.send(Part::Unit(receipt, body));
        Ok(())
    }

    async fn begin(&mut self, draft: &Draft, mut unit: Release) -> Result<(), Refusal> {
        let Some(opening) = self.opening.take() else { return self.left() };
        let (parts, following) = mpsc::channel(1);
        let answer = Answer::fhir(StatusCode::OK, std::mem::take(&mut unit.body));
        let answer = answer.varying(self.gate.compresses);
        let mut draft = draft.clone();
        draft.decision.unit = Some(0);
        draft.releases(&mut unit, true);
        self.parts = Some(parts);
        let response = Box::pin(leave(&self.gate, draft, Ok(answer), Some(following))).await;
        if opening.send(response).is_err() { self.left() } else { Ok(()) }
    }

    fn left(&mut self) -> Result<(), Refusal> {
        self.is_left = true;
        Err(Refusal::Internal)
    }

    /// The end of the journey: the answer, or the end of one that has begun. Without [`Part::End`] the client finds it
    /// broken off.
    pub(super) async fn close(mut self, draft: Draft, outcome: Result<Answer, Refusal>) {
        if let Some(opening) = self.opening.take() {
            let response = leave(&self.gate, draft, outcome, None).await;
            // Who no longer listens needs no answer; it is recorded as cut off.
            drop(opening.send(response));
            return;
        }
        match (outcome, self.parts) {
            (Ok(_), Some(parts)) => drop(parts.send(Part::End).await),
            (Err(refusal), _) if !self.is_left => {
                let (request_id, code) = (&draft.decision.request_id, refusal.code());
                self.gate.telemetry.refusal(code);
                tracing::error!(%request_id, code, "an answer was broken off");
            }
            _ => {}
        }
    }
}
