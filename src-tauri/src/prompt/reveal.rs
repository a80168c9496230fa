//! A secret, shown until the person closes the window, and for half a minute at most.

use super::copy;
use super::frame::{Frame, lines};
use crate::clipboard;
use gtk::glib;
use gtk::glib::{ControlFlow, clone, timeout_add_seconds_local};
use gtk::prelude::*;
use keyward_secret::SecretText;
use std::cell::Cell;

/// How long it is shown, in seconds.
const SHOWN_S: u32 = 30;
/// Characters a line.
const LINE: usize = 56;
/// Highest that the text gets before it scrolls, in pixels.
const TALL: i32 = 260;

/// Shows the secret with a button that copies it.
pub(super) fn fill(frame: &Frame, secret: SecretText) {
    // EXPOSE: to the person, in a window of this process.
    let shown = secret.expose(|text| lines("revealed", text, LINE));
    let scrolled = gtk::ScrolledWindow::new(gtk::Adjustment::NONE, gtk::Adjustment::NONE);
    scrolled.set_policy(gtk::PolicyType::Never, gtk::PolicyType::Automatic);
    scrolled.set_propagate_natural_height(true);
    scrolled.set_max_content_height(TALL);
    scrolled.add(&shown);
    frame.add(&scrolled);
    let left = frame.text(&closes(SHOWN_S));
    left.set_widget_name("left");
    left.style_context().add_class("keyward-quiet");
    let copies = frame.button("copy", "_Copy for 30 s");
    let close = frame.cancel("C_lose");
    frame.enter(&close);
    copies.connect_clicked(move |button| {
        if let Some(secret) = copy(&secret) {
            clipboard::put(secret);
            button.set_label("Copied");
        }
    });
    let seconds = Cell::new(SHOWN_S);
    let tick = clone!(@weak frame.window as window, @weak left => @default-return ControlFlow::Break, move || {
        seconds.set(seconds.get().saturating_sub(1));
        if seconds.get() == 0 {
            window.close();
            return ControlFlow::Break;
        }
        left.set_text(&closes(seconds.get()));
        ControlFlow::Continue
    });
    // Ends with the window.
    timeout_add_seconds_local(1, tick);
    frame.show(&close);
}

fn closes(seconds: u32) -> String {
    format!("This window closes by itself in {seconds} s.")
}
