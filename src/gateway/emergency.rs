//! Emergency access ("break-glass"): for one patient, for a while, with a reason, and for somebody to look at later.
//!
//! Owns: the operation `$break-glass`, the grants in force, their rate and their end. Each start and end is in the trail
//! before it counts, and each answer that rests on a grant says so in its record.
//! Must never: grant what policy does not permit, tell whether there is such a patient, or take a header's word for an
//! emergency (T-195, T-196). Whether a grant opens anything is for policy to say (`context.emergency`).
//! Look next: `domain::access::emergency`, for which questions a grant counts.

use super::Gate;
use super::draft::Draft;
use super::refusal::Refusal;
use super::reply::Answer;
use super::reserve;
use super::visit::Visit;
use crate::domain::access::{Challenge, Denial};
use crate::domain::audit::{Control, Event, Record};
use crate::domain::fhir::interaction::{Interaction, is_id};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::filter;
use crate::domain::identity::Caller;
use crate::domain::identity::{Reach, Revocation, RevocationTarget};
use crate::edge::sessions::{Document, SessionRefusal, SessionStore};
use crate::limits;
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// `[emergency]` of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The login may be no older than this.
    pub fresh_seconds: i64,
    /// How long a grant lasts unless asked otherwise.
    pub seconds: i64,
    /// The longest that may be asked for.
    pub seconds_max: i64,
    /// Grants a person may begin within an hour.
    pub per_hour: u32,
}

/// Why emergency access is not granted although policy permits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmergencyRefusal {
    /// The body does not say what it must: the part that is wrong.
    NotUnderstood(&'static str),
    /// The person has begun too many; another is possible in so many seconds.
    TooOften { seconds: u64 },
}

impl EmergencyRefusal {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NotUnderstood(_) => "emergency-not-understood",
            Self::TooOften { .. } => "emergency-too-often",
        }
    }
}

impl fmt::Display for EmergencyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood(part) => write!(f, "the parameter `{part}` is missing or not understood"),
            Self::TooOften { seconds } => {
                write!(f, "too many emergencies within an hour: the next is possible in {seconds} s")
            }
        }
    }
}

/// Emergency access to one patient, for one session of one person.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    id: String,
    issuer: String,
    subject: String,
    session: String,
    patient: String,
    began: Timestamp,
    until: Timestamp,
    ended: bool,
}

impl Grant {
    fn is_live(&self, now: Timestamp) -> bool {
        !self.ended && self.began <= now && now < self.until
    }

    fn is_of(&self, caller: &Caller) -> bool {
        self.is_of_person(caller) && self.session == caller.session()
    }

    fn is_of_person(&self, caller: &Caller) -> bool {
        self.issuer == caller.issuer() && self.subject == caller.subject()
    }
}

/// Where grants are among the documents of the session store.
const NAMESPACE: &str = "emergency";

/// The grants there are: kept in the session store, so that they outlive a restart and all proxies know them.
pub struct Emergencies {
    settings: Settings,
    store: Arc<dyn SessionStore>,
    /// What the store held when it was last read.
    known: RwLock<Arc<Vec<Grant>>>,
    /// One at a time, so that a rate cannot be outrun, and no reading of the store undoes a newer one.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Emergencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emergencies").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Emergencies {
    /// Grants kept in this store. None is known before the first [`sweep`].
    #[must_use]
    pub fn new(settings: Settings, store: Arc<dyn SessionStore>) -> Self {
        Self { settings, store, known: RwLock::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// The patients to whom a caller has emergency access now, each with the id of the grant.
    pub(super) fn of(&self, caller: &Caller, now: Timestamp) -> BTreeMap<String, String> {
        let all = self.all();
        let live = all.iter().filter(|grant| grant.is_of(caller) && grant.is_live(now));
        live.map(|grant| (grant.patient.clone(), grant.id.clone())).collect()
    }

    fn all(&self) -> Arc<Vec<Grant>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the store. INVARIANT: the caller holds `turn`.
    async fn read(&self, now: Timestamp) -> Result<(), Refusal> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.documents(NAMESPACE, now)).await;
        let documents = read.map_err(|_| Refusal::Internal)?.map_err(|error| {
            tracing::error!(%error, "grants of emergency access cannot be read");
            Refusal::from(SessionRefusal::Unavailable)
        })?;
        let grants = documents.iter().filter_map(|document| serde_json::from_slice(&document.body).ok());
        let grants: Vec<Grant> = grants.take(limits::EMERGENCY_GRANTS_MAX).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
        Ok(())
    }

