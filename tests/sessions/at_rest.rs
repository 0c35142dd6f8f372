//! What a thief of the session store reads: nothing that tells of a person; and what another key opens: nothing.
//!
//! Owns: the evidence that stores are sealed, that older ones become so, and that a wrong key is noticed at the start.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chartgate::domain::identity::{
    Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey,
};
use chartgate::edge::sessions::{
    Document, PostgresSettings, PostgresStore, SessionStore, SqliteStore, StoreError, StoreKey,
};
use jiff::Timestamp;

use crate::contract::{at, limits, store_key};
use crate::town::{KEY, Postgres, Town, USUAL, secret};

/// Stands in every name and text there is.
const CANARY: &str = "canary";

fn who() -> SessionKey {
    let name = |what: &str| format!("{CANARY}-{what}");
    SessionKey { issuer: name("issuer"), subject: name("subject"), session: name("session") }
}

fn session() -> Session {
    Session {
        began: at(1),
        authenticated_at: at(0),
        last_active: at(1),
        application: Some(format!("{CANARY}-app")),
    }
}

fn revocation(id: &str, target: RevocationTarget) -> Revocation {
    Revocation {
        id: id.to_owned(),
        target,
        reach: Reach::UntilLifted,
        made_at: at(2),
        origin: RevocationOrigin::Operations,
        reason: format!("{CANARY} left the hospital"),
    }
}

/// One of each kind, by its parts.
fn revocations() -> Vec<Revocation> {
    let SessionKey { issuer, subject, session } = who();
    let application = format!("{CANARY}-app");
    let targets = [
        RevocationTarget::Token { issuer: None, token: session.clone() },
        RevocationTarget::Session { issuer: issuer.clone(), session },
        RevocationTarget::User { issuer: issuer.clone(), subject },
        RevocationTarget::Client { application },
        RevocationTarget::Issuer { issuer },
    ];
    targets
        .into_iter()
        .enumerate()
        .map(|(number, target)| revocation(&format!("r{number}"), target))
        .collect()
}

fn document() -> Document {
    let body = format!(r#"{{"patient":"{CANARY}"}}"#).into_bytes();
    Document { name: format!("{CANARY}-document"), body, expires_at: Timestamp::MAX }
}

fn fill(store: &dyn SessionStore) {
    store.begin(&who(), &session(), &limits(None)).unwrap();
    revocations().iter().for_each(|revocation| store.revoke(revocation).unwrap());
    assert!(store.remember_once("n", CANARY, at(10_000)).unwrap());
    store.put("grant", &document()).unwrap();
}

/// Everything is there, and is found by its name.
fn check_whole(name: &str, store: &dyn SessionStore) {
    assert_eq!(store.find(&who()).unwrap(), Some(session()), "{name}");
    assert_eq!(store.session_by_id(&who().id()).unwrap(), Some(who()), "{name}");
    assert_eq!(store.sessions().unwrap(), [(who(), session())], "{name}");
    assert_eq!(store.revocations().unwrap(), revocations(), "{name}");
    assert!(!store.remember_once("n", CANARY, at(10_000)).unwrap(), "{name}");
    assert_eq!(store.documents("grant", at(2)).unwrap(), [document()], "{name}");
}

/// The bytes of a file and of all that SQLite keeps beside it.
fn bytes(path: &Path) -> Vec<u8> {
    let read = |suffix| fs::read(format!("{}{suffix}", path.display())).unwrap_or_default();
    let all = ["", "-wal", "-shm", "-journal"].map(read);
    assert!(all[0].len() > 1_000, "a store is there to be looked at");
    all.concat()
}

fn tells(bytes: &[u8]) -> bool {
    let text = CANARY.as_bytes();
    let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    [text, hex.as_bytes()].iter().any(|form| bytes.windows(form.len()).any(|window| window == *form))
}

#[test]
fn a_stolen_file_tells_of_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sqlite");
    let store = SqliteStore::open(&path, &store_key(), at(0)).unwrap();
    fill(&store);
    assert!(fs::metadata(path.with_extension("sqlite-wal")).unwrap().len() > 0, "the log is looked at too");
    assert!(!tells(&bytes(&path)), "while it is open");
    check_whole("open", &store);
    drop(store);
    assert!(!tells(&bytes(&path)), "and after");
    check_whole("again", &SqliteStore::open(&path, &store_key(), at(0)).unwrap());
    assert!(tells(b"a canary sings") && tells(b"63616e617279"), "the search finds what there is");
}

