//! Sessions over a real file: quiet, old, many, revoked; over a restart, a clock that goes back, and a silent store.
use super::*;
use crate::domain::identity::specimen::CallerSpecimen;
use crate::domain::identity::{Reach, Revocation, RevocationOrigin, RevocationTarget};
use http::HeaderValue;
use jiff::SignedDuration;
use std::path::Path;
use tempfile::TempDir;

/// When the specimen logs in, in seconds since 1970.
const LOGIN: i64 = 1_767_225_600;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(LOGIN + minutes * 60).unwrap()
}

fn settings(concurrent: Option<u32>, activity: ActivityRule) -> Settings {
    let limits = SessionLimits {
        idle: SignedDuration::from_mins(15),
        absolute: SignedDuration::from_hours(12),
        concurrent,
    };
    Settings { limits, activity }
}

fn open(path: &Path, settings: Settings) -> Sessions {
    let store = SqliteStore::open(path, &StoreKey::specimen(), Timestamp::UNIX_EPOCH).unwrap();
    Sessions::open(settings, Arc::new(store)).unwrap()
}

fn plain(path: &Path) -> Sessions {
    open(path, settings(None, ActivityRule::All))
}

fn place() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.sqlite");
    (folder, path)
}

/// A caller who logged in at this minute, in this session.
fn caller(session: &str, login: i64) -> Arc<Caller> {
    let seconds = at(login).as_second();
    let specimen = CallerSpecimen { authenticated_at: seconds, ..CallerSpecimen::with_roles(&[]) };
    Arc::new(specimen.in_session(session))
}

async fn asks(sessions: &Sessions, caller: &Arc<Caller>, minute: i64) -> Result<(), SessionRefusal> {
    sessions.admit(caller, &HeaderMap::new(), at(minute)).await.map(|_| ())
}

const IDLE: Result<(), SessionRefusal> = Err(SessionRefusal::Ended(SessionEnded::Idle));
const ABSOLUTE: Result<(), SessionRefusal> = Err(SessionRefusal::Ended(SessionEnded::Absolute));
const REVOKED: Result<(), SessionRefusal> = Err(SessionRefusal::Ended(SessionEnded::Revoked));
const TOO_MANY: Result<(), SessionRefusal> = Err(SessionRefusal::Ended(SessionEnded::TooMany));
const UNAVAILABLE: Result<(), SessionRefusal> = Err(SessionRefusal::Unavailable);

#[tokio::test]
async fn a_session_ends_when_quiet_or_old() {
    // Minute of the request, of its login, what is answered.
    type Step = (i64, i64, Result<(), SessionRefusal>);
    let cases: [(&str, &[Step]); 6] = [
        ("busy", &[(0, 0, Ok(())), (15, 0, Ok(())), (30, 0, Ok(()))]),
        ("quiet", &[(0, 0, Ok(())), (16, 0, IDLE), (17, 0, IDLE)]),
        ("refusals are not activity", &[(0, 0, Ok(())), (16, 0, IDLE), (20, 0, IDLE)]),
        ("a new login begins anew", &[(0, 0, Ok(())), (40, 0, IDLE), (41, 40, Ok(())), (50, 0, Ok(()))]),
        ("old", &[(719, 0, Ok(())), (721, 0, ABSOLUTE)]),
        (
            "the clock goes back, and nothing is longer",
            &[(0, 0, Ok(())), (14, 0, Ok(())), (-10, 0, Ok(())), (30, 0, IDLE)],
        ),
    ];
    for (name, steps) in cases {
        let (_folder, path) = place();
        let sessions = plain(&path);
        for (minute, login, expected) in steps {
            assert_eq!(asks(&sessions, &caller("s", *login), *minute).await, *expected, "{name}: {minute}");
        }
    }
}

