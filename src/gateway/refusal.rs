//! Every refusal and what is heard of it: one exhaustive match from inside to outside.
//!
//! Owns: status, stable code, issue type, sentence and headers of each refusal.
//! Must never: carry a value a client sent, an upstream's text, or more to one caller than to another about
//! whether a record exists. What the trail keeps besides the code is the draft's business.
//! Look next: the rooms' own refusal enums; `journey`, where they meet.
#![deny(clippy::wildcard_enum_match_arm)]

use crate::domain::access::Denial;
use crate::domain::fhir::classify::{FhirRefusal, NotServed, RefusalClass};
use crate::domain::fhir::outcome::IssueType;
use crate::domain::identity::IdentityRefusal;
use crate::edge::listener::BodyRefusal;
use crate::edge::sessions::SessionEnded;
use crate::edge::upstream::UpstreamError;
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
    /// The request was not understood, or is not served.
    Fhir(FhirRefusal),
    /// The form did not arrive whole, in time, or within its bound.
    Body(BodyRefusal),
    /// Policy does not allow the question.
    Access(Denial),
    /// A page link that is not this caller's, has expired, or was changed.
    PageLink,
    /// Missing, withheld, or not the caller's: one and the same.
    NotFound,
    /// The EMR cannot be reached, or did not answer in time.
    Upstream(UpstreamError),
    /// The EMR does not understand a question that we understand.
    QueryRefusedUpstream,
    /// The EMR's answer is not what was asked for, or not sound FHIR JSON; nothing of it is released.
    AnswerUnsound,
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
    pub(super) header: Option<(HeaderName, HeaderValue)>,
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
            Self::Fhir(refusal) => refusal.code(),
            Self::Body(BodyRefusal::TooLarge) => "body-too-large",
            Self::Body(BodyRefusal::TooSlow) => "body-too-slow",
            Self::Body(BodyRefusal::Broken) => "body-broken",
            Self::Access(denial) => denial_code(denial),
            Self::PageLink => "page-link-not-valid",
            Self::NotFound => "not-found",
            Self::Upstream(error) => upstream_code(*error),
            Self::QueryRefusedUpstream => "query-refused-upstream",
            Self::AnswerUnsound => "upstream-answer-unsound",
            Self::TrailUnavailable => "audit-unavailable",
            Self::Internal => "internal",
        }
    }

    /// FHIR's code for an interaction that was recognised only to be refused.
    pub(super) fn interaction(&self) -> Option<&'static str> {
        let Self::Fhir(FhirRefusal::NotServed(what)) = self else { return None };
        match what {
            NotServed::GraphQl | NotServed::Operation => Some("operation"),
            NotServed::Options(_) | NotServed::Subscription | NotServed::Asynchronous | NotServed::Nested => {
                None
            }
        }
    }

    /// Whether the people who run the gate should look at once: policy or upstream is broken.
    pub(super) fn is_alarm(&self) -> bool {
        match self {
            Self::Access(denial) => denial.is_alarm(),
            Self::AnswerUnsound | Self::TrailUnavailable | Self::Internal => true,
            Self::Protocol
            | Self::LengthRequired
            | Self::Identity(_)
            | Self::Session(_)
            | Self::Fhir(_)
            | Self::Body(_)
            | Self::PageLink
            | Self::NotFound
            | Self::Upstream(_)
            | Self::QueryRefusedUpstream => false,
        }
    }

    /// Status, issue type, sentence and header for the client.
    pub(super) fn heard(&self) -> Heard {
        let (status, issue, sentence) = self.answer();
        Heard { status, code: self.code(), issue, sentence, header: self.header() }
    }

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
            Self::Identity(IdentityRefusal::KeysUnavailable) => say(
                StatusCode::SERVICE_UNAVAILABLE,
                IssueType::Transient,
                "the issuer's keys are not available",
            ),
            Self::Identity(refusal) => (StatusCode::UNAUTHORIZED, IssueType::Login, refusal.to_string()),
            Self::Session(ended) => (StatusCode::UNAUTHORIZED, IssueType::Expired, ended.to_string()),
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
            Self::Access(denial) => (StatusCode::FORBIDDEN, IssueType::Forbidden, denial.to_string()),
            Self::PageLink => {
                say(StatusCode::BAD_REQUEST, IssueType::Invalid, "the page link is not valid here and now")
            }
            Self::NotFound => {
                say(StatusCode::NOT_FOUND, IssueType::NotFound, "there is no such record for this caller")
            }
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
            Self::TrailUnavailable => {
                say(StatusCode::SERVICE_UNAVAILABLE, IssueType::NoStore, "the audit trail cannot be written")
            }
            Self::Internal => {
                say(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, "the request failed")
            }
        }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let challenge = match self {
            Self::Identity(IdentityRefusal::KeysUnavailable) => return None,
            Self::Identity(refusal) => refusal.challenge(),
            Self::Session(_) => "Bearer error=\"invalid_token\"".to_owned(),
            Self::Fhir(refusal) => {
                let allow = refusal.allow()?;
                return Some((header::ALLOW, HeaderValue::from_static(allow)));
            }
            Self::Protocol
            | Self::LengthRequired
            | Self::Body(_)
            | Self::Access(_)
            | Self::PageLink
            | Self::NotFound
            | Self::Upstream(_)
            | Self::QueryRefusedUpstream
            | Self::AnswerUnsound
            | Self::TrailUnavailable
            | Self::Internal => return None,
        };
        Some((header::WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).ok()?))
    }
}

fn status_of(class: RefusalClass) -> StatusCode {
    match class {
        RefusalClass::BadRequest => StatusCode::BAD_REQUEST,
        RefusalClass::Forbidden => StatusCode::FORBIDDEN,
        RefusalClass::NotFound => StatusCode::NOT_FOUND,
        RefusalClass::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        RefusalClass::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        RefusalClass::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalClass::TargetTooLong => StatusCode::URI_TOO_LONG,
        RefusalClass::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        // RFC 9112 section 3.2 asks for 400 when Host is not what it should be.
        RefusalClass::Misdirected => StatusCode::BAD_REQUEST,
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
        Denial::PurposeNotAllowed => "purpose-not-allowed",
        Denial::PurposeAmbiguous => "purpose-ambiguous",
        Denial::NothingToDecide => "nothing-to-decide",
        Denial::PolicyFault { .. } => "policy-fault",
    }
}
