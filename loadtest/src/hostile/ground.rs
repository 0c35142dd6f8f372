//! What attackers have: where the gate is, tokens good and bad, bombs.
//!
//! Owns: [`Ground`], made once before the first attack, and connections that nothing was said on yet.
//! Must never: give an attacker more than anybody with an account and a network has.
//! Look next: `lanes` and `floods`, who use it.

use super::attacks::{Attack, Way};
use super::tally::{Held, Tally};
use crate::client::{Link, Place, Protocol};
use crate::site::Site;
use chartgate_sandbox::emr::Emr;
use chartgate_sandbox::issuer::Issuer;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Attackers have an address of their own.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How the people among them are called, in the trail.
pub(super) const SUBJECT: &str = "attacker-";
const PEOPLE: usize = 4;
/// Bad tokens of each kind: enough that none stays in a memory by itself.
const BAD_TOKENS: usize = 40;
/// What a bomb unfolds to.
const BOMB_BYTES: usize = 64 * 1024 * 1024;
/// Records of the patient whose chart is a large answer, and the text in each.
const LARGE_RECORDS: usize = 200;
const LARGE_TEXT_BYTES: usize = 5_000;
/// The large answer: about a megabyte.
pub(super) const LARGE: &str = "/fhir/Observation?patient=Patient/siege&_count=1000";
pub(super) const SMALL: &str = "/fhir/Patient/siege";
/// What the record system answers with a bomb.
pub(super) const BOMB: &str = "/fhir/Patient/siege-bomb";
/// Before a lane tries to connect again that could not.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What attackers have.
pub(super) struct Ground {
    pub(super) http1: Place,
    pub(super) http2: Place,
    /// `Authorization` of people who may ask.
    pub(super) good: Vec<HeaderValue>,
    pub(super) giant: Vec<HeaderValue>,
    pub(super) bad: Vec<HeaderValue>,
    pub(super) bomb: Vec<u8>,
    pub(super) emr: Emr,
    pub(super) tally: Tally,
}

