//! The upstream requests that change something.
//!
//! Owns: [`Change`], what is to be stored after it was judged and merged; its request, alone or in a transaction.
//! Must never: carry a client's body: what is sent was made by `domain::change`. Leave a condition to the EMR: the
//! gate has looked for itself, with the caller's eyes. A caller who sees all has it said again, for what happens at once.
//! Look next: `gateway::write`.

use std::fmt;

use bytes::Bytes;
use http::Method;

use super::{Expected, Plan, PlanError};
use crate::domain::access::Permit;
use crate::domain::fhir::r4::ResourceType;

pub(super) const FHIR_JSON: &str = "application/fhir+json";
const REPRESENTATION: &str = "return=representation";

/// A change of one record. Bodies are FHIR JSON.
#[derive(Clone)]
pub enum Change {
    /// A new record; with an id, one that the client chose.
    Create {
        /// Its type.
        resource: ResourceType,
        /// Its logical id, for an update that creates.
        id: Option<String>,
        /// Criteria that nothing may match when it is stored, as a canonical query.
        unless: Option<String>,
        /// The record.
        body: Bytes,
    },
    /// Another version of a record.
    Update {
        /// Its type.
        resource: ResourceType,
        /// Its logical id.
        id: String,
        /// The version that was merged with; none if the EMR keeps no versions.
        version: Option<String>,
        /// The record.
        body: Bytes,
    },
    /// The end of a record.
    Delete {
        /// Its type.
        resource: ResourceType,
        /// Its logical id.
        id: String,
        /// The version that was judged; none if the EMR keeps no versions.
        version: Option<String>,
    },
}

/// A change holds a whole record.
impl fmt::Debug for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        };
        write!(out, "{kind} {}", self.resource_type().name())
    }
}

/// The parts of a change's request.
struct Parts<'c> {
    method: Method,
    target: String,
    body: Option<&'c Bytes>,
    version: Option<&'c str>,
}

impl Change {
    /// The type of the record.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Create { resource, .. } | Self::Update { resource, .. } | Self::Delete { resource, .. } => {
                *resource
            }
        }
    }

    /// Whether it makes a record that was not there.
    #[must_use]
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// Adds the criteria that nothing may match when the record is created.
    pub fn only_unless(&mut self, criteria: Option<String>) {
        if let Self::Create { unless, .. } = self {
            *unless = criteria;
        }
    }

    /// The criteria that nothing may match when the record is created.
    #[must_use]
    pub fn unless(&self) -> Option<&str> {
        if let Self::Create { unless, .. } = self { unless.as_deref() } else { None }
    }

    fn parts(&self) -> Parts<'_> {
        match self {
            Self::Create { resource, id: None, body, .. } => Parts {
                method: Method::POST,
                target: resource.name().to_owned(),
                body: Some(body),
                version: None,
            },
            Self::Create { resource, id: Some(id), body, .. } => Parts {
                method: Method::PUT,
                target: format!("{}/{id}", resource.name()),
                body: Some(body),
                version: None,
            },
            Self::Update { resource, id, version, body } => Parts {
                method: Method::PUT,
                target: format!("{}/{id}", resource.name()),
                body: Some(body),
                version: version.as_deref(),
            },
            Self::Delete { resource, id, version } => Parts {
                method: Method::DELETE,
                target: format!("{}/{id}", resource.name()),
                body: None,
                version: version.as_deref(),
            },
        }
    }
}

/// Builds the request of one change.
///
/// # Errors
/// [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan_change(change: &Change, permit: &Permit) -> Result<Plan, PlanError> {
    check(change, permit)?;
    let parts = change.parts();
    Ok(Plan {
        method: parts.method,
        target: parts.target,
        body: parts.body.map(|body| (FHIR_JSON, body.clone())),
        prefer: Some(REPRESENTATION),
        if_match: parts.version.map(|version| format!("W/\"{version}\"")),
        if_none_match: matches!(change, Change::Create { id: Some(_), .. }),
        if_none_exist: change.unless().map(str::to_owned),
        expected: Expected::Change,
    })
}

/// Builds one transaction of several changes, each with its permit and its `fullUrl`, if it has one.
///
/// # Errors
/// [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan_transaction(changes: &[(&Change, &Permit, Option<&str>)]) -> Result<Plan, PlanError> {
    let mut body = br#"{"resourceType":"Bundle","type":"transaction","entry":["#.to_vec();
    for (place, (change, permit, full_url)) in changes.iter().enumerate() {
        check(change, permit)?;
        if place > 0 {
            body.push(b',');
        }
        push_entry(&mut body, change, *full_url);
    }
    body.extend_from_slice(b"]}");
    Ok(Plan {
        method: Method::POST,
        target: String::new(),
        body: Some((FHIR_JSON, Bytes::from(body))),
        prefer: Some(REPRESENTATION),
        if_match: None,
        if_none_match: false,
        if_none_exist: None,
        expected: Expected::Transaction,
    })
}

fn push_entry(out: &mut Vec<u8>, change: &Change, full_url: Option<&str>) {
    let parts = change.parts();
    out.push(b'{');
    if let Some(url) = full_url {
        out.extend_from_slice(format!(r#""fullUrl":{},"#, serde_json::json!(url)).as_bytes());
    }
    if let Some(resource) = parts.body {
        out.extend_from_slice(br#""resource":"#);
        out.extend_from_slice(resource);
        out.push(b',');
    }
    let mut request = serde_json::json!({ "method": parts.method.as_str(), "url": parts.target });
    if let (Some(version), Some(members)) = (parts.version, request.as_object_mut()) {
        members.insert("ifMatch".to_owned(), format!("W/\"{version}\"").into());
    }
    if let (Some(criteria), Some(members)) = (change.unless(), request.as_object_mut()) {
        members.insert("ifNoneExist".to_owned(), criteria.into());
    }
    out.extend_from_slice(format!(r#""request":{request}}}"#).as_bytes());
}

fn check(change: &Change, permit: &Permit) -> Result<(), PlanError> {
    if permit.resource_type() == Some(change.resource_type()) { Ok(()) } else { Err(PlanError::OtherPermit) }
}
