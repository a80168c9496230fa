//! The session bus: notifications with their answers, and the colours that the session prefers.
//!
//! One connection, which is read before the first notification is shown, so that no answer is lost. Servers send answers to
//! the connection that has shown the notification and to no other; only the process that took it is believed. What comes
//! from here proves no person: it ends as a [`FromBus`]. Without a bus or a server nothing is shown, and that is said once.

use crate::log;
use crate::tray::Act;
use keyward_desk::{FromBus, Notice, NoticeChange, NoticeKind};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zbus::blocking::connection::Builder;
use zbus::blocking::fdo::DBusProxy;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::{Message, Type};
use zbus::zvariant::{OwnedValue, Value};
use zbus::{MatchRule, zvariant};

/// Desktop Notifications Specification 1.2.
const NOTIFICATIONS: (&str, &str) = ("org.freedesktop.Notifications", "/org/freedesktop/Notifications");
/// XDG Desktop Portal, `org.freedesktop.portal.Settings`.
const PORTAL: (&str, &str, &str) =
    ("org.freedesktop.portal.Desktop", "/org/freedesktop/portal/desktop", "org.freedesktop.portal.Settings");
const APPEARANCE: (&str, &str) = ("org.freedesktop.appearance", "color-scheme");
/// Value of the colour scheme that stands for dark.
const DARK: u32 = 1;

/// Nobody on the bus may hold up the program for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers kept for notifications whose number is not known yet.
const EARLY_MAX: usize = 16;

/// The desktop entry of the packages, by which the panel knows whose notification it is.
const ENTRY: &str = "keyward-desktop";

/// The connection.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Inner>);

struct Inner {
    connection: Connection,
    act: Act,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// The process that shows notifications, by its name on the bus.
    server: Option<String>,
    /// What stands there: number of the server, and the notice.
    notices: HashMap<u32, Notice>,
    /// Answers that came before the number did.
    early: VecDeque<(String, u32, String)>,
    said: bool,
}

impl Bus {
    /// Connects and listens. `prefers` is told whether the session prefers dark colours, at once and whenever that changes.
    /// `None` without a session bus.
    pub(crate) fn connect(act: Act, prefers: impl Fn(bool) + Send + 'static) -> Option<Self> {
        let connected = Builder::session().and_then(|builder| builder.method_timeout(PATIENCE).build());
        match connected.and_then(|connection| Self::listen(connection, act, prefers)) {
            Ok(bus) => Some(bus),
            Err(e) => {
                log::line(&format!("no notifications: {e}"));
                None
            }
        }
    }

    fn listen(connection: Connection, act: Act, prefers: impl Fn(bool) + Send + 'static) -> zbus::Result<Self> {
        // Everything that comes, so that nothing has to be asked for before an answer can come.
        let messages = MessageIterator::from(&connection);
        let rules = DBusProxy::new(&connection)?;
        let signal = || MatchRule::builder().msg_type(Type::Signal);
        let of_notifications = signal().path(NOTIFICATIONS.1)?.interface(NOTIFICATIONS.0)?;
        rules.add_match_rule(of_notifications.build())?;
        let of_settings = signal().path(PORTAL.1)?.interface(PORTAL.2)?.member("SettingChanged")?;
        rules.add_match_rule(of_settings.arg(0, APPEARANCE.0)?.build())?;
        let bus = Self(Arc::new(Inner { connection, act, shown: Mutex::default() }));
        let listener = bus.clone();
        std::thread::Builder::new().name("bus".into()).spawn(move || {
            if let Some(dark) = listener.scheme() {
                prefers(dark);
            }
            for message in messages.flatten() {
                listener.hear(&message, &prefers);
            }
        })?;
        Ok(bus)
    }

    /// Shows and withdraws.
    pub(crate) fn change(&self, change: NoticeChange) {
        match change {
            NoticeChange::Show(notice) => self.show(notice),
            NoticeChange::Withdraw(id) => self.withdraw(&id),
        }
    }

