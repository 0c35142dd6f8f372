//! Why a request was not understood, or is not served.
//!
//! Owns: [`FhirRefusal`], its stable codes and the class of status each belongs to.
//! Must never: carry anything the client sent. Names shown are official parameter names out of the
//! tables; any other name is "a parameter".
//! Look next: `gateway::refusal`, which turns classes into answers.

use std::fmt;

use super::Expects;
use crate::domain::fhir::outcome::IssueType;

/// A request that did not become an [`Interaction`](crate::domain::fhir::interaction::Interaction).
///
/// | class | variants |
/// | --- | --- |
/// | 400 | `MalformedTarget`, `MalformedPath`, `MalformedId`, `MalformedHost`, `MalformedHeader`, `RepeatedHeader`, `UnexpectedBody`, `TokenInRequest`, `MalformedQuery`, `TooManyParameters`, `UnknownParameter`, `ParameterNotSupported`, `RepeatedParameter`, `ModifierNotSupported`, `MalformedParameter`, `ChainTooLong`, `MalformedValue`, `IncludeNotSupported`, `MalformedPageToken`, `MissingParameter`, `MissingCriteria`, `HeaderNotApplicable`, `AsyncRequired`, `MalformedEntry` |
/// | 403 | `NotServed`, but for OPTIONS: interactions that are recognised and refused |
/// | 404 | `UnknownPath`, `UnknownType` |
/// | 405 | `MethodNotAllowed`; `NotServed` for OPTIONS |
/// | 406 | `NotAcceptable` |
/// | 413 | `FormTooLarge` |
/// | 414 | `TargetTooLong` |
/// | 415 | `UnsupportedMediaType`, `UnsupportedEncoding` |
/// | 421 | `WrongHost` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FhirRefusal {
    /// Longer than `TARGET_BYTES_MAX`.
    TargetTooLong,
    /// Not in origin form, or with `#`, control characters or non-ASCII bytes.
    MalformedTarget,
    /// A path with an encoding, `//`, dot segment, `;`, trailing slash, or a type in the wrong case.
    MalformedPath,
    /// An id or version outside `[A-Za-z0-9\-.]{1,64}`.
    MalformedId,
    /// No Host, several, or one that is not an authority.
    MalformedHost,
    /// A Host other than the public authority.
    WrongHost,
    /// Not below the public base, or not a FHIR path.
    UnknownPath,
    /// No R4 resource type of this name.
    UnknownType,
    /// A method this path does not have; the value is for the Allow header.
    MethodNotAllowed(&'static str),
    /// A FHIR interaction that is recognised and not served.
    NotServed(NotServed),
    /// A header that is not plain ASCII, or that contradicts the request.
    MalformedHeader,
    /// A header that counts, given more than once with different values.
    RepeatedHeader,
    /// A body where the interaction has none.
    UnexpectedBody,
    /// No JSON form of R4 would satisfy `Accept` or `_format`.
    NotAcceptable,
    /// The body is not of the media type that this interaction takes.
    UnsupportedMediaType(Expects),
    /// The body is compressed with anything but gzip.
    UnsupportedEncoding,
    /// Longer than `FORM_BYTES_MAX`.
    FormTooLarge,
    /// An access token in URL or form, where logs and histories would keep it.
    TokenInRequest,
    /// Query or form text that does not decode cleanly, exactly once.
    MalformedQuery,
    /// The body of an operation is no `Parameters` resource of names with one primitive value each.
    MalformedParameters,
    /// More than `SEARCH_PARAMETERS_MAX`, or too many includes or sort keys.
    TooManyParameters,
    /// A parameter not known for the type.
    UnknownParameter,
    /// An official parameter that is not understood here.
    ParameterNotSupported(&'static str),
    /// A parameter that may stand only once.
    RepeatedParameter(&'static str),
    /// A modifier unknown or not listed for this parameter's type.
    ModifierNotSupported(&'static str),
    /// A name whose chain, `_has` or include does not follow the grammar.
    MalformedParameter,
    /// More than `CHAIN_LINKS_MAX` links, or a chain that fans out too far.
    ChainTooLong,
    /// A value that is not of the parameter's type.
    MalformedValue(&'static str),
    /// A wildcard, or a modifier other than `:iterate`.
    IncludeNotSupported,
    /// The page parameter together with others, or a token of the wrong shape.
    MalformedPageToken,
    /// A parameter that this operation cannot do without.
    MissingParameter(&'static str),
    /// A conditional interaction without a criterion: it would mean every record of the type.
    MissingCriteria,
    /// A precondition on an interaction that cannot honour it.
    HeaderNotApplicable(&'static str),
    /// An export that does not ask for an asynchronous answer.
    AsyncRequired,
    /// An entry of a batch or transaction whose URL is neither relative nor below the public base.
    MalformedEntry,
}

/// Interactions that are recognised and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// `OPTIONS`; the value is for the Allow header.
    Options(&'static str),
    /// `$graphql`: its queries cannot be judged yet (T-093).
    GraphQl,
    /// Creating or changing a `Subscription`: upstream would push past the proxy (T-105).
    Subscription,
    /// A `$name` that is not served, or not at this level (T-090, KF-27).
    Operation,
    /// `Prefer: respond-async` on anything but an export (T-099).
    Asynchronous,
    /// In an entry of a batch or transaction: a batch, a page, an export or a search by POST (T-084).
    Nested,
}

/// The class of answer; the gateway owns the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalClass {
    /// 400.
    BadRequest,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    ContentTooLarge,
    /// 414.
    TargetTooLong,
    /// 415.
    UnsupportedMediaType,
    /// 421.
    Misdirected,
}

impl NotServed {
    fn code(self) -> &'static str {
        match self {
            Self::Options(_) => "options-not-supported",
            Self::GraphQl => "graphql-not-supported",
            Self::Subscription => "subscription-not-supported",
            Self::Operation => "operation-not-supported",
            Self::Asynchronous => "async-not-supported",
            Self::Nested => "nested-not-supported",
        }
    }

    fn class(self) -> RefusalClass {
        match self {
            Self::Options(_) => RefusalClass::MethodNotAllowed,
            Self::GraphQl | Self::Subscription | Self::Operation | Self::Asynchronous | Self::Nested => {
                RefusalClass::Forbidden
            }
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Options(_) => "OPTIONS is not served",
            Self::GraphQl => "GraphQL is not served, since its queries cannot be judged element by element",
            Self::Subscription => "subscriptions are not served, since they would be answered past this gate",
            Self::Operation => "this operation is not served here",
            Self::Asynchronous => "only exports are answered asynchronously",
            Self::Nested => "this interaction is not served inside a batch or transaction",
        }
    }
}

/// What a body must be, in a sentence.
fn expected_body(expects: Expects) -> &'static str {
    match expects {
        Expects::Nothing => "this interaction has no body",
        Expects::Form => "a search body must be application/x-www-form-urlencoded",
        Expects::Parameters => {
            "an operation takes a Parameters resource as application/fhir+json, or no body"
        }
        Expects::Resource => "a resource must be sent as application/fhir+json of FHIR 4.0, in UTF-8",
        Expects::Binary => {
            "a Binary must be sent as application/fhir+json of FHIR 4.0, or its content in a type that FHIR does not use"
        }
        Expects::Patch => {
            "a patch must be sent as application/json-patch+json, or as application/fhir+json of FHIR 4.0"
        }
    }
}

impl FhirRefusal {
    /// Stable kebab-case code for `details.coding` and the trail.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TargetTooLong => "target-too-long",
            Self::MalformedTarget => "malformed-target",
            Self::MalformedPath => "malformed-path",
            Self::MalformedId => "malformed-id",
            Self::MalformedHost => "malformed-host",
            Self::WrongHost => "wrong-host",
            Self::UnknownPath => "unknown-path",
            Self::UnknownType => "unknown-type",
            Self::MethodNotAllowed(_) => "method-not-allowed",
            Self::NotServed(what) => what.code(),
            Self::MalformedHeader => "malformed-header",
            Self::RepeatedHeader => "repeated-header",
            Self::UnexpectedBody => "unexpected-body",
            Self::NotAcceptable => "not-acceptable",
            Self::UnsupportedMediaType(_) => "unsupported-media-type",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::FormTooLarge => "form-too-large",
            Self::TokenInRequest => "token-in-request",
            Self::MalformedQuery => "malformed-query",
            Self::MalformedParameters => "malformed-parameters",
            Self::TooManyParameters => "too-many-parameters",
            Self::UnknownParameter => "unknown-parameter",
            Self::ParameterNotSupported(_) => "parameter-not-supported",
            Self::RepeatedParameter(_) => "repeated-parameter",
            Self::ModifierNotSupported(_) => "modifier-not-supported",
            Self::MalformedParameter => "malformed-parameter",
            Self::ChainTooLong => "chain-too-long",
            Self::MalformedValue(_) => "malformed-value",
            Self::IncludeNotSupported => "include-not-supported",
            Self::MalformedPageToken => "malformed-page-token",
            Self::MissingParameter(_) => "missing-parameter",
            Self::MissingCriteria => "missing-criteria",
            Self::HeaderNotApplicable(_) => "header-not-applicable",
            Self::AsyncRequired => "async-required",
            Self::MalformedEntry => "malformed-entry",
        }
    }

    /// Which kind of answer this is; see the table on the type.
    #[must_use]
    pub fn class(&self) -> RefusalClass {
        match self {
            Self::TargetTooLong => RefusalClass::TargetTooLong,
            Self::WrongHost => RefusalClass::Misdirected,
            Self::UnknownPath | Self::UnknownType => RefusalClass::NotFound,
            Self::MethodNotAllowed(_) => RefusalClass::MethodNotAllowed,
            Self::NotServed(what) => what.class(),
            Self::NotAcceptable => RefusalClass::NotAcceptable,
            Self::UnsupportedMediaType(_) | Self::UnsupportedEncoding => RefusalClass::UnsupportedMediaType,
            Self::FormTooLarge => RefusalClass::ContentTooLarge,
            Self::MalformedTarget
            | Self::MalformedPath
            | Self::MalformedId
            | Self::MalformedHost
            | Self::MalformedHeader
            | Self::RepeatedHeader
            | Self::UnexpectedBody
            | Self::TokenInRequest
            | Self::MalformedQuery
            | Self::MalformedParameters
            | Self::TooManyParameters
            | Self::UnknownParameter
            | Self::ParameterNotSupported(_)
            | Self::RepeatedParameter(_)
            | Self::ModifierNotSupported(_)
            | Self::MalformedParameter
            | Self::ChainTooLong
            | Self::MalformedValue(_)
            | Self::IncludeNotSupported
            | Self::MalformedPageToken
            | Self::MissingParameter(_)
            | Self::MissingCriteria
            | Self::HeaderNotApplicable(_)
            | Self::AsyncRequired
            | Self::MalformedEntry => RefusalClass::BadRequest,
        }
    }

    /// R4 issue-type for the `OperationOutcome`.
    #[must_use]
    pub fn issue_type(&self) -> IssueType {
        match self.class() {
            RefusalClass::NotFound => IssueType::NotFound,
            RefusalClass::Forbidden
            | RefusalClass::MethodNotAllowed
            | RefusalClass::NotAcceptable
            | RefusalClass::UnsupportedMediaType => IssueType::NotSupported,
            RefusalClass::ContentTooLarge | RefusalClass::TargetTooLong => IssueType::TooLong,
            RefusalClass::Misdirected => IssueType::Invalid,
            RefusalClass::BadRequest => self.bad_request_type(),
        }
    }

    /// Content of the Allow header, which 405 must carry (RFC 9110, 15.5.6).
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed(methods) | Self::NotServed(NotServed::Options(methods)) => Some(methods),
            _ => None,
        }
    }

    fn bad_request_type(&self) -> IssueType {
        let code = self.code();
        if code.ends_with("-not-supported") {
            IssueType::NotSupported
        } else if code == "token-in-request" {
            IssueType::Security
        } else {
            IssueType::Invalid
        }
    }
}

