//! Bound and opaque tokens through the door: certificates, proofs, nonces, and the issuer's word (T-184, T-185; L-64 to
//! L-66).
//!
//! Owns: that a stolen token is worth nothing without its certificate or key, over real TLS.
//! Must never: take the gate's own idea of a proof for one: the sandbox makes proofs from the RFC alone.
//! Look next: `tests/data/tokens/proofs.toml`, the same without a socket.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::Script;
use chartgate::edge::introspection::ClientKey;
use chartgate_sandbox::issuer::{AssertionCheck, INTROSPECTOR, Outage, ProofKey};
use chartgate_sandbox::listen::Canned;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{self, Hospital, Reply, run};

/// A certificate authority for clients, and two clients of it.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("clients.pem"), authority.pem()).unwrap();
        for name in ["own", "other"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![format!("{name}.client.test")]).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.der")), certificate.der()).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self) -> Script {
        let with = format!("private_key = \"server.key\"\nclient_ca = {:?}", self.file("clients.pem"));
        Script { replace: vec![("private_key = \"server.key\"".to_owned(), with)], ..Script::default() }
    }

    fn client(&self, ca: &Path, name: &str) -> Client {
        Client::with_certificate(ca, &self.file(&format!("{name}.pem")), &self.file(&format!("{name}.key")))
            .unwrap()
    }

    fn thumbprint(&self, name: &str) -> String {
        let der = std::fs::read(self.file(&format!("{name}.der"))).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
        URL_SAFE_NO_PAD.encode(digest)
    }
}

#[test]
fn t184_a_token_bound_to_a_certificate_needs_it_on_this_connection() {
    run(async {
        let certificates = Certificates::make();
        let hospital = Hospital::open(certificates.script()).await;
        let bound = hospital.stage.issuer().token_with("nurse", |claims| {
            claims["cnf"] = json!({"x5t#S256": certificates.thumbprint("own")});
        });
        let bound = format!("Bearer {}", bound.unwrap());
        let plain = format!("Bearer {}", hospital.token("nurse"));
        let own = certificates.client(&hospital.stage.ca_file(), "own");
        let other = certificates.client(&hospital.stage.ca_file(), "other");
        let ask = async |client: &Client, bearer: &str| {
            let headers = [("authorization", bearer)];
            harness::ask(client, hospital.stage.base_url(), "GET", "Patient/p1", &headers, "").await
        };
        let good = [ask(&own, &bound).await, ask(&own, &plain).await, ask(&hospital.client, &plain).await];
        good.iter().for_each(Reply::check_ok);
        let records = hospital.check_recorded(&good);
        assert_eq!(records[0]["binding"], "mtls");
        assert!(records[1].get("binding").is_none(), "a bearer token is bound to nothing");
        hospital.check_refusals(&[
            (ask(&hospital.client, &bound).await, 401, "client-certificate-missing"),
            (ask(&other, &bound).await, 401, "client-certificate-mismatch"),
        ]);
        ask(&own, &bound).await.check_ok();
    });
}

/// A client with a key.
struct Holder<'h> {
    hospital: &'h Hospital,
    key: ProofKey,
    token: String,
}

impl<'h> Holder<'h> {
    fn of(hospital: &'h Hospital, who: &str) -> Self {
        let key = ProofKey::new().unwrap();
        let jkt = key.thumbprint();
        let token = hospital.stage.issuer().token_with(who, |claims| claims["cnf"] = json!({ "jkt": jkt }));
        Self { hospital, key, token: token.unwrap() }
    }

    fn url(&self, path: &str) -> String {
        let path = path.split('?').next().unwrap();
        format!("{}/{path}", self.hospital.stage.base_url())
    }

    fn proof(&self, method: &str, path: &str) -> String {
        self.key.proof(method, &self.url(path), &self.token).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, proof: &str) -> Reply {
        self.ask_as("DPoP", method, path, proof).await
    }

    async fn ask_as(&self, scheme: &str, method: &str, path: &str, proof: &str) -> Reply {
        let authorization = format!("{scheme} {}", self.token);
        let headers = [("authorization", authorization.as_str()), ("dpop", proof)];
        self.hospital.ask(method, path, &headers, "").await
    }
}

