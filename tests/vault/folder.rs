//! Folders that others reach, and brokers that share a home.

use crate::{is_whole, received, unlock, with_profile};
use keyward_testkit::{Home, PASSPHRASE, run, wait_for};
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

#[test]
fn a_folder_that_others_can_reach_is_refused_until_it_is_closed() {
    let home = with_profile("s3cret");
    home.stop_broker();
    for folder in ["data", "state"] {
        let path = home.keyward_home().join(folder);
        for mode in [0o755, 0o750, 0o770, 0o701, 0o702] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = unlock(&home, PASSPHRASE).exits(1).says("vault.folder_unsafe");
            let cure = format!("chmod 700 {}", std::fs::canonicalize(&path).unwrap().display());
            assert!(refused.err.contains(&cure), "{folder} {mode:o}: {}", refused.err);
            home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("vault.folder_unsafe");
        }
        set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    }
    home.unlock();
    is_whole(&home, "s3cret");
}

#[test]
fn no_file_of_the_vault_is_for_others() {
    let home = with_profile("s3cret");
    let saved = home.root.join("saved").display().to_string();
    home.keyward(&["vault", "backup", &saved]).exits(0);
    let mut folders = vec![home.keyward_home(), home.runtime.join("keyward")];
    assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode());
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            seen += 1;
            folders.extend(path.is_dir().then_some(path));
        }
    }
    assert!(seen > 6, "{seen} files");
}

#[test]
fn a_second_broker_of_the_same_home_is_refused_and_the_first_one_serves_on() {
    let home = with_profile("s3cret");
    let runtime = home.runtime.join("second");
    DirBuilder::new().mode(0o700).create(&runtime).unwrap();
    let second = |args: &[&str], input: &str| {
        let mut command = home.keyward_command(args);
        command.env("XDG_RUNTIME_DIR", &runtime);
        run(command, input.as_bytes())
    };
    second(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(5).says("vault.in_use");
    second(&["secret", "set", "p"], "other").exits(5).says("vault.in_use");
    second(&["run", "-p", "p", "--", "true"], "").exits(125).says("vault.in_use");
    is_whole(&home, "s3cret");
    home.stop_broker();
    wait_for("the second one's turn", || second(&["unlock", "--passphrase-stdin"], PASSPHRASE).exit == 0);
    home.keyward(&["secret", "list"]).exits(5).says("vault.in_use");
    second(&["broker", "stop"], "").exits(0);
    wait_for("the first one's turn", || unlock(&home, PASSPHRASE).exit == 0);
    assert_eq!(received(&home), "s3cret");
}

#[test]
fn homes_do_not_meet() {
    let (one, other) = (with_profile("first"), with_profile("second"));
    assert_eq!((received(&one), received(&other)), ("first".into(), "second".into()));
    one.keyward(&["lock"]).exits(0);
    assert_eq!(received(&other), "second");
}

#[test]
fn a_link_in_the_place_of_the_folder_is_refused_and_nothing_is_written_through_it() {
    let home = Home::new();
    let target = home.root.join("elsewhere");
    for folder in [&target, &home.keyward_home()] {
        DirBuilder::new().mode(0o700).create(folder).unwrap();
    }
    std::os::unix::fs::symlink(&target, home.keyward_home().join("data")).unwrap();
    let refused = home.keyward_in(&["init", "--passphrase-stdin"], PASSPHRASE).exits(1).says("vault.folder_unsafe");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "{refused:?}");
}
