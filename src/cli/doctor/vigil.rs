//! What somebody ought to hear of: emergencies that nobody reviewed, and issuers' event streams that are silent.
//!
//! Owns: from when on it is said. Must never: name a person, a patient or a grant; write in the store or the trail.
//! Look next: `cli::emergency`, the list of emergencies; `gateway::events`, the streams.

use super::list::Checklist;
use crate::config::Settings;
use crate::domain::audit::Cases;
use crate::edge::journal::{Presence, presence};
use crate::edge::sessions::SessionStore;
use crate::gateway::{heard_streams, review};
use crate::{app, clock, limits};
use jiff::Timestamp;
use std::time::Duration;

const EMERGENCIES: &str = "emergencies";

/// How many emergencies wait for a review, and since when. Reads the whole trail.
pub(super) fn reviews(list: &mut Checklist, settings: &Settings) {
    if presence(&settings.audit.directory) == Presence::Missing {
        return;
    }
    match review::cases(&app::journal_settings(settings)) {
        Ok(cases) => waiting(list, &open(&cases), clock::now()),
        Err(error) => {
            let hint = "`chartgate audit verify` says what is wrong with the trail";
            list.fail(EMERGENCIES, "emergency-reviews", error, hint);
        }
    }
}

/// When each emergency began that nobody has reviewed, the oldest first.
fn open(cases: &Cases) -> Vec<Timestamp> {
    cases.all().into_iter().filter(|case| case.reviews.is_empty()).map(|case| case.began).collect()
}

fn waiting(list: &mut Checklist, began: &[Timestamp], now: Timestamp) {
    let Some(oldest) = began.first() else {
        list.pass(EMERGENCIES, "emergency-reviews", "none waits for a review");
        return;
    };
    let hours = now.duration_since(*oldest).as_hours();
    let what = format!("{} not reviewed, the oldest for {hours} hours", began.len());
    if hours > limits::EMERGENCY_REVIEW_HOURS_ADVISED_MAX {
        let hint = "`chartgate emergency list --open` shows them, `chartgate emergency review` closes one";
        list.warn(EMERGENCIES, "emergency-reviews", what, hint);
    } else {
        list.pass(EMERGENCIES, "emergency-reviews", what);
    }
}

/// Whether each issuer that sends events was heard of within its heartbeat.
pub(super) fn streams(list: &mut Checklist, settings: &Settings, store: &dyn SessionStore) {
    let now = clock::now();
    let heard = heard_streams(store, now);
    for issuer in &settings.issuers {
        let Some(events) = &issuer.events else { continue };
        let group = format!("issuer {}", issuer.url);
        match &heard {
            Ok(heard) => stream(list, &group, events.heartbeat, heard.get(&issuer.url).copied(), now),
            Err(error) => {
                let hint = "without the session store nobody is let in: see docs/sessions.md";
                list.fail(&group, "event-stream", error.to_string(), hint);
            }
        }
    }
}

fn stream(
    list: &mut Checklist,
    group: &str,
    heartbeat: Option<Duration>,
    last: Option<Timestamp>,
    now: Timestamp,
) {
    let hint = "look at the stream's status at the issuer, and let it send verification events";
    let ago = last.map(|last| now.duration_since(last).as_secs().max(0));
    match (heartbeat, ago) {
        (None, _) => {
            let hint =
                "set `issuer.events.heartbeat`, and let the issuer send verification events more often";
            list.warn(group, "event-heartbeat", "nobody would notice if its events no longer came", hint);
        }
        (Some(_), None) => {
            list.warn(group, "event-stream", "no verification event ever came from it", hint);
        }
        (Some(heartbeat), Some(ago)) if Duration::from_secs(ago.unsigned_abs()) > heartbeat => {
            let what = format!("its last verification event came {ago} s ago, later than its heartbeat");
            list.fail(group, "event-stream", what, hint);
        }
        (Some(_), Some(ago)) => {
            list.pass(group, "event-stream", format!("its last verification event came {ago} s ago"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::Status;
    use super::*;
    use crate::domain::audit::{Control, Event, Record};

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3_600).unwrap()
    }

    #[test]
    fn what_was_reviewed_does_not_wait() {
        let told = |event: Event, hour: i64, grant: &str| {
            let details = [("grant".to_owned(), grant.to_owned())].into_iter().collect();
            Record::Control(Control { time: at(hour), event, details })
        };
        let mut cases = Cases::default();
        for record in [
            told(Event::EmergencyBegan, 1, "a"),
            told(Event::EmergencyBegan, 2, "b"),
            told(Event::EmergencyBegan, 3, "c"),
            told(Event::EmergencyEnded, 4, "c"),
            told(Event::EmergencyReviewed, 5, "a"),
        ] {
            cases.learn(&record);
        }
        assert_eq!(open(&cases), [at(2), at(3)], "an end is no review");
    }

    #[test]
    fn emergencies_may_wait_for_a_weekend() {
        // Hours at which open ones began, seen at hour 100.
        let cases: [(&str, &[i64], Status); 4] = [
            ("none", &[], Status::Pass),
            ("a new one", &[99], Status::Pass),
            ("in time", &[28, 99], Status::Pass),
            ("an old one", &[27, 99], Status::Warn),
        ];
        for (name, began, status) in cases {
            let began: Vec<Timestamp> = began.iter().map(|hour| at(*hour)).collect();
            let mut list = Checklist::default();
            waiting(&mut list, &began, at(100));
            assert_eq!(list.only(), ("emergency-reviews", status), "{name}");
        }
    }

    #[test]
    fn a_silent_stream_is_a_failure() {
        let hour = Some(Duration::from_secs(3_600));
        let cases = [
            ("no heartbeat", None, Some(at(9)), "event-heartbeat", Status::Warn),
            ("never heard", hour, None, "event-stream", Status::Warn),
            ("heard in time", hour, Some(at(9)), "event-stream", Status::Pass),
            ("heard by a clock ahead", hour, Some(at(11)), "event-stream", Status::Pass),
            ("silent", hour, Some(at(8)), "event-stream", Status::Fail),
        ];
        for (name, heartbeat, last, code, status) in cases {
            let mut list = Checklist::default();
            stream(&mut list, "issuer", heartbeat, last, at(10));
            assert_eq!(list.only(), (code, status), "{name}");
        }
    }
}
