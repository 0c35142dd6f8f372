//! The one byte encoding of audit records: JSON, version 1.
//!
//! Owns: field names and order, the split of large records into parts, and joining them again.
//! Must never: accept what it would not have written (unknown fields, another version, parts out of order);
//! change a byte without a new version (`tests` holds golden bytes).
//! Look next: `docs/audit.md`, which tells auditors the same in prose.
//!
//! A decision whose released list is long is written as parts `1..=parts`. Part 1 has the head; every part
//! has version, kind, request id, time and its number, and carries some mask paths and some released items.
//! Joining is concatenation: mask paths are appended to the mask with their index; an item with `more` is
//! completed by the item after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Caller, Control, Decision, Ending, Event, Outcome, Record, Released, Verdict};
use super::text::bound;
use crate::limits::{
    RECORD_ITEM_BYTES_MAX, RECORD_ITEM_PATIENTS_MAX, RECORD_PART_BYTES_MAX, RECORD_PARTS_MAX,
    RECORD_POLICIES_MAX, RECORD_REQUEST_BYTES_MAX, RECORD_ROLES_MAX, RECORD_TEXT_BYTES_MAX,
};

/// The version of the encoding.
pub const VERSION: u8 = 1;

/// Why a record was not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// It needs more than `RECORD_PARTS_MAX` parts: release the answer in units.
    TooLarge,
    /// JSON could not be written; does not happen for these types.
    Unwritable,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLarge => "audit record needs too many parts",
            Self::Unwritable => "audit record cannot be written as JSON",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Why bytes are not an audit record. Never quotes the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON of one of the kinds, with exactly their fields.
    Malformed,
    /// Another version of the encoding.
    Version,
    /// A part without its predecessors, or of another record.
    OutOfOrder,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "audit record is malformed",
            Self::Version => "audit record has an unknown version",
            Self::OutOfOrder => "part of an audit record is out of order",
        })
    }
}

impl std::error::Error for DecodeError {}

/// The entries `record` becomes, in order: each is JSON of at most `RECORD_PART_BYTES_MAX` bytes. Texts and
/// lists over their bounds are cut, and say so; nothing a client sends can make a refusal unrecordable.
///
/// # Errors
/// [`EncodeError::TooLarge`] when the released list needs too many parts.
pub fn encode(record: &Record) -> Result<Vec<Vec<u8>>, EncodeError> {
    match record {
        Record::Decision(decision) => encode_decision(decision),
        Record::Outcome(outcome) => one(&Wire::Outcome(OutcomeWire::from_record(outcome))),
        Record::Control(control) => one(&Wire::Control(ControlWire::from_record(control))),
    }
}

fn one(wire: &Wire) -> Result<Vec<Vec<u8>>, EncodeError> {
    Ok(vec![write(wire)?])
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    serde_json::to_vec(value).map_err(|_| EncodeError::Unwritable)
}

fn encode_decision(decision: &Decision) -> Result<Vec<Vec<u8>>, EncodeError> {
    let head = Head::from_record(decision);
    let mut packer = Packer::new(write(&head)?.len());
    for piece in pieces(decision) {
        packer.add(piece)?;
    }
    let parts = u16::try_from(packer.bodies.len()).map_err(|_| EncodeError::TooLarge)?;
    let envelope = |(number, body): (u16, Body)| {
        let part = DecisionWire {
            v: VERSION,
            part: number,
            parts,
            request_id: text(&decision.request_id),
            time: stamp(decision.time),
            head: (number == 1).then(|| head.clone()),
            masks: body.masks,
            released: body.released,
        };
        write(&match decision.verdict {
            Verdict::Permit => Wire::Release(part),
            Verdict::Refuse => Wire::Refusal(part),
        })
    };
    (1..=parts).zip(packer.bodies).map(envelope).collect()
}

/// One part of a decoded record.
#[derive(Debug)]
pub struct Part(Wire);

/// Reads one entry.
///
/// # Errors
/// When the bytes are not exactly what [`encode`] writes in this version.
pub fn decode(bytes: &[u8]) -> Result<Part, DecodeError> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
    let version = match &wire {
        Wire::Release(part) | Wire::Refusal(part) => part.v,
        Wire::Outcome(outcome) => outcome.v,
        Wire::Control(control) => control.v,
    };
    if version != VERSION {
        return Err(DecodeError::Version);
    }
    Ok(Part(wire))
}