#[test]
fn t185_a_token_bound_to_a_key_needs_a_fresh_proof_for_each_request() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let holder = Holder::of(&hospital, "nurse");
        let first = holder.proof("GET", "Patient/p1");
        let good = [
            holder.ask("GET", "Patient/p1", &first).await,
            holder.ask("GET", "Observation?patient=p1", &holder.proof("GET", "Observation?patient=p1")).await,
            holder.ask("HEAD", "Patient/p1", &holder.proof("HEAD", "Patient/p1")).await,
        ];
        good.iter().for_each(Reply::check_ok);
        assert_eq!(hospital.check_recorded(&good)[0]["binding"], "dpop");

        let replayed = holder.ask("GET", "Patient/p1", &first).await;
        assert!(
            replayed
                .header("www-authenticate")
                .unwrap()
                .starts_with("DPoP error=\"invalid_dpop_proof\", algs=")
        );
        let bearer = holder.ask_as("Bearer", "GET", "Patient/p1", &holder.proof("GET", "Patient/p1")).await;
        assert!(
            bearer.header("www-authenticate").unwrap().starts_with("DPoP error=\"invalid_token\", algs=")
        );
        let thief = ProofKey::new().unwrap();
        let stolen = thief.proof("GET", &holder.url("Patient/p1"), &holder.token).unwrap();
        let emr = holder
            .key
            .proof("GET", &format!("{}/Patient/p1", "http://127.0.0.1/fhir"), &holder.token)
            .unwrap();
        let old = holder.key.proof_with("GET", &holder.url("Patient/p1"), &holder.token, |_, claims| {
            claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 120);
        });
        let other = Holder::of(&hospital, "physician");
        let for_other = holder.key.proof("GET", &holder.url("Patient/p1"), &other.token).unwrap();
        let mut refused = vec![
            (replayed, 401, "dpop-proof-replayed"),
            (bearer, 401, "dpop-token-as-bearer"),
            (holder.ask("GET", "Patient/p1", &stolen).await, 401, "dpop-proof-of-other-key"),
            (holder.ask("GET", "Patient/p1", &emr).await, 401, "dpop-proof-of-other-request"),
            (
                holder.ask("GET", "Patient/p2", &holder.proof("GET", "Patient/p1")).await,
                401,
                "dpop-proof-of-other-request",
            ),
            (
                holder.ask("DELETE", "Patient/p1", &holder.proof("GET", "Patient/p1")).await,
                401,
                "dpop-proof-of-other-request",
            ),
            (holder.ask("GET", "Patient/p1", &old.unwrap()).await, 401, "dpop-proof-stale"),
            (holder.ask("GET", "Patient/p1", &for_other).await, 401, "dpop-proof-of-other-request"),
            (holder.ask("GET", "Patient/p1", "nonsense").await, 401, "dpop-proof-malformed"),
        ];
        let missing = [("authorization", format!("DPoP {}", holder.token))];
        let missing = missing.each_ref().map(|(name, value)| (*name, value.as_str()));
        refused.push((hospital.ask("GET", "Patient/p1", &missing, "").await, 401, "dpop-proof-missing"));
        let unbound = hospital.token("nurse");
        let proof = holder.key.proof("GET", &holder.url("Patient/p1"), &unbound).unwrap();
        let authorization = format!("DPoP {unbound}");
        let headers = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
        refused.push((hospital.ask("GET", "Patient/p1", &headers, "").await, 401, "dpop-token-unbound"));
        hospital.check_refusals(&refused);
        holder.ask("GET", "Patient/p1", &holder.proof("GET", "Patient/p1")).await.check_ok();
    });
}

/// Of many that send one proof at the same time, one is served.
#[test]
fn t185_one_proof_serves_once() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let holder = Holder::of(&hospital, "nurse");
        let proof = holder.proof("GET", "Patient/p1");
        let (authorization, mut asked) = (format!("DPoP {}", holder.token), tokio::task::JoinSet::new());
        for _ in 0..12 {
            let (client, base) = (hospital.client.clone(), hospital.stage.base_url().to_owned());
            let (authorization, proof) = (authorization.clone(), proof.clone());
            asked.spawn(async move {
                let headers = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
                harness::ask(&client, &base, "GET", "Patient/p1", &headers, "").await.status
            });
        }
        let served = asked.join_all().await.into_iter().filter(|status| *status == 200).count();
        assert_eq!(served, 1);
    });
}

