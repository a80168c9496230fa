//! What a running sandbox knows: its rule, key, clocks, live tokens, spent assertions, faults and figures.
//!
//! Tokens and one-time ids are kept as digests only; of keys of AWS the secret is kept too, since signatures are made of it. Lives count on the clock that never jumps; the shifted clocks decide
//! about the times in assertions alone. Writes the files of the folder. Called by every endpoint.

use crate::fault::Faults;
use crate::journal::Journal;
use crate::jwt::{Alg, Key};
use crate::show::fingerprint;
use crate::{random, random_hex, sts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The audience that the documentation uses for every identity provider.
pub(crate) const AUDIENCE: &str = "https://api.anthropic.com";

/// What every access token begins with.
pub(crate) const TOKEN_PREFIX: &str = "sk-ant-oat01-";

/// The subject of the token in the file.
const FILE_SUBJECT: &str = "sandbox:agent";

/// Of whom the identity provider knows a secret. The colon has to be form-encoded in a Basic header.
const CLIENT_ID: &str = "sandbox:client";

/// File names inside of the folder.
const TOKEN_FILE: &str = "identity-token";
const SECRET_FILE: &str = "client-secret";
const JOURNAL_FILE: &str = "journal.jsonl";
const ANTHROPIC_KEY_FILE: &str = "anthropic-key";
const OPENAI_KEY_FILE: &str = "openai-key";
const FOUNDRY_KEY_FILE: &str = "foundry-key";
const AWS_FILE: &str = "aws-credentials.json";
const AWS_CONTAINER_FILE: &str = "aws-container-token";
const ENTRA_SECRET_FILE: &str = "entra-client-secret";
const GOOGLE_USER_FILE: &str = "google-authorized-user.json";
const GOOGLE_ACCOUNT_FILE: &str = "google-service-account.json";
const GOOGLE_EXTERNAL_FILE: &str = "google-external-account.json";

/// The project of Google.
pub(crate) const GOOGLE_PROJECT: &str = "sandbox-project";

/// The service account of Google.
pub(crate) const GOOGLE_EMAIL: &str = "agent@sandbox-project.iam.gserviceaccount.com";

/// The client of Google's logins.
pub(crate) const GOOGLE_CLIENT: &str = "sandbox.apps.googleusercontent.com";

/// Which service takes a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Realm {
    /// Anthropic's API.
    Anthropic,
    /// Vertex.
    Google,
    /// Foundry.
    Entra,
    /// The metadata service of AWS itself.
    Imds,
}

/// Keys that do not end by themselves; until they are taken back.
pub(crate) struct StaticKeys {
    /// Of Anthropic's API.
    pub(crate) anthropic: String,
    /// Of OpenAI's API.
    pub(crate) openai: String,
    /// Of Foundry.
    pub(crate) foundry: String,
}

/// Keys of AWS.
#[derive(Debug, Clone)]
pub(crate) struct AwsKeys {
    /// Access key, which is no secret.
    pub(crate) id: String,
    /// Its secret.
    pub(crate) secret: String,
    /// Its session, which must be sent.
    pub(crate) session: String,
    dies: Option<Instant>,
}

impl AwsKeys {
    fn make(dies: Option<Instant>) -> Result<Self, String> {
        let id = format!("ASIA{}", random_hex(8)?.to_ascii_uppercase());
        Ok(Self { id, secret: format!("s/+{}", random_hex(20)?), session: format!("t+/{}==", random_hex(32)?), dies })
    }

    /// Whether they are over.
    pub(crate) fn is_over(&self) -> bool {
        self.dies.is_some_and(|dies| dies <= Instant::now())
    }
}

/// What is chosen at start.
pub(crate) struct Choices {
    /// Folder of the files; made when it is not there.
    pub(crate) folder: PathBuf,
    /// The rule's `token_lifetime_seconds`.
    pub(crate) life: Duration,
    /// Lives under a minute are taken.
    pub(crate) fast_lives: bool,
    /// `exp` − `iat` of assertions.
    pub(crate) assertion_life: Duration,
    /// Assertions carry a `jti`.
    pub(crate) one_time: bool,
    /// How assertions are signed.
    pub(crate) alg: Alg,
}

