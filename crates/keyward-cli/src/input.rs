//! Where passphrases and secrets come from: standard input, a descriptor by number, or a hidden prompt.
//!
//! Never the command line and never the environment. The process is hidden before the first byte is read. A prompt needs a
//! terminal on standard input or standard error beside the controlling terminal that it uses, so that a program which runs
//! this one through pipes is told at once instead of being made to wait; and so is a job in the background. Called by the commands.

use crate::args::Context;
use crate::broker::Broker;
use crate::{out, process};
use keyward_api::Proof;
use keyward_api::place::Places;
use keyward_diag::{Code, Fault, plain};
use keyward_secret::{PASSPHRASE_MAX_BYTES, Passphrase, SECRET_MAX_BYTES, SecretBytes, SecretError, SecretText};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{IsTerminal, Read, Write};

/// Times that a person may type something again.
pub(crate) const ATTEMPTS: usize = 3;

/// Where a passphrase comes from, other than a prompt.
#[derive(Debug, clap::Args)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase from standard input
    #[arg(long)]
    passphrase_stdin: bool,
    /// Read the passphrase from descriptor N
    #[arg(long, value_name = "N", conflicts_with = "passphrase_stdin", value_parser = descriptor_number)]
    passphrase_fd: Option<i32>,
}

/// How a person proves that the vault is theirs.
#[derive(Debug, clap::Args)]
pub(crate) struct ProofArgs {
    /// Prove it by the recovery key, which is then read in the place of the passphrase
    #[arg(long)]
    recovery: bool,
    #[command(flatten)]
    from: PassphraseArgs,
}

impl PassphraseArgs {
    /// The lines that standard input or the descriptor holds; `None` when neither was named.
    fn lines(&self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        process::hide();
        let limit = 2 * (PASSPHRASE_MAX_BYTES + 2);
        let bytes = if self.passphrase_stdin {
            bounded(std::io::stdin().lock(), limit)
        } else if let Some(number) = self.passphrase_fd {
            let file = process::descriptor(number).ok_or_else(|| {
                Fault::new(Code::Usage)
                    .cause(format!("descriptor {number} is not open"))
                    .help("see `keyward unlock --help`")
            })?;
            bounded(file, limit)
        } else {
            return Ok(None);
        };
        Ok(Some(split_lines(&bytes.map_err(|e| unusable("the passphrase", &e))?)))
    }

    /// Whether standard input is taken.
    pub(crate) fn takes_stdin(&self) -> bool {
        self.passphrase_stdin
    }

    /// The passphrase of a vault that is there, from standard input or the descriptor; `None` when neither was named.
    pub(crate) fn proof(&self) -> Result<Option<Proof>, Fault> {
        Ok(self.given()?.map(|[text]| Proof::Passphrase(text)))
    }

    /// Exactly `N` passphrases from standard input or the descriptor, one a line.
    fn given<const N: usize>(&self) -> Result<Option<[SecretText; N]>, Fault> {
        let Some(lines) = self.lines()? else { return Ok(None) };
        let found = lines.len();
        let texts = lines.into_iter().map(passphrase).collect::<Result<Vec<_>, _>>()?;
        <[SecretText; N]>::try_from(texts).map(Some).map_err(|_| {
            let wanted = if N == 1 { "one line is" } else { "two lines are" };
            Fault::new(Code::RequestInvalid).cause(format!("{wanted} wanted for the passphrase, and there are {found}"))
        })
    }
}

impl ProofArgs {
    /// Reads the proof, or asks for it.
    ///
    /// # Errors
    /// [`Code::PassphraseNeeded`] when nothing was given and nobody can be asked.
    pub(crate) fn proof(&self, context: &Context, places: &Places) -> Result<Proof, Fault> {
        if let Some([text]) = self.from.given()? {
            return Ok(self.wrap(text));
        }
        refused_anyway(context)?;
        must_ask(context)?;
        Ok(self.wrap(passphrase(ask(&self.prompt(places))?)?))
    }

