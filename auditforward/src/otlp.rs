//! OpenTelemetry logs: OTLP/HTTP with JSON bodies (OTLP 1.x, "OTLP/HTTP").
//!
//! Owns: log records, and what each answer of a collector means for the items in the request.
//! Must never: send anything again that a collector took in part; count as delivered what it did not answer.
//! Look next: `pump`; docs/forwarding.md.

use std::time::Duration;

use bytes::Bytes;
use chartgate::clock;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::follow::{Item, Level};
use crate::http::Http;
use crate::limits::{ANSWER_BYTES_MAX, SECRET_BYTES_MAX};
use crate::pump::Trouble;
use crate::secret;
use crate::settings::Otlp;

/// A collector.
#[derive(Debug)]
pub(crate) struct OtlpSender {
    settings: Otlp,
    http: Option<Http>,
}

/// What an answer says of the request's items.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Taken, but for so many.
    Taken(u64),
    /// Not taken, and it will not be in this form (400, 413): the items must be told apart.
    Malformed(String),
    /// Not now.
    Later(String, Option<Duration>),
}

impl OtlpSender {
    pub(crate) fn new(settings: Otlp) -> Self {
        Self { settings, http: None }
    }

    /// Whether patients' ids go along.
    pub(crate) fn patients(&self) -> bool {
        self.settings.patients
    }

    /// Sends the items; answers how many the collector refused for good. A request it finds malformed or too large is cut in
    /// halves, down to the item that is at fault.
    ///
    /// # Errors
    /// What failed. Items before it may have been taken: they are sent again.
    pub(crate) async fn send(&mut self, origin: &str, items: &[Item]) -> Result<u64, Trouble> {
        let mut rejected = 0;
        let mut open = vec![items];
        while let Some(items) = open.pop() {
            match self.post(origin, items).await? {
                Verdict::Taken(0) => {}
                Verdict::Taken(count) => {
                    rejected += count;
                    tracing::error!(count, first = first(items), "the collector refused items of a request");
                }
                Verdict::Malformed(why) if items.len() > 1 => {
                    tracing::debug!(%why, "a request is cut in halves");
                    let (before, after) = items.split_at_checked(items.len() / 2).unwrap_or((items, &[]));
                    open.extend([after, before]);
                }
                Verdict::Malformed(why) => {
                    rejected += 1;
                    tracing::error!(sequence = first(items), %why, "the collector refused an item for good");
                }
                Verdict::Later(what, retry_after) => {
                    self.http = None;
                    return Err(Trouble { what, retry_after });
                }
            }
        }
        Ok(rejected)
    }

    async fn post(&mut self, origin: &str, items: &[Item]) -> Result<Verdict, Trouble> {
        let http = match self.http.take() {
            Some(http) => http,
            None => Http::new(&self.settings.tls).map_err(Trouble::ours)?,
        };
        let body = Bytes::from(export(origin, items, clock::now()).to_string());
        let mut request = Request::post(self.settings.url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(file) = &self.settings.authorization_file {
            let value = secret::read(file, SECRET_BYTES_MAX).map_err(Trouble::ours)?;
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| Trouble::ours(format!("`{}` is no value of a header", file.display())))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| Trouble::ours(error.to_string()))?;
        let answer = http.send(request, ANSWER_BYTES_MAX).await.map_err(Trouble::receiver)?;
        self.http = Some(http);
        Ok(judge(answer.status(), answer.headers(), answer.body(), items.len()))
    }
}

fn first(items: &[Item]) -> u64 {
    items.first().map_or(0, |item| item.sequence)
}

/// What an answer means (OTLP, "OTLP/HTTP Response"). What is not known to be for good is tried again.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], items: usize) -> Verdict {
    match status {
        status if status.is_success() => Verdict::Taken(refused(body, items)),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Verdict::Malformed(format!("the collector answers {}", status.as_u16()))
        }
        status => Verdict::Later(format!("the collector answers {}", status.as_u16()), retry_after(headers)),
    }
}

/// Seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    clock::ahead_seconds(text).map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Option<PartialSuccess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// 64-bit numbers are strings in JSON; some write numbers.
    rejected_log_records: Value,
}

/// How many items a collector says that it refused. An answer that is no JSON says nothing, and 2xx is the confirmation.
fn refused(body: &[u8], items: usize) -> u64 {
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let count = answer.partial_success.map(|partial| partial.rejected_log_records);
    let count = count.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    count.unwrap_or(0).min(u64::try_from(items).unwrap_or(u64::MAX))
}

/// `ExportLogsServiceRequest` in OTLP's JSON.
fn export(origin: &str, items: &[Item], now: Timestamp) -> Value {
    let records: Vec<Value> = items.iter().map(|item| record(item, now)).collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [text("service.name", "chartgate"), text("chartgate.log", origin)]},
        "scopeLogs": [{"scope": {"name": "chartgate.audit"}, "logRecords": records}],
    }]})
}

fn record(item: &Item, now: Timestamp) -> Value {
    let (number, word) = match item.level {
        Level::Information => (9, "INFO"),
        Level::Warning => (13, "WARN"),
        Level::Error => (17, "ERROR"),
    };
    json!({
        "timeUnixNano": item.time.map_or(0, Timestamp::as_nanosecond).max(0).to_string(),
        "observedTimeUnixNano": now.as_nanosecond().max(0).to_string(),
        "severityNumber": number,
        "severityText": word,
        "body": {"stringValue": item.line},
        "attributes": [
            {"key": "chartgate.sequence", "value": {"intValue": item.sequence.to_string()}},
            text("chartgate.kind", &item.kind),
        ],
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_taken_repeated_or_cut() {
        let later = |status: u16| Verdict::Later(format!("the collector answers {status}"), None);
        let cut = |status: u16| Verdict::Malformed(format!("the collector answers {status}"));
        let cases = [
            (200, "", Verdict::Taken(0)),
            (200, "{}", Verdict::Taken(0)),
            (200, "no json", Verdict::Taken(0)),
            (202, r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#, Verdict::Taken(3)),
            (200, r#"{"partialSuccess":{"rejectedLogRecords":2}}"#, Verdict::Taken(2)),
            (200, r#"{"partialSuccess":{"rejectedLogRecords":"900"}}"#, Verdict::Taken(5)),
            (200, r#"{"partialSuccess":{}}"#, Verdict::Taken(0)),
            (400, "", cut(400)),
            (413, "", cut(413)),
            (401, "", later(401)),
            (404, "", later(404)),
            (302, "", later(302)),
            (500, "", later(500)),
            (503, "", later(503)),
        ];
        for (status, body, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge(status, &HeaderMap::new(), body.as_bytes(), 5), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_collector_can_ask_for_time() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }
}
