//! `cargo xtask package`: the release as a package of Debian and as an RPM, made by the tools of those systems.
//!
//! Both hold the desktop, the command line and the broker side by side, a desktop entry, icons, manual pages and completions,
//! and no script that runs when they are installed or removed. Never packages a desktop that WebDriver may drive, or a binary
//! with fault points. The packages fit systems that are no older than the one that builds. Called by hand and by the public
//! workflow.

use crate::desktop;
use crate::dist::{self, dist};
use crate::licences;
use crate::setup::setup;
use crate::ui;
use crate::workspace::{Workspace, output, read, replace, succeed};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod clean;

/// The programs that are linked to libraries of the system.
const LINKED: [&str; 2] = ["keyward-broker", desktop::NAME];

/// What both kinds of package say about themselves.
const SUMMARY: &str = "vault and broker for the credentials of coding agents";
const DESCRIPTION: [&str; 3] = [
    "Keyward keeps profiles in an encrypted vault, gives programs short-lived credentials",
    "when they start, keeps them fresh while they live, takes them back when they end, and",
    "records every step in a chained log. It talks to no host that a profile does not name.",
];
const HOME_PAGE: &str = "https://github.com/keyward/keyward";

/// Builds both packages into `dir`; with `check` besides installs, starts and removes that of Debian in a clean system.
pub(crate) fn package(workspace: &Workspace, dir: Option<PathBuf>, check: bool) -> Result<(), String> {
    setup(workspace, &["build", "desktop", "package"], false)?;
    let dir = dir.unwrap_or_else(|| workspace.target.join("package"));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let work = workspace.target.join("packaging");
    let stage = stage(workspace, &work)?;
    let about = About::of(workspace)?;
    let deb = deb(&about, &work, &stage, &dir)?;
    rpm(&about, &work, &stage, &dir)?;
    if check { clean::check(workspace, &deb) } else { Ok(()) }
}

/// Version and time of what is packaged.
struct About {
    version: String,
    /// Seconds since 1970 of the last commit, so that the same sources give the same package.
    time: String,
}

impl About {
    fn of(workspace: &Workspace) -> Result<Self, String> {
        let packages = workspace.metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let desktop = packages.iter().find(|package| package["name"] == desktop::NAME);
        let version = desktop.and_then(|package| package["version"].as_str()).ok_or("no version of the desktop")?;
        let mut git = Command::new("git");
        let time = output(git.current_dir(&workspace.root).args(["log", "-1", "--format=%ct"]))?;
        Ok(Self { version: version.to_owned(), time: time.trim().to_owned() })
    }
}

/// Puts every file of the package below a folder as it will lie below `/`, and gives the folder.
fn stage(workspace: &Workspace, work: &Path) -> Result<PathBuf, String> {
    let stage = work.join("root");
    let _ = std::fs::remove_dir_all(work);
    let bin = workspace.target.join("dist");
    dist(workspace, &bin, false)?;
    let desktop = desktop::release(workspace, false)?;
    ui::limit(workspace)?;
    put(&stage, "usr/bin/keyward", &bytes(&bin.join("keyward"))?, 0o755)?;
    put(&stage, "usr/bin/keyward-broker", &bytes(&bin.join("keyward-broker"))?, 0o755)?;
    put(&stage, "usr/bin/keyward-desktop", &bytes(&desktop)?, 0o755)?;

    let from = workspace.root.join("src-tauri/package");
    let data = |file: &str| bytes(&from.join(file));
    put(&stage, "usr/share/applications/keyward-desktop.desktop", &data("keyward-desktop.desktop")?, 0o644)?;
    put(&stage, "usr/share/metainfo/io.github.keyward.metainfo.xml", &data("io.github.keyward.metainfo.xml")?, 0o644)?;
    put(&stage, "usr/share/doc/keyward/copyright", &data("copyright")?, 0o644)?;
    let icons = workspace.root.join("icons");
    put(&stage, "usr/share/icons/hicolor/scalable/apps/keyward.svg", &bytes(&icons.join("keyward.svg"))?, 0o644)?;
    for size in [16, 22, 24, 32, 48, 64, 128, 256, 512] {
        let icon = bytes(&icons.join(format!("png/keyward-{size}.png")))?;
        put(&stage, &format!("usr/share/icons/hicolor/{size}x{size}/apps/keyward.png"), &icon, 0o644)?;
    }

    let keyward = bin.join("keyward");
    let pages = work.join("man");
    std::fs::create_dir_all(&pages).map_err(|e| format!("{}: {e}", pages.display()))?;
    succeed(Command::new(&keyward).args(["man", "--dir"]).arg(&pages))?;
    for page in std::iter::once(from.join("keyward-desktop.1")).chain(files(&pages)?) {
        let name = page.file_name().and_then(|name| name.to_str()).ok_or("a manual page without a name")?;
        put(&stage, &format!("usr/share/man/man1/{name}.gz"), &packed(&bytes(&page)?)?, 0o644)?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/keyward"),
        ("zsh", "usr/share/zsh/vendor-completions/_keyward"),
        ("fish", "usr/share/fish/vendor_completions.d/keyward.fish"),
    ] {
        let script = output(Command::new(&keyward).args(["completion", shell]))?;
        put(&stage, place, script.as_bytes(), 0o644)?;
    }
    let changes = read(&workspace.root.join("crates/CHANGELOG.md"))?;
    put(&stage, "usr/share/doc/keyward/changelog.gz", &packed(changes.as_bytes())?, 0o644)?;
    let third = licences::text(workspace, &["keyward-cli", "keyward-broker", desktop::NAME], &dist::host()?)?;
    put(&stage, "usr/share/doc/keyward/third-party.gz", &packed(third.as_bytes())?, 0o644)?;
    Ok(stage)
}

