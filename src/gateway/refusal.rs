//! Every refusal and what is heard of it: one exhaustive match from inside to outside.
//!
//! Owns: status, stable code, issue type, sentence and headers of each refusal.
//! Must never: carry a value a client sent, an upstream's text, or more to one caller than to another about
//! whether a record exists. What the trail keeps besides the code is the draft's business.
//! Look next: the rooms' own refusal enums; `journey`, where they meet.
#![deny(clippy::wildcard_enum_match_arm)]

use super::emergency::EmergencyRefusal;
use super::review::ReviewRefusal;
use super::step_up::StepUp;
use crate::domain::access::Denial;
use crate::domain::change::ChangeRefusal;
use crate::domain::fhir::classify::{FhirRefusal, NotServed, RefusalClass as FhirClass};
use crate::domain::fhir::outcome::IssueType;
use crate::domain::filter::FilterFault;
use crate::domain::identity::{IdentityRefusal, RefusalClass, Scheme, SessionEnded};
use crate::edge::coding::CodingRefusal;
use crate::edge::listener::BodyRefusal;
use crate::edge::sessions::SessionRefusal;
use crate::edge::upstream::UpstreamError;
use crate::limits;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Neither HTTP/1.1 nor HTTP/2, or a wish to become something else.
    Protocol,
    /// A form that comes in chunks.
    LengthRequired,
    /// Nobody could be established behind the request.
    Identity(IdentityRefusal),
    /// The session is over.
    Session(SessionEnded),
    /// Nobody can say now whether the session was ended.
    SessionsUnavailable,
    /// The request was not understood, or is not served.
    Fhir(FhirRefusal),
    /// The form did not arrive whole, in time, or within its bound.
    Body(BodyRefusal),
    /// Policy does not allow the question.
    Access(Denial),
    /// Policy does not allow it under this login, and would under another.
    StepUp(Box<StepUp>),
    /// Emergency access is not granted like this.
    Emergency(EmergencyRefusal),
    /// A review of an emergency that is not taken.
    Review(ReviewRefusal),
    /// A page link that is not this caller's, has expired, or was changed.
    PageLink,
    /// Missing, withheld, or not the caller's: one and the same.
    NotFound,
    /// The caller's own body is not sound FHIR JSON.
    BodyUnsound(FilterFault),
    /// The body comes in a coding that is not gzip, or unpacks to more than it may.
    Coding(CodingRefusal),
    /// The body is a record of another type than the URL names.
    OtherType,
    /// The body is a record with another id than the URL names.
    OtherId,
    /// The body is not a batch or transaction whose entries can be told apart.
    NotABundle,
    /// More entries, or more to answer, than one Bundle may have.
    BundleTooLong,
    /// Policy does not let this record be written as it would be.
    WriteDenied,
    /// A policy could not be evaluated for the record.
    PolicyFault,
    /// What was sent cannot be brought together with the record.
    Change(ChangeRefusal),
    /// Criteria that should name one record name several.
    MultipleMatches,
    /// A reference by search names no record or several.
    ReferenceUnresolved,
    /// The record is not in the version that the caller named.
    PreconditionFailed,
    /// The record changed while it was being written.
    Conflict,
    /// The EMR does not take the change.
    WriteRefusedUpstream,
    /// A count would take more of the EMR's pages than one answer may.
    TooManyToCount,
    /// The EMR cannot be reached, or did not answer in time.
    Upstream(UpstreamError),
    /// The EMR does not understand a question that we understand.
    QueryRefusedUpstream,
    /// The EMR's answer is not what was asked for, or not sound FHIR JSON; nothing of it is released.
    AnswerUnsound,
    /// Too much is under way already; nothing was asked of the EMR.
    Busy,
    /// The trail cannot be written: nothing may be released.
    TrailUnavailable,
    /// A fault of our own.
    Internal,
}

/// What the outside hears.
pub(super) struct Heard {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) issue: IssueType,
    pub(super) sentence: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// How the token of a request came, which is how a challenge is answered.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// `Bearer` before the token is found.
    pub(super) scheme: Scheme,
    /// For the client's next proof, where proofs must hold one.
    pub(super) nonce: Option<String>,
}

/// RFC 9449 section 8.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

impl From<SessionRefusal> for Refusal {
    fn from(refusal: SessionRefusal) -> Self {
        match refusal {
            SessionRefusal::Ended(ended) => Self::Session(ended),
            SessionRefusal::Unavailable => Self::SessionsUnavailable,
        }
    }
}

