//! Filling parts: a long list of records is cut into entries that fit.
//!
//! Owns: the smallest pieces a list is cut into, and which part each goes to.
//! Must never: cut a released or written item so that its patients could be taken for another's.
//! Look next: `wire`, which puts an envelope around each part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::Decision;
use super::shape::{ItemWire, MaskWire, text};
use super::text::bound;
use super::wire::{EncodeError, length};
use crate::limits::{
    RECORD_ITEM_BYTES_MAX, RECORD_ITEM_PATIENTS_MAX, RECORD_PART_BYTES_MAX, RECORD_PARTS_MAX,
    RECORD_TEXT_BYTES_MAX,
};

/// Which list of a decision an item stands in.
#[derive(Clone, Copy)]
enum List {
    Released,
    Written,
}

/// The smallest pieces the lists can be cut into.
enum Piece<'d> {
    Mask(u32, String),
    EmptyMask(u32),
    Item(List, ItemWire<'d>),
}

/// What both kinds of item have.
struct Listed<'d> {
    list: List,
    reference: &'d str,
    version: Option<&'d str>,
    patients: &'d BTreeSet<String>,
    mask: &'d Arc<Vec<String>>,
}

fn listed(decision: &Decision) -> impl Iterator<Item = Listed<'_>> {
    let released = decision.released.iter().map(|item| Listed {
        list: List::Released,
        reference: &item.reference,
        version: item.version.as_deref(),
        patients: &item.patients,
        mask: &item.mask,
    });
    let written = decision.written.iter().map(|item| Listed {
        list: List::Written,
        reference: &item.reference,
        version: item.version.as_deref(),
        patients: &item.patients,
        mask: &item.mask,
    });
    released.chain(written)
}

fn pieces(decision: &Decision) -> Vec<Piece<'_>> {
    let mut numbers: BTreeMap<&Vec<String>, u32> = BTreeMap::new();
    let mut pieces = Vec::with_capacity(decision.released.len() + decision.written.len());
    // Most items share the mask of the one before them.
    let mut last: Option<(&Arc<Vec<String>>, u32)> = None;
    for listed in listed(decision) {
        if let Some((_, number)) = last.filter(|(mask, _)| Arc::ptr_eq(mask, listed.mask)) {
            push_items(&listed, number, &mut pieces);
            continue;
        }
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(listed.mask).or_insert_with(|| {
            if listed.mask.is_empty() {
                pieces.push(Piece::EmptyMask(next));
            }
            pieces.extend(listed.mask.iter().map(|path| Piece::Mask(next, text(path))));
            next
        });
        last = Some((listed.mask, number));
        push_items(&listed, number, &mut pieces);
    }
    pieces
}

fn push_items<'d>(listed: &Listed<'d>, mask: u32, pieces: &mut Vec<Piece<'d>>) {
    let mut patients = listed.patients.iter().map(|id| bound(id, RECORD_ITEM_BYTES_MAX)).peekable();
    loop {
        let chunk = patients.by_ref().take(RECORD_ITEM_PATIENTS_MAX).collect();
        let wire = ItemWire {
            reference: bound(listed.reference, RECORD_TEXT_BYTES_MAX),
            version: listed.version.map(|version| bound(version, RECORD_ITEM_BYTES_MAX)),
            patients: chunk,
            mask,
            more: patients.peek().is_some(),
        };
        let is_last = !wire.more;
        pieces.push(Piece::Item(listed.list, wire));
        if is_last {
            return;
        }
    }
}

/// The lists of `decision` cut into parts, the first of which leaves room for a head of `head_bytes`.
pub(super) fn pack(decision: &Decision, head_bytes: usize) -> Result<Vec<Body<'_>>, EncodeError> {
    let mut packer = Packer::new(head_bytes);
    for piece in pieces(decision) {
        packer.add(piece)?;
    }
    Ok(packer.bodies)
}

/// What one part carries besides the envelope.
#[derive(Default)]
pub(super) struct Body<'d> {
    pub(super) masks: Vec<MaskWire>,
    pub(super) released: Vec<ItemWire<'d>>,
    pub(super) written: Vec<ItemWire<'d>>,
}

/// Fills parts one after the other.
struct Packer<'d> {
    bodies: Vec<Body<'d>>,
    room: usize,
}

/// Version, kind, part numbers, request id, time and brackets: under 800 bytes since the id is bounded.
const ENVELOPE_BYTES: usize = RECORD_TEXT_BYTES_MAX + 300;

impl<'d> Packer<'d> {
    fn new(head_bytes: usize) -> Self {
        let room = RECORD_PART_BYTES_MAX.saturating_sub(ENVELOPE_BYTES).saturating_sub(head_bytes);
        Self { bodies: vec![Body::default()], room }
    }

    fn add(&mut self, piece: Piece<'d>) -> Result<(), EncodeError> {
        let cost = match &piece {
            Piece::Mask(_, path) => length(path)? + 32,
            Piece::EmptyMask(_) => 32,
            Piece::Item(_, item) => length(item)? + 1,
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

impl<'d> Body<'d> {
    fn push(&mut self, piece: Piece<'d>) {
        match piece {
            Piece::Item(List::Released, item) => self.released.push(item),
            Piece::Item(List::Written, item) => self.written.push(item),
            Piece::EmptyMask(n) => self.masks.push(MaskWire { n, kept: Vec::new() }),
            Piece::Mask(n, path) => match self.masks.last_mut() {
                Some(mask) if mask.n == n => mask.kept.push(path),
                _ => self.masks.push(MaskWire { n, kept: vec![path] }),
            },
        }
    }
}
