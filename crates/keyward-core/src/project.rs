//! `keyward.toml`: what a project asks for, by name.
//!
//! The file is committed with the project, so it holds no values: it names profiles, and the variables in which they are
//! expected. It asks and never grants. Never opens a file: the text comes from whoever read it. Called by the broker, which
//! acts on that text alone.

use crate::profile::nearest;
use crate::{Name, check_variable};
use keyward_diag::{Code, Fault, plain, unseen};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Name of the file, at the root of the project.
pub const PROJECT_FILE: &str = "keyward.toml";

/// Longest file, in bytes.
const FILE_MAX_BYTES: usize = 16 * 1024;
/// Most lines, and characters of a line with tabs spelt out: a person looks at each that changed, whole.
const LINES_MAX: usize = 400;
const LINE_MAX_CHARS: usize = 180;
/// Most lines of a difference.
const CHANGE_MAX_LINES: usize = 60;
/// Unchanged lines that are shown around those that changed, where not all fit.
const AROUND: usize = 2;
/// Most runs of a file.
const RUNS_MAX: usize = 64;
/// Most profiles and variables of a run.
const PROFILES_MAX: usize = 16;
const VARIABLES_MAX: usize = 64;
/// Most parts of a command; their length is bounded by that of the file.
const PARTS_MAX: usize = 64;
/// What a reference to a profile begins with.
const REFERENCE: &str = "keyward:";

/// What a project asks for. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFile {
    /// Run that is meant where none is named.
    default: Option<Name>,
    /// The runs by name; at least one.
    runs: BTreeMap<Name, ProjectRun>,
}

/// A section `[run.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRun {
    /// Profiles, each once: those that it lists, then those that only its variables name; 1 to 16.
    pub profiles: Vec<Name>,
    /// The profile that is expected in each variable.
    pub variables: BTreeMap<String, Name>,
    /// Program and arguments; empty where the file names none.
    pub command: Vec<String>,
}

impl ProjectFile {
    /// Reads a file: TOML of at most 16 KiB, 400 lines, and 180 characters a line, without carriage returns and without
    /// characters that nobody sees.
    ///
    /// # Errors
    /// [`Code::ProjectInvalid`] with the line and the rule that is broken. Never quotes a value, since somebody may have put a
    /// secret there.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        legible(text)?;
        let reader = Reader { text };
        let file = DeTable::parse(text).map_err(|e| reader.fault(e.span(), format!("not TOML: {}", e.message())))?;
        let (mut default, mut runs) = (None, BTreeMap::new());
        for (key, value) in file.get_ref() {
            match key.get_ref().as_ref() {
                "default" => default = Some((value.span(), reader.name(value, "default")?)),
                "run" => {
                    let sections = table(value).ok_or_else(|| reader.at(value, "`run` is not a section"))?;
                    if sections.len() > RUNS_MAX {
                        return Err(reader.at(value, format!("more than {RUNS_MAX} runs")));
                    }
                    for (name, section) in sections {
                        let at = format!("run.{}", plain(name.get_ref(), 40));
                        let name = Name::parse(name.get_ref()).map_err(|e| reader.fault(Some(name.span()), e))?;
                        runs.insert(name, reader.run(section, &at)?);
                    }
                }
                other => return Err(reader.unknown(key.span(), "", other, &["default", "run"])),
            }
        }
        if runs.is_empty() {
            return Err(reader.fault(None, "there is no section [run.NAME]"));
        }
        let default = match default {
            Some((span, name)) if !runs.contains_key(&name) => {
                return Err(reader.fault(Some(span), format!("`default` is `{name}`, and there is no [run.{name}]")));
            }
            default => default.map(|(_, name)| name),
        };
        Ok(Self { default, runs })
    }

    /// A run with its name: the one that is named, else the default, else the only one.
    ///
    /// # Errors
    /// [`Code::ProjectInvalid`] where there is no such run, or none is named, with those that there are.
    pub fn run(&self, named: Option<&str>) -> Result<(&Name, &ProjectRun), Fault> {
        let only = || self.runs.keys().next().filter(|_| self.runs.len() == 1);
        let found = match named {
            Some(named) => self.runs.iter().find(|(name, _)| name.as_str() == named),
            None => self.default.as_ref().or_else(only).and_then(|name| self.runs.get_key_value(name)),
        };
        found.ok_or_else(|| {
            let cause = match named {
                Some(named) => format!("there is no [run.{}]", plain(named, 64)),
                None => "there are several runs, and no `default` says which is meant".to_owned(),
            };
            let names: Vec<&str> = self.runs.keys().map(Name::as_str).collect();
            Fault::new(Code::ProjectInvalid).cause(cause).cause(format!("there are: {}", names.join(", ")))
        })
    }
}

