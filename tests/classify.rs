//! Requests as data: each case of `tests/data/classify/*.toml` becomes its interaction or its refusal.
//!
//! A case has `target` and either `is` (the interaction, rendered) or `refused` (code and status class);
//! the rest has defaults. `wishes` is what the headers wish for; `allow` the Allow header of a refusal.
//! With `entry = true` the case is the request of a Bundle's entry, and its headers are those of one. Names cite the threats of the requirements (`T-`) and known failures (`KF-`).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken case file or case must stop the test")]

use chartgate::domain::fhir::classify::{
    Asked, EntryRequest, Expects, FhirRefusal, Head, IfNoneMatch, RefusalClass, Return, Wishes, classify,
    entry, expects,
};
use chartgate::domain::fhir::interaction::{Interaction, Operation, PatchFormat, Registry, Target};
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
    #[serde(default)]
    wishes: Option<String>,
    #[serde(default)]
    allow: Option<String>,
    #[serde(default)]
    entry: bool,
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

fn named(kind: &str, interaction: &Interaction) -> String {
    format!("{kind} {}", interaction.address()).trim_end().to_owned()
}

fn render(interaction: &Interaction) -> String {
    match interaction {
        Interaction::Read { .. } => named("read", interaction),
        Interaction::Vread { .. } => named("vread", interaction),
        Interaction::History(history) => named(history.code(), interaction),
        Interaction::Search(search) => {
            let owner = search.compartment().map_or_else(String::new, |compartment| {
                format!("{}/{}/", compartment.owner().name(), compartment.id().as_str())
            });
            format!("search {owner}{}?{}", search.resource_type().name(), search.canonical_question())
        }
        Interaction::SearchMany { legs, named: listed } => {
            let listed = if *listed { " named" } else { "" };
            named(&format!("search {} types{listed}:", legs.len()), interaction)
        }
        Interaction::NextPage { resource, token } => {
            format!("page {} {}", resource.map_or("base", |one| one.name()), token.as_str())
        }
        Interaction::Create { if_none_exist: None, .. } => named("create", interaction),
        Interaction::Create { if_none_exist: Some(search), .. } => {
            format!("{} unless {}", named("create", interaction), search.canonical_query())
        }
        Interaction::Update { target, .. } => named(&format!("update {}", by(target)), interaction),
        Interaction::Patch { target, format, .. } => {
            let language = match format {
                PatchFormat::JsonPatch => "json",
                PatchFormat::FhirPath => "fhirpath",
            };
            named(&format!("patch {} {language}", by(target)), interaction)
        }
        Interaction::Delete { target, .. } => named(&format!("delete {}", by(target)), interaction),
        Interaction::Bundle => "bundle".to_owned(),
        Interaction::Operation(operation) => match operation {
            Operation::Export { type_filters, .. } if !type_filters.is_empty() => {
                named(&format!("export with {} filters:", type_filters.len()), interaction)
            }
            operation => named(operation.name(), interaction),
        },
        Interaction::ExportStatus { .. } => named("status", interaction),
        Interaction::ExportCancel { .. } => named("cancel", interaction),
        Interaction::ExportFile { .. } => named("file", interaction),
        Interaction::Capabilities => "capabilities".to_owned(),
        Interaction::SmartConfiguration => "smart-configuration".to_owned(),
    }
}

fn by(target: &Target) -> &'static str {
    match target {
        Target::Id(_) => "id",
        Target::Match(_) => "match",
    }
}

/// Only what is wished, in words.
fn render_wishes(wishes: &Wishes) -> String {
    let mut words = Vec::new();
    words.extend(wishes.head_only.then(|| "head".to_owned()));
    words.extend(wishes.pretty.then(|| "pretty".to_owned()));
    words.extend(wishes.raw.then(|| "raw".to_owned()));
    words.extend((wishes.prefer != Return::Unstated).then(|| format!("{:?}", wishes.prefer)));
    words.extend(wishes.if_match.as_ref().map(|version| format!("match={}", version.as_str())));
    match &wishes.if_none_match {
        IfNoneMatch::None => {}
        IfNoneMatch::Any => words.push("none-match=*".to_owned()),
        IfNoneMatch::Versions(versions) => {
            let versions: Vec<&str> = versions.iter().map(|version| version.as_str()).collect();
            words.push(format!("none-match=[{}]", versions.join(",")));
        }
    }
    words.extend(wishes.if_modified_since.as_ref().map(|since| format!("since={since}")));
    words.extend(wishes.content.as_ref().map(|content| {
        format!("content={} of={}", content.content_type, content.security_context.as_deref().unwrap_or("-"))
    }));
    words.extend(wishes.codings.iter().map(|coding| format!("{coding:?}")));
    words.join(" ")
}

