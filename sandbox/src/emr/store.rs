//! Records in memory, every version kept.
//!
//! Owns: types, records, versions, and which record refers to which.
//! Must never: know HTTP; forget a version; change the bytes of one.
//! Look next: `splice` (what the server sets), `terms` (what is searchable), `query` (who reads this).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use http::HeaderValue;

use super::terms::Terms;
use super::{LoadError, splice};

/// One version of a record. A deletion is a version without bytes.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) version: String,
    pub(super) last_updated: String,
    pub(super) bytes: Option<Bytes>,
    /// `W/"version"`, made once.
    pub(super) etag: HeaderValue,
    /// RFC 9110 HTTP-date, made once.
    pub(super) last_modified: HeaderValue,
    /// `PUT`, `POST` or `DELETE`: how it came about, for history.
    pub(super) method: &'static str,
    /// The order in which versions were stored, over all records.
    pub(super) sequence: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: String,
    /// Oldest first; never empty.
    pub(super) versions: Vec<Version>,
    pub(super) terms: Terms,
}

impl Record {
    pub(super) fn current(&self) -> Option<&Version> {
        self.versions.last()
    }

    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.current().and_then(|version| version.bytes.as_ref())
    }
}

/// The records of one type, in the order they first came.
#[derive(Clone, Debug, Default)]
pub(super) struct Ward {
    pub(super) records: Vec<Record>,
    by_id: HashMap<String, usize>,
    by_reference: HashMap<String, BTreeSet<usize>>,
}

impl Ward {
    pub(super) fn find(&self, id: &str) -> Option<&Record> {
        self.by_id.get(id).and_then(|at| self.records.get(*at))
    }

    /// Positions of the records that refer to `Type/id` under any parameter.
    pub(super) fn referring(&self, reference: &str) -> Option<&BTreeSet<usize>> {
        self.by_reference.get(reference)
    }

    fn forget_references(&mut self, at: usize) {
        let Some(record) = self.records.get(at) else { return };
        for reference in record.terms.references() {
            if let Some(set) = self.by_reference.get_mut(&reference) {
                set.remove(&at);
            }
        }
    }

    fn note_references(&mut self, at: usize) {
        let Some(record) = self.records.get(at) else { return };
        for reference in record.terms.references() {
            self.by_reference.entry(reference).or_default().insert(at);
        }
    }
}

/// What a stored resource became.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// `Type/id`.
    pub reference: String,
    /// The version that was stored.
    pub version: String,
    /// True when the id was not in use.
    pub created: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    wards: BTreeMap<String, Ward>,
    /// Temporary addresses of past transactions, so that bundles loaded later may point to them.
    pub(super) aliases: HashMap<String, String>,
    next_id: u64,
    sequence: u64,
    undo: Option<Undo>,
}

/// What a transaction changed so far: type and position of each new version, in order.
#[derive(Clone, Debug, Default)]
struct Undo {
    versions: Vec<(String, usize)>,
    next_id: u64,
}

/// Who decides about version and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamping {
    /// Keep the resource's own versionId and lastUpdated when it has both and that version is new.
    Keep,
    /// The server sets both, as R4 asks of create and update.
    Server,
}

impl Store {
    pub(super) fn ward(&self, resource_type: &str) -> Option<&Ward> {
        self.wards.get(resource_type)
    }

    pub(super) fn find(&self, resource_type: &str, id: &str) -> Option<&Record> {
        self.ward(resource_type)?.find(id)
    }

    pub(super) fn types(&self) -> impl Iterator<Item = (&str, &Ward)> {
        self.wards.iter().map(|(name, ward)| (name.as_str(), ward))
    }

    /// A logical id nobody uses yet.
    pub(super) fn fresh_id(&mut self) -> String {
        loop {
            self.next_id += 1;
            let id = format!("s{}", self.next_id);
            if self.wards.values().all(|ward| ward.find(&id).is_none()) {
                return id;
            }
        }
    }

    /// From here on `rollback` undoes what is stored, until `commit`.
    pub(super) fn begin(&mut self) {
        self.undo = Some(Undo { versions: Vec::new(), next_id: self.next_id });
    }

    pub(super) fn commit(&mut self) {
        self.undo = None;
    }

    /// Takes back every version since `begin`, newest first; a record that came since is gone.
    pub(super) fn rollback(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        self.next_id = undo.next_id;
        for (name, at) in undo.versions.iter().rev() {
            self.take_back(name, *at);
        }
    }

