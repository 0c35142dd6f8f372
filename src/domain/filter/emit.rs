//! Writes one record under its mask: kept bytes as they came, the rest not at all.
//!
//! Owns: what is kept, dropped, marked and withheld. Every choice is a function of the mask and of kept
//! data where the rules allow it, so that answers that differ only in what is withheld come out equal (P4).
//! Must never: write a byte of a withheld element; leave anything in `out` when a record is withheld.
//! Recursion is bounded by `limits::JSON_DEPTH_MAX`. Look next: `values`, `bars`, `marker`, `bind::Mark`.

use super::bars::Bars;
use super::bind::{Bound, Mark};
use super::fault::Withheld;
use super::marker::{SUBSETTED, SUBSETTED_CODE, SUBSETTED_SYSTEM, write_marker};
use super::reference::{Bases, References};
use super::scan::{Node, children};
use super::values::Value;
use super::{Emitted, Record, Verdict};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, Element, Structure};
use crate::limits;

/// On which terms records leave.
#[derive(Clone, Copy)]
pub(super) struct Terms<'t> {
    pub verdicts: &'t [Verdict<'t>],
    pub references: &'t References,
    pub bases: &'t Bases<'t>,
}

/// Appends one record and what it contains.
pub(super) fn emit(
    bound: &Bound<'_>,
    terms: Terms<'_>,
    record: usize,
    out: &mut Vec<u8>,
) -> Result<Emitted, Withheld> {
    let start = out.len();
    let mut writer = Writer { bound, terms, out };
    let written = writer.record(record, &[]);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// What is the same for everything inside one record.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    /// Policy withholds nothing of it: see the room's header.
    pub complete: bool,
    /// It leaves whole: complete, and all of it was asked for.
    pub whole: bool,
    /// It stands in `contained`.
    pub contained: bool,
    /// Contained records that leave with it; what `#id` may point to.
    pub released: &'s [usize],
}

/// What an object is to its record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Record,
    /// The record's own `meta`, which must say SUBSETTED.
    Meta,
    Inner,
}

/// What became of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept,
    Dropped,
    /// A single resource was withheld; its parent goes too.
    Orphaned,
}

impl From<bool> for Outcome {
    fn from(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Dropped }
    }
}

/// How the members of one object fared.
#[derive(Default)]
struct Tally {
    /// Written, `resourceType` included.
    written: usize,
    /// Elements kept.
    kept: usize,
    /// A modifier was there and not wholly kept.
    modifier: bool,
    /// The same somewhere inside a member that would have been kept.
    modifier_inside: bool,
    orphaned: bool,
    /// Bit per element of the structure, in official order: was in the input, and was kept.
    present: u128,
    emitted: u128,
    /// The member we must add to (`meta` of the record, `tag` of its meta) was written.
    tagged: bool,
}

/// One object on its way out.
#[derive(Clone, Copy)]
pub(super) struct Object<'m> {
    pub index: usize,
    pub structure: Structure,
    /// The element that holds it; none for a record.
    pub element: Option<&'static Element>,
    pub cursor: MaskCursor<'m>,
    pub role: Role,
}

pub(super) struct Writer<'w> {
    pub bound: &'w Bound<'w>,
    pub terms: Terms<'w>,
    pub out: &'w mut Vec<u8>,
}

impl<'w> Writer<'w> {
    /// Writes a record, or nothing that the caller keeps. `released` is the scope of a contained record.
    pub(super) fn record(&mut self, record: usize, released: &[usize]) -> Result<Emitted, Withheld> {
        let mask = self.mask(record)?;
        let found = self.bound.records.get(record).ok_or(Withheld::Verdict)?;
        let complete = self.complete(record);
        let whole = complete && self.all_inside(record, |mask, _| mask.is_total());
        let settled = if found.contained { None } else { Some(self.settle_contained(record)?) };
        let released = settled.as_deref().unwrap_or(released);
        let scope = Scope { complete, whole, contained: found.contained, released };
        let structure = r4::root(found.facts.resource_type);
        let cursor = mask.cursor();
        let object = Object { index: found.node, structure, element: None, cursor, role: Role::Record };
        let kept = if whole && self.straight(found.node) {
            self.copy(found.node);
            true
        } else {
            self.object(object, scope)?
        };
        Ok(Emitted { kept, subsetted: !whole })
    }