/// The tables of version 1, after `prefix`, in the words that both databases know.
fn version_1(prefix: &str, text: &str, number: &str, bytes: &str) -> String {
    let SessionKey { issuer, subject, session } = who();
    let mut made = format!(
        "CREATE TABLE {prefix}session (id {text} PRIMARY KEY, issuer {text} NOT NULL, subject {text} NOT NULL,
            session {text} NOT NULL, began {number} NOT NULL, authenticated_at {number} NOT NULL,
            last_active {number} NOT NULL, application {text});
        CREATE INDEX {prefix}session_person ON {prefix}session (issuer, subject);
        CREATE TABLE {prefix}revocation (id {text} PRIMARY KEY, kind {text} NOT NULL, issuer {text},
            name {text} NOT NULL, reach {number}, made_at {number} NOT NULL, origin {text} NOT NULL,
            reason {text} NOT NULL, expires_at {number});
        CREATE TABLE {prefix}once (namespace {text} NOT NULL, name {text} NOT NULL, until {number} NOT NULL,
            PRIMARY KEY (namespace, name));
        CREATE TABLE {prefix}document (namespace {text} NOT NULL, name {text} NOT NULL, body {bytes} NOT NULL,
            expires_at {number} NOT NULL, PRIMARY KEY (namespace, name));
        INSERT INTO {prefix}session VALUES ('{}', '{issuer}', '{subject}', '{session}', {}, {}, {}, '{CANARY}-app');
        INSERT INTO {prefix}once VALUES ('n', '{CANARY}', {});",
        who().id(),
        at(1).as_microsecond(),
        at(0).as_microsecond(),
        at(1).as_microsecond(),
        at(10_000).as_microsecond(),
    );
    for one in revocations() {
        let (issuer, name) = one.target.parts();
        let issuer = issuer.map_or("NULL".to_owned(), |issuer| format!("'{issuer}'"));
        let (id, kind, reason, at) = (&one.id, one.target.kind(), &one.reason, one.made_at.as_microsecond());
        made.push_str(&format!(
            "INSERT INTO {prefix}revocation
             VALUES ('{id}', '{kind}', {issuer}, '{name}', NULL, {at}, 'operations', '{reason}', NULL);"
        ));
    }
    made
}

/// A file as version 1 left it, with pages that are free and full of what they were.
fn clear_file(path: &Path) {
    let old = rusqlite::Connection::open(path).unwrap();
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    let state = format!(
        "CREATE TABLE state (one INTEGER PRIMARY KEY, floor INTEGER, high_water INTEGER NOT NULL, sequence INTEGER NOT NULL);
         INSERT INTO state VALUES (1, {}, {}, 41);",
        at(-5).as_microsecond(),
        at(3).as_microsecond()
    );
    old.execute_batch(&(state + &version_1("", "TEXT", "INTEGER", "BLOB"))).unwrap();
    let document = document();
    let values = rusqlite::params![document.name, document.body, Timestamp::MAX.as_microsecond()];
    old.execute("INSERT INTO document VALUES ('grant', ?1, ?2, ?3)", values).unwrap();
    let gone = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO session SELECT 'gone-' || i, 'i', '{CANARY}-' || i, 's', 0, 0, 0, NULL FROM n;
         DELETE FROM session WHERE issuer = 'i'; PRAGMA user_version = 1;"
    );
    old.execute_batch(&gone).unwrap();
}

#[test]
fn a_file_of_the_version_before_is_sealed_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sqlite");
    clear_file(&path);
    assert!(tells(&bytes(&path)), "it was in clear");
    let store = SqliteStore::open(&path, &store_key(), at(9)).unwrap();
    check_whole("sealed", &store);
    let state = store.state().unwrap();
    assert_eq!((state.floor, state.high_water, state.sequence), (Some(at(-5)), at(3), 41));
    assert!(!tells(&bytes(&path)), "not in a free page, nor in the log");
    drop(store);
    assert!(!tells(&bytes(&path)));
    check_whole("again", &SqliteStore::open(&path, &store_key(), at(9)).unwrap());
}

/// Killed between the two steps: the tables are sealed, and the file is not swept yet.
#[test]
fn what_was_clear_is_swept_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sqlite");
    fill(&SqliteStore::open(&path, &store_key(), at(0)).unwrap());
    let killed = rusqlite::Connection::open(&path).unwrap();
    let left = format!(
        "CREATE TABLE t (x); INSERT INTO t VALUES ('{CANARY}'); DROP TABLE t; PRAGMA user_version = 2;"
    );
    killed.execute_batch(&left).unwrap();
    drop(killed);
    assert!(tells(&bytes(&path)), "what is dropped is still to be read");
    check_whole("swept", &SqliteStore::open(&path, &store_key(), at(0)).unwrap());
    assert!(!tells(&bytes(&path)));
}

fn other_key() -> StoreKey {
    StoreKey::new(&[8; 32]).unwrap()
}

