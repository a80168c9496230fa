//! `aws-credentials`: base credentials of AWS, from where the SDKs look for them.
//!
//! The credential is a JSON document with `AccessKeyId`, `SecretAccessKey` and, if there is one, `SessionToken`, by which
//! requests are signed. Sources in the order of the SDKs ("Credential provider chain" of the AWS SDKs and Tools Reference
//! Guide): stored secrets, which stand in the place of variables; a profile of the shared files, with its role, its identity
//! token, its login, its keys or its `credential_process`; the endpoint of a container; and the metadata service of an
//! instance in version 2. Variables are not among them: the broker is started without them, so that which keys are used does
//! not hang on the shell that started it. Never falls back to version 1 of the metadata service, and never goes on to the
//! next source where one is there and fails.

mod files;
mod login;
mod role;

use crate::http::{self, Answer, check_metadata_url};
use crate::oauth::{self, TIMEOUT_FIELD, invalid, not_a_credential, troubled};
use crate::program::{self, Program};
use crate::{field, json, own_file, secret_field};
use bytes::Bytes;
use files::{Entry, Files};
use jiff::Timestamp;
use keyward_core::{
    Beside, Credential, IssueError, Issuer, Issuing, KindRole, KindSpec, Order, Settings, Shape, Usual,
};
use keyward_diag::Code;
use keyward_secret::{SecretBytes, SecretText};
use login::Login;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use role::{Base, Role, Sts};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Issuer `aws-credentials`.
pub(crate) struct Aws;

const SECRETS: &str = "secrets";
const PROFILE: &str = "profile";
const CONTAINER: &str = "container";
const INSTANCE: &str = "instance";

const INSTANCE_URL: &str = "http://169.254.169.254";

/// Where the SDKs go when nothing names a region.
const REGION: &str = "us-east-1";

/// How long a machine without a metadata service is waited for.
const NEAR: Duration = Duration::from_secs(5);

/// Keys of a session that stand in a file end at a time which the file does not tell; they are read again after this.
const UNTOLD: Duration = Duration::from_secs(15 * 60);

static SPEC: KindSpec = KindSpec {
    kind: "aws-credentials",
    role: KindRole::Issuer,
    about: "access keys of AWS: stored ones, or those that the SDKs find on this machine",
    fields: &[
        field(
            "source",
            Shape::OneOf(&[SECRETS, PROFILE, CONTAINER, INSTANCE]),
            false,
            "where the keys are; left out, the first of them that is there",
        ),
        secret_field("access_key_id", false, "access key, as \"secret:NAME\""),
        secret_field("secret_access_key", false, "secret of the access key, as \"secret:NAME\""),
        secret_field("session_token", false, "session of the access key, as \"secret:NAME\""),
        field("profile", Shape::Text, false, "profile of the shared files, default when left out"),
        field("config_file", Shape::Path, false, "shared config file, ~/.aws/config when left out"),
        field("credentials_file", Shape::Path, false, "shared credentials file, ~/.aws/credentials when left out"),
        field("container_url", Shape::Text, false, "what AWS_CONTAINER_CREDENTIALS_FULL_URI says in the container"),
        field("container_token_file", Shape::Path, false, "what AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names there"),
        field("instance_url", Shape::Text, false, "metadata service, http://169.254.169.254 when left out"),
        field("sts_url", Shape::Url, false, "STS, for roles; that of the region when left out"),
        field("sso_url", Shape::Url, false, "portal of IAM Identity Center, that of its region when left out"),
        field(
            "sso_cache",
            Shape::Path,
            false,
            "where `aws sso login` leaves its tokens, ~/.aws/sso/cache when left out",
        ),
        field(
            "region",
            Shape::Text,
            false,
            "region; left out, that of the shared profile is written here, else us-east-1",
        ),
        field("base_url", Shape::Url, false, "the API, that of the region when left out"),
        TIMEOUT_FIELD,
    ],
    usual: Usual { variables: &[], sdk_files: false, endpoint: None, provider: Some("bedrock") },
};

