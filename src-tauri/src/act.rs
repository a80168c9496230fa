//! What a click in the tray or on a notification asks for, carried out away from the thread that heard it.
//!
//! Nothing in here reveals, copies without the passphrase, or approves: [`FromBus`] cannot say it.

use crate::bus::Bus;
use crate::{log, window};
use keyward_desk::{Desk, FromBus, Notice, NoticeAction, NoticeChange, NoticeKind, Screen};
use keyward_diag::Fault;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tauri::AppHandle;

/// Acts at the same time; more are not heard. Whoever sends that many is no person.
const ACTS_MAX: usize = 16;
/// After a renewal that failed, the same one is not heard for so long: whoever sends events does not wear out an issuer.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// The acts that are being carried out.
pub(crate) struct Acts {
    app: AppHandle,
    desk: Arc<Desk>,
    bus: OnceLock<Option<Bus>>,
    going: Mutex<Vec<FromBus>>,
}

impl Acts {
    pub(crate) fn new(app: AppHandle, desk: Arc<Desk>) -> Arc<Self> {
        Arc::new(Self { app, desk, bus: OnceLock::new(), going: Mutex::default() })
    }

    /// By which failures are told.
    pub(crate) fn tells_by(&self, bus: Option<Bus>) {
        // Set once, by the one that starts the hosts.
        drop(self.bus.set(bus));
    }

    /// Begins an act and returns at once. One that is going on already is not begun again, and there is one prompt of the
    /// tray at a time.
    pub(crate) fn act(self: &Arc<Self>, asked: FromBus) {
        if let FromBus::Open(screen) = asked {
            return window::open(&self.app, Some(screen));
        }
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        let prompts = matches!(asked, FromBus::AskToCopy(_));
        let same = |other: &FromBus| *other == asked || (prompts && discriminant(other) == discriminant(&asked));
        // What takes away is heard however many wait.
        let takes = matches!(asked, FromBus::Lock | FromBus::RevokeAll | FromBus::StopRun(_) | FromBus::Deny(_));
        if (going.len() >= ACTS_MAX && !takes) || going.iter().any(same) {
            return;
        }
        going.push(asked.clone());
        drop(going);
        let acts = Arc::clone(self);
        let act = asked.clone();
        let begun = std::thread::Builder::new().name("act".into()).spawn(move || {
            if let Err(fault) = acts.desk.act(&act) {
                acts.failed(&act, &fault);
                if matches!(act, FromBus::Renew(_)) {
                    std::thread::sleep(RENEW_PAUSE);
                }
            }
            acts.over(&act);
        });
        if let Err(e) = begun {
            log::line(&format!("a click had no effect: {e}"));
            self.over(&asked);
        }
    }

    fn over(&self, act: &FromBus) {
        self.going.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != act);
    }

    /// Tells the person, who sees no window.
    fn failed(&self, act: &FromBus, fault: &Fault) {
        log::line(&format!("a click failed: {}", fault.code));
        let what = match act {
            FromBus::Open(_) | FromBus::Card(_) => "Not opened",
            FromBus::Deny(_) => "Not denied",
            FromBus::Launch(_) => "Not launched",
            FromBus::StopRun(_) => "Not stopped",
            FromBus::Renew(_) => "Not renewed",
            FromBus::AskToCopy(_) => "Not copied",
            FromBus::Lock => "Not locked",
            FromBus::RevokeAll => "Not everything was revoked",
            FromBus::Quit => "Keyward goes on",
        };
        let body: String = [&fault.message].into_iter().chain(&fault.causes).map(|part| sentence(part)).collect();
        let notice = Notice {
            id: "act".to_owned(),
            kind: NoticeKind::RefreshFailed,
            title: what.to_owned(),
            body: body.trim_end().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            actions: vec![NoticeAction { key: "open", label: "Open", act: FromBus::Open(Screen::Now) }],
        };
        if let Some(Some(bus)) = self.bus.get() {
            bus.change(NoticeChange::Show(notice));
        }
    }
}

/// A message as a sentence, with the space to the next one.
fn sentence(message: &str) -> String {
    let mut chars = message.trim_end_matches('.').chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).chain(". ".chars()).collect()
}
