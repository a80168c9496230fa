//! Which terminal is taken, and what each is given, with programs that record it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::find::tests::Scene;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A home with nothing on its PATH.
fn scene(variables: &[(&str, &str)]) -> Scene {
    let mut scene = Scene::new(variables);
    scene.around.variables.insert("PATH".into(), scene.root.join("home/bin").into());
    scene
}

/// Installs a program that writes its working folder and its arguments, one a line, beside itself.
fn install(scene: &Scene, name: &str) -> PathBuf {
    let text = "#!/bin/sh\n{ pwd; printf '%s\\n' \"$@\"; } > \"$0.said\"\n";
    let path = scene.file(name, text);
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn chosen(scene: &Scene) -> Option<String> {
    let terminal = terminal(&scene.around).ok()?;
    Some(terminal.path().file_name()?.to_str()?.to_owned())
}

#[test]
fn the_data_is_sound() {
    let data: Data = toml::from_str(include_str!("../../data/terminals.toml")).unwrap();
    let mut programs = std::collections::BTreeSet::new();
    for dialect in &data.terminal {
        assert!(programs.insert(&dialect.program), "{dialect:?}");
        let holes = dialect.folder.iter().filter(|arg| arg.contains("{}")).count();
        assert_eq!(holes, usize::from(!dialect.folder.is_empty()), "{dialect:?}");
    }
    assert!(programs.contains(&CHOSEN.to_owned()));
}

#[test]
fn each_is_given_folder_and_command_as_it_takes_them() {
    for (program, want) in [
        ("xdg-terminal-exec", &["ARGV"][..]),
        ("ptyxis", &["--working-directory=DIR", "--", "ARGV"]),
        ("kgx", &["--working-directory=DIR", "--", "ARGV"]),
        ("gnome-terminal", &["--working-directory=DIR", "--", "ARGV"]),
        ("konsole", &["--workdir", "DIR", "-e", "ARGV"]),
        ("xfce4-terminal", &["--working-directory=DIR", "-x", "ARGV"]),
        ("mate-terminal", &["--working-directory=DIR", "-x", "ARGV"]),
        ("lxterminal", &["--working-directory=DIR", "-e", "ARGV"]),
        ("ghostty", &["--working-directory=DIR", "-e", "ARGV"]),
        ("kitty", &["--directory", "DIR", "ARGV"]),
        ("alacritty", &["--working-directory", "DIR", "-e", "ARGV"]),
        ("wezterm", &["start", "--cwd", "DIR", "--", "ARGV"]),
        ("foot", &["--working-directory=DIR", "ARGV"]),
        ("terminator", &["--working-directory=DIR", "-x", "ARGV"]),
        ("urxvt", &["-cd", "DIR", "-e", "ARGV"]),
        ("st", &["-e", "ARGV"]),
        ("xterm", &["-e", "ARGV"]),
        ("x-terminal-emulator", &["-e", "ARGV"]),
    ] {
        let scene = scene(&[("DISPLAY", ":0"), ("WAYLAND_DISPLAY", "wayland-0")]);
        let path = install(&scene, &format!("bin/{program}"));
        let folder = scene.root.join("home/proj");
        let argv = ["/opt/key ward/keyward", "launch", "it's $(a) \"name\""].map(OsString::from);
        let terminal = terminal(&scene.around).unwrap();
        assert!(terminal.command(&folder, &argv).status().unwrap().success(), "{program}");
        let said = fs::read_to_string(format!("{}.said", path.display())).unwrap();
        let shown = folder.display().to_string();
        let want: Vec<String> = std::iter::once(shown.clone())
            .chain(want.iter().flat_map(|arg| match *arg {
                "ARGV" => argv.iter().map(|a| a.to_str().unwrap().to_owned()).collect(),
                arg => vec![arg.replace("DIR", &shown)],
            }))
            .collect();
        assert_eq!(said.lines().collect::<Vec<_>>(), want, "{program}");
    }
    let data: Data = toml::from_str(include_str!("../../data/terminals.toml")).unwrap();
    assert_eq!(data.terminal.len(), 17, "each has its line above");
}

#[test]
fn the_choice_of_the_user_goes_before_that_of_the_desktop() {
    let mut scene = scene(&[("XDG_CURRENT_DESKTOP", "ubuntu:GNOME"), ("DISPLAY", ":0")]);
    assert!(terminal(&scene.around).is_err_and(|fault| fault.code == Code::RunNotFound));
    for (program, want) in [
        ("xterm", "xterm"),
        ("konsole", "konsole"),
        ("gnome-terminal", "gnome-terminal"),
        ("ptyxis", "ptyxis"),
        ("kgx", "ptyxis"),
        ("x-terminal-emulator", "x-terminal-emulator"),
        ("xdg-terminal-exec", "xdg-terminal-exec"),
    ] {
        install(&scene, &format!("bin/{program}"));
        assert_eq!(chosen(&scene).as_deref(), Some(want), "with {program}");
    }
    let elsewhere = install(&scene, "elsewhere/kitty").display().to_string();
    for (named, want) in [
        ("konsole", "konsole"),
        (elsewhere.as_str(), "kitty"),
        // Not installed, not known, no path that means the same everywhere, no program alone.
        ("alacritty", "xdg-terminal-exec"),
        ("sh", "xdg-terminal-exec"),
        ("./konsole", "xdg-terminal-exec"),
        ("konsole --hold", "xdg-terminal-exec"),
        ("", "xdg-terminal-exec"),
    ] {
        scene.around.variables.insert("TERMINAL".into(), named.into());
        assert_eq!(chosen(&scene).as_deref(), Some(want), "{named}");
    }
}

#[test]
fn a_terminal_that_cannot_open_a_window_here_is_passed_over() {
    let mut scene = scene(&[]);
    install(&scene, "bin/foot");
    install(&scene, "bin/xterm");
    assert_eq!(chosen(&scene), None);
    scene.around.variables.insert("DISPLAY".into(), ":0".into());
    assert_eq!(chosen(&scene).as_deref(), Some("xterm"));
    scene.around.variables.insert("WAYLAND_DISPLAY".into(), "wayland-0".into());
    assert_eq!(chosen(&scene).as_deref(), Some("foot"));
}

#[test]
fn behind_the_alternative_stands_a_dialect() {
    let scene = scene(&[]);
    let real = install(&scene, "real/terminator");
    fs::create_dir_all(scene.root.join("home/bin")).unwrap();
    let link = scene.root.join("home/bin/x-terminal-emulator");
    symlink(&real, &link).unwrap();
    let terminal = terminal(&scene.around).unwrap();
    let command = terminal.command(Path::new("/"), &["/k".into()]);
    assert_eq!(command.get_args().collect::<Vec<_>>(), ["--working-directory=/", "-x", "/k"]);
    assert_eq!(command.get_envs().count(), 0, "nothing is added to the environment");
}

#[test]
fn a_terminal_that_others_can_change_is_passed_over() {
    let scene = scene(&[("DISPLAY", ":0")]);
    let path = install(&scene, "bin/xterm");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(chosen(&scene), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(chosen(&scene).as_deref(), Some("xterm"));
}
