//! Why a change is not made.
//!
//! Owns: [`ChangeRefusal`] and its words.
//! Must never: hold a value of a record; element paths only, and of extensions not even the URL.
//! Look next: `gateway`, which turns each into an answer.

use std::fmt;

/// Why a change is refused. Texts are element paths (`Patient.name.family`), never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// The record or the patch is not what R4 or RFC 6902 prescribe, or goes beyond the paths we accept.
    Malformed,
    /// The caller may not write this element.
    NotWritable(String),
    /// Our own mark for a withheld element was sent back where there is no value it could stand for.
    Withheld(String),
    /// Parts of this element are withheld, and it is not certain which of them would belong to what was sent.
    CannotMerge(String),
    /// A `test` operation found another value.
    TestFailed,
    /// A patch operation names a place that is not there.
    NoSuchPlace,
    /// Too many operations, too long or too deep.
    TooLarge,
}

impl fmt::Display for ChangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the record or patch is malformed"),
            Self::NotWritable(path) => write!(f, "`{path}` may not be written"),
            Self::Withheld(path) => write!(f, "`{path}` is withheld"),
            Self::CannotMerge(path) => write!(f, "`{path}` is withheld in part and cannot be merged"),
            Self::TestFailed => f.write_str("a test of the patch failed"),
            Self::NoSuchPlace => f.write_str("the patch names a place that is not there"),
            Self::TooLarge => f.write_str("the record or patch is too large"),
        }
    }
}

impl std::error::Error for ChangeRefusal {}
