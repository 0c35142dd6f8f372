//! Two gates of the same make, each before one of the two worlds.
//!
//! Owns: opening them, loading and resetting what stands behind them, and asking both at once.
//! Must never: reach an EMR that was not named, or leave a write behind for the next request to see.
//! Look next: `compare`, which judges; `demo::stage`, what a gate here is.

use super::ask::Ask;
use super::compare::{Answer, Clock, Own, Plain};
use super::outside::Outside;
use super::sight::Role;
use super::worlds::{Step, Worlds};
use crate::cli::demo::client::Client;
use crate::cli::demo::stage::{Script, Stage};
use bytes::Bytes;
use chartgate_sandbox::emr::Emr;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use std::collections::VecDeque;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Pages, files and jobs of one request that are followed.
const FOLLOWED_MAX: usize = 8;
const POLLS_MAX: usize = 100;
const POLL_PAUSE: Duration = Duration::from_millis(50);
/// What both sandbox EMRs take the time to be.
const NOW: &str = "2026-03-01T00:00:00Z";
const DECODED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The two gates.
pub(super) struct Pair {
    sides: [Side; 2],
    clock: Clock,
}

struct Side {
    stage: Stage,
    client: Client,
    outside: Option<Outside>,
}

/// The two gates with their worlds loaded, and somebody to ask them.
pub(super) struct Session {
    pair: Arc<Pair>,
    worlds: [Emr; 2],
    tokens: [String; 2],
}

/// What one gate answered.
pub(super) struct Reply {
    /// The answer itself, then what was followed.
    pub(super) answers: Vec<Plain>,
    /// The first answer's body as it came.
    pub(super) body: Vec<u8>,
    /// The EMR's ids of records that were made.
    minted: Vec<String>,
}

impl Reply {
    pub(super) fn status(&self) -> u16 {
        self.answers.first().map_or(0, |answer| answer.status)
    }
}

impl Pair {
    /// Opens both gates; before the sandbox's EMRs, or the two that are named.
    pub(super) async fn open(policies: Option<&PathBuf>, emrs: Option<&[String; 2]>) -> Result<Self, String> {
        let side = async |place: usize| {
            let upstream = emrs.and_then(|emrs| emrs.get(place)).cloned();
            let outside = upstream.as_deref().map(Outside::new).transpose()?;
            let script = Script { policies: policies.cloned(), upstream, empty: true, ..Script::default() };
            let stage = Stage::open(script).await.map_err(|error| error.to_string())?;
            stage.emr().set_recording(false);
            let client = Client::new(&stage.ca_file())?;
            Ok::<_, String>(Side { stage, client, outside })
        };
        let (one, two) = tokio::join!(side(0), side(1));
        let clock = if emrs.is_some() { Clock::Own } else { Clock::Same };
        Ok(Self { sides: [one?, two?], clock })
    }

    /// Where the policies are that both gates use.
    pub(super) fn policies(&self) -> PathBuf {
        let [one, _] = &self.sides;
        one.stage.folder().join("policies")
    }

    /// What the gate says of itself.
    pub(super) async fn capabilities(&self) -> Result<serde_json::Value, String> {
        let [one, _] = &self.sides;
        let answer = one.client.get(&format!("{}/metadata", one.stage.base_url()), None).await?;
        serde_json::from_slice(answer.body()).map_err(|error| error.to_string())
    }

    pub(super) async fn close(self) -> Result<(), String> {
        let [one, two] = self.sides;
        one.stage.close().await.map_err(|error| error.to_string())?;
        two.stage.close().await.map_err(|error| error.to_string())
    }
}

impl Session {
    /// Loads both worlds and lets somebody of this role in.
    pub(super) async fn begin(pair: &Arc<Pair>, worlds: &Worlds, role: &Role) -> Result<Self, String> {
        let [one, two] = &worlds.steps;
        let kept = [held(one)?, held(two)?];
        let session = Self { pair: Arc::clone(pair), worlds: kept, tokens: pair.tokens(role)? };
        session.pair.empty(worlds).await?;
        session.reset(worlds).await?;
        Ok(session)
    }

    /// The same with fresh tokens: they end before a long run does.
    pub(super) fn renewed(&self, role: &Role) -> Result<Self, String> {
        let tokens = self.pair.tokens(role)?;
        Ok(Self { pair: Arc::clone(&self.pair), worlds: self.worlds.clone(), tokens })
    }

    /// Both EMRs hold their worlds again.
    pub(super) async fn reset(&self, worlds: &Worlds) -> Result<(), String> {
        for ((side, world), steps) in self.pair.sides.iter().zip(&self.worlds).zip(&worlds.steps) {
            match &side.outside {
                Some(outside) => outside.load(steps).await?,
                None => {
                    side.stage.emr().set_time(NOW.parse().ok());
                    side.stage.emr().mirror(world);
                }
            }
        }
        Ok(())
    }

    /// Asks both gates, and follows what they offer.
    pub(super) async fn ask(&self, ask: &Ask) -> [Reply; 2] {
        let ([one, two], [first, second]) = (&self.pair.sides, &self.tokens);
        let clock = self.pair.clock;
        let (one, two) = tokio::join!(one.ask(ask, first, clock), two.ask(ask, second, clock));
        [one, two]
    }

