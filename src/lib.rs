//! Chartgate: a TLS reverse proxy in front of an EMR's FHIR R4 API.
//!
//! Modules in layer order, lowest last: imports point down only (`tests/architecture.rs`).

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod edge;
pub mod gateway;
pub mod limits;
