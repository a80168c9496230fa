//! The settings that the desktop keeps itself: notifications and colours in `desktop.toml`, and the start at login.
//!
//! Files are replaced whole or not at all. A key that is not known is refused with words instead of being dropped. Never
//! holds a secret. Called by the commands.

use crate::desk::Desk;
use crate::types::{NotificationSettings, SettingsView, Theme};
use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// Longest settings file, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;
/// The desktop entry that starts Keyward at login (Desktop Application Autostart Specification 0.5).
const AUTOSTART: &str = "autostart/keyward-desktop.desktop";

/// What `desktop.toml` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) notifications: NotificationSettings,
    pub(crate) theme: Theme,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    theme: Theme,
    notifications: Notifications,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Notifications {
    approval_needed: bool,
    expires_soon: bool,
    refresh_failed: bool,
    chain_broken: bool,
}

impl Default for Document {
    fn default() -> Self {
        Self { theme: Theme::System, notifications: Notifications::default() }
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self { approval_needed: true, expires_soon: true, refresh_failed: true, chain_broken: true }
    }
}

/// Reads `desktop.toml`; one that is not there says nothing.
pub(crate) fn load(places: &Places) -> Result<Own, Fault> {
    let path = places.config.join("desktop.toml");
    let text = match read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(unreadable(&path, &e)),
    };
    parse(&text).map_err(|why| Fault::new(Code::ConfigInvalid).cause(format!("{}: {why}", path.display())))
}

fn parse(text: &str) -> Result<Own, String> {
    let document: Document = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(0, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
        format!("line {line}: {}", e.message())
    })?;
    let Notifications { approval_needed, expires_soon, refresh_failed, chain_broken } = document.notifications;
    let notifications = NotificationSettings { approval_needed, expires_soon, refresh_failed, chain_broken };
    Ok(Own { notifications, theme: document.theme })
}

/// Stores what of the settings is the desktop's own.
pub(crate) fn store(desk: &Desk, view: &SettingsView) -> Result<(), Fault> {
    let _one_at_a_time = desk.settings.lock().unwrap_or_else(PoisonError::into_inner);
    let NotificationSettings { approval_needed, expires_soon, refresh_failed, chain_broken } = view.notifications;
    let notifications = Notifications { approval_needed, expires_soon, refresh_failed, chain_broken };
    let text = toml::to_string(&Document { theme: view.theme, notifications })
        .map_err(|e| Fault::new(Code::Internal).cause(e))?;
    let path = desk.pool.places().config.join("desktop.toml");
    replace(&path, &text, 0o600).map_err(|e| unreadable(&path, &e))?;
    set_start_at_login(desk, view.start_at_login)
}

/// Whether the session starts this very program, with this home, at login.
pub(crate) fn starts_at_login(desk: &Desk) -> bool {
    let Some(path) = autostart(desk) else { return false };
    let Ok(text) = read(&path) else { return false };
    exec(&desk.program, desk.pool.places().home.as_deref()).is_some_and(|exec| is_on(&text, &exec))
}

