//! `keyward broker`.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, act};
use crate::out;
use keyward_api::StatusAnswer;
use keyward_diag::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Longest wait for the end of a broker, in seconds.
const STOP_MAX_S: i64 = 5;

/// Stop or restart the broker
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Stop the broker cleanly; the vault is locked then
    Stop,
    /// Stop the broker and start it anew; the vault is locked then
    Restart,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let stopped = stop(context)?;
        match self {
            Self::Stop => out::say(if stopped { "the broker has stopped" } else { "nothing to stop: no broker runs" }),
            Self::Restart => {
                let status: StatusAnswer = Broker::open(context)?.client().get("/v1/status")?;
                out::say("a new broker runs");
                if context.json {
                    out::json(&status)?;
                }
            }
        }
        Ok(0)
    }
}

/// Stops the broker and waits for its end. `false` when none ran.
fn stop(context: &Context) -> Result<bool, Fault> {
    let Some(mut broker) = Broker::if_running(context)? else { return Ok(false) };
    let status: StatusAnswer = broker.client().get("/v1/status")?;
    let pid = status.broker.and_then(|b| i32::try_from(b.pid).ok()).and_then(Pid::from_raw);
    // Pinned before it is told to stop, so that a later process with its number is not taken for it.
    let pinned = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    act::<()>(broker.client(), "/v1/broker/stop")?;
    drop(broker);
    let Some(pinned) = pinned else { return Ok(true) };
    let mut ended = [PollFd::new(&pinned, PollFlags::IN)];
    let limit = Timespec { tv_sec: STOP_MAX_S, tv_nsec: 0 };
    if poll(&mut ended, Some(&limit)).is_ok_and(|n| n == 0) {
        return Err(
            Fault::new(Code::BrokerUnreachable).cause(format!("it has not stopped within {STOP_MAX_S} seconds"))
        );
    }
    Ok(true)
}
