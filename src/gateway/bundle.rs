//! Batches and transactions: each entry a request of its own.
//!
//! Owns: taking a Bundle of requests apart, and putting the answers together. A batch's entries go through
//! `answer::question` one by one. A transaction's are all judged and merged before the EMR hears of any, and one refusal
//! refuses all (T-083 to T-085); its reads are answered after it. Every entry has its record (KF-53).
//! Must never: send an entry that was not classified and decided as if it had come alone.
//! Look next: `write`, which prepares a change; `answer`.

use super::answer;
use super::conclude::{self, Told};
use super::draft::Draft;
use super::refusal::Refusal;
use super::reply::Answer;
use super::visit::Visit;
use super::write::{self, Prepared, Ready};
use crate::domain::change;
use crate::domain::fhir::classify::{self, Asked, EntryRequest, FhirRefusal, NotServed, Return, Wishes};
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::filter::{self, Document, EntryRequestText, EntryResponse, FilterFault};
use crate::domain::narrow;
use crate::edge::upstream::UpstreamError;
use crate::limits;
use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The value of `WWW-Authenticate` for an entry of a batch.
const CHALLENGE_EXTENSION: &str = "https://chartgate.dev/challenge";

/// One entry of a client's Bundle, understood.
struct Entry {
    full_url: Option<String>,
    asked: Asked,
    body: Bytes,
}

/// Answers a batch or a transaction.
pub(super) async fn answer(
    visit: &Visit<'_>,
    wishes: &Wishes,
    body: &Bytes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let bases = visit.bases();
    let nested: Vec<u8>;
    let mut set_aside = BTreeSet::new();
    let document = match filter::parse_sent(body, &bases) {
        // A Bundle of requests in an entry of a batch is that entry's fault alone.
        Err(fault @ FilterFault::Nesting(_)) => {
            let flat = change::without_nested(body).map_err(Refusal::Change)?;
            (nested, set_aside) = flat.ok_or(Refusal::BodyUnsound(fault))?;
            filter::parse_sent(&nested, &bases)
        }
        read => read,
    }
    .map_err(Refusal::BodyUnsound)?;
    let envelope = document.bundle().ok_or(Refusal::NotABundle)?;
    if envelope.entries.len() > limits::BUNDLE_ENTRIES_MAX {
        return Err(Refusal::BundleTooLong);
    }
    match envelope.kind.as_str() {
        "batch" => batch(visit, wishes, &document, &set_aside, draft).await,
        "transaction" => {
            draft.interaction = "transaction";
            "transaction".clone_into(&mut draft.decision.interaction);
            transaction(visit, wishes, &document, draft).await
        }
        _ => Err(Refusal::NotABundle),
    }
}

/// Reads one entry as if its request had come alone. What the whole Bundle prefers holds for each.
fn understand(
    visit: &Visit<'_>,
    wishes: &Wishes,
    document: &Document<'_>,
    place: usize,
) -> Result<Entry, Refusal> {
    let entry =
        document.bundle().and_then(|envelope| envelope.entries.get(place)).ok_or(Refusal::Internal)?;
    let request = entry.request.as_ref().ok_or(Refusal::NotABundle)?;
    let gate = visit.gate;
    let body = entry.record.map(|index| Bytes::copy_from_slice(document.raw(index))).unwrap_or_default();
    let mut asked =
        classify::entry(&spelled(request), &body, &gate.public, &gate.parameters).map_err(Refusal::Fhir)?;
    asked.wishes.prefer = match wishes.prefer {
        Return::Unstated => Return::Minimal,
        stated => stated,
    };
    let carries = match &asked.interaction {
        Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Operation(Operation::Validate { .. }) => true,
        // By POST the parameters may stand in the entry's resource.
        Interaction::Operation(_) if request.method == "POST" => !body.is_empty(),
        _ => false,
    };
    // The one document here that is no FHIR resource has no place in a Bundle.
    if carries == body.is_empty() || matches!(asked.interaction, Interaction::SmartConfiguration) {
        return Err(Refusal::NotABundle);
    }
    Ok(Entry { full_url: entry.full_url.clone(), asked, body })
}

fn spelled(request: &EntryRequestText) -> EntryRequest<'_> {
    EntryRequest {
        method: &request.method,
        url: &request.url,
        if_none_exist: request.if_none_exist.as_deref(),
        if_match: request.if_match.as_deref(),
        if_none_match: request.if_none_match.as_deref(),
        if_modified_since: request.if_modified_since.as_deref(),
    }
}

