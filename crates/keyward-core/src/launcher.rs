//! Launchers: saved commands with the profiles that they run with, and launches that were announced.
//!
//! Never looks at a file: programs and folders come as the numbers that the kernel gives them. Called by the broker.

use crate::{Boot, Name, ProcessId};
pub(crate) use keyward_diag::unseen;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Longest name, in characters.
const NAME_MAX_CHARS: usize = 60;
/// Most parts of a command.
const PARTS_MAX: usize = 64;
/// Longest part, in bytes.
const PART_MAX_BYTES: usize = 4096;
/// Longest command, in bytes: a longer one would be named by its digest when it is started, and could not be compared.
const COMMAND_MAX_BYTES: usize = 16 * 1024;
/// Longest program and longest folder, in bytes: what a run may have.
const PATH_MAX_BYTES: usize = 2048;
/// Most profiles: what a run may have.
const PROFILES_MAX: usize = 16;
/// Announced launches that wait at once.
const WAITING_MAX: usize = 16;

/// A launcher as its owner wrote it. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// Name, 1 to 60 characters.
    pub name: String,
    /// Program, by absolute path or as it is found in `PATH`, and its arguments.
    pub command: Vec<String>,
    /// Absolute path of the working folder; `None` means the home folder.
    pub folder: Option<String>,
    /// Profiles, each once, in the order of the owner.
    pub profiles: Vec<Name>,
    /// The program needs a terminal.
    pub terminal: bool,
}

impl Launcher {
    /// Checks the rules of a launcher.
    ///
    /// # Errors
    /// One sentence that says which rule is broken; never quotes an argument, since somebody may have put a secret there.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("the command is empty".to_owned());
        };
        if arguments.len() >= PARTS_MAX {
            return Err(format!("the command has more than {PARTS_MAX} parts"));
        }
        if self.command.iter().any(|part| part.len() > PART_MAX_BYTES || part.contains('\0')) {
            return Err(format!("a part of the command is longer than {PART_MAX_BYTES} bytes or holds a NUL byte"));
        }
        if self.command.iter().map(String::len).sum::<usize>() > COMMAND_MAX_BYTES {
            return Err(format!("the command is longer than {COMMAND_MAX_BYTES} bytes"));
        }
        if program.is_empty() || program.len() > PATH_MAX_BYTES {
            return Err(format!("the program has 1 to {PATH_MAX_BYTES} bytes"));
        }
        if program.contains('/') && !program.starts_with('/') {
            return Err("the program is neither an absolute path nor a bare name".to_owned());
        }
        if let Some(folder) = &self.folder
            && (!folder.starts_with('/') || folder.len() > PATH_MAX_BYTES || folder.contains('\0'))
        {
            return Err(format!("the folder is not an absolute path of at most {PATH_MAX_BYTES} bytes"));
        }
        let different: BTreeSet<_> = self.profiles.iter().collect();
        if !(1..=PROFILES_MAX).contains(&self.profiles.len()) || different.len() != self.profiles.len() {
            return Err(format!("a launcher has 1 to {PROFILES_MAX} profiles, each once"));
        }
        Ok(())
    }

    /// Whether a run is what this launcher says: the same arguments and profiles, and the same program, where a bare name
    /// stands for any file of that name. The folder is compared by whoever can see it.
    ///
    /// # Errors
    /// The part that differs, in words.
    pub fn fits(&self, path: &str, arguments: &[String], profiles: &[Name]) -> Result<(), &'static str> {
        if !self.names(path) {
            return Err("the program differs");
        }
        if self.command.get(1..) != Some(arguments) {
            return Err("the arguments differ");
        }
        let own: BTreeSet<&Name> = self.profiles.iter().collect();
        if own != profiles.iter().collect() {
            return Err("the profiles differ");
        }
        Ok(())
    }

    /// Whether the program of this launcher is the file at `path`, or was looked up by a name that the file has.
    pub fn names(&self, path: &str) -> bool {
        self.command.first().is_some_and(|program| match program.contains('/') {
            true => program == path,
            false => Path::new(path).file_name().is_some_and(|name| *name == **program),
        })
    }
}

