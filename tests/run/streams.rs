//! Input, output and errors pass untouched.

use crate::sh;
use keyward_testkit::Home;
use std::io::Write;
use std::process::Stdio;

/// All bytes there are, many times over: more than a pipe holds.
fn bytes() -> Vec<u8> {
    (0..=255_u8).cycle().take(1 << 20).collect()
}

#[test]
fn a_megabyte_goes_through_byte_by_byte() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut command = home.keyward_command(&["run", "-p", "p", "--", "sh", "-c", "tee /dev/stderr"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == bytes(), "{} bytes of output", output.stdout.len());
    assert!(output.stderr == bytes(), "{} bytes of errors: keyward adds none", output.stderr.len());
}

#[test]
fn input_that_was_not_read_is_left_for_the_next_reader() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.grant(&["--profile", "p"]);
    let line = "printf 'one\\ntwo\\n' >f; { keyward run -p p -- sh -c 'read x; echo child $x'; cat; } <f";
    assert_eq!(sh(&home, line).exits(0).out, "child one\ntwo\n");
    let piped = "printf 'all\\n' | { keyward run -p p -- true; cat; }";
    assert_eq!(sh(&home, piped).exits(0).out, "all\n");
}

#[test]
fn closed_descriptors_stay_closed() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.grant(&["--profile", "p"]);
    let look =
        r#"sh -c 'for f in 0 1 2; do [ -e /proc/$$/fd/$f ] && printf "$f " >>seen || printf "no$f " >>seen; done'"#;
    for (closing, want) in
        [("<&-", "no0 1 2 "), (">&-", "0 no1 2 "), ("2>&-", "0 1 no2 "), ("<&- >&- 2>&-", "no0 no1 no2 ")]
    {
        sh(&home, &format!("rm -f seen; keyward run -p p -- {look} {closing}")).exits(0);
        assert_eq!(std::fs::read_to_string(home.root.join("seen")).unwrap(), want, "{closing}");
    }
    // What fails without a place to say so must still fail.
    sh(&home, "keyward run -p nobody -- true <&- >&- 2>&-").exits(125);
}

#[test]
fn redirections_to_files_are_the_callers() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    home.grant(&["--profile", "p"]);
    let line = "echo before >o; keyward run -p p -- sh -c 'echo out; echo err >&2' >>o 2>e; echo after >>o; cat o e";
    assert_eq!(sh(&home, line).exits(0).out, "before\nout\nafter\nerr\n");
    let full = "keyward run -p p -- sh -c 'echo x' >/dev/full";
    let bare = "sh -c 'echo x' >/dev/full";
    assert_eq!(sh(&home, full).exit, sh(&home, bare).exit);
}