impl fmt::Display for FhirRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::TargetTooLong => "the request target is too long; use POST _search",
            Self::MalformedTarget => "the request target is malformed",
            Self::MalformedPath => "the path is not in its one plain form",
            Self::MalformedId => "the id is malformed",
            Self::MalformedHost => "exactly one valid Host is required",
            Self::WrongHost => "this server does not answer for that Host",
            Self::UnknownPath => "there is nothing at this path",
            Self::UnknownType => "there is no such resource type in R4",
            Self::MethodNotAllowed(_) => "the method is not allowed here",
            Self::NotServed(what) => what.sentence(),
            Self::MalformedHeader => "a header is malformed",
            Self::RepeatedHeader => "a header is repeated with different values",
            Self::UnexpectedBody => "this interaction has no body",
            Self::NotAcceptable => "answers are FHIR R4 in JSON; XML, Turtle and HTML are not served",
            Self::UnsupportedMediaType(expects) => expected_body(*expects),
            Self::UnsupportedEncoding => "a request body may be compressed with gzip and nothing else",
            Self::FormTooLarge => "the search form is too large",
            Self::TokenInRequest => "access tokens belong into the Authorization header only",
            Self::MalformedQuery => "the query or form does not decode cleanly",
            Self::MalformedParameters => {
                "the body must be a Parameters resource whose parameters have a name and one primitive value"
            }
            Self::TooManyParameters => "there are too many parameters",
            Self::UnknownParameter => "a parameter is not known for this resource type",
            Self::MalformedParameter => "a parameter name is malformed",
            Self::ChainTooLong => "a chain is too long or reaches too many types",
            Self::IncludeNotSupported => "wildcard includes and this form of include are not supported",
            Self::MalformedPageToken => "the page link is malformed",
            Self::MissingCriteria => "a conditional interaction needs at least one search criterion",
            Self::AsyncRequired => "an export must be asked for with Prefer: respond-async",
            Self::MalformedEntry => "an entry's URL must be relative to the base, or below it",
            Self::ParameterNotSupported(name) => {
                return write!(out, "the parameter `{name}` is not supported");
            }
            Self::RepeatedParameter(name) => {
                return write!(out, "the parameter `{name}` may be given only once");
            }
            Self::ModifierNotSupported(name) => {
                return write!(out, "this modifier is not supported on the parameter `{name}`");
            }
            Self::MissingParameter(name) => {
                return write!(out, "the parameter `{name}` is missing");
            }
            Self::HeaderNotApplicable(name) => {
                return write!(out, "the header {name} is not understood on this interaction");
            }
            Self::MalformedValue(name) => {
                return write!(out, "a value of the parameter `{name}` is malformed");
            }
        };
        out.write_str(sentence)
    }
}

impl std::error::Error for FhirRefusal {}
