//! Why a request was not understood, or is not served.
//!
//! Owns: [`FhirRefusal`], its stable codes and the class of status each belongs to.
//! Must never: carry anything the client sent. Names shown are official search parameter names out of
//! the tables; any other name is "a parameter".
//! Look next: `gateway::refusal`, which turns classes into answers.

use std::fmt;

use crate::domain::fhir::outcome::IssueType;

/// A request that did not become an [`Interaction`](crate::domain::fhir::interaction::Interaction).
///
/// | class | variants |
/// | --- | --- |
/// | 400 | `MalformedTarget`, `MalformedPath`, `MalformedId`, `MalformedHost`, `MalformedHeader`, `RepeatedHeader`, `UnexpectedBody`, `TokenInRequest`, `MalformedQuery`, `TooManyParameters`, `UnknownParameter`, `ParameterNotSupported`, `RepeatedParameter`, `ModifierNotSupported`, `MalformedParameter`, `ChainTooLong`, `MalformedValue`, `IncludeNotSupported`, `MalformedPageToken` |
/// | 403 | `NotServed` for questions asked by GET or POST on a known path (history, compartment, `$operation`, whole system, batch, asynchronous) |
/// | 404 | `UnknownPath`, `UnknownType` |
/// | 405 | `MethodNotAllowed`; `NotServed` for methods that change or probe (create, update, patch, delete, HEAD, OPTIONS) |
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
    /// The body is not a form.
    UnsupportedMediaType,
    /// The body is compressed.
    UnsupportedEncoding,
    /// Longer than `FORM_BYTES_MAX`.
    FormTooLarge,
    /// An access token in URL or form, where logs and histories would keep it.
    TokenInRequest,
    /// Query or form text that does not decode cleanly, exactly once.
    MalformedQuery,
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
    /// A wildcard, `:iterate` or `:recurse`.
    IncludeNotSupported,
    /// The page parameter together with others, or a token of the wrong shape.
    MalformedPageToken,
}

/// Interactions of R4 that are recognised and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// `POST base/{Type}`.
    Create,
    /// `PUT`.
    Update,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// `POST base`.
    Batch,
    /// `_history` without a version.
    History,
    /// `$name` at any level, GraphQL included.
    Operation,
    /// `base/{Type}/{id}/{Type}`.
    CompartmentSearch,
    /// `base?…` and `base/_search`.
    SystemSearch,
    /// `Prefer: respond-async`.
    Asynchronous,
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
            Self::Create => "create-not-supported",
            Self::Update => "update-not-supported",
            Self::Patch => "patch-not-supported",
            Self::Delete => "delete-not-supported",
            Self::Head => "head-not-supported",
            Self::Options => "options-not-supported",
            Self::Batch => "batch-not-supported",
            Self::History => "history-not-supported",
            Self::Operation => "operation-not-supported",
            Self::CompartmentSearch => "compartment-search-not-supported",
            Self::SystemSearch => "system-search-not-supported",
            Self::Asynchronous => "async-not-supported",
        }
    }

    fn class(self) -> RefusalClass {
        match self {
            Self::Create | Self::Update | Self::Patch | Self::Delete | Self::Head | Self::Options => {
                RefusalClass::MethodNotAllowed
            }
            Self::Batch
            | Self::History
            | Self::Operation
            | Self::CompartmentSearch
            | Self::SystemSearch
            | Self::Asynchronous => RefusalClass::Forbidden,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Create => "creating records is not served",
            Self::Update => "updating records is not served",
            Self::Patch => "patching records is not served",
            Self::Delete => "deleting records is not served",
            Self::Head => "HEAD is not served",
            Self::Options => "OPTIONS is not served",
            Self::Batch => "batches and transactions are not served",
            Self::History => "history is not served; a single version can be read",
            Self::Operation => "operations are not served",
            Self::CompartmentSearch => "compartment search is not served",
            Self::SystemSearch => "search over the whole system is not served",
            Self::Asynchronous => "asynchronous requests are not served",
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
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::FormTooLarge => "form-too-large",
            Self::TokenInRequest => "token-in-request",
            Self::MalformedQuery => "malformed-query",
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
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => RefusalClass::UnsupportedMediaType,
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
            | Self::TooManyParameters
            | Self::UnknownParameter
            | Self::ParameterNotSupported(_)
            | Self::RepeatedParameter(_)
            | Self::ModifierNotSupported(_)
            | Self::MalformedParameter
            | Self::ChainTooLong
            | Self::MalformedValue(_)
            | Self::IncludeNotSupported
            | Self::MalformedPageToken => RefusalClass::BadRequest,
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
        match (self, self.class()) {
            (Self::MethodNotAllowed(methods), _) => Some(methods),
            (_, RefusalClass::MethodNotAllowed) => Some("GET"),
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
            Self::NotAcceptable => "only FHIR R4 in JSON can be answered",
            Self::UnsupportedMediaType => "a search body must be application/x-www-form-urlencoded",
            Self::UnsupportedEncoding => "compressed request bodies are not accepted",
            Self::FormTooLarge => "the search form is too large",
            Self::TokenInRequest => "access tokens belong into the Authorization header only",
            Self::MalformedQuery => "the query or form does not decode cleanly",
            Self::TooManyParameters => "there are too many parameters",
            Self::UnknownParameter => "a parameter is not known for this resource type",
            Self::MalformedParameter => "a parameter name is malformed",
            Self::ChainTooLong => "a chain is too long or reaches too many types",
            Self::IncludeNotSupported => "wildcard and iterated includes are not supported",
            Self::MalformedPageToken => "the page link is malformed",
            Self::ParameterNotSupported(name) => {
                return write!(out, "the parameter `{name}` is not supported");
            }
            Self::RepeatedParameter(name) => {
                return write!(out, "the parameter `{name}` may be given only once");
            }
            Self::ModifierNotSupported(name) => {
                return write!(out, "this modifier is not supported on the parameter `{name}`");
            }
            Self::MalformedValue(name) => {
                return write!(out, "a value of the parameter `{name}` is malformed");
            }
        };
        out.write_str(sentence)
    }
}

impl std::error::Error for FhirRefusal {}
