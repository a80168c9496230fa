#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::identity;
use crate::stage::{Folder, Memory, SIGNATURE, assertion, federated, jwt, now};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A user who is not this one; to give files away takes root.
const OTHER: u32 = 65_533;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn read(path: &Path) -> Result<String, IssueError> {
    let identity = format!("kind = \"file\"\npath = {path:?}");
    let order = federated("https://api.anthropic.com", "", &identity, &Arc::new(Memory::default()));
    let (source, identity) = identity::of(&order).unwrap();
    let read = source.read(identity, &order).await;
    read.map(|assertion| assertion.expose(str::to_owned))
}

async fn refused(path: &Path, code: Code, word: &str) {
    let error = read(path).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (code, Failure::NoAssertion), "{word}: {error}");
    assert!(error.to_string().contains(word), "{word}: {error}");
    assert!(!error.to_string().contains(SIGNATURE) && !error.to_string().contains("SEKRIT"), "{error}");
}

#[tokio::test]
async fn the_file_is_read_anew_each_time() {
    let folder = Folder::new();
    let (one, two) = (assertion(""), assertion(",\"n\":2"));
    let path = folder.write("token", &format!("\n {one}\r\n"));
    assert_eq!(read(&path).await.unwrap(), one);
    folder.swap("token", &two);
    assert_eq!(read(&path).await.unwrap(), two);
    mode(&path, 0o444);
    assert_eq!(read(&path).await.unwrap(), two, "others may read it");
}

#[tokio::test]
async fn a_file_that_appears_or_can_be_read_again_is_a_change() {
    let folder = Folder::new();
    let path = folder.0.join("token");
    let identity = format!("kind = \"file\"\npath = {path:?}");
    let order = federated("https://api.anthropic.com", "", &identity, &Arc::new(Memory::default()));
    let (source, identity) = identity::of(&order).unwrap();
    let look = || async { source.look(identity).await.unwrap() };
    let absent = look().await;
    assert_eq!(look().await, absent);
    folder.swap("token", "one");
    let one = look().await;
    mode(&path, 0o666);
    let open = look().await;
    mode(&path, 0o600);
    assert_eq!(look().await, one);
    folder.swap("token", "two");
    let all = std::collections::BTreeSet::from([absent, one, open, look().await]);
    assert_eq!(all.len(), 4);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(look().await, absent);
}

#[tokio::test]
async fn a_projected_token_is_read_through_its_links() {
    let folder = Folder::new();
    let text = assertion("");
    std::fs::create_dir(folder.0.join("..2026_11_21")).unwrap();
    folder.write("..2026_11_21/token", &text);
    symlink("..2026_11_21", folder.0.join("..data")).unwrap();
    symlink("..data/token", folder.0.join("token")).unwrap();
    // The folder of a projected volume is open to all and sticky.
    mode(&folder.0, 0o1777);
    assert_eq!(read(&folder.0.join("token")).await.unwrap(), text);
    symlink(folder.0.join("./..data//../token"), folder.0.join("absolute")).unwrap();
    assert_eq!(read(&folder.0.join("absolute")).await.unwrap(), text);
}

#[tokio::test]
async fn each_thing_that_is_no_assertion_has_its_words() {
    let folder = Folder::new();
    let at = |name: &str| folder.0.join(name);
    refused(&at("absent"), Code::IdentityUnreadable, "absent: it does not exist").await;
    refused(&folder.0, Code::IdentityUnreadable, "it is a folder").await;
    refused(Path::new("/"), Code::IdentityUnreadable, "it is a folder").await;
    refused(&folder.write("plain", "x").join("token"), Code::IdentityUnreadable, "plain: it is not a folder").await;
    refused(&folder.write("empty", " \n"), Code::IdentityInvalid, "it is empty").await;
    refused(&folder.write("key", "-----BEGIN SEKRIT"), Code::IdentityInvalid, "it has 1 of the three parts").await;
    refused(&folder.write("other", "SEK.RIT.x"), Code::IdentityInvalid, "it has a header").await;
    std::fs::write(at("bytes"), b"\xff\xfe\x00").unwrap();
    refused(&at("bytes"), Code::IdentityInvalid, "it is not UTF-8").await;
    refused(
        &folder.write("long", &assertion(&format!(",\"x\":\"{}\"", "y".repeat(16_384)))),
        Code::IdentityInvalid,
        "longer than 16384 bytes",
    )
    .await;
    refused(&folder.write("huge", &"x".repeat(1 << 20)), Code::IdentityInvalid, "longer than 16384 bytes").await;
    let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
    assert!(made.success());
    refused(&at("fifo"), Code::IdentityUnreadable, "fifo: it is a FIFO").await;
    refused(Path::new("/dev/null"), Code::IdentityUnreadable, "it is a device").await;
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    refused(&at("socket"), Code::IdentityUnreadable, "it is a socket").await;
    symlink("round", at("round")).unwrap();
    refused(&at("round"), Code::IdentityUnreadable, "round and round").await;
    symlink("broken.target", at("broken")).unwrap();
    refused(&at("broken"), Code::IdentityUnreadable, "broken.target: it does not exist").await;
    refused(Path::new("/proc/self/environ"), Code::IdentityUnreadable, "/proc").await;
    refused(Path::new("/dev/fd/0"), Code::IdentityUnreadable, "/proc").await;
    let deep = "a/../".repeat(200);
    std::fs::create_dir(at("a")).unwrap();
    refused(&at(&format!("{deep}empty")), Code::IdentityUnreadable, "the path is too long").await;
}

