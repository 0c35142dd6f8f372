//! Tests of bound tokens: a table of proofs, certificates and tokens, the RFCs' own examples, and laws of addresses.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::dpop::normal_url;
use super::super::keys::Material;
use super::super::token::sha256;
use super::*;

const URL: &str = "https://fhir.test/fhir/Patient/p1";

/// One row of `tests/data/tokens/proofs.toml`; its head explains the columns.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ProofRow {
    name: String,
    cnf: Option<String>,
    scheme: Option<String>,
    certificate: Option<String>,
    method: Option<String>,
    url: Option<String>,
    key: Option<String>,
    jwk: Option<String>,
    jwk_set: Option<String>,
    header: Option<String>,
    header_without: Vec<String>,
    claims: Option<String>,
    claims_text: Option<String>,
    without: Vec<String>,
    signature: Option<String>,
    form: Option<String>,
    headers: Option<usize>,
    nonce: Option<String>,
    expect: String,
}

fn thumbprint(key: &str) -> String {
    let jwk = Forge::instance().jwk(key);
    URL_SAFE_NO_PAD.encode(Material::read(jwk.as_object().unwrap()).unwrap().thumbprint())
}

fn certificate(name: &str) -> [u8; 32] {
    sha256(name.as_bytes())
}

impl ProofRow {
    fn token(&self) -> String {
        let cnf = self.cnf.as_deref().unwrap_or(r#"{"jkt":"{jkt}"}"#);
        let cnf = cnf.replace("{jkt}", &thumbprint("ec")).replace("{x5t}", &encode(&certificate("own")));
        let payload = if cnf == "none" {
            json!({})
        } else {
            json!({ "cnf": serde_json::from_str::<Value>(&cnf).unwrap() })
        };
        token_with(payload)
    }

    fn proof(&self, token: &str, nonces: &Nonces) -> String {
        let key = self.key.as_deref().unwrap_or("ec");
        let mut jwk = Forge::instance().jwk(self.jwk.as_deref().unwrap_or(key));
        jwk = merge(jwk, self.jwk_set.as_deref(), &["kid".to_owned(), "use".to_owned(), "alg".to_owned()]);
        let header = json!({"typ": "dpop+jwt", "alg": Forge::algorithm(key), "jwk": jwk});
        let header = merge(header, self.header.as_deref(), &self.header_without).to_string();
        let claims = json!({
            "jti": "proof-1", "htm": "GET", "htu": URL, "iat": NOW, "ath": encode(&sha256(token.as_bytes())),
        });
        let mut claims = merge(claims, self.claims.as_deref(), &self.without);
        let at_step = |step: i64| nonces.current(at(NOW + step * limits::DPOP_NONCE_SECONDS));
        match self.nonce.as_deref() {
            Some("now") => claims["nonce"] = json!(at_step(0)),
            Some("before") => claims["nonce"] = json!(at_step(-1)),
            Some("old") => claims["nonce"] = json!(at_step(-2)),
            Some("other") => claims["nonce"] = json!(Nonces::new(&[9; 32]).current(at(NOW))),
            Some("none") | None => {}
            Some(other) => panic!("no nonce {other}"),
        }
        let claims = self.claims_text.clone().unwrap_or(claims.to_string());
        let (header, claims) = (encode(header.as_bytes()), encode(claims.as_bytes()));
        let row = Row { signature: self.signature.clone(), ..Row::default() };
        let signature = row.sign(key, format!("{header}.{claims}").as_bytes());
        let form = self.form.as_deref().unwrap_or("{h}.{p}.{s}");
        form.replace("{h}", &header).replace("{p}", &claims).replace("{s}", &signature)
    }

    fn judge(&self) -> Result<Caller, IdentityRefusal> {
        let nonces = Nonces::new(&[7; 32]);
        let token = self.token();
        let proof = self.proof(&token, &nonces);
        let scheme = if self.scheme.as_deref() == Some("bearer") { Scheme::Bearer } else { Scheme::Dpop };
        let shown = match scheme {
            Scheme::Bearer => None,
            Scheme::Dpop => {
                let values = vec![proof.as_bytes(); self.headers.unwrap_or(1)];
                let request = Proven {
                    method: self.method.as_deref().unwrap_or("GET"),
                    url: self.url.as_deref().unwrap_or(URL),
                    token: &token,
                };
                Some(Proof::verify(values, request, self.nonce.as_ref().map(|_| &nonces), at(NOW))?)
            }
        };
        let certificate = self.certificate.as_deref().map(certificate);
        let shown = Possession::new(scheme, certificate, shown.as_ref());
        authenticate(&Unverified::inspect(&token)?, &issuer(), &keys(), &shown, at(NOW))
    }
}

#[test]
fn each_proof_of_the_table_is_judged_as_written() {
    let table: Table<ProofRow> =
        toml::from_str(include_str!("../../../../tests/data/tokens/proofs.toml")).unwrap();
    let wrong: Vec<String> = table
        .case
        .iter()
        .filter_map(|row| {
            let got = match row.judge() {
                Ok(caller) => format!("ok {}", caller.binding().name()),
                Err(refusal) => refusal.code().to_owned(),
            };
            (got != row.expect).then(|| format!("{}: {got}, expected {}", row.name, row.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A token kept from before is worth nothing without what it is bound to.
#[test]
fn a_kept_token_needs_its_proof_at_every_use() {
    let row = ProofRow::default();
    let (token, nonces, cache) = (row.token(), Nonces::new(&[7; 32]), VerifiedTokens::new());
    let unverified = Unverified::inspect(&token).unwrap();
    let request = Proven { method: "GET", url: URL, token: &token };
    let proof = Proof::verify([row.proof(&token, &nonces).as_bytes()], request, None, at(NOW)).unwrap();
    let ask = |shown: &Possession<'_>| {
        cache.authenticate(&unverified, &issuer(), &keys(), shown, at(NOW)).map(|_| ())
    };
    assert_eq!(ask(&Possession::new(Scheme::Dpop, None, Some(&proof))), Ok(()));
    assert_eq!(ask(&Possession::BARE), Err(ProofRefusal::Downgraded.into()));
    assert_eq!(ask(&Possession::new(Scheme::Dpop, None, None)), Err(ProofRefusal::Missing.into()));
    let other = token_with(json!({"cnf": {"jkt": thumbprint("ec")}, "jti": "token-2"}));
    let other = Unverified::inspect(&other).unwrap();
    let shown = Possession::new(Scheme::Dpop, None, Some(&proof));
    let crossed = cache.authenticate(&other, &issuer(), &keys(), &shown, at(NOW));
    assert_eq!(crossed.unwrap_err(), ProofRefusal::OtherRequest.into());
}

#[test]
fn a_proof_is_good_for_a_short_time_and_remembered_as_long() {
    let row = ProofRow::default();
    let (token, nonces) = (row.token(), Nonces::new(&[7; 32]));
    let text = row.proof(&token, &nonces);
    let ask = |now: i64| {
        Proof::verify([text.as_bytes()], Proven { method: "GET", url: URL, token: &token }, None, at(now))
    };
    let last = NOW + limits::DPOP_PROOF_AGE_SECONDS_MAX;
    assert!(ask(last).is_ok() && ask(NOW - limits::TOKEN_LEEWAY_SECONDS).is_ok());
    assert_eq!(ask(last + 1).unwrap_err(), ProofRefusal::Stale);
    assert_eq!(ask(NOW - limits::TOKEN_LEEWAY_SECONDS - 1).unwrap_err(), ProofRefusal::Stale);
    assert_eq!(ask(NOW).unwrap().forgettable_at(), at(last + 1), "forgotten while it was still good");
}

#[test]
fn proofs_are_told_apart_by_key_and_jti() {
    let token = ProofRow::default().token();
    let identifier = |row: ProofRow| {
        let text = row.proof(&token, &Nonces::new(&[7; 32]));
        let request = Proven { method: "GET", url: URL, token: &token };
        Proof::verify([text.as_bytes()], request, None, at(NOW)).unwrap().identifier()
    };
    let claims = |text: &str| ProofRow { claims: Some(text.to_owned()), ..ProofRow::default() };
    let one = identifier(ProofRow::default());
    assert_eq!(one, identifier(claims(&format!(r#"{{"iat":{}}}"#, NOW - 1))));
    assert_ne!(one, identifier(claims(r#"{"jti":"proof-2"}"#)));
    assert_ne!(one, identifier(ProofRow { key: Some("ed".to_owned()), ..ProofRow::default() }));
}

/// RFC 7638 section 3.1 and RFC 9449 sections 6.1 and 7.1: the examples of the texts themselves.
#[test]
fn the_rfcs_examples_hold() {
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"});
    let material = Material::read(jwk.as_object().unwrap()).unwrap();
    assert_eq!(encode(&material.thumbprint()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");

    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let request = Proven { method: "GET", url: "https://resource.example.org/protectedresource", token };
    let proof = Proof::verify([proof.as_bytes()], request, None, at(1_562_262_618)).unwrap();
    let key: [u8; 32] =
        URL_SAFE_NO_PAD.decode("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I").unwrap().try_into().unwrap();
    assert_eq!(proof.vouches(key, sha256(token.as_bytes())), Ok(()));
}

/// One proof of `tests/data/tokens/foreign-proofs.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    library: String,
    algorithm: String,
    iat: i64,
    jkt: String,
    proof: String,
}

/// A second opinion: what client libraries of others make is taken, and only for its token, key and request.
#[test]
fn proofs_of_other_libraries_hold() {
    let table: Table<Foreign> =
        toml::from_str(include_str!("../../../../tests/data/tokens/foreign-proofs.toml")).unwrap();
    let (url, token) = ("https://fhir.hospital.example/fhir/Observation", "opaque-token-of-the-test");
    assert!(table.case.len() >= 7);
    for row in table.case {
        let name = format!("{} {}", row.library, row.algorithm);
        let ask = |request| Proof::verify([row.proof.as_bytes()], request, None, at(row.iat));
        let proof =
            ask(Proven { method: "GET", url, token }).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let key: [u8; 32] = URL_SAFE_NO_PAD.decode(&row.jkt).unwrap().try_into().unwrap();
        assert_eq!(proof.vouches(key, sha256(token.as_bytes())), Ok(()), "{name}");
        assert_eq!(proof.vouches([0; 32], sha256(token.as_bytes())), Err(ProofRefusal::OtherKey), "{name}");
        for other in [
            Proven { method: "POST", url, token },
            Proven { method: "GET", url: "https://fhir.hospital.example/fhir/Patient", token },
            Proven { method: "GET", url, token: "another" },
        ] {
            assert_eq!(ask(other).unwrap_err(), ProofRefusal::OtherRequest, "{name}");
        }
    }
}

#[test]
fn challenges_name_the_scheme_that_would_do() {
    let algorithms = "algs=\"RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA Ed25519\"";
    let say = |refusal: IdentityRefusal, scheme| refusal.challenge(scheme);
    let nonce = IdentityRefusal::from(ProofRefusal::NonceWanted);
    assert_eq!(say(nonce, Scheme::Dpop), format!("DPoP error=\"use_dpop_nonce\", {algorithms}"));
    let downgraded = IdentityRefusal::from(ProofRefusal::Downgraded);
    assert_eq!(say(downgraded, Scheme::Bearer), format!("DPoP error=\"invalid_token\", {algorithms}"));
    let replayed = IdentityRefusal::from(ProofRefusal::Replayed);
    assert_eq!(say(replayed, Scheme::Dpop), format!("DPoP error=\"invalid_dpop_proof\", {algorithms}"));
    assert_eq!(
        say(IdentityRefusal::Expired, Scheme::Dpop),
        format!("DPoP error=\"invalid_token\", {algorithms}")
    );
    assert_eq!(say(IdentityRefusal::Expired, Scheme::Bearer), "Bearer error=\"invalid_token\"");
    let step_up = IdentityRefusal::MfaTooOld(StepUp { acr_values: String::new(), max_age_seconds: 60 });
    let wanted = format!("DPoP error=\"insufficient_user_authentication\", max_age=\"60\", {algorithms}");
    assert_eq!(say(step_up, Scheme::Dpop), wanted);
    let unbound = IdentityRefusal::from(ClientRefusal::Unbound(BindingDemand::Dpop));
    assert_eq!(say(unbound, Scheme::Bearer), format!("DPoP error=\"invalid_token\", {algorithms}"));
}

#[test]
fn an_address_has_one_normal_spelling() {
    let cases = [
        ("HTTPS://FHIR.test:443/fhir/Patient/%70%31", Some("https://fhir.test/fhir/Patient/p1")),
        ("https://fhir.test", Some("https://fhir.test/")),
        ("https://fhir.test:/", Some("https://fhir.test/")),
        ("http://localhost:80/a", Some("http://localhost/a")),
        ("https://fhir.test:8443/a", Some("https://fhir.test:8443/a")),
        ("https://fhir.test:80/a", Some("https://fhir.test:80/a")),
        ("https://fhir.test/%24everything/%c3%a9", Some("https://fhir.test/%24everything/%C3%A9")),
        ("https://fhir.test/a/../b", None),
        ("https://fhir.test/a/%2e%2E/b", None),
        ("https://fhir.test/./b", None),
        ("https://user@fhir.test/a", None),
        ("https:///a", None),
        ("https://fhir.test::/a", None),
        ("https://fhir.test:443:443/a", None),
        ("https://fhir.test:443:/a", None),
        ("ftp://fhir.test/a", None),
        ("fhir.test/a", None),
        ("https://fhir.test/a b", None),
        ("https://fhir.test/%4", None),
        ("https://fhir.test/%zz", None),
        ("https://fhir.test/\u{e9}", None),
        ("", None),
    ];
    for (url, expected) in cases {
        assert_eq!(normal_url(url).as_deref(), expected, "{url}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_normal_address_stays_as_it_is(url in "(https?://[A-Za-z0-9.:-]{1,20})?(/[%A-Fa-f0-9.~_|$-]{0,8}){0,4}") {
        if let Some(normal) = normal_url(&url) {
            prop_assert_eq!(normal_url(&normal), Some(normal.clone()));
        }
    }

    #[test]
    fn no_bytes_make_a_proof_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        fuzz_proof(&bytes);
    }

    #[test]
    fn no_json_in_a_proof_makes_it_panic(
        header in "\\{(\"(alg|typ|jwk|crit)\":(\"ES256\"|\"dpop\\+jwt\"|\\{\"kty\":\"EC\"\\}|1|null),?){0,4}\\}",
        claims in "[\\PC]{0,200}",
    ) {
        fuzz_proof(format!("{}.{}.AAAA", encode(header.as_bytes()), encode(claims.as_bytes())).as_bytes());
    }

    /// Any one byte of a good proof that is changed refuses it, or changes nothing that is read.
    #[test]
    fn a_bent_proof_is_refused(place in 0_usize..600, bit in 0_u32..7) {
        let row = ProofRow::default();
        let token = row.token();
        let mut bytes = row.proof(&token, &Nonces::new(&[7; 32])).into_bytes();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        let request = Proven { method: "GET", url: URL, token: &token };
        prop_assert!(Proof::verify([bytes.as_slice()], request, None, at(NOW)).is_err());
    }
}
