//! Opens a file that nobody but its owner, root and this user can have put there.
//!
//! The path is walked folder by folder on open descriptors, so that nothing can be swapped between a check and its use.
//! Links are followed, since Kubernetes projects a token as `token → ..data/token → ..TIMESTAMP/token` and swaps `..data`;
//! but only links, through folders and to a file of root or of this user, and through no folder that others can write to.
//! In a sticky folder others can only add, and what they add is theirs. Called by the identity source `file` and by [`crate::own_file`].

use keyward_diag::{Code, Fault, plain};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Most links that are followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// Most steps in all, so that links cannot make the walk long.
const STEPS_MAX: usize = 256;

/// Opens the file for reading.
///
/// # Errors
/// [`Code::IdentityUnreadable`], with the place on the path and, where others could have put the file there, the command
/// that mends it.
pub(crate) fn open(path: &Path) -> Result<File, Fault> {
    let mut walk = Walk { at: PathBuf::from("/"), folder: root()?, left: VecDeque::new(), links: 0 };
    walk.push(path.as_os_str());
    for _ in 0..STEPS_MAX {
        if let Some(file) = walk.step()? {
            return Ok(file);
        }
    }
    Err(unreadable(path, "the path is too long"))
}

fn root() -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(CWD, "/", flags, Mode::empty()).map_err(|e| unreadable(Path::new("/"), e))
}

struct Walk {
    /// Where the walk stands, for people.
    at: PathBuf,
    folder: OwnedFd,
    left: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    /// Puts the parts of a path before what is left to walk.
    fn push(&mut self, path: &OsStr) {
        let parts = path.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
        for part in parts.rev() {
            self.left.push_front(OsStr::from_bytes(part).to_owned());
        }
    }

    /// Goes one part on; gives the file where it was the last.
    fn step(&mut self) -> Result<Option<File>, Fault> {
        let Some(name) = self.left.pop_front() else { return Err(unreadable(&self.at, "it is a folder")) };
        let place = self.at.join(&name);
        let refused = |e: Errno| match e {
            Errno::NOENT => unreadable(&place, "it does not exist"),
            Errno::ACCESS => unreadable(&place, "this user may not read it"),
            e => unreadable(&place, e),
        };
        self.check_folder()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = fs::openat(&self.folder, &name, flags, Mode::empty()).map_err(refused)?;
        let stat = fs::fstat(&entry).map_err(refused)?;
        check_owner(&stat, &place)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                self.links += 1;
                if self.links > LINKS_MAX {
                    return Err(unreadable(&place, "it is a link that leads round and round"));
                }
                let target = fs::readlinkat(&entry, "", Vec::new()).map_err(refused)?;
                let target = OsString::from_vec(target.into_bytes());
                if target.as_bytes().starts_with(b"/") {
                    (self.at, self.folder) = (PathBuf::from("/"), root()?);
                }
                self.push(&target);
                Ok(None)
            }
            FileType::Directory => {
                if name == ".." {
                    self.at.pop();
                } else {
                    self.at = place;
                }
                self.folder = entry;
                Ok(None)
            }
            _ if !self.left.is_empty() => Err(unreadable(&place, "it is not a folder")),
            kind => {
                check_file(kind, &stat, &place)?;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let file = fs::openat(&self.folder, &name, flags, Mode::empty()).map_err(refused)?;
                // What was opened may be another file than the one that was looked at.
                let stat = fs::fstat(&file).map_err(refused)?;
                check_owner(&stat, &place)?;
                check_file(FileType::from_raw_mode(stat.st_mode), &stat, &place)?;
                Ok(Some(File::from(file)))
            }
        }
    }

    /// A folder in which something is looked up belongs to root or this user, and nobody else can put things there but in
    /// their own name. The kernel's own folders hold things that only look like files.
    fn check_folder(&self) -> Result<(), Fault> {
        let place = &self.at;
        let stat = fs::fstat(&self.folder).map_err(|e| unreadable(place, e))?;
        check_owner(&stat, place)?;
        let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        let sticky = Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX);
        if others && !sticky {
            return Err(writable(place, "others can put a file of theirs into the folder"));
        }
        let system = fs::fstatfs(self.folder.as_fd()).map_err(|e| unreadable(place, e))?;
        if system.f_type == fs::PROC_SUPER_MAGIC {
            return Err(unreadable(place, "it leads through /proc"));
        }
        Ok(())
    }
}

fn check_owner(stat: &Stat, place: &Path) -> Result<(), Fault> {
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == us {
        return Ok(());
    }
    let cause = format!("it belongs to uid {}, who can change it; it must belong to root or to uid {us}", stat.st_uid);
    Err(unreadable(place, cause).help(format!("see with `ls -ld {}` who put it there", shown(place))))
}

fn check_file(kind: FileType, stat: &Stat, place: &Path) -> Result<(), Fault> {
    let what = match kind {
        FileType::RegularFile => None,
        FileType::Fifo => Some("it is a FIFO, which can be read once"),
        FileType::Socket => Some("it is a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("it is a device"),
        _ => Some("it is not a regular file"),
    };
    if let Some(what) = what {
        return Err(unreadable(place, what));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(writable(place, "others can write another assertion into it"));
    }
    Ok(())
}

fn shown(place: &Path) -> String {
    plain(&place.to_string_lossy(), 300)
}

/// A fault at a place on the path.
pub(crate) fn unreadable(place: &Path, cause: impl std::fmt::Display) -> Fault {
    Fault::new(Code::IdentityUnreadable).cause(format!("{}: {cause}", shown(place)))
}

fn writable(place: &Path, cause: &str) -> Fault {
    unreadable(place, cause).help(format!("close it with `chmod go-w {}`", shown(place)))
}
