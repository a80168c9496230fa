//! Where to save a file: the dialog of the system.

use super::frame::Answer;
use gtk::prelude::*;
use gtk::{FileChooserAction, FileChooserNative, ResponseType};
use std::path::PathBuf;

/// Asks for a path; an existing file is asked about by the dialog.
pub(super) fn fill(answer: Answer<PathBuf>, title: &str, suggested: &str) {
    let dialog =
        FileChooserNative::new(Some(title), gtk::Window::NONE, FileChooserAction::Save, Some("_Save"), Some("_Cancel"));
    dialog.set_do_overwrite_confirmation(true);
    dialog.set_current_name(suggested);
    // It holds itself until it is answered: the system's dialog belongs to nobody else.
    let held = std::cell::RefCell::new(Some(dialog.clone()));
    dialog.connect_response(move |dialog, response| {
        if response == ResponseType::Accept
            && let Some(path) = dialog.filename()
        {
            answer.give(path);
        }
        answer.close();
        drop(held.take());
    });
    dialog.show();
}
