//! Requests as data: each case of `tests/data/classify/*.toml` becomes its interaction or its refusal.
//!
//! A case has `target` and either `is` (the interaction, rendered) or `refused` (code and status class);
//! the rest has defaults. Names cite the threats of the requirements (`T-`) and known failures (`KF-`).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken case file or case must stop the test")]

use chartgate::domain::fhir::classify::{FhirRefusal, Head, RefusalClass, classify, expects_form};
use chartgate::domain::fhir::interaction::Interaction;
use chartgate::domain::fhir::path::PublicBase;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    target: String,
    #[serde(default = "plain_base")]
    base: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default = "plain_host")]
    host: Vec<String>,
    #[serde(default)]
    authority: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    form: Option<String>,
    #[serde(default)]
    is: Option<String>,
    #[serde(default)]
    refused: Option<String>,
}

fn plain_base() -> String {
    "https://fhir.hospital.example/fhir".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn plain_host() -> Vec<String> {
    vec!["fhir.hospital.example".to_owned()]
}

fn render(interaction: &Interaction) -> String {
    match interaction {
        Interaction::Read { resource, id } => format!("read {}/{}", resource.name(), id.as_str()),
        Interaction::Vread { resource, id, version } => {
            format!("vread {}/{}/_history/{}", resource.name(), id.as_str(), version.as_str())
        }
        Interaction::Search(search) => {
            format!("search {}?{}", search.resource_type().name(), search.canonical_query())
        }
        Interaction::NextPage { resource, token } => format!("page {} {}", resource.name(), token.as_str()),
        Interaction::Capabilities => "capabilities".to_owned(),
        Interaction::SmartConfiguration => "smart-configuration".to_owned(),
    }
}

fn status(class: RefusalClass) -> u16 {
    match class {
        RefusalClass::BadRequest => 400,
        RefusalClass::Forbidden => 403,
        RefusalClass::NotFound => 404,
        RefusalClass::MethodNotAllowed => 405,
        RefusalClass::NotAcceptable => 406,
        RefusalClass::ContentTooLarge => 413,
        RefusalClass::TargetTooLong => 414,
        RefusalClass::UnsupportedMediaType => 415,
        RefusalClass::Misdirected => 421,
    }
}

fn answer(case: &Case) -> Result<Interaction, FhirRefusal> {
    let mut headers = HeaderMap::new();
    for host in &case.host {
        headers.append("host", HeaderValue::from_str(host).unwrap());
    }
    for (name, value) in &case.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let head = Head {
        method: &case.method,
        target: &case.target,
        authority: case.authority.as_deref(),
        headers: &headers,
    };
    let base = PublicBase::parse(&case.base).unwrap();
    let answer = classify(&head, case.form.as_deref().map(str::as_bytes), &base);
    if answer.is_ok() {
        assert_eq!(expects_form(&head, &base), Ok(case.method == "POST"), "{}", case.name);
    }
    answer
}

fn check(case: &Case) -> Result<(), String> {
    let got = match answer(case) {
        Ok(interaction) => render(&interaction),
        Err(refusal) => {
            if refusal.class() == RefusalClass::MethodNotAllowed && refusal.allow().is_none() {
                return Err(format!("{}: 405 without Allow", case.name));
            }
            format!("{} {}", status(refusal.class()), refusal.code())
        }
    };
    let expected = case.is.as_ref().xor(case.refused.as_ref()).expect("either `is` or `refused`");
    if got == *expected {
        return Ok(());
    }
    Err(format!("{}: {}\n  expected {expected}\n  got      {got}", case.name, case.target))
}

#[track_caller]
fn check_file(text: &str) {
    let file: File = toml::from_str(text).unwrap();
    let wrong: Vec<String> = file.case.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} wrong\n{}", wrong.len(), file.case.len(), wrong.join("\n"));
}

#[test]
fn routes() {
    check_file(include_str!("data/classify/routes.toml"));
}

