//! What may come back: FHIR JSON in, the permitted part of it out.
//!
//! Owns: taking an upstream answer apart strictly, telling policy the facts of every record in it, and
//! writing a record under its mask with kept bytes unchanged (P1, P3, P7).
//! Must never: decide who may see what, or let a byte out that no mask keeps. Doubt is a fault.
//! Look next: `walk` (bytes to tape, in one pass), `emit` (records to bytes), `batches` (Bundles in pieces).
//!
//! The rules, where the issue leaves room:
//!
//! - White space before a member or item goes with it, white space before a comma goes always unless the
//!   whole subtree is copied; what stands before a closing bracket stays.
//! - A record is `complete` when policy withholds nothing of it (the verdict says so), no name is hidden in
//!   references, and everything it contains is complete too. Only complete records keep narrative and signature
//!   data, where the mask keeps them. A complete record under total masks is whole; all others are tagged SUBSETTED.
//! - A reference to a contained record goes when policy withholds that record, not when it was not asked for:
//!   otherwise a shape could empty a mandatory element.
//! - A parent whose one resource is withheld (`Bundle.entry`, `Parameters.parameter`) goes with it, so
//!   that its address or name does not stay behind (T-059).
//! - An `Extension` without value and extensions goes.
//! - An `Attachment.url` that leads past us (T-102) goes from every record that is not complete: any but a relative
//!   one, a fragment, a `urn:`, or one under a base of ours. Size and hash of what it leads to go with it.
//! - Base URLs are rewritten in `Reference.reference`, in `Attachment.url`, and in `fullUrl` and `link.url` of a stored Bundle,
//!   whose references are resolved through them. Everything else is copied.

mod bars;
mod batches;
mod data_type;
mod deep;
mod emit;
mod facts;
mod fault;
mod json;
mod keys;
mod marker;
mod meaning;
mod names;
mod ndjson;
mod output;
mod outside;
mod pattern;
mod pieces;
mod plan;
mod pretty;
mod quotes;
mod reference;
mod released;
mod tape;
mod text;
mod values;
mod walk;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use data_type::DataTypes;
use tape::{Node, Tape, View};

use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;

pub use batches::Batches;
pub use fault::{FilterFault, Withheld};
pub use ndjson::Lines;
pub use pretty::pretty;
pub use reference::{Bases, References};

/// Takes a whole upstream answer apart.
///
/// # Errors
/// [`FilterFault`] if it is anything but one strict JSON text that holds one FHIR R4 resource.
pub fn parse<'a>(body: &'a [u8], bases: &Bases<'_>) -> Result<Document<'a>, FilterFault> {
    read(body, bases, walk::Sender::Upstream)
}

/// Takes the body of a writer apart: as [`parse`] does, but what R4 does not know is a fault instead of being left
/// out later (T-119, T-130), and a batch or transaction Bundle at the root is the envelope of its entries.
///
/// # Errors
/// [`FilterFault`] as from [`parse`]; `Unknown` for an element or key R4 does not have at its place, `Nesting` for a
/// batch or transaction in an entry of another.
pub fn parse_sent<'a>(body: &'a [u8], bases: &Bases<'_>) -> Result<Document<'a>, FilterFault> {
    read(body, bases, walk::Sender::Client)
}

fn read<'a>(body: &'a [u8], bases: &Bases<'_>, sender: walk::Sender) -> Result<Document<'a>, FilterFault> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(FilterFault::ByteOrderMark);
    }
    let text = utf8(body)?;
    let mut tape = Tape::default();
    tape.nodes.reserve(if text.len() < pattern::TEXT_BYTES_MIN { text.len() / 16 } else { text.len() / 20 });
    tape.records.reserve(text.len() / 2048 + 1);
    let root = walk::whole(text, bases, sender, &mut tape)?;
    let start = |record: &Record| tape.nodes.get(record.node).map_or(0, |node| node.start as usize);
    if let Err(record) = facts::settle(&mut tape.records) {
        return Err(FilterFault::Size(tape.records.get(record).map_or(0, start)));
    }
    let is_bundle = match root {
        RootType::Single(_) => {
            tape.records.first().is_some_and(|record| record.facts.resource_type.name() == "Bundle")
        }
        RootType::Bundle => true,
    };
    let view = View { text, nodes: &tape.nodes };
    let envelope = is_bundle.then(|| facts::envelope(view, &tape.records));
    let types = data_type::data_types().ok_or(FilterFault::Tables)?;
    Ok(Document { bound: Bound { text, tape, root, envelope, types, plans: plan::Plans::default() } })
}

/// The bytes as text, at the speed of memory when they are.
fn utf8(bytes: &[u8]) -> Result<&str, FilterFault> {
    let fault = |_| std::str::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
    simdutf8::basic::from_utf8(bytes).map_err(|error| FilterFault::Encoding(fault(error)))
}

/// What was taken apart.
struct Bound<'a> {
    text: &'a str,
    tape: Tape,
    root: RootType,
    envelope: Option<Envelope>,
    types: &'static DataTypes,
    plans: plan::Plans,
}

impl Bound<'_> {
    fn view(&self) -> View<'_> {
        View { text: self.text, nodes: &self.tape.nodes }
    }

    fn nodes(&self) -> &[Node] {
        &self.tape.nodes
    }

    fn records(&self) -> &[Record] {
        &self.tape.records
    }
}

/// An upstream answer, taken apart. Nothing of it has been released.
pub struct Document<'a> {
    bound: Bound<'a>,
}

/// What stands at the root of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootType {
    /// One record, by its index. A stored Bundle (document, message, collection, …) is one record that
    /// contains others.
    Single(usize),
    /// A Bundle that carries an answer (searchset, history, transaction-response, batch-response) or, from a
    /// client, requests (batch, transaction). It is no record itself; see [`Document::bundle`].
    Bundle,
}

