//! Chartgate.
fn main() {}