/// A running sandbox.
pub(crate) struct Sandbox {
    /// Where it listens, without a final slash.
    pub(crate) base_url: String,
    /// `issuer` of the identity provider.
    pub(crate) issuer: String,
    /// The rule's id.
    pub(crate) rule_id: String,
    /// UUID of the organisation.
    pub(crate) organization_id: String,
    /// The service account that the rule maps to.
    pub(crate) service_account_id: String,
    /// The workspace of the rule.
    pub(crate) workspace_id: String,
    /// The identity provider's client.
    pub(crate) client_id: String,
    /// Its secret.
    pub(crate) client_secret: String,
    /// Keys that do not end by themselves.
    pub(crate) keys: StaticKeys,
    /// What the container endpoint of AWS wants in `Authorization`.
    pub(crate) container_token: String,
    /// Token of a login at IAM Identity Center.
    pub(crate) sso_token: String,
    /// Entra's tenant.
    pub(crate) entra_tenant: String,
    /// Entra's application.
    pub(crate) entra_client_id: String,
    /// Its secret.
    pub(crate) entra_secret: String,
    /// Secret of Google's client.
    pub(crate) google_secret: String,
    /// Refresh token of the login at Google.
    pub(crate) google_refresh: String,
    /// What was chosen at start.
    pub(crate) choices: Choices,
    state: Mutex<State>,
    journal: Mutex<Journal>,
}

/// What the rule wants; can be changed to provoke refusals.
pub(crate) struct Rule {
    /// Exact subject, or a prefix when it ends in `*`.
    pub(crate) subject: String,
    /// Exact audience.
    pub(crate) audience: String,
    /// Exact `iss`.
    pub(crate) issuer: String,
    /// The rule covers several workspaces, so that a request must name one.
    pub(crate) workspace_required: bool,
    /// `token_lifetime_seconds`.
    pub(crate) life_s: u64,
}

/// In which generation of answers a failed match is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusals {
    /// 400 `invalid_grant` in the API's shape; a replay is 401.
    BadRequest,
    /// 401 `authentication_error`.
    Unauthorized,
    /// 400 in the shape of RFC 6749.
    Rfc6749,
}

/// Figures since the start.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Token requests that arrived.
    pub(crate) asked: u64,
    /// Tokens given.
    pub(crate) exchanges: u64,
    /// Token requests refused by the rules, spoilt ones not counted.
    pub(crate) refused: u64,
    /// One-time assertions presented again.
    pub(crate) replays: u64,
    /// Messages answered.
    pub(crate) messages: u64,
    /// API requests without a live token.
    pub(crate) unauthorized: u64,
    /// Tokens that the identity provider gave to its client.
    pub(crate) idp_tokens: u64,
    /// Tokens given by Google's endpoint and metadata server.
    pub(crate) google_tokens: u64,
    /// Tokens given by Entra.
    pub(crate) entra_tokens: u64,
    /// Keys given by the services of AWS.
    pub(crate) aws_keys: u64,
    /// Tokens taken back at the revocation endpoint.
    pub(crate) revocations: u64,
    /// Visits of the place to which the fault `redirect` leads.
    pub(crate) trapped: u64,
}

/// What changes.
pub(crate) struct State {
    /// The only key of the identity provider.
    pub(crate) key: Key,
    /// What the rule wants.
    pub(crate) rule: Rule,
    /// How failed matches are refused.
    pub(crate) refusals: Refusals,
    /// Faults that wait.
    pub(crate) faults: Faults,
    /// Figures.
    pub(crate) counts: Counts,
    /// Shift of the token endpoint's clock, in seconds.
    pub(crate) server_s: i64,
    /// Shift of the identity provider's clock, in seconds.
    pub(crate) idp_s: i64,
    /// Requests with a token of OAuth need the flag for it.
    pub(crate) needs_beta: bool,
    /// How many events a stream has before its text, and how far apart they are.
    pub(crate) stream: (u32, Duration),
    /// The key of Google's service account, once it was asked for.
    pub(crate) google_key: Option<Key>,
    keys_live: bool,
    aws: Vec<AwsKeys>,
    tokens: HashMap<[u8; 32], (Realm, Instant)>,
    spent: HashSet<[u8; 32]>,
    serial: u64,
}

