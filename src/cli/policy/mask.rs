//! `chartgate policy mask`: which elements of a type a role may see or write.
//!
//! Owns: the command's arguments and output. Must never: decide; `domain::access` rehearses the same decision
//! that a request meets. Look next: `domain::access::Rehearsal`.

use super::{Which, load};
use crate::cli::{Ending, show};
use crate::domain::access::{Rehearsal, Situation, TypeRehearsal};
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use clap::Args;
use serde_json::json;
use std::sync::Arc;

/// `policy mask DIRECTORY|--config F --role R --type T [--purpose P] [--action A] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Mask {
    #[command(flatten)]
    which: Which,
    /// Role names; may be given more than once
    #[arg(long = "role", required = true)]
    roles: Vec<String>,
    /// R4 resource type
    #[arg(long = "type")]
    resource: String,
    /// Purpose of use (HL7 PurposeOfUse code)
    #[arg(long, default_value = "TREAT")]
    purpose: String,
    /// What is done with the records: `update` shows what may be written
    #[arg(long, default_value = "read", value_parser = ACTIONS)]
    action: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// The actions that move elements.
const ACTIONS: [&str; 8] = ["read", "vread", "history", "search", "create", "update", "patch", "export"];

pub(super) fn run(mask: &Mask) -> Ending {
    let Some(resource) = ResourceType::from_name(&mask.resource) else {
        show::error("`--type` must be an R4 resource type, such as `Patient`");
        return Ending::WrongUse;
    };
    let (_, policies) = match load(&mask.which) {
        Ok(loaded) => loaded,
        Err(problems) => return show::problems(&problems, mask.json),
    };
    let roles: Vec<&str> = mask.roles.iter().map(String::as_str).collect();
    let situation = Situation::rehearsal(&roles, &mask.purpose);
    let Some(rehearsed) = Rehearsal::new(&Arc::new(policies), &situation).ask(&mask.action, resource) else {
        show::error("`--action` must be an action on records, such as `read` or `update`");
        return Ending::WrongUse;
    };
    match rehearsed {
        Ok(rehearsal) if mask.json => {
            let line = json!({
                "type": resource.name(), "roles": mask.roles, "purpose": mask.purpose, "action": mask.action,
                "open": rehearsal.open,
                "possible": rehearsal.possible.kept(), "definite": rehearsal.definite.kept(),
                "policies": rehearsal.policies,
            });
            show::line(&line.to_string());
            Ending::Good
        }
        Ok(rehearsal) => {
            if !rehearsal.open {
                let (action, purpose) = (&mask.action, &mask.purpose);
                show::line(&format!(
                    "{} is not open to these roles: {action}, for {purpose}",
                    resource.name()
                ));
                return Ending::Good;
            }
            tree(resource, &rehearsal, written(&mask.action));
            Ending::Good
        }
        Err(denial) => {
            show::error(&denial.to_string());
            Ending::No
        }
    }
}

/// Whether elements go in by it and not out.
fn written(action: &str) -> bool {
    matches!(action, "create" | "update" | "patch")
}

/// The type's own elements, each with what happens to it.
fn tree(resource: ResourceType, rehearsal: &TypeRehearsal, written: bool) {
    let (passes, stays) = if written { ("writable", "not writable") } else { ("shown", "withheld") };
    show::line(resource.name());
    let partly = rehearsal.possible.kept();
    for element in r4::elements(r4::root(resource)) {
        let name = format!("{}.{}", resource.name(), element.name);
        let Ok(path) = ElementPath::parse(&name) else { continue };
        let below: Vec<&String> = partly
            .iter()
            .filter(|kept| kept.starts_with(&format!("{name}.")) || kept.starts_with(&format!("{name}(")))
            .collect();
        let verdict = if rehearsal.definite.covers(&path) {
            passes.to_owned()
        } else if rehearsal.possible.covers(&path) {
            format!("{passes} in some records")
        } else if below.is_empty() {
            stays.to_owned()
        } else {
            let inner: Vec<&str> =
                below.iter().filter_map(|kept| kept.strip_prefix(&format!("{name}."))).collect();
            format!("only {}", inner.join(", "))
        };
        show::line(&format!("  {:<24} {verdict}", element.name));
    }
}
