//! The session bus: notifications with their answers, and the colours that the session prefers.
//!
//! Notifications are shown by `notify-rust`, each on a connection of its own that stays as long as the notification stands.
//! Most servers send an answer to everybody: it is read from one connection that listens before the first notification is
//! shown, so that none is lost, and only the process that took the notification is believed there. Some servers (dunst)
//! send it to the connection that has shown the notification and to no other: it is awaited there too, from a moment after
//! the number is known, and whoever sends it is believed. An answer counts once, wherever it is heard. What comes from here
//! proves no person: it ends as a [`FromBus`]. Without a bus or a server nothing is shown, and that is said once.

use crate::log;
use crate::tray::Act;
use keyward_desk::{FromBus, Notice, NoticeChange, NoticeKind};
use notify_rust::{Hint, Notification, NotificationResponse, Urgency};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tauri::async_runtime::{self, JoinHandle};
use zbus::MatchRule;
use zbus::blocking::connection::Builder;
use zbus::blocking::fdo::DBusProxy;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::{Message, Type};
use zbus::names::BusName;
use zbus::zvariant::OwnedValue;

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
/// Notifications that stand at a time, with a connection each; the oldest makes room.
const STANDING_MAX: usize = 32;

/// The desktop entry of the packages, by which the panel knows whose notification it is.
const ENTRY: &str = "keyward-desktop";

/// What shows notifications and hears what comes of them.
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
    /// What stands there, by the number of the server.
    standing: HashMap<u32, Standing>,
    /// The serial number of the newest one.
    newest: u64,
    /// Those whose number is not known yet.
    nameless: usize,
    /// Answers that came while a number was not known.
    early: VecDeque<(Heard, u32, String)>,
    /// Numbers that were answered in that time.
    answered: Vec<u32>,
    said: bool,
}

struct Standing {
    /// Tells this one from another under the same number.
    serial: u64,
    notice: Notice,
    _waiting: Waiting,
}

