//! Drives the built program: every rule of its endpoints, every fault, the journal and the child.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod child;
mod clouds;
mod fault;
mod harness;
mod idp;
mod start;
mod strict;
