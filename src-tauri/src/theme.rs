//! Light or dark: the setting, or what the session prefers. The web view and the native windows both take it from GTK.

use gtk::glib::MainContext;
use gtk::prelude::GtkSettingsExt as _;
use keyward_desk::Theme;
use std::sync::{Mutex, PoisonError};

/// What decides.
pub(crate) struct Colours {
    state: Mutex<State>,
}

struct State {
    setting: Theme,
    /// What the session prefers, where it says so.
    session: Option<bool>,
    /// What the theme of GTK prefers by itself.
    own: bool,
}

impl Colours {
    /// Main thread only, once GTK is ready and before anything was set.
    pub(crate) fn new() -> Self {
        let own = gtk::Settings::default().is_some_and(|s| s.is_gtk_application_prefer_dark_theme());
        Self { state: Mutex::new(State { setting: Theme::System, session: None, own }) }
    }

    /// The setting of the person.
    pub(crate) fn set(&self, setting: Theme) {
        self.change(|state| state.setting = setting);
    }

    /// What the session prefers.
    pub(crate) fn session(&self, dark: bool) {
        self.change(|state| state.session = Some(dark));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let dark = match state.setting {
            Theme::System => state.session.unwrap_or(state.own),
            Theme::Light => false,
            Theme::Dark => true,
        };
        MainContext::default().invoke(move || {
            if let Some(settings) = gtk::Settings::default() {
                settings.set_gtk_application_prefer_dark_theme(dark);
            }
        });
    }
}
