//! `keyward run`: become a program with the credentials of profiles.
//!
//! The program is looked up before anything is asked for. The broker takes the facts of this process, then the process hides
//! its memory, and only then the answer with the credentials comes. After that it becomes the program: the same pid,
//! terminal, descriptors, signals, umask and folder. Reads no settings; starts a thread and uses a second connection only while
//! a person at this terminal is asked.

use super::Outcome;
use super::profile::Deliver;
use crate::args::Context;
use crate::broker::{Broker, act};
use crate::out::Stop;
use crate::project::Project;
use crate::table::table;
use crate::{asking, out, process, time};
use keyward_api::{
    CommandMsg, DeliveryMode, LauncherMsg, PlanMsg, ProjectRunMsg, RoleMsg, RunAnswer, RunRequest, SetVariable,
    UnsetVariable,
};
use keyward_diag::{Code, Fault, plain};
use keyward_find::find::{Around, Finding, Found, State, auth_headers};
use keyward_find::lookup;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::ffi::{CString, OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Arguments that take more bytes than this on the wire are named by their digest.
const ARGS_MAX_BYTES: usize = 24 * 1024;

/// Variable with headers that Anthropic's clients send with every request.
const CUSTOM_HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";

/// Variables that send requests through a proxy, in either case.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Variables with the hosts that are asked without a proxy.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Exit code of everything that fails before the program has started.
const NOT_STARTED: u8 = 125;

/// Run a program with the credentials of profiles
///
/// The program takes the place of this process. It gets the credentials by the gateway, which puts them on its requests, or
/// in variables or private files. What it holds is taken back when it ends. Exits as the program does, and with 125 when it was not started, 126 when it cannot be
/// executed, 127 when it is not found.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Profile whose credential it gets; may be given several times
    ///
    /// Left out: those of the run that the project's keyward.toml means, else of the only launcher of this program, else the only
    /// profile there is. With it keyward.toml is not read.
    #[arg(short, long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// How the credentials are handed over, in the place of what the profiles say
    ///
    /// Left out, and where a profile does not say it either: the strongest that its issuer and the program can take.
    #[arg(long, value_name = "HOW")]
    deliver: Option<Deliver>,
    /// Longest time that it holds them, such as 30m
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    ttl: Option<u64>,
    /// Why; recorded in the log
    #[arg(long)]
    reason: Option<String>,
    /// Without a terminal, wait at most two minutes where a person has to allow it
    ///
    /// Left out: a caller without a terminal is told at once which command allows it.
    #[arg(long)]
    wait: bool,
    /// Say on standard error what it gets and how, before anybody is asked
    ///
    /// With --json as one line of JSON, as --dry-run --json prints it.
    #[arg(long)]
    explain: bool,
    /// Say what it would get, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Run a program that has rights of another user or capabilities
    #[arg(long)]
    allow_privileged: bool,
    /// Run of the project's keyward.toml: `dev` for its section [run.dev]
    ///
    /// Starts the command of that section in the folder of the file, with what follows `--` behind its arguments; where the
    /// section names no command, what follows `--` is the command. A word before `--` is never a program.
    #[arg(required_unless_present = "command")]
    name: Option<String>,
    /// Program and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What `--dry-run --json` prints, and `--explain --json` on standard error.
#[derive(Serialize)]
struct Plan<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    launcher: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a ProjectRunMsg>,
    plan: &'a [PlanMsg],
    unset: &'a [UnsetVariable],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    args: &'a [String],
    /// The time that was asked for.
    #[serde(skip)]
    asked_ttl_s: Option<u64>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        if let Some(name) = self.name.as_ref().filter(|_| !self.profiles.is_empty()) {
            let cause = format!("`{}` names a run of keyward.toml, which is not read with -p", plain(name, 64));
            let help = "the program comes after `--`: keyward run -p PROFILE -- CMD";
            return Err(Fault::new(Code::Usage).cause(cause).help(help).into());
        }
        started(self.start(context))
    }

    fn start(self, context: &Context) -> Outcome {
        let here = std::env::current_dir().map_err(|e| no_folder("the working folder", &e))?;
        let mut project = match &self.name {
            Some(name) => Some(Project::named(&here, name)?),
            None if self.profiles.is_empty() => Project::meant(&here)?,
            None => None,
        };
        let own = project.as_mut().map(|project| std::mem::take(&mut project.command)).unwrap_or_default();
        let of_file = self.name.is_some() && !own.is_empty();
        let (command, folder) = match &project {
            Some(project) if of_file => {
                let folder = &project.folder;
                std::env::set_current_dir(folder).map_err(|e| no_folder(&folder.display().to_string(), &e))?;
                ([own, self.command].concat(), folder.clone())
            }
            Some(project) if self.command.is_empty() => return Err(no_command(project).into()),
            Some(_) | None => (self.command, here),
        };
        let order = Order {
            profiles: self.profiles,
            deliver: self.deliver,
            ttl_s: self.ttl,
            reason: self.reason,
            wait: self.wait,
            explain: self.explain,
            dry_run: self.dry_run,
            allow_privileged: self.allow_privileged,
            moved: of_file,
            project,
            ..Order::of(command, folder)
        };
        let program = order.program()?;
        let mut broker = Broker::open(context)?;
        let order = order.or_of_launcher(&mut broker, &program)?;
        order.start(context, &mut broker, &program)
    }
}

