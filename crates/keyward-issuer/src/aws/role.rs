//! Profiles that lead to a role, and STS, which gives the keys of one ("AssumeRole" and "AssumeRoleWithWebIdentity" of the AWS
//! Security Token Service API Reference, version 2011-06-15; "Assume role credential provider" of the guide).
//!
//! A role is assumed with the keys of its `source_profile` or `credential_source`, through as many profiles as there are, or
//! with the token in `web_identity_token_file`, for which nothing is signed. Never asks for a code of a device, and never sends
//! a token of an identity provider anywhere but to STS. Called by the issuer.

use super::files::{Entry, Files};
use super::{REGION, Refused, credential, left};
use crate::answer::quotes;
use crate::http::{self, Answer};
use crate::oauth::{self, invalid, not_a_credential, troubled};
use crate::own_file;
use jiff::Timestamp;
use keyward_core::{Credential, Failure, IssueError, Settings, check_url, sigv4};
use keyward_diag::{Code, plain};
use keyward_secret::{SecretBytes, SecretText};
use reqwest::header::{self, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use std::path::Path;
use tokio::time::Instant;
use url::Url;

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Most profiles from a role to its keys.
const ROLES_MAX: usize = 8;

/// The longest name of a session, in characters.
const SESSION_MAX: usize = 64;

/// The longest message of STS that is shown, in characters.
const MESSAGE_MAX: usize = 300;

/// Lives of sessions that STS gives, in seconds.
const LIVES_S: std::ops::RangeInclusive<u32> = 900..=43_200;

/// Where a chain of roles begins.
pub(super) enum Base<'f> {
    /// The keys, the process, the login or the token of this profile.
    Profile(&'f str, Entry<'f>),
    /// The metadata service of the instance.
    Instance,
    /// The endpoint of the container.
    Container,
}

/// A role to assume.
pub(super) struct Role<'f> {
    arn: &'f str,
    session: Option<&'f str>,
    external_id: Option<&'f str>,
    duration_s: Option<&'f str>,
}

impl<'f> Role<'f> {
    /// The role that a profile names, if it does.
    ///
    /// # Errors
    /// What is wrong with it, or cannot be done here.
    pub(super) fn of(entry: &Entry<'f>, refused: Refused<'_>) -> Result<Option<Self>, IssueError> {
        let Some(arn) = entry.get("role_arn") else { return Ok(None) };
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
        let is_arn =
            arn.starts_with("arn:") && arn.len() <= 2048 && arn.bytes().all(|b| is_word(b) || b":/".contains(&b));
        if !is_arn {
            return Err(refused("has a `role_arn` that is none", "write it as arn:aws:iam::ACCOUNT:role/NAME"));
        }
        if entry.get("mfa_serial").is_some() {
            return Err(refused(
                "wants a code of a device, for which nobody can be asked here",
                "name a profile without `mfa_serial`, or let a `credential_process` do it",
            ));
        }
        let session = entry.get("role_session_name");
        if session.is_some_and(|name| !(2..=SESSION_MAX).contains(&name.len()) || !name.bytes().all(is_word)) {
            return Err(refused("has a `role_session_name` that STS does not take", "use 2 to 64 letters and digits"));
        }
        let duration_s = entry.get("duration_seconds");
        if duration_s.is_some_and(|text| !text.parse().is_ok_and(|s: u32| LIVES_S.contains(&s))) {
            return Err(refused("has a `duration_seconds` that STS does not take", "use 900 to 43200"));
        }
        Ok(Some(Self { arn, session, external_id: entry.get("external_id"), duration_s }))
    }
}

