//! Laws of classification. The cases, one by one, are in `tests/classify.rs`.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{
    EntryRequest, Expects, FhirRefusal, Head, asked, asked_whole, classify, continued, entry, expects,
};
use crate::domain::fhir::interaction::{Interaction, Operation, PatchFormat, Target};
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::{Registry, encode};

fn base() -> PublicBase {
    PublicBase::parse("https://fhir.test").unwrap()
}

/// The request that asks an interaction in its one spelling.
fn spelled(interaction: &Interaction) -> String {
    let line = format!("{} /{}", interaction.method(), interaction.address());
    match interaction {
        Interaction::Create { if_none_exist: Some(search), .. } => {
            format!("{line}\nIf-None-Exist: {}", search.canonical_query())
        }
        Interaction::Patch { format: PatchFormat::FhirPath, .. } => {
            format!("{line}\nContent-Type: application/fhir+json")
        }
        _ => line,
    }
}

fn is_paged(interaction: &Interaction) -> bool {
    matches!(
        interaction,
        Interaction::Search(_)
            | Interaction::SearchMany { .. }
            | Interaction::History(_)
            | Interaction::Operation(Operation::Everything { .. } | Operation::Export { .. })
    )
}

/// The closure law: what we would ask is understood at the front door as just that.
fn check_round_trip(interaction: &Interaction) {
    let request = spelled(interaction);
    let again = asked(&request).unwrap_or_else(|refusal| panic!("{request}: {refusal}"));
    assert_eq!(again.address(), interaction.address());
    assert!(again == *interaction, "{request}");
    let url = base().question_url(interaction);
    let below = url.strip_prefix("https://fhir.test").unwrap();
    assert_eq!(below.strip_prefix('/').unwrap_or(below), interaction.address());
    let page = continued(&interaction.address(), &base(), &Registry::empty());
    assert_eq!(page.as_ref().ok().filter(|_| is_paged(interaction)).is_some(), is_paged(interaction));
    if is_paged(interaction) {
        assert!(page.unwrap() == *interaction, "{request}");
    }
}

fn id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9.-]{1,12}".prop_filter("not made of dots", |id| id.bytes().any(|byte| byte != b'.'))
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{0,40}[A-Za-z0-9_-]"
}

fn type_name() -> impl Strategy<Value = &'static str> + Clone {
    let names: Vec<&str> = ResourceType::all().map(ResourceType::name).collect();
    prop::sample::select(names)
}

/// Any text, spelled as a search value and percent-encoded, in one of two ways.
fn text() -> impl Strategy<Value = String> {
    ("[^\\p{C}]{0,6}[a-zé|]", any::<bool>()).prop_map(|(text, plus)| {
        let escaped: String = text
            .chars()
            .flat_map(|one| "\\,$|".contains(one).then_some('\\').into_iter().chain(Some(one)))
            .collect();
        let encoded = encode(&escaped);
        if plus { encoded.replace("%20", "+") } else { encoded }
    })
}

/// A criterion that every type has.
fn common() -> impl Strategy<Value = String> {
    prop_oneof![
        id().prop_map(|id| format!("_id={id}")),
        (2000..2100).prop_map(|year| format!("_lastUpdated=gt{year}-02,lt{year}")),
        text().prop_map(|text| format!("_tag={text}")),
        text().prop_map(|text| format!("_security:not=http://x%7C{text}")),
        Just("_profile=http://x/y".to_owned()),
        Just("_source:below=http://x".to_owned()),
    ]
}

fn criterion_of_patient() -> impl Strategy<Value = String> {
    prop_oneof![
        common(),
        text().prop_map(|text| format!("name={text}")),
        (text(), text()).prop_map(|(one, other)| format!("family:exact={one},{other}")),
        text().prop_map(|text| format!("identifier=http://x|{text}")),
        text().prop_map(|text| format!("general-practitioner:Practitioner.name={text}")),
        text().prop_map(|text| format!("_has:Observation:patient:code={text}")),
        id().prop_map(|id| format!("general-practitioner=https://fhir.test/Practitioner/{id}")),
        Just("birthdate:missing=true".to_owned()),
    ]
}

