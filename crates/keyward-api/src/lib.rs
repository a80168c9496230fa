//! The LocalAPI: HTTP/1.1 with JSON over the broker's Unix socket.
//!
//! Holds the wire types, the list of routes, the OpenAPI 3.1 document made from both, and where the socket and the folders
//! are. Never talks to anything and never decides. Called by the broker, the client and every program on top of it.
//!
//! Rules of the wire: requests refuse unknown fields; answers may gain fields and never rename one; times are RFC 3339 in
//! UTC; an error is a [`keyward_diag::Fault`] whatever the route.

mod approval;
mod audit;
mod launcher;
mod openapi;
pub mod place;
mod profile;
mod route;
mod run;
mod status;
mod vault;

pub use approval::{
    ApprovalAnswerRequest, ApprovalKind, ApprovalMsg, ApprovalState, Decision, GrantMsg, GrantPutRequest, GrantSpan,
    MeAnswer, OperatorAnswer, ProcessMsg, ProjectFileMsg, RoleMsg, WantedMsg,
};
pub use audit::{
    AcceptBreakRequest, AnchorMsg, AppUseMsg, AuditEntryMsg, AuditPage, AuditQuery, AuditSummary, AuditSummaryQuery,
    AuditVerifyQuery, BarMsg, CountMsg, ExportRequest, GapMsg, HeadMsg, ProblemMsg, SpanMsg, VerifyAnswer,
};
pub use launcher::{
    LaunchExpectAnswer, LaunchExpectRequest, LauncherMsg, LauncherPutRequest, SettingsMsg, SettingsPutRequest,
};
pub use openapi::openapi;
pub use profile::{
    ExchangeMsg, FieldMsg, HeldMsg, KindMsg, ProfileMsg, ProfilePutRequest, ProfileTestAnswer, ProfileTestRequest,
    RenewAnswer, SecretMsg, SecretPutRequest, SecretRevealAnswer, SuppliedAssertion,
};
pub use route::{Method, ROUTES, Route, RouteId, find, part, part_text};
pub use run::{
    CommandMsg, DeliveredMsg, DeliveryMode, LeaseMsg, Outlook, OutlookMsg, PastRunMsg, PastRunsPage, PastRunsQuery,
    PlanMsg, ProjectRunMsg, RevokeAnswer, RevokeRequest, RunAnswer, RunMsg, RunRequest, SetVariable, TokenAnswer,
    TokenRequest, UnsetVariable, WeakerMsg,
};
pub use status::{BrokerStatus, StatusAnswer, VaultState, VaultStatus};
pub use vault::{
    BackupRequest, InitRequest, LockAnswer, LostRun, Proof, RecoveryAnswer, RekeyAnswer, RekeyRequest, RestoreRequest,
    SlotAddRequest, SlotKind, SlotMsg, SlotRemoveRequest, UnlockAnswer, UnlockRequest,
};

/// Major version of the LocalAPI: the prefix of every path and the value of the [`VERSION_HEADER`].
pub const API_VERSION: u32 = 1;

/// Header in which a client says which major version it speaks.
pub const VERSION_HEADER: &str = "keyward-api";

/// Longest request body that the broker reads, in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;