/// Follows a profile to where its keys begin. The roles are to be assumed from the last one to the first.
///
/// # Errors
/// What is wrong with a profile on the way.
pub(super) fn chain<'f>(
    files: &'f Files,
    name: &'f str,
    refused: impl Fn(&str, &str, &str) -> IssueError + Sync,
) -> Result<(Vec<Role<'f>>, Base<'f>), IssueError> {
    let (mut roles, mut at) = (Vec::new(), name);
    loop {
        let refused = |what: &str, help: &str| refused(at, what, help);
        let entry = files.entry(at).ok_or_else(|| refused("is in none of the shared files of AWS", "add it there"))?;
        let has_keys = entry.credentials().or(entry.config()).is_some();
        // A token makes a role by itself; a profile that others lead to uses its own keys where it has some.
        let own = entry.get("web_identity_token_file").is_some() || has_keys && !roles.is_empty();
        let Some(role) = (if own { None } else { Role::of(&entry, &refused)? }) else {
            return Ok((roles, Base::Profile(at, entry)));
        };
        roles.push(role);
        if roles.len() > ROLES_MAX {
            return Err(refused(
                "leads through too many profiles, or to itself",
                "end the chain at a profile with keys",
            ));
        }
        at = match (entry.get("source_profile"), entry.get("credential_source")) {
            (Some(source), None) => source,
            (None, Some("Ec2InstanceMetadata")) => return Ok((roles, Base::Instance)),
            (None, Some("EcsContainer")) => return Ok((roles, Base::Container)),
            (None, Some("Environment")) => {
                return Err(refused(
                    "takes its keys from the variables of a shell, which the broker does not see",
                    "store the keys, and name them in a profile of Keyward",
                ));
            }
            (None, Some(_)) => return Err(refused("has an unknown `credential_source`", "name a `source_profile`")),
            (Some(_), Some(_)) => {
                return Err(refused("has a `source_profile` and a `credential_source`", "take one of the two away"));
            }
            (None, None) => {
                return Err(refused("has a `role_arn`, and nothing says with whose keys", "name a `source_profile`"));
            }
        };
    }
}

/// STS of a region.
pub(super) struct Sts {
    url: Url,
    region: String,
    session: String,
    deadline: Instant,
}

impl Sts {
    /// The one that the profile names, else that of the region. `name` is the profile's, for the log of AWS.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(super) fn of(settings: &Settings, region: &str, name: &str, deadline: Instant) -> Result<Self, IssueError> {
        let usual = || format!("https://sts.{region}.amazonaws.com/");
        let url = settings.text("sts_url").map_or_else(usual, str::to_owned);
        let url = check_url(&url).map_err(|e| invalid(format!("`issuer.sts_url`: {e}")))?;
        let session = format!("keyward-{name}").chars().take(SESSION_MAX).collect();
        Ok(Self { url, region: region.to_owned(), session, deadline })
    }

    /// Assumes a role with the document of other keys.
    ///
    /// # Errors
    /// Those of the exchange.
    pub(super) async fn assume(&self, role: &Role<'_>, keys: &SecretBytes) -> Result<Credential, IssueError> {
        let mut pairs = self.pairs("AssumeRole", role);
        pairs.extend(role.external_id.map(|id| ("ExternalId", id)));
        let body = oauth::form(&pairs);
        let mut headers = headers();
        let request = sigv4::Request {
            method: "POST",
            host: &http::authority(&self.url),
            path: self.url.path(),
            query: None,
            body: Sha256::digest(&*body).into(),
        };
        sigv4::sign(keys, ("sts", &self.region), &request, &mut headers, Timestamp::now())
            .map_err(|what| not_a_credential(format!("the keys for the role: {what}")))?;
        let answer = http::post(&self.url, headers, body, self.deadline).await.map_err(|t| troubled(&t))?;
        // EXPOSE: an answer that quotes them is not shown.
        keys.expose(|keys| self.read(role, &answer, keys))
    }

    /// Assumes a role with the token in the file that a profile names, read anew each time.
    ///
    /// # Errors
    /// Those of the exchange.
    pub(super) async fn assume_with(&self, role: &Role<'_>, path: &str) -> Result<Credential, IssueError> {
        let missing = || IssueError::passing(Code::IssuerFailed, format!("{} holds no token", plain(path, 200)));
        let bytes = own_file::read(Path::new(path)).await?.ok_or_else(missing)?;
        let token = std::str::from_utf8(&bytes).map_err(|_| missing())?.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(missing());
        }
        let mut pairs = self.pairs("AssumeRoleWithWebIdentity", role);
        pairs.push(("WebIdentityToken", token));
        let answer = http::post(&self.url, headers(), oauth::form(&pairs), self.deadline).await;
        self.read(role, &answer.map_err(|t| troubled(&t))?, token.as_bytes())
    }

    fn pairs<'p>(&'p self, action: &'p str, role: &Role<'p>) -> Vec<(&'p str, &'p str)> {
        let mut pairs = vec![
            ("Action", action),
            ("Version", "2011-06-15"),
            ("RoleArn", role.arn),
            ("RoleSessionName", role.session.unwrap_or(&self.session)),
        ];
        pairs.extend(role.duration_s.map(|seconds| ("DurationSeconds", seconds)));
        pairs
    }

    /// Reads the XML of an answer. `sent` is the secret of the request.
    fn read(&self, role: &Role<'_>, answer: &Answer, sent: &[u8]) -> Result<Credential, IssueError> {
        let host = oauth::host(&self.url);
        let body = answer.body.as_ref().map_err(troubled)?;
        let xml = std::str::from_utf8(body).unwrap_or_default();
        if answer.status != 200 {
            return Err(refusal(&host, answer, xml, sent));
        }
        let odd = |what: &str| not_a_credential(format!("the answer of {host} {what}"));
        let secret = |name: &str| {
            let text = element(xml, name).ok_or_else(|| odd(&format!("holds no `{name}`")))?;
            SecretText::new(text.to_owned()).map_err(|_| odd(&format!("holds an odd `{name}`")))
        };
        let (id, key) = (secret("AccessKeyId")?, secret("SecretAccessKey")?);
        let session = secret("SessionToken")?;
        let life = element(xml, "Expiration").and_then(left);
        let life = life.ok_or_else(|| odd("holds keys that are over, or no `Expiration`"))?;
        let mut credential = credential(&id, &key, Some(&session), Some(life))?;
        credential.facts.insert("role", plain(role.arn, 200));
        Ok(credential)
    }
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(FORM))])
}