/// A run that is asked for.
pub(super) struct Order {
    pub(super) profiles: Vec<String>,
    /// Program and arguments; never empty.
    pub(super) command: Vec<OsString>,
    /// Working folder of the program, which is the one of this process by then.
    pub(super) folder: PathBuf,
    /// Launcher that is started.
    pub(super) launcher: Option<String>,
    /// Launcher that names the profiles, where nobody else does.
    pub(super) profiles_of: Option<String>,
    /// The run of the project's file that names the profiles.
    pub(super) project: Option<Project>,
    /// The working folder is another one than that of the caller.
    pub(super) moved: bool,
    pub(super) deliver: Option<Deliver>,
    pub(super) ttl_s: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) wait: bool,
    pub(super) explain: bool,
    pub(super) dry_run: bool,
    pub(super) allow_privileged: bool,
}

impl Order {
    /// An order of a program alone.
    pub(super) fn of(command: Vec<OsString>, folder: PathBuf) -> Self {
        Self {
            profiles: Vec::new(),
            command,
            folder,
            launcher: None,
            profiles_of: None,
            project: None,
            moved: false,
            deliver: None,
            ttl_s: None,
            reason: None,
            wait: false,
            explain: false,
            dry_run: false,
            allow_privileged: false,
        }
    }

    /// Finds the program.
    pub(super) fn program(&self) -> Result<PathBuf, Fault> {
        let name = self.command.first().map_or(OsStr::new(""), OsString::as_os_str);
        lookup::program(name, std::env::var_os("PATH").as_deref())
    }

    /// Without a profile and a project that names some, takes those of the only launcher of the program, where there is exactly
    /// one.
    fn or_of_launcher(mut self, broker: &mut Broker<'_>, program: &Path) -> Result<Self, Fault> {
        if !self.profiles.is_empty() || self.project.is_some() {
            return Ok(self);
        }
        let launchers: Vec<LauncherMsg> = match broker.unlocked(|client| client.get("/v1/launchers")) {
            // Whoever may not see them is told by the request itself what it may have.
            Err(fault) if matches!(fault.code, Code::PolicyDenied | Code::PeerRefused) => return Ok(self),
            launchers => launchers?,
        };
        if let Some(launcher) = only_launcher(launchers, &self.folder.join(program)) {
            self.profiles = launcher.profiles;
            self.profiles_of = Some(launcher.name);
        }
        Ok(self)
    }

    /// Asks for the run and becomes the program. Returns when that fails, and after a dry run.
    pub(super) fn start(self, context: &Context, broker: &mut Broker<'_>, program: &Path) -> Outcome {
        let mut request = self.request(program)?;
        let named = self.project.as_ref().map_or(&self.profiles, |project| &project.profiles);
        // A person who is asked reads the plan first.
        let before = if self.explain && !self.dry_run { self.planned(context, broker, program)? } else { None };
        let answer: RunAnswer = asking::ask(broker, named, &mut request, self.wait)?;
        let plan = self.plan(&answer);
        if self.dry_run {
            if context.json {
                out::json(&plan)?;
            } else {
                out::text(&plan_text(&plan))?;
            }
            return Ok(0);
        }
        if self.explain {
            let told = told(&plan, context.json)?;
            if before.as_ref() != Some(&told) {
                out::explain(&told);
            }
        } else {
            cut(&plan).iter().for_each(|line| out::say(line));
        }
        warn(program, &answer);
        let moved_to = self.moved.then_some(self.folder.as_path());
        let fault = match become_child(program, &self.command, moved_to, &answer) {
            Ok(never) => match never {},
            Err(fault) => fault,
        };
        if let Some(run) = &answer.run {
            // The broker sees the end of this process as well; the first word about it is the better one.
            drop(act::<()>(broker.client(), &format!("/v1/runs/{run}/abort")));
        }
        Err(fault.into())
    }