/// Entries one by one; a refused one fails alone. `nested`: places of entries that were Bundles of requests themselves.
async fn batch(
    visit: &Visit<'_>,
    wishes: &Wishes,
    document: &Document<'_>,
    nested: &BTreeSet<usize>,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let entries = document.bundle().map_or(0, |envelope| envelope.entries.len());
    let mut reply = Reply::new("batch-response");
    for place in 0..entries {
        // Many entries take their time, and the connection need not end for it.
        visit.peer.progressed();
        let mut entry_draft = draft.entry(place);
        let outcome = if reply.is_full() {
            Err(Refusal::BundleTooLong)
        } else if nested.contains(&place) {
            Err(Refusal::Fhir(FhirRefusal::NotServed(NotServed::Nested)))
        } else {
            alone(visit, wishes, document, place, &mut entry_draft).await
        };
        let answered = entry_draft.settle(outcome, visit.gate);
        draft.entries.push(entry_draft);
        reply.push(&answered);
    }
    Ok(reply.answer())
}

async fn alone(
    visit: &Visit<'_>,
    wishes: &Wishes,
    document: &Document<'_>,
    place: usize,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let entry = understand(visit, wishes, document, place)?;
    draft.asks(&entry.asked.interaction);
    answer::question(visit, &entry.asked, &entry.body, None, draft).await
}

/// A transaction's entry on its way.
enum Step {
    /// A change that goes to the EMR in the transaction.
    Change(Box<Prepared>),
    /// Answered without a change.
    Settled(Answer),
    /// A read, answered when the changes are made.
    Later,
}

/// All entries judged and merged, then sent as one; any refusal refuses all, and each entry's record says so.
async fn transaction(
    visit: &Visit<'_>,
    wishes: &Wishes,
    document: &Document<'_>,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let count = document.bundle().map_or(0, |envelope| envelope.entries.len());
    let mut drafts: Vec<Draft> = (0..count).map(|place| draft.entry(place)).collect();
    let sent = match understand_all(visit, wishes, document, &mut drafts) {
        Ok(entries) => together(visit, &entries, &mut drafts, draft).await,
        Err(refusal) => Err(refusal),
    };
    let mut reply = Reply::new("transaction-response");
    let outcome = sent.map(|answers| {
        for (answer, entry_draft) in answers.into_iter().zip(&mut drafts) {
            reply.push(&entry_draft.settle(answer, visit.gate));
        }
    });
    if let Err(refusal) = &outcome {
        drafts.iter_mut().for_each(|entry_draft| entry_draft.refused_with_all(refusal));
    }
    draft.entries = drafts;
    outcome.map(|()| reply.answer())
}

fn understand_all(
    visit: &Visit<'_>,
    wishes: &Wishes,
    document: &Document<'_>,
    drafts: &mut [Draft],
) -> Result<Vec<Entry>, Refusal> {
    let understood = drafts.iter_mut().enumerate().map(|(place, draft)| {
        let entry = understand(visit, wishes, document, place)?;
        draft.asks(&entry.asked.interaction);
        Ok(entry)
    });
    understood.collect()
}

/// Prepared and sent; again from the start when the EMR says that a record was changed in between, a few times, and
/// only if the client named no version itself.
async fn together(
    visit: &Visit<'_>,
    entries: &[Entry],
    drafts: &mut Vec<Draft>,
    draft: &mut Draft,
) -> Result<Answers, Refusal> {
    let _turns = visit.gate.turns.take(entries.iter().map(|entry| &entry.asked)).await?;
    let clean = drafts.clone();
    let mut tries = 0;
    loop {
        tries += 1;
        let steps = prepare_all(visit, entries, drafts).await?;
        let may_retry = steps.iter().all(|step| match step {
            Step::Change(prepared) => prepared.may_retry || prepared.change.is_create(),
            Step::Settled(_) | Step::Later => true,
        });
        match commit(visit, entries, steps, drafts, draft).await {
            Err(Refusal::Conflict | Refusal::PreconditionFailed) if may_retry => {
                if tries >= limits::WRITE_TRIES_MAX {
                    return Err(Refusal::Conflict);
                }
                drafts.clone_from(&clean);
            }
            outcome => return outcome,
        }
    }
}

