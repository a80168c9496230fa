//! Reads files of others: start files of shells, `.env` files, and small text.
//!
//! Only regular files of at most 1 MiB are read; a FIFO, a device or a folder is told and never waited for. Nothing is
//! executed: a value that a shell would compute is reported as computed. Called by the scanner.

use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest file that is read, in bytes.
pub(crate) const FILE_MAX_BYTES: usize = 1024 * 1024;

/// Reads a file. `None` when there is none; otherwise why it was not read. Bytes that are no UTF-8 are replaced.
///
/// # Errors
/// One sentence for people.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    use rustix::io::Errno;
    // Without O_NONBLOCK, opening a FIFO would wait for somebody who writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(std::io::Error::from(e).to_string()),
    };
    let stat = fstat(&file).map_err(|e| std::io::Error::from(e).to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file".to_owned());
    }
    let too_long = || format!("it is longer than {} KiB", FILE_MAX_BYTES / 1024);
    let size = usize::try_from(stat.st_size).ok().filter(|size| *size <= FILE_MAX_BYTES).ok_or_else(too_long)?;
    let mut bytes = Vec::with_capacity(size + 1);
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(too_long());
    }
    Ok(Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())))
}

/// What a file says about a variable.
#[derive(PartialEq, Eq)]
pub(crate) enum Written {
    /// The value, as the program would have it.
    Plain(String),
    /// A shell makes it out of other things.
    Computed,
    /// Taken away from what was set before.
    Unset,
}

/// A variable of a file.
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) written: Written,
}

/// The assignments in a start file of a POSIX shell, bash or zsh, and in `.envrc`: `NAME=value`, also after `export` and
/// the like, and `unset NAME`.
pub(crate) fn shell(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        let words = words(text, b"$`", true);
        let mut unsets = false;
        for word in words {
            if word.ends_command {
                unsets = false;
            }
            if let Some((name, value)) = word.text.split_once('=').filter(|(name, _)| is_name(name)) {
                let written = if word.computed { Written::Computed } else { Written::Plain(value.to_owned()) };
                found.push(Assignment { name: name.to_owned(), line, written });
            } else if word.text == "unset" {
                unsets = true;
            } else if unsets && is_name(&word.text) {
                found.push(Assignment { name: word.text, line, written: Written::Unset });
            }
        }
    }
    found
}

/// The assignments in a start file of fish: `set -gx NAME value` and `set -e NAME`.
pub(crate) fn fish(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        let words = words(text, b"$(", false);
        for command in words.split(|word| word.ends_command) {
            let Some((_, rest)) = command.split_first().filter(|(first, _)| first.text == "set") else { continue };
            let erases = rest
                .iter()
                .take_while(|w| w.text.starts_with('-'))
                .any(|w| w.text == "--erase" || (!w.text.starts_with("--") && w.text.contains('e')));
            let mut operands = rest.iter().skip_while(|w| w.text.starts_with('-'));
            let Some(name) = operands.next().filter(|w| is_name(&w.text) && !w.computed) else { continue };
            let values: Vec<_> = operands.collect();
            let written = match values.as_slice() {
                _ if erases => Written::Unset,
                [] => Written::Plain(String::new()),
                [one] if !one.computed => Written::Plain(one.text.clone()),
                // A list of several values reaches programs joined, which depends on the name.
                _ => Written::Computed,
            };
            found.push(Assignment { name: name.text.clone(), line, written });
        }
    }
    found
}

/// The assignments in a `.env` file: `NAME=value`, also after `export`, with the value quoted or up to ` #`.
pub(crate) fn dotenv(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        let text = text.strip_prefix("export ").map_or(text, str::trim_start);
        let Some((name, value)) = text.split_once('=') else { continue };
        let (name, value) = (name.trim_end(), value.trim());
        if !is_name(name) {
            continue;
        }
        let written = match value.as_bytes().first() {
            Some(b'\'') => match value[1..].split_once('\'') {
                Some((inner, _)) => Written::Plain(inner.to_owned()),
                None => Written::Computed,
            },
            Some(b'"') => {
                let word = words(value, b"$`", true).into_iter().next();
                word.map_or(Written::Computed, |w| if w.computed { Written::Computed } else { Written::Plain(w.text) })
            }
            _ => {
                let end = value.find(" #").unwrap_or(value.len());
                let value = value[..end].trim_end();
                if value.contains("${") || value.contains("$(") {
                    Written::Computed
                } else {
                    Written::Plain(value.to_owned())
                }
            }
        };
        found.push(Assignment { name: name.to_owned(), line, written });
    }
    found
}

