//! The issuer's HTTP face: discovery, keys, the login page, the code exchange.
//!
//! Owns: routes, authorization codes, PKCE, the check of both factors.
//! Must never: redirect anywhere but to http on loopback; accept a code twice.
//! Look next: `login`, which is the client of all this.

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    ACR_TWO_FACTORS, Issuer, IssuerError, Outage, Persona, Session, TOKEN_LIFETIME_S, now, random_id,
};
use crate::listen::{Answer, bare, collect, whole};
use crate::web::{self, base64url, escape_html, field};

const FORM_BYTES_MAX: usize = 64 << 10;
const CODE_LIFETIME_S: i64 = 60;
const CODES_MAX: usize = 10_000;
/// What the login form carries from the authorization request.
const CARRIED: &[&str] = &[
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "acr_values",
];

/// What a code stands for until it is exchanged.
#[derive(Debug)]
pub(super) struct Grant {
    persona: &'static str,
    session: Session,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
    expires_at: i64,
}

pub(super) async fn answer(issuer: Issuer, request: Request<Incoming>) -> Option<Answer> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    count(&issuer, &path);
    let outage = *issuer.0.outage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match outage {
        None => {}
        Some(Outage::Unavailable) => return Some(bare(StatusCode::SERVICE_UNAVAILABLE)),
        Some(Outage::Disconnect) => return None,
        Some(Outage::Hang) => std::future::pending().await,
    }
    if let Some(canned) = issuer.0.shelf.take(&path) {
        return Some(canned);
    }
    let Some(body) = collect(body, FORM_BYTES_MAX).await else {
        return Some(bare(StatusCode::PAYLOAD_TOO_LARGE));
    };
    if (parts.method.as_str(), path.as_str()) == ("POST", "/introspect") {
        return Some(introspect(&issuer, parts.headers.get(header::AUTHORIZATION), &body));
    }
    Some(route(&issuer, &parts.method, &parts.uri, &body))
}

fn count(issuer: &Issuer, path: &str) {
    let mut hits = issuer.0.hits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *hits.entry(path.to_owned()).or_default() += 1;
}

fn route(issuer: &Issuer, method: &Method, uri: &Uri, body: &Bytes) -> Answer {
    let form = || web::pairs(&String::from_utf8_lossy(body));
    match (method.as_str(), uri.path()) {
        ("GET", "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server") => {
            reply(StatusCode::OK, &discovery(issuer))
        }
        ("GET", "/jwks") => reply(StatusCode::OK, &issuer.jwks()),
        ("GET", "/authorize") => authorize(&web::pairs(uri.query().unwrap_or_default())),
        ("POST", "/authorize") => match log_in(issuer, &form()) {
            Ok(answer) => answer,
            Err(_) => bare(StatusCode::INTERNAL_SERVER_ERROR),
        },
        ("POST", "/token") => match exchange(issuer, &form()) {
            Ok(answer) => answer,
            Err(_) => bare(StatusCode::INTERNAL_SERVER_ERROR),
        },
        _ => bare(StatusCode::NOT_FOUND),
    }
}

/// RFC 7662: only for the one client that may ask, and without a word about tokens that are not active.
fn introspect(issuer: &Issuer, credentials: Option<&HeaderValue>, body: &Bytes) -> Answer {
    let form = web::pairs(&String::from_utf8_lossy(body));
    if !is_introspector(issuer, credentials, &form) {
        return bare(StatusCode::UNAUTHORIZED);
    }
    let opaque = issuer.0.opaque.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut answer = json!({"active": false});
    if let Some(claims) = field(&form, "token").and_then(|token| opaque.get(token)) {
        answer = claims.clone();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("active".to_owned(), Value::Bool(true));
        }
    }
    reply(StatusCode::OK, &answer)
}

