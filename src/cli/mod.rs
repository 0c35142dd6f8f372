//! The command line.
//!
//! Owns: what each command prints and its exit code. Must never: decide about access.
//! Look next: the file named after the command.

pub mod audit;