fn body_of(interaction: &Interaction, method: &str) -> Expects {
    match interaction {
        Interaction::Search(_) | Interaction::SearchMany { .. } if method == "POST" => Expects::Form,
        Interaction::Create { resource, .. } | Interaction::Update { resource, .. }
            if resource.name() == "Binary" =>
        {
            Expects::Binary
        }
        Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Bundle
        | Interaction::Operation(Operation::Validate { .. }) => Expects::Resource,
        Interaction::Patch { .. } => Expects::Patch,
        Interaction::Operation(_) if method == "POST" => Expects::Parameters,
        _ => Expects::Nothing,
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

fn answer(case: &Case) -> Result<Asked, FhirRefusal> {
    let base = PublicBase::parse(&case.base).unwrap();
    if case.entry {
        return answer_entry(case, &base);
    }
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
    let answer = classify(&head, case.form.as_deref().map(str::as_bytes), &base, &Registry::empty());
    if let Ok(asked) = &answer {
        assert_eq!(expects(&head, &base), Ok(body_of(&asked.interaction, &case.method)), "{}", case.name);
    }
    answer
}

fn answer_entry(case: &Case, base: &PublicBase) -> Result<Asked, FhirRefusal> {
    let header =
        |name: &str| case.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
    let request = EntryRequest {
        method: &case.method,
        url: &case.target,
        if_none_exist: header("ifNoneExist"),
        if_match: header("ifMatch"),
        if_none_match: header("ifNoneMatch"),
        if_modified_since: header("ifModifiedSince"),
    };
    entry(&request, &[], base, &Registry::empty())
}

fn check(case: &Case) -> Result<(), String> {
    let (got, wishes, allow) = match answer(case) {
        Ok(asked) => (render(&asked.interaction), render_wishes(&asked.wishes), None),
        Err(refusal) => {
            let not_allowed = refusal.class() == RefusalClass::MethodNotAllowed;
            if not_allowed != refusal.allow().is_some() {
                return Err(format!("{}: 405 and Allow belong together", case.name));
            }
            let got = format!("{} {}", status(refusal.class()), refusal.code());
            (got, String::new(), refusal.allow())
        }
    };
    let expected = case.is.as_ref().xor(case.refused.as_ref()).expect("either `is` or `refused`");
    let wished = case.wishes.as_ref().is_none_or(|expected| *expected == wishes);
    let allowed = case.allow.as_ref().is_none_or(|expected| Some(expected.as_str()) == allow);
    if got == *expected && wished && allowed {
        return Ok(());
    }
    let (name, target) = (&case.name, &case.target);
    Err(format!("{name}: {target}\n  expected {expected}\n  got      {got} · {wishes} · {allow:?}"))
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
fn ranges() {
    check_file(include_str!("data/classify/ranges.toml"));
}

#[test]
fn writes() {
    check_file(include_str!("data/classify/writes.toml"));
}

#[test]
fn operations() {
    check_file(include_str!("data/classify/operations.toml"));
}

#[test]
fn wishes() {
    check_file(include_str!("data/classify/wishes.toml"));
}

#[test]
fn entries() {
    check_file(include_str!("data/classify/entries.toml"));
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
        wishes: None,
        allow: None,
        entry: false,
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
        "/~export/canary",
        "/Patient/canary/Observation?code=canary",
        "/Patient/canary/$everything?start=canary",
        "/ValueSet/canary/$expand?filter=canary",
        "/CodeSystem/$lookup?code=canary&system=canary",
        "/Patient/canary/_history?_since=canary",
        "/?_type=canary",
    ] {
        let head = Head { method: "GET", target, authority: Some("fhir.test"), headers: &headers };
        let answer = classify(&head, None, &base, &Registry::empty());
        let shown = match &answer {
            Ok(asked) => format!("{asked:?} {head:?}"),
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
        let answer = classify(&Head::received(&parts), None, &base, &Registry::empty());
        answer.map(|asked| render(&asked.interaction)).map_err(|no| no.code())
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
