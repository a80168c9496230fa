#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::stage::{Memory, federated, jwt};
use std::sync::Arc;
use zeroize::Zeroizing;

const NOW: i64 = 1_800_000_000;
const GOOD: &str = r#""iss":"https://i","sub":"s","aud":"https://api.anthropic.com","iat":1799999940,"exp":1800000240"#;
const GRANT: &str = r#"{"error":"invalid_grant"}"#;

fn read(header: &str, claims: &str) -> Assertion {
    Assertion::read(jwt(header, &format!("{{{claims}}}")).as_bytes()).unwrap()
}

/// What is said to look at, for a profile with more fields.
fn parts(header: &str, claims: &str, more: &str, status: u16, body: &str) -> Vec<String> {
    let order = federated("https://api.anthropic.com", more, "kind = \"env-token\"", &Arc::new(Memory::default()));
    let assertion = read(header, claims);
    let refusal = Refusal::read(&Ok(Zeroizing::new(body.as_bytes().to_vec())), &[]);
    let refused = Refused {
        profile: &order.profile,
        host: "api.anthropic.com",
        assertion: &assertion,
        status,
        refusal: &refusal,
        now: NOW,
        ahead_s: None,
    };
    let blamed = |ahead| look_at(&Refused { ahead_s: Some(ahead), ..refused }).concat().contains("clock: the clock of");
    assert!(!blamed(29) && !blamed(-29) && blamed(31) && blamed(-300));
    look_at(&refused)
}

#[test]
fn spans_are_said_as_people_say_them() {
    for (seconds, said) in [
        (0, "0 s ago"),
        (119, "119 s ago"),
        (720, "12 minutes ago"),
        (7200, "2 hours ago"),
        (200_000, "2 days ago"),
        (-150, "in 2 minutes"),
        (i64::MAX, "106751991167300 days ago"),
        (i64::MIN, "in 106751991167300 days"),
    ] {
        assert_eq!(ago(seconds), said);
    }
}

