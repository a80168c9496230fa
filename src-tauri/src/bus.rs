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
            Ok((server, number)) => {
                let act = self.shown().stands(server, number, notice);
                act.into_iter().for_each(|act| (self.0.act)(act));
            }
            Err(e) => {
                let mut shown = self.shown();
                if !std::mem::replace(&mut shown.said, true) {
                    log::line(&format!("no notifications: {e}"));
                }
            }
        }
    }

    fn withdraw(&self, id: &str) {
        let Some(number) = self.shown().withdraw(id) else { return };
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
                    let act = self.shown().answered(from.to_string(), number, key);
                    act.into_iter().for_each(|act| (self.0.act)(act));
                }
            }
            (Some(name), "NotificationClosed") if name == NOTIFICATIONS.0 => {
                if let Ok((number, _)) = message.body().deserialize::<(u32, u32)>() {
                    self.shown().closed(from.as_str(), number);
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
    /// Notes that `server` shows the notice under `number`; gives the act of an answer that came before this was known.
    fn stands(&mut self, server: String, number: u32, notice: Notice) -> Option<FromBus> {
        self.said = false;
        if self.server.as_ref() != Some(&server) {
            // Another server does not know the old ones, and gives their numbers anew.
            self.notices.clear();
        }
        self.notices.insert(number, notice);
        let early = self.early.iter().position(|(from, of, _)| *from == server && *of == number);
        self.server = Some(server);
        let (_, _, key) = early.and_then(|at| self.early.remove(at))?;
        self.act(number, &key)
    }

    /// What an answer from the process `from` asks for.
    fn answered(&mut self, from: String, number: u32, key: String) -> Option<FromBus> {
        if self.server.as_ref() == Some(&from) && self.notices.contains_key(&number) {
            return self.act(number, &key);
        }
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((from, number, key));
        None
    }

    /// The server says that it shows it no longer.
    fn closed(&mut self, from: &str, number: u32) {
        if self.server.as_deref() == Some(from) {
            self.notices.remove(&number);
        }
    }

    /// Forgets the notice; gives its number where it stands.
    fn withdraw(&mut self, id: &str) -> Option<u32> {
        let number = self.notices.iter().find(|(_, n)| n.id == id).map(|(number, _)| *number)?;
        self.notices.remove(&number);
        Some(number)
    }

    /// What an action asks for; the notification is over with it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use keyward_desk::{NoticeAction, Screen};

    const SERVER: &str = ":1.7";

    fn notice(id: &str) -> Notice {
        let renew = NoticeAction { key: "renew", label: "Renew", act: FromBus::Renew(id.to_owned()) };
        let open = NoticeAction { key: "open", label: "Open", act: FromBus::Open(Screen::Now) };
        let text = String::new;
        Notice {
            id: id.to_owned(),
            kind: NoticeKind::ExpiresSoon,
            title: text(),
            body: text(),
            actions: vec![renew, open],
        }
    }

    fn answer(shown: &mut Shown, from: &str, number: u32, key: &str) -> Option<FromBus> {
        shown.answered(from.to_owned(), number, key.to_owned())
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_server_that_took_the_notification() {
        let mut shown = Shown::default();
        assert_eq!(shown.stands(SERVER.to_owned(), 1, notice("a")), None);
        assert_eq!(answer(&mut shown, ":1.66", 1, "renew"), None, "somebody else");
        assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None, "another number");
        assert_eq!(answer(&mut shown, SERVER, 1, "reveal"), None, "no such action");
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), Some(FromBus::Renew("a".to_owned())));
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None, "it is over");
        assert_eq!(shown.stands(SERVER.to_owned(), 3, notice("b")), None);
        assert_eq!(answer(&mut shown, SERVER, 3, "default"), Some(FromBus::Open(Screen::Now)));
    }

    #[test]
    fn an_answer_that_comes_before_the_number_is_kept_and_a_flood_of_them_is_not() {
        let mut shown = Shown::default();
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None);
        assert_eq!(answer(&mut shown, ":1.66", 1, "open"), None);
        assert_eq!(shown.stands(SERVER.to_owned(), 1, notice("a")), Some(FromBus::Renew("a".to_owned())));
        for number in 0..1000 {
            assert_eq!(answer(&mut shown, ":1.66", number, "renew"), None);
        }
        assert_eq!(shown.early.len(), EARLY_MAX);
        assert_eq!(shown.stands(SERVER.to_owned(), 999, notice("b")), None, "another process said it");
    }

    #[test]
    fn what_is_closed_withdrawn_or_of_an_old_server_is_no_more() {
        let mut shown = Shown::default();
        for (number, id) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(shown.stands(SERVER.to_owned(), number, notice(id)), None);
        }
        shown.closed(":1.66", 1);
        shown.closed(SERVER, 2);
        assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None);
        assert_eq!(shown.withdraw("c"), Some(3));
        assert_eq!((shown.withdraw("c"), shown.withdraw("nothing")), (None, None));
        assert_eq!(shown.stands(":1.8".to_owned(), 9, notice("d")), None);
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None, "its server is gone");
        assert_eq!(shown.withdraw("d"), Some(9));
    }
}