impl Issuer for Aws {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(find(order))
    }

    /// The region of the shared profile.
    fn beside<'a>(&'a self, order: &'a Order) -> Beside<'a> {
        Box::pin(async move {
            let settings = &order.profile.settings;
            let files = read_files(settings).await.ok();
            let region = files.as_ref().and_then(|files| files.entry(shared_profile(settings))?.region());
            let region = region.filter(|region| region_name(region).is_ok());
            region.map(|region| ("region", region.to_owned())).into_iter().collect()
        })
    }
}

/// The error of a profile of the shared files: what is wrong with it, which goes on after its name, and what to do.
type Refused<'r> = &'r (dyn Fn(&str, &str) -> IssueError + Sync);

/// Keys as AWS and programs write them. Fields that are not known are passed over.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    version: Option<u32>,
    code: Option<String>,
    access_key_id: Option<SecretText>,
    secret_access_key: Option<SecretText>,
    /// Of programs.
    session_token: Option<SecretText>,
    /// Of metadata services.
    token: Option<SecretText>,
    expiration: Option<String>,
}

async fn find(order: &Order) -> Result<Credential, IssueError> {
    let settings = &order.profile.settings;
    let deadline = oauth::deadline(settings);
    let stored = ["access_key_id", "secret_access_key", "session_token"].map(|name| (name, settings.secret(name)));
    let named = settings.text("source");
    if let (Some((name, _)), Some(source)) =
        (stored.iter().find(|(_, secret)| secret.is_some()), named.filter(|source| *source != SECRETS))
    {
        return Err(invalid(format!(
            "`issuer.{name}` and `issuer.source = \"{source}\"` are two sources: take one away"
        )));
    }
    if named == Some(SECRETS) || stored.iter().any(|(_, secret)| secret.is_some()) {
        let mut missing = stored.iter().take(2).filter(|(_, secret)| secret.is_none());
        return match missing.next() {
            Some((name, _)) => Err(invalid(format!("`issuer.{name}` is missing"))),
            None => secrets(order),
        };
    }
    let files = if matches!(named, None | Some(PROFILE)) { read_files(settings).await? } else { Files::default() };
    let wanted = shared_profile(settings);
    let entry = files.entry(wanted);
    let region = region_name(role::region(settings, entry.as_ref()))?;
    let mut credential = match (named, &entry) {
        (Some(CONTAINER), _) => container(settings, deadline).await,
        (Some(INSTANCE), _) => instance(settings, deadline).await,
        (_, Some(_)) => {
            let sts = Sts::of(settings, region, order.profile.name.as_str(), deadline)?;
            profile(order, &files, wanted, &sts, deadline).await
        }
        (None, None) if settings.text("profile").is_none() => match settings.text("container_url") {
            Some(_) => container(settings, deadline).await,
            None => instance(settings, deadline).await.map_err(nowhere),
        },
        _ => Err(invalid(format!("the shared files of AWS have no profile `{}`", keyward_diag::plain(wanted, 64)))),
    }?;
    credential.facts.insert("region", region.to_owned());
    Ok(credential)
}

/// The profile of the shared files that is looked at.
fn shared_profile(settings: &Settings) -> &str {
    settings.text("profile").unwrap_or("default")
}

/// A region becomes a part of a host name.
fn region_name(region: &str) -> Result<&str, IssueError> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=32).contains(&region.len()) && region.bytes().all(is_name) {
        Ok(region)
    } else {
        Err(invalid("the region is not one such as `us-east-1`"))
    }
}

fn nowhere(mut error: IssueError) -> IssueError {
    error.fault =
        error.fault.cause("no secrets are named, the shared files have no profile `default`, no container is named");
    error.fault = error
        .fault
        .help("name `source` and its fields in the profile, or store the keys with `keyward secret set NAME`");
    error
}

