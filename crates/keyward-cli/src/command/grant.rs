//! `keyward grant`: what is allowed without asking.

use super::Outcome;
use super::profile::Deliver;
use crate::args::Context;
use crate::broker::Broker;
use crate::input::ProofArgs;
use crate::table::table;
use crate::{out, time};
use clap::builder::RangedU64ValueParser;
use jiff::Timestamp;
use keyward_api::{DeliveryMode, GrantMsg, GrantPutRequest, GrantSpan, part};
use keyward_diag::{Code, Fault, plain};
use keyward_find::lookup;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Shortest grant, in seconds.
const SHORTEST_S: u64 = 60;

/// Allow runs and tokens ahead of their requests
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add a grant
    ///
    /// Asks for the passphrase each time. Without --app and --launcher it is for every program, without --project for every
    /// folder. A grant ends by itself.
    Add {
        /// Profile whose credential may be delivered
        #[arg(short, long, value_name = "PROFILE")]
        profile: String,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Change a grant; what is not given stays
    ///
    /// Asks for the passphrase each time.
    Edit {
        /// Id of the grant, as `grant list` shows it
        id: String,
        /// Profile in the place of the one it has
        #[arg(short, long, value_name = "PROFILE")]
        profile: Option<String>,
        #[command(flatten)]
        scope: Scope,
        /// For every program
        #[arg(long, conflicts_with_all = ["app", "launcher", "script"])]
        any_app: bool,
        /// Without a limit of deliveries
        #[arg(long, conflicts_with = "uses")]
        any_uses: bool,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// List the grants, and what each has allowed
    ///
    /// One whose deliveries are used up is listed until its time is over, or the vault is locked. Those that have ended stand in
    /// the log: `keyward audit list --kind grant`.
    List,
    /// Take a grant back
    ///
    /// What was delivered under it goes on to its own end: take that back with `keyward revoke`.
    Revoke {
        /// Id of the grant, as `grant list` shows it
        id: String,
    },
}

/// What a grant is for, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Scope {
    /// How long it holds, from 1m to 24h; 1h when left out
    #[arg(long = "for", value_name = "TIME", value_parser = time::grant_life)]
    for_s: Option<u64>,
    /// For this program alone, by path or as found in PATH; an interpreter needs --script too
    #[arg(long, value_name = "PROGRAM", conflicts_with = "launcher")]
    app: Option<PathBuf>,
    /// For the starts of this launcher alone
    #[arg(long, value_name = "NAME")]
    launcher: Option<String>,
    /// For this script of the interpreter alone
    #[arg(long, value_name = "FILE", conflicts_with = "launcher")]
    script: Option<PathBuf>,
    /// For this project alone, named by any folder in it
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// For every folder
    #[arg(long, conflicts_with = "project")]
    anywhere: bool,
    /// The weakest delivery that it allows: gateway, then file, then env; env when left out
    #[arg(long, value_name = "HOW")]
    deliver: Option<Deliver>,
    /// How many deliveries it allows; no limit when left out
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    uses: Option<u32>,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Add { profile, scope, proof } => add(context, profile, &scope, &proof),
            Self::Edit { id, profile, scope, any_app, any_uses, proof } => {
                edit(context, &id, &Change { profile, scope, any_app, any_uses }, &proof)
            }
            Self::List => list(context),
            Self::Revoke { id } => revoke(context, &id),
        }
    }
}

/// The changes to a grant.
struct Change {
    profile: Option<String>,
    scope: Scope,
    any_app: bool,
    any_uses: bool,
}

fn add(context: &Context, profile: String, scope: &Scope, proof: &ProofArgs) -> Outcome {
    if scope.script.is_some() && scope.app.is_none() {
        let fault = Fault::new(Code::Usage).cause("--script names the script of an interpreter, which --app must name");
        return Err(fault.help("see `keyward grant add --help`").into());
    }
    let mut request = GrantPutRequest {
        profile,
        program: scope.app()?,
        script: scope.script()?,
        launcher: scope.launcher.clone(),
        project: scope.project()?,
        weakest: scope.deliver.map(Deliver::mode),
        for_s: scope.for_s,
        uses: scope.uses,
        proof: None,
    };
    let prove = |request: &mut GrantPutRequest, proof| request.proof = Some(proof);
    let made: GrantMsg = Broker::open(context)?
        .proven(proof, &mut request, prove, |client, request| client.post("/v1/grants", request))?;
    told(context, &made, "added")
}