#[test]
fn a_nonce_is_asked_for_where_it_is_demanded() {
    run(async {
        let more = "\n[dpop]\nnonce = true\n".to_owned();
        let hospital = Hospital::open(Script { more, ..Script::default() }).await;
        let holder = Holder::of(&hospital, "nurse");
        let without = holder.ask("GET", "Patient/p1", &holder.proof("GET", "Patient/p1")).await;
        assert!(without.header("www-authenticate").unwrap().starts_with("DPoP error=\"use_dpop_nonce\""));
        let nonce = without.header("dpop-nonce").unwrap().to_owned();
        let with = |nonce: &str| {
            let nonce = nonce.to_owned();
            let url = holder.url("Patient/p1");
            holder
                .key
                .proof_with("GET", &url, &holder.token, |_, claims| claims["nonce"] = json!(nonce))
                .unwrap()
        };
        let made_up = holder.ask("GET", "Patient/p1", &with("made-up")).await;
        hospital.check_refusals(&[(without, 401, "dpop-nonce-wanted"), (made_up, 401, "dpop-nonce-wanted")]);
        holder.ask("GET", "Patient/p1", &with(&nonce)).await.check_ok();
        let bearer = hospital.get("nurse", "Patient/p1").await;
        bearer.check_ok();
        assert!(bearer.header("dpop-nonce").is_none());
    });
}

const FRESH: &str = r#"
@id("fresh-birthdate")
forbid (principal in Role::"nurse", action == Action::"disclose", resource in FHIR::Element::"Patient.birthDate")
when { context.mfa.age > 600 };
"#;

/// Whatever is wrong with a login, the challenge speaks the scheme in which the token came, and the client's next proof
/// can be good (RFC 9449 sections 7.1 and 9, RFC 9470 section 3).
#[test]
fn every_challenge_speaks_the_scheme_of_the_request() {
    run(async {
        let more = "\n[dpop]\nnonce = true\n".to_owned();
        let shorter = ("absolute_timeout = \"12h\"".to_owned(), "absolute_timeout = \"1h\"".to_owned());
        let hospital = Hospital::open(Script { more, replace: vec![shorter], ..Script::default() }).await;
        let before = hospital.events("policies-loaded");
        hospital.edit("fresh.cedar", Some(FRESH));
        hospital.edited("policies-loaded", before).await;
        let (path, key) = ("Patient?birthdate=1970-01-01", ProofKey::new().unwrap());
        let unauthenticated = "error=\"insufficient_user_authentication\", ";
        let cases = [
            (700, "step-up-required", format!("{unauthenticated}max_age=\"600\"")),
            (2 * 3600, "session-over", "error=\"invalid_token\"".to_owned()),
            (13 * 3600, "mfa-too-old", format!("{unauthenticated}max_age=\"43200\"")),
        ];
        let nonce = nonce(&hospital).await;
        let mut replies = Vec::new();
        for (age, code, parameters) in cases {
            let token = |bound: bool| {
                let jkt = key.thumbprint();
                let token = hospital.stage.issuer().token_with("nurse", |claims| {
                    claims["auth_time"] = json!(claims["auth_time"].as_i64().unwrap() - age);
                    if bound {
                        claims["cnf"] = json!({ "jkt": jkt });
                    }
                });
                token.unwrap()
            };
            let bearer = hospital.get_with(&token(false), path).await;
            assert_eq!(bearer.header("www-authenticate"), Some(format!("Bearer {parameters}").as_str()));
            assert_eq!(bearer.header("dpop-nonce"), None, "{code}");
            let (bound, url) = (token(true), format!("{}/Patient", hospital.stage.base_url()));
            let proof = key.proof_with("GET", &url, &bound, |_, claims| claims["nonce"] = json!(nonce));
            let (authorization, proof) = (format!("DPoP {bound}"), proof.unwrap());
            let headers = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
            let dpop = hospital.ask("GET", path, &headers, "").await;
            let value = dpop.header("www-authenticate").unwrap();
            assert!(value.starts_with(&format!("DPoP {parameters}, algs=\"")), "{code}: {value}");
            assert!(dpop.header("dpop-nonce").is_some(), "{code}");
            replies.extend([(bearer, 401, code), (dpop, 401, code)]);
        }
        hospital.check_refusals(&replies);
    });
}

/// The nonce that a first proof without one is answered with.
async fn nonce(hospital: &Hospital) -> String {
    let holder = Holder::of(hospital, "nurse");
    let wanted = holder.ask("GET", "Patient/p1", &holder.proof("GET", "Patient/p1")).await;
    wanted.header("dpop-nonce").unwrap().to_owned()
}

async fn with_introspection(folder: &TempDir) -> Hospital {
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{}\n", INTROSPECTOR.1)).unwrap();
    introspecting(&format!("client_secret_file = {file:?}")).await
}

