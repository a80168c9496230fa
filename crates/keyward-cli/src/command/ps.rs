//! `keyward ps`.

use super::Outcome;
use crate::args::Context;
use crate::broker::Broker;
use crate::table::table;
use crate::{out, time};
use keyward_api::place::Places;
use keyward_api::{RunMsg, StatusAnswer, VaultState};
use keyward_find::agents::app_name;

/// List the live runs and what each holds
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let runs: Vec<RunMsg> = match Broker::if_running(context)? {
            Some(mut broker) => broker.unlocked(|client| client.get("/v1/runs"))?,
            None => Vec::new(),
        };
        if context.json {
            out::json(&runs)?;
        } else if runs.is_empty() {
            let locked = match Broker::if_running(context)? {
                Some(mut broker) => {
                    broker.client().get::<StatusAnswer>("/v1/status")?.vault.state == VaultState::Locked
                }
                None => Places::current()?.data.join("vault.slots").exists(),
            };
            out::say(if locked {
                "no run is known; those from before are seen after `keyward unlock`"
            } else {
                "nothing runs; start something with `keyward run -p PROFILE -- CMD`"
            });
        } else {
            let header = ["run", "pid", "app", "project", "started", "profile", "delivery", "left", "uses"];
            out::text(&table(&header, &runs.iter().flat_map(rows).collect::<Vec<_>>()))?;
        }
        Ok(0)
    }
}

/// One row a lease; the run stands in the first one only.
fn rows(run: &RunMsg) -> Vec<Vec<String>> {
    let of_run =
        [short(&run.run).to_owned(), run.pid.to_string(), app(run), run.project.clone(), time::ago(&run.started_at)];
    if run.leases.is_empty() {
        return vec![of_run.into()];
    }
    let lease_rows = run.leases.iter().enumerate().map(|(n, lease)| {
        let mut row = if n == 0 { of_run.to_vec() } else { vec![" ".to_owned(); of_run.len()] };
        let left = if lease.state == "live" { time::left(&lease.expires_at) } else { lease.state.clone() };
        // Neither a variable nor a file shows who reads it.
        let uses = match (lease.uses, &lease.last_use_at) {
            (None, _) => String::new(),
            (Some(n), None) => n.to_string(),
            (Some(n), Some(at)) => format!("{n}, last {}", time::ago(at)),
        };
        row.extend([lease.profile.clone(), lease.delivery.word().to_owned(), left, uses]);
        row
    });
    lease_rows.collect()
}

/// The app as people know it: the launcher, or the name of the agent beside the program of that name.
pub(super) fn app(run: &RunMsg) -> String {
    match (&run.launcher, app_name(&run.app)) {
        (Some(launcher), _) => launcher.clone(),
        (None, Some(name)) => format!("{name} ({})", run.app),
        (None, None) => run.app.clone(),
    }
}

/// The end of an id, which tells runs apart that were started together.
pub(super) fn short(id: &str) -> &str {
    let start = id.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    &id[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyward_api::{DeliveryMode, LeaseMsg, Outlook, OutlookMsg};

    #[test]
    fn each_lease_has_a_row_and_a_dead_one_says_so() {
        let lease = |profile: &str, state: &str| LeaseMsg {
            lease: "l".into(),
            profile: profile.into(),
            delivery: DeliveryMode::File,
            state: state.into(),
            issued_at: "2026-11-21T08:00:00Z".into(),
            expires_at: "2999-11-21T08:00:00Z".into(),
            renewals: 0,
            uses: None,
            last_use_at: None,
            received_at: "2026-11-21T08:00:00Z".into(),
            renew_at: None,
            limit_at: "2999-11-21T08:00:00Z".into(),
            outlook: OutlookMsg {
                kind: Outlook::Ends,
                at: "2999-11-21T08:00:00Z".into(),
                why: "the lease reaches its limit".into(),
                code: None,
                next_try_at: None,
            },
        };
        let mut run = RunMsg {
            run: "0199-abcdefgh".into(),
            pid: 7,
            app: "claude".into(),
            app_verified: true,
            project: "/p".into(),
            started_at: "2026-11-21T08:00:00Z".into(),
            launcher: None,
            leases: vec![lease("a", "live"), lease("b", "revoked")],
        };
        let shown = rows(&run);
        assert_eq!((shown[0][0].as_str(), shown[0][5].as_str()), ("abcdefgh", "a"));
        assert!(shown[0][7].ends_with(" d") && shown[1][7] == "revoked" && shown[1][0] == " ");
        assert_eq!(shown[0][2], "Claude Code (claude)");
        assert!(shown[0][8].is_empty());
        (run.leases[0].uses, run.leases[1].uses) = (Some(0), Some(12));
        run.leases[1].last_use_at = Some("2026-11-21T08:00:00Z".into());
        let shown = rows(&run);
        assert!(shown[0][8] == "0" && shown[1][8].starts_with("12, last "), "{shown:?}");
        run.app = "Morning review".into();
        run.launcher = Some("Morning review".into());
        assert_eq!(rows(&run)[0][2], "Morning review");
        (run.app, run.launcher) = ("psql".into(), None);
        assert_eq!(rows(&run)[0][2], "psql");
    }
}
