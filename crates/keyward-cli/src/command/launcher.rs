//! `keyward launcher`: saved commands with the profiles that they run with.

use super::Outcome;
use super::setup::for_family;
use crate::args::Context;
use crate::broker::Broker;
use crate::input::ProofArgs;
use crate::table::{pairs, table};
use crate::{out, time};
use keyward_api::place::Places;
use keyward_api::{LauncherMsg, LauncherPutRequest, ProfileMsg, part};
use keyward_diag::{Code, Fault, plain};
use keyward_find::agents::{Agent, agents, known};
use keyward_find::find::Around;
use keyward_find::lookup;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Save commands with their profiles, as entries of the tray menu
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add a launcher
    ///
    /// The program is looked up at once and saved by its path. The command is stored as it is and shown to all who may see launchers:
    /// no place for a secret, which the profiles hand over. Without --folder it starts in the home folder.
    Add {
        /// Name, as the tray menu shows it
        name: String,
        /// Profile whose credential it gets; may be given several times
        #[arg(short, long = "profile", value_name = "PROFILE", required = true)]
        profiles: Vec<String>,
        #[command(flatten)]
        how: How,
        /// Program and its arguments
        #[arg(required = true, last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Change a launcher; what is not given stays
    ///
    /// Asks for the passphrase, since a click on it would start something else.
    Edit {
        /// Name of the launcher
        name: String,
        /// New name
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// Profile in the place of those it has; may be given several times
        #[arg(short, long = "profile", value_name = "PROFILE")]
        profiles: Vec<String>,
        #[command(flatten)]
        how: How,
        /// Start it in the home folder again
        #[arg(long, conflicts_with = "folder")]
        no_folder: bool,
        /// Program and its arguments in the place of those it has
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// List the launchers
    List,
    /// Show a launcher
    Show {
        /// Name of the launcher
        name: String,
    },
    /// Remove a launcher
    Remove {
        /// Name of the launcher
        name: String,
    },
    /// Find the agents that are installed here, and say how to add each
    ///
    /// Runs none of them, changes nothing and starts no broker. Programs that others can change are passed over.
    Detect,
}

/// Where and how a launcher starts.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// Working folder
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// It needs a terminal; taken for granted unless it is known to need none
    ///
    /// The tray menu opens the terminal emulator that the variable TERMINAL names, where that is one that Keyward knows, else
    /// the one that the desktop or the system has chosen.
    #[arg(long)]
    terminal: bool,
    /// It needs no terminal
    #[arg(long, conflicts_with = "terminal")]
    no_terminal: bool,
}

/// What `detect --json` prints for each agent.
#[derive(Serialize)]
struct Detected {
    #[serde(flatten)]
    agent: Agent,
    /// Profile whose credential it takes, where there is one.
    profile: Option<String>,
    /// Launcher that starts it already.
    launcher: Option<String>,
    /// The command that adds one.
    add: String,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Add { name, profiles, how, command } => add(context, name, profiles, &how, command),
            Self::Edit { name, rename, profiles, how, no_folder, command, proof } => {
                let change = Change { rename, profiles, how, no_folder, command };
                edit(context, &name, change, &proof)
            }
            Self::List => list(context),
            Self::Show { name } => show(context, &name),
            Self::Remove { name } => remove(context, &name),
            Self::Detect => detect(context),
        }
    }
}

impl How {
    /// The working folder as an absolute path.
    fn folder(&self) -> Result<Option<String>, Fault> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let invalid =
            |why: &str| Fault::new(Code::LauncherInvalid).cause(format!("the folder {}: {why}", folder.display()));
        let folder = std::path::absolute(folder).map_err(|e| invalid(&e.to_string()))?;
        if !folder.is_dir() {
            return Err(invalid("there is no such folder"));
        }
        folder.to_str().map(str::to_owned).map(Some).ok_or_else(|| invalid("it is no UTF-8 text"))
    }

    /// Whether a terminal is needed: as was said, else as the agent of that program does, else yes.
    fn terminal(&self, program: &str) -> bool {
        self.terminal || !self.no_terminal && known(program).is_none_or(|agent| agent.terminal)
    }
}

