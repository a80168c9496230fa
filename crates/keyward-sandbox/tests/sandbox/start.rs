//! The start, the ready line and the end.

use crate::harness::{Folder, Sandbox, program, until};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn the_ready_line_names_everything_and_the_files_are_private() {
    let sandbox = Sandbox::start(&[]);
    let base_url = sandbox.text("base_url");
    assert!(base_url.starts_with("http://127.0.0.1:"), "{base_url}");
    assert_eq!(sandbox.text("issuer"), format!("{base_url}/idp"));
    assert_eq!(sandbox.text("token_url"), format!("{base_url}/idp/token"));
    assert_eq!(sandbox.text("audience"), "https://api.anthropic.com");
    for (name, prefix) in
        [("federation_rule_id", "fdrl_01"), ("service_account_id", "svac_01"), ("workspace_id", "wrkspc_01")]
    {
        assert!(sandbox.text(name).starts_with(prefix), "{}", sandbox.ready);
    }
    assert_eq!(sandbox.text("organization_id").len(), 36);
    for (name, file) in [
        ("identity_token_file", "identity-token"),
        ("client_secret_file", "client-secret"),
        ("journal", "journal.jsonl"),
    ] {
        let path = sandbox.folder.0.join("served").join(file);
        assert_eq!(sandbox.text(name), path.to_str().unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert!(!sandbox.file("client_secret_file").is_empty() && sandbox.text("client_id").contains(':'));
}

#[test]
fn bad_choices_are_refused_in_words() {
    let folder = Folder::new();
    for (arguments, word) in [
        (["--listen", "0.0.0.0:0", "--life", "60s"].as_slice(), "loopback"),
        (&["--listen", "[::]:0"], "loopback"),
        (&["--listen", "192.0.2.1:0"], "loopback"),
        (&["--listen", "127.0.0.2:0"], "loopback"),
        (&["--life", "59s"], "--fast-lives"),
        (&["--life", "25h"], "24h"),
        (&["--life", "60500ms"], "whole"),
        (&["--alg", "HS256"], "RS256"),
        (&["--life", "0s", "--fast-lives"], "zero"),
    ] {
        let out = program().arg("serve").arg("--folder").arg(&folder.0).args(arguments).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains(word), "{arguments:?}: {said}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn a_signal_ends_it_well_and_takes_the_secrets_away() {
    for signal in ["-TERM", "-INT"] {
        let mut sandbox = Sandbox::start(&[]);
        let pid = sandbox.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert_eq!(sandbox.ended().code(), Some(0));
        for name in ["identity_token_file", "client_secret_file"] {
            assert!(!std::fs::exists(sandbox.text(name)).unwrap(), "{name} is left");
        }
    }
}

#[test]
fn the_end_of_input_ends_it_only_when_it_was_asked_to() {
    let mut told = Sandbox::start(&["--until-eof"]);
    let mut deaf = Sandbox::start(&[]);
    drop((told.stdin.take(), deaf.stdin.take()));
    assert_eq!(told.ended().code(), Some(0));
    assert_eq!(deaf.stats()["asked"], 0);
    assert!(deaf.process.try_wait().unwrap().is_none());
}

#[test]
fn a_request_that_hangs_does_not_hold_up_the_end() {
    let mut sandbox = Sandbox::start(&["--until-eof"]);
    sandbox.turn("fault", json!({"at": "token", "fault": "hang"}));
    let address = sandbox.address().to_owned();
    let hung = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"POST /v1/oauth/token HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        )
        .unwrap();
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut text);
        text
    });
    until(|| (sandbox.stats()["asked"] == 1).then_some(()));
    drop(sandbox.stdin.take());
    assert_eq!(sandbox.ended().code(), Some(0));
    assert_eq!(hung.join().unwrap(), "");
}

#[test]
fn the_file_is_rewritten_by_the_clock_and_when_told() {
    let sandbox = Sandbox::start(&["--rotate", "1s"]);
    let first = sandbox.assertion();
    let second = until(|| Some(sandbox.assertion()).filter(|token| *token != first));
    until(|| Some(sandbox.assertion()).filter(|token| *token != second));

    let still = Sandbox::start(&[]);
    let first = still.assertion();
    still.turn("issue", json!({"claims": {"sub": "sandbox:other", "aud": null, "exp": 5}}));
    let claims = crate::harness::claims(&still.assertion());
    assert_ne!(still.assertion(), first);
    assert_eq!(claims["sub"], "sandbox:other");
    assert_eq!(claims["exp"], 5);
    assert!(claims["aud"].is_null() && claims["jti"].is_null());
    still.turn("issue", json!({}));
    assert_eq!(crate::harness::claims(&still.assertion())["sub"], "sandbox:agent");
}