    /// Reads the proof and a new passphrase, or asks for both.
    ///
    /// # Errors
    /// [`Code::PassphraseNeeded`] when nothing was given and nobody can be asked.
    pub(crate) fn proof_and_new(&self, context: &Context, places: &Places) -> Result<(Proof, SecretText), Fault> {
        if let Some([current, new]) = self.from.given()? {
            return Ok((self.wrap(current), new));
        }
        refused_anyway(context)?;
        must_ask(context)?;
        let current = passphrase(ask(&self.prompt(places))?)?;
        Ok((self.wrap(current), ask_new()?))
    }

    /// Reads the proof for a backup and, where it differs, the one for the vault that is there; or asks for both.
    ///
    /// # Errors
    /// [`Code::PassphraseNeeded`] when nothing was given and nobody can be asked.
    pub(crate) fn proof_and_present(
        &self,
        context: &Context,
        places: &Places,
    ) -> Result<(Proof, Option<Proof>), Fault> {
        if let Some(lines) = self.from.lines()? {
            let mut texts = lines.into_iter().map(passphrase);
            return match (texts.next(), texts.next(), texts.next()) {
                (Some(backup), present, None) => {
                    Ok((self.wrap(backup?), present.transpose()?.map(|text| self.wrap(text))))
                }
                (None, ..) | (Some(_), _, Some(_)) => {
                    let cause = "one line is wanted for the backup's passphrase, and a second for that of the vault that is there";
                    Err(Fault::new(Code::RequestInvalid).cause(cause))
                }
            };
        }
        refused_anyway(context)?;
        must_ask(context)?;
        let backup = passphrase(ask("Passphrase of the backup: ")?)?;
        let present = ask(&prompt("Passphrase of the vault that is there, or Enter if it is the same", places))?;
        let present = if present.is_empty() { None } else { Some(self.wrap(passphrase(present)?)) };
        Ok((self.wrap(backup), present))
    }

    /// Whether the proof was named on the command line, so that asking again is of no use.
    pub(crate) fn is_given(&self) -> bool {
        self.from.passphrase_stdin || self.from.passphrase_fd.is_some()
    }

    /// Whether standard input is taken.
    pub(crate) fn takes_stdin(&self) -> bool {
        self.from.takes_stdin()
    }

    fn prompt(&self, places: &Places) -> String {
        prompt(if self.recovery { "Recovery key" } else { "Passphrase" }, places)
    }

    fn wrap(&self, text: SecretText) -> Proof {
        if self.recovery { Proof::Recovery(text) } else { Proof::Passphrase(text) }
    }
}

/// Whether there is a person to ask.
pub(crate) fn may_ask(context: &Context) -> bool {
    !context.no_input
        && (std::io::stdin().is_terminal() || std::io::stderr().is_terminal())
        && process::terminal().is_some()
}

/// Asks a question that is answered with yes or no; enter alone is yes, the end of input is no.
///
/// # Errors
/// [`Code::InputNeeded`] when the terminal cannot be used.
pub(crate) fn confirm(question: &str) -> Result<bool, Fault> {
    yes(&terminal()?, &format!("{question} [Y/n] "), true)
}

/// As [`confirm`], for what a person has just been shown: enter alone is no, and what was typed before is no answer.
///
/// # Errors
/// [`Code::InputNeeded`] when the terminal cannot be used.
pub(crate) fn consent(question: &str) -> Result<bool, Fault> {
    let terminal = terminal()?;
    let _ = rustix::termios::tcflush(&terminal, rustix::termios::QueueSelector::IFlush);
    yes(&terminal, &format!("{question} [y/N] "), false)
}

fn terminal() -> Result<std::fs::File, Fault> {
    std::fs::File::options().read(true).write(true).open("/dev/tty").map_err(|e| Fault::new(Code::InputNeeded).cause(e))
}

