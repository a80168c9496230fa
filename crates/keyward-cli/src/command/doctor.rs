//! `keyward doctor`: what would win here, what shadows it, the way to something shorter-lived, and what this machine allows.

use super::Outcome;
use crate::args::Context;
use crate::broker::Broker;
use crate::federation::{Federation, stands_for};
use crate::machine::{Fact, facts};
use crate::migration::{Step, steps};
use crate::order::{Client, Contender, clients};
use crate::table::table;
use crate::{out, time};
use keyward_api::ProfileMsg;
use keyward_diag::{Code, plain};
use keyward_find::find::workflow::{Exposed, exposed};
use keyward_find::find::{Around, Finding, Found, State, Unread};
use serde::Serialize;

/// Show which credential would win here in each client, what it shadows, and how to get rid of keys
///
/// Also says what this machine lets programs of one user do to each other, and what to set.
///
/// Reads the environment, start files of shells, .env files, and settings and logins of tools. Changes nothing, starts no
/// broker, and shows no secret: eight digits of a SHA-256 stand for it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    families: Vec<Client>,
    findings: &'a [Finding],
    unread: &'a [Unread],
    profiles: Vec<Profile>,
    /// Per finding, the profile that stands for the same variable already.
    #[serde(skip)]
    held: Vec<Option<String>>,
    /// `open`, `locked`, `none`, or why it was not asked.
    broker: String,
    workflows: Vec<Exposed>,
    migration: Vec<Step>,
    machine: Vec<Fact>,
}

/// A profile of Keyward and what its last exchange told.
#[derive(Serialize)]
struct Profile {
    name: String,
    issuer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let around = Around::here();
        let mut found = Found::everywhere(&around);
        let workflows = exposed(&around, &mut found);
        let (profiles, broker) = profiles(context);
        let federation = Federation::from_environment(&around);
        let migration = steps(&found, &federation, profiles.as_deref(), &workflows);
        let holder = |f: &Finding| {
            let holds = |p: &&ProfileMsg| stands_for(p, f.hands_over());
            profiles.iter().flatten().find(holds).map(|p| p.name.clone()).filter(|_| f.state == State::Usable)
        };
        let report = Report {
            held: found.findings.iter().map(holder).collect(),
            families: clients(&found, &around),
            findings: &found.findings,
            unread: &found.unread,
            profiles: profiles.unwrap_or_default().into_iter().map(Profile::of).collect(),
            broker,
            workflows,
            migration,
            machine: facts(&around, std::os::unix::process::parent_id()),
        };
        if context.json {
            out::json(&report)?;
        } else {
            out::text(&screen(&report))?;
        }
        Ok(0)
    }
}

/// The profiles, where a broker runs and its vault is open, and what was seen of the broker.
fn profiles(context: &Context) -> (Option<Vec<ProfileMsg>>, String) {
    let asked = Broker::if_running(context)
        .and_then(|broker| broker.map(|mut broker| broker.client().get("/v1/profiles")).transpose());
    match asked {
        Ok(Some(profiles)) => (Some(profiles), "open".to_owned()),
        Ok(None) => (None, "none".to_owned()),
        Err(fault) if matches!(fault.code, Code::VaultLocked | Code::VaultAbsent) => (None, "locked".to_owned()),
        Err(fault) => (None, format!("not asked: {} ({})", fault.message, fault.code)),
    }
}

impl Profile {
    fn of(profile: ProfileMsg) -> Self {
        let exchange = profile.last_exchange.filter(|e| e.ok);
        let (scope, expires_in_s, subject) = exchange
            .map_or((None, None, None), |e| (e.scope, e.expires_in_s, e.facts.get("assertion_subject").cloned()));
        Self { name: profile.name, issuer: profile.issuer, identity: profile.identity, scope, expires_in_s, subject }
    }
}

