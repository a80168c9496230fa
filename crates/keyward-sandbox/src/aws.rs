//! The metadata service of EC2 in version 2, and the endpoint of containers: both give keys with a session.
//!
//! Version 1, which wants no token, is not there. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, struck};
use crate::random_hex;
use crate::sandbox::{Realm, Sandbox};
use crate::show::fingerprint;
use hyper::Method;
use serde_json::json;

/// Path of the container endpoint.
pub(crate) const CONTAINER_PATH: &str = "/aws/container-credentials";

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const ROLE: &str = "sandbox-role";

/// Longest life of a token of the metadata service, in seconds.
const TTL_MAX_S: u64 = 21_600;

/// Answers one request below `/latest/`, or at the container endpoint.
pub(crate) fn keys(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Aws, asked.header("authorization").unwrap_or_default(), |kept| {
        let refused = |status, reason| {
            Ok(Answer::json(status, &json!({"code": reason, "message": "the sandbox does not take it"}))
                .because(reason))
        };
        if asked.path == "/latest/api/token" {
            if asked.method != Method::PUT || asked.headers.contains_key("x-forwarded-for") {
                return refused(403, "method");
            }
            let ttl = asked.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<u64>().ok());
            let Some(ttl) = ttl.filter(|ttl| (1..=TTL_MAX_S).contains(ttl)) else { return refused(400, "ttl") };
            let token = random_hex(28)?;
            sandbox.state().keep(Realm::Imds, &token, ttl);
            return Ok(Answer::text(200, "text/plain", token));
        }
        if asked.method != Method::GET {
            return refused(405, "method");
        }
        if asked.path == CONTAINER_PATH {
            return match asked.header("authorization") {
                Some(token) if token == sandbox.container_token => document(sandbox, kept),
                Some(_) => refused(401, "container_token"),
                None => refused(401, "no_credential"),
            };
        }
        let token = asked.header("x-aws-ec2-metadata-token").unwrap_or_default();
        if !sandbox.state().is_live(Realm::Imds, token) {
            return refused(401, "metadata_token");
        }
        match asked.path.strip_prefix(ROLES) {
            Some("") => Ok(Answer::text(200, "text/plain", ROLE.into())),
            Some(ROLE) => document(sandbox, kept),
            _ => refused(404, "path"),
        }
    })
}

/// Keys; those whose answer will be spoilt are not known to anybody.
fn document(sandbox: &Sandbox, kept: bool) -> Result<Answer, String> {
    let mut state = sandbox.state();
    let life_s = state.rule.life_s;
    let keys = state.mint_aws(if kept { life_s } else { 0 })?;
    state.counts.aws_keys += u64::from(kept);
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(life_s.cast_signed());
    let body = json!({
        "Code": "Success",
        "LastUpdated": jiff::Timestamp::now().to_string(),
        "Type": "AWS-HMAC",
        "AccessKeyId": keys.id,
        "SecretAccessKey": keys.secret,
        "Token": keys.session,
        "Expiration": end.to_string(),
    });
    let mut answer = Answer::json(200, &body);
    answer.note.token = Some(fingerprint(keys.session.as_bytes()));
    Ok(answer)
}
