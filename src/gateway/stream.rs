//! Long answers: NDJSON files of the EMR's, filtered line by line and released unit by unit.
//!
//! Owns: the way of a line from the EMR to the client: read, decided, emitted; and the order of a unit: it is durable in
//! the trail before a byte of it is handed over (P2).
//! Must never: hold more than a few units, pass on a line that is not a record of the type that was asked for, or go on
//! behind one (T-097). Where units end depends on what is released alone.
//! Look next: `export`, which opens a stream; `reply`, which sends it; `release`, where a record is decided.

use super::Gate;
use super::draft::Draft;
use super::links;
use super::refusal::Refusal;
use super::relations::Inquiry;
use super::release::{Judged, Release, concerned, unsound};
use super::visit::{Visit, request_of};
use crate::clock;
use crate::domain::access::Permit;
use crate::domain::audit::Record;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::Holds;
use crate::domain::filter::{Bases, Lines};
use crate::domain::narrow::Plan;
use crate::edge::journal::Receipt;
use crate::edge::listener::Peer;
use crate::edge::sessions::Standing;
use crate::edge::upstream::{AnswerBody, UpstreamError};
use crate::limits;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the reply gets to send after its first unit.
pub(super) enum Part {
    /// A unit, and the proof that it is recorded.
    Unit(Receipt, Bytes),
    /// All of it was sent. A stream that ends without is broken off.
    End,
}

/// The files of one type on their way through, one after the other.
pub(super) struct Units {
    permit: Permit,
    /// What the export was begun with.
    question: Interaction,
    resource: ResourceType,
    /// Only records that show whose they are: the export is of patients' records, and some may be withheld.
    of_patients: bool,
    /// What the trail says of every unit but what is in it.
    draft: Draft,
    peer: Peer,
    files: VecDeque<Plan>,
    open: Option<AnswerBody>,
    lines: Lines,
    ready: VecDeque<Vec<u8>>,
    /// Why there is nothing behind the lines that are ready.
    fault: Option<Refusal>,
    /// How it is found out how the caller stands to the patients, where policy asks.
    inquiry: Option<Inquiry>,
    /// For so many of the lines that are ready the permit knows it.
    known: usize,
    number: u32,
}

impl Units {
    /// `draft`: of the request, before anything is released.
    pub(super) fn new(
        visit: &Visit<'_>,
        permit: Permit,
        question: Interaction,
        resource: ResourceType,
        of_patients: bool,
        draft: Draft,
        files: Vec<Plan>,
    ) -> Self {
        Self {
            of_patients: of_patients && !permit.releases_every(resource),
            inquiry: visit.inquiry(&permit),
            fault: None,
            known: 0,
            permit,
            question,
            resource,
            draft,
            peer: visit.peer.clone(),
            files: files.into(),
            open: None,
            lines: Lines::new(),
            ready: VecDeque::new(),
            number: 0,
        }
    }

    /// The next unit, or nothing at the end. It has at least `EXPORT_UNIT_BYTES` or `EXPORT_UNIT_RECORDS`, unless it
    /// is the last one.
    ///
    /// # Errors
    /// A [`Refusal`]: nothing of the unit, nor of what follows, may leave.
    pub(super) async fn next(&mut self, gate: &Gate) -> Result<Option<Release>, Refusal> {
        let mut release = Release::default();
        // However long the client took for the unit before: what was known then may be stale.
        self.known = 0;
        loop {
            while !self.ready.is_empty() {
                self.look_up(gate).await;
                let Some(line) = self.ready.pop_front() else { break };
                self.known = self.known.saturating_sub(1);
                self.take(gate, &line, &mut release)?;
                if is_full(&release) {
                    return Ok(Some(release));
                }
            }
            if !self.read_on(gate).await? {
                let anything = !release.records.is_empty() || release.withheld > 0;
                return Ok(anything.then_some(release));
            }
        }
    }

