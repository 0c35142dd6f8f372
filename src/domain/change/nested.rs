//! Bundles of requests inside a batch.
//!
//! Owns: taking them out, so that the other entries can be answered (T-084). Must never: take anything else out.
//! Look next: `gateway::bundle`, which refuses the entries they stood in.

use std::collections::BTreeSet;

use super::ChangeRefusal;
use super::tree::{Node, Tree};

/// The batch without them, and the places of the entries they stood in.
pub type Flattened = (Vec<u8>, BTreeSet<usize>);

pub(super) fn without(bundle: &[u8]) -> Result<Option<Flattened>, ChangeRefusal> {
    let mut tree = Tree::parse(bundle)?;
    if !is_bundle(&tree.root, &["batch"]) {
        return Ok(None);
    }
    let mut places = BTreeSet::new();
    let Node::Object(members) = &mut tree.root else { return Ok(None) };
    for entries in members.iter_mut().filter(|member| member.name() == "entry") {
        let Node::Array(entries) = &mut entries.value else { continue };
        for (place, entry) in entries.iter_mut().enumerate() {
            let asks = |node: &Node| is_bundle(node, &["batch", "transaction"]);
            let Node::Object(entry) = entry else { continue };
            let before = entry.len();
            entry.retain(|member| member.name() != "resource" || !asks(&member.value));
            if entry.len() < before {
                places.insert(place);
            }
        }
    }
    Ok((!places.is_empty()).then(|| (tree.print(), places)))
}

fn is_bundle(node: &Node, kinds: &[&str]) -> bool {
    let kind = node.says("type");
    node.says("resourceType").as_deref() == Some("Bundle")
        && kind.is_some_and(|kind| kinds.contains(&kind.as_ref()))
}
