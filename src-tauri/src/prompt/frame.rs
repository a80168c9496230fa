//! What all prompts have in common: a window with a heading, texts, and a row of buttons.

use gtk::glib;
use gtk::glib::clone;
use gtk::prelude::*;
use gtk::{Align, Orientation, WindowPosition, gdk};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// Space around and between, in pixels.
const WIDE: i32 = 24;
const NARROW: i32 = 12;
/// Texts break at this many characters.
const LINE: i32 = 56;

const STYLE: &[u8] = b"
.keyward-heading { font-weight: bold; font-size: 125%; }
.keyward-error { border-left: 3px solid #d64545; padding: 4px 0 4px 10px; }
.keyward-key { font-family: monospace; font-size: 110%; padding: 12px; border: 1px solid alpha(currentColor, 0.25); border-radius: 6px; }
.keyward-quiet { opacity: 0.75; }
";

/// A prompt that follows so soon on an answer belongs to it: windows get the keyboard back a moment later.
const SOON: Duration = Duration::from_secs(2);

thread_local!(static ANSWERED: Cell<Option<Instant>> = const { Cell::new(None) });

/// Whether the person is at a window of this program at the moment.
fn is_here() -> bool {
    let windows = gtk::Window::list_toplevels();
    let active = |widget: &gtk::Widget| widget.downcast_ref::<gtk::Window>().is_some_and(gtk::Window::is_active);
    windows.iter().any(active) || ANSWERED.get().is_some_and(|at| at.elapsed() < SOON)
}

/// Where the answer goes: the thread that asked. Without an answer, closing the window ends its wait.
pub(super) struct Answer<T>(Rc<RefCell<Option<SyncSender<T>>>>);

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: 'static> Answer<T> {
    pub(super) fn new(tell: SyncSender<T>) -> Self {
        Self(Rc::new(RefCell::new(Some(tell))))
    }

    /// Gives the answer, once.
    pub(super) fn give(&self, answer: T) {
        ANSWERED.set(Some(Instant::now()));
        if let Some(tell) = self.0.take() {
            // It fits: the channel has room for one.
            drop(tell.try_send(answer));
        }
    }

    /// Ends the wait without an answer, where none was given.
    pub(super) fn close(&self) {
        drop(self.0.take());
    }
}

/// One prompt.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) window: gtk::Window,
    content: gtk::Box,
    buttons: gtk::ButtonBox,
}

