//! A question as the command line tells it, in the form of a case.
//!
//! Owns: the options that say who asks, how they stand to the patient, and what the record is like; and finding the
//! record: a file, one beside the policies, or a built-in example. Must never: decide.
//! Look next: `domain::workbench::Case`, which tables of cases have in the same words.

use crate::config::Problem;
use crate::domain::access::Relation;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::workbench::{Case, Records, Subject, Told, seconds};
use crate::edge::policy_files;
use crate::{app, limits};
use clap::Args;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Who asks, and what the record is like. The words are those of cases (docs/policies.md).
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Role names; may be given more than once
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<String>,
    /// Purpose of use (HL7 PurposeOfUse code)
    #[arg(long, default_value = "TREAT")]
    pub purpose: String,
    /// How the caller stands to the patient: self, care-team, ...; may be given more than once
    #[arg(long = "relation", value_name = "RELATION", value_parser = relation)]
    relations: Vec<Relation>,
    /// The caller's fhirUser, such as Practitioner/p1
    #[arg(long, value_name = "REFERENCE")]
    user: Option<String>,
    /// Emergency access to the patient was granted
    #[arg(long)]
    emergency: bool,
    /// The client's id
    #[arg(long, value_name = "ID")]
    application: Option<String>,
    /// The caller's address
    #[arg(long, value_name = "IP")]
    network: Option<IpAddr>,
    /// How long ago the second factor was proven, such as 13h
    #[arg(long, value_name = "TIME", value_parser = age)]
    second_factor_age: Option<i64>,
    /// Its methods; may be given more than once
    #[arg(long = "second-factor", value_name = "METHOD")]
    methods: Vec<String>,
    /// Whether it resists phishing
    #[arg(long, value_name = "TRUE|FALSE")]
    phishing_resistant: Option<bool>,
    /// Whom the record is about, with --type; may be given more than once
    #[arg(long = "patient", value_name = "ID", conflicts_with = "record")]
    patients: Vec<String>,
    /// A security label of the record; may be given more than once
    #[arg(long = "label", value_name = "CODE")]
    labels: Vec<String>,
    /// The record's status, with --type
    #[arg(long, value_name = "CODE", conflicts_with = "record")]
    status: Option<String>,
    /// A category of the record; may be given more than once
    #[arg(long, value_name = "CODE")]
    category: Vec<String>,
    /// A code of the record; may be given more than once
    #[arg(long, value_name = "CODE")]
    code: Vec<String>,
    /// A FHIR JSON file, a record of `tests/records` without .json, or a built-in example
    #[arg(long, value_name = "FILE|NAME", group = "subject")]
    record: Option<String>,
    /// R4 resource type
    #[arg(long = "type", value_name = "TYPE", group = "subject", required = true)]
    resource: Option<String>,
}

fn relation(name: &str) -> Result<Relation, String> {
    let known = || Relation::ALL.map(Relation::name).join(", ");
    Relation::from_name(name).ok_or_else(|| format!("there is no such relation: {}", known()))
}

fn age(text: &str) -> Result<i64, String> {
    seconds(text).ok_or_else(|| "expected a time such as 90s, 5m, 13h or 2d".to_owned())
}

impl Asked {
    /// The same as a case that expects nothing. Where the record is a file, `records` has it by the name in the case.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub(super) fn case(&self, action: &str, records: &mut Records) -> Result<Case, String> {
        let subject = match (&self.record, &self.resource) {
            (Some(name), _) => Subject::Record(found(name, records)?),
            (None, Some(name)) => Subject::Type(
                ResourceType::from_name(name)
                    .ok_or("`--type` must be an R4 resource type, such as `Patient`")?,
            ),
            (None, None) => return Err("give a `--type` or a `--record`".to_owned()),
        };
        Ok(Case {
            file: String::new(),
            line: 0,
            name: String::new(),
            roles: self.roles.clone(),
            purpose: self.purpose.clone(),
            action: action.to_owned(),
            operation: None,
            subject,
            permit: true,
            visible: Vec::new(),
            withheld: Vec::new(),
            by: Vec::new(),
            told: self.told(),
        })
    }

    fn told(&self) -> Told {
        Told {
            relations: self.relations.clone(),
            user: self.user.clone(),
            emergency: self.emergency,
            application: self.application.clone(),
            client: false,
            network: self.network,
            factor_age_seconds: self.second_factor_age,
            methods: (!self.methods.is_empty()).then(|| self.methods.clone()),
            phishing_resistant: self.phishing_resistant,
            patients: (!self.patients.is_empty()).then(|| self.patients.clone()),
            labels: self.labels.clone(),
            without_labels: Vec::new(),
            status: self.status.clone(),
            category: self.category.clone(),
            code: self.code.clone(),
        }
    }
}

/// A record by its name, or read from a file of that name.
fn found(name: &str, records: &mut Records) -> Result<String, String> {
    if records.by_name(name).is_some() {
        return Ok(name.to_owned());
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        format!(
            "the record `{name}` is no file that can be read, and no record of tests/records or built in: {why}"
        )
    };
    let bytes = fs::metadata(name).map_err(|error| unreadable(&error.kind()))?.len();
    if bytes > limits::POLICY_FILE_BYTES_MAX as u64 {
        return Err(unreadable(&"it is too large"));
    }
    let json = fs::read(name).map_err(|error| unreadable(&error.kind()))?;
    records.add(name, json);
    Ok(name.to_owned())
}

/// The built-in records, and those beside the policies.
///
/// # Errors
/// A problem with what stands beside them.
pub(super) fn records(directory: &Path) -> Result<Records, Vec<Problem>> {
    let files = policy_files::workbench(directory)
        .map_err(|problem| vec![app::policy_problem(&directory.join("tests"), problem)])?;
    let mut records = Records::built_in();
    files.records.into_iter().for_each(|(name, json)| records.add(&name, json));
    Ok(records)
}
