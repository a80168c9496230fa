//! `google-service-account`, `google-authorized-user`, `google-adc`: OAuth 2.0 access tokens of Google.
//!
//! A service account signs an assertion with its key and exchanges it (RFC 7523 section 2.1, RS256; "Using OAuth 2.0 for
//! Server to Server Applications" of developers.google.com). An authorized user exchanges the refresh token that `gcloud auth
//! application-default login` left. Application Default Credentials are looked for as Google's libraries do: the file that
//! the profile names in place of `GOOGLE_APPLICATION_CREDENTIALS`, the well-known file of gcloud, the metadata server; a file
//! may also be of workload identity federation, or of an impersonation. The project is that of the profile, else of the
//! credentials, else of gcloud's active configuration. Never keeps a key and never sends one anywhere: what leaves is an
//! assertion of an hour, the refresh token or the subject token, to the token endpoint alone.

mod outside;

use crate::answer::Refusal;
use crate::http::{self, check_metadata_url};
use crate::oauth::{self, REVOCATION_FIELD, TIMEOUT_FIELD, invalid};
use crate::{field, json, own_file, program, secret_field};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use keyward_core::{
    Beside, Credential, FieldSpec, IssueError, Issuer, Issuing, KindRole, KindSpec, Order, Revoking, Shape, Usual,
    check_url,
};
use keyward_diag::{Code, plain};
use keyward_secret::SecretText;
use outside::{Account, Impersonation};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// Issuer `google-service-account`.
pub(crate) struct ServiceAccount;

/// Issuer `google-authorized-user`.
pub(crate) struct AuthorizedUser;

/// Issuer `google-adc`.
pub(crate) struct Adc;

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const METADATA: &str = "http://169.254.169.254";

/// Below the home folder.
const GCLOUD: &str = ".config/gcloud";

/// In the folder of gcloud.
const WELL_KNOWN: &str = "application_default_credentials.json";

/// Life of an assertion: the longest that Google takes.
const ASSERTION_S: i64 = 3600;

const PROJECT: FieldSpec =
    field("project", Shape::Text, false, "the project whose models are called, that of the credentials when left out");
const REGION: FieldSpec = field("region", Shape::Text, true, "where the models run: global, us, eu or a region");
const BASE_URL: FieldSpec = field("base_url", Shape::Url, false, "the API, that of the region when left out");
const SCOPE_FIELD: FieldSpec =
    field("scope", Shape::Text, false, "scope that is asked for, cloud-platform when left out");
const USUAL: Usual =
    Usual { variables: &["CLOUDSDK_AUTH_ACCESS_TOKEN"], sdk_files: false, endpoint: None, provider: Some("vertex") };

static SERVICE_ACCOUNT: KindSpec = KindSpec {
    kind: "google-service-account",
    role: KindRole::Issuer,
    about: "the key of a Google service account, exchanged for access tokens of an hour",
    fields: &[
        secret_field("key", true, "the JSON key of the service account, as \"secret:NAME\""),
        REGION,
        PROJECT,
        BASE_URL,
        SCOPE_FIELD,
        TIMEOUT_FIELD,
    ],
    usual: USUAL,
};

static AUTHORIZED_USER: KindSpec = KindSpec {
    kind: "google-authorized-user",
    role: KindRole::Issuer,
    about: "the refresh token of a Google login, exchanged for access tokens of an hour",
    fields: &[
        secret_field("credentials", true, "the JSON that gcloud wrote at the login, as \"secret:NAME\""),
        REGION,
        PROJECT,
        BASE_URL,
        field("token_url", Shape::Url, false, "token endpoint, that of Google when left out"),
        SCOPE_FIELD,
        REVOCATION_FIELD,
        TIMEOUT_FIELD,
    ],
    usual: USUAL,
};

static ADC: KindSpec = KindSpec {
    kind: "google-adc",
    role: KindRole::Issuer,
    about: "Application Default Credentials of Google: a file, the login of gcloud, or the metadata server",
    fields: &[
        REGION,
        PROJECT,
        BASE_URL,
        field(
            "credentials_file",
            Shape::Path,
            false,
            "what GOOGLE_APPLICATION_CREDENTIALS names; that variable of a shell is not seen",
        ),
        field("gcloud_folder", Shape::Path, false, "what CLOUDSDK_CONFIG names, ~/.config/gcloud when left out"),
        field("metadata_url", Shape::Text, false, "the metadata server, http://169.254.169.254 when left out"),
        SCOPE_FIELD,
        TIMEOUT_FIELD,
    ],
    usual: USUAL,
};

