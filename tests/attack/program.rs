//! Profiles and programs that would turn a delivery into code or into rights of somebody else.

use keyward_testkit::Home;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

/// A program of the home: a copy of `true`.
fn program(home: &Home, name: &str) -> PathBuf {
    let path = home.root.join(name);
    std::fs::copy("/bin/true", &path).unwrap();
    path
}

fn mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn variables_that_change_what_programs_load_or_where_they_send_are_no_targets() {
    let home = Home::with_vault();
    home.secret("a", "v4lue-of-a-secret");
    let file = home.root.join("p.toml");
    for variable in [
        "LD_PRELOAD",
        "ld_preload",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "PATH",
        "Path",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "BASH_ENV",
        "ENV",
        "IFS",
        "HTTPS_PROXY",
        "https_proxy",
        "all_proxy",
        "SSL_CERT_FILE",
        "ANTHROPIC_BASE_URL",
        "AWS_ENDPOINT_URL_S3",
        "HOME",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
        "KEYWARD_HOME",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "EDITOR",
        "PAGER",
    ] {
        let toml = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = {{ {variable} = \"token\" }}\n"
        );
        std::fs::write(&file, toml).unwrap();
        let path = file.display().to_string();
        home.keyward(&["profile", "add", "p", "--from", &path]).exits(1).says("delivery.variable_refused");
    }
    for name in ["A=B", "", "A B", "\\u0000", "A\\nB", "1A"] {
        let toml = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = {{ \"{name}\" = \"token\" }}\n"
        );
        std::fs::write(&file, toml).unwrap();
        let path = file.display().to_string();
        assert_eq!(home.keyward(&["profile", "add", "p", "--from", &path]).exit, 1, "{name:?}");
    }
    assert_eq!(home.keyward(&["profile", "list", "--json"]).json().as_array().map(Vec::len), Some(0));
}

#[test]
fn programs_with_rights_of_somebody_else_get_nothing_unless_that_is_asked_for() {
    if !crate::is_root("program::programs_with_rights_of_somebody_else_get_nothing_unless_that_is_asked_for") {
        return;
    }
    let home = Home::with_vault();
    home.static_profile("a", "v4lue-of-a-secret", "A");
    let suid = program(&home, "suid");
    mode(&suid, 0o4755);
    let sgid = program(&home, "sgid");
    mode(&sgid, 0o2755);
    let other = program(&home, "other");
    chown(&other, Some(crate::STRANGER), Some(crate::STRANGER)).unwrap();
    mode(&other, 0o6755);
    let capable = program(&home, "capable");
    let set = Command::new("setcap").arg("cap_net_raw+ep").arg(&capable).status();
    assert!(set.is_ok_and(|s| s.success()), "setcap is needed to make a program with file capabilities");
    let link = home.root.join("link");
    symlink(&suid, &link).unwrap();
    let script = home.root.join("script");
    std::fs::write(&script, format!("#!{}\n", suid.display())).unwrap();
    mode(&script, 0o755);
    for path in [&suid, &sgid, &other, &capable, &link, &script] {
        let path = path.to_str().unwrap();
        home.keyward(&["run", "-p", "a", "--", path]).exits(125).says("run.privileged");
        home.keyward(&["run", "-p", "a", "--allow-privileged", "--", path]).exits(0);
    }
    assert_eq!(home.audit_kinds().iter().filter(|k| *k == "credential.delivered").count(), 6);
}

#[test]
fn a_profile_names_no_program_by_its_short_name_and_runs_no_shell_unasked() {
    let home = Home::with_vault();
    let file = home.root.join("p.toml");
    for argv in ["[\"sh\"]", "[\"./sh\"]", "[]", "\"/bin/sh -c true\"", "[\"/bin/../bin\"]"] {
        let toml = format!(
            "[issuer]\nkind = \"command\"\nargv = {argv}\n[delivery]\nmode = \"env\"\nenv = {{ A = \"token\" }}\n"
        );
        std::fs::write(&file, toml).unwrap();
        let added = home.keyward(&["profile", "add", "p", "--from", &file.display().to_string()]);
        if added.exit == 0 {
            home.keyward(&["run", "-p", "p", "--", "true"]).exits(125).says("issuer.failed");
            home.keyward(&["profile", "remove", "p"]).exits(0);
        } else {
            added.exits(1).says("profile.invalid");
        }
    }
}
