//! HTTP to receivers: one request, one bounded answer, over the house's TLS.
//!
//! Owns: time-outs and the bound of answers. Must never: leave a certificate unchecked.
//! Look next: `otlp`, and `s3`, whose library is handed this client.

use bytes::Bytes;
use chartgate::edge::tls::{ClientFiles, client_config};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::limits::{CONNECT_TIMEOUT, DELIVERY_TIMEOUT};

/// A client for one receiver.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Http {
    /// Reads the certificates.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn new(files: &ClientFiles) -> Result<Self, String> {
        let tls = client_config(files).map_err(|error| error.to_string())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// A sentence; whether the receiver took the request is not known then.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<Response<Bytes>, String> {
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| root_cause(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, answer_bytes_max).collect().await;
            let body = body.map_err(|error| root_cause(error.as_ref()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        match tokio::time::timeout(DELIVERY_TIMEOUT, exchange).await {
            Ok(done) => done,
            Err(_) => Err(format!("no answer within {} s", DELIVERY_TIMEOUT.as_secs())),
        }
    }
}

/// The innermost reason: what wraps it says nothing.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
