//! The commands against a real broker. Each test runs this program anew from the folder of a throw-away home, beside the
//! programs that a desktop has beside it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyward_api::place::Places;
use keyward_api::{
    AuditQuery, AuditSummaryQuery, AuditVerifyQuery, Decision, PastRunsQuery, RevokeRequest, SlotKind, VaultState,
};
use keyward_desk::{
    Ask, AuditEntryQuery, BreakReason, COMMANDS, CardWindow, Desk, DeskEvent, FromBus, Glyph, IdentityDraft,
    LauncherDraft, LauncherSave, LoginAdopt, Named, Overview, ProfileDraft, ProfileSave, Prompter, QuitAnswer, SlotAdd,
    SlotNamed, Theme, strength, tray,
};
use keyward_diag::Code;
use keyward_secret::SecretText;
use keyward_testkit::{Home, PASSPHRASE, run, wait_for};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Runs a test of this program in a home of its own, with `prepare` done first.
fn at_home(test: &str, prepare: impl FnOnce(&Home)) {
    let home = Home::new();
    prepare(&home);
    let program = home.bin().join("desk-test");
    let own = std::env::current_exe().unwrap();
    fs::hard_link(&own, &program).or_else(|_| fs::copy(&own, &program).map(drop)).unwrap();
    let mut again = home.command(&program);
    again.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let answer = run(again, b"");
    assert!(answer.out.contains("1 passed"), "{}\n{}", answer.out, answer.err);
    assert_eq!(answer.exit, 0, "{}\n{}", answer.out, answer.err);
}

/// Answers prompts from a list, and notes what was asked and shown.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Option<String>>>,
    asked: Mutex<Vec<Ask>>,
    shown: Mutex<Vec<String>>,
}

impl Script {
    /// Lays answers ready; `None` closes the prompt.
    fn lay(&self, answers: &[Option<&str>]) {
        let mut all = self.answers.lock().unwrap();
        assert!(all.is_empty(), "answers that nobody asked for: {all:?}");
        all.extend(answers.iter().map(|a| a.map(str::to_owned)));
    }

    fn next(&self) -> Option<String> {
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| panic!("nobody expected a prompt"))
    }

    fn text(&self, ask: &Ask) -> Option<SecretText> {
        self.asked.lock().unwrap().push(ask.clone());
        self.next().map(|text| SecretText::new(text).unwrap())
    }

    fn note(&self, what: &str, secret: &SecretText) {
        // EXPOSE: compared in a test.
        self.shown.lock().unwrap().push(secret.expose(|t| format!("{what}: {t}")));
    }

    fn last_shown(&self) -> String {
        self.shown.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn last_asked(&self) -> Ask {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

impl Prompter for Script {
    fn passphrase(&self, ask: &Ask) -> Option<SecretText> {
        self.text(ask)
    }

    fn new_passphrase(&self, ask: &Ask) -> Option<SecretText> {
        self.text(ask)
    }

    fn secret(&self, ask: &Ask) -> Option<SecretText> {
        self.text(ask)
    }

    fn show_recovery_key(&self, key: &SecretText) -> bool {
        self.note("recovery", key);
        true
    }

    fn show_secret(&self, title: &str, secret: &SecretText) {
        self.note(title, secret);
    }

    fn copy(&self, secret: SecretText) {
        self.note("copy", &secret);
    }

    fn save_path(&self, _title: &str, suggested: &str) -> Option<PathBuf> {
        assert!(suggested.starts_with("keyward-audit-") && !suggested.contains('/'), "{suggested}");
        self.next().map(PathBuf::from)
    }

    fn card(&self, window: CardWindow) {
        let told = match window {
            CardWindow::Open(id) => format!("card {id}"),
            CardWindow::Raise(id) => format!("card {id} with the keyboard"),
            CardWindow::Close => "card closed".to_owned(),
        };
        self.shown.lock().unwrap().push(told);
    }

    fn quit(&self, live: usize) -> Option<QuitAnswer> {
        match self.next()?.as_str() {
            "leave" => Some(QuitAnswer::Leave),
            other => (other == format!("revoke {live}")).then_some(QuitAnswer::Revoke),
        }
    }

    fn end(&self) {
        self.shown.lock().unwrap().push("end".to_owned());
    }
}

/// The open descriptors of a process.
fn descriptors(pid: u32) -> BTreeMap<u32, PathBuf> {
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let open = listed.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, fs::read_link(e.path()).ok()?)));
    open.collect()
}

struct Scene {
    desk: Arc<Desk>,
    script: Arc<Script>,
    events: Arc<Mutex<Vec<DeskEvent>>>,
}

impl Scene {
    /// A desk with the environment of the home that this process runs in.
    fn new() -> Self {
        let script = Arc::new(Script::default());
        let events: Arc<Mutex<Vec<DeskEvent>>> = Arc::default();
        let told = Arc::clone(&events);
        let tell = move |event| told.lock().unwrap().push(event);
        let variables = std::env::vars_os().collect();
        let prompter = Arc::clone(&script) as Arc<dyn Prompter>;
        let desk = Desk::new(Places::current().unwrap(), variables, prompter, tell).unwrap();
        Self { desk: Arc::new(desk), script, events }
    }

    /// As [`Scene::new`], with a vault that is open.
    fn with_vault() -> Self {
        let scene = Self::new();
        assert!(scene.desk.connect().unwrap().up);
        scene.script.lay(&[Some(PASSPHRASE)]);
        assert!(scene.desk.vault_init().unwrap().done);
        scene
    }

    fn secret(&self, name: &str, value: &str) {
        self.script.lay(&[Some(value)]);
        assert!(self.desk.secret_set(named(name)).unwrap().done);
    }

    /// A static profile with a secret of its own.
    fn profile(&self, name: &str, value: &str) {
        self.secret(name, value);
        let draft = draft(name, "static", json!({"secret": format!("secret:{name}")}), &["T_SECRET"]);
        assert!(self.desk.profile_save(ProfileSave { draft, replace: false }).unwrap().done);
    }

