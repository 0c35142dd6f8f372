//! The one byte encoding of audit records: JSON, versions 1 to 4.
//!
//! Owns: the versions, the split of large records into parts, and joining them again.
//! Must never: accept what it would not have written (unknown fields, another version, parts out of order);
//! change a byte without a new version (`tests` holds golden bytes).
//! Look next: `shape` for the fields, `pack` for the split, `docs/audit.md` for the same in prose.
//!
//! Version 2 is version 1 and what writes and streams need: the kind `intent`, and the fields `written`, `entry`
//! and `unit`. Version 3 is version 2 and more of the caller (`clientKind`, `binding`, `actors`) and why somebody was let in
//! (`basis`, `emergencies`). Version 4 is version 3 and the number of the policy set (`policyEpoch`). A record is
//! written in the lowest version that has what it uses, as it always was; so every record has exactly one encoding,
//! and a reader that knows an older version alone is told that it meets another.
//!
//! A decision whose released or written list is long is written as parts `1..=parts`. Part 1 has the head; every part
//! has version, kind, request id, time and its number, and carries some mask paths and some items of the lists.
//! Joining is concatenation: mask paths are appended to the mask with their index; an item with `more` is
//! completed by the item after it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::pack::{Body, pack};
use super::record::{Caller, Decision, Record, Released, Verdict, Written};
use super::shape::{
    ControlWire, DecisionWire, Head, ItemWire, OutcomeWire, Wire, count, stamp, text, unstamp,
};

/// The newest version of the encoding.
pub const VERSION: u8 = 4;

/// The version of records that tell more of the caller or of why somebody was let in, and no number of a policy set.
pub(super) const VERSION_WHY: u8 = 3;

/// The version of records that tell of a write, entry or unit, no more of the caller, and of no basis.
pub(super) const VERSION_WRITES: u8 = 2;

/// The version of records that tell of no write, entry or unit.
pub(super) const VERSION_READS: u8 = 1;

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
/// [`EncodeError::TooLarge`] when the released and written lists need too many parts.
pub fn encode(record: &Record) -> Result<Vec<Vec<u8>>, EncodeError> {
    match record {
        Record::Intent(decision) => encode_decision(Kind::Intent, decision),
        Record::Decision(decision) => encode_decision(Kind::of(decision.verdict), decision),
        Record::Outcome(outcome) => one(&Wire::Outcome(OutcomeWire::from_record(outcome))),
        Record::Control(control) => one(&Wire::Control(ControlWire::from_record(control))),
    }
}

fn one(wire: &Wire<'_>) -> Result<Vec<Vec<u8>>, EncodeError> {
    Ok(vec![write(wire)?])
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    serde_json::to_vec(value).map_err(|_| EncodeError::Unwritable)
}

/// How many bytes [`write`] gives, of which none is kept.
pub(super) fn length<T: Serialize>(value: &T) -> Result<usize, EncodeError> {
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, value).map_err(|_| EncodeError::Unwritable)?;
    Ok(counted.0)
}

struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The kinds of record that come in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Intent,
    Release,
    Refusal,
}

impl Kind {
    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Permit => Self::Release,
            Verdict::Refuse => Self::Refusal,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Intent | Self::Release => Verdict::Permit,
            Self::Refusal => Verdict::Refuse,
        }
    }

    fn wrap(self, part: DecisionWire<'_>) -> Wire<'_> {
        match self {
            Self::Intent => Wire::Intent(part),
            Self::Release => Wire::Release(part),
            Self::Refusal => Wire::Refusal(part),
        }
    }

    fn record(self, decision: Decision) -> Record {
        match self {
            Self::Intent => Record::Intent(Box::new(decision)),
            Self::Release | Self::Refusal => Record::Decision(Box::new(decision)),
        }
    }

    /// The one version `decision` is written in.
    fn version(self, decision: &Decision) -> u8 {
        if decision.policy_epoch.is_some() {
            return VERSION;
        }
        let because = !decision.basis.is_empty() || !decision.emergencies.is_empty();
        if because || decision.caller.as_ref().is_some_and(Caller::has_more) {
            return VERSION_WHY;
        }
        let is_plain = decision.written.is_empty() && decision.entry.is_none() && decision.unit.is_none();
        if is_plain && self != Self::Intent { VERSION_READS } else { VERSION_WRITES }
    }
}