/// Refuses what a person could not look at.
fn legible(text: &str) -> Result<(), Fault> {
    let invalid = |cause: String| Err(Fault::new(Code::ProjectInvalid).cause(cause));
    if text.len() > FILE_MAX_BYTES {
        return invalid(format!("it is longer than {FILE_MAX_BYTES} bytes"));
    }
    for (n, line) in text.split('\n').enumerate() {
        let at = n + 1;
        if at > LINES_MAX {
            return invalid(format!("it has more than {LINES_MAX} lines"));
        }
        let width = |c: char| if c == '\t' { c.escape_unicode().count() } else { 1 };
        if line.chars().map(width).sum::<usize>() > LINE_MAX_CHARS {
            return invalid(format!("line {at} has more than {LINE_MAX_CHARS} characters"));
        }
        if let Some(c) = line.chars().find(|c| *c != '\t' && unseen(*c)) {
            let what = c.escape_unicode();
            return invalid(format!("line {at} holds a control character or one that nobody sees: {what}"));
        }
    }
    Ok(())
}

/// What names the places of a text.
struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn fault(&self, span: Option<Range<usize>>, cause: impl std::fmt::Display) -> Fault {
        let line = |span: Range<usize>| self.text.get(..span.start).map(|before| before.matches('\n').count() + 1);
        match span.and_then(line) {
            Some(line) => Fault::new(Code::ProjectInvalid).cause(format!("line {line}: {cause}")),
            None => Fault::new(Code::ProjectInvalid).cause(cause),
        }
    }

    fn at(&self, value: &Spanned<DeValue<'_>>, cause: impl std::fmt::Display) -> Fault {
        self.fault(Some(value.span()), cause)
    }

    fn unknown(&self, span: Range<usize>, at: &str, key: &str, known: &[&str]) -> Fault {
        self.fault(Some(span), format!("`{at}{}` is not known; {}", plain(key, 40), nearest(key, known)))
    }

    fn name(&self, value: &Spanned<DeValue<'_>>, at: &str) -> Result<Name, Fault> {
        let text = value.get_ref().as_str().ok_or_else(|| self.at(value, format!("`{at}` is not text")))?;
        // Not quoted: it may be a value that stands in the wrong place.
        Name::parse(text).map_err(|_| self.at(value, format!("`{at}` is not a name")))
    }

    fn run(&self, section: &Spanned<DeValue<'_>>, at: &str) -> Result<ProjectRun, Fault> {
        let fields = table(section).ok_or_else(|| self.at(section, format!("`{at}` is not a section")))?;
        let mut run = ProjectRun { profiles: Vec::new(), variables: BTreeMap::new(), command: Vec::new() };
        for (key, value) in fields {
            let field = format!("{at}.{}", plain(key.get_ref(), 40));
            match key.get_ref().as_ref() {
                "profiles" => {
                    for entry in self.list(value, &field)? {
                        let profile = self.name(entry, &format!("a profile of {field}"))?;
                        if run.profiles.contains(&profile) {
                            return Err(self.at(entry, format!("`{profile}` stands twice in {field}")));
                        }
                        run.profiles.push(profile);
                    }
                }
                "env" => run.variables = self.variables(value, &field)?,
                "command" => run.command = self.command(value, &field)?,
                other => {
                    let at = format!("{at}.");
                    return Err(self.unknown(key.span(), &at, other, &["profiles", "env", "command"]));
                }
            }
        }
        for profile in run.variables.values() {
            if !run.profiles.contains(profile) {
                run.profiles.push(profile.clone());
            }
        }
        if !(1..=PROFILES_MAX).contains(&run.profiles.len()) {
            return Err(self.at(section, format!("`{at}` names no profile, or more than {PROFILES_MAX}")));
        }
        Ok(run)
    }

    fn list<'v, 'd>(
        &self,
        value: &'v Spanned<DeValue<'d>>,
        at: &str,
    ) -> Result<impl Iterator<Item = &'v Spanned<DeValue<'d>>>, Fault> {
        match value.get_ref() {
            DeValue::Array(list) => Ok(list.iter()),
            _ => Err(self.at(value, format!("`{at}` is not a list"))),
        }
    }

    fn variables(&self, value: &Spanned<DeValue<'_>>, at: &str) -> Result<BTreeMap<String, Name>, Fault> {
        let named = table(value).ok_or_else(|| self.at(value, format!("`{at}` is not a table of variables")))?;
        if named.len() > VARIABLES_MAX {
            return Err(self.at(value, format!("`{at}` has more than {VARIABLES_MAX} variables")));
        }
        let mut variables = BTreeMap::new();
        for (variable, content) in named {
            let name = variable.get_ref().as_ref();
            check_variable(name).map_err(|e| self.fault(Some(variable.span()), e))?;
            let profile = content.get_ref().as_str().and_then(|text| text.strip_prefix(REFERENCE));
            let profile = profile.and_then(|text| Name::parse(text).ok()).ok_or_else(|| {
                self.at(
                    content,
                    format!("`{at}.{name}` is no reference: the file holds no values, only \"keyward:PROFILE\""),
                )
                .help("store a secret with `keyward secret set`, make a profile of it, and name the profile here")
            })?;
            variables.insert(name.to_owned(), profile);
        }
        Ok(variables)
    }

    fn command(&self, value: &Spanned<DeValue<'_>>, at: &str) -> Result<Vec<String>, Fault> {
        let mut command: Vec<String> = Vec::new();
        for part in self.list(value, at)? {
            let text = part.get_ref().as_str().ok_or_else(|| self.at(part, format!("a part of `{at}` is not text")))?;
            // Escapes of TOML spell what the text of the file may not hold.
            if text.chars().any(unseen) {
                let cause = format!("a part of `{at}` holds a control character or one that nobody sees");
                return Err(self.at(part, cause));
            }
            command.push(text.to_owned());
        }
        match command.first() {
            Some(program) if !program.is_empty() && command.len() <= PARTS_MAX => Ok(command),
            _ => Err(self.at(value, format!("`{at}` has 1 to {PARTS_MAX} parts, the first of them a program"))),
        }
    }
}

