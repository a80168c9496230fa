//! STS of AWS, and the portal of IAM Identity Center: keys for a role.
//!
//! Stricter than the real ones: a field that is not known is refused, and so is a signature where none belongs. A role begins
//! with `sandbox`; one that begins with `sandbox-external` wants the external id. The identity token of the file is taken for
//! a role, whose provider is the one of this sandbox. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::bedrock::{REGION, signer};
use crate::fault::{At, struck};
use crate::google::vouched;
use crate::journal::Seen;
use crate::jwt;
use crate::sandbox::Sandbox;
use crate::show::fingerprint;
use hyper::Method;
use serde_json::json;
use std::collections::BTreeMap;

/// Path of STS.
pub(crate) const STS_PATH: &str = "/aws/sts";

/// Path of the portal.
pub(crate) const PORTAL_PATH: &str = "/aws/sso/federation/credentials";

/// The account, as the portal and the names of roles have it.
pub(crate) const ACCOUNT: &str = "123456789012";

/// The external id of the roles that want one.
const EXTERNAL_ID: &str = "sandbox/external=1";

const FIELDS: [&str; 7] =
    ["Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId", "WebIdentityToken"];

/// Status, name and reason of a refusal.
type Refused = (u16, &'static str, &'static str);

/// Answers one request at STS.
pub(crate) fn sts(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Aws, "", |kept| {
        let form = asked.form(&FIELDS);
        let token = form.as_ref().ok().and_then(|form| form.get("WebIdentityToken")).map_or("", String::as_str);
        let checked = form
            .as_ref()
            .map_err(|reason| (400, "ValidationError", *reason))
            .and_then(|form| assume(sandbox, asked, form));
        let mut answer = match checked {
            Ok(action) => {
                let (id, secret, session, ends) = mint(sandbox, kept)?;
                let xml = format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
                     <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
                     <SessionToken>{session}</SessionToken><Expiration>{ends}</Expiration></Credentials></{action}Result>\
                     <ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></{action}Response>",
                    asked.request_id
                );
                let mut answer = Answer::text(200, "text/xml", xml);
                answer.note.token = Some(fingerprint(session.as_bytes()));
                answer
            }
            Err((status, code, reason)) => {
                let xml = format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>the sandbox does not take it</Message>\
                     </Error><RequestId>{}</RequestId></ErrorResponse>",
                    asked.request_id
                );
                Answer::text(status, "text/xml", xml).because(reason)
            }
        };
        answer.note.assertion = jwt::parse(token).map(|assertion| Seen::of(&assertion.claims));
        Ok(answer)
    })
}

/// Checks what is asked; gives the name of the action.
fn assume(sandbox: &Sandbox, asked: &Asked, form: &BTreeMap<String, String>) -> Result<&'static str, Refused> {
    let field = |name: &str| form.get(name).map(String::as_str);
    if field("Version") != Some("2011-06-15") {
        return Err((400, "ValidationError", "version"));
    }
    let action = match field("Action") {
        Some("AssumeRole") if field("WebIdentityToken").is_none() => {
            signer(sandbox, asked, "sts").map_err(|reason| match reason {
                "keys_over" => (403, "ExpiredToken", reason),
                "unknown_key" | "session" | "session_missing" => (403, "InvalidClientTokenId", reason),
                _ => (403, "SignatureDoesNotMatch", reason),
            })?;
            "AssumeRole"
        }
        Some("AssumeRoleWithWebIdentity") if field("ExternalId").is_none() => {
            if asked.headers.contains_key("authorization") || asked.headers.contains_key("x-amz-date") {
                return Err((400, "ValidationError", "signed"));
            }
            let token = field("WebIdentityToken").ok_or((400, "ValidationError", "field_missing"))?;
            vouched(sandbox, token).map_err(|reason| match reason {
                "expired" => (400, "ExpiredTokenException", reason),
                _ => (400, "InvalidIdentityToken", reason),
            })?;
            "AssumeRoleWithWebIdentity"
        }
        _ => return Err((400, "InvalidAction", "action")),
    };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    let session = field("RoleSessionName").unwrap_or_default();
    if !(2..=64).contains(&session.len()) || !session.bytes().all(is_word) {
        return Err((400, "ValidationError", "session_name"));
    }
    let seconds = field("DurationSeconds").map(str::parse);
    if !seconds.is_none_or(|seconds| seconds.is_ok_and(|s: u32| (900..=43_200).contains(&s))) {
        return Err((400, "ValidationError", "duration"));
    }
    let arn = field("RoleArn").unwrap_or_default();
    let role = arn.strip_prefix("arn:aws:iam::").and_then(|rest| rest.strip_prefix(ACCOUNT)?.strip_prefix(":role/"));
    match role {
        Some(role) if role.starts_with("sandbox-external") && field("ExternalId") != Some(EXTERNAL_ID) => {
            Err((403, "AccessDenied", "external_id"))
        }
        Some(role) if role.starts_with("sandbox") => Ok(action),
        _ => Err((403, "AccessDenied", "role")),
    }
}

