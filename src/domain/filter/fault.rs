//! Why an upstream answer cannot be taken apart, and why a record cannot be let out.
//!
//! Owns: `FilterFault` (the whole answer) and `Withheld` (one record).
//! Must never: quote the answer; a fault names a kind and a byte offset only.
//! Look next: `json` and `walk`, which raise faults; `emit`, which withholds.

use std::fmt;

/// The answer is not strict FHIR JSON. Nothing of it may be released.
///
/// Offsets are bytes from the start of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterFault {
    /// The bytes are not UTF-8 from the offset on.
    Encoding(usize),
    /// The answer opens with a byte order mark (RFC 8259 section 8.1).
    ByteOrderMark,
    /// Not JSON by RFC 8259 at the offset.
    Grammar(usize),
    /// Something follows the end of the JSON text.
    Trailing(usize),
    /// An object names one member twice, compared after unescaping.
    Duplicate(usize),
    /// A `\u` escape is half of a surrogate pair.
    Surrogate(usize),
    /// Objects and arrays are nested too deeply.
    Depth(usize),
    /// Resources are nested in resources too deeply.
    Nesting(usize),
    /// The answer, a record, a string, a name or a number is longer than its limit.
    Size(usize),
    /// A known element holds the wrong kind of JSON value, or two values of a choice.
    Type(usize),
    /// A client sent an element, or a key, that R4 does not know at its place.
    Unknown(usize),
    /// A resource has no `resourceType`, or one that R4 does not know.
    ResourceType(usize),
    /// The R4 tables lack something the filter is built on.
    Tables,
}

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(at) => write!(f, "not utf-8 at byte {at}"),
            Self::ByteOrderMark => write!(f, "byte order mark before the json text"),
            Self::Grammar(at) => write!(f, "not json at byte {at}"),
            Self::Trailing(at) => write!(f, "data after the json text at byte {at}"),
            Self::Duplicate(at) => write!(f, "property named twice in the object at byte {at}"),
            Self::Surrogate(at) => write!(f, "lone surrogate escape at byte {at}"),
            Self::Depth(at) => write!(f, "nested too deeply at byte {at}"),
            Self::Nesting(at) => write!(f, "resources nested too deeply at byte {at}"),
            Self::Size(at) => write!(f, "longer than its limit at byte {at}"),
            Self::Type(at) => write!(f, "wrong kind of json value for its element at byte {at}"),
            Self::Unknown(at) => write!(f, "nothing r4 knows at byte {at}"),
            Self::ResourceType(at) => write!(f, "no known resource type at byte {at}"),
            Self::Tables => write!(f, "the r4 tables lack a data type"),
        }
    }
}

impl std::error::Error for FilterFault {}

/// The record stays here. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A modifier element is present in a released parent but not permitted (P7).
    Modifier,
    /// A mandatory element is not permitted and R4 gives no way to mark its absence.
    Mandatory,
    /// The verdict says so, or there is none, or its mask is for another resource type.
    Verdict,
    /// Contained resources kept falling away one because of another.
    Contained,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modifier => "a modifier element is not permitted",
            Self::Mandatory => "a mandatory element that cannot be marked is not permitted",
            Self::Verdict => "the record is not permitted",
            Self::Contained => "contained resources do not settle",
        })
    }
}

impl std::error::Error for Withheld {}
