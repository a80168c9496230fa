//! `keyward lock`.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, act};
use crate::out;
use crate::table::count;
use keyward_api::{LockAnswer, LostRun};
use keyward_diag::plain;

/// Close the vault: take every credential back and wipe the keys
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let Some(mut broker) = Broker::if_running(context)? else {
            out::say("nothing to lock: no broker runs");
            if context.json {
                out::json(&LockAnswer { runs: Vec::new() })?;
            }
            return Ok(0);
        };
        let answer: LockAnswer = act(broker.client(), "/v1/vault/lock")?;
        if context.json {
            out::json(&answer)?;
        } else if answer.runs.is_empty() {
            out::text("locked; no run was alive")?;
        } else {
            let lost = count(answer.runs.len(), "run");
            let whose = if answer.runs.len() == 1 { "its" } else { "their" };
            out::text(&format!("locked; {lost} lost {whose} credentials:\n{}", lost_runs(&answer.runs)))?;
        }
        Ok(0)
    }
}

/// One line a run: what it lost, and below it what could not be taken back.
pub(super) fn lost_runs(runs: &[LostRun]) -> String {
    let mut out = String::new();
    for run in runs {
        out.push_str(&format!(
            "  {} (pid {}): {}\n",
            plain(&run.app, 60),
            run.pid,
            plain(&run.profiles.join(", "), 200)
        ));
        for remains in &run.remains {
            out.push_str(&format!("    remains: {}\n", plain(remains, 200)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_told_and_cannot_break_the_screen() {
        let run = LostRun {
            run: "1".into(),
            app: "a\u{1b}[2J".into(),
            pid: 7,
            profiles: vec!["p".into(), "q".into()],
            remains: vec!["T in its environment\n".into()],
        };
        assert_eq!(lost_runs(&[run]), "  a\\u{1b}[2J (pid 7): p, q\n    remains: T in its environment\\u{a}\n");
    }
}
