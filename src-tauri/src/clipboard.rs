//! The clipboard, for a secret: kept out of histories, and cleared after half a minute and at the end of the program.
//!
//! Main thread only. Never stores anything with the clipboard's manager, and never touches what another program has put
//! there meanwhile.

use gtk::glib::timeout_add_seconds_local_once;
use gtk::{Clipboard, TargetEntry, TargetFlags, gdk};
use keyward_secret::SecretText;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// How long it stays, in seconds.
const STAYS_S: u32 = 30;
/// By which clipboard managers know to leave it out of their history (KDE; others follow).
const HINT: &str = "x-kde-passwordManagerHint";
const TEXT: &[&str] = &["UTF8_STRING", "text/plain;charset=utf-8", "text/plain", "STRING", "TEXT"];

/// Numbers that GTK hands back with a request.
const OF_TEXT: u32 = 0;
const OF_HINT: u32 = 1;

thread_local!(static PUT: RefCell<Weak<SecretText>> = const { RefCell::new(Weak::new()) });

/// Puts a secret there and clears it after 30 s if it is still there.
pub(crate) fn put(secret: SecretText) {
    let secret = Rc::new(secret);
    let ours = Rc::downgrade(&secret);
    let texts = TEXT.iter().map(|target| TargetEntry::new(target, TargetFlags::empty(), OF_TEXT));
    let hint = TargetEntry::new(HINT, TargetFlags::empty(), OF_HINT);
    let targets: Vec<_> = texts.chain([hint]).collect();
    // GTK drops the closure, and with it the secret, once something else is on the clipboard.
    let is = clipboard().set_with_data(&targets, move |_, data, of| {
        if of == OF_HINT {
            data.set(&data.target(), 8, b"secret");
        } else {
            // EXPOSE: to the program into which the person pastes.
            secret.expose(|text| data.set_text(text));
        }
    });
    if is {
        PUT.set(Weak::clone(&ours));
        timeout_add_seconds_local_once(STAYS_S, move || clear_if(&ours));
    }
}

/// Clears what this program has put there, if it is still there.
pub(crate) fn clear() {
    clear_if(&PUT.take());
}

fn clear_if(ours: &Weak<SecretText>) {
    if ours.strong_count() > 0 {
        clipboard().clear();
    }
}

fn clipboard() -> Clipboard {
    Clipboard::get(&gdk::SELECTION_CLIPBOARD)
}
