//! What the trail says of revocations.
//!
//! Owns: the control records of a revocation that comes into force or is lifted.
//! Must never: leave out whom it was about: this is evidence, and the trail is encrypted.
//! Look next: `domain::audit`, how records are kept.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::audit::{Control, Event, Record};
use crate::domain::identity::{Reach, Revocation};

/// A revocation is in force here.
#[must_use]
pub fn revoked(revocation: &Revocation, now: Timestamp) -> Record {
    control(Event::Revoked, revocation, now)
}

/// A revocation is not in force any more.
#[must_use]
pub fn lifted(revocation: &Revocation, now: Timestamp) -> Record {
    control(Event::RevocationLifted, revocation, now)
}

fn control(event: Event, revocation: &Revocation, now: Timestamp) -> Record {
    let (issuer, name) = revocation.target.parts();
    let until = match revocation.reach {
        Reach::Until(time) => time.to_string(),
        Reach::UntilLifted => "lifted".to_owned(),
    };
    let mut details: BTreeMap<String, String> = [
        ("id", revocation.id.clone()),
        ("kind", revocation.target.kind().to_owned()),
        ("origin", revocation.origin.code().to_owned()),
        ("reason", revocation.reason.clone()),
        ("until", until),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    details.extend(issuer.map(|issuer| ("issuer".to_owned(), issuer.to_owned())));
    if !name.is_empty() {
        details.insert("name".to_owned(), name.to_owned());
    }
    Record::Control(Control { time: now, event, details })
}