/// Joins parts into records. The parts of one record follow each other in the trail.
#[derive(Debug, Default)]
pub struct Assembly {
    open: Option<Partial>,
}

impl Assembly {
    /// Takes the entry at `sequence`; answers a record, with the sequence number of its first part, when
    /// this entry completes one.
    ///
    /// # Errors
    /// When a part is missing, repeated or of another record. The assembly is empty afterwards.
    pub fn push(&mut self, sequence: u64, part: Part) -> Result<Option<(u64, Record)>, DecodeError> {
        let open = self.open.take();
        match (part.0, open) {
            (Wire::Outcome(outcome), None) => Ok(Some((sequence, Record::Outcome(outcome.into_record()?)))),
            (Wire::Control(control), None) => Ok(Some((sequence, Record::Control(control.into_record()?)))),
            (Wire::Release(part), open) => self.join(sequence, Verdict::Permit, part, open),
            (Wire::Refusal(part), open) => self.join(sequence, Verdict::Refuse, part, open),
            (Wire::Outcome(_) | Wire::Control(_), Some(_)) => Err(DecodeError::OutOfOrder),
        }
    }

    /// Whether a record has begun and not ended: true at the end of a trail means that parts are missing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn join(
        &mut self,
        sequence: u64,
        verdict: Verdict,
        part: DecisionWire,
        open: Option<Partial>,
    ) -> Result<Option<(u64, Record)>, DecodeError> {
        let (number, parts) = (part.part, part.parts);
        let mut partial = match open {
            None if number == 1 => Partial::begin(sequence, verdict, &part)?,
            Some(partial) if partial.expects(verdict, &part) => partial,
            None | Some(_) => return Err(DecodeError::OutOfOrder),
        };
        partial.take(part)?;
        if number < parts {
            self.open = Some(partial);
            return Ok(None);
        }
        partial.finish().map(Some)
    }
}

/// A record of which some parts have come.
#[derive(Debug)]
struct Partial {
    sequence: u64,
    next: u16,
    parts: u16,
    decision: Decision,
    request_id: String,
    /// How many released items the head announced.
    announced: u64,
    masks: BTreeMap<u32, Vec<String>>,
    items: Vec<ItemWire>,
}

impl Partial {
    fn begin(sequence: u64, verdict: Verdict, part: &DecisionWire) -> Result<Self, DecodeError> {
        let head = part.head.as_ref().ok_or(DecodeError::Malformed)?;
        let time = unstamp(&part.time)?;
        Ok(Self {
            sequence,
            next: 1,
            parts: part.parts,
            decision: head.to_record(time, part.request_id.clone(), verdict),
            request_id: part.request_id.clone(),
            announced: head.released,
            masks: BTreeMap::new(),
            items: Vec::new(),
        })
    }

    fn expects(&self, verdict: Verdict, part: &DecisionWire) -> bool {
        part.part == self.next
            && part.parts == self.parts
            && part.request_id == self.request_id
            && part.head.is_none()
            && verdict == self.decision.verdict
    }

    fn take(&mut self, part: DecisionWire) -> Result<(), DecodeError> {
        self.next = self.next.checked_add(1).ok_or(DecodeError::Malformed)?;
        for mask in part.masks {
            self.masks.entry(mask.n).or_default().extend(mask.kept);
        }
        self.items.extend(part.released);
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, Record), DecodeError> {
        let masks: BTreeMap<u32, Arc<Vec<String>>> =
            self.masks.into_iter().map(|(n, kept)| (n, Arc::new(kept))).collect();
        let mut open: Option<Released> = None;
        for item in self.items {
            let mut released = match open.take() {
                Some(begun) if begun.reference == item.reference => begun,
                Some(_) => return Err(DecodeError::Malformed),
                None => Released {
                    reference: item.reference,
                    version: item.version,
                    patients: BTreeSet::new(),
                    mask: masks.get(&item.mask).cloned().ok_or(DecodeError::Malformed)?,
                },
            };
            released.patients.extend(item.patients);
            if item.more {
                open = Some(released);
            } else {
                self.decision.released.push(released);
            }
        }
        let count = u64::try_from(self.decision.released.len()).unwrap_or(u64::MAX);
        if open.is_some() || count != self.announced {
            return Err(DecodeError::Malformed);
        }
        Ok((self.sequence, Record::Decision(Box::new(self.decision))))
    }
}