fn encode_decision(kind: Kind, decision: &Decision) -> Result<Vec<Vec<u8>>, EncodeError> {
    let head = Head::from_record(decision);
    let bodies = pack(decision, write(&head)?.len())?;
    let parts = u16::try_from(bodies.len()).map_err(|_| EncodeError::TooLarge)?;
    let envelope = |(number, body): (u16, Body<'_>)| {
        write(&kind.wrap(DecisionWire {
            v: kind.version(decision),
            part: number,
            parts,
            request_id: text(&decision.request_id),
            time: stamp(decision.time),
            head: (number == 1).then(|| head.clone()),
            masks: body.masks,
            released: body.released,
            written: body.written,
        }))
    };
    (1..=parts).zip(bodies).map(envelope).collect()
}

/// One part of a decoded record.
#[derive(Debug)]
pub struct Part(Wire<'static>);

impl Part {
    /// Whether it is not the first of its record.
    fn continues(&self) -> bool {
        match &self.0 {
            Wire::Intent(part) | Wire::Release(part) | Wire::Refusal(part) => part.part > 1,
            Wire::Outcome(_) | Wire::Control(_) => false,
        }
    }
}

/// Reads one entry.
///
/// # Errors
/// When the bytes are not what [`encode`] writes in one of its versions. (Whether the parts of a record keep to
/// the version they name is seen when they are joined.)
pub fn decode(bytes: &[u8]) -> Result<Part, DecodeError> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
    let (version, is_known) = match &wire {
        Wire::Intent(part) => (part.v, (VERSION_WRITES..=VERSION).contains(&part.v)),
        Wire::Release(part) | Wire::Refusal(part) => (part.v, (VERSION_READS..=VERSION).contains(&part.v)),
        Wire::Outcome(outcome) => (outcome.v, outcome.v == outcome.version()),
        Wire::Control(control) => (control.v, control.v == VERSION_READS),
    };
    if !is_known {
        let is_ours = (VERSION_READS..=VERSION).contains(&version);
        return Err(if is_ours { DecodeError::Malformed } else { DecodeError::Version });
    }
    Ok(Part(wire))
}

/// Joins parts into records. The parts of one record follow each other in the trail. Where entries are withheld there is a gap
/// in their numbers: what was begun before it, and what goes on behind it, is no record any more, and no fault.
#[derive(Debug, Default)]
pub struct Assembly {
    open: Option<Partial>,
    /// The number that comes next.
    next: u64,
    /// Behind a gap, parts of a record whose beginning is in it.
    is_behind_gap: bool,
}

