//! The register of applications through the door (S-001-29, S-003-44, T-197, T-198).
//!
//! Owns: that an application does what was written down about it, and nothing after its agreement has ended.
//! Must never: find a refusal without the name of the application in the trail.
//! Look next: `domain::identity::clients`; docs/operators.md, the section on applications.

use std::time::Duration;

use chartgate::cli::demo::stage::{POLICIES, Script};
use chartgate::{app, config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{operations_of, until};
use crate::harness::{Hospital, Reply, run};

const REGISTER: &str = r#"
[[client]]
id = "ward-app"
kind = "staff-app"
purposes = ["TREAT", "HOPERAT"]

[[client]]
id = "growth-chart"
kind = "smart-app"
purposes = ["TREAT"]
scopes = ["openid", "fhirUser", "user/Observation.rs", "user/Patient.r", "patient/Observation.rs"]
roles = ["nurse"]
agreement = { with = "Growth Ltd", expires = "2099-12-31" }

[[client]]
id = "late-app"
kind = "smart-app"
purposes = ["TREAT"]
scopes = ["user/*.rs"]
agreement = { expires = "2025-06-30" }

[[client]]
id = "bound-app"
kind = "smart-app"
purposes = ["TREAT"]
scopes = ["user/*.rs"]
binding = "dpop"
agreement = { expires = "2099-12-31" }

[[client]]
id = "lab-engine"
kind = "backend-service"
purposes = ["TREAT"]
scopes = ["system/*.rs"]
roles = ["integration"]
binding = "none"
agreement = { expires = "2099-12-31" }
"#;

/// A program is its own principal: policies name it, not a role.
const ENGINE: &str = r#"
@id("lab-engine")
permit (
  principal == Application::"lab-engine",
  action in [Action::"view", Action::"disclose"],
  resource
)
when { context.purpose == "TREAT" && context.binding == "none" };
"#;

/// The shipped policies and one for the laboratory's engine.
async fn registered() -> (Hospital, TempDir) {
    let policies = TempDir::new().unwrap();
    for (name, text) in POLICIES.iter().chain(&[("lab-engine.cedar", ENGINE)]) {
        std::fs::write(policies.path().join(name), text).unwrap();
    }
    let directory = Some(policies.path().to_owned());
    let script = Script { policies: directory, more: REGISTER.to_owned(), ..Script::default() };
    (Hospital::open(script).await, policies)
}

/// A nurse's token through a client, with some claims changed.
fn token(hospital: &Hospital, client: &str, changes: Value) -> String {
    let token = hospital.stage.issuer().token_with("nurse", |claims| {
        claims["client_id"] = json!(client);
        claims["azp"] = json!(client);
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
    });
    token.unwrap()
}

#[test]
fn an_application_does_what_is_written_down_about_it() {
    run(async {
        let (hospital, _policies) = registered().await;
        let get = async |client: &str, changes: Value, path: &str| {
            let mut reply = hospital.get_with(&token(&hospital, client, changes), path).await;
            reply.what = format!("{client}: {path}");
            reply
        };
        let engine =
            json!({"sub": "lab-engine", "roles": ["integration"], "fhirUser": null, "scope": "system/*.rs"});
        let served = [
            get("ward-app", json!({}), "Patient/p1").await,
            get("growth-chart", json!({}), "Patient/p1").await,
            get("growth-chart", json!({}), "Observation?patient=p1").await,
            get("lab-engine", engine.clone(), "Patient/p1").await,
        ];
        served.iter().for_each(Reply::check_ok);
        let records = hospital.check_recorded(&served);
        let kinds: Vec<&Value> = records.iter().map(|record| &record["clientKind"]).collect();
        assert_eq!(
            kinds,
            [&json!("staff-app"), &json!("smart-app"), &json!("smart-app"), &json!("backend-service")]
        );

        let refused = [
            (get("nobody-knows", json!({}), "Patient/p1").await, 403, "client-unknown"),
            (get("late-app", json!({}), "Patient/p1").await, 403, "client-agreement-ended"),
            (get("bound-app", json!({}), "Patient/p1").await, 401, "client-token-unbound"),
            (
                get("growth-chart", json!({"purpose_of_use": "HRESCH"}), "Patient/p1").await,
                403,
                "client-purpose-not-allowed",
            ),
            // What is in both lists: no search of patients, no other type.
            (get("growth-chart", json!({}), "Patient?gender=female").await, 403, "scope-insufficient"),
            (get("growth-chart", json!({}), "Condition?patient=p1").await, 403, "scope-insufficient"),
            (get("growth-chart", json!({"scope": "openid"}), "Patient/p1").await, 403, "scope-insufficient"),
            (
                get("growth-chart", json!({"scope": "system/*.rs"}), "Patient/p1").await,
                403,
                "scope-insufficient",
            ),
            // A role that the register does not leave to the application is none.
            (
                get("growth-chart", json!({"roles": ["hosp-md"]}), "Patient/p1").await,
                403,
                "type-not-permitted",
            ),
            (
                get("lab-engine", json!({"scope": "system/*.rs"}), "Patient/p1").await,
                403,
                "client-used-by-person",
            ),
            (get("ward-app", json!({"sub": "ward-app"}), "Patient/p1").await, 403, "client-without-person"),
        ];
        hospital.check_refusals(&refused);
        let records = hospital.check_recorded(refused.iter().map(|(reply, ..)| reply));
        assert_eq!(records[0]["application"], "nobody-knows", "who it was is on record");
        assert_eq!(records[1]["subject"], "nurse");
        let challenge = refused[2].0.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("DPoP error=\"invalid_token\", algs="), "{challenge}");
        let mut both = engine;
        both["roles"] = json!(["integration", "hosp-md"]);
        let mixed = get("lab-engine", both, "Patient/p1").await;
        hospital.check_refusals(&[(mixed, 403, "client-used-by-person")]);
    });
}

