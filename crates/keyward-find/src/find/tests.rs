//! The scanner over a throw-away home.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A home and a project below it, removed at the end.
pub(crate) struct Scene {
    pub(crate) root: PathBuf,
    pub(crate) around: Around,
}

impl Scene {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("keyward-find-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("home/proj/.git")).unwrap();
        fs::create_dir_all(root.join("home/proj/sub")).unwrap();
        let around = Around {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            home: Some(root.join("home")),
            cwd: root.join("home/proj/sub"),
            system: root.join("system"),
        };
        Self { root, around }
    }

    /// Writes a file below the home folder, or below the root of the system with a leading slash.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = match name.strip_prefix('/') {
            Some(name) => self.root.join("system").join(name),
            None => self.root.join("home").join(name),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn found(&self) -> Found {
        Found::everywhere(&self.around)
    }

    /// Name, place below the root and state of each finding.
    fn told(&self) -> Vec<String> {
        let root = format!("{}/", self.root.display());
        let found = self.found();
        found.findings.iter().map(|f| format!("{f:?}").replace(&root, "").replace("Unusable", "no")).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

#[test]
fn the_environment_is_taken_by_role() {
    let scene = Scene::new(&[
        ("ANTHROPIC_API_KEY", "sk-1"),
        ("ANTHROPIC_AUTH_TOKEN", ""),
        ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_1"),
        ("ANTHROPIC_IDENTITY_TOKEN", "a.b.c"),
        ("ANTHROPIC_CUSTOM_HEADERS", "x-trace: 1\nAuthorization : Bearer t"),
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("DATABASE_URL", "postgres://u:p@h/d"),
        ("UNRELATED_SECRET", "x"),
    ]);
    let found = scene.found();
    let state = |name: &str| found.findings.iter().find(|f| f.name == name).map(|f| f.state);
    assert_eq!(state("ANTHROPIC_API_KEY"), Some(State::Usable));
    assert_eq!(state("DATABASE_URL"), Some(State::Usable));
    assert_eq!(state("ANTHROPIC_AUTH_TOKEN"), Some(State::Empty));
    assert_eq!(state("ANTHROPIC_FEDERATION_RULE_ID"), Some(State::Setting));
    for unusable in ["ANTHROPIC_IDENTITY_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "AWS_ACCESS_KEY_ID"] {
        assert!(matches!(state(unusable), Some(State::Unusable(_))), "{unusable}");
    }
    assert_eq!(state("UNRELATED_SECRET"), None);
    assert!(found.set("ANTHROPIC_AUTH_TOKEN").is_none() && found.is_empty("ANTHROPIC_AUTH_TOKEN"));
}

#[test]
fn a_url_or_a_header_counts_by_what_is_in_it() {
    for (url, has) in [
        ("postgres://u:p@h/d", true),
        ("postgres://u@h/d", false),
        ("postgres://u:@h/d", false),
        ("postgres://h/d?x=a:b@c", false),
        ("postgres://u:p%40@h:5432/d", true),
        ("host=h password=p", false),
        ("", false),
    ] {
        assert_eq!(has_password(url), has, "{url}");
    }
    assert_eq!(auth_headers("X-API-Key: k\nx: y\nauthorization:t"), ["x-api-key", "authorization"]);
    assert!(auth_headers("anthropic-beta: authorization").is_empty());
}

#[test]
fn start_files_and_env_files_are_found_with_their_lines() {
    let scene = Scene::new(&[]);
    scene.file(".bashrc", "# x\nexport ANTHROPIC_API_KEY=sk-1\nexport OPENAI_API_KEY=$(pass openai)\n");
    scene.file(".zshrc", "export GITHUB_TOKEN=a\nexport GITHUB_TOKEN=b\nHF_TOKEN=c\nunset HF_TOKEN\n");
    scene.file(".config/fish/config.fish", "set -gx GEMINI_API_KEY g\n");
    scene.file("proj/.env", "STRIPE_API_KEY=sk\n");
    scene.file("proj/.env.example", "STRIPE_API_KEY=example\n");
    scene.file("proj/sub/.env.local", "NPM_TOKEN='n'\n");
    scene.file("proj/.envrc", "export PGPASSWORD=p\n");
    scene.file(".env", "XAI_API_KEY=outside of the project\n");
    let told = scene.told();
    for want in [
        "ANTHROPIC_API_KEY in home/.bashrc:2 (Usable)",
        "OPENAI_API_KEY in home/.bashrc:3 (no(\"it is computed by a shell, so that its bytes do not stand there\"))",
        "GITHUB_TOKEN in home/.zshrc:2 (Usable)",
        "GEMINI_API_KEY in home/.config/fish/config.fish:1 (Usable)",
        "NPM_TOKEN in home/proj/sub/.env.local:1 (Usable)",
        "STRIPE_API_KEY in home/proj/.env:1 (Usable)",
        "PGPASSWORD in home/proj/.envrc:1 (Usable)",
    ] {
        assert!(told.iter().any(|t| t == want), "{want} is not in {told:#?}");
    }
    assert_eq!(told.len(), 7, "{told:#?}");
}

#[test]
fn settings_and_logins_of_tools_are_found() {
    let scene = Scene::new(&[]);
    scene.file(
        ".claude/settings.json",
        "{\n \"env\": {\n  \"ANTHROPIC_AUTH_TOKEN\": \"t\"\n },\n \"apiKeyHelper\": \"/x\"\n}",
    );
    scene.file("proj/.claude/settings.local.json", "{\"env\":{\"ANTHROPIC_API_KEY\":\"k\",\"OTHER\":\"x\"}}");
    scene.file("/etc/claude-code/managed-settings.json", "{\"env\":{\"ANTHROPIC_API_KEY\":\"m\"}}");
    scene.file(".claude/.credentials.json", "{\"claudeAiOauth\":{\"accessToken\":\"sk-ant-oat01-x\"}}");
    scene.file(".config/anthropic/active_config", "work\n");
    scene.file(".config/anthropic/configs/work.json", "{\"authentication\":{\"type\":\"user_oauth\"}}");
    scene.file(
        ".config/anthropic/configs/ci.json",
        "{\"organization_id\":\"o\",\"authentication\":{\"type\":\"oidc_federation\",\"federation_rule_id\":\"fdrl_1\"}}",
    );
    scene.file(".codex/auth.json", "{\"OPENAI_API_KEY\":\"sk-c\",\"tokens\":{\"access_token\":\"x\"}}");
    scene.file(".aws/credentials", "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n");
    scene
        .file(".aws/config", "[profile w]\nsso_session = s\nsso_start_url = u\n[profile p]\ncredential_process = /x\n");
    scene.file(
        ".config/gh/hosts.yml",
        "github.com:\n    users:\n        me:\n            oauth_token: gho_1\n    oauth_token: gho_1\nghe.example:\n    user: me\n",
    );
    scene.file(".netrc", "machine a login b password c\ndefault\n login x\n password y\n");
    scene.file(".pgpass", "# x\nh:5432:d:u:p\\:w\nh:1:d:u:\n");
    scene.file(".npmrc", "//registry.example/:_authToken=t\n//r/:_authToken=${NPM_TOKEN}\n");
    scene.file(".config/gcloud/application_default_credentials.json", "{\"type\": \"authorized_user\"}");
    let told = scene.told().join("\n");
    for want in [
        "ANTHROPIC_AUTH_TOKEN in home/.claude/settings.json:3 (Usable)",
        "apiKeyHelper in home/.claude/settings.json:5 (no",
        "ANTHROPIC_API_KEY in home/proj/.claude/settings.local.json:1 (Usable)",
        "ANTHROPIC_API_KEY in system/etc/claude-code/managed-settings.json:1 (Usable)",
        "login of Claude Code in home/.claude/.credentials.json:1 (no",
        "profile work (login) in home/.config/anthropic/configs/work.json:1 (no",
        "profile ci (federation) in home/.config/anthropic/configs/ci.json:1 (no",
        "key of Codex in home/.codex/auth.json:1 (Usable)",
        "login of Codex in home/.codex/auth.json:1 (no",
        "access key of [default] in home/.aws/credentials:2 (no",
        "single sign-on of [w] in home/.aws/config:2 (no",
        "credential_process of [p] in home/.aws/config:5 (Setting)",
        "login of gh at github.com in home/.config/gh/hosts.yml:4 (Usable)",
        "login of gh at ghe.example in home/.config/gh/hosts.yml:6 (no",
        "password for a in home/.netrc:1 (no",
        "password for default in home/.netrc:4 (no",
        "password for d at h in home/.pgpass:2 (no",
        "//registry.example/:_authToken in home/.npmrc:1 (no",
        "login of Google in home/.config/gcloud/application_default_credentials.json:1 (no",
    ] {
        assert!(told.lines().any(|t| t.starts_with(want)), "{want} is not in\n{told}");
    }
    assert_eq!(told.lines().count(), 19, "{told}");
    let found = scene.found();
    let managed = found.claude_setting("ANTHROPIC_API_KEY").unwrap();
    assert!(managed.place.to_string().contains("managed-settings"), "the managed file wins");
    let folder = &found.sdk_folders[0];
    assert_eq!(folder.active.as_deref(), Some("work"));
    assert_eq!(folder.profile("ci").unwrap().missing, ["authentication.identity_token.path"]);
}

#[test]
fn hostile_files_are_reported_and_stop_nothing() {
    let scene = Scene::new(&[]);
    let home = scene.root.join("home");
    scene.file(".bashrc", "export ANTHROPIC_API_KEY=sk-1\n");
    fs::create_dir(home.join(".profile")).unwrap();
    let fifo = home.join(".zshrc");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::os::unix::fs::symlink("/dev/zero", home.join(".zshenv")).unwrap();
    std::os::unix::fs::symlink(".loop", home.join(".loop")).unwrap();
    std::os::unix::fs::symlink(".loop", home.join(".zprofile")).unwrap();
    scene.file(".npmrc", &"x".repeat(2 * 1024 * 1024));
    scene.file(".claude/settings.json", "{\"env\": [sk-secret]}");
    scene.file(".codex/auth.json", "[]");
    scene.file(".claude/.credentials.json", "null");
    let unreadable = scene.file(".netrc", "machine a password b");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let found = scene.found();
    assert!(found.findings.iter().any(|f| f.name == "ANTHROPIC_API_KEY"), "{:?}", found.findings);
    let unread: Vec<String> = found.unread.iter().map(|u| format!("{}: {}", u.file, u.why)).collect();
    for name in [".profile", ".zshrc", ".zshenv", ".zprofile", ".npmrc", "settings.json"] {
        assert!(
            unread.iter().any(|u| u.split(": ").next().is_some_and(|file| file.ends_with(name))),
            "{name}: {unread:#?}"
        );
    }
    assert!(!unread.concat().contains("sk-secret"), "no file is quoted: {unread:#?}");
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let scene =
        Scene::new(&[("ANTHROPIC_API_KEY", "hunter2hunter2"), ("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: hunter2")]);
    scene.file(".bashrc", "export GITHUB_TOKEN=hunter2\n");
    scene.file(".netrc", "machine h login u password hunter2\n");
    scene.file(".codex/auth.json", "{\"OPENAI_API_KEY\":\"hunter2\"}");
    let found = scene.found();
    let shown = format!("{:?} {}", found.findings, serde_json::to_string(&found.findings).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    let key = serde_json::to_value(found.set("ANTHROPIC_API_KEY")).unwrap();
    let digest = hex::encode(Sha256::digest("hunter2hunter2"));
    assert_eq!(key["fingerprint"], digest[..8]);
    assert_eq!((&key["place"], &key["usable"]), (&"environment".into(), &true.into()));
    let github = found.written("GITHUB_TOKEN").next().map(|f| serde_json::to_value(f).unwrap()).unwrap();
    assert_eq!(github["line"], 1);
    assert!(github["file"].as_str().unwrap().ends_with("/.bashrc"));
}

#[test]
fn env_files_are_told_from_their_examples() {
    for (name, is) in [
        (".env", true),
        (".env.local", true),
        (".env.production.local", true),
        (".envrc", true),
        (".env.example", false),
        (".env.local.example", false),
        (".env.sample", false),
        (".environment", false),
        ("env", false),
        (".env-old", false),
    ] {
        assert_eq!(is_env_file(name), is, "{name}");
    }
}