    /// Says what the run would get, and gives the words. `None` inside a run, which sees no plan before it has what it asked for.
    fn planned(&self, context: &Context, broker: &mut Broker<'_>, program: &Path) -> Result<Option<String>, Fault> {
        let mut request = RunRequest { dry_run: true, ..self.request(program)? };
        if broker.me().is_ok_and(|me| me.role == RoleMsg::Inside) {
            return Ok(None);
        }
        let named = self.project.as_ref().map_or(&self.profiles, |project| &project.profiles);
        let answer: RunAnswer = asking::ask(broker, named, &mut request, false)?;
        let told = told(&self.plan(&answer), context.json)?;
        out::explain(&told);
        Ok(Some(told))
    }

    fn plan<'a>(&'a self, answer: &'a RunAnswer) -> Plan<'a> {
        let launcher = self.launcher.as_deref().or(self.profiles_of.as_deref());
        let RunAnswer { project, plan, unset, args, .. } = answer;
        Plan { launcher, project: project.as_ref(), plan, unset, args, asked_ttl_s: self.ttl_s }
    }

    fn request(&self, program: &Path) -> Result<RunRequest, Fault> {
        let project = lookup::project(&self.folder, &|path| path.symlink_metadata().is_ok());
        Ok(RunRequest {
            profiles: self.profiles.clone(),
            command: CommandMsg {
                path: text(&self.folder.join(program))?,
                args: args_on_the_wire(self.command.get(1..).unwrap_or_default()),
                project: text(project)?,
            },
            variables: std::env::vars_os()
                .filter(|(name, content)| {
                    name != CUSTOM_HEADERS || !auth_headers(&content.to_string_lossy()).is_empty()
                })
                .map(|(name, _)| name.to_string_lossy().into_owned())
                .collect(),
            deliver: self.deliver.map(Deliver::mode),
            ttl_s: self.ttl_s,
            reason: self.reason.clone(),
            dry_run: self.dry_run,
            allow_privileged: self.allow_privileged,
            assertions: Vec::new(),
            launcher: self.launcher.clone(),
            wait: false,
            unattended: false,
            proof: None,
            project_file: self.project.as_ref().map(|project| project.message.clone()),
        })
    }
}

/// The fault of a run of a file that names no command, where the caller gave none either.
fn no_command(project: &Project) -> Fault {
    let name = plain(project.message.run.as_deref().unwrap_or_default(), 64);
    Fault::new(Code::ProjectInvalid)
        .cause(format!("[run.{name}] of {} names no command", plain(&project.message.path, 300)))
        .help(format!("add `command = [\"PROGRAM\"]` to it, or give one: `keyward run {name} -- CMD`"))
}

/// The outcome of what ends before the program has started.
pub(super) fn started(outcome: Outcome) -> Outcome {
    outcome.map_err(|stop| match stop {
        Stop::Fault(fault) => not_started(fault).into(),
        Stop::Unread => Stop::Unread,
    })
}

/// The fault of a working folder that cannot be used.
pub(super) fn no_folder(which: &str, error: &std::io::Error) -> Fault {
    Fault::new(Code::FileUnreadable).cause(format!("{which}: {error}"))
}

/// The launcher whose program is the file of this path, where there is exactly one.
fn only_launcher(launchers: Vec<LauncherMsg>, program: &Path) -> Option<LauncherMsg> {
    let path = std::env::var_os("PATH");
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let wanted = real(program)?;
    let of_program = |launcher: &LauncherMsg| {
        let named = launcher.command.first().map_or(OsStr::new(""), OsStr::new);
        lookup::program(named, path.as_deref()).is_ok_and(|found| real(&found).as_ref() == Some(&wanted))
    };
    let mut found = launchers.into_iter().filter(of_program);
    match (found.next(), found.next()) {
        (Some(launcher), None) => Some(launcher),
        (_, _) => None,
    }
}

