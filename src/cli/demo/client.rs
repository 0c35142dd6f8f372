//! A small HTTPS client for the tour and the tests: trusts one certificate authority, keeps connections open.
//!
//! Owns: asking the gate as an application would. Must never: skip certificate verification.
//! Look next: `tour`.

use crate::edge::tls::{CertificateFiles, ClientFiles, client_config};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::path::Path;

/// Enough for the largest answer the gate gives.
const ANSWER_BYTES_MAX: usize = crate::limits::UPSTREAM_ANSWER_BYTES_MAX;

/// Asks over TLS 1.2 or 1.3, HTTP/2 or 1.1.
#[derive(Clone, Debug)]
pub struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// A client that trusts the certificate authority in `ca_file` and nobody else.
    ///
    /// # Errors
    /// When the file does not hold one.
    pub fn new(ca_file: &Path) -> Result<Self, String> {
        Self::with(ClientFiles { ca: Some(ca_file.to_owned()), own: None })
    }

    /// The same, which presents a certificate of its own.
    ///
    /// # Errors
    /// When a file does not hold what it should.
    pub fn with_certificate(ca_file: &Path, certificate: &Path, private_key: &Path) -> Result<Self, String> {
        let own =
            CertificateFiles { certificate: certificate.to_owned(), private_key: private_key.to_owned() };
        Self::with(ClientFiles { ca: Some(ca_file.to_owned()), own: Some(own) })
    }

    fn with(files: ClientFiles) -> Result<Self, String> {
        let tls = client_config(&files).map_err(|error| error.to_string())?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
        Ok(Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Asks with a bearer token, if there is one, and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn get(&self, url: &str, token: Option<&str>) -> Result<Response<Bytes>, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().map_err(|_| "the token is not a header value")?;
            headers.insert(http::header::AUTHORIZATION, value);
        }
        self.ask("GET", url, headers, Bytes::new()).await
    }

    /// Asks anything and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn ask(
        &self,
        method: &str,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        let answer = self.0.request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}
