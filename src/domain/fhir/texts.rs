//! A small set of texts that many records share.
//!
//! Owns: sharing; what one record changes, no other one sees.
//! Must never: reach a log: the texts are patient data, so `Debug` gives their number only.
//! Look next: `facts`, which is made of these.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An ordered set of texts. A clone costs no copy; a change does, if the set is shared.
#[derive(Clone, Default)]
pub struct Texts(Option<Arc<BTreeSet<String>>>);

static EMPTY: BTreeSet<String> = BTreeSet::new();

impl Texts {
    /// None at all.
    #[must_use]
    pub fn new() -> Self {
        Self(None)
    }

    /// Adds all of another set.
    pub fn join(&mut self, other: &Self) {
        match (&self.0, &other.0) {
            (_, None) => {}
            (None, Some(_)) => *self = other.clone(),
            (Some(own), Some(more)) if Arc::ptr_eq(own, more) || own.is_superset(more) => {}
            (Some(_), Some(more)) => self.extend(more.iter().cloned()),
        }
    }
}

impl Deref for Texts {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &BTreeSet<String> {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for Texts {
    fn deref_mut(&mut self) -> &mut BTreeSet<String> {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<BTreeSet<String>> for Texts {
    fn from(texts: BTreeSet<String>) -> Self {
        if texts.is_empty() { Self(None) } else { Self(Some(Arc::new(texts))) }
    }
}

impl FromIterator<String> for Texts {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        texts.into_iter().collect::<BTreeSet<_>>().into()
    }
}

impl<'t> IntoIterator for &'t Texts {
    type Item = &'t String;
    type IntoIter = std::collections::btree_set::Iter<'t, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Texts {}

impl PartialOrd for Texts {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Texts {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_set_is_what_a_set_of_its_own_would_be(
            first in proptest::collection::btree_set("[a-c]{1,2}", 0..5),
            second in proptest::collection::btree_set("[a-c]{1,2}", 0..5),
            more in "[a-d]",
        ) {
            let (own, other) = (Texts::from(first.clone()), Texts::from(second.clone()));
            let mut joined = own.clone();
            joined.join(&other);
            let wanted: BTreeSet<_> = first.union(&second).cloned().collect();
            prop_assert_eq!(&*joined, &wanted);
            let mut changed = joined.clone();
            changed.insert(more);
            prop_assert_eq!(&*own, &first);
            prop_assert_eq!(&*other, &second);
            prop_assert_eq!(&*joined, &wanted);
            prop_assert_eq!(changed == joined, changed.len() == joined.len());
        }
    }
}
