//! The evidence itself, as it lies on disk, into a bucket that lets nothing be deleted.
//!
//! Owns: the names of objects, their order, and that nothing is shipped to a bucket without a default COMPLIANCE retention.
//! Must never: replace or delete an object; ship what no checkpoint signs.
//! Look next: `chartgate::edge::journal::RightEdge`; `fetch`, which brings a copy back; docs/forwarding.md.
//!
//! ```text
//! PREFIX/log/tile/…                        full tiles: they never change
//! PREFIX/edge/<20 digits>-<20 digits>/…    the rest of a copy: entries in it, entries in its tiles; `checkpoint` last
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chartgate::clock;
use chartgate::domain::ledger::{Tile, TileKind};
use chartgate::edge::journal::{self, Keys, Reader, RightEdge, full_tiles};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential, Checksum};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig};
use serde::Deserialize;

use crate::http::Http;
use crate::limits::{ANSWER_BYTES_MAX, LOOK_INTERVAL, OBJECT_BYTES_MAX, SECRET_BYTES_MAX, SHIP_STEP_ENTRIES};
use crate::pace::{Backoff, Stop};
use crate::pump::{Complaint, Trouble, check_history};
use crate::secret;
use crate::settings::S3;
use crate::state::{Cursor, State};

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    settings: S3,
}

/// A bucket that can be spoken to.
#[derive(Debug)]
pub(crate) struct Open<'b> {
    settings: &'b S3,
    http: Http,
    credential: AwsCredential,
    store: AmazonS3,
}

/// Why nothing may be shipped to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LockFault {
    /// It answers, and does not keep what it is given.
    Unlocked(String),
    /// It does not answer, or not to us.
    Unknown(String),
}

impl fmt::Display for LockFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlocked(what) | Self::Unknown(what) => out.write_str(what),
        }
    }
}

impl Bucket {
    pub(crate) fn new(settings: S3) -> Self {
        Self { settings }
    }

    /// Reads certificates and the key: what was replaced is taken up at the next round.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn open(&self) -> Result<Open<'_>, String> {
        let settings = &self.settings;
        let http = Http::new(&settings.tls)?;
        let secret_key = secret::read(&settings.secret_access_key_file, SECRET_BYTES_MAX)?;
        let key_id = settings.access_key_id.clone();
        let store = AmazonS3Builder::new()
            .with_endpoint(settings.endpoint.to_string().trim_end_matches('/'))
            .with_allow_http(settings.endpoint.scheme_str() == Some("http"))
            .with_region(&settings.region)
            .with_bucket_name(&settings.bucket)
            .with_access_key_id(&key_id)
            .with_secret_access_key(&secret_key)
            // Object Lock demands a checksum of what is put.
            .with_checksum_algorithm(Checksum::SHA256)
            // Trying again is `pump`'s and ours to pace.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(Connector(http.clone()))
            .build()
            .map_err(|error| error.to_string())?;
        let credential = AwsCredential { key_id, secret_key, token: None };
        Ok(Open { settings, http, credential, store })
    }
}

