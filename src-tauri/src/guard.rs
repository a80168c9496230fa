//! What comes before everything else: closing the process to others, and refusing an environment that opens it.
//!
//! Called first in `main`, before a library has read the environment and while there is one thread. Never mends an
//! environment: code that `LD_PRELOAD` names has run before `main` already, so there is only one honest answer.

use keyward_diag::{Code, Fault};
use rustix::fs::{Stat, fstat, stat};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;

/// Whether WebDriver may drive the web view: in builds for end-to-end tests alone.
const AUTOMATION: bool = cfg!(feature = "automation");

/// What automation needs, and what nobody else may set.
const REMOTE: &[(&str, &str)] = &[
    ("TAURI_WEBVIEW_AUTOMATION", "lets programs press the buttons of the window"),
    ("WEBKIT_INSPECTOR_SERVER", "lets programs read and change the window over the network"),
    ("WEBKIT_INSPECTOR_HTTP_SERVER", "lets programs read and change the window over the network"),
];

/// Variables that bring foreign code or eyes into this process, with what they do. A name that ends in `*` stands for all
/// that begin so.
const REFUSED: &[(&str, &str)] = &[
    ("LD_*", "changes which code the system loads into this program"),
    ("GCONV_PATH", "names code that the C library loads"),
    ("LOCPATH", "names files that the C library trusts"),
    ("GTK_MODULES", "names code that GTK loads, which could read what you type"),
    ("GTK3_MODULES", "names code that GTK loads, which could read what you type"),
    ("GTK_PATH", "names folders from which GTK loads code"),
    ("GTK_EXE_PREFIX", "names the folder from which GTK loads code"),
    ("GTK_DATA_PREFIX", "names the folder from which GTK loads its looks"),
    ("GTK_IM_MODULE_FILE", "names code that GTK loads, which could read what you type"),
    ("GTK_DEBUG", "opens the inspector of GTK, which shows what you type"),
    ("GDK_PIXBUF_MODULE_FILE", "names code that is loaded to read pictures"),
    ("GDK_PIXBUF_MODULEDIR", "names a folder from which code is loaded to read pictures"),
    ("GIO_EXTRA_MODULES", "names folders from which GIO loads code"),
    ("GIO_MODULE_DIR", "names the folder from which GIO loads code"),
    ("G_RESOURCE_OVERLAYS", "replaces what is built into GTK"),
    ("WEBKIT_EXEC_PATH", "names the programs that draw the window"),
    ("WEBKIT_INJECTED_BUNDLE_PATH", "names code that is loaded into the window"),
    ("WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS", "takes the window out of its sandbox"),
    ("JSC_*", "changes how the scripts of the window run"),
    ("GST_PLUGIN_*", "names code that the window loads for sound and pictures"),
    ("GST_REGISTRY*", "names code that the window loads for sound and pictures"),
    ("LIBGL_DRIVERS_PATH", "names code that is loaded to draw"),
    ("LIBVA_DRIVERS_PATH", "names code that is loaded to draw"),
    ("GBM_BACKENDS_PATH", "names code that is loaded to draw"),
    ("GBM_DRIVERS_PATH", "names code that is loaded to draw"),
    ("VDPAU_DRIVER_PATH", "names code that is loaded to draw"),
    ("__EGL_VENDOR_LIBRARY_*", "names code that is loaded to draw"),
    ("__EGL_EXTERNAL_PLATFORM_CONFIG_*", "names code that is loaded to draw"),
    ("VK_ADD_*", "names code that is loaded to draw"),
    ("VK_DRIVER_FILES", "names code that is loaded to draw"),
    ("VK_ICD_FILENAMES", "names code that is loaded to draw"),
    ("VK_LAYER_PATH", "names code that is loaded to draw"),
    ("VK_INSTANCE_LAYERS", "names code that is loaded to draw"),
];

