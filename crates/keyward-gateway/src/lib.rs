//! The gateway: a loopback HTTP endpoint that puts the real credential on each request of a run.
//!
//! A child holds a run token that is good for nothing else and nowhere else; the gateway takes it off, puts the real
//! credential on, and passes both ways what client and upstream say. It never decides who may have what, keeps no credential
//! longer than one request, and writes nothing: all that is the [`Authority`]'s, which the broker implements.

mod authority;
mod body;
mod echo;
mod fence;
mod forward;
mod google;
mod guard;
mod named;
mod path;
mod routes;
mod server;
mod shape;
mod upstream;
mod usage;
mod whose;

pub use authority::{
    Admitted, Authority, Began, Caller, Connection, Denial, End, EndReason, Ended, Held, Placement, RunToken, Slot,
    Upstream,
};
pub use routes::{Pattern, PatternError, Route};
pub use server::Gateway;
