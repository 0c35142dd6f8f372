//! Configuration files and what is said about them: cases are data in `tests/data/config`.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chartgate::config;
use std::path::Path;

#[derive(serde::Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    from: String,
    to: String,
    #[serde(default)]
    also: Vec<(String, String)>,
    problems: Vec<String>,
}

const GOOD: &str = include_str!("data/config/good.toml");

#[test]
fn the_contracts_example_is_understood() {
    let settings = config::parse("good.toml", GOOD, Path::new("/etc/chartgate")).unwrap();
    assert_eq!(settings.listen.certificate, Path::new("/etc/chartgate/certs/server.pem"));
    assert_eq!(settings.upstream.base_url, "https://emr.internal/fhir/R4");
    assert_eq!(settings.upstream.timeout.as_secs(), 30);
    assert_eq!(settings.issuers[0].roles["hosp-rn"], "nurse");
    assert_eq!(settings.issuers[0].mfa.max_age.as_secs(), 12 * 3600);
    assert_eq!(settings.session.idle_timeout.as_secs(), 15 * 60);
    assert_eq!(settings.audit.signing_key, Path::new("/etc/chartgate/secrets/audit.key"));
}

#[test]
fn every_mistake_is_reported_at_its_place() {
    let cases: Cases = toml::from_str(include_str!("data/config/cases.toml")).unwrap();
    for case in cases.case {
        check(&case);
    }
}

fn check(case: &Case) {
    let mut text = GOOD.to_owned();
    for (from, to) in std::iter::once((&case.from, &case.to)).chain(case.also.iter().map(|(a, b)| (a, b))) {
        assert!(text.contains(from.as_str()), "{}: nothing to change", case.name);
        text = text.replacen(from.as_str(), to, 1);
    }
    let found: Vec<String> = match config::parse("f", &text, Path::new("")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found.len(), case.problems.len(), "{}: {found:#?}", case.name);
    for (found, expected) in found.iter().zip(&case.problems) {
        let (line, message) = expected.split_once(": ").unwrap();
        let (_, rest) = found.split_once(':').unwrap();
        let (at, rest) = rest.split_once(':').unwrap();
        assert!(at == line && rest.contains(message), "{}: expected {expected}, found {found}", case.name);
    }
}