impl Open<'_> {
    /// Whether whatever is put into the bucket stays there for as long as is asked.
    ///
    /// # Errors
    /// [`LockFault`].
    pub(crate) async fn check_lock(&self) -> Result<(), LockFault> {
        let unknown = |what: String| LockFault::Unknown(format!("bucket `{}`: {what}", self.settings.bucket));
        let base = self.settings.endpoint.to_string();
        let url = format!("{}/{}?object-lock", base.trim_end_matches('/'), self.settings.bucket);
        let request = HttpRequest::new(HttpRequestBody::empty());
        let (mut head, body) = request.into_parts();
        head.uri = url.parse().map_err(|_| unknown("its URL cannot be made".to_owned()))?;
        let mut request = Request::from_parts(head, body);
        let signed = AwsAuthorizer::new(&self.credential, "s3", &self.settings.region)
            .try_authorize(&mut request, None);
        signed.map_err(|error| unknown(error.to_string()))?;
        let (head, _) = request.into_parts();
        let request = Request::from_parts(head, Full::default());
        let answer = self.http.send(request, ANSWER_BYTES_MAX).await.map_err(unknown)?;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        judge_lock(answer.status().as_u16(), &body, self.settings.retention_days_min).map_err(|fault| {
            match fault {
                LockFault::Unlocked(what) => {
                    LockFault::Unlocked(format!("bucket `{}`: {what}", self.settings.bucket))
                }
                LockFault::Unknown(what) => unknown(what),
            }
        })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.settings.prefix))
    }

    /// Puts an object under a name that is free, or finds that it holds just this.
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Trouble> {
        let (path, bytes) = (self.path(name), Bytes::from(bytes));
        let payload = PutPayload::from_bytes(bytes.clone());
        match self.store.put_opts(&path, payload, PutOptions::from(PutMode::Create)).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. }) => match self.get(name).await? {
                Some(there) if there == bytes => Ok(()),
                // A witness may have cosigned the same state again: the first is as good.
                Some(_) if name.splitn(3, '/').nth(2).is_some_and(journal::is_beside) => Ok(()),
                Some(_) => Err(Trouble::receiver(format!("`{path}` is there and holds something else"))),
                None => Err(Trouble::receiver(format!("`{path}` is there and cannot be read"))),
            },
            Err(error) => Err(Trouble::receiver(told(&error))),
        }
    }

    /// What an object holds; nothing where there is none.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>, Trouble> {
        let read = async { self.store.get_opts(&self.path(name), Default::default()).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Trouble::receiver(told(&error))),
        }
    }

    /// The names below `folder`: objects, and folders.
    pub(crate) async fn list(&self, folder: &str) -> Result<(Vec<String>, Vec<String>), Trouble> {
        let listed = self.store.list_with_delimiter(Some(&self.path(folder))).await;
        let listed = listed.map_err(|error| Trouble::receiver(told(&error)))?;
        let root = self.path("");
        let below = |path: &Path| {
            let parts: Vec<String> =
                path.prefix_match(&root).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect())?;
            Some(parts.join("/"))
        };
        let objects = listed.objects.iter().filter_map(|object| below(&object.location)).collect();
        let folders = listed.common_prefixes.iter().filter_map(below).collect();
        Ok((objects, folders))
    }
}

/// The innermost reason.
fn told(error: &Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    // An answer of the store may be a page of XML.
    cause.to_string().chars().take(300).collect()
}

/// `GetObjectLockConfiguration`'s answer.
#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(rename = "ObjectLockEnabled")]
    enabled: Option<String>,
    #[serde(rename = "Rule")]
    rule: Option<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    #[serde(rename = "DefaultRetention")]
    retention: Option<Retention>,
}

#[derive(Debug, Deserialize)]
struct Retention {
    #[serde(rename = "Mode")]
    mode: Option<String>,
    #[serde(rename = "Days")]
    days: Option<u64>,
    #[serde(rename = "Years")]
    years: Option<u64>,
}

fn judge_lock(status: u16, body: &str, days_min: u64) -> Result<(), LockFault> {
    let unlocked = |what: &str| Err(LockFault::Unlocked(what.to_owned()));
    match status {
        200 => {}
        // ObjectLockConfigurationNotFoundError, or no such bucket.
        404 => return unlocked("has no Object Lock, or is not there"),
        status => return Err(LockFault::Unknown(format!("asked for its Object Lock, it answers {status}"))),
    }
    let read: Result<Configuration, _> = quick_xml::de::from_str(body);
    let Ok(configuration) = read else {
        return Err(LockFault::Unknown("its Object Lock cannot be read".to_owned()));
    };
    let retention = configuration.rule.and_then(|rule| rule.retention);
    let Some(retention) = retention.filter(|_| configuration.enabled.as_deref() == Some("Enabled")) else {
        return unlocked("has no default retention: what is put into it could be deleted");
    };
    if retention.mode.as_deref() != Some("COMPLIANCE") {
        return unlocked(
            "its default retention is not COMPLIANCE: an administrator could delete what is in it",
        );
    }
    let days = retention.days.or_else(|| retention.years.map(|years| years.saturating_mul(365)));
    match days {
        Some(days) if days >= days_min => Ok(()),
        days => Err(LockFault::Unlocked(format!(
            "its default retention is {} days, and `retention_days_min` is {days_min}",
            days.unwrap_or(0)
        ))),
    }
}

