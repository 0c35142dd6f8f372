//! Whole Synthea charts through the gate, over TLS, for each role that looks at charts.
//!
//! Owns: the comparison of what arrives with what the EMR holds and with the trail.
//! Must never: compare a sample: every record of the chosen Bundles is asked for.
//! Look next: `tests/corpus.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chartgate::cli::audit;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::{Script, Stage};
use chartgate::{app, config};
use serde_json::Value;

use crate::corpus;

/// Three people, small and middling, and what their records refer to.
const BUNDLES: [&str; 5] = ["hospital", "practitioner", "Antony_Anderson", "Wilson_Marks", "Zachary_Kutch"];
const ROLES: [&str; 5] = ["physician", "nurse", "front-desk", "billing-clerk", "researcher"];

#[tokio::test(flavor = "multi_thread")]
async fn whole_charts_through_the_gate() {
    let Some(bundles) = corpus("synthea-r4") else { return };
    let began = Instant::now();
    let stage = Stage::open(Script { empty: true, ..Script::default() }).await.unwrap();
    for wanted in BUNDLES {
        let (name, text) = bundles.iter().find(|(name, _)| name.starts_with(wanted)).unwrap();
        stage.emr().load_transaction(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let client = Client::new(&stage.ca_file()).unwrap();
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut records = 0;
    for role in ROLES {
        let token = stage.issuer().token(role).unwrap();
        for (kind, held) in stage.emr().census() {
            let shown = search_all(&stage, &client, &token, &kind, &mut seen).await;
            let Some(shown) = shown else { continue };
            assert_eq!(shown, held, "{role} sees every {kind}: none of these is sensitive");
            records += shown;
        }
    }
    trail_agrees(stage, seen).await;
    eprintln!("{records} records through the gate, {:?}", began.elapsed());
    assert!(records > 800, "{records}");
}

/// Pages to the end; the number of records, or `None` where the type is not for this role.
async fn search_all(
    stage: &Stage,
    client: &Client,
    token: &str,
    kind: &str,
    seen: &mut BTreeMap<String, BTreeSet<String>>,
) -> Option<usize> {
    let (mut all, mut next) = (BTreeSet::new(), Some(format!("{}/{kind}?_count=50", stage.base_url())));
    while let Some(url) = next {
        let answer = client.get(&url, Some(token)).await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        if answer.status() == 403 {
            let code = body.pointer("/issue/0/details/coding/0/code").and_then(Value::as_str);
            assert_eq!(code, Some("type-not-permitted"), "{kind}");
            seen.insert(id, BTreeSet::new());
            return None;
        }
        assert_eq!(answer.status(), 200, "{kind}: {body}");
        let entries = body["entry"].as_array().cloned().unwrap_or_default();
        let references: BTreeSet<String> = entries.iter().map(|entry| one(stage, kind, entry)).collect();
        assert_eq!(references.len(), entries.len());
        all.extend(references.iter().cloned());
        seen.insert(id, references);
        let links = body["link"].as_array().cloned().unwrap_or_default();
        next = links
            .iter()
            .find(|link| link["relation"] == "next")
            .map(|link| link["url"].as_str().unwrap().to_owned());
    }
    Some(all.len())
}

/// An entry is a part of the record the EMR holds; its reference.
fn one(stage: &Stage, kind: &str, entry: &Value) -> String {
    let id = entry["resource"]["id"].as_str().unwrap();
    assert_eq!(entry["fullUrl"], format!("{}/{kind}/{id}", stage.base_url()));
    let held: Value = serde_json::from_slice(&stage.emr().read(kind, id).unwrap()).unwrap();
    for (name, value) in entry["resource"].as_object().unwrap() {
        let marked = name == "meta" || value.to_string().contains("masked") || name.starts_with('_');
        assert!(marked || is_part(value, &held[name]), "{kind}/{id}: {name} {value} of {}", held[name]);
    }
    format!("{kind}/{id}")
}

/// Every member and item is in the other, in order.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|other| is_part(value, other)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            let mut rest = whole.iter();
            part.iter().all(|item| rest.any(|other| is_part(item, other)))
        }
        _ => part == whole,
    }
}

async fn trail_agrees(mut stage: Stage, seen: BTreeMap<String, BTreeSet<String>>) {
    stage.stop().await.unwrap();
    let settings = app::journal_settings(&config::load(&stage.config_file()).unwrap());
    let (mut lines, mut complaint) = (Vec::new(), Vec::new());
    let mut trail: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    assert_eq!(
        audit::verify(
            &settings,
            chartgate::edge::journal::Request { decode: true, ..Default::default() },
            false,
            &mut Vec::new(),
            &mut complaint
        ),
        audit::GOOD
    );
    audit::search(&settings, &audit::Filter::default(), true, &mut lines, &mut complaint);
    assert!(complaint.is_empty(), "{}", String::from_utf8_lossy(&complaint));
    for line in String::from_utf8(lines).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["decision"].is_null() {
            continue;
        }
        let released =
            record["released"].as_array().unwrap().iter().map(|one| one["reference"].as_str().unwrap());
        let released = released.filter(|reference| !reference.contains('#')).map(str::to_owned);
        let request = record["requestId"].as_str().unwrap().to_owned();
        // A long answer is released in units, each with its own record.
        let all: &mut BTreeSet<String> = trail.entry(request).or_default();
        released.for_each(|reference| assert!(all.insert(reference), "released twice: {record}"));
    }
    assert!(trail == seen, "the trail is not what was seen");
    stage.close().await.unwrap();
}
