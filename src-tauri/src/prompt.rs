//! Native prompts: the windows of this process in which a person types or reads what the web view must not see.
//!
//! One at a time; whoever asks meanwhile waits. They do not depend on the main window and stay when it is closed. Built and
//! answered on the main thread, while the asking thread waits: never ask from the main thread. One that comes while the
//! person works elsewhere does not take what is typed there.

mod entry;
mod frame;
mod passphrase;
mod quit;
mod recovery;
mod reveal;
mod save;

use crate::{clipboard, guard, log, window};
use frame::{Answer, Frame};
use gtk::glib::MainContext;
use keyward_desk::{Ask, CardWindow, Prompter, QuitAnswer};
use keyward_secret::SecretText;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use tauri::AppHandle;

/// The prompts of this process.
pub(crate) struct Prompts {
    app: AppHandle,
    /// Where the vault is, when that is not the usual place: shown in each window.
    home: Option<PathBuf>,
    turn: Mutex<()>,
}

impl Prompts {
    /// Prompts that name `home`, the folder of `KEYWARD_HOME`, if there is one.
    pub(crate) fn new(app: AppHandle, home: Option<PathBuf>) -> Self {
        Self { app, home, turn: Mutex::default() }
    }

    /// Shows the window that `fill` makes, and waits until it is answered or closed.
    fn show<T: Send + 'static>(
        &self,
        name: &'static str,
        title: &str,
        fill: impl FnOnce(&Frame, Answer<T>) + Send + 'static,
    ) -> Option<T> {
        let (title, home) = (title.to_owned(), self.home.clone());
        self.ask(move |answer| {
            let frame = Frame::new(name, &title, home.as_deref(), &answer);
            fill(&frame, answer);
        })
    }

    /// Runs `show` on the main thread when it is this prompt's turn, and waits for the answer.
    fn ask<T: Send + 'static>(&self, show: impl FnOnce(Answer<T>) + Send + 'static) -> Option<T> {
        // A thread that panicked while it asked has left no window behind.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // GTK loads code while it runs, too: then nothing is typed or shown in its windows.
        if let Err(fault) = guard::check_loaded() {
            log::line(&format!("no prompt: {}", fault.causes.join("; ")));
            return None;
        }
        let (tell, answer) = sync_channel(1);
        MainContext::default().invoke(move || show(Answer::new(tell)));
        answer.recv().ok()
    }
}

impl Prompter for Prompts {
    fn passphrase(&self, ask: &Ask) -> Option<SecretText> {
        let asked = ask.clone();
        self.show("passphrase", &ask.title, move |frame, answer| passphrase::old(frame, answer, &asked))
    }

    fn new_passphrase(&self, ask: &Ask) -> Option<SecretText> {
        let asked = ask.clone();
        self.show("new-passphrase", &ask.title, move |frame, answer| passphrase::new(frame, answer, &asked))
    }

    fn secret(&self, ask: &Ask) -> Option<SecretText> {
        let asked = ask.clone();
        self.show("secret", &ask.title, move |frame, answer| passphrase::secret(frame, answer, &asked))
    }

    fn show_recovery_key(&self, key: &SecretText) -> bool {
        let Some(key) = copy(key) else { return false };
        let shown = self.show("recovery-key", "Write down your recovery key", |frame, answer| {
            recovery::fill(frame, answer, key);
        });
        shown.is_some()
    }

    fn show_secret(&self, title: &str, secret: &SecretText) {
        if let Some(secret) = copy(secret) {
            self.show::<()>("reveal", title, |frame, _| reveal::fill(frame, secret));
        }
    }

    fn copy(&self, secret: SecretText) {
        MainContext::default().invoke(move || clipboard::put(secret));
    }

    fn save_path(&self, title: &str, suggested: &str) -> Option<PathBuf> {
        let (asked, suggested) = (title.to_owned(), suggested.to_owned());
        self.ask(move |answer| save::fill(answer, &asked, &suggested))
    }

    fn card(&self, card: CardWindow) {
        window::card(&self.app, card);
    }

    fn quit(&self, live: usize) -> Option<QuitAnswer> {
        self.show("quit", "Quit Keyward", move |frame, answer| quit::fill(frame, answer, live))
    }

    fn end(&self) {
        self.app.exit(0);
    }
}

/// A second copy, for the window.
fn copy(secret: &SecretText) -> Option<SecretText> {
    // EXPOSE: the window outlives the borrow of the caller, who waits for it.
    secret.expose(|text| SecretText::new(text.to_owned()).ok())
}
