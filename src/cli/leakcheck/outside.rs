//! A hospital's own sandbox EMR behind a gate: loading and unloading a world there.
//!
//! Owns: PUT and DELETE at the EMR itself. Must never: touch a record that is not of the worlds.
//! Look next: `pair`.

use super::worlds::{Step, Worlds};
use crate::edge::tls::{ClientFiles, client_config};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// An EMR that is not ours.
pub(super) struct Outside {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Outside {
    pub(super) fn new(base: &str) -> Result<Self, String> {
        let tls = client_config(&ClientFiles { ca: None, own: None }).map_err(|error| error.to_string())?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client })
    }

    /// Stores a world. A record that this EMR does not take is left out: it takes it in neither world.
    pub(super) async fn load(&self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Put { resource, id, text } => {
                    self.send("PUT", &format!("{resource}/{id}"), text).await?
                }
                Step::Delete { resource, id } => self.send("DELETE", &format!("{resource}/{id}"), "").await?,
            }
        }
        Ok(())
    }

    /// Removes the worlds' records, whatever an earlier role left of them.
    pub(super) async fn empty(&self, worlds: &Worlds) -> Result<(), String> {
        for known in worlds.known.iter().rev() {
            self.send("DELETE", &format!("{}/{}", known.resource.name(), known.id), "").await?;
        }
        Ok(())
    }

    /// Removes what a request made.
    pub(super) async fn forget(&self, path: &str, ids: &[String]) -> Result<(), String> {
        let resource = path.split('/').next().unwrap_or_default();
        for id in ids {
            self.send("DELETE", &format!("{resource}/{id}"), "").await?;
        }
        Ok(())
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> Result<(), String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{target}", self.base))
            .header(header::CONTENT_TYPE, "application/fhir+json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| format!("{}: {error}", self.base))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map_err(|error| format!("{}: {error}", self.base))?;
        if status.is_server_error() || status == 401 || status == 403 {
            return Err(format!("{} answers {status} to {method} {target}", self.base));
        }
        Ok(())
    }
}