/// A hospital whose issuer is asked about opaque tokens, with these lines about who we are.
async fn introspecting(ours: &str) -> Hospital {
    // The issuer's address is known once it stands: the section is written then, and the gate opened again.
    let mut hospital = Hospital::open(Script::default()).await;
    let (issuer, id) = (hospital.stage.issuer().url(), INTROSPECTOR.0);
    let more = format!(
        "\n[issuer.introspection]\nendpoint = \"{issuer}/introspect\"\nclient_id = \"{id}\"\n{ours}\ncache = \"2s\"\n"
    );
    let file = hospital.stage.config_file();
    let text = std::fs::read_to_string(&file).unwrap() + &more;
    std::fs::write(&file, text).unwrap();
    hospital.stage.stop().await.unwrap();
    hospital.stage.start().await.unwrap();
    hospital
}

#[test]
fn an_opaque_token_is_what_its_issuer_says() {
    run(async {
        let folder = TempDir::new().unwrap();
        let hospital = with_introspection(&folder).await;
        let issuer = hospital.stage.issuer();
        let token = issuer.opaque("nurse", |_| {}).unwrap();
        let first = hospital.get_with(&token, "Patient/p1").await;
        first.check_ok();
        assert_eq!(hospital.check_recorded([&first])[0]["subject"], "nurse");
        for _ in 0..5 {
            hospital.get_with(&token, "Patient/p1").await.check_ok();
        }
        assert!(issuer.hits("/introspect") <= 2, "answers are kept");
        hospital.get("nurse", "Patient/p1").await.check_ok();

        let weak = issuer.opaque("nurse", |claims| claims["amr"] = json!(["pwd"])).unwrap();
        let foreign = issuer.opaque("nurse", |claims| claims["aud"] = json!("https://other.test")).unwrap();
        let narrow = issuer.opaque("nurse", |claims| claims["scope"] = json!("user/Observation.rs")).unwrap();
        let bound = issuer.opaque("nurse", |claims| claims["cnf"] = json!({"jkt": "A".repeat(43)})).unwrap();
        let without =
            issuer.opaque("nurse", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))).unwrap();
        hospital.check_refusals(&[
            (hospital.get_with(&weak, "Patient/p1").await, 401, "mfa-missing"),
            (hospital.get_with(&foreign, "Patient/p1").await, 401, "token-audience-refused"),
            (hospital.get_with(&narrow, "Patient/p1").await, 403, "scope-insufficient"),
            (hospital.get_with(&bound, "Patient/p1").await, 401, "dpop-token-as-bearer"),
            (hospital.get_with(&without, "Patient/p1").await, 401, "token-claim-missing"),
            (hospital.get_with("made-up", "Patient/p1").await, 401, "token-inactive"),
            (hospital.get_with("a.b.c", "Patient/p1").await, 401, "token-not-compact"),
        ]);

        issuer.end(&token);
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        let ended = hospital.get_with(&token, "Patient/p1").await;
        hospital.check_refusals(&[(ended, 401, "token-inactive")]);
    });
}

/// A kind of key that may sign assertions, what with, and how its other half is read.
type ClientKeyKind = (&'static str, &'static rcgen::SignatureAlgorithm, Algorithm, ReadPublic);
type ReadPublic = fn(&[u8]) -> Result<DecodingKey, jsonwebtoken::errors::Error>;

const CLIENT_KEYS: [ClientKeyKind; 3] = [
    ("P-256", &rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256, DecodingKey::from_ec_pem),
    ("Ed25519", &rcgen::PKCS_ED25519, Algorithm::EdDSA, DecodingKey::from_ed_pem),
    ("RSA", &rcgen::PKCS_RSA_SHA256, Algorithm::RS256, DecodingKey::from_rsa_pem),
];

/// What an issuer demands of an assertion (RFC 7523 section 3, OpenID Connect Core section 9): whose it is, for whom,
/// not for long, signed by the client's key, and never seen before.
fn assertion_check(key: DecodingKey, algorithm: Algorithm, audience: &str) -> AssertionCheck {
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[INTROSPECTOR.0]);
    rules.sub = Some(INTROSPECTOR.0.to_owned());
    rules.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    let seen = Mutex::new(BTreeSet::new());
    Arc::new(move |assertion| {
        let Ok(token) = jsonwebtoken::decode::<Value>(assertion, &key, &rules) else { return false };
        let lifetime = token.claims["exp"].as_i64().zip(token.claims["iat"].as_i64());
        let short = lifetime.is_some_and(|(exp, iat)| (1..=300).contains(&(exp - iat)));
        let id = token.claims["jti"].as_str().filter(|id| id.len() >= 16).map(str::to_owned);
        let named = token.header.kid.as_deref() == Some("key-1");
        short && named && id.is_some_and(|id| seen.lock().unwrap().insert(id))
    })
}

