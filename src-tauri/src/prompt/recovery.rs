//! The recovery key: shown once, then asked for by its last characters.

use super::frame::{Answer, Frame, lines};
use super::{copy, entry};
use crate::clipboard;
use gtk::glib;
use gtk::glib::clone;
use gtk::prelude::*;
use keyward_secret::SecretText;
use std::rc::Rc;

/// Characters a line.
const LINE: usize = 37;
/// Characters that confirm it.
const LAST: usize = 6;

/// Shows the key; the answer comes once its last characters were typed with the key out of sight.
pub(super) fn fill(frame: &Frame, answer: Answer<()>, key: SecretText) {
    let key = Rc::new(key);
    frame.text(
        "It opens the vault when the passphrase is lost, and it is shown this once. Keep it away from this machine: on \
         paper, or in another password manager. Whoever has it can open the vault.",
    );
    // EXPOSE: to the person, in a window of this process; its 74 characters make two lines.
    let shown = key.expose(|text| lines("key", text.trim_end(), LINE));
    frame.add(&shown);
    let typed = entry::hidden("last", LAST);
    typed.set_visibility(true);
    let question = gtk::Box::new(gtk::Orientation::Vertical, 4);
    let ask = gtk::Label::with_mnemonic(&format!("To show that you have it, type its _last {LAST} characters"));
    ask.set_xalign(0.0);
    ask.set_mnemonic_widget(Some(&typed));
    question.pack_start(&ask, false, false, 0);
    question.pack_start(&typed, false, false, 0);
    frame.add(&question);
    let copies = frame.button("copy", "Co_py");
    let back = frame.button("back", "Show it _again");
    let next = frame.button("continue", "I have _written it down");
    frame.enter(&next);
    copies.connect_clicked(clone!(@strong key => move |button| {
        if let Some(key) = copy(&key) {
            clipboard::put(key);
            button.set_label("Copied for 30 s");
        }
    }));
    // One page after the other: the key is out of sight while its end is asked for.
    let asks = clone!(@weak shown, @weak question, @weak copies, @weak back, @weak next, @weak typed => move |asking: bool| {
        shown.set_visible(!asking);
        copies.set_visible(!asking);
        question.set_visible(asking);
        back.set_visible(asking);
        next.set_label(if asking { "_Done" } else { "I have _written it down" });
        next.set_sensitive(!asking);
        entry::wipe(&typed);
        if asking { typed.grab_focus() } else { next.grab_focus() }
    });
    back.connect_clicked(clone!(@strong asks => move |_| asks(false)));
    typed.connect_changed(clone!(@weak next, @strong key => move |typed| {
        next.set_sensitive(entry::look(typed, |text| ends(&key, text)));
    }));
    next.connect_clicked(clone!(@weak question, @weak typed, @weak frame.window as window, @strong asks => move |_| {
        if !question.is_visible() {
            asks(true);
        } else if entry::look(&typed, |text| ends(&key, text)) {
            entry::wipe(&typed);
            answer.give(());
            window.close();
        }
    }));
    frame.show(&next);
    asks(false);
}

/// Whether `text` is the end of the key, in capitals or not.
fn ends(key: &SecretText, text: &str) -> bool {
    // EXPOSE: compared with what the person typed.
    key.expose(|key| {
        let last: String = key.trim_end().chars().rev().take(LAST).collect::<Vec<_>>().into_iter().rev().collect();
        last.chars().count() == LAST && last.eq_ignore_ascii_case(text.trim())
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn only_the_last_characters_confirm() {
        let key = SecretText::new("AGE-SECRET-KEY-1QQQQWERTY2\n".into()).unwrap();
        for (text, yes) in
            [("WERTY2", true), ("werty2", true), (" werty2 ", true), ("WERTY", false), ("QWERTY", false), ("", false)]
        {
            assert_eq!(ends(&key, text), yes, "{text}");
        }
        assert!(!ends(&SecretText::new("AB".into()).unwrap(), "AB"), "a key that short is none");
    }
}
