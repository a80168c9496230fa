//! Secrets and profiles: a change and its entry, or neither.

use crate::broker::Fallible;
use crate::{COMMIT, durable, entries, is_sound};

fn changes(vault: &Fallible, kind: &str, field: &str, name: &str) -> usize {
    let of = |e: &serde_json::Value| e["detail"][field] == name || e[field] == name;
    entries(&vault.home, kind).iter().filter(|e| of(e)).count()
}

#[test]
fn a_secret_changes_with_its_entry_or_not_at_all() {
    let mut vault = Fallible::new();
    vault.home.secret("other", "other-value");
    vault.home.secret("s", "value-0");
    let (mut want, mut recorded) = ("value-0".to_owned(), 1);
    for point in COMMIT {
        vault.again();
        let value = format!("value of {point}");
        vault.dies_in(point, |home| home.keyward_in(&["secret", "set", "s"], &value));
        vault.unlock();
        if durable(point) {
            (want, recorded) = (value, recorded + 1);
        }
        assert_eq!(vault.reveal("s").as_ref(), Some(&want), "{point}");
        assert_eq!(changes(&vault, "secret.set", "secret", "s"), recorded, "{point}");
        assert_eq!(vault.reveal("other").as_deref(), Some("other-value"), "{point}");
        is_sound(&vault);
        vault.home.secret("s", "acknowledged");
        (want, recorded) = ("acknowledged".to_owned(), recorded + 1);
    }
}

#[test]
fn a_new_secret_is_there_with_its_entry_or_not_at_all() {
    let mut vault = Fallible::new();
    for point in COMMIT {
        vault.again();
        vault.dies_in(point, |home| home.keyward_in(&["secret", "set", point], "new"));
        vault.unlock();
        assert_eq!(vault.reveal(point).is_some(), durable(point), "{point}");
        assert_eq!(changes(&vault, "secret.set", "secret", point), usize::from(durable(point)), "{point}");
        is_sound(&vault);
        vault.home.secret(point, "again");
        assert_eq!(vault.reveal(point).as_deref(), Some("again"), "{point}");
    }
}

#[test]
fn a_profile_changes_with_its_entry_or_not_at_all() {
    let mut vault = Fallible::new();
    vault.home.static_profile("p", "s3cret", "T0");
    let (mut want, mut recorded) = ("T0".to_owned(), 0);
    for (n, point) in COMMIT.iter().enumerate() {
        vault.again();
        let variable = format!("T{}", n + 1);
        let file = vault.home.root.join("p.toml");
        let text = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:p\"\n[delivery]\nenv = {{ {variable} = \"token\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let line = ["profile", "edit", "p", "--from", &file, "--recovery", "--passphrase-stdin"];
        vault.dies_in(point, |home| home.keyward_in(&line, &vault.recovery));
        vault.unlock();
        if durable(point) {
            (want, recorded) = (variable, recorded + 1);
        }
        let shown = vault.home.keyward(&["profile", "show", "p", "--toml"]).exits(0).out;
        assert!(shown.contains(&format!("{want} ")), "{point}: {want}: {shown}");
        assert_eq!(changes(&vault, "profile.changed", "profile", "p"), recorded, "{point}");
        let line = format!("printf %s \"${want}\"");
        assert_eq!(vault.home.keyward(&["run", "-p", "p", "--", "sh", "-c", &line]).exits(0).out, "s3cret", "{point}");
        is_sound(&vault);
    }
}
