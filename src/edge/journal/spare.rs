//! The writer and the reserve: keeping one ready, writing into it, and taking over what is in it.
//!
//! Owns: when a reserve is used (the log's own write failed), and that what was in it reaches the log once.
//! Must never: write into it while the log takes records, or when somebody touched the files; remove it before the log
//! holds what was in it.
//! Look next: `reserve` for its bytes, `writer` for the log's.
//!
//! Taking over, and what a crash leaves after each step:
//!
//! 1. One commit: a `reserve-taken-over` record, and behind it the records, sealed anew for their places in the log.
//!    Crash: a torn frame, which is dropped, and all is as before; or a whole one, which is kept, and names the reserve.
//! 2. The file is removed and the directory synced. Crash: it is there again, and the log says that it was taken over:
//!    the next opening removes it. It reads the whole log to know, which it does only while a reserve holds something.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::reserve::file::{self, Reserve};
use super::reserve::{Contents, Generation};
use super::writer::Writer;
use super::{Append, JournalError, ReserveState};
use crate::clock;
use crate::domain::audit::{self, Control, Event, Record};

impl Writer {
    /// Writes what the log cannot take into the reserve. Gives the number of the first record in it.
    pub(super) fn write_reserve(&mut self, batch: &[Append]) -> Result<u64, JournalError> {
        let failed = self.failed();
        let of_writing = self.state.failure.get().is_some_and(|failure| failure.of_writing);
        let Some(reserve) = self.reserve.as_mut().filter(|_| of_writing) else { return Err(failed) };
        let parts: Vec<&[u8]> = batch.iter().flat_map(|append| &append.parts).map(Vec::as_slice).collect();
        let written = reserve.append(&self.keys, &parts, self.acknowledged);
        let (used_bytes, all_bytes) = reserve.used_bytes();
        if let Some(telemetry) = self.state.telemetry.get() {
            telemetry.journal_reserve(all_bytes, used_bytes);
        }
        match written {
            Ok(first) => {
                self.state.set_reserve(ReserveState::InUse);
                let (chain, entries) = (reserve.chain(), parts.len());
                tracing::warn!(
                    first,
                    entries,
                    used_bytes,
                    all_bytes,
                    chain,
                    "the journal is out of service: recorded in the reserve"
                );
                Ok(first)
            }
            Err(error) => {
                if reserve.is_broken() {
                    self.state.set_reserve(ReserveState::Broken);
                }
                tracing::error!(%error, "the reserve of the journal cannot take a record");
                Err(failed)
            }
        }
    }

    /// Has a reserve of so many bytes stand ready, or none, and says so in the log.
    pub(super) fn keep_reserve(&mut self, bytes: Option<u64>) -> Result<(), JournalError> {
        if self.state.failure().is_some() {
            return Err(self.failed());
        }
        let kept = match bytes {
            Some(bytes) => self.ready(bytes),
            None => self.give_up(),
        };
        kept.map_err(|error| JournalError::Failed(format!("reserve: {error}").into()))
    }

    /// The file first, then the log: what the log names last was there.
    fn ready(&mut self, bytes: u64) -> io::Result<()> {
        let found = Reserve::reopen(&self.directory, &self.origin, &self.keys, bytes)?;
        let reserve = match found {
            Some(reserve) => reserve,
            None => Reserve::make(&self.directory, &self.origin, &self.keys, bytes)?,
        };
        let (generation, bytes) = reserve.name();
        self.say(Event::ReserveReady, generation, [("bytes", bytes.to_string())], Vec::new())?;
        if let Some(telemetry) = self.state.telemetry.get() {
            telemetry.journal_reserve(bytes, reserve.used_bytes().0);
        }
        self.reserve = Some(reserve);
        self.state.set_reserve(ReserveState::Ready);
        Ok(())
    }

    /// The log first, then the file: a file that is missing was given up.
    fn give_up(&mut self) -> io::Result<()> {
        self.reserve = None;
        self.state.set_reserve(ReserveState::None);
        let Some(found) = file::look(&self.directory, &self.origin, &self.keys)? else { return Ok(()) };
        self.say(Event::ReserveRemoved, found.generation, [], Vec::new())?;
        file::remove(&self.directory)
    }

    /// Brings what is in the reserve into the log, once, and removes it.
    pub(super) fn take_over(&mut self, found: &Contents, is_taken_over: bool) -> io::Result<()> {
        if !is_taken_over && !found.entries.is_empty() {
            let name = found.generation.name(&self.origin);
            let opened =
                found.entries.iter().zip(0..).map(|(entry, index)| {
                    self.keys.cipher.open(&name, index, entry).map_err(io::Error::other)
                });
            let parts = opened.collect::<io::Result<Vec<_>>>()?;
            let details = [("entries", parts.len().to_string()), ("chain", found.chain())];
            self.say(Event::ReserveTakenOver, found.generation, details, parts)?;
            tracing::warn!(
                entries = found.entries.len(),
                "records were taken over from the reserve of the journal"
            );
        } else if !is_taken_over {
            // Nothing but an unfinished frame, on which no answer depended.
            self.say(Event::ReserveRemoved, found.generation, [], Vec::new())?;
        }
        file::remove(&self.directory)
    }

    /// One commit: a control record about a reserve, and parts of records behind it.
    fn say<const N: usize>(
        &mut self,
        event: Event,
        generation: Generation,
        more: [(&str, String); N],
        following: Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let all = more.into_iter().chain([("generation", generation.to_string())]);
        let details: BTreeMap<String, String> = all.map(|(name, value)| (name.to_owned(), value)).collect();
        let record = Record::Control(Control { time: clock::now(), event, details });
        let mut parts = audit::encode(&record).map_err(io::Error::other)?;
        parts.extend(following);
        self.commit_alone(Append { parts, done: None, room: None, reserve: false })
    }

    /// A commit of our own; the journal is out of service when it fails.
    fn commit_alone(&mut self, append: Append) -> io::Result<()> {
        self.commit_one(append).inspect_err(|error| Arc::clone(&self.state).fail("reserve", error))
    }
}