impl Assembly {
    /// Takes the entry at `sequence`; answers a record, with the sequence number of its first part, when
    /// this entry completes one.
    ///
    /// # Errors
    /// When a part is missing, repeated or of another record. The assembly is empty afterwards.
    pub fn push(&mut self, sequence: u64, part: Part) -> Result<Option<(u64, Record)>, DecodeError> {
        if sequence > self.next {
            (self.open, self.is_behind_gap) = (None, true);
        }
        self.next = sequence.saturating_add(1);
        if self.is_behind_gap && part.continues() {
            return Ok(None);
        }
        self.is_behind_gap = false;
        let open = self.open.take();
        match (part.0, open) {
            (Wire::Outcome(outcome), None) => Ok(Some((sequence, Record::Outcome(outcome.into_record()?)))),
            (Wire::Control(control), None) => Ok(Some((sequence, Record::Control(control.into_record()?)))),
            (Wire::Intent(part), open) => self.join(sequence, Kind::Intent, part, open),
            (Wire::Release(part), open) => self.join(sequence, Kind::Release, part, open),
            (Wire::Refusal(part), open) => self.join(sequence, Kind::Refusal, part, open),
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
        kind: Kind,
        part: DecisionWire<'static>,
        open: Option<Partial>,
    ) -> Result<Option<(u64, Record)>, DecodeError> {
        let (number, parts) = (part.part, part.parts);
        let mut partial = match open {
            None if number == 1 => Partial::begin(sequence, kind, &part)?,
            Some(partial) if partial.expects(kind, &part) => partial,
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
    kind: Kind,
    version: u8,
    next: u16,
    parts: u16,
    decision: Decision,
    request_id: String,
    /// How many released and written items the head announced.
    announced: (u64, Option<u64>),
    masks: BTreeMap<u32, Vec<String>>,
    released: Vec<ItemWire<'static>>,
    written: Vec<ItemWire<'static>>,
}

impl Partial {
    fn begin(sequence: u64, kind: Kind, part: &DecisionWire<'_>) -> Result<Self, DecodeError> {
        let head = part.head.as_ref().ok_or(DecodeError::Malformed)?;
        let time = unstamp(&part.time)?;
        Ok(Self {
            sequence,
            kind,
            version: part.v,
            next: 1,
            parts: part.parts,
            decision: head.to_record(time, part.request_id.clone(), kind.verdict()),
            request_id: part.request_id.clone(),
            announced: (head.released, head.written),
            masks: BTreeMap::new(),
            released: Vec::new(),
            written: Vec::new(),
        })
    }

    fn expects(&self, kind: Kind, part: &DecisionWire<'_>) -> bool {
        part.part == self.next
            && part.parts == self.parts
            && part.request_id == self.request_id
            && part.head.is_none()
            && kind == self.kind
            && part.v == self.version
    }

    fn take(&mut self, part: DecisionWire<'static>) -> Result<(), DecodeError> {
        self.next = self.next.checked_add(1).ok_or(DecodeError::Malformed)?;
        for mask in part.masks {
            self.masks.entry(mask.n).or_default().extend(mask.kept);
        }
        self.released.extend(part.released);
        self.written.extend(part.written);
        Ok(())
    }

    fn finish(self) -> Result<(u64, Record), DecodeError> {
        let Self { sequence, kind, version, mut decision, announced, masks, released, written, .. } = self;
        let masks: Masks = masks.into_iter().map(|(n, kept)| (n, Arc::new(kept))).collect();
        decision.released = whole_items(released, &masks)?.into_iter().map(Item::released).collect();
        decision.written = whole_items(written, &masks)?.into_iter().map(Item::written).collect();
        let written = (!decision.written.is_empty()).then(|| count(decision.written.len()));
        let counted = (count(decision.released.len()), written);
        if counted != announced || version != kind.version(&decision) {
            return Err(DecodeError::Malformed);
        }
        Ok((sequence, kind.record(decision)))
    }
}

type Masks = BTreeMap<u32, Arc<Vec<String>>>;

/// An item of either list, its continuations joined.
struct Item {
    reference: String,
    version: Option<String>,
    patients: BTreeSet<String>,
    mask: Arc<Vec<String>>,
}

impl Item {
    fn released(self) -> Released {
        let Self { reference, version, patients, mask } = self;
        Released { reference, version, patients, mask }
    }

    fn written(self) -> Written {
        let Self { reference, version, patients, mask } = self;
        Written { reference, version, patients, mask }
    }
}

fn whole_items(wires: Vec<ItemWire<'_>>, masks: &Masks) -> Result<Vec<Item>, DecodeError> {
    let mut whole = Vec::new();
    let mut open: Option<Item> = None;
    for wire in wires {
        let mut item = match open.take() {
            Some(begun) if begun.reference == wire.reference => begun,
            Some(_) => return Err(DecodeError::Malformed),
            None => Item {
                reference: wire.reference.into_owned(),
                version: wire.version.map(Cow::into_owned),
                patients: BTreeSet::new(),
                mask: masks.get(&wire.mask).cloned().ok_or(DecodeError::Malformed)?,
            },
        };
        item.patients.extend(wire.patients.into_iter().map(Cow::into_owned));
        if wire.more {
            open = Some(item);
        } else {
            whole.push(item);
        }
    }
    if open.is_some() { Err(DecodeError::Malformed) } else { Ok(whole) }
}