/// Closes the process: other processes of the user cannot read its memory, descriptors or environment, and no crash
/// writes them to a file. Launched programs may raise their own limit again.
///
/// # Errors
/// [`Code::Internal`] when the system does not do it.
pub(crate) fn close() -> Result<(), Fault> {
    let closed = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, Rlimit { current: Some(0), ..getrlimit(Resource::Core) }));
    closed.map_err(|e| Fault::new(Code::Internal).cause(format!("the process cannot be closed to others: {e}")))
}

/// Looks for variables of the lists above. An empty one counts as unset.
///
/// # Errors
/// [`Code::DesktopEnvironment`] with each variable that was found, what it does, and the command that leaves it out.
pub(crate) fn check(environment: impl Iterator<Item = (OsString, OsString)>) -> Result<(), Fault> {
    refuse(environment, AUTOMATION)
}

/// Looks for code in this process that belongs to neither root nor the owner of this program. GTK loads what its settings
/// name: the variable `GTK_MODULES` is one place, and a file in the home folder or the settings of the display are others.
///
/// # Errors
/// [`Code::DesktopEnvironment`] with each such file; [`Code::Internal`] when the system does not tell what is loaded.
pub(crate) fn check_loaded() -> Result<(), Fault> {
    let failed = |e: std::io::Error| Fault::new(Code::Internal).cause(format!("what is loaded cannot be read: {e}"));
    let own = File::open("/proc/self/exe").and_then(|file| Ok(fstat(file)?)).map_err(failed)?;
    let mut maps = Vec::new();
    File::open("/proc/self/maps").and_then(|mut file| file.read_to_end(&mut maps)).map_err(failed)?;
    let maps = String::from_utf8_lossy(&maps);
    let foreign = foreign(&maps, own.st_uid, |path| stat(path).ok());
    if foreign.is_empty() {
        return Ok(());
    }
    let fault = foreign.iter().fold(Fault::new(Code::DesktopEnvironment), |fault, path| {
        let path = keyward_diag::plain(path, 200);
        fault.cause(format!("{path} was loaded into it, which somebody else than root can change"))
    });
    Err(fault.help("remove what loads it: `gtk-modules` in ~/.config/gtk-3.0/settings.ini or in the theme, say"))
}

/// The files of `/proc/PID/maps` (proc(5)) that are executed from and belong to neither root nor `owner`. What has no file is
/// made by code that is there already.
fn foreign(maps: &str, owner: u32, stat: impl Fn(&str) -> Option<Stat>) -> BTreeSet<&str> {
    let executed = |line: &&str| line.split(' ').nth(1).is_some_and(|mode| mode.contains('x'));
    let paths: BTreeSet<_> =
        maps.lines().filter(executed).filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
    paths.into_iter().filter(|path| stat(path).is_some_and(|s| s.st_uid != 0 && s.st_uid != owner)).collect()
}

