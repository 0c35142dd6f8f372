//! The contained records that leave with their container.
//!
//! Owns: finding one by its id, however many there are.
//! Must never: name one whose id does not leave, or that stays.
//! Look next: `emit`, which settles which of them leave; `bars`, which asks what a fragment points to.

use super::emit::Terms;
use super::{Bound, Verdict};

/// Contained records of one container, in the order of the text.
#[derive(Default)]
pub(super) struct Released<'b> {
    records: Vec<usize>,
    /// Their ids, as far as these leave.
    named: Vec<(&'b str, usize)>,
}

impl<'b> Released<'b> {
    pub(super) fn of(bound: &'b Bound<'_>, terms: Terms<'_>, records: Vec<usize>) -> Self {
        let keeps_id = |record: usize| match terms.verdicts.get(record) {
            Some(Verdict::Release { mask, .. }) => mask.cursor().child("id").keeps(),
            Some(Verdict::Withhold) | None => false,
        };
        let id = |record: usize| bound.records().get(record)?.facts.id.as_deref();
        let named = records.iter().filter(|record| keeps_id(**record));
        let mut named: Vec<_> = named.filter_map(|record| Some((id(*record)?, *record))).collect();
        named.sort_unstable();
        Self { records, named }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// This one leaves.
    pub(super) fn holds(&self, record: usize) -> bool {
        self.records.binary_search(&record).is_ok()
    }

    /// The first one of that id.
    pub(super) fn of_id(&self, id: &str) -> Option<usize> {
        let first = self.named.partition_point(|(known, _)| *known < id);
        self.named.get(first).filter(|(known, _)| *known == id).map(|(_, record)| *record)
    }
}
