//! The list of commands: the only one. The Tauri program makes its commands and capabilities from it, the development host
//! its paths, and the web view its types.

use crate::types::*;
use keyward_api::{
    AppUseMsg, ApprovalMsg, AuditEntryMsg, AuditPage, AuditQuery, AuditSummary, AuditSummaryQuery, AuditVerifyQuery,
    GrantMsg, KindMsg, LockAnswer, PastRunsPage, PastRunsQuery, ProfileTestAnswer, RenewAnswer, RevokeAnswer,
    RevokeRequest, SecretMsg, SlotMsg, VerifyAnswer,
};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// One command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    request: Option<fn(&mut SchemaGenerator) -> Schema>,
    reply: fn(&mut SchemaGenerator) -> Schema,
}

/// Calls `$with!` with every command: `"summary" name(Request) -> Reply;`, with `()` for a command without request.
#[macro_export]
macro_rules! each_command {
    ($with:ident) => {
        $with! {
            "Everything that Now, Runs and the tray show" overview() -> Overview;
            "Take back a run, a profile, or everything" revoke(RevokeRequest) -> RevokeAnswer;
            "What waits for the person, then the last answers" approvals() -> Vec<ApprovalMsg>;
            "Open the window of a request" approval_show(ApprovalNamed) -> Done;
            "Say no to a request" approval_deny(ApprovalNamed) -> Done;
            "What the card window was opened for; of that window alone" card(ApprovalNamed) -> CardView;
            "Answer the request that the card window was opened for; of that window alone" approval_answer(ApprovalReply) -> Done;
            "What is allowed without asking" grants() -> Vec<GrantMsg>;
            "Give or change a grant; asks for the passphrase unless it was proven lately" grant_save(GrantSave) -> Done;
            "Take a grant back" grant_revoke(GrantNamed) -> Done;
            "Page through the runs that are over" runs_past(PastRunsQuery) -> PastRunsPage;
            "The issuers and identity sources with their fields" kinds() -> Vec<KindMsg>;
            "The tiles of the profile editor" providers() -> Vec<ProviderTile>;
            "A stored profile for the editor" profile_draft(Named) -> ProfileDraft;
            "Store a profile; asks for the passphrase to change one" profile_save(ProfileSave) -> Done;
            "Remove a profile; asks for the passphrase unless it was proven lately" profile_remove(Named) -> Done;
            "Make a real exchange and say what it gave" profile_test(Named) -> ProfileTestAnswer;
            "Make the credential anew" profile_renew(Named) -> RenewAnswer;
            "Ask for the passphrase and put the credential on the clipboard for 30 s" profile_copy(Named) -> Done;
            "Ask for the passphrase and show the credential in a native window" profile_reveal(Named) -> Done;
            "The stored secrets by name" secrets() -> Vec<SecretMsg>;
            "Ask for a secret in a native prompt and store it" secret_set(Named) -> Done;
            "Ask for the passphrase and show a stored secret in a native window" secret_reveal(Named) -> Done;
            "Remove a stored secret; asks for the passphrase unless it was proven lately" secret_remove(Named) -> Done;
            "Credentials that lie on this machine" logins() -> Vec<LoginMsg>;
            "Take one of them into the vault" login_adopt(LoginAdopt) -> Done;
            "Agents that are installed on this machine" agents() -> Vec<AgentMsg>;
            "Store a launcher; asks for the passphrase to change one" launcher_save(LauncherSave) -> Done;
            "Remove a launcher; asks for the passphrase unless it was proven lately" launcher_remove(Named) -> Done;
            "Start what a launcher names; asks for the passphrase unless it was proven lately" launch(Named) -> Done;
            "Which credential each app held and used; `since` and `until` count" apps(AuditSummaryQuery) -> Vec<AppUseMsg>;
            "Page through the log" audit(AuditQuery) -> AuditPage;
            "Count the log over time and by name" audit_summary(AuditSummaryQuery) -> AuditSummary;
            "One entry with its place in the chain" audit_entry(AuditEntryQuery) -> AuditEntryMsg;
            "Verify the whole log" audit_verify(AuditVerifyQuery) -> VerifyAnswer;
            "Ask for the passphrase and a file, and export what is filtered" audit_export(AuditQuery) -> Exported;
            "Ask for the passphrase and go on after a break" audit_accept_break(BreakReason) -> Done;
            "Ask for a new passphrase, make the vault, and show its recovery key once" vault_init() -> Done;
            "Ask for the passphrase and open the vault" vault_unlock() -> Done;
            "Take everything back and wipe the keys" vault_lock() -> LockAnswer;
            "Ask for the old passphrase and a new one" passphrase_change() -> Done;
            "The unlock methods" slots() -> Vec<SlotMsg>;
            "Ask for the passphrase and add an unlock method" slot_add(SlotAdd) -> Done;
            "Ask for the passphrase and remove an unlock method" slot_remove(SlotNamed) -> Done;
            "The settings" settings() -> SettingsView;
            "Change the settings" settings_save(SettingsView) -> Done;
            "Start or find the broker anew" connect() -> Connection;
            "End the desktop; asks first when runs are live" quit() -> Done;
        }
    };
}

macro_rules! list {
    ($($summary:literal $name:ident($($request:ident)?) -> $reply:ty;)*) => {
        /// All commands.
        pub const COMMANDS: &[Command] = &[$(Command {
            name: stringify!($name),
            summary: $summary,
            request: list!(@request $($request)?),
            reply: |g| g.subschema_for::<$reply>(),
        },)*];
    };
    (@request) => { None };
    (@request $request:ident) => { Some(|g: &mut SchemaGenerator| g.subschema_for::<$request>()) };
}

each_command!(list);

/// The commands as an OpenAPI 3.1 document: what the web view's types are made from, and what the development host serves.
pub fn document() -> Value {
    let mut schemas =
        SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into()).into_generator();
    let mut paths = Map::new();
    for command in COMMANDS {
        let reply = (command.reply)(&mut schemas);
        let mut operation = json!({
            "operationId": command.name,
            "summary": command.summary,
            "responses": {
                "200": {"description": "Done", "content": {"application/json": {"schema": reply}}},
                "default": {"description": "An error", "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Fault"}}}},
            },
        });
        if let (Some(request), Value::Object(operation)) = (command.request, &mut operation) {
            let schema = request(&mut schemas);
            operation.insert(
                "requestBody".into(),
                json!({"required": true, "content": {"application/json": {"schema": schema}}}),
            );
        }
        paths.insert(format!("/command/{}", command.name), json!({"post": operation}));
    }
    let event = schemas.subschema_for::<DeskEvent>();
    paths.insert(
        "/events".into(),
        json!({"get": {
            "operationId": "events",
            "summary": "What the host tells unasked",
            "responses": {"200": {"description": "One document an event",
                "content": {"text/event-stream": {"schema": event}}}},
        }}),
    );
    let mut components = schemas.take_definitions(true);
    let text = json!({"type": "string"});
    components.insert(
        "Fault".into(),
        json!({
            "type": "object",
            "required": ["code", "message", "causes", "help"],
            "properties": {"code": text, "message": text, "help": text, "causes": {"type": "array", "items": text}},
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Commands of the Keyward desktop", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    })
}