    fn launcher(&self, name: &str, command: &[&str], profile: &str, terminal: bool) {
        let command = command.iter().map(|c| (*c).to_owned()).collect();
        let profiles = vec![profile.to_owned()];
        let draft = LauncherDraft { name: name.to_owned(), command, folder: None, profiles, terminal };
        assert!(self.desk.launcher_save(LauncherSave { draft, replace: None, allow_s: None }).unwrap().done);
    }

    fn overview(&self) -> Overview {
        self.desk.overview().unwrap()
    }

    fn kinds_of_log(&self) -> Vec<String> {
        let page = self.desk.audit(AuditQuery { limit: Some(1_000), ..AuditQuery::default() }).unwrap();
        page.entries.iter().map(|e| e.entry["kind"].as_str().unwrap().to_owned()).collect()
    }
}

fn named(name: &str) -> Named {
    Named { name: name.to_owned() }
}

fn draft(name: &str, issuer: &str, fields: Value, variables: &[&str]) -> ProfileDraft {
    let Value::Object(fields) = fields else { panic!("fields expected") };
    ProfileDraft {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        fields,
        identity: None,
        delivery: None,
        variables: variables.iter().map(|v| (*v).to_owned()).collect(),
        max_ttl: None,
        only: Vec::new(),
        containers: false,
        confirm: false,
        fence: keyward_desk::FenceDraft::default(),
    }
}

#[test]
fn from_nothing_to_a_run_and_its_export() {
    at_home("story", |_| {});
}

#[test]
#[ignore = "run by `from_nothing_to_a_run_and_its_export` in a home of its own"]
fn story() {
    let scene = Scene::new();
    let (desk, script) = (&scene.desk, &scene.script);
    // Nothing starts a broker unasked.
    assert!(desk.overview().is_err_and(|f| f.code == Code::BrokerUnreachable));
    assert!(desk.connect().unwrap().up);
    assert_eq!(scene.overview().status.vault.state, VaultState::Absent);
    assert!(desk.vault_unlock().is_err_and(|f| f.code == Code::VaultAbsent), "nobody is asked for nothing");

    script.lay(&[None]);
    assert!(!desk.vault_init().unwrap().done);
    assert_eq!(scene.overview().status.vault.state, VaultState::Absent);
    // What the meter refuses is what the broker refuses.
    let weak = ["abcdefabcde", "abcdeabcdeabcde"];
    assert!(weak.iter().all(|p| strength(p).level == 0));
    script.lay(&[Some(weak[0]), Some(weak[1]), Some(PASSPHRASE)]);
    assert!(desk.vault_init().unwrap().done);
    assert!(script.last_asked().error.unwrap().contains("too weak"));
    let recovery = script.last_shown().strip_prefix("recovery: ").unwrap().to_owned();
    assert!(desk.vault_init().is_err_and(|f| f.code == Code::VaultExists));

    scene.profile("pg", "hunter2-pg");
    assert!(desk.profile_test(named("pg")).unwrap().ok);
    let folder = std::env::var("HOME").unwrap();
    scene.launcher("The sleeper", &["sleep", "1000"], "pg", false);
    assert!(desk.launch(named("The sleeper")).unwrap().done);
    let state = scene.overview();
    let live = &state.runs[0];
    assert_eq!((live.launcher.as_deref(), live.leases[0].profile.as_str()), (Some("The sleeper"), "pg"));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", live.pid)).unwrap(), Path::new(&folder));
    assert_eq!(session_of(live.pid), live.pid, "in a session of its own");
    let open = descriptors(live.pid);
    assert!((0..3).all(|fd| open[&fd] == Path::new("/dev/null")), "{open:?}");
    // What the test itself was given by who started it is inherited; the pipe for the error is not.
    let ours: Vec<PathBuf> = descriptors(std::process::id()).into_values().collect();
    assert!(open.iter().all(|(fd, file)| *fd < 3 || ours.contains(file)), "{open:?}");
    assert_eq!(tray(Some(&state), jiff::Timestamp::now(), &jiff::tz::TimeZone::UTC).glyph, Glyph::Good);

    // Wrong once, then by the recovery key.
    script.lay(&[Some("wrong"), Some(&recovery)]);
    assert!(desk.profile_reveal(named("pg")).unwrap().done);
    assert_eq!(script.last_shown(), "Credential of “pg”: hunter2-pg");
    assert!(script.last_asked().error.unwrap().contains("does not open the vault"));
    script.lay(&[None]);
    assert!(!desk.profile_copy(named("pg")).unwrap().done);
    script.lay(&[Some(PASSPHRASE)]);
    desk.act(&FromBus::AskToCopy("pg".to_owned())).unwrap();
    assert_eq!(script.last_shown(), "copy: hunter2-pg");
    script.lay(&[Some(PASSPHRASE)]);
    assert!(desk.secret_reveal(named("pg")).unwrap().done);
    assert_eq!(script.last_shown(), "Secret “pg”: hunter2-pg");
    let kinds = scene.kinds_of_log();
    for kind in ["credential.revealed", "secret.revealed", "credential.delivered", "vault.initialised"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}: {kinds:?}");
    }

    export(&scene);
    desk.act(&FromBus::StopRun(live.run.clone())).unwrap();
    assert!(scene.overview().runs.iter().all(|r| r.leases.iter().all(|l| l.state != "live")));
    let entry = desk.audit_entry(AuditEntryQuery { seq: 1 }).unwrap();
    assert_eq!((entry.seq, entry.entry["kind"].as_str()), (1, Some("vault.initialised")));
    let limits = |pages| {
        let answer = desk.audit_verify(AuditVerifyQuery { pages }).unwrap();
        assert!(answer.ok && answer.entries > 0);
        answer.notes.iter().any(|note| note.contains("were not checked"))
    };
    assert_eq!([None, Some(true), Some(false)].map(limits), [false, false, true]);
    let apps = desk.apps(AuditSummaryQuery::default()).unwrap();
    assert!(apps.iter().any(|a| a.app == "The sleeper" && a.profile == "pg" && a.unseen), "{apps:?}");
    let only = AuditSummaryQuery { profile: Some("pg".into()), ..AuditSummaryQuery::default() };
    assert!(desk.audit_summary(only).unwrap().total > 0);
    let pid = i32::try_from(live.pid).unwrap();
    keyward_testkit::signal(pid, rustix::process::Signal::KILL);
    wait_for("the end of the run", || scene.overview().runs.is_empty());
    assert_eq!(desk.runs_past(PastRunsQuery::default()).unwrap().runs[0].app, "The sleeper");
    wait_for("the end of the zombie", || !Path::new(&format!("/proc/{pid}")).exists());

    quit(&scene);
    desk.act(&FromBus::Lock).unwrap();
    let locked = scene.overview();
    assert_eq!((locked.status.vault.state, locked.profiles.len()), (VaultState::Locked, 0));
    assert!(desk.launch(named("The sleeper")).is_err_and(|f| f.code == Code::VaultLocked));
    assert!(desk.secret_set(named("x")).is_err_and(|f| f.code == Code::VaultLocked), "told before anything is typed");
    script.lay(&[Some(PASSPHRASE)]);
    assert!(desk.vault_unlock().unwrap().done);
}

