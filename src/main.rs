//! The program: arguments in, exit code out; nothing else.

use std::process::ExitCode;

/// Requests are many small pieces of memory on several threads: see docs/decisions/0019-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chartgate::cli::main()
}