/// By its secret, or by an assertion and nothing beside it (RFC 7521 section 4.2).
fn is_introspector(issuer: &Issuer, credentials: Option<&HeaderValue>, form: &[(String, String)]) -> bool {
    let check = issuer.0.assertions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    match check {
        Some(check) => {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            credentials.is_none()
                && field(form, "client_assertion_type") == Some(kind)
                && field(form, "client_assertion").is_some_and(|assertion| check(assertion))
        }
        None => {
            let (id, secret) = super::INTROSPECTOR;
            let pair = format!("{}:{}", web::encode(id), web::encode(secret));
            let known = format!("Basic {}", STANDARD.encode(pair));
            credentials.is_some_and(|given| given.as_bytes() == known.as_bytes())
        }
    }
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut answer = whole(status, "application/json", body.to_string());
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn discovery(issuer: &Issuer) -> Value {
    let url = issuer.url();
    json!({
        "issuer": url, "jwks_uri": format!("{url}/jwks"),
        "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "introspection_endpoint": format!("{url}/introspect"),
        "response_types_supported": ["code"], "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code"], "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        "acr_values_supported": [ACR_TWO_FACTORS, super::ACR_PASSWORD],
        "scopes_supported": ["openid", "fhirUser", "launch/patient", "patient/*.rs", "user/*.rs"],
        "authorization_response_iss_parameter_supported": true
    })
}

/// The authorization request's faults. They are shown, never sent to the redirect address.
fn fault(asked: &[(String, String)]) -> Option<&'static str> {
    if field(asked, "response_type") != Some("code") {
        return Some("response_type must be code");
    }
    if field(asked, "client_id").is_none_or(str::is_empty) {
        return Some("client_id is missing");
    }
    let challenge = field(asked, "code_challenge").unwrap_or_default();
    if field(asked, "code_challenge_method") != Some("S256") || challenge.len() != 43 {
        return Some("PKCE with S256 is required");
    }
    let redirect: Option<Uri> = field(asked, "redirect_uri").and_then(|uri| uri.parse().ok());
    let loopback = |uri: &Uri| matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let fits = redirect.is_some_and(|uri| uri.scheme_str() == Some("http") && loopback(&uri));
    (!fits).then_some("redirect_uri must be http on loopback")
}

fn authorize(asked: &[(String, String)]) -> Answer {
    match fault(asked) {
        Some(fault) => page(StatusCode::BAD_REQUEST, &format!("<p>{fault}</p>")),
        None => page(StatusCode::OK, &form(asked, "")),
    }
}

fn page(status: StatusCode, body: &str) -> Answer {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sandbox login</title><h1>Sandbox login</h1>{body}</html>"
    );
    let mut answer = whole(status, "text/html;charset=utf-8", html);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn form(asked: &[(String, String)], note: &str) -> String {
    let hidden: String = CARRIED
        .iter()
        .filter_map(|name| field(asked, name).map(|value| (name, escape_html(value))))
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"))
        .collect();
    format!(
        "<p>{note}</p><form method=\"post\" action=\"/authorize\">{hidden}\
         <p><label>User <input name=\"user\" autocomplete=\"username\"></label>\
         <p><label>Password <input type=\"password\" name=\"password\" autocomplete=\"current-password\"></label>\
         <p><label>One-time code <input name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\"></label>\
         <p><button>Log in</button></form>"
    )
}

fn log_in(issuer: &Issuer, asked: &[(String, String)]) -> Result<Answer, IssuerError> {
    if let Some(fault) = fault(asked) {
        return Ok(page(StatusCode::BAD_REQUEST, &format!("<p>{fault}</p>")));
    }
    let Some((persona, two_factors)) = check_factors(issuer, asked) else {
        // One text for every reason, so that the page does not tell which factor was wrong.
        return Ok(page(StatusCode::UNAUTHORIZED, &form(asked, "User, password or code is wrong.")));
    };
    let code = random_id()?;
    let redirect_uri = field(asked, "redirect_uri").unwrap_or_default().to_owned();
    let mut back = vec![("code", code.as_str()), ("iss", issuer.url())];
    back.extend(field(asked, "state").map(|state| ("state", state)));
    let glue = if redirect_uri.contains('?') { '&' } else { '?' };
    let location = format!("{redirect_uri}{glue}{}", web::query(&back));
    let grant = Grant {
        persona: persona.name,
        session: Session {
            sid: random_id()?,
            authenticated_at: now(),
            two_factors,
            client: field(asked, "client_id").unwrap_or_default().to_owned(),
            scope: field(asked, "scope").unwrap_or(persona.scope).to_owned(),
        },
        redirect_uri,
        challenge: field(asked, "code_challenge").unwrap_or_default().to_owned(),
        nonce: field(asked, "nonce").map(str::to_owned),
        expires_at: now() + CODE_LIFETIME_S,
    };
    keep(issuer, code, grant);
    let mut answer = bare(StatusCode::SEE_OTHER);
    let location = HeaderValue::from_str(&location).map_err(|_| IssuerError::Keys)?;
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

/// The persona and whether both factors were given. An empty code is a login with the password only, unless two
/// factors were asked for by `acr_values`.
fn check_factors<'i>(issuer: &'i Issuer, asked: &[(String, String)]) -> Option<(&'i Persona, bool)> {
    let user = field(asked, "user")?;
    let persona = issuer.personas().iter().find(|persona| persona.user == user)?;
    let password = field(asked, "password")?;
    constant_time::verify_slices_are_equal(password.as_bytes(), persona.password.as_bytes()).ok()?;
    let code = field(asked, "code").unwrap_or_default();
    let two_wanted = field(asked, "acr_values").is_some_and(|acr| acr.contains(ACR_TWO_FACTORS));
    match code {
        "" if two_wanted => None,
        "" => Some((persona, false)),
        code => persona.accepts(code).then_some((persona, true)),
    }
}