#[tokio::test]
async fn what_others_can_change_is_refused_with_the_remedy() {
    let folder = Folder::new();
    let path = folder.write("token", &assertion(""));
    for open in [0o620, 0o602, 0o666] {
        mode(&path, open);
        refused(&path, Code::IdentityUnreadable, &format!("close it with `chmod go-w {}`", path.display())).await;
    }
    mode(&path, 0o600);
    for open in [0o770, 0o707, 0o777] {
        mode(&folder.0, open);
        refused(&path, Code::IdentityUnreadable, &format!("chmod go-w {}`", folder.0.display())).await;
    }
    mode(&folder.0, 0o700);
    // A folder on the way of a link counts as one on the path.
    let elsewhere = Folder::new();
    mode(&elsewhere.0, 0o777);
    symlink(elsewhere.0.join("token"), folder.0.join("link")).unwrap();
    elsewhere.write("token", &assertion(""));
    refused(&folder.0.join("link"), Code::IdentityUnreadable, "chmod go-w").await;
    assert!(read(&path).await.is_ok());
}

#[tokio::test]
async fn what_belongs_to_others_is_refused() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let path = folder.write("token", &assertion(""));
    let word = format!("it belongs to uid {OTHER}");
    std::os::unix::fs::lchown(&path, Some(OTHER), None).unwrap();
    refused(&path, Code::IdentityUnreadable, &word).await;
    // In a sticky folder others can put a link of theirs.
    let own = folder.write("own", &assertion(""));
    mode(&folder.0, 0o1777);
    symlink(&own, folder.0.join("link")).unwrap();
    assert!(read(&folder.0.join("link")).await.is_ok());
    std::os::unix::fs::lchown(folder.0.join("link"), Some(OTHER), None).unwrap();
    refused(&folder.0.join("link"), Code::IdentityUnreadable, &word).await;
    mode(&folder.0, 0o755);
    chown(&folder.0, Some(OTHER), None).unwrap();
    refused(&own, Code::IdentityUnreadable, &word).await;
}

#[tokio::test]
async fn a_stale_assertion_is_not_given_and_its_age_is_said() {
    let folder = Folder::new();
    let ended = |ago: i64| jwt(r#"{"alg":"RS256"}"#, &format!("{{\"exp\":{}}}", now() - ago));
    let path = folder.write("token", &ended(720));
    let written = std::fs::File::options().write(true).open(&path).unwrap();
    written.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    refused(&path, Code::IdentityFailed, "expired 12 minutes ago by the clock of this machine").await;
    refused(&path, Code::IdentityFailed, "the file has not been rotated since 2001-09-09T01:46:40Z").await;
    folder.write("token", &ended(300));
    assert!(read(&path).await.is_ok(), "a clock that is wrong by five minutes is put up with");
}

/// Swaps a link to a folder, and a file, with those of another user while they are read. Whatever is read is the safe one's.
#[tokio::test]
async fn a_swapped_link_never_gives_the_file_of_another() {
    if !is_root() {
        return;
    }
    let (safe, foreign) = (Folder::new(), Folder::new());
    let (good, bad) = (assertion(",\"who\":\"us\""), assertion(",\"who\":\"them\""));
    safe.write("token", &good);
    foreign.write("token", &bad);
    chown(foreign.0.join("token"), Some(OTHER), None).unwrap();
    let place = Folder::new();
    let at = |name: &str| place.0.join(name);
    symlink(&safe.0, at("data")).unwrap();
    symlink(&foreign.0, at("data.other")).unwrap();
    place.write("token", &good);
    chown(place.write("token.other", &bad), Some(OTHER), None).unwrap();
    let stop = AtomicBool::new(false);
    let (mut given, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for name in ["data", "token"] {
                    let other = at(&format!("{name}.other"));
                    renameat_with(CWD, at(name), CWD, other, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let _stop = Stop(&stop);
        while given + refused < 2000 || given < 100 || refused < 100 {
            assert!(given + refused < 100_000, "{given} given, {refused} refused: the race is not one");
            for path in ["data/token", "token"] {
                match Held::read(place.0.join(path)) {
                    Ok(held) => {
                        assert!(*held.bytes == good.as_bytes(), "another's file was read");
                        given += 1;
                    }
                    Err(fault) => {
                        assert!(!fault.to_string().contains(SIGNATURE));
                        refused += 1;
                    }
                }
            }
        }
    });
}

/// Ends the other thread of a race, also where this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