impl Refusal {
    /// The stable code, as clients and the trail see it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol-not-served",
            Self::LengthRequired => "length-required",
            Self::Identity(refusal) => refusal.code(),
            Self::Session(SessionEnded::Idle) => "session-idle",
            Self::Session(SessionEnded::Absolute) => "session-over",
            Self::Session(SessionEnded::TooMany) => "session-superseded",
            Self::Session(SessionEnded::Revoked) => "session-revoked",
            Self::Session(SessionEnded::Forgotten) => "session-unknown",
            Self::SessionsUnavailable => "sessions-unavailable",
            Self::Fhir(refusal) => refusal.code(),
            Self::Body(BodyRefusal::TooLarge) => "body-too-large",
            Self::Body(BodyRefusal::TooSlow) => "body-too-slow",
            Self::Body(BodyRefusal::Broken) => "body-broken",
            Self::Access(denial) => denial_code(denial),
            Self::StepUp(_) => "step-up-required",
            Self::Emergency(refusal) => refusal.code(),
            Self::Review(refusal) => refusal.code(),
            Self::PageLink => "page-link-not-valid",
            Self::NotFound => "not-found",
            Self::BodyUnsound(_) => "body-unsound",
            Self::Coding(CodingRefusal::TooLarge) => "body-too-large",
            Self::Coding(_) => "body-coding-unsound",
            Self::OtherType => "body-of-other-type",
            Self::OtherId => "body-of-other-id",
            Self::NotABundle => "bundle-not-understood",
            Self::BundleTooLong => "bundle-too-long",
            Self::WriteDenied => "write-not-permitted",
            Self::PolicyFault => "policy-fault",
            Self::Change(refusal) => change_code(refusal),
            Self::MultipleMatches => "multiple-matches",
            Self::ReferenceUnresolved => "reference-unresolved",
            Self::PreconditionFailed => "version-mismatch",
            Self::Conflict => "conflict",
            Self::WriteRefusedUpstream => "write-refused-upstream",
            Self::TooManyToCount => "too-many-to-count",
            Self::Upstream(error) => upstream_code(*error),
            Self::QueryRefusedUpstream => "query-refused-upstream",
            Self::AnswerUnsound => "upstream-answer-unsound",
            Self::Busy => "busy",
            Self::TrailUnavailable => "audit-unavailable",
            Self::Internal => "internal",
        }
    }

    /// FHIR's code for an interaction that was recognised only to be refused.
    pub(super) fn interaction(&self) -> Option<&'static str> {
        let Self::Fhir(FhirRefusal::NotServed(what)) = self else { return None };
        match what {
            NotServed::Operation | NotServed::GraphQl => Some("operation"),
            NotServed::Options(_) | NotServed::Subscription | NotServed::Asynchronous | NotServed::Nested => {
                None
            }
        }
    }

    /// Whether the people who run the gate should look at once: policy or upstream is broken.
    pub(super) fn is_alarm(&self) -> bool {
        match self {
            Self::Access(denial) => denial.is_alarm(),
            Self::AnswerUnsound
            | Self::TrailUnavailable
            | Self::SessionsUnavailable
            | Self::Internal
            | Self::PolicyFault => true,
            Self::BodyUnsound(_)
            | Self::Coding(_)
            | Self::OtherType
            | Self::OtherId
            | Self::NotABundle
            | Self::BundleTooLong
            | Self::WriteDenied
            | Self::Change(_)
            | Self::MultipleMatches
            | Self::ReferenceUnresolved
            | Self::PreconditionFailed
            | Self::Conflict
            | Self::WriteRefusedUpstream
            | Self::TooManyToCount
            | Self::Protocol
            | Self::LengthRequired
            | Self::Identity(_)
            | Self::Session(_)
            | Self::Fhir(_)
            | Self::Body(_)
            | Self::StepUp(_)
            | Self::Emergency(_)
            | Self::Review(_)
            | Self::PageLink
            | Self::NotFound
            | Self::Upstream(_)
            | Self::Busy
            | Self::QueryRefusedUpstream => false,
        }
    }

    /// What another login would open: types, elements and parameters by their official names.
    pub(super) fn opens(&self) -> &[String] {
        if let Self::StepUp(step_up) = self { &step_up.opens } else { &[] }
    }

    /// Status, issue type, sentence and headers for the client whose token came this way.
    pub(super) fn heard(&self, way: &Way) -> Heard {
        let (status, issue, sentence) = self.answer();
        Heard { status, code: self.code(), issue, sentence, headers: self.headers(way) }
    }

    /// The status alone.
    pub(super) fn status(&self) -> StatusCode {
        self.answer().0
    }

    #[expect(
        clippy::too_many_lines,
        reason = "the table of what is heard, a row for each refusal, in one place"
    )]
    fn answer(&self) -> (StatusCode, IssueType, String) {
        let say = |status, issue, sentence: &str| (status, issue, sentence.to_owned());
        match self {
            Self::Protocol => say(
                StatusCode::BAD_REQUEST,
                IssueType::NotSupported,
                "only HTTP/1.1 and HTTP/2 are served, without upgrade",
            ),
            Self::LengthRequired => say(
                StatusCode::LENGTH_REQUIRED,
                IssueType::NotSupported,
                "a form must come with its length, not in chunks",
            ),
            Self::Identity(refusal) => {
                let (status, issue) = identity_class(refusal.class());
                (status, issue, refusal.to_string())
            }
            Self::Session(ended) => (StatusCode::UNAUTHORIZED, IssueType::Expired, ended.to_string()),
            Self::SessionsUnavailable => say(
                StatusCode::SERVICE_UNAVAILABLE,
                IssueType::Transient,
                "it cannot be told now whether the session was ended",
            ),
            Self::Fhir(refusal) => (status_of(refusal.class()), refusal.issue_type(), refusal.to_string()),
            Self::Body(BodyRefusal::TooLarge) => {
                say(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooLong, "the request body is too large")
            }
            Self::Body(BodyRefusal::TooSlow) => say(
                StatusCode::REQUEST_TIMEOUT,
                IssueType::Timeout,
                "the request body did not arrive in time",
            ),
            Self::Body(BodyRefusal::Broken) => {
                say(StatusCode::BAD_REQUEST, IssueType::Invalid, "the request body did not arrive whole")
            }
            Self::Emergency(refusal) => match refusal {
                EmergencyRefusal::TooOften { .. } => {
                    (StatusCode::TOO_MANY_REQUESTS, IssueType::Throttled, refusal.to_string())
                }
                EmergencyRefusal::NotUnderstood(_) => {
                    (StatusCode::BAD_REQUEST, IssueType::Invalid, refusal.to_string())
                }
            },
            Self::Review(refusal) => (refusal.status(), IssueType::Forbidden, refusal.to_string()),
            Self::StepUp(step_up) => (StatusCode::UNAUTHORIZED, IssueType::Login, step_up.sentence()),
            Self::Access(denial) => (StatusCode::FORBIDDEN, IssueType::Forbidden, denial.to_string()),
            Self::PageLink => {
                say(StatusCode::BAD_REQUEST, IssueType::Invalid, "the page link is not valid here and now")
            }
            Self::NotFound => {
                say(StatusCode::NOT_FOUND, IssueType::NotFound, "there is no such record for this caller")
            }
            Self::BodyUnsound(fault) => (
                StatusCode::BAD_REQUEST,
                IssueType::Structure,
                format!("the body is not sound FHIR JSON: {fault}"),
            ),
            Self::Coding(CodingRefusal::TooLarge) => {
                say(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooLong, "the request body is too large")
            }
            Self::Coding(_) => {
                say(StatusCode::BAD_REQUEST, IssueType::Structure, "the body's coding is not sound")
            }
            Self::OtherType => {
                say(StatusCode::BAD_REQUEST, IssueType::Invalid, "the body is a record of another type")
            }
            Self::OtherId => {
                say(StatusCode::BAD_REQUEST, IssueType::Invalid, "the body is a record with another id")
            }
            Self::NotABundle => say(
                StatusCode::BAD_REQUEST,
                IssueType::Structure,
                "the body is no batch or transaction that can be answered entry by entry",
            ),
            Self::BundleTooLong => say(
                StatusCode::PAYLOAD_TOO_LARGE,
                IssueType::TooLong,
                "the bundle asks for more than one answer may hold",
            ),
            Self::WriteDenied => say(
                StatusCode::FORBIDDEN,
                IssueType::Forbidden,
                "the record may not be written like this by this caller",
            ),
            Self::PolicyFault => {
                say(StatusCode::FORBIDDEN, IssueType::Forbidden, "the request cannot be decided")
            }
            Self::Change(refusal) => change_answer(refusal),
            Self::MultipleMatches => say(
                StatusCode::PRECONDITION_FAILED,
                IssueType::MultipleMatches,
                "the criteria match several records",
            ),
            Self::ReferenceUnresolved => say(
                StatusCode::PRECONDITION_FAILED,
                IssueType::NotFound,
                "a reference by search does not name one record",
            ),
            Self::PreconditionFailed => say(
                StatusCode::PRECONDITION_FAILED,
                IssueType::Conflict,
                "the record is in another version than was named",
            ),
            Self::Conflict => {
                say(StatusCode::CONFLICT, IssueType::Conflict, "the record changed while it was written")
            }
            Self::WriteRefusedUpstream => say(
                StatusCode::UNPROCESSABLE_ENTITY,
                IssueType::Processing,
                "the record system does not take the change",
            ),
            Self::TooManyToCount => say(
                StatusCode::FORBIDDEN,
                IssueType::TooCostly,
                "there are too many rows to be counted for this caller",
            ),
            Self::Upstream(error) => {
                let (status, issue) = upstream_class(*error);
                (status, issue, error.to_string())
            }
            Self::QueryRefusedUpstream => say(
                StatusCode::BAD_REQUEST,
                IssueType::NotSupported,
                "the record system does not support this search",
            ),
            Self::AnswerUnsound => {
                say(StatusCode::BAD_GATEWAY, IssueType::Exception, "the record system gave an unsound answer")
            }
            Self::Busy => {
                say(StatusCode::SERVICE_UNAVAILABLE, IssueType::Throttled, "too much is under way; try again")
            }
            Self::TrailUnavailable => {
                say(StatusCode::SERVICE_UNAVAILABLE, IssueType::NoStore, "the audit trail cannot be written")
            }
            Self::Internal => {
                say(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, "the request failed")
            }
        }
    }

    fn headers(&self, way: &Way) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = self.header(way.scheme).into_iter().collect();
        // A challenge that speaks of DPoP says which nonce the next proof must hold (RFC 9449 section 9).
        let speaks = |(name, value): &(HeaderName, HeaderValue)| {
            *name == header::WWW_AUTHENTICATE && value.as_bytes().starts_with(b"DPoP ")
        };
        if headers.iter().any(speaks)
            && let Some(nonce) = way.nonce.as_deref().and_then(|nonce| HeaderValue::from_str(nonce).ok())
        {
            headers.push((DPOP_NONCE, nonce));
        }
        headers
    }

    fn header(&self, scheme: Scheme) -> Option<(HeaderName, HeaderValue)> {
        let challenge = match self {
            Self::Identity(refusal) if refusal.class() != RefusalClass::Unauthorized => return None,
            Self::Identity(refusal) => refusal.challenge(scheme),
            Self::Session(_) => scheme.challenge("error=\"invalid_token\""),
            Self::StepUp(step_up) => scheme.challenge(&step_up.parameters()),
            Self::Review(ReviewRefusal::NotFresh { seconds }) => {
                let fresher = format!("error=\"insufficient_user_authentication\", max_age=\"{seconds}\"");
                scheme.challenge(&fresher)
            }
            Self::Emergency(EmergencyRefusal::TooOften { seconds }) => {
                return Some((header::RETRY_AFTER, HeaderValue::from(*seconds)));
            }
            Self::Busy | Self::Upstream(UpstreamError::Busy) => {
                return Some((header::RETRY_AFTER, HeaderValue::from(limits::BUSY_RETRY_SECONDS)));
            }
            Self::Fhir(refusal) => {
                let allow = refusal.allow()?;
                return Some((header::ALLOW, HeaderValue::from_static(allow)));
            }
            Self::Protocol
            | Self::LengthRequired
            | Self::Body(_)
            | Self::Access(_)
            | Self::Emergency(EmergencyRefusal::NotUnderstood(_))
            | Self::Review(_)
            | Self::PageLink
            | Self::NotFound
            | Self::BodyUnsound(_)
            | Self::Coding(_)
            | Self::OtherType
            | Self::OtherId
            | Self::NotABundle
            | Self::BundleTooLong
            | Self::WriteDenied
            | Self::PolicyFault
            | Self::Change(_)
            | Self::MultipleMatches
            | Self::ReferenceUnresolved
            | Self::PreconditionFailed
            | Self::Conflict
            | Self::WriteRefusedUpstream
            | Self::TooManyToCount
            | Self::Upstream(_)
            | Self::QueryRefusedUpstream
            | Self::AnswerUnsound
            | Self::TrailUnavailable
            | Self::SessionsUnavailable
            | Self::Internal => return None,
        };
        Some((header::WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).ok()?))
    }
}