impl Sandbox {
    /// Makes the folder, the ids, the key and the files.
    ///
    /// Fails when the folder cannot be written, and when the system has no randomness.
    pub(crate) fn open(base_url: String, choices: Choices) -> Result<Self, String> {
        let folder = &choices.folder;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| format!("{}: {e}", folder.display()))?;
        let issuer = format!("{base_url}/idp");
        let state = State {
            key: Key::make(choices.alg)?,
            rule: Rule {
                subject: "sandbox:*".into(),
                audience: AUDIENCE.into(),
                issuer: issuer.clone(),
                workspace_required: false,
                life_s: choices.life.as_secs(),
            },
            refusals: Refusals::BadRequest,
            faults: Faults::default(),
            counts: Counts::default(),
            server_s: 0,
            idp_s: 0,
            needs_beta: false,
            stream: (0, Duration::ZERO),
            google_key: None,
            keys_live: true,
            aws: vec![AwsKeys::make(None)?],
            tokens: HashMap::new(),
            spent: HashSet::new(),
            serial: 0,
        };
        let random_id = |tag: &str| random_hex(11).map(|hex| format!("{tag}_01{hex}"));
        // With a plus, a percent sign, a colon and a blank it only passes when it is encoded as RFC 6749 says.
        let client_secret = format!("sandbox+{}%2F: {}", random_hex(12)?, random_hex(4)?);
        let journal = Journal(replace(folder, JOURNAL_FILE, b"")?);
        replace(folder, SECRET_FILE, client_secret.as_bytes())?;
        let keys = StaticKeys {
            anthropic: format!("sk-ant-api03-{}", random_hex(24)?),
            openai: format!("sk-proj-{}", random_hex(24)?),
            foundry: random_hex(21)?,
        };
        let (container_token, entra_secret) = (random_hex(20)?, format!("e~.{}", random_hex(18)?));
        let (google_secret, google_refresh) =
            (format!("GOCSPX-{}", random_hex(14)?), format!("1//0{}", random_hex(24)?));
        let user = json!({
            "type": "authorized_user",
            "client_id": GOOGLE_CLIENT,
            "client_secret": google_secret,
            "refresh_token": google_refresh,
            "quota_project_id": GOOGLE_PROJECT,
        });
        let aws = state
            .aws
            .first()
            .map(|keys| json!({"AccessKeyId": keys.id, "SecretAccessKey": keys.secret, "SessionToken": keys.session}));
        let identity_token = folder.join(TOKEN_FILE).display().to_string();
        let sso_token = format!("aoa-{}", random_hex(32)?);
        let keys_of_aws = state.aws.first().map_or(("", "", ""), |keys| (&keys.id, &keys.secret, &keys.session));
        for (name, text) in sts::shared_files(keys_of_aws, &sso_token, &identity_token) {
            replace(folder, name, text.as_bytes())?;
        }
        let external = crate::google::external_account(&base_url, &identity_token);
        for (name, text) in [
            (GOOGLE_EXTERNAL_FILE, external.to_string().as_str()),
            (ANTHROPIC_KEY_FILE, keys.anthropic.as_str()),
            (OPENAI_KEY_FILE, &keys.openai),
            (FOUNDRY_KEY_FILE, &keys.foundry),
            (AWS_FILE, &aws.unwrap_or_default().to_string()),
            (AWS_CONTAINER_FILE, &container_token),
            (ENTRA_SECRET_FILE, &entra_secret),
            (GOOGLE_USER_FILE, &user.to_string()),
        ] {
            replace(folder, name, text.as_bytes())?;
        }
        let sandbox = Self {
            base_url,
            issuer,
            rule_id: random_id("fdrl")?,
            organization_id: uuid()?,
            service_account_id: random_id("svac")?,
            workspace_id: random_id("wrkspc")?,
            client_id: CLIENT_ID.into(),
            client_secret,
            keys,
            container_token,
            sso_token,
            entra_tenant: uuid()?,
            entra_client_id: uuid()?,
            entra_secret,
            google_secret,
            google_refresh,
            choices,
            state: Mutex::new(state),
            journal: Mutex::new(journal),
        };
        sandbox.write_token(&Map::new())?;
        Ok(sandbox)
    }

    /// What changes. Never held over a wait.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal.
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line of JSON that says what can be reached where.
    pub(crate) fn ready(&self) -> Value {
        let file = |name: &str| self.choices.folder.join(name);
        json!({
            "base_url": self.base_url,
            "issuer": self.issuer,
            "federation_rule_id": self.rule_id,
            "organization_id": self.organization_id,
            "service_account_id": self.service_account_id,
            "workspace_id": self.workspace_id,
            "identity_token_file": self.choices.folder.join(TOKEN_FILE),
            "client_id": self.client_id,
            "client_secret_file": self.choices.folder.join(SECRET_FILE),
            "token_url": format!("{}/token", self.issuer),
            "audience": AUDIENCE,
            "journal": self.journal_file(),
            "anthropic_key_file": file(ANTHROPIC_KEY_FILE),
            "openai_url": format!("{}/openai/v1", self.base_url),
            "openai_key_file": file(OPENAI_KEY_FILE),
            "aws_credentials_file": file(AWS_FILE),
            "aws_container_url": format!("{}{}", self.base_url, crate::aws::CONTAINER_PATH),
            "aws_container_token_file": file(AWS_CONTAINER_FILE),
            "aws_config_file": file(sts::CONFIG_FILE),
            "aws_shared_credentials_file": file(sts::SHARED_FILE),
            "aws_sts_url": format!("{}{}", self.base_url, sts::STS_PATH),
            "aws_sso_url": format!("{}/aws/sso", self.base_url),
            "aws_sso_cache": self.choices.folder,
            "aws_region": crate::bedrock::REGION,
            "google_project": GOOGLE_PROJECT,
            "google_token_url": format!("{}/google/token", self.base_url),
            "google_authorized_user_file": file(GOOGLE_USER_FILE),
            "google_service_account_file": file(GOOGLE_ACCOUNT_FILE),
            "google_external_account_file": file(GOOGLE_EXTERNAL_FILE),
            "entra_authority": format!("{}/entra", self.base_url),
            "entra_tenant": self.entra_tenant,
            "entra_client_id": self.entra_client_id,
            "entra_client_secret_file": file(ENTRA_SECRET_FILE),
            "foundry_key_file": file(FOUNDRY_KEY_FILE),
            "revocation_endpoint": format!("{}/oauth/revoke", self.base_url),
        })
    }

    /// Path of the journal.
    pub(crate) fn journal_file(&self) -> PathBuf {
        self.choices.folder.join(JOURNAL_FILE)
    }

    /// Puts an identity token into the file, in one step; `changes` are put over its claims, `null` takes one away.
    pub(crate) fn write_token(&self, changes: &Map<String, Value>) -> Result<(), String> {
        let token = self.issue(FILE_SUBJECT, AUDIENCE, changes)?;
        replace(&self.choices.folder, TOKEN_FILE, token.as_bytes()).map(drop)
    }

    /// Signs an identity token by the identity provider's clock.
    pub(crate) fn issue(&self, subject: &str, audience: &str, changes: &Map<String, Value>) -> Result<String, String> {
        let jti = if self.choices.one_time { Value::from(random_hex(16)?) } else { Value::Null };
        let mut state = self.state();
        state.serial += 1;
        let iat = now_s(state.idp_s).floor() as i64;
        let claims = json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": iat,
            "nbf": iat,
            "exp": iat.saturating_add_unsigned(self.choices.assertion_life.as_secs()),
            "jti": jti,
            // Two tokens of one second would be the same bytes otherwise.
            "serial": state.serial,
        });
        let mut claims = claims.as_object().cloned().unwrap_or_default();
        claims.extend(changes.clone());
        claims.retain(|_, value| !value.is_null());
        Ok(state.key.sign(&claims))
    }

    /// Takes a key of Google's service account into use and writes its file, as Google gives it.
    pub(crate) fn put_google_key(&self, key: Key) -> Result<(), String> {
        let file = json!({
            "type": "service_account",
            "project_id": GOOGLE_PROJECT,
            "private_key_id": key.kid(),
            "private_key": key.pem()?,
            "client_email": GOOGLE_EMAIL,
            "token_uri": format!("{}/google/token", self.base_url),
        });
        self.state().google_key = Some(key);
        replace(&self.choices.folder, GOOGLE_ACCOUNT_FILE, file.to_string().as_bytes()).map(drop)
    }

    /// Removes the files that hold a secret. The journal stays.
    pub(crate) fn close(&self) {
        for name in [
            TOKEN_FILE,
            SECRET_FILE,
            ANTHROPIC_KEY_FILE,
            OPENAI_KEY_FILE,
            FOUNDRY_KEY_FILE,
            AWS_FILE,
            AWS_CONTAINER_FILE,
            ENTRA_SECRET_FILE,
            GOOGLE_USER_FILE,
            GOOGLE_ACCOUNT_FILE,
            sts::SHARED_FILE,
            sts::LOGIN_FILE,
        ] {
            // One that is gone already is as good.
            let _ = std::fs::remove_file(self.choices.folder.join(name));
        }
    }
}

