//! Vocabulary, rules and state machines of Keyward.
//!
//! Time and randomness are arguments; nothing here reads a clock, a file, the environment or the network, and nothing is
//! `async`. Called by the store, the issuers and the broker.

pub mod audit;
mod delivery;
mod endpoint;
mod gateway;
mod issuer;
mod kind;
mod launcher;
mod lease;
mod name;
mod outlook;
mod profile;
mod refusal;
mod renewal;
mod role;
mod time;
mod tool;
mod unlock;
mod variable;

pub use delivery::{Choice, Plan, PlannedDelivery, Unset, Wanted, plan, usual};
pub use endpoint::check_url;
pub use gateway::{GOOGLE_TOKEN_PATH, Placement, Target, Upstream, google_adc};
pub use issuer::{Credential, Failure, IssueError, Issuer, Issuing, Looking, Once, Order, Revocation, Revoking};
pub use kind::{Endpoint, FieldSpec, KindRole, KindSpec, Shape, Usual};
pub use launcher::{Expected, FileId, Launch, Launcher, launcher_key};
pub use lease::{Lease, LeaseEnd, LeaseState};
pub use name::{Name, NameError};
pub use outlook::{Asking, Keys, Outlook, Prospects, Way, outlook};
pub use profile::{
    Delivery, DeliveryMode, Form, HandOver, Identity, Profile, ProfileError, SDK_PROFILE, SecretRef, Settings,
};
pub use refusal::{Refusals, RefusedCount};
pub use renewal::{Backoff, Freshness, Schedule};
pub use role::{ProcessId, Role, Root, role};
pub use time::{Boot, Now, Wall, parse_duration, render_duration};
pub use tool::Tools;
pub use unlock::Tries;
pub use variable::{Families, VariableError, check_variable};
