//! Vocabulary, rules and state machines of Keyward.
//!
//! Time and randomness are arguments; nothing here reads a clock, a file, the environment or the network, and nothing is
//! `async`. Called by the store, the issuers and the broker.

mod approval;
pub mod audit;
mod delivery;
mod endpoint;
mod fence;
mod gateway;
mod grant;
mod interpreter;
mod issuer;
mod kind;
mod launcher;
mod lease;
mod name;
mod outlook;
mod price;
mod profile;
mod project;
mod refusal;
mod renewal;
mod role;
pub mod sigv4;
mod time;
mod tool;
mod unlock;
mod variable;

pub use approval::{
    Approval, ApprovalId, ApprovalKind, ApprovalState, Approvals, Asked, Asker, Decision, Question, Refused,
};
pub use delivery::{Choice, Plan, PlannedDelivery, Unset, Wanted, deliverable, plan, usual};
pub use endpoint::check_url;
pub use fence::{Attempt, Counted, Fence, Fenced, Limit, Model, Passing};
pub use gateway::{GOOGLE_TOKEN_PATH, Placement, Target, Upstream, google_adc};
pub use grant::{AppScope, Ask, FileState, Grant, GrantId, Grants, Moment, Program, Span, Term, reloaded};
pub use interpreter::{interpreter, script_of};
pub use issuer::{
    Beside, Credential, Failure, IssueError, Issuer, Issuing, Looking, Once, Order, Revocation, Revoking,
};
pub use keyward_diag::shown;
pub use kind::{Endpoint, FieldSpec, KindRole, KindSpec, Shape, Usual};
pub use launcher::{Announcer, Expected, FileId, Launch, Launcher, launcher_key};
pub use lease::{Lease, LeaseEnd, LeaseState};
pub use name::{Name, NameError};
pub use outlook::{Asking, Keys, Outlook, Prospects, Way, outlook};
pub use price::{Price, Prices, Usage, Usd, model_name};
pub use profile::{
    Delivery, DeliveryMode, Form, HandOver, Identity, Profile, ProfileError, SDK_PROFILE, SecretRef, Settings,
};
pub use project::{PROJECT_FILE, ProjectFile, ProjectRun, difference};
pub use refusal::{Refusals, RefusedCount};
pub use renewal::{Backoff, Freshness, Schedule};
pub use role::{Act, Lineage, Mark, May, ProcessId, Proofs, Role, Root, Runs, may, role};
pub use time::{Boot, Now, Wall, parse_duration, render_duration};
pub use tool::Tools;
pub use unlock::Tries;
pub use variable::{Families, VariableError, check_variable};
