//! What data types say by themselves, as the walk closes one.
//!
//! Owns: whom a Reference names, how Meta and extensions label, where a URL leads.
//! Must never: look at a mask; what is told comes from the full content.
//! Look next: `walk`, which asks at the end of each object; `facts`, which takes what is told.

use super::facts;
use super::json::offset;
use super::keys::{Form, Meaning, Word};
use super::tape::{Mark, Told, View};
use super::walk::{Seen, Walk};

impl Walk<'_, '_> {
    /// What a data type says by itself: whom it refers to, how it is labelled, how freely it is copied.
    #[inline(never)]
    pub(super) fn meaning(&mut self, form: &Form, index: usize, seen: Seen, trail: u16) -> u8 {
        match form.meaning {
            Meaning::None => 0,
            Meaning::Attachment => self.attachment(seen),
            Meaning::Signature | Meaning::Narrative | Meaning::BundleEntry | Meaning::BundleLink => {
                Mark::LOOSE
            }
            Meaning::Reference => self.reference(form, seen, trail),
            Meaning::Extension => self.extension(form, index, seen),
            Meaning::Meta => {
                if seen.told > 0 {
                    self.tells(self.place.record, Told::Labels(offset(seen.told)));
                }
                0
            }
        }
    }

    /// What is told of a record is remembered, for when its like comes.
    pub(super) fn tells(&mut self, record: Option<usize>, told: Told) {
        self.tape.told.push((record, told));
        let view = View { text: self.cursor.text, nodes: &self.tape.nodes };
        let record = record.and_then(|record| self.tape.records.get_mut(record));
        if let Some(record) = record {
            facts::take(view, told, self.bases, &mut self.sets, &mut record.facts);
        }
    }

    fn reference(&mut self, form: &Form, seen: Seen, trail: u16) -> u8 {
        let mut marks = if seen.has(form.naming) { Mark::NAMED } else { 0 };
        if seen.told == 0 {
            return marks;
        }
        let Some(text) = self.view().text(seen.told) else { return marks };
        if text.starts_with('#') || self.bases.moves(&text) {
            marks |= Mark::MOVED;
        }
        if self.bases.record(&text).is_some_and(|(kind, _)| kind.name() == "Patient") {
            let in_compartment = self.keys.ends(trail);
            self.tells(self.place.record, Told::Patient { reference: offset(seen.told), in_compartment });
        }
        marks
    }

    fn attachment(&self, seen: Seen) -> u8 {
        if seen.told == 0 {
            return 0;
        }
        let Some(url) = self.view().text(seen.told) else { return 0 };
        match (self.bases.moves(&url), self.bases.leads_past(&url)) {
            (true, _) => Mark::MOVED,
            (false, true) => Mark::FOREIGN,
            (false, false) => 0,
        }
    }

    fn extension(&mut self, form: &Form, index: usize, seen: Seen) -> u8 {
        if seen.told == 0 {
            return Mark::LOOSE;
        }
        if facts::is_inline_label(self.view(), seen.told)
            && let Some(value) = self.view().member(index, Word::Value)
        {
            self.tells(self.place.record, Told::Labels(offset(value)));
        }
        if seen.has(form.saying) { 0 } else { Mark::LOOSE }
    }
}
