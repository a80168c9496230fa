//! A display: the one of the person who started the task, or Xvfb.
//!
//! Xvfb keeps its picture in a file, which is read without asking the server, so a look costs the program that is watched
//! nothing. Never opens a display to the network; the server ends with its value. Called by `app`, `demo`, `bench` and
//! `package`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Variables by which a program finds a display.
pub(crate) type Variables = Vec<(&'static str, OsString)>;

/// The display of this terminal, or none.
///
/// A Wayland socket is named by its whole path, since the program gets another `XDG_RUNTIME_DIR`.
pub(crate) fn own() -> Option<Variables> {
    let set = |name: &'static str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut variables = Variables::new();
    if let Some(socket) = set("WAYLAND_DISPLAY") {
        let path = set("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(&socket), |run| Path::new(&run).join(&socket));
        variables.push(("WAYLAND_DISPLAY", path.into()));
    }
    // The last one is set by people whose graphics card WebKit cannot take.
    for name in ["DISPLAY", "XAUTHORITY", "WEBKIT_DISABLE_DMABUF_RENDERER"] {
        variables.extend(set(name).map(|value| (name, value)));
    }
    if !variables.iter().any(|(name, _)| matches!(*name, "DISPLAY" | "WAYLAND_DISPLAY")) {
        return None;
    }
    // Without it an X server finds its cookie by the home folder, which is another one here.
    if !variables.iter().any(|(name, _)| *name == "XAUTHORITY")
        && let Some(home) = set("HOME")
    {
        let cookie = Path::new(&home).join(".Xauthority");
        variables.extend(cookie.exists().then(|| ("XAUTHORITY", cookie.into())));
    }
    Some(variables)
}

/// A display without a screen.
pub(crate) struct Xvfb {
    server: Child,
    name: String,
    picture: PathBuf,
}

impl Xvfb {
    /// Starts one of 1280 × 800 whose picture is kept in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let mut command = Command::new("Xvfb");
        command.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            "1280x800x24",
            "-nolisten",
            "tcp",
            "-noreset",
            "-ac",
            "-fbdir",
        ]);
        command.arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().map_err(|e| format!("Xvfb: {e}"))?;
        let mut number = String::new();
        if let Some(out) = server.stdout.take() {
            BufReader::new(out).read_line(&mut number).map_err(|e| format!("Xvfb: {e}"))?;
        }
        let screen = Self { server, name: format!(":{}", number.trim()), picture: folder.join("Xvfb_screen0") };
        if number.trim().is_empty() { Err("Xvfb did not start".into()) } else { Ok(screen) }
    }

    /// What a program needs to show itself here. WebKit's shared pictures do not reach a display without a graphics card.
    pub(crate) fn variables(&self) -> Variables {
        vec![
            ("DISPLAY", self.name.clone().into()),
            ("WEBKIT_DISABLE_DMABUF_RENDERER", "1".into()),
            ("NO_AT_BRIDGE", "1".into()),
        ]
    }

    /// Everything that is shown at this moment.
    pub(crate) fn look(&self) -> Result<Picture, String> {
        let fault = |e: std::io::Error| format!("{}: {e}", self.picture.display());
        let file = std::fs::File::open(&self.picture).map_err(fault)?;
        let mut bytes = vec![0; usize::try_from(file.metadata().map_err(fault)?.len()).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map_err(fault)?;
        Picture::read(bytes).ok_or_else(|| format!("{}: not a picture of 32 bits a point", self.picture.display()))
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The points of a display, in the form of X11/XWDFile.h.
#[derive(PartialEq, Eq)]
pub(crate) struct Picture {
    bytes: Vec<u8>,
    begin: usize,
    line: usize,
}

impl Picture {
    fn read(bytes: Vec<u8>) -> Option<Self> {
        let field = |n: usize| {
            let raw = bytes.get(4 * n..4 * n + 4)?;
            usize::try_from(u32::from_be_bytes(raw.try_into().ok()?)).ok()
        };
        let begin = field(0)?.checked_add(field(19)?.checked_mul(12)?)?;
        let line = field(12)?;
        let size = field(5)?.checked_mul(line)?;
        let whole = field(1)? == 7 && field(11)? == 32 && line > 0 && bytes.len() >= begin.checked_add(size)?;
        whole.then_some(Self { bytes, begin, line })
    }

    /// How many lines are not as in the other picture.
    pub(crate) fn differs(&self, other: &Self) -> usize {
        if self == other {
            return 0;
        }
        let (mine, its) = (&self.bytes[self.begin..], &other.bytes[other.begin..]);
        mine.chunks_exact(self.line).zip(its.chunks_exact(self.line)).filter(|(a, b)| a != b).count()
    }

    /// How many different colours there are, counted up to `most`.
    pub(crate) fn colours(&self, most: usize) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        let mut last = None;
        for point in self.bytes[self.begin..].chunks_exact(4) {
            if last != Some(point) {
                seen.insert(point);
                last = Some(point);
                if seen.len() >= most {
                    break;
                }
            }
        }
        seen.len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn header(width: u32, height: u32) -> Vec<u8> {
        let mut fields = [0_u32; 25];
        (fields[0], fields[1], fields[4], fields[5]) = (100, 7, width, height);
        (fields[11], fields[12]) = (32, 4 * width);
        fields.iter().flat_map(|field| field.to_be_bytes()).collect()
    }

    #[test]
    fn colours_are_counted_and_a_damaged_picture_is_none() {
        let mut bytes = header(2, 2);
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        let picture = Picture::read(bytes.clone()).unwrap();
        assert_eq!((picture.colours(9), picture.colours(2)), (3, 2));
        let mut other = bytes.clone();
        other[112] = 9;
        assert_eq!(picture.differs(&Picture::read(other).unwrap()), 1);
        assert_eq!(picture.differs(&Picture::read(bytes.clone()).unwrap()), 0);
        assert!(Picture::read(bytes[..bytes.len() - 1].to_vec()).is_none());
        let mut wild = bytes;
        wild[76..80].fill(0xff);
        assert!(Picture::read(wild).is_none());
        assert!(Picture::read(Vec::new()).is_none());
    }
}
