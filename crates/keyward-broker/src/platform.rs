//! What the broker asks of the operating system about processes, sockets and clocks.
//!
//! One contract, one file a system: each file gives the same names. Linux is the only one written; on other systems the
//! broker ends at start with `platform.unsupported`. Never decides anything: it tells facts, or that it cannot. Called
//! by the peer facts, the socket server, the supervisor and whoever watches runs.
//!
//! | Name | What it gives |
//! |---|---|
//! | [`process`], [`program_path`], [`executable`] | start time and parent of a process; the program that it runs |
//! | [`foreign_name`], [`task_name`], [`arguments`], [`in_session_of_parent`] | what a process goes by, and how it was started |
//! | [`mark`] | what a process of a run bears and cannot put off |
//! | [`pin`], [`is_alive`], [`Watch`] | a descriptor that stands for one process; whether it lives; how it ended |
//! | [`peer_credentials`], [`peer_pin`] | who connected a socket |
//! | [`receive`] | bytes of a socket with the sender that the kernel vouches for |
//! | [`now`], [`BootTimer`], [`time_in_suspend`], [`boot_id`] | clocks, and which boot they belong to |
//! | [`rss_bytes`], [`random_byte`] | resident memory of this process; chance |
//! | [`StopSignals`], [`reset_signals`], [`close_inherited`], [`fork`] | the signals that ask a process to stop; a clean start |

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::pollable;
#[cfg(target_os = "linux")]
pub use linux::{
    BootTimer, Credentials, Exit, Process, Received, StopSignals, Watch, arguments, boot_id, close_inherited,
    executable, foreign_name, fork, in_session_of_parent, is_alive, mark, now, peer_credentials, peer_pin, pin,
    process, program_path, random_byte, receive, reset_signals, rss_bytes, task_name, time_in_suspend,
};
