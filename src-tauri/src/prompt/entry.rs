//! Fields in which a secret is typed. GTK wipes the buffer of a field when its text is removed; copies that it makes to
//! draw a shown text are out of reach.
#![expect(unsafe_code, reason = "the safe wrapper copies the text into memory that nobody wipes")]

use gtk::glib::object::ObjectType as _;
use gtk::prelude::*;
use gtk::{InputHints, InputPurpose};
use keyward_secret::SecretText;
use std::ffi::CStr;

/// A field that shows dots, of at most `chars_max` characters. What is typed goes to no input method, no spell checker and
/// no clipboard.
pub(super) fn hidden(name: &str, chars_max: usize) -> gtk::Entry {
    let entry = gtk::Entry::new();
    entry.set_widget_name(name);
    entry.set_visibility(false);
    entry.set_input_purpose(InputPurpose::Password);
    entry.set_input_hints(InputHints::NO_SPELLCHECK | InputHints::NO_EMOJI);
    entry.set_property("im-module", "gtk-im-context-simple");
    entry.set_max_length(i32::try_from(chars_max).unwrap_or(0));
    entry.set_activates_default(true);
    entry.set_hexpand(true);
    entry
}

/// A box to tick that shows what is typed in `entries`.
pub(super) fn shown(entries: &[gtk::Entry]) -> gtk::CheckButton {
    let check = gtk::CheckButton::with_mnemonic("_Show what I type");
    check.set_widget_name("show");
    let entries = entries.to_vec();
    check.connect_toggled(move |check| {
        for entry in &entries {
            entry.set_visibility(check.is_active());
        }
    });
    check
}

/// Shows the text of a field to `look`, in the field's own memory.
pub(super) fn look<R>(entry: &gtk::Entry, look: impl FnOnce(&str) -> R) -> R {
    let text = entry.as_ptr();
    // SAFETY: the field lives for the call and gives a terminated string of its own, which changes only on this thread,
    // and nothing that `look` does changes it.
    let text = unsafe { CStr::from_ptr(gtk::ffi::gtk_entry_get_text(text)) };
    look(text.to_str().unwrap_or_default())
}

/// Takes the text out of a field, without the line end that copying may have added. `None` when there is no text.
pub(super) fn take(entry: &gtk::Entry) -> Option<SecretText> {
    let taken = look(entry, |text| SecretText::new(text.trim_end_matches(['\r', '\n']).to_owned()).ok());
    wipe(entry);
    taken
}

/// Removes the text, which wipes it.
pub(super) fn wipe(entry: &gtk::Entry) {
    entry.set_text("");
}
