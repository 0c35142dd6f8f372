//! The journal against a real directory.
