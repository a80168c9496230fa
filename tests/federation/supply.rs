//! Assertions that stand in a variable of the caller.

use crate::ENV;
use keyward_testkit::{Answer, Home, Sandbox, run};
use serde_json::json;

fn with_variable(home: &Home, sandbox: &Sandbox, args: &[&str]) -> Answer {
    let mut command = home.keyward_command(args);
    command.env("ANTHROPIC_IDENTITY_TOKEN", std::fs::read_to_string(sandbox.token_file()).unwrap().trim());
    run(command, b"")
}

#[test]
fn the_variable_is_read_where_the_command_runs_and_kept_for_what_follows() {
    let home = Home::with_vault();
    let sandbox = Sandbox::start(&home, &["--life", "60s", "--one-time", "--rotate", "0s"]);
    home.profile("ci", &sandbox.profile("kind = \"env-token\"", ENV));
    let said = home.keyward(&["token", "ci"]).exits(1).says("identity.needed");
    assert!(said.err.contains("ANTHROPIC_IDENTITY_TOKEN"), "{}", said.err);
    assert_eq!(sandbox.count("asked"), 0);

    let out = with_variable(&home, &sandbox, &["run", "-p", "ci", "--", "env"]).exits(0);
    assert!(out.out.contains("ANTHROPIC_AUTH_TOKEN=sk-ant-oat01-"));
    assert!(!out.out.contains("eyJ"), "the child does not see the assertion");
    home.keyward(&["token", "ci"]).exits(0);

    // Spent: only another one helps, and it is taken from the next caller who has it.
    with_variable(&home, &sandbox, &["token", "ci", "--refresh"]).exits(6).says("identity.spent");
    sandbox.control("/sandbox/issue", json!({}));
    with_variable(&home, &sandbox, &["token", "ci", "--refresh"]).exits(0);
    assert_eq!((sandbox.count("asked"), sandbox.count("replays")), (2, 0));
}
