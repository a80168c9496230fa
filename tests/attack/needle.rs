//! Looking for secrets in bytes, in every form in which they could have been written down.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE_BYTES: usize = 4096;

/// Bytes to look for, and what they are.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// A set of needles.
#[derive(Default)]
pub(crate) struct Search {
    needles: Vec<Needle>,
    /// Whether a needle begins with these two bytes.
    heads: Vec<bool>,
    longest: usize,
}

impl Search {
    /// Looks for `bytes` as they are, in hexadecimal digits of both cases, reversed, and in base64 of both alphabets at all
    /// three offsets.
    pub(crate) fn all_forms(&mut self, what: &str, bytes: &[u8]) {
        self.memory_forms(what, bytes);
        self.add(format!("{what}, reversed"), bytes.iter().rev().copied().collect());
        for before in 0..3 {
            for (name, engine) in [("base64", &STANDARD), ("base64url", &URL_SAFE)] {
                let text = engine.encode([&vec![0; before][..], bytes].concat());
                // The first and the last group depend on the neighbours.
                let start = if before == 0 { 0 } else { 4 };
                let inner = text.as_bytes()[start..text.len() - 4].to_vec();
                self.add(format!("{what}, {name} at offset {before}"), inner);
            }
        }
    }

    /// Looks for `bytes` as they are and in hexadecimal digits of both cases.
    pub(crate) fn memory_forms(&mut self, what: &str, bytes: &[u8]) {
        self.add(what.to_owned(), bytes.to_vec());
        self.add(format!("{what}, hex"), hex::encode(bytes).into_bytes());
        self.add(format!("{what}, HEX"), hex::encode_upper(bytes).into_bytes());
    }

    fn add(&mut self, what: String, bytes: Vec<u8>) {
        assert!(bytes.len() >= 7, "{what} would be found by chance");
        self.heads.resize(1 << 16, false);
        self.heads[head(bytes[0], bytes[1])] = true;
        self.longest = self.longest.max(bytes.len());
        self.needles.push(Needle { what, bytes });
    }

    /// What stands in `bytes`, and where.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<(&str, usize)> {
        let mut found = Vec::new();
        for (page, start) in (0..bytes.len()).step_by(PAGE_BYTES).enumerate() {
            let end = (start + PAGE_BYTES).min(bytes.len());
            debug_assert_eq!(start, page * PAGE_BYTES);
            // A key that begins in an empty page begins with a zero: too rare to pay for.
            if bytes[start..end] == [0; PAGE_BYTES][..end - start] {
                continue;
            }
            let reach = &bytes[start..(end + 1).min(bytes.len())];
            for (at, pair) in reach.windows(2).enumerate() {
                if self.heads[head(pair[0], pair[1])] {
                    let here = &bytes[start + at..];
                    let hits = self.needles.iter().filter(|n| here.starts_with(&n.bytes));
                    found.extend(hits.map(|n| (n.what.as_str(), start + at)));
                }
            }
        }
        found
    }

    /// Fails the test when anything stands in `text`.
    #[track_caller]
    pub(crate) fn refuse(&self, place: &str, text: &[u8]) {
        assert_eq!(self.find(text), [], "in {place}: {}", String::from_utf8_lossy(text));
    }

    /// What stands in the readable memory of a process, with the mapping. Needs the right to read it.
    #[track_caller]
    pub(crate) fn find_in_memory(&self, pid: i32) -> Vec<String> {
        const STEP: u64 = 1 << 20;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let (mut found, mut seen) = (Vec::new(), 0);
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
            if !mode.starts_with('r') || line.contains("[vvar") || line.contains("[vsyscall]") {
                continue;
            }
            let (first, end) = range.split_once('-').unwrap();
            let [first, end] = [first, end].map(|digits| u64::from_str_radix(digits, 16).unwrap());
            for at in (first..end).step_by(STEP as usize) {
                let length = (STEP + self.longest as u64).min(end - at) as usize;
                let mut bytes = vec![0; length];
                let read = memory.read_at(&mut bytes, at).unwrap_or(0);
                seen += read;
                let hits = self.find(&bytes[..read]).into_iter().filter(|(_, offset)| (*offset as u64) < STEP);
                found.extend(hits.map(|(what, offset)| {
                    let around = &bytes[offset.saturating_sub(32)..(offset + 64).min(read)];
                    format!("{what} at {:x} in {line}: {}", at + offset as u64, around.escape_ascii())
                }));
            }
        }
        assert!(seen > 1 << 20, "only {seen} bytes of process {pid} could be read");
        found
    }
}

fn head(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// All regular files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => out.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => out.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
    out
}

#[test]
fn every_form_is_found_wherever_it_stands() {
    let secret = b"c4n4ry-s3cret-value-777";
    let mut search = Search::default();
    search.all_forms("value", secret);
    let reversed: Vec<u8> = secret.iter().rev().copied().collect();
    let mut texts = vec![secret.to_vec(), reversed, hex::encode(secret).into(), hex::encode_upper(secret).into()];
    for before in 0..4 {
        let padded = [&b"abcd"[..before], secret, b"xy"].concat();
        texts.extend([STANDARD.encode(&padded).into_bytes(), URL_SAFE.encode(&padded).into_bytes()]);
    }
    for text in &texts {
        for before in [0, 1, 4090, 8191] {
            let bytes = [&vec![b'.'; before][..], text, b"...."].concat();
            assert!(!search.find(&bytes).is_empty(), "{} after {before}", text.escape_ascii());
        }
    }
    assert_eq!(search.find(&[b'c'; 9000]), []);
}
