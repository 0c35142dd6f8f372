//! Filling parts: a long list of records is cut into entries that fit.
//!
//! Owns: the smallest pieces a list is cut into, and which part each goes to.
//! Must never: cut a released or written item so that its patients could be taken for another's.
//! Look next: `wire`, which puts an envelope around each part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::Decision;
use super::shape::{ItemWire, MaskWire, item, text};
use super::wire::{EncodeError, write};
use crate::limits::{
    RECORD_ITEM_PATIENTS_MAX, RECORD_PART_BYTES_MAX, RECORD_PARTS_MAX, RECORD_TEXT_BYTES_MAX,
};

/// Which list of a decision an item stands in.
#[derive(Clone, Copy)]
enum List {
    Released,
    Written,
}

/// The smallest pieces the lists can be cut into.
enum Piece {
    Mask(u32, String),
    EmptyMask(u32),
    Item(List, ItemWire),
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

fn pieces(decision: &Decision) -> Vec<Piece> {
    let mut numbers: BTreeMap<&Vec<String>, u32> = BTreeMap::new();
    let mut pieces = Vec::new();
    for listed in listed(decision) {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(listed.mask).or_insert_with(|| {
            if listed.mask.is_empty() {
                pieces.push(Piece::EmptyMask(next));
            }
            pieces.extend(listed.mask.iter().map(|path| Piece::Mask(next, text(path))));
            next
        });
        push_items(&listed, number, &mut pieces);
    }
    pieces
}

fn push_items(listed: &Listed<'_>, mask: u32, pieces: &mut Vec<Piece>) {
    let patients: Vec<String> = listed.patients.iter().map(|id| item(id)).collect();
    let mut chunks = patients.chunks(RECORD_ITEM_PATIENTS_MAX).peekable();
    let mut chunk: &[String] = chunks.next().unwrap_or_default();
    loop {
        let next = chunks.next();
        let wire = ItemWire {
            reference: text(listed.reference),
            version: listed.version.map(item),
            patients: chunk.to_vec(),
            mask,
            more: next.is_some(),
        };
        pieces.push(Piece::Item(listed.list, wire));
        let Some(next) = next else { return };
        chunk = next;
    }
}

/// The lists of `decision` cut into parts, the first of which leaves room for a head of `head_bytes`.
pub(super) fn pack(decision: &Decision, head_bytes: usize) -> Result<Vec<Body>, EncodeError> {
    let mut packer = Packer::new(head_bytes);
    for piece in pieces(decision) {
        packer.add(piece)?;
    }
    Ok(packer.bodies)
}

/// What one part carries besides the envelope.
#[derive(Default)]
pub(super) struct Body {
    pub(super) masks: Vec<MaskWire>,
    pub(super) released: Vec<ItemWire>,
    pub(super) written: Vec<ItemWire>,
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
            Piece::Item(_, item) => write(item)?.len() + 1,
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