fn refuse(environment: impl Iterator<Item = (OsString, OsString)>, automation: bool) -> Result<(), Fault> {
    let remote: &[_] = if automation { &[] } else { REMOTE };
    let reason = |name: &OsStr| {
        let name = name.to_str()?;
        let matches =
            |pattern: &str| pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start));
        remote.iter().chain(REFUSED).find(|(pattern, _)| matches(pattern)).map(|(_, why)| (name.to_owned(), *why))
    };
    let mut found: Vec<_> =
        environment.filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| reason(&name)).collect();
    if found.is_empty() {
        return Ok(());
    }
    found.sort_unstable();
    let without: String = found.iter().map(|(name, _)| format!(" -u {}", keyward_diag::plain(name, 80))).collect();
    let fault = found
        .iter()
        .fold(Fault::new(Code::DesktopEnvironment), |fault, (name, why)| fault.cause(format!("{name} {why}")));
    Err(fault.help(format!("start it without: env{without} keyward-desktop")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn with(names: &[(&str, &str)], automation: bool) -> Result<(), Fault> {
        refuse(names.iter().map(|(n, v)| ((*n).into(), (*v).into())), automation)
    }

    #[test]
    fn an_ordinary_session_is_let_in() {
        let session = [
            ("HOME", "/home/a"),
            ("DISPLAY", ":0"),
            ("WAYLAND_DISPLAY", "wayland-0"),
            ("GTK_THEME", "Adwaita:dark"),
            ("GTK_IM_MODULE", "ibus"),
            ("GDK_BACKEND", "x11"),
            ("WEBKIT_DISABLE_DMABUF_RENDERER", "1"),
            ("NO_AT_BRIDGE", "1"),
            ("LDFLAGS", "-s"),
            ("LD_PRELOAD", ""),
            ("GTK_MODULES", ""),
        ];
        with(&session, false).unwrap();
    }

    #[test]
    fn each_listed_variable_is_refused_by_name_with_the_remedy() {
        for (pattern, why) in REMOTE.iter().chain(REFUSED) {
            let name = pattern.replace('*', "X_y");
            let fault = with(&[("HOME", "/home/a"), (&name, "1")], false).unwrap_err();
            assert_eq!(fault.code, Code::DesktopEnvironment, "{name}");
            assert_eq!(fault.causes, [format!("{name} {why}")]);
            assert!(fault.help.ends_with(&format!("env -u {name} keyward-desktop")), "{}", fault.help);
        }
    }

    #[test]
    fn all_of_them_are_named_at_once() {
        let fault = with(&[("LD_PRELOAD", "/x.so"), ("GTK_MODULES", "m"), ("LD_AUDIT", "/y.so")], false).unwrap_err();
        assert_eq!(fault.causes.len(), 3);
        assert!(fault.help.contains("env -u GTK_MODULES -u LD_AUDIT -u LD_PRELOAD keyward-desktop"), "{}", fault.help);
    }

    #[test]
    fn automation_lets_in_web_driver_and_nothing_else() {
        for (name, _) in REMOTE {
            with(&[(name, "true")], true).unwrap();
        }
        for (pattern, _) in REFUSED {
            with(&[(&pattern.replace('*', "Z"), "1")], true).unwrap_err();
        }
    }

    #[test]
    fn code_of_somebody_else_is_found_among_what_is_loaded() {
        check_loaded().unwrap();
        let of = |uid| {
            let mut stat = stat("/").unwrap();
            stat.st_uid = uid;
            Some(stat)
        };
        let maps = "55d0-55d1 r-xp 00000000 08:01 1    /usr/bin/keyward-desktop\n\
                    7f00-7f01 r-xp 00000000 08:01 2    /home/a/evil module.so\n\
                    7f01-7f02 rw-p 00000000 08:01 3    /home/a/data\n\
                    7f02-7f03 r-xp 00000000 00:00 0\n\
                    7f03-7f04 r-xp 00000000 00:00 0    [vdso]\n\
                    7f04-7f05 rwxp 00000000 00:01 4    /memfd:jit (deleted)\n";
        let stats = |path: &str| match path {
            "/usr/bin/keyward-desktop" => of(0),
            "/memfd:jit (deleted)" => None,
            _ => of(1000),
        };
        assert_eq!(foreign(maps, 0, stats), BTreeSet::from(["/home/a/evil module.so"]));
        assert_eq!(foreign(maps, 1000, stats), BTreeSet::new(), "whoever owns the program can change it anyway");
    }

    #[test]
    fn packages_are_built_without_automation() {
        let manifest: &str = include_str!("../Cargo.toml");
        let features = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
        let of = |name: &str| {
            features.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('=')).map(str::trim)
        };
        assert_eq!(of("automation"), Some("[]"));
        assert_eq!(of("custom-protocol"), Some("[\"tauri/custom-protocol\"]"));
        assert_eq!(of("default"), None);
        let config: &str = include_str!("../tauri.conf.json");
        assert!(!config.contains("automation"), "no build of the bundler names the feature");
    }
}
