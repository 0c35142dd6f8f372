//! The same question to a real server and to the gate before it, by a caller who may see everything.
//!
//! Owns: asking both sides, and what "the same" means: the status, the validators, and every record byte for byte, with
//! the gate's base URL replaced by the server's. A Bundle's envelope is built anew by the gate (links are sealed, totals
//! count what is visible), so of a Bundle the records, their order and what is said of each are compared, not the rest.
//! An error's text is the gate's own (the EMR speaks to nobody), so of an error only the status is compared.
//! Must never: pass over a difference that is not written down with its reason beside the question.
//! Look next: `mirror_hfs`, `mirror_medplum`: the questions.

use std::fmt::Write as _;

use bytes::Bytes;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::Stage;
use chartgate_sandbox::web;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::interfaces;
use crate::town::link;

/// Rows compared of one question: several pages. hfs's own history ends with a thousand definitions, one of which has an id
/// longer than R4 lets one be, and is left out by the gate for that.
const ROWS_MAX: usize = 60;

/// Both sides.
pub(crate) struct Mirror {
    server: String,
    stage: Stage,
    client: Client,
    token: String,
    /// The last version each side named: the server's, the gate's.
    versions: [String; 2],
    differences: String,
    compared: usize,
}

/// What one side said.
#[derive(Clone, Debug)]
struct Said {
    status: u16,
    headers: HeaderMap,
    body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Server,
    Gate,
}

/// One question. `{id}` stands for the record's id, another on each side where something is written; `{version}` for
/// the last version that side was told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
    /// The gate's status where it is another than the server's, for the reason given beside the question.
    pub(crate) gate_status: Option<u16>,
    /// The answer's body differs for the reason given beside the question.
    pub(crate) own_body: bool,
    /// What is said of each record differs for the reason given beside the question; the records do not.
    pub(crate) own_envelope: bool,
    /// The gate leaves out every record that names another patient than this one (T-091).
    pub(crate) about_one: Option<&'static str>,
}

/// A question by GET.
pub(crate) const fn get(path: &'static str) -> Question {
    ask("GET", path, &[], "")
}