/// Builds the package of Debian with dpkg-deb; what it depends on is what dpkg-shlibdeps reads from the programs.
fn deb(about: &About, work: &Path, stage: &Path, dir: &Path) -> Result<PathBuf, String> {
    let root = work.join("deb");
    succeed(Command::new("cp").arg("-a").arg(stage).arg(&root))?;
    let files = below(&root)?;
    // It wants a source package around it, and the folder of a package above the programs.
    let asked = work.join("shlibdeps");
    put(&asked, "debian/control", b"Source: keyward\n\nPackage: keyward\nArchitecture: any\n", 0o644)?;
    put(&root, "DEBIAN/control", b"", 0o644)?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps.current_dir(&asked).arg("-O");
    for program in LINKED {
        shlibdeps.arg(format!("-e{}", root.join("usr/bin").join(program).display()));
    }
    let said = output(&mut shlibdeps)?;
    let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    let depends = depends.ok_or_else(|| format!("dpkg-shlibdeps: shlibs:Depends expected, seen: {said}"))?;

    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let mut sums = String::new();
    let mut size = 0;
    for file in files {
        let sum = output(Command::new("md5sum").current_dir(&root).arg(&file))?;
        sums.push_str(&sum);
        size += std::fs::metadata(root.join(&file)).map_err(|e| format!("{file}: {e}"))?.len();
    }
    let control = format!(
        "Package: keyward\nVersion: {}\nArchitecture: {architecture}\nMaintainer: Keyward <{HOME_PAGE}>\n\
         Installed-Size: {}\nDepends: {depends}\nSuggests: gnome-keyring, x-terminal-emulator\nSection: utils\n\
         Priority: optional\nHomepage: {HOME_PAGE}\nDescription: {SUMMARY}\n {}\n",
        about.version,
        size.div_ceil(1024),
        DESCRIPTION.join("\n "),
    );
    put(&root, "DEBIAN/control", control.as_bytes(), 0o644)?;
    put(&root, "DEBIAN/md5sums", sums.as_bytes(), 0o644)?;
    let package = dir.join(format!("keyward_{}_{architecture}.deb", about.version));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&package);
    succeed(build.env("SOURCE_DATE_EPOCH", &about.time).stdout(Stdio::null()))?;
    println!("package: {} ({} KiB)", package.display(), bytes(&package)?.len() / 1024);
    Ok(package)
}