async fn prepare_all(
    visit: &Visit<'_>,
    entries: &[Entry],
    drafts: &mut Vec<Draft>,
) -> Result<Vec<Step>, Refusal> {
    let clean = drafts.clone();
    let (mut steps, places) = prepare_with(visit, entries, &BTreeMap::new(), drafts).await?;
    if !places.is_empty() {
        // Entries that refer to one whose record is there already must name that record, and be judged by it.
        *drafts = clean;
        (steps, _) = prepare_with(visit, entries, &places, drafts).await?;
    }
    check_targets(&steps)?;
    Ok(steps)
}

/// Every entry's step, and what the entries' own names (`fullUrl`) stand for where a record is there already.
async fn prepare_with(
    visit: &Visit<'_>,
    entries: &[Entry],
    places: &BTreeMap<String, String>,
    drafts: &mut [Draft],
) -> Result<(Vec<Step>, BTreeMap<String, String>), Refusal> {
    let (mut steps, mut found) = (Vec::new(), BTreeMap::new());
    for (entry, draft) in entries.iter().zip(drafts) {
        visit.peer.progressed();
        steps.push(match &entry.asked.interaction {
            Interaction::Create { .. }
            | Interaction::Update { .. }
            | Interaction::Patch { .. }
            | Interaction::Delete { .. } => {
                match write::prepare(visit, &entry.asked, &entry.body, places, draft).await? {
                    Ready::Send(prepared) => {
                        draft.decision.written = vec![prepared.written.clone()];
                        if prepared.written.reference.contains('/') {
                            let name = prepared.written.reference.clone();
                            found.extend(entry.full_url.clone().map(|url| (url, name)));
                        }
                        Step::Change(prepared)
                    }
                    Ready::Found { permit, resource, id } => {
                        let name = format!("{}/{id}", resource.name());
                        found.extend(entry.full_url.clone().map(|url| (url, name)));
                        let wishes = &entry.asked.wishes;
                        Step::Settled(conclude::found(visit, &permit, resource, &id, wishes, draft).await?)
                    }
                }
            }
            Interaction::Read { .. } | Interaction::Vread { .. } | Interaction::Search(_) => {
                let _asked_again_when_the_changes_are_made = visit.admit(&entry.asked.interaction, draft)?;
                Step::Later
            }
            _ => return Err(Refusal::NotABundle),
        });
    }
    Ok((steps, found))
}

/// No record may be changed twice in one transaction (R4 http.html, transaction rules).
fn check_targets(steps: &[Step]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for step in steps {
        if let Step::Change(prepared) = step
            && prepared.written.reference.contains('/')
            && !seen.insert(prepared.written.reference.as_str())
        {
            return Err(Refusal::NotABundle);
        }
    }
    Ok(())
}

type Answers = Vec<Result<Answer, Refusal>>;

async fn commit(
    visit: &Visit<'_>,
    entries: &[Entry],
    steps: Vec<Step>,
    drafts: &mut [Draft],
    draft: &mut Draft,
) -> Result<Answers, Refusal> {
    let changes: Vec<(&Prepared, Option<&str>)> = steps
        .iter()
        .zip(entries)
        .filter_map(|(step, entry)| match step {
            // A name under our own base would be another record's upstream; its references are local by now.
            Step::Change(prepared) => {
                let own = entry.full_url.as_deref().filter(|url| url.starts_with("urn:"));
                Some((&**prepared, own))
            }
            Step::Settled(_) | Step::Later => None,
        })
        .collect();
    let told = if changes.is_empty() { Vec::new() } else { send(visit, &changes, drafts, draft).await? };
    let mut told = told.into_iter();
    let mut answers = Vec::with_capacity(steps.len());
    for ((step, entry), entry_draft) in steps.into_iter().zip(entries).zip(drafts) {
        answers.push(match step {
            Step::Settled(answer) => Ok(answer),
            Step::Later => answer::question(visit, &entry.asked, &entry.body, None, entry_draft).await,
            Step::Change(prepared) => match told.next() {
                Some(told) => conclude::told(visit, &prepared, told, &entry.asked.wishes, entry_draft).await,
                None => Err(Refusal::AnswerUnsound),
            },
        });
    }
    Ok(answers)
}

