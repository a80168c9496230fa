//! What may be asked over the session bus: by a click in the tray menu, or on a notification.

use crate::types::Screen;

/// An act that a tray event or a notification's answer asks for.
///
/// Any process of the user can send such an event, so none of them proves a person: they take away, renew what is live, ask
/// for a launch as any process may, or open a window. There is no way to say reveal or approve, and what copies asks for
/// the passphrase first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromBus {
    /// Open the window on a screen. The host does it.
    Open(Screen),
    /// Start what the launcher of this name says.
    Launch(String),
    /// Take back what the run of this id holds.
    StopRun(String),
    /// Make the credential of this profile anew, if it is live.
    Renew(String),
    /// Open the prompt that asks for the passphrase before the credential of this profile is put on the clipboard.
    AskToCopy(String),
    /// Open the window of the request of this id. Its buttons are in that window alone.
    Card(String),
    /// Say no to the request of this id.
    Deny(String),
    /// Take everything back and wipe the keys.
    Lock,
    /// Take everything back.
    RevokeAll,
    /// Quit; asks first when runs are live.
    Quit,
}
