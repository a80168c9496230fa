//! A private session bus, and the two services of a desktop that Keyward talks to on it: a tray and a notification server.

use keyward_testkit::{Home, signal, wait_for};
use rustix::process::Signal;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zbus::blocking::fdo::DBusProxy;
use zbus::blocking::{Connection, Proxy, connection};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{Array, OwnedObjectPath, OwnedValue, Structure, Value};

/// A bus of this test alone, without service activation: what is not started here is not there.
pub(crate) struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    #[track_caller]
    pub(crate) fn start(home: &Home) -> Self {
        let config = home.root.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
             <allow own=\"*\"/></policy></busconfig>",
            home.runtime.join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = home.command("dbus-daemon");
        daemon.arg(format!("--config-file={}", config.display())).args(["--nofork", "--print-address"]);
        let mut daemon = daemon.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned() }
    }

    /// For `DBUS_SESSION_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn builder(&self) -> connection::Builder<'_> {
        connection::Builder::address(self.address.as_str()).unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        signal(self.daemon.id().cast_signed(), Signal::TERM);
        let _ = self.daemon.wait();
    }
}

type Shared<T> = Arc<Mutex<T>>;

fn locked<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tray: the watcher with which icons register, and the host that reads their menus.
pub(crate) struct Tray {
    connection: Connection,
    items: Shared<Vec<(String, String)>>,
}

struct Watcher(Shared<Vec<(String, String)>>);

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let item = match service.strip_prefix('/') {
            Some(_) => (sender, service.to_owned()),
            None => (service.to_owned(), "/StatusNotifierItem".to_owned()),
        };
        locked(&self.0).push(item);
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        locked(&self.0).iter().map(|(name, path)| format!("{name}{path}")).collect()
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }
}

/// An entry of a menu.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    id: i32,
    pub(crate) label: String,
    pub(crate) enabled: bool,
    pub(crate) children: Vec<Entry>,
}

impl Tray {
    pub(crate) fn start(bus: &Bus) -> Self {
        let items = Shared::default();
        let connection = bus.builder().name("org.kde.StatusNotifierWatcher").unwrap();
        let connection = connection.serve_at("/StatusNotifierWatcher", Watcher(Arc::clone(&items))).unwrap();
        Self { connection: connection.build().unwrap(), items }
    }

    /// The same icons, seen and clicked by another process.
    pub(crate) fn stranger(&self, bus: &Bus) -> Self {
        Self { connection: bus.builder().build().unwrap(), items: Arc::clone(&self.items) }
    }

    /// Clicks every entry that there is at the moment, one after the other, and numbers that are none.
    #[track_caller]
    pub(crate) fn click_all(&self) {
        let mut ways: Vec<Vec<String>> = self.entries().into_iter().flat_map(|e| ways(e, &[])).collect();
        // What closes the menu to the rest comes last.
        ways.sort_by_key(|way| way.iter().any(|label| label == "Lock now" || label == "Quit"));
        for way in ways {
            let labels: Vec<&str> = way.iter().map(String::as_str).collect();
            let id = self.find(&labels).map_or(i32::MAX, |e| e.id);
            // What is refused is refused.
            let _ = self.menu().call_method("Event", &(id, "clicked", Value::from(0_i32), 0_u32));
        }
    }

    /// Waits until an icon is there.
    #[track_caller]
    pub(crate) fn wait(&self) {
        wait_for("an icon in the tray", || !locked(&self.items).is_empty());
    }

    /// Waits until the program of the icon has left the bus.
    #[track_caller]
    pub(crate) fn gone(&self) {
        let (name, _) = locked(&self.items).last().cloned().unwrap();
        let names = DBusProxy::new(&self.connection).unwrap();
        wait_for("the end of the icon", || !names.name_has_owner(name.as_str().try_into().unwrap()).unwrap());
    }