/// The changes to a launcher.
struct Change {
    rename: Option<String>,
    profiles: Vec<String>,
    how: How,
    no_folder: bool,
    command: Vec<String>,
}

/// The launcher of a name, in upper or lower case: no two differ in that alone.
///
/// # Errors
/// [`Code::LauncherUnknown`] with the names that there are.
pub(super) fn find(launchers: Vec<LauncherMsg>, name: &str) -> Result<LauncherMsg, Fault> {
    let names = launchers.iter().map(|launcher| launcher.name.as_str()).collect::<Vec<_>>().join(", ");
    let unknown = Fault::new(Code::LauncherUnknown).cause(format!("nothing is named `{}`", plain(name, 60)));
    let unknown = match names.as_str() {
        "" => unknown.help("add one with `keyward launcher add`; `keyward launcher detect` says how"),
        names => unknown.cause(format!("there are: {names}")),
    };
    launchers.into_iter().find(|launcher| launcher.name.to_lowercase() == name.to_lowercase()).ok_or(unknown)
}

/// The command with its program by an absolute path, so that what starts is what was meant when it was saved.
fn by_path(mut command: Vec<String>) -> Result<Vec<String>, Fault> {
    let Some(program) = command.first_mut() else { return Ok(command) };
    let found = lookup::program(OsStr::new(program), std::env::var_os("PATH").as_deref()).map_err(|fault| Fault {
        // Nothing was to be run.
        exit: Code::LauncherInvalid.exit(),
        ..fault
    })?;
    let found = std::path::absolute(&found).unwrap_or(found);
    *program = found.into_os_string().into_string().map_err(|path| {
        let path = Path::new(&path).display().to_string();
        Fault::new(Code::LauncherInvalid).cause(format!("{} is no UTF-8 text", plain(&path, 300)))
    })?;
    Ok(command)
}

fn path_of(name: &str) -> String {
    format!("/v1/launchers/{}", part(name))
}

fn all(broker: &mut Broker<'_>) -> Result<Vec<LauncherMsg>, Fault> {
    broker.unlocked(|client| client.get("/v1/launchers"))
}

fn add(context: &Context, name: String, profiles: Vec<String>, how: &How, command: Vec<String>) -> Outcome {
    let terminal = how.terminal(command.first().map_or("", String::as_str));
    let command = by_path(command)?;
    let request = LauncherPutRequest { name, command, folder: how.folder()?, profiles, terminal, proof: None };
    Broker::open(context)?.unlocked(|client| client.post::<_, ()>("/v1/launchers", &request))?;
    out::say(&format!(
        "launcher {0} is added; start it with `keyward launch {1}`",
        plain(&request.name, 60),
        word(&request.name)
    ));
    Ok(0)
}

fn edit(context: &Context, name: &str, change: Change, proof: &ProofArgs) -> Outcome {
    let how = &change.how;
    let nothing = change.rename.is_none()
        && change.profiles.is_empty()
        && change.command.is_empty()
        && how.folder.is_none()
        && !(change.no_folder || how.terminal || how.no_terminal);
    if nothing {
        let fault = Fault::new(Code::Usage).cause("nothing was given that would change it");
        return Err(fault.help("see `keyward launcher edit --help`").into());
    }
    let folder = how.folder()?;
    let command = by_path(change.command)?;
    let mut broker = Broker::open(context)?;
    let before = find(all(&mut broker)?, name)?;
    let kept = if change.no_folder { None } else { before.folder };
    let request = LauncherPutRequest {
        name: change.rename.unwrap_or_else(|| before.name.clone()),
        command: if command.is_empty() { before.command } else { command },
        folder: folder.or(kept),
        profiles: if change.profiles.is_empty() { before.profiles } else { change.profiles },
        terminal: if how.terminal || how.no_terminal { how.terminal } else { before.terminal },
        proof: Some(proof.proof(context, &Places::current()?)?),
    };
    broker.unlocked(|client| client.put::<_, ()>(&path_of(&before.name), &request))?;
    out::say(&format!("launcher {} is changed", plain(&request.name, 60)));
    Ok(0)
}