fn session_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap()
}

/// Launches and quits, with each answer.
fn quit(scene: &Scene) {
    let (desk, script) = (&scene.desk, &scene.script);
    let held = || scene.overview().runs.iter().flat_map(|r| r.leases.clone()).filter(|l| l.state == "live").count();
    assert!(desk.launch(named("The sleeper")).unwrap().done);
    assert_eq!(held(), 1);
    script.lay(&[None]);
    assert!(!desk.quit().unwrap().done);
    assert_ne!(script.last_shown(), "end", "closing the question is no yes");
    script.lay(&[Some("leave")]);
    desk.act(&FromBus::Quit).unwrap();
    assert_eq!((script.last_shown().as_str(), held()), ("end", 1));
    script.shown.lock().unwrap().clear();
    script.lay(&[Some("revoke 1")]);
    assert!(desk.quit().unwrap().done);
    assert_eq!((script.last_shown().as_str(), held()), ("end", 0));
    let pid = i32::try_from(scene.overview().runs[0].pid).unwrap();
    keyward_testkit::signal(pid, rustix::process::Signal::KILL);
}

/// An export is whole and private, replaces a link instead of what it points to, and leaves nothing behind when it fails.
fn export(scene: &Scene) {
    let (desk, script) = (&scene.desk, &scene.script);
    let folder = PathBuf::from(std::env::var("HOME").unwrap());
    let (path, victim) = (folder.join("log.jsonl"), folder.join("victim"));
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, &path).unwrap();
    let query = AuditQuery { kind: Some("credential".into()), limit: Some(1), ..AuditQuery::default() };

    script.lay(&[Some(path.to_str().unwrap()), None]);
    assert_eq!(desk.audit_export(query.clone()).unwrap().path, None);
    script.lay(&[Some(path.to_str().unwrap()), Some(PASSPHRASE)]);
    let exported = desk.audit_export(query.clone()).unwrap();
    assert_eq!(exported.path.as_deref(), path.to_str());
    let text = fs::read_to_string(&path).unwrap();
    assert!(exported.entries >= 3 && text.lines().count() as u64 == exported.entries + 1, "{text}");
    assert!(text.lines().last().unwrap().contains("\"signature\"") && !text.contains("secret.set"), "{text}");
    let meta = path.symlink_metadata().unwrap();
    assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");

    let taken = folder.join("taken");
    fs::create_dir_all(taken.join("x")).unwrap();
    script.lay(&[Some(taken.to_str().unwrap()), Some(PASSPHRASE)]);
    assert!(desk.audit_export(query.clone()).is_err_and(|f| f.code == Code::FileUnreadable));
    script.lay(&[Some("/nonexistent/log.jsonl"), Some(PASSPHRASE)]);
    assert!(desk.audit_export(query).is_err_and(|f| f.code == Code::FileUnreadable));
    let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn what_nobody_granted_is_asked_and_answered_in_its_window_alone() {
    at_home("cards", |_| {});
}