/// The document of the keys, with the life that they have left.
fn credential(
    id: &SecretText,
    secret: &SecretText,
    session: Option<&SecretText>,
    life: Option<Duration>,
) -> Result<Credential, IssueError> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document<'a> {
        access_key_id: &'a str,
        secret_access_key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_token: Option<&'a str>,
    }
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let write = |id: &str, secret: &str, session: Option<&str>| {
        if ![Some(id), Some(secret), session].into_iter().flatten().all(is_plain) {
            return Err("they hold something that is not visible ASCII".to_owned());
        }
        let document = Document { access_key_id: id, secret_access_key: secret, session_token: session };
        let bytes = serde_json::to_vec(&document).map_err(|_| "they could not be written".to_owned())?;
        SecretBytes::new(bytes).map_err(|e| e.to_string())
    };
    // EXPOSE: the three become one secret.
    let token = id.expose(|id| {
        secret.expose(|secret| match session {
            Some(session) => session.expose(|session| write(id, secret, Some(session))),
            None => write(id, secret, None),
        })
    });
    let token = token.map_err(|e| not_a_credential(format!("the keys: {e}")))?;
    Ok(Credential { token, life, scope: None, facts: BTreeMap::new() })
}

fn secrets(order: &Order) -> Result<Credential, IssueError> {
    let settings = &order.profile.settings;
    let text = |name: &str| {
        let Some(reference) = settings.secret(name) else { return Ok(None) };
        let bytes = program::secret(&order.secrets, &reference)?;
        // EXPOSE: a line end that `echo` added is no part of a key.
        let trimmed = bytes.expose(|bytes| SecretBytes::new(bytes.trim_ascii().to_vec()));
        let text = trimmed.and_then(SecretText::from_bytes);
        text.map(Some).map_err(|e| IssueError::refused(Code::SecretInvalid, format!("`{}`: {e}", reference.0)))
    };
    let missing = |name: &str| invalid(format!("`issuer.{name}` is missing"));
    let id = text("access_key_id")?.ok_or_else(|| missing("access_key_id"))?;
    let secret = text("secret_access_key")?.ok_or_else(|| missing("secret_access_key"))?;
    let mut credential = credential(&id, &secret, text("session_token")?.as_ref(), None)?;
    credential.facts.insert("region", region_name(role::region(settings, None))?.to_owned());
    Ok(credential)
}

async fn read_files(settings: &Settings) -> Result<Files, IssueError> {
    let path = |field: &str, usual: &str| match settings.text(field) {
        Some(path) => Ok(PathBuf::from(path)),
        None => own_file::in_home(usual),
    };
    let config = own_file::read(&path("config_file", ".aws/config")?).await?;
    let credentials = own_file::read(&path("credentials_file", ".aws/credentials")?).await?;
    Files::read(config.as_deref().map(Vec::as_slice), credentials.as_deref().map(Vec::as_slice))
        .map_err(|what| IssueError::refused(Code::IssuerFailed, what))
}

/// The keys to which a profile of the shared files leads: of its role, else its own.
async fn profile(
    order: &Order,
    files: &Files,
    name: &str,
    sts: &Sts,
    deadline: Instant,
) -> Result<Credential, IssueError> {
    let refused = |name: &str, what: &str, help: &str| {
        let shown = keyward_diag::plain(name, 64);
        let mut error = IssueError::refused(Code::IssuerFailed, format!("the profile `{shown}` {what}"));
        error.fault = error.fault.help(help);
        error
    };
    let (roles, base) = role::chain(files, name, refused)?;
    let settings = &order.profile.settings;
    let mut credential = match base {
        Base::Instance => instance(settings, deadline).await?,
        Base::Container => container(settings, deadline).await?,
        Base::Profile(name, entry) => {
            own(order, files, &entry, sts, deadline, &|what, help| refused(name, what, help)).await?
        }
    };
    for role in roles.iter().rev() {
        credential = sts.assume(role, &credential.token).await?;
    }
    Ok(credential)
}