/// Stable codes of changes that are not made.
fn change_code(refusal: &ChangeRefusal) -> &'static str {
    match refusal {
        ChangeRefusal::Malformed => "change-malformed",
        ChangeRefusal::NotWritable(_) => "element-not-writable",
        ChangeRefusal::Withheld(_) => "element-withheld",
        ChangeRefusal::CannotMerge(_) => "cannot-merge",
        ChangeRefusal::TestFailed => "patch-test-failed",
        ChangeRefusal::NoSuchPlace => "patch-place-missing",
        ChangeRefusal::TooLarge => "change-too-large",
    }
}

/// Names of elements are no secret: they stand in the specification, and the caller sent them.
fn change_answer(refusal: &ChangeRefusal) -> (StatusCode, IssueType, String) {
    let (status, issue) = match refusal {
        ChangeRefusal::Malformed => (StatusCode::BAD_REQUEST, IssueType::Structure),
        ChangeRefusal::NotWritable(_) | ChangeRefusal::Withheld(_) => {
            (StatusCode::FORBIDDEN, IssueType::Forbidden)
        }
        ChangeRefusal::CannotMerge(_) | ChangeRefusal::TestFailed | ChangeRefusal::NoSuchPlace => {
            (StatusCode::UNPROCESSABLE_ENTITY, IssueType::Processing)
        }
        ChangeRefusal::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooLong),
    };
    (status, issue, refusal.to_string())
}