impl Issuer for ServiceAccount {
    fn spec(&self) -> &'static KindSpec {
        &SERVICE_ACCOUNT
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(stored(order, "key", "service_account"))
    }

    fn beside<'a>(&'a self, order: &'a Order) -> Beside<'a> {
        Box::pin(project_beside(order, opened(order, "key").ok().map(|(file, _)| file)))
    }
}

impl Issuer for AuthorizedUser {
    fn spec(&self) -> &'static KindSpec {
        &AUTHORIZED_USER
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(stored(order, "credentials", "authorized_user"))
    }

    fn beside<'a>(&'a self, order: &'a Order) -> Beside<'a> {
        Box::pin(project_beside(order, opened(order, "credentials").ok().map(|(file, _)| file)))
    }

    /// At Google itself this ends the refresh token too, so that it is done only where the profile names the endpoint.
    fn revoke<'a>(&'a self, order: &'a Order, credential: &'a Credential) -> Revoking<'a> {
        Box::pin(oauth::revoke(order, credential, &[]))
    }
}

impl Issuer for Adc {
    fn spec(&self) -> &'static KindSpec {
        &ADC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(adc(order))
    }

    fn beside<'a>(&'a self, order: &'a Order) -> Beside<'a> {
        Box::pin(async move {
            let found = found(order).await.ok().flatten();
            project_beside(order, found.map(|(file, _)| file)).await
        })
    }
}

/// A file of credentials, of which each kind has some members.
#[derive(serde::Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<SecretText>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    project_id: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretText>,
    refresh_token: Option<SecretText>,
    quota_project_id: Option<String>,
    source_credentials: Option<Box<File>>,
    #[serde(flatten)]
    account: Account,
    #[serde(flatten)]
    impersonation: Impersonation,
}

/// Credentials from a stored secret, which must be of one kind.
async fn stored(order: &Order, name: &str, kind: &str) -> Result<Credential, IssueError> {
    let (file, place) = opened(order, name)?;
    match file.kind.as_deref() {
        Some(found) if found == kind => {}
        _ => return Err(wrong(format!("{place} is not of `type` `{kind}`"))),
    }
    exchange(order, file, &place).await
}

/// What a stored secret holds, and how it is called in errors.
fn opened(order: &Order, name: &str) -> Result<(File, String), IssueError> {
    let reference =
        order.profile.settings.secret(name).ok_or_else(|| invalid(format!("`issuer.{name}` names no secret")))?;
    let secret = program::secret(&order.secrets, &reference)?;
    let place = format!("the secret `{}`", reference.0);
    // EXPOSE: the issuer reads the credentials that the profile refers to.
    let file = secret.expose(|bytes| file(bytes, &place))?;
    Ok((file, place))
}

fn file(bytes: &[u8], place: &str) -> Result<File, IssueError> {
    json::object(bytes).map_err(|what| wrong(format!("{place} is {what}, where the JSON of Google must be")))
}

/// What was stored, or lies in a file, is not what it must be.
fn wrong(cause: String) -> IssueError {
    let mut error = IssueError::refused(Code::IssuerFailed, cause);
    error.fault = error.fault.help("store the JSON file as Google gave it, with `keyward secret set NAME < FILE`");
    error
}

async fn adc(order: &Order) -> Result<Credential, IssueError> {
    match found(order).await? {
        Some((file, place)) => exchange(order, file, &place).await,
        None => metadata(order).await,
    }
}

/// The file of Application Default Credentials, if there is one, and how it is called in errors.
async fn found(order: &Order) -> Result<Option<(File, String)>, IssueError> {
    let named = order.profile.settings.text("credentials_file");
    let path = match named {
        Some(path) => PathBuf::from(path),
        None => gcloud(order)?.join(WELL_KNOWN),
    };
    let place = path.display().to_string();
    match own_file::read(&path).await? {
        Some(bytes) => Ok(Some((file(&bytes, &place)?, place))),
        None if named.is_some() => Err(wrong(format!("{place} does not exist"))),
        None => Ok(None),
    }
}

/// The folder of gcloud.
fn gcloud(order: &Order) -> Result<PathBuf, IssueError> {
    match order.profile.settings.text("gcloud_folder") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => own_file::in_home(GCLOUD),
    }
}

/// Exchanges what a file holds.
async fn exchange(order: &Order, file: File, place: &str) -> Result<Credential, IssueError> {
    let project = match order.profile.settings.text("project") {
        Some(project) => Some(plain(project, 64)),
        None => beside(order, Some(&file)).await,
    };
    let project = project.ok_or_else(|| {
        invalid(format!("`issuer.project` is missing, and neither {place} nor gcloud's active configuration names one"))
    })?;
    let mut credential = match file.kind.as_deref() {
        Some("impersonated_service_account") => {
            let source = member(file.source_credentials.as_deref(), "source_credentials", place)?;
            let credential = from(order, source, place).await?;
            file.impersonation.token(order, credential, place).await?
        }
        _ => from(order, &file, place).await?,
    };
    credential.facts.insert("project", project);
    credential.facts.extend(order.profile.settings.text("region").map(|region| ("region", plain(region, 64))));
    Ok(credential)
}