#[test]
fn the_claims_are_shown_in_one_bounded_line() {
    let a = read(r#"{"alg":"RS256","kid":"k"}"#, &GOOD.replace("\"s\"", "\"a\\nb\\u001b[2J\""));
    assert_eq!(
        claims(&a, NOW),
        "the assertion says: iss `https://i`, sub `a\\u{a}b\\u{1b}[2J`, aud `https://api.anthropic.com`, issued 60 s ago, \
         ends in 4 minutes, kid `k`, alg `RS256`"
    );
    assert!(claims(&a, NOW + 960).contains("ended 12 minutes ago"));
    let none = read(r#"{"alg":"none"}"#, "\"aud\":[],\"exp\":\"x\"");
    assert_eq!(
        claims(&none, NOW),
        "the assertion says: iss none, sub none, aud none, issued never, ends never, kid none, alg `none`"
    );
    let long = "x".repeat(2000);
    let header = format!(r#"{{"alg":"{long}","kid":"{long}"}}"#);
    let a = read(&header, &format!(r#""iss":"{long}","sub":"{long}","aud":["{long}"],"iat":-9e300,"exp":9e300"#));
    assert!(claims(&a, NOW).chars().count() <= 400, "{}", claims(&a, NOW));
}

#[test]
fn each_sign_points_at_its_part_first() {
    const HEADER: &str = r#"{"alg":"RS256","kid":"k"}"#;
    let said = |message: &str| format!(r#"{{"error":{{"type":"invalid_request","message":"{message}"}}}}"#);
    let ended = GOOD.replace("1800000240", "1799999280");
    let ahead = GOOD.replace("1799999940", "1800000300");
    for (header, claims, status, body, first) in [
        (HEADER, GOOD, 400, said("workspace_id_required"), "workspace: the rule holds for several; set `workspace_id`"),
        (
            HEADER,
            GOOD,
            400,
            said("federation_rule_id is not a well-formed fdrl_ tagged ID"),
            "rule: look at `federation_rule_id`, `fdrl_01Rule`",
        ),
        (HEADER, GOOD, 400, said("organization_id: unknown"), "organization: look at `organization_id`, `00000000-"),
        (
            HEADER,
            GOOD,
            400,
            said("service_account_id"),
            "service account: look at `service_account_id`, which is not set",
        ),
        (
            HEADER,
            &ended,
            400,
            GRANT.into(),
            "clock or identity source: by this machine's clock it expired 12 minutes ago",
        ),
        (HEADER, &ahead, 400, GRANT.into(), "clock: its `iat` lies ahead, in 5 minutes"),
        (HEADER, &format!("{GOOD},\"nbf\":1800000031"), 400, GRANT.into(), "clock: its `nbf` lies ahead, in 31 s"),
        (r#"{"alg":"HS256","kid":"k"}"#, GOOD, 400, GRANT.into(), "issuer: it is signed with `HS256`"),
        (r#"{"alg":"RS256"}"#, GOOD, 400, GRANT.into(), "issuer: its header has no `kid`"),
        (
            HEADER,
            "\"aud\":\"https://api.anthropic.com\",\"iss\":\"i\"",
            400,
            GRANT.into(),
            "issuer: it lacks `sub`, `iat`, `exp`",
        ),
        (HEADER, &GOOD.replace("1800000240", "1800086340"), 400, GRANT.into(), "issuer: it lives 86400 s"),
        (
            HEADER,
            &GOOD.replace("https://api.anthropic.com", "sts.amazonaws.com"),
            400,
            GRANT.into(),
            "audience: it is not for `https://api.anthropic.com`",
        ),
        (
            HEADER,
            &GOOD.replace("\"s\"", "\"repo:o/r:pull_request\""),
            401,
            GRANT.into(),
            "subject: it is a run for a pull request",
        ),
        (HEADER, &format!("{GOOD},\"jti\":\"1\""), 401, GRANT.into(), "one-time use: it has a `jti`"),
        (HEADER, GOOD, 403, said("no"), "service account: is the service account of the rule active"),
        (HEADER, GOOD, 404, "{}".into(), "network: is api.anthropic.com the API?"),
        (HEADER, GOOD, 401, "<html>".into(), "network: the answer is a page for people"),
        (HEADER, GOOD, 400, GRANT.into(), "rule and subject: is `fdrl_01Rule` a live rule of organization 0000"),
    ] {
        let parts = parts(header, claims, "", status, &body);
        assert!(parts.first().is_some_and(|part| part.starts_with(first)), "{first}: {parts:?}");
        assert!(parts.len() <= POINTERS_MAX && parts.iter().all(|p| p.chars().count() < 400), "{parts:?}");
    }
}

#[test]
fn times_within_the_skew_of_the_server_are_not_blamed() {
    let all = |claims: &str| parts(r#"{"alg":"ES256","kid":"k"}"#, claims, "", 400, GRANT).join("\n");
    for claims in [GOOD.replace("1800000240", "1799999970"), GOOD.replace("1799999940", "1800000030")] {
        assert!(!all(&claims).contains("clock"), "{}", all(&claims));
    }
}

#[test]
fn an_assertion_without_a_sign_leads_to_what_the_server_keeps_for_itself() {
    let more = "service_account_id = \"svac_01S\"\nworkspace_id = \"wrkspc_01W\"";
    let parts = parts(r#"{"alg":"ES256","kid":"k"}"#, GOOD, more, 401, GRANT);
    let heads: Vec<_> = parts.iter().filter_map(|part| part.split_once(':')).map(|(head, _)| head).collect();
    assert_eq!(heads, ["rule and subject", "issuer", "audience", "service account", "workspace"]);
    assert!(parts[3].contains("svac_01S") && parts[4].contains("wrkspc_01W"), "{parts:?}");
}
