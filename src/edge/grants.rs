//! Where grants of emergency access are kept.
//!
//! Owns: the contract of a place for small named documents with an end, and one in memory. What is lost with the
//! process is lost to the safe side: access ends, and the trail knows what was granted.
//! Must never: know what a document says, or hold more than its bound.
//! Look next: `gateway::emergency`, whose documents these are.

use crate::limits;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A small named record with an end.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Unique.
    pub name: String,
    /// Its content.
    pub body: Vec<u8>,
    /// From then on it is not there.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// The place is full, or cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotKept;

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document could not be kept")
    }
}

impl std::error::Error for NotKept {}

/// Keeps documents. What a method answers is kept when it returns.
pub trait Grants: Send + Sync {
    /// Keeps a document, in the place of one with the same name.
    ///
    /// # Errors
    /// [`NotKept`]; then nothing was changed.
    fn put(&self, document: Document) -> Result<(), NotKept>;

    /// The documents that have not expired at `now`, by name.
    ///
    /// # Errors
    /// [`NotKept`] when they cannot be read.
    fn all(&self, now: Timestamp) -> Result<Vec<Document>, NotKept>;
}

/// In this process alone, bounded.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<String, Document>>);

impl Grants for InMemory {
    fn put(&self, document: Document) -> Result<(), NotKept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains_key(&document.name) && kept.len() >= limits::EMERGENCY_GRANTS_MAX {
            return Err(NotKept);
        }
        kept.insert(document.name.clone(), document);
        Ok(())
    }

    fn all(&self, now: Timestamp) -> Result<Vec<Document>, NotKept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, document| document.expires_at > now);
        Ok(kept.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_end_and_are_bounded() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let document = |name: String, until| Document { name, body: Vec::new(), expires_at: at(until) };
        let place = InMemory::default();
        for number in 0..limits::EMERGENCY_GRANTS_MAX {
            place.put(document(number.to_string(), 10)).unwrap();
        }
        assert_eq!(place.put(document("one more".to_owned(), 20)), Err(NotKept));
        assert_eq!(place.put(document("7".to_owned(), 20)), Ok(()));
        let left = place.all(at(10)).unwrap();
        assert_eq!(left.iter().map(|document| document.name.as_str()).collect::<Vec<_>>(), ["7"]);
        assert_eq!(place.put(document("one more".to_owned(), 20)), Ok(()));
    }
}
