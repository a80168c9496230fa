//! The desktop without a desktop: the commands that its web view may give, and what stands behind them.
//!
//! A host (the Tauri program, or the development host for browsers) hands each command to this crate and shows what comes
//! back. No secret is in any command, answer or event: what a person types or reads in secret goes through native prompts.
//! Knows neither Tauri nor GTK.

mod bus;
mod card;
mod command;
mod desk;
mod draft;
mod export;
mod follow;
mod found;
mod launch;
mod look;
mod notice;
mod operator;
mod pool;
mod prompt;
mod settings;
mod tile;
mod tray;
mod types;

pub use bus::FromBus;
pub use command::{COMMANDS, Command, document};
pub use desk::Desk;
pub use look::next_due;
pub use notice::{Notice, NoticeAction, NoticeChange, NoticeKind, Notices};
pub use prompt::{Ask, CardWindow, Prompter, QuitAnswer, Strength, strength};
pub use tray::{Glyph, Tray, TrayItem, tray};
pub use types::{
    AgentMsg, ApprovalNamed, ApprovalReply, AuditEntryQuery, BreakReason, CardView, Connection, DeskEvent, Done,
    Exported, FenceDraft, GrantDraft, GrantNamed, GrantSave, IdentityDraft, LauncherDraft, LauncherSave, LoginAdopt,
    LoginMsg, MethodTile, Named, NotificationSettings, Overview, ProfileDraft, ProfileSave, ProviderTile, Screen,
    SettingsView, SlotAdd, SlotNamed, Theme,
};