/// Operations hear of agreements before they end: in `check`, and as a metric.
#[test]
fn agreements_that_end_are_called_out() {
    run(async {
        let (hospital, _policies) = registered().await;
        let settings = config::load(&hospital.stage.config_file()).unwrap();
        let notes: Vec<String> = app::check(&settings).unwrap().iter().map(ToString::to_string).collect();
        assert!(notes.iter().any(|note| note.contains("client `late-app` has ended")), "{notes:?}");
        assert!(!notes.iter().any(|note| note.contains("growth-chart")), "{notes:?}");
        let seen = until(Duration::from_secs(15), || {
            operations_of(&hospital.stage, "/metrics")
                .contains("chartgate_agreement_days_left{client=\"late-app\"} -")
        });
        assert!(seen.await, "{}", operations_of(&hospital.stage, "/metrics"));
    });
}

/// T-197: policies decide about the subject, and both are recorded.
#[test]
fn who_acts_for_somebody_is_recorded() {
    run(async {
        let hospital = Hospital::shared().await;
        let acting = hospital.stage.issuer().token_with("nurse", |claims| {
            claims["act"] =
                json!({"sub": "scribe-7", "act": {"sub": "night-app", "iss": "https://other.example"}});
        });
        let reply = hospital.get_with(&acting.unwrap(), "Patient/p1").await;
        reply.check_ok();
        let record = &hospital.check_recorded([&reply])[0];
        assert_eq!(record["subject"], "nurse");
        let actors = json!([
            {"issuer": null, "subject": "scribe-7"},
            {"issuer": "https://other.example", "subject": "night-app"},
        ]);
        assert_eq!(record["actors"], actors);
        let plain = hospital.get("nurse", "Patient/p1").await;
        assert!(hospital.check_recorded([&plain])[0].get("actors").is_none());
    });
}