fn keep(issuer: &Issuer, code: String, grant: Grant) {
    let mut codes = issuer.0.codes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let at = now();
    codes.retain(|_, grant| grant.expires_at > at);
    if codes.len() < CODES_MAX {
        codes.insert(code, grant);
    }
}

fn exchange(issuer: &Issuer, asked: &[(String, String)]) -> Result<Answer, IssuerError> {
    let refuse = |error: &str| reply(StatusCode::BAD_REQUEST, &json!({"error": error}));
    if field(asked, "grant_type") != Some("authorization_code") {
        return Ok(refuse("unsupported_grant_type"));
    }
    let code = field(asked, "code").unwrap_or_default();
    // Taken out whatever follows: a code is good for one attempt.
    let grant = issuer.0.codes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(code);
    let Some(grant) = grant.filter(|grant| fits(grant, asked)) else { return Ok(refuse("invalid_grant")) };
    let Some(persona) = issuer.persona(grant.persona) else { return Ok(refuse("invalid_grant")) };
    let access = issuer.signed("at+jwt", issuer.claims(persona, &grant.session)?, |_| {})?;
    let mut body = json!({
        "access_token": access, "token_type": "Bearer", "expires_in": TOKEN_LIFETIME_S,
        "scope": grant.session.scope
    });
    let openid = grant.session.scope.split(' ').any(|scope| scope == "openid");
    let id_token = openid.then(|| id_token(issuer, persona, &grant)).transpose()?;
    for (name, value) in [("id_token", id_token), ("patient", persona.patient.map(str::to_owned))] {
        if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
            body.insert(name.to_owned(), value.into());
        }
    }
    Ok(reply(StatusCode::OK, &body))
}

/// RFC 6749 4.1.3 and RFC 7636 4.6.
fn fits(grant: &Grant, asked: &[(String, String)]) -> bool {
    let verifier = field(asked, "code_verifier").unwrap_or_default();
    let challenge = base64url(digest::digest(&digest::SHA256, verifier.as_bytes()));
    grant.expires_at > now()
        && challenge == grant.challenge
        && field(asked, "redirect_uri") == Some(&grant.redirect_uri)
        && field(asked, "client_id") == Some(&grant.session.client)
}

fn id_token(issuer: &Issuer, persona: &Persona, grant: &Grant) -> Result<String, IssuerError> {
    let issued = now();
    let mut claims = json!({
        "iss": issuer.url(), "sub": persona.subject, "aud": grant.session.client, "iat": issued,
        "exp": issued + 300, "auth_time": grant.session.authenticated_at, "name": persona.display,
        "sid": grant.session.sid
    });
    super::add_factors(&mut claims, &grant.session);
    for (name, value) in [("nonce", grant.nonce.as_deref()), ("fhirUser", persona.fhir_user)] {
        if let (Some(value), Some(claims)) = (value, claims.as_object_mut()) {
            claims.insert(name.to_owned(), value.into());
        }
    }
    issuer.signed("JWT", claims, |_| {})
}
