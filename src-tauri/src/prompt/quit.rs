//! The question at the end: what becomes of the runs.

use super::frame::{Answer, Frame};
use gtk::glib;
use gtk::glib::clone;
use gtk::prelude::*;
use keyward_desk::QuitAnswer;

/// Asks, with `live` runs.
pub(super) fn fill(frame: &Frame, answer: Answer<QuitAnswer>, live: usize) {
    let text = if live == 1 {
        "One program runs with credentials of Keyward. You can leave it running: its credentials stay fresh, and what it \
         does is recorded. Or take them back now."
            .to_owned()
    } else {
        format!(
            "{live} programs run with credentials of Keyward. You can leave them running: their credentials stay fresh, \
             and what they do is recorded. Or take them back now."
        )
    };
    frame.text(&text);
    let cancel = frame.cancel("_Cancel");
    let revoke = frame.button("revoke", "_Revoke and quit");
    revoke.style_context().add_class("destructive-action");
    let leave = frame.button("leave", "_Leave running");
    frame.enter(&leave);
    for (button, is) in [(&leave, QuitAnswer::Leave), (&revoke, QuitAnswer::Revoke)] {
        button.connect_clicked(clone!(@strong answer, @weak frame.window as window => move |_| {
            answer.give(is);
            window.close();
        }));
    }
    // Enter on a question that nobody has read changes nothing.
    frame.show(&cancel);
}