/// The folder of an edge. The two sizes determine what is in it, so that an edge that was begun is finished or left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeName {
    /// Entries in the copy.
    pub(crate) size: u64,
    /// Entries in its tiles.
    pub(crate) published: u64,
}

impl fmt::Display for EdgeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:020}-{:020}", self.size, self.published)
    }
}

impl EdgeName {
    /// The name written out, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (size, published) = text.split_once('-')?;
        let name = Self { size: size.parse().ok()?, published: published.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }
}

/// Ships one trail into one bucket.
#[derive(Debug)]
pub(crate) struct Shipper<'s> {
    /// The receiver's name.
    pub(crate) name: &'s str,
    /// Where to.
    pub(crate) bucket: Bucket,
    /// The trail.
    pub(crate) trail: journal::Settings,
    /// Where the cursor is.
    pub(crate) state: &'s State,
}

impl Shipper<'_> {
    /// Until `stop`.
    pub(crate) async fn run(&self, mut stop: Stop) {
        let (mut backoff, mut ailment) = (Backoff::default(), Complaint::new(self.name, self.state));
        let (mut watch, mut shipped) = (stop.clone(), None::<Instant>);
        while !stop.is_requested() {
            let interval = self.bucket.settings.interval;
            let left = shipped.map_or(Duration::ZERO, |at| interval.saturating_sub(at.elapsed()));
            if !left.is_zero() {
                stop.wait(left).await;
                continue;
            }
            let done = tokio::select! {
                () = watch.requested() => return,
                done = self.round() => done,
            };
            let wait = match done {
                Ok(has_shipped) => {
                    backoff.reset();
                    ailment.is_over();
                    shipped = has_shipped.then(Instant::now);
                    LOOK_INTERVAL
                }
                Err(trouble) => {
                    ailment.is(&trouble.what);
                    backoff.after_failure(trouble.retry_after)
                }
            };
            stop.wait(wait).await;
        }
    }

    /// Ships what is signed and not there yet; answers whether there was anything.
    async fn round(&self) -> Result<bool, Trouble> {
        let keys = Keys::load(&self.trail).map_err(|error| Trouble::ours(error.to_string()))?;
        let found = |finding: journal::Finding| Trouble::ours(finding.to_string());
        let edge = RightEdge::read(&self.trail.directory, &keys).map_err(found)?;
        let mut cursor = self.begin(&edge.log.origin)?;
        let (size, published) = (edge.log.size, edge.published);
        if cursor.edge == Some(size) && cursor.next == published {
            return Ok(false);
        }
        let mut reader = Reader::open(&self.trail.directory, &keys).map_err(found)?.reading_on();
        check_history(&cursor, &mut reader, &edge.log.origin, size)?;
        let bucket = self.bucket.open().map_err(Trouble::ours)?;
        bucket.check_lock().await.map_err(|fault| Trouble::receiver(fault.to_string()))?;
        while cursor.next < published {
            let step = (cursor.next / SHIP_STEP_ENTRIES + 1) * SHIP_STEP_ENTRIES;
            self.tiles(&bucket, &mut cursor, step.min(published)).await?;
            cursor.last = cursor
                .next
                .checked_sub(1)
                .and_then(|before| reader.entry(before).ok())
                .map(|(leaf, _)| leaf.to_string());
            self.state.keep(self.name, &cursor).map_err(Trouble::ours)?;
        }
        let folder = EdgeName { size, published };
        for (name, bytes) in edge.files {
            bucket.put(&format!("edge/{folder}/{name}"), bytes).await?;
        }
        cursor.edge = Some(size);
        cursor.confirmed = Some(clock::now());
        self.state.keep(self.name, &cursor).map_err(Trouble::ours)?;
        Ok(true)
    }

    /// Ships the full tiles of a tree of `size` that one of `cursor.next` had not.
    async fn tiles(&self, bucket: &Open<'_>, cursor: &mut Cursor, size: u64) -> Result<(), Trouble> {
        for tile in full_tiles(cursor.next, size) {
            match fs::read(self.trail.directory.join(tile.path())) {
                Ok(bytes) => bucket.put(&format!("log/{}", tile.path()), bytes).await?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.miss(tile, cursor),
                Err(error) => return Err(Trouble::ours(format!("`{}`: {error}", tile.path()))),
            }
        }
        cursor.next = size;
        Ok(())
    }

    /// A bundle that the trail has no more cannot be shipped; that is told, and the rest is.
    fn miss(&self, tile: Tile, cursor: &mut Cursor) {
        if tile.kind == TileKind::Entries {
            cursor.gaps += 256;
        }
        tracing::error!(
            receiver = self.name,
            tile = tile.path(),
            "is not in the trail any more, and so not in the copy"
        );
    }

    fn begin(&self, origin: &str) -> Result<Cursor, Trouble> {
        let cursor = self.state.cursor(self.name).map_err(Trouble::ours)?;
        let origin = origin.to_owned();
        Ok(cursor.unwrap_or(Cursor {
            origin,
            next: 0,
            last: None,
            confirmed: None,
            gaps: 0,
            rejected: 0,
            edge: None,
        }))
    }
}