#[test]
#[ignore = "run by `what_nobody_granted_is_asked_and_answered_in_its_window_alone` in a home of its own"]
fn cards() {
    let scene = Scene::with_vault();
    let (desk, script) = (&scene.desk, &scene.script);
    scene.profile("pg", "hunter2-card");
    desk.follow().unwrap();
    let keyward = std::env::current_exe().unwrap().with_file_name("keyward");
    // Below a shell of its own for each project, so that nobody has unlocked there.
    let mut projects = 0;
    let mut asks = || {
        projects += 1;
        let folder = PathBuf::from(std::env::var("HOME").unwrap()).join(format!("p{projects}"));
        fs::create_dir(&folder).unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "\"$0\" run --wait -p pg -- true; exit $?"]).arg(&keyward).current_dir(folder);
        shell.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let open = || {
        wait_for("a request that waits", || !scene.overview().approvals.is_empty());
        scene.overview().approvals.remove(0)
    };
    let shown = |text: String| wait_for(&text, || script.shown.lock().unwrap().contains(&text));
    let answer = |approval: &keyward_api::ApprovalMsg, decision| {
        let (id, digest) = (approval.id.clone(), approval.digest.clone());
        desk.approval_answer(keyward_desk::ApprovalReply { id, digest, decision, for_s: Some(600) })
    };
    let code = |mut child: std::process::Child| child.wait().unwrap().code();
    let id_of = |approval: &keyward_api::ApprovalMsg| keyward_desk::ApprovalNamed { id: approval.id.clone() };

    // Its window opens by itself; nothing is allowed in the moment in which it did.
    let asking = asks();
    let first = open();
    shown(format!("card {}", first.id));
    let tray = tray(Some(&scene.overview()), jiff::Timestamp::now(), &jiff::tz::TimeZone::UTC);
    assert_eq!(tray.glyph, Glyph::Waiting);
    assert!(answer(&first, Decision::Once).is_err_and(|f| f.code == Code::ApprovalEarly));
    let view = desk.card(id_of(&first)).unwrap();
    assert_eq!((view.approval.digest.as_str(), view.others), (first.digest.as_str(), 0));
    // Another one waits behind it, and cannot be answered before it is shown.
    let second_asking = asks();
    wait_for("both", || scene.overview().approvals.len() == 2);
    let second = scene.overview().approvals.remove(1);
    assert!(desk.card(id_of(&second)).is_err_and(|f| f.code == Code::ApprovalOver));
    assert!(answer(&second, Decision::Deny).is_err_and(|f| f.code == Code::ApprovalOver));
    let other = keyward_api::ApprovalMsg { digest: "ff".into(), ..first.clone() };
    let mut early = true;
    // What is another than was shown is refused before the passphrase would be asked for.
    wait_for("the end of the first moment", || {
        let refused = answer(&other, Decision::Once).unwrap_err().code;
        early = refused == Code::ApprovalEarly;
        refused == Code::ApprovalChanged
    });
    assert!(!early);
    // Proven by making the vault: no prompt.
    assert!(answer(&first, Decision::Once).unwrap().done);
    assert_eq!(code(asking), Some(0));
    shown(format!("card {}", second.id));
    // Closed by the person, it opens again only when asked for.
    desk.card_closed(&second.id);
    assert!(desk.card(id_of(&second)).is_err());
    desk.act(&FromBus::Card(second.id.clone())).unwrap();
    shown(format!("card {} with the keyboard", second.id));
    assert!(answer(&second, Decision::Deny).unwrap().done, "a no needs no waiting");
    assert_eq!(code(second_asking), Some(125));
    shown("card closed".to_owned());
    assert!(answer(&second, Decision::Deny).is_err_and(|f| f.code == Code::ApprovalOver));
    // From the tray, and of what is not there.
    let asking = asks();
    desk.act(&FromBus::Deny(open().id)).unwrap();
    assert_eq!(code(asking), Some(125));
    for id in ["AAAAAAAA", "", "../grants", "a/b?c"] {
        let refused = desk.act(&FromBus::Deny(id.to_owned())).unwrap_err();
        assert_eq!(refused.code, Code::ApprovalUnknown, "{id}");
    }

    // Grants, as the operator.
    let draft = || keyward_desk::GrantDraft {
        profile: "pg".into(),
        program: Some("/usr/bin/true".into()),
        script: None,
        launcher: None,
        project: None,
        weakest: keyward_api::DeliveryMode::Env,
        for_s: 600,
        uses: Some(2),
    };
    assert!(desk.grant_save(keyward_desk::GrantSave { draft: draft(), replace: None }).unwrap().done);
    let given = desk.grants().unwrap().remove(0);
    assert_eq!((given.profile.as_str(), given.uses_left), ("pg", Some(2)));
    let save = keyward_desk::GrantSave {
        draft: keyward_desk::GrantDraft { uses: None, ..draft() },
        replace: Some(given.grant.clone()),
    };
    assert!(desk.grant_save(save).unwrap().done);
    let changed = desk.grants().unwrap().remove(0);
    assert_eq!(changed.uses_left, None);
    desk.grant_revoke(keyward_desk::GrantNamed { grant: changed.grant }).unwrap();
    assert!(desk.grants().unwrap().is_empty());

    // A launcher whose starts are allowed, in one step with its change.
    scene.launcher("Sleeper", &["sleep", "1000"], "pg", false);
    let draft = LauncherDraft {
        name: "Sleeper".into(),
        command: vec!["sleep".into(), "1000".into()],
        folder: None,
        profiles: vec!["pg".into()],
        terminal: false,
    };
    script.lay(&[Some(PASSPHRASE)]);
    let save = LauncherSave { draft, replace: Some("Sleeper".into()), allow_s: Some(3_600) };
    assert!(desk.launcher_save(save).unwrap().done);
    assert!(script.last_asked().why.contains("For 1 h it starts without asking"));
    assert_eq!(desk.grants().unwrap()[0].launcher.as_deref(), Some("Sleeper"));
    desk.act(&FromBus::Launch("Sleeper".to_owned())).unwrap();
    wait_for("the run", || !scene.overview().runs.is_empty());
    assert!(scene.overview().approvals.is_empty());
    let pid = i32::try_from(scene.overview().runs[0].pid).unwrap();
    keyward_testkit::signal(pid, rustix::process::Signal::KILL);

    // Another connection is nobody's: it asks, and what the person closes allows nothing.
    let prompter = Arc::clone(script) as Arc<dyn Prompter>;
    let other = Desk::new(Places::current().unwrap(), std::env::vars_os().collect(), prompter, |_| {}).unwrap();
    let asking = asks();
    let last = open();
    other.approval_show(id_of(&last)).unwrap();
    let reply = || keyward_desk::ApprovalReply {
        id: last.id.clone(),
        digest: last.digest.clone(),
        decision: Decision::Project,
        for_s: Some(600),
    };
    script.lay(&[None]);
    let mut closed = false;
    wait_for("the prompt", || {
        let answered = other.approval_answer(reply());
        closed = answered.as_ref().is_ok_and(|done| !done.done);
        answered.is_ok()
    });
    assert!(closed && script.last_asked().why.contains("for 10 min"), "{:?}", script.last_asked());
    script.lay(&[Some("not the passphrase"), Some(PASSPHRASE)]);
    assert!(other.approval_answer(reply()).unwrap().done);
    assert_eq!(code(asking), Some(0));
    assert!(other.profile_remove(named("pg")).is_err_and(|f| f.code != Code::PolicyDenied), "a launcher names it");
    assert!(other.launcher_remove(named("Sleeper")).unwrap().done && other.profile_remove(named("pg")).unwrap().done);
    assert!(scene.desk.grants().unwrap().is_empty(), "its grants end with the profile");
}

#[test]
fn every_tile_makes_a_profile_that_the_broker_takes() {
    at_home("tiles", |_| {});
}

