//! Wiring of what knows the patient: relations, emergency access, and reviews of it.
//!
//! Owns: turning `[relations]` and `[emergency]` into the gateway's settings. Must never: decide or answer.
//! Look next: `gateway::relations`, `gateway::emergency`, `gateway::review`.

use super::journal_settings;
use crate::clock;
use crate::config::Settings;
use crate::config::care::{Emergency, Relations};
use crate::domain::access::Windows;
use crate::edge::listener::Stop;
use crate::edge::operations::{Answering, Door};
use crate::edge::sessions::SessionStore;
use crate::gateway::emergency::{self, Emergencies};
use crate::gateway::relations::{self, Standing};
use crate::gateway::{Gate, review};
use crate::limits;
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;

/// How callers stand to patients.
pub(super) fn relations(relations: &Relations) -> Standing {
    let signed = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::ZERO);
    Standing::new(relations::Settings {
        lookups: relations.lookups.clone(),
        max_age: signed(relations.max_age),
        absent_max_age: signed(relations.absent_max_age),
        windows: Windows {
            encounter: signed(relations.encounter_window),
            appointment: signed(relations.appointment_window),
        },
    })
}

/// Reviews of emergencies, at the operations listener.
pub(super) fn review_door(gate: Arc<Gate>, settings: &Settings) -> Door {
    let settings = Arc::new(review::Settings {
        reviewers: settings.emergency.reviewers.clone(),
        fresh_seconds: i64::try_from(settings.emergency.fresh.as_secs()).unwrap_or(i64::MAX),
        trail: journal_settings(settings),
    });
    let answer = move |request, peer| -> Answering {
        let (gate, settings) = (Arc::clone(&gate), Arc::clone(&settings));
        Box::pin(async move { review::answer(&gate, &settings, request, &peer).await })
    };
    Door { prefix: "/emergency/", answer: Box::new(answer) }
}

/// Emergency access, kept in the session store.
pub(super) fn emergencies(emergency: &Emergency, store: Arc<dyn SessionStore>) -> Emergencies {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let settings = emergency::Settings {
        fresh_seconds: seconds(emergency.fresh),
        seconds: seconds(emergency.duration),
        seconds_max: seconds(emergency.max_duration),
        per_hour: emergency.per_hour,
    };
    Emergencies::new(settings, store)
}

/// Follows grants of emergency access and records their ends, until `stop`.
pub(super) async fn end_emergencies(gate: Arc<Gate>, mut stop: Stop) {
    loop {
        emergency::sweep(&gate, clock::now()).await;
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::EMERGENCY_SWEEP_INTERVAL) => {}
        }
    }
}
