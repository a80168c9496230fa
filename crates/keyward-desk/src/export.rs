//! Writes an export of the log to a file: private, complete or not at all.
//!
//! Called by the command that exports.

use keyward_api::ExportRequest;
use keyward_api::place::Places;
use keyward_client::{Client, Start};
use keyward_diag::{Code, Fault};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Exports into `path`, as JSON Lines, and gives the number of entries; the last line is the signed trailer and counts not.
///
/// # Errors
/// Those of the broker; [`Code::FileUnreadable`] for a file that cannot be written. Then there is no file, and one that was
/// there before is as it was.
pub(crate) fn export(places: &Places, request: &ExportRequest, path: &Path) -> Result<u64, Fault> {
    let fault = |e: std::io::Error| {
        Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", crate::look::name(&path.display().to_string(), 300)))
    };
    let client = Client::connect(places, Start::Never)?;
    let body = keyward_client::document(request)?;
    let part = Part::create(path).map_err(fault)?;
    let mut out = BufWriter::new(&part.file);
    let mut last = Last::default();
    client.stream("/v1/audit/export", Some(&body), |piece| {
        last.feed(piece);
        out.write_all(piece).map_err(fault)
    })?;
    out.flush().map_err(fault)?;
    drop(out);
    let entries = last.trailer().ok_or_else(|| {
        Fault::new(Code::BrokerUnreachable).cause("the export broke off before its end").help("export it anew")
    })?;
    part.file.sync_all().map_err(fault)?;
    part.put(path).map_err(fault)?;
    Ok(entries)
}

/// The last whole line of a stream, at most [`Last::MAX_BYTES`] long.
#[derive(Default)]
struct Last {
    line: Vec<u8>,
    /// The next byte begins another line.
    ended: bool,
}

impl Last {
    const MAX_BYTES: usize = 64 * 1024;

    fn feed(&mut self, piece: &[u8]) {
        for line in piece.split_inclusive(|b| *b == b'\n') {
            if std::mem::replace(&mut self.ended, line.ends_with(b"\n")) {
                self.line.clear();
            }
            let room = Self::MAX_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&line[..line.len().min(room)]);
        }
    }

    /// The number of entries that the trailer tells; `None` when the last line is none.
    fn trailer(&self) -> Option<u64> {
        let line: serde_json::Value = serde_json::from_slice(&self.line).ok().filter(|_| self.ended)?;
        line["trailer"]["count"].as_u64()
    }
}

/// A file beside the one that it becomes; removed on drop unless it was put in place.
struct Part {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Part {
    fn create(path: &Path) -> std::io::Result<Self> {
        let mut name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, placed: false })
    }

    fn put(mut self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.placed {
            // The fault that led here is what counts.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_export_that_ends_with_its_trailer_is_whole() {
        let text = b"{\"seq\":1}\n{\"seq\":2}\n{\"trailer\":{\"count\":2}}\n";
        for step in [1, 2, 7, 100] {
            let of = |bytes: &[u8]| {
                let mut last = Last::default();
                bytes.chunks(step).for_each(|piece| last.feed(piece));
                last.trailer()
            };
            assert_eq!(of(text), Some(2));
            assert_eq!(of(&text[..text.len() - 1]), None, "cut in the trailer");
            assert_eq!(of(b"{\"seq\":1}\n"), None);
            assert_eq!(of(b""), None);
        }
    }
}
