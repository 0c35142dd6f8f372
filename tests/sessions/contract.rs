//! What both stores promise: the same cases over a file and over PostgreSQL.

use std::sync::Arc;

use chartgate::domain::identity::{
    Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey, SessionLimits,
};
use chartgate::edge::sessions::{
    Document, PostgresSettings, PostgresStore, SessionStore, SqliteStore, StoreError, StoreKey,
};
use jiff::{SignedDuration, Timestamp};

use crate::town::{Postgres, Town};

/// The secret of every store here.
pub(crate) fn store_key() -> StoreKey {
    StoreKey::new(&[7; 32]).unwrap()
}

pub(crate) fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
}

pub(crate) fn key(session: &str) -> SessionKey {
    SessionKey { issuer: "https://i".into(), subject: "s".into(), session: session.into() }
}

pub(crate) fn session(minute: i64, login: i64) -> Session {
    Session {
        began: at(minute),
        authenticated_at: at(login),
        last_active: at(minute),
        application: Some("a".into()),
    }
}

pub(crate) fn limits(concurrent: Option<u32>) -> SessionLimits {
    let (idle, absolute) = (SignedDuration::from_mins(15), SignedDuration::from_hours(12));
    SessionLimits { idle, absolute, concurrent }
}

/// `one` and `two` are two openings of the same store, made at minute 0 for the first time.
fn check(name: &str, one: &dyn SessionStore, two: &dyn SessionStore) {
    assert_eq!(one.state().unwrap().floor, Some(at(0)), "{name}");
    check_sessions(name, one, two);
    check_revocations(name, one, two);
    check_crowd(name, one);
    check_names(name, one, two);
    check_documents(name, one, two);
    one.prune(at(2 * 24 * 60), at(24 * 60)).unwrap();
    assert_eq!((two.sessions().unwrap().len(), two.revocations().unwrap().len()), (0, 0), "{name}");
}

fn check_sessions(name: &str, one: &dyn SessionStore, two: &dyn SessionStore) {
    let begun = one.begin(&key("a"), &session(1, 0), &limits(None)).unwrap();
    assert_eq!((begun.session, begun.ended.len()), (session(1, 0), 0), "{name}");
    // Begun elsewhere: as it is kept, whatever time this is; a later login begins anew.
    assert_eq!(two.begin(&key("a"), &session(9, 0), &limits(None)).unwrap().session, session(1, 0), "{name}");
    assert_eq!(two.find(&key("a")).unwrap(), Some(session(1, 0)), "{name}");
    assert_eq!(two.find(&key("b")).unwrap(), None, "{name}");
    two.touch(&[(key("a"), at(5)), (key("b"), at(5))], at(6)).unwrap();
    one.touch(&[(key("a"), at(3))], at(2)).unwrap();
    assert_eq!(one.find(&key("a")).unwrap().unwrap().last_active, at(5), "{name}: never back");
    assert_eq!(one.state().unwrap().high_water, at(6), "{name}: never back");
    let anew = one.begin(&key("a"), &session(8, 7), &limits(None)).unwrap();
    assert_eq!(anew.session, session(8, 7), "{name}");
    assert_eq!(two.session_by_id(&key("a").id()).unwrap(), Some(key("a")), "{name}");
    assert_eq!(two.session_by_id("no").unwrap(), None, "{name}");
    assert_eq!(two.sessions().unwrap(), [(key("a"), session(8, 7))], "{name}");
}

fn check_revocations(name: &str, one: &dyn SessionStore, two: &dyn SessionStore) {
    let before = two.state().unwrap().sequence;
    let targets = [
        RevocationTarget::Token { issuer: None, token: "t".into() },
        RevocationTarget::Token { issuer: Some("https://i".into()), token: "t".into() },
        RevocationTarget::Session { issuer: "https://i".into(), session: "x".into() },
        RevocationTarget::User { issuer: "https://i".into(), subject: "other".into() },
        RevocationTarget::Client { application: "app".into() },
        RevocationTarget::Issuer { issuer: "https://j".into() },
    ];
    for (number, target) in targets.iter().enumerate() {
        let reach = if number % 2 == 0 { Reach::UntilLifted } else { Reach::Until(at(3)) };
        let origin = RevocationOrigin::ALL[number % 4];
        let revocation = Revocation {
            id: format!("r{number}"),
            target: target.clone(),
            reach,
            made_at: at(i64::try_from(number).unwrap()),
            origin,
            reason: "it's \"why\"".into(),
        };
        one.revoke(&revocation).unwrap();
        assert_eq!(two.revocations().unwrap().last(), Some(&revocation), "{name}: {number}");
        assert!(one.revoke(&revocation).is_err(), "{name}: an id is new");
    }
    let after = two.state().unwrap().sequence;
    assert!(after >= before + 6, "{name}: {before} {after}");
    assert!(two.lift("r0").unwrap(), "{name}");
    assert!(!one.lift("r0").unwrap(), "{name}");
    assert!(one.state().unwrap().sequence > after, "{name}");
    for number in 1..targets.len() {
        assert!(one.lift(&format!("r{number}")).unwrap(), "{name}: {number}");
    }
}