fn yes(mut terminal: &std::fs::File, prompt: &str, enter: bool) -> Result<bool, Fault> {
    let fault = |e: std::io::Error| Fault::new(Code::InputNeeded).cause(e);
    for _ in 0..ATTEMPTS {
        terminal.write_all(prompt.as_bytes()).map_err(fault)?;
        let mut line = [0; 128];
        // A terminal gives one line at a time.
        let read = terminal.read(&mut line).map_err(fault)?;
        match line[..read].trim_ascii().to_ascii_lowercase().as_slice() {
            _ if read == 0 => return Ok(false),
            b"" => return Ok(enter),
            b"y" | b"yes" => return Ok(true),
            b"n" | b"no" => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// Keeps a terminal open until Enter is pressed, so that what stands on it can be read. Does not wait where nobody is.
pub(crate) fn wait_for_enter(context: &Context) {
    if !may_ask(context) {
        return;
    }
    let Ok(mut terminal) = std::fs::File::options().read(true).write(true).open("/dev/tty") else { return };
    // What was typed before is no answer.
    let _ = rustix::termios::tcflush(&terminal, rustix::termios::QueueSelector::IFlush);
    if terminal.write_all(b"\nPress Enter to close. ").is_ok() {
        // A terminal gives one line at a time, and nothing when it is gone.
        let _ = terminal.read(&mut [0; 128]);
    }
}

/// Asks for the passphrase of the vault that is there.
pub(crate) fn ask_passphrase(places: &Places) -> Result<Proof, Fault> {
    passphrase(ask(&prompt("Passphrase", places))?).map(Proof::Passphrase)
}

/// As [`ask_passphrase`]; `None` when `over` becomes readable or closes before Enter was pressed: then the prompt is given up, and
/// what was typed is forgotten.
pub(crate) fn ask_passphrase_until(places: &Places, over: &std::io::PipeReader) -> Result<Option<Proof>, Fault> {
    process::hide();
    let fault = |e| Fault::new(Code::InputNeeded).cause(e);
    let silence = process::Silence::begin().map_err(fault)?;
    let mut terminal = std::fs::File::options().read(true).write(true).open("/dev/tty").map_err(fault)?;
    let keys = KeysUntil { terminal: terminal.try_clone().map_err(fault)?, over: over.try_clone().map_err(fault)? };
    let input = rpassword::ConfigBuilder::new().input_reader(keys).build();
    let typed = rpassword::prompt_password_with_config(prompt("Passphrase", places), input);
    // Nobody ends the line for a reader of our own.
    let ended = terminal.write_all(b"\r\n");
    drop(silence);
    interrupted(&typed);
    match typed {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => Ok(None),
        typed => {
            ended.map_err(fault)?;
            passphrase(typed.map_err(fault)?.into_bytes()).map(|text| Some(Proof::Passphrase(text)))
        }
    }
}

/// Makes a vault by `make` with the passphrase that was given, or with one that is asked for twice; one that is too weak may be
/// typed again.
///
/// # Errors
/// [`Code::PassphraseNeeded`] when nothing was given and nobody can be asked; those of `make`.
pub(crate) fn with_new_passphrase<T>(
    context: &Context,
    args: &PassphraseArgs,
    mut make: impl FnMut(SecretText) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if let Some([text]) = args.given()? {
        return make(text);
    }
    must_ask(context)?;
    for _ in 1..ATTEMPTS {
        match make(ask_new()?) {
            Err(fault) if fault.code == Code::VaultWeakPassphrase => {
                out::say(&format!("{}: {}; once more", fault.message, fault.causes.join("; ")));
            }
            made => return made,
        }
    }
    make(ask_new()?)
}

/// Reads a secret that is to be stored: standard input as it is, or a hidden prompt where that is a terminal. The second
/// part is true when the text is base64 of bytes that are not UTF-8.
///
/// # Errors
/// [`Code::SecretInvalid`] for one that is empty or too long, [`Code::InputNeeded`] when nobody can be asked.
pub(crate) fn secret(context: &Context, name: &str) -> Result<(SecretText, bool), Fault> {
    process::hide();
    let invalid = |e: SecretError| Fault::new(Code::SecretInvalid).cause(e);
    let mut bytes = if !std::io::stdin().is_terminal() {
        // One byte more than a secret may have: the line end that is dropped.
        bounded(std::io::stdin().lock(), SECRET_MAX_BYTES + 1).map_err(|e| {
            if e.kind() == std::io::ErrorKind::FileTooLarge {
                return invalid(SecretError::TooLong { max_bytes: SECRET_MAX_BYTES });
            }
            unusable("the secret", &e)
        })?
    } else if may_ask(context) {
        refused_anyway(context)?;
        ask(&format!("Secret {}: ", plain(name, 64)))?
    } else {
        return Err(
            Fault::new(Code::InputNeeded).help("give the secret on standard input: `keyward secret set NAME < file`")
        );
    };
    drop_line_end(&mut bytes);
    let secret = SecretBytes::new(bytes).map_err(invalid)?;
    // EXPOSE: to see whether it is UTF-8, and to bring it into the form of the wire if it is not.
    let encoded = secret.expose(|b| std::str::from_utf8(b).is_err().then(|| encode(b)));
    match encoded {
        None => SecretText::from_bytes(secret).map(|text| (text, false)).map_err(invalid),
        Some(text) => SecretText::new(text).map(|text| (text, true)).map_err(|_| {
            Fault::new(Code::SecretInvalid)
                .cause("bytes that are not text may be 24 KiB long, since they travel as base64")
        }),
    }
}

/// Reads a file that a person named, at most `limit` bytes of text; `-` is standard input.
pub(crate) fn text_file(path: &std::path::Path, limit: usize) -> Result<String, Fault> {
    let shown = path.display();
    let read = if path.as_os_str() == "-" {
        bounded(std::io::stdin().lock(), limit)
    } else {
        std::fs::File::open(path).and_then(|file| bounded(file, limit))
    };
    let bytes = read.map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("{shown}: {e}")))?;
    String::from_utf8(bytes).map_err(|_| Fault::new(Code::FileUnreadable).cause(format!("{shown} is not UTF-8 text")))
}

fn descriptor_number(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|n| *n >= 0).ok_or_else(|| "write the number of an open descriptor".to_owned())
}

