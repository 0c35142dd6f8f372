//! What the log says of its reserves, beside the file that is there.
//!
//! Owns: the rule that the newest `reserve-…` record names the reserve that stands there, so that one that was deleted,
//! or put back from another time, is found.
//! Must never: call a crash tampering. The file is in place before the log says so, and goes after the log took it over.
//! Look next: `inspect`, which brings both together.

use std::collections::BTreeSet;

use super::Contents;
use crate::domain::audit::{Control, Event};

/// What the log says, in its order.
#[derive(Debug, Default)]
pub(in super::super) struct Claims {
    newest: Option<(Event, String)>,
    named: BTreeSet<String>,
    taken_over: BTreeSet<String>,
}

impl Claims {
    /// Takes the next control record. Gives what is wrong with it.
    pub(in super::super) fn learn(&mut self, control: &Control) -> Option<&'static str> {
        let is_of_reserve =
            [Event::ReserveReady, Event::ReserveTakenOver, Event::ReserveRemoved].contains(&control.event);
        if !is_of_reserve {
            return None;
        }
        let generation = control.details.get("generation").cloned().unwrap_or_default();
        let again = control.event == Event::ReserveTakenOver && !self.taken_over.insert(generation.clone());
        self.named.insert(generation.clone());
        self.newest = Some((control.event, generation));
        again.then_some("the same reserve was taken over twice")
    }

    /// Whether the log took over what this reserve holds.
    pub(in super::super) fn has_taken_over(&self, reserve: &Contents) -> bool {
        self.taken_over.contains(&reserve.generation.to_string())
    }

    /// What is wrong (`Err`), or worth knowing, about the reserve that is there, or is not.
    pub(in super::super) fn judge(&self, reserve: Option<&Contents>) -> Result<Option<String>, &'static str> {
        let Some(reserve) = reserve else {
            return match &self.newest {
                Some((Event::ReserveReady, _)) => Err("is missing"),
                _ => Ok(None),
            };
        };
        let is_newest =
            self.newest.as_ref().is_some_and(|(_, named)| *named == reserve.generation.to_string());
        match &self.newest {
            Some((Event::ReserveReady, _)) if is_newest => Ok(waiting(reserve)),
            // Ended between the log's record and the removal of the file.
            Some((Event::ReserveTakenOver, _)) if is_newest => {
                Ok(Some("the reserve was taken over; the next start removes it".to_owned()))
            }
            Some((Event::ReserveRemoved, _)) if is_newest && reserve.entries.is_empty() => {
                Ok(Some("the reserve was given up; the next start removes it".to_owned()))
            }
            // Ended between making it and saying so.
            _ if !reserve.is_used() && !self.named.contains(&reserve.generation.to_string()) => {
                Ok(Some("a reserve was made that the log does not name yet".to_owned()))
            }
            _ => Err("is not the one that the log names last: it was put back, or exchanged"),
        }
    }
}

fn waiting(reserve: &Contents) -> Option<String> {
    let count = reserve.entries.len();
    let torn = match reserve.torn_bytes {
        0 => String::new(),
        bytes => format!(", and {bytes} bytes of an unfinished frame, on which no answer depended"),
    };
    reserve.is_used().then(|| {
        format!(
            "{count} entries stand in the reserve{torn}: the journal takes them over when it is opened again"
        )
    })
}