/// Says which of the caller's variables the run replaces, and which settings of Claude Code win over what it gets: a run can
/// take variables away, and no settings.
fn warn(program: &Path, answer: &RunAnswer) {
    let owner = |name: &str| {
        let plan = answer.plan.iter().find(|p| p.variables.iter().any(|v| v == name));
        plan.map_or_else(String::new, |p| plain(&p.profile, 64))
    };
    for set in &answer.set {
        // EXPOSE: compared with what the caller has.
        let same = |value: OsString| set.secret.expose(|secret| value == *secret);
        if std::env::var_os(&set.name).is_some_and(|value| !same(value)) {
            out::say(&format!("replaced {} (set by profile {})", plain(&set.name, 100), owner(&set.name)));
        }
    }
    for unset in &answer.unset {
        let (name, profile) = (plain(&unset.name, 100), plain(&unset.profile, 64));
        out::say(&format!("unset {name} (so that profile {profile} alone counts)"));
    }
    let sets = |name: &str| answer.set.iter().any(|set| set.name == name);
    let in_variable = sets("ANTHROPIC_AUTH_TOKEN") || sets("ANTHROPIC_API_KEY");
    let for_claude = program.file_name() == Some(OsStr::new("claude")) && (in_variable || sets("ANTHROPIC_CONFIG_DIR"));
    if !for_claude {
        return;
    }
    let settings = Found::in_claude_settings(&Around::here());
    let wins = |f: &&Finding| f.family == "anthropic" && f.state != State::Empty;
    for finding in settings.findings.iter().filter(wins) {
        // The program for a key is asked where no variable holds one.
        if finding.name != "apiKeyHelper" || !in_variable {
            let (name, place) = (plain(&finding.name, 100), plain(&finding.place.to_string(), 300));
            out::say(&format!("warning: {place} sets {name}, which Claude Code prefers to what this run gives it"));
        }
    }
}

/// The exit code of a failure before the program has started: 126 and 127 keep their meaning.
fn not_started(mut fault: Fault) -> Fault {
    if !matches!(fault.exit, 126 | 127) {
        fault.exit = NOT_STARTED;
    }
    fault
}

fn text(path: &Path) -> Result<String, Fault> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::new(Code::RequestInvalid).cause(format!("{} is not UTF-8, and the log cannot hold it", path.display()))
    })
}

/// The arguments, of which the broker keeps a keyed digest. Those that would not fit into a request are named by SHA-256
/// over all of them, each followed by a zero byte.
fn args_on_the_wire(args: &[OsString]) -> Vec<String> {
    let texts: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if serde_json::to_vec(&texts).is_ok_and(|wire| wire.len() <= ARGS_MAX_BYTES) {
        return texts;
    }
    let mut digest = Sha256::new();
    for arg in args {
        digest.update(arg.as_bytes());
        digest.update([0]);
    }
    vec![format!("sha256:{}", hex::encode(digest.finalize()))]
}

/// Becomes the program. Returns only when that fails.
fn become_child(
    program: &Path,
    command: &[OsString],
    moved_to: Option<&Path>,
    answer: &RunAnswer,
) -> Result<std::convert::Infallible, Fault> {
    let zero = || Fault::new(Code::Usage).cause("an argument holds a zero byte");
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| zero())?;
    let (name, args) = command.split_at(command.len().min(1));
    let given = answer.args.iter().map(String::as_bytes);
    let argv = name.iter().map(|arg| arg.as_bytes()).chain(given).chain(args.iter().map(|arg| arg.as_bytes()));
    let argv: Vec<CString> = argv.map(CString::new).collect::<Result<_, _>>().map_err(|_| zero())?;
    // The caller's word for its working folder, where this process has gone to another one.
    let here = |(name, value): (OsString, OsString)| match moved_to {
        Some(folder) if name == "PWD" => (name, folder.as_os_str().to_owned()),
        Some(_) | None => (name, value),
    };
    let mut caller: Vec<(OsString, OsString)> = std::env::vars_os().map(here).collect();
    if answer.plan.iter().any(|plan| plan.delivery == DeliveryMode::Gateway) {
        past_proxies(&mut caller);
    }
    let envp = environment(caller.into_iter(), &answer.set, &answer.unset)?;

    process::keep_descendants()?;
    process::bear_mark()?;
    let error = process::become_program(&path, &argv, &envp);
    // The file was there a moment ago: what is missing is most likely the interpreter that it names.
    let gone = error.kind() == ErrorKind::NotFound && !program.exists();
    let code = if gone { Code::RunNotFound } else { Code::RunNotExecutable };
    Err(Fault::new(code).cause(format!("{}: {error}", program.display())))
}