/// Fills in the chart that attackers ask for.
///
/// # Errors
/// When the sandbox does not take it.
pub(super) fn fill(emr: &Emr) -> Result<(), String> {
    let text = "all is well, ".repeat(LARGE_TEXT_BYTES / 13);
    let mut records = vec![json!({ "resourceType": "Patient", "id": "siege", "gender": "unknown" })];
    records.extend((0..LARGE_RECORDS).map(|number| {
        json!({
            "resourceType": "Observation",
            "id": format!("siege-{number}"),
            "status": "final",
            "category": [{ "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs",
            }] }],
            "code": { "coding": [{ "system": "http://loinc.org", "code": "8867-4" }] },
            "subject": { "reference": "Patient/siege" },
            "valueString": text,
        })
    }));
    for record in records {
        emr.put(record.to_string().as_bytes()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// So many bytes of nothing, as one gzip member.
fn bomb() -> Result<Vec<u8>, String> {
    let mut folded = GzEncoder::new(Vec::new(), Compression::best());
    let piece = vec![b' '; 1024 * 1024];
    for _ in 0..BOMB_BYTES / piece.len() {
        folded.write_all(&piece).map_err(|error| error.to_string())?;
    }
    folded.finish().map_err(|error| error.to_string())
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| error.to_string())
}

fn good(issuer: &Issuer, number: usize) -> Result<String, String> {
    let named = |claims: &mut Value| {
        if let Some(claims) = claims.as_object_mut() {
            claims.insert("sub".to_owned(), json!(format!("{SUBJECT}{number}")));
        }
    };
    issuer.token_with("nurse", named).map_err(|error| error.to_string())
}

/// Unknown key, broken signature, no signature, noise.
fn bad(issuer: &Issuer, number: usize) -> Result<[String; 4], String> {
    let stranger = issuer.forge("nurse", |draft| {
        draft.header.insert("kid".to_owned(), json!(format!("unknown-{number}")));
    });
    let sound = good(issuer, PEOPLE + number)?;
    let unsigned = issuer.forge("nurse", |draft| {
        draft.header.insert("alg".to_owned(), json!("none"));
    });
    let text = |error: chartgate_sandbox::issuer::IssuerError| error.to_string();
    Ok([stranger.map_err(text)?, broken(&sound), unsigned.map_err(text)?, format!("{number}.noise.{number}")])
}

/// With a character of the signature changed; the last one may hold no bits of it.
fn broken(token: &str) -> String {
    let mut token = token.to_owned();
    let at = token.len().saturating_sub(20);
    let other = if token.get(at..=at) == Some("A") { "B" } else { "A" };
    token.replace_range(at..=at, other);
    token
}

/// A token of about this many bytes, whose signature is none.
fn giant(token: &str, bytes: usize) -> String {
    let more = bytes.saturating_sub(token.len());
    format!("{token}{}", "A".repeat(more))
}

impl Ground {
    /// Signs and folds what attacks need.
    ///
    /// # Errors
    /// When the issuer cannot sign, or there is no certificate.
    pub(super) fn of(site: &Site, port: u16, attacks: &[Attack]) -> Result<Self, String> {
        let wants = |ways: &[Way]| attacks.iter().any(|attack| ways.contains(&attack.way));
        let issuer = site.issuer();
        let place =
            |protocol| Place::secure(port, &site.ca_file(), protocol).map(|place| place.coming_from(ADDRESS));
        let people = (0..PEOPLE).map(|number| good(issuer, number)).collect::<Result<Vec<_>, _>>()?;
        let mut bad_ones = Vec::new();
        for number in 0..if wants(&[Way::BadTokens]) { BAD_TOKENS } else { 0 } {
            for token in bad(issuer, number)? {
                bad_ones.push(bearer(&token)?);
            }
        }
        let sound = people.first().map(String::as_str).unwrap_or_default();
        let giants = [8_000, 30_000].map(|bytes| bearer(&giant(sound, bytes)));
        Ok(Self {
            http1: place(Protocol::Http1)?,
            http2: place(Protocol::Http2)?,
            good: people.iter().map(|token| bearer(token)).collect::<Result<_, _>>()?,
            giant: giants.into_iter().collect::<Result<_, _>>()?,
            bad: bad_ones,
            bomb: if wants(&[Way::BombsIn, Way::BombsOut]) { bomb()? } else { Vec::new() },
            emr: site.emr().clone(),
            tally: Tally::default(),
        })
    }

    /// One of the good tokens.
    pub(super) fn token(&self, number: usize) -> HeaderValue {
        let none = || HeaderValue::from_static("none");
        self.good.get(number % self.good.len().max(1)).cloned().unwrap_or_else(none)
    }

    /// A connection after its handshake, or a pause.
    pub(super) async fn raw(
        &self,
        place: &Place,
        receive_bytes: Option<u32>,
    ) -> Option<(TlsStream<TcpStream>, Held<'_>)> {
        let reached = async { place.shake_hands(place.reach(receive_bytes).await?).await };
        if let Ok(stream) = reached.await {
            return Some((stream, Held::new(&self.tally)));
        }
        self.turned_away().await;
        None
    }

    /// A connection for a caller who keeps the rules, or a pause.
    pub(super) async fn link(&self) -> Option<(Link, Held<'_>)> {
        if let Ok(link) = self.http1.connect().await {
            return Some((link, Held::new(&self.tally)));
        }
        self.turned_away().await;
        None
    }

    pub(super) async fn turned_away(&self) {
        self.tally.ended("no connection");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_small_and_unfolds() {
        let bomb = bomb().unwrap();
        assert!(bomb.len() < 80 * 1024, "{}", bomb.len());
        // The last four bytes are the length of what was folded (RFC 1952 section 2.3.1).
        let length = bomb.last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        assert_eq!(length, u32::try_from(BOMB_BYTES).ok());
    }

    #[test]
    fn bad_tokens_are_bad_each_in_its_way() {
        let issuer = Issuer::offline("http://issuer.example", "audience").unwrap();
        let sound = good(&issuer, 1).unwrap();
        let tokens = bad(&issuer, 1).unwrap();
        assert!(tokens.iter().all(|token| bearer(token).is_ok()));
        assert!(broken(&sound) != sound && broken(&sound).len() == sound.len());
        assert_eq!(giant(&sound, 8_000).len(), 8_000);
    }
}
