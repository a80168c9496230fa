//! The commands: one file each, or one for a small family, and one line in the list below.

mod add;
mod approval;
mod audit;
mod broker;
mod completion;
mod doctor;
mod grant;
mod init;
mod launch;
mod launcher;
mod lock;
mod man;
mod profile;
mod ps;
mod revoke;
pub(crate) mod run;
mod secret;
mod setup;
mod status;
mod token;
mod unlock;
mod vault;

use crate::args::Context;
use crate::out::Stop;

/// Exit code of a command that did what it should, or why it did not.
pub(crate) type Outcome = Result<u8, Stop>;

/// The list.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Setup(setup::Args),
    Init(init::Args),
    Unlock(unlock::Args),
    Lock(lock::Args),
    Status(status::Args),
    #[command(subcommand)]
    Vault(vault::Command),
    #[command(subcommand)]
    Profile(profile::Command),
    #[command(subcommand)]
    Secret(secret::Command),
    Run(run::Args),
    Launch(launch::Args),
    #[command(subcommand)]
    Launcher(launcher::Command),
    Token(token::Args),
    Ps(ps::Args),
    Revoke(revoke::Args),
    #[command(subcommand)]
    Grant(grant::Command),
    Approvals(approval::List),
    Approve(approval::Approve),
    Deny(approval::Deny),
    #[command(subcommand)]
    Audit(audit::Command),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Broker(broker::Command),
    Completion(completion::Args),
    Man(man::Args),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Setup(args) => args.run(context),
            Self::Init(args) => args.run(context),
            Self::Unlock(args) => args.run(context),
            Self::Lock(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Vault(command) => command.run(context),
            Self::Profile(command) => command.run(context),
            Self::Secret(command) => command.run(context),
            Self::Run(args) => args.run(context),
            Self::Launch(args) => args.run(context),
            Self::Launcher(command) => command.run(context),
            Self::Token(args) => args.run(context),
            Self::Ps(args) => args.run(context),
            Self::Revoke(args) => args.run(context),
            Self::Grant(command) => command.run(context),
            Self::Approvals(args) => args.run(context),
            Self::Approve(args) => args.run(context),
            Self::Deny(args) => args.run(context),
            Self::Audit(command) => command.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Broker(command) => command.run(context),
            Self::Completion(args) => args.run(),
            Self::Man(args) => args.run(),
        }
    }
}
