//! `$lastn` for callers who do not see every row.
//!
//! Owns: picking the newest observations of each code among those that the caller sees. The EMR would pick among all
//! there are, and a code whose newest observation is withheld would come back with a hole that tells of it (P4).
//! Must never: pick by an element that a row does not disclose: the permit of `$lastn` demands `code` and `effective`
//! of every row. Look next: `rows`, which pages through what the EMR has; `operation`, when this is used.

use super::count;
use super::draft::Draft;
use super::entries::append_entry;
use super::refusal::Refusal;
use super::release::{Judged, Release};
use super::reply::{Answer, read_instant};
use super::rows::Leg;
use super::visit::Visit;
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::{Interaction, Search};
use crate::limits;
use http::StatusCode;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Candidates of one code, newest first.
type Group = Vec<Candidate>;

struct Candidate {
    when: Option<Timestamp>,
    reference: String,
    shown: Release,
}

/// Answers `$lastn` by a search of all rows that it could pick from.
pub(super) async fn answer(
    visit: &Visit<'_>,
    question: &Interaction,
    search: &Search,
    max: u32,
    permit: Permit,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let leg = Leg { place: 0, question: Interaction::Search(search.clone()), permit };
    let mut release = Release::default();
    let picked = pick(visit, &leg, search, max, &mut release).await;
    if let Ok(groups) = picked.as_ref().map(BTreeMap::len) {
        tracing::debug!(groups, "picked the newest of each code");
    }
    let groups = match picked {
        Ok(groups) => groups,
        Err(refusal) => {
            draft.releases(&mut release, false);
            return Err(refusal);
        }
    };
    let (mut entries, mut total) = (Vec::new(), 0);
    let public = visit.gate.public.as_str();
    for candidate in groups.into_values().flatten() {
        total += 1;
        let record = release.absorb(candidate.shown);
        let tail = r#","search":{"mode":"match"}"#;
        append_entry(&mut entries, public, &candidate.reference, &record, tail);
    }
    let link = json!([{ "relation": "self", "url": visit.gate.public.question_url(question) }]);
    let head =
        json!({ "resourceType": "Bundle", "type": "searchset", "total": total, "link": link }).to_string();
    let mut body = head.into_bytes();
    if !entries.is_empty() {
        body.pop();
        body.extend_from_slice(br#","entry":["#);
        body.extend_from_slice(&entries);
        body.extend_from_slice(b"]}");
    }
    visit.gate.telemetry.filtered(0, body.len() as u64);
    draft.releases(&mut release, true);
    Ok(Answer::fhir(StatusCode::OK, body))
}

/// Goes through all visible rows and keeps the newest of each code.
async fn pick(
    visit: &Visit<'_>,
    leg: &Leg,
    search: &Search,
    max: u32,
    release: &mut Release,
) -> Result<BTreeMap<String, Group>, Refusal> {
    let max = usize::try_from(max).map_err(|_| Refusal::Internal)?;
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut link: Option<String> = None;
    for _ in 0..limits::REFILL_REQUESTS_MAX {
        let body = visit.ask(&count::look_plan(visit, leg, link.as_deref())?).await?;
        visit.gate.telemetry.filtered(body.len() as u64, 0);
        let judged = Judged::judge(&body, visit.bases(), &leg.permit, search.shape(), release)?;
        let envelope = judged.envelope().ok_or(Refusal::AnswerUnsound)?;
        let verdicts = judged.verdicts();
        let rows =
            envelope.entries.iter().filter(|entry| entry.mode.as_deref().unwrap_or("match") == "match");
        for index in rows.filter_map(|entry| entry.record) {
            let mut shown = Release::default();
            if !judged.emit(index, &verdicts, &mut shown) {
                release.withheld += 1;
                continue;
            }
            let record: Value =
                serde_json::from_slice(judged.raw(index)).map_err(|_| Refusal::AnswerUnsound)?;
            let candidate = Candidate { when: when(&record), reference: judged.reference(index), shown };
            keep(groups.entry(code(&record)).or_default(), candidate, max);
        }
        link = envelope.links.iter().find(|(relation, _)| relation == "next").map(|(_, url)| url.clone());
        if link.is_none() {
            return Ok(groups);
        }
    }
    Err(Refusal::TooManyToCount)
}

/// Puts a candidate in its place; what comes after the last one wanted is let go.
fn keep(group: &mut Group, candidate: Candidate, max: usize) {
    let newer = |other: &Candidate| (other.when, &candidate.reference) > (candidate.when, &other.reference);
    let place = group.partition_point(newer);
    group.insert(place, candidate);
    group.truncate(max);
}

/// What observations are grouped by: their first coding, else the text of their code
/// (R4 observation-operation-lastn.html).
fn code(record: &Value) -> String {
    let part = |place: &str| record.pointer(place).and_then(Value::as_str).unwrap_or_default();
    match part("/code/coding/0/code") {
        "" => format!("|{}", part("/code/text")),
        code => format!("{}|{code}", part("/code/coding/0/system")),
    }
}

/// When what is observed took place; of a period its end.
fn when(record: &Value) -> Option<Timestamp> {
    let text = |value: &Value| value.as_str().and_then(moment);
    let period = &record["effectivePeriod"];
    let timing = record.pointer("/effectiveTiming/event").and_then(Value::as_array);
    text(&record["effectiveDateTime"])
        .or_else(|| text(&record["effectiveInstant"]))
        .or_else(|| text(&period["end"]))
        .or_else(|| text(&period["start"]))
        .or_else(|| timing?.iter().filter_map(text).max())
}

/// The first moment of an R4 dateTime of any precision.
fn moment(text: &str) -> Option<Timestamp> {
    if let Some(instant) = read_instant(text) {
        return Some(instant);
    }
    let day = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => text.to_owned(),
    };
    Some(day.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(when: &str, reference: &str) -> Candidate {
        Candidate { when: moment(when), reference: reference.to_owned(), shown: Release::default() }
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let dates =
            [("2026-01-05", "c"), ("2025", "e"), ("2026-01-05T00:00:00Z", "b"), ("x", "f"), ("2026-02", "a")];
        let mut group = Group::new();
        dates.iter().for_each(|(when, reference)| keep(&mut group, candidate(when, reference), 4));
        let kept: Vec<&str> = group.iter().map(|one| one.reference.as_str()).collect();
        assert_eq!(kept, ["a", "b", "c", "e"]);
    }

    #[test]
    fn a_code_is_its_first_coding_or_its_text() {
        let coded = json!({"code": {"coding": [{"system": "s", "code": "c"}, {"code": "d"}], "text": "t"}});
        assert_eq!((code(&coded).as_str(), code(&json!({"code": {"text": "t"}})).as_str()), ("s|c", "|t"));
    }

    #[test]
    fn a_period_counts_from_its_end() {
        let record = json!({"effectivePeriod": {"start": "2026-01-01", "end": "2026-01-03"}});
        assert_eq!(when(&record), moment("2026-01-03"));
        assert_eq!(when(&json!({})), None);
    }
}
