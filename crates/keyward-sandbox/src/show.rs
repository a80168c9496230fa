//! A child that says which credentials it holds, without showing one.
//!
//! The fingerprint is the first eight hex digits of SHA-256 of the value: enough to tell two credentials apart, useless
//! for whoever reads it. Never prints a value, whole or in part.

use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

/// Largest file that is read, in bytes; twice what Keyward delivers.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Makes the line `child: got <variable> (<fingerprint>)` of each variable; of one whose name ends in `_FILE`, the
/// fingerprint is that of the content of the file that it names.
///
/// Fails at the first variable that is not set, and at a file that cannot be read or is larger than 64 KiB.
pub(crate) fn show(variables: &[String]) -> Result<String, String> {
    lines(variables, |name| std::env::var_os(name))
}

fn lines(variables: &[String], var: impl Fn(&str) -> Option<OsString>) -> Result<String, String> {
    let mut text = String::new();
    for name in variables {
        let value = var(name).ok_or_else(|| format!("{} is not set", name.escape_debug()))?;
        let print = if name.ends_with("_FILE") { of_file(name, &value)? } else { fingerprint(value.as_bytes()) };
        text.push_str(&format!("child: got {name} ({print})\n"));
    }
    Ok(text)
}

fn of_file(name: &str, path: &OsString) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("the file of {name}: {e}"))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("the file of {name} is larger than {FILE_MAX_BYTES} bytes"));
    }
    Ok(fingerprint(&bytes))
}

/// First eight hex digits of SHA-256.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(bytes));
    digits.truncate(8);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: Option<&str>) -> Result<String, String> {
        lines(&[name.to_owned()], |_| value.map(OsString::from))
    }

    #[test]
    fn a_variable_is_shown_by_fingerprint_alone() {
        // SHA-256 of "abc" begins with ba7816bf (FIPS 180-4, example 1).
        assert_eq!(check("KEY", Some("abc")), Ok("child: got KEY (ba7816bf)\n".into()));
        assert_eq!(check("KEY", None), Err("KEY is not set".into()));
    }

    #[test]
    fn a_file_variable_is_shown_by_the_content_and_errors_name_no_path() {
        // SHA-256 of the empty string begins with e3b0c442.
        assert_eq!(check("A_FILE", Some("/dev/null")), Ok("child: got A_FILE (e3b0c442)\n".into()));
        assert!(check("A_FILE", Some("/dev/zero")).is_err_and(|e| e.contains("larger")));
        assert!(check("A_FILE", Some("/no/such/s3cret")).is_err_and(|e| !e.contains("s3cret")));
    }
}
