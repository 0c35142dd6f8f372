//! A gate in front of the real neighbours, and everything that was asked of it.
//!
//! Owns: asking through the gate, noting what each answer held, and comparing that with the trail.
//! Must never: ask the gate without noting it: the trail must name exactly what was seen.
//! Look next: `town`, what stands behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::{Script, Stage};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::Value;

use crate::interfaces;
use crate::town::{Town, link};

/// Texts that only hfs says; none may pass the gate.
const WORDS_OF_HFS: [&str; 8] = [
    "Could not find",
    "handling=strict",
    "is not implemented",
    "HFS_",
    "sort_values",
    "_cursor",
    "is not a valid FHIR",
    "expected a ",
];

/// One answer as it was seen.
struct Seen {
    status: u16,
    references: BTreeSet<String>,
    subject: Option<&'static str>,
}

/// A gate and its visitors.
pub(crate) struct Visit<'t> {
    pub(crate) town: &'t Town,
    pub(crate) stage: Stage,
    client: Client,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// Somebody with a token.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) name: &'static str,
    pub(crate) token: String,
}

impl<'t> Visit<'t> {
    /// Opens a gate that trusts the town's identity provider, under these policies (the shipped ones if none).
    pub(crate) async fn open(town: &'t Town, policies: Option<PathBuf>) -> Self {
        let more = format!(
            r#"
[[issuer]]
url = "{}"
audience = "{}"
algorithms = ["RS256", "ES256"]
roles_claim = "/roles"
roles = {{ "hosp-rn" = "nurse", "hosp-md" = "physician" }}
purpose_claim = "/purpose_of_use"

[issuer.mfa]
amr = ["mfa", "otp"]
acr = ["urn:chartgate:mfa"]
max_age = "12h"
"#,
            town.issuer, town.audience
        );
        let script =
            Script { policies, upstream: Some(town.emr.clone()), more, empty: true, ..Script::default() };
        let stage = Stage::open(script).await.unwrap_or_else(|error| panic!("{error}"));
        let client = Client::new(&stage.ca_file()).unwrap();
        Self { town, stage, client, seen: Mutex::default() }
    }

    /// Asks by GET; `path` is below the base, or a whole public URL.
    pub(crate) async fn get(&self, who: &Visitor, path: &str) -> Response<Bytes> {
        self.ask(Some(who), "GET", path, &[], "").await
    }

    /// Asks anything, and notes what came.
    pub(crate) async fn ask(
        &self,
        who: Option<&Visitor>,
        method: &str,
        path: &str,
        more: &[(&'static str, &str)],
        body: &str,
    ) -> Response<Bytes> {
        let base = self.stage.base_url();
        let url = if path.starts_with("https:") { path.to_owned() } else { format!("{base}/{path}") };
        let mut headers = HeaderMap::new();
        let token = who.map(|who| ("authorization", format!("Bearer {}", who.token)));
        let token = token.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in token.chain(more.iter().copied()) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let answer = self.client.ask(method, &url, headers, Bytes::copy_from_slice(body.as_bytes())).await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        self.note(&answer, who, &format!("{method} {path}"));
        answer
    }

    /// What holds for every answer, and what the trail must say of it.
    fn note(&self, answer: &Response<Bytes>, who: Option<&Visitor>, asked: &str) {
        let text = String::from_utf8(answer.body().to_vec()).unwrap();
        let upstream = self.town.emr.trim_start_matches("http://");
        for (name, value) in answer.headers() {
            let value = value.to_str().unwrap();
            assert!(!value.contains(upstream), "{asked}: {name}: {value}");
        }
        for word in WORDS_OF_HFS.iter().copied().chain([upstream]) {
            assert!(!text.contains(word), "{asked}: `{word}` in {text}");
        }
        let whole: Value = serde_json::from_slice(answer.body()).unwrap();
        let references = if answer.status().is_success() { references(&whole) } else { BTreeSet::new() };
        if !answer.status().is_success() {
            let system = whole.pointer("/issue/0/details/coding/0/system");
            assert_eq!(
                system.and_then(Value::as_str),
                Some("https://chartgate.dev/refusal"),
                "{asked}: {text}"
            );
        }
        let id = answer.headers().get("x-request-id").expect("every answer has one").to_str().unwrap();
        let seen = Seen { status: answer.status().as_u16(), references, subject: who.map(|who| who.name) };
        assert!(self.seen.lock().unwrap().insert(id.to_owned(), seen).is_none(), "request ids are unique");
    }

    /// Follows `next` to the end; gives every page.
    pub(crate) async fn pages(&self, who: &Visitor, query: &str) -> Vec<Bytes> {
        let (mut pages, mut next) = (Vec::new(), Some(query.to_owned()));
        while let Some(path) = next {
            let page = self.get(who, &path).await;
            assert_eq!(page.status(), 200, "{path}: {}", String::from_utf8_lossy(page.body()));
            next = link(page.body(), "next");
            pages.push(page.into_body());
        }
        pages
    }

    /// Closes the gate; its trail verifies and names what was seen, no more and no less.
    pub(crate) async fn close(mut self) {
        self.stage.stop().await.unwrap();
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        for record in interfaces::trail(&self.stage) {
            let Some(id) = record["requestId"].as_str().filter(|_| !record["decision"].is_null()) else {
                continue;
            };
            let one = seen.remove(id).unwrap_or_else(|| panic!("nobody asked {record}"));
            self.agrees(&record, &one);
        }
        assert!(seen.is_empty(), "{} answers are not in the trail", seen.len());
        self.stage.close().await.unwrap();
    }

    fn agrees(&self, record: &Value, seen: &Seen) {
        let permitted = (200..300).contains(&seen.status);
        assert_eq!(record["decision"], if permitted { "permit" } else { "refuse" }, "{record}");
        assert_eq!(record["outcome"], if permitted { "complete" } else { "refused" }, "{record}");
        let released = record["released"].as_array().unwrap().iter();
        let released = released.map(|one| one["reference"].as_str().unwrap());
        let released: BTreeSet<String> =
            released.filter(|reference| !reference.contains('#')).map(str::to_owned).collect();
        assert_eq!(released, seen.references, "{record}");
        // Who is named as soon as the token is believed; a weak token is not.
        if let (true, Some(subject)) = (permitted, seen.subject) {
            assert_eq!(record["subject"], subject, "{record}");
            assert_eq!(record["issuer"], self.town.issuer.as_str(), "{record}");
            assert!(!record["policies"].as_array().unwrap().is_empty(), "{record}");
        }
    }
}

/// `Type/id` of the record, or of every entry of a searchset.
fn references(whole: &Value) -> BTreeSet<String> {
    let reference = |one: &Value| {
        let part = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", part("resourceType"), part("id"))
    };
    match whole["resourceType"].as_str() {
        Some("Bundle") => {
            let entries = whole["entry"].as_array().cloned().unwrap_or_default();
            entries.iter().map(|entry| reference(&entry["resource"])).collect()
        }
        Some("CapabilityStatement") | None => BTreeSet::new(),
        Some(_) => BTreeSet::from([reference(whole)]),
    }
}
