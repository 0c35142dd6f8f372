//! A sample token: everything that is wrong with it, and what the door says.
//!
//! Owns: reading the file, and the door's word at the end. Must never: print the token, its subject or a patient.
//! Look next: `domain::identity::diagnose`.

use super::issuers::Known;
use super::list::Checklist;
use crate::config::Settings;
use crate::domain::identity::{
    Caller, IdentityRefusal, Possession, Trusted, Unverified, Weight, authenticate, diagnose, is_opaque,
};
use crate::{app, clock, limits};
use jiff::Timestamp;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const GROUP: &str = "token";

pub(super) async fn examine(list: &mut Checklist, path: &Path, settings: &Settings, known: &[Known]) {
    let token = match read(path) {
        Ok(token) => token,
        Err(what) => {
            list.fail(GROUP, "token-file", what, "give a file that holds one access token and nothing else");
            return;
        }
    };
    let (token, now) = (token.trim(), clock::now());
    if is_opaque(token) && opaque(list, token, settings, now).await {
        return;
    }
    let trusted: Vec<Trusted<'_>> = known.iter().map(Known::trusted).collect();
    let findings = diagnose(token, &trusted, now);
    for finding in &findings {
        match finding.weight {
            Weight::Refused => list.fail(GROUP, finding.code, finding.explanation.clone(), &finding.hint),
            Weight::Note => list.warn(GROUP, finding.code, finding.explanation.clone(), &finding.hint),
        }
    }
    if findings.iter().all(|finding| finding.weight == Weight::Note) {
        let bound = findings.iter().any(|finding| finding.code.starts_with("token-bound"));
        word(list, door(token, &trusted, now), bound);
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unusable = |error: std::io::Error| format!("`{}` cannot be read: {}", path.display(), error.kind());
    let mut text = String::new();
    let most = limits::TOKEN_BYTES_MAX as u64 * 2;
    File::open(path).map_err(unusable)?.take(most).read_to_string(&mut text).map_err(unusable)?;
    if text.trim().is_empty() { Err(format!("`{}` is empty", path.display())) } else { Ok(text) }
}

/// What the door says, by the one way there is in.
fn door(token: &str, trusted: &[Trusted<'_>], now: Timestamp) -> Result<(), IdentityRefusal> {
    let unverified = Unverified::inspect(token)?;
    let known = trusted.iter().find(|known| known.issuer.url() == unverified.issuer());
    let known = known.ok_or(IdentityRefusal::IssuerUnknown)?;
    let keys = known.keys.ok_or(IdentityRefusal::KeysUnavailable)?;
    let caller = authenticate(&unverified, known.issuer, keys, &Possession::BARE, now)?;
    Caller::admitted(&caller, now)
}

fn word(list: &mut Checklist, said: Result<(), IdentityRefusal>, bound: bool) {
    match said {
        Ok(()) => list.pass(GROUP, "token", "the door would let it in now; policies decide what it may see"),
        Err(_) if bound => {
            list.pass(
                GROUP,
                "token",
                "nothing is wrong with it; it is bound, and must be shown with its proof",
            );
        }
        Err(refusal) => list.fail(GROUP, refusal.code(), refusal.to_string(), "the door refuses it"),
    }
}

/// Asks its issuer; false where no issuer can be asked.
async fn opaque(list: &mut Checklist, token: &str, settings: &Settings, now: Timestamp) -> bool {
    let Ok(Some(introspector)) = app::make_introspector(settings) else { return false };
    let said = match introspector.ask(token).await {
        Ok(answer) => answer.authenticate(introspector.issuer(), &Possession::BARE, now).map(|_| ()),
        Err(_) => Err(IdentityRefusal::IntrospectionUnavailable),
    };
    match said {
        Ok(()) => {
            list.pass(GROUP, "token", "the token is opaque; by its issuer's word the door would let it in")
        }
        Err(refusal) => {
            let hint =
                "the issuer's answer is judged like a JWT's claims; this is the first rule it does not meet";
            list.fail(GROUP, refusal.code(), format!("the token is opaque: {refusal}"), hint);
        }
    }
    true
}
