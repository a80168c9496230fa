//! The desktop without a desktop: the commands that its web view may give, and what stands behind them.
//!
//! A host (the Tauri program, or the development host for browsers) hands each command to this crate and shows what comes
//! back. No secret is in any command, answer or event: what a person types or reads in secret goes through native prompts.
//! Knows neither Tauri nor GTK.

mod command;
mod types;

pub use command::{COMMANDS, Command, document};
pub use types::{
    AgentMsg, AuditEntryQuery, BreakReason, Connection, DeskEvent, Done, Exported, IdentityDraft, LauncherDraft,
    LauncherSave, LoginAdopt, LoginMsg, MethodTile, Named, NotificationSettings, Overview, ProfileDraft, ProfileSave,
    ProviderTile, Screen, SettingsView, SlotAdd, SlotNamed, Theme,
};