/// Exchanges what stands for itself.
async fn from(order: &Order, file: &File, place: &str) -> Result<Credential, IssueError> {
    match file.kind.as_deref() {
        Some("service_account") => service_account(order, file, place).await,
        Some("authorized_user") => authorized_user(order, file, place).await,
        Some("external_account") => outside::federated(order, &file.account, &file.impersonation, place).await,
        Some(kind @ ("gdch_service_account" | "external_account_authorized_user" | "impersonated_service_account")) => {
            Err(wrong(format!("{place} is of `type` `{kind}`, which is not taken here")))
        }
        _ => Err(wrong(format!("{place} is of no known `type`"))),
    }
}

/// The project beside the credentials: theirs, the one that they bill, that of gcloud's active configuration.
async fn beside(order: &Order, file: Option<&File>) -> Option<String> {
    let own = file.and_then(|file| file.project_id.as_deref().or(file.quota_project_id.as_deref()));
    let project = match own {
        Some(project) => Some(project.to_owned()),
        None => active(&gcloud(order).ok()?).await,
    };
    project.map(|project| plain(&project, 64))
}

/// [`beside`] as an answer to who stores the profile.
async fn project_beside(order: &Order, file: Option<File>) -> std::collections::BTreeMap<&'static str, String> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
    let project = beside(order, file.as_ref()).await.filter(|name| !name.is_empty() && name.bytes().all(is_name));
    project.map(|project| ("project", project)).into_iter().collect()
}

/// The project of gcloud's active configuration: the file `active_config` names it, and it is an INI file with a section
/// `core` ("Managing gcloud CLI configurations" of cloud.google.com).
async fn active(folder: &Path) -> Option<String> {
    let read = async |path: PathBuf| {
        let bytes = own_file::read(&path).await.ok()??;
        String::from_utf8(bytes.to_vec()).ok()
    };
    let named = read(folder.join("active_config")).await;
    let name = named.as_deref().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("default");
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return None;
    }
    let text = read(folder.join("configurations").join(format!("config_{name}"))).await?;
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((name, value)) = line.split_once('=')
            && (section, name.trim()) == ("core", "project")
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

fn scope(order: &Order) -> &str {
    order.profile.settings.text("scope").unwrap_or(SCOPE)
}

/// The member of a file.
fn member<'f, T>(member: Option<&'f T>, name: &str, place: &str) -> Result<&'f T, IssueError> {
    member.ok_or_else(|| wrong(format!("{place} holds no `{name}`")))
}

async fn service_account(order: &Order, file: &File, place: &str) -> Result<Credential, IssueError> {
    let uri = file.token_uri.as_deref().unwrap_or(TOKEN_URL);
    let url = check_url(uri).map_err(|e| wrong(format!("the `token_uri` in {place}: {e}")))?;
    let assertion = assertion(
        member(file.client_email.as_ref(), "client_email", place)?,
        file.private_key_id.as_deref(),
        member(file.private_key.as_ref(), "private_key", place)?,
        (uri, scope(order)),
        Timestamp::now().as_second(),
    );
    let assertion = assertion.map_err(|what| wrong(format!("the `private_key` in {place} {what}")))?;
    let form = oauth::form(&[("grant_type", GRANT), ("assertion", assertion.as_str())]);
    let answer = oauth::post(&url, form, oauth::deadline(&order.profile.settings)).await?;
    oauth::read(&url, &answer, &[assertion.as_bytes()], look_at)
}

/// An assertion of a service account, signed by its key (RFC 7515 section 3.1, RFC 7518 section 3.3).
///
/// # Errors
/// What is wrong with the key, in words that go on after it.
fn assertion(
    email: &str,
    key_id: Option<&str>,
    key: &SecretText,
    (audience, scope): (&str, &str),
    now: i64,
) -> Result<Zeroizing<String>, &'static str> {
    // EXPOSE: the key signs here and goes nowhere.
    let pair = key.expose(|pem| {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "is not a PEM block `PRIVATE KEY`")?;
        RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| "is not an RSA key of 2048 bits or more in PKCS #8")
    })?;
    let mut header = serde_json::json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = key_id {
        header["kid"] = id.into();
    }
    let claims = serde_json::json!({
        "iss": email, "scope": scope, "aud": audience, "iat": now, "exp": now.saturating_add(ASSERTION_S),
    });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), body.as_bytes(), &mut signature).map_err(|_| "cannot sign")?;
    Ok(Zeroizing::new(format!("{body}.{}", URL_SAFE_NO_PAD.encode(&signature))))
}