fn identity_class(class: RefusalClass) -> (StatusCode, IssueType) {
    match class {
        RefusalClass::Unauthorized => (StatusCode::UNAUTHORIZED, IssueType::Login),
        RefusalClass::ClientRefused => (StatusCode::FORBIDDEN, IssueType::Forbidden),
        RefusalClass::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, IssueType::Transient),
    }
}

fn status_of(class: FhirClass) -> StatusCode {
    match class {
        FhirClass::BadRequest => StatusCode::BAD_REQUEST,
        FhirClass::Forbidden => StatusCode::FORBIDDEN,
        FhirClass::NotFound => StatusCode::NOT_FOUND,
        FhirClass::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        FhirClass::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        FhirClass::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FhirClass::TargetTooLong => StatusCode::URI_TOO_LONG,
        FhirClass::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // RFC 9112 section 3.2 asks for 400 when Host is not what it should be.
        FhirClass::Misdirected => StatusCode::BAD_REQUEST,
    }
}

fn upstream_class(error: UpstreamError) -> (StatusCode, IssueType) {
    match error {
        UpstreamError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, IssueType::Timeout),
        UpstreamError::Busy => (StatusCode::SERVICE_UNAVAILABLE, IssueType::Throttled),
        UpstreamError::Unplanned => (StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception),
        UpstreamError::Unreachable
        | UpstreamError::Untrusted
        | UpstreamError::Redirected
        | UpstreamError::Encoded
        | UpstreamError::Garbled
        | UpstreamError::TooLarge
        | UpstreamError::CutOff => (StatusCode::BAD_GATEWAY, IssueType::Transient),
    }
}

