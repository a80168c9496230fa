//! The child that uses an SDK.

use crate::harness::{Folder, Sandbox, changed, program, until};
use serde_json::{Value, json};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

struct Profile(Folder);

impl Profile {
    fn new(base_url: &str) -> Self {
        let folder = Folder::new();
        for name in ["configs", "credentials"] {
            DirBuilder::new().mode(0o700).create(folder.0.join(name)).unwrap();
        }
        let profile = Self(folder);
        let authentication = json!({"type": "user_oauth"});
        profile.write("configs", &json!({"version": "1.0", "base_url": base_url, "authentication": authentication}));
        profile
    }

    fn file(&self, folder: &str) -> PathBuf {
        self.0.0.join(folder).join("work.json")
    }

    /// As whoever rotates the file does it: beside, then in its place.
    fn write(&self, folder: &str, content: &Value) {
        let beside = self.file(folder).with_extension("part");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).unwrap();
        file.write_all(content.to_string().as_bytes()).unwrap();
        std::fs::rename(beside, self.file(folder)).unwrap();
    }

    fn deliver(&self, token: &str, life_s: u64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        self.write("credentials", &credentials(token, now + life_s));
    }

    fn child(&self, lifetimes: &str) -> Command {
        let mut child = program();
        child.args(["child", "--every", "20ms", "--lifetimes", lifetimes]);
        child.env("ANTHROPIC_CONFIG_DIR", &self.0.0).env("ANTHROPIC_PROFILE", "work");
        child
    }
}

fn credentials(token: &str, expires_at: u64) -> Value {
    json!({"version": "1.0", "type": "oauth_token", "access_token": token, "expires_at": expires_at})
}

fn lines(out: &Output) -> Vec<String> {
    String::from_utf8(out.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_child_outlives_its_tokens_by_reading_the_file_again() {
    let sandbox = Sandbox::start(&["--life", "4s", "--fast-lives"]);
    let profile = Profile::new(sandbox.text("base_url"));
    profile.deliver(&sandbox.token(), 4);
    let mut child = profile.child("2").stdout(Stdio::piped()).spawn().unwrap();
    // Long before its end each token is followed by the next.
    until(|| {
        profile.deliver(&sandbox.token(), 4);
        child.try_wait().unwrap()
    });
    let out = child.wait_with_output().unwrap();
    let lines = lines(&out);
    assert!(out.status.success(), "{lines:?}");
    let tokens: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("token: ")).collect();
    assert!(tokens.len() == 3 && tokens[0] != tokens[1] && tokens[1] != tokens[2], "{lines:?}");
    let calls = sandbox.stats()["messages"].to_string();
    assert_eq!(lines.last().unwrap(), &format!("calls: {calls}"));
    assert_eq!(sandbox.stats()["unauthorized"], 0);
}

#[test]
fn a_failed_call_ends_the_child_and_says_why() {
    let sandbox = Sandbox::start(&[]);
    let profile = Profile::new("http://127.0.0.1:1");
    let token = sandbox.token();
    profile.deliver(&token, 600);
    let refused = profile.child("1").output().unwrap();
    assert!(!refused.status.success(), "nobody listens there");
    sandbox.turn("revoke", json!({}));
    let out = profile.child("1").env("ANTHROPIC_BASE_URL", sandbox.text("base_url")).output().unwrap();
    let said = String::from_utf8(out.stderr.clone()).unwrap();
    assert!(!out.status.success() && said.contains("401 authentication_error"), "{said}");
    assert!(!said.contains(&token));
    assert_eq!(lines(&out).last().unwrap(), "calls: 0");
}

#[test]
fn files_that_sdks_refuse_and_variables_that_win_are_refused() {
    let sandbox = Sandbox::start(&[]);
    let token = sandbox.token();
    let refused = |what: &str, spoil: &dyn Fn(&Profile, &mut Command)| {
        let profile = Profile::new(sandbox.text("base_url"));
        profile.deliver(&token, 600);
        let mut child = profile.child("0");
        spoil(&profile, &mut child);
        let out = child.output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains(what), "{what}: {said}");
        assert!(!said.contains(&token), "{said}");
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mode = |path: PathBuf, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let link = |path: PathBuf| {
        let real = path.with_extension("real");
        std::fs::rename(&path, &real).unwrap();
        std::os::unix::fs::symlink(real, path).unwrap();
    };
    refused("lets others in", &|p, _| mode(p.file("credentials"), 0o640));
    refused("lets others in", &|p, _| mode(p.file("credentials"), 0o604));
    refused("lets others in", &|p, _| mode(p.file("configs"), 0o620));
    refused("plain file", &|p, _| link(p.file("credentials")));
    refused("plain file", &|p, _| link(p.file("configs")));
    for (changes, what) in [
        (json!({"type": "api_key"}), "type is not"),
        (json!({"type": null}), "type is not"),
        (json!({"access_token": ""}), "access_token"),
        (json!({"expires_at": null}), "expires_at"),
        (json!({"expires_at": "2026-01-01T00:00:00Z"}), "expires_at"),
        (json!({"expires_at": 0}), "expired"),
    ] {
        refused(what, &|p, _| p.write("credentials", &changed(&credentials(&token, now + 600), &changes)));
    }
    for (authentication, what) in [
        (json!({"type": "oidc_federation"}), "user_oauth"),
        (json!({"type": "user_oauth", "client_id": "x"}), "client_id"),
    ] {
        refused(what, &|p, _| p.write("configs", &json!({"authentication": authentication})));
    }
    for (name, value, what) in [
        ("ANTHROPIC_API_KEY", "", "ANTHROPIC_API_KEY is set"),
        ("ANTHROPIC_AUTH_TOKEN", "x", "ANTHROPIC_AUTH_TOKEN is set"),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1.evil.example", "loopback"),
        ("ANTHROPIC_BASE_URL", "https://127.0.0.1", "loopback"),
        ("ANTHROPIC_PROFILE", "../work", "profile name"),
        ("ANTHROPIC_CONFIG_DIR", "/no/such/folder", "configs/work.json"),
    ] {
        refused(what, &|_, child| {
            child.env(name, value);
        });
    }

    let profile = Profile::new(sandbox.text("base_url"));
    profile.deliver(&token, 600);
    assert!(profile.child("0").status().unwrap().success());
}
