//! What the first window of a web view costs, paid before anybody waits for it.
//!
//! A first web view reads the theme and the fonts, opens the display for drawing, and has the programs of WebKit read from the
//! disk; the second one does not. A desktop that starts without a window makes one view that is never shown, has it load a line
//! of text, and ends it with its processes. Never loads a page of the UI, runs a script, or keeps a process. Called once at
//! the start.

use gtk::glib;
use gtk::prelude::{ContainerExt as _, GtkWindowExt as _, ObjectExt as _, WidgetExt as _};
use std::time::Duration;
use tauri::{AppHandle, Manager as _};
use webkit2gtk::{LoadEvent, SettingsExt as _, WebContext, WebView, WebViewExt};

/// From the start until it begins: the tray and a card that waits already come first.
const AFTER: Duration = Duration::from_millis(500);
/// Text in the two weights and the family that the UI has most.
const TEXT: &str = "<!doctype html><p style='font-family: sans-serif'>Keyward <b>Keyward</b>";

/// Begins after a moment, unless a window is open by then. Main thread only.
pub(crate) fn start(app: &AppHandle) {
    let app = app.clone();
    glib::timeout_add_local_once(AFTER, move || {
        if app.webview_windows().is_empty() {
            view();
        }
    });
}

fn view() {
    let view = WebView::with_context(&WebContext::new_ephemeral());
    if let Some(settings) = WebViewExt::settings(&view) {
        settings.set_enable_javascript(false);
    }
    let window = gtk::Window::new(gtk::WindowType::Toplevel);
    window.add(&view);
    // Realized and never mapped: no window manager sees it.
    view.show();
    window.realize();
    let window = window.downgrade();
    let close = move || {
        if let Some(window) = window.upgrade() {
            window.close();
        }
    };
    view.connect_load_changed({
        let close = close.clone();
        move |_, event| {
            if event == LoadEvent::Finished {
                close();
            }
        }
    });
    view.connect_web_process_terminated(move |_, _| close());
    view.load_html(TEXT, None);
}