fn table<'v, 'd>(value: &'v Spanned<DeValue<'d>>) -> Option<&'v DeTable<'d>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// What changed between two texts that [`ProjectFile::parse`] takes, as whole lines after `+`, `-` or a space: at most 60, with
/// as many unchanged ones as fit, and none longer than 200 characters with tabs spelt out. A line that is left out is told by
/// none: what stands there is unchanged. `before` may be empty.
///
/// # Errors
/// How many lines changed, where they are more than 60: a person who is shown a part of them does not know what the rest is.
pub fn difference(before: &str, after: &str) -> Result<Vec<String>, usize> {
    let (lines, changed) = (compared(before, after), |line: &(char, &str)| line.0 != ' ');
    let count = lines.iter().filter(|line| changed(line)).count();
    if count > CHANGE_MAX_LINES {
        return Err(count);
    }
    let near = |n: usize, around: usize| {
        let from = n.saturating_sub(around);
        lines.get(from..lines.len().min(n + around + 1)).unwrap_or_default().iter().any(changed)
    };
    let shown = |around: usize| (0..lines.len()).filter(|n| near(*n, around)).collect::<Vec<_>>();
    let widths = [lines.len(), AROUND, 0].map(shown);
    let shown = widths.into_iter().find(|shown| shown.len() <= CHANGE_MAX_LINES).unwrap_or_default();
    Ok(shown.into_iter().filter_map(|n| lines.get(n)).map(|(sign, line)| format!("{sign} {line}")).collect())
}

