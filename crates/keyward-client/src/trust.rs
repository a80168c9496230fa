//! Whose server it is.
#![expect(unsafe_code, reason = "the safe wrapper of SO_PEERCRED cannot hold pid 0, which another pid namespace gives")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// User id of the process that made the listening socket (`SO_PEERCRED`, unix(7)).
pub(crate) fn server_uid(socket: &impl AsFd) -> io::Result<u32> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = u32::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `found` is valid for `length` bytes, and the kernel fills it with integers.
    let answer =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut length) };
    if answer == 0 { Ok(found.uid) } else { Err(io::Error::last_os_error()) }
}