/// The error of an answer other than 200: the name of it and its message, where that quotes nothing.
fn refusal(host: &str, answer: &Answer, xml: &str, sent: &[u8]) -> IssueError {
    let is_name = |code: &&str| (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    let code = element(xml, "Code").filter(is_name).unwrap_or_default();
    let message = element(xml, "Message").filter(|text| !quotes(text, &[sent])).unwrap_or_default();
    let said = match (code, message) {
        ("", _) => "(without a reason)".to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {}", plain(message, MESSAGE_MAX)),
    };
    let look_at = match code {
        "AccessDenied" => Some("look at the trust policy of the role, and at what the keys may do"),
        "ExpiredTokenException" | "ExpiredToken" => Some("what was presented is over: renew it at its source"),
        "InvalidIdentityToken" | "IDPRejectedClaim" => {
            Some("look at the identity provider that the account knows, and at its audience")
        }
        "RegionDisabledException" => Some("the account has STS of this region turned off: name another `region`"),
        "InvalidClientTokenId" | "SignatureDoesNotMatch" => Some("the keys for the role are wrong, or were taken back"),
        _ => None,
    };
    let mut error = oauth::refused(host, answer, &said, look_at);
    // What comes from elsewhere may be another one the next time, and some of these pass by themselves.
    let passes = matches!(
        code,
        "ExpiredTokenException" | "ExpiredToken" | "InvalidIdentityToken" | "IDPCommunicationError" | "Throttling"
    );
    if passes && error.failure == Failure::Refused {
        error.failure = Failure::Passing(None);
    }
    error
}

/// The text of an element that is there once and holds no markup.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (text, rest) = xml.split_once(&open)?.1.split_once(&close)?;
    (!text.contains(['<', '&']) && !rest.contains(&open)).then(|| text.trim()).filter(|text| !text.is_empty())
}

/// The region of STS and of the models: what the profile says, else the shared profile, else the one that the SDKs take.
pub(super) fn region<'r>(settings: &'r Settings, entry: Option<&Entry<'r>>) -> &'r str {
    settings.text("region").or(entry.and_then(Entry::region)).unwrap_or(REGION)
}
