//! An OIDC issuer in memory, on loopback: keys, personas, login with two factors, tokens good and forged.
//!
//! Owns: `Issuer`, what a token says, the outage switch.
//! Must never: leave loopback; be trusted by anything but a demo or a test.
//! Look next: `flow` (HTTP), `login` (the client's side), `keys`, `personas`.

mod flow;
mod keys;
mod login;
mod personas;
mod proof;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::{Map, Value, json};

use crate::listen::{self, Canned, ServeError, Server, Shelf};
use crate::web::base64url;
use keys::Keys;
pub use keys::Signing;
pub use login::{LoginError, Tokens, login};
pub use personas::{Persona, ROLE_NAMES};
pub use proof::ProofKey;

/// Access tokens are valid this long unless a test says otherwise.
pub const TOKEN_LIFETIME_S: i64 = 3600;
/// Who may introspect: name and secret, for HTTP Basic.
pub const INTROSPECTOR: (&str, &str) = ("chartgate", "introspection demo");
/// The `acr` of a login with two factors.
pub const ACR_TWO_FACTORS: &str = "urn:example:aal2";
/// The `acr` of a login with the password only.
pub const ACR_PASSWORD: &str = "urn:example:aal1";

/// Why the issuer cannot start or sign.
#[derive(Debug)]
#[non_exhaustive]
pub enum IssuerError {
    /// Keys could not be made or used.
    Keys,
    /// No persona has this name.
    NoSuchPersona,
    /// The address cannot be served.
    Serve(ServeError),
}

impl fmt::Display for IssuerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys => f.write_str("keys cannot be made or used"),
            Self::NoSuchPersona => f.write_str("no persona has this name"),
            Self::Serve(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IssuerError {}

impl From<ServeError> for IssuerError {
    fn from(error: ServeError) -> Self {
        Self::Serve(error)
    }
}

/// How the issuer fails while it is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Every request is answered with 503.
    Unavailable,
    /// Requests are taken and never answered.
    Hang,
    /// The connection is closed without an answer.
    Disconnect,
}

/// The issuer. Clones share keys and codes.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    url: String,
    audience: String,
    keys: RwLock<Keys>,
    personas: Vec<Persona>,
    codes: Mutex<HashMap<String, flow::Grant>>,
    /// What opaque tokens stand for while they are active.
    opaque: Mutex<HashMap<String, Value>>,
    /// How assertions of the client that introspects are checked; by its secret when absent.
    assertions: Mutex<Option<AssertionCheck>>,
    outage: Mutex<Option<Outage>>,
    hits: Mutex<HashMap<String, u64>>,
    shelf: Shelf,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.url)
    }
}

/// Whether a client assertion (RFC 7523) is good; the test verifies it with what it takes for that.
pub type AssertionCheck = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How somebody logged in.
#[derive(Clone, Debug)]
struct Session {
    sid: String,
    authenticated_at: i64,
    two_factors: bool,
    client: String,
    scope: String,
}

impl Session {
    /// A persona who has just signed in with both factors, in a session of their own.
    fn fresh(persona: &Persona) -> Result<Self, IssuerError> {
        Ok(Self {
            sid: random_id()?,
            authenticated_at: now(),
            two_factors: true,
            client: persona.client.to_owned(),
            scope: persona.scope.to_owned(),
        })
    }
}

/// A token about to be signed; change what should be wrong with it.
#[derive(Debug)]
pub struct Draft<'k> {
    /// The JOSE header: `alg`, `typ` `at+jwt`, `kid`.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Value,
    signing: Signing,
    keys: &'k Keys,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Draft<'_> {
    /// Chooses the signature and sets `alg` and `kid` to match; change them afterwards if they should not.
    pub fn sign_with(&mut self, signing: Signing) {
        let (alg, kid) = self.keys.labels(signing);
        self.header.insert("alg".to_owned(), alg.into());
        self.header.insert("kid".to_owned(), kid.into());
        self.signing = signing;
    }
}

impl Issuer {
    /// An issuer without a server, for tokens only. `url` becomes `iss`, `audience` becomes `aud`. Makes fresh keys.
    ///
    /// # Errors
    /// `Keys`.
    pub fn offline(url: &str, audience: &str) -> Result<Self, IssuerError> {
        Ok(Self(Arc::new(Inner {
            url: url.to_owned(),
            audience: audience.to_owned(),
            keys: RwLock::new(Keys::new()?),
            personas: personas::all()?,
            codes: Mutex::default(),
            opaque: Mutex::default(),
            outage: Mutex::default(),
            hits: Mutex::default(),
            shelf: Shelf::default(),
            assertions: Mutex::default(),
        })))
    }

    /// Starts an issuer at `http://{address}` (loopback; port 0 for any free one) for tokens with this audience.
    ///
    /// # Errors
    /// `Keys`, `Serve`.
    pub async fn start(address: SocketAddr, audience: &str) -> Result<(Self, Server), IssuerError> {
        let (listener, address) = listen::bind(address).await?;
        let issuer = Self::offline(&format!("http://{address}"), audience)?;
        let serving = issuer.clone();
        let server = listen::serve(listener, address, move |request| flow::answer(serving.clone(), request));
        Ok((issuer, server))
    }