/// What a launcher is found by: two names that differ in upper and lower case alone are the same.
pub fn launcher_key(name: &str) -> String {
    name.to_lowercase()
}

fn check_name(name: &str) -> Result<(), String> {
    let chars = name.chars().count();
    if !(1..=NAME_MAX_CHARS).contains(&chars) {
        return Err(format!("the name has 1 to {NAME_MAX_CHARS} characters"));
    }
    if name.chars().any(unseen) {
        return Err("the name holds a control character or one that nobody sees".to_owned());
    }
    if name.trim() != name {
        return Err("the name begins or ends with a space".to_owned());
    }
    Ok(())
}

/// A file or folder as the kernel tells it from others: device and inode.
pub type FileId = (u64, u64);

/// What a launch is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Launcher.
    pub launcher: [u8; 16],
    /// File of the program.
    pub program: FileId,
    /// Working folder.
    pub folder: FileId,
}

/// Launches that were announced and that no run was taken for yet: at most 16, each for ten seconds.
#[derive(Debug, Default)]
pub struct Expected(Vec<Announced>);

#[derive(Debug)]
struct Announced {
    launch: Launch,
    by: Announcer,
    until: Boot,
}

/// Who announced a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcer {
    /// The process.
    pub process: ProcessId,
    /// It was an operator: the launch needs no other grant where that process has started it.
    pub operator: bool,
}

impl Announced {
    /// Whether a run by a process with these parents is the launch. What an operator announced is started by that very
    /// process, or by what it has started: anybody can ask for the same program in the same folder in time.
    fn is(&self, launch: &Launch, parents: &[ProcessId]) -> bool {
        self.launch == *launch && (!self.by.operator || parents.contains(&self.by.process))
    }
}

impl Expected {
    /// How long a run is waited for.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// Announces a launch; gives the moment until which a run is taken for it, or `None` when too many wait.
    pub fn announce(&mut self, launch: Launch, by: Announcer, now: Boot) -> Option<Boot> {
        self.0.retain(|a| now < a.until);
        let until = now.after(Self::PATIENCE);
        (self.0.len() < WAITING_MAX).then(|| self.0.push(Announced { launch, by, until }))?;
        Some(until)
    }

    /// Whether an operator above a process with these parents has announced this launch, and no run was taken for it yet.
    pub fn is_granted(&self, launch: &Launch, parents: &[ProcessId], now: Boot) -> bool {
        self.0.iter().any(|a| a.is(launch, parents) && a.by.operator && now < a.until)
    }

    /// Takes a run by a process with these parents for a launch that was announced, by an operator first, then the oldest
    /// first. Each is taken once.
    pub fn take(&mut self, launch: &Launch, parents: &[ProcessId], now: Boot) -> Option<Announcer> {
        self.0.retain(|a| now < a.until);
        let own = |a: &Announced| a.is(launch, parents);
        let granted = self.0.iter().position(|a| own(a) && a.by.operator);
        let at = granted.or_else(|| self.0.iter().position(own))?;
        Some(self.0.remove(at).by)
    }