/// Waits on the connection that has shown a notification. Both end with this value.
struct Waiting(JoinHandle<()>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where an answer was heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// On the connection that listens, from the process of this name on the bus.
    Listening(String),
    /// On the connection that has shown the notification of this serial number.
    Showing(u64),
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
        let crowded = self.shown().oldest_of_too_many();
        crowded.into_iter().for_each(|id| self.withdraw(&id));
        let (serial, before) = self.shown().begins(&notice.id);
        let notification = notification(&notice, before);
        let (tell, told) = mpsc::channel();
        let bus = self.clone();
        let waiting = Waiting(async_runtime::spawn(async move {
            match notification.show_async().await {
                Ok(handle) => {
                    let number = handle.id();
                    // Nobody listens where the patience is over, and this ends.
                    drop(tell.send(Ok(number)));
                    handle.wait_for_action_async(|response| bus.responded(serial, number, response)).await;
                }
                Err(e) => drop(tell.send(Err(e.to_string()))),
            }
        }));
        let number = told.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("the server does not answer".to_owned()));
        match number.and_then(|number| Ok((number, self.server().map_err(|e| e.to_string())?))) {
            Ok((number, server)) => {
                let act = self.shown().stands(server, number, Standing { serial, notice, _waiting: waiting });
                self.act(act);
            }
            Err(e) => {
                if self.shown().failed() {
                    log::line(&format!("no notifications: {e}"));
                }
            }
        }
    }

    /// The process that shows notifications at the moment.
    fn server(&self) -> zbus::Result<String> {
        let name = BusName::try_from(NOTIFICATIONS.0)?;
        Ok(DBusProxy::new(&self.0.connection)?.get_name_owner(name)?.to_string())
    }

    fn withdraw(&self, id: &str) {
        let Some(number) = self.shown().withdraw(id) else { return };
        let (name, path) = NOTIFICATIONS;
        // A server that is gone shows nothing.
        drop(self.0.connection.call_method(Some(name), path, Some(name), "CloseNotification", &(number,)));
    }

    fn act(&self, act: Option<FromBus>) {
        act.into_iter().for_each(|act| (self.0.act)(act));
    }

    /// What the connection that has shown the notification hears.
    fn responded(&self, serial: u64, number: u32, response: &NotificationResponse) {
        let heard = Heard::Showing(serial);
        let key = match response {
            NotificationResponse::Default => "default",
            NotificationResponse::Action(key) => key,
            NotificationResponse::Closed(_) => return self.shown().closed(&heard, number),
            _ => return,
        };
        let act = self.shown().answered(heard, number, key.to_owned());
        self.act(act);
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
                    let act = self.shown().answered(Heard::Listening(from.to_string()), number, key);
                    self.act(act);
                }
            }
            (Some(name), "NotificationClosed") if name == NOTIFICATIONS.0 => {
                if let Ok((number, _)) = message.body().deserialize::<(u32, u32)>() {
                    self.shown().closed(&Heard::Listening(from.to_string()), number);
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

/// What is shown for a notice, in the place of the one with the number `before`.
fn notification(notice: &Notice, before: Option<u32>) -> Notification {
    let mut notification = Notification::new();
    let urgency = if notice.kind == NoticeKind::ExpiresSoon { Urgency::Normal } else { Urgency::Critical };
    notification.appname("Keyward").icon(ENTRY).summary(&notice.title).body(&notice.body).urgency(urgency);
    notification.hint(Hint::DesktopEntry(ENTRY.to_owned())).hint(Hint::Category("device".to_owned()));
    for action in &notice.actions {
        notification.action(action.key, action.label);
    }
    // A click on the notification itself is its last action.
    if let Some(usual) = notice.actions.last() {
        notification.action("default", usual.label);
    }
    if let Some(before) = before {
        notification.id(before);
    }
    notification
}

impl Shown {
    /// Notes that the notice `id` is being shown, until [`Self::stands`] or [`Self::failed`]; gives its serial number, and
    /// the number of the one whose place it takes.
    fn begins(&mut self, id: &str) -> (u64, Option<u32>) {
        self.newest += 1;
        self.nameless += 1;
        (self.newest, self.number(id))
    }

    /// Notes that `server` shows it under `number`; gives the act of an answer that came before this was known.
    fn stands(&mut self, server: String, number: u32, standing: Standing) -> Option<FromBus> {
        self.said = false;
        if self.server.as_ref() != Some(&server) {
            // Another server does not know the old ones, and gives their numbers anew.
            self.standing.clear();
        }
        self.server = Some(server);
        self.standing.insert(number, standing);
        let early = std::mem::take(&mut self.early);
        let (of_this, others) =
            early.into_iter().partition(|(heard, of, _)| *of == number && self.believes(heard, *of));
        self.early = others;
        let of_this: VecDeque<_> = of_this;
        let act = of_this.iter().find_map(|(_, _, key)| self.act(number, key));
        self.named();
        act
    }

    /// Notes that it is not shown; says whether to tell that.
    fn failed(&mut self) -> bool {
        self.named();
        !std::mem::replace(&mut self.said, true)
    }

    fn named(&mut self) {
        self.nameless -= 1;
        if self.nameless == 0 {
            self.early.clear();
            self.answered.clear();
        }
    }

    /// What an answer asks for.
    fn answered(&mut self, heard: Heard, number: u32, key: String) -> Option<FromBus> {
        if self.believes(&heard, number) {
            return self.act(number, &key);
        }
        // An answer to what stood under this number before is heard twice, and counts once.
        if self.nameless > 0 && !self.answered.contains(&number) {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((heard, number, key));
        }
        None
    }

    /// The server says that it shows it no longer.
    fn closed(&mut self, heard: &Heard, number: u32) {
        if self.believes(heard, number) {
            self.standing.remove(&number);
        }
    }

    fn believes(&self, heard: &Heard, number: u32) -> bool {
        self.standing.get(&number).is_some_and(|standing| match heard {
            Heard::Listening(from) => self.server.as_ref() == Some(from),
            Heard::Showing(serial) => standing.serial == *serial,
        })
    }

    /// Forgets the notice; gives its number where it stands.
    fn withdraw(&mut self, id: &str) -> Option<u32> {
        let number = self.number(id)?;
        self.standing.remove(&number);
        Some(number)
    }

    fn number(&self, id: &str) -> Option<u32> {
        self.standing.iter().find(|(_, standing)| standing.notice.id == id).map(|(number, _)| *number)
    }

    /// The notice that makes room for another one.
    fn oldest_of_too_many(&self) -> Option<String> {
        let oldest = self.standing.values().min_by_key(|standing| standing.serial)?;
        (self.standing.len() >= STANDING_MAX).then(|| oldest.notice.id.clone())
    }

    /// What an action asks for; the notification is over with it.
    fn act(&mut self, number: u32, key: &str) -> Option<FromBus> {
        let notice = &self.standing.get(&number)?.notice;
        let action = match key {
            "default" => notice.actions.last(),
            key => notice.actions.iter().find(|a| a.key == key),
        };
        let act = action?.act.clone();
        self.standing.remove(&number);
        if self.nameless > 0 {
            self.answered.push(number);
        }
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

    fn begin(shown: &mut Shown, id: &str) -> Standing {
        let (serial, _) = shown.begins(id);
        let waiting = Waiting(async_runtime::spawn(std::future::pending()));
        Standing { serial, notice: notice(id), _waiting: waiting }
    }

    /// Shows a notice; gives its serial number and the act of an early answer.
    fn show(shown: &mut Shown, server: &str, number: u32, id: &str) -> (u64, Option<FromBus>) {
        let standing = begin(shown, id);
        (standing.serial, shown.stands(server.to_owned(), number, standing))
    }

    fn answer(shown: &mut Shown, from: &str, number: u32, key: &str) -> Option<FromBus> {
        shown.answered(Heard::Listening(from.to_owned()), number, key.to_owned())
    }

    fn response(shown: &mut Shown, serial: u64, number: u32, key: &str) -> Option<FromBus> {
        shown.answered(Heard::Showing(serial), number, key.to_owned())
    }

    fn renew(id: &str) -> Option<FromBus> {
        Some(FromBus::Renew(id.to_owned()))
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_server_that_took_the_notification() {
        let mut shown = Shown::default();
        assert_eq!(show(&mut shown, SERVER, 1, "a").1, None);
        assert_eq!(answer(&mut shown, ":1.66", 1, "renew"), None, "somebody else");
        assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None, "another number");
        assert_eq!(answer(&mut shown, SERVER, 1, "reveal"), None, "no such action");
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), renew("a"));
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None, "it is over");
        show(&mut shown, SERVER, 3, "b");
        assert_eq!(answer(&mut shown, SERVER, 3, "default"), Some(FromBus::Open(Screen::Now)));
    }

    #[test]
    fn an_answer_that_is_heard_on_both_connections_counts_once() {
        let mut shown = Shown::default();
        let (first, _) = show(&mut shown, SERVER, 1, "a");
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), renew("a"));
        assert_eq!(response(&mut shown, first, 1, "renew"), None);
        let (second, _) = show(&mut shown, SERVER, 2, "b");
        assert_eq!(response(&mut shown, first, 2, "renew"), None, "of another notification");
        assert_eq!(response(&mut shown, second, 2, "renew"), renew("b"));
        assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None);
        // Answered while another takes its place under the same number.
        let (third, _) = show(&mut shown, SERVER, 3, "c");
        assert_eq!(shown.begins("c").1, Some(3));
        let again = begin(&mut shown, "c");
        assert_eq!(response(&mut shown, third, 3, "renew"), renew("c"));
        assert_eq!(answer(&mut shown, SERVER, 3, "renew"), None);
        assert_eq!(shown.stands(SERVER.to_owned(), 3, again), None);
    }

    #[test]
    fn an_answer_that_comes_before_the_number_is_kept_and_a_flood_of_them_is_not() {
        let mut shown = Shown::default();
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None, "nothing is being shown");
        assert_eq!(show(&mut shown, SERVER, 1, "z").1, None);
        for early_on_both in [false, true] {
            let a = begin(&mut shown, "a");
            assert_eq!(answer(&mut shown, ":1.66", 2, "open"), None);
            assert_eq!(answer(&mut shown, SERVER, 2, "reveal"), None);
            assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None);
            if early_on_both {
                assert_eq!(response(&mut shown, a.serial, 2, "renew"), None);
            }
            assert_eq!(shown.stands(SERVER.to_owned(), 2, a), renew("a"));
        }
        let b = begin(&mut shown, "b");
        assert_eq!(response(&mut shown, b.serial, 3, "renew"), None);
        assert_eq!(shown.stands(SERVER.to_owned(), 3, b), renew("b"));
        let c = begin(&mut shown, "c");
        for number in 0..1000 {
            assert_eq!(answer(&mut shown, ":1.66", number, "renew"), None);
        }
        assert_eq!(shown.early.len(), EARLY_MAX);
        assert_eq!(shown.stands(SERVER.to_owned(), 999, c), None, "another process said it");
        assert!(shown.early.is_empty());
    }

    #[test]
    fn what_is_closed_withdrawn_or_of_an_old_server_is_no_more() {
        let mut shown = Shown::default();
        for (number, id) in [(1, "a"), (2, "b"), (3, "c")] {
            show(&mut shown, SERVER, number, id);
        }
        let (fourth, _) = show(&mut shown, SERVER, 4, "d");
        let listening = |from: &str| Heard::Listening(from.to_owned());
        shown.closed(&listening(":1.66"), 1);
        shown.closed(&listening(SERVER), 2);
        shown.closed(&Heard::Showing(fourth), 4);
        assert_eq!(answer(&mut shown, SERVER, 2, "renew"), None);
        assert_eq!(answer(&mut shown, SERVER, 4, "renew"), None);
        assert_eq!(shown.withdraw("c"), Some(3));
        assert_eq!((shown.withdraw("c"), shown.withdraw("nothing")), (None, None));
        show(&mut shown, ":1.8", 9, "e");
        assert_eq!(answer(&mut shown, SERVER, 1, "renew"), None, "its server is gone");
        assert_eq!(shown.withdraw("e"), Some(9));
    }

    #[test]
    fn that_nothing_can_be_shown_is_said_once_and_again_after_something_was() {
        let mut shown = Shown::default();
        let fails = |shown: &mut Shown| {
            drop(begin(shown, "a"));
            shown.failed()
        };
        assert_eq!([fails(&mut shown), fails(&mut shown)], [true, false]);
        show(&mut shown, SERVER, 1, "a");
        assert_eq!([fails(&mut shown), fails(&mut shown)], [true, false]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut shown = Shown::default();
        for number in 1..=32 {
            assert_eq!(shown.oldest_of_too_many(), None);
            show(&mut shown, SERVER, number, &format!("n{number}"));
        }
        assert_eq!(shown.oldest_of_too_many(), Some("n1".to_owned()));
    }

    #[test]
    fn what_is_shown_says_what_the_notice_says() {
        let mut it = notice("a");
        (it.title, it.body) = ("T".to_owned(), "B".to_owned());
        let shown = notification(&it, Some(7));
        assert_eq!([shown.appname, shown.summary, shown.body], ["Keyward", "T", "B"]);
        assert_eq!(shown.actions, ["renew", "Renew", "open", "Open", "default", "Open"]);
        assert!(shown.hints.contains(&Hint::Urgency(Urgency::Normal)));
        it.kind = NoticeKind::ChainBroken;
        assert!(notification(&it, None).hints.contains(&Hint::Urgency(Urgency::Critical)));
    }
}