    /// Keeps a grant, in the place of the same before; an ended one is kept for the rate of its person. INVARIANT: the
    /// caller holds `turn`.
    async fn keep(&self, grant: &Grant) -> Result<(), Refusal> {
        let hour = SignedDuration::from_hours(1);
        let counted = grant.began.checked_add(hour).unwrap_or(grant.until);
        let body = serde_json::to_vec(grant).map_err(|_| Refusal::Internal)?;
        // A sweep or two later, so that its end is noticed before it is forgotten.
        let margin = limits::EMERGENCY_SWEEP_INTERVAL * 24;
        let expires_at = grant.until.max(counted).checked_add(margin).unwrap_or(grant.until);
        let (store, document) =
            (Arc::clone(&self.store), Document { name: grant.id.clone(), body, expires_at });
        let kept = tokio::task::spawn_blocking(move || store.put(NAMESPACE, &document)).await;
        kept.map_err(|_| Refusal::Internal)?.map_err(|error| {
            tracing::error!(%error, "a grant of emergency access cannot be kept");
            Refusal::from(SessionRefusal::Unavailable)
        })?;
        let mut all: Vec<Grant> = self.all().iter().filter(|one| one.id != grant.id).cloned().collect();
        all.push(grant.clone());
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        Ok(())
    }

    /// Whether the person may begin another.
    fn check_rate(&self, caller: &Caller, now: Timestamp) -> Result<(), EmergencyRefusal> {
        let age = |grant: &Grant| now.duration_since(grant.began).as_secs();
        let mut ages: Vec<i64> = self
            .all()
            .iter()
            .filter(|grant| grant.is_of_person(caller))
            .map(age)
            .filter(|seconds| *seconds < 3600)
            .collect();
        ages.sort_unstable();
        let allowed = usize::try_from(self.settings.per_hour).unwrap_or(usize::MAX);
        match ages.get(allowed.saturating_sub(1)) {
            // The one that leaves the hour first makes room.
            Some(oldest) => {
                Err(EmergencyRefusal::TooOften { seconds: u64::try_from(3600 - oldest).unwrap_or(1).max(1) })
            }
            None => Ok(()),
        }
    }
}

/// What the body asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    patient: String,
    reason: String,
    seconds: Option<i64>,
    end: bool,
}

impl Asked {
    /// Reads `Parameters` with `patient`, `reason`, `duration` and `end`, each at most once and nothing else.
    fn read(body: &Value, public: &str) -> Result<Self, EmergencyRefusal> {
        let wrong = EmergencyRefusal::NotUnderstood;
        let (mut patient, mut reason, mut seconds, mut end) = (None, None, None, None);
        for parameter in body["parameter"].as_array().into_iter().flatten() {
            let repeated = match parameter["name"].as_str() {
                Some("patient") => {
                    patient.replace(read_patient(parameter, public).ok_or(wrong("patient"))?).is_some()
                }
                Some("reason") => reason.replace(read_reason(parameter).ok_or(wrong("reason"))?).is_some(),
                Some("duration") => {
                    seconds.replace(read_seconds(parameter).ok_or(wrong("duration"))?).is_some()
                }
                Some("end") => {
                    end.replace(parameter["valueBoolean"].as_bool().ok_or(wrong("end"))?).is_some()
                }
                Some(_) | None => true,
            };
            if repeated {
                return Err(wrong("parameter"));
            }
        }
        let (patient, end) = (patient.ok_or(wrong("patient"))?, end.unwrap_or(false));
        let reason = if end { reason.unwrap_or_default() } else { reason.ok_or(wrong("reason"))? };
        Ok(Self { patient, reason, seconds, end })
    }
}