fn wish() -> impl Strategy<Value = String> {
    prop_oneof![
        (1..5000).prop_map(|count| format!("_count={count}")),
        Just("_total=accurate".to_owned()),
        prop::sample::select(vec!["true", "text", "data", "count", "false"])
            .prop_map(|summary| format!("_summary={summary}")),
        Just("_elements=meta,id".to_owned()),
        Just("_pretty=true".to_owned()),
        Just("_format=json".to_owned()),
    ]
}

fn joined(
    some: impl Strategy<Value = String>,
    at_least: usize,
    wishes: bool,
) -> impl Strategy<Value = String> {
    let wished = prop::option::of(wish());
    (prop::collection::vec(some, at_least..4), wished).prop_map(move |(mut pairs, wished)| {
        pairs.extend(wished.filter(|_| wishes));
        pairs.join("&")
    })
}

fn instant() -> impl Strategy<Value = String> {
    (1990..2040, 1..12, 1..28, any::<bool>()).prop_map(|(year, month, day, zulu)| {
        let zone = if zulu { "Z" } else { "%2B01:00" };
        format!("{year}-{month:02}-{day:02}T09:05:00.123{zone}")
    })
}

fn record_shape() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "?_summary=true",
        "?_elements=meta,id,meta",
        "?_summary=false",
        "?_pretty=true",
    ])
}

/// Requests that are all understood, in many spellings.
fn understood() -> impl Strategy<Value = String> {
    let owner = prop::sample::select(vec!["Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"]);
    let level = prop_oneof![
        Just("$export".to_owned()),
        Just("Patient/$export".to_owned()),
        id().prop_map(|id| format!("Group/{id}/$export")),
    ];
    let writable = type_name().prop_filter("not a subscription", |name| *name != "Subscription");
    prop_oneof![
        (type_name(), id(), record_shape()).prop_map(|(name, id, shape)| format!("GET /{name}/{id}{shape}")),
        (type_name(), id(), id(), record_shape())
            .prop_map(|(name, id, version, shape)| format!("GET /{name}/{id}/_history/{version}{shape}")),
        (type_name(), id(), instant())
            .prop_map(|(name, id, since)| format!("GET /{name}/{id}/_history?_since={since}&_count=3")),
        (type_name(), instant())
            .prop_map(|(name, since)| format!("GET /{name}/_history?_at={since}&_summary=data")),
        instant().prop_map(|since| format!("GET /_history?_elements=id&_since={since}")),
        joined(criterion_of_patient(), 0, true).prop_map(|query| format!("GET /Patient?{query}")),
        joined(criterion_of_patient(), 0, true).prop_map(|query| format!("POST /Patient/_search\n\n{query}")),
        (owner.clone(), id(), joined(common(), 0, true))
            .prop_map(|(owner, id, query)| format!("GET /{owner}/{id}/Observation?{query}")),
        (owner, id(), joined(common(), 0, true))
            .prop_map(|(owner, id, query)| format!("GET /{owner}/{id}/*?{query}")),
        (type_name(), type_name(), joined(common(), 1, true))
            .prop_map(|(one, other, query)| format!("GET /?_type={one},{other}&{query}")),
        Just("GET /".to_owned()),
        (type_name(), token()).prop_map(|(name, token)| format!("GET /{name}?~page={token}")),
        token().prop_map(|token| format!("GET /?~page={token}")),
        writable.clone().prop_map(|name| format!("POST /{name}")),
        joined(criterion_of_patient(), 1, false)
            .prop_map(|query| format!("POST /Patient\nIf-None-Exist: {query}")),
        (writable.clone(), id()).prop_map(|(name, id)| format!("PUT /{name}/{id}")),
        (writable.clone(), joined(common(), 1, false))
            .prop_map(|(name, query)| format!("PUT /{name}?{query}")),
        (writable.clone(), id()).prop_map(|(name, id)| format!("PATCH /{name}/{id}")),
        (writable.clone(), joined(common(), 1, false))
            .prop_map(|(name, query)| format!("PATCH /{name}?{query}\nContent-Type: application/fhir+json")),
        (type_name(), id()).prop_map(|(name, id)| format!("DELETE /{name}/{id}")),
        joined(criterion_of_patient(), 1, false).prop_map(|query| format!("DELETE /Patient?{query}")),
        Just("POST /".to_owned()),
        (id(), instant(), type_name()).prop_map(|(id, since, name)| format!(
            "GET /Patient/{id}/$everything?_type={name}&_since={since}"
        )),
        (1..100, joined(common(), 1, false), id()).prop_map(|(max, query, id)| {
            format!("GET /Observation/$lastn?max={max}&subject=Patient/{id}&code=x&{query}")
        }),
        type_name().prop_map(|name| format!("POST /{name}/$validate?mode=create")),
        text().prop_map(|text| format!("GET /ValueSet/$expand?url=http://x&count=3&filter=x{text}")),
        id().prop_map(|id| format!("GET /ValueSet/{id}/$expand")),
        Just("GET /CodeSystem/$lookup?system=http://x&code=a%20b&property=b&property=a".to_owned()),
        (level, joined(criterion_of_patient(), 1, false), instant())
            .prop_filter("an export's filter is one that a record answers", |(_, query, _)| is_judgeable(
                query
            ))
            .prop_map(|(level, query, since)| {
                format!(
                    "GET /{level}?_since={since}&_typeFilter=Patient%3F{},Group%3F_id%3D1",
                    encode(&query)
                )
            }),
        token().prop_map(|token| format!("DELETE /~export/{token}")),
        token().prop_map(|token| format!("GET /~export/{token}")),
        token().prop_map(|token| format!("GET /~file/{token}")),
        Just("GET /metadata?mode=full".to_owned()),
        Just("GET /.well-known/smart-configuration".to_owned()),
    ]
}

