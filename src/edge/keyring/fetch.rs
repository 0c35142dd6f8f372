//! Fetching one issuer's key set over HTTP.
//!
//! Owns: the client, its TLS trust, discovery, and the size of what is read.
//! Must never: follow a redirect, accept a discovery document of another issuer, or go from https to http.
//! Look next: `neighbour.rs`, which says when; OpenID Connect Discovery 1.0 section 4.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::sync::Arc;

use super::{FetchError, IssuerSource};
use crate::clock;
use crate::domain::fhir::capabilities::IssuerEndpoints;
use crate::domain::identity::{Issuer, KeySet};
use crate::limits;

pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    start: Start,
}

/// The first document.
pub(super) enum Start {
    Discovery(Uri),
    Keys(Uri),
}

impl Fetcher {
    /// Checks URL and certificates.
    pub(super) fn new(source: &IssuerSource) -> Result<Self, String> {
        let start = match &source.jwks_uri {
            Some(url) => Start::Keys(acceptable(url).ok_or_else(|| refused("jwks_uri"))?),
            None => {
                // OpenID Connect Discovery section 4: a trailing slash of the issuer is taken off.
                let base = source.issuer.url().trim_end_matches('/');
                let url = format!("{base}/.well-known/openid-configuration");
                Start::Discovery(acceptable(&url).ok_or_else(|| refused("url"))?)
            }
        };
        let client = https_client(source.ca.as_deref())?;
        Ok(Self { client, start })
    }

    /// The issuer's key set, whole and checked, and what its discovery document says of its endpoints.
    pub(super) async fn fetch(
        &self,
        issuer: &Issuer,
    ) -> Result<(KeySet, Option<IssuerEndpoints>), FetchError> {
        let (keys_at, endpoints) = match &self.start {
            Start::Keys(uri) => (uri.clone(), None),
            Start::Discovery(uri) => {
                let document = self.read(uri.clone()).await?;
                let document =
                    serde_json::from_slice(&document).map_err(|_| FetchError::DiscoveryMalformed)?;
                (discovered(&document, issuer, uri)?, Some(endpoints(&document, issuer)))
            }
        };
        let document = self.read(keys_at).await?;
        let keys = KeySet::read(&document, issuer).map_err(FetchError::KeySet)?;
        Ok((keys, endpoints))
    }

    /// Where it begins.
    pub(super) fn start(&self) -> &Start {
        &self.start
    }

    /// Whether a discovery document comes first.
    pub(super) fn starts_with_discovery(&self) -> bool {
        matches!(self.start, Start::Discovery(_))
    }

    /// One document, in full and within `limits`.
    async fn read(&self, uri: Uri) -> Result<Bytes, FetchError> {
        self.read_dated(uri).await.map(|(document, _)| document)
    }

    /// The same, and by how many seconds the issuer's clock is ahead of ours, if it says what time it is.
    pub(super) async fn read_dated(&self, uri: Uri) -> Result<(Bytes, Option<i64>), FetchError> {
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json, application/jwk-set+json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Empty::new())
            .map_err(|_| FetchError::UrlRefused)?;
        let response = self.client.request(request).await.map_err(|_| FetchError::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let ahead = date.and_then(clock::ahead_seconds);
        let body = Limited::new(response.into_body(), limits::KEY_SET_BYTES_MAX);
        match body.collect().await {
            Ok(whole) => Ok((whole.to_bytes(), ahead)),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
            Err(_) => Err(FetchError::Unreachable),
        }
    }
}

/// The key set's URL in a discovery document that is this issuer's own.
pub(super) fn discovered(document: &Value, issuer: &Issuer, from: &Uri) -> Result<Uri, FetchError> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).ok_or(FetchError::DiscoveryMalformed);
    if text("issuer")? != issuer.url() {
        return Err(FetchError::IssuerMismatch);
    }
    let uri = acceptable(text("jwks_uri")?).ok_or(FetchError::UrlRefused)?;
    // What came over TLS must not send us to plain http, not even on our own machine.
    if from.scheme() == Some(&http::uri::Scheme::HTTPS) && uri.scheme() != from.scheme() {
        return Err(FetchError::UrlRefused);
    }
    Ok(uri)
}

/// What a discovery document says that clients of ours may want to know (OpenID Connect Discovery section 3, RFC 8414
/// section 2). A URL we would not go to ourselves is not passed on, nor is a list that is not one.
fn endpoints(document: &Value, issuer: &Issuer) -> IssuerEndpoints {
    let url = |name: &str| {
        let text = document.get(name).and_then(Value::as_str);
        text.filter(|text| acceptable(text).is_some()).map(str::to_owned)
    };
    let list = |name: &str| {
        let items = document.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let plain =
            |text: &&str| text.len() <= limits::TOKEN_NAME_BYTES_MAX && !text.contains(char::is_control);
        let texts = items.iter().filter_map(Value::as_str).filter(plain).map(str::to_owned);
        texts.take(limits::TOKEN_LIST_MAX).collect()
    };
    IssuerEndpoints {
        issuer: issuer.url().to_owned(),
        jwks_uri: url("jwks_uri"),
        authorization_endpoint: url("authorization_endpoint"),
        token_endpoint: url("token_endpoint"),
        introspection_endpoint: url("introspection_endpoint"),
        revocation_endpoint: url("revocation_endpoint"),
        token_endpoint_auth_methods: list("token_endpoint_auth_methods_supported"),
        grant_types: list("grant_types_supported"),
        response_types: list("response_types_supported"),
        scopes: list("scopes_supported"),
        code_challenge_methods: list("code_challenge_methods_supported"),
    }
}

/// https, or http to loopback.
pub(in crate::edge) fn acceptable(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok().filter(|_| url.len() <= limits::ISSUER_URL_BYTES_MAX * 2)?;
    let host = uri.host()?;
    match uri.scheme_str()? {
        "https" => Some(uri),
        "http" if is_loopback(host) => Some(uri),
        _ => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refused(key: &str) -> String {
    format!("{key}: must be https (plain http only to loopback)")
}

/// A client for an issuer: over TLS with the given certificates or the system's, no redirects.
pub(in crate::edge) fn https_client<B>(
    ca: Option<&[u8]>,
) -> Result<Client<HttpsConnector<HttpConnector>, B>, String>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(trusted_roots(ca)?)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector))
}

/// The given certificates and no others, or the system's.
fn trusted_roots(ca: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "ca: not PEM certificates".to_owned())?;
        roots.add(certificate).map_err(|_| "ca: holds an unusable certificate".to_owned())?;
    }
    if roots.is_empty() { Err("ca: holds no certificate".to_owned()) } else { Ok(roots) }
}
