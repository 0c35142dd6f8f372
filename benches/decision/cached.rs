//! A cached decision: everything between a request's token and leave to ask for one record and to let it out, from warm
//! caches, with what was added beside policy switched on one by one.
//!
//! Owns: the comparison with and without sessions, revocations and scopes. Must never: leave the caches cold, or wait for
//! a store. Look next: `docs/performance.md`, its table.

use super::{Scene, text};
use chartgate::domain::access::Masks;
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::interaction::Interaction;
use chartgate::domain::filter;
use chartgate::domain::identity::{
    Caller, Possession, Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey,
    SessionLimits, Unverified, VerifiedTokens,
};
use chartgate::edge::listener::stop_signal;
use chartgate::edge::sessions::{
    self, ActivityRule, Begun, Document, SessionStore, Sessions, StoreError, StoreState,
};
use criterion::Criterion;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A store that is asked at the beginning and then no more: the decision is made in memory.
struct Shelf {
    revocations: Vec<Revocation>,
}

impl SessionStore for Shelf {
    fn state(&self) -> Result<StoreState, StoreError> {
        Ok(StoreState { floor: None, high_water: Timestamp::UNIX_EPOCH, sequence: 1 })
    }

    fn begin(&self, _: &SessionKey, session: &Session, _: &SessionLimits) -> Result<Begun, StoreError> {
        Ok(Begun { session: session.clone(), ended: Vec::new() })
    }

    fn find(&self, _: &SessionKey) -> Result<Option<Session>, StoreError> {
        Ok(None)
    }

    fn touch(&self, _: &[(SessionKey, Timestamp)], _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        Ok(Vec::new())
    }

    fn session_by_id(&self, _: &str) -> Result<Option<SessionKey>, StoreError> {
        Ok(None)
    }

    fn revoke(&self, _: &Revocation) -> Result<(), StoreError> {
        Ok(())
    }

    fn lift(&self, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        Ok(self.revocations.clone())
    }

    fn remember_once(&self, _: &str, _: &str, _: Timestamp) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn remembers(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn put(&self, _: &str, _: &Document) -> Result<(), StoreError> {
        Ok(())
    }

    fn documents(&self, _: &str, _: Timestamp) -> Result<Vec<Document>, StoreError> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn prune(&self, _: Timestamp, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Of tokens, sessions and people in turn, none of which is asked about.
fn revocations(count: usize, scene: &Scene) -> Vec<Revocation> {
    let issuer = || "https://idp.hospital.example".to_owned();
    let target = |number: usize| match number % 3 {
        0 => RevocationTarget::Token { issuer: Some(issuer()), token: format!("token-{number}") },
        1 => RevocationTarget::Session { issuer: issuer(), session: format!("session-{number}") },
        _ => RevocationTarget::User { issuer: issuer(), subject: format!("person-{number}") },
    };
    let one = |number: usize| Revocation {
        id: format!("{number:032x}"),
        target: target(number),
        reach: Reach::Until(scene.now),
        made_at: scene.now,
        origin: RevocationOrigin::Operations,
        reason: String::new(),
    };
    (0..count).map(one).collect()
}

/// What a decision passes.
struct Way<'s> {
    scene: &'s Scene,
    token: String,
    tokens: VerifiedTokens,
    masks: Masks,
    sessions: Option<Sessions>,
    headers: HeaderMap,
    asked: Interaction,
    facts: Facts,
}

impl<'s> Way<'s> {
    fn new(scene: &'s Scene, token: String, sessions: Option<Sessions>) -> Result<Self, String> {
        let document = filter::parse(&scene.patient, &super::BASES).map_err(text)?;
        let facts = document.facts_with_content(0).ok_or("no record")?;
        Ok(Self {
            scene,
            token,
            tokens: VerifiedTokens::new(),
            masks: Masks::new(),
            sessions,
            headers: HeaderMap::new(),
            asked: scene.classified("/fhir/Patient/c1")?,
            facts,
        })
    }

    /// Who, whether they may go on, whether this may be asked, and what of the record may leave.
    fn decide(&self) -> Result<usize, String> {
        let caller = self.caller()?;
        if let Some(sessions) = &self.sessions {
            let _standing = at_once(sessions.admit(&caller, &self.headers, self.scene.now))?
                .map_err(|refusal| format!("{refusal:?}"))?;
        }
        let permit = self.scene.admitted(&self.masks, &caller, &self.asked)?;
        let disclosure = permit.record(&self.facts, None).map_err(|denial| format!("{denial:?}"))?;
        Ok(disclosure.policies().len())
    }

    fn caller(&self) -> Result<Arc<Caller>, String> {
        let unverified = Unverified::inspect(&self.token).map_err(text)?;
        let (trusted, keys, now) = (&self.scene.trusted, &self.scene.keys, self.scene.now);
        self.tokens.authenticate(&unverified, trusted, keys, &Possession::BARE, now).map_err(text)
    }
}

/// A session that is known is let in without waiting.
fn at_once<F: Future>(future: F) -> Result<F::Output, String> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err("the session was not in memory".to_owned()),
    }
}

/// Sessions over a shelf, followed as in the program, so that the store counts as heard.
fn opened(scene: &Scene, revoked: usize, runtime: &tokio::runtime::Runtime) -> Result<Sessions, String> {
    let limits = SessionLimits {
        idle: SignedDuration::from_hours(1),
        absolute: SignedDuration::from_hours(12),
        concurrent: None,
    };
    let settings = sessions::Settings { limits, activity: ActivityRule::All };
    let sessions = Sessions::open(settings, Arc::new(Shelf { revocations: revocations(revoked, scene) }))
        .map_err(text)?;
    let (stopper, stop) = stop_signal();
    let (changes, _heard) = tokio::sync::mpsc::unbounded_channel();
    let watched = sessions.clone();
    runtime.spawn(async move {
        let _for_as_long_as_the_bench = stopper;
        watched.watch(changes, stop).await;
    });
    Ok(sessions)
}

pub(crate) fn bench(criterion: &mut Criterion, scene: &Scene) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(text)?;
    let issuer = &scene.issuer;
    let scoped =
        |scope: &str| issuer.token_with("nurse", |claims| claims["scope"] = scope.into()).map_err(text);
    let bare = || scoped("openid fhirUser");
    let variants = [
        ("policy alone", bare()?, None),
        ("with sessions", bare()?, Some(0)),
        ("with 1,000 revocations", bare()?, Some(1_000)),
        ("with 100,000 revocations", bare()?, Some(100_000)),
        ("with a scope", scoped("openid user/*.rs")?, Some(1_000)),
        ("with a granular scope", scoped("openid user/Patient.rs?active:not=false")?, Some(1_000)),
        ("with a granular scope on all types", scoped("openid user/*.rs?_security:not=N")?, Some(1_000)),
    ];
    let mut group = criterion.benchmark_group("a cached decision");
    for (name, token, revoked) in variants {
        let sessions = revoked.map(|count| opened(scene, count, &runtime)).transpose()?;
        let way = Way::new(scene, token, sessions)?;
        if let Some(sessions) = &way.sessions {
            let caller = way.caller()?;
            let admitted = runtime.block_on(sessions.admit(&caller, &way.headers, scene.now));
            let _known = admitted.map_err(|refusal| format!("{refusal:?}"))?;
        }
        let _policies = way.decide().map_err(|error| format!("{name}: {error}"))?;
        group.bench_function(name, |bench| bench.iter(|| black_box(&way).decide()));
    }
    group.finish();
    Ok(())
}