fn must_ask(context: &Context) -> Result<(), Fault> {
    if may_ask(context) { Ok(()) } else { Err(Code::PassphraseNeeded.into()) }
}

/// Fails where the broker refuses this process whatever it proves, as it does inside a run: nobody is asked for what is of no
/// use, and no program learns it.
fn refused_anyway(context: &Context) -> Result<(), Fault> {
    Broker::open(context)?.outside()
}

fn prompt(what: &str, places: &Places) -> String {
    match &places.home {
        Some(home) => format!("{what} for the vault in {}: ", plain(&home.to_string_lossy(), 400)),
        None => format!("{what}: "),
    }
}

fn ask(prompt: &str) -> Result<Vec<u8>, Fault> {
    process::hide();
    let fault = |e| Fault::new(Code::InputNeeded).cause(e);
    // Before the prompt shows: what is typed or pasted the moment it does must not be shown either.
    let silence = process::Silence::begin().map_err(fault)?;
    let typed = rpassword::prompt_password(prompt);
    drop(silence);
    interrupted(&typed);
    typed.map(String::into_bytes).map_err(fault)
}

/// Ends this process where the key for it was pressed at a prompt, as the signal would have, with the terminal as before.
fn interrupted(typed: &std::io::Result<String>) {
    if typed.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::Interrupted) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
    }
}

/// The keys of the terminal, one at a time, until something else becomes readable.
struct KeysUntil {
    terminal: std::fs::File,
    over: std::io::PipeReader,
}

impl Read for KeysUntil {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut fds = [PollFd::new(&self.over, PollFlags::IN), PollFd::new(&self.terminal, PollFlags::IN)];
        while let Err(e) = poll(&mut fds, None) {
            if e != rustix::io::Errno::INTR {
                return Err(e.into());
            }
        }
        if !fds[0].revents().is_empty() {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        self.terminal.read(into)
    }
}