/// `Patient/id`, here or in full, or the id alone.
fn read_patient(parameter: &Value, public: &str) -> Option<String> {
    let given = parameter
        .pointer("/valueReference/reference")
        .or_else(|| parameter.get("valueId"))
        .or_else(|| parameter.get("valueString"))?
        .as_str()?;
    let local = given.strip_prefix(public).and_then(|rest| rest.strip_prefix('/')).unwrap_or(given);
    let id = local.strip_prefix("Patient/").unwrap_or(local);
    is_id(id).then(|| id.to_owned())
}

/// A code, or words: enough of them to say something.
fn read_reason(parameter: &Value) -> Option<String> {
    let code = parameter.pointer("/valueCoding/code").or_else(|| parameter.get("valueCode"));
    if let Some(code) = code {
        let plain = |text: &&str| !text.trim().is_empty() && text.len() <= limits::PURPOSE_BYTES_MAX;
        return code.as_str().filter(plain).map(|text| text.trim().to_owned());
    }
    let text = parameter["valueString"].as_str()?.trim();
    let said = text.chars().filter(|c| c.is_alphanumeric()).count() >= limits::EMERGENCY_REASON_CHARS_MIN;
    (said && text.len() <= limits::EMERGENCY_REASON_BYTES_MAX).then(|| text.to_owned())
}

/// `valueDuration` in hours, minutes or seconds.
fn read_seconds(parameter: &Value) -> Option<i64> {
    let duration = parameter.get("valueDuration")?;
    let unit = duration.get("code").or_else(|| duration.get("unit"))?.as_str()?;
    let each = match unit {
        "h" => 3600,
        "min" => 60,
        "s" => 1,
        _ => return None,
    };
    duration["value"].as_i64()?.checked_mul(each)
}

/// Answers `$break-glass`.
pub(super) async fn answer(
    visit: &Visit<'_>,
    question: &Interaction,
    body: &Bytes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let permit = visit.admit(question, draft)?;
    let asked = read_body(visit, body)?;
    draft.decision.request.push_str(&format!(" Patient/{}", asked.patient));
    let emergencies = &visit.gate.emergencies;
    let _turn = emergencies.turn.lock().await;
    // What another proxy granted counts as well.
    emergencies.read(visit.now()).await?;
    let mine = |grant: &&Grant| grant.is_of(&visit.caller) && grant.patient == asked.patient;
    let live = emergencies.all().iter().filter(mine).find(|one| one.is_live(visit.now())).cloned();
    if asked.end {
        let grant = live.ok_or(Refusal::NotFound)?;
        let ended = Grant { until: visit.now(), ..end(visit.gate, grant, "ended", visit.now()).await? };
        return Ok(told(visit, &ended));
    }
    let in_reserve = permit.uses_reserve();
    permit.operates_on(&asked.patient).map_err(|denial| match denial.is_alarm() {
        true => Refusal::PolicyFault,
        false => refused(),
    })?;
    check_fresh(visit)?;
    // What is in force goes on as it is: asking again does not lengthen it.
    if let Some(grant) = live {
        draft.reserve.extend(in_reserve.then(|| grant.id.clone()));
        return Ok(told(visit, &grant));
    }
    emergencies.check_rate(&visit.caller, visit.now()).map_err(Refusal::Emergency)?;
    if emergencies.all().len() >= limits::EMERGENCY_GRANTS_MAX {
        return Err(Refusal::Emergency(EmergencyRefusal::TooOften {
            seconds: limits::RETRY_AFTER_SECONDS_MAX,
        }));
    }
    let grant = begin(visit, asked, in_reserve).await?;
    draft.reserve.extend(in_reserve.then(|| grant.id.clone()));
    Ok(told(visit, &grant))
}

fn read_body(visit: &Visit<'_>, body: &Bytes) -> Result<Asked, Refusal> {
    let bases = visit.bases();
    let document = filter::parse_sent(body, &bases).map_err(Refusal::BodyUnsound)?;
    let facts = document.records().first().map(|record| &record.facts);
    if facts.is_none_or(|facts| facts.resource_type.name() != "Parameters") {
        return Err(Refusal::OtherType);
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::OtherType)?;
    let asked = Asked::read(&body, visit.gate.public.as_str()).map_err(Refusal::Emergency)?;
    let bound = limits::EMERGENCY_SECONDS_MIN..=visit.gate.emergencies.settings.seconds_max;
    match asked.seconds {
        Some(seconds) if !bound.contains(&seconds) => {
            Err(Refusal::Emergency(EmergencyRefusal::NotUnderstood("duration")))
        }
        Some(_) | None => Ok(asked),
    }
}

