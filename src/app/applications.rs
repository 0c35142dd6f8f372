//! Registered applications while the program runs: who is registered where, and agreements that come to their end.
//!
//! Owns: putting the register into the issuers, the key of nonces, and the warnings of [`limits::AGREEMENT_WARNING_DAYS`].
//! Must never: refuse anybody; `domain::identity` does that on the day.
//! Look next: `config::clients`, what the operator wrote.

use crate::clock;
use crate::config::clients::{ClientAuthentication, Dpop, Registered};
use crate::config::{Problem, Settings};
use crate::domain::identity::{Client, Issuer, Nonces};
use crate::edge::introspection::{ClientKey, Credentials};
use crate::edge::listener::Stop;
use crate::edge::telemetry::Telemetry;
use crate::limits;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::path::Path;

/// The issuer with its clients. Without any `[[client]]` at all, every client of the issuer may come; with one, an
/// issuer that none names has no clients.
pub(super) fn register(issuer: Issuer, clients: &[Registered]) -> Issuer {
    if clients.is_empty() {
        return issuer;
    }
    let own: Vec<Client> = clients
        .iter()
        .filter(|registered| registered.issuers.contains(issuer.url()))
        .map(|registered| registered.client.clone())
        .collect();
    issuer.with_clients(own)
}

/// As whom an issuer is asked. An assertion is for the issuer itself, unless the configuration names its token endpoint:
/// RFC 7523 section 3 allows both, and what is for the issuer alone cannot be turned against another (its revision asks
/// for that).
pub(super) fn credentials(asked: &ClientAuthentication, issuer: &str) -> Result<Credentials, String> {
    let read = |name: &str, path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("`{name}` cannot be read: {}", error.kind()))
    };
    match asked {
        ClientAuthentication::Secret(path) => {
            let secret = read("client_secret_file", path)?;
            Ok(Credentials::Secret(secret.trim_end().to_owned()))
        }
        ClientAuthentication::Key { file, id, audience } => {
            let pem = read("client_key_file", file)?;
            let audience = audience.clone().unwrap_or_else(|| issuer.to_owned());
            let key = ClientKey::read(pem.as_bytes(), id.clone(), audience);
            key.map(|key| Credentials::Key(Box::new(key)))
                .map_err(|problem| format!("`client_key_file` {problem}"))
        }
    }
}

/// Nonces under the configured key, or one of this process's own; none where they are not demanded.
pub(super) fn nonces(dpop: &Dpop) -> Result<Option<Nonces>, Vec<Problem>> {
    let wrong = |text: String| vec![Problem::whole_file("[dpop]", text)];
    if !dpop.nonce {
        return Ok(None);
    }
    let mut key = [0_u8; 32];
    match &dpop.nonce_key {
        None => aws_lc_rs::rand::fill(&mut key).map_err(|_| wrong("no random numbers".to_owned()))?,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("`nonce_key` cannot be read: {}", error.kind())))?;
            let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
            key = bytes.ok_or_else(|| wrong("`nonce_key` is not 32 bytes in base64".to_owned()))?;
        }
    }
    Ok(Some(Nonces::new(&key)))
}

/// How near an agreement's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    Ended,
    Days(i64),
}

/// The agreements to call out, with the client's id.
fn endings(settings: &Settings, now: Timestamp) -> impl Iterator<Item = (&str, Nearness)> {
    settings.clients.iter().filter_map(move |registered| {
        let days = registered.client.days_left(now)?;
        let near = limits::AGREEMENT_WARNING_DAYS.into_iter().any(|warning| days <= warning);
        let nearness = if days < 0 { Nearness::Ended } else { Nearness::Days(days) };
        near.then_some((registered.client.id.as_str(), nearness))
    })
}

/// What `check` says of agreements.
pub(super) fn notes(settings: &Settings, now: Timestamp) -> Vec<Problem> {
    let say = |(id, nearness): (&str, Nearness)| {
        let text = match nearness {
            Nearness::Ended => format!("the agreement of client `{id}` has ended: it is refused"),
            Nearness::Days(days) => format!("the agreement of client `{id}` ends in {days} days"),
        };
        Problem::whole_file("[[client]]", text)
    };
    endings(settings, now).map(say).collect()
}

/// Once an hour the days that are left become metrics, once a day what is near its end is logged; until `stop`.
pub(super) async fn watch_agreements(settings: Settings, telemetry: Telemetry, mut stop: Stop) {
    let mut logged = None;
    loop {
        let now = clock::now();
        for registered in &settings.clients {
            if let Some(days) = registered.client.days_left(now) {
                telemetry.agreement_days_left(&registered.client.id, days);
            }
        }
        let today = now.to_zoned(TimeZone::UTC).date();
        if logged.replace(today) != Some(today) {
            endings(&settings, now).for_each(log);
        }
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::AGREEMENTS_LOOKED_AT_INTERVAL) => {}
        }
    }
}

fn log((client, nearness): (&str, Nearness)) {
    let [_, soon, urgent] = limits::AGREEMENT_WARNING_DAYS;
    match nearness {
        Nearness::Ended => tracing::error!(client, "the agreement has ended and the client is refused"),
        Nearness::Days(days) if days <= urgent => tracing::error!(client, days, "the agreement ends in days"),
        Nearness::Days(days) if days <= soon => tracing::warn!(client, days, "the agreement ends soon"),
        Nearness::Days(days) => tracing::info!(client, days, "the agreement comes to its end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::{BindingDemand, ClientKind, SecondFactor};

    fn client(expires: &str) -> Client {
        Client {
            id: "app-1".to_owned(),
            kind: ClientKind::SmartApp,
            purposes: ["TREAT".to_owned()].into(),
            scopes: None,
            roles: None,
            binding: BindingDemand::None,
            second_factor: SecondFactor::Person,
            agreement_expires: Some(expires.parse().unwrap()),
        }
    }

    #[test]
    fn days_are_counted_to_the_last_day_itself() {
        let now: Timestamp = "2027-03-01T23:59:59Z".parse().unwrap();
        let left = |expires: &str| client(expires).days_left(now).unwrap();
        assert_eq!([left("2027-03-01"), left("2027-02-28"), left("2027-03-31")], [0, -1, 30]);
        assert_eq!([left("2028-03-01"), left("2026-03-01")], [366, -365]);
    }
}