/// Keys: id, secret, session and the end of their life. Those whose answer will be spoilt are not known to anybody.
fn mint(sandbox: &Sandbox, kept: bool) -> Result<(String, String, String, jiff::Timestamp), String> {
    let mut state = sandbox.state();
    let life_s = state.rule.life_s;
    let keys = state.mint_aws(if kept { life_s } else { 0 })?;
    state.counts.aws_keys += u64::from(kept);
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(life_s.cast_signed());
    Ok((keys.id, keys.secret, keys.session, ends))
}

/// Answers one request at the portal.
pub(crate) fn portal(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    struck(sandbox, asked, At::Aws, &sandbox.sso_token, |kept| {
        let refused =
            |status, name, reason| Ok(Answer::aws_error(status, name, "the sandbox does not take it", reason));
        if asked.method != Method::GET {
            return refused(405, "InvalidRequestException", "method");
        }
        if asked.header("x-amz-sso_bearer_token") != Some(&sandbox.sso_token) {
            return refused(401, "UnauthorizedException", "sso_token");
        }
        let mut query: Vec<_> = form_urlencoded::parse(asked.query.as_bytes()).collect();
        query.sort();
        let is_known = matches!(&query[..], [account, role] if account.0 == "account_id" && account.1 == ACCOUNT
            && role.0 == "role_name" && role.1.starts_with("sandbox"));
        if !is_known {
            return refused(403, "ForbiddenException", "role");
        }
        let (id, secret, session, ends) = mint(sandbox, kept)?;
        let mut answer = Answer::json(
            200,
            &json!({"roleCredentials": {
                "accessKeyId": id,
                "secretAccessKey": secret,
                "sessionToken": session,
                "expiration": ends.as_millisecond(),
            }}),
        );
        answer.note.token = Some(fingerprint(session.as_bytes()));
        Ok(answer)
    })
}

/// The shared files of AWS that lead to keys of this sandbox, and the file of a login: names and contents.
pub(crate) fn shared_files(
    keys: (&str, &str, &str),
    sso_token: &str,
    identity_token: &str,
) -> [(&'static str, String); 3] {
    let (id, secret, session) = keys;
    let role = |name: &str| format!("role_arn = arn:aws:iam::{ACCOUNT}:role/{name}\n");
    let config = format!(
        "[default]\nregion = {REGION}\n\
         [profile role]\nregion = {REGION}\n{}source_profile = chained\n\
         [profile chained]\n{}source_profile = keys\nexternal_id = {EXTERNAL_ID}\n\
         [profile web]\nregion = {REGION}\n{}web_identity_token_file = {identity_token}\n\
         [profile login]\nregion = {REGION}\nsso_session = sandbox\nsso_account_id = {ACCOUNT}\nsso_role_name = sandbox-login\n\
         [sso-session sandbox]\nsso_region = {REGION}\nsso_start_url = https://sandbox.awsapps.com/start\n",
        role("sandbox-top"),
        role("sandbox-external-mid"),
        role("sandbox-web"),
    );
    let credentials =
        format!("[keys]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {session}\n");
    let login = json!({"accessToken": sso_token, "expiresAt": "2999-01-01T00:00:00Z", "region": REGION});
    [(CONFIG_FILE, config), (SHARED_FILE, credentials), (LOGIN_FILE, login.to_string())]
}

/// The shared config file.
pub(crate) const CONFIG_FILE: &str = "aws-config";

/// The shared credentials file.
pub(crate) const SHARED_FILE: &str = "aws-shared-credentials";

/// The file of the login: SHA-1 of `sandbox`, which is the name of its session.
pub(crate) const LOGIN_FILE: &str = "9ed037b84943c4caa3a520e48a5540181c46c98c.json";
