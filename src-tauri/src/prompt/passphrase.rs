//! Prompts in which a person types: the passphrase, a new one, or a secret that is to be stored.

use super::entry;
use super::frame::{Answer, Frame};
use gtk::glib;
use gtk::glib::clone;
use gtk::prelude::*;
use keyward_desk::{Ask, strength};
use keyward_secret::{PASSPHRASE_MAX_BYTES, SECRET_MAX_BYTES, SecretText};

/// Levels of [`keyward_desk::Strength`] above the refused one.
const LEVEL_MAX: f64 = 4.0;

/// Asks for the passphrase.
pub(super) fn old(frame: &Frame, answer: Answer<SecretText>, ask: &Ask) {
    one(frame, answer, ask, "_Passphrase", PASSPHRASE_MAX_BYTES);
}

/// Asks for a secret.
pub(super) fn secret(frame: &Frame, answer: Answer<SecretText>, ask: &Ask) {
    one(frame, answer, ask, "S_ecret", SECRET_MAX_BYTES);
}

fn one(frame: &Frame, answer: Answer<SecretText>, ask: &Ask, name: &str, chars_max: usize) {
    texts(frame, ask);
    let field = entry::hidden("secret", chars_max);
    frame.field(name, &field);
    frame.add(&entry::shown(std::slice::from_ref(&field)));
    let cancel = frame.cancel("_Cancel");
    let done = frame.button("continue", "C_ontinue");
    frame.enter(&done);
    done.set_sensitive(false);
    field.connect_changed(clone!(@weak done => move |field| done.set_sensitive(field.text_length() > 0)));
    done.connect_clicked(clone!(@weak field, @weak frame.window as window => move |_| {
        if let Some(text) = entry::take(&field) {
            answer.give(text);
            window.close();
        }
    }));
    wiped(frame, std::slice::from_ref(&field));
    // After a refusal the person is at it.
    if ask.error.is_some() { frame.show(&field) } else { frame.ask(&field, &cancel) }
}

/// Asks for a new passphrase, twice, and says how strong it is.
pub(super) fn new(frame: &Frame, answer: Answer<SecretText>, ask: &Ask) {
    texts(frame, ask);
    let fields = [entry::hidden("first", PASSPHRASE_MAX_BYTES), entry::hidden("second", PASSPHRASE_MAX_BYTES)];
    let [first, second] = fields.clone();
    frame.field("_New passphrase", &first);
    let bar = gtk::LevelBar::for_interval(0.0, LEVEL_MAX);
    bar.set_mode(gtk::LevelBarMode::Discrete);
    bar.set_widget_name("strength");
    frame.add(&bar);
    let words = frame.text("");
    words.set_widget_name("words");
    frame.field("Once _more", &second);
    let note = frame.text("");
    note.set_widget_name("note");
    frame.add(&entry::shown(&fields));
    frame.cancel("_Cancel");
    let done = frame.button("continue", "C_ontinue");
    frame.enter(&done);
    let judge = clone!(@weak first, @weak second, @weak done, @weak bar, @weak words, @weak note => move |_: &gtk::Entry| {
        let strength = entry::look(&first, strength);
        let same = entry::look(&first, |a| entry::look(&second, |b| a == b));
        bar.set_value(f64::from(strength.level));
        words.set_text(&strength.words);
        let differs = second.text_length() > 0 && !same;
        note.set_text(if differs { "The two are not the same." } else { "" });
        done.set_sensitive(strength.level > 0 && same);
    });
    judge(&first);
    first.connect_changed(judge.clone());
    second.connect_changed(judge);
    done.connect_clicked(clone!(@weak first, @weak second, @weak frame.window as window => move |_| {
        let same = entry::look(&first, |a| strength(a).level > 0 && entry::look(&second, |b| a == b));
        if let Some(text) = same.then(|| entry::take(&first)).flatten() {
            answer.give(text);
            window.close();
        }
    }));
    wiped(frame, &fields);
    frame.show(&first);
}

fn texts(frame: &Frame, ask: &Ask) {
    frame.text(&ask.why);
    if let Some(error) = &ask.error {
        frame.error(error);
    }
}

/// However the window ends, what was typed is wiped.
fn wiped(frame: &Frame, fields: &[gtk::Entry]) {
    let fields = fields.to_vec();
    frame.window.connect_delete_event(move |_, _| {
        fields.iter().for_each(entry::wipe);
        gtk::glib::Propagation::Proceed
    });
}
