//! Tests of the interactions over HTTP: scripts of requests with the status and members each answer must have.

use serde_json::Value;

use super::tests::{ask, charted, json, served};
use super::*;

/// Method, target below the base, headers, body, status, and members (`/pointer=value`) or headers (`name=value`).
type Step<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a [&'a str]);

/// Plays a script; `{base}` in expectations is the EMR's.
async fn play(emr: &Emr, steps: &[Step<'_>]) {
    let (_server, base) = served(emr).await;
    for (method, target, headers, body, status, wanted) in steps {
        let slash = if target.is_empty() || target.starts_with('?') { "" } else { "/" };
        let answer = ask(method, &format!("{base}{slash}{target}"), headers, body).await;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status().as_u16(), *status, "{method} {target}: {text}");
        for want in *wanted {
            let (place, value) = want.split_once('=').unwrap();
            let value = value.replace("{base}", &base);
            let has = if place.starts_with('/') {
                let found = json(&answer).pointer(place).cloned().unwrap_or(Value::Null);
                found.as_str().map_or_else(|| found.to_string(), str::to_owned)
            } else {
                answer.headers().get(place).map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
            };
            assert_eq!(has, value, "{method} {target}: {place} in {text}");
        }
    }
}

const BODY: &str = r#"{"resourceType":"Patient","identifier":[{"system":"s","value":"1"}],"x":0.010}"#;
const NAMED: &str = r#"{"resourceType":"Patient","id":"new","birthDate":"2000"}"#;
const PATCH: (&str, &str) = ("content-type", "application/json-patch+json");

const BY_ID: &[Step<'static>] = &[
    ("PUT", "Patient/new", &[("if-match", "W/\"1\"")], NAMED, 412, &[]),
    (
        "PUT",
        "Patient/new",
        &[],
        NAMED,
        201,
        &[
            "location={base}/Patient/new/_history/1",
            "content-location={base}/Patient/new/_history/1",
            "etag=W/\"1\"",
        ],
    ),
    ("PUT", "Patient/new", &[("if-none-match", "*")], NAMED, 412, &[]),
    ("PUT", "Patient/new", &[("if-match", "\"1\"")], NAMED, 200, &["/meta/versionId=2"]),
    ("PUT", "Patient/new", &[("if-match", "W/\"1\"")], NAMED, 412, &[]),
    (
        "PUT",
        "Patient/new",
        &[("prefer", "return=minimal")],
        NAMED,
        200,
        &["etag=W/\"3\"", "content-length=0"],
    ),
    (
        "PUT",
        "Patient/new",
        &[("prefer", "return=OperationOutcome")],
        NAMED,
        200,
        &["/resourceType=OperationOutcome", "/issue/0/severity=information"],
    ),
    ("GET", "Patient/new", &[("if-none-match", "W/\"9\", \"4\"")], "", 304, &[]),
    ("GET", "Patient/new", &[("if-modified-since", "Sat, 01 Jan 2050 00:00:00 GMT")], "", 304, &[]),
    ("GET", "Patient/new", &[("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT")], "", 200, &[]),
    ("PATCH", "Patient/new", &[PATCH], r#"[{"op":"test","path":"/birthDate","value":"1999"}]"#, 422, &[]),
    ("PATCH", "Patient/new", &[PATCH], r#"[{"op":"replace","path":"/id","value":"other"}]"#, 422, &[]),
    ("PATCH", "Patient/new", &[PATCH], "{}", 400, &[]),
    ("PATCH", "Patient/none", &[PATCH], "[]", 404, &[]),
    (
        "PATCH",
        "Patient/new",
        &[PATCH, ("if-match", "W/\"4\"")],
        r#"[{"op":"add","path":"/active","value":true}]"#,
        200,
        &["/active=true", "/meta/versionId=5"],
    ),
    ("DELETE", "Patient/new", &[("if-match", "W/\"4\"")], "", 412, &[]),
    ("DELETE", "Patient/new", &[("if-match", "W/\"5\"")], "", 204, &[]),
    ("DELETE", "Patient/new", &[], "", 204, &[]),
    ("GET", "Patient/new", &[], "", 410, &["/issue/0/code=deleted"]),
    ("GET", "Patient/new/_history/6", &[], "", 410, &[]),
    ("GET", "Patient/new/_history/5", &[], "", 200, &[]),
    ("PATCH", "Patient/new", &[PATCH], "[]", 404, &[]),
    ("PUT", "Patient/new", &[("if-match", "W/\"6\"")], NAMED, 412, &[]),
    ("PUT", "Patient/new", &[], NAMED, 201, &["/meta/versionId=7"]),
];

#[tokio::test]
async fn writes_by_id() {
    let emr = Emr::new();
    play(&emr, BY_ID).await;
}

#[tokio::test]
async fn writes_by_condition() {
    let emr = Emr::new();
    let twice = r#"{"resourceType":"Patient","identifier":[{"system":"s","value":"1"}],"id":"other"}"#;
    play(
        &emr,
        &[
            ("POST", "Patient", &[("if-none-exist", "identifier=s|1")], BODY, 201, &["/id=s1"]),
            (
                "POST",
                "Patient",
                &[("if-none-exist", "Patient?identifier=s|1")],
                BODY,
                200,
                &["/id=s1", "etag=W/\"1\""],
            ),
            ("POST", "Patient", &[("if-none-exist", "shoe-size=1")], BODY, 400, &[]),
            ("PUT", "Patient?identifier=s|1", &[], BODY, 200, &["/id=s1", "/meta/versionId=2"]),
            ("PUT", "Patient?identifier=s|1", &[], twice, 400, &[]),
            ("PUT", "Patient?identifier=s|2", &[], BODY, 201, &["/id=s2"]),
            ("PUT", "Patient?identifier=s|3", &[], twice, 201, &["/id=other"]),
            ("PUT", "Patient?identifier=s|4", &[], twice, 409, &[]),
            ("PUT", "Patient", &[], BODY, 400, &[]),
            ("PUT", "Patient?identifier=s|1", &[], BODY, 412, &["/issue/0/code=multiple-matches"]),
            ("PATCH", "Patient?identifier=s|1", &[PATCH], "[]", 412, &[]),
            ("PATCH", "Patient?_id=s2", &[PATCH], "[]", 200, &["/meta/versionId=2"]),
            ("PATCH", "Patient?_id=none", &[PATCH], "[]", 404, &[]),
            ("DELETE", "Patient?identifier=s|1", &[], "", 412, &[]),
            ("DELETE", "Patient?_id=s2,none", &[], "", 204, &[]),
            ("DELETE", "Patient?_id=none", &[], "", 204, &[]),
            ("GET", "Patient/s2", &[], "", 410, &[]),
            ("POST", "Patient", &[("if-none-exist", "identifier=s|1")], BODY, 412, &[]),
        ],
    )
    .await;
}

#[test]
fn patches_keep_what_they_do_not_touch() {
    let whole = "{\"a\": 0.010,\r\n\"b\":[1E2,{\"c\":\"\\u00e9\\/\"}],\"d/e~\":null}";
    let cases = [
        (r#"[]"#, r#"{"a":0.010,"b":[1E2,{"c":"\u00e9\/"}],"d/e~":null}"#),
        (
            r#"[{"op":"add","path":"/b/1","value":{"z":1.50}}]"#,
            r#"{"a":0.010,"b":[1E2,{"z":1.50},{"c":"\u00e9\/"}],"d/e~":null}"#,
        ),
        (
            r#"[{"op":"add","path":"/b/-","value":2}]"#,
            r#"{"a":0.010,"b":[1E2,{"c":"\u00e9\/"},2],"d/e~":null}"#,
        ),
        (r#"[{"op":"remove","path":"/d~1e~0"}]"#, r#"{"a":0.010,"b":[1E2,{"c":"\u00e9\/"}]}"#),
        (
            r#"[{"op":"move","from":"/b/0","path":"/f"}]"#,
            r#"{"a":0.010,"b":[{"c":"\u00e9\/"}],"d/e~":null,"f":1E2}"#,
        ),
        (
            r#"[{"op":"copy","from":"/a","path":"/b/0"}]"#,
            r#"{"a":0.010,"b":[0.010,1E2,{"c":"\u00e9\/"}],"d/e~":null}"#,
        ),
        (
            r#"[{"op":"test","path":"/b","value":[100,{"c":"é/"}]},{"op":"replace","path":"/b","value":7}]"#,
            r#"{"a":0.010,"b":7,"d/e~":null}"#,
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(patch::apply(whole, given.as_bytes()).unwrap(), expected, "{given}");
    }
    let broken = [
        (r#"[{"op":"remove","path":"/z"}]"#, patch::Misapplied::Conflict),
        (r#"[{"op":"add","path":"/b/9","value":1}]"#, patch::Misapplied::Conflict),
        (r#"[{"op":"add","path":"/b/01","value":1}]"#, patch::Misapplied::Conflict),
        (r#"[{"op":"test","path":"/a","value":"0.010"}]"#, patch::Misapplied::Conflict),
        (r#"[{"op":"add","path":"b","value":1}]"#, patch::Misapplied::Malformed),
        (r#"[{"op":"add","path":"/b"}]"#, patch::Misapplied::Malformed),
        (r#"[{"op":"grow","path":"/b"}]"#, patch::Misapplied::Malformed),
    ];
    for (given, expected) in broken {
        assert_eq!(patch::apply(whole, given.as_bytes()), Err(expected), "{given}");
    }
}

#[tokio::test]
async fn histories() {
    let emr = Emr::new();
    let at = |text: &str| emr.set_time(Some(text.parse().unwrap()));
    at("2026-01-01T00:00:00Z");
    emr.put(NAMED.as_bytes()).unwrap();
    at("2026-01-02T00:00:00Z");
    emr.put(br#"{"resourceType":"Basic","id":"b"}"#).unwrap();
    at("2026-01-03T00:00:00Z");
    emr.put(NAMED.as_bytes()).unwrap();
    at("2026-01-04T00:00:00Z");
    emr.delete("Patient", "new");
    play(
        &emr,
        &[
            (
                "GET",
                "Patient/new/_history",
                &[],
                "",
                200,
                &[
                    "/total=3",
                    "/entry/0/request/method=DELETE",
                    "/entry/0/resource=null",
                    "/entry/0/response/status=204",
                    "/entry/1/resource/meta/versionId=2",
                    "/entry/1/response/etag=W/\"2\"",
                    "/entry/2/response/status=201",
                    "/entry/2/fullUrl={base}/Patient/new",
                ],
            ),
            ("GET", "Patient/_history", &[], "", 200, &["/total=3"]),
            ("GET", "_history", &[], "", 200, &["/total=4", "/entry/2/resource/resourceType=Basic"]),
            ("GET", "_history?_since=2026-01-03", &[], "", 200, &["/total=2"]),
            (
                "GET",
                "_history?_at=2026-01-02T12:00:00Z",
                &[],
                "",
                200,
                &["/total=2", "/entry/1/resource/meta/versionId=1"],
            ),
            ("GET", "_history?_at=2026-01-03", &[], "", 200, &["/total=2"]),
            (
                "GET",
                "_history?_count=3",
                &[],
                "",
                200,
                &["/total=4", "/entry/3=null", "/link/1/relation=next"],
            ),
            ("GET", "_history?_since=soon", &[], "", 400, &[]),
            ("GET", "Patient/none/_history", &[], "", 404, &[]),
        ],
    )
    .await;
    let (_server, base) = served(&emr).await;
    let first = json(&ask("GET", &format!("{base}/_history?_count=3"), &[], "").await);
    let next = json(&ask("GET", first["link"][1]["url"].as_str().unwrap(), &[], "").await);
    assert_eq!(next["entry"].as_array().unwrap().len(), 1);
    assert_eq!(next["entry"][0]["response"]["lastModified"], "2026-01-01T00:00:00.000Z");
}

const MIXED: &str = r#"{"resourceType":"Bundle","type":"KIND","entry":[
 {"request":{"method":"GET","url":"Patient/p2"}},
 {"request":{"method":"GET","url":"Patient?family=Exemplo"}},
 {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","v":0.010,"link":[{"other":{"reference":"urn:uuid:2"}}]},"request":{"method":"POST","url":"Patient"}},
 {"fullUrl":"urn:uuid:2","resource":{"resourceType":"Patient","id":"made"},"request":{"method":"PUT","url":"Patient/made"}},
 {"resource":{"resourceType":"Observation","subject":{"reference":"Patient?identifier=0000-2222"},"focus":[{"reference":"urn:uuid:1"}]},"request":{"method":"POST","url":"Observation"}},
 {"resource":{"resourceType":"Patient","identifier":[{"value":"0000-3333"}]},"request":{"method":"PUT","url":"Patient?identifier=0000-3333"}},
 {"resource":{"resourceType":"Binary","contentType":"application/json-patch+json","data":"W3sib3AiOiJhZGQiLCJwYXRoIjoiL2FjdGl2ZSIsInZhbHVlIjpmYWxzZX1d"},"request":{"method":"PATCH","url":"Patient/p4"}},
 {"request":{"method":"DELETE","url":"Flag/none"}},
 {"resource":{"resourceType":"Patient"},"request":{"method":"POST","url":"Patient","ifNoneExist":"identifier=0000-2222"}},
 {"resource":{"resourceType":"Patient","id":"p5"},"request":{"method":"PUT","url":"Patient/p5","ifMatch":"W/\"MATCH\""}}]}"#;

#[tokio::test]
async fn transactions_do_every_verb_in_order() {
    let emr = charted();
    let bundle = MIXED.replace("KIND", "transaction").replace("MATCH", "1");
    play(
        &emr,
        &[(
            "POST",
            "",
            &[],
            &bundle,
            200,
            &[
                "/type=transaction-response",
                "/entry/0/resource/id=p2",
                "/entry/0/response/status=200 OK",
                "/entry/0/response/etag=W/\"1\"",
                "/entry/1/resource/total=1",
                "/entry/2/response/status=201 Created",
                "/entry/2/response/location=Patient/s1/_history/1",
                "/entry/2/resource=null",
                "/entry/3/response/location=Patient/made/_history/1",
                "/entry/5/response/location=Patient/p3/_history/2",
                "/entry/6/response/location=Patient/p4/_history/2",
                "/entry/7/response/status=204 No Content",
                "/entry/8/response/status=200 OK",
                "/entry/8/response/location=Patient/p2/_history/1",
                "/entry/9/response/etag=W/\"2\"",
            ],
        )],
    )
    .await;
    let read = |name: &str, id: &str| String::from_utf8(emr.read(name, id).unwrap().to_vec()).unwrap();
    assert!(read("Patient", "s1").contains(r#""v":0.010,"link":[{"other":{"reference":"Patient/made"}}]"#));
    let [.., last] = &emr.ids("Observation")[..] else { panic!() };
    let observation = read("Observation", last);
    assert!(observation.contains(r#"{"reference":"Patient/p2"}"#), "{observation}");
    assert!(observation.contains(r#"[{"reference":"Patient/s1"}]"#), "{observation}");
    assert!(read("Patient", "p4").contains(r#""active":false"#));
}

#[tokio::test]
async fn failed_transactions_leave_nothing() {
    let emr = charted();
    let before: Vec<_> = emr.census();
    let p4 = emr.read("Patient", "p4");
    let failing = [
        (MIXED.replace("KIND", "transaction").replace("MATCH", "7"), 412),
        (
            MIXED
                .replace("KIND", "transaction")
                .replace("MATCH", "1")
                .replace("Patient/p2\"", "Patient/none\""),
            404,
        ),
        (
            MIXED
                .replace("KIND", "transaction")
                .replace("MATCH", "1")
                .replace("identifier=0000-2222\"},", "identifier=nobody\"},"),
            412,
        ),
        (MIXED.replace("KIND", "transaction").replace("MATCH", "1").replace("p5", "p4"), 400),
        (MIXED.replace("KIND", "message"), 400),
    ];
    for (bundle, status) in &failing {
        play(&emr, &[("POST", "", &[], bundle, *status, &["/resourceType=OperationOutcome"])]).await;
        assert_eq!(emr.census(), before);
        assert_eq!(emr.read("Patient", "p4"), p4, "the patch is taken back");
        assert_eq!(super::tests::found(&emr, "Patient", "active=false"), "", "the index too");
    }
    // The same as a batch: what can be done is done.
    let batch = MIXED.replace("KIND", "batch").replace("MATCH", "7");
    play(
        &emr,
        &[(
            "POST",
            "",
            &[("prefer", "return=representation")],
            &batch,
            200,
            &[
                "/type=batch-response",
                "/entry/2/resource/v=0.01",
                "/entry/9/response/status=412 Precondition Failed",
                "/entry/9/response/outcome/resourceType=OperationOutcome",
            ],
        )],
    )
    .await;
    assert_eq!(super::tests::found(&emr, "Patient", "active=false"), "p4");
}

const INCOMPLETE: &str = r#"{"resourceType":"Observation","status":"final"}"#;
const WRAPPED: &str = r#"{"resourceType":"Parameters","parameter":[{"name":"resource","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"}}}]}"#;

const OPERATIONS: &[Step<'static>] = &[
    (
        "POST",
        "Observation/$validate",
        &[],
        INCOMPLETE,
        200,
        &["/issue/0/severity=error", "/issue/0/expression/0=Observation.code", "/issue/1=null"],
    ),
    ("POST", "Observation/$validate", &[], WRAPPED, 200, &["/issue/0/severity=information"]),
    ("POST", "Patient/$validate", &[], INCOMPLETE, 200, &["/issue/0/code=structure"]),
    (
        "GET",
        "ValueSet/$expand?url=http://hospital.example/fhir/ValueSet/wards",
        &[],
        "",
        200,
        &["/expansion/total=5", "/expansion/contains/1/code=m1"],
    ),
    (
        "GET",
        "ValueSet/vs-wards/$expand?filter=surg&count=1",
        &[],
        "",
        200,
        &["/expansion/total=1", "/expansion/contains/0/display=Surgical wards"],
    ),
    ("GET", "ValueSet/$expand?url=urn:none", &[], "", 404, &[]),
    ("GET", "ValueSet/$expand", &[], "", 400, &[]),
    (
        "GET",
        "CodeSystem/$lookup?system=http://hospital.example/fhir/CodeSystem/wards&code=m2",
        &[],
        "",
        200,
        &["/parameter/2/valueString=Ward M2", "/parameter/3/part/1/valueCode=medical"],
    ),
    ("GET", "CodeSystem/$lookup?system=urn:none&code=m2", &[], "", 404, &[]),
    (
        "GET",
        "Patient/p1/$everything?_count=2",
        &[],
        "",
        200,
        &["/entry/0/resource/id=p1", "/entry/2=null", "/link/1/relation=next"],
    ),
    (
        "POST",
        "_search",
        &[("content-type", "application/x-www-form-urlencoded")],
        "_id=p1",
        200,
        &["/total=1"],
    ),
    (
        "POST",
        "Patient/p2/Condition/_search",
        &[("content-type", "application/x-www-form-urlencoded")],
        "code=44054006",
        200,
        &["/total=1"],
    ),
    ("POST", "Patient/$everything", &[], "", 404, &[]),
    (
        "GET",
        "metadata",
        &[],
        "",
        200,
        &[
            "/rest/0/resource/0/type=Account",
            "/rest/0/resource/0/conditionalDelete=single",
            "/rest/0/resource/145/type=VisionPrescription",
        ],
    ),
];

#[tokio::test]
async fn operations_answer() {
    let emr = charted();
    emr.load_extras().unwrap();
    play(&emr, OPERATIONS).await;
}

#[tokio::test]
async fn exports_run_and_end() {
    let emr = charted();
    emr.load_extras().unwrap();
    emr.put(b"{\"resourceType\":\"Basic\",\r\n\"id\":\"lines\",\"subject\":{\"reference\":\"Patient/p6\"}}")
        .unwrap();
    let (_server, base) = served(&emr).await;
    let kick_off = [("prefer", "respond-async"), ("accept", "application/fhir+json")];
    assert_eq!(ask("GET", &format!("{base}/$export"), &[], "").await.status(), 400);
    assert_eq!(ask("GET", &format!("{base}/Group/none/$export"), &kick_off, "").await.status(), 404);
    assert_eq!(ask("GET", &format!("{base}/$export?_outputFormat=csv"), &kick_off, "").await.status(), 400);
    // Address, and the lines of each file.
    let cases = [
        ("$export?_type=Patient,Group", "Group:2 Patient:6"),
        ("Patient/$export?_type=Patient,Group,Practitioner,Consent", "Consent:1 Group:2 Patient:6"),
        ("Group/group-ward/$export?_type=Patient,Condition", "Condition:4 Patient:3"),
        ("Group/group-ward/$export?_type=Basic,Flag&_outputFormat=ndjson", "Basic:1 Flag:1"),
        ("$export?_type=Patient&_since=2026-01-31", "Patient:1"),
        (
            "$export?_type=Patient,Group&_typeFilter=Patient%3Fgender%3Dmale&_typeFilter=Patient%3F_id%3Dp1",
            "Group:2 Patient:3",
        ),
    ];
    for (target, expected) in cases {
        let started = ask("GET", &format!("{base}/{target}"), &kick_off, "").await;
        assert_eq!(started.status(), 202, "{target}");
        let place = started.headers()["content-location"].to_str().unwrap().to_owned();
        let waiting = ask("GET", &place, &[], "").await;
        assert_eq!(
            (waiting.status().as_u16(), &waiting.headers()["retry-after"]),
            (202, &http::HeaderValue::from_static("1"))
        );
        let manifest = json(&ask("GET", &place, &[], "").await);
        assert_eq!(manifest["request"], format!("{base}/{target}"));
        let mut has = Vec::new();
        for output in manifest["output"].as_array().unwrap() {
            let file = ask("GET", output["url"].as_str().unwrap(), &[], "").await;
            assert_eq!(file.headers()["content-type"], "application/fhir+ndjson");
            let text = String::from_utf8(file.body().to_vec()).unwrap();
            for line in text.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_eq!(record["resourceType"], output["type"]);
            }
            assert_eq!(output["count"], text.lines().count());
            has.push(format!("{}:{}", output["type"].as_str().unwrap(), text.lines().count()));
        }
        assert_eq!(has.join(" "), expected, "{target}");
        assert_eq!(ask("DELETE", &place, &[], "").await.status(), 202);
        assert_eq!(ask("GET", &place, &[], "").await.status(), 404);
        assert_eq!(ask("GET", manifest["output"][0]["url"].as_str().unwrap(), &[], "").await.status(), 404);
    }
}