/// Stable codes of their own, so that the trail tells an EMR's fault from a caller's.
fn upstream_code(error: UpstreamError) -> &'static str {
    match error {
        UpstreamError::TimedOut => "upstream-timed-out",
        UpstreamError::Busy => "upstream-busy",
        UpstreamError::Unplanned => "upstream-unplanned",
        UpstreamError::Unreachable => "upstream-unreachable",
        UpstreamError::Untrusted => "upstream-untrusted",
        UpstreamError::Redirected => "upstream-redirected",
        UpstreamError::Encoded => "upstream-encoded",
        UpstreamError::Garbled => "upstream-garbled",
        UpstreamError::TooLarge => "upstream-too-large",
        UpstreamError::CutOff => "upstream-cut-off",
    }
}

/// Stable codes of access denials. The names of what was withheld stay in the sentence.
fn denial_code(denial: &Denial) -> &'static str {
    match denial {
        Denial::TypeNotPermitted { .. } => "type-not-permitted",
        Denial::CriterionWithheld { .. } => "criterion-withheld",
        Denial::ScopeInsufficient { .. } => "scope-insufficient",
        Denial::ScopesMixed => "scopes-mixed",
        Denial::LaunchPatientMissing => "launch-patient-missing",
        Denial::FhirUserMissing => "fhir-user-missing",
        Denial::PurposeNotAllowed => "purpose-not-allowed",
        Denial::PurposeAmbiguous => "purpose-ambiguous",
        Denial::NothingToDecide => "nothing-to-decide",
        Denial::PolicyFault { .. } => "policy-fault",
    }
}
