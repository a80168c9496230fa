//! Many at once.

use crate::{FILES, Sdk, all_went_well, command, federated, newest};
use std::process::{Command, Stdio};

#[test]
fn a_hundred_children_and_eight_pythons_make_one_exchange() {
    let (home, sandbox) =
        federated(&["--life", "10m", "--assertion-life", "10m", "--one-time", "--rotate", "0s"], FILES);
    let start = |mut command: Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut children = Vec::new();
    for n in 0..100 {
        let line = ["run", "-p", "claude", "--", "keyward-sandbox", "child", "--lifetimes", "0"];
        children.push(start(home.keyward_command(&line)));
        if n % 12 == 0 && n < 96 {
            children.push(start(command(&home, Sdk::Python, &["ask"])));
        }
    }
    assert_eq!(children.len(), 108);
    let print = newest(&sandbox).replace("token ", "");
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&print), "{print} expected: {said}");
    }
    assert_eq!((sandbox.count("asked"), sandbox.count("exchanges"), sandbox.count("messages")), (1, 1, 108));
    all_went_well(&sandbox);
}