/// One resource in an answer, at any depth. Numbered in the order of the text, containers first.
#[derive(Debug)]
pub struct Record {
    /// What policy asks about it.
    pub facts: Facts,
    /// The record that contains it; none at the root and for entries of a Bundle that carries an answer.
    pub container: Option<usize>,
    /// It stands in `contained`: its id is a fragment.
    pub contained: bool,
    node: usize,
    /// Records with the same one are built alike.
    build: Option<u32>,
}

/// A Bundle at the root, without its resources.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `Bundle.type`; empty if upstream did not say.
    pub kind: String,
    /// `Bundle.total`, if it is a plain number.
    pub total: Option<u64>,
    /// `Bundle.link`: relation and URL.
    pub links: Vec<(String, String)>,
    /// `Bundle.entry`, all of them, in order.
    pub entries: Vec<Entry>,
}

/// One entry of a Bundle at the root.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// `fullUrl`.
    pub full_url: Option<String>,
    /// `search.mode`.
    pub mode: Option<String>,
    /// Index of the record in `resource`.
    pub record: Option<usize>,
    /// `request`: what a client asks of this entry, or what once made this version of a history.
    pub request: Option<EntryRequestText>,
    /// `response`: what upstream did with this entry.
    pub response: Option<EntryResponse>,
}

/// `Bundle.entry.request`, as text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryRequestText {
    /// `method`; empty if it is not said.
    pub method: String,
    /// `url`; empty if it is not said.
    pub url: String,
    /// `ifNoneExist`.
    pub if_none_exist: Option<String>,
    /// `ifMatch`.
    pub if_match: Option<String>,
    /// `ifNoneMatch`.
    pub if_none_match: Option<String>,
    /// `ifModifiedSince`, as written.
    pub if_modified_since: Option<String>,
}

/// `Bundle.entry.response`, as text. Its `outcome` is not among it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryResponse {
    /// `status`, such as `201 Created`; empty if it is not said.
    pub status: String,
    /// `location`.
    pub location: Option<String>,
    /// `etag`.
    pub etag: Option<String>,
    /// `lastModified`, as written.
    pub last_modified: Option<String>,
}

/// What policy said about one record.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'m> {
    /// It may go out.
    Release {
        /// Under this mask: policy's, and of that what was asked for.
        mask: &'m Mask,
        /// Policy's own mask was total: what `mask` leaves out was not asked for, and is not withheld.
        complete: bool,
    },
    /// It stays here.
    Withhold,
}

impl<'m> Verdict<'m> {
    /// Policy's mask as it is: the client asked for whole records.
    #[must_use]
    pub fn whole(mask: &'m Mask) -> Self {
        Self::Release { mask, complete: mask.is_total() }
    }
}

/// How a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Anything of the record was kept, its `resourceType` and our tag not counted.
    pub kept: bool,
    /// It carries the SUBSETTED tag.
    pub subsetted: bool,
}

impl Document<'_> {
    /// All records, containers before what they contain.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.bound.records()
    }

    /// What stands at the root.
    #[must_use]
    pub fn root_type(&self) -> RootType {
        self.bound.root
    }

    /// The envelope, if the root is a Bundle of any kind.
    #[must_use]
    pub fn bundle(&self) -> Option<&Envelope> {
        self.bound.envelope.as_ref()
    }

    /// A record's facts with its whole content beside them, for a decision that needs it; where it cannot be had,
    /// without.
    #[must_use]
    pub fn facts_with_content(&self, record: usize) -> Option<Facts> {
        let facts = self.records().get(record)?.facts.clone();
        let content = serde_json::from_slice(self.raw(record)).ok().map(Arc::new);
        Some(Facts { content, ..facts })
    }

    /// A record's own bytes, as they came; empty if there is no such record.
    #[must_use]
    pub fn raw(&self, record: usize) -> &[u8] {
        self.bound.records().get(record).map_or(&[], |record| self.bound.view().raw(record.node))
    }

    /// The path of the first element in the record that the mask does not cover, if there is one. Only what a server
    /// or we write does not count: `resourceType`, `id`, `meta.versionId`, `meta.lastUpdated`, the tag SUBSETTED.
    ///
    /// Paths are spelled as policies do (a choice without `[x]`, extensions by URL, a twin by its primitive, content
    /// references where they are defined). What R4 does not know is named by the element around it. A contained
    /// record asks for `contained` here and for the rest as the record it is. A mask for another type covers nothing.
    #[must_use]
    pub fn outside(&self, record: usize, mask: &Mask) -> Option<String> {
        outside::outside(&self.bound, record, mask)
    }

    /// What every `Reference.reference` in the record says, contained records included, in the order of the text.
    #[must_use]
    pub fn references(&self, record: usize) -> Vec<Cow<'_, str>> {
        outside::references(&self.bound, record)
    }

    /// Appends one record to `out`, with what it contains, each under its own verdict.
    /// `verdicts` run parallel to [`Document::records`]; `bases` are those given to [`parse`].
    ///
    /// # Errors
    /// [`Withheld`] if the record must stay; then nothing was appended.
    pub fn emit(
        &self,
        record: usize,
        verdicts: &[Verdict<'_>],
        references: &References,
        bases: &Bases<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Emitted, Withheld> {
        emit::emit(&self.bound, emit::Terms { verdicts, references, bases }, record, out)
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("records", &self.bound.records().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.len();
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EntryRequestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryRequestText").finish_non_exhaustive()
    }
}

impl fmt::Debug for EntryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryResponse").finish_non_exhaustive()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("record", &self.record).finish_non_exhaustive()
    }
}
