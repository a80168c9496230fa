//! The definition of the command line, and what happens when it is not understood.
//!
//! Help, completions and manual pages are made from the one definition here and in the modules of the commands. Never
//! repeats a stray word of the command line in an error, since it may be a secret that was typed in the wrong place.

use crate::command::{Command, run};
use crate::out;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use keyward_diag::{Code, Fault};
use std::ffi::OsString;

/// Hand short-lived credentials to programs, and record each step
///
/// Standard output carries data, standard error carries words. Secrets and passphrases are read from standard input, a
/// descriptor or a hidden prompt, never from the command line.
#[derive(Debug, Parser)]
#[command(name = "keyward", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

/// `keyward run` alone. Building the definition of all commands takes longer than the rest of this process does, and every run
/// would wait for it.
#[derive(Debug, Parser)]
#[command(name = "keyward", disable_help_subcommand = true)]
struct Lean {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Starting,
}

#[derive(Debug, clap::Subcommand)]
enum Starting {
    Run(run::Args),
}

/// What all commands obey.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Context {
    /// Report in JSON, errors included
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Never prompt, not even in a terminal
    #[arg(long, global = true, display_order = 901)]
    pub(crate) no_input: bool,
}

/// The definition, for completions and manual pages.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// Reads the command line. Prints help, the version or an error by itself and gives the exit code instead.
pub(crate) fn parse(args: Vec<OsString>) -> Result<(Context, Command), u8> {
    // What is wrong with it, and its help, come from the whole definition.
    if args.get(1).is_some_and(|word| word == "run")
        && let Ok(Lean { context, command: Starting::Run(run) }) = Lean::try_parse_from(&args)
    {
        return Ok((context, Command::Run(run)));
    }
    let json = args.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json");
    match Cli::try_parse_from(&args) {
        Ok(cli) => Ok((cli.context, cli.command)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let printed = out::text(&error.to_string());
            Err(printed.map_or_else(|stop| out::stop(stop, json), |()| 0))
        }
        Err(error) => Err(out::stop(usage(&error, &args).into(), json)),
    }
}

/// The fault of a command line that is wrong.
fn usage(error: &clap::Error, args: &[OsString]) -> Fault {
    let mut fault = Fault::new(Code::Usage);
    if let Some(known) = known_command(args) {
        fault = fault.help(format!("see `keyward {known} --help`"));
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return fault.cause("the name of a command is missing");
    }
    let stray = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-'),
        Some(_) | None => false,
    };
    if stray {
        return fault.cause("there is a word too many (it is not repeated here, in case it is a secret)");
    }
    let named = || error.get(ContextKind::InvalidArg).map_or_else(String::new, ToString::to_string);
    if error.kind() == ErrorKind::TooManyValues {
        return fault.cause(format!("'{}' takes no value", named()));
    }
    if let (ErrorKind::ValueValidation, Some(why)) = (error.kind(), std::error::Error::source(error)) {
        return fault.cause(format!("the value of '{}' is not understood: {why}", named()));
    }
    let text = error.to_string();
    for paragraph in text.split("\n\n").take_while(|p| !p.starts_with("Usage:") && !p.starts_with("For more")) {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = words.strip_prefix("error: ").or(words.strip_prefix("tip: ")).unwrap_or(&words);
        fault = fault.cause(words);
    }
    fault
}

/// The command that the line began with, as far as it is one.
fn known_command(args: &[OsString]) -> Option<String> {
    let mut at = definition();
    let mut path = Vec::new();
    for word in args.iter().skip(1).filter_map(|a| a.to_str()).filter(|a| !a.starts_with('-')) {
        let Some(next) = at.find_subcommand(word).cloned() else { break };
        path.push(word.to_owned());
        at = next;
    }
    (!path.is_empty()).then(|| path.join(" "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn fault(line: &[&str]) -> Fault {
        let args: Vec<OsString> = line.iter().map(OsString::from).collect();
        usage(&Cli::try_parse_from(&args).unwrap_err(), &args)
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn a_secret_typed_as_an_argument_is_not_repeated() {
        for line in [
            &["keyward", "secret", "set", "name", "hunter2"][..],
            &["keyward", "unlock", "hunter2"],
            &["keyward", "unlock", "--passphrase-stdin=hunter2"],
            &["keyward", "unlock", "--passphrase=hunter2"],
            &["keyward", "unlock", "--passphrase-fd", "hunter2"],
        ] {
            assert!(!fault(line).to_string().contains("hunter2"), "{}", fault(line));
        }
    }

    #[test]
    fn an_error_names_the_cause_and_the_help_of_its_command() {
        let wrong = fault(&["keyward", "vault", "slot", "add", "floppy"]);
        assert_eq!((wrong.code, wrong.exit), (Code::Usage, 2));
        assert_eq!(wrong.help, "see `keyward vault slot add --help`");
        assert!(fault(&["keyward", "run", "-p"]).to_string().contains("--profile"));
    }
}