fn edit(context: &Context, id: &str, change: &Change, proof: &ProofArgs) -> Outcome {
    let scope = &change.scope;
    let nothing = change.profile.is_none()
        && scope.app.is_none()
        && scope.launcher.is_none()
        && scope.script.is_none()
        && scope.project.is_none()
        && scope.for_s.is_none()
        && scope.deliver.is_none()
        && scope.uses.is_none()
        && !(scope.anywhere || change.any_app || change.any_uses);
    if nothing {
        let fault = Fault::new(Code::Usage).cause("nothing was given that would change it");
        return Err(fault.help("see `keyward grant edit --help`").into());
    }
    let mut broker = Broker::open(context)?;
    broker.outside()?;
    let before = find(all(&mut broker)?, id)?;
    let path = path_of(&before.grant);
    let mut request = changed(before, change, Timestamp::now())?;
    let prove = |request: &mut GrantPutRequest, proof| request.proof = Some(proof);
    let made: GrantMsg = broker.proven(proof, &mut request, prove, |client, request| client.put(&path, request))?;
    told(context, &made, "changed")
}

/// The whole grant that a change leads to.
fn changed(before: GrantMsg, change: &Change, now: Timestamp) -> Result<GrantPutRequest, Fault> {
    let scope = &change.scope;
    let other_app = change.any_app || scope.app.is_some() || scope.launcher.is_some();
    let (program, script, launcher) = if other_app {
        (scope.app()?, scope.script()?, scope.launcher.clone())
    } else {
        (before.program, scope.script()?.or(before.script), before.launcher)
    };
    let for_s = match scope.for_s {
        Some(for_s) => for_s,
        None => left(&before.until, now)?,
    };
    Ok(GrantPutRequest {
        profile: change.profile.clone().unwrap_or(before.profile),
        program,
        script,
        launcher,
        project: if scope.anywhere { None } else { scope.project()?.or(before.project) },
        weakest: Some(scope.deliver.map_or(before.weakest, Deliver::mode)),
        for_s: Some(for_s),
        uses: if change.any_uses { None } else { scope.uses.or(before.uses_left) },
        proof: None,
    })
}

/// Seconds until a grant ends, for one that keeps its end.
fn left(until: &str, now: Timestamp) -> Result<u64, Fault> {
    let seconds = until.parse::<Timestamp>().map_or(0, |at| at.as_second() - now.as_second());
    u64::try_from(seconds).ok().filter(|seconds| *seconds >= SHORTEST_S).ok_or_else(|| {
        Fault::new(Code::GrantInvalid)
            .cause("it ends in less than a minute")
            .help("say how long it is to hold from now on: --for 1h")
    })
}