fn list(context: &Context) -> Outcome {
    let launchers = all(&mut Broker::open(context)?)?;
    if context.json {
        out::json(&launchers)?;
    } else if launchers.is_empty() {
        out::say("there is no launcher yet; `keyward launcher detect` finds agents and says how to add them");
    } else {
        let row = |l: LauncherMsg| {
            let last = l.launched_at.as_deref().map(time::ago).unwrap_or_default();
            vec![l.name, line(&l.command), l.folder.unwrap_or_else(|| "~".to_owned()), l.profiles.join(" "), last]
        };
        let rows: Vec<_> = launchers.into_iter().map(row).collect();
        out::text(&table(&["launcher", "command", "folder", "profiles", "launched"], &rows))?;
    }
    Ok(0)
}

fn show(context: &Context, name: &str) -> Outcome {
    let found = find(all(&mut Broker::open(context)?)?, name)?;
    if context.json {
        out::json(&found)?;
        return Ok(0);
    }
    out::text(&pairs(&[
        ("name", found.name),
        ("command", line(&found.command)),
        ("folder", found.folder.unwrap_or_else(|| "the home folder".to_owned())),
        ("profiles", found.profiles.join(" ")),
        ("terminal", if found.terminal { "needed" } else { "not needed" }.to_owned()),
        ("added", time::ago(&found.created_at)),
        ("changed", time::ago(&found.updated_at)),
        ("launched", found.launched_at.as_deref().map_or("never".to_owned(), time::ago)),
    ]))?;
    Ok(0)
}

fn remove(context: &Context, name: &str) -> Outcome {
    let mut broker = Broker::open(context)?;
    let found = find(all(&mut broker)?, name)?;
    broker.unlocked(|client| client.delete::<()>(&path_of(&found.name)))?;
    out::say(&format!("launcher {} is removed", plain(&found.name, 60)));
    Ok(0)
}

fn detect(context: &Context) -> Outcome {
    let found = agents(&Around::here());
    // What is in the vault makes the lines better; without it they have a blank to fill.
    let mut broker = Broker::if_running(context)?;
    let mut stock = || {
        let client = broker.as_mut()?.client();
        Some((client.get("/v1/profiles").ok()?, client.get("/v1/launchers").ok()?))
    };
    let (profiles, launchers): (Vec<ProfileMsg>, Vec<LauncherMsg>) = stock().unwrap_or_default();
    let detected: Vec<_> = found.into_iter().map(|agent| Detected::of(agent, &profiles, &launchers)).collect();
    if context.json {
        out::json(&detected)?;
    } else if detected.is_empty() {
        out::say("no agent that Keyward knows is installed here; add any program with `keyward launcher add`");
    } else {
        out::text(&detected.iter().map(Detected::lines).collect::<String>())?;
    }
    Ok(0)
}

impl Detected {
    fn of(agent: Agent, profiles: &[ProfileMsg], launchers: &[LauncherMsg]) -> Self {
        let profile = agent.providers.iter().find_map(|family| for_family(profiles, family)).map(|p| p.name.clone());
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let same = |l: &&LauncherMsg| l.command.first().is_some_and(|c| real(Path::new(c)) == real(&agent.path));
        let launcher = launchers.iter().find(same).map(|l| l.name.clone());
        let path = agent.path.to_string_lossy();
        let command: Vec<_> = std::iter::once(&*path).chain(agent.args.iter().map(String::as_str)).map(word).collect();
        let named = profile.as_deref().unwrap_or("PROFILE");
        let add = format!("keyward launcher add {} -p {named} -- {}", word(&agent.name), command.join(" "));
        Self { profile, launcher, add, agent }
    }

