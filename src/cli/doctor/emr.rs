//! The EMR: whether it answers us, and whether it answers others too.
//!
//! Owns: two questions, about its statement and, without our credential, for a number of patients.
//! Must never: read a record, or write.
//! Look next: `edge::upstream`.

use super::list::Checklist;
use crate::config::Settings;
use crate::edge::telemetry::Telemetry;
use crate::edge::upstream::{BaseUrl, Upstream, UpstreamError, UpstreamRequest};
use crate::{app, clock, config, limits};
use http::{Method, StatusCode, header};
use serde_json::Value;
use std::net::IpAddr;

const GROUP: &str = "EMR";

pub(super) async fn examine(list: &mut Checklist, settings: &Settings) {
    // What keeps a client from being made is `check`'s to say.
    let Ok(ours) = app::make_upstream(&settings.upstream, &Telemetry::new()) else { return };
    if !statement(list, &ours).await {
        return;
    }
    let has_credential =
        settings.upstream.bearer_token_file.is_some() || settings.upstream.client_certificate.is_some();
    let bare = config::settings::Upstream {
        bearer_token_file: None,
        client_certificate: None,
        ..settings.upstream.clone()
    };
    let Ok(bare) = app::make_upstream(&bare, &Telemetry::new()) else { return };
    // A count: no record is sent to us, since none would be in the trail.
    let question = UpstreamRequest::new(Method::GET, "Patient?_summary=count");
    let heard = bare.send(question).await.map(|answer| answer.status);
    openness(list, heard, is_loopback(bare.base()), has_credential);
}

/// Whether it says that it speaks R4.
async fn statement(list: &mut Checklist, ours: &Upstream) -> bool {
    let answer = match ours.send(UpstreamRequest::new(Method::GET, "metadata")).await {
        Ok(answer) => answer,
        Err(error) => {
            let hint =
                "is `upstream.base_url` right, the EMR up, its CA in `upstream.ca`, the way to it open?";
            list.fail(GROUP, "emr-unreachable", error.to_string(), hint);
            return false;
        }
    };
    let (status, date) = (answer.status, answer.headers.get(header::DATE).cloned());
    let ahead = date.as_ref().and_then(|date| date.to_str().ok()).and_then(clock::ahead_seconds);
    if status != StatusCode::OK {
        let hint = "look at `upstream.base_url` and at the gate's credential for the EMR";
        list.fail(GROUP, "emr-status", format!("it answered `metadata` with status {status}"), hint);
        return true;
    }
    let body = answer.body.read(limits::STATEMENT_BYTES_MAX).await.unwrap_or_default();
    let statement: Value = serde_json::from_slice(&body).unwrap_or_default();
    let version = statement.get("fhirVersion").and_then(Value::as_str);
    match version {
        Some(version) if version.starts_with("4.0.") => {
            list.pass(GROUP, "emr-version", format!("it answers and speaks FHIR {version}"));
        }
        other => {
            let other = other.unwrap_or("missing");
            let what = format!("it does not say that it speaks FHIR R4: `fhirVersion` is {other}");
            let hint =
                "point `upstream.base_url` at the EMR's R4 base; other versions are not understood here";
            list.fail(GROUP, "emr-version", what, hint);
        }
    }
    super::clock(list, GROUP, ahead);
    true
}

/// What an answer to somebody without our credential means (S-001-08).
fn openness(
    list: &mut Checklist,
    heard: Result<StatusCode, UpstreamError>,
    is_loopback: bool,
    has_credential: bool,
) {
    let hint = "let the EMR ask for a credential that only the gate has (mTLS or a bearer token), and refuse all others";
    match heard {
        Ok(status) if status.is_success() => {
            let what = if has_credential {
                "it answers a search for patients without the gate's credential: the gate can be walked around"
            } else {
                "it answers a search for patients without any credential: the gate can be walked around"
            };
            if is_loopback {
                list.warn(GROUP, "emr-open", what, hint);
            } else {
                list.fail(GROUP, "emr-open", what, hint);
            }
        }
        Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        | Err(UpstreamError::Untrusted | UpstreamError::CutOff) => {
            list.pass(GROUP, "emr-closed", "it refuses a search for patients without the gate's credential");
        }
        Ok(status) => {
            let what = format!("whether it refuses strangers is not clear: status {status}");
            list.warn(GROUP, "emr-unclear", what, hint);
        }
        Err(error) => {
            list.warn(
                GROUP,
                "emr-unclear",
                format!("whether it refuses strangers is not clear: {error}"),
                hint,
            );
        }
    }
}

fn is_loopback(base: &BaseUrl) -> bool {
    let authority = base.authority();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::list::Status;
    use super::*;

    #[test]
    fn an_open_emr_is_a_failure_beyond_this_machine() {
        let judged = |heard, is_loopback| {
            let mut list = Checklist::default();
            openness(&mut list, heard, is_loopback, true);
            list.only()
        };
        let cases = [
            (Ok(StatusCode::OK), false, "emr-open", Status::Fail),
            (Ok(StatusCode::OK), true, "emr-open", Status::Warn),
            (Ok(StatusCode::UNAUTHORIZED), false, "emr-closed", Status::Pass),
            (Ok(StatusCode::FORBIDDEN), false, "emr-closed", Status::Pass),
            (Err(UpstreamError::Untrusted), false, "emr-closed", Status::Pass),
            (Ok(StatusCode::NOT_FOUND), false, "emr-unclear", Status::Warn),
            (Err(UpstreamError::TimedOut), false, "emr-unclear", Status::Warn),
        ];
        for (heard, is_loopback, code, status) in cases {
            assert_eq!(judged(heard, is_loopback), (code, status), "{heard:?}");
        }
        for (base, expected) in [
            ("http://127.0.0.1:80/fhir", true),
            ("http://[::1]:80/fhir", true),
            ("https://localhost/fhir", true),
            ("https://emr.test/fhir", false),
        ] {
            assert_eq!(is_loopback(&BaseUrl::parse(base).unwrap()), expected, "{base}");
        }
    }

    #[test]
    fn clocks_are_judged_by_the_leeway_of_tokens() {
        for (ahead, status) in [
            (0, Status::Pass),
            (-5, Status::Pass),
            (6, Status::Warn),
            (-30, Status::Warn),
            (31, Status::Fail),
        ] {
            let mut list = Checklist::default();
            super::super::clock(&mut list, GROUP, Some(ahead));
            assert_eq!(list.only(), ("clock", status), "{ahead}");
        }
    }
}
