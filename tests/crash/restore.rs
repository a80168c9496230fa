//! A restore that was cut short: the vault that was there, or the one of the backup; never neither.

use crate::broker::Fallible;
use crate::{DRAFT, RESTORE, is_sound};

#[test]
fn a_restore_that_was_cut_short_loses_neither_vault() {
    let mut vault = Fallible::new();
    for (n, point) in [DRAFT, RESTORE].concat().into_iter().enumerate() {
        vault.again();
        vault.home.secret("s", &format!("saved {n}"));
        let file = vault.home.root.join(format!("backup-{n}")).display().to_string();
        vault.home.keyward(&["vault", "backup", &file]).exits(0);
        vault.home.secret("s", &format!("newer {n}"));
        // Its own entry would be the first to die in.
        vault.home.keyward(&["lock"]).exits(0);
        let replaced = || {
            let names = std::fs::read_dir(vault.home.db().parent().unwrap()).unwrap().flatten();
            names.filter(|e| e.file_name().to_string_lossy().starts_with("replaced-")).count()
        };
        let kept = replaced();
        let line = ["vault", "restore", &file, "--replace", "--recovery", "--passphrase-stdin"];
        vault.dies_in(point, |home| home.keyward_in(&line, &vault.recovery));
        vault.unlock();
        let done = RESTORE.contains(&point) && point != "restore.kept";
        let want = if done { format!("saved {n}") } else { format!("newer {n}") };
        assert_eq!(vault.reveal("s"), Some(want), "{point}");
        let gaps = vault.home.keyward(&["audit", "verify", "--json"]).exits(0).json()["gaps"].clone();
        let newest = gaps.as_array().and_then(|g| g.last()).and_then(|g| g["seq"].as_u64()).unwrap_or(0);
        let entries = vault.home.audit();
        let last = entries.iter().rfind(|e| e["kind"] == "vault.restored").and_then(|e| e["seq"].as_u64()).unwrap_or(0);
        assert_eq!(newest, last, "{point}: verify names the last restore");
        if done {
            assert_eq!(replaced() - kept, 1, "{point}: the vault that was there is kept");
        }
        is_sound(&vault);
    }
}