/// Where the caller has a proxy, adds the address of the gateway to the hosts that are asked without one: the proxy would be
/// shown the run token, and could not reach the gateway. Programs read either spelling, so both get what there was.
fn past_proxies(caller: &mut Vec<(OsString, OsString)>) {
    let is = |name: &OsStr, known: &str| name.as_bytes().eq_ignore_ascii_case(known.as_bytes());
    if !caller.iter().any(|(name, value)| PROXIES.iter().any(|known| is(name, known)) && !value.is_empty()) {
        return;
    }
    let of = |caller: &[(OsString, OsString)], exact: &str| {
        caller.iter().find(|(name, value)| name == exact && !value.is_empty()).map(|(_, value)| value.clone())
    };
    let [lower, upper] = NO_PROXY.map(|name| of(caller, name));
    caller.retain(|(name, _)| !NO_PROXY.iter().any(|known| name == known));
    for (name, hosts) in
        NO_PROXY.into_iter().zip([lower.as_ref().or(upper.as_ref()), upper.as_ref().or(lower.as_ref())])
    {
        let mut hosts = hosts.cloned().unwrap_or_default();
        let parts = |hosts: &OsStr| hosts.as_bytes().split(|b| *b == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
        if !parts(&hosts).iter().any(|part| matches!(part.trim_ascii(), b"*" | b"127.0.0.1")) {
            if !hosts.is_empty() {
                hosts.push(",");
            }
            hosts.push("127.0.0.1");
        }
        caller.push((name.into(), hosts));
    }
}

/// The caller's variables in their order, without those that are unset or set, then those that are set.
fn environment(
    caller: impl Iterator<Item = (OsString, OsString)>,
    set: &[SetVariable],
    unset: &[UnsetVariable],
) -> Result<Vec<CString>, Fault> {
    let invalid = |name: &str| Fault::new(Code::DeliveryValue).cause(format!("the variable {}", plain(name, 100)));
    let replaced = |name: &OsStr| set.iter().any(|s| *name == *s.name) || unset.iter().any(|u| *name == *u.name);
    let mut out = Vec::new();
    for (name, value) in caller.filter(|(name, _)| !replaced(name)) {
        let mut entry = name.into_vec();
        entry.reserve_exact(value.len() + 2);
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        out.push(CString::new(entry).map_err(|_| Fault::new(Code::Internal).cause("a variable holds a zero byte"))?);
    }
    for variable in set {
        if variable.name.is_empty() || variable.name.contains('=') {
            return Err(invalid(&variable.name));
        }
        // EXPOSE: delivered to the child, in the variable that the profile names.
        let entry = variable.secret.expose(|secret| {
            let mut entry = Vec::with_capacity(variable.name.len() + secret.len() + 2);
            entry.extend_from_slice(variable.name.as_bytes());
            entry.push(b'=');
            entry.extend_from_slice(secret.as_bytes());
            entry
        });
        out.push(CString::new(entry).map_err(|_| invalid(&variable.name))?);
    }
    Ok(out)
}

/// Where `--ttl` is longer than a profile allows.
fn cut(plan: &Plan<'_>) -> Vec<String> {
    let cut = plan.plan.iter().filter(|p| plan.asked_ttl_s.is_some_and(|asked| asked > p.ttl_s));
    let line = |p: &PlanMsg| {
        let (profile, most) = (plain(&p.profile, 64), time::words(p.ttl_s));
        format!("--ttl is cut to {most} for {profile}, the longest that the profile allows")
    };
    cut.map(line).collect()
}

/// A plan as `--explain` tells it.
fn told(plan: &Plan<'_>, as_json: bool) -> Result<String, Fault> {
    match as_json {
        true => serde_json::to_string(plan).map_err(|e| Fault::new(Code::Internal).cause(e)),
        false => Ok(plan_text(plan)),
    }
}

fn plan_text(plan: &Plan<'_>) -> String {
    let rows: Vec<_> = plan
        .plan
        .iter()
        .map(|p| {
            let delivery = format!("{} ({})", p.delivery.word(), p.chosen_by);
            vec![p.profile.clone(), p.issuer.clone(), delivery, p.variables.join(" "), time::words(p.ttl_s)]
        })
        .collect();
    let mut text = plan.launcher.map_or_else(String::new, |name| format!("launcher {}\n", plain(name, 60)));
    if let Some(project) = plan.project {
        let (path, run) = (plain(&project.path, 300), plain(&project.run, 64));
        let seen = if project.reviewed { "" } else { ", which nobody has looked at yet" };
        text.push_str(&format!("{path} [run.{run}]{seen} asks for {}\n", plain(&project.profiles.join(", "), 300)));
        for (variable, profile) in &project.variables {
            text.push_str(&format!("  {} is expected from {}\n", plain(variable, 128), plain(profile, 64)));
        }
    }
    text += &table(&["profile", "issuer", "delivery", "variables", "at most"], &rows);
    for p in plan.plan {
        let profile = plain(&p.profile, 64);
        if let Some(upstream) = &p.upstream {
            let upstream = plain(upstream, 100);
            text.push_str(&format!("{profile} goes to: {upstream}, with a run token in the child\n"));
        }
        if let Some(why) = &p.why {
            text.push_str(&format!("{profile} is not delivered by the gateway: {}\n", plain(why, 300)));
        }
        text.push_str(&format!("{profile} gives away: {}\n", plain(&p.gives_away, 400)));
        if let Some(weaker) = &p.weaker {
            let gives_away = plain(&weaker.gives_away, 400);
            text.push_str(&format!("{profile} would give away with {}: {gives_away}\n", weaker.delivery.word()));
        }
        if !p.fence.is_empty() {
            let limits: Vec<String> = p.fence.iter().map(|limit| plain(limit, 400)).collect();
            text.push_str(&format!("{profile} is fenced, and asks a person at each limit: {}\n", limits.join("; ")));
        }
        if p.confirm {
            text.push_str(&format!("{profile} asks for the passphrase at each use\n"));
        }
    }
    text.extend(cut(plan).into_iter().map(|line| line + "\n"));
    if !plan.args.is_empty() {
        let args: Vec<String> = plan.args.iter().map(|arg| plain(arg, 200)).collect();
        text.push_str(&format!("arguments put before its own: {}\n", args.join(" ")));
    }
    for u in plan.unset {
        text.push_str(&format!("{} is unset: {}\n", plain(&u.name, 100), plain(&u.why, 300)));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use keyward_secret::SecretText;

    fn set(name: &str, secret: &str) -> SetVariable {
        SetVariable { name: name.into(), secret: SecretText::new(secret.into()).unwrap() }
    }

    fn unset(name: &str) -> UnsetVariable {
        UnsetVariable { name: name.into(), profile: "p".into(), why: "w".into() }
    }

    fn planned(change: impl FnOnce(&mut serde_json::Value)) -> PlanMsg {
        let mut plan = serde_json::json!({"profile": "p", "issuer": "static", "delivery": "gateway", "chosen_by": "profile",
            "variables": ["T"], "gives_away": "a token", "ttl_s": 86_400});
        change(&mut plan);
        serde_json::from_value(plan).unwrap()
    }

    fn shown(plan: &[PlanMsg], asked_ttl_s: Option<u64>) -> String {
        plan_text(&Plan { launcher: None, project: None, plan, unset: &[], args: &[], asked_ttl_s })
    }

    #[test]
    fn a_plan_names_fences_and_what_asks_each_time() {
        let bare = shown(&[planned(|_| {})], None);
        assert!(!bare.contains("fenced") && !bare.contains("passphrase"), "{bare}");
        let told = shown(
            &[planned(|p| {
                p["fence"] = serde_json::json!(["at most 5 requests a run", "models: a\u{1b}[2J"]);
                p["confirm"] = true.into();
            })],
            None,
        );
        assert!(told.contains("p is fenced") && told.contains("at most 5 requests a run; models: a\\u{1b}"), "{told}");
        assert!(told.contains("p asks for the passphrase at each use"), "{told}");
    }

    #[test]
    fn a_time_that_the_profile_cuts_is_said() {
        let plan = [planned(|_| {}), planned(|p| (p["profile"], p["ttl_s"]) = ("q".into(), 60.into()))];
        let told = shown(&plan, Some(30 * 3_600));
        assert!(told.contains("cut to 24 h for p") && told.contains("cut to 60 s for q"), "{told}");
        let told = shown(&plan, Some(3_600));
        assert!(!told.contains("for p,") && told.contains("cut to 60 s for q"), "{told}");
        assert!(!shown(&plan, Some(60)).contains("--ttl") && !shown(&plan, None).contains("--ttl"));
    }

    #[test]
    fn the_environment_is_the_callers_less_unset_plus_set() {
        let caller = [("B", "1"), ("OLD", "x"), ("A", ""), ("T", "old"), ("T", "older"), ("C", "a=b")];
        let caller = caller.into_iter().map(|(n, v)| (n.into(), v.into()));
        let got = environment(caller, &[set("T", "s3cret"), set("N", "n")], &[unset("OLD")]).unwrap();
        let got: Vec<_> = got.iter().map(|c| c.to_str().unwrap()).collect();
        assert_eq!(got, ["B=1", "A=", "C=a=b", "T=s3cret", "N=n"]);
    }

    #[test]
    fn the_gateway_is_asked_past_the_callers_proxies() {
        let past = |caller: &[(&str, &str)]| {
            let mut caller: Vec<(OsString, OsString)> = caller.iter().map(|(n, v)| (n.into(), v.into())).collect();
            past_proxies(&mut caller);
            caller.sort();
            caller.into_iter().map(|(n, v)| format!("{}={}", n.display(), v.display())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(past(&[("A", "1"), ("NO_PROXY", "x")]), "A=1 NO_PROXY=x");
        assert_eq!(past(&[("http_proxy", "")]), "http_proxy=");
        for (proxy, hosts, lower, upper) in [
            ("HTTP_PROXY", &[][..], "127.0.0.1", "127.0.0.1"),
            ("ALL_PROXY", &[("NO_PROXY", "a,b")], "a,b,127.0.0.1", "a,b,127.0.0.1"),
            ("https_proxy", &[("NO_PROXY", "a"), ("no_proxy", "b")], "b,127.0.0.1", "a,127.0.0.1"),
            ("http_proxy", &[("no_proxy", "*")], "*", "*"),
            ("http_proxy", &[("no_proxy", "a, 127.0.0.1"), ("NO_PROXY", "")], "a, 127.0.0.1", "a, 127.0.0.1"),
            ("http_proxy", &[("no_proxy", "127.0.0.10")], "127.0.0.10,127.0.0.1", "127.0.0.10,127.0.0.1"),
        ] {
            let caller: Vec<_> = hosts.iter().copied().chain([(proxy, "http://p:1")]).collect();
            let seen = past(&caller);
            assert!(
                seen.contains(&format!("NO_PROXY={upper}")) && seen.contains(&format!("no_proxy={lower}")),
                "{seen}"
            );
            assert_eq!(seen.matches("_PROXY=").count() + seen.matches("_proxy=").count(), 3, "{seen}");
        }
    }

    #[test]
    fn a_credential_that_cannot_stand_in_a_variable_is_refused_without_being_told() {
        for bad in [set("T", "hun\0ter2"), set("", "hunter2"), set("A=B", "hunter2")] {
            let fault = environment(std::iter::empty(), &[bad], &[]).unwrap_err();
            assert!(fault.code == Code::DeliveryValue && !fault.to_string().contains("hun"), "{fault}");
        }
    }

    #[test]
    fn failures_before_the_start_are_125_except_those_about_the_program() {
        let codes = [Code::VaultLocked, Code::PolicyDenied, Code::IssuerFailed, Code::AuditBroken, Code::Internal];
        assert!(codes.iter().all(|c| not_started((*c).into()).exit == 125));
        assert_eq!(not_started(Code::RunNotFound.into()).exit, 127);
        assert_eq!(not_started(Code::RunNotExecutable.into()).exit, 126);
    }

    #[test]
    fn long_arguments_are_named_by_their_digest() {
        let short: Vec<OsString> = vec!["-p".into(), "x".into()];
        assert_eq!(args_on_the_wire(&short), ["-p", "x"]);
        let long: Vec<OsString> = vec!["y".repeat(200_000).into()];
        let split: Vec<OsString> = vec!["y".repeat(100_000).into(), "y".repeat(100_000).into()];
        assert!(args_on_the_wire(&long)[0].starts_with("sha256:"));
        assert_ne!(args_on_the_wire(&long), args_on_the_wire(&split));
        let escaped: Vec<OsString> = vec!["\u{1}".repeat(10_000).into()];
        assert!(args_on_the_wire(&escaped)[0].starts_with("sha256:"), "what counts is the length on the wire");
    }
}