fn check_crowd(name: &str, one: &dyn SessionStore) {
    // `a` is alive since minute 8. Two places: the third ends the oldest, and a quiet one needs no place.
    assert!(one.begin(&key("b"), &session(9, 0), &limits(Some(2))).unwrap().ended.is_empty(), "{name}");
    let ended = one.begin(&key("c"), &session(10, 0), &limits(Some(2))).unwrap().ended;
    let target = RevocationTarget::Session { issuer: "https://i".into(), session: "a".into() };
    assert_eq!(ended.iter().map(|one| one.target.clone()).collect::<Vec<_>>(), [target], "{name}");
    assert_eq!(one.revocations().unwrap(), ended, "{name}: kept with the session that began");
    assert!(one.begin(&key("d"), &session(40, 0), &limits(Some(2))).unwrap().ended.is_empty(), "{name}");
}

fn check_names(name: &str, one: &dyn SessionStore, two: &dyn SessionStore) {
    assert!(!two.remembers("n", "x").unwrap(), "{name}");
    assert!(one.remember_once("n", "x", at(9)).unwrap(), "{name}");
    assert!(!two.remember_once("n", "x", at(99)).unwrap(), "{name}: once, whoever asks");
    assert!(two.remember_once("m", "x", at(9)).unwrap(), "{name}: by namespace");
    assert!(two.remembers("n", "x").unwrap(), "{name}");
    one.prune(at(10), at(-60)).unwrap();
    assert!(two.remember_once("n", "x", at(20)).unwrap(), "{name}: when its time has passed");
}

fn check_documents(name: &str, one: &dyn SessionStore, two: &dyn SessionStore) {
    let document = |name: &str, body: &[u8], minute: i64| Document {
        name: name.to_owned(),
        body: body.to_vec(),
        expires_at: at(minute),
    };
    one.put("grant", &document("b", b"one", 9)).unwrap();
    one.put("grant", &document("a", &[0, 255], 20)).unwrap();
    two.put("grant", &document("b", b"two", 9)).unwrap();
    assert_eq!(
        two.documents("grant", at(8)).unwrap(),
        [document("a", &[0, 255], 20), document("b", b"two", 9)],
        "{name}"
    );
    assert_eq!(one.documents("grant", at(9)).unwrap().len(), 1, "{name}: expired");
    assert_eq!(one.document("grant", "b", at(8)).unwrap(), Some(document("b", b"two", 9)), "{name}");
    assert_eq!(one.documents("other", at(0)).unwrap(), [], "{name}");
    assert!(one.remove("grant", "b").unwrap() && !two.remove("grant", "b").unwrap(), "{name}");
    let for_ever = Document { expires_at: Timestamp::MAX, ..document("e", b"", 0) };
    one.put("for ever", &for_ever).unwrap();
    assert_eq!(two.documents("for ever", at(1_000)).unwrap(), [for_ever], "{name}");
    let large = document("c", &vec![0; 65 * 1024], 9);
    assert_eq!(one.put("grant", &large), Err(StoreError::TooLarge), "{name}");
}

#[test]
fn a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sqlite");
    let one = SqliteStore::open(&path, &store_key(), at(0)).unwrap();
    let two = SqliteStore::open(&path, &store_key(), at(5)).unwrap();
    check("sqlite", &one, &two);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
}

async fn postgres(name: &'static str, settings: PostgresSettings) {
    let runtime = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let one = PostgresStore::open(settings.clone(), &store_key(), runtime.clone(), at(0)).unwrap();
        let two = PostgresStore::open(settings, &store_key(), runtime, at(5)).unwrap();
        check(name, &one, &two);
        // The same person's sessions through both at once: none is lost, and no place is taken twice.
        let (one, two) = (Arc::new(one), Arc::new(two));
        let many: Vec<_> = (0..8)
            .map(|number| {
                let store = Arc::clone(if number % 2 == 0 { &one } else { &two });
                std::thread::spawn(move || {
                    store
                        .begin(&key(&format!("m{number}")), &session(60, 59), &limits(Some(3)))
                        .unwrap()
                        .ended
                        .len()
                })
            })
            .collect();
        let ended: usize = many.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!((ended, one.sessions().unwrap().len()), (5, 8));
    });
    checked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database() {
    let Some(server) = Postgres::start("a_database", None) else { return };
    let folder = tempfile::tempdir().unwrap();
    postgres("postgres", PostgresSettings { url_file: server.url_file(folder.path(), ""), ca: None }).await;
}

/// TLS as to another machine: the server is believed only with a certificate of the right authority.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_over_tls() {
    let town = Town::open().await;
    let folder = town.stage.folder().to_owned();
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    let Some(server) = Postgres::start("a_database_over_tls", Some((&certificate, &key))) else { return };
    let url_file = server.url_file(&folder, "?sslmode=require");
    let settings = PostgresSettings { url_file, ca: Some(town.stage.ca_file()) };
    postgres("postgres over TLS", settings.clone()).await;
    let other = Town::open().await;
    let stranger = PostgresSettings { ca: Some(other.stage.ca_file()), ..settings };
    let runtime = tokio::runtime::Handle::current();
    let opened = tokio::task::spawn_blocking(move || {
        PostgresStore::open(stranger, &store_key(), runtime, at(0)).map(|_| ())
    });
    assert!(matches!(opened.await.unwrap(), Err(StoreError::Unavailable(_))));
}
