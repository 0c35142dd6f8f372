//! Writes one record under its mask: kept bytes as they came, the rest not at all.
//!
//! Owns: what is kept, dropped, marked and withheld. Every choice is a function of the mask and of kept
//! data where the rules allow it, so that answers that differ only in what is withheld come out equal (P4).
//! Must never: write a byte of a withheld element; leave anything in `out` when a record is withheld.
//! Recursion is bounded by `limits::JSON_DEPTH_MAX`. Look next: `values`, `bars`, `marker`, `tape::Mark`.

use super::bars::Bars;
use super::fault::Withheld;
use super::keys::{self, Form, Holds, Known, Meaning, Word};
use super::marker::{SUBSETTED, SUBSETTED_CODE, SUBSETTED_SYSTEM, write_marker};
use super::output::Output;
use super::plan::Planned;
use super::reference::{Bases, References};
use super::released::Released;
use super::tape::{Mark, Node};
use super::values::Value;
use super::{Bound, Emitted, Record, Verdict};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4;
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
    emit_with(bound, terms, record, &Released::default(), out)
}

/// The same of a contained record, with those contained records that leave.
fn emit_with(
    bound: &Bound<'_>,
    terms: Terms<'_>,
    record: usize,
    released: &Released<'_>,
    out: &mut Vec<u8>,
) -> Result<Emitted, Withheld> {
    let start = out.len();
    let names = terms.references.is_empty();
    let planned = if names { Planned::of(bound, record, terms.verdicts.get(record)) } else { None };
    if let Some(written) = planned.as_ref().and_then(|planned| planned.write(out)) {
        return Ok(written);
    }
    let mut writer = Writer { bound, terms, out: Output::new(out, planned.is_some()) };
    let written = writer.record(record, released);
    if written.is_err() {
        writer.out.cut(start);
    }
    let copies = writer.out.copied();
    if let (Some(planned), Ok(emitted), Some(copies)) = (planned, written, copies) {
        planned.learn(emitted, &copies, start, out);
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
    pub released: &'s Released<'s>,
}

/// What an object is to its record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Record,
    /// The record's own `meta`, which must say SUBSETTED.
    Meta,
    Inner,
}

/// What is to become of a member.
enum Fate {
    /// Its bytes as they are, its white space with them.
    Copied,
    Dropped,
    /// Value by value, at this place in the mask.
    Written,
}

/// Bytes of the input that are copied in one piece: members that stand side by side, with what is between them.
#[derive(Clone, Copy, Default)]
struct Run {
    from: usize,
    to: usize,
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
    pub form: &'static Form,
    /// The key of the element that holds it; none for a record.
    pub key: Option<&'static Known>,
    pub cursor: MaskCursor<'m>,
    pub role: Role,
}

pub(super) struct Writer<'w> {
    pub bound: &'w Bound<'w>,
    pub terms: Terms<'w>,
    pub out: Output<'w>,
}

impl<'w> Writer<'w> {
    /// Writes a record inside this one, or nothing that the caller keeps. `released` is the scope of a contained record.
    pub(super) fn inner(&mut self, record: usize, released: &Released<'_>) -> Result<Emitted, Withheld> {
        let (bound, terms) = (self.bound, self.terms);
        self.out.record(|out| emit_with(bound, terms, record, released, out))
    }