    #[track_caller]
    fn item(&self) -> Proxy<'static> {
        self.wait();
        let (name, path) = locked(&self.items).last().cloned().unwrap();
        Proxy::new(&self.connection, name, path, "org.kde.StatusNotifierItem").unwrap()
    }

    /// Title and text of the tooltip.
    #[track_caller]
    pub(crate) fn tooltip(&self) -> String {
        let value: OwnedValue = self.item().get_property("ToolTip").unwrap();
        let tip = Structure::try_from(value).unwrap();
        let text = |n: usize| String::try_from(tip.fields()[n].try_clone().unwrap()).unwrap();
        format!("{} {}", text(2), text(3)).trim().to_owned()
    }

    /// The largest picture of the icon, as ARGB bytes in network order.
    #[track_caller]
    pub(crate) fn picture(&self) -> Vec<u8> {
        let value: OwnedValue = self.item().get_property("IconPixmap").unwrap();
        let pictures: Vec<(i32, i32, Vec<u8>)> = value.try_into().unwrap();
        pictures.into_iter().max_by_key(|(width, _, _)| *width).unwrap().2
    }

    /// A click with the first button.
    #[track_caller]
    pub(crate) fn activate(&self) {
        self.item().call_method("Activate", &(0_i32, 0_i32)).unwrap();
    }

    #[track_caller]
    fn menu(&self) -> Proxy<'static> {
        let path: OwnedObjectPath = self.item().get_property("Menu").unwrap();
        let (name, _) = locked(&self.items).last().cloned().unwrap();
        Proxy::new(&self.connection, name, path, "com.canonical.dbusmenu").unwrap()
    }

    /// The menu as it is at the moment.
    #[track_caller]
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let answer = self.menu().call_method("GetLayout", &(0_i32, -1_i32, Vec::<&str>::new())).unwrap();
        let (_revision, (_, _, children)): (u32, Layout) = answer.body().deserialize().unwrap();
        children.into_iter().map(entry).collect()
    }

    /// The entry at the end of a way of labels, each the beginning of one.
    pub(crate) fn find(&self, way: &[&str]) -> Option<Entry> {
        let mut level = self.entries();
        let (last, ways) = way.split_last()?;
        for label in ways {
            level = level.into_iter().find(|e| e.label.starts_with(label))?.children;
        }
        level.into_iter().find(|e| e.label.starts_with(last))
    }

    /// Waits for an entry and clicks it.
    #[track_caller]
    pub(crate) fn click(&self, way: &[&str]) {
        wait_for(&format!("the entry {way:?} of the menu"), || self.find(way).is_some_and(|e| e.enabled));
        let found = self.find(way).unwrap();
        self.menu().call_method("Event", &(found.id, "clicked", Value::from(0_i32), 0_u32)).unwrap();
    }
}

/// The ways of labels to the ends of a menu.
fn ways(entry: Entry, before: &[String]) -> Vec<Vec<String>> {
    let way = [before, &[entry.label]].concat();
    if entry.children.is_empty() { vec![way] } else { entry.children.into_iter().flat_map(|e| ways(e, &way)).collect() }
}

/// Id, properties and children of an entry.
type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

fn entry(value: OwnedValue) -> Entry {
    let node = Structure::try_from(value).unwrap();
    let fields = node.fields();
    let id = i32::try_from(&fields[0]).unwrap();
    let properties: HashMap<String, OwnedValue> = fields[1].try_clone().unwrap().try_into().unwrap();
    let text = |name: &str| properties.get(name).and_then(|v| String::try_from(v.try_clone().unwrap()).ok());
    let enabled = properties.get("enabled").and_then(|v| bool::try_from(v).ok()).unwrap_or(true);
    let visible = properties.get("visible").and_then(|v| bool::try_from(v).ok()).unwrap_or(true);
    let children = Array::try_from(fields[2].try_clone().unwrap()).unwrap();
    let children = children.iter().map(|child| match child {
        Value::Value(inner) => entry(inner.try_to_owned().unwrap()),
        other => entry(other.try_to_owned().unwrap()),
    });
    // One underscore marks a mnemonic, two stand for one.
    let label = text("label").unwrap_or_default().replace("__", "\u{0}").replace('_', "").replace('\u{0}', "_");
    Entry { id, label, enabled: enabled && visible, children: children.collect() }
}

/// What was asked to be shown.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) id: u32,
    pub(crate) summary: String,
    pub(crate) body: String,
    /// Keys and labels.
    pub(crate) actions: Vec<(String, String)>,
    sender: String,
}