/// All lines of two texts in their order, each with its sign, by a longest common subsequence. What follows the last line end is
/// a line too, unless both have nothing there.
fn compared<'t>(before: &'t str, after: &'t str) -> Vec<(char, &'t str)> {
    let split = |text: &'t str| if text.is_empty() { Vec::new() } else { text.split('\n').collect::<Vec<_>>() };
    let (old, new) = (split(before), split(after));
    // common[i][j]: lines that the rest of the old text from i and of the new one from j have in common.
    let width = new.len() + 1;
    let mut common = vec![0_u16; (old.len() + 1) * width];
    let of = |common: &[u16], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let best =
                if a == b { of(&common, i + 1, j + 1) + 1 } else { of(&common, i + 1, j).max(of(&common, i, j + 1)) };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::with_capacity(old.len().max(new.len())));
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                lines.push((' ', *a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || of(&common, i + 1, j) >= of(&common, i, j + 1) => {
                lines.push(('-', *a));
                i += 1;
            }
            (_, Some(b)) => {
                lines.push(('+', *b));
                j += 1;
            }
            (Some(_), None) | (None, None) => break,
        }
    }
    if before.is_empty() && after.ends_with('\n') || lines.last() == Some(&(' ', "")) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const FILE: &str = "# what the project needs\ndefault = \"dev\"\n\n[run.dev]\nprofiles = [\"anthropic\", \"pg-dev\"]\n\
                        env = { DATABASE_URL = \"keyward:pg-dev\", GH_TOKEN = \"keyward:gh\" }\n\
                        command = [\"npm\", \"run\", \"dev\"]\n\n[run.test]\nprofiles = [\"pg-test\"]\n";

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// The causes of the refusal.
    #[track_caller]
    fn refused(text: &str) -> String {
        let fault = ProjectFile::parse(text).unwrap_err();
        assert_eq!(fault.code, Code::ProjectInvalid, "{text:?}");
        fault.causes.join("; ")
    }

    #[test]
    fn a_file_names_runs_with_profiles_variables_and_a_command() {
        let file = ProjectFile::parse(FILE).unwrap();
        let (of, dev) = file.run(None).unwrap();
        assert_eq!(*of, name("dev"));
        assert_eq!(
            dev.profiles,
            [name("anthropic"), name("pg-dev"), name("gh")],
            "one that only a variable names counts"
        );
        assert_eq!(dev.variables["DATABASE_URL"], name("pg-dev"));
        assert_eq!(dev.command, ["npm", "run", "dev"]);
        let (_, test) = file.run(Some("test")).unwrap();
        assert!(test.command.is_empty() && test.variables.is_empty() && test.profiles == [name("pg-test")]);
        for other in ["", "Dev", "run", "dev.profiles", "\u{1b}[2J"] {
            let fault = file.run(Some(other)).unwrap_err();
            assert!(
                fault.causes == [format!("there is no [run.{}]", plain(other, 64)), "there are: dev, test".to_owned()]
            );
        }
    }

    #[test]
    fn without_a_name_the_default_is_meant_or_the_only_run() {
        let only = ProjectFile::parse("[run.x]\nprofiles = [\"a\"]").unwrap();
        assert_eq!(*only.run(None).unwrap().0, name("x"));
        let two = "[run.x]\nprofiles = [\"a\"]\n[run.y]\nprofiles = [\"a\"]";
        let fault = ProjectFile::parse(two).unwrap().run(None).unwrap_err();
        assert!(fault.code == Code::ProjectInvalid && fault.causes.join(" ").contains("there are: x, y"), "{fault}");
        let default = ProjectFile::parse(&format!("default = \"y\"\n{two}")).unwrap();
        assert_eq!(*default.run(None).unwrap().0, name("y"));
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_its_line_and_without_the_value() {
        for (text, told) in [
            ("", "there is no section [run.NAME]"),
            ("[run]", "there is no section"),
            ("default = \"x\"\n[run.dev]\nprofiles = [\"a\"]", "line 1: `default` is `x`"),
            ("default = 3\n[run.dev]\nprofiles = [\"a\"]", "line 1: `default` is not text"),
            ("run = 3", "line 1: `run` is not a section"),
            ("[run]\ndev = \"s3cret\"", "line 2: `run.dev` is not a section"),
            ("[run.dev]\nprofiles = [\"a\"]\n[rum.x]", "line 3: `rum` is not known; did you mean `run`?"),
            ("[run.dev]\nprofiles = [\"a\"]\ntoken = \"s3cret\"", "line 3: `run.dev.token` is not known"),
            ("[run.dev]\nprofile = [\"s3cret\"]", "line 2: `run.dev.profile` is not known; did you mean `profiles`?"),
            ("[run.dev]\nprofiles = \"s3cret\"", "line 2: `run.dev.profiles` is not a list"),
            ("[run.dev]\nprofiles = [\n\"a\",\n3]", "line 4: `a profile of run.dev.profiles` is not text"),
            ("[run.dev]\nprofiles = [\"s3cret value\"]", "line 2: `a profile of run.dev.profiles` is not a name"),
            ("[run.dev]\nprofiles = [\"a\", \"a\"]", "line 2: `a` stands twice"),
            ("[run.dev]\nprofiles = []", "line 1: `run.dev` names no profile"),
            ("[run.dev]\ncommand = [\"x\"]", "line 1: `run.dev` names no profile"),
            ("[run.\"a b\"]\nprofiles = [\"a\"]", "line 1: `a b` is not a name"),
            (
                "[run.dev]\nenv = { T = \"s3cret\" }",
                "line 2: `run.dev.env.T` is no reference: the file holds no values",
            ),
            ("[run.dev]\nenv = { T = \"keyward:\" }", "is no reference"),
            ("[run.dev]\nenv = { T = \"keyward:s3cret value\" }", "is no reference"),
            ("[run.dev]\nenv = { T = \"secret:a\" }", "is no reference"),
            ("[run.dev]\nenv = { T = \" keyward:a\" }", "is no reference"),
            ("[run.dev]\nenv = { T = 3 }", "is no reference"),
            ("[run.dev]\nenv = { T = { from = \"keyward:a\" } }", "is no reference"),
            ("[run.dev]\nenv = [\"T=s3cret\"]", "line 2: `run.dev.env` is not a table"),
            (
                "[run.dev]\nenv = { LD_PRELOAD = \"keyward:a\" }",
                "line 2: `LD_PRELOAD` is on the list of refused variables",
            ),
            ("[run.dev]\nenv = { \"A B\" = \"keyward:a\" }", "line 2: `A B` is not a variable name"),
            ("[run.dev]\nprofiles = [\"a\"]\ncommand = \"s3cret\"", "line 3: `run.dev.command` is not a list"),
            ("[run.dev]\nprofiles = [\"a\"]\ncommand = []", "line 3: `run.dev.command` has 1 to 64 parts"),
            ("[run.dev]\nprofiles = [\"a\"]\ncommand = [\"\"]", "line 3: `run.dev.command` has 1 to 64 parts"),
            ("[run.dev]\nprofiles = [\"a\"]\ncommand = [\"x\", 3]", "line 3: a part of `run.dev.command` is not text"),
            (
                "[run.dev]\nprofiles = [\"a\"]\ncommand = [\"x\", \"s3cret\\u001b\"]",
                "line 3: a part of `run.dev.command` holds",
            ),
            ("[run.dev]\nprofiles = [\"a\"]\ncommand = [\"x\\u202e\"]", "line 3: a part of `run.dev.command` holds"),
            ("[run.dev]\nprofiles = [\"a\"]\nprofiles = [\"b\"]", "line 3: not TOML: duplicate key"),
            ("[run.dev]\nprofiles = [\"a\"]\n[run.dev]\n", "line 3: not TOML: duplicate key"),
            ("default = s3cret\n[run.dev]", "line 1: not TOML:"),
            ("[run.dev", "line 1: not TOML:"),
        ] {
            let causes = refused(text);
            assert!(causes.contains(told), "{text:?}: {causes}");
            assert!(!causes.contains("s3cret"), "{causes}");
        }
    }

    #[test]
    fn what_nobody_can_look_at_is_refused() {
        let body = "[run.dev]\nprofiles = [\"a\"]\n";
        for hidden in
            ["\u{1b}[1A", "\r", "\u{202e}", "\u{200b}", "\u{7f}", "\u{85}", "\u{2028}", "\u{e0041}", "\u{feff}", "\0"]
        {
            let causes = refused(&format!("{body}# x {hidden}\n"));
            assert!(causes.starts_with("line 3 holds a control character") && causes.is_ascii(), "{causes:?}");
        }
        assert!(ProjectFile::parse(&format!("{body}# ä € 漢\tx")).is_ok());
        assert!(ProjectFile::parse(&format!("{body}# {}", "ä".repeat(178))).is_ok());
        assert!(refused(&format!("{body}# {}", "ä".repeat(179))).contains("line 3 has more than 180 characters"));
        assert!(refused(&format!("{body}# {}", "\t".repeat(36))).contains("line 3 has more than 180 characters"));
        assert!(ProjectFile::parse(&format!("{body}{}", "\n".repeat(397))).is_ok());
        assert!(refused(&format!("{body}{}", "\n".repeat(398))).contains("more than 400 lines"));
        assert!(
            refused(&format!("{body}{}", format!("# {}\n", "x".repeat(97)).repeat(170)))
                .contains("longer than 16384 bytes")
        );
        let deep = format!("{body}x = {}{}", "[".repeat(140), "]".repeat(140));
        assert!(refused(&deep).contains("line 3"));
    }

    #[test]
    fn many_runs_profiles_variables_and_parts_are_refused() {
        let runs = |n: usize| (0..n).fold(String::new(), |text, n| text + &format!("[run.r{n}]\nprofiles = [\"a\"]\n"));
        assert!(ProjectFile::parse(&runs(64)).is_ok() && refused(&runs(65)).contains("more than 64 runs"));
        let run = |field: &str, n: usize, entry: &dyn Fn(usize) -> String, ends: [&str; 2]| {
            let list = (0..n).map(entry).collect::<Vec<_>>().join(",\n");
            format!("[run.dev]\n{field} = {}{list}{}\n", ends[0], ends[1])
        };
        let profiles = |n: usize| run("profiles", n, &|n| format!("\"p{n}\""), ["[", "]"]);
        assert!(ProjectFile::parse(&profiles(16)).is_ok() && refused(&profiles(17)).contains("more than 16"));
        let variables = |n: usize| {
            format!("[run.dev.env]\n{}", (0..n).fold(String::new(), |t, n| t + &format!("V{n} = \"keyward:a\"\n")))
        };
        assert!(
            ProjectFile::parse(&variables(64)).is_ok() && refused(&variables(65)).contains("more than 64 variables")
        );
        let parts = |n: usize| run("profiles = [\"a\"]\ncommand", n, &|n| format!("\"{n}\""), ["[", "]"]);
        assert!(ProjectFile::parse(&parts(64)).is_ok() && refused(&parts(65)).contains("1 to 64 parts"));
    }

    #[test]
    fn a_difference_shows_each_line_that_changed() {
        let show = |before: &str, after: &str| difference(before, after).unwrap();
        assert_eq!(show("", "a\nb\n"), ["+ a", "+ b"]);
        assert_eq!(show("a\nb\n", "a\nb\n"), ["  a", "  b"].map(|_| String::new())[..0]);
        assert_eq!(show("a\nb\nc\n", "a\nx\nc\n"), ["  a", "- b", "+ x", "  c"]);
        assert_eq!(show("a\nb\n", "b\n"), ["- a", "  b"]);
        assert_eq!(show("a\n", "a"), ["  a", "- "], "the line end is a difference");
        assert_eq!(show("a\nb\na\n", "a\na\n"), ["  a", "- b", "  a"]);
        // Where not all fit, two lines around each change; where even they do not, the changes alone.
        let long: String = (0..100).map(|n| format!("{n}\n")).collect();
        let changed = long.replace("\n50\n", "\nx\n");
        assert_eq!(show(&long, &changed), ["  48", "  49", "- 50", "+ x", "  51", "  52"]);
        let few: String = (0..100).map(|n| if n % 4 == 0 { format!("x{n}\n") } else { format!("{n}\n") }).collect();
        let told = show(&long, &few);
        assert!(told.len() == 50 && told.iter().all(|line| !line.starts_with(' ')), "{told:?}");
        let many: String = (0..100).map(|n| if n % 3 == 0 { format!("x{n}\n") } else { format!("{n}\n") }).collect();
        assert_eq!(difference(&long, &many), Err(68), "never a part");
        assert_eq!(difference("", &"x\n".repeat(61)), Err(61));
        assert_eq!(difference("", &"x\n".repeat(60)).unwrap().len(), 60);
    }

    #[test]
    fn a_difference_of_the_largest_files_is_whole() {
        let old: String = (0..400).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n399\n", "\nend\n");
        assert_eq!(difference(&old, &new).unwrap(), ["  397", "  398", "- 399", "+ end"]);
        assert_eq!(difference(&old, &(0..400).rev().map(|n| format!("{n}\n")).collect::<String>()), Err(798));
    }

    proptest::proptest! {
        #[test]
        fn a_difference_leads_from_one_text_to_the_other(before in "([a-c]{0,2}\n){0,20}", after in "([a-c]{0,2}\n?){0,20}") {
            let lines = compared(&before, &after);
            let side = |sign: char| {
                let own = lines.iter().filter(|(s, _)| *s == ' ' || *s == sign).map(|(_, line)| *line);
                own.collect::<Vec<_>>().join("\n")
            };
            let end = |text: &str| text.trim_end_matches('\n').to_owned();
            proptest::prop_assert_eq!(end(&side('-')), end(&before));
            proptest::prop_assert_eq!(end(&side('+')), end(&after));
            proptest::prop_assert_eq!(lines.iter().all(|(sign, _)| *sign == ' '), before == after);
        }

        #[test]
        fn no_text_makes_the_reader_fail_otherwise(text in "[\\[\\]{}=\"a-c.\n, #\\\\ux0-9:-]{0,200}") {
            if let Err(fault) = ProjectFile::parse(&text) {
                proptest::prop_assert_eq!(fault.code, Code::ProjectInvalid);
            }
        }
    }
}