/// Looked up with another key nothing would be found: nobody would be revoked.
#[test]
fn another_key_opens_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sqlite");
    let store = SqliteStore::open(&path, &store_key(), at(0)).unwrap();
    fill(&store);
    let opened = SqliteStore::open(&path, &other_key(), at(0)).map(|_| ());
    assert_eq!(opened, Err(StoreError::Key));
    // Another store in its place, while it is open.
    let placed = rusqlite::Connection::open(&path).unwrap();
    placed.execute("UPDATE state SET mark = 'of another'", []).unwrap();
    assert_eq!(store.state(), Err(StoreError::Key));
}

async fn ask(server: &Postgres, statement: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    let running = tokio::spawn(connection);
    let rows = client.simple_query(statement).await.unwrap();
    running.abort();
    let text = |row: &tokio_postgres::SimpleQueryRow| (0..row.len()).filter_map(|at| row.get(at)).collect();
    let rows = rows.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(text(row)),
        _ => None,
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_sealed_too_and_opened_with_its_key_only() {
    let Some(server) = Postgres::start("a_database_is_sealed", None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = PostgresSettings { url_file: server.url_file(folder.path(), ""), ca: None };
    let document = document();
    let body: String = document.body.iter().map(|byte| format!("{byte:02x}")).collect();
    let state = format!(
        "CREATE TABLE chartgate_state (one INT PRIMARY KEY, version INT NOT NULL, floor BIGINT, high_water BIGINT NOT NULL,
            sequence BIGINT NOT NULL);
         INSERT INTO chartgate_state VALUES (1, 1, {}, {}, 41);",
        at(-5).as_microsecond(),
        at(3).as_microsecond()
    );
    let kept = format!(
        "INSERT INTO chartgate_document VALUES ('grant', '{}', '\\x{body}', {});",
        document.name,
        Timestamp::MAX.as_microsecond()
    );
    ask(&server, &(state + &version_1("chartgate_", "TEXT", "BIGINT", "BYTEA") + &kept)).await;
    let runtime = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let open = |key: &StoreKey| PostgresStore::open(settings.clone(), key, runtime.clone(), at(9));
        let store = open(&store_key()).unwrap();
        check_whole("sealed", &store);
        let state = store.state().unwrap();
        assert_eq!((state.floor, state.high_water, state.sequence), (Some(at(-5)), at(3), 41));
        assert_eq!(open(&other_key()).map(|_| ()), Err(StoreError::Key));
        check_whole("by another proxy", &open(&store_key()).unwrap());
        store
    });
    let store = checked.await.unwrap();
    let mut read = 0;
    for table in ["state", "session", "revocation", "once", "document"] {
        for row in ask(&server, &format!("SELECT t::text FROM chartgate_{table} t")).await {
            read += 1;
            assert!(!tells(row.as_bytes()), "{table}: {row}");
        }
    }
    assert_eq!(read, 9, "one row of each, and five revocations");
    ask(&server, "UPDATE chartgate_state SET mark = 'of another'").await;
    let state = tokio::task::spawn_blocking(move || store.state());
    assert_eq!(state.await.unwrap(), Err(StoreError::Key));
}

/// A command that is to end by itself: whether it was good, and what it complained of. One that serves instead is ended.
fn ends(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let began = Instant::now();
    while process.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _already_over = process.kill();
    let output = process.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// Two gates of one store must have one key; the second with another does not start, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_with_another_key_does_not_start() {
    let town = Town::open().await;
    let store = format!("store = {:?}\n", town.stage.folder().join("shared.sqlite").display().to_string());
    let mut east = town.proxy("east", &format!("{USUAL}{store}{KEY}"), "").await;
    assert_eq!(town.read(&east, &town.token("nurse")).await.status, 200);
    let subject = east.sessions()[0]["subject"].as_str().unwrap().to_owned();
    // Its port and its trail are free for another; what it kept in the log of writes is there.
    east.kill();
    fs::write(town.stage.folder().join("other.aes"), secret(8)).unwrap();
    let text = fs::read_to_string(&east.config).unwrap();
    let other = east.config.with_file_name("other.toml");
    let cases = [
        ("another", text.replace("session.aes", "other.aes"), "another key"),
        ("none, so one of its own", text.replace(KEY, ""), "another key"),
        ("one that is no key", text.replace("session.aes", "other.toml"), "32 bytes in base64"),
        ("one that is not there", text.replace("session.aes", "nowhere.aes"), "cannot be read"),
    ];
    for (name, text, says) in cases {
        fs::write(&other, text).unwrap();
        for command in [&["serve"][..], &["session", "list"], &["session", "revocations"]] {
            let mut arguments = command.to_vec();
            arguments.extend(["--config", other.to_str().unwrap()]);
            let (good, said) = ends(&arguments);
            assert!(!good && said.contains(says), "{name}, {command:?}: {said}");
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        let file = fs::read(town.stage.folder().join(format!("shared.sqlite{suffix}"))).unwrap_or_default();
        assert!(!file.windows(subject.len()).any(|window| window == subject.as_bytes()), "{suffix}");
    }
}