    fn mask(&self, record: usize) -> Result<&'w Mask, Withheld> {
        self.release(record).map(|(mask, _)| mask)
    }

    /// The mask of a record, and whether policy's own is total.
    fn release(&self, record: usize) -> Result<(&'w Mask, bool), Withheld> {
        let found = self.bound.records.get(record).ok_or(Withheld::Verdict)?;
        match self.terms.verdicts.get(record) {
            Some(&Verdict::Release { mask, complete })
                if mask.resource_type() == found.facts.resource_type =>
            {
                Ok((mask, complete))
            }
            _ => Err(Withheld::Verdict),
        }
    }

    /// Everything of the record and of what it contains may leave, and no reference hides a name.
    fn complete(&self, record: usize) -> bool {
        self.terms.references.is_empty() && self.all_inside(record, |_, complete| complete)
    }

    /// It is so of the record and of all it contains. What is inside a record follows it without a gap.
    fn all_inside(&self, record: usize, so: impl Fn(&Mask, bool) -> bool) -> bool {
        let inside = self.bound.records.iter().enumerate().skip(record + 1);
        let inside = inside.take_while(|(_, one)| one.container.is_some_and(|container| container >= record));
        let holds = |index: usize| self.release(index).is_ok_and(|(mask, complete)| so(mask, complete));
        holds(record) && inside.into_iter().all(|(index, _)| holds(index))
    }

    /// The contained records that will be written. One that falls away takes along the references to it,
    /// which may make another one fall; so they are tried until nothing changes.
    fn settle_contained(&mut self, record: usize) -> Result<Vec<usize>, Withheld> {
        let mut released = self.candidates(record);
        for _ in 0..limits::CONTAINED_ROUNDS_MAX {
            let before = released.clone();
            released.retain(|&one| {
                let start = self.out.len();
                let leaves = self.record(one, &before).is_ok();
                self.out.truncate(start);
                leaves
            });
            if released.len() == before.len() {
                return Ok(released);
            }
        }
        Err(Withheld::Contained)
    }

    /// Contained records whose verdict and whose container's policy let them out, whether the client asked for them
    /// or not: what refers to one of them is kept either way. What they contain in turn
    /// never leaves: R4 does not allow it (dom-2).
    fn candidates(&self, record: usize) -> Vec<usize> {
        if !self.mask(record).is_ok_and(Mask::may_contain) {
            return Vec::new();
        }
        let inside = self.bound.records.iter().enumerate().skip(record + 1);
        let inside = inside.take_while(|(_, one)| one.container.is_some_and(|container| container >= record));
        let leaves = |index: usize, one: &Record| {
            one.contained && one.container == Some(record) && self.mask(index).is_ok()
        };
        inside.filter(|(index, one)| leaves(*index, one)).map(|(index, _)| index).collect()
    }

    /// Writes an object, or nothing if nothing of it is kept. A record is always written.
    pub(super) fn object(&mut self, object: Object<'w>, scope: Scope<'_>) -> Result<bool, Withheld> {
        let start = self.out.len();
        self.out.push(b'{');
        let mut tally = self.members(object, scope)?;
        // What goes with its only resource takes its modifiers along, however deep they stand.
        if tally.modifier_inside && !tally.orphaned {
            return Err(Withheld::Modifier);
        }
        let vanishes = object.role != Role::Record && tally.kept == 0;
        if vanishes || tally.orphaned || self.is_hollow_extension(object, &tally) {
            self.out.truncate(start);
            return Ok(false);
        }
        if tally.modifier {
            return Err(Withheld::Modifier);
        }
        self.tag(object, scope, &mut tally);
        if !self.mark_mandatory(object, &mut tally) {
            self.out.truncate(start);
            return if object.role == Role::Record { Err(Withheld::Mandatory) } else { Ok(false) };
        }
        self.close(object.index);
        Ok(tally.kept > 0)
    }

    fn members(&mut self, object: Object<'w>, scope: Scope<'_>) -> Result<Tally, Withheld> {
        let bound = self.bound;
        let bars =
            Bars::of(bound, self.terms, scope, object.index, object.structure, object.element, object.cursor);
        let mut tally = Tally::default();
        for (index, node) in children(&bound.nodes, object.index) {
            let before = self.out.len();
            if tally.written > 0 {
                self.out.push(b',');
            }
            if node.marks & Mark::ANCHOR != 0 {
                self.copy_member(node);
                tally.written += 1;
                continue;
            }
            let outcome = match self.member(object, index, node, &bars, scope) {
                Err(Withheld::Modifier) => {
                    tally.modifier_inside = true;
                    Outcome::from(false)
                }
                other => other?,
            };
            if outcome != Outcome::Kept {
                self.out.truncate(before);
            }
            count(&mut tally, object, node, outcome);
        }
        Ok(tally)
    }

    fn member(
        &mut self,
        object: Object<'w>,
        index: usize,
        node: &'w Node,
        bars: &Bars,
        scope: Scope<'_>,
    ) -> Result<Outcome, Withheld> {
        let (Some(element), Some(structure)) = (node.element, node.structure) else {
            return Ok(Outcome::Dropped);
        };
        let types = self.bound.types;
        let cursor = step(object.cursor, object.structure, element);
        let narrative = structure == types.narrative && !scope.complete;
        if structure == types.extension && element.name == "extension" {
            self.lead(node);
            return self.extensions(index, object.cursor, scope).map(Outcome::from);
        }
        let nothing = cursor.whole() == Some(false) && node.marks & Mark::WINDS == 0;
        if nothing || narrative || bars.bar(element.name) {
            return Ok(Outcome::Dropped);
        }
        if carries_tag(object.role, element) && !scope.whole {
            self.lead(node);
            return self.tagged_member(object.role, index, element, structure, cursor, scope);
        }
        let twin = node.marks & Mark::TWIN != 0;
        if bars.moves(element.name) && !twin {
            self.lead(node);
            self.location(index);
            return Ok(Outcome::from(cursor.keeps()));
        }
        if cursor.whole() == Some(true) && self.straight(index) {
            self.copy_member(node);
            return Ok(Outcome::Kept);
        }
        self.lead(node);
        let value =
            Value { owner: object.index, element, structure, cursor, twin: node.marks & Mark::TWIN != 0 };
        if element.many {
            self.array(index, value, scope, "").map(Outcome::from)
        } else {
            self.value(index, value, scope)
        }
    }

    /// `meta` of a record that is not whole, or `tag` of that meta.
    fn tagged_member(
        &mut self,
        role: Role,
        index: usize,
        element: &'static Element,
        structure: Structure,
        cursor: MaskCursor<'w>,
        scope: Scope<'_>,
    ) -> Result<Outcome, Withheld> {
        if role == Role::Record {
            let meta = Object { index, structure, element: Some(element), cursor, role: Role::Meta };
            return self.object(meta, scope).map(Outcome::from);
        }
        let value = Value { owner: index, element, structure, cursor, twin: false };
        let more = if self.says_subsetted(index, cursor) { "" } else { SUBSETTED };
        self.array(index, value, scope, more).map(Outcome::from)
    }

    /// One of the tags that are kept is the one we would add.
    fn says_subsetted(&self, tags: usize, cursor: MaskCursor<'_>) -> bool {
        let kept = |name| cursor.child(name).keeps();
        let says = |at, name, wanted| self.bound.says(at, name).is_some_and(|text| text == wanted);
        let is_ours = |at| says(at, "system", SUBSETTED_SYSTEM) && says(at, "code", SUBSETTED_CODE);
        kept("system") && kept("code") && children(&self.bound.nodes, tags).any(|(at, _)| is_ours(at))
    }

    /// Says SUBSETTED at the end of a record without meta, or of its meta without tags.
    fn tag(&mut self, object: Object<'_>, scope: Scope<'_>, tally: &mut Tally) {
        let (opening, closing) = match object.role {
            Role::Record => (r#""meta":{"tag":["#, "]}"),
            Role::Meta => (r#""tag":["#, "]"),
            Role::Inner => return,
        };
        if scope.whole || tally.tagged {
            return;
        }
        self.comma(tally);
        for part in [opening, SUBSETTED, closing] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// Marks each mandatory element that was not kept. An element that the mask keeps whole is not
    /// missed if upstream did not send it. False if one cannot be marked.
    fn mark_mandatory(&mut self, object: Object<'_>, tally: &mut Tally) -> bool {
        let mandatory =
            r4::elements(object.structure).iter().enumerate().filter(|(_, element)| element.min > 0);
        for (bit, element) in mandatory {
            let (present, emitted) = (tally.present >> bit & 1 == 1, tally.emitted >> bit & 1 == 1);
            let withheld = present || step(object.cursor, object.structure, element).whole() != Some(true);
            if emitted || !withheld {
                continue;
            }
            self.comma(tally);
            if !write_marker(object.structure, element, self.bound.types, self.out) {
                return false;
            }
        }
        true
    }

    /// An extension says something only by its value or by extensions of its own (R4, ext-1).
    fn is_hollow_extension(&self, object: Object<'_>, tally: &Tally) -> bool {
        let says = |(bit, element): (usize, &Element)| {
            ["value", "extension"].contains(&element.name) && tally.emitted >> bit & 1 == 1
        };
        object.structure == self.bound.types.extension
            && !r4::elements(object.structure).iter().enumerate().any(says)
    }

    /// The subtree may be copied as it stands, if the mask keeps all of it.
    fn straight(&self, index: usize) -> bool {
        let marks = self.bound.nodes.get(index).map_or(Mark::LOOSE, |node| node.marks);
        let named = marks & Mark::NAMED != 0 && !self.terms.references.is_empty();
        marks & (Mark::LOOSE | Mark::MOVED) == 0 && !named
    }

    fn bytes(&mut self, from: usize, to: usize) {
        self.out.extend_from_slice(self.bound.body.as_bytes().get(from..to).unwrap_or_default());
    }

    pub(super) fn copy(&mut self, index: usize) {
        if let Some(node) = self.bound.nodes.get(index) {
            self.bytes(node.start as usize, node.end as usize);
        }
    }

    pub(super) fn copy_member(&mut self, node: &Node) {
        self.bytes(space_before(self.bound.body, node.key as usize - 1), node.end as usize);
    }

    /// A member up to its value: white space, name, colon.
    pub(super) fn lead(&mut self, node: &Node) {
        self.bytes(space_before(self.bound.body, node.key as usize - 1), node.start as usize);
    }

    pub(super) fn next_item(&mut self, written: usize, node: &Node) {
        if written > 0 {
            self.out.push(b',');
        }
        let start = node.start as usize;
        self.bytes(space_before(self.bound.body, start), start);
    }

    /// The closing bracket of a container, with the white space before it.
    pub(super) fn close(&mut self, index: usize) {
        if let Some(node) = self.bound.nodes.get(index) {
            let end = node.end as usize;
            self.bytes(space_before(self.bound.body, end - 1), end);
        }
    }

    fn comma(&mut self, tally: &mut Tally) {
        if tally.written > 0 {
            self.out.push(b',');
        }
        tally.written += 1;
    }
}

fn count(tally: &mut Tally, object: Object<'_>, node: &Node, outcome: Outcome) {
    tally.orphaned |= outcome == Outcome::Orphaned;
    let Some(element) = node.element else { return };
    let kept = outcome == Outcome::Kept;
    let position = r4::elements(object.structure).iter().position(|one| one.name == element.name);
    let bit =
        position.and_then(|at| u32::try_from(at).ok()).and_then(|at| 1_u128.checked_shl(at)).unwrap_or(0);
    tally.present |= bit;
    tally.modifier |=
        element.modifier && (!kept || step(object.cursor, object.structure, element).whole() != Some(true));
    if kept {
        tally.written += 1;
        tally.kept += 1;
        tally.emitted |= bit;
        tally.tagged |= carries_tag(object.role, element);
    }
}

fn carries_tag(role: Role, element: &Element) -> bool {
    match role {
        Role::Record => element.name == "meta",
        Role::Meta => element.name == "tag",
        Role::Inner => false,
    }
}

/// The cursor on a child element. A content reference continues where its content is defined; where
/// that is not around it (`Observation.component.referenceRange`), it must be kept here as well.
pub(super) fn step<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
    let here = cursor.child(element.name);
    let Some(path) = element.rewind else { return here };
    let around = r4::type_name(owner).strip_prefix(path);
    let recursive = around.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if recursive || here.keeps() { cursor.rewind(path) } else { here }
}

/// Where the white space before this offset begins.
fn space_before(body: &str, at: usize) -> usize {
    let before = body.as_bytes().get(..at).unwrap_or_default();
    let space = before.iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    at - space
}
