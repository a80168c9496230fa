//! The main window: made when it is wanted, destroyed when it is closed.
//!
//! It shows what is built into this program and nothing else: no other address, no new window, no download, no permission.

use crate::log;
use gtk::prelude::GtkSettingsExt as _;
use keyward_desk::{DeskEvent, Screen};
use tauri::webview::{NewWindowResponse, PermissionResponse};
use tauri::window::Color;
use tauri::{AppHandle, Emitter as _, Manager as _, WebviewUrl, WebviewWindowBuilder};

const LABEL: &str = "main";
/// Name of the event by which the web view hears.
const EVENT: &str = "desk";

/// What the title says of the home, where it is not the usual one.
pub(crate) struct Title(pub(crate) String);

/// Opens the window on `screen`, or where it was.
pub(crate) fn open(app: &AppHandle, screen: Option<Screen>) {
    let handle = app.clone();
    let opened = app.run_on_main_thread(move || {
        if let Err(e) = show(&handle, screen) {
            log::line(&format!("the window cannot be opened: {e}"));
        }
    });
    if let Err(e) = opened {
        log::line(&format!("the window cannot be opened: {e}"));
    }
}

fn show(app: &AppHandle, screen: Option<Screen>) -> tauri::Result<()> {
    if let Some(window) = app.get_webview_window(LABEL) {
        if let Some(screen) = screen {
            tell(app, &DeskEvent::Show { screen, about: None });
        }
        window.unminimize()?;
        window.show()?;
        return window.set_focus();
    }
    let at = match screen.map(serde_json::to_value) {
        Some(Ok(serde_json::Value::String(screen))) => format!("index.html#/{screen}"),
        _ => "index.html".to_owned(),
    };
    let title = app.state::<Title>().0.clone();
    WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App(at.into()))
        .title(title)
        .inner_size(1160.0, 760.0)
        .min_inner_size(720.0, 480.0)
        .center()
        .background_color(ground())
        .disable_drag_drop_handler()
        .devtools(false)
        // Nothing of it is written to a disk. WebDriver knows stored contexts only.
        .incognito(!cfg!(feature = "automation"))
        .on_navigation(|url| url.scheme() == "tauri" && url.host_str() == Some("localhost"))
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .on_download(|_, _| false)
        .on_permission_request(|_, _| PermissionResponse::Deny)
        .build()?;
    Ok(())
}

/// What is seen until the page is painted: its ground, light or dark (`--ground` in `ui/src/tokens.css`).
fn ground() -> Color {
    let dark = gtk::Settings::default().is_some_and(|s| s.is_gtk_application_prefer_dark_theme());
    if dark { Color(0x10, 0x12, 0x16, 0xff) } else { Color(0xf4, 0xf5, 0xf7, 0xff) }
}

/// Tells the web view, where there is one.
pub(crate) fn tell(app: &AppHandle, event: &DeskEvent) {
    if let Err(e) = app.emit_to(LABEL, EVENT, event) {
        log::line(&format!("the window was not told: {e}"));
    }
}
