//! Verification of what stands beside the log: data keys, what is withheld, and the reserve.
//!
//! Owns: that each of these files is what the log's own records and entries say it must be.
//! Must never: accept a missing bundle that no record names, or a key file of which a byte is not checked.
//! Look next: `inspect`, whose walk through the entries this is part of.

use std::io;

use super::super::datakeys::{KeyFiles, Ring, hex};
use super::super::entry::header;
use super::super::layout::{RESERVE, WITHHELD};
use super::super::reserve::{self, Contents};
use super::super::withheld::{Withheld, leaves};
use super::Walk;
use crate::domain::audit::{Assembly, decode};
use crate::domain::ledger::{Checkpoint, Tile, TileKind};

impl Walk<'_> {
    /// Reads the files of data keys: each must be signed, and unwrap with the configured key.
    pub(super) fn read_keys(&mut self) {
        self.ring = Ring::new(&self.snapshot.directory, &self.report.origin, self.keys);
        let (files, wrong) = KeyFiles::read(&self.snapshot.data_keys, &self.ring);
        wrong.into_iter().for_each(|(place, what)| self.find(place, what));
        let configured = self.keys.cipher.id();
        if let Some(next) = files.successor().filter(|next| *next != configured) {
            let what = "the key was changed: the configuration must name the new one, with the id";
            self.report.notes.push(format!("{what} {}", hex(next)));
        }
        self.key_files = files;
    }

    /// Reads what is withheld. Only what is published can be: its hashes are there.
    pub(super) fn read_withheld(&mut self) {
        let Some(bytes) = self.snapshot.withheld.as_deref() else { return };
        match Withheld::read(bytes, &self.report.origin, self.keys) {
            Ok(read) if read.bundles.iter().all(|bundle| bundle < self.floor / 256) => self.withheld = read,
            Ok(_) => self.find(WITHHELD, "names bundles that were never published"),
            Err(what) => self.find(WITHHELD, what),
        }
    }

    /// Takes the hashes of a bundle that is withheld in the place of its entries.
    pub(super) fn read_hashes(&mut self, bundle: u64) -> io::Result<()> {
        let hashes = match leaves(&self.snapshot.directory, bundle) {
            Ok(hashes) => hashes,
            Err(error) => {
                let place = Tile::full(TileKind::Entries, bundle).path();
                self.find(place, format!("is withheld, and its hashes cannot be had: {error}"));
                self.is_broken = true;
                return Ok(());
            }
        };
        self.prunes.missing += 1;
        for (leaf, sequence) in hashes.into_iter().zip(bundle * 256..) {
            self.push_leaf(leaf)?;
            self.check_at(sequence.saturating_add(1));
        }
        Ok(())
    }

    /// Reads the reserve, whose frames say what the log held when it stopped.
    pub(super) fn read_reserve(&mut self) {
        let Some(bytes) = self.snapshot.reserve.as_deref() else { return };
        let origin = self.report.origin.clone();
        match reserve::read(bytes, &origin, &self.keys.reserve) {
            Ok(contents) => {
                for (size, root) in contents.bases.iter().copied() {
                    self.mark(RESERVE, &Checkpoint { origin: origin.clone(), size, root });
                }
                if self.decode {
                    self.decode_reserve(&contents, &contents.generation.name(&origin));
                }
                self.reserve = Some(contents);
            }
            Err(what) => self.find(RESERVE, what),
        }
    }

    fn decode_reserve(&mut self, contents: &Contents, name: &str) {
        let mut assembly = Assembly::default();
        for (sequence, entry) in (0..).zip(&contents.entries) {
            let part = self.keys.cipher.open(name, sequence, entry).map_err(|error| error.to_string());
            let part = part.and_then(|part| decode(&part).map_err(|error| error.to_string()));
            let pushed =
                part.and_then(|part| assembly.push(sequence, part).map_err(|error| error.to_string()));
            if let Err(what) = pushed {
                self.find(format!("{RESERVE}, entry {sequence}"), what);
            }
        }
        if assembly.is_open() {
            self.find(RESERVE, "the last record is not complete");
        }
    }

    pub(super) fn judge_key(&mut self, place: &str, sequence: u64, entry: &[u8]) {
        if let Some(what) = self.key_files.judge(self.keys.cipher.id(), sequence, entry) {
            self.find(format!("{place}, entry {sequence}"), what);
        }
        let sealed = header(entry);
        if sealed != self.report.resume.last_sealed {
            self.report.resume.used_keys.extend(sealed.map(|(_, id)| id));
            self.report.resume.last_sealed = sealed;
        }
    }

    /// What is missing must be what the trail itself records as withheld.
    pub(super) fn judge_withheld(&mut self) {
        if self.is_broken {
            return;
        }
        match self.prunes.judge(self.snapshot.withheld.is_some().then_some(&self.withheld)) {
            Ok(note) => self.report.notes.extend(note),
            Err(what) => self.find(WITHHELD, what),
        }
    }

    /// Only the records tell which reserve should be there.
    pub(super) fn judge_reserve(&mut self) {
        let is_unread = self.reserve.is_none() && self.snapshot.reserve.is_some();
        if self.decode && !self.is_broken && !is_unread {
            match self.claims.judge(self.reserve.as_ref()) {
                Ok(note) => self.report.notes.extend(note),
                Err(what) => self.find(RESERVE, what),
            }
        }
        let used = self.reserve.take().filter(Contents::is_used);
        self.report.resume.reserve = used.map(|contents| {
            let is_taken_over = self.claims.has_taken_over(&contents);
            (contents, is_taken_over)
        });
    }
}
