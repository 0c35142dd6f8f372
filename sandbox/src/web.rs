//! Forms and addresses: percent-coding, form fields, base64url, and a plain HTTP/1.1 client for loopback.
//!
//! Owns: the query and form coding both servers use, and `exchange`, the client behind the login.
//! Must never: follow redirects; speak to a host that is not loopback; speak TLS.
//! Look next: `issuer::login`.

use std::fmt;
use std::net::ToSocketAddrs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::net::TcpStream;

/// RFC 3986 unreserved characters stay, all others are coded.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Percent-codes one query or form component.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Undoes `encode`, reading `+` as a space; bytes that are not UTF-8 become replacement characters.
#[must_use]
pub fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Splits `a=1&b=2` into decoded pairs, in order; empty parts are left out.
#[must_use]
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

/// Writes pairs as a query or form body.
#[must_use]
pub fn query<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let parts: Vec<_> =
        pairs.iter().map(|(k, v)| format!("{}={}", encode(k.as_ref()), encode(v.as_ref()))).collect();
    parts.join("&")
}

/// The first value of `name`.
pub(crate) fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn unbase64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Text safe inside an HTML attribute or element.
pub(crate) fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(crate) fn unescape_html(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}

/// Why an exchange with a loopback server failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Not an `http` address of this machine.
    NotLoopback,
    /// The connection or the protocol failed, or the answer is larger than 16 MiB.
    Broken,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLoopback => "not an http address of this machine",
            Self::Broken => "the exchange broke off",
        })
    }
}

impl std::error::Error for ExchangeError {}

/// Sends one request over a fresh plain HTTP/1.1 connection to loopback and reads the answer whole.
///
/// `url` is absolute (`http://127.0.0.1:port/path?query`); redirects are not followed.
///
/// # Errors
/// `NotLoopback` for any other kind of address, `Broken` when the exchange does not complete.
pub async fn exchange(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<http::Response<Bytes>, ExchangeError> {
    let uri: Uri = url.parse().map_err(|_| ExchangeError::NotLoopback)?;
    let authority = uri.authority().ok_or(ExchangeError::NotLoopback)?.as_str().to_owned();
    let stream = connect(&uri, &authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| ExchangeError::Broken)?;
    let driving = tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(method).uri(target).header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|_| ExchangeError::Broken)?;
    let answer = sender.send_request(request).await.map_err(|_| ExchangeError::Broken)?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| ExchangeError::Broken)?;
    driving.abort();
    Ok(http::Response::from_parts(parts, body.to_bytes()))
}

async fn connect(uri: &Uri, authority: &str) -> Result<TcpStream, ExchangeError> {
    if uri.scheme_str() != Some("http") {
        return Err(ExchangeError::NotLoopback);
    }
    let authority = if uri.port().is_some() { authority.to_owned() } else { format!("{authority}:80") };
    let mut addresses = authority.to_socket_addrs().map_err(|_| ExchangeError::NotLoopback)?;
    let address = addresses.find(|a| a.ip().is_loopback()).ok_or(ExchangeError::NotLoopback)?;
    let stream = TcpStream::connect(address).await.map_err(|_| ExchangeError::Broken)?;
    drop(stream.set_nodelay(true));
    Ok(stream)
}