fn ask_new() -> Result<SecretText, Fault> {
    out::say(&format!("for the new passphrase, {}", Code::VaultWeakPassphrase.help()));
    let mut why = "";
    for attempt in 1..=ATTEMPTS {
        let first = Passphrase::new(ask("New passphrase: ")?);
        let second = if first.is_ok() { Passphrase::new(ask("The same again: ")?) } else { Err(SecretError::Empty) };
        // EXPOSE: compared for the person who typed both.
        let same = |a: &Passphrase, b: &Passphrase| a.expose(|a| b.expose(|b| a == b));
        why = match (first, second) {
            (Ok(first), Ok(second)) if same(&first, &second) => return to_text(&first),
            (Err(SecretError::Empty), _) => "it is empty",
            (Ok(_), Ok(_) | Err(SecretError::Empty)) => "the two are not the same",
            (Err(error), _) | (_, Err(error)) => return Err(invalid_passphrase(&error)),
        };
        if attempt < ATTEMPTS {
            out::say(&format!("{why}; once more"));
        }
    }
    Err(Fault::new(Code::RequestInvalid).cause(format!("the new passphrase: {why}")))
}

fn passphrase(bytes: Vec<u8>) -> Result<SecretText, Fault> {
    to_text(&Passphrase::new(bytes).map_err(|e| invalid_passphrase(&e))?)
}

fn to_text(passphrase: &Passphrase) -> Result<SecretText, Fault> {
    // EXPOSE: brought into the form of the wire.
    passphrase
        .expose(|b| SecretBytes::new(b.to_vec()))
        .and_then(SecretText::from_bytes)
        .map_err(|e| invalid_passphrase(&e))
}

fn invalid_passphrase(error: &SecretError) -> Fault {
    Fault::new(Code::RequestInvalid).cause(format!("the passphrase: {error}")).help("give a passphrase that is text")
}

fn unusable(what: &str, error: &std::io::Error) -> Fault {
    Fault::new(Code::FileUnreadable).cause(format!("{what} cannot be read: {error}"))
}

/// Reads to the end; more than `limit` bytes are an error of the kind `FileTooLarge`.
fn bounded(from: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit.min(SECRET_MAX_BYTES) + 2);
    from.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let why = format!("it is longer than {limit} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The lines without their ends. A line end at the very end begins no further line.
fn split_lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    body.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec()).collect()
}

/// Drops the line end that an editor or `echo` adds to one line of text. A text of several lines, such as a PEM file,
/// keeps all of its line ends, and bytes that are not text are left alone.
fn drop_line_end(bytes: &mut Vec<u8>) {
    let only = bytes.iter().filter(|b| **b == b'\n').count() == 1;
    if only && bytes.ends_with(b"\n") && std::str::from_utf8(bytes).is_ok() {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_loses_its_end_and_a_pem_file_does_not() {
        for (read, kept) in [
            (&b"hunter2\n"[..], &b"hunter2"[..]),
            (b"hunter2\r\n", b"hunter2"),
            (b"hunter2", b"hunter2"),
            (b"hunter2 ", b"hunter2 "),
            (b"a\nb\n", b"a\nb\n"),
            (b"a\nb", b"a\nb"),
            (b"a\n\n", b"a\n\n"),
            (b"\n", b""),
            (b"\xff\xfe\n", b"\xff\xfe\n"),
        ] {
            let mut bytes = read.to_vec();
            drop_line_end(&mut bytes);
            assert_eq!(bytes, kept, "{read:?}");
        }
    }

    #[test]
    fn lines_are_split_without_their_ends() {
        for (read, lines) in [
            (&b"one"[..], &[&b"one"[..]][..]),
            (b"one\n", &[b"one"]),
            (b"one\r\ntwo\r\n", &[b"one", b"two"]),
            (b"one\n\n", &[b"one", b""]),
            (b"", &[b""]),
        ] {
            assert_eq!(split_lines(read), lines, "{read:?}");
        }
    }

    #[test]
    fn input_is_bounded() {
        assert!(bounded(&b"abcd"[..], 4).is_ok_and(|b| b == b"abcd"));
        assert!(bounded(&b"abcde"[..], 4).is_err());
        assert!(bounded(std::io::repeat(7), 1_000).is_err(), "an endless input ends");
    }

    #[test]
    fn only_open_descriptors_can_be_named() {
        assert!(descriptor_number("-1").is_err() && descriptor_number("x").is_err());
        assert_eq!(descriptor_number("7"), Ok(7));
        assert!(process::descriptor(9_999).is_none());
    }
}