async fn authorized_user(order: &Order, file: &File, place: &str) -> Result<Credential, IssueError> {
    let settings = &order.profile.settings;
    let url = settings.text("token_url").or(file.token_uri.as_deref()).unwrap_or(TOKEN_URL);
    let url = check_url(url).map_err(|e| invalid(format!("the token endpoint of {place}: {e}")))?;
    let id = member(file.client_id.as_ref(), "client_id", place)?;
    let secret = member(file.client_secret.as_ref(), "client_secret", place)?;
    let refresh = member(file.refresh_token.as_ref(), "refresh_token", place)?;
    // A scope is named only where the profile wants a narrower one: the login has its own.
    let scope = settings.text("scope").map(|scope| ("scope", scope));
    // EXPOSE: both go to the token endpoint, which knows them.
    let form = secret.expose(|secret| {
        refresh.expose(|refresh| {
            let pairs = [
                ("grant_type", "refresh_token"),
                ("client_id", id.as_str()),
                ("client_secret", secret),
                ("refresh_token", refresh),
            ];
            oauth::form(&pairs.into_iter().chain(scope).collect::<Vec<_>>())
        })
    });
    let answer = oauth::post(&url, form, oauth::deadline(settings)).await?;
    // EXPOSE: an answer that quotes one of them is not shown.
    secret.expose(|secret| {
        refresh.expose(|refresh| oauth::read(&url, &answer, &[secret.as_bytes(), refresh.as_bytes()], look_at))
    })
}

/// What to look at after a refusal of Google.
fn look_at(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.id.as_deref()? {
        "invalid_grant" if refusal.says("JWT") => {
            "look at the clock of this machine, and whether the key was deleted at Google"
        }
        "invalid_grant" => "the key or the login was taken back, or has ended: make another one",
        "invalid_client" => "look at `client_id` and `client_secret` in the stored JSON",
        "invalid_scope" => "look at `scope`: these credentials may not have it",
        "unauthorized_client" => "the service account or the client may not use this grant",
        _ => return None,
    })
}

/// A token of the machine itself (cloud.google.com/compute/docs/metadata).
async fn metadata(order: &Order) -> Result<Credential, IssueError> {
    let settings = &order.profile.settings;
    let base = settings.text("metadata_url").unwrap_or(METADATA);
    let url = |path: &str| {
        let url = format!("{}/computeMetadata/v1/{path}", base.trim_end_matches('/'));
        check_metadata_url(&url).map_err(|e| invalid(format!("`issuer.metadata_url`: {e}")))
    };
    let deadline = oauth::deadline(settings);
    let mut token = url("instance/service-accounts/default/token")?;
    if let Some(scope) = settings.text("scope") {
        token.query_pairs_mut().append_pair("scopes", &scope.replace(' ', ","));
    }
    let answer = flavoured(&token, deadline).await?;
    let mut credential = oauth::read(&token, &answer, &[], look_at)?;
    let project = match settings.text("project") {
        Some(project) => plain(project, 64),
        None => {
            let answer = flavoured(&url("project/project-id")?, deadline).await?;
            let body = answer.body.as_ref().map_err(oauth::troubled)?;
            let id = std::str::from_utf8(body).ok().filter(|_| answer.status == 200).map(|id| plain(id.trim(), 64));
            id.ok_or_else(|| invalid("`issuer.project` is missing, and the metadata server names none"))?
        }
    };
    credential.facts.insert("project", project);
    credential.facts.extend(settings.text("region").map(|region| ("region", plain(region, 64))));
    Ok(credential)
}

/// Asks the metadata server, which says who it is in the same header in which the request does.
async fn flavoured(url: &Url, deadline: Instant) -> Result<http::Answer, IssueError> {
    const FLAVOUR: &str = "metadata-flavor";
    let headers = HeaderMap::from_iter([(HeaderName::from_static(FLAVOUR), HeaderValue::from_static("Google"))]);
    let answer = http::ask(Method::GET, url, headers, deadline).await.map_err(|trouble| {
        let mut error = oauth::troubled(&trouble);
        error.fault = error.fault.cause("there is no file of credentials, and this machine has no metadata server");
        error.fault =
            error.fault.help("log in with `gcloud auth application-default login`, or name `credentials_file`");
        error
    })?;
    if answer.header(FLAVOUR) != Some("Google") {
        return Err(oauth::not_a_credential(format!("{} is not a metadata server of Google", oauth::host(url))));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
