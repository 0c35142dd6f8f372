//! Each issuer: discovery, keys, clock, what it says it can attest, and introspection.
//!
//! Owns: what is said of them. Must never: send anything but what a proxy sends too, with a made-up token.
//! Look next: `edge::keyring::examine`.

use super::list::Checklist;
use crate::app;
use crate::config::Settings;
use crate::domain::identity::{Issuer, KeyFate, KeySet, PublishedKey, Trusted};
use crate::edge::keyring::{Discovery, Examination, FetchError, IssuerSource, examine as look};

/// An issuer and its keys, for looking at tokens.
pub(super) struct Known {
    issuer: Issuer,
    keys: Option<KeySet>,
}

impl Known {
    pub(super) fn trusted(&self) -> Trusted<'_> {
        Trusted { issuer: &self.issuer, keys: self.keys.as_ref() }
    }
}

pub(super) async fn examine(list: &mut Checklist, settings: &Settings) -> Vec<Known> {
    let mut known = Vec::new();
    for issuer in &settings.issuers {
        // What keeps it from being read is `check`'s to say.
        if let Ok(source) = app::issuer_source(settings, issuer) {
            known.push(one(list, source).await);
        }
    }
    introspection(list, settings).await;
    known
}

async fn one(list: &mut Checklist, source: IssuerSource) -> Known {
    let group = format!("issuer {}", source.issuer.url());
    let found = match look(&source).await {
        Ok(found) => found,
        Err(problem) => {
            list.fail(&group, "issuer-settings", problem, "mend `url`, `jwks_uri` or `ca` of this issuer");
            return Known { issuer: source.issuer, keys: None };
        }
    };
    let Examination { discovery, keys, ahead_seconds } = found;
    match discovery {
        None => list.pass(&group, "discovery", "`jwks_uri` is configured; discovery is not used"),
        Some(Ok(document)) => said(list, &group, &source.issuer, &document),
        Some(Err(error)) => {
            let hint = "is `url` right, to the letter, and the way to it open? its CA belongs into `ca`";
            list.fail(&group, "discovery", format!("discovery: {error}"), hint);
        }
    }
    super::clock(list, &group, ahead_seconds);
    let keys = match keys {
        Ok((keys, published)) => {
            published.iter().for_each(|key| describe(list, &group, key));
            if keys.is_empty() {
                let hint = "compare `algorithms` with what the issuer signs with";
                list.fail(&group, "keys", "no key can verify its tokens", hint);
            } else {
                list.pass(&group, "keys", format!("{} of {} keys verify", keys.len(), published.len()));
            }
            Some(keys)
        }
        // What discovery said stands above.
        Err(FetchError::IssuerMismatch) => None,
        Err(error) => {
            let hint = "without keys nobody with a token of this issuer gets in";
            list.fail(&group, "keys", format!("keys: {error}"), hint);
            None
        }
    };
    Known { issuer: source.issuer, keys }
}

/// What the discovery document says of the issuer and of what it can attest.
fn said(list: &mut Checklist, group: &str, issuer: &Issuer, document: &Discovery) {
    match &document.issuer {
        Some(named) if named == issuer.url() => {
            list.pass(group, "discovery", "the discovery document is this issuer's");
        }
        named => {
            let named = named.as_deref().unwrap_or("nothing");
            let what = format!("the discovery document's `issuer` is `{named}`, not `{}`", issuer.url());
            let hint = "write `url` exactly as the document has it: tokens will say the same";
            list.fail(group, "discovery-issuer", what, hint);
        }
    }
    let (methods, classes) = (issuer.amr_values().next(), issuer.acr_values().next());
    if let Some(offered) = document.acr_values.as_ref().filter(|_| classes.is_some())
        && !issuer.acr_values().any(|class| offered.iter().any(|one| one == class))
    {
        let hint =
            "a token cannot show these classes: compare `[issuer.mfa]` `acr` with the issuer's own names";
        list.warn(group, "acr-values", "`acr_values_supported` has none of the `acr` demanded here", hint);
    }
    let Some(claims) = &document.claims else { return };
    let has = |claim: &str| claims.iter().any(|one| one == claim);
    let shows = (methods.is_some() && has("amr")) || (classes.is_some() && has("acr"));
    let missing =
        [(!shows, "the second factor (`amr` or `acr`)"), (!has("auth_time"), "the login (`auth_time`)")];
    for (_, what) in missing.into_iter().filter(|(missing, _)| *missing) {
        let hint = "access tokens may have it all the same: look at one with `--token-file`";
        list.warn(group, "claims", format!("`claims_supported` does not mention {what}"), hint);
    }
}

fn describe(list: &mut Checklist, group: &str, key: &PublishedKey) {
    let name = key.key_id.as_deref().unwrap_or("without `kid`");
    let what = format!("key {name}: {} {}", key.kind, key.fate);
    match key.fate {
        KeyFate::Usable(_) | KeyFate::OtherPurpose => list.pass(group, "key", what),
        KeyFate::TooShort => {
            let hint = "have the issuer make an RSA key of at least 2048 bits; tokens signed with this one are refused";
            list.fail(group, "key-short", what, hint);
        }
        KeyFate::Nameless | KeyFate::Symmetric | KeyFate::NotAllowed | KeyFate::Unknown => {
            list.warn(group, "key-unusable", what, "tokens signed with it are refused; compare `algorithms`");
        }
    }
}

/// Asks about a token that nobody was given.
async fn introspection(list: &mut Checklist, settings: &Settings) {
    let Ok(Some(introspector)) = app::make_introspector(settings) else { return };
    let group = format!("issuer {}", introspector.issuer().url());
    match introspector.ask("chartgate-doctor-asks-about-nothing").await {
        Ok(_) => list.pass(&group, "introspection", "it answers about opaque tokens"),
        Err(error) => {
            let hint = "look at `endpoint`, `client_id` and the secret or key in `[issuer.introspection]`";
            list.fail(&group, "introspection", error.to_string(), hint);
        }
    }
}
