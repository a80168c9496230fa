//! Every fault, as a client sees it.

use crate::harness::{Answer, Sandbox, hello};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

fn spoilt(sandbox: &Sandbox, fault: &str) -> Answer {
    sandbox.turn("fault", json!({"at": "token", "fault": fault}));
    let answer = sandbox.exchange(&sandbox.request());
    assert_eq!(sandbox.stats()["exchanges"], 0, "{fault}");
    answer
}

#[test]
fn spoilt_tokens_are_spoilt_in_one_way_each_and_never_live() {
    let sandbox = Sandbox::start(&[]);
    for (fault, look) in [
        ("wrong_token_type", (|body| body["token_type"] == "mac") as fn(&Value) -> bool),
        ("no_expires_in", |body| body["expires_in"].is_null()),
        ("string_expires_in", |body| body["expires_in"].is_string()),
        ("zero_expires_in", |body| body["expires_in"] == 0),
        ("newline_token", |body| body["access_token"].as_str().is_some_and(|token| token.contains("\r\n"))),
        ("empty_token", |body| body["access_token"] == ""),
        ("oversized", |body| body.to_string().len() > 2 * 1024 * 1024),
    ] {
        let answer = spoilt(&sandbox, fault);
        let body = answer.json();
        assert!(answer.status == 200 && look(&body), "{fault}: {body}");
        let whole = ["access_token", "token_type", "expires_in"].iter().filter(|name| !body[**name].is_null()).count();
        assert_eq!(whole, if fault == "no_expires_in" { 2 } else { 3 }, "{fault}");
        let token = body["access_token"].as_str().unwrap().split('\r').next().unwrap().to_owned();
        assert_eq!(sandbox.message(&token, &hello()).status, 401, "{fault}");
        assert_eq!(sandbox.journal()[sandbox.journal().len() - 2]["reason"], format!("fault:{fault}"));
    }
    assert_eq!(sandbox.stats()["live"], 0);
    assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
}

#[test]
fn answers_that_are_no_answers() {
    let sandbox = Sandbox::start(&[]);
    let malformed = spoilt(&sandbox, "malformed");
    assert!(malformed.status == 200 && serde_json::from_str::<Value>(&malformed.body).is_err());
    let html = spoilt(&sandbox, "html");
    assert_eq!((html.status, html.header("content-type")), (200, Some("text/html")));
    assert!(spoilt(&sandbox, "array").json().is_array());
    let echo = spoilt(&sandbox, "echo");
    assert!(echo.status == 400 && echo.body.contains(&sandbox.assertion()));
    assert_eq!(echo.header("request-id"), Some(sandbox.assertion().to_lowercase().as_str()));
    let line = sandbox.journal().pop().unwrap();
    assert_eq!((&line["reason"], &line["request_id"]), (&json!("fault:echo"), &echo.json()["request_id"]));
    let redirect = spoilt(&sandbox, "redirect");
    assert_eq!(redirect.status, 307);
    assert_eq!(redirect.header("location"), Some(format!("{}/sandbox/trap", sandbox.text("base_url")).as_str()));
    assert_eq!(sandbox.stats()["trapped"], 0);
    let token = sandbox.send("POST", "/sandbox/trap", &[], "x").json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(sandbox.message(&token, &hello()).status, 401);
    assert_eq!(sandbox.stats()["trapped"], 1);
}

#[test]
fn statuses_come_in_the_shape_of_their_place_with_retry_after() {
    let sandbox = Sandbox::start(&[]);
    for (status, kind) in [
        (400, "invalid_grant"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
    ] {
        sandbox.turn("fault", json!({"at": "token", "fault": status.to_string(), "times": 2, "retry_after": 7}));
        for _ in 0..2 {
            let answer = sandbox.exchange(&sandbox.request());
            assert_eq!((answer.status, answer.error().as_str()), (status, kind));
            assert_eq!(answer.header("retry-after"), Some("7"));
        }
    }
    assert_eq!(sandbox.stats()["asked"], 12);
    assert_eq!((&sandbox.stats()["refused"], &sandbox.stats()["exchanges"]), (&json!(0), &json!(0)));
    sandbox.turn("fault", json!({"at": "idp", "fault": 503}));
    let answer = sandbox.send("POST", "/idp/token", &[], "");
    assert_eq!((answer.status, answer.json()["error"].clone()), (503, json!("server_error")));
    let token = sandbox.token();
    sandbox.turn("fault", json!({"at": "messages", "fault": "429", "times": 0}));
    assert!((0..3).all(|_| sandbox.message(&token, &hello()).status == 429));
    assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
    sandbox.turn("clear", json!({}));
    assert_eq!(sandbox.message(&token, &hello()).status, 200);
    assert_eq!(sandbox.stats()["messages"], 1);
}

#[test]
fn a_reset_is_a_reset() {
    let sandbox = Sandbox::start(&[]);
    sandbox.turn("fault", json!({"at": "token", "fault": "reset"}));
    let body = sandbox.request().to_string();
    let reset = sandbox.try_send("POST", "/v1/oauth/token", &[("content-type", "application/json")], &body);
    assert_eq!(reset.err().map(|e| e.kind()), Some(ErrorKind::ConnectionReset));
    let line = sandbox.journal().pop().unwrap();
    assert_eq!((&line["reason"], &line["status"]), (&json!("fault:reset"), &json!(0)));
    assert_eq!(sandbox.exchange(&sandbox.request()).status, 200);
}

#[test]
fn a_hang_says_nothing_until_the_client_leaves() {
    let sandbox = Sandbox::start(&[]);
    sandbox.turn("fault", json!({"at": "messages", "fault": "hang"}));
    let mut stream = TcpStream::connect(sandbox.address()).unwrap();
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    crate::harness::until(|| sandbox.journal().pop().filter(|line| line["reason"] == "fault:hang"));
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0]).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
}

#[test]
fn a_slow_answer_is_right_and_comes_in_pieces() {
    let sandbox = Sandbox::start(&[]);
    sandbox.turn("fault", json!({"at": "token", "fault": "slow"}));
    let token = sandbox.token();
    assert_eq!(sandbox.reason(), "fault:slow");
    assert_eq!(sandbox.message(&token, &hello()).status, 200);
    assert_eq!(sandbox.stats()["exchanges"], 1);
}
