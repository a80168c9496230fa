//! The command line of Keyward.
//!
//! Parses a command, asks the broker over the LocalAPI, and prints what it answers; `run` then becomes the child by exec.
//! Never opens the vault, never keeps a secret longer than one request, and never takes one from its arguments.

mod args;
mod asking;
mod broker;
mod card;
mod command;
mod csv;
mod export;
mod federation;
mod input;
mod machine;
mod migration;
mod order;
mod out;
mod process;
mod project;
#[cfg(test)]
mod scene;
mod table;
mod time;

use keyward_diag::{Code, Fault};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: keyward_secret::WipingAllocator = keyward_secret::WipingAllocator;

fn main() -> ExitCode {
    if !cfg!(target_os = "linux") {
        return ExitCode::from(out::stop(Fault::new(Code::PlatformUnsupported).into(), false));
    }
    let code = match args::parse(std::env::args_os().collect()) {
        Ok((context, command)) => command.run(&context).unwrap_or_else(|stop| out::stop(stop, context.json)),
        Err(code) => code,
    };
    ExitCode::from(code)
}