/// A word that means something somewhere, or nothing anywhere.
fn word() -> impl Strategy<Value = String> {
    let words = vec![
        "Patient",
        "Observation",
        "Binary",
        "Group",
        "ValueSet",
        "Subscription",
        "patient",
        "Foo",
        "1",
        "a.b",
        "..",
        "_history",
        "_search",
        "*",
        "$everything",
        "$lastn",
        "$validate",
        "$expand",
        "$export",
        "$graphql",
        "$x",
        "$",
        "metadata",
        ".well-known",
        "smart-configuration",
        "~export",
        "~file",
        "",
        "%2F",
        "é",
    ];
    prop_oneof![9 => prop::sample::select(words).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

fn pair() -> impl Strategy<Value = String> {
    let names = vec![
        "name",
        "_id",
        "identifier",
        "code",
        "_type",
        "_count",
        "_elements",
        "_summary",
        "_since",
        "_at",
        "~page",
        "_typeFilter",
        "_format",
        "_pretty",
        "max",
        "start",
        "url",
        "system",
        "_include",
        "_sort",
        "access_token",
        "_has:Observation:patient:code",
        "subject:Patient.name",
        "mode",
        "filter",
        "_filter",
    ];
    let values = vec![
        "",
        "1",
        "x",
        "true",
        "Patient",
        "Patient,Observation",
        "2020-01-01T00:00:00Z",
        "2020",
        "json",
        "id",
        "Patient%3Fname%3Dx",
        "http://x",
        "count",
        "a%5C,b",
        "%",
        "%00",
        "Observation:subject",
        "*",
    ];
    prop_oneof![
        9 => (prop::sample::select(names), prop::sample::select(values)).prop_map(|(name, value)| format!("{name}={value}")),
        1 => "\\PC{0,12}",
    ]
}

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let names = vec![
        "accept",
        "accept-encoding",
        "content-type",
        "content-encoding",
        "content-length",
        "transfer-encoding",
        "prefer",
        "if-match",
        "if-none-match",
        "if-none-exist",
        "if-modified-since",
        "if-unmodified-since",
        "host",
    ];
    let values = vec![
        "",
        "*",
        "*/*",
        "application/fhir+json",
        "application/json-patch+json",
        "application/x-www-form-urlencoded",
        "application/pdf",
        "gzip",
        "zstd;q=0.3,*",
        "respond-async",
        "return=minimal",
        "W/\"3\"",
        "\"",
        "name=x",
        "0",
        "5",
        "fhir.test",
        ";;==,,\"",
    ];
    let value = prop_oneof![9 => prop::sample::select(values).prop_map(str::to_owned), 1 => "[ -~é]{0,12}"];
    (prop::sample::select(names), value)
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", ""])
}

fn soup() -> impl Strategy<Value = (&'static str, String, Vec<(&'static str, String)>)> {
    let target = (prop::collection::vec(word(), 0..5), prop::collection::vec(pair(), 0..3)).prop_map(
        |(segments, pairs)| {
            let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
            format!("/{}{query}", segments.join("/"))
        },
    );
    (method(), target, prop::collection::vec(header(), 0..3))
}

