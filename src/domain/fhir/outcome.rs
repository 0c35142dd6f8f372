//! The `OperationOutcome` of a refusal.
//!
//! Owns: its one shape (R4 operationoutcome.html) and the issue types in use. Must never: carry a value
//! from a request, an answer or a token; callers pass fixed text and the request id.
//! Look next: `gateway::refusal`.

use serde_json::json;

/// The code system of every refusal code.
pub const REFUSAL_SYSTEM: &str = "https://chartgate.dev/refusal";

/// Codes of R4's issue-type value set that refusals use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueType {
    /// Content or request is not valid.
    Invalid,
    /// A security rule was broken.
    Security,
    /// The caller must identify themselves.
    Login,
    /// The session or token has run out.
    Expired,
    /// The caller may not do this.
    Forbidden,
    /// Processing went wrong.
    Processing,
    /// This is not served.
    NotSupported,
    /// Nothing was found that may be shown.
    NotFound,
    /// Something is too long.
    TooLong,
    /// The version has moved on.
    Conflict,
    /// Trouble that may pass.
    Transient,
    /// A store, here the audit trail, cannot be written.
    NoStore,
    /// An unexpected fault.
    Exception,
    /// A neighbour did not answer in time.
    Timeout,
    /// Too many requests.
    Throttled,
    /// The body is not structured as it should be.
    Structure,
    /// Criteria match more than one record.
    MultipleMatches,
    /// The answer would take too much work.
    TooCostly,
}

impl IssueType {
    /// The code in the value set.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Security => "security",
            Self::Login => "login",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::Processing => "processing",
            Self::NotSupported => "not-supported",
            Self::NotFound => "not-found",
            Self::TooLong => "too-long",
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::NoStore => "no-store",
            Self::Exception => "exception",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Structure => "structure",
            Self::MultipleMatches => "multiple-matches",
            Self::TooCostly => "too-costly",
        }
    }
}

/// The body of a refusal: one error with our code, a fixed sentence and the request id. `about`: what it is about, as
/// `issue.expression` has it (types, elements, `http.parameter`); official names only.
#[must_use]
pub fn operation_outcome(
    issue_type: IssueType,
    code: &str,
    text: &str,
    about: &[String],
    request_id: &str,
) -> Vec<u8> {
    let mut outcome = json!({
        "resourceType": "OperationOutcome",
        "issue": [{
            "severity": "error",
            "code": issue_type.code(),
            "details": { "coding": [{ "system": REFUSAL_SYSTEM, "code": code }], "text": text },
            "diagnostics": format!("request {request_id}"),
        }],
    });
    if let Some(issue) = outcome.pointer_mut("/issue/0").filter(|_| !about.is_empty()) {
        issue["expression"] = json!(about);
    }
    outcome.to_string().into_bytes()
}

/// The body that says a change was made, for `Prefer: return=OperationOutcome`.
#[must_use]
pub fn done(request_id: &str) -> Vec<u8> {
    let outcome = json!({
        "resourceType": "OperationOutcome",
        "issue": [{
            "severity": "information",
            "code": "informational",
            "diagnostics": format!("done: request {request_id}"),
        }],
    });
    outcome.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::FhirRefusal;

    #[test]
    fn an_outcome_is_valid_r4() {
        let refusal = FhirRefusal::ModifierNotSupported("name");
        let bytes =
            operation_outcome(refusal.issue_type(), refusal.code(), &refusal.to_string(), &[], "0197f\"<&>");
        let text = String::from_utf8(bytes).unwrap();
        let read: fhirkit::r4::OperationOutcome = fhirkit::from_json_strict(&text).unwrap();
        assert_eq!(read.issue.len(), 1);
        assert!(text.contains(r#""code":"modifier-not-supported""#), "{text}");
        assert!(text.contains(REFUSAL_SYSTEM) && text.contains(r#""severity":"error""#), "{text}");
    }
}
