//! Programs that run what their arguments say: data, in `data/interpreters.toml`.
//!
//! Knows names and nothing else: never looks at a file. Called by the rules of a grant, and by the broker, which tells from
//! it what a grant to such a program has to name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What programs that run their arguments are named, as data.
const INTERPRETERS: &str = include_str!("../data/interpreters.toml");

#[derive(serde::Deserialize)]
struct Interpreters {
    starters: Vec<String>,
    #[serde(flatten)]
    of_scripts: BTreeMap<String, OfScripts>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OfScripts {
    names: Vec<String>,
    options: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
}

/// The list; `None` where it cannot be read, which makes an interpreter of everything.
static LIST: LazyLock<Option<Interpreters>> = LazyLock::new(|| toml::from_str(INTERPRETERS).ok());

/// Whether the file of a program has one of these names, with or without a version behind it.
fn is_named(program: &str, names: &[String]) -> bool {
    let file = program.rsplit('/').next().unwrap_or(program);
    let version =
        |rest: &str| rest.is_empty() || rest.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    names.iter().any(|name| file.strip_prefix(name.as_str()).is_some_and(version))
}

/// Whether a program, by its path or the name of its file, runs what its arguments say, so that naming it names nothing.
/// Knows names alone: a link or a copy under another name is none, so ask with the name behind the links too.
pub fn interpreter(program: &str) -> bool {
    LIST.as_ref().is_none_or(|list| {
        is_named(program, &list.starters) || list.of_scripts.values().any(|one| is_named(program, &one.names))
    })
}

/// The argument that is the script of an interpreter, as it was given; `None` where there is none, or where one cannot tell
/// by the arguments what would run. Whether it is a file, and where, the broker has to see.
pub fn script_of<'a>(program: &str, args: &'a [String]) -> Option<&'a str> {
    let list = LIST.as_ref()?;
    if is_named(program, &list.starters) {
        return None;
    }
    let own = list.of_scripts.values().find(|one| is_named(program, &one.names))?;
    let script = args.iter().find(|arg| !own.options.contains(arg))?;
    (!script.is_empty() && !script.starts_with(['-', '+']) && !own.not.contains(script)).then_some(script.as_str())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn interpreters_are_known_by_name_and_version() {
        let list = LIST.as_ref().unwrap_or_else(|| panic!("the list cannot be read"));
        assert!(list.of_scripts.len() >= 8);
        for program in [
            "python",
            "python3",
            "/usr/bin/python3.13",
            "/x/python3.13t",
            "/usr/bin/python2.7-dbg",
            "node",
            "/opt/node22/bin/node",
            "nodejs",
            "/bin/sh",
            "bash",
            "dash",
            "zsh5.9",
            "ruby3.3",
            "perl",
            "/usr/bin/perl5.40.1",
            "deno",
            "bun",
            "php8.4",
            "lua5.4",
            "env",
            "/usr/bin/env",
            "busybox",
            "sudo",
            "xargs",
            "npx",
            "/lib64/ld-linux-x86-64.so.2",
            "ld.so",
            "/lib/ld-musl-x86_64.so.1",
            "gawk",
            "/usr/bin/vim.basic",
            "vim.tiny",
            "nvim",
            "emacs-nox",
        ] {
            assert!(interpreter(program), "{program}");
        }
        for program in [
            "claude",
            "/usr/bin/git",
            "nodemon",
            "pythonista",
            "shfmt",
            "bashful",
            "envoy",
            "perldoc",
            "",
            "/",
            "node/",
            "ld",
        ] {
            assert!(!interpreter(program), "{program}");
        }
    }

    #[test]
    fn the_script_is_what_surely_runs() {
        for (program, args, want) in [
            ("/usr/bin/python3", "x.py", Some("x.py")),
            ("/usr/bin/python3", "x.py -c evil", Some("x.py")),
            ("/usr/bin/python3", "-u -I ./x.py --fast", Some("./x.py")),
            ("/usr/bin/python3", "", None),
            ("/usr/bin/python3", "-", None),
            ("/usr/bin/python3", "-c evil x.py", None),
            ("/usr/bin/python3", "-cevil x.py", None),
            ("/usr/bin/python3", "-m evil x.py", None),
            ("/usr/bin/python3", "-u -m evil x.py", None),
            ("/usr/bin/python3", "-W ignore x.py", None),
            ("/usr/bin/python3", "-- x.py", None),
            ("node", "x.js", Some("x.js")),
            ("node", "-r ./evil.js x.js", None),
            ("node", "--import=./evil.js x.js", None),
            ("node", "--eval evil x.js", None),
            ("node", "inspect evil.js", None),
            ("bash", "-eu build.sh", Some("build.sh")),
            ("bash", "-c evil build.sh", None),
            ("bash", "-euc evil build.sh", None),
            ("bash", "--rcfile evil build.sh", None),
            ("bash", "+O extglob build.sh", None),
            ("sh", "-s x", None),
            ("perl", "-Mevil x.pl", None),
            ("ruby", "-r./evil x.rb", None),
            ("php", "-d auto_prepend_file=evil x.php", None),
            ("lua5.4", "x.lua", Some("x.lua")),
            ("env", "python3 x.py", None),
            ("env", "x.py", None),
            ("npx", "x.js", None),
            ("deno", "run x.ts", None),
            ("claude", "x.py", None),
        ] {
            let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
            assert_eq!(script_of(program, &args), want, "{program} {args:?}");
        }
        assert_eq!(script_of("bash", &[String::new(), "x.sh".to_owned()]), None);
    }
}
