//! The list of routes: the only one. The broker dispatches by it, the OpenAPI document is made from it.

use crate::{
    AcceptBreakRequest, AppUseMsg, ApprovalAnswerRequest, ApprovalMsg, AuditEntryMsg, AuditPage, AuditSummary,
    BackupRequest, ExportRequest, GrantMsg, GrantPutRequest, InitRequest, KindMsg, LaunchExpectAnswer,
    LaunchExpectRequest, LauncherMsg, LauncherPutRequest, LockAnswer, MeAnswer, OperatorAnswer, PastRunsPage,
    ProfileMsg, ProfilePutRequest, ProfileTestAnswer, ProfileTestRequest, Proof, RecoveryAnswer, RekeyAnswer,
    RekeyRequest, RenewAnswer, RestoreRequest, RevokeAnswer, RevokeRequest, RunAnswer, RunMsg, RunRequest, SecretMsg,
    SecretPutRequest, SecretRevealAnswer, SettingsMsg, SettingsPutRequest, SlotAddRequest, SlotMsg, SlotRemoveRequest,
    StatusAnswer, TokenAnswer, TokenRequest, UnlockAnswer, UnlockRequest, VerifyAnswer,
};
use schemars::{Schema, SchemaGenerator};

/// HTTP method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Acts.
    Post,
    /// Makes or replaces.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// What a route answers with.
