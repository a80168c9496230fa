//! What a card shows of a request that waits for a person.
//!
//! Facts come from the kernel where it tells them; all else is marked as said by the requester. Every text is escaped and
//! bounded. Reads `/proc` and one file of the project; runs no program, follows no link out of the project, decides nothing.
//! Called by `approve`, outside of the state's lock.

use crate::peer::Peer;
use crate::platform;
use crate::runs::{LOOK, wire_mode};
use keyward_api::{ApprovalMsg, ProcessMsg, WantedMsg};
use keyward_core::{DeliveryMode, Name, Profile, Target, render_duration, shown};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Processes of a chain that are shown.
const CHAIN_MAX: usize = 16;
/// Longest name of a program, branch or app, in characters.
const NAME_MAX: usize = 64;
/// Longest path, in characters.
pub(crate) const PATH_MAX: usize = 400;
/// Longest command line, in characters.
const COMMAND_MAX: usize = 600;
/// Longest reason, in characters.
const REASON_MAX: usize = 300;
/// Lines that say what a credential opens.
const REACH_MAX: usize = 12;
/// Longest of them, in characters.
const LINE_MAX: usize = 200;
/// Most of a file of git that is read, in bytes.
const HEAD_MAX_BYTES: u64 = 512;

/// The asking process and its parents, nearest first.
pub(crate) fn chain(peer: &Peer) -> Vec<ProcessMsg> {
    let parents = peer.parents().unwrap_or_default();
    let all = std::iter::once(&peer.process()).chain(parents).take(CHAIN_MAX).copied().collect::<Vec<_>>();
    let own = |id| peer.exe().filter(|_| id == peer.process()).map(|path| path.display().to_string());
    all.into_iter()
        .map(|id| {
            let path = own(id).or_else(|| platform::program_path(id));
            let name = path.and_then(|path| Some(file_name(&path)?.to_owned()));
            let name = name.or_else(|| platform::foreign_name(id)).unwrap_or_else(|| "?".to_owned());
            ProcessMsg { pid: id.pid, name: shown(&name, NAME_MAX) }
        })
        .collect()
}

fn file_name(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name))
}

/// The folder that a request from `folder` belongs to, as the kernel tells the folder: the nearest one at or above it with a
/// `.git`, else itself.
pub(crate) fn project_of(folder: &Path) -> &Path {
    let mut all = folder.ancestors().take(64);
    all.find(|folder| folder.join(".git").symlink_metadata().is_ok()).unwrap_or(folder)
}

/// The branch of a project, as its `.git/HEAD` says it. `None` where `.git` is no folder of the project itself.
pub(crate) async fn branch(project: &str) -> Option<String> {
    let project = project.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let root = openat(CWD, &*project, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let head = openat2(&root, ".git/HEAD", flags, Mode::empty(), within).map(File::from).ok()?;
        if !head.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = String::new();
        head.take(HEAD_MAX_BYTES).read_to_string(&mut text).ok()?;
        branch_of(&text)
    });
    tokio::time::timeout(LOOK, read).await.ok()?.ok()?
}

/// Reads the text of a `HEAD` (gitrepository-layout(5)): a symbolic reference, or a commit.
fn branch_of(head: &str) -> Option<String> {
    let line = head.lines().next()?.trim_end();
    if let Some(name) = line.strip_prefix("ref: ") {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        return (!name.is_empty()).then(|| shown(name, NAME_MAX));
    }
    let commit = line.len() >= 40 && line.bytes().all(|b| b.is_ascii_hexdigit());
    commit.then(|| format!("commit {}", line.get(..8).unwrap_or_default()))
}

/// A command line as one text: parts that hold anything but plain characters stand in quotes.
pub(crate) fn command(program: &str, arguments: &[String]) -> String {
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "-_./=:@%+,".contains(c));
    let quoted = |part: &str| match plain(part) {
        true => part.to_owned(),
        false => format!("'{}'", part.replace('\'', "'\\''")),
    };
    let mut line = quoted(program);
    for part in arguments {
        if line.len() > COMMAND_MAX * 8 {
            line.push_str(" …");
            break;
        }
        line.push(' ');
        line.push_str(&quoted(part));
    }
    shown(&line, COMMAND_MAX)
}

/// What a requester says about why.
pub(crate) fn reason(text: &str) -> String {
    shown(text, REASON_MAX)
}

/// A name of something, for a card.
pub(crate) fn name(text: &str) -> String {
    shown(text, NAME_MAX)
}

