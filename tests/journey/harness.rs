//! The hospital of a test: a stage, a client, and what an auditor sees.
//!
//! Owns: asking, reading the trail, and the checks every refusal must pass.
//! Must never: weaken a check for one case.
//! Look next: `chartgate::cli::demo::stage`.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use chartgate::cli::audit;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::{Script, Stage};
use chartgate::{app, config};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// The system of refusal codes (design: section 6).
pub(crate) const REFUSAL_SYSTEM: &str = "https://chartgate.dev/refusal";

/// Runs a test on the one runtime, so that tests can share a hospital.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).block_on(test)
}

/// A hospital, and someone to ask its gate.
#[derive(Debug)]
pub(crate) struct Hospital {
    pub(crate) stage: Stage,
    pub(crate) client: Client,
}

/// An answer as a client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) what: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Hospital {
    pub(crate) async fn open(script: Script) -> Self {
        let stage = Stage::open(script).await.unwrap();
        let client = Client::new(&stage.ca_file()).unwrap();
        Self { stage, client }
    }

    /// A hospital that only reads and whose policies nobody changes; it stands while any test holds it.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Hospital>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(hospital) = shared.upgrade() {
            return hospital;
        }
        let hospital = Arc::new(Self::open(Script::default()).await);
        *shared = Arc::downgrade(&hospital);
        hospital
    }

    pub(crate) fn token(&self, who: &str) -> String {
        self.stage.issuer().token(who).unwrap()
    }

    /// GET as a persona, with a new session.
    pub(crate) async fn get(&self, who: &str, path: &str) -> Reply {
        self.get_with(&self.token(who), path).await
    }

    pub(crate) async fn get_with(&self, token: &str, path: &str) -> Reply {
        self.ask("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// A hospital that also takes changes and knows the integration role. Tests that share it keep to records of
    /// their own.
    pub(crate) async fn doors() -> Arc<Self> {
        static DOORS: Mutex<Weak<Hospital>> = Mutex::const_new(Weak::new());
        let mut shared = DOORS.lock().await;
        if let Some(hospital) = shared.upgrade() {
            return hospital;
        }
        let hospital = Arc::new(Self::open(with_integration()).await);
        hospital.stage.emr().load_extras().unwrap();
        *shared = Arc::downgrade(&hospital);
        hospital
    }

    /// The token of a persona, or of the hospital's own systems (`integration`), with every scope there is.
    pub(crate) fn writer(&self, who: &str) -> String {
        let issuer = self.stage.issuer();
        let all = |level: &str| Value::from(format!("openid fhirUser {level}/*.cruds"));
        let token = match who {
            "integration" => issuer.token_with("physician", |claims| {
                claims["roles"] = Value::from(vec!["integration"]);
                claims["scope"] = all("system");
            }),
            "patient" => issuer.token_with(who, |claims| claims["scope"] = all("launch/patient patient")),
            _ => issuer.token_with(who, |claims| claims["scope"] = all("user")),
        };
        token.unwrap()
    }

    /// Asks with FHIR JSON as [`Self::writer`] of `who`; a header given here goes before ours.
    pub(crate) async fn change(
        &self,
        who: &str,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let bearer = format!("Bearer {}", self.writer(who));
        let mut all = vec![("authorization", bearer.as_str())];
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/fhir+json"));
        }
        all.extend(
            headers.iter().copied().filter(|(name, value)| *name != "content-type" || !value.is_empty()),
        );
        let mut reply = self.ask(method, path, &all, body).await;
        reply.what = format!("{who} {}", reply.what);
        reply
    }

    /// Stores a record in the EMR, past the gate.
    pub(crate) fn store(&self, record: &Value) {
        self.stage.emr().put(record.to_string().as_bytes()).unwrap();
    }

    /// A record as the EMR holds it.
    pub(crate) fn stored(&self, resource: &str, id: &str) -> Value {
        let bytes = self.stage.emr().read(resource, id).unwrap_or_else(|| panic!("no {resource}/{id}"));
        serde_json::from_slice(&bytes).unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        ask(&self.client, self.stage.base_url(), method, path, headers, body).await
    }

    /// Every record of the trail, as `audit search --json` prints it.
    pub(crate) fn trail(&self) -> Vec<Value> {
        trail(&self.stage.config_file())
    }

    /// Every reply is a refusal with its code, and has exactly one record that says the same.
    pub(crate) fn check_refusals(&self, replies: &[(Reply, u16, &str)]) {
        for (reply, status, code) in replies {
            reply.check_refusal(*status, code);
        }
        self.check_recorded(replies.iter().map(|(reply, ..)| reply));
    }

    /// Every reply has exactly one decision in the trail, and the record says what the client saw.
    pub(crate) fn check_recorded<'r>(&self, replies: impl IntoIterator<Item = &'r Reply>) -> Vec<Value> {
        check_recorded(&self.trail(), replies)
    }

    /// What reached the EMR with `mark` anywhere in its target or body.
    pub(crate) fn upstream_saw(&self, mark: &str) -> usize {
        let carries = |body: &[u8]| String::from_utf8_lossy(body).contains(mark);
        let requests = self.stage.emr().requests();
        requests.iter().filter(|r| r.target.contains(mark) || carries(&r.body)).count()
    }
}