    /// Learns how the caller stands to the patients of the lines that come next, for many lines together. Whether a line
    /// is let out must not depend on those beside it, so nobody is left out for the sake of others; a line about more
    /// patients than one search takes stands alone, and its patients in no relation.
    async fn look_up(&mut self, gate: &Gate) {
        if self.inquiry.is_none() || self.known > 0 {
            return;
        }
        let is_enough = |ready: &VecDeque<Vec<u8>>| {
            let bytes: usize = ready.iter().map(Vec::len).sum();
            ready.len() >= limits::RELATION_LINES || bytes >= limits::EXPORT_UNIT_BYTES
        };
        while !is_enough(&self.ready) && self.fault.is_none() {
            match self.read_on(gate).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(refusal) => self.fault = Some(refusal),
            }
        }
        let upstream = [gate.upstream_base.as_str()];
        let bases = Bases { upstream: &upstream, public: gate.public.as_str() };
        let mut patients = BTreeSet::new();
        for line in self.ready.iter().take(limits::RELATION_LINES) {
            let concerned = concerned(line, &bases, &self.permit);
            let both: BTreeSet<String> = patients.union(&concerned).cloned().collect();
            if both.len() > limits::RELATION_PATIENTS_MAX {
                break;
            }
            patients = both;
            self.known += 1;
        }
        self.known = self.known.max(1);
        if let Some(inquiry) = &self.inquiry {
            let known = inquiry.about(gate, &patients, clock::now()).await;
            self.permit = self.permit.knowing(known);
        }
    }

    /// One line: a record, decided on its own. Withheld records leave nothing behind.
    fn take(&self, gate: &Gate, line: &[u8], release: &mut Release) -> Result<(), Refusal> {
        let upstream = [gate.upstream_base.as_str()];
        let bases = Bases { upstream: &upstream, public: gate.public.as_str() };
        let judged = Judged::judge_line(line, bases, &self.permit, release)?;
        let asked = judged.facts(0).is_some_and(|facts| facts.resource_type == self.resource);
        if !asked || !judged.is_single() {
            return Err(Refusal::AnswerUnsound);
        }
        if !self.is_asked_for(judged.raw(0), &upstream, gate)? {
            return Ok(());
        }
        let mut record = Vec::new();
        let is_shown = judged.write(0, &judged.verdicts(), &mut record)
            && (!self.of_patients || links::shows_patient(self.resource, &record, judged.public()));
        if !is_shown {
            release.withheld += 1;
            return Ok(());
        }
        judged.note(0, release);
        release.body.append(&mut record);
        release.body.push(b'\n');
        Ok(())
    }

    /// Whether the record may be what `_since` and `_typeFilter` ask for. The EMR was asked the same: a record that is
    /// certainly not is left out as if the EMR had done so.
    fn is_asked_for(&self, record: &[u8], upstream: &[&str], gate: &Gate) -> Result<bool, Refusal> {
        let Interaction::Operation(operation) = &self.question else { return Err(Refusal::Internal) };
        let Some(narrowing) = operation.narrows(self.resource) else { return Ok(true) };
        let record: Value = serde_json::from_slice(record).map_err(|_| Refusal::AnswerUnsound)?;
        let here: Vec<&str> = upstream.iter().copied().chain([gate.public.as_str()]).collect();
        Ok(narrowing.holds_for(&record, &here) != Holds::No)
    }

    /// Reads another piece, or opens another file; `false` when there is none left.
    async fn read_on(&mut self, gate: &Gate) -> Result<bool, Refusal> {
        self.peer.progressed();
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let Some(body) = &mut self.open else { return self.open_next(gate).await };
        let mut lines = Vec::new();
        match body.chunk().await.map_err(Refusal::Upstream)? {
            Some(piece) => {
                gate.telemetry.filtered(piece.len() as u64, 0);
                self.lines.feed(&piece, &mut lines).map_err(unsound)?;
            }
            None => {
                self.open = None;
                std::mem::take(&mut self.lines).finish(&mut lines).map_err(unsound)?;
            }
        }
        self.ready.extend(lines);
        Ok(true)
    }

    async fn open_next(&mut self, gate: &Gate) -> Result<bool, Refusal> {
        let Some(plan) = self.files.pop_front() else { return Ok(false) };
        let answer = gate.upstream.send(request_of(&plan)).await.map_err(Refusal::Upstream)?;
        match answer.status {
            StatusCode::OK => {
                self.open = Some(answer.body.download(limits::EXPORT_FILE_BYTES_MAX));
                Ok(true)
            }
            status => Err(refused(status)),
        }
    }

    /// What the trail says of a unit.
    fn record(&mut self, release: &mut Release) -> Record {
        self.number = self.number.saturating_add(1);
        self.draft.unit(self.number, release)
    }
}

/// What an EMR's refusal within an export means.
pub(super) fn refused(status: StatusCode) -> Refusal {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Refusal::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Refusal::Upstream(UpstreamError::Busy)
        }
        _ => Refusal::AnswerUnsound,
    }
}

fn is_full(release: &Release) -> bool {
    release.body.len() >= limits::EXPORT_UNIT_BYTES || release.records.len() >= limits::EXPORT_UNIT_RECORDS
}

/// Releases what follows the first unit, at the client's pace: a unit is made when there is room for it. Dropping the
/// receiver ends it.
pub(super) fn release(gate: Arc<Gate>, mut units: Units) -> mpsc::Receiver<Part> {
    let (sender, parts) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = pour(&gate, &mut units, &sender) => ended,
            () = sender.closed() => Ok(()),
        };
        if let Err(refusal) = ended {
            let (request_id, code) = (&units.draft.decision.request_id, refusal.code());
            gate.telemetry.refusal(code);
            tracing::error!(%request_id, code, "a download was broken off");
        }
    });
    parts
}

/// Without [`Part::End`] the receiver finds the stream broken off.
async fn pour(gate: &Gate, units: &mut Units, sender: &mpsc::Sender<Part>) -> Result<(), Refusal> {
    // Who no longer listens needs no answer: the reply has recorded how far it came.
    while let Ok(place) = sender.reserve().await {
        let next = units.next(gate).await?;
        // Before it is recorded as released: whoever was revoked meanwhile gets nothing of it (T-193).
        units.draft.standing.as_ref().map_or(Ok(()), Standing::check)?;
        let Some(mut unit) = next else {
            place.send(Part::End);
            break;
        };
        let body = Bytes::from(std::mem::take(&mut unit.body));
        let recorded = record(gate, units.record(&mut unit)).await?;
        gate.telemetry.filtered(0, body.len() as u64);
        place.send(Part::Unit(recorded, body));
    }
    Ok(())
}

/// Writes the record of a unit down, durably.
///
/// # Errors
/// [`Refusal::TrailUnavailable`]: the unit must not leave.
pub(super) async fn record(gate: &Gate, unit: Record) -> Result<Receipt, Refusal> {
    gate.journal.append(&[unit]).await.map_err(|error| {
        tracing::error!(%error, "no record, no unit");
        Refusal::TrailUnavailable
    })
}