/// Number of the first line that holds `text`, from 1 on.
pub(crate) fn line_of(file: &str, text: &str) -> Option<usize> {
    file.lines().position(|line| line.contains(text)).map(|n| n + 1)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.bytes().all(inner) && !text.bytes().next().is_some_and(|b| b.is_ascii_digit())
}

struct Word {
    text: String,
    /// Holds something that the shell replaces, or goes on in the next line.
    computed: bool,
    /// Stands between two commands; empty.
    ends_command: bool,
}

/// Splits one line as a shell does. `replaced` are the bytes by which a replacement begins outside of single quotes;
/// `escapes` says that a backslash in double quotes stands before `"`, `\`, `$` and a backquote alone.
fn words(line: &str, replaced: &[u8], posix: bool) -> Vec<Word> {
    let mut found = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = line.chars().peekable();
    let fresh = || Word { text: String::new(), computed: false, ends_command: false };
    let replaces = |c: char| u8::try_from(c).is_ok_and(|b| replaced.contains(&b));
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => found.extend(word.take()),
            ';' | '&' | '|' => {
                found.extend(word.take());
                found.push(Word { ends_command: true, ..fresh() });
            }
            // A subshell; in a word that is replaced it belongs to the replacement.
            '(' | ')' if posix && !word.as_ref().is_some_and(|w| w.computed) => found.extend(word.take()),
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let word = word.get_or_insert_with(fresh);
                // $'…' and $"…" have escapes of their own; the `$` has marked the word as computed.
                let mut closed = false;
                while let Some(inner) = chars.next() {
                    if inner == c {
                        closed = true;
                        break;
                    }
                    let escapes = match (c, posix) {
                        ('"', true) => chars.peek().is_some_and(|n| matches!(n, '"' | '\\' | '$' | '`')),
                        ('"', false) => chars.peek().is_some_and(|n| matches!(n, '"' | '\\' | '$')),
                        (_, true) => false,
                        (_, false) => chars.peek().is_some_and(|n| matches!(n, '\'' | '\\')),
                    };
                    if inner == '\\' && escapes {
                        word.text.extend(chars.next());
                        continue;
                    }
                    // In double quotes, fish replaces variables and `$(…)`, but no bare parenthesis.
                    word.computed |= c == '"' && replaces(inner) && (posix || inner == '$');
                    word.text.push(inner);
                }
                word.computed |= !closed;
            }
            '\\' => {
                let word = word.get_or_insert_with(fresh);
                match chars.next() {
                    Some(next) => word.text.push(next),
                    None => word.computed = true,
                }
            }
            _ => {
                let word = word.get_or_insert_with(fresh);
                word.computed |= replaces(c);
                word.text.push(c);
            }
        }
    }
    found.extend(word);
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn told(found: &[Assignment]) -> Vec<String> {
        let one = |a: &Assignment| match &a.written {
            Written::Plain(value) => format!("{}:{}={value}", a.line, a.name),
            Written::Computed => format!("{}:{} computed", a.line, a.name),
            Written::Unset => format!("{}:{} unset", a.line, a.name),
        };
        found.iter().map(one).collect()
    }

    #[test]
    fn start_files_are_read_as_a_shell_reads_them() {
        for (text, want) in [
            ("export A=1", &["1:A=1"][..]),
            ("A=1", &["1:A=1"]),
            ("  export A='a b' B=\"c \\\"d\\\" \\x\" # C=3", &["1:A=a b", "1:B=c \"d\" \\x"]),
            ("# export A=1\n\nexport A=2", &["3:A=2"]),
            ("export A=$(pass show a)", &["1:A computed"]),
            ("export A=`cat f`", &["1:A computed"]),
            ("export A=\"$B\"", &["1:A computed"]),
            ("export A='$B'", &["1:A=$B"]),
            ("export A=\\$B", &["1:A=$B"]),
            ("export A=\"\\$B\"", &["1:A=$B"]),
            ("export A=$'x'", &["1:A computed"]),
            ("export A='begin", &["1:A computed"]),
            ("[ -f x ] && export A=1; B=2", &["1:A=1", "1:B=2"]),
            ("if true; then A=1; fi", &["1:A=1"]),
            ("declare -x A=1", &["1:A=1"]),
            ("export A=", &["1:A="]),
            ("A=1\nunset A B; C=1", &["1:A=1", "2:A unset", "2:B unset", "2:C=1"]),
            ("unset -v A", &["1:A unset"]),
            ("echo A=1x | tr 1 2", &["1:A=1x"]),
            ("export A=a#b", &["1:A=a#b"]),
            ("(export A=1)", &["1:A=1"]),
            ("export A", &[]),
            ("1A=2 =3 a-b=c", &[]),
            ("A=a'b'\"c\"", &["1:A=abc"]),
            ("A=x\\", &["1:A computed"]),
        ] {
            assert_eq!(told(&shell(text)), want, "{text}");
        }
    }

    #[test]
    fn fish_sets_and_erases() {
        for (text, want) in [
            ("set -gx A 1", &["1:A=1"][..]),
            ("set -x -g A 'a b'; set -gx B \"c\"", &["1:A=a b", "1:B=c"]),
            ("set --export A 1 # B", &["1:A=1"]),
            ("set -gx A (pass show a)", &["1:A computed"]),
            ("set -gx A $B", &["1:A computed"]),
            ("set -gx A \"(b)\"", &["1:A=(b)"]),
            ("set -gx A 'it\\'s'", &["1:A=it's"]),
            ("set -gx A a b", &["1:A computed"]),
            ("set -gx A", &["1:A="]),
            ("set -e A", &["1:A unset"]),
            ("export A=1", &[]),
            ("if set -q A; echo x; end", &[]),
        ] {
            assert_eq!(told(&fish(text)), want, "{text}");
        }
    }

    #[test]
    fn env_files_are_read_as_their_loaders_do() {
        for (text, want) in [
            ("A=1\nB = 2", &["1:A=1", "2:B=2"][..]),
            ("export A=1", &["1:A=1"]),
            ("A=a b # c", &["1:A=a b"]),
            ("A=a#b", &["1:A=a#b"]),
            ("A='a # b' # c", &["1:A=a # b"]),
            ("A=\"a # \\\"b\"", &["1:A=a # \"b"]),
            ("A=${B}", &["1:A computed"]),
            ("A=\"$B\"", &["1:A computed"]),
            ("A=pa$$word", &["1:A=pa$$word"]),
            ("A=", &["1:A="]),
            ("A=\"open", &["1:A computed"]),
            ("#A=1\n A=2\r", &["2:A=2"]),
            ("no assignment", &[]),
        ] {
            assert_eq!(told(&dotenv(text)), want, "{text}");
        }
    }

    #[test]
    fn only_bounded_regular_files_are_read() {
        let root = std::env::temp_dir().join(format!("keyward-text-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        assert_eq!(read(&root.join("none")), Ok(None));
        assert!(read(&root).is_err_and(|e| e.contains("regular")));
        let fifo = root.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(read(&fifo).is_err_and(|e| e.contains("regular")), "a FIFO without a writer does not hang");
        let file = root.join("file");
        std::fs::write(&file, b"a\xffb").unwrap();
        assert_eq!(read(&file), Ok(Some("a\u{fffd}b".to_owned())));
        assert_eq!(read(&file.join("below")), Ok(None));
        std::fs::write(&file, vec![b'x'; FILE_MAX_BYTES]).unwrap();
        assert!(read(&file).is_ok());
        std::fs::write(&file, vec![b'x'; FILE_MAX_BYTES + 1]).unwrap();
        assert!(read(&file).is_err_and(|e| e.contains("1024 KiB")));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