/// Sends the changes as one transaction, after their intents; gives what the EMR said of each.
async fn send(
    visit: &Visit<'_>,
    changes: &[(&Prepared, Option<&str>)],
    drafts: &[Draft],
    draft: &mut Draft,
) -> Result<Vec<Told>, Refusal> {
    let changing: Vec<Draft> =
        drafts.iter().filter(|entry| !entry.decision.written.is_empty()).cloned().collect();
    let intended = visit.intend_all(draft, &changing).await?;
    let parts: Vec<_> =
        changes.iter().map(|(prepared, url)| (&prepared.change, &prepared.permit, *url)).collect();
    let plan = narrow::plan_transaction(&parts).map_err(|_| Refusal::Internal)?;
    let answer = visit.send(&plan, &intended).await.inspect_err(|refusal| {
        draft.unknown =
            matches!(refusal, Refusal::Upstream(error) if !UpstreamError::outcome_is_known(*error));
    })?;
    conclude::check_status(answer.status, draft)?;
    // From here on the changes are made.
    draft.unknown = true;
    let body = answer.body.read(limits::UPSTREAM_ANSWER_BYTES_MAX).await.map_err(Refusal::Upstream)?;
    let told = read_response(visit, &body, changes.len()).ok_or(Refusal::AnswerUnsound)?;
    draft.unknown = false;
    Ok(told)
}

fn read_response(visit: &Visit<'_>, body: &[u8], expected: usize) -> Option<Vec<Told>> {
    let bases = visit.bases();
    let document = filter::parse(body, &bases).ok()?;
    let envelope = document.bundle().filter(|envelope| envelope.kind == "transaction-response")?;
    let told: Option<Vec<Told>> = envelope
        .entries
        .iter()
        .map(|entry| {
            let response: &EntryResponse = entry.response.as_ref()?;
            let status = response.status.split(' ').next()?.parse::<u16>().ok()?;
            let status = StatusCode::from_u16(status).ok().filter(|status| write::is_taken(*status))?;
            let body = entry.record.map(|index| Bytes::copy_from_slice(document.raw(index)));
            Some(Told { status, location: response.location.clone(), body: body.unwrap_or_default() })
        })
        .collect();
    told.filter(|told| told.len() == expected)
}

/// The Bundle of answers, while it is put together.
struct Reply {
    body: Vec<u8>,
    entries: usize,
}

impl Reply {
    fn new(kind: &str) -> Self {
        Self { body: format!(r#"{{"resourceType":"Bundle","type":"{kind}""#).into_bytes(), entries: 0 }
    }

    /// One answer may not grow past what an answer of the EMR may.
    fn is_full(&self) -> bool {
        self.body.len() >= limits::UPSTREAM_ANSWER_BYTES_MAX
    }

    fn push(&mut self, answer: &Answer) {
        self.body.extend_from_slice(if self.entries == 0 { br#","entry":["# } else { b"," });
        self.entries += 1;
        let failed = answer.status.as_u16() >= 400;
        let mut response = Map::new();
        response.insert("status".to_owned(), json!(answer.status.as_u16().to_string()));
        let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        response.extend(text(header::LOCATION).map(|url| ("location".to_owned(), json!(url))));
        response.extend(text(header::ETAG).map(|tag| ("etag".to_owned(), json!(tag))));
        if let Some(instant) = &answer.last_modified {
            response.insert("lastModified".to_owned(), json!(instant));
        }
        if failed && let Ok(mut outcome) = serde_json::from_slice::<Value>(&answer.body) {
            // An entry has no headers: what a client needs to log in again stands in its outcome.
            let challenge = text(header::WWW_AUTHENTICATE);
            if let Some((challenge, outcome)) = challenge.zip(outcome.as_object_mut()) {
                let said = json!([{ "url": CHALLENGE_EXTENSION, "valueString": challenge }]);
                outcome.insert("extension".to_owned(), said);
            }
            response.insert("outcome".to_owned(), outcome);
        }
        self.body.push(b'{');
        if !failed && !answer.body.is_empty() {
            self.body.extend_from_slice(br#""resource":"#);
            self.body.extend_from_slice(&answer.body);
            self.body.push(b',');
        }
        self.body.extend_from_slice(format!(r#""response":{}}}"#, Value::Object(response)).as_bytes());
    }

    fn answer(mut self) -> Answer {
        self.body.extend_from_slice(if self.entries == 0 { b"}" } else { b"]}" });
        Answer::fhir(StatusCode::OK, self.body)
    }
}
