//! What an answer leads to: the next page by its link, or the status and the files of an export.
//!
//! Owns: the way along links. These requests depend on answers, so they are no part of the schedule.
//! Must never: follow a link to another host: it asks over the connection it has.
//! Look next: `open_loop`.

use crate::client::Heard;
use crate::open_loop::{Ask, Shared};
use crate::scenario::{Follow, Step, Visit};
use serde_json::Value;
use std::time::Duration;

/// Pages of one search.
const PAGES_MAX: usize = 200;
/// An export that takes longer than this is a miss.
const LOOKS_MAX: usize = 300;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Follows what a good answer leads to.
pub(crate) async fn follow(shared: &Shared, ask: &Ask, visit: &Visit, step: &Step, heard: Heard) {
    match step.follow {
        Follow::Nothing => {}
        Follow::Pages => pages(shared, ask, visit, heard).await,
        Follow::Export => export(shared, ask, visit, heard).await,
    }
}

async fn pages(shared: &Shared, ask: &Ask, visit: &Visit, first: Heard) {
    let mut page = Some(first);
    for _ in 0..PAGES_MAX {
        let Some(path) = page.and_then(|page| next_page(&page.body)) else { return };
        page = shared.ask_further(ask, visit, 1, &path, &[200], true).await;
    }
}

async fn export(shared: &Shared, ask: &Ask, visit: &Visit, kick_off: Heard) {
    let Some(path) = kick_off.location.as_deref().and_then(path_of) else { return };
    for _ in 0..LOOKS_MAX {
        let Some(status) = shared.ask_further(ask, visit, 1, &path, &[202, 200], true).await else { return };
        if status.status.as_u16() == 200 {
            for file in files(&status.body) {
                shared.ask_further(ask, visit, 2, &file, &[200], false).await;
            }
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Path and query of an absolute address.
fn path_of(address: &str) -> Option<String> {
    let (_, rest) = address.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    Some(format!("/{path}"))
}

fn next_page(body: &[u8]) -> Option<String> {
    let page: Value = serde_json::from_slice(body).ok()?;
    let links = page.get("link")?.as_array()?;
    let next = links.iter().find(|link| link.get("relation").and_then(Value::as_str) == Some("next"))?;
    path_of(next.get("url")?.as_str()?)
}

fn files(body: &[u8]) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(body).unwrap_or_default();
    let output = manifest.get("output").and_then(Value::as_array).cloned().unwrap_or_default();
    output.iter().filter_map(|file| path_of(file.get("url")?.as_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found() {
        let page = br#"{"link":[{"relation":"self","url":"https://h:1/fhir/A"},
            {"relation":"next","url":"https://h:1/fhir/~page?x=1"}]}"#;
        assert_eq!(next_page(page).as_deref(), Some("/fhir/~page?x=1"));
        assert_eq!(next_page(br#"{"link":[]}"#), None);
        let manifest =
            br#"{"output":[{"type":"A","url":"https://h:1/fhir/f/1"},{"type":"B","url":"https://h/2"}]}"#;
        assert_eq!(files(manifest), ["/fhir/f/1", "/2"]);
        assert!(files(b"{").is_empty());
        assert_eq!(path_of("no address"), None);
    }
}
