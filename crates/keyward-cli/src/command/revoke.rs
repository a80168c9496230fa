//! `keyward revoke`.

use super::Outcome;
use super::lock::lost_runs;
use super::ps::short;
use crate::args::Context;
use crate::broker::Broker;
use crate::out;
use crate::table::count;
use keyward_api::{RevokeAnswer, RevokeRequest, RunMsg};

/// Take credentials back from a run, from all runs of a profile, or from all
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// A run, as `ps` shows it, or a profile
    #[arg(value_name = "RUN|PROFILE")]
    target: Option<String>,
    /// Take everything back
    #[arg(long)]
    all: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let mut broker = Broker::open(context)?;
        let request = match self.target {
            None => RevokeRequest::All,
            Some(target) => {
                let runs: Vec<RunMsg> = broker.unlocked(|client| client.get("/v1/runs"))?;
                RevokeRequest::Target(full_id(&target, &runs))
            }
        };
        let answer: RevokeAnswer = broker.unlocked(|client| client.post("/v1/revoke", &request))?;
        if context.json {
            out::json(&answer)?;
        } else {
            let leases = count(answer.leases as usize, "lease");
            out::text(&format!(
                "took back {leases} of {}\n{}",
                count(answer.runs.len(), "run"),
                lost_runs(&answer.runs)
            ))?;
        }
        Ok(0)
    }
}

/// The id of the only run that `ps` shows as `target`; `target` itself where there is none or more than one.
fn full_id(target: &str, runs: &[RunMsg]) -> String {
    let mut found = runs.iter().filter(|run| short(&run.run) == target);
    match (found.next(), found.next()) {
        (Some(run), None) => run.run.clone(),
        (_, _) => target.to_owned(),
    }
}
