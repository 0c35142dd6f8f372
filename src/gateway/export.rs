//! Bulk export (Bulk Data Access IG 1.0.1): kick-off, status, end, and the way to its files.
//!
//! Owns: the links of an export. They are sealed for the caller who began it (T-095), hold all that is known of the
//! export, so that it outlasts the process, and each time one is followed its question is judged again (T-150). The manifest is built anew, with one file for each type.
//! Must never: show a link or a count of the EMR's (T-096, T-016), or pass on a file as it is (KF-38).
//! Look next: `stream`, which filters a file; `narrow::export`, which says what is asked of the EMR.

use super::Gate;
use super::draft::Draft;
use super::operation;
use super::page::bound_to;
use super::refusal::Refusal;
use super::reply::{Answer, read_instant};
use super::stream::{Units, refused};
use super::visit::Visit;
use crate::domain::access::Permit;
use crate::domain::fhir::classify::{self, Asked, FhirRefusal, Wishes};
use crate::domain::fhir::interaction::{ExportLevel, Interaction, Operation, PageToken};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::narrow::{self, ExportStep, Plan};
use crate::edge::upstream::{self, UpstreamError};
use crate::limits;
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

const NDJSON: HeaderValue = HeaderValue::from_static("application/fhir+ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a sealed link of an export holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The question the export was begun with, as its canonical address.
    question: String,
    /// Where the EMR tells of it, below its base.
    place: String,
    /// When the export's links end, in seconds since 1970.
    until: i64,
    /// Of the link to a file: the type of its records.
    resource: Option<String>,
}

/// What a link is for. It opens for nothing else.
#[derive(Clone, Copy)]
enum Link {
    Status,
    File,
}

impl Link {
    fn binding(self, visit: &Visit<'_>) -> Vec<u8> {
        let word: &[u8] = match self {
            Self::Status => b"export status",
            Self::File => b"export file",
        };
        // The key is lasting: a link is also bound to the EMR that its place belongs to.
        [&bound_to(&visit.caller), word, b"|", visit.gate.upstream_base.as_bytes()].concat()
    }

    fn seal(self, visit: &Visit<'_>, sealed: &Sealed) -> Result<String, Refusal> {
        let mut plaintext = serde_json::to_vec(sealed).map_err(|_| Refusal::Internal)?;
        // White space behind JSON is none of it: links tell nothing by their lengths.
        plaintext.resize(plaintext.len().next_multiple_of(limits::EXPORT_LINK_STEP_BYTES), b' ');
        let until = Timestamp::from_second(sealed.until).map_err(|_| Refusal::Internal)?;
        visit.gate.exports.seal(&plaintext, &self.binding(visit), until).map_err(|_| Refusal::Internal)
    }

    /// Whatever is wrong with a link, it names nothing (T-095).
    fn open(self, visit: &Visit<'_>, token: &PageToken) -> Result<Sealed, Refusal> {
        let opened = visit.gate.exports.open(token.as_str(), &self.binding(visit), visit.now());
        opened.ok().and_then(|plain| serde_json::from_slice(&plain).ok()).ok_or(Refusal::NotFound)
    }
}

/// An export under way, opened again for its caller and permitted anew.
struct Followed {
    sealed: Sealed,
    question: Interaction,
    permit: Permit,
}

impl Followed {
    async fn open(
        visit: &Visit<'_>,
        link: Link,
        token: &PageToken,
        draft: &mut Draft,
    ) -> Result<Self, Refusal> {
        let sealed = link.open(visit, token)?;
        let question = classify::continued(&sealed.question, &visit.gate.public, &visit.gate.parameters)
            .map_err(|_| Refusal::NotFound)?;
        draft.continues(&question);
        let permit = admit(visit, &question, draft).await?;
        Ok(Self { sealed, question, permit })
    }

    fn plan(&self, place: &str, step: ExportStep) -> Result<Plan, Refusal> {
        narrow::plan_export_step(&self.question, &self.permit, place, step)
            .map_err(|_| Refusal::AnswerUnsound)
    }
}

