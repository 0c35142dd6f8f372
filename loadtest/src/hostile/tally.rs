//! What attackers sent, how it ended, and which of their requests were answered.
//!
//! Owns: [`Tally`], shared by all attackers of an attack.
//! Must never: hold a token.
//! Look next: `lanes`, who fill it; `evidence`, which compares the answers with the trail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Endings that are told apart; all others are one.
const ENDINGS_MAX: usize = 40;

/// Counts of an attack.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Told>);

/// The same, once it is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What was sent.
    pub(crate) sent: BTreeMap<&'static str, u64>,
    /// How connections and requests ended.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Request id and status of the answers that attackers read.
    pub(crate) answered: Vec<(u128, u16)>,
}

impl Tally {
    fn with(&self, act: impl FnOnce(&mut Told)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn sent(&self, what: &'static str, count: u64) {
        self.with(|told| *told.sent.entry(what).or_default() += count);
    }

    pub(crate) fn ended(&self, how: &str) {
        self.with(|told| {
            if let Some(count) = told.ended.get_mut(how) {
                *count += 1;
            } else {
                let key = if told.ended.len() < ENDINGS_MAX { how } else { "otherwise" };
                *told.ended.entry(key.to_owned()).or_default() += 1;
            }
        });
    }

    /// An answer; only one with a request id can be looked up.
    pub(crate) fn answered(&self, id: Option<u128>, status: u16) {
        self.ended(&status.to_string());
        if let Some(id) = id {
            self.with(|told| told.answered.push((id, status)));
        }
    }

    /// What there is, which is then no longer here.
    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts as a sentence: `12 x 401, 3 x closed`.
pub(crate) fn told<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    let told: Vec<String> =
        counts.iter().map(|(what, count)| format!("{count} x {}", what.as_ref())).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

/// A connection that counts as left by its attacker unless it is said how it ended.
pub(super) struct Held<'t> {
    tally: &'t Tally,
    is_told: bool,
}

impl<'t> Held<'t> {
    pub(super) fn new(tally: &'t Tally) -> Self {
        tally.sent("connections", 1);
        Self { tally, is_told: false }
    }

    pub(super) fn ended(mut self, how: &str) {
        self.is_told = true;
        self.tally.ended(how);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.tally.ended("left by the attacker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_one_end() {
        let tally = Tally::default();
        Held::new(&tally).ended("closed");
        drop(Held::new(&tally));
        tally.answered(Some(7), 401);
        tally.answered(None, 431);
        let all = tally.take();
        assert_eq!(told(&all.sent), "2 x connections");
        assert_eq!(told(&all.ended), "1 x 401, 1 x 431, 1 x closed, 1 x left by the attacker");
        assert_eq!(all.answered, [(7, 401)]);
        assert_eq!(told(&tally.take().ended), "nothing");
    }

    #[test]
    fn endings_are_bounded() {
        let tally = Tally::default();
        (0..100).for_each(|number| tally.ended(&format!("end {number}")));
        let all = tally.take();
        assert_eq!((all.ended.len(), all.ended["otherwise"]), (ENDINGS_MAX + 1, 60));
    }
}
