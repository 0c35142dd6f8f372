//! The witness: another department's small server that cosigns the states of logs it follows (C2SP tlog-witness).
//!
//! Owns: `POST /add-checkpoint` and its answers. It runs on a machine of its own, has nothing of the gate's secrets, and
//! sees checkpoints and hashes only.
//! Must never: cosign before the state is on disk; cosign a state that is not a continuation of the last one.
//! Look next: `store` for what it remembers, `domain::ledger::judge` for what it decides, `docs/witness.md` for operators.

mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::journal::{KeyError, make_signing_key, signing_key};
use super::listener::{BodyRefusal, Drained, Listener, Peer, Stop};
use crate::clock;
use crate::domain::ledger::{
    AddCheckpoint, KeyKind, LogSigner, Refusal, TrustedLog, VerifierKey, cosign, judge,
};
use crate::limits::WITNESS_REQUEST_BYTES_MAX;
use store::{Fault, Store};

pub use store::StoreError;

const TEXT: &str = "text/plain; charset=utf-8";
/// The media type in which a witness names the size it knows.
const SIZE: &str = "text/x.tlog.size";

/// What a witness is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in cosignatures.
    pub name: String,
    /// Ed25519 key, PKCS#8 PEM; made by [`init`].
    pub signing_key: PathBuf,
    /// The file of its state; made by [`init`], never by [`Witness::open`].
    pub state: PathBuf,
    /// The logs it follows.
    pub logs: Vec<TrustedLog>,
}

/// Why a witness cannot be had.
#[derive(Debug)]
pub enum WitnessError {
    /// Its key cannot be used.
    Key(KeyError),
    /// Its name is no name for a key.
    Name,
    /// Its state cannot be had.
    Store(StoreError),
}

impl fmt::Display for WitnessError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => fmt::Display::fmt(error, out),
            Self::Name => out.write_str("the witness's name may have neither spaces nor `+`"),
            Self::Store(error) => fmt::Display::fmt(error, out),
        }
    }
}

impl std::error::Error for WitnessError {}

/// Makes the key, unless it is there, and an empty state, which must not be there. Answers the verifier key.
///
/// # Errors
/// [`WitnessError`].
pub fn init(settings: &Settings) -> Result<VerifierKey, WitnessError> {
    if !settings.signing_key.exists() {
        make_signing_key(&settings.signing_key).map_err(WitnessError::Key)?;
    }
    let key = verifier(&settings.name, &settings.signing_key)?;
    store::create(&settings.state).map_err(WitnessError::Store)?;
    Ok(key)
}

/// The key that checks this witness's cosignatures.
///
/// # Errors
/// [`WitnessError`].
pub fn verifier(name: &str, signing_key_file: &Path) -> Result<VerifierKey, WitnessError> {
    let signer = signing_key(signing_key_file).map_err(WitnessError::Key)?;
    VerifierKey::new(name, KeyKind::Witness, signer.key()).ok_or(WitnessError::Name)
}

/// The open witness.
#[derive(Debug)]
pub struct Witness {
    name: String,
    signer: LogSigner,
    logs: BTreeMap<String, TrustedLog>,
    store: Store,
}

/// What is answered: status, media type, body.
type Answer = (StatusCode, &'static str, String);

impl Witness {
    /// Opens key and state.
    ///
    /// # Errors
    /// [`WitnessError`]; nothing is made that was not there.
    pub fn open(settings: &Settings) -> Result<Self, WitnessError> {
        let _usable = verifier(&settings.name, &settings.signing_key)?;
        let signer = signing_key(&settings.signing_key).map_err(WitnessError::Key)?;
        let store = Store::open(&settings.state).map_err(WitnessError::Store)?;
        let logs = settings.logs.iter().map(|log| (log.origin.clone(), log.clone())).collect();
        Ok(Self { name: settings.name.clone(), signer, logs, store })
    }

    /// Judges one request; blocks for as long as the disk takes.
    fn add_checkpoint(&self, body: &[u8]) -> Answer {
        let request = match AddCheckpoint::parse(body) {
            Ok(request) => request,
            Err(refusal) => return refused(refusal),
        };
        let (checkpoint, text) = (request.note.checkpoint(), request.note.text());
        let origin = checkpoint.origin.as_str();
        let log = self.logs.get(origin);
        let sign = || {
            let seconds = u64::try_from(clock::now().as_second()).unwrap_or_default();
            cosign(&self.signer, &self.name, text, seconds)
        };
        match self.store.advance(origin, |known| judge(&request, log, known), sign) {
            Ok(Ok(line)) => (StatusCode::OK, TEXT, line),
            Ok(Err(_)) | Err(Fault::Broken) => {
                (StatusCode::INTERNAL_SERVER_ERROR, TEXT, "out of service\n".to_owned())
            }
            Err(Fault::Refused(refusal)) => {
                if matches!(refusal, Refusal::Conflict(_) | Refusal::NotConsistent) {
                    // Signed by the log's own key, so this may be the proof of a rollback or a fork (T-221).
                    let (size, root) = (checkpoint.size, checkpoint.root);
                    tracing::warn!(origin, size, %root, old = request.old, "not cosigned: {refusal}");
                }
                refused(refusal)
            }
        }
    }
}

fn refused(refusal: Refusal) -> Answer {
    let status = match refusal {
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog => StatusCode::NOT_FOUND,
        Refusal::UnknownKey => StatusCode::FORBIDDEN,
        Refusal::Conflict(size) => return (StatusCode::CONFLICT, SIZE, format!("{size}\n")),
        Refusal::NotConsistent => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, TEXT, format!("{refusal}\n"))
}

/// Serves until `stop`.
pub fn serve(listener: Listener, witness: Arc<Witness>, stop: Stop) -> impl Future<Output = Drained> + Send {
    let handler = move |request: Request<Incoming>, peer: Peer| {
        let witness = Arc::clone(&witness);
        async move { answer(witness, request, &peer).await }
    };
    listener.serve(handler, stop)
}

async fn answer(witness: Arc<Witness>, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
    if request.uri().path() != "/add-checkpoint" {
        return reply((StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()));
    }
    if request.method() != Method::POST {
        let mut refused = reply((StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST\n".to_owned()));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    let body = match peer.read_body(request.into_body(), WITNESS_REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return reply(unread(refusal)),
    };
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    reply(judged.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, TEXT, "out of service\n".to_owned())))
}

fn unread(refusal: BodyRefusal) -> Answer {
    let status = match refusal {
        BodyRefusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        BodyRefusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
        BodyRefusal::Broken => StatusCode::BAD_REQUEST,
    };
    (status, TEXT, "request was not read\n".to_owned())
}

fn reply((status, media_type, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
