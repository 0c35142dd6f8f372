//! Loadtest.
fn main() {}
