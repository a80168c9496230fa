//! Keys of IAM Identity Center, by the login that the command line of AWS left ("IAM Identity Center credential provider" of
//! the guide; `GetRoleCredentials` of the portal's API, version 2019-06-10).
//!
//! The token is read from `~/.aws/sso/cache`, at each exchange anew. Never logs in, never refreshes the token, and never
//! writes there: that is done by `aws sso login`. Called by the issuer.

use super::files::{Entry, Files};
use super::{Refused, credential, sensitive};
use crate::http;
use crate::oauth::{self, invalid, not_a_credential, troubled};
use crate::{json, own_file};
use jiff::Timestamp;
use keyward_core::{Credential, IssueError, Settings, check_url};
use keyward_diag::Code;
use keyward_secret::SecretText;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// What the command line of AWS keeps of a login.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    access_token: Option<SecretText>,
    expires_at: Option<String>,
}

/// What the portal answers.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    role_credentials: Option<Keys>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    access_key_id: Option<SecretText>,
    secret_access_key: Option<SecretText>,
    session_token: Option<SecretText>,
    /// In milliseconds since 1970.
    expiration: Option<i64>,
}

/// Where a profile logs in.
pub(super) struct Login<'f> {
    /// What the file of the login is named after: the session, else the address of the portal.
    name: &'f str,
    region: &'f str,
    account: &'f str,
    role: &'f str,
}

impl<'f> Login<'f> {
    /// The login of a profile, if it has one.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn of(files: &'f Files, entry: &Entry<'f>, refused: Refused<'_>) -> Result<Option<Self>, IssueError> {
        let session = entry.get("sso_session");
        let Some(name) = session.or(entry.get("sso_start_url")) else { return Ok(None) };
        let region = match session {
            Some(session) => files.session(session, "sso_region"),
            None => entry.get("sso_region"),
        };
        let (account, role) = (entry.get("sso_account_id"), entry.get("sso_role_name"));
        let (Some(region), Some(account), Some(role)) = (region, account, role) else {
            let help = "run `aws configure sso`, which writes `sso_region`, `sso_account_id` and `sso_role_name`";
            return Err(refused("has a login of IAM Identity Center that is not complete", help));
        };
        Ok(Some(Self { name, region: super::region_name(region)?, account, role }))
    }

    /// Asks the portal for the keys of the role.
    ///
    /// # Errors
    /// Those of the exchange; a login that is over, with how to log in again.
    pub(super) async fn keys(
        &self,
        settings: &Settings,
        deadline: Instant,
        refused: Refused<'_>,
    ) -> Result<Credential, IssueError> {
        let over = || {
            let mut error =
                refused("has a login of IAM Identity Center that is over", "log in again with `aws sso login`");
            error.failure = keyward_core::Failure::Passing(None);
            error
        };
        let folder = match settings.text("sso_cache") {
            Some(folder) => PathBuf::from(folder),
            None => own_file::in_home(".aws/sso/cache")?,
        };
        let hash: String = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.name.as_bytes())
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let bytes = own_file::read(&folder.join(format!("{hash}.json"))).await?.ok_or_else(over)?;
        let kept: Kept = json::object(&bytes).map_err(|what| {
            IssueError::passing(Code::IssuerFailed, format!("the file of the login in {} is {what}", folder.display()))
        })?;
        let ends = kept.expires_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        let token = kept.access_token.filter(|_| ends.is_some_and(|ends| ends > Timestamp::now())).ok_or_else(over)?;

        let usual = || format!("https://portal.sso.{}.amazonaws.com", self.region);
        let base = settings.text("sso_url").map_or_else(usual, str::to_owned);
        let mut url = check_url(&format!("{}/federation/credentials", base.trim_end_matches('/')))
            .map_err(|e| invalid(format!("`issuer.sso_url`: {e}")))?;
        url.query_pairs_mut().append_pair("role_name", self.role).append_pair("account_id", self.account);
        // EXPOSE: it goes to the portal, which gave it.
        let value = token.expose(|token| sensitive(token.as_bytes())).ok_or_else(over)?;
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-amz-sso_bearer_token"), value)]);
        let answer = http::ask(Method::GET, &url, headers, deadline).await.map_err(|trouble| troubled(&trouble))?;
        match answer.status {
            200 => {}
            401 => return Err(over()),
            _ => {
                let look_at = Some("look at `sso_account_id` and `sso_role_name`: the login may not have that role");
                return Err(oauth::refused(&oauth::host(&url), &answer, "without keys", look_at));
            }
        }
        let body = answer.body.as_ref().map_err(troubled)?;
        let odd = |what: &str| not_a_credential(format!("the answer of {} {what}", oauth::host(&url)));
        let answered: Answered = json::object(body).map_err(|what| odd(&format!("is {what}")))?;
        let keys = answered.role_credentials.ok_or_else(|| odd("holds no `roleCredentials`"))?;
        let (Some(id), Some(secret), Some(session)) = (keys.access_key_id, keys.secret_access_key, keys.session_token)
        else {
            return Err(odd("holds no whole keys"));
        };
        let left = keys.expiration.map(|at| at.saturating_sub(Timestamp::now().as_millisecond()));
        let left = left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left >= 1000);
        let life = left.map(Duration::from_millis).ok_or_else(|| odd("holds keys that are over"))?;
        credential(&id, &secret, Some(&session), Some(life))
    }
}
