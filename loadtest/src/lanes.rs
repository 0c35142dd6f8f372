//! The connections of one application: kept open, each with one request at a time, or one that takes many.
//!
//! Owns: [`Lanes`], and the waiting for a free connection, which counts as latency.
//! Must never: hold more connections than it was given, or send a request twice that was answered.
//! Look next: `open_loop`, whose requests go over them.

use crate::client::{Heard, Link, Place, Question};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// What a browser opens to one host over HTTP/1.1.
pub(crate) const CONNECTIONS_EACH: usize = 6;
/// Requests at once on one HTTP/2 connection: what the gate lets in.
const STREAMS_MAX: usize = 100;
/// For a whole answer; after it there is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections to one place.
pub(crate) struct Lanes {
    place: Place,
    free: Semaphore,
    idle: Mutex<Vec<Link>>,
}

/// An answer, and when it was asked for.
pub(crate) struct Asked {
    /// When a connection was free.
    pub(crate) sent: Instant,
    pub(crate) heard: Heard,
}

impl Lanes {
    /// Up to `connections` of them; none is open yet.
    pub(crate) fn new(place: Place, connections: usize) -> Self {
        let at_once = if place.is_shared() { connections * STREAMS_MAX } else { connections };
        Self { place, free: Semaphore::new(at_once), idle: Mutex::default() }
    }

    /// Opens this many, so that no handshake is in the way later.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) async fn open(&self, connections: usize) -> Result<(), String> {
        for _ in 0..connections {
            let link = self.place.connect().await?;
            self.put_back(link);
        }
        Ok(())
    }

    /// Waits for a free connection, asks, and shows the body piece by piece.
    ///
    /// # Errors
    /// Why there was no whole answer, without anything of the request in it.
    pub(crate) async fn ask(
        &self,
        question: Question<'_>,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Asked, String> {
        let asking = async {
            let _place = self.free.acquire().await.map_err(|error| error.to_string())?;
            let sent = Instant::now();
            let heard = self.ask_over_one(question, see).await?;
            Ok(Asked { sent, heard })
        };
        let whole = tokio::time::timeout(PATIENCE, asking).await;
        whole.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    }

    async fn ask_over_one(
        &self,
        question: Question<'_>,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Heard, String> {
        let mut seen = false;
        if let Some(mut link) = self.take() {
            let mut watch = |piece: &[u8]| {
                seen = true;
                see(piece);
            };
            match link.ask(question, &mut watch).await {
                Ok(heard) => {
                    // A shared one is still there.
                    if link.share().is_none() {
                        self.put_back(link);
                    }
                    return Ok(heard);
                }
                // Closed by the other side while it was idle: RFC 9110 section 9.2.2 has us ask anew, but not write anew.
                Err(_) if !seen && !link.is_open() && question.write.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        let mut link = self.place.connect().await.map_err(|error| format!("no connection: {error}"))?;
        if let Some(shared) = link.share() {
            self.put_back(shared);
        }
        let heard = link.ask(question, see).await?;
        if link.share().is_none() {
            self.put_back(link);
        }
        Ok(heard)
    }

    fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Link::is_open);
        match idle.last().and_then(Link::share) {
            Some(shared) => {
                // The next one takes the next connection.
                idle.rotate_right(1);
                Some(shared)
            }
            None => idle.pop(),
        }
    }

    fn put_back(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(link);
    }
}