/// An hour of a program that polls every minute while its user is away.
#[tokio::test]
async fn polling_keeps_nobody_signed_in() {
    let mut polls = HeaderMap::new();
    polls.insert(BACKGROUND, HeaderValue::from_static("true"));
    let mut marked = HeaderMap::new();
    marked.insert(ACTIVITY, HeaderValue::from_static("user"));
    let none = HeaderMap::new();
    let cases = [
        ("declared background", ActivityRule::All, &polls, &none, 15),
        ("not marked", ActivityRule::Marked, &none, &marked, 15),
        ("nothing declared", ActivityRule::All, &none, &none, 60),
        ("marked", ActivityRule::Marked, &marked, &marked, 60),
    ];
    for (name, rule, header, first, last) in cases {
        let (_folder, path) = place();
        let sessions = open(&path, settings(None, rule));
        sessions.admit(&caller("s", 0), first, at(0)).await.unwrap();
        let mut alive = 0;
        for minute in 1..=60 {
            if sessions.admit(&caller("s", 0), header, at(minute)).await.is_ok() {
                alive = minute;
            }
        }
        assert_eq!(alive, last, "{name}");
    }
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_lengthens_nothing() {
    let (_folder, path) = place();
    let before = plain(&path);
    asks(&before, &caller("s", 0), 0).await.unwrap();
    asks(&before, &caller("s", 0), 10).await.unwrap();
    // What was not written down yet is lost by a kill: the session seems quieter, never busier.
    let killed = plain(&path);
    assert_eq!(asks(&killed, &caller("s", 0), 16).await, IDLE);
    before.write_down(at(10), true).unwrap();
    let stopped = plain(&path);
    assert_eq!(asks(&stopped, &caller("s", 0), 24).await, Ok(()));
    // The clock is set back over a restart: the latest time that was kept counts (T-191).
    stopped.write_down(at(24), true).unwrap();
    let back = plain(&path);
    assert_eq!(asks(&back, &caller("t", -300), -60).await, Ok(()));
    assert!(back.no_earlier_than_before(at(-60)) >= at(24));
}

#[tokio::test]
async fn activity_through_another_proxy_counts() {
    let (_folder, path) = place();
    let (one, two) = (plain(&path), plain(&path));
    asks(&one, &caller("s", 0), 0).await.unwrap();
    asks(&two, &caller("s", 0), 10).await.unwrap();
    two.write_down(at(10), true).unwrap();
    assert_eq!(asks(&one, &caller("s", 0), 20).await, Ok(()), "seen by the other at minute 10");
    assert_eq!(asks(&one, &caller("s", 0), 36).await, IDLE);
}

#[tokio::test]
async fn the_oldest_makes_room_for_one_more() {
    let (_folder, path) = place();
    let sessions = open(&path, settings(Some(2), ActivityRule::All));
    for (minute, session) in [(0, "a"), (1, "b"), (2, "c")] {
        assert_eq!(asks(&sessions, &caller(session, 0), minute).await, Ok(()), "{session}");
    }
    assert_eq!(asks(&sessions, &caller("a", 0), 3).await, TOO_MANY);
    assert_eq!(asks(&sessions, &caller("b", 0), 3).await, Ok(()));
    // Over a restart, and for whoever is quiet no place is needed.
    let again = open(&path, settings(Some(2), ActivityRule::All));
    assert_eq!(asks(&again, &caller("a", 0), 4).await, TOO_MANY);
    assert_eq!(asks(&again, &caller("d", 0), 30).await, Ok(()));
    assert_eq!(again.revoked().all().len(), 1, "b and c were quiet and need not be ended");
}

fn order(target: RevocationTarget, reach: Reach) -> Order {
    Order { target, reach, made_at: at(1), origin: RevocationOrigin::Operations, reason: "test".to_owned() }
}

fn user() -> RevocationTarget {
    RevocationTarget::User { issuer: "https://idp.test".to_owned(), subject: "person-1".to_owned() }
}

#[tokio::test]
async fn a_revocation_reaches_everyone_at_the_next_look() {
    let (_folder, path) = place();
    let (one, two) = (plain(&path), plain(&path));
    let mut standing = two.admit(&caller("s", 0), &HeaderMap::new(), at(0)).await.unwrap();
    assert!(!standing.is_over());
    let made = one.revoke(order(user(), Reach::Until(at(1))), at(1)).unwrap();
    assert_eq!(asks(&one, &caller("s", 0), 2).await, REVOKED, "at once where it was made");
    assert_eq!(two.read_revoked().unwrap(), [Change::Revoked(made.clone())]);
    assert_eq!(asks(&two, &caller("s", 0), 2).await, REVOKED);
    assert!(standing.is_over(), "an answer on its way ends");
    assert_eq!(asks(&two, &caller("s", 2), 3).await, Ok(()), "a later login is not touched");
    // Its maker records it itself and is not told.
    assert_eq!(one.read_revoked().unwrap(), []);
    let third = plain(&path);
    assert_eq!(asks(&third, &caller("s", 0), 3).await, REVOKED, "after a restart");
    assert!(third.lift(&made.id).unwrap());
    assert!(!third.lift(&made.id).unwrap());
    assert_eq!(two.read_revoked().unwrap(), [Change::Lifted(made)]);
    assert_eq!(asks(&two, &caller("s", 0), 4).await, Ok(()));
}

#[tokio::test]
async fn nobody_is_let_in_while_the_store_is_silent() {
    let (_folder, path) = place();
    let sessions = plain(&path);
    let mut standing = sessions.admit(&caller("s", 0), &HeaderMap::new(), at(0)).await.unwrap();
    std::fs::rename(&path, path.with_extension("gone")).unwrap();
    assert!(sessions.read_revoked().is_err(), "another file may not take its place");
    assert_eq!(asks(&sessions, &caller("s", 0), 0).await, Ok(()), "known, and the store was heard just now");
    *locked(&sessions.0.heard) = Instant::now().checked_sub(limits::STORE_SILENCE_MAX * 2).unwrap();
    assert_eq!(asks(&sessions, &caller("s", 0), 0).await, UNAVAILABLE);
    sessions.note_silence(None);
    assert!(standing.is_over(), "nor is an answer finished");
    std::fs::rename(path.with_extension("gone"), &path).unwrap();
    sessions.read_revoked().unwrap();
    assert_eq!(asks(&sessions, &caller("s", 0), 0).await, Ok(()));
}

#[tokio::test]
async fn a_store_that_was_lost_trusts_no_older_token() {
    let (_folder, path) = place();
    let lost = SqliteStore::open(&path, &StoreKey::specimen(), at(10)).unwrap();
    let sessions = Sessions::open(settings(None, ActivityRule::All), Arc::new(lost)).unwrap();
    let forgotten = Err(SessionRefusal::Ended(SessionEnded::Forgotten));
    assert_eq!(asks(&sessions, &caller("s", 9), 11).await, forgotten);
    assert_eq!(asks(&sessions, &caller("s", 10), 11).await, Ok(()));
    // One that was made with its trail has nothing to have lost.
    let (_folder, path) = place();
    SqliteStore::create(&path, &StoreKey::specimen()).unwrap();
    assert!(SqliteStore::create(&path, &StoreKey::specimen()).is_err(), "never made over another");
    assert_eq!(asks(&plain(&path), &caller("s", 9), 11).await, Ok(()));
}

#[test]
fn what_cannot_matter_is_cleared_out() {
    let (_folder, path) = place();
    let sessions = plain(&path);
    let kept = order(user(), Reach::UntilLifted).revocation(at(1));
    let spent = Revocation { reach: Reach::Until(at(1)), id: "2".to_owned(), ..kept.clone() };
    sessions.store().revoke(&kept).unwrap();
    sessions.store().revoke(&spent).unwrap();
    sessions.store().prune(at(26 * 60), at(14 * 60)).unwrap();
    assert_eq!(sessions.store().revocations().unwrap(), [kept]);
}

#[test]
fn another_versions_file_is_not_opened() {
    let (_folder, path) = place();
    drop(SqliteStore::open(&path, &StoreKey::specimen(), at(0)).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert_eq!(SqliteStore::open(&path, &StoreKey::specimen(), at(0)).err(), Some(StoreError::Version));
    std::fs::write(&path, b"no database at all, but long enough to be looked at").unwrap();
    assert!(matches!(SqliteStore::open(&path, &StoreKey::specimen(), at(0)), Err(StoreError::Open(_))));
}