#[test]
fn paths() {
    check_file(include_str!("data/classify/paths.toml"));
}

#[test]
fn heads() {
    check_file(include_str!("data/classify/heads.toml"));
}

#[test]
fn searches() {
    check_file(include_str!("data/classify/searches.toml"));
}

#[test]
fn queries() {
    check_file(include_str!("data/classify/queries.toml"));
}

#[test]
fn oversized_requests_are_refused_by_name() {
    let case = |target: String, form: Option<String>| Case {
        name: "size".to_owned(),
        target,
        base: plain_base(),
        method: if form.is_some() { "POST".to_owned() } else { get() },
        host: plain_host(),
        authority: None,
        headers: vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())],
        form,
        is: None,
        refused: None,
    };
    let refused = |case: &Case| answer(case).unwrap_err().code();
    let long = format!("/fhir/Patient?name={}", "a".repeat(9000));
    assert_eq!(refused(&case(long, None)), "target-too-long");
    let search = "/fhir/Patient/_search".to_owned();
    let form = format!("name={}", "a".repeat(70_000));
    assert_eq!(refused(&case(search.clone(), Some(form))), "form-too-large");
    let form = format!("name={}", "a".repeat(17_000));
    assert_eq!(refused(&case(search.clone(), Some(form))), "malformed-query");
    let form = vec!["name=a"; 65].join("&");
    assert_eq!(refused(&case(search.clone(), Some(form))), "too-many-parameters");
    let form = format!("_id={}", vec!["a"; 201].join(","));
    assert_eq!(refused(&case(search, Some(form))), "malformed-value");
    let deep = format!("/fhir{}", "/a".repeat(9));
    assert_eq!(refused(&case(deep, None)), "unknown-path");
}

#[test]
fn refusals_and_debug_show_nothing_the_client_sent() {
    let headers = HeaderMap::new();
    let base = PublicBase::parse("https://fhir.test").unwrap();
    for target in [
        "/Patient?canary=canary",
        "/Patient?name:canary=canary",
        "/Patient?birthdate=canary",
        "/Patient?access_token=canary",
        "/Patient?_has:canary:canary:canary=canary",
        "/Patient?_sort=canary",
        "/Patient?_include=canary:canary",
        "/canary/canary",
        "/Patient/canary%2fcanary",
        "/Patient/canary",
        "/Patient?name=canary&family:exact=canary",
        "/Patient?~page=canary",
    ] {
        let head = Head { method: "GET", target, authority: Some("fhir.test"), headers: &headers };
        let answer = classify(&head, None, &base);
        let shown = match &answer {
            Ok(interaction) => format!("{interaction:?} {head:?}"),
            Err(refusal) => format!("{refusal} {refusal:?} {head:?}"),
        };
        assert!(!shown.contains("canary"), "{target}: {shown}");
    }
}

#[test]
fn heads_are_read_as_the_http_library_hands_them_over() {
    let base = PublicBase::parse("https://fhir.test").unwrap();
    let ask = |version: http::Version, uri: &str, host: Option<&str>| {
        let mut request = http::Request::builder().version(version).uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        classify(&Head::received(&parts), None, &base).map(|found| render(&found)).map_err(|no| no.code())
    };
    let read = Ok("read Patient/1".to_owned());
    let (one, two) = (http::Version::HTTP_11, http::Version::HTTP_2);
    assert_eq!(ask(one, "/Patient/1", Some("fhir.test")), read);
    assert_eq!(ask(one, "https://fhir.test/Patient/1", Some("fhir.test")), Err("malformed-target"));
    assert_eq!(ask(one, "/Patient/1", None), Err("malformed-host"));
    assert_eq!(ask(two, "https://fhir.test/Patient/1", None), read);
    assert_eq!(ask(two, "https://fhir.test/Patient/1", Some("evil.test")), Err("wrong-host"));
    assert_eq!(ask(two, "https://evil.test/Patient/1", None), Err("wrong-host"));
}
