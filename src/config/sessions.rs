//! `[session]` and `[issuer.events]`: how long sessions last, where they are kept, who may end them from outside.
//!
//! Owns: the meaning of these keys. Must never: let a store be named twice, or events come in under the FHIR base.
//! Look next: `edge::sessions`, `gateway::events`.

use super::raw;
use super::settings::{Events, Issuer, Meaning, Session, SessionPlace};
use crate::edge::sessions::{ActivityRule, PostgresSettings};
use crate::limits;

/// The file in the audit directory; by its name no evidence (design: section 8).
const FILE: &str = "sessions.sqlite";

impl Meaning<'_, '_> {
    pub(super) fn session(&mut self, raw: raw::Session, audit: &raw::Audit) -> Option<Session> {
        let offset = raw.idle_timeout.as_ref().map_or(0, |text| text.offset);
        let bound = limits::SESSION_ABSOLUTE_MAX;
        let idle =
            self.duration(raw.idle_timeout, "session.idle_timeout", limits::SESSION_IDLE_DEFAULT, bound);
        let absolute = self.duration(
            raw.absolute_timeout,
            "session.absolute_timeout",
            limits::SESSION_ABSOLUTE_DEFAULT,
            bound,
        );
        let concurrent = raw.concurrent.map(|number| {
            let places = u32::try_from(number.value).ok();
            let places = places.filter(|places| (1..=limits::SESSIONS_CONCURRENT_MAX).contains(places));
            if places.is_none() {
                let max = limits::SESSIONS_CONCURRENT_MAX;
                self.reader.report(number.offset, format!("`session.concurrent` must be from 1 to {max}"));
            }
            places
        });
        let activity = self.activity(raw.activity);
        if let (Some(postgres), None) = (&raw.postgres, &raw.key) {
            let message = "`session.postgres` needs `session.key`";
            let hint = "a file with 32 bytes in base64, the same at every proxy: `openssl rand -base64 32`";
            self.reader.report_with_hint(postgres.offset, message.to_owned(), hint.to_owned());
        }
        let key = self.path(raw.key);
        let store = self.store(raw.store, raw.postgres, audit);
        let (idle_timeout, absolute_timeout) = (idle?, absolute?);
        if idle_timeout > absolute_timeout {
            let message = "`session.idle_timeout` must not be longer than `session.absolute_timeout`";
            self.reader.report(offset, message.to_owned());
        }
        let concurrent = concurrent.flatten();
        Some(Session { idle_timeout, absolute_timeout, concurrent, activity: activity?, store: store?, key })
    }

    fn activity(&mut self, text: raw::Text) -> Option<ActivityRule> {
        let Some(text) = text else { return Some(ActivityRule::All) };
        match text.value.as_str() {
            "all" => Some(ActivityRule::All),
            "marked" => Some(ActivityRule::Marked),
            _ => {
                self.reader.report(text.offset, "`session.activity` must be `all` or `marked`".to_owned());
                None
            }
        }
    }

    fn store(
        &mut self,
        file: raw::Text,
        postgres: Option<raw::Postgres>,
        audit: &raw::Audit,
    ) -> Option<SessionPlace> {
        match (file, postgres) {
            (Some(_), Some(postgres)) => {
                let message = "`session.store` and `session.postgres` are two places: name one";
                self.reader.report(postgres.offset, message.to_owned());
                None
            }
            (None, Some(postgres)) => Some(SessionPlace::Postgres(PostgresSettings {
                url_file: self.path(postgres.url_file)?,
                ca: self.path(postgres.ca),
            })),
            (file @ Some(_), None) => self.path(file).map(SessionPlace::File),
            (None, None) => Some(SessionPlace::File(self.path(audit.directory.clone())?.join(FILE))),
        }
    }

    pub(super) fn events(&mut self, raw: raw::Events) -> Option<Events> {
        let audience = self.not_empty(raw.audience, "issuer.events.audience");
        let logout_audience = self.not_empty(raw.logout_audience, "issuer.events.logout_audience");
        let heartbeat = raw.heartbeat.map(|text| {
            let bound = limits::SESSION_ABSOLUTE_MAX;
            self.duration(Some(text), "issuer.events.heartbeat", bound, bound)
        });
        let authorization_file = self.path(raw.authorization_file);
        let audience = audience?;
        Some(Events {
            logout_audience: logout_audience.unwrap_or_else(|| audience.clone()),
            audience,
            authorization_file,
            heartbeat: heartbeat.flatten(),
        })
    }

    /// Events come in beside the FHIR base: nothing else is open to strangers under it (design: section 6).
    pub(super) fn events_have_a_place(&mut self, base: Option<&str>, issuers: &[Issuer], at: &[usize]) {
        let path = base.and_then(|base| base.parse::<http::Uri>().ok()).map(|uri| uri.path().to_owned());
        let at_root = path.is_some_and(|path| path.is_empty() || path == "/");
        if at_root && issuers.iter().any(|issuer| issuer.events.is_some()) {
            let message = "`issuer.events` needs a path in `public.base_url`: events come in beside it";
            self.reader.report(at.first().copied().unwrap_or(0), message.to_owned());
        }
    }
}
