//! The assertion stays with the broker; through the gateway, the credential too.

use crate::{ENV, FILES, Sdk, all_went_well, federated};
use keyward_testkit::run;

/// Prints everything of a child that could hold the assertion, then becomes the client.
const SEARCH: &str = r#"
env
tr '\0' '\n' </proc/self/environ
tr '\0' '\n' </proc/$PPID/cmdline
ls -l /proc/self/fd
for folder in "$ANTHROPIC_CONFIG_DIR" "$XDG_RUNTIME_DIR/keyward"; do
    [ -d "$folder" ] && find "$folder" -type f -exec cat {} +
done
exec "$@""#;

#[test]
fn no_client_sees_the_assertion_or_where_it_comes_from() {
    for more in ["", FILES, ENV] {
        let (mut home, sandbox) = federated(&["--life", "10m", "--rotate", "0s"], more);
        let assertion = std::fs::read_to_string(sandbox.token_file()).unwrap();
        let place = sandbox.token_file();
        // As the shell of somebody who used to let the SDK federate.
        home.set("ANTHROPIC_IDENTITY_TOKEN_FILE", place.to_str().unwrap());
        home.set("ANTHROPIC_IDENTITY_TOKEN", assertion.trim());
        for sdk in Sdk::BOTH {
            let line = sdk.line(&["ask"]);
            let words = ["run", "-p", "claude", "--", "sh", "-c", SEARCH, "sh"];
            let words: Vec<&str> = words.into_iter().chain(line.iter().map(String::as_str)).collect();
            let answer = run(home.keyward_command(&words), b"").exits(0);
            let there = if more.is_empty() { "kwr_" } else { "sk-ant-oat01-" };
            assert!(answer.out.contains(there), "the search sees what is there: {}", answer.out);
            assert!(!more.is_empty() || !answer.out.contains("sk-ant-oat01-"), "through the gateway: {}", answer.out);
            for text in [&answer.out, &answer.err] {
                let parts = assertion.trim().split('.').filter(|part| text.contains(part)).count();
                assert_eq!(parts, 0, "{sdk:?} {more:?}: {text}");
                assert!(!text.contains("eyJ") && !text.contains(place.to_str().unwrap()), "{sdk:?} {more:?}: {text}");
            }
        }
        all_went_well(&sandbox);
    }
}