fn is_judgeable(query: &str) -> bool {
    match asked(&format!("GET /Patient?{query}")) {
        Ok(Interaction::Search(search)) => search.is_judgeable(),
        _ => false,
    }
}

fn header_map(headers: &[(&'static str, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            map.append(HeaderName::from_static(name), value);
        }
    }
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_canonical_address_is_the_same_interaction(request in understood()) {
        let interaction = asked(&request).unwrap_or_else(|refusal| panic!("{request}: {refusal}"));
        check_round_trip(&interaction);
    }

    /// T-147: HEAD is served wherever GET is, and asks the same.
    #[test]
    fn head_is_get_without_a_body(request in understood()) {
        let get = asked_whole(&request).unwrap();
        if let Some(rest) = request.strip_prefix("GET ") {
            let head = asked_whole(&format!("HEAD {rest}")).unwrap();
            prop_assert!(head.interaction == get.interaction, "{request}");
            prop_assert!(head.wishes.head_only && !get.wishes.head_only);
        }
    }

    /// KF-36: an entry of a batch is read as if it came alone.
    #[test]
    fn an_entry_asks_what_it_would_ask_alone(request in understood()) {
        let alone = asked(&request).unwrap();
        let (address, none_exist) = (alone.address(), match &alone {
            Interaction::Create { if_none_exist: Some(search), .. } => Some(search.canonical_query()),
            _ => None,
        });
        for url in [address.clone(), base().question_url(&alone)] {
            let request = EntryRequest {
                method: alone.method(),
                url: &url,
                if_none_exist: none_exist.as_deref(),
                if_match: None,
                if_none_match: None,
                if_modified_since: None,
            };
            match entry(&request, &[], &base(), &Registry::empty()).map(|asked| asked.interaction) {
                Ok(Interaction::Patch { target, .. }) => {
                    let Interaction::Patch { target: expected, .. } = &alone else { panic!("{url}") };
                    prop_assert!(target == *expected, "{}", url);
                }
                Ok(found) => prop_assert!(found == alone, "{}", url),
                Err(refusal) => prop_assert_eq!(refusal.code(), "nested-not-supported", "{}", url),
            }
        }
    }

    /// No head makes it panic; what the head alone shows is refused without the body; and whatever is
    /// understood has its one spelling.
    #[test]
    fn any_head_is_understood_or_refused((method, target, headers) in soup()) {
        let headers = header_map(&headers);
        let head = Head { method, target: &target, authority: Some("fhir.test"), headers: &headers };
        let found = classify(&head, None, &base(), &Registry::empty());
        match (expects(&head, &base()), &found) {
            (Err(early), _) => prop_assert_eq!(Some(early), found.as_ref().err().copied()),
            (Ok(Expects::Nothing | Expects::Resource | Expects::Patch | Expects::Form | Expects::Parameters | Expects::Binary), _) => {}
        }
        if let Ok(found) = found {
            check_round_trip(&found.interaction);
        }
    }

    #[test]
    fn any_entry_is_understood_or_refused((method, target, headers) in soup()) {
        let of = |name: &str| headers.iter().find(|(one, _)| *one == name).map(|(_, value)| value.as_str());
        let request = EntryRequest {
            method,
            url: target.trim_start_matches('/'),
            if_none_exist: of("if-none-exist"),
            if_match: of("if-match"),
            if_none_match: of("if-none-match"),
            if_modified_since: of("if-modified-since"),
        };
        if let Ok(found) = entry(&request, &[], &base(), &Registry::empty()) {
            check_round_trip(&found.interaction);
        }
    }
}