/// Hands our HTTP client to the library, which so brings no second TLS stack along.
#[derive(Debug)]
struct Connector(Http);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Http);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(head, Full::new(body));
        let failed = |what: String| HttpError::new(HttpErrorKind::Unknown, io::Error::other(what));
        let answer: Response<Bytes> = self.0.send(request, OBJECT_BYTES_MAX).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let never = |never: std::convert::Infallible| match never {};
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(Full::new(body).map_err(never))))
    }
}

/// Shared by threads, for they all may ship.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Arc<Bucket>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(inside: &str) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</ObjectLockConfiguration>"#
        )
    }

    fn rule(mode: &str, time: &str) -> String {
        configuration(&format!(
            "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}</Mode>{time}</DefaultRetention></Rule>"
        ))
    }

    #[test]
    fn a_bucket_must_keep_what_it_is_given() {
        let good = |body: &str| judge_lock(200, body, 30);
        assert_eq!(good(&rule("COMPLIANCE", "<Days>30</Days>")), Ok(()));
        assert_eq!(good(&rule("COMPLIANCE", "<Years>1</Years>")), Ok(()));
        let unlocked = [
            rule("GOVERNANCE", "<Days>30</Days>"),
            rule("COMPLIANCE", "<Days>29</Days>"),
            rule("COMPLIANCE", ""),
            configuration("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"),
            configuration(
                "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>99</Days></DefaultRetention></Rule>",
            ),
            configuration(""),
        ];
        for body in unlocked {
            assert!(matches!(good(&body), Err(LockFault::Unlocked(_))), "{body}");
        }
        assert!(matches!(judge_lock(404, "", 30), Err(LockFault::Unlocked(_))));
        for (status, body) in [(403, ""), (503, ""), (200, "<html>"), (200, "")] {
            assert!(matches!(judge_lock(status, body, 30), Err(LockFault::Unknown(_))), "{status} {body}");
        }
    }
}