// --- packing ------------------------------------------------------------------------------------

/// The smallest pieces a released list can be cut into.
enum Piece {
    Mask(u32, String),
    EmptyMask(u32),
    Item(ItemWire),
}

fn pieces(decision: &Decision) -> Vec<Piece> {
    let mut numbers: BTreeMap<&Vec<String>, u32> = BTreeMap::new();
    let mut pieces = Vec::new();
    for released in &decision.released {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(&released.mask).or_insert_with(|| {
            if released.mask.is_empty() {
                pieces.push(Piece::EmptyMask(next));
            }
            pieces.extend(released.mask.iter().map(|path| Piece::Mask(next, text(path))));
            next
        });
        push_items(released, number, &mut pieces);
    }
    pieces
}

fn push_items(released: &Released, mask: u32, pieces: &mut Vec<Piece>) {
    let patients: Vec<String> = released.patients.iter().map(|id| item(id)).collect();
    let mut chunks = patients.chunks(RECORD_ITEM_PATIENTS_MAX).peekable();
    let mut chunk: &[String] = chunks.next().unwrap_or_default();
    loop {
        let next = chunks.next();
        pieces.push(Piece::Item(ItemWire {
            reference: text(&released.reference),
            version: released.version.as_deref().map(item),
            patients: chunk.to_vec(),
            mask,
            more: next.is_some(),
        }));
        let Some(next) = next else { return };
        chunk = next;
    }
}

/// What one part carries besides the envelope.
#[derive(Default)]
struct Body {
    masks: Vec<MaskWire>,
    released: Vec<ItemWire>,
}

/// Fills parts one after the other.
struct Packer {
    bodies: Vec<Body>,
    room: usize,
}

/// Version, kind, part numbers, request id, time and brackets: under 800 bytes since the id is bounded.
const ENVELOPE_BYTES: usize = RECORD_TEXT_BYTES_MAX + 300;

impl Packer {
    fn new(head_bytes: usize) -> Self {
        let room = RECORD_PART_BYTES_MAX.saturating_sub(ENVELOPE_BYTES).saturating_sub(head_bytes);
        Self { bodies: vec![Body::default()], room }
    }

    fn add(&mut self, piece: Piece) -> Result<(), EncodeError> {
        let cost = match &piece {
            Piece::Mask(_, path) => write(path)?.len() + 32,
            Piece::EmptyMask(_) => 32,
            Piece::Item(item) => write(item)?.len() + 1,
        };
        if cost > self.room {
            if self.bodies.len() >= RECORD_PARTS_MAX {
                return Err(EncodeError::TooLarge);
            }
            self.bodies.push(Body::default());
            self.room = RECORD_PART_BYTES_MAX - ENVELOPE_BYTES;
        }
        self.room = self.room.checked_sub(cost).ok_or(EncodeError::TooLarge)?;
        if let Some(body) = self.bodies.last_mut() {
            body.push(piece);
        }
        Ok(())
    }
}

impl Body {
    fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Item(item) => self.released.push(item),
            Piece::EmptyMask(n) => self.masks.push(MaskWire { n, kept: Vec::new() }),
            Piece::Mask(n, path) => match self.masks.last_mut() {
                Some(mask) if mask.n == n => mask.kept.push(path),
                _ => self.masks.push(MaskWire { n, kept: vec![path] }),
            },
        }
    }
}

