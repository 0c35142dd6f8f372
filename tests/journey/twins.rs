//! Two EMRs that differ only in what a role does not see give the same answers to everything the role asks (P4).
//!
//! Owns: the two hospitals, what is changed between them, and the questions.
//! Must never: exempt an answer but for request ids, dates, the port, and sealed page tokens.
//! Look next: `search`, where withheld criteria are refused.

use chartgate::cli::demo::stage::Script;
use chartgate::domain::fhir::r4::{ResourceType, SearchType, search_parameters};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Hospital, Reply, ask, encoded, run};

/// What is asked of each type: every so many questions are taken, so that all kinds come up.
const QUESTIONS: usize = 250;

#[test]
fn p4_answers_never_depend_on_what_is_withheld() {
    run(async {
        let (one, other) = tokio::join!(Hospital::open(Script::default()), Hospital::open(Script::default()));
        for hospital in [&one, &other] {
            hospital.stage.emr().set_recording(false);
            hospital.stage.emr().set_time("2026-03-01T00:00:00Z".parse().ok());
        }
        let charts = records(&one);
        let mut differing = 0;
        for who in ["nurse", "front-desk", "billing-clerk", "researcher", "patient", "physician"] {
            let changed = prepare(&one, &other, who, &charts).await;
            assert!(changed > 3, "{who}: only {changed} records differ");
            differing += changed;
            let questions = questions(&charts);
            assert!(questions.len() >= QUESTIONS, "{}", questions.len());
            let answers = tokio::join!(all(&one, who, &questions), all(&other, who, &questions));
            let mut answered = 0;
            for (first, second) in answers.0.iter().zip(&answers.1) {
                assert_eq!(comparable(first, &one), comparable(second, &other), "{who}: {}", first.what);
                answered += usize::from(first.status == 200);
            }
            assert!(answered > 20, "{who}: only {answered} answers were releases");
        }
        assert!(differing > 100, "{differing}");
    });
}

/// Every current record, read into one spelling so that both hospitals can hold the same bytes.
fn records(hospital: &Hospital) -> Vec<(String, String, Value)> {
    let emr = hospital.stage.emr();
    let ids = |name: &str| emr.ids(name).into_iter();
    let census = emr.census();
    let named = census.iter().flat_map(|(name, _)| ids(name).map(move |id| (name.clone(), id)));
    let read = |(name, id): (String, String)| {
        let value = serde_json::from_slice(&emr.read(&name, &id).unwrap()).unwrap();
        (name, id, value)
    };
    named.map(read).collect()
}

/// Puts all charts into both hospitals; in the other, whatever `who` does not see reads differently. Gives how many
/// records differ.
async fn prepare(one: &Hospital, other: &Hospital, who: &str, charts: &[(String, String, Value)]) -> usize {
    let token = one.token(who);
    let mut changed = 0;
    for (_, _, record) in charts {
        for hospital in [one, other] {
            hospital.stage.emr().put(record.to_string().as_bytes()).unwrap();
        }
    }
    for (name, id, record) in charts {
        let seen = one.get_with(&token, &format!("{name}/{id}")).await;
        let seen = if seen.status == 200 { seen.json() } else { Value::Null };
        let mut twin = record.clone();
        change(&mut twin, &seen);
        changed += usize::from(twin != *record);
        one.stage.emr().put(record.to_string().as_bytes()).unwrap();
        other.stage.emr().put(twin.to_string().as_bytes()).unwrap();
    }
    changed
}

/// Members that say which record it is and whose, and how much is to be guarded: not withheld data, or the basis of
/// the decision itself.
const FIXED: &[&str] = &["resourceType", "id", "meta", "reference", "contained"];

/// Changes every text, number and truth value of `record` that `seen` does not hold at the same place.
fn change(record: &mut Value, seen: &Value) {
    match record {
        Value::Object(members) => {
            for (name, value) in members.iter_mut().filter(|(name, _)| !FIXED.contains(&name.as_str())) {
                change(value, seen.get(name).unwrap_or(&Value::Null));
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                change(item, seen.get(place).unwrap_or(&Value::Null));
            }
        }
        Value::String(text) if seen.is_null() => *text = other_text(text),
        Value::Number(number) if seen.is_null() => *number = (number.as_f64().unwrap() as i64 + 1).into(),
        Value::Bool(truth) if seen.is_null() => *truth = !*truth,
        Value::Null | Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
    }
}

