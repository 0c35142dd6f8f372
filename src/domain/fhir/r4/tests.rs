//! Tests of the R4 tables.

use super::*;

#[test]
fn the_tables_are_read() {
    assert_eq!(elements::parse(include_str!("elements.txt")).map(|t| t.resources.len()).unwrap_or(0), 146);
}