    fn record(&mut self, record: usize, released: &Released<'_>) -> Result<Emitted, Withheld> {
        let mask = self.mask(record)?;
        let found = self.bound.records().get(record).ok_or(Withheld::Verdict)?;
        let complete = self.complete(record);
        let whole = complete && self.all_inside(record, |mask, _| mask.is_total());
        let settled = if found.contained { None } else { Some(self.settle_contained(record)?) };
        let released = settled.as_ref().unwrap_or(released);
        let scope = Scope { complete, whole, contained: found.contained, released };
        let form = keys::form(r4::root(found.facts.resource_type)).ok_or(Withheld::Verdict)?;
        let object = Object { index: found.node, form, key: None, cursor: mask.cursor(), role: Role::Record };
        let node = self.bound.nodes().get(found.node);
        let kept = if whole && node.is_some_and(|node| self.straight(node, scope)) {
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
        let found = self.bound.records().get(record).ok_or(Withheld::Verdict)?;
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
        let inside = self.bound.records().iter().enumerate().skip(record + 1);
        let inside = inside.take_while(|(_, one)| one.container.is_some_and(|container| container >= record));
        let holds = |index: usize| self.release(index).is_ok_and(|(mask, complete)| so(mask, complete));
        holds(record) && inside.into_iter().all(|(index, _)| holds(index))
    }

    /// The contained records that will be written. One that falls away takes along the references to it,
    /// which may make another one fall; so they are tried until nothing changes.
    fn settle_contained(&mut self, record: usize) -> Result<Released<'w>, Withheld> {
        let mut released = self.candidates(record);
        for _ in 0..limits::CONTAINED_ROUNDS_MAX {
            let before = Released::of(self.bound, self.terms, released.clone());
            released.retain(|&one| {
                let start = self.out.len();
                let leaves = self.inner(one, &before).is_ok();
                self.out.cut(start);
                leaves
            });
            if released.len() == before.len() {
                return Ok(before);
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
        let inside = self.bound.records().iter().enumerate().skip(record + 1);
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
            self.out.cut(start);
            return Ok(false);
        }
        if tally.modifier {
            return Err(Withheld::Modifier);
        }
        self.tag(object, scope, &mut tally);
        if !self.mark_mandatory(object, &mut tally) {
            self.out.cut(start);
            return if object.role == Role::Record { Err(Withheld::Mandatory) } else { Ok(false) };
        }
        self.close(object.index);
        Ok(tally.kept > 0)
    }

    fn members(&mut self, object: Object<'w>, scope: Scope<'_>) -> Result<Tally, Withheld> {
        let fan = object.cursor.fan(object.form.structure);
        let bars = Bars::of(self.bound, self.terms, scope, object);
        let (mut tally, mut run, mut behind) = (Tally::default(), Run::default(), 0);
        for (index, node) in self.bound.view().children(object.index) {
            let before = std::mem::replace(&mut behind, node.end as usize);
            let Some(key) = node.key() else {
                if node.marks & Mark::ANCHOR != 0 {
                    self.run_on(node, before, &mut run, tally.written);
                    tally.written += 1;
                }
                continue;
            };
            let cursor = fan.child(key.bit, key.element);
            let outcome = match self.fate(object, node, key, cursor, &bars, scope) {
                Fate::Dropped => Outcome::Dropped,
                Fate::Copied => {
                    self.run_on(node, before, &mut run, tally.written);
                    Outcome::Kept
                }
                Fate::Written => {
                    self.flush(&mut run);
                    let before = self.out.len();
                    self.separate(tally.written);
                    let written = self.member(object, index, node, key, cursor, &bars, scope);
                    if written != Ok(Outcome::Kept) {
                        self.out.cut(before);
                    }
                    match written {
                        Err(Withheld::Modifier) => {
                            tally.modifier_inside = true;
                            Outcome::Dropped
                        }
                        other => other?,
                    }
                }
            };
            tally.count(object, key, cursor, outcome);
        }
        self.flush(&mut run);
        Ok(tally)
    }

    #[inline]
    fn fate(
        &self,
        object: Object<'w>,
        node: &Node,
        key: &'static Known,
        cursor: MaskCursor<'_>,
        bars: &Bars,
        scope: Scope<'_>,
    ) -> Fate {
        let whole = cursor.whole();
        let is_narrative = key.structure == self.bound.types.narrative;
        if (whole == Some(false) && node.marks & Mark::WINDS == 0)
            || (is_narrative && !scope.complete)
            || bars.bar(key.word)
        {
            return Fate::Dropped;
        }
        // Records are decided one by one.
        let special = key.holds == Holds::Resource
            || (carries_tag(object.role, key) && !scope.whole)
            || (bars.moves(key.word) && !key.twin);
        if whole == Some(true) && !special && self.straight(node, scope) {
            Fate::Copied
        } else {
            Fate::Written
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, taken out of a loop")]
    fn member(
        &mut self,
        object: Object<'w>,
        index: usize,
        node: &'w Node,
        key: &'static Known,
        cursor: MaskCursor<'w>,
        bars: &Bars,
        scope: Scope<'_>,
    ) -> Result<Outcome, Withheld> {
        self.lead(node);
        if key.structure == self.bound.types.extension && key.word == Word::Extension {
            return self.extensions(index, object.cursor, scope).map(Outcome::from);
        }
        if carries_tag(object.role, key) && !scope.whole {
            return self.tagged_member(object.role, index, key, cursor, scope);
        }
        if bars.moves(key.word) && !key.twin {
            self.location(index);
            return Ok(Outcome::from(cursor.keeps()));
        }
        let value = Value { owner: object.index, key, cursor, twin: key.twin };
        if key.element.many {
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
        key: &'static Known,
        cursor: MaskCursor<'w>,
        scope: Scope<'_>,
    ) -> Result<Outcome, Withheld> {
        if role == Role::Record {
            let form = keys::form(key.structure).ok_or(Withheld::Verdict)?;
            let meta = Object { index, form, key: Some(key), cursor, role: Role::Meta };
            return self.object(meta, scope).map(Outcome::from);
        }
        let value = Value { owner: index, key, cursor, twin: false };
        let more = if self.says_subsetted(index, cursor) { "" } else { SUBSETTED };
        self.array(index, value, scope, more).map(Outcome::from)
    }

    /// One of the tags that are kept is the one we would add.
    fn says_subsetted(&self, tags: usize, cursor: MaskCursor<'_>) -> bool {
        let view = self.bound.view();
        let kept = |name| cursor.child(name).keeps();
        let says = |at, word, wanted| view.says(at, word).is_some_and(|text| text == wanted);
        let is_ours = |at| says(at, Word::System, SUBSETTED_SYSTEM) && says(at, Word::Code, SUBSETTED_CODE);
        kept("system") && kept("code") && view.children(tags).any(|(at, _)| is_ours(at))
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
            self.out.words(part);
        }
    }

    /// Marks each mandatory element that was not kept. An element that the mask keeps whole is not
    /// missed if upstream did not send it. False if one cannot be marked.
    fn mark_mandatory(&mut self, object: Object<'_>, tally: &mut Tally) -> bool {
        let structure = object.form.structure;
        let fan = object.cursor.fan(structure);
        let mut missing = object.form.mandatory & !tally.emitted;
        while missing != 0 {
            let bit = missing.trailing_zeros();
            missing &= missing - 1;
            let place = u8::try_from(bit).ok().zip(r4::elements(structure).get(bit as usize));
            let Some((number, element)) = place else { return false };
            let present = tally.present >> bit & 1 == 1;
            if !present && fan.child(number, element).whole() == Some(true) {
                continue;
            }
            self.comma(tally);
            if !self.out.by(|out| write_marker(structure, element, self.bound.types, out)) {
                return false;
            }
        }
        true
    }

    /// An extension says something only by its value or by extensions of its own (R4, ext-1).
    fn is_hollow_extension(&self, object: Object<'_>, tally: &Tally) -> bool {
        object.form.meaning == Meaning::Extension && tally.emitted & u128::from(object.form.saying) == 0
    }

    /// The subtree may be copied as it stands, if the mask keeps all of it.
    fn straight(&self, node: &Node, scope: Scope<'_>) -> bool {
        let named = node.marks & Mark::NAMED != 0 && !self.terms.references.is_empty();
        let foreign = node.marks & Mark::FOREIGN != 0 && !scope.complete;
        node.marks & (Mark::LOOSE | Mark::MOVED) == 0 && !named && !foreign
    }

    fn bytes(&mut self, from: usize, to: usize) {
        self.out.copy(self.bound.text, from, to);
    }

    pub(super) fn copy(&mut self, index: usize) {
        if let Some(node) = self.bound.nodes().get(index) {
            self.bytes(node.start as usize, node.end as usize);
        }
    }

    /// Copies a member, together with the one before it if nothing was changed there. `before` is where the member
    /// before it ends, kept or not.
    #[inline(always)]
    fn run_on(&mut self, node: &Node, before: usize, run: &mut Run, written: usize) {
        if run.to == before && self.bound.text.as_bytes().get(before) == Some(&b',') && run.from < run.to {
            run.to = node.end as usize;
        } else {
            self.new_run(node, run, written);
        }
    }

    #[inline(never)]
    fn new_run(&mut self, node: &Node, run: &mut Run, written: usize) {
        self.flush(run);
        self.separate(written);
        *run = Run { from: space_before(self.bound.text, node.name()), to: node.end as usize };
    }

    #[inline]
    fn flush(&mut self, run: &mut Run) {
        let Run { from, to } = std::mem::take(run);
        if from < to {
            self.bytes(from, to);
        }
    }

    pub(super) fn copy_member(&mut self, node: &Node) {
        self.bytes(space_before(self.bound.text, node.name()), node.end as usize);
    }

    /// A member up to its value: white space, name, colon.
    pub(super) fn lead(&mut self, node: &Node) {
        self.bytes(space_before(self.bound.text, node.name()), node.start as usize);
    }

    /// A comma, unless nothing stands before it.
    pub(super) fn separate(&mut self, written: usize) {
        if written > 0 {
            self.out.push(b',');
        }
    }

    pub(super) fn next_item(&mut self, written: usize, node: &Node) {
        self.separate(written);
        let start = node.start as usize;
        self.bytes(space_before(self.bound.text, start), start);
    }

    /// The closing bracket of a container, with the white space before it.
    pub(super) fn close(&mut self, index: usize) {
        if let Some(node) = self.bound.nodes().get(index) {
            let end = node.end as usize;
            self.bytes(space_before(self.bound.text, end - 1), end);
        }
    }

    fn comma(&mut self, tally: &mut Tally) {
        self.separate(tally.written);
        tally.written += 1;
    }
}

impl Tally {
    #[inline]
    fn count(&mut self, object: Object<'_>, key: &Known, cursor: MaskCursor<'_>, outcome: Outcome) {
        let (kept, bit) = (outcome == Outcome::Kept, key.mask());
        self.orphaned |= outcome == Outcome::Orphaned;
        self.present |= bit;
        self.modifier |= key.element.modifier && (!kept || cursor.whole() != Some(true));
        if kept {
            self.written += 1;
            self.kept += 1;
            self.emitted |= bit;
            self.tagged |= carries_tag(object.role, key);
        }
    }
}

fn carries_tag(role: Role, key: &Known) -> bool {
    match role {
        Role::Record => key.word == Word::Meta,
        Role::Meta => key.word == Word::Tag,
        Role::Inner => false,
    }
}

/// Where the white space before this offset begins.
#[inline]
fn space_before(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let space = before.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    at - space
}
