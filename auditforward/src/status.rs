//! How far each receiver has come, and what is wrong.
//!
//! Owns: what `status` prints. Must never: print a record; take a lock.
//! Look next: `state`.

use chartgate::clock;
use chartgate::domain::audit::{self, escape};
use chartgate::edge::journal::{self, Keys, Reader};
use serde_json::{Value, json};

use crate::settings::{Kind, Receiver, Settings};
use crate::state::{self, Ailment, Cursor};

/// One receiver.
#[derive(Debug)]
pub(crate) struct Standing {
    name: String,
    kind: &'static str,
    cursor: Option<Cursor>,
    behind_entries: u64,
    /// How old the oldest record is that it has not got; nothing where there is none, or it cannot be read.
    behind_seconds: Option<i64>,
    ailment: Option<Ailment>,
}

/// All receivers, as they are now.
///
/// # Errors
/// When the trail or a cursor cannot be read.
pub(crate) fn standings(settings: &Settings, trail: &journal::Settings) -> Result<Vec<Standing>, String> {
    let keys = Keys::load(trail).map_err(|error| error.to_string())?;
    let mut reader = Reader::open(&trail.directory, &keys).map_err(|finding| finding.to_string())?;
    settings.receivers.iter().map(|receiver| standing(settings, receiver, &mut reader)).collect()
}

fn standing(settings: &Settings, receiver: &Receiver, reader: &mut Reader<'_>) -> Result<Standing, String> {
    let cursor = state::cursor(&settings.state, &receiver.name)?;
    let next = match (&receiver.kind, &cursor) {
        (Kind::S3(_), Some(cursor)) => cursor.edge.unwrap_or(0),
        (_, Some(cursor)) => cursor.next,
        (_, None) => 0,
    };
    let behind_entries = reader.checkpoint().size.saturating_sub(next);
    let oldest = (behind_entries > 0).then(|| reader.record(next).ok().flatten()).flatten();
    let behind_seconds = oldest.map(|record| clock::now().duration_since(record.time()).as_secs().max(0));
    Ok(Standing {
        name: receiver.name.clone(),
        kind: match &receiver.kind {
            Kind::Syslog(_) => "syslog",
            Kind::Otlp(_) => "otlp",
            Kind::S3(_) => "s3",
        },
        behind_entries,
        behind_seconds,
        ailment: state::ailment(&settings.state, &receiver.name)?,
        cursor,
    })
}

impl Standing {
    /// Whether nothing is wrong with it.
    pub(crate) fn is_good(&self) -> bool {
        self.ailment.is_none()
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let cursor = self.cursor.as_ref();
        let value: Value = json!({
            "receiver": self.name,
            "kind": self.kind,
            "next": cursor.map(|cursor| cursor.next),
            "edge": cursor.and_then(|cursor| cursor.edge),
            "confirmed": cursor.and_then(|cursor| cursor.confirmed).map(|time| time.to_string()),
            "behindEntries": self.behind_entries,
            "behindSeconds": self.behind_seconds,
            "gaps": cursor.map_or(0, |cursor| cursor.gaps),
            "rejected": cursor.map_or(0, |cursor| cursor.rejected),
            "trouble": self.ailment.as_ref().map(|ailment| json!({"since": ailment.since.to_string(), "what": ailment.what})),
        });
        audit::json(&value)
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let mut line =
            format!("{:<12} {:<7} {:>9} entries behind", self.name, self.kind, self.behind_entries);
        if let Some(seconds) = self.behind_seconds {
            line.push_str(&format!(", {seconds} s"));
        }
        if let Some(cursor) = &self.cursor {
            for (count, word) in [(cursor.gaps, "in gaps"), (cursor.rejected, "refused by the receiver")] {
                if count > 0 {
                    line.push_str(&format!(", {count} {word}"));
                }
            }
        }
        if let Some(ailment) = &self.ailment {
            line.push_str(&format!("; since {}: {}", ailment.since, escape(&ailment.what)));
        }
        line
    }
}