/// Not permitted on this patient sounds like not permitted at all.
fn refused() -> Refusal {
    match ResourceType::from_name("Patient") {
        Some(resource) => Refusal::Access(Denial::TypeNotPermitted { resource }),
        None => Refusal::Internal,
    }
}

/// A second factor proven just now, whatever the policies ask of other questions.
fn check_fresh(visit: &Visit<'_>) -> Result<(), Refusal> {
    let fresh = visit.gate.emergencies.settings.fresh_seconds;
    if visit.caller.mfa().age_seconds(visit.now()) <= fresh {
        return Ok(());
    }
    let challenge = Challenge { max_age_seconds: Some(fresh), phishing_resistant: false };
    Err(visit.challenged(challenge, vec!["$break-glass".to_owned()]))
}

async fn begin(visit: &Visit<'_>, asked: Asked, in_reserve: bool) -> Result<Grant, Refusal> {
    let (caller, emergencies) = (&visit.caller, &visit.gate.emergencies);
    let lasts = SignedDuration::from_secs(asked.seconds.unwrap_or(emergencies.settings.seconds));
    let mut id = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Refusal::Internal)?;
    let grant = Grant {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        issuer: caller.issuer().to_owned(),
        subject: caller.subject().to_owned(),
        session: caller.session().to_owned(),
        patient: asked.patient,
        began: visit.now(),
        until: visit.now().checked_add(lasts).map_err(|_| Refusal::Internal)?,
        ended: false,
    };
    let roles: Vec<String> = caller.roles().iter().cloned().collect();
    let more = [
        ("session", grant.session.clone()),
        ("reason", asked.reason),
        ("until", grant.until.to_string()),
        ("roles", roles.join(" ")),
    ];
    // In the trail first: what is not written down does not count.
    record(visit.gate, (Event::EmergencyBegan, in_reserve), &grant, visit.now(), more).await?;
    emergencies.keep(&grant).await?;
    Ok(grant)
}

/// Ends a grant, in the trail first.
async fn end(gate: &Gate, grant: Grant, cause: &'static str, now: Timestamp) -> Result<Grant, Refusal> {
    record(gate, (Event::EmergencyEnded, false), &grant, now, [("cause", cause.to_owned())]).await?;
    let ended = Grant { ended: true, ..grant };
    gate.emergencies.keep(&ended).await?;
    Ok(ended)
}

async fn record(
    gate: &Gate,
    (event, may_use_reserve): (Event, bool),
    grant: &Grant,
    time: Timestamp,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), Refusal> {
    let common = [
        ("grant", grant.id.clone()),
        ("issuer", grant.issuer.clone()),
        ("subject", grant.subject.clone()),
        ("patient", grant.patient.clone()),
    ];
    let details = common.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect();
    let control = Record::Control(Control { time, event, details });
    let recorded = reserve::append(gate, control, may_use_reserve).await;
    recorded.map(|_receipt| ()).map_err(|error| {
        tracing::error!(%error, "no record, no emergency access");
        Refusal::TrailUnavailable
    })
}

/// The same answer for every patient there is or is not.
fn told(visit: &Visit<'_>, grant: &Grant) -> Answer {
    let body = json!({
        "resourceType": "Parameters",
        "parameter": [
            { "name": "grant", "valueString": grant.id },
            { "name": "patient", "valueReference": { "reference": format!("Patient/{}", grant.patient) } },
            { "name": "until", "valueInstant": grant.until.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string() },
        ],
    });
    visit.used([grant.id.as_str()]);
    Answer::fhir(StatusCode::OK, body.to_string())
}

