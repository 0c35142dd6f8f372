//! Configuration files and what is said about them: cases are data in `tests/data/config`.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chartgate::config;
use chartgate::domain::fhir::r4::ResourceType;
use chartgate::domain::ledger::{KeyKind, LogKey, VerifierKey};
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
fn witnesses_are_understood() {
    let witness = VerifierKey::new("witness.example", KeyKind::Witness, &LogKey::new([7; 32])).unwrap();
    let with = |tables: &str| {
        let text = GOOD.replace(
            "encryption_key = \"secrets/audit.aes\"\n",
            &format!("encryption_key = \"secrets/audit.aes\"\n{tables}"),
        );
        config::parse("good.toml", &text, Path::new("/etc"))
    };
    let table = |key: &str| {
        format!(
            "witness_max_age = \"10m\"\n[[audit.witness]]\nurl = \"https://w.example/\"\nkey = \"{key}\"\nca = \"w.pem\"\n"
        )
    };
    let settings = with(&table(&witness.to_string())).unwrap();
    let read = &settings.audit.witnesses[0];
    assert_eq!((read.url.as_str(), &read.key), ("https://w.example", &witness));
    assert_eq!(read.ca.as_deref(), Some(Path::new("/etc/w.pem")));
    assert_eq!(settings.audit.witness_max_age.as_secs(), 600);
    let one = format!("witness = [{{ url = \"http://127.0.0.1:1\", key = \"{witness}\" }}]\n");
    assert_eq!(with(&one).unwrap().audit.witnesses.len(), 1);
    assert_eq!(with(&one).unwrap().audit.witness_max_age.as_secs(), 3600);
    let log = VerifierKey::new("log.example", KeyKind::Log, &LogKey::new([7; 32])).unwrap();
    for (tables, part) in [
        (table(&log.to_string()), "`audit.witness.key` is not the key of a witness"),
        (table("witness.example"), "`audit.witness.key` is no verifier key: verifier key is not of the form"),
        (table(&witness.to_string()).replace("10m", "8d"), "`audit.witness_max_age` must be"),
        (table(&witness.to_string()).replace("https:", "http:"), "`audit.witness.url` must be https"),
        (
            format!("witness = [{{ url = \"https://w\", kye = \"{witness}\" }}]\n"),
            "unknown key `audit.witness.kye`",
        ),
        (
            format!(
                "witness = [{{ url = \"https://w\", key = \"{witness}\" }}, {{ url = \"https://v\", key = \"{witness}\" }}]\n"
            ),
            "given twice",
        ),
    ] {
        let problems = with(&tables).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains(part)), "{part}: {problems:?}");
    }
}

#[test]
fn a_retention_policy_is_understood_and_has_a_bound() {
    let with = |keys: &str| {
        let text = GOOD.replace("[audit]", &format!("[audit.retention]\n{keys}\n\n[audit]"));
        config::parse("good.toml", &text, Path::new("/etc"))
    };
    let kept = |keys: &str| with(keys).unwrap().audit.retention.map(|keep| keep.to_string());
    assert_eq!(config::parse("good.toml", GOOD, Path::new("/etc")).unwrap().audit.retention, None);
    assert_eq!(kept("keep = \"6y\"").as_deref(), Some("6y"));
    assert_eq!(kept("keep = \"2192d\"").as_deref(), Some("2192d"));
    assert_eq!(kept("keep = \"2y\"\nown_rule_is_shorter = true").as_deref(), Some("2y"));
    for (keys, part) in [
        ("", "`audit.retention.keep` is missing"),
        ("keep = \"5y\"", "less than the six years of 45 CFR 164.316(b)(2)(i)"),
        ("keep = \"2191d\"", "less than the six years"),
        ("keep = \"5y\"\nown_rule_is_shorter = false", "less than the six years"),
        ("keep = \"7d\"\nown_rule_is_shorter = true", "must be like `6y` or `2200d`"),
        ("keep = \"six years\"", "must be like `6y` or `2200d`"),
        ("keep = 6", "audit.retention.keep"),
        ("keep = \"6y\"\nkeeep = \"6y\"", "unknown key `audit.retention.keeep`"),
    ] {
        let problems = with(keys).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains(part)), "{keys}: {problems:?}");
    }
}

#[test]
fn a_witness_has_a_configuration_of_its_own() {
    let log = VerifierKey::new("log.example", KeyKind::Log, &LogKey::new([7; 32])).unwrap();
    let good = format!(
        "[listen]\naddress = \"127.0.0.1:8500\"\n[witness]\nname = \"witness.example/w\"\nsigning_key = \"w.key\"\nstate = \"state/w\"\n[[log]]\nkey = \"{log}\"\n"
    );
    let read = |text: &str| config::witness::parse_witness("w.toml", text, Path::new("/etc"));
    let settings = read(&good).unwrap();
    assert_eq!((settings.logs[0].origin.as_str(), &settings.logs[0].key), ("log.example", &log));
    assert_eq!(
        (settings.state.as_path(), settings.name.as_str()),
        (Path::new("/etc/state/w"), "witness.example/w")
    );
    let other = format!("{good}origin = \"log.example/2\"\n");
    assert_eq!(read(&other).unwrap().logs[0].origin, "log.example/2");
    let twice = format!("{good}[[log]]\nkey = \"{log}\"\n");
    for (text, part) in [
        (good.replace("127.0.0.1", "0.0.0.0"), "1: `listen.address` must be loopback unless"),
        (good.replace("127.0.0.1:8500", "here"), "2: `listen.address` must be an IP address"),
        (good.replace("example/w\"", "example w\""), "4: `witness.name` must be a name"),
        (good.replace("state =", "stat ="), "unknown key `witness.stat`"),
        (
            good.replace("log.example+", "log.exbmple+"),
            "8: `log.key` is no verifier key: verifier key has an id",
        ),
        (good.replace("[[log]]", "[log]"), "must be an array of tables"),
        (twice, "9: this log's origin is given twice"),
    ] {
        let problems: Vec<String> = read(&text)
            .unwrap_err()
            .iter()
            .map(|problem| format!("{}: {}", problem.line, problem.message))
            .collect();
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
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
    let signer = VerifierKey::new("town", KeyKind::Log, &LogKey::new([7; 32])).unwrap();
    let text = text.replace("@SIGNER@", &signer.to_string());
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
