//! Policies while the gate runs: read again, broken, faulty, and without the modifiers (P6, P7).
//!
//! Owns: what changes when an operator edits the policies directory.
//! Must never: wait longer than the contract's eight seconds.
//! Look next: `tests/policies.rs`, the shipped policies' table.

use std::fs;
use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde_json::Value;

use crate::child::until;
use crate::harness::{Hospital, run};
use crate::paging::next;

impl Hospital {
    pub(crate) fn edit(&self, file: &str, text: Option<&str>) {
        let path = self.stage.folder().join("policies").join(file);
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }

    pub(crate) fn events(&self, event: &str) -> usize {
        self.trail().iter().filter(|record| record["event"] == event).count()
    }

    /// The contract's eight seconds, and something for a busy machine.
    pub(crate) async fn edited(&self, event: &str, before: usize) {
        let noticed = until(Duration::from_secs(20), || self.events(event) > before).await;
        assert!(noticed, "no `{event}` in the trail");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn p6_p7_policies_are_read_again_and_doubt_is_refusal() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let first = hospital.get("nurse", "Observation?patient=p1&_count=2").await;
        let link = next(&first).unwrap();
        a_broken_set_changes_nothing(&hospital).await;
        a_failing_forbid_is_a_denial(&hospital).await;
        p7_a_record_with_a_withheld_modifier_is_withheld_whole(&hospital).await;
        // Permission withdrawn: the type, and the page link made while it was there (T-150).
        let before = hospital.events("policies-loaded");
        hospital.edit("nurse.cedar", None);
        hospital.edited("policies-loaded", before).await;
        let read = hospital.get("nurse", "Observation/obs-weight").await;
        let page = hospital.get("nurse", &link).await;
        hospital.check_refusals(&[(read, 403, "type-not-permitted"), (page, 403, "type-not-permitted")]);
        hospital.get("physician", "Patient/p1").await.check_ok();
    });
}

async fn a_broken_set_changes_nothing(hospital: &Hospital) {
    let hash = |reply| hospital.check_recorded([&reply])[0]["policySet"].clone();
    let good = hash(hospital.get("nurse", "Patient/p1").await);
    hospital.edit("broken.cedar", Some("permit (principal, action, resource"));
    hospital.edited("policies-rejected", 0).await;
    let reply = hospital.get("nurse", "Patient/p1").await;
    reply.check_ok();
    assert_eq!(hash(reply), good, "another set is in force");
    let refused =
        hospital.trail().into_iter().rfind(|record| record["event"] == "policies-rejected").unwrap();
    assert!(refused["details"].to_string().contains("broken.cedar"), "{refused}");
    hospital.edit("broken.cedar", None);
}

/// Cedar skips a policy that errs; here that is a denial and an alarm.
async fn a_failing_forbid_is_a_denial(hospital: &Hospital) {
    let before = hospital.events("policies-loaded");
    let overflow = "@id(\"overflow\")\nforbid (principal, action, resource) \
                    when { context.purpose == \"TREAT\" && 9223372036854775807 + context.mfa.age < 0 };";
    hospital.edit("overflow.cedar", Some(overflow));
    hospital.edited("policies-loaded", before).await;
    let token = hospital.stage.issuer().token_with("nurse", |claims| {
        claims["auth_time"] = (claims["auth_time"].as_i64().unwrap() - 100).into();
    });
    let asked = hospital.stage.emr().requests().len();
    let reply = hospital.get_with(&token.unwrap(), "Patient/p1").await;
    hospital.check_refusals(&[(reply, 403, "policy-fault")]);
    assert_eq!(hospital.stage.emr().requests().len(), asked, "the EMR was asked");
    let before = hospital.events("policies-loaded");
    hospital.edit("overflow.cedar", None);
    hospital.edited("policies-loaded", before).await;
}

async fn p7_a_record_with_a_withheld_modifier_is_withheld_whole(hospital: &Hospital) {
    let plain = r#"{"resourceType":"Patient","id":"plain","meta":{"versionId":"1"},"gender":"male"}"#;
    let inactive = r#"{"resourceType":"Patient","id":"inactive","meta":{"versionId":"1"},"active":false,"gender":"male"}"#;
    let extended = r#"{"resourceType":"Patient","id":"extended","meta":{"versionId":"1"},"gender":"male",
        "modifierExtension":[{"url":"urn:example:not","valueBoolean":true}]}"#;
    for record in [plain, inactive, extended] {
        hospital.stage.emr().put(record.as_bytes()).unwrap();
    }
    for id in ["plain", "inactive", "extended"] {
        hospital.get("nurse", &format!("Patient/{id}")).await.check_ok();
    }
    let before = hospital.events("policies-loaded");
    let (policy, groups) = (shipped("nurse.cedar"), "ElementGroup::\"safety\", ");
    assert!(policy.contains(groups));
    hospital.edit("nurse.cedar", Some(&policy.replace(groups, "")));
    hospital.edited("policies-loaded", before).await;
    hospital.get("nurse", "Patient/plain").await.check_ok();
    let inactive = hospital.get("nurse", "Patient/inactive").await;
    let extended = hospital.get("nurse", "Patient/extended").await;
    let found = hospital.get("nurse", "Patient?_id=plain,inactive,extended").await;
    let bundle: Value = found.json();
    let ids: Vec<&str> =
        bundle["entry"].as_array().unwrap().iter().map(|e| e["resource"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["plain"]);
    assert_eq!(hospital.check_recorded([&found])[0]["withheld"], 2);
    hospital.check_refusals(&[(inactive, 404, "not-found"), (extended, 404, "not-found")]);
}

fn shipped(name: &str) -> String {
    let policies = chartgate::cli::demo::stage::POLICIES;
    policies.iter().find(|(file, _)| *file == name).unwrap().1.to_owned()
}