/// Any question.
pub(crate) const fn ask(
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> Question {
    Question {
        method,
        path,
        headers,
        body,
        gate_status: None,
        own_body: false,
        own_envelope: false,
        about_one: None,
    }
}

impl Question {
    /// The gate answers with this status, and the server with another.
    pub(crate) const fn but(self, gate_status: u16) -> Self {
        Self { gate_status: Some(gate_status), ..self }
    }

    /// The gate's body is its own.
    pub(crate) const fn own_body(self) -> Self {
        Self { own_body: true, ..self }
    }

    /// What the gate says of each record of a Bundle is its own.
    pub(crate) const fn own_envelope(self) -> Self {
        Self { own_envelope: true, ..self }
    }

    /// Only records that name nobody but this patient come through the gate.
    pub(crate) const fn about_one(self, patient: &'static str) -> Self {
        Self { about_one: Some(patient), ..self }
    }
}

impl Mirror {
    /// A gate before the server at `server`.
    pub(crate) async fn open(server: &str) -> Self {
        let stage = interfaces::open(Some(server)).await;
        let client = Client::new(&stage.ca_file()).unwrap();
        let token = interfaces::token(&stage);
        let (versions, differences) = (<[String; 2]>::default(), String::new());
        Self { server: server.to_owned(), stage, client, token, versions, differences, compared: 0 }
    }

    /// Closes the gate; its trail verifies, and no difference was found.
    pub(crate) async fn close(mut self) {
        self.stage.stop().await.unwrap();
        let _verified = interfaces::trail(&self.stage);
        self.stage.close().await.unwrap();
        eprintln!("{} answers and records are the same through the gate", self.compared);
        assert!(self.differences.is_empty(), "\n{}", self.differences);
    }

    /// Asks both, page by page, and compares.
    pub(crate) async fn read(&mut self, question: Question) {
        let said = self.ask(Side::Server, question, "").await;
        let heard = self.ask(Side::Gate, question, "").await;
        self.compare(question, &said, &heard);
        if question.own_body || said.status != heard.status || !is_bundle(&said) {
            return;
        }
        let mut said = self.rows(Side::Server, question, said).await;
        said.retain(|row| question.about_one.is_none_or(|patient| !names_another(row, patient)));
        let heard = self.rows(Side::Gate, question, heard).await;
        self.compare_rows(question, &said, &heard);
    }

    /// Does the same to a record of its own on each side, one question after the other, and compares each answer.
    pub(crate) async fn write(&mut self, questions: &[Question]) {
        for question in questions {
            let said = self.ask(Side::Server, *question, "twin-s").await;
            let heard = self.ask(Side::Gate, *question, "twin-g").await;
            let (said, heard) = (without_names(said, "twin-s"), without_names(heard, "twin-g"));
            self.compare(*question, &said, &heard);
            if is_bundle(&said) && said.status == heard.status {
                self.compare_rows(*question, &rows_of(&said, *question), &rows_of(&heard, *question));
            }
        }
    }

    async fn ask(&mut self, side: Side, question: Question, id: &str) -> Said {
        let base = if side == Side::Server { self.server.clone() } else { self.stage.base_url().to_owned() };
        let version = self.versions[side as usize].clone();
        let path = question.path.replace("{id}", id).replace("{version}", &version);
        let url = if path.starts_with("http") { path } else { format!("{base}/{path}") };
        let url = if question.path.is_empty() { base.clone() } else { url };
        let body = question.body.replace("{id}", id).replace("{base}", &base);
        let mut headers = HeaderMap::new();
        for (name, value) in question.headers {
            let value = value.replace("{id}", id).replace("{version}", &version);
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
        let said = self.send(side, question.method, &url, headers, body).await;
        if let Some(version) = said.headers.get("etag") {
            let version = version.to_str().unwrap().trim_start_matches("W/").trim_matches('"');
            version.clone_into(&mut self.versions[side as usize]);
        }
        said
    }

    async fn send(&self, side: Side, method: &str, url: &str, mut headers: HeaderMap, body: String) -> Said {
        let answer = match side {
            Side::Server => {
                let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
                let pairs: Vec<(&str, &str)> = pairs.collect();
                web::exchange(method, url, &pairs, body).await.unwrap()
            }
            Side::Gate => {
                let bearer = HeaderValue::try_from(format!("Bearer {}", self.token)).unwrap();
                headers.insert(http::header::AUTHORIZATION, bearer);
                self.client.ask(method, url, headers, Bytes::from(body)).await.unwrap()
            }
        };
        let (parts, body) = answer.into_parts();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let body = if side == Side::Gate { body.replace(self.stage.base_url(), &self.server) } else { body };
        Said { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The rows of one page after the other, up to the bound.
    async fn rows(&self, side: Side, question: Question, first: Said) -> Vec<String> {
        let (mut found, mut page) = (Vec::new(), first);
        loop {
            found.extend(rows_of(&page, question));
            let next = link(page.body.as_bytes(), "next").filter(|_| found.len() < ROWS_MAX);
            let Some(next) = next else {
                found.truncate(ROWS_MAX);
                return found;
            };
            let next =
                if side == Side::Gate { next.replace(&self.server, self.stage.base_url()) } else { next };
            page = self.send(side, "GET", &next, HeaderMap::new(), String::new()).await;
            assert_eq!(page.status, 200, "{side:?}: {next}: {}", page.body);
        }
    }

    fn compare(&mut self, question: Question, said: &Said, heard: &Said) {
        self.compared += 1;
        let wanted = question.gate_status.unwrap_or(said.status);
        if heard.status != wanted || question.gate_status == Some(said.status) {
            self.differs(question, "status", &said.status.to_string(), &heard.status.to_string());
            self.differs(question, "body", &said.body, &heard.body);
            return;
        }
        if !(200..300).contains(&said.status) || question.own_body || said.status != heard.status {
            return;
        }
        for name in ["etag", "last-modified"] {
            let of = |side: &Said| side.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            if let (Some(said), heard) = (of(said), of(heard))
                && heard.as_deref() != Some(&said)
            {
                self.differs(question, name, &said, &format!("{heard:?}"));
            }
        }
        if !is_bundle(said) && said.body != heard.body {
            self.differs(question, "body", &said.body, &heard.body);
        }
    }

    fn compare_rows(&mut self, question: Question, said: &[String], heard: &[String]) {
        if said.len() != heard.len() {
            self.differs(question, "rows", &said.len().to_string(), &heard.len().to_string());
        }
        if let Some((said, heard)) = said.iter().zip(heard).find(|(said, heard)| said != heard) {
            self.differs(question, "row", said, heard);
        }
        self.compared += heard.len();
    }

    fn differs(&mut self, question: Question, what: &str, said: &str, heard: &str) {
        let Question { method, path, headers, .. } = question;
        let _infallible = writeln!(
            self.differences,
            "{method} {path} {headers:?}: {what}\n  server: {said:.600}\n  gate:   {heard:.600}"
        );
    }
}

fn is_bundle(said: &Said) -> bool {
    serde_json::from_str::<Value>(&said.body).is_ok_and(|body| body["resourceType"] == "Bundle")
}

/// Each entry: what is said of it, and its record byte for byte.
fn rows_of(said: &Said, question: Question) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Bundle<'b> {
        #[serde(borrow, default)]
        entry: Vec<Entry<'b>>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'b> {
        #[serde(borrow)]
        resource: Option<&'b RawValue>,
        search: Option<Value>,
        request: Option<Value>,
        response: Option<Value>,
    }
    let bundle: Bundle<'_> = serde_json::from_str(&said.body).unwrap();
    let row = |entry: &Entry<'_>| {
        let mode = entry.search.as_ref().map_or(&Value::Null, |search| &search["mode"]);
        let method = entry.request.as_ref().map_or(&Value::Null, |request| &request["method"]);
        // Statuses may have their phrase behind them: `201 Created`.
        let status =
            entry.response.as_ref().and_then(|response| response["status"].as_str()).unwrap_or_default();
        let status = status.split(' ').next().unwrap_or_default();
        let record = entry.resource.map_or("", RawValue::get);
        if question.own_envelope { record.to_owned() } else { format!("{mode} {method} {status} {record}") }
    };
    bundle.entry.iter().map(row).collect()
}

/// Whether a record refers to another patient, or is another's.
fn names_another(row: &str, patient: &str) -> bool {
    let ends = |rest: &str| rest.split('"').next() != Some(patient);
    row.split("\"reference\":\"Patient/").skip(1).any(ends)
}

/// The answer without what differs between any two writes: ids, versions, times.
fn without_names(said: Said, id: &str) -> Said {
    let mut body = said.body.replace(id, "twin");
    for name in ["versionId", "lastUpdated"] {
        body = with_each(&body, &format!("\"{name}\":\""), |_| "…".to_owned());
    }
    // The gate puts `meta` behind the id, so that its place tells nothing; servers keep it where they got it.
    body = body.replace(r#","meta":{"versionId":"…","lastUpdated":"…"}"#, "");
    // An id that the server chose.
    body = with_each(&body, "\"id\":\"", |id| if id.len() >= 32 { "…".to_owned() } else { id.to_owned() });
    let mut headers = said.headers;
    headers.remove("etag");
    headers.remove("last-modified");
    Said { status: said.status, headers, body }
}

/// `text` with every string that follows `before` changed.
fn with_each(text: &str, before: &str, change: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = part.split_once('"').unwrap();
        let _infallible = write!(out, "{before}{}\"{rest}", change(value));
    }
    out
}
