//! Writes the values of one member: arrays, primitives with their twins, extensions, inner records.
//!
//! Owns: the step between a primitive's array and its twin's, and what single values need beyond copying.
//! Must never: decide on members; `emit` has done that.
//! Look next: `emit`.

use super::emit::{Object, Outcome, Role, Scope, Writer};
use super::fault::Withheld;
use super::keys::{self, Holds, Known, Word};
use super::tape::{Children, Node, Shape};
use super::{facts, text};
use crate::domain::fhir::mask::MaskCursor;

/// A value of an element, wherever it stands in its member.
#[derive(Clone, Copy)]
pub(super) struct Value<'m> {
    /// The object that holds the member.
    pub owner: usize,
    pub key: &'static Known,
    pub cursor: MaskCursor<'m>,
    pub twin: bool,
}

impl<'w> Writer<'w> {
    pub(super) fn array(
        &mut self,
        index: usize,
        value: Value<'w>,
        scope: Scope<'_>,
        more: &str,
    ) -> Result<bool, Withheld> {
        let bound = self.bound;
        if value.twin {
            return self.twins(index, value, scope);
        }
        let mut twins = if value.key.is_primitive() { self.other_half(value, true) } else { None };
        self.out.push(b'[');
        let mut written = 0;
        for (item, node) in bound.view().children(index) {
            let twin = twins.as_mut().and_then(Iterator::next);
            let before = self.out.len();
            self.next_item(written, node);
            let kept = if node.shape == Shape::Null {
                self.copy(item);
                self.survives(twin.map(|(twin, _)| twin), value, scope)?
            } else {
                self.value(item, value, scope)? == Outcome::Kept
            };
            if kept {
                written += 1;
            } else {
                self.out.cut(before);
            }
        }
        if written > 0 && !more.is_empty() {
            self.out.push(b',');
            self.out.words(more);
        }
        self.close(index);
        Ok(written > 0)
    }

    /// The twins of a repeated primitive, kept in step with its values by nulls (R4 JSON, section 2.6.2.3).
    /// A place that has neither value nor twin left goes from both arrays.
    fn twins(&mut self, index: usize, value: Value<'w>, scope: Scope<'_>) -> Result<bool, Withheld> {
        let bound = self.bound;
        let mut values = self.other_half(value, false);
        let (mut written, mut any) = (0, false);
        self.out.push(b'[');
        for (item, node) in bound.view().children(index) {
            let beside = values.as_mut().and_then(Iterator::next);
            let before = self.out.len();
            self.next_item(written, node);
            let start = self.out.len();
            if self.twin(item, value.cursor, scope)? {
                any = true;
                written += 1;
            } else if beside.is_some_and(|(_, node)| node.shape != Shape::Null) {
                self.out.cut(start);
                self.out.words("null");
                written += 1;
            } else {
                self.out.cut(before);
            }
        }
        self.close(index);
        Ok(any)
    }

    /// The items of the other half of a repeated primitive: its values, or its twins.
    fn other_half(&self, value: Value<'_>, twin: bool) -> Option<Children<'w>> {
        let bound = self.bound;
        let wanted = |node: &Node| {
            let same = |key: &Known| {
                key.twin == twin && key.bit == value.key.bit && key.structure == value.key.structure
            };
            node.key().is_some_and(same)
        };
        let half = bound.view().children(value.owner).find(|(_, node)| wanted(node));
        half.map(|(at, _)| bound.view().children(at))
    }

    /// A place without a value stays if its twin does.
    fn survives(
        &mut self,
        twin: Option<usize>,
        value: Value<'w>,
        scope: Scope<'_>,
    ) -> Result<bool, Withheld> {
        let Some(twin) = twin else { return Ok(false) };
        let start = self.out.len();
        let survives = self.twin(twin, value.cursor, scope)?;
        self.out.cut(start);
        Ok(survives)
    }

    pub(super) fn value(
        &mut self,
        index: usize,
        value: Value<'w>,
        scope: Scope<'_>,
    ) -> Result<Outcome, Withheld> {
        let kept = match value.key.holds {
            Holds::Text | Holds::Number | Holds::Boolean | Holds::Twin if !value.cursor.keeps() => false,
            Holds::Twin => self.twin(index, value.cursor, scope)?,
            Holds::Text | Holds::Number | Holds::Boolean => {
                self.copy(index);
                true
            }
            Holds::Object(_) => {
                let form = keys::form(value.key.structure).ok_or(Withheld::Verdict)?;
                let (key, cursor) = (Some(value.key), value.cursor);
                self.object(Object { index, form, key, cursor, role: Role::Inner }, scope)?
            }
            Holds::Resource if !value.cursor.keeps() => false,
            Holds::Resource => return Ok(self.inner_record(index, value.key, scope)),
        };
        Ok(Outcome::from(kept))
    }

    /// A resource inside the record, by its own verdict. That it stays does not hold the container back.
    fn inner_record(&mut self, index: usize, key: &Known, scope: Scope<'_>) -> Outcome {
        let start = self.out.len();
        let Some(record) = facts::record_at(self.bound.records(), index) else { return Outcome::Orphaned };
        let contained = self.bound.records().get(record).is_some_and(|record| record.contained);
        let may = !contained || scope.released.holds(record);
        if may && self.inner(record, scope.released).is_ok() {
            return Outcome::Kept;
        }
        self.out.cut(start);
        if key.element.many { Outcome::Dropped } else { Outcome::Orphaned }
    }

    fn twin(&mut self, index: usize, cursor: MaskCursor<'w>, scope: Scope<'_>) -> Result<bool, Withheld> {
        let bound = self.bound;
        if !cursor.keeps() || !bound.nodes().get(index).is_some_and(|node| node.shape == Shape::Object) {
            return Ok(false);
        }
        self.out.push(b'{');
        let mut written = 0;
        for (member, node) in bound.view().children(index) {
            let before = self.out.len();
            if written > 0 {
                self.out.push(b',');
            }
            let kept = match node.key() {
                Some(key) if key.word == Word::Extension => {
                    self.lead(node);
                    self.extensions(member, cursor, scope)?
                }
                Some(key) if cursor.child(key.element.name).keeps() => {
                    self.copy_member(node);
                    true
                }
                _ => false,
            };
            if kept {
                written += 1;
            } else {
                self.out.cut(before);
            }
        }
        self.close(index);
        Ok(written > 0)
    }

    /// Extensions one by one, each by its URL (T-039).
    pub(super) fn extensions(
        &mut self,
        index: usize,
        cursor: MaskCursor<'w>,
        scope: Scope<'_>,
    ) -> Result<bool, Withheld> {
        let bound = self.bound;
        let form = keys::form(bound.types.extension).ok_or(Withheld::Verdict)?;
        self.out.push(b'[');
        let mut written = 0;
        for (item, node) in bound.view().children(index) {
            let Some(url) = bound.view().says(item, Word::Url) else { continue };
            let cursor = cursor.extension(&url);
            let before = self.out.len();
            self.next_item(written, node);
            let kept = cursor.keeps()
                && self.object(Object { index: item, form, key: None, cursor, role: Role::Inner }, scope)?;
            if kept {
                written += 1;
            } else {
                self.out.cut(before);
            }
        }
        self.close(index);
        Ok(written > 0)
    }

    /// A URL of ours, under the public base (T-152).
    pub(super) fn location(&mut self, index: usize) {
        match self.bound.view().text(index).and_then(|text| self.terms.bases.publish(&text)) {
            Some(public) => self.out.by(|out| text::write_string(&public, out)),
            None => self.copy(index),
        }
    }
}
