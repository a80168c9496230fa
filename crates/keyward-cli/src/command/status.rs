//! `keyward status`.

use super::Outcome;
use super::ps::app;
use crate::args::Context;
use crate::broker::Broker;
use crate::table::{count, pairs};
use crate::{out, time};
use keyward_api::place::Places;
use keyward_api::{ApprovalMsg, ApprovalState, MeAnswer, RoleMsg, RunMsg, StatusAnswer, VaultState, VaultStatus};
use keyward_diag::{Code, Fault};
use serde::Serialize;
use std::collections::BTreeSet;

/// Show what is going on; never starts a broker
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a StatusAnswer,
    /// What this terminal may do; absent where no broker told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    me: Option<MeAnswer>,
    /// Requests that wait for a person; absent where they may not be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut broker = Broker::if_running(context)?;
        let asked = broker.as_mut().map(|broker| broker.client().get("/v1/status"));
        let status: StatusAnswer = match asked {
            // One that ends at this moment is one that does not run.
            None | Some(Err(Fault { code: Code::BrokerUnreachable, .. })) => without_broker(&Places::current()?),
            Some(status) => status?,
        };
        let me = broker.as_mut().and_then(|broker| broker.me().ok());
        // Others are refused, which would be noted.
        let may_see = |me: &MeAnswer| matches!(me.role, RoleMsg::Requester | RoleMsg::Shell | RoleMsg::Operator);
        let asked: Option<Vec<ApprovalMsg>> = broker
            .as_mut()
            .filter(|_| me.as_ref().is_some_and(may_see))
            .and_then(|broker| broker.client().get("/v1/approvals").ok());
        let open = |cards: Vec<ApprovalMsg>| cards.iter().filter(|card| card.state == ApprovalState::Open).count();
        let report = Report { status: &status, me, waiting: asked.map(open) };
        if context.json {
            out::json(&report)?;
        } else {
            // What runs is said where it may be seen; the numbers alone otherwise.
            let runs: Option<Vec<RunMsg>> =
                broker.filter(|_| status.runs > 0).and_then(|mut broker| broker.client().get("/v1/runs").ok());
            out::text(&screen(&report, &runs.unwrap_or_default()))?;
        }
        Ok(0)
    }
}

/// What can be seen from outside: whether there is a vault. One that no broker holds is locked.
fn without_broker(places: &Places) -> StatusAnswer {
    let state = if places.data.join("vault.slots").exists() { VaultState::Locked } else { VaultState::Absent };
    StatusAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        vault: VaultStatus { state, auto_locked: false, audit_broken: false, auto_lock_in_s: None },
        broker: None,
        runs: 0,
        leases: 0,
        gateway: None,
        home: places.data.display().to_string(),
        now: None,
    }
}

/// What the caller may do, in words; nothing before the vault was opened, which its own line says.
fn role(me: &MeAnswer) -> Option<String> {
    let until = me.until.as_deref().map_or_else(String::new, |until| format!(" for {}", time::left(until)));
    match me.role {
        RoleMsg::None => None,
        RoleMsg::Inside => {
            Some(format!("inside the run {}: what it holds, and no more", me.run.as_deref().unwrap_or("of its parent")))
        }
        RoleMsg::Requester => {
            Some("asks a person for each run; `keyward unlock` here lets this shell go without".to_owned())
        }
        RoleMsg::Shell => Some(format!("the shell that unlocked: runs without asking{until}")),
        RoleMsg::Operator => Some(format!("operator{until}")),
    }
}

fn screen(report: &Report<'_>, live: &[RunMsg]) -> String {
    let status = report.status;
    let vault = match (status.vault.state, status.vault.auto_lock_in_s) {
        (VaultState::Absent, _) => "there is none yet: make it with `keyward setup`".to_owned(),
        (VaultState::Locked, _) if status.vault.auto_locked => {
            "locked by itself; live leases go on: open it with `keyward unlock`".to_owned()
        }
        (VaultState::Locked, _) => "locked: open it with `keyward unlock`".to_owned(),
        (VaultState::Unlocked, Some(s)) => format!("unlocked, locks itself in {} without use", time::words(s)),
        (VaultState::Unlocked, None) => "unlocked".to_owned(),
    };
    let broker = status.broker.as_ref().map_or_else(
        || "none runs; the next command that needs one starts it".to_owned(),
        |b| format!("pid {}, started {}, {} MiB", b.pid, time::ago(&b.started_at), b.rss_bytes >> 20),
    );
    let mut lines = vec![("vault", vault), ("broker", broker)];
    if status.vault.audit_broken {
        lines.push((
            "log",
            "does not match what was recorded; nothing is delivered: see `keyward audit verify`".to_owned(),
        ));
    }
    if let Some(role) = report.me.as_ref().and_then(role) {
        lines.push(("terminal", role));
    }
    if let Some(waiting @ 1..) = report.waiting {
        lines.push(("waiting", format!("{} for a person: see `keyward approvals`", count(waiting, "request"))));
    }
    let mut known = format!("{}, {}", count(status.runs as usize, "run"), count(status.leases as usize, "lease"));
    let uses = live.iter().flat_map(|run| &run.leases).filter_map(|lease| lease.uses);
    if let Some(uses) = uses.reduce(u64::saturating_add) {
        known.push_str(&format!(", {}", count(usize::try_from(uses).unwrap_or(usize::MAX), "use")));
    }
    let apps: BTreeSet<String> = live.iter().map(app).collect();
    if !apps.is_empty() {
        known.push_str(&format!(": {}", apps.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let runs = match (status.vault.state, status.runs) {
        (VaultState::Locked, 0) => "those from before are seen after `keyward unlock`".to_owned(),
        _ => known,
    };
    lines.push(("runs", runs));
    if let Some(gateway) = &status.gateway {
        lines.push(("gateway", gateway.clone()));
    }
    lines.push(("home", status.home.clone()));
    lines.push(("version", status.version.clone()));
    pairs(&lines)
}
