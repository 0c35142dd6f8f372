//! A login as a browser and an application do it: authorization code with PKCE, cookies, forms, redirects.
//!
//! Owns: the cookie jar, the one-time code, the exchange of the code for a token.
//! Must never: know anything of the identity provider but what discovery, RFC 6749, 7636 and 9207 say, and its form.
//! Look next: `idp.mjs`, the other side.

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use chartgate_sandbox::web;
use http::{Response, header};
use serde_json::Value;

const CLIENT: &str = "chart-app";
const CLIENT_SECRET: &str = "chart-app-secret";
/// Nothing listens there: the code is read from the redirect.
const REDIRECT_URI: &str = "http://127.0.0.1:9/callback";
const REDIRECTS_MAX: usize = 12;

/// Logs `user` in at `issuer`, with a second factor or without, asking for `acr` if given; gives the access token.
pub(crate) async fn sign_in(issuer: &str, user: &str, second_factor: bool, acr: Option<&str>) -> String {
    let discovery =
        web::exchange("GET", &format!("{issuer}/.well-known/openid-configuration"), &[], "").await;
    let discovery: Value = serde_json::from_slice(discovery.unwrap().body()).unwrap();
    assert_eq!(discovery["issuer"], issuer);
    let endpoint = |name: &str| discovery[name].as_str().unwrap().to_owned();
    let (verifier, state) = (random(), random());
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let nonce = random();
    let mut asked = vec![
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid"),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    asked.extend(acr.map(|acr| ("acr_values", acr)));
    let start = format!("{}?{}", endpoint("authorization_endpoint"), web::query(&asked));
    let answer = Browser::default().walk(issuer, &start, user, second_factor).await;
    let value = |name: &str| answer.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!((value("state"), value("iss")), (Some(state.clone()), Some(issuer.to_owned())), "{answer:?}");
    let code = value("code").unwrap_or_else(|| panic!("no code: {answer:?}"));
    redeem(&endpoint("token_endpoint"), &code, &verifier).await
}

async fn redeem(endpoint: &str, code: &str, verifier: &str) -> String {
    let form = web::query(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", verifier),
    ]);
    let basic = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{CLIENT_SECRET}")));
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", &basic)];
    let answer = web::exchange("POST", endpoint, &headers, form).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(answer.body()));
    let tokens: Value = serde_json::from_slice(answer.body()).unwrap();
    tokens["access_token"].as_str().unwrap().to_owned()
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn random() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 6238 with SHA-1, six digits, thirty seconds.
fn one_time_code(user: &str) -> String {
    let mut secret = format!("totp-secret-of-{user}");
    while secret.len() < 20 {
        secret.push('.');
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let counter = chartgate::clock::now().as_second() / 30;
    let digest = hmac::sign(&key, &counter.to_be_bytes());
    let digest = digest.as_ref();
    let offset = usize::from(digest[digest.len() - 1] & 0x0f);
    let word = u32::from_be_bytes(digest[offset..offset + 4].try_into().unwrap());
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

/// Name, value and path of each cookie.
#[derive(Default)]
struct Browser(Vec<(String, String, String)>);

impl Browser {
    /// Follows redirects and fills in forms until the application is reached; gives what it is told.
    async fn walk(
        mut self,
        issuer: &str,
        start: &str,
        user: &str,
        second_factor: bool,
    ) -> Vec<(String, String)> {
        let mut url = start.to_owned();
        for _ in 0..REDIRECTS_MAX {
            if let Some(query) = url.strip_prefix(REDIRECT_URI) {
                return web::pairs(query.trim_start_matches('?'));
            }
            let path = url.strip_prefix(issuer).unwrap_or_else(|| panic!("{url} is somewhere else"));
            let answer = if path.starts_with("/interaction/") {
                let code = if second_factor { one_time_code(user) } else { String::new() };
                let password = format!("password-of-{user}");
                self.send("POST", &url, &[("user", user), ("password", &password), ("code", &code)]).await
            } else {
                self.send("GET", &url, &[]).await
            };
            let location = answer.headers().get(header::LOCATION);
            let location =
                location.unwrap_or_else(|| panic!("{} at {url}", answer.status())).to_str().unwrap();
            url = if location.starts_with('/') { format!("{issuer}{location}") } else { location.to_owned() };
        }
        panic!("redirected for ever");
    }

    async fn send(&mut self, method: &str, url: &str, form: &[(&str, &str)]) -> Response<Bytes> {
        let path = url.splitn(4, '/').nth(3).map_or("/".to_owned(), |rest| format!("/{rest}"));
        let path = path.split('?').next().unwrap_or_default();
        let fits = |scope: &str| scope == "/" || path == scope || path.starts_with(&format!("{scope}/"));
        let cookies = self.0.iter().filter(|(_, _, scope)| fits(scope));
        let cookies: Vec<String> = cookies.map(|(name, value, _)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("cookie", &cookies)];
        let answer = web::exchange(method, url, &headers, web::query(form)).await.unwrap();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            self.keep(cookie.to_str().unwrap());
        }
        answer
    }

    /// An empty value takes the cookie away (the provider sends it with a date in the past).
    fn keep(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).unwrap();
        let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or("/");
        self.0.retain(|(known, _, scope)| !(known == name && scope == path));
        if !value.is_empty() {
            self.0.push((name.to_owned(), value.to_owned(), path.to_owned()));
        }
    }
}