#[test]
#[ignore = "run by `every_tile_makes_a_profile_that_the_broker_takes` in a home of its own"]
fn tiles() {
    let scene = Scene::with_vault();
    scene.secret("s", "hunter2");
    let kinds = scene.desk.kinds().unwrap();
    let kind = |role: &str, name: &str| {
        kinds.iter().find(|k| k.role == role && k.kind == name).unwrap_or_else(|| panic!("there is no {role} {name}"))
    };
    let sample = |field: &keyward_api::FieldMsg| match (field.secret, field.shape.as_str()) {
        (true, _) => json!("secret:s"),
        (_, "id") => json!(format!("{}01", field.begins.as_deref().unwrap())),
        (_, "uuid") => json!("00000000-0000-0000-0000-000000000000"),
        (_, "url") => json!("https://issuer.example"),
        (_, "path") => json!("/nonexistent/token"),
        (_, "program") => json!(["/bin/true"]),
        (_, "variables") => json!({"REGION": "eu"}),
        (_, "variable") => json!("MY_ASSERTION"),
        (_, "duration") => json!("10s"),
        (_, "choice") => json!(field.choices[0]),
        _ => json!("x"),
    };
    let filled = |spec: &keyward_api::KindMsg| -> Map<String, Value> {
        let fields = spec.fields.iter().filter(|f| f.shape != "identity");
        fields.map(|f| (f.name.clone(), sample(f))).collect()
    };
    let mut made = 0;
    for (tile, method) in scene.desk.providers().unwrap().iter().flat_map(|t| t.methods.iter().map(move |m| (t, m))) {
        let at = format!("{}-{}", tile.id, method.id);
        let spec = kind("issuer", &method.issuer);
        let has = |name: &String| spec.fields.iter().any(|f| f.name == *name);
        assert!(method.preset.keys().chain(&method.asks).all(has), "{at}");
        let asked = |f: &keyward_api::FieldMsg| method.asks.contains(&f.name) || method.preset.contains_key(&f.name);
        assert!(
            spec.fields.iter().all(|f| !f.required || f.shape == "identity" || asked(f)),
            "{at} asks for too little"
        );
        let takes_identity = spec.fields.iter().any(|f| f.shape == "identity");
        assert_eq!(takes_identity, !method.identities.is_empty(), "{at}");
        let sources: Vec<Option<&String>> =
            if takes_identity { method.identities.iter().map(Some).collect() } else { vec![None] };
        for source in sources {
            let name = source.map_or(at.clone(), |s| format!("{at}-{s}"));
            let mut fields = filled(spec);
            fields.retain(|name, _| method.asks.contains(name));
            fields.extend(method.preset.clone());
            let needs_variable = ["static", "command"].contains(&method.issuer.as_str())
                && !method.preset.contains_key("provider")
                && method.variables.is_empty();
            let variables = if needs_variable { vec!["MY_TOKEN".into()] } else { method.variables.clone() };
            let identity = source.map(|s| IdentityDraft { kind: s.clone(), fields: filled(kind("identity", s)) });
            let draft = ProfileDraft { identity, variables, ..draft(&name, &method.issuer, json!({}), &[]) };
            let draft = ProfileDraft { fields, ..draft };
            let saved = scene.desk.profile_save(ProfileSave { draft: draft.clone(), replace: false });
            assert!(saved.as_ref().is_ok_and(|d| d.done), "{name}: {saved:?}");
            let read = scene.desk.profile_draft(named(&name)).unwrap();
            assert_eq!((&read.fields, &read.identity), (&draft.fields, &draft.identity), "{name}");
            made += 1;
        }
    }
    assert!(made > 15, "{made}");
}

#[test]
fn a_change_asks_for_the_passphrase_and_a_closed_prompt_changes_nothing() {
    at_home("changes", |_| {});
}