impl State {
    /// Time of the token endpoint, in seconds since 1970.
    pub(crate) fn server_now_s(&self) -> f64 {
        now_s(self.server_s)
    }

    /// Mints a token of Anthropic's that lives `life_s` seconds. Returns it with its fingerprint.
    pub(crate) fn mint(&mut self, life_s: u64) -> Result<(String, String), String> {
        let token = token()?;
        let print = self.keep(Realm::Anthropic, &token, life_s);
        Ok((token, print))
    }

    /// Takes a token into use for `life_s` seconds. Returns its fingerprint.
    pub(crate) fn keep(&mut self, realm: Realm, token: &str, life_s: u64) -> String {
        let now = Instant::now();
        self.tokens.retain(|_, (_, dies)| *dies > now);
        self.tokens.insert(digest(token), (realm, now + Duration::from_secs(life_s)));
        fingerprint(token.as_bytes())
    }

    /// Whether the token was minted here for this service and still lives.
    pub(crate) fn is_live(&self, realm: Realm, token: &str) -> bool {
        let found = self.tokens.get(&digest(token));
        found.is_some_and(|(of, dies)| *of == realm && *dies > Instant::now())
    }

    /// Whether `sent` is a key that was not taken back.
    pub(crate) fn is_key(&self, key: &str, sent: &str) -> bool {
        self.keys_live && key == sent
    }

