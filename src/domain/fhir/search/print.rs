//! The one text of each search.
//!
//! Owns: percent-encoding and the order of parameters. Must never: print what upstream is not to be asked
//! into its query. Look next: `search/question.rs`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::question::{Include, Search, SortKey};

/// Unreserved characters stand as they are, and those that only ever separate inside a value.
const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',');

/// What upstream is asked: criteria, includes, sort, count, total.
pub(super) fn print_query(search: &Search) -> String {
    join(asked_upstream(search))
}

/// What the client asked: the above, and the shape of the answer.
pub(super) fn print_question(search: &Search) -> String {
    let shape = search.shape.canonical().map(|(name, value)| (name.to_owned(), value));
    join(asked_upstream(search).chain(shape))
}

fn asked_upstream(search: &Search) -> impl Iterator<Item = (String, String)> {
    let criteria = search.criteria.iter().map(|criterion| (criterion.name.clone(), criterion.value()));
    let includes = search.includes.iter().map(print_include);
    let sort = (!search.sort.is_empty()).then(|| ("_sort".to_owned(), print_sort(&search.sort)));
    let count = search.count.map(|count| ("_count".to_owned(), count.to_string()));
    let total = search.total.word().map(|word| ("_total".to_owned(), word.to_owned()));
    criteria.chain(includes).chain(sort).chain(count).chain(total)
}

fn join(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{}={}", encode(&name), encode(&value))).collect();
    pairs.join("&")
}

pub(in crate::domain::fhir) fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY_SET).to_string()
}

pub(super) fn print_include(include: &Include) -> (String, String) {
    let name = if include.reverse { "_revinclude" } else { "_include" };
    let iterate = if include.iterate { ":iterate" } else { "" };
    let narrowed = include.narrowed.map(|target| format!(":{}", target.name())).unwrap_or_default();
    (format!("{name}{iterate}"), format!("{}:{}{narrowed}", include.source.name(), include.code))
}

fn print_sort(keys: &[SortKey]) -> String {
    let keys: Vec<String> =
        keys.iter().map(|key| format!("{}{}", if key.descending { "-" } else { "" }, key.code)).collect();
    keys.join(",")
}