/// The keys of a profile itself: by its identity token, its login, its keys in the credentials file, its program, its keys in
/// the config file.
async fn own(
    order: &Order,
    files: &Files,
    entry: &Entry<'_>,
    sts: &Sts,
    deadline: Instant,
    refused: Refused<'_>,
) -> Result<Credential, IssueError> {
    if let Some(path) = entry.get("web_identity_token_file") {
        if !path.starts_with('/') {
            return Err(refused("has a `web_identity_token_file` that is no absolute path", "write the absolute path"));
        }
        let role = Role::of(entry, refused)?;
        let role = role.ok_or_else(|| refused("has a `web_identity_token_file` and no `role_arn`", "name the role"))?;
        return sts.assume_with(&role, path).await;
    }
    if entry.get("source_profile").is_some() && entry.get("role_arn").is_none() {
        return Err(refused(
            "has a `source_profile` and no `role_arn`, so that nothing is taken from there",
            "name the source profile itself",
        ));
    }
    if let Some(login) = Login::of(files, entry, refused)? {
        return login.keys(&order.profile.settings, deadline, refused).await;
    }
    if let Some(keys) = entry.credentials() {
        return stand(keys, refused);
    }
    if let Some(line) = entry.get("credential_process") {
        let argv = files::split(line)
            .ok_or_else(|| refused("has a `credential_process` with an open quote", "close the quote"))?;
        if !argv.first().is_some_and(|program| program.starts_with('/')) {
            return Err(refused(
                "has a `credential_process` that does not begin with an absolute path; nothing is looked up",
                "write the absolute path of the program into the shared config file",
            ));
        }
        let program = Program {
            argv: argv.iter().map(String::as_str).collect(),
            env: Vec::new(),
            timeout: order.profile.settings.duration("timeout"),
            failed: Code::IssuerFailed,
            late: Code::IssuerTimeout,
            long: Code::IssuerAnswer,
        };
        let output = program.run(&order.secrets).await?;
        return printed(&output);
    }
    match entry.config() {
        Some(keys) => stand(keys, refused),
        None => Err(refused("has neither keys nor a `credential_process`", "add them, or name another profile")),
    }
}

/// Keys that stand in a file.
fn stand(
    (id, secret, session): (&str, Option<&str>, Option<&str>),
    refused: Refused<'_>,
) -> Result<Credential, IssueError> {
    let half = || {
        refused("has an `aws_access_key_id` without `aws_secret_access_key`, or an empty one", "add what is missing")
    };
    let text = |text: &str| SecretText::new(text.to_owned()).map_err(|_| half());
    let session = session.filter(|session| !session.is_empty()).map(text).transpose()?;
    let life = session.as_ref().map(|_| UNTOLD);
    credential(&text(id)?, &text(secret.ok_or_else(half)?)?, session.as_ref(), life)
}

/// Reads what a `credential_process` prints.
fn printed(output: &[u8]) -> Result<Credential, IssueError> {
    let wrong = |cause: String| IssueError::passing(Code::IssuerAnswer, cause);
    let keys: Keys = json::object(output).map_err(|what| wrong(format!("the output of its process is {what}")))?;
    if keys.version != Some(1) {
        return Err(wrong("the output of its process has no `Version` 1".to_owned()));
    }
    taken(keys, "its process").map_err(wrong)
}

/// Keys as somebody gave them.
fn taken(keys: Keys, who: &str) -> Result<Credential, String> {
    let life = match &keys.expiration {
        None => None,
        Some(at) => {
            Some(left(at).ok_or_else(|| format!("the keys of {who} are over, or their `Expiration` is no time"))?)
        }
    };
    let missing = || format!("{who} gave no `AccessKeyId` or no `SecretAccessKey`");
    let session = keys.session_token.or(keys.token);
    let id = keys.access_key_id.ok_or_else(missing)?;
    let secret = keys.secret_access_key.ok_or_else(missing)?;
    credential(&id, &secret, session.as_ref(), life).map_err(|e| e.fault.causes.join("; "))
}

