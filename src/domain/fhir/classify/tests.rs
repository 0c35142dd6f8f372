//! Tests of classification: laws.