fn set_start_at_login(desk: &Desk, on: bool) -> Result<(), Fault> {
    let fault = |why: &str| Fault::new(Code::FileUnreadable).cause(why.to_owned());
    let path = autostart(desk).ok_or_else(|| fault("neither XDG_CONFIG_HOME nor HOME names a folder"))?;
    if !on {
        return match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(unreadable(&path, &e)),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let exec = exec(&desk.program, desk.pool.places().home.as_deref())
        .ok_or_else(|| fault("the path of this program or of the home cannot stand in a desktop entry"))?;
    let text = format!(
        "[Desktop Entry]\nType=Application\nName=Keyward\nComment=Short-lived credentials for agents and programs\n\
         Exec={exec}\nIcon=keyward\nTerminal=false\nX-GNOME-Autostart-enabled=true\n"
    );
    replace(&path, &text, 0o644).map_err(|e| unreadable(&path, &e))
}

fn autostart(desk: &Desk) -> Option<PathBuf> {
    let named = desk.around.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    named.or_else(|| desk.around.home.as_ref().map(|home| home.join(".config"))).map(|config| config.join(AUTOSTART))
}

/// The line that starts `program` hidden, for the home that it serves (Desktop Entry Specification 1.5, "The Exec key"). Some
/// sessions set `GTK_MODULES` for everybody, with which the program refuses to start.
fn exec(program: &Path, home: Option<&Path>) -> Option<String> {
    let mut line = "env -u GTK_MODULES -u GTK3_MODULES ".to_owned();
    if let Some(home) = home {
        line += &quoted(home.as_os_str(), "KEYWARD_HOME=")?;
        line.push(' ');
    }
    line += &quoted(program.as_os_str(), "")?;
    Some(line + " --hidden")
}

/// One argument: quoted for `Exec`, then escaped as every text of a desktop entry.
fn quoted(text: &OsStr, before: &str) -> Option<String> {
    let text = text.to_str().filter(|t| !t.chars().any(char::is_control))?;
    let mut out = format!("\"{before}");
    for c in text.chars() {
        match c {
            '"' | '`' | '$' => out.extend(["\\\\".to_owned(), c.to_string()]),
            '\\' => out.push_str("\\\\\\\\"),
            '%' => out.push_str("%%"),
            _ => out.push(c),
        }
    }
    out.push('"');
    Some(out)
}

fn is_on(text: &str, exec: &str) -> bool {
    let group = text.lines().skip_while(|l| l.trim() != "[Desktop Entry]").skip(1).take_while(|l| !l.starts_with('['));
    let (mut ours, mut off) = (false, false);
    for (key, value) in group.filter_map(|line| line.split_once('=')) {
        match (key.trim(), value.trim()) {
            ("Exec", value) => ours = value == exec,
            // What desktops write when the person switches an entry off.
            ("Hidden", "true") | ("X-GNOME-Autostart-enabled", "false") => off = true,
            _ => {}
        }
    }
    ours && !off
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    // A pipe in its place would hold up the tray for as long as nobody writes into it.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    file.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces a file by a whole new one; makes the folder where there is none.
fn replace(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidFilename)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    // One that an earlier process of this number has left.
    let _ = std::fs::remove_file(&part);
    let written = File::options().write(true).create_new(true).mode(mode).open(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&part, path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    placed
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(Code::FileUnreadable).cause(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_a_file_leaves_out_is_on_and_what_is_not_known_is_refused() {
        let all = NotificationSettings {
            approval_needed: true,
            expires_soon: true,
            refresh_failed: true,
            chain_broken: true,
        };
        assert_eq!(parse("").unwrap(), Own { notifications: all, theme: Theme::System });
        let some = parse("theme = \"dark\"\n[notifications]\nexpires_soon = false\n").unwrap();
        assert_eq!(some.theme, Theme::Dark);
        assert_eq!(some.notifications, NotificationSettings { expires_soon: false, ..all });
        for (text, part) in [
            ("them = \"dark\"", "unknown field `them`"),
            ("\n[notifications]\nsound = true", "line 3: unknown field `sound`"),
            ("theme = \"blue\"", "unknown variant"),
            ("theme = 1", "line 1"),
            ("theme", "line 1"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_path_stands_in_a_desktop_entry_as_one_argument() {
        let exec = |program: &str, home: Option<&str>| exec(Path::new(program), home.map(Path::new));
        assert_eq!(
            exec("/usr/bin/keyward-desktop", None).unwrap(),
            "env -u GTK_MODULES -u GTK3_MODULES \"/usr/bin/keyward-desktop\" --hidden"
        );
        assert_eq!(
            exec("/opt/a b/100%/$x\"`\\", Some("/h o")).unwrap(),
            "env -u GTK_MODULES -u GTK3_MODULES \"KEYWARD_HOME=/h o\" \"/opt/a b/100%%/\\\\$x\\\\\"\\\\`\\\\\\\\\" --hidden"
        );
        assert_eq!(exec("/a\nExec=evil", None), None);
    }

    #[test]
    fn an_entry_counts_when_it_starts_this_program_and_was_not_switched_off() {
        let entry = |more: &str| format!("# x\n[Desktop Entry]\nExec=\"/k\" --hidden\n{more}\n[Other]\nHidden=true\n");
        assert!(is_on(&entry(""), "\"/k\" --hidden"));
        assert!(!is_on(&entry(""), "\"/other\" --hidden"));
        assert!(!is_on(&entry("Hidden=true"), "\"/k\" --hidden"));
        assert!(!is_on(&entry("X-GNOME-Autostart-enabled = false"), "\"/k\" --hidden"));
        assert!(!is_on("Exec=\"/k\" --hidden", "\"/k\" --hidden"), "outside of the group");
    }
}