/// `private_key_jwt`: the gate is known by what it signs, with each kind of key, and by nothing else.
#[test]
fn the_gate_shows_an_issuer_who_it_is_by_a_key_of_its_own() {
    run(async {
        let folder = TempDir::new().unwrap();
        for (name, kind, algorithm, read) in CLIENT_KEYS {
            let key = KeyPair::generate_for(kind).unwrap();
            let file = folder.path().join(name);
            std::fs::write(&file, key.serialize_pem()).unwrap();
            let hospital =
                introspecting(&format!("client_key_file = {file:?}\nclient_key_id = \"key-1\"")).await;
            let issuer = hospital.stage.issuer();
            let ask = async || {
                let token = issuer.opaque("nurse", |_| {}).unwrap();
                hospital.get_with(&token, "Patient/p1").await
            };
            let unknown = ask().await;
            let stranger = KeyPair::generate_for(kind).unwrap();
            let knows = |pair: &KeyPair, audience: &str| {
                let key = read(pair.public_key_pem().as_bytes()).unwrap();
                issuer.check_assertions(assertion_check(key, algorithm, audience));
            };
            knows(&key, issuer.url());
            // Two questions: each has an assertion of its own.
            ask().await.check_ok();
            ask().await.check_ok();
            knows(&stranger, issuer.url());
            let signed_by_another = ask().await;
            knows(&key, "https://other.test");
            let for_another = ask().await;
            hospital.check_refusals(&[
                (unknown, 503, "introspection-unavailable"),
                (signed_by_another, 503, "introspection-unavailable"),
                (for_another, 503, "introspection-unavailable"),
            ]);
        }
    });
}

/// A key that does not sign what issuers take is a mistake in the configuration, not a refusal at night.
#[test]
fn a_key_that_cannot_sign_is_refused_at_the_start() {
    let curve = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let good = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let cases = [
        ("another curve", curve.serialize_pem(), false),
        ("a public key", good.public_key_pem(), false),
        ("no key", "secret".to_owned(), false),
        ("a key", good.serialize_pem(), true),
    ];
    for (name, pem, is_good) in cases {
        let read = ClientKey::read(pem.as_bytes(), None, "https://idp.test".to_owned());
        assert_eq!(read.is_ok(), is_good, "{name}: {read:?}");
        assert!(!format!("{read:?}").contains("PRIVATE"), "{name}");
    }
}

#[test]
fn many_who_bring_one_opaque_token_make_one_question() {
    run(async {
        let folder = TempDir::new().unwrap();
        let hospital = with_introspection(&folder).await;
        let token = hospital.stage.issuer().opaque("nurse", |_| {}).unwrap();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let (client, base) = (hospital.client.clone(), hospital.stage.base_url().to_owned());
            let bearer = format!("Bearer {token}");
            asked.spawn(async move {
                harness::ask(&client, &base, "GET", "Patient/p1", &[("authorization", &bearer)], "")
                    .await
                    .status
            });
        }
        assert!(asked.join_all().await.into_iter().all(|status| status == 200));
        assert_eq!(hospital.stage.issuer().hits("/introspect"), 1);
    });
}

/// An outage, an answer of the wrong form, a redirect: nobody is let in on them.
#[test]
fn without_the_issuer_s_word_nobody_comes_in() {
    run(async {
        let folder = TempDir::new().unwrap();
        let hospital = with_introspection(&folder).await;
        let issuer = hospital.stage.issuer();
        let token = || issuer.opaque("nurse", |_| {}).unwrap();
        let mut replies = Vec::new();
        for outage in [Outage::Unavailable, Outage::Disconnect] {
            issuer.set_outage(Some(outage));
            replies.push((hospital.get_with(&token(), "Patient/p1").await, 503, "introspection-unavailable"));
        }
        issuer.set_outage(None);
        let answers = [
            (200, r#"{"active":"true"}"#),
            (200, "<html></html>"),
            (200, r#"{"active":false,"active":true}"#),
            (302, r#"{"active":true}"#),
            (401, r#"{"active":true}"#),
        ];
        for (status, body) in answers {
            let canned = Canned::status(status).header("location", "/introspect").body(body);
            issuer.next_answer("/introspect", canned);
            replies.push((hospital.get_with(&token(), "Patient/p1").await, 503, "introspection-unavailable"));
        }
        hospital.check_refusals(&replies);
        hospital.get_with(&token(), "Patient/p1").await.check_ok();
    });
}