impl Frame {
    /// A window called `name` with a heading, and `home` where that is given. Escape closes it.
    pub(super) fn new<T: 'static>(name: &str, title: &str, home: Option<&Path>, answer: &Answer<T>) -> Self {
        style();
        let window = gtk::Window::new(gtk::WindowType::Toplevel);
        window.set_widget_name(name);
        window.set_title(&format!("{title} — Keyward"));
        window.set_icon_name(Some("keyward-desktop"));
        window.set_type_hint(gdk::WindowTypeHint::Dialog);
        window.set_position(WindowPosition::Center);
        window.set_resizable(false);
        window.set_keep_above(true);
        window.set_skip_taskbar_hint(false);
        let outer = gtk::Box::new(Orientation::Vertical, NARROW);
        outer.set_border_width(WIDE.unsigned_abs());
        let content = gtk::Box::new(Orientation::Vertical, NARROW);
        let buttons = gtk::ButtonBox::new(Orientation::Horizontal);
        buttons.set_layout(gtk::ButtonBoxStyle::End);
        buttons.set_spacing(NARROW);
        buttons.set_margin_top(NARROW);
        outer.pack_start(&content, true, true, 0);
        if let Some(home) = home {
            let note = label(&format!("Home: {}", keyward_diag::plain(&home.to_string_lossy(), 200)));
            note.style_context().add_class("keyward-quiet");
            note.set_widget_name("home");
            outer.pack_start(&note, false, false, 0);
        }
        outer.pack_start(&buttons, false, false, 0);
        window.add(&outer);
        let frame = Self { window, content, buttons };
        let heading = frame.text(title);
        heading.style_context().add_class("keyward-heading");
        frame.window.connect_destroy(clone!(@strong answer => move |_| answer.close()));
        frame.window.connect_key_press_event(|window, key| {
            if key.keyval() == gdk::keys::constants::Escape {
                window.close();
                return gtk::glib::Propagation::Stop;
            }
            gtk::glib::Propagation::Proceed
        });
        frame
    }

    /// Adds a text, which wraps.
    pub(super) fn text(&self, text: &str) -> gtk::Label {
        let label = label(text);
        self.add(&label);
        label
    }

    /// Adds why the last answer was not taken.
    pub(super) fn error(&self, text: &str) {
        let mut chars = text.chars();
        let sentence: String = chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect();
        let label = self.text(&sentence);
        label.set_widget_name("error");
        label.style_context().add_class("keyward-error");
        if let Some(accessible) = label.accessible() {
            accessible.set_role(gtk::atk::Role::Alert);
        }
    }

    /// Adds anything.
    pub(super) fn add(&self, widget: &impl IsA<gtk::Widget>) {
        self.content.pack_start(widget, false, false, 0);
    }

    /// Adds a named field below its label; the label's underlined letter leads to it.
    pub(super) fn field(&self, label: &str, field: &gtk::Entry) {
        let row = gtk::Box::new(Orientation::Vertical, 4);
        let name = gtk::Label::with_mnemonic(label);
        name.set_halign(Align::Start);
        name.set_mnemonic_widget(Some(field));
        row.pack_start(&name, false, false, 0);
        row.pack_start(field, false, false, 0);
        self.add(&row);
    }

    /// Adds a button that closes the window without an answer.
    pub(super) fn cancel(&self, label: &str) -> gtk::Button {
        let button = self.button("cancel", label);
        button.connect_clicked(clone!(@weak self.window as window => move |_| window.close()));
        button
    }

    /// Adds a button.
    pub(super) fn button(&self, name: &str, label: &str) -> gtk::Button {
        let button = gtk::Button::with_mnemonic(label);
        button.set_widget_name(name);
        self.buttons.add(&button);
        button
    }

    /// Makes a button the one that Enter presses.
    pub(super) fn enter(&self, button: &gtk::Button) {
        button.set_can_default(true);
        button.style_context().add_class("suggested-action");
        self.window.set_default(Some(button));
    }

    /// As [`Frame::show`]; but where the person is elsewhere, with the keyboard on `cancel`. What is typed for another
    /// program, a passphrase at that, does not end up in a field and is not confirmed by its Enter.
    pub(super) fn ask(&self, focus: &gtk::Entry, cancel: &gtk::Button) {
        if is_here() { self.show(focus) } else { self.show(cancel) }
    }

    /// Shows the window in front, with the keyboard on `focus`.
    pub(super) fn show(&self, focus: &impl IsA<gtk::Widget>) {
        self.window.show_all();
        focus.grab_focus();
        self.window.present();
    }
}

/// A field that shows a secret in lines of `width` characters. Broken by hand, since the layout would add hyphens where it
/// breaks.
pub(super) fn lines(name: &str, text: &str, width: usize) -> gtk::Label {
    let mut broken = String::with_capacity(text.len() + text.len() / width.max(1) + 1);
    let mut column = 0;
    for c in text.chars() {
        if column == width && c != '\n' {
            broken.push('\n');
            column = 0;
        }
        column = if c == '\n' { 0 } else { column + 1 };
        broken.push(c);
    }
    let label = gtk::Label::new(Some(&broken));
    label.set_widget_name(name);
    label.style_context().add_class("keyward-key");
    label.set_xalign(0.0);
    label
}

fn label(text: &str) -> gtk::Label {
    let label = gtk::Label::new(Some(text));
    label.set_line_wrap(true);
    label.set_max_width_chars(LINE);
    label.set_width_chars(LINE);
    label.set_xalign(0.0);
    label
}

/// The few colours and sizes that themes do not give. The rest is the theme's, light or dark.
fn style() {
    thread_local!(static ONCE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if ONCE.replace(true) {
        return;
    }
    let provider = gtk::CssProvider::new();
    if provider.load_from_data(STYLE).is_ok()
        && let Some(screen) = gdk::Screen::default()
    {
        gtk::StyleContext::add_provider_for_screen(&screen, &provider, gtk::STYLE_PROVIDER_PRIORITY_APPLICATION);
    }
}
