//! The keyring against a real issuer on loopback, made here.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::domain::identity::{IssuerSpec, MfaSpec};

/// What the issuer answers to a path.
#[derive(Clone)]
struct Answer {
    status: u16,
    body: String,
    location: Option<String>,
    delay: Duration,
}

impl Answer {
    fn ok(body: impl ToString) -> Self {
        Self { status: 200, body: body.to_string(), location: None, delay: Duration::ZERO }
    }
}

type Answers = Arc<Mutex<BTreeMap<String, Answer>>>;

/// An issuer on loopback: answers by path, and a count of what it was asked.
struct IdentityProvider {
    url: String,
    answers: Answers,
    asked: Arc<Mutex<VecDeque<String>>>,
    running: tokio::task::JoinHandle<()>,
}

impl IdentityProvider {
    async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Answers::default();
        let asked = Arc::new(Mutex::new(VecDeque::new()));
        let running = tokio::spawn(serve(listener, Arc::clone(&answers), Arc::clone(&asked)));
        let provider = Self { url, answers, asked, running };
        provider.answer("/.well-known/openid-configuration", Answer::ok(provider.discovery()));
        provider.answer("/jwks", Answer::ok(key_set(&["a"])));
        provider
    }

    fn discovery(&self) -> Value {
        json!({"issuer": self.url, "jwks_uri": format!("{}/jwks", self.url)})
    }

    fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// How often the key set was asked for.
    fn fetches(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| *path == "/jwks").count()
    }

    fn asked_for(&self, path: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == path)
    }

    fn keyring(&self, pace: Pace) -> Keyring {
        Keyring::with_pace(vec![source(&self.url, None)], pace).unwrap()
    }
}