/// Begins an export.
///
/// # Errors
/// [`Refusal::NotFound`] for a group that is not there for the caller.
pub(super) async fn kick_off(visit: &Visit<'_>, asked: &Asked, draft: &mut Draft) -> Result<Answer, Refusal> {
    refuse_head(&asked.wishes)?;
    let permit = admit(visit, &asked.interaction, draft).await?;
    let question = asked.interaction.address();
    if question.len() > limits::EXPORT_QUESTION_BYTES_MAX {
        return Err(Refusal::Fhir(FhirRefusal::TooManyParameters));
    }
    let plan = narrow::plan_export(&asked.interaction, &permit).map_err(|_| Refusal::Internal)?;
    let answer = visit.hear(&plan).await?;
    match answer.status {
        StatusCode::ACCEPTED => {}
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::NOT_IMPLEMENTED => return Err(Refusal::QueryRefusedUpstream),
        status => return Err(refused(status)),
    }
    let place = answer.content_location().and_then(|link| place_of(visit.gate, link));
    let place = place.ok_or(Refusal::AnswerUnsound)?;
    let _followable = narrow::plan_export_step(&asked.interaction, &permit, &place, ExportStep::Status)
        .map_err(|_| Refusal::AnswerUnsound)?;
    let sealed = Sealed { question, place, until: end_of(visit)?, resource: None };
    let url = visit.gate.public.export_url(&Link::Status.seal(visit, &sealed)?);
    let mut accepted = Answer::empty(StatusCode::ACCEPTED);
    let url = HeaderValue::try_from(url).map_err(|_| Refusal::Internal)?;
    accepted.headers.insert(header::CONTENT_LOCATION, url);
    Ok(accepted)
}

