//! Integration tests of the billing service: one binary.
