//! Where the EMR is and how we show who we are, valid by construction.
//!
//! Owns: the base URL's rules; turning a relative target into the one we send, and an EMR link back into
//! a relative target.
//! Must never: accept plain HTTP to another machine, or a target that leaves the base.
//! Look next: `config`, which reports what is wrong with the file.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::UpstreamError;
use crate::edge::tls::ClientFiles;
use crate::limits::{UPSTREAM_TARGET_BYTES_MAX, UPSTREAM_TIMEOUT_SECONDS_MAX};

/// What `Upstream::new` needs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) base: BaseUrl,
    pub(super) tls: ClientFiles,
    pub(super) bearer_token_file: Option<PathBuf>,
    pub(super) timeout: Duration,
}

/// The EMR's FHIR base: `https`, or `http` to loopback; no user, query or fragment; the path without a
/// slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    path: String,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// Not an absolute URL with a host.
    NotAbsolute,
    /// A scheme other than `https`, or `http` to a host that is not loopback.
    NotHttps,
    /// A user name or password in the URL.
    Credentials,
    /// A query or fragment in the URL.
    Query,
    /// Empty, `.` or `..` segments in the path.
    Path,
    /// Zero, or longer than `UPSTREAM_TIMEOUT_SECONDS_MAX`.
    Timeout,
}

impl Settings {
    /// Settings for the EMR at `base`. `timeout` bounds the wait for the head of an answer, and each pause
    /// within its body.
    ///
    /// # Errors
    /// [`SettingsError::Timeout`].
    pub fn new(
        base: BaseUrl,
        tls: ClientFiles,
        bearer_token_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, SettingsError> {
        if timeout.is_zero() || timeout > Duration::from_secs(UPSTREAM_TIMEOUT_SECONDS_MAX) {
            return Err(SettingsError::Timeout);
        }
        Ok(Self { base, tls, bearer_token_file, timeout })
    }
}

impl BaseUrl {
    /// Reads a base URL.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.contains(['#', '?']) {
            return Err(SettingsError::Query);
        }
        let parts = text.parse::<Uri>().map_err(|_| SettingsError::NotAbsolute)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(SettingsError::NotAbsolute);
        };
        if authority.as_str().contains('@') {
            return Err(SettingsError::Credentials);
        }
        if scheme != Scheme::HTTPS && (scheme != Scheme::HTTP || !is_loopback(authority.host())) {
            return Err(SettingsError::NotHttps);
        }
        let path = parts.path_and_query.map(|path| path.path().trim_end_matches('/').to_owned());
        let path = path.unwrap_or_default();
        if !path.is_empty() && path.split('/').skip(1).any(leaves_base) {
            return Err(SettingsError::Path);
        }
        Ok(Self { scheme, authority, path })
    }

    /// The URI we ask for `target`, which is relative to the base: `Patient/p1`, `Patient?name=x`, `?page=2`
    /// or empty.
    pub(super) fn join(&self, target: &str) -> Result<Uri, UpstreamError> {
        let path = target.split('?').next().unwrap_or_default();
        if target.len() > UPSTREAM_TARGET_BYTES_MAX
            || target.contains('#')
            || (!path.is_empty() && path.split('/').any(leaves_base))
        {
            return Err(UpstreamError::Unplanned);
        }
        let slash = if path.is_empty() && !self.path.is_empty() { "" } else { "/" };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{slash}{target}", self.path))
            .build()
            .map_err(|_| UpstreamError::Unplanned)
    }

    /// The part of an EMR's link below the base, if it is below it: absolute on the same scheme and
    /// authority, or starting with the base's path. What it returns can be asked for again.
    #[must_use]
    pub fn relative(&self, link: &str) -> Option<String> {
        let uri = link.parse::<Uri>().ok()?;
        let same = |ours: &str, theirs: Option<&str>| theirs.is_none_or(|t| t.eq_ignore_ascii_case(ours));
        if !same(self.scheme.as_str(), uri.scheme_str())
            || !same(self.authority.as_str(), uri.authority().map(Authority::as_str))
        {
            return None;
        }
        let below = uri.path_and_query()?.as_str().strip_prefix(&self.path)?;
        let target = match below.strip_prefix('/') {
            Some(target) => target,
            None if below.is_empty() || below.starts_with('?') => below,
            None => return None,
        };
        self.join(target).ok().map(|_| target.to_owned())
    }

    /// Whether the connection is encrypted. If not, it is loopback.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port, as in the file.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Segments that a server may resolve to somewhere else, or drop; encoded dots and slashes included.
fn leaves_base(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    matches!(plain.as_str(), "" | "." | "..")
        || plain.contains("%2f")
        || plain.contains("%5c")
        || plain.contains('\\')
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::NotAbsolute => f.write_str("not an absolute URL"),
            SettingsError::NotHttps => f.write_str("must be https (plain http only to loopback)"),
            SettingsError::Credentials => f.write_str("must not hold a user name or password"),
            SettingsError::Query => f.write_str("must not hold a query or fragment"),
            SettingsError::Path => f.write_str("must not hold empty or dot segments"),
            SettingsError::Timeout => {
                write!(f, "must be more than zero and at most {UPSTREAM_TIMEOUT_SECONDS_MAX}s")
            }
        }
    }
}

impl std::error::Error for SettingsError {}