fn left(at: &str) -> Option<Duration> {
    let left = at.parse::<Timestamp>().ok()?.duration_since(Timestamp::now());
    u64::try_from(left.as_secs()).ok().filter(|s| *s > 0).map(Duration::from_secs)
}

/// Reads what a metadata service answers.
fn answered(answer: &Answer, who: &str) -> Result<Credential, IssueError> {
    if answer.status != 200 {
        return Err(oauth::refused(
            who,
            answer,
            "without keys",
            Some("look at the role of this machine, and at its token"),
        ));
    }
    let body = answer.body.as_ref().map_err(troubled)?;
    let keys: Keys = json::object(body).map_err(|what| not_a_credential(format!("the answer of {who} is {what}")))?;
    if keys.code.as_deref().is_some_and(|code| code != "Success") {
        return Err(not_a_credential(format!("{who} has no keys at the moment")));
    }
    if keys.expiration.is_none() {
        return Err(not_a_credential(format!("{who} gave no `Expiration`")));
    }
    taken(keys, who).map_err(not_a_credential)
}

fn sensitive(bytes: &[u8]) -> Option<HeaderValue> {
    let bytes = Bytes::from_owner(Zeroizing::new(bytes.to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The endpoint of a container ("Container credential provider" of the guide): the file of the token is read anew each time.
async fn container(settings: &Settings, deadline: Instant) -> Result<Credential, IssueError> {
    let url = settings.text("container_url").ok_or_else(|| invalid("`issuer.container_url` is missing"))?;
    let url = check_metadata_url(url).map_err(|e| invalid(format!("`issuer.container_url`: {e}")))?;
    let mut headers = HeaderMap::from_iter([(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"))]);
    if let Some(path) = settings.text("container_token_file") {
        let token = own_file::read(Path::new(path)).await?;
        let value = token.as_ref().filter(|token| !token.is_empty()).and_then(|token| sensitive(token.trim_ascii()));
        let value = value.ok_or_else(|| IssueError::passing(Code::IssuerFailed, format!("{path} holds no token")))?;
        headers.insert(reqwest::header::AUTHORIZATION, value);
    }
    let answer = http::ask(Method::GET, &url, headers, deadline).await.map_err(|trouble| troubled(&trouble))?;
    answered(&answer, "the container endpoint")
}

/// The metadata service of an instance, version 2 alone ("Use IMDS" of the guide of EC2).
async fn instance(settings: &Settings, deadline: Instant) -> Result<Credential, IssueError> {
    const WHO: &str = "the metadata service";
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let base = settings.text("instance_url").unwrap_or(INSTANCE_URL).trim_end_matches('/');
    let url = |path: &str| {
        check_metadata_url(&format!("{base}{path}")).map_err(|e| invalid(format!("`issuer.instance_url`: {e}")))
    };
    let deadline = deadline.min(Instant::now() + NEAR);
    let header = |name, value| HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
    let life = header("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static("300"));
    let asked = http::ask(Method::PUT, &url("/latest/api/token")?, life, deadline).await;
    let token = asked.map_err(|trouble| troubled(&trouble))?;
    let value = token.body.as_ref().ok().filter(|_| token.status == 200).and_then(|token| sensitive(token));
    let value =
        value.ok_or_else(|| not_a_credential(format!("{WHO} answers {} where it must give a token", token.status)))?;
    let get = async |path: &str| {
        let token = header("x-aws-ec2-metadata-token", value.clone());
        http::ask(Method::GET, &url(path)?, token, deadline).await.map_err(|trouble| troubled(&trouble))
    };
    let roles = get(ROLES).await?;
    let body = roles.body.as_ref().map_err(troubled)?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    let role = std::str::from_utf8(body).unwrap_or_default().lines().next().unwrap_or_default().trim();
    if roles.status != 200 || role.is_empty() || !role.bytes().all(is_name) {
        return Err(not_a_credential(format!("{WHO} answers {} and names no role", roles.status)));
    }
    answered(&get(&format!("{ROLES}{role}")).await?, WHO)
}

#[cfg(test)]
mod tests;