    /// Forgets what was announced for a launcher, since it is another one now.
    pub fn forget(&mut self, launcher: [u8; 16]) {
        self.0.retain(|a| a.launch.launcher != launcher);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn launcher() -> Launcher {
        Launcher {
            name: "Claude Code".to_owned(),
            command: vec!["claude".to_owned(), "--model".to_owned(), "opus".to_owned()],
            folder: None,
            profiles: vec![Name::parse("claude").unwrap()],
            terminal: true,
        }
    }

    #[test]
    fn the_rules_of_a_launcher() {
        let rule = |change: &dyn Fn(&mut Launcher)| {
            let mut launcher = launcher();
            change(&mut launcher);
            launcher.check()
        };
        assert_eq!(rule(&|_| {}), Ok(()));
        assert_eq!(rule(&|l| l.name = "ä".repeat(60)), Ok(()));
        assert_eq!(rule(&|l| l.command = vec!["/usr/bin/x y".to_owned(), String::new(), "a\nb".to_owned()]), Ok(()));
        assert_eq!(rule(&|l| l.command = vec!["x".to_owned(); 64]), Ok(()));
        assert_eq!(rule(&|l| l.folder = Some("/".to_owned())), Ok(()));
        for name in ["", "a\u{7}", "a\nb", "\u{202e}a", "a\u{200b}b", " a", "a ", "a\u{a0}", "a\u{feff}"] {
            assert!(rule(&|l| l.name = name.to_owned()).is_err(), "{name:?}");
        }
        assert!(rule(&|l| l.name = "ä".repeat(61)).is_err());
        let parts = |n: usize| vec!["x".to_owned(); n];
        for command in [
            parts(0),
            parts(65),
            vec![String::new()],
            vec!["./x".to_owned()],
            vec!["x/y".to_owned()],
            vec!["x".to_owned(), "a\0".to_owned()],
            vec!["x".to_owned(), "a".repeat(4097)],
            vec!["a".repeat(2049)],
            vec!["a".repeat(4096); 5],
        ] {
            let told = rule(&|l| l.command.clone_from(&command));
            assert!(told.is_err_and(|words| words.len() < 100), "{} parts", command.len());
        }
        for folder in ["", "x", "~", "/x\0", &format!("/{}", "x".repeat(2048))] {
            assert!(rule(&|l| l.folder = Some(folder.to_owned())).is_err(), "{folder:?}");
        }
        let names = |n: usize| (0..n).map(|n| Name::parse(&format!("p{n}")).unwrap()).collect::<Vec<_>>();
        assert_eq!(rule(&|l| l.profiles = names(16)), Ok(()));
        assert!(rule(&|l| l.profiles = names(17)).is_err() && rule(&|l| l.profiles = names(0)).is_err());
        assert!(rule(&|l| l.profiles = [names(1), names(1)].concat()).is_err());
    }

    #[test]
    fn a_run_fits_by_program_arguments_and_profiles() {
        let (mut launcher, name) = (launcher(), |n: &str| Name::parse(n).unwrap());
        launcher.profiles.push(name("pg"));
        let args = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
        let own = args(&["--model", "opus"]);
        let both = [name("pg"), name("claude")];
        assert_eq!(launcher.fits("/usr/bin/claude", &own, &both), Ok(()));
        assert_eq!(launcher.fits("/tmp/claude", &own, &both), Ok(()), "as it was found");
        assert_eq!(launcher.fits("/usr/bin/claude2", &own, &both), Err("the program differs"));
        assert_eq!(launcher.fits("/usr/bin/claude/x", &own, &both), Err("the program differs"));
        for other in [args(&[]), args(&["--model"]), args(&["--model", "opus", ""]), args(&["opus", "--model"])] {
            assert_eq!(launcher.fits("/usr/bin/claude", &other, &both), Err("the arguments differ"), "{other:?}");
        }
        for other in [vec![], vec![name("pg")], vec![name("pg"), name("claude"), name("x")]] {
            assert_eq!(launcher.fits("/usr/bin/claude", &own, &other), Err("the profiles differ"), "{other:?}");
        }
        launcher.command[0] = "/opt/claude".to_owned();
        assert_eq!(launcher.fits("/opt/claude", &own, &both), Ok(()));
        assert_eq!(launcher.fits("/usr/bin/claude", &own, &both), Err("the program differs"));
    }

    fn process(pid: u32) -> ProcessId {
        ProcessId { pid, start: 5 }
    }

    fn by(pid: u32) -> Announcer {
        Announcer { process: process(pid), operator: false }
    }

    fn at(ms: u64) -> Boot {
        Boot(Duration::from_millis(ms))
    }

    const LAUNCH: Launch = Launch { launcher: [1; 16], program: (1, 2), folder: (3, 4) };

    #[test]
    fn an_announced_launch_is_taken_once_by_the_same_program_in_the_same_folder_in_time() {
        for other in [
            Launch { launcher: [2; 16], ..LAUNCH },
            Launch { program: (1, 3), ..LAUNCH },
            Launch { program: (2, 2), ..LAUNCH },
            Launch { folder: (3, 5), ..LAUNCH },
        ] {
            let mut expected = Expected::default();
            assert_eq!(expected.announce(LAUNCH, by(7), at(0)), Some(at(10_000)));
            assert_eq!(expected.take(&other, &[], at(1)), None, "{other:?}");
            assert_eq!(
                expected.take(&LAUNCH, &[], at(2)),
                Some(by(7)),
                "what another run did not match is still waited for"
            );
            assert_eq!(expected.take(&LAUNCH, &[], at(3)), None, "once");
        }
        for (when, taken) in [(0, true), (9_999, true), (10_000, false), (60_000, false)] {
            let mut expected = Expected::default();
            expected.announce(LAUNCH, by(7), at(0));
            assert_eq!(expected.take(&LAUNCH, &[], at(when)).is_some(), taken, "{when}");
        }
    }

    #[test]
    fn two_announcements_are_two_launches_and_a_changed_launcher_has_none() {
        let mut expected = Expected::default();
        expected.announce(LAUNCH, by(7), at(0));
        expected.announce(LAUNCH, by(8), at(5_000));
        assert_eq!(expected.take(&LAUNCH, &[], at(5_001)), Some(by(7)), "the oldest first");
        assert_eq!(expected.take(&LAUNCH, &[], at(12_000)), Some(by(8)));
        expected.announce(LAUNCH, by(7), at(20_000));
        expected.forget([2; 16]);
        expected.forget([1; 16]);
        assert_eq!(expected.take(&LAUNCH, &[], at(20_001)), None);
    }

    #[test]
    fn sixteen_wait_and_those_whose_time_is_over_make_room() {
        let mut expected = Expected::default();
        for n in 0..16 {
            assert!(expected.announce(LAUNCH, by(n), at(u64::from(n))).is_some());
        }
        assert_eq!(expected.announce(LAUNCH, by(99), at(100)), None);
        assert_eq!(expected.announce(LAUNCH, by(99), at(10_000)), Some(at(20_000)), "the first is over");
        assert_eq!(expected.announce(LAUNCH, by(99), at(10_000)), None);
    }

    #[test]
    fn what_an_operator_announced_is_taken_first_and_once() {
        let mut expected = Expected::default();
        let operator = Announcer { process: process(9), operator: true };
        let below = [process(11), process(9), process(1)];
        expected.announce(LAUNCH, by(7), at(0));
        assert!(!expected.is_granted(&LAUNCH, &below, at(1)), "anybody can announce");
        expected.announce(LAUNCH, operator, at(2));
        let other = Launch { folder: (0, 0), ..LAUNCH };
        assert!(expected.is_granted(&LAUNCH, &below, at(3)) && !expected.is_granted(&other, &below, at(3)));
        assert!(!expected.is_granted(&LAUNCH, &below, at(10_002)), "ten seconds later");
        for others in [&[][..], &[process(1)], &[ProcessId { pid: 9, start: 6 }, process(1)]] {
            assert!(!expected.is_granted(&LAUNCH, others, at(3)), "not started by the operator: {others:?}");
        }
        assert_eq!(expected.take(&LAUNCH, &[process(1)], at(4)), Some(by(7)), "nor is it taken by anybody else");
        assert_eq!(expected.take(&LAUNCH, &[process(1)], at(4)), None);
        expected.announce(LAUNCH, by(7), at(4));
        assert_eq!(expected.take(&LAUNCH, &below, at(4)), Some(operator));
        assert!(!expected.is_granted(&LAUNCH, &below, at(5)));
        assert_eq!(expected.take(&LAUNCH, &below, at(6)), Some(by(7)));
    }
}