/// The shipped policies, the integration role's among them. Their cases are `tests/policies.rs`'s business: an
/// unoptimised gate takes long for them.
pub(crate) fn with_integration() -> Script {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let untried = ("[policies]\n".to_owned(), "[policies]\ntests = false\n".to_owned());
    Script { policies: Some(policies), replace: vec![untried], ..Script::default() }
}

/// Asks any gate. `path` is put behind the base as it is.
pub(crate) async fn ask(
    client: &Client,
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    let url = match path {
        url if url.starts_with("https:") => url.to_owned(),
        "" => base.to_owned(),
        query if query.starts_with('?') => format!("{base}{query}"),
        path => format!("{base}/{path}"),
    };
    let answer = client.ask(method, &url, map, Bytes::copy_from_slice(body.as_bytes())).await;
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let (parts, body) = answer.into_parts();
    let what = format!("{method} {path}");
    Reply { what, status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) fn trail(config_file: &Path) -> Vec<Value> {
    let settings = app::journal_settings(&config::load(config_file).unwrap());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = audit::search(&settings, &audit::Filter::default(), true, &mut out, &mut err);
    assert_eq!(code, audit::GOOD, "{}", String::from_utf8_lossy(&err));
    let out = String::from_utf8(out).unwrap();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of the replies, in their order.
pub(crate) fn check_recorded<'r>(
    trail: &[Value],
    replies: impl IntoIterator<Item = &'r Reply>,
) -> Vec<Value> {
    let mut by_request: HashMap<&str, Vec<&Value>> = HashMap::new();
    // The entries of a Bundle have records of their own.
    let whole =
        |record: &&Value| record["decision"].is_string() && record.get("entry").is_none_or(Value::is_null);
    for record in trail.iter().filter(whole) {
        by_request.entry(record["requestId"].as_str().unwrap()).or_default().push(record);
    }
    let record_of = |reply: &Reply| {
        let records = by_request.get(reply.request_id()).map_or(&[][..], Vec::as_slice);
        let [record] = records else { panic!("{}: {} records instead of one", reply.what, records.len()) };
        let decision = if reply.status < 400 { "permit" } else { "refuse" };
        assert_eq!(record["decision"], decision, "{}", reply.what);
        assert_eq!(record["status"], reply.status, "{}", reply.what);
        if reply.status >= 400 {
            assert_eq!(record["reason"].as_str(), Some(reply.code().as_str()), "{}", reply.what);
            assert_eq!(record["released"], Value::Array(Vec::new()), "{}", reply.what);
        }
        Value::clone(record)
    };
    replies.into_iter().map(record_of).collect()
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}: {:?}", self.what, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn request_id(&self) -> &str {
        self.header("x-request-id").unwrap_or_else(|| panic!("{}: no X-Request-Id", self.what))
    }

    /// The refusal code, or nothing.
    pub(crate) fn code(&self) -> String {
        let coding = self.json().pointer("/issue/0/details/coding/0/code").cloned();
        coding.and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The answer but for what differs from request to request.
    pub(crate) fn without_request_id(&self) -> (u16, Vec<(String, String)>, String) {
        let id = self.request_id();
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().unwrap().replace(id, "ID"))
        };
        let mut headers: Vec<_> =
            self.headers.iter().map(header).filter(|(name, _)| name != "date").collect();
        headers.sort();
        (self.status, headers, self.text().replace(id, "ID"))
    }

    #[track_caller]
    pub(crate) fn check_ok(&self) {
        assert_eq!(self.status, 200, "{}: {:?}", self.what, self.body);
        assert_eq!(self.header("cache-control"), Some("no-store"), "{}", self.what);
        self.request_id();
    }

    /// A refusal as the contract wants it (design: section 6).
    #[track_caller]
    pub(crate) fn check_refusal(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}: {:?}", self.what, self.body);
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{}", self.what);
        assert_eq!(outcome["issue"][0]["details"]["coding"][0]["system"], REFUSAL_SYSTEM, "{}", self.what);
        assert_eq!(outcome["issue"][0]["severity"], "error", "{}", self.what);
        assert!(self.text().contains(self.request_id()), "{}: the body has no request id", self.what);
        assert_eq!(self.header("content-type"), Some("application/fhir+json"), "{}", self.what);
        assert_eq!(self.header("cache-control"), Some("no-store"), "{}", self.what);
        assert_eq!(self.header("www-authenticate").is_some(), status == 401, "{}", self.what);
        assert_eq!(self.header("allow").is_some(), status == 405, "{}", self.what);
    }
}

/// A file of cases, read when the test runs.
pub(crate) fn cases<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/data/journey/{name}", env!("CARGO_MANIFEST_DIR"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Percent-encodes what a query value may not hold.
pub(crate) fn encoded(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~|:/,".contains(&b);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
