//! Credentials of Google that others vouch for: workload identity federation (`external_account`, AIP-4117; RFC 8693 at the
//! security token service) and impersonation of a service account (`generateAccessToken` of the IAM Credentials API).
//!
//! The subject token comes from a file or a URL that the credentials name, at each exchange anew. Never starts a program, never
//! signs for AWS, and never shows a subject token. Called by the issuers of Google.

use super::{SCOPE, look_at, member, scope, wrong};
use crate::answer::{Granted, quotes};
use crate::http::{self, check_metadata_url};
use crate::oauth::{self, not_a_credential, troubled};
use crate::{json, own_file};
use bytes::Bytes;
use jiff::Timestamp;
use keyward_core::{Credential, IssueError, Order, check_url};
use keyward_diag::plain;
use keyward_secret::{SecretBytes, SecretText};
use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Life of an impersonation in seconds where the file says none, and the longest that Google gives.
const LIFE_S: u32 = 3600;
const LIFE_MAX_S: u32 = 43_200;

/// What an `external_account` says.
#[derive(serde::Deserialize)]
pub(super) struct Account {
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<Source>,
    workforce_pool_user_project: Option<String>,
}

/// Where the subject token is.
#[derive(serde::Deserialize)]
struct Source {
    file: Option<String>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    format: Option<Format>,
    executable: Option<Value>,
    environment_id: Option<Value>,
    certificate: Option<Value>,
}

#[derive(serde::Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// What the files of both kinds say about a service account.
#[derive(serde::Deserialize)]
pub(super) struct Impersonation {
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<Lifetime>,
    delegates: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Lifetime {
    token_lifetime_seconds: Option<u32>,
}

impl Impersonation {
    /// Whether a service account is named.
    pub(super) fn is_there(&self) -> bool {
        self.service_account_impersonation_url.is_some()
    }

    /// Exchanges a token for one of the service account.
    ///
    /// # Errors
    /// Those of the exchange.
    pub(super) async fn token(&self, order: &Order, from: Credential, place: &str) -> Result<Credential, IssueError> {
        let url = member(self.service_account_impersonation_url.as_ref(), "service_account_impersonation_url", place)?;
        let url =
            check_url(url).map_err(|e| wrong(format!("the `service_account_impersonation_url` in {place}: {e}")))?;
        let seconds = self.service_account_impersonation.as_ref().and_then(|life| life.token_lifetime_seconds);
        let seconds = seconds.unwrap_or(LIFE_S);
        if !(1..=LIFE_MAX_S).contains(&seconds) {
            return Err(wrong(format!("the `token_lifetime_seconds` in {place} is not 1 to {LIFE_MAX_S}")));
        }
        let body = serde_json::json!({
            "delegates": self.delegates.as_deref().unwrap_or_default(),
            "scope": scope(order).split(' ').collect::<Vec<_>>(),
            "lifetime": format!("{seconds}s"),
        });
        // EXPOSE: it goes to the API of Google that the file names.
        let value = from.token.expose(bearer).ok_or_else(|| not_a_credential("the token is odd"))?;
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
            (header::AUTHORIZATION, value),
        ]);
        let body = Zeroizing::new(body.to_string().into_bytes());
        let answer = http::post(&url, headers, body, oauth::deadline(&order.profile.settings)).await;
        let answer = answer.map_err(|trouble| troubled(&trouble))?;
        let host = oauth::host(&url);
        let read = answer.body.as_ref().map_err(troubled)?;
        if answer.status != 200 {
            // EXPOSE: a message that quotes the token is not shown.
            let said = from.token.expose(|token| said(read, token));
            let look_at = "look at the role `Service Account Token Creator`, and whether the account is there";
            return Err(oauth::refused(&host, &answer, &said, Some(look_at)));
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Given {
            access_token: Option<SecretText>,
            expire_time: Option<String>,
        }
        let odd = |what: &str| not_a_credential(format!("the answer of {host} {what}"));
        let given: Given = json::object(read).map_err(|what| odd(&format!("is {what}")))?;
        let token = given.access_token.ok_or_else(|| odd("holds no `accessToken`"))?.into_bytes();
        // EXPOSE: what cannot stand in a header is no token.
        if !token.expose(|token| token.iter().all(u8::is_ascii_graphic)) {
            return Err(odd("holds an `accessToken` with something that is not visible ASCII"));
        }
        let ends = given.expire_time.and_then(|at| at.parse::<Timestamp>().ok());
        let left = ends.and_then(|at| u64::try_from(at.duration_since(Timestamp::now()).as_secs()).ok());
        let life = left.filter(|s| *s > 0).ok_or_else(|| odd("holds a token that is over, or no `expireTime`"))?;
        let mut facts = BTreeMap::new();
        let account = url.path().rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
        facts.insert("service_account", plain(account, 100));
        Ok(Credential { token, life: Some(Duration::from_secs(life)), scope: None, facts })
    }
}

fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let text = Zeroizing::new([b"Bearer ", token].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The message of an API of Google (cloud.google.com/apis/design/errors), where it quotes nothing.
fn said(body: &[u8], sent: &[u8]) -> String {
    let object: Option<Value> = json::object(body).ok();
    let error = object.as_ref().and_then(|body| body.get("error"));
    let text = |name: &str| json::text(error.and_then(|error| error.get(name))).filter(|text| !quotes(text, &[sent]));
    match (text("status"), text("message")) {
        (Some(status), Some(message)) => format!("{}: {}", plain(status, 64), plain(message, 300)),
        (Some(one), None) | (None, Some(one)) => plain(one, 300),
        (None, None) => "(without a reason)".to_owned(),
    }
}

/// Exchanges the subject token of an `external_account` at the service that it names.
///
/// # Errors
/// Those of the exchange.
pub(super) async fn federated(
    order: &Order,
    account: &Account,
    impersonation: &Impersonation,
    place: &str,
) -> Result<Credential, IssueError> {
    let url = member(account.token_url.as_ref(), "token_url", place)?;
    let url = check_url(url).map_err(|e| wrong(format!("the `token_url` in {place}: {e}")))?;
    let audience = member(account.audience.as_ref(), "audience", place)?;
    let kind = member(account.subject_token_type.as_ref(), "subject_token_type", place)?;
    let source = member(account.credential_source.as_ref(), "credential_source", place)?;
    let subject = subject(order, source, place).await?;
    // The scope of the profile is asked for at the last step.
    let scope = if impersonation.is_there() { SCOPE } else { scope(order) };
    let options = account.workforce_pool_user_project.as_ref().map(|project| {
        let json = serde_json::json!({"userProject": project}).to_string();
        form_urlencoded::byte_serialize(json.as_bytes()).collect::<String>()
    });
    // EXPOSE: it goes to the token endpoint that the credentials name.
    let form = subject.expose(|subject| {
        let subject = std::str::from_utf8(subject).unwrap_or_default();
        let mut pairs = vec![
            ("grant_type", GRANT),
            ("audience", audience.as_str()),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject),
            ("subject_token_type", kind.as_str()),
        ];
        pairs.extend(options.as_deref().map(|options| ("options", options)));
        oauth::form(&pairs)
    });
    let answer = oauth::post(&url, form, oauth::deadline(&order.profile.settings)).await?;
    // EXPOSE: an answer that quotes it is not shown.
    let mut credential = subject.expose(|subject| match answer.status {
        // RFC 8693 section 2.2.1 lets the life be left out; Google never does.
        200 => {
            let body = answer.body.as_ref().map_err(troubled)?;
            let odd = |what: String| not_a_credential(format!("the answer of {}: {what}", oauth::host(&url)));
            Granted::read(body).and_then(|granted| granted.credential(&[subject])).map_err(odd)
        }
        _ => oauth::read(&url, &answer, &[subject], look_at),
    })?;
    if impersonation.is_there() {
        credential = impersonation.token(order, credential, place).await?;
    }
    Ok(credential)
}

/// The subject token, read anew.
async fn subject(order: &Order, source: &Source, place: &str) -> Result<SecretBytes, IssueError> {
    let taken = [
        ("executable", source.executable.is_some()),
        ("environment_id", source.environment_id.is_some()),
        ("certificate", source.certificate.is_some()),
    ];
    if let Some((name, _)) = taken.iter().find(|(_, is_there)| *is_there) {
        return Err(wrong(format!(
            "the `credential_source` in {place} is of the kind `{name}`; it must be a file or a URL"
        )));
    }
    let from;
    let bytes = match (&source.file, &source.url) {
        (Some(file), None) => {
            if !file.starts_with('/') {
                return Err(wrong(format!("the file of the `credential_source` in {place} is no absolute path")));
            }
            from = plain(file, 200);
            let read = own_file::read(Path::new(file)).await?;
            read.ok_or_else(|| IssueError::passing(keyward_diag::Code::IssuerFailed, format!("{from} does not exist")))?
        }
        (None, Some(url)) => {
            let url = check_metadata_url(url)
                .map_err(|e| wrong(format!("the URL of the `credential_source` in {place}: {e}")))?;
            let mut headers = HeaderMap::new();
            for (name, value) in source.headers.iter().flatten() {
                let pair = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::from_str(value).ok());
                let (name, mut value) =
                    pair.ok_or_else(|| wrong(format!("the `credential_source` in {place} has a header that is none")))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            from = oauth::host(&url);
            let deadline = oauth::deadline(&order.profile.settings);
            let answer = http::ask(Method::GET, &url, headers, deadline).await.map_err(|t| troubled(&t))?;
            if answer.status != 200 {
                return Err(oauth::refused(&from, &answer, "without a subject token", None));
            }
            answer.body.map_err(|t| troubled(&t))?
        }
        _ => return Err(wrong(format!("the `credential_source` in {place} names not one file or URL"))),
    };
    let odd = |what: &str| not_a_credential(format!("the subject token of {from} {what}"));
    let format = source.format.as_ref();
    let token = match format.and_then(|format| format.kind.as_deref()).unwrap_or("text") {
        "text" => Zeroizing::new(bytes.trim_ascii().to_vec()),
        "json" => {
            let name = format.and_then(|format| format.subject_token_field_name.as_deref());
            let name = name.ok_or_else(|| wrong(format!("the `format` in {place} names no field")))?;
            let mut object: BTreeMap<String, Value> =
                json::object(&bytes).map_err(|what| odd(&format!("is {what}")))?;
            match object.remove(name) {
                Some(Value::String(token)) => Zeroizing::new(token.into_bytes()),
                _ => return Err(odd("is not in the field that the `format` names")),
            }
        }
        _ => return Err(wrong(format!("the `format` in {place} is neither text nor json"))),
    };
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(odd("is empty, or holds something that is not visible ASCII"));
    }
    SecretBytes::new(token.to_vec()).map_err(|e| odd(&format!("cannot be kept: {e}")))
}