/// RFC 9110, 15.5.6: the Allow list of a path is the list of methods that path has, no more and no less.
#[test]
fn allow_lists_just_the_methods_a_path_has() {
    for path in [
        "",
        "_search",
        "_history",
        "metadata",
        ".well-known/smart-configuration",
        "Patient",
        "Patient/_search",
        "Patient/_history",
        "Patient/1",
        "Patient/1/_history",
        "Patient/1/_history/2",
        "Patient/1/Observation",
        "Patient/1/Observation/_search",
        "Patient/1/*",
        "Patient/1/*/_search",
        "Patient/1/$everything",
        "Observation/$lastn",
        "Patient/$validate",
        "ValueSet/$expand",
        "CodeSystem/$lookup",
        "$export",
        "~export/a",
        "~file/a",
    ] {
        let answer = |method: &str| asked(&format!("{method} /{path}"));
        let not_here = |refusal: FhirRefusal| matches!(refusal, FhirRefusal::MethodNotAllowed(_));
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let here: Vec<&str> =
            methods.into_iter().filter(|method| !answer(method).is_err_and(not_here)).collect();
        assert_eq!(answer("TRACE").unwrap_err().allow(), Some(here.join(", ").as_str()), "{path}");
        assert_eq!(answer("OPTIONS").unwrap_err().allow(), Some(here.join(", ").as_str()), "{path}");
    }
}

/// T-067, KF-35: what a conditional interaction matches always has a criterion, and nothing else.
#[test]
fn what_is_matched_is_criteria_only() {
    for line in ["PUT /Patient?name=x", "DELETE /Patient?_id=1", "PATCH /Patient?identifier=1"] {
        let (Interaction::Update { target, .. }
        | Interaction::Delete { target, .. }
        | Interaction::Patch { target, .. }) = asked(line).unwrap()
        else {
            panic!("{line}")
        };
        let Target::Match(search) = target else { panic!("{line}") };
        assert!(search.criteria().len() == 1 && search.includes().is_empty() && search.sort().is_empty());
        assert!(search.compartment().is_none() && search.count().is_none());
    }
}

#[test]
fn only_what_has_pages_is_continued() {
    let code =
        |address: &str| continued(address, &base(), &Registry::empty()).map_err(|refusal| refusal.code());
    for address in
        ["Patient/1", "metadata", "Patient?~page=abc", "~export/a", "~file/a", "CodeSystem/$lookup"]
    {
        assert_eq!(code(address).unwrap_err(), "malformed-page-token", "{address}");
    }
    assert_eq!(code("/Patient").unwrap_err(), "malformed-path");
    assert_eq!(code("Patient?foo=x").unwrap_err(), "unknown-parameter");
    let long = format!("Patient?name={}", "a".repeat(12_000));
    assert_eq!(continued(&long, &base(), &Registry::empty()).unwrap().address(), long);
}