pub(crate) enum Reply {
    Json(fn(&mut SchemaGenerator) -> Schema),
    Empty,
    Stream(&'static str),
}

/// One route.
pub struct Route {
    /// Which one it is.
    pub id: RouteId,
    /// Method.
    pub method: Method,
    /// Path with `{…}` for the one part that varies, if any.
    pub path: &'static str,
    /// One line for the document.
    pub summary: &'static str,
    pub(crate) request: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(crate) reply: Reply,
}

macro_rules! reply {
    (empty) => {
        Reply::Empty
    };
    ((stream $mime:literal)) => {
        Reply::Stream($mime)
    };
    ((json $t:ty)) => {
        Reply::Json(|g| g.subschema_for::<$t>())
    };
}

macro_rules! request {
    (none) => {
        None
    };
    ($t:ident) => {
        Some(|g: &mut SchemaGenerator| g.subschema_for::<$t>())
    };
}

macro_rules! routes {
    ($($id:ident $method:ident $path:literal $request:ident $reply:tt $summary:literal)*) => {
        /// Names of the routes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RouteId { $(#[doc = concat!("`", $path, "`: ", $summary, ".")] $id,)* }

        /// All routes, without a particular order of precedence: no two match the same request.
        pub const ROUTES: &[Route] = &[$(Route {
            id: RouteId::$id, method: Method::$method, path: $path, summary: $summary,
            request: request!($request), reply: reply!($reply),
        },)*];
    };
}

routes! {
    Status Get "/v1/status" none (json StatusAnswer) "What is going on"
    Me Get "/v1/me" none (json MeAnswer) "What the caller may do"
    Operator Post "/v1/operator" Proof (json OperatorAnswer) "Prove on this connection that a person is there"
    Approvals Get "/v1/approvals" none (json Vec<ApprovalMsg>) "List what waits for a person, then the last hundred answers"
    ApprovalAnswer Post "/v1/approvals/{id}" ApprovalAnswerRequest empty "Answer a request"
    Grants Get "/v1/grants" none (json Vec<GrantMsg>) "List what is allowed without asking"
    GrantAdd Post "/v1/grants" GrantPutRequest (json GrantMsg) "Allow something ahead of its request"
    GrantEdit Put "/v1/grants/{id}" GrantPutRequest (json GrantMsg) "Change a grant"
    GrantRevoke Delete "/v1/grants/{id}" none empty "Take a grant back"
    Init Post "/v1/vault/init" InitRequest (json RecoveryAnswer) "Make the vault and leave it unlocked"
    Unlock Post "/v1/vault/unlock" UnlockRequest (json UnlockAnswer) "Open the vault"
    Lock Post "/v1/vault/lock" none (json LockAnswer) "Take everything back and wipe the keys"
    Rekey Post "/v1/vault/rekey" RekeyRequest (json RekeyAnswer) "Replace the vault key and the passphrase"
    Slots Get "/v1/vault/slots" none (json Vec<SlotMsg>) "List the slots"
    SlotAdd Post "/v1/vault/slots" SlotAddRequest (json RecoveryAnswer) "Add a slot"
    SlotRemove Post "/v1/vault/slots/remove" SlotRemoveRequest empty "Remove a slot"
    Backup Post "/v1/vault/backup" BackupRequest empty "Write a consistent copy of the vault into one file"
    Restore Post "/v1/vault/restore" RestoreRequest (json UnlockAnswer) "Put a backup in place"
    Secrets Get "/v1/secrets" none (json Vec<SecretMsg>) "List the stored secrets by name"
    SecretPut Put "/v1/secrets/{name}" SecretPutRequest empty "Store a secret"
    SecretRemove Delete "/v1/secrets/{name}" none empty "Remove a secret"
    SecretReveal Post "/v1/secrets/{name}/reveal" Proof (json SecretRevealAnswer) "Show a secret to its owner"
    Kinds Get "/v1/kinds" none (json Vec<KindMsg>) "List the issuers and identity sources of this version"
    Profiles Get "/v1/profiles" none (json Vec<ProfileMsg>) "List the profiles"
    ProfileAdd Post "/v1/profiles" ProfilePutRequest empty "Add a profile"
    Profile Get "/v1/profiles/{name}" none (json ProfileMsg) "Show a profile"
    ProfileEdit Put "/v1/profiles/{name}" ProfilePutRequest empty "Change a profile"
    ProfileRemove Delete "/v1/profiles/{name}" none empty "Remove a profile"
    ProfileTest Post "/v1/profiles/{name}/test" ProfileTestRequest (json ProfileTestAnswer) "Make a real exchange and say what it gave"
    ProfileRenew Post "/v1/profiles/{name}/renew" none (json RenewAnswer) "Make a credential anew and give it to the runs that can take it"
    ProfileReveal Post "/v1/profiles/{name}/reveal" Proof (json TokenAnswer) "Show the credential of a profile to its owner"
    RunStart Post "/v1/runs" RunRequest (json RunAnswer) "Become a run, or say what it would get"
    RunAbort Post "/v1/runs/{run}/abort" none empty "Say that exec failed"
    Runs Get "/v1/runs" none (json Vec<RunMsg>) "List the live runs and their leases"
    RunsPast Get "/v1/runs/past" none (json PastRunsPage) "Page through the runs that are over"
    Apps Get "/v1/apps" none (json Vec<AppUseMsg>) "Which credential each app held and used"
    Launchers Get "/v1/launchers" none (json Vec<LauncherMsg>) "List the launchers"
    LauncherAdd Post "/v1/launchers" LauncherPutRequest empty "Add a launcher"
    LauncherEdit Put "/v1/launchers/{name}" LauncherPutRequest empty "Change a launcher"
    LauncherRemove Delete "/v1/launchers/{name}" none empty "Remove a launcher"
    LaunchExpect Post "/v1/launchers/{name}/expect" LaunchExpectRequest (json LaunchExpectAnswer) "Say that a launch is about to be made"
    Settings Get "/v1/settings" none (json SettingsMsg) "Show the settings"
    SettingsPut Put "/v1/settings" SettingsPutRequest empty "Change the settings"
    Token Post "/v1/token" TokenRequest (json TokenAnswer) "Give one credential to a helper protocol"
    Revoke Post "/v1/revoke" RevokeRequest (json RevokeAnswer) "Take back"
    Audit Get "/v1/audit" none (json AuditPage) "Page through the log"
    AuditSummary Get "/v1/audit/summary" none (json AuditSummary) "Count the log over time and by name"
    AuditVerify Get "/v1/audit/verify" none (json VerifyAnswer) "Verify the whole log"
    AuditExport Post "/v1/audit/export" ExportRequest (stream "application/jsonl") "Export the log with a signed trailer"
    AuditAcceptBreak Post "/v1/audit/accept-break" AcceptBreakRequest empty "Accept a break and go on"
    AuditEntry Get "/v1/audit/entries/{seq}" none (json AuditEntryMsg) "Show one entry"
    Events Get "/v1/events" none (stream "text/event-stream") "Follow what happens; resumes by Last-Event-ID"
    BrokerStop Post "/v1/broker/stop" none empty "Stop the broker cleanly"
}

/// Writes a text as the part of a path that varies, percent-encoded (RFC 3986 section 2.1). Names of profiles and secrets
/// stay as they are; names of launchers may hold anything.
pub fn part(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads what [`part`] wrote; `None` for a broken escape and for what is no UTF-8.
pub fn part_text(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(if byte == b'%' { digit(rest.next())? << 4 | digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

/// Finds the route of a request; the second part is what stands in the place of `{…}`, as it was sent: [`part_text`] reads
/// it where it is the name of a launcher.
pub fn find<'a>(method: &str, path: &'a str) -> Option<(&'static Route, Option<&'a str>)> {
    ROUTES.iter().filter(|r| r.method.word() == method).find_map(|route| {
        let Some((head, tail)) = route.path.split_once('{') else {
            return (route.path == path).then_some((route, None));
        };
        let tail = tail.split_once('}').map_or("", |(_, after)| after);
        let part = path.strip_prefix(head)?.strip_suffix(tail)?;
        (!part.is_empty() && !part.contains('/')).then_some((route, Some(part)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_finds_its_route_and_part() {
        for (method, path, want) in [
            ("GET", "/v1/status", Some((RouteId::Status, None))),
            ("POST", "/v1/status", None),
            ("GET", "/v1/profiles/a.b", Some((RouteId::Profile, Some("a.b")))),
            ("POST", "/v1/profiles/a/test", Some((RouteId::ProfileTest, Some("a")))),
            ("GET", "/v1/profiles/", None),
            ("GET", "/v1/profiles/a/b", None),
            ("POST", "/v1/secrets/x/reveal", Some((RouteId::SecretReveal, Some("x")))),
            ("GET", "/v2/status", None),
        ] {
            assert_eq!(find(method, path).map(|(r, part)| (r.id, part)), want, "{method} {path}");
        }
    }

    #[test]
    fn any_text_travels_as_one_part_of_a_path() {
        for text in ["a", "Claude Code", "a/b?c=%2F", "ä ✓", "..", "%"] {
            let sent = part(text);
            assert!(!sent.contains(['/', '?', ' ']) && sent.is_ascii(), "{sent}");
            assert_eq!(part_text(&sent).as_deref(), Some(text));
        }
        for broken in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(part_text(broken), None, "{broken}");
        }
    }

    #[test]
    fn no_two_routes_match_the_same_request() {
        for route in ROUTES {
            let path =
                route.path.split('/').map(|p| if p.starts_with('{') { "7" } else { p }).collect::<Vec<_>>().join("/");
            assert_eq!(find(route.method.word(), &path).map(|(r, _)| r.id), Some(route.id), "{}", route.path);
        }
    }
}