    fn lines(&self) -> String {
        let head = format!("{}  {}\n", plain(&self.agent.name, 60), plain(&self.agent.path.to_string_lossy(), 300));
        match &self.launcher {
            Some(launcher) => format!("{head}  launcher {} starts it\n", plain(launcher, 60)),
            None => format!("{head}  {}\n", plain(&self.add, 600)),
        }
    }
}

/// A command as it would be typed.
fn line(command: &[String]) -> String {
    command.iter().map(|part| word(part)).collect::<Vec<_>>().join(" ")
}

/// A text as one word of a POSIX shell.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    fn launcher(name: &str, program: &str) -> LauncherMsg {
        let launcher = json!({"name": name, "command": [program], "profiles": ["p"], "terminal": true,
            "created_at": "", "updated_at": ""});
        serde_json::from_value(launcher).unwrap()
    }

    #[test]
    fn a_launcher_is_found_by_its_name_in_any_case() {
        let all = || vec![launcher("Claude Code", "c"), launcher("review", "r")];
        for (name, want) in [("Claude Code", "c"), ("claude code", "c"), ("Review", "r")] {
            assert_eq!(find(all(), name).unwrap().command, [want], "{name}");
        }
        let unknown = find(all(), "Claude\u{1b}[2J").unwrap_err();
        assert!(
            unknown.code == Code::LauncherUnknown && unknown.to_string().contains("Claude Code, review"),
            "{unknown}"
        );
        assert!(!unknown.to_string().contains('\u{1b}'));
        assert!(find(Vec::new(), "x").unwrap_err().help.contains("launcher detect"));
    }

    #[test]
    fn a_line_can_be_typed_as_it_is_shown() {
        for (text, want) in [
            ("claude", "claude"),
            ("/usr/bin/a-b_c.d", "/usr/bin/a-b_c.d"),
            ("Claude Code", "'Claude Code'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$(x)", "'$(x)'"),
            ("~/x", "'~/x'"),
        ] {
            assert_eq!(word(text), want);
        }
    }

    #[test]
    fn a_terminal_is_assumed_where_nothing_else_is_known() {
        let how = |terminal, no_terminal| How { folder: None, terminal, no_terminal };
        let given = |terminal, no_terminal, program| how(terminal, no_terminal).terminal(program);
        assert!(given(false, false, "claude") && given(false, false, "/opt/anything"));
        assert!(
            !given(false, false, "/usr/bin/cursor") && given(true, false, "cursor") && !given(false, true, "claude")
        );
    }

    #[test]
    fn a_detected_agent_is_offered_with_the_profile_that_fits() {
        let agent = |name: &str, path: &str, family: &str| Agent {
            id: "x".into(),
            name: name.into(),
            path: path.into(),
            args: vec!["session".into()],
            terminal: true,
            providers: vec![family.into()],
        };
        let profile = json!({"name": "work", "issuer": "static", "delivery": "env", "variables": ["OPENAI_API_KEY"],
            "max_ttl_s": 1, "leases": 0, "toml": "", "created_at": "", "updated_at": ""});
        let profiles: Vec<ProfileMsg> = vec![serde_json::from_value(profile).unwrap()];
        let codex = Detected::of(agent("My Agent", "/bin/cat", "openai"), &profiles, &[]);
        assert_eq!(codex.add, "keyward launcher add 'My Agent' -p work -- /bin/cat session");
        let other = Detected::of(agent("A", "/bin/cat", "gemini"), &profiles, &[launcher("mine", "/usr/bin/cat")]);
        assert_eq!((other.profile, other.launcher.as_deref()), (None, Some("mine")));
        assert!(other.add.contains(" -p PROFILE -- "), "{}", other.add);
    }
}
