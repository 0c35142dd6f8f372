//! An EMR that answers badly (T-113 to T-135, T-255 to T-262): each kind has its code, and nothing of it gets out.
//!
//! Owns: bad input on the EMR's side. The gate is a process of its own, so that its log can be read.
//! Must never: let a canary through: in bodies, headers, logs, metrics or the trail.
//! Look next: `src/edge/upstream/tests.rs`, `tests/filter.rs`.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use chartgate_sandbox::listen::Canned;

use crate::child::Gate;
use crate::harness::{Reply, check_recorded, run, trail};

/// Until the beginning of an answer has left the EMR.
const SOON: Duration = Duration::from_millis(200);
const UNSOUND: (u16, &str) = (502, "upstream-answer-unsound");

/// A good record but for what is put in its middle.
fn record(id: &str, middle: &str) -> String {
    format!(r#"{{"resourceType":"Patient","id":"{id}",{middle}"name":[{{"family":"CANARY"}}]}}"#)
}

type Case = (&'static str, fn(&str) -> Canned, (u16, &'static str));

const READS: &[Case] = &[
    ("not JSON", |_| Canned::fhir("CANARY"), UNSOUND),
    ("nothing", |_| Canned::fhir(""), UNSOUND),
    (
        "HTML",
        |_| Canned::status(200).header("content-type", "text/html").body("<html>CANARY</html>"),
        UNSOUND,
    ),
    (
        "XML",
        |_| {
            Canned::status(200)
                .header("content-type", "application/fhir+xml")
                .body("<Patient>CANARY</Patient>")
        },
        UNSOUND,
    ),
    ("broken off inside", |id| Canned::fhir(record(id, "").replace("}]}", "")), UNSOUND),
    ("something behind", |id| Canned::fhir(format!("{}{{}}", record(id, ""))), UNSOUND),
    ("a BOM in front", |id| Canned::fhir(format!("\u{feff}{}", record(id, ""))), UNSOUND),
    ("a member twice", |id| Canned::fhir(record(id, r#""gender":"male","gender":"female","#)), UNSOUND),
    (
        "a member twice, escaped",
        |id| Canned::fhir(record(id, r#""gender":"male","\u0067ender":"female","#)),
        UNSOUND,
    ),
    ("bad UTF-8", |id| Canned::fhir([record(id, "").as_bytes(), b"\xff"].concat()), UNSOUND),
    (
        "bad UTF-8 in a string",
        |id| {
            let mut bytes = record(id, r#""language":"??","#).into_bytes();
            let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
            bytes[at] = 0xff;
            Canned::fhir(bytes)
        },
        UNSOUND,
    ),
    ("a lone surrogate", |id| Canned::fhir(record(id, r#""language":"\ud800","#)), UNSOUND),
    ("a comment", |id| Canned::fhir(record(id, "/* CANARY */")), UNSOUND),
    ("NaN", |id| Canned::fhir(record(id, r#""multipleBirthInteger":NaN,"#)), UNSOUND),
    ("a leading zero", |id| Canned::fhir(record(id, r#""multipleBirthInteger":01,"#)), UNSOUND),
    ("a wrong type at a known place", |id| Canned::fhir(record(id, r#""active":"yes","#)), UNSOUND),
    ("an object for a list", |id| Canned::fhir(record(id, r#""telecom":{"value":"CANARY"},"#)), UNSOUND),
    (
        "too deep",
        |id| Canned::fhir(record(id, &format!("\"x\":{}{},", "[".repeat(5000), "]".repeat(5000)))),
        UNSOUND,
    ),
    ("another record", |_| Canned::fhir(record("p2", "")), UNSOUND),
    ("no id", |_| Canned::fhir(r#"{"resourceType":"Patient","name":[{"family":"CANARY"}]}"#), UNSOUND),
    ("another type", |id| Canned::fhir(record(id, "").replace("Patient", "Person")), UNSOUND),
    ("an unknown type", |id| Canned::fhir(record(id, "").replace("Patient", "Canary")), UNSOUND),
    ("no type", |id| Canned::fhir(format!(r#"{{"id":"{id}"}}"#)), UNSOUND),
    ("a Bundle for a record", |_| Canned::fhir(r#"{"resourceType":"Bundle","type":"searchset"}"#), UNSOUND),
    ("an outcome with 200", |_| Canned::fhir(OUTCOME), UNSOUND),
    ("compressed", |_| Canned::fhir("CANARY").header("content-encoding", "gzip"), (502, "upstream-encoded")),
    (
        "compressed, br",
        |_| Canned::fhir("CANARY").header("content-encoding", "br"),
        (502, "upstream-encoded"),
    ),
    (
        "a redirect",
        |_| Canned::status(302).header("location", "http://127.0.0.1:1/CANARY"),
        (502, "upstream-redirected"),
    ),
    (
        "a permanent redirect",
        |_| Canned::status(308).header("location", "https://CANARY/"),
        (502, "upstream-redirected"),
    ),
    ("not modified", |_| Canned::status(304), UNSOUND),
    ("no content", |_| Canned::status(204), UNSOUND),
    ("a part", |id| Canned::status(206).body(record(id, "")), UNSOUND),
    (
        "unauthorised",
        |_| Canned::status(401).header("www-authenticate", "Basic realm=CANARY").body(OUTCOME),
        UNSOUND,
    ),
    ("forbidden", |_| Canned::status(403).body(OUTCOME), UNSOUND),
    (
        "a fault with words",
        |_| Canned::status(500).header("content-type", "application/json").body(OUTCOME),
        UNSOUND,
    ),
    ("busy", |_| Canned::status(503).header("retry-after", "77").body(OUTCOME), UNSOUND),
    ("missing, with words", |_| Canned::status(404).body(OUTCOME), (404, "not-found")),
    ("gone, with words", |_| Canned::status(410).body(OUTCOME), (404, "not-found")),
    ("cut off", |id| Canned::fhir(record(id, "")).body_after(SOON, " ").cut_off(), (502, "upstream-cut-off")),
    (
        "shorter than announced",
        |id| Canned::fhir(record(id, "")).header("content-length", "5000").body_after(SOON, " ").cut_off(),
        (502, "upstream-cut-off"),
    ),
    ("never ends", |id| Canned::fhir(record(id, "")).stall(), (504, "upstream-timed-out")),
    (
        "slow to begin",
        |id| Canned::fhir("").body_after(Duration::from_secs(5), record(id, "")),
        (504, "upstream-timed-out"),
    ),
    (
        "a flood of headers",
        |id| {
            (0..150).fold(Canned::fhir(record(id, "")), |canned, n| {
                canned.header(&format!("x-canary-{n}"), "CANARY")
            })
        },
        (502, "upstream-"),
    ),
];

const OUTCOME: &str = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"processing",
    "diagnostics":"CANARY at com.emr.Internal.java:1"}]}"#;

const SEARCHES: &[Case] = &[
    ("not JSON", |_| Canned::fhir("CANARY"), UNSOUND),
    ("a record", |_| Canned::fhir(record("x", "")), UNSOUND),
    ("another Bundle", |_| Canned::fhir(r#"{"resourceType":"Bundle","type":"history"}"#), UNSOUND),
    (
        "entries that are none",
        |_| Canned::fhir(r#"{"resourceType":"Bundle","type":"searchset","entry":{"CANARY":1}}"#),
        UNSOUND,
    ),
    (
        "a broken record among good ones",
        |_| {
            Canned::fhir(format!(
                r#"{{"resourceType":"Bundle","type":"searchset","entry":[{{"resource":{}}},{{"resource":{{"resourceType":"Patient","id":"y","active":"CANARY"}}}}]}}"#,
                record("x", "")
            ))
        },
        UNSOUND,
    ),
    ("not understood", |_| Canned::status(400).body(OUTCOME), (400, "query-refused-upstream")),
    ("not built", |_| Canned::status(501).body(OUTCOME), (400, "query-refused-upstream")),
    // An EMR that does not serve the type.
    ("not found", |_| Canned::status(404).body(OUTCOME), (400, "query-refused-upstream")),
    (
        "cut off",
        |_| {
            Canned::fhir(r#"{"resourceType":"Bundle","type":"searchset","entry":[{"#)
                .body_after(SOON, " ")
                .cut_off()
        },
        (502, "upstream-cut-off"),
    ),
];

#[test]
fn p6_a_bad_answer_is_refused_and_none_of_it_leaves() {
    run(async {
        let replace = vec![("timeout = \"10s\"".to_owned(), "timeout = \"2s\"".to_owned())];
        let gate = Gate::start(Script { replace, ..Script::default() }, None).await;
        let hospital = &gate.hospital;
        let emr = hospital.stage.emr();
        let token = hospital.token("physician");
        let (mut replies, mut wrong) = (Vec::new(), Vec::new());
        for (number, (name, canned, expected)) in READS.iter().enumerate() {
            let id = format!("bad-{number}");
            emr.next_answer(&format!("/fhir/Patient/{id}"), canned(&id));
            let reply = hospital.get_with(&token, &format!("Patient/{id}")).await;
            judge(name, reply, *expected, &mut replies, &mut wrong);
        }
        for (name, canned, expected) in SEARCHES {
            emr.next_answer("/fhir/Patient", canned(""));
            let reply = hospital.get_with(&token, "Patient?gender=male").await;
            judge(name, reply, *expected, &mut replies, &mut wrong);
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        outcomes_in_a_searchset_stay_behind(&gate).await;
        one_and_the_same_404(&gate, &token).await;
        let huge = Canned::fhir(r#"{"resourceType":"Patient","id":"#).header("content-length", "99999999999");
        emr.next_answer("/fhir/Patient/huge", huge.body_after(SOON, " ").cut_off());
        let reply = hospital.get_with(&token, "Patient/huge").await;
        judge("huge", reply, (502, "upstream-too-large"), &mut replies, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
        check_recorded(&trail(&hospital.stage.config_file()), &replies);
        hospital.get_with(&token, "Patient/p1").await.check_ok();
        let (log, metrics) = (gate.log_text(), gate.operations("/metrics"));
        for word in ["CANARY", "Beispiel", "bad-1", &token, "0000-1111"] {
            assert!(!log.contains(word), "the log says {word}: {log}");
            assert!(!metrics.contains(word), "the metrics say {word}");
        }
        assert!(metrics.contains("chartgate_refusals_total{code=\"upstream-answer-unsound\"}"), "{metrics}");
        assert!(
            metrics.contains("chartgate_handler_panics_total 0") || !metrics.contains("panic"),
            "{metrics}"
        );
    });
}

fn judge(
    name: &str,
    mut reply: Reply,
    (status, code): (u16, &str),
    replies: &mut Vec<Reply>,
    wrong: &mut Vec<String>,
) {
    reply.what = name.to_owned();
    let headers = format!("{:?}", reply.headers);
    if reply.status != status || !reply.code().starts_with(code) {
        wrong.push(format!("{name}: {} {} instead of {status} {code}", reply.status, reply.code()));
    } else if reply.text().contains("CANARY") || headers.contains("CANARY") || headers.contains("127.0.0.1") {
        wrong.push(format!("{name}: leaks {} {headers}", reply.text()));
    } else {
        reply.check_refusal(status, &reply.code());
        replies.push(reply);
    }
}

/// T-162: the EMR's own words in a searchset go no further, and the rest is released.
async fn outcomes_in_a_searchset_stay_behind(gate: &Gate) {
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"searchset","total":12345,"link":[{{"relation":"self","url":"http://CANARY/fhir"}}],
        "meta":{{"tag":[{{"code":"CANARY"}}]}},"entry":[
        {{"fullUrl":"http://CANARY/Patient/x","resource":{{"resourceType":"Patient","id":"x","gender":"male"}},"search":{{"mode":"match","score":0.77}}}},
        {{"resource":{OUTCOME},"search":{{"mode":"outcome"}}}}]}}"#
    );
    let canned = Canned::fhir(bundle)
        .header("server", "CANARY")
        .header("set-cookie", "CANARY=1")
        .header("warning", "CANARY");
    gate.hospital.stage.emr().next_answer("/fhir/Patient", canned);
    let reply = gate.hospital.get("nurse", "Patient?gender=male").await;
    reply.check_ok();
    assert!(!reply.text().contains("CANARY") && !reply.text().contains("12345"), "{}", reply.text());
    assert!(!format!("{:?}", reply.headers).contains("CANARY"), "{:?}", reply.headers);
    assert_eq!(reply.json()["entry"].as_array().unwrap().len(), 1);
}

/// T-163: missing, deleted, withheld, and another's: the same bytes but for the request id.
async fn one_and_the_same_404(gate: &Gate, physician: &str) {
    let (hospital, emr) = (&gate.hospital, gate.hospital.stage.emr());
    emr.put(br#"{"resourceType":"Condition","id":"deleted","subject":{"reference":"Patient/p1"}}"#).unwrap();
    emr.delete("Condition", "deleted");
    let nurse = hospital.token("nurse");
    let mut answers = Vec::new();
    for path in [
        "Condition/nobody",
        "Condition/deleted",
        "Condition/cond-depression",
        "Condition/cond-p3-substance",
        "Patient/p6",
        "Condition/nobody/_history/1",
        "Condition/cond-depression/_history/1",
        "Condition/cond-diabetes/_history/99",
    ] {
        answers.push((path, hospital.get_with(&nurse, path).await));
    }
    for path in ["Condition/nobody", "Condition/deleted"] {
        answers.push((path, hospital.get_with(physician, path).await));
    }
    answers.push(("another's", hospital.get("patient", "Patient/p2").await));
    answers.push(("another's", hospital.get("patient", "Condition/cond-p2").await));
    let one = answers[0].1.without_request_id();
    for (path, answer) in &answers {
        answer.check_refusal(404, "not-found");
        assert_eq!(answer.without_request_id(), one, "{path}");
    }
    check_recorded(&trail(&hospital.stage.config_file()), answers.iter().map(|(_, reply)| reply));
}
