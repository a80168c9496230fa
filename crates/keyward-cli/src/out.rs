//! The only module that prints.
//!
//! Data goes to standard output, words go to standard error. Colour is used for the head of an error alone, on a terminal,
//! unless `NO_COLOR` is set. A reader that closes the pipe ends the program quietly. Called by every command.

use keyward_diag::{Code, Fault};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};

/// Why a command ends before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Fault(Fault),
    /// Nobody reads its output any longer.
    Unread,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Prints data as it is.
pub(crate) fn bytes(data: &[u8]) -> Result<(), Stop> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(|e| match e.kind() == ErrorKind::BrokenPipe {
        true => Stop::Unread,
        false => Stop::Fault(Fault::new(Code::FileUnreadable).cause(format!("standard output: {e}"))),
    })
}

/// Prints text, which ends with a line end afterwards.
pub(crate) fn text(text: &str) -> Result<(), Stop> {
    bytes(text.as_bytes())?;
    if text.ends_with('\n') { Ok(()) } else { bytes(b"\n") }
}

/// Prints a JSON document on one line.
pub(crate) fn json(data: &impl Serialize) -> Result<(), Stop> {
    let mut line = serde_json::to_vec(data).map_err(|e| Fault::new(Code::Internal).cause(e))?;
    line.push(b'\n');
    bytes(&line)
}

/// Says something that is no data. Nobody hearing it is no error.
pub(crate) fn say(words: &str) {
    drop(writeln!(std::io::stderr().lock(), "keyward: {words}"));
}

/// Prints words as they are, without the name of the program in front.
pub(crate) fn explain(words: &str) {
    drop(writeln!(std::io::stderr().lock(), "{}", words.trim_end()));
}

/// Writes why a command ended to a file, in JSON. Nobody reading it is no error.
pub(crate) fn tell(stop: &Stop, mut file: impl Write) {
    if let Stop::Fault(fault) = stop {
        drop(file.write_all(in_json(fault).as_bytes()));
    }
}

fn in_json(fault: &Fault) -> String {
    format!("{}\n", serde_json::json!({ "error": fault }))
}

/// Prints why a command ended, and gives the exit code for it.
pub(crate) fn stop(stop: Stop, as_json: bool) -> u8 {
    let fault = match stop {
        Stop::Unread => return 0,
        Stop::Fault(fault) => fault,
    };
    let mut stderr = std::io::stderr().lock();
    let written = if as_json {
        stderr.write_all(in_json(&fault).as_bytes())
    } else if stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) {
        let (head, rest) = (format!("error[{}]", fault.code), fault.to_string());
        writeln!(stderr, "\x1b[1;31m{head}\x1b[0m{}", rest.strip_prefix(head.as_str()).unwrap_or(&rest))
    } else {
        writeln!(stderr, "{fault}")
    };
    drop(written);
    fault.exit
}
