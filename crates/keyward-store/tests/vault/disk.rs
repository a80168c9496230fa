//! A full disk: nothing acknowledged is lost, and it goes on when there is space again.

use crate::home::{Home, draft, material, secret};
use keyward_store::{Changes, StoreError};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs `fill` on a file system of 2 MiB, mounted in a namespace of its own, or, where that is not allowed, under a limit
/// on file sizes.
#[test]
fn a_full_disk_is_its_own_error_and_loses_nothing() {
    let home = Home::new();
    fs::create_dir_all(&home.root).unwrap();
    let exe = std::env::current_exe().unwrap();
    let child = r#""$0" disk::fill --exact --ignored --nocapture"#;
    let mounted = format!(r#"mount -t tmpfs -o size=2m none "$KEYWARD_TEST_HOME" && KEYWARD_TEST_FULL=disk {child}"#);
    let limited = format!(r#"trap '' XFSZ; ulimit -f 600; KEYWARD_TEST_FULL=limit {child}"#);
    let may_mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(&home.root).output();
    let mut command = if may_mount.is_ok_and(|tried| tried.status.success()) {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &mounted]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &limited]);
        command
    };
    let out = command.arg(&exe).env("KEYWARD_TEST_HOME", &home.root).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test]
#[ignore = "run by the test above"]
async fn fill() {
    let root = std::env::var("KEYWARD_TEST_HOME").unwrap();
    let on_disk = std::env::var("KEYWARD_TEST_FULL").unwrap() == "disk";
    let home = std::mem::ManuallyDrop::new(Home::at(Path::new(&root)));
    let (key, _) = material();
    let ballast = Path::new(&root).join("ballast");
    if on_disk {
        fs::write(&ballast, vec![1; 1024 * 1024]).unwrap();
    }
    let store = home.create().await;
    let put =
        |i: u64| Changes { writes: vec![secret(key, &format!("s{i}"), &"x".repeat(20_000))], entries: vec![draft(i)] };
    let mut stored = 0;
    let error = loop {
        match store.commit(put(stored + 1)).await {
            Ok(seqs) => stored = seqs[0] - 1,
            Err(e) => break e,
        }
        assert!(stored < 200, "the disk never filled");
    };
    let full = matches!(error, StoreError::DiskFull) || (!on_disk && matches!(error, StoreError::Database(_)));
    assert!(full, "{error:?}");
    assert!(stored > 3, "{stored}");
    assert_eq!(store.items("secret").await.unwrap().len() as u64, stored, "what was refused is not there");
    assert_eq!(store.head().await.seq, stored + 1);
    // Closing may fail for the same reason; the write-ahead log keeps what it holds.
    let _ = store.close().await;
    if on_disk {
        fs::remove_file(&ballast).unwrap();
    }
    let (store, health) = home.open().await.unwrap();
    assert!(matches!(health, keyward_store::Health::Sound { .. }), "{health:?}");
    assert_eq!(store.items("secret").await.unwrap().len() as u64, stored);
    if on_disk {
        store.commit(put(stored + 1)).await.unwrap();
    }
    assert!(store.verify().await.unwrap().ok);
}
