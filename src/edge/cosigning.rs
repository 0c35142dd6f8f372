//! Having the trail's states cosigned by witnesses, beside everything else that the program does.
//!
//! Owns: the exchange with each witness, the cosigned checkpoints that are kept, and the alarm when one grows old.
//! Must never: hold up a request or a commit, unless the operator set an age for it; send anything but checkpoints and hashes; take an answer that was not checked.
//! Look next: `domain::ledger::judge` for what a witness decides, `journal::Witnessed` for what is kept, docs/witness.md.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::journal::{Journal, Publication, Witnessed};
use super::keyring::{acceptable_url, https_client};
use super::listener::Stop;
use super::telemetry::Telemetry;
use crate::clock;
use crate::domain::ledger::{AddCheckpoint, Hash, VerifierKey};
use crate::limits;

/// Where a witness is, and its key.
#[derive(Clone, Debug)]
pub struct WitnessSource {
    /// Below which `add-checkpoint` is: https, or http to loopback.
    pub url: String,
    /// Checks its cosignatures.
    pub key: VerifierKey,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
}

/// Why a state of the log was not cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or one that says nothing of the log.
    Unavailable(&'static str),
    /// The witness does not know this log or its key.
    NotKnown,
    /// The witness has seen more entries than there are: the trail was put back to an older state.
    RolledBack {
        /// How many it has seen.
        seen: u64,
        /// How many there are.
        here: u64,
    },
    /// The witness has seen another history.
    Forked {
        /// Up to so many entries.
        seen: u64,
    },
}

impl Trouble {
    /// Whether the trail is not what the witness saw.
    #[must_use]
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::Forked { .. })
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::NotKnown => "not-known",
            Self::RolledBack { .. } => "rolled-back",
            Self::Forked { .. } => "forked",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => out.write_str(why),
            Self::NotKnown => out.write_str("it does not know this log or its key"),
            Self::RolledBack { seen, here } => {
                write!(
                    out,
                    "it has seen {seen} entries and here are {here}: the trail was put back to an older state"
                )
            }
            Self::Forked { seen } => {
                write!(out, "it has seen another history of {seen} entries: the trail was written anew")
            }
        }
    }
}

impl std::error::Error for Trouble {}

/// One witness.
struct Witness {
    endpoint: Uri,
    key: VerifierKey,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// What it cosigned last.
    kept: Mutex<Option<Witnessed>>,
}

impl Witness {
    fn new(source: &WitnessSource) -> Result<Self, String> {
        let url = format!("{}/add-checkpoint", source.url.trim_end_matches('/'));
        let endpoint = acceptable_url(&url).ok_or("url: must be https (plain http only to loopback)")?;
        let client = https_client(source.ca.as_deref())?;
        Ok(Self { endpoint, key: source.key.clone(), client, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Witnessed>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size(&self) -> u64 {
        self.kept().as_ref().map_or(0, |kept| kept.checkpoint().size)
    }

    async fn exchange(&self, body: String) -> Result<(StatusCode, Bytes), Trouble> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.clone())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Trouble::Unavailable("the request cannot be made"))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|_| Trouble::Unavailable("it cannot be reached"))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limits::WITNESS_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Trouble::Unavailable("an answer that is too large or breaks off"))?;
        Ok((status, body.to_bytes()))
    }
}

/// The size a witness answered with a conflict, if a proof can begin there.
fn next_size(body: &[u8], old: u64, here: u64) -> Result<u64, Trouble> {
    let text = std::str::from_utf8(body).ok().and_then(|text| text.strip_suffix('\n'));
    let seen: u64 =
        text.and_then(|text| text.parse().ok()).ok_or(Trouble::Unavailable("a conflict without its size"))?;
    match seen {
        seen if seen > here => Err(Trouble::RolledBack { seen, here }),
        seen if seen == old && seen == here => Err(Trouble::Forked { seen }),
        seen => Ok(seen),
    }
}

/// All witnesses of a trail.
pub struct Cosigning {
    directory: PathBuf,
    log: VerifierKey,
    witnesses: Vec<Witness>,
    publications: watch::Receiver<Option<Arc<Publication>>>,
    age_max: Duration,
    refuse_after: Option<SignedDuration>,
    telemetry: Telemetry,
    began: Timestamp,
}

impl fmt::Debug for Cosigning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.witnesses.iter().map(|witness| witness.key.name()).collect();
        out.debug_struct("Cosigning").field("witnesses", &names).finish_non_exhaustive()
    }
}