    /// The `iss` of its tokens: `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The `aud` of its tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.0.audience
    }

    /// The six personas.
    #[must_use]
    pub fn personas(&self) -> &[Persona] {
        &self.0.personas
    }

    /// The persona of this short name.
    #[must_use]
    pub fn persona(&self, name: &str) -> Option<&Persona> {
        self.0.personas.iter().find(|persona| persona.name == name)
    }

    /// The published keys, as the `/jwks` document.
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.keys().jwks()
    }

    /// The current RSA public key as PEM.
    ///
    /// # Errors
    /// `Keys`.
    pub fn public_pem(&self) -> Result<String, IssuerError> {
        self.keys().public_pem()
    }

    /// New keys sign from now on. The keys before stay published until `retire`.
    ///
    /// # Errors
    /// `Keys`; the keys stay as they were.
    pub fn rotate(&self) -> Result<(), IssuerError> {
        self.0.keys.write().unwrap_or_else(PoisonError::into_inner).rotate()
    }

    /// Stops publishing the keys from before the last rotation.
    pub fn retire(&self) {
        self.0.keys.write().unwrap_or_else(PoisonError::into_inner).retire();
    }

    /// Fails every HTTP request this way until set to `None`. Tokens made in the library still come.
    pub fn set_outage(&self, outage: Option<Outage>) {
        *self.0.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }

    /// Answers the next request to `path` (`/jwks`, `/.well-known/openid-configuration`, …; `*` for any) with `canned`.
    pub fn next_answer(&self, path: &str, canned: Canned) {
        self.0.shelf.put(path, canned);
    }

    /// From now on the client that introspects is known by its assertions, and by nothing else.
    pub fn check_assertions(&self, check: AssertionCheck) {
        *self.0.assertions.lock().unwrap_or_else(PoisonError::into_inner) = Some(check);
    }

    /// How many requests came for `path`, those during an outage included.
    #[must_use]
    pub fn hits(&self, path: &str) -> u64 {
        self.0.hits.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }

    /// A good access token of a persona who has just logged in with password and one-time code.
    ///
    /// # Errors
    /// `NoSuchPersona`, `Keys`.
    pub fn token(&self, name: &str) -> Result<String, IssuerError> {
        self.forge(name, |_| {})
    }

    /// `token` with changed claims.
    ///
    /// # Errors
    /// `NoSuchPersona`, `Keys`.
    pub fn token_with(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<String, IssuerError> {
        self.forge(name, |draft| change(&mut draft.claims))
    }

    /// `token` with anything changed: header, claims, signature.
    ///
    /// # Errors
    /// `NoSuchPersona`, `Keys`.
    pub fn forge(&self, name: &str, change: impl FnOnce(&mut Draft<'_>)) -> Result<String, IssuerError> {
        let persona = self.persona(name).ok_or(IssuerError::NoSuchPersona)?;
        let session = Session::fresh(persona)?;
        let claims = self.claims(persona, &session)?;
        self.signed("at+jwt", claims, change)
    }

    /// An opaque token of a persona, with changed claims; `/introspect` tells what it stands for.
    ///
    /// # Errors
    /// `NoSuchPersona`, `Keys`.
    pub fn opaque(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<String, IssuerError> {
        let persona = self.persona(name).ok_or(IssuerError::NoSuchPersona)?;
        let session = Session::fresh(persona)?;
        let mut claims = self.claims(persona, &session)?;
        change(&mut claims);
        let token = random_id()?;
        self.0.opaque.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), claims);
        Ok(token)
    }

    /// Ends an opaque token.
    pub fn end(&self, token: &str) {
        self.0.opaque.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    fn keys(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed(
        &self,
        kind: &str,
        claims: Value,
        change: impl FnOnce(&mut Draft<'_>),
    ) -> Result<String, IssuerError> {
        let keys = self.keys();
        let mut draft = Draft { header: Map::new(), claims, signing: Signing::Rs256, keys: &keys };
        draft.header.insert("typ".to_owned(), kind.into());
        draft.sign_with(Signing::Rs256);
        change(&mut draft);
        let header = base64url(Value::Object(draft.header).to_string());
        let input = format!("{header}.{}", base64url(draft.claims.to_string()));
        let signature = keys.sign(draft.signing, input.as_bytes())?;
        Ok(format!("{input}.{}", base64url(signature)))
    }

    fn claims(&self, persona: &Persona, session: &Session) -> Result<Value, IssuerError> {
        let issued = now();
        let mut claims = json!({
            "iss": self.0.url, "sub": persona.subject, "aud": self.0.audience,
            "iat": issued, "exp": issued + TOKEN_LIFETIME_S, "jti": random_id()?, "sid": session.sid,
            "client_id": session.client, "azp": session.client, "scope": session.scope,
            "roles": persona.roles, "purpose_of_use": persona.purpose, "name": persona.display,
            "auth_time": session.authenticated_at
        });
        add_factors(&mut claims, session);
        for (name, value) in [("fhirUser", persona.fhir_user), ("patient", persona.patient)] {
            if let (Some(value), Some(claims)) = (value, claims.as_object_mut()) {
                claims.insert(name.to_owned(), value.into());
            }
        }
        Ok(claims)
    }
}

fn add_factors(claims: &mut Value, session: &Session) {
    let (amr, acr) = if session.two_factors {
        (json!(["pwd", "otp", "mfa"]), ACR_TWO_FACTORS)
    } else {
        (json!(["pwd"]), ACR_PASSWORD)
    };
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("amr".to_owned(), amr);
        claims.insert("acr".to_owned(), acr.into());
    }
}

fn now() -> i64 {
    crate::now().as_second()
}

fn now_seconds() -> u64 {
    u64::try_from(now()).unwrap_or(0)
}

/// 128 random bits, base64url.
fn random_id() -> Result<String, IssuerError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssuerError::Keys)?;
    Ok(base64url(bytes))
}