    fn show(&self, notice: Notice) {
        let before = self.shown().notices.iter().find(|(_, n)| n.id == notice.id).map_or(0, |(number, _)| *number);
        // A click on the notification itself is its last action.
        let usual = notice.actions.last().map(|a| ["default", a.label]);
        let actions = notice.actions.iter().map(|a| [a.key, a.label]).chain(usual).flatten();
        let urgency: u8 = if notice.kind == NoticeKind::ExpiresSoon { 1 } else { 2 };
        let hints = HashMap::from([
            ("urgency", Value::from(urgency)),
            ("desktop-entry", Value::from(ENTRY)),
            ("category", Value::from("device")),
        ]);
        let body = (
            "Keyward",
            before,
            ENTRY,
            notice.title.as_str(),
            notice.body.as_str(),
            actions.collect::<Vec<_>>(),
            hints,
            // The server's own time.
            -1_i32,
        );
        let answer = self.call("Notify", &body).and_then(|answer| {
            let server = answer.header().sender().map(|name| name.to_string()).unwrap_or_default();
            Ok((server, answer.body().deserialize::<u32>()?))
        });
        match answer {
            Ok((server, number)) => self.stands(server, number, notice),
            Err(e) => {
                let mut shown = self.shown();
                if !std::mem::replace(&mut shown.said, true) {
                    log::line(&format!("no notifications: {e}"));
                }
            }
        }
    }

    /// Notes that the notice stands, and takes the answer that may have come already.
    fn stands(&self, server: String, number: u32, notice: Notice) {
        let mut shown = self.shown();
        shown.said = false;
        if shown.server.as_ref() != Some(&server) {
            // Another server does not know the old ones, and gives their numbers anew.
            shown.notices.clear();
            shown.server = Some(server);
        }
        shown.notices.insert(number, notice);
        let early = shown.early.iter().position(|(from, of, _)| Some(from) == shown.server.as_ref() && *of == number);
        let act = early.and_then(|at| shown.early.remove(at)).and_then(|(_, _, key)| shown.act(number, &key));
        drop(shown);
        act.into_iter().for_each(|act| (self.0.act)(act));
    }

    fn withdraw(&self, id: &str) {
        let mut shown = self.shown();
        let number = shown.notices.iter().find(|(_, n)| n.id == id).map(|(number, _)| *number);
        let Some(number) = number else { return };
        shown.notices.remove(&number);
        drop(shown);
        // A server that is gone shows nothing.
        drop(self.call("CloseNotification", &(number,)));
    }

    fn call<B: serde::Serialize + zvariant::DynamicType>(&self, method: &str, body: &B) -> zbus::Result<Message> {
        self.0.connection.call_method(Some(NOTIFICATIONS.0), NOTIFICATIONS.1, Some(NOTIFICATIONS.0), method, body)
    }

    fn hear(&self, message: &Message, prefers: &impl Fn(bool)) {
        let header = message.header();
        if header.message_type() != Type::Signal {
            return;
        }
        let (Some(from), Some(member)) = (header.sender(), header.member()) else { return };
        match (header.interface().map(|name| name.as_str()), member.as_str()) {
            (Some(name), "ActionInvoked") if name == NOTIFICATIONS.0 => {
                if let Ok((number, key)) = message.body().deserialize::<(u32, String)>() {
                    self.answered(from.to_string(), number, key);
                }
            }
            (Some(name), "NotificationClosed") if name == NOTIFICATIONS.0 => {
                if let Ok((number, _)) = message.body().deserialize::<(u32, u32)>() {
                    let mut shown = self.shown();
                    if shown.server.as_deref() == Some(from.as_str()) {
                        shown.notices.remove(&number);
                    }
                }
            }
            // Whoever says so, the portal is asked.
            (Some(name), "SettingChanged") if name == PORTAL.2 => {
                if let Some(dark) = self.scheme() {
                    prefers(dark);
                }
            }
            _ => {}
        }
    }

    fn answered(&self, from: String, number: u32, key: String) {
        let mut shown = self.shown();
        let known = shown.server.as_ref() == Some(&from) && shown.notices.contains_key(&number);
        let act = if known {
            shown.act(number, &key)
        } else {
            if shown.early.len() == EARLY_MAX {
                shown.early.pop_front();
            }
            shown.early.push_back((from, number, key));
            None
        };
        drop(shown);
        act.into_iter().for_each(|act| (self.0.act)(act));
    }

    /// Whether the session prefers dark colours; `None` where no portal tells.
    fn scheme(&self) -> Option<bool> {
        let answer =
            self.0.connection.call_method(Some(PORTAL.0), PORTAL.1, Some(PORTAL.2), "ReadOne", &APPEARANCE).ok()?;
        let value: OwnedValue = answer.body().deserialize().ok()?;
        Some(u32::try_from(value).ok()? == DARK)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// What an answer asks for; the notification is over with it.
    fn act(&mut self, number: u32, key: &str) -> Option<FromBus> {
        let notice = self.notices.get(&number)?;
        let action = match key {
            "default" => notice.actions.last(),
            key => notice.actions.iter().find(|a| a.key == key),
        };
        let act = action?.act.clone();
        self.notices.remove(&number);
        Some(act)
    }
}
