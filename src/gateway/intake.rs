//! One of the EMR's pages of rows on its way in: at once, or batch by batch where it is long.
//!
//! Owns: how much of it is held, and that a page broken off is not taken for a whole one.
//! Must never: judge a row. Look next: `domain::filter`, whose `Batches` cuts; `rows`, which judges.

use super::refusal::Refusal;
use super::release::unsound;
use super::visit::Visit;
use crate::domain::filter::{self, Batches, Envelope};
use crate::domain::narrow::Plan;
use crate::edge::upstream::AnswerBody;
use crate::limits;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// A page of the EMR's, being read.
pub(super) struct Intake {
    ready: VecDeque<Bytes>,
    long: Option<Long>,
    /// What a long page said beside its rows, once it is read to its end.
    frame: Option<Envelope>,
}

struct Long {
    kind: &'static str,
    batches: Batches,
    body: AnswerBody,
}

impl Intake {
    /// Asks for a page whole.
    ///
    /// # Errors
    /// As [`Visit::ask`].
    pub(super) async fn whole(visit: &Visit<'_>, plan: &Plan) -> Result<Self, Refusal> {
        let body = visit.ask(plan).await?;
        visit.gate.telemetry.filtered(body.len() as u64, 0);
        Ok(Self { ready: VecDeque::from([body]), long: None, frame: None })
    }

    /// Asks for a page of which any length may come: beyond `BATCH_BYTES` it is read batch by batch. `kind`: what its
    /// `Bundle.type` must be.
    ///
    /// # Errors
    /// As [`Visit::ask`].
    pub(super) async fn open(visit: &Visit<'_>, plan: &Plan, kind: &'static str) -> Result<Self, Refusal> {
        let mut body = visit.ask_unread(plan).await?.body.download(limits::STREAMED_ANSWER_BYTES_MAX);
        let announced = usize::try_from(body.announced_bytes().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut begun = BytesMut::with_capacity(announced.min(limits::BATCH_BYTES));
        while begun.len() <= limits::BATCH_BYTES {
            match body.chunk().await.map_err(Refusal::Upstream)? {
                Some(piece) => begun.extend_from_slice(&piece),
                None => {
                    visit.gate.telemetry.filtered(begun.len() as u64, 0);
                    return Ok(Self { ready: VecDeque::from([begun.freeze()]), long: None, frame: None });
                }
            }
        }
        let mut intake = Self { ready: VecDeque::new(), long: None, frame: None };
        let mut long = Long { kind, batches: Batches::new(kind), body };
        intake.feed(visit, &mut long, &begun)?;
        intake.long = Some(long);
        Ok(intake)
    }

    /// The next rows, as a Bundle; nothing at the end.
    ///
    /// # Errors
    /// [`Refusal::AnswerUnsound`] where the page is unsound so far.
    pub(super) async fn next(&mut self, visit: &Visit<'_>) -> Result<Option<Bytes>, Refusal> {
        while self.ready.is_empty() {
            let Some(mut long) = self.long.take() else { return Ok(None) };
            visit.peer.progressed();
            match long.body.chunk().await.map_err(Refusal::Upstream)? {
                Some(piece) => {
                    self.feed(visit, &mut long, &piece)?;
                    self.long = Some(long);
                }
                None => self.end(visit, long)?,
            }
        }
        Ok(self.ready.pop_front())
    }

    /// What a long page said beside its rows: known when there are no more.
    pub(super) fn frame(&mut self) -> Option<Envelope> {
        self.frame.take()
    }

    fn feed(&mut self, visit: &Visit<'_>, long: &mut Long, piece: &[u8]) -> Result<(), Refusal> {
        visit.gate.telemetry.filtered(piece.len() as u64, 0);
        let mut batches = Vec::new();
        long.batches.feed(piece, &mut batches).map_err(unsound)?;
        self.ready.extend(batches.into_iter().map(Bytes::from));
        Ok(())
    }

    fn end(&mut self, visit: &Visit<'_>, long: Long) -> Result<(), Refusal> {
        let (last, frame) = long.batches.finish().map_err(unsound)?;
        let bases = visit.bases();
        let frame = filter::parse(&frame, &bases).map_err(unsound)?;
        let envelope = frame.bundle().filter(|envelope| envelope.kind == long.kind);
        self.frame = Some(envelope.ok_or(Refusal::AnswerUnsound)?.clone());
        self.ready.extend(last.map(Bytes::from));
        Ok(())
    }
}