/// A profile of a request; what was answered before is not counted yet.
pub(crate) fn wanted(profile: &Profile, mode: DeliveryMode, ttl: Duration) -> WantedMsg {
    WantedMsg {
        profile: profile.name.to_string(),
        issuer: profile.kind.kind.to_owned(),
        reach: reach(profile, mode),
        delivery: wire_mode(mode),
        gives_away: mode.gives_away().to_owned(),
        ttl_s: ttl.as_secs(),
        confirm: profile.confirm,
        allowed_before: 0,
        denied_before: 0,
    }
}

/// What a credential opens, in words: host, calls, and what the issuer was told.
fn reach(profile: &Profile, mode: DeliveryMode) -> Vec<String> {
    let mut lines = Vec::new();
    match &profile.gateway {
        Some(target) if mode == DeliveryMode::Gateway => {
            lines.extend(target.fence.iter().flat_map(|fence| fence.words()));
            lines.extend(calls(target));
        }
        Some(target) => lines.push(format!("everything that it opens, at {} and elsewhere", host(target))),
        None => lines.push("everything that it opens, wherever it is taken".to_owned()),
    }
    if let Some(endpoint) = profile.endpoint() {
        lines.push(format!("valid at {endpoint}"));
    }
    let plain = profile.kind.fields.iter().filter(|field| !field.secret);
    for field in plain {
        let text = profile.settings.text(field.name).map(str::to_owned);
        let list = || Some(profile.settings.list(field.name).join(" ")).filter(|list| !list.is_empty());
        if let Some(text) = text.or_else(list)
            && !text.starts_with("secret:")
        {
            lines.push(format!("{}: {text}", field.name));
        }
    }
    let left = lines.len().saturating_sub(REACH_MAX);
    lines.truncate(REACH_MAX);
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    lines.iter().map(|line| shown(line, LINE_MAX)).collect()
}

fn host(target: &Target) -> String {
    let (usual, upstream) = (if target.upstream.tls { 443 } else { 80 }, &target.upstream);
    let port = if upstream.port == usual { String::new() } else { format!(":{}", upstream.port) };
    format!("{}{port}{}", upstream.host, upstream.base)
}

fn calls(target: &Target) -> Vec<String> {
    let place = host(target);
    let only = target.only.iter().map(|call| format!("{call} at {place}"));
    let mut lines: Vec<String> = only.collect();
    if lines.is_empty() {
        lines.push(format!("all calls at {place} that the list of `{}` allows", target.route));
    }
    lines
}

/// Names of profiles as a part of a sentence.
pub(crate) fn names(names: &[Name]) -> String {
    match names {
        [] => "no credential".to_owned(),
        [one] => one.to_string(),
        [all @ .., last] => {
            let all = all.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            format!("{all} and {last}")
        }
    }
}

/// The question of a card in one sentence.
pub(crate) fn question(app: &str, what: &str, ttl: Option<Duration>, project: &str, outer: Option<&str>) -> String {
    let during = ttl.map(|ttl| format!(" for {}", render_duration(ttl))).unwrap_or_default();
    let place = if project.is_empty() { String::new() } else { format!(" in {}", shown(&at_home(project), 120)) };
    let from = outer.map(|outer| format!(", from inside the run of {}", name(outer))).unwrap_or_default();
    format!("{} wants {what}{during}{place}{from}", name(app))
}

fn at_home(path: &str) -> String {
    let home = std::env::home_dir().filter(|home| home.parent().is_some());
    let below = home.and_then(|home| Path::new(path).strip_prefix(home).ok().map(|rest| rest.display().to_string()));
    below.map_or_else(|| path.to_owned(), |rest| if rest.is_empty() { "~".to_owned() } else { format!("~/{rest}") })
}

