//! `chartgate policy mask`: what a role sees of a type or of a record, or may write of it, element by element.
//!
//! Owns: the command's arguments and output. Must never: decide; `domain::workbench` asks as a request is asked.
//! Look next: `domain::workbench::Tree`.

use super::asked::{Asked, records};
use super::{Which, load};
use crate::cli::{Ending, show};
use crate::domain::access::{Denial, PolicySet};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::workbench::{Case, Node, Records, Standing, Subject, Tree, record_trees, type_tree};
use clap::Args;
use serde_json::{Value, json};
use std::sync::Arc;

/// `policy mask DIRECTORY|--config F --role R --type T|--record F [--purpose P] [--action A] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Mask {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    asked: Asked,
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
    let (directory, policies) = match load(&mask.which) {
        Ok(loaded) => loaded,
        Err(problems) => return show::problems(&problems, mask.json),
    };
    let mut records = match records(&directory) {
        Ok(records) => records,
        Err(problems) => return show::problems(&problems, mask.json),
    };
    let case = match mask.asked.case(&mask.action, &mut records) {
        Ok(case) => case,
        Err(why) => {
            show::error(&why);
            return Ending::WrongUse;
        }
    };
    let policies = Arc::new(policies);
    match &case.subject {
        // What only a record could tell is left open.
        Subject::Type(resource) if !case.told.is_of_record() => of_type(mask, &policies, &case, *resource),
        Subject::Type(_) | Subject::Record(_) => of_record(mask, &policies, &records, &case),
    }
}

fn of_type(mask: &Mask, policies: &Arc<PolicySet>, case: &Case, resource: ResourceType) -> Ending {
    let (tree, rehearsed) = match type_tree(policies, case, resource) {
        Ok(Some(found)) => found,
        Ok(None) => return Ending::WrongUse,
        Err(denial) => return fault(&denial),
    };
    if mask.json {
        let mut line = as_json(&tree, mask);
        if let Value::Object(line) = &mut line {
            line.insert("possible".to_owned(), json!(rehearsed.possible.kept()));
            line.insert("definite".to_owned(), json!(rehearsed.definite.kept()));
            line.insert("policies".to_owned(), json!(rehearsed.policies));
        }
        show::line(&line.to_string());
        return Ending::Good;
    }
    if tree.standing == Standing::Stays {
        let (action, purpose) = (&mask.action, &mask.asked.purpose);
        let closed = format!("{} is not open to these roles: {action}, for {purpose}", resource.name());
        show::line(&format!("{closed}: {}", reason(&tree)));
        return Ending::Good;
    }
    print(&tree, written(&mask.action));
    Ending::Good
}

fn of_record(mask: &Mask, policies: &Arc<PolicySet>, records: &Records, case: &Case) -> Ending {
    let trees = match record_trees(policies, records, case) {
        Ok(trees) => trees,
        Err(why) => {
            show::error(&why);
            return Ending::WrongUse;
        }
    };
    for tree in &trees {
        if mask.json {
            show::line(&as_json(tree, mask).to_string());
        } else {
            print(tree, written(&mask.action));
        }
    }
    Ending::Good
}

fn fault(denial: &Denial) -> Ending {
    show::error(&denial.to_string());
    Ending::No
}

/// Whether elements go in by it and not out.
fn written(action: &str) -> bool {
    matches!(action, "create" | "update" | "patch")
}

/// Why it is withheld whole.
fn reason(tree: &Tree) -> String {
    match (&tree.because, tree.forbids.as_slice()) {
        (Some(because), _) => because.clone(),
        (None, []) => "no policy permits it".to_owned(),
        (None, forbids) => format!("by {}", forbids.join(", ")),
    }
}

fn print(tree: &Tree, written: bool) {
    let name = tree.record.as_deref().unwrap_or_else(|| tree.resource.name());
    let (passes, stays) = if written { ("writable", "not writable") } else { ("shown", "withheld") };
    let head = match tree.standing {
        Standing::Stays => format!("{stays}: {}", reason(tree)),
        Standing::Passes => by(passes, &tree.permits),
        Standing::InParts => by(&format!("{passes} in parts"), &tree.permits),
        Standing::InSomeRecords => {
            let open = by(&format!("{passes} in some records"), &tree.permits);
            but(open, &tree.forbids)
        }
    };
    let width = width(&tree.nodes, 2);
    show::line(&format!("{name:<width$} {head}"));
    nodes(&tree.nodes, 2, width, passes, stays);
}

/// How wide the names are, with what stands before them.
fn width(nodes: &[Node], indent: usize) -> usize {
    let own = |node: &Node| (indent + last(&node.path).len()).max(width(&node.inside, indent + 2));
    nodes.iter().map(own).max().unwrap_or(0).max(26)
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn nodes(all: &[Node], indent: usize, width: usize, passes: &str, stays: &str) {
    for node in all {
        let said = match node.standing {
            Standing::Passes => by(passes, &node.permits),
            Standing::InSomeRecords => {
                but(by(&format!("{passes} in some records"), &node.permits), &node.forbids)
            }
            Standing::InParts => but(by("only parts", &node.permits), &node.forbids),
            Standing::Stays if node.forbids.is_empty() => format!("{stays}: no policy permits it"),
            Standing::Stays => format!("{stays} by {}", node.forbids.join(", ")),
        };
        let name = format!("{:indent$}{}", "", last(&node.path));
        show::line(&format!("{name:<width$} {said}"));
        nodes(&node.inside, indent + 2, width, passes, stays);
    }
}

fn by(said: &str, permits: &[String]) -> String {
    if permits.is_empty() { said.to_owned() } else { format!("{said} by {}", permits.join(", ")) }
}

fn but(said: String, forbids: &[String]) -> String {
    if forbids.is_empty() { said } else { format!("{said}; not where {} forbids", forbids.join(", ")) }
}

fn as_json(tree: &Tree, mask: &Mask) -> Value {
    json!({
        "type": tree.resource.name(), "record": tree.record, "roles": mask.asked.roles,
        "purpose": mask.asked.purpose, "action": mask.action, "open": tree.standing != Standing::Stays,
        "standing": word(tree.standing), "permits": tree.permits, "forbids": tree.forbids,
        "because": tree.because, "elements": tree.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(node: &Node) -> Value {
    json!({
        "path": node.path, "standing": word(node.standing), "permits": node.permits, "forbids": node.forbids,
        "elements": node.inside.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Passes => "shown",
        Standing::InSomeRecords => "some-records",
        Standing::InParts => "parts",
        Standing::Stays => "withheld",
    }
}
