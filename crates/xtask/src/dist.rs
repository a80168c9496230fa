//! `cargo xtask dist DIR`: the release binaries as users get them.
//!
//! `keyward` is linked statically by a cargo call of its own with a target folder of its own, since cargo takes the flags
//! for a whole call and rebuilds everything when they change. Never puts a binary with fault points, or a `keyward` that
//! needs a loader, into DIR. Called by hand, by `demo` and by `bench`.

use crate::setup::setup;
use crate::workspace::{Workspace, output, replace, succeed};
use std::path::Path;
use std::process::Command;

/// Text that only a binary with fault points holds.
const FAULT_MARK: &[u8] = b"KEYWARD_FAULT";

/// How `keyward` is compiled. Every run waits for its start, and finding out what this processor can do traps into the hypervisor of
/// a virtual machine, a tenth of a millisecond in all: for the few bytes that it hashes and parses the plain code is quick enough.
const START_FLAGS: &str = "-C target-feature=+crt-static --cfg sha2_backend=\"soft\" --cfg httparse_disable_simd";

/// Builds what changed and puts `keyward`, `keyward-broker` and `keyward-sandbox` into `dir`, each by a rename.
///
/// `vendored`: OpenSSL is built from source and linked statically into the broker.
pub(crate) fn dist(workspace: &Workspace, dir: &Path, vendored: bool) -> Result<(), String> {
    let groups: &[&str] = if vendored { &["build", "vendored"] } else { &["build"] };
    setup(workspace, groups, false)?;

    let host = host()?;
    let static_target = workspace.target.join("static");
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push(' ');
    flags.push_str(START_FLAGS);
    let mut cli = workspace.cargo(&["build", "--release", "--locked", "--package", "keyward-cli", "--bin", "keyward"]);
    cli.args(["--target", &host]).env("CARGO_TARGET_DIR", &static_target);
    cli.env("RUSTFLAGS", flags.trim()).env_remove("CARGO_ENCODED_RUSTFLAGS");
    succeed(&mut cli)?;

    let mut others = workspace.cargo(&["build", "--release", "--locked"]);
    others.args(["--package", "keyward-broker", "--bin", "keyward-broker"]);
    others.args(["--package", "keyward-sandbox", "--bin", "keyward-sandbox"]);
    if vendored {
        others.args(["--features", "keyward-broker/vendored"]);
    }
    succeed(&mut others)?;

    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let release = workspace.target.join("release");
    install(&static_target.join(host).join("release/keyward"), dir, true)?;
    install(&release.join("keyward-broker"), dir, false)?;
    install(&release.join("keyward-sandbox"), dir, false)
}

/// The triple of this machine, as `rustc -vV` says.
pub(crate) fn host() -> Result<String, String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".into())
}

/// Copies one binary, unless DIR holds the same bytes already.
fn install(built: &Path, dir: &Path, must_be_static: bool) -> Result<(), String> {
    let name = built.file_name().ok_or("a binary without a name")?;
    let bytes = std::fs::read(built).map_err(|e| format!("{}: {e}", built.display()))?;
    let to = dir.join(name);
    if std::fs::read(&to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if contains(&bytes, FAULT_MARK) {
        return Err(format!("{} was built with fault points", built.display()));
    }
    if must_be_static && wants_loader(&bytes)? {
        return Err(format!("{} is not linked statically", built.display()));
    }
    replace(&to, &bytes, 0o755)?;
    println!("dist: {} ({} KiB)", to.display(), bytes.len() / 1024);
    Ok(())
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    let Some((first, rest)) = mark.split_first() else { return true };
    let mut at = bytes;
    while let Some(n) = at.iter().position(|b| b == first) {
        at = &at[n + 1..];
        if at.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Whether an ELF file of 64 bits, little endian, has a program header PT_INTERP: a static one has none, position
/// independent or not (System V ABI, chapter 5).
fn wants_loader(elf: &[u8]) -> Result<bool, String> {
    const PT_INTERP: u64 = 3;
    let field = |at: usize, bytes: usize| -> Result<u64, String> {
        let end = at.checked_add(bytes).ok_or("the ELF file is damaged")?;
        let raw = elf.get(at..end).ok_or("the ELF file is cut short")?;
        Ok(raw.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err("not an ELF file of 64 bits, little endian".into());
    }
    let (table, size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
    for n in 0..count {
        let at =
            table.checked_add(n * size).and_then(|at| usize::try_from(at).ok()).ok_or("the ELF file is damaged")?;
        if field(at, 4)? == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        assert!(contains(b"KEYWARD_FAULT", FAULT_MARK));
        assert!(contains(b"KKEYKEYWARD_FAULT_AT", FAULT_MARK));
        assert!(!contains(b"KEYWARD_FAUL", FAULT_MARK));
        assert!(!contains(b"", FAULT_MARK));
    }

    #[test]
    fn a_loader_is_seen_in_this_very_program_and_damage_is_an_error() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(wants_loader(&me), Ok(!cfg!(target_feature = "crt-static")));
        assert!(wants_loader(&me[..60]).is_err());
        let mut wild = me[..64].to_vec();
        wild[32..40].fill(0xff);
        assert!(wants_loader(&wild).is_err());
        assert!(wants_loader(b"#!/bin/sh\n").is_err());
    }
}