impl Cosigning {
    /// Prepares; nobody is asked yet. Reads what was kept.
    ///
    /// # Errors
    /// One line: a URL or certificate that cannot be used, or a kept file that cannot be read.
    pub fn new(
        (directory, log): (PathBuf, VerifierKey),
        sources: &[WitnessSource],
        journal: &Journal,
        age_max: Duration,
        telemetry: Telemetry,
    ) -> Result<Self, String> {
        let mut witnesses = Vec::new();
        for source in sources {
            let fault = |what: String| format!("witness `{}`: {what}", source.key.name());
            let witness = Witness::new(source).map_err(fault)?;
            let kept = Witnessed::kept(&directory, &log.public(), &source.key);
            *witness.kept() = kept.map_err(|error| fault(error.to_string()))?;
            witnesses.push(witness);
        }
        let publications = journal.publications();
        let (refuse_after, began) = (None, clock::now());
        Ok(Self { directory, log, witnesses, publications, age_max, refuse_after, telemetry, began })
    }

    /// The same, with an age of the newest cosignature beyond which nothing may be answered.
    #[must_use]
    pub fn refusing_after(mut self, age: Option<Duration>) -> Self {
        self.refuse_after = age.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
        self
    }

    /// Whether the newest cosignature by any witness is so old that nothing may be answered (T-224). One witness is
    /// enough to keep history from being changed unseen.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let Some(after) = self.refuse_after else { return false };
        let newest = self.witnesses.iter().map(|witness| self.age(witness, now)).min();
        newest.is_some_and(|age| age > after)
    }

    /// Asks every witness once, before anything new is written.
    ///
    /// # Errors
    /// What a witness saw that is not in this trail: it must not be gone on with. A witness that does not answer is no
    /// error: it is asked again, and its age tells.
    pub async fn greet(self: &Arc<Self>) -> Result<(), String> {
        let mut publications = self.publications.clone();
        let published = publications.wait_for(Option::is_some);
        let published = tokio::time::timeout(limits::WITNESS_START_TIMEOUT, published).await;
        if !matches!(published, Ok(Ok(_))) {
            tracing::warn!("witnesses were not asked at the start: the trail's tiles are not ready");
            return Ok(());
        }
        let tampering = |(name, asked): (String, Result<(), Trouble>)| match asked {
            Err(trouble) if trouble.is_tampering() => Some(format!("witness `{name}`: {trouble}")),
            Ok(()) | Err(_) => None,
        };
        let all = 0..self.witnesses.len();
        self.ask_all(all.collect()).await.into_iter().find_map(tampering).map_or(Ok(()), Err)
    }

    /// Asks the witnesses until `stop`; never ends before.
    pub async fn run(self: Arc<Self>, stop: Stop) {
        let mut tasks = JoinSet::new();
        for place in 0..self.witnesses.len() {
            let (cosigning, stop) = (Arc::clone(&self), stop.clone());
            tasks.spawn(async move { cosigning.follow(place, stop).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Has the last state cosigned, after the trail was closed.
    pub async fn finish(self: &Arc<Self>) {
        let due = self.witnesses.iter().enumerate().filter(|(_, witness)| self.is_due(witness));
        let _told_by_the_log = self.ask_all(due.map(|(place, _)| place).collect()).await;
    }

    /// Asks these witnesses at the same time; people wait for it.
    async fn ask_all(self: &Arc<Self>, places: Vec<usize>) -> Vec<(String, Result<(), Trouble>)> {
        let mut tasks = JoinSet::new();
        for place in places {
            let cosigning = Arc::clone(self);
            tasks.spawn(async move {
                let witness = cosigning.witnesses.get(place)?;
                let asked = cosigning.ask(witness, limits::WITNESS_START_TIMEOUT).await;
                Some((witness.key.name().to_owned(), asked))
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    async fn follow(&self, place: usize, mut stop: Stop) {
        let Some(witness) = self.witnesses.get(place) else { return };
        let mut was_late = false;
        loop {
            if self.is_due(witness) {
                let _told_by_the_log = self.ask(witness, limits::WITNESS_TIMEOUT).await;
            }
            let age = self.age(witness, clock::now());
            self.telemetry.witness_age(witness.key.name(), age.as_secs());
            let is_late = age > SignedDuration::try_from(self.age_max).unwrap_or(SignedDuration::MAX);
            if is_late && !was_late {
                let (witness, seconds) = (witness.key.name(), age.as_secs());
                tracing::error!(witness, seconds, "the trail's newest cosignature is too old");
            }
            was_late = is_late;
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(limits::WITNESS_PAUSE) => {}
            }
        }
    }

    /// Since its last cosignature; since the program began where there is none.
    fn age(&self, witness: &Witness, now: Timestamp) -> SignedDuration {
        let at = witness.kept().as_ref().map_or(self.began, |kept| kept.at);
        now.duration_since(at).max(SignedDuration::ZERO)
    }

    /// Whether there is something new, or nothing new for so long that the cosignature should be renewed.
    fn is_due(&self, witness: &Witness) -> bool {
        let size = self.publications.borrow().as_ref().map(|publication| publication.size());
        let half = SignedDuration::try_from(self.age_max / 2).unwrap_or(SignedDuration::MAX);
        size.is_some_and(|size| size > witness.size())
            || (size.is_some() && self.age(witness, clock::now()) > half)
    }

    async fn ask(&self, witness: &Witness, time: Duration) -> Result<(), Trouble> {
        let publication = self.publications.borrow().clone();
        let publication = publication.ok_or(Trouble::Unavailable("nothing is published"))?;
        let submitted = tokio::time::timeout(time, self.submit(witness, &publication)).await;
        let submitted = submitted.unwrap_or(Err(Trouble::Unavailable("no answer in time")));
        let kept = match submitted {
            Ok(read) => self.keep(read).await,
            Err(trouble) => Err(trouble),
        };
        let name = witness.key.name();
        self.telemetry.witness_asked(kept.as_ref().map_or_else(Trouble::outcome, |_| "cosigned"));
        match kept {
            Ok(read) => {
                *witness.kept() = Some(read);
                Ok(())
            }
            Err(trouble) if trouble.is_tampering() => {
                tracing::error!(witness = name, "the trail is not what its witness saw: {trouble}");
                Err(trouble)
            }
            Err(trouble) => {
                tracing::warn!(witness = name, "the trail was not cosigned: {trouble}");
                Err(trouble)
            }
        }
    }

    /// Sends `publication` and checks the answer. Once more where the witness knows another size than we thought.
    async fn submit(&self, witness: &Witness, publication: &Arc<Publication>) -> Result<Witnessed, Trouble> {
        let here = publication.size();
        let mut old = Some(witness.size()).filter(|size| *size <= here).unwrap_or_default();
        for _ in 0..2 {
            let proof = self.proof(publication, old).await?;
            let note = publication.checkpoint().map_err(|_| Trouble::Unavailable("no checkpoint"))?;
            let request = AddCheckpoint { old, proof, note };
            let (status, body) = witness.exchange(request.to_string()).await?;
            match status {
                StatusCode::OK => {
                    let note = request.note.with_lines(&body);
                    let read = note.and_then(|note| Witnessed::new(&self.log, &witness.key, &note));
                    return read.map_err(|_| Trouble::Unavailable("an answer without its cosignature"));
                }
                StatusCode::CONFLICT => old = next_size(&body, old, here)?,
                StatusCode::UNPROCESSABLE_ENTITY => return Err(Trouble::Forked { seen: old }),
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Err(Trouble::NotKnown),
                _ => return Err(Trouble::Unavailable("an unexpected status")),
            }
        }
        Err(Trouble::Unavailable("its state changes while it is asked"))
    }

    /// The proof from `old` on. Reads files, so on a thread that may wait.
    async fn proof(&self, publication: &Arc<Publication>, old: u64) -> Result<Vec<Hash>, Trouble> {
        if old == 0 {
            return Ok(Vec::new());
        }
        let (publication, directory) = (Arc::clone(publication), self.directory.clone());
        let made = tokio::task::spawn_blocking(move || publication.consistency(&directory, old)).await;
        made.ok().flatten().ok_or(Trouble::Unavailable("tiles are missing"))
    }

    /// Writes it down. Syncs, so on a thread that may wait.
    async fn keep(&self, read: Witnessed) -> Result<Witnessed, Trouble> {
        let (kept, directory) = (read.clone(), self.directory.clone());
        match tokio::task::spawn_blocking(move || kept.keep(&directory)).await {
            Ok(Ok(())) => Ok(read),
            Ok(Err(_)) | Err(_) => Err(Trouble::Unavailable("the cosignature cannot be written down")),
        }
    }
}