/// A notification server that records, and answers as a person would.
pub(crate) struct Notifications {
    connection: Connection,
    shown: Shared<Vec<Notice>>,
}

struct Server(Shared<Vec<Notice>>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Server {
    #[expect(clippy::too_many_arguments, reason = "the signature of the Desktop Notifications Specification")]
    fn notify(
        &self,
        _app: String,
        replaces: u32,
        _icon: String,
        summary: String,
        body: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _timeout: i32,
        #[zbus(header)] header: Header<'_>,
    ) -> u32 {
        let mut shown = locked(&self.0);
        let id = if replaces > 0 { replaces } else { u32::try_from(shown.len()).unwrap() + 1 };
        let actions = actions.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        shown.push(Notice { id, summary, body, actions, sender });
        id
    }

    fn close_notification(&self, _id: u32) {}

    fn get_capabilities(&self) -> Vec<String> {
        ["actions", "body", "persistence"].map(str::to_owned).to_vec()
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        let text = |t: &str| t.to_owned();
        (text("recorder"), text("keyward-tests"), text("1"), text("1.2"))
    }

    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action_key: &str) -> zbus::Result<()>;
}

const SERVER: &str = "/org/freedesktop/Notifications";

impl Notifications {
    pub(crate) fn start(bus: &Bus) -> Self {
        let shown = Shared::default();
        let connection = bus.builder().name("org.freedesktop.Notifications").unwrap();
        let connection = connection.serve_at(SERVER, Server(Arc::clone(&shown))).unwrap();
        Self { connection: connection.build().unwrap(), shown }
    }

    /// All that were shown, in order.
    pub(crate) fn shown(&self) -> Vec<Notice> {
        locked(&self.shown).clone()
    }

    /// Waits for one whose summary and body contain `text`.
    #[track_caller]
    pub(crate) fn wait(&self, text: &str) -> Notice {
        let found = || self.shown().into_iter().find(|n| format!("{} {}", n.summary, n.body).contains(text));
        keyward_testkit::wait_at_most(
            std::time::Duration::from_secs(30),
            &format!("a notification about {text}"),
            || found().is_some(),
        );
        found().unwrap()
    }

    /// Answers as the person who clicked.
    #[track_caller]
    pub(crate) fn invoke(&self, notice: &Notice, label: &str) {
        self.invoke_key(notice, &notice.actions.iter().find(|(_, l)| l == label).map(|(k, _)| k.clone()).unwrap());
    }

    /// Answers with any key.
    #[track_caller]
    pub(crate) fn invoke_key(&self, notice: &Notice, key: &str) {
        let body = (notice.id, key);
        let to = Some(notice.sender.as_str());
        self.connection.emit_signal(to, SERVER, "org.freedesktop.Notifications", "ActionInvoked", &body).unwrap();
    }

    /// Answers as a process that is not the server; returns once the bus has passed it on.
    #[track_caller]
    pub(crate) fn forge(&self, stranger: &Tray, notice: &Notice, key: &str) {
        let (to, body) = (Some(notice.sender.as_str()), (notice.id, key));
        let connection = &stranger.connection;
        connection.emit_signal(to, SERVER, "org.freedesktop.Notifications", "ActionInvoked", &body).unwrap();
        zbus::blocking::fdo::DBusProxy::new(connection).unwrap().get_id().unwrap();
    }

    /// As [`Self::forge`], to all that listen.
    #[track_caller]
    pub(crate) fn forge_to_all(&self, stranger: &Tray, notice: &Notice, key: &str) {
        let connection = &stranger.connection;
        let to = None::<zbus::names::BusName<'_>>;
        connection
            .emit_signal(to, SERVER, "org.freedesktop.Notifications", "ActionInvoked", &(notice.id, key))
            .unwrap();
        zbus::blocking::fdo::DBusProxy::new(connection).unwrap().get_id().unwrap();
    }

    /// Gives the name of the server to a process that is not it.
    #[track_caller]
    pub(crate) fn taken_over(&self, stranger: &Tray) {
        self.connection.release_name("org.freedesktop.Notifications").unwrap();
        stranger.connection.request_name("org.freedesktop.Notifications").unwrap();
    }
}