/// Another text of the same kind: digits and letters move on by one, marks and markup stay.
fn other_text(text: &str) -> String {
    if text.starts_with('<') {
        return text.replace("</div>", " and more</div>");
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.get(4..5).is_none_or(|c| c == "-") {
        return format!("19{}", text.get(2..).unwrap_or_default());
    }
    let next = |c: char| match c {
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from_u32(c as u32 + 1).unwrap(),
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        other => other,
    };
    text.chars().map(next).collect()
}

/// Reads of every record, and every search parameter of every type with values from the charts, missing, sorted,
/// included, chained and backwards; of all these an even choice.
fn questions(charts: &[(String, String, Value)]) -> Vec<String> {
    let mut asked = Vec::new();
    let mut names: Vec<&str> = charts.iter().map(|(name, ..)| name.as_str()).collect();
    names.dedup();
    for name in names {
        let resource = ResourceType::from_name(name).unwrap();
        asked.push(format!("{name}?_count=100"));
        asked.push(format!("{name}?_count=3"));
        for parameter in search_parameters(resource) {
            let code = parameter.code;
            for value in values(parameter.kind) {
                asked.push(format!("{name}?{code}={}", encoded(value)));
            }
            asked.push(format!("{name}?{code}:missing=true"));
            asked.push(format!("{name}?_sort={code}&_count=4"));
            asked.push(format!("{name}?_sort=-{code}"));
            if parameter.kind == SearchType::Reference {
                asked.push(format!("{name}?_include={name}:{code}&_count=5"));
                asked.push(format!("Patient?_revinclude={name}:{code}"));
                asked.push(format!("{name}?{code}:Patient.name=T"));
                asked.push(format!("{name}?{code}:Patient.gender=female"));
                asked.push(format!("Patient?_has:{name}:{code}:status=active,final,finished"));
                asked.push(format!("Patient?_has:{name}:{code}:code=44054006"));
            }
        }
    }
    let step = (asked.len() / QUESTIONS).max(1);
    let mut chosen: Vec<String> = asked.into_iter().step_by(step).collect();
    chosen.extend(charts.iter().map(|(name, id, _)| format!("{name}/{id}")));
    chosen
}

fn values(kind: SearchType) -> &'static [&'static str] {
    match kind {
        SearchType::Token => {
            &["final", "44054006", "female", "555-0123", "0000-1111", "urn:example:mrn|0000-1111"]
        }
        SearchType::String => &["T", "Beispiel", "Sampletown", "00001"],
        SearchType::Date => &["ge1950-01-01", "1980-02-29", "lt2026-01-10"],
        SearchType::Reference => &["Patient/p1", "Practitioner/pr-nurse", "p2"],
        SearchType::Number => &["gt0"],
        SearchType::Quantity => &["gt50", "0.010"],
        SearchType::Uri => &["urn:example:questionnaires:mood"],
        SearchType::Composite | SearchType::Special => &["x$y"],
    }
}

async fn all(hospital: &Hospital, who: &str, questions: &[String]) -> Vec<Reply> {
    let bearer = format!("Bearer {}", hospital.token(who));
    let mut tasks = JoinSet::new();
    const AT_ONCE: usize = 16;
    for lane in 0..AT_ONCE {
        let (client, base, bearer) =
            (hospital.client.clone(), hospital.stage.base_url().to_owned(), bearer.clone());
        let mine: Vec<(usize, String)> =
            questions.iter().cloned().enumerate().filter(|(place, _)| place % AT_ONCE == lane).collect();
        tasks.spawn(async move {
            let mut replies = Vec::new();
            for (place, path) in mine {
                let headers = [("authorization", bearer.as_str())];
                replies.push((place, ask(&client, &base, "GET", &path, &headers, "").await));
            }
            replies
        });
    }
    let mut replies: Vec<(usize, Reply)> = tasks.join_all().await.into_iter().flatten().collect();
    replies.sort_by_key(|(place, _)| *place);
    replies.into_iter().map(|(_, reply)| reply).collect()
}

/// Status, headers and body, but for what differs between any two requests or hospitals.
fn comparable(reply: &Reply, hospital: &Hospital) -> (u16, Vec<(String, String)>, String) {
    let (status, headers, body) = reply.without_request_id();
    let mut body = body.replace(hospital.stage.base_url(), "BASE");
    while let Some(begin) = body.find("~page=") {
        let end = body[begin..].find('"').map_or(body.len(), |length| begin + length);
        // The token's length is compared; what it holds is sealed.
        let sealed = format!("PAGE[{}]", end - begin);
        body.replace_range(begin..end, &sealed);
    }
    (status, headers, body)
}
