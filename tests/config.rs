//! Configuration files and what is said about them: cases are data in `tests/data/config`.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chartgate::config;
use chartgate::domain::fhir::r4::ResourceType;
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
fn declared_parameters_and_queries_are_understood() {
    let settings = config::parse("good.toml", GOOD, Path::new("")).unwrap();
    let (patient, observation) =
        (ResourceType::from_name("Patient").unwrap(), ResourceType::from_name("Observation").unwrap());
    let mrn = settings.parameters.parameter(patient, "mrn").unwrap();
    assert_eq!(mrn.reads, ["Patient.identifier.system", "Patient.identifier.value"]);
    let ward = settings.parameters.parameter(observation, "ward").unwrap();
    assert_eq!((ward.reads, ward.targets.len()), (["Observation.encounter.reference"].as_slice(), 1));
    assert!(settings.parameters.parameter(observation, "mrn").is_none());
    let query = settings.parameters.query(patient, "frequent-visitors").unwrap();
    let reads: Vec<_> = query.iter().map(|path| path.as_str()).collect();
    assert_eq!(reads, ["Patient.birthDate", "Encounter.period"]);
    assert!(settings.parameters.query(observation, "frequent-visitors").is_none());
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