    fn take_back(&mut self, name: &str, at: usize) {
        let Some(ward) = self.wards.get_mut(name) else { return };
        ward.forget_references(at);
        let Some(record) = ward.records.get_mut(at) else { return };
        record.versions.pop();
        if record.versions.is_empty() {
            // A new record lies at the end: those that came after it were taken back before it.
            let id = record.id.clone();
            ward.by_id.remove(&id);
            ward.records.truncate(at);
        } else {
            let value = record.bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
            record.terms = value.map_or_else(Terms::default, |value| Terms::read(name, &value));
            ward.note_references(at);
        }
        if ward.records.is_empty() {
            self.wards.remove(name);
        }
    }

    /// Stores `text` as the next version of `Type/id`, as if it came by `PUT`.
    ///
    /// # Errors
    /// `NotAResource` when it is none.
    pub(super) fn put(
        &mut self,
        text: &str,
        id: &str,
        now: jiff::Timestamp,
        stamping: Stamping,
    ) -> Result<Stored, LoadError> {
        self.put_by("PUT", text, id, now, stamping)
    }

    /// `put`, with the method that history tells.
    ///
    /// # Errors
    /// `NotAResource` when it is none.
    pub(super) fn put_by(
        &mut self,
        method: &'static str,
        text: &str,
        id: &str,
        now: jiff::Timestamp,
        stamping: Stamping,
    ) -> Result<Stored, LoadError> {
        let stamp = splice::read(text)?;
        if !super::is_type_name(&stamp.resource_type) || !super::is_id(id) {
            return Err(LoadError::NotAResource);
        }
        let past = self.find(&stamp.resource_type, id).map_or(&[] as &[Version], |r| &r.versions);
        let own = stamp.version.clone().zip(stamp.last_updated.clone());
        let own = own.filter(|(version, _)| stamping == Stamping::Keep && super::is_id(version));
        let own = own.filter(|(version, _)| past.iter().all(|v| v.version != *version));
        let created = past.last().is_none_or(|v| v.bytes.is_none());
        let (version, last_updated) = own.unwrap_or_else(|| (next_version(past), instant(now)));
        let bytes = splice::set(text, id, &version, &last_updated)?;
        let value = serde_json::from_str(&bytes).map_err(|_| LoadError::NotAResource)?;
        let terms = Terms::read(&stamp.resource_type, &value);
        let reference = format!("{}/{id}", stamp.resource_type);
        let new = make_version(method, version.clone(), last_updated, Some(bytes.into()));
        self.keep(&stamp.resource_type, id, new, terms);
        Ok(Stored { reference, version, created })
    }

    /// Marks `Type/id` deleted; false when there is no such record now.
    pub(super) fn delete(&mut self, resource_type: &str, id: &str, now: jiff::Timestamp) -> bool {
        let Some(record) = self.find(resource_type, id) else { return false };
        if record.bytes().is_none() {
            return false;
        }
        let gone = make_version("DELETE", next_version(&record.versions), instant(now), None);
        self.keep(resource_type, id, gone, Terms::default());
        true
    }

    fn keep(&mut self, resource_type: &str, id: &str, mut version: Version, terms: Terms) {
        self.sequence += 1;
        version.sequence = self.sequence;
        let ward = self.wards.entry(resource_type.to_owned()).or_default();
        let at = *ward.by_id.entry(id.to_owned()).or_insert(ward.records.len());
        ward.forget_references(at);
        if let Some(record) = ward.records.get_mut(at) {
            record.versions.push(version);
            record.terms = terms;
        } else {
            ward.records.push(Record { id: id.to_owned(), versions: vec![version], terms });
        }
        ward.note_references(at);
        if let Some(undo) = &mut self.undo {
            undo.versions.push((resource_type.to_owned(), at));
        }
    }
}

fn make_version(
    method: &'static str,
    version: String,
    last_updated: String,
    bytes: Option<Bytes>,
) -> Version {
    let unset = || HeaderValue::from_static("");
    let etag = HeaderValue::from_str(&format!("W/\"{version}\"")).unwrap_or_else(|_| unset());
    let last_modified = HeaderValue::from_str(&http_date(&last_updated)).unwrap_or_else(|_| unset());
    Version { version, last_updated, bytes, etag, last_modified, method, sequence: 0 }
}

fn next_version(past: &[Version]) -> String {
    let highest = past.iter().filter_map(|v| v.version.parse::<u64>().ok()).max();
    highest.map_or(past.len() as u64 + 1, |n| n.saturating_add(1)).to_string()
}

/// A FHIR instant with milliseconds.
pub(super) fn instant(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn http_date(instant: &str) -> String {
    let at: jiff::Timestamp = instant.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