    /// As [`Session::ask`]; what a write changed is changed back.
    pub(super) async fn ask_and_reset(&self, ask: &Ask, worlds: &Worlds) -> Result<[Reply; 2], String> {
        let replies = self.ask(ask).await;
        if ask.writes() {
            let changed = replies.iter().any(|reply| reply.status() < 400);
            for (side, reply) in self.pair.sides.iter().zip(&replies) {
                if let Some(outside) = &side.outside {
                    outside.forget(&ask.path, &reply.minted).await?;
                }
            }
            if changed || self.pair.clock == Clock::Same {
                self.reset(worlds).await?;
            }
        }
        Ok(replies)
    }
}

impl Pair {
    fn tokens(&self, role: &Role) -> Result<[String; 2], String> {
        let [one, two] = &self.sides;
        Ok([one.token(role)?, two.token(role)?])
    }

    /// Records of an earlier role's worlds go, where the EMR is not ours to empty.
    async fn empty(&self, worlds: &Worlds) -> Result<(), String> {
        for side in &self.sides {
            if let Some(outside) = &side.outside {
                outside.empty(worlds).await?;
            }
        }
        Ok(())
    }
}

/// An EMR that holds what these steps make.
fn held(steps: &[Step]) -> Result<Emr, String> {
    let emr = Emr::new();
    emr.set_time(NOW.parse().ok());
    for step in steps {
        match step {
            Step::Put { text, .. } => drop(emr.put(text.as_bytes()).map_err(|error| error.to_string())?),
            Step::Delete { resource, id } => {
                emr.delete(resource, id);
            }
        }
    }
    Ok(emr)
}

impl Side {
    /// A token as the sandbox's issuer would give it, with every SMART letter: policy is to decide, not scope.
    fn token(&self, role: &Role) -> Result<String, String> {
        let issuer = self.stage.issuer();
        let persona = issuer.persona(&role.name).map_or("nurse", |persona| persona.name);
        let scope = match role.patient {
            Some(_) => "openid fhirUser launch/patient patient/*.cruds",
            None => "openid fhirUser user/*.cruds",
        };
        let known = issuer.persona(&role.name).is_some();
        let token = issuer.token_with(persona, |claims| {
            let Some(claims) = claims.as_object_mut() else { return };
            claims.insert("scope".to_owned(), json!(scope));
            if !known {
                claims.insert("roles".to_owned(), json!([role.name]));
                claims.insert("purpose_of_use".to_owned(), json!(role.purpose));
                claims.remove("fhirUser");
            }
        });
        token.map_err(|error| error.to_string())
    }

    async fn ask(&self, ask: &Ask, token: &str, clock: Clock) -> Reply {
        let base = self.stage.base_url();
        let first = self.once(ask, &ask.target(), token).await;
        let minted: Vec<String> = first.minted().into_iter().collect();
        let own = Own { base, issuer: self.stage.issuer().url(), minted: &minted, clock };
        let mut answers = vec![first.plain(own)];
        let mut open: VecDeque<String> = first.follow(base).into();
        while let Some(target) = open.pop_front().filter(|_| answers.len() <= FOLLOWED_MAX) {
            let next = self.finished(&target, token).await;
            open.extend(next.follow(base));
            answers.push(next.plain(own));
        }
        Reply { answers, body: first.body, minted }
    }

    /// The answer to a link; of a job, the one when it is done.
    async fn finished(&self, target: &str, token: &str) -> Answer {
        let ask = Ask::get(super::ask::Kind::Page, "");
        let mut answer = self.once(&ask, target, token).await;
        for _ in 0..POLLS_MAX {
            if answer.status != 202 {
                break;
            }
            tokio::time::sleep(POLL_PAUSE).await;
            answer = self.once(&ask, target, token).await;
        }
        answer
    }

    async fn once(&self, ask: &Ask, target: &str, token: &str) -> Answer {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        };
        set(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"));
        let content = ask.content();
        if let Some((media, _)) = &content {
            set(header::CONTENT_TYPE.as_str(), media);
        }
        for (name, value) in &ask.headers {
            set(name, value);
        }
        let slash = if target.is_empty() || target.starts_with('?') { "" } else { "/" };
        let url = format!("{}{slash}{target}", self.stage.base_url());
        let body = content.map(|(_, bytes)| Bytes::from(bytes)).unwrap_or_default();
        match self.client.ask(ask.method, &url, headers, body).await {
            Ok(answer) => read(answer),
            // No answer is an answer too: both gates must give none.
            Err(_) => Answer { status: 0, headers: Vec::new(), body: Vec::new() },
        }
    }
}

fn read(answer: http::Response<Bytes>) -> Answer {
    let (parts, body) = answer.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<(String, String)> =
        parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let coding = parts.headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let mut decoded = Vec::new();
    let read = match coding {
        Some("gzip") => flate2::read::GzDecoder::new(body.as_ref())
            .take(DECODED_BYTES_MAX)
            .read_to_end(&mut decoded)
            .is_ok(),
        Some("zstd") => zstd::stream::read::Decoder::new(body.as_ref())
            .is_ok_and(|decoder| decoder.take(DECODED_BYTES_MAX).read_to_end(&mut decoded).is_ok()),
        _ => false,
    };
    let body = if read { decoded } else { body.to_vec() };
    Answer { status: parts.status.as_u16(), headers, body }
}