// --- the JSON shapes ----------------------------------------------------------------------------

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Wire {
    Release(DecisionWire),
    Refusal(DecisionWire),
    Outcome(OutcomeWire),
    Control(ControlWire),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DecisionWire {
    v: u8,
    part: u16,
    parts: u16,
    request_id: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    head: Option<Head>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    masks: Vec<MaskWire>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    released: Vec<ItemWire>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    caller: Option<CallerWire>,
    purposes: Vec<String>,
    source: Option<String>,
    interaction: String,
    request: String,
    reason: Option<String>,
    policies: Vec<String>,
    policy_set: Option<String>,
    released: u64,
    withheld: u64,
    status: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CallerWire {
    issuer: String,
    subject: String,
    session: String,
    token_hash: String,
    application: Option<String>,
    roles: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskWire {
    n: u32,
    kept: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemWire {
    reference: String,
    version: Option<String>,
    patients: Vec<String>,
    mask: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutcomeWire {
    v: u8,
    request_id: String,
    time: String,
    ending: String,
    sent_bytes: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlWire {
    v: u8,
    time: String,
    event: String,
    details: BTreeMap<String, String>,
}

impl Head {
    fn from_record(decision: &Decision) -> Self {
        Self {
            caller: decision.caller.as_ref().map(CallerWire::from_record),
            purposes: items(&decision.purposes, RECORD_ROLES_MAX),
            source: decision.source.as_deref().map(text),
            interaction: text(&decision.interaction),
            request: bound(&decision.request, RECORD_REQUEST_BYTES_MAX).into_owned(),
            reason: decision.reason.as_deref().map(text),
            policies: items(&decision.policies, RECORD_POLICIES_MAX),
            policy_set: decision.policy_set.as_deref().map(text),
            released: u64::try_from(decision.released.len()).unwrap_or(u64::MAX),
            withheld: decision.withheld,
            status: decision.status,
        }
    }

    fn to_record(&self, time: Timestamp, request_id: String, verdict: Verdict) -> Decision {
        Decision {
            time,
            request_id,
            caller: self.caller.clone().map(CallerWire::into_record),
            purposes: self.purposes.clone(),
            source: self.source.clone(),
            interaction: self.interaction.clone(),
            request: self.request.clone(),
            verdict,
            reason: self.reason.clone(),
            policies: self.policies.clone(),
            policy_set: self.policy_set.clone(),
            released: Vec::new(),
            withheld: self.withheld,
            status: self.status,
        }
    }
}

impl CallerWire {
    fn from_record(caller: &Caller) -> Self {
        Self {
            issuer: text(&caller.issuer),
            subject: text(&caller.subject),
            session: text(&caller.session),
            token_hash: text(&caller.token_hash),
            application: caller.application.as_deref().map(text),
            roles: items(&caller.roles, RECORD_ROLES_MAX),
        }
    }

    fn into_record(self) -> Caller {
        Caller {
            issuer: self.issuer,
            subject: self.subject,
            session: self.session,
            token_hash: self.token_hash,
            application: self.application,
            roles: self.roles,
        }
    }
}

impl OutcomeWire {
    fn from_record(outcome: &Outcome) -> Self {
        Self {
            v: VERSION,
            request_id: text(&outcome.request_id),
            time: stamp(outcome.time),
            ending: outcome.ending.code().to_owned(),
            sent_bytes: outcome.sent_bytes,
        }
    }

    fn into_record(self) -> Result<Outcome, DecodeError> {
        let ending = [Ending::Complete, Ending::CutOff, Ending::Failed, Ending::Unknown]
            .into_iter()
            .find(|ending| ending.code() == self.ending)
            .ok_or(DecodeError::Malformed)?;
        let time = unstamp(&self.time)?;
        Ok(Outcome { time, request_id: self.request_id, ending, sent_bytes: self.sent_bytes })
    }
}

impl ControlWire {
    fn from_record(control: &Control) -> Self {
        let details = control.details.iter().take(RECORD_ROLES_MAX);
        Self {
            v: VERSION,
            time: stamp(control.time),
            event: control.event.code().to_owned(),
            details: details.map(|(name, value)| (item(name), text(value))).collect(),
        }
    }

    fn into_record(self) -> Result<Control, DecodeError> {
        let event = Event::ALL.into_iter().find(|event| event.code() == self.event);
        let event = event.ok_or(DecodeError::Malformed)?;
        Ok(Control { time: unstamp(&self.time)?, event, details: self.details })
    }
}

// --- bounds -------------------------------------------------------------------------------------

fn text(value: &str) -> String {
    bound(value, RECORD_TEXT_BYTES_MAX).into_owned()
}

fn item(value: &str) -> String {
    bound(value, RECORD_ITEM_BYTES_MAX).into_owned()
}

/// At most `max` items; the last one says how many more there were.
fn items(values: &[String], max: usize) -> Vec<String> {
    if values.len() <= max {
        return values.iter().map(|value| item(value)).collect();
    }
    let kept = max.saturating_sub(1);
    let more = format!("…and {} more", values.len().saturating_sub(kept));
    values.iter().take(kept).map(|value| item(value)).chain([more]).collect()
}

/// RFC 3339 in UTC with microseconds, always of the same width.
fn stamp(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn unstamp(text: &str) -> Result<Timestamp, DecodeError> {
    text.parse().map_err(|_| DecodeError::Malformed)
}