#[test]
#[ignore = "run by `a_change_asks_for_the_passphrase_and_a_closed_prompt_changes_nothing` in a home of its own"]
fn changes() {
    let scene = Scene::with_vault();
    let (desk, script) = (&scene.desk, &scene.script);
    scene.profile("p", "hunter2");
    let changed = ProfileDraft { max_ttl: Some("30m".into()), ..desk.profile_draft(named("p")).unwrap() };
    let save = |replace| desk.profile_save(ProfileSave { draft: changed.clone(), replace });
    assert!(save(false).is_err_and(|f| f.code == Code::ProfileExists));
    script.lay(&[None]);
    assert!(!save(true).unwrap().done);
    let why = script.last_asked().why;
    assert!(why.ends_with("\nlimits.max_ttl:  → \"30m\""), "the prompt says what it stands for: {why}");
    assert_eq!(desk.profile_draft(named("p")).unwrap().max_ttl, None);
    script.lay(&[Some(PASSPHRASE)]);
    assert!(save(true).unwrap().done);
    assert_eq!(desk.profile_draft(named("p")).unwrap(), changed);

    scene.launcher("A/b ✓?", &["sleep", "1"], "p", true);
    let renamed = LauncherDraft {
        name: "-c".into(),
        command: vec!["sleep".into(), "2".into()],
        folder: Some("/tmp".into()),
        profiles: vec!["p".into()],
        terminal: false,
    };
    let save = |replace: &str| {
        desk.launcher_save(LauncherSave { draft: renamed.clone(), replace: Some(replace.to_owned()), allow_s: None })
    };
    script.lay(&[None]);
    assert!(!save("A/b ✓?").unwrap().done);
    assert!(script.last_asked().why.ends_with("Starts: sleep 2\nIn: /tmp\nWith: p"), "{}", script.last_asked().why);
    assert!(save("nobody’s").is_err_and(|f| f.code == Code::LauncherUnknown), "and asks for nothing that is not there");
    script.lay(&[Some(PASSPHRASE)]);
    assert!(save("A/b ✓?").unwrap().done);
    assert_eq!(scene.overview().launchers[0].name, "-c");
    assert!(desk.launch(named("-c")).unwrap().done, "a name that looks like an option is a name");
    wait_for("the end of the run", || scene.overview().runs.is_empty());
    assert!(desk.launcher_remove(named("-c")).unwrap().done);
    assert!(desk.launch(named("-c")).is_err_and(|f| f.code == Code::LauncherUnknown));

    let view = desk.settings().unwrap();
    let other = keyward_desk::SettingsView {
        auto_lock_s: Some(1_200),
        theme: Theme::Dark,
        start_at_login: true,
        notifications: keyward_desk::NotificationSettings { expires_soon: false, ..view.notifications },
    };
    script.lay(&[None]);
    assert!(!desk.settings_save(other.clone()).unwrap().done);
    assert_eq!(desk.settings().unwrap(), view);
    script.lay(&[Some(PASSPHRASE)]);
    assert!(desk.settings_save(other.clone()).unwrap().done);
    assert_eq!(desk.settings().unwrap(), other);
    let entry = PathBuf::from(std::env::var("HOME").unwrap()).join(".config/autostart/keyward-desktop.desktop");
    let text = fs::read_to_string(&entry).unwrap();
    assert!(text.contains("desk-test\" --hidden") && text.contains("KEYWARD_HOME="), "{text}");
    // Nothing is asked where nothing of the broker's changes.
    assert!(desk.settings_save(keyward_desk::SettingsView { start_at_login: false, ..other }).unwrap().done);
    assert!(!entry.exists());
    let file = PathBuf::from(std::env::var("KEYWARD_HOME").unwrap()).join("config/desktop.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&file, "sound = 1").unwrap();
    assert!(desk.settings().is_err_and(|f| f.code == Code::ConfigInvalid && f.causes[0].contains("`sound`")));
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert!(desk.settings().is_err_and(|f| f.code == Code::FileUnreadable), "a pipe holds nobody up");
    fs::remove_file(&file).unwrap();

    script.lay(&[Some(PASSPHRASE), None]);
    assert!(!desk.passphrase_change().unwrap().done);
    let new = "abcdefabcdef";
    assert_eq!(strength(new).level, 1, "what the meter just takes, the broker takes");
    script.lay(&[Some("wrong"), Some(new), Some(PASSPHRASE)]);
    assert!(desk.passphrase_change().unwrap().done);
    let slot = |kind| desk.slots().unwrap().into_iter().find(|s| s.kind == kind);
    script.lay(&[Some(new)]);
    let removed = desk.slot_remove(SlotNamed { slot: slot(SlotKind::Recovery).unwrap().slot }).unwrap();
    assert!(removed.done && slot(SlotKind::Recovery).is_none());
    script.lay(&[Some(new)]);
    assert!(desk.slot_add(SlotAdd { kind: SlotKind::Recovery }).unwrap().done);
    assert!(script.last_shown().starts_with("recovery: AGE-SECRET-KEY-1"));
    script.lay(&[Some(new)]);
    assert!(desk.audit_accept_break(BreakReason { reason: "x".into() }).is_err_and(|f| f.code == Code::AuditNotBroken));
    // After the third wrong one each further try has to wait, and there is an end to them.
    script.lay(&[Some("1"), Some("2"), Some("3"), Some("4"), Some("5")]);
    let fault = desk.secret_reveal(named("p")).unwrap_err();
    assert!(matches!(fault.code, Code::VaultWrongPassphrase | Code::VaultUnlockWait), "{fault}");
}

#[test]
fn a_terminal_program_starts_in_the_users_terminal() {
    at_home("in_a_terminal", |home| {
        let script = "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$HOME/argv\"\nenv > \"$HOME/env\"\nshift\nexec \"$@\"\n";
        let path = home.bin().join("xterm");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
#[ignore = "run by `a_terminal_program_starts_in_the_users_terminal` in a home of its own"]
fn in_a_terminal() {
    let folder = PathBuf::from(std::env::var("HOME").unwrap());
    let scene = Scene::with_vault();
    let variables = std::env::vars_os().chain([
        ("TERMINAL".into(), "xterm".into()),
        ("DISPLAY".into(), ":7".into()),
        ("WEBKIT_INSPECTOR_SERVER".into(), "x".into()),
    ]);
    let prompter = Arc::clone(&scene.script) as Arc<dyn Prompter>;
    let desk = Desk::new(Places::current().unwrap(), variables.collect(), prompter, |_| {}).unwrap();
    scene.profile("p", "hunter2-terminal");
    scene.launcher("Shell", &["sleep", "1000"], "p", true);
    // Another desk than the one that made the vault: the person proves to be there once.
    scene.script.lay(&[None]);
    assert!(!desk.launch(named("Shell")).unwrap().done);
    assert!(scene.script.last_asked().why.contains("Starts: sleep 1000"));
    scene.script.lay(&[Some(PASSPHRASE)]);
    assert!(desk.launch(named("Shell")).unwrap().done);
    wait_for("the run", || !scene.overview().runs.is_empty());
    let argv = fs::read_to_string(folder.join("argv")).unwrap();
    let keyward = std::env::current_exe().unwrap().with_file_name("keyward");
    let want = format!("{}\nlaunch\n--wait\n--wait-on-error\n--\nShell\n", keyward.display());
    assert!(argv.ends_with(&want), "{argv}");
    let env = fs::read_to_string(folder.join("env")).unwrap();
    assert!(env.contains("DISPLAY=:7\n") && env.contains("KEYWARD_HOME="), "{env}");
    assert!(!env.contains("hunter2") && !env.contains("WEBKIT_"), "{env}");
    let entries = desk.audit(AuditQuery { kind: Some("run.requested".into()), ..AuditQuery::default() }).unwrap();
    assert_eq!(entries.entries[0].entry["detail"]["expected"], json!(true), "{entries:?}");
    let pid = i32::try_from(scene.overview().runs[0].pid).unwrap();
    keyward_testkit::signal(pid, rustix::process::Signal::KILL);

    // A program that is not there, and a folder that is gone, are told instead of nothing happening.
    scene.launcher("Gone", &["no-such-program"], "p", false);
    assert!(desk.launch(named("Gone")).is_err_and(|f| f.code == Code::RunNotFound));
    let lost = LauncherDraft {
        name: "Lost".into(),
        command: vec!["sleep".into(), "1".into()],
        folder: Some("/nonexistent/folder".into()),
        profiles: vec!["p".into()],
        terminal: false,
    };
    assert!(desk.launcher_save(LauncherSave { draft: lost, replace: None, allow_s: None }).unwrap().done);
    assert!(desk.launch(named("Lost")).is_err_and(|f| f.code == Code::RunNotStarted));
    // What the issuer refuses is told too, though nobody sees the words of a program without a terminal.
    let failing = draft("failing", "command", json!({"argv": ["/bin/false"]}), &["T_TOKEN"]);
    assert!(desk.profile_save(ProfileSave { draft: failing, replace: false }).unwrap().done);
    scene.launcher("Failing", &["sleep", "1"], "failing", false);
    let fault = desk.launch(named("Failing")).unwrap_err();
    assert!(fault.code == Code::IssuerFailed && fault.to_string().contains("/bin/false ended with"), "{fault}");
}

#[test]
fn a_launch_without_a_terminal_tells_why_the_program_did_not_start() {
    at_home("not_started", |_| {});
}

#[test]
#[ignore = "run by `a_launch_without_a_terminal_tells_why_the_program_did_not_start` in a home of its own"]
fn not_started() {
    let scene = Scene::with_vault();
    let desk = &scene.desk;
    scene.profile("p", "hunter2-told");
    let folder = PathBuf::from(std::env::var("HOME").unwrap());
    let tool = |name: &str, script: &str| {
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.to_str().unwrap().to_owned()
    };

    // The program is there when the launch begins, and gone when the credential has come.
    let fleeting = tool("fleeting", "#!/bin/sh\n");
    let mint = format!("rm '{fleeting}'; echo '{{\"token\":\"hunter2-told\",\"expires_in\":60}}'");
    let draft = draft("fleeting", "command", json!({"argv": ["/bin/sh", "-c", mint]}), &["T_TOKEN"]);
    assert!(desk.profile_save(ProfileSave { draft, replace: false }).unwrap().done);
    scene.launcher("Fleeting", &[&fleeting], "fleeting", false);
    // It is there, and what it says to run it with is not.
    let lame = tool("lame", "#!/no/such/interpreter\n");
    scene.launcher("Lame", &[&lame], "p", false);
    for (name, code, path) in [("Fleeting", Code::RunNotFound, &fleeting), ("Lame", Code::RunNotExecutable, &lame)] {
        let fault = desk.launch(named(name)).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.causes.iter().any(|c| c.contains(path) && c.contains("No such file")), "{fault}");
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }

    // What the program itself ends with says nothing about its start.
    let done = folder.join("done");
    scene.launcher("Ends", &["sh", "-c", ": >done; exit 127"], "p", false);
    assert!(desk.launch(named("Ends")).unwrap().done);
    wait_for("the program", || done.exists());
}

#[test]
fn a_slow_exchange_keeps_nobody_waiting() {
    at_home("slow", |_| {});
}

#[test]
#[ignore = "run by `a_slow_exchange_keeps_nobody_waiting` in a home of its own"]
fn slow() {
    let scene = Scene::with_vault();
    let gate = PathBuf::from(std::env::var("HOME").unwrap()).join("gate");
    let mint =
        format!("until [ -e '{}' ]; do sleep 0.02; done; echo '{{\"token\":\"t\",\"expires_in\":60}}'", gate.display());
    let draft = draft("slow", "command", json!({"argv": ["/bin/sh", "-c", mint]}), &["T_TOKEN"]);
    assert!(scene.desk.profile_save(ProfileSave { draft, replace: false }).unwrap().done);
    let tests: Vec<_> = (0..8)
        .map(|_| {
            let desk = Arc::clone(&scene.desk);
            std::thread::spawn(move || desk.profile_test(named("slow")).map(|a| a.ok))
        })
        .collect();
    wait_for("the exchange", || scene.kinds_of_log().len() > 2 || tests.iter().all(|t| !t.is_finished()));
    for _ in 0..20 {
        assert_eq!(scene.overview().profiles.len(), 1);
    }
    assert!(tests.iter().all(|t| !t.is_finished()));
    fs::write(&gate, "").unwrap();
    for test in tests {
        assert!(test.join().unwrap().unwrap());
    }
    // Renewing over the bus is for what is live.
    let fault = scene.desk.act(&FromBus::Renew("no-such".to_owned())).unwrap_err();
    assert_eq!(fault.code, Code::ProfileUnknown);
    scene.profile("idle", "x");
    assert!(scene.desk.act(&FromBus::Renew("idle".to_owned())).is_err_and(|f| f.code == Code::RunUnknown));
}

#[test]
fn a_lock_waits_for_no_other_call() {
    at_home("crowded", |_| {});
}

#[test]
#[ignore = "run by `a_lock_waits_for_no_other_call` in a home of its own"]
fn crowded() {
    let scene = Scene::with_vault();
    let hangs = json!({"argv": ["/bin/sleep", "600"]});
    assert!(
        scene.desk.profile_save(ProfileSave { draft: draft("slow", "command", hangs, &["T"]), replace: false }).is_ok()
    );
    let tests: Vec<_> = (0..30)
        .map(|_| {
            let desk = Arc::clone(&scene.desk);
            std::thread::spawn(move || desk.profile_test(named("slow")).map(|a| a.ok))
        })
        .collect();
    // More than there are connections, and none is given back.
    wait_for("the exchange", || run(pgrep(), b"").exit == 0);
    assert!(scene.desk.act(&FromBus::Lock).is_ok());
    for test in tests {
        assert!(!matches!(test.join().unwrap(), Ok(true)));
    }
    scene.script.lay(&[Some(PASSPHRASE)]);
    assert!(scene.desk.vault_unlock().unwrap().done);
    // Had it waited for a connection, the exchange would have failed first.
    let kinds = scene.kinds_of_log();
    assert!(kinds.iter().any(|k| k == "vault.locked") && !kinds.iter().any(|k| k == "exchange.failed"), "{kinds:?}");
}

/// Finds the program that hangs, which is this home's alone.
fn pgrep() -> std::process::Command {
    let mut found = std::process::Command::new("sh");
    let home = std::env::var("HOME").unwrap();
    found.arg("-c").arg(format!("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '^/bin/sleep 600' && grep -qa -e {home} $p/environ && exit 0; done; exit 1"));
    found
}

#[test]
fn the_host_is_told_of_every_change_loss_and_return() {
    at_home("told", |_| {});
}

#[test]
#[ignore = "run by `the_host_is_told_of_every_change_loss_and_return` in a home of its own"]
fn told() {
    let scene = Scene::new();
    let states: Arc<Mutex<Vec<Option<VaultState>>>> = Arc::default();
    let seen = Arc::clone(&states);
    let each = move |o: Option<&Overview>| seen.lock().unwrap().push(o.map(|o| o.status.vault.state));
    scene.desk.follow().unwrap();
    scene.desk.watch(each).unwrap();
    let last = || states.lock().unwrap().last().copied().flatten();
    wait_for("the broker that was started", || last() == Some(VaultState::Absent));
    scene.script.lay(&[Some(PASSPHRASE)]);
    assert!(scene.desk.vault_init().unwrap().done);
    wait_for("the open vault", || last() == Some(VaultState::Unlocked));

    let events = || std::mem::take(&mut *scene.events.lock().unwrap());
    let ups = |all: &[DeskEvent]| -> Vec<String> {
        let line = |event: &DeskEvent| match event {
            DeskEvent::Connection(c) => Some(format!("up: {}", c.up)),
            DeskEvent::Broker { name, .. } if name == "reset" => Some(name.clone()),
            DeskEvent::Broker { .. } | DeskEvent::Show { .. } => None,
        };
        all.iter().filter_map(line).collect()
    };
    assert_eq!(ups(&events()), ["up: true", "reset"]);

    // A worker that is killed comes back locked, without anybody's doing.
    let pid = scene.overview().status.broker.unwrap().pid;
    keyward_testkit::signal(i32::try_from(pid).unwrap(), rustix::process::Signal::KILL);
    wait_for("the return", || ups(&scene.events.lock().unwrap()) == ["up: false", "up: true", "reset"]);
    wait_for("the locked vault", || last() == Some(VaultState::Locked));
    events();

    // A broker that was stopped stays so until somebody asks.
    let keyward = std::env::current_exe().unwrap().with_file_name("keyward");
    assert!(std::process::Command::new(&keyward).args(["broker", "stop"]).status().unwrap().success());
    wait_for("the loss", || states.lock().unwrap().last() == Some(&None));
    assert!(scene.desk.overview().is_err_and(|f| f.code == Code::BrokerUnreachable));
    assert_eq!(ups(&events()), ["up: false"]);
    assert!(scene.desk.connect().unwrap().up);
    wait_for("the return", || ups(&scene.events.lock().unwrap()) == ["up: true", "reset"]);
    wait_for("the locked vault", || last() == Some(VaultState::Locked));

    // Nothing is read while nothing happens: a count that stands still while something else takes its time.
    let before = states.lock().unwrap().len();
    scene.script.lay(&[Some(PASSPHRASE)]);
    assert!(scene.desk.vault_unlock().unwrap().done);
    wait_for("the open vault", || last() == Some(VaultState::Unlocked));
    assert!(states.lock().unwrap().len() - before < 5);
}

#[test]
fn a_login_that_lies_about_is_taken_in() {
    at_home("adopted", |home| {
        fs::write(home.root.join(".bashrc"), "export OPENAI_API_KEY=hunter2-found\nexport GH_TOKEN=hunter3\n").unwrap();
    });
}

#[test]
#[ignore = "run by `a_login_that_lies_about_is_taken_in` in a home of its own"]
fn adopted() {
    let scene = Scene::with_vault();
    let (desk, script) = (&scene.desk, &scene.script);
    let logins = desk.logins().unwrap();
    assert!(!serde_json::to_string(&logins).unwrap().contains("hunter"));
    for (provider, value, variables) in
        [("openai", "hunter2-found", &["OPENAI_API_KEY", "OPENAI_BASE_URL"][..]), ("github", "hunter3", &["GH_TOKEN"])]
    {
        let login = logins.iter().find(|l| l.provider == provider).unwrap();
        assert!(login.adoptable, "{login:?}");
        let adopt = |profile: &str| desk.login_adopt(LoginAdopt { id: login.id.clone(), profile: profile.to_owned() });
        assert!(adopt("not a name").is_err_and(|f| f.code == Code::NameInvalid));
        assert!(adopt(&login.suggested).unwrap().done);
        let found = scene.overview().profiles.into_iter().find(|p| p.name == login.suggested).unwrap();
        assert_eq!(found.variables, variables);
        script.lay(&[Some(PASSPHRASE)]);
        assert!(desk.profile_reveal(named(&login.suggested)).unwrap().done);
        assert!(script.last_shown().ends_with(value));
        // A second time there is a secret of that name already, and nothing of the first is lost.
        assert!(adopt(&login.suggested).is_err());
        assert!(desk.secrets().unwrap().iter().any(|s| s.name == login.suggested));
    }
    assert!(desk.login_adopt(LoginAdopt { id: "x".into(), profile: "x".into() }).is_err());
}

#[test]
fn a_host_that_speaks_json_reaches_every_command() {
    at_home("dispatched", |_| {});
}

#[test]
#[ignore = "run by `a_host_that_speaks_json_reaches_every_command` in a home of its own"]
fn dispatched() {
    let scene = Scene::new();
    for command in COMMANDS {
        // A list is the request of no command.
        let fault = scene.desk.dispatch(command.name, json!([1])).unwrap_err();
        assert_eq!(fault.code, Code::RequestInvalid, "{}", command.name);
    }
    for (name, request) in [("no_such", Value::Null), ("", Value::Null), ("profile_test", json!({"name": "a", "b": 1}))]
    {
        assert!(scene.desk.dispatch(name, request).is_err_and(|f| f.code == Code::RequestInvalid), "{name}");
    }
    assert_eq!(scene.desk.dispatch("connect", Value::Null).unwrap()["up"], true);
    assert_eq!(scene.desk.dispatch("overview", Value::Null).unwrap()["status"]["vault"]["state"], "absent");
    // Revoking needs a vault as everything else, and says so.
    let all = serde_json::to_value(RevokeRequest::All).unwrap();
    assert!(scene.desk.dispatch("revoke", all).is_err());
}