/// Learns what other proxies granted, and records the end of grants whose time has run out or whose session, person
/// or issuer was revoked. What cannot be recorded is tried again; it does not count either way.
pub async fn sweep(gate: &Gate, now: Timestamp) {
    let _turn = gate.emergencies.turn.lock().await;
    if gate.emergencies.read(now).await.is_err() {
        return;
    }
    let revoked = gate.sessions.revoked();
    let cause = |grant: &Grant| match () {
        () if grant.ended => None,
        () if grant.until <= now => Some("expired"),
        () if revoked.all().iter().any(|one| reaches(one, grant)) => Some("revoked"),
        () => None,
    };
    for grant in gate.emergencies.all().iter() {
        let Some(cause) = cause(grant) else { continue };
        if end(gate, grant.clone(), cause, now).await.is_err() {
            return;
        }
    }
}

/// Whether a revocation is of the session in which the grant was given. (Whoever lost a token or a client cannot use it
/// either, but may log in again.)
fn reaches(revocation: &Revocation, grant: &Grant) -> bool {
    let is_theirs = match &revocation.target {
        RevocationTarget::Session { issuer, session } => *issuer == grant.issuer && *session == grant.session,
        RevocationTarget::User { issuer, subject } => *issuer == grant.issuer && *subject == grant.subject,
        RevocationTarget::Issuer { issuer } => *issuer == grant.issuer,
        RevocationTarget::Token { .. } | RevocationTarget::Client { .. } => false,
    };
    let in_time = match revocation.reach {
        Reach::Until(time) => grant.began <= time,
        Reach::UntilLifted => true,
    };
    is_theirs && in_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: Value, expected: Result<(&str, &str, Option<i64>, bool), &'static str>) {
        let body = json!({ "resourceType": "Parameters", "parameter": parameters });
        let found = Asked::read(&body, "https://gate.test/fhir");
        let expected = expected
            .map(|(patient, reason, seconds, end)| Asked {
                patient: patient.to_owned(),
                reason: reason.to_owned(),
                seconds,
                end,
            })
            .map_err(EmergencyRefusal::NotUnderstood);
        assert_eq!(found, expected, "{parameters}");
    }

    #[test]
    fn whom_why_and_for_how_long() {
        let reason = json!({"name": "reason", "valueString": "found unconscious"});
        let p1 = json!({"name": "patient", "valueReference": {"reference": "Patient/p1"}});
        let ok = Ok(("p1", "found unconscious", None, false));
        check(json!([p1, reason]), ok);
        for given in [
            json!({"valueString": "p1"}),
            json!({"valueId": "p1"}),
            json!({"valueString": "Patient/p1"}),
            json!({"valueReference": {"reference": "https://gate.test/fhir/Patient/p1"}}),
        ] {
            let mut patient = given.clone();
            patient["name"] = json!("patient");
            check(json!([patient, reason]), ok);
        }
        for given in ["Patient/p1,p2", "Patient/p1/x", "Group/p1", "https://x.test/Patient/p1", "*", ".."] {
            check(json!([{"name": "patient", "valueString": given}, reason]), Err("patient"));
        }
        for given in [json!({}), json!({"valueString": "help"}), json!({"valueString": " . . . . . . . . "})]
        {
            let mut short = given.clone();
            short["name"] = json!("reason");
            check(json!([p1, short]), Err("reason"));
        }
        check(json!([p1, {"name": "reason", "valueCode": "ETREAT"}]), Ok(("p1", "ETREAT", None, false)));
        for (duration, seconds) in [
            (json!({"value": 2, "code": "h"}), Some(7200)),
            (json!({"value": 30, "unit": "min"}), Some(1800)),
            (json!({"value": 30}), None),
            (json!({"value": 1.5, "code": "h"}), None),
            (json!({"value": i64::MAX, "code": "h"}), None),
        ] {
            let parameter = json!({"name": "duration", "valueDuration": duration});
            let expected = seconds.ok_or("duration");
            check(
                json!([p1, reason, parameter]),
                expected.map(|s| ("p1", "found unconscious", Some(s), false)),
            );
        }
        check(json!([p1, {"name": "end", "valueBoolean": true}]), Ok(("p1", "", None, true)));
        check(json!([p1, p1, reason]), Err("parameter"));
        check(json!([p1, reason, {"name": "role", "valueString": "x"}]), Err("parameter"));
        check(json!([reason]), Err("patient"));
        check(json!([p1]), Err("reason"));
        check(json!([]), Err("patient"));
    }
}