/// SHA-256 over the canonical form of what a person decides by: all but the id, the times, the number of equal requests, what
/// was answered before, and the numbers of the processes, which differ between two calls of the same command: an agent starts a
/// shell for each. `whole`
/// stands for what the card shows a part of only: two requests that look the same are one only where that is the same too.
pub(crate) fn digest(card: &ApprovalMsg, whole: &[u8]) -> [u8; 32] {
    let mut value = serde_json::to_value(card).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for own in ["id", "state", "digest", "merged", "asked_at", "changed_at", "until"] {
            fields.remove(own);
        }
        for process in fields.get_mut("chain").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(process) = process {
                process.remove("pid");
            }
        }
        for wanted in fields.get_mut("wanted").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(wanted) = wanted {
                wanted.retain(|name, _| name != "allowed_before" && name != "denied_before");
            }
        }
    }
    let mut text = serde_json_canonicalizer::to_vec(&value)
        .unwrap_or_else(|_| unreachable!("texts, whole numbers and maps with text keys serialise"));
    // The object ends where its last bracket stands, so what follows cannot be taken for a part of it.
    text.extend_from_slice(whole);
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_branch_is_read_and_nothing_outside_of_the_project() {
        assert_eq!(branch_of("ref: refs/heads/feature/x\n").as_deref(), Some("feature/x"));
        assert_eq!(branch_of(&format!("{}\n", "ab".repeat(20))).as_deref(), Some("commit abababab"));
        assert_eq!(branch_of("ref: refs/heads/a\u{202e}b\n").as_deref(), Some("a\\u{202e}b"));
        for odd in ["", "ref: ", "ref: refs/heads/\n", "junk", "../../etc/passwd"] {
            assert_eq!(branch_of(odd), None, "{odd:?}");
        }
    }

    #[tokio::test]
    async fn links_and_other_files_are_no_head() {
        let folder = std::env::temp_dir().join(format!("keyward-card-{}", std::process::id()));
        let (project, outside) = (folder.join("p"), folder.join("outside"));
        std::fs::create_dir_all(project.join(".git")).unwrap();
        std::fs::write(&outside, "ref: refs/heads/secret\n").unwrap();
        let read = async || branch(project.to_str().unwrap()).await;
        assert_eq!(read().await, None);
        std::os::unix::fs::symlink(&outside, project.join(".git/HEAD")).unwrap();
        assert_eq!(read().await, None, "a link");
        std::fs::remove_file(project.join(".git/HEAD")).unwrap();
        std::fs::create_dir(project.join(".git/HEAD")).unwrap();
        assert_eq!(read().await, None, "a folder");
        std::fs::remove_dir(project.join(".git/HEAD")).unwrap();
        std::fs::write(project.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(read().await.as_deref(), Some("main"));
        std::fs::rename(project.join(".git"), folder.join("git")).unwrap();
        std::os::unix::fs::symlink(folder.join("git"), project.join(".git")).unwrap();
        assert_eq!(read().await, None, "a link to a folder");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_command_line_is_one_line_whatever_its_parts_hold() {
        let args = ["-c", "it's\nme", "", "a b", "\u{202e}x", "--key=v"].map(str::to_owned);
        assert_eq!(command("/bin/x", &args), "/bin/x -c 'it'\\''s\\u{a}me' '' 'a b' '\\u{202e}x' --key=v");
        let long = command("/bin/x", &vec!["y".repeat(100); 1000]);
        assert!(long.chars().count() <= COMMAND_MAX && long.starts_with("/bin/x y"), "{long}");
    }

    #[test]
    fn a_digest_covers_what_is_decided_by_and_no_more() {
        let card = |change: &dyn Fn(&mut Value)| {
            let mut value = json!({
                "id": "A", "kind": "run", "state": "open", "digest": "", "question": "q", "app": "a", "program": "/a",
                "verified": false, "chain": [{"pid": 5, "name": "keyward"}, {"pid": 4, "name": "sh"}], "project": "/p",
                "said": [], "merged": 1, "asked_at": "", "changed_at": "", "until": "", "choices": ["once"], "confirm": false,
                "wanted": [{"profile": "p", "issuer": "static", "reach": [], "delivery": "env", "gives_away": "", "ttl_s": 1,
                    "confirm": false, "allowed_before": 0, "denied_before": 0}],
            });
            change(&mut value);
            digest(&serde_json::from_value(value).unwrap(), &[])
        };
        let same = card(&|_| {});
        let pointed = |place: &'static str, new: Value| {
            card(&move |value: &mut Value| *value.pointer_mut(place).unwrap() = new.clone())
        };
        for (place, new) in [
            ("/id", json!("B")),
            ("/merged", json!(9)),
            ("/until", json!("later")),
            ("/chain/0/pid", json!(6)),
            ("/chain/1/pid", json!(3)),
            ("/wanted/0/allowed_before", json!(3)),
        ] {
            assert_eq!(pointed(place, new), same, "{place}");
        }
        for (place, new) in [
            ("/chain/0/name", json!("other")),
            ("/chain/1/name", json!("bash")),
            ("/project", json!("/q")),
            ("/verified", json!(true)),
            ("/choices", json!(["once", "run"])),
            ("/wanted/0/delivery", json!("gateway")),
            ("/wanted/0/ttl_s", json!(2)),
            ("/kind", json!("token")),
        ] {
            assert_ne!(pointed(place, new), same, "{place}");
        }
    }

    #[test]
    fn a_question_is_one_sentence() {
        let profiles = ["a", "b", "c"].map(|name| Name::parse(name).unwrap());
        assert_eq!(names(&profiles), "a, b and c");
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(question("codex", "pg", hour, "/srv/shop", None), "codex wants pg for 1h in /srv/shop");
        assert_eq!(question("x\n", "pg", None, "", Some("claude")), "x\\u{a} wants pg, from inside the run of claude");
    }
}