async fn serve(listener: TcpListener, answers: Answers, asked: Arc<Mutex<VecDeque<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                asked.lock().unwrap().push_back(path.clone());
                let answer = answers.lock().unwrap().get(&path).cloned();
                async move { Ok::<_, Infallible>(respond(answer).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(answer: Option<Answer>) -> Response<Full<Bytes>> {
    let Some(answer) = answer else {
        return Response::builder().status(404).body(Full::default()).unwrap();
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::builder().status(answer.status);
    if let Some(location) = answer.location {
        response = response.header("location", location);
    }
    response.body(Full::from(answer.body)).unwrap()
}

fn key_set(kids: &[&str]) -> Value {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let jwk = |kid: &&str| {
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
               "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    };
    json!({ "keys": kids.iter().map(jwk).collect::<Vec<_>>() })
}

fn source(url: &str, jwks_uri: Option<&str>) -> IssuerSource {
    let spec = IssuerSpec {
        url: url.to_owned(),
        audience: "https://fhir.test/fhir".to_owned(),
        algorithms: vec!["ES256".to_owned()],
        roles_claim: "/roles".to_owned(),
        roles: BTreeMap::new(),
        purpose_claim: None,
        mfa: MfaSpec { amr: vec!["otp".to_owned()], acr: vec![], max_age_seconds: 60 },
    };
    IssuerSource { issuer: Issuer::new(spec).unwrap(), jwks_uri: jwks_uri.map(str::to_owned), ca: None }
}

/// Quick, with intervals that a test chooses.
fn pace(interval_ms: u64) -> Pace {
    Pace {
        interval_min: Duration::from_millis(interval_ms),
        retry_interval_min: Duration::from_millis(interval_ms),
        period: Duration::from_millis(30),
        timeout: Duration::from_millis(2000),
        stale_max: Duration::from_secs(60),
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {what}");
}

#[tokio::test]
async fn keys_come_by_discovery_or_by_jwks_uri() {
    let provider = IdentityProvider::start().await;
    let keyring = provider.keyring(pace(60_000));
    assert!(!keyring.ready());
    assert!(keyring.key_set(&provider.url, "a").await.unwrap().contains("a"));
    assert!(keyring.ready());
    assert_eq!(keyring.issuer(&provider.url).unwrap().url(), provider.url);

    let direct = source("https://idp.test", Some(&format!("{}/jwks", provider.url)));
    let keyring = Keyring::with_pace(vec![direct], pace(60_000)).unwrap();
    assert!(keyring.key_set("https://idp.test", "a").await.unwrap().contains("a"));
    assert_eq!(keyring.key_set("https://idp.test/", "a").await.unwrap_err(), KeyringError::IssuerUnknown);
    assert!(keyring.issuer("https://IDP.test").is_none());
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_removed_one_dropped() {
    let provider = IdentityProvider::start().await;
    let keyring = provider.keyring(pace(0));
    keyring.key_set(&provider.url, "a").await.unwrap();
    provider.answer("/jwks", Answer::ok(key_set(&["b"])));
    let rotated = keyring.key_set(&provider.url, "b").await.unwrap();
    assert!(rotated.contains("b") && !rotated.contains("a"));
}

#[tokio::test]
async fn the_background_refresh_finds_a_removed_key() {
    let provider = IdentityProvider::start().await;
    let keyring = provider.keyring(pace(60_000));
    let refreshing = keyring.spawn_refresh();
    until("ready", || keyring.ready()).await;
    provider.answer("/jwks", Answer::ok(json!({"keys": []})));
    until("dropped", || keyring.counts().all(|(_, counts)| counts.keys == 0)).await;
    assert!(!keyring.key_set(&provider.url, "a").await.unwrap().contains("a"));
    drop(refreshing);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fetches = provider.fetches();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(provider.fetches(), fetches, "the refresh outlived its handle");
}

#[tokio::test]
async fn an_outage_keeps_the_last_good_set_for_a_bounded_time() {
    let provider = IdentityProvider::start().await;
    let patient = Pace { stale_max: Duration::from_millis(400), ..pace(0) };
    let keyring = provider.keyring(patient);
    keyring.key_set(&provider.url, "a").await.unwrap();
    provider.answer("/jwks", Answer { status: 503, ..Answer::ok("down") });
    let kept = keyring.key_set(&provider.url, "unknown").await.unwrap();
    assert!(kept.contains("a"));
    provider.answer("/jwks", Answer::ok("{\"keys\":[{\"d\":\"AA\"}]}"));
    assert!(
        keyring.key_set(&provider.url, "unknown").await.unwrap().contains("a"),
        "a bad set replaced a good one"
    );
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(keyring.key_set(&provider.url, "a").await.unwrap_err(), KeyringError::Unavailable);
    assert!(!keyring.ready());
    let (_, counts) = keyring.counts().next().unwrap();
    assert!(counts.failed >= 2 && !counts.usable);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_fetches_once() {
    let provider = IdentityProvider::start().await;
    let keyring = Arc::new(provider.keyring(pace(60_000)));
    keyring.key_set(&provider.url, "a").await.unwrap();
    for number in 0..500 {
        let kid = format!("unknown-{number}");
        assert!(!keyring.key_set(&provider.url, &kid).await.unwrap().contains(&kid));
    }
    assert_eq!(provider.fetches(), 1);
    assert_eq!(keyring.counts().next().unwrap().1.held_back, 500);
}

#[tokio::test]
async fn a_herd_makes_one_flight() {
    let provider = IdentityProvider::start().await;
    provider.answer("/jwks", Answer { delay: Duration::from_millis(200), ..Answer::ok(key_set(&["a"])) });
    let keyring = Arc::new(provider.keyring(pace(60_000)));
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (keyring, url) = (Arc::clone(&keyring), provider.url.clone());
        herd.spawn(async move { keyring.key_set(&url, "a").await.unwrap().contains("a") });
    }
    assert!(herd.join_all().await.into_iter().all(|found| found));
    assert_eq!(provider.fetches(), 1);
}

/// Whoever waited for a fetch that failed is refused then, and does not start the next one in turn.
#[tokio::test]
async fn a_herd_before_a_hanging_issuer_waits_once() {
    let provider = IdentityProvider::start().await;
    provider.answer("/jwks", Answer { delay: Duration::from_secs(30), ..Answer::ok("") });
    let hanging = Pace { timeout: Duration::from_millis(300), ..pace(150) };
    let keyring = Arc::new(provider.keyring(hanging));
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (keyring, url) = (Arc::clone(&keyring), provider.url.clone());
        herd.spawn(async move { keyring.key_set(&url, "a").await.is_err() });
    }
    assert!(herd.join_all().await.into_iter().all(|refused| refused));
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_the_fetch() {
    let provider = IdentityProvider::start().await;
    provider.answer("/jwks", Answer { delay: Duration::from_millis(100), ..Answer::ok(key_set(&["a"])) });
    let keyring = provider.keyring(pace(60_000));
    let left = tokio::time::timeout(Duration::from_millis(20), keyring.key_set(&provider.url, "a")).await;
    assert!(left.is_err());
    until("fetched", || keyring.ready()).await;
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let provider = IdentityProvider::start().await;
    let elsewhere = Some(format!("{}/elsewhere", provider.url));
    provider.answer("/elsewhere", Answer::ok(key_set(&["a"])));
    for path in ["/jwks", "/.well-known/openid-configuration"] {
        let good = provider.answers.lock().unwrap()[path].clone();
        let redirect = Answer { status: 302, location: elsewhere.clone(), ..Answer::ok("") };
        provider.answer(path, redirect);
        let keyring = provider.keyring(pace(0));
        assert_eq!(keyring.key_set(&provider.url, "a").await.unwrap_err(), KeyringError::Unavailable);
        provider.answer(path, good);
    }
    assert!(!provider.asked_for("/elsewhere"));
}

/// Each answer leaves us without keys, and for the reason given.
#[tokio::test]
async fn bad_answers_are_refused() {
    let provider = IdentityProvider::start().await;
    let url = provider.url.clone();
    let discovery = "/.well-known/openid-configuration";
    let good = provider.discovery();
    let with = |name: &str, value: Value| {
        let mut document = good.clone();
        document[name] = value;
        Answer::ok(document)
    };
    let slow = Answer { delay: Duration::from_secs(5), ..Answer::ok("{}") };
    let cases = [
        ("wrong issuer", discovery, with("issuer", json!("https://other.test")), FetchError::IssuerMismatch),
        (
            "issuer with slash",
            discovery,
            with("issuer", json!(format!("{url}/"))),
            FetchError::IssuerMismatch,
        ),
        ("no keys", discovery, with("jwks_uri", json!(null)), FetchError::DiscoveryMalformed),
        ("plain http", discovery, with("jwks_uri", json!("http://192.0.2.1/jwks")), FetchError::UrlRefused),
        ("a file", discovery, with("jwks_uri", json!("file:///etc/passwd")), FetchError::UrlRefused),
        ("not JSON", discovery, Answer::ok("<html>"), FetchError::DiscoveryMalformed),
        ("oversized", "/jwks", Answer::ok("x".repeat(limits::KEY_SET_BYTES_MAX + 1)), FetchError::TooLarge),
        ("not a set", "/jwks", Answer::ok("{}"), FetchError::KeySet(KeySetError::Malformed)),
        ("gone", "/jwks", Answer { status: 404, ..Answer::ok("") }, FetchError::Status(404)),
        ("slow", "/jwks", slow, FetchError::TimedOut),
    ];
    for (name, path, answer, expected) in cases {
        let before = provider.answers.lock().unwrap()[path].clone();
        provider.answer(path, answer);
        let fetcher = Fetcher::new(&source(&url, None)).unwrap();
        let issuer = source(&url, None).issuer;
        let fetched = tokio::time::timeout(Duration::from_millis(500), fetcher.fetch(&issuer)).await;
        let error = fetched.unwrap_or(Err(FetchError::TimedOut)).unwrap_err();
        assert_eq!(error, expected, "{name}");
        provider.answer(path, before);
    }
    provider.running.abort();
}

#[tokio::test]
async fn one_issuer_down_does_not_stop_the_other() {
    let (up, down) = (IdentityProvider::start().await, IdentityProvider::start().await);
    let keyring = Keyring::with_pace(vec![source(&up.url, None), source(&down.url, None)], pace(0)).unwrap();
    keyring.key_set(&up.url, "a").await.unwrap();
    down.answer("/jwks", Answer { status: 500, ..Answer::ok("") });
    assert_eq!(keyring.key_set(&down.url, "a").await.unwrap_err(), KeyringError::Unavailable);
    assert!(keyring.key_set(&up.url, "a").await.is_ok());
    assert!(!keyring.ready(), "ready before every issuer was seen once");
}

/// T-171: a token that brings its own key address makes us ask nobody.
#[tokio::test]
async fn a_token_cannot_choose_where_keys_come_from() {
    use crate::domain::identity::Unverified;
    let canary = IdentityProvider::start().await;
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "a", "jku": format!("{}/jwks", canary.url)});
    let payload = json!({"iss": canary.url});
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    assert!(Unverified::inspect(&format!("{}.{}.AAAA", part(header), part(payload))).is_err());
    let keyring = Keyring::with_pace(vec![source("https://idp.test", None)], pace(0)).unwrap();
    assert_eq!(keyring.key_set(&canary.url, "a").await.unwrap_err(), KeyringError::IssuerUnknown);
    assert_eq!(canary.fetches(), 0);
}

/// An issuer over TLS is believed with the given certificate authority, and not without it.
#[tokio::test]
async fn a_private_certificate_authority_is_the_only_one_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let answers = Answers::default();
    answers.lock().unwrap().insert("/jwks".to_owned(), Answer::ok(key_set(&["a"])));
    tokio::spawn(serve_tls(listener, made.cert.der().clone(), made.signing_key.serialize_der(), answers));
    let jwks_uri = Some(format!("{url}/jwks"));
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (ca, trusted) in [(Some(&made), true), (Some(&other), false), (None, false)] {
        let ca = ca.map(|made| made.cert.pem().into_bytes());
        let source = IssuerSource { jwks_uri: jwks_uri.clone(), ca, ..source(&url, None) };
        let keyring = Keyring::with_pace(vec![source], pace(0)).unwrap();
        assert_eq!(keyring.key_set(&url, "a").await.is_ok(), trusted);
    }
}

async fn serve_tls(
    listener: TcpListener,
    certificate: rustls_pki_types::CertificateDer<'static>,
    key: Vec<u8>,
    answers: Answers,
) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], rustls_pki_types::PrivatePkcs8KeyDer::from(key).into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let answers = Arc::clone(&answers);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answers.lock().unwrap().get(request.uri().path()).cloned();
            async move { Ok::<_, Infallible>(respond(answer).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

#[test]
fn settings_that_cannot_be_safe_are_refused() {
    let url = "https://idp.test";
    let with_ca = |ca: &[u8]| IssuerSource { ca: Some(ca.to_vec()), ..source(url, None) };
    let cases = [
        ("no issuer", vec![], "at least one"),
        ("plain http", vec![source("http://idp.test", None)], "must be https"),
        ("looks like loopback", vec![source("http://127.0.0.1.evil.test", None)], "must be https"),
        ("plain jwks_uri", vec![source(url, Some("http://idp.test/jwks"))], "jwks_uri: must be https"),
        ("no URL", vec![source(url, Some("jwks"))], "jwks_uri: must be https"),
        ("twice", vec![source(url, None), source(url, None)], "given twice"),
        ("ca empty", vec![with_ca(b"")], "holds no certificate"),
        (
            "ca nonsense",
            vec![with_ca(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")],
            "ca:",
        ),
    ];
    for (name, sources, expected) in cases {
        let problems = Keyring::new(sources).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{name}: {problems}");
    }
    for loopback in ["http://localhost:8080", "http://127.9.0.1/x", "http://[::1]:1/x"] {
        assert!(Keyring::new(vec![source(loopback, None)]).is_ok(), "{loopback}");
    }
}
