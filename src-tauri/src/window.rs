//! The main window and the card window: made when they are wanted, destroyed when they are closed.
//!
//! They show what is built into this program and nothing else: no other address, no new window, no download, no permission.
//! The card window comes on top of the others without the keyboard, knows one request by the address that it was made with,
//! and is destroyed before another one is made for the next.

use crate::log;
use gtk::prelude::{GtkSettingsExt as _, GtkWindowExt as _};
use keyward_desk::{CardWindow, Desk, DeskEvent, Screen};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tauri::webview::{NewWindowResponse, PermissionResponse};
use tauri::window::Color;
use tauri::{AppHandle, Emitter as _, Manager as _, Webview, WebviewUrl, WebviewWindowBuilder, WindowEvent, Wry};

const LABEL: &str = "main";
const CARD: &str = "card";
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
    builder(app, LABEL, &at).title(title).inner_size(1160.0, 760.0).min_inner_size(720.0, 480.0).build()?;
    Ok(())
}

/// What both windows have in common.
fn builder<'a>(app: &'a AppHandle, label: &str, at: &str) -> WebviewWindowBuilder<'a, Wry, AppHandle> {
    WebviewWindowBuilder::new(app, label, WebviewUrl::App(at.into()))
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
}

/// What the card window is to show, and what it was made for.
#[derive(Default)]
pub(crate) struct Cards(Mutex<CardState>);

#[derive(Default)]
struct CardState {
    /// Id of the request, and whether the window gets the keyboard.
    wanted: Option<(String, bool)>,
    made_for: Option<String>,
}

impl Cards {
    fn state(&self) -> MutexGuard<'_, CardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens, raises or closes the card window; returns at once.
pub(crate) fn card(app: &AppHandle, card: CardWindow) {
    app.state::<Cards>().state().wanted = match card {
        CardWindow::Open(id) => Some((id, false)),
        CardWindow::Raise(id) => Some((id, true)),
        CardWindow::Close => None,
    };
    let handle = app.clone();
    let asked = app.run_on_main_thread(move || follow_card(&handle));
    if let Err(e) = asked {
        log::line(&format!("the card cannot be shown: {e}"));
    }
}

/// Brings the window to what is wanted, by one step; its end is followed by the next.
fn follow_card(app: &AppHandle) {
    let cards = app.state::<Cards>();
    let (wanted, made_for) = {
        let state = cards.state();
        (state.wanted.clone(), state.made_for.clone())
    };
    let done = match (app.get_webview_window(CARD), wanted) {
        (None, None) => Ok(()),
        (None, Some((id, keyboard))) => make_card(app, &id, keyboard),
        (Some(window), Some((id, keyboard))) if made_for.as_ref() == Some(&id) => {
            if keyboard {
                window.unminimize().and_then(|()| window.set_focus())
            } else {
                Ok(())
            }
        }
        (Some(window), _) => window.destroy(),
    };
    if let Err(e) = done {
        log::line(&format!("the card cannot be shown: {e}"));
    }
}

fn make_card(app: &AppHandle, id: &str, keyboard: bool) -> tauri::Result<()> {
    let cards = app.state::<Cards>();
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
        cards.state().wanted = None;
        log::line("the card cannot be shown: its request has no id");
        return Ok(());
    }
    cards.state().made_for = Some(id.to_owned());
    let title = format!("Approval — {}", app.state::<Title>().0);
    let window = builder(app, CARD, &format!("card.html#{id}"))
        .title(title)
        .inner_size(460.0, 720.0)
        .min_inner_size(360.0, 360.0)
        .always_on_top(true)
        .focused(keyboard)
        .visible(false)
        .build()?;
    // Said before it is shown: a busy window manager would ask later, when the window takes the keyboard like any other.
    window.gtk_window()?.set_focus_on_map(keyboard);
    window.show()?;
    // Where the keyboard goes once the window gets it; a window that comes without it has no such place by itself.
    AsRef::<Webview>::as_ref(&window).set_focus()?;
    let handle = app.clone();
    window.on_window_event(move |event| match event {
        WindowEvent::Focused(true) => handle.state::<Arc<Desk>>().card_focused(),
        WindowEvent::Destroyed => {
            let handle = handle.clone();
            // Its label is free only after this event.
            gtk::glib::idle_add_once(move || card_ended(&handle));
        }
        _ => {}
    });
    Ok(())
}

/// The window is gone: by the person, which puts the request off, or to make room for the next one.
fn card_ended(app: &AppHandle) {
    let closed = {
        let cards = app.state::<Cards>();
        let mut state = cards.state();
        let made_for = state.made_for.take();
        let by_person = state.wanted.as_ref().map(|(id, _)| id) == made_for.as_ref();
        if by_person {
            state.wanted = None;
        }
        made_for.filter(|_| by_person)
    };
    let Some(id) = closed else { return follow_card(app) };
    let desk = Arc::clone(&app.state::<Arc<Desk>>());
    let told = std::thread::Builder::new().name("card".into()).spawn(move || desk.card_closed(&id));
    if let Err(e) = told {
        log::line(&format!("the next card is not shown: {e}"));
    }
}

/// What is seen until the page is painted: its ground, light or dark (`--ground` in `ui/src/tokens.css`).
fn ground() -> Color {
    let dark = gtk::Settings::default().is_some_and(|s| s.is_gtk_application_prefer_dark_theme());
    if dark { Color(0x10, 0x12, 0x16, 0xff) } else { Color(0xf4, 0xf5, 0xf7, 0xff) }
}

/// Tells the web views, where there are any; the card's only what concerns requests.
pub(crate) fn tell(app: &AppHandle, event: &DeskEvent) {
    let of_cards = match event {
        DeskEvent::Broker { name, .. } => name == "approval" || name == "reset",
        DeskEvent::Connection(_) => true,
        DeskEvent::Show { .. } => false,
    };
    for label in [Some(LABEL), of_cards.then_some(CARD)].into_iter().flatten() {
        if let Err(e) = app.emit_to(label, EVENT, event) {
            log::line(&format!("the window was not told: {e}"));
        }
    }
}