/// How far an export is, or its manifest.
///
/// # Errors
/// [`Refusal::NotFound`] for a link that is not this caller's, here and now.
pub(super) async fn status(
    visit: &Visit<'_>,
    token: &PageToken,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let export = Followed::open(visit, Link::Status, token, draft).await?;
    let answer = visit.hear(&export.plan(&export.sealed.place, ExportStep::Status)?).await?;
    if answer.status == StatusCode::ACCEPTED {
        let mut waiting = Answer::empty(StatusCode::ACCEPTED);
        if let Some(seconds) = answer.retry_after() {
            waiting.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        return Ok(waiting);
    }
    let manifest = Manifest::read(visit.gate, &export, answer).await?;
    let mut answer = Answer::fhir(StatusCode::OK, manifest.shown(visit, &export)?);
    answer.headers.insert(header::CONTENT_TYPE, JSON);
    Ok(answer)
}

/// Ends an export at the EMR. It changes what the EMR holds, so the intent comes first.
///
/// # Errors
/// As [`status`].
pub(super) async fn cancel(
    visit: &Visit<'_>,
    token: &PageToken,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let export = Followed::open(visit, Link::Status, token, draft).await?;
    let plan = export.plan(&export.sealed.place, ExportStep::Cancel)?;
    let intended = visit.intend(draft).await?;
    let answer = visit.send(&plan, &intended).await.inspect_err(|refusal| {
        draft.unknown =
            matches!(refusal, Refusal::Upstream(error) if !UpstreamError::outcome_is_known(*error));
    })?;
    match answer.status {
        StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => {
            Ok(Answer::empty(StatusCode::ACCEPTED))
        }
        status => {
            draft.unknown = status.is_server_error();
            Err(refused(status))
        }
    }
}

/// Opens the file of one type: its first unit, and what follows it.
///
/// # Errors
/// As [`status`]; [`Refusal::AnswerUnsound`] when a line of the first unit is no sound record of the type.
pub(super) async fn file(
    visit: &Visit<'_>,
    token: &PageToken,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    refuse_head(wishes)?;
    let export = Followed::open(visit, Link::File, token, draft).await?;
    let resource = export.sealed.resource.as_deref().and_then(ResourceType::from_name);
    let resource =
        resource.filter(|resource| export.permit.types().contains(resource)).ok_or(Refusal::NotFound)?;
    let answer = visit.hear(&export.plan(&export.sealed.place, ExportStep::Status)?).await?;
    let files = Manifest::read(visit.gate, &export, answer).await?.files_of(resource);
    let of_patients = !matches!(
        export.question,
        Interaction::Operation(Operation::Export { level: ExportLevel::System, .. })
    );
    let (permit, question) = (export.permit, export.question);
    let mut units = Units::new(visit, permit, question, resource, of_patients, draft.clone(), files);
    let mut first = units.next(visit.gate).await?.unwrap_or_default();
    visit.gate.telemetry.filtered(0, first.body.len() as u64);
    draft.decision.unit = Some(0);
    draft.releases(&mut first, true);
    let mut answer = Answer::fhir(StatusCode::OK, first.body);
    answer.headers.insert(header::CONTENT_TYPE, NDJSON);
    answer.rest = Some(Box::new(units));
    Ok(answer)
}

/// The question, and the record it rests on: without the group there is no export of it (KF-26).
async fn admit(visit: &Visit<'_>, question: &Interaction, draft: &mut Draft) -> Result<Permit, Refusal> {
    let permit = visit.admit(question, draft)?;
    operation::check_basis(visit, &permit).await?;
    Ok(permit)
}

/// A HEAD must not begin a job or release records.
fn refuse_head(wishes: &Wishes) -> Result<(), Refusal> {
    if wishes.head_only { Err(Refusal::Fhir(FhirRefusal::MethodNotAllowed("GET"))) } else { Ok(()) }
}

fn end_of(visit: &Visit<'_>) -> Result<i64, Refusal> {
    let lifetime = SignedDuration::try_from(limits::EXPORT_LIFETIME).map_err(|_| Refusal::Internal)?;
    let end = visit.now().checked_add(lifetime).map_err(|_| Refusal::Internal)?;
    Ok(end.as_second())
}

/// The part of an EMR's link below its base. The EMR may name itself by its own base or by the public one.
fn place_of(gate: &Gate, link: &str) -> Option<String> {
    let base = gate.upstream.base();
    base.relative(link).or_else(|| {
        let place = link.strip_prefix(gate.public.as_str())?.strip_prefix('/')?;
        base.relative(&format!("{}/{place}", gate.upstream_base))
    })
}

/// The EMR's manifest, as far as anything of it is used. Its `deleted` would tell of records that nobody may see, and
/// its `error` holds the EMR's own words (T-098).
#[derive(Deserialize)]
struct ManifestText {
    #[serde(rename = "transactionTime")]
    time: String,
    output: Vec<FileText>,
}

#[derive(Deserialize)]
struct FileText {
    #[serde(rename = "type")]
    resource: String,
    url: String,
}

/// A manifest whose files are all the EMR's own.
struct Manifest {
    time: Timestamp,
    files: Vec<(ResourceType, Plan)>,
}

impl Manifest {
    async fn read(gate: &Gate, export: &Followed, answer: upstream::Answer) -> Result<Self, Refusal> {
        if answer.status != StatusCode::OK {
            return Err(refused(answer.status));
        }
        let body = answer.body.read(limits::EXPORT_MANIFEST_BYTES_MAX).await.map_err(Refusal::Upstream)?;
        let text: ManifestText = serde_json::from_slice(&body).map_err(|_| Refusal::AnswerUnsound)?;
        let time = read_instant(&text.time).ok_or(Refusal::AnswerUnsound)?;
        let mut files = Vec::with_capacity(text.output.len());
        for file in text.output {
            let resource = ResourceType::from_name(&file.resource).ok_or(Refusal::AnswerUnsound)?;
            let place = place_of(gate, &file.url).ok_or(Refusal::AnswerUnsound)?;
            files.push((resource, export.plan(&place, ExportStep::File)?));
        }
        Ok(Self { time, files })
    }

    fn files_of(self, resource: ResourceType) -> Vec<Plan> {
        let of_type = |(kind, plan)| (kind == resource).then_some(plan);
        self.files.into_iter().filter_map(of_type).collect()
    }

    /// One file for each type, however many the EMR has. Where records may be withheld there is one although the EMR
    /// has none: else the manifest would say whether there are any that the caller may not see (T-016).
    fn shown(&self, visit: &Visit<'_>, export: &Followed) -> Result<String, Refusal> {
        let public = &visit.gate.public;
        let mut output = Vec::new();
        for resource in export.permit.types() {
            let present = self.files.iter().any(|(kind, _)| *kind == resource);
            if !present && export.permit.releases_every(resource) {
                continue;
            }
            let sealed = Sealed {
                question: export.sealed.question.clone(),
                place: export.sealed.place.clone(),
                until: export.sealed.until,
                resource: Some(resource.name().to_owned()),
            };
            let url = public.file_url(&Link::File.seal(visit, &sealed)?);
            output.push(json!({ "type": resource.name(), "url": url }));
        }
        let manifest = json!({
            "transactionTime": self.time.to_string(),
            "request": public.question_url(&export.question),
            "requiresAccessToken": true,
            "output": output,
            "deleted": [],
            "error": [],
        });
        Ok(manifest.to_string())
    }
}
