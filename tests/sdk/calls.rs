//! Calls that work: both SDKs, each delivery, whole and streamed.

use crate::{ENV, FILES, Sdk, all_went_well, call, federated, newest, requests};
use keyward_testkit::{run, wait_for};
use std::path::Path;

#[test]
fn clients_without_an_argument_get_answers_and_streams() {
    for (delivery, more) in [("gateway", ""), ("file", FILES), ("env", ENV)] {
        let (home, sandbox) = federated(&["--life", "10m"], more);
        for sdk in Sdk::BOTH {
            for task in ["ask", "stream"] {
                let said = call(&home, sdk, &[task]);
                assert_eq!(said.out.trim_end(), newest(&sandbox), "{sdk:?}, {delivery}, {task}");
                assert_eq!(said.err, "", "{sdk:?}, {delivery}, {task}");
            }
            assert_eq!(requests(&sandbox, sdk), 2, "{sdk:?}, {delivery}");
        }
        all_went_well(&sandbox);
        assert_eq!(sandbox.count("asked"), 1, "{delivery}: one exchange for all of them");
    }
}

#[test]
fn the_files_of_a_client_go_with_its_run() {
    let (home, sandbox) = federated(&["--life", "10m"], FILES);
    for sdk in Sdk::BOTH {
        let script = "echo $ANTHROPIC_CONFIG_DIR; exec \"$@\"";
        let line = sdk.line(&["ask"]);
        let words = ["run", "-p", "claude", "--", "sh", "-c", script, "sh"];
        let words: Vec<&str> = words.into_iter().chain(line.iter().map(String::as_str)).collect();
        let answer = run(home.keyward_command(&words), b"").exits(0);
        let lines: Vec<&str> = answer.out.lines().collect();
        let [folder, text] = lines.as_slice() else { panic!("{}", answer.out) };
        assert_eq!(*text, newest(&sandbox), "{sdk:?}");
        let folder = Path::new(folder);
        assert!(folder.starts_with(&home.runtime), "{}", folder.display());
        // The folder of the run, and that of its lease in it.
        wait_for("the end of the run's folder", || !folder.exists() && !folder.parent().unwrap().exists());
    }
    all_went_well(&sandbox);
}
