//! The vault on real files: what it keeps, what it refuses, and what it finds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod archive;
#[cfg(feature = "fault-points")]
mod crash;
mod disk;
mod home;
mod moving;
mod opening;
mod review;
mod tamper;