/// Builds the RPM with rpmbuild, which finds out itself what it depends on.
fn rpm(about: &About, work: &Path, stage: &Path, dir: &Path) -> Result<(), String> {
    let root = work.join("rpm-root");
    succeed(Command::new("cp").arg("-a").arg(stage).arg(&root))?;
    // The folder of completions that other systems have for zsh.
    let zsh = root.join("usr/share/zsh");
    std::fs::rename(zsh.join("vendor-completions"), zsh.join("site-functions"))
        .map_err(|e| format!("{}: {e}", zsh.display()))?;
    let files = below(&root)?;
    let mut spec = format!(
        "%define debug_package %{{nil}}\n%define __os_install_post %{{nil}}\n%define _build_id_links none\n\
         %define _binary_payload w6.xzdio\n\
         Name: keyward\nVersion: {}\nRelease: 1\nSummary: {SUMMARY}\nLicense: Apache-2.0\nURL: {HOME_PAGE}\n\n\
         %description\n{}\n\n%install\ncp -a \"{}/.\" \"%{{buildroot}}/\"\n\n%files\n",
        about.version,
        DESCRIPTION.join("\n"),
        root.display()
    );
    for file in &files {
        spec.push_str(&format!("\"/{file}\"\n"));
    }
    let recipe = work.join("keyward.spec");
    replace(&recipe, spec.as_bytes(), 0o644)?;
    let top = work.join("rpmbuild");
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet", "--nodeps", "--define"]).arg(format!("_topdir {}", top.display()));
    build.args(["--define", "use_source_date_epoch_as_buildtime 1", "--define", "clamp_mtime_to_source_date_epoch 1"]);
    build.args(["--define", "_buildhost keyward"]).arg(&recipe).env("SOURCE_DATE_EPOCH", &about.time);
    let log = build.stdin(Stdio::null()).output().map_err(|e| format!("rpmbuild: {e}"))?;
    if !log.status.success() {
        return Err(format!("rpmbuild: {}: {}", log.status, String::from_utf8_lossy(&log.stderr).trim_end()));
    }
    let made = below(&top.join("RPMS"))?;
    let [made] = made.as_slice() else { return Err(format!("one RPM expected, seen: {made:?}")) };
    let made = top.join("RPMS").join(made);
    let package = dir.join(made.file_name().ok_or("an RPM without a name")?);
    std::fs::copy(&made, &package).map_err(|e| format!("{}: {e}", package.display()))?;
    let list = output(Command::new("rpm").args(["-qpl", "--nosignature"]).arg(&package))?;
    let listed: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix('/')).collect();
    if listed != files {
        return Err(format!("{}: {files:?} expected, seen: {listed:?}", package.display()));
    }
    println!("package: {} ({} KiB)", package.display(), bytes(&package)?.len() / 1024);
    Ok(())
}

/// Writes a file below `root`, with folders of mode 0755 whatever the umask is.
fn put(root: &Path, place: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
    let path = root.join(place);
    let mut folder = root.to_owned();
    for part in Path::new(place).parent().into_iter().flat_map(Path::components) {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("{}: {e}", folder.display()))?;
        folder.push(part);
    }
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)))
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    replace(&path, bytes, mode)
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// `bytes` as gzip writes them, without name and time.
fn packed(bytes: &[u8]) -> Result<Vec<u8>, String> {
    use std::io::{Read, Write};
    let fault = |e: std::io::Error| format!("gzip: {e}");
    let mut gzip = Command::new("gzip");
    let gzip = gzip.args(["-9", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut gzip = gzip.map_err(fault)?;
    let (input, out) = (gzip.stdin.take(), gzip.stdout.take());
    let packed = std::thread::scope(|scope| {
        scope.spawn(move || input.map(|mut input| input.write_all(bytes)));
        let mut packed = Vec::new();
        out.map_or(Ok(0), |mut out| out.read_to_end(&mut packed)).map(|_| packed)
    });
    let status = gzip.wait().map_err(fault)?;
    if status.success() { packed.map_err(fault) } else { Err(format!("gzip: {status}")) }
}

/// The files of a folder, without those below it, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// The files below a folder, by their paths relative to it, sorted.
fn below(folder: &Path) -> Result<Vec<String>, String> {
    let list = output(Command::new("find").current_dir(folder).args([".", "-type", "f", "-printf", "%P\\0"]))?;
    let mut files: Vec<String> = list.split_terminator('\0').map(str::to_owned).collect();
    files.sort_unstable();
    Ok(files)
}
