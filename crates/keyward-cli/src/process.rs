//! What this process does to itself: hides its memory, remembers what it was started with, and becomes the child.
//!
//! The start-up code of Rust ignores SIGPIPE and opens `/dev/null` for closed standard descriptors; both are noted before
//! it runs, so that a child gets what the caller had. Never changes the umask or the working folder, the mask of
//! signals only around steps that belong together, and the terminal only while a prompt lasts. Called by the commands that
//! handle secrets, and by `run`.
#![expect(unsafe_code, reason = "signal dispositions, descriptors by number and execve have no safe interface")]

use keyward_diag::{Code, Fault};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Bit n stands for descriptor n: it was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

#[used]
// SAFETY: the linker collects functions of this type there, and the C library calls each once before `main`.
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

extern "C" fn remember() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition, into a structure of the right type.
    let read = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: a zeroed structure is valid, and the call above filled it.
    let ignored = read == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN;
    PIPE_WAS_IGNORED.store(ignored, Ordering::Relaxed);
    for fd in 0..3 {
        // SAFETY: asks for flags, which changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Makes this process non-dumpable until exec: no core file, and its memory closed to other processes of the user.
/// Called before a secret is read. A kernel that refuses is no reason to stop.
pub(crate) fn hide() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// The controlling terminal without echo and with its keys as plain bytes, until it is dropped. The interrupt signal is
/// ignored meanwhile: it would end this process and leave the terminal so.
#[derive(Debug)]
pub(crate) struct Silence {
    terminal: File,
    before: Termios,
    interrupt: libc::sighandler_t,
}

impl Silence {
    /// Switches the echo and the signals of keys off.
    pub(crate) fn begin() -> io::Result<Self> {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        // SAFETY: ignores a signal; no handler is involved.
        let interrupt = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        let silence = Self { terminal, before, interrupt };
        tcsetattr(&silence.terminal, OptionalActions::Now, &silent)?;
        Ok(silence)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone has no echo to give back.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        // SAFETY: sets the disposition that there was before, which is none of a handler of ours.
        unsafe { libc::signal(libc::SIGINT, self.interrupt) };
    }
}

/// Holds back the signals by which a person or the system ends a program until `act` is done, for steps that belong
/// together. A signal that came meanwhile takes effect afterwards.
pub(crate) fn uninterrupted<T>(act: impl FnOnce() -> T) -> T {
    without(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT], act)
}

/// The controlling terminal, where this process may ask on it: there is one, and its foreground is the process group of this
/// one. A job in the background would be stopped by a question (termios(3), `SIGTTIN` and `SIGTTOU`), and its terminal is used by
/// others.
pub(crate) fn terminal() -> Option<File> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
    tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()).then_some(terminal)
}

/// Keeps the terminal from showing what is typed while `act` asks and waits, and throws away what nobody has read by its end:
/// it was meant for the prompt, and neither a screen nor a shell should have it. The signals of keys take effect afterwards,
/// with the terminal as before.
pub(crate) fn unheard<T>(act: impl FnOnce() -> T) -> T {
    without(&[libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP], || {
        let terminal = terminal();
        let terminal = terminal.and_then(|terminal| Some((tcgetattr(&terminal).ok()?, terminal)));
        if let Some((before, terminal)) = &terminal {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(terminal, OptionalActions::Now, &quiet);
        }
        let done = act();
        if let Some((before, terminal)) = &terminal {
            let _ = tcsetattr(terminal, OptionalActions::Flush, before);
        }
        done
    })
}

/// Blocks signals until `act` is done.
fn without<T>(signals: &[libc::c_int], act: impl FnOnce() -> T) -> T {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: fills a set of the right type, and hands it and room for the former one to the kernel.
    let blocked = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr()) == 0
    };
    let done = act();
    if blocked {
        // SAFETY: the call above filled the set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    done
}

/// Makes this process the one that inherits what its descendants leave behind (`PR_SET_CHILD_SUBREAPER`, kept over exec).
pub(crate) fn keep_descendants() -> Result<(), Fault> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| Fault::new(Code::PlatformUnsupported).cause(format!("PR_SET_CHILD_SUBREAPER: {e}")))?;
    Ok(())
}

/// Lowers the hard limit of file locks by one, for this process and all that come from it: what tells the broker that a
/// process comes out of a run, wherever it was put. Linux enforces no such limit (setrlimit(2), `RLIMIT_LOCKS`), and only
/// `CAP_SYS_RESOURCE` raises it again. Does nothing where it is 0 already, which the broker counts as no shell of a person.
pub(crate) fn bear_mark() -> Result<(), Fault> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        // No limit is the highest number.
        let lower = getrlimit(Resource::Locks).maximum.unwrap_or(u64::MAX).saturating_sub(1);
        setrlimit(Resource::Locks, Rlimit { current: Some(lower), maximum: Some(lower) })
            .map_err(|e| Fault::new(Code::PlatformUnsupported).cause(format!("RLIMIT_LOCKS: {e}")))?;
    }
    Ok(())
}

/// A file of its own for descriptor `number`, which stays open. `None` when no such descriptor is open.
pub(crate) fn descriptor(number: i32) -> Option<File> {
    // SAFETY: makes a new descriptor or fails; the old one is not touched.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the descriptor was just made and belongs to nobody else.
    (copy >= 0).then(|| unsafe { File::from_raw_fd(copy) })
}

/// As [`descriptor`]; no program inherits the descriptor itself either.
pub(crate) fn descriptor_until_exec(number: i32) -> Option<File> {
    let file = descriptor(number)?;
    // SAFETY: sets a flag of a descriptor, which stays open.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    (set != -1).then_some(file)
}

/// Becomes `path` with these arguments and this environment, with SIGPIPE and the standard descriptors as they were at the
/// start. Returns only when that fails.
pub(crate) fn become_program(path: &CStr, args: &[CString], variables: &[CString]) -> io::Error {
    let ended = |list: &[CString]| -> Vec<*const c_char> {
        list.iter().map(|c| c.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (ended(args), ended(variables));
    if !PIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        // SAFETY: sets the default disposition; no handler is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let closed = CLOSED.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: the descriptor is the stand-in of the start-up code, and nothing is read or written from here on.
        unsafe { libc::close(fd) };
    }
    // SAFETY: path and both lists are C strings that outlive the call, and both lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: sets a disposition; the process goes on and may write to a socket that the other side has closed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    error
}
