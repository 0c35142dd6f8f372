//! A login as a real client does it: discovery, authorization code with PKCE, form, code exchange.
//!
//! Owns: `login`, `Tokens`.
//! Must never: take a short cut past HTTP; print or show a token.
//! Look next: `flow`, the other side.

use std::fmt;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::{Persona, random_id};
use crate::web::{self, ExchangeError, base64url, exchange, field};

/// Nothing listens here: the code is read from the redirect itself.
const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// What a login gives.
#[derive(Clone)]
pub struct Tokens {
    /// The access token, a JWT.
    pub access: String,
    /// The id token.
    pub id: Option<String>,
    /// Seconds until the access token expires.
    pub expires_in: i64,
    /// What was granted.
    pub scope: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens(expires in {} s)", self.expires_in)
    }
}

/// Why a login gave no token.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoginError {
    /// The exchange with the issuer broke.
    Exchange(ExchangeError),
    /// User, password or one-time code was refused.
    Refused,
    /// The issuer answered something a client cannot use.
    Protocol,
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::Refused => f.write_str("login refused"),
            Self::Protocol => f.write_str("the issuer's answer cannot be used"),
        }
    }
}

impl std::error::Error for LoginError {}

impl From<ExchangeError> for LoginError {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

/// Logs a persona in at the issuer `base` with this password and one-time code (`None`: password only) and gives the
/// tokens. Asks for the persona's own client and scope.
///
/// # Errors
/// `Refused` for a wrong factor; `Exchange`, `Protocol` when the issuer does not play its part.
pub async fn login(
    base: &str,
    persona: &Persona,
    password: &str,
    code: Option<&str>,
) -> Result<Tokens, LoginError> {
    let discovery =
        document(&exchange("GET", &format!("{base}/.well-known/openid-configuration"), &[], "").await?)?;
    if text(&discovery, "issuer")? != base {
        return Err(LoginError::Protocol);
    }
    let verifier = format!("{}{}", secret()?, secret()?);
    let challenge = base64url(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let (state, nonce) = (secret()?, secret()?);
    let asked = [
        ("response_type", "code"),
        ("client_id", persona.client),
        ("redirect_uri", REDIRECT_URI),
        ("scope", persona.scope),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let address = text(&discovery, "authorization_endpoint")?;
    let page = exchange("GET", &format!("{address}?{}", web::query(&asked)), &[], "").await?;
    let answer = submit(base, &page, persona, password, code).await?;
    let granted = granted_code(&answer, base, &state)?;
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", &granted),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", persona.client),
        ("code_verifier", &verifier),
    ];
    let address = text(&discovery, "token_endpoint")?;
    tokens(&document(&exchange("POST", address, &[FORM], web::query(&redeem)).await?)?)
}

fn secret() -> Result<String, LoginError> {
    random_id().map_err(|_| LoginError::Protocol)
}

fn document(answer: &Response<Bytes>) -> Result<Value, LoginError> {
    if answer.status() != StatusCode::OK {
        return Err(LoginError::Protocol);
    }
    serde_json::from_slice(answer.body()).map_err(|_| LoginError::Protocol)
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, LoginError> {
    value.get(name).and_then(Value::as_str).ok_or(LoginError::Protocol)
}

/// Fills in the login form as a browser does: hidden fields go back as they came.
async fn submit(
    base: &str,
    page: &Response<Bytes>,
    persona: &Persona,
    password: &str,
    code: Option<&str>,
) -> Result<Response<Bytes>, LoginError> {
    let html = String::from_utf8_lossy(page.body()).into_owned();
    let action = attribute(&html, "action=\"").ok_or(LoginError::Protocol)?;
    let mut fields: Vec<(String, String)> = html
        .split("<input type=\"hidden\" ")
        .skip(1)
        .filter_map(|input| Some((attribute(input, "name=\"")?, attribute(input, "value=\"")?)))
        .collect();
    for (name, value) in [("user", persona.user), ("password", password), ("code", code.unwrap_or_default())]
    {
        fields.push((name.to_owned(), value.to_owned()));
    }
    Ok(exchange("POST", &format!("{base}{action}"), &[FORM], web::query(&fields)).await?)
}

fn attribute(html: &str, start: &str) -> Option<String> {
    let (_, rest) = html.split_once(start)?;
    rest.split_once('"').map(|(value, _)| web::unescape_html(value))
}

fn granted_code(answer: &Response<Bytes>, base: &str, state: &str) -> Result<String, LoginError> {
    if answer.status() == StatusCode::UNAUTHORIZED {
        return Err(LoginError::Refused);
    }
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let (_, query) = location.and_then(|text| text.split_once('?')).ok_or(LoginError::Protocol)?;
    let back = web::pairs(query);
    // RFC 9207: the answer must come from the issuer that was asked.
    if field(&back, "state") != Some(state) || field(&back, "iss") != Some(base) {
        return Err(LoginError::Protocol);
    }
    field(&back, "code").map(str::to_owned).ok_or(LoginError::Protocol)
}

fn tokens(body: &Value) -> Result<Tokens, LoginError> {
    Ok(Tokens {
        access: text(body, "access_token")?.to_owned(),
        id: body.get("id_token").and_then(Value::as_str).map(str::to_owned),
        expires_in: body.get("expires_in").and_then(Value::as_i64).unwrap_or(0),
        scope: text(body, "scope")?.to_owned(),
    })
}