fn list(context: &Context) -> Outcome {
    let grants = all(&mut Broker::open(context)?)?;
    if context.json {
        out::json(&grants)?;
    } else if grants.is_empty() {
        out::say("nothing is granted; `keyward grant add` allows something ahead of its request");
    } else {
        let header = ["grant", "profile", "app", "project", "delivery", "left", "uses left", "allowed"];
        out::text(&table(&header, &grants.iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(0)
}

fn row(grant: &GrantMsg) -> Vec<String> {
    let allowed = match (&grant.last_allowed_at, grant.allowed) {
        (_, 0) => "never".to_owned(),
        (None, n) => n.to_string(),
        (Some(at), n) => format!("{n}, last {}", time::ago(at)),
    };
    vec![
        grant.grant.clone(),
        grant.profile.clone(),
        app(grant),
        grant.project.clone().unwrap_or_else(|| "anywhere".to_owned()),
        deliveries(grant.weakest).to_owned(),
        span(grant),
        match grant.uses_left {
            None => "no limit".to_owned(),
            Some(0) => "used up".to_owned(),
            Some(n) => n.to_string(),
        },
        allowed,
    ]
}

fn app(grant: &GrantMsg) -> String {
    match (&grant.launcher, &grant.program, &grant.script) {
        (Some(launcher), ..) => format!("launcher {launcher}"),
        (None, Some(program), Some(script)) => format!("{program} {script}"),
        (None, Some(program), None) => program.clone(),
        (None, None, _) => match grant.equal_to.as_deref() {
            None => "any".to_owned(),
            Some("?") => "of the equal request".to_owned(),
            Some(app) => format!("{app}, the equal request"),
        },
    }
}

/// What `weakest` lets through.
fn deliveries(weakest: DeliveryMode) -> &'static str {
    match weakest {
        DeliveryMode::Env => "all",
        DeliveryMode::File => "file, gateway",
        DeliveryMode::Gateway => "gateway",
    }
}

fn span(grant: &GrantMsg) -> String {
    let left = time::left(&grant.until);
    match (grant.span, &grant.run) {
        (GrantSpan::Standing, _) => left,
        (GrantSpan::Once, _) => format!("{left}, once"),
        (GrantSpan::Run, None) => format!("{left}, one run"),
        (GrantSpan::Run, Some(run)) => format!("{left}, run {}", super::ps::short(run)),
    }
}

fn revoke(context: &Context, id: &str) -> Outcome {
    let mut broker = Broker::open(context)?;
    broker.outside()?;
    let grant = find(all(&mut broker)?, id)?;
    broker.unlocked(|client| client.delete::<()>(&path_of(&grant.grant)))?;
    out::say(&format!("grant {} of profile {} is taken back", plain(&grant.grant, 40), plain(&grant.profile, 64)));
    Ok(0)
}

/// Says what a grant allows.
fn told(context: &Context, made: &GrantMsg, what: &str) -> Outcome {
    if context.json {
        out::json(made)?;
        return Ok(0);
    }
    let project = made.project.as_deref().map_or("in every folder".to_owned(), |p| format!("in {}", plain(p, 300)));
    let whom = match app(made).as_str() {
        "any" => "every program".to_owned(),
        app => plain(app, 300),
    };
    out::say(&format!(
        "grant {} is {what}: {whom} {project} gets {} for {} without asking ({})",
        plain(&made.grant, 40),
        plain(&made.profile, 64),
        time::left(&made.until),
        match made.weakest {
            DeliveryMode::Env => "by any delivery",
            DeliveryMode::File => "by a file or the gateway",
            DeliveryMode::Gateway => "by the gateway alone",
        }
    ));
    Ok(0)
}

fn path_of(id: &str) -> String {
    format!("/v1/grants/{}", part(id))
}

fn all(broker: &mut Broker<'_>) -> Result<Vec<GrantMsg>, Fault> {
    broker.unlocked(|client| client.get("/v1/grants"))
}

/// The grant of an id, in upper or lower case.
fn find(grants: Vec<GrantMsg>, id: &str) -> Result<GrantMsg, Fault> {
    let unknown = || Fault::new(Code::GrantUnknown).cause(format!("nothing has the id `{}`", plain(id, 40)));
    grants.into_iter().find(|grant| grant.grant.eq_ignore_ascii_case(id)).ok_or_else(unknown)
}

impl Scope {
    /// The program by its absolute path.
    fn app(&self) -> Result<Option<String>, Fault> {
        let Some(app) = &self.app else { return Ok(None) };
        let found = lookup::program(app.as_os_str(), std::env::var_os("PATH").as_deref()).map_err(|fault| Fault {
            // Nothing was to be run.
            exit: Code::GrantInvalid.exit(),
            ..fault
        })?;
        absolute("the program", &found).map(Some)
    }

    /// The script by its absolute path.
    fn script(&self) -> Result<Option<String>, Fault> {
        let Some(script) = &self.script else { return Ok(None) };
        if !script.is_file() {
            return Err(invalid("the script", script, "there is no such file"));
        }
        absolute("the script", script).map(Some)
    }

    /// The project as a run in it names it: without links, the folder with the repository.
    fn project(&self) -> Result<Option<String>, Fault> {
        let Some(folder) = &self.project else { return Ok(None) };
        let real = std::fs::canonicalize(folder).map_err(|e| invalid("the project", folder, &e.to_string()))?;
        if !real.is_dir() {
            return Err(invalid("the project", folder, "it is no folder"));
        }
        let project = lookup::project(&real, &|path| path.symlink_metadata().is_ok());
        absolute("the project", project).map(Some)
    }
}

fn absolute(what: &str, path: &Path) -> Result<String, Fault> {
    let absolute = std::path::absolute(path).map_err(|e| invalid(what, path, &e.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| invalid(what, path, "it is no UTF-8 text"))
}

fn invalid(what: &str, path: &Path, why: &str) -> Fault {
    let shown = plain(&OsStr::to_string_lossy(path.as_os_str()), 300);
    Fault::new(Code::GrantInvalid).cause(format!("{what} {shown}: {why}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    fn grant() -> GrantMsg {
        let grant = json!({"grant": "7K2M9QXT", "span": "standing", "profile": "p", "program": "/usr/bin/python3",
            "script": "/a/b.py", "project": "/a", "weakest": "gateway", "created_at": "2026-11-21T09:00:00Z",
            "until": "2026-11-21T11:00:00Z", "uses_left": 3, "allowed": 4, "last_allowed_at": "2026-11-21T09:30:00Z"});
        serde_json::from_value(grant).unwrap()
    }

    fn scope() -> Scope {
        Scope {
            for_s: None,
            app: None,
            launcher: None,
            script: None,
            project: None,
            anywhere: false,
            deliver: None,
            uses: None,
        }
    }

    fn change(scope: Scope) -> Change {
        Change { profile: None, scope, any_app: false, any_uses: false }
    }

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let kept = changed(grant(), &Change { profile: Some("q".into()), ..change(scope()) }, now()).unwrap();
        assert_eq!((kept.profile.as_str(), kept.for_s, kept.uses), ("q", Some(3_600), Some(3)));
        assert_eq!((kept.program.as_deref(), kept.script.as_deref()), (Some("/usr/bin/python3"), Some("/a/b.py")));
        assert_eq!((kept.project.as_deref(), kept.weakest), (Some("/a"), Some(DeliveryMode::Gateway)));
        let other = Scope { app: Some("sh".into()), deliver: Some(Deliver::Env), for_s: Some(60), ..scope() };
        let other = changed(grant(), &change(other), now()).unwrap();
        assert!(
            other.program.unwrap().ends_with("/sh") && other.script.is_none(),
            "the script was of the former program"
        );
        assert_eq!((other.weakest, other.for_s), (Some(DeliveryMode::Env), Some(60)));
        let wide = Change { any_app: true, any_uses: true, ..change(Scope { anywhere: true, ..scope() }) };
        let wide = changed(grant(), &wide, now()).unwrap();
        assert_eq!((wide.program, wide.script, wide.project, wide.uses), (None, None, None, None));
        let launcher = changed(grant(), &change(Scope { launcher: Some("L".into()), ..scope() }), now()).unwrap();
        assert_eq!((launcher.program, launcher.launcher.as_deref()), (None, Some("L")));
    }

    #[test]
    fn a_change_never_makes_a_grant_longer_by_itself() {
        let late = "2026-11-21T10:59:30Z".parse().unwrap();
        let fault = changed(grant(), &change(Scope { uses: Some(1), ..scope() }), late).map(drop).unwrap_err();
        assert!(fault.code == Code::GrantInvalid && fault.help.contains("--for"), "{fault}");
    }

    #[test]
    fn a_project_is_the_folder_that_a_run_in_it_would_name() {
        let scene = crate::scene::Scene::new(&[]);
        std::os::unix::fs::symlink(scene.root.join("home/proj/sub"), scene.root.join("link")).unwrap();
        let project = |path: &str| Scope { project: Some(scene.root.join(path)), ..scope() }.project();
        let root = scene.root.canonicalize().unwrap().join("home/proj");
        for path in ["home/proj", "home/proj/sub", "link"] {
            assert_eq!(project(path).unwrap().as_deref(), root.to_str(), "{path}");
        }
        scene.file("plain", "");
        for path in ["nowhere", "home/plain"] {
            assert_eq!(project(path).unwrap_err().code, Code::GrantInvalid, "{path}");
        }
    }

    #[test]
    fn a_row_says_what_is_allowed_to_whom() {
        let shown = row(&grant());
        assert_eq!(shown[2..5], ["/usr/bin/python3 /a/b.py", "/a", "gateway"]);
        assert!(shown[6] == "3" && shown[7].starts_with("4, last "), "{shown:?}");
        let mut any = grant();
        (any.program, any.script, any.project, any.uses_left) = (None, None, None, None);
        (any.allowed, any.last_allowed_at, any.weakest) = (0, None, DeliveryMode::Env);
        assert_eq!(row(&any)[2..5], ["any", "anywhere", "all"]);
        assert_eq!(row(&any)[6..], ["no limit", "never"]);
        any.uses_left = Some(0);
        assert_eq!(row(&any)[6], "used up");
        any.launcher = Some("Morning".into());
        assert_eq!(row(&any)[2], "launcher Morning");
        assert_eq!(find(vec![grant()], "7k2m9qxt").unwrap().profile, "p");
        assert_eq!(find(vec![grant()], "\u{1b}").unwrap_err().code, Code::GrantUnknown);
    }
}