    /// Mints keys of AWS that live `life_s` seconds.
    pub(crate) fn mint_aws(&mut self, life_s: u64) -> Result<AwsKeys, String> {
        // Keys that are over are kept for a while, since they are refused with other words than unknown ones.
        self.aws.retain(|keys| keys.dies.is_none_or(|dies| dies.elapsed() < Duration::from_secs(3600)));
        let keys = AwsKeys::make(Some(Instant::now() + Duration::from_secs(life_s)))?;
        self.aws.push(keys.clone());
        Ok(keys)
    }

    /// The keys of AWS of this id, living or over.
    pub(crate) fn aws(&self, id: &str) -> Option<&AwsKeys> {
        self.aws.iter().find(|keys| keys.id == id)
    }

    /// How many tokens live.
    pub(crate) fn live(&self) -> usize {
        let now = Instant::now();
        self.tokens.values().filter(|(_, dies)| *dies > now).count()
    }

    /// Ends all tokens and keys of AWS; with `keys` also those that do not end by themselves.
    pub(crate) fn revoke(&mut self, keys: bool) {
        self.tokens.clear();
        let now = Instant::now();
        for of_aws in self.aws.iter_mut().filter(|of_aws| keys || of_aws.dies.is_some()) {
            of_aws.dies = Some(now);
        }
        self.keys_live &= !keys;
    }

    /// Ends one token; false where there is none.
    pub(crate) fn end(&mut self, token: &str) -> bool {
        self.tokens.remove(&digest(token)).is_some()
    }

    /// Spends a one-time id; false when it was spent before.
    pub(crate) fn spend(&mut self, jti: &str) -> bool {
        self.spent.insert(digest(jti))
    }
}

/// A token as it is minted, that nothing accepts yet.
pub(crate) fn token() -> Result<String, String> {
    Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random::<48>()?)))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn now_s(shift_s: i64) -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64() + shift_s as f64
}

fn uuid() -> Result<String, String> {
    let mut bytes = random::<16>()?;
    // Version 4 and the variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Writes a file of mode 0600 beside its place and moves it there, so that no reader sees half of it. Returns it open.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<File, String> {
    let beside = folder.join(format!(".{name}.{}", random_hex(8)?));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        std::fs::rename(&beside, folder.join(name))?;
        Ok(file)
    })();
    written.map_err(|e: std::io::Error| {
        let _ = std::fs::remove_file(&beside);
        format!("{}: {e}", folder.join(name).display())
    })
}