fn screen(report: &Report<'_>) -> String {
    let mut text = String::new();
    let mut without = Vec::new();
    for client in &report.families {
        if client.winner.is_none() && client.dormant.is_empty() && client.warnings.is_empty() {
            without.push(client.client);
            continue;
        }
        text.push_str(&format!("{}\n", client.client));
        match &client.winner {
            Some(winner) => text.push_str(&line("wins", winner)),
            None => text.push_str("  no credential here\n"),
        }
        client.shadowed.iter().for_each(|c| text.push_str(&line("shadowed", c)));
        client.dormant.iter().for_each(|c| text.push_str(&line("in a file", c)));
        for warning in &client.warnings {
            text.push_str(&format!("  {:<9}  {}\n", "warning", plain(warning, 400)));
        }
        text.push('\n');
    }
    if !without.is_empty() {
        text.push_str(&format!("No credential for: {}\n\n", without.join(", ")));
    }
    let with_holder = report.findings.iter().zip(&report.held).filter(|(f, _)| f.state != State::Setting);
    let credentials: Vec<_> = with_holder.map(|(f, holder)| finding_lines(f, holder.as_deref())).collect();
    if !credentials.is_empty() {
        text.push_str(&format!("Found\n{}\n", credentials.concat()));
    }
    for unread in report.unread {
        text.push_str(&format!("not read: {}: {}\n", plain(&unread.file, 200), plain(&unread.why, 200)));
    }
    if !report.unread.is_empty() {
        text.push('\n');
    }
    text.push_str(&profiles_text(report));
    text.push_str("Machine\n");
    for fact in &report.machine {
        text.push_str(&format!("  {:<14}  {}\n      {}\n", fact.fact, plain(&fact.value, 100), fact.means));
        if let Some(set) = fact.set {
            text.push_str(&format!("      to set: {set}\n"));
        }
    }
    text.push_str("\nMigration\n");
    for (n, step) in (1..).zip(&report.migration) {
        let place = step.place.as_ref().map_or(String::new(), |place| format!(" ({})", plain(place, 300)));
        text.push_str(&format!("{n:>3}. {}{place}\n       {}\n", plain(&step.step, 400), plain(&step.why, 400)));
    }
    text
}

fn profiles_text(report: &Report<'_>) -> String {
    match report.broker.as_str() {
        "open" if report.profiles.is_empty() => "Keyward has no profile yet: `keyward setup`\n\n".to_owned(),
        "open" => {
            let row = |p: &Profile| {
                let life = p.expires_in_s.map(time::words).unwrap_or_default();
                let [identity, scope, subject] =
                    [&p.identity, &p.scope, &p.subject].map(|f| f.clone().unwrap_or_default());
                vec![p.name.clone(), p.issuer.clone(), identity, scope, life, subject]
            };
            let rows: Vec<_> = report.profiles.iter().map(row).collect();
            table(&["profile", "issuer", "identity", "scope", "life", "subject"], &rows) + "\n"
        }
        "locked" => "The profiles of Keyward were not looked at: the vault is locked or not made yet\n\n".to_owned(),
        "none" => "The profiles of Keyward were not looked at: no broker runs\n\n".to_owned(),
        why => format!("The profiles of Keyward were not looked at: {}\n\n", plain(why, 200)),
    }
}

fn line(word: &str, contender: &Contender) -> String {
    let mut text =
        format!("  {word:<9}  {}  {}", plain(&contender.variable, 200), plain(&contender.place.0.to_string(), 300));
    if let Some(fingerprint) = &contender.fingerprint {
        text.push_str(&format!("  {fingerprint}"));
    }
    if let Some(fails) = &contender.fails {
        text.push_str(&format!("  and fails: {}", plain(fails, 200)));
    }
    text.push('\n');
    for written in &contender.written {
        text.push_str(&format!("  {:<9}  written in {}\n", "", plain(&written.0.to_string(), 300)));
    }
    text
}

/// A finding and its place on one line, what can be done with it below: a path is not cut, as it would be in a table. The
/// vault gives nothing out to be compared, so that it cannot be said whether what `holder` has is the same key.
fn finding_lines(finding: &Finding, holder: Option<&str>) -> String {
    let todo = match (finding.state.why(), holder) {
        (Some(why), _) => why.to_owned(),
        (None, Some(profile)) => {
            let variable = plain(finding.hands_over(), 100);
            format!("profile {profile} stands for {variable} already: if it is the same key, remove it here")
        }
        (None, None) => "can be moved in: `keyward setup`".to_owned(),
    };
    let fingerprint = finding.fingerprint.as_ref().map_or(String::new(), |print| format!("  {print}"));
    let (name, place) = (plain(&finding.name, 200), plain(&finding.place.to_string(), 300));
    format!("  {name}  {place}{fingerprint}\n      {todo}\n")
}
