//! Profiles: how a credential is obtained and how it is handed over.

use crate::fence::{self, Fence};
use crate::gateway::{self, Placement, Target, Upstream};
use crate::time::{parse_duration, render_duration};
use crate::tool::Takes;
use crate::variable::{Api, Put, check_address};
use crate::{Families, FieldSpec, KindRole, KindSpec, Name, Shape, VariableError, check_url, check_variable};
use keyward_diag::{Code, Fault, plain};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use toml::{Table, Value};

/// Longest profile file, in bytes.
const FILE_MAX_BYTES: usize = 16 * 1024;

/// Longest life of a lease, and the life of one whose profile says nothing.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How a credential reaches a child, strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// A variable holds the credential.
    Env,
    /// A variable holds the path of a private memory-backed file that is kept fresh.
    File,
    /// Variables hold the address of the gateway on loopback and a token of the run, which the gateway swaps for the
    /// credential; the child never holds the credential itself.
    Gateway,
}

impl DeliveryMode {
    const ALL: [Self; 3] = [Self::Env, Self::File, Self::Gateway];

    /// The word for it in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Gateway => "gateway",
        }
    }

    /// What this delivery gives away, in words.
    pub fn gives_away(self) -> &'static str {
        match self {
            Self::Env => {
                "the child and all it starts hold the credential itself; it can be read by every program of yours, is not \
                 renewed, and cannot be taken back before it ends"
            }
            Self::File => {
                "the child and every program of yours can read the credential while the run lives; it is renewed in place \
                 and removed at the end, but what was read before cannot be taken back"
            }
            Self::Gateway => {
                "the child and all it starts hold a token that is good for calls through Keyward by them alone and ends with \
                 the run; while the run lives they can make the calls that the gateway allows, and each is recorded"
            }
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.word() == word)
    }
}

/// Where the credential goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The way that the profile chose: `env` where it names variables only, `None` where it leaves that to the tool.
    pub mode: Option<DeliveryMode>,
    /// Variables that carry the credential, its file's path, or the run token.
    pub variables: BTreeSet<String>,
    /// Variables that the profile itself names for the address of the gateway.
    pub addresses: BTreeSet<String>,
}

/// What a file delivery consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One file with the credential's bytes; the variable holds its path.
    Bytes,
    /// The folder that Anthropic's SDKs and Claude Code read: `configs/NAME.json` and `credentials/NAME.json`; the variable
    /// holds the folder's path.
    SdkFiles,
    /// The file that [`crate::google_adc`] makes, with the run token; the variable holds its path. With `gateway` only.
    GoogleAdc,
}

/// What one profile gives to a child, before anything is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// How the credential reaches the child.
    pub mode: DeliveryMode,
    /// What a file delivery consists of.
    pub form: Form,
    /// Variables that hold the credential, the path of its file, or the run token.
    pub carriers: BTreeSet<String>,
    /// Variables beside it that hold no secret, such as the address of the gateway.
    pub plain: BTreeMap<String, String>,
    /// Arguments that go before the program's own.
    pub args: Vec<String>,
    /// Variables that would send the credential elsewhere or choose another, each with what it is.
    pub clears: Vec<(String, String)>,
}

/// Name of the profile in files for SDKs.
pub const SDK_PROFILE: &str = "keyward";

/// The variable of an identity source that reads one, where the profile names none.
const IDENTITY_VARIABLE: &str = "ANTHROPIC_IDENTITY_TOKEN";

/// The settings of an issuer or identity source, checked against its description.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(Table);

/// Where an assertion comes from.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Description of the source.
    pub kind: &'static KindSpec,
    /// Its settings.
    pub settings: Settings,
}

/// A reference `secret:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef(pub Name);

/// A stored profile. Holds no secret.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: Name,
    /// Description of its issuer.
    pub kind: &'static KindSpec,
    /// Settings of the issuer.
    pub settings: Settings,
    /// Where the assertion comes from, for an issuer that takes one.
    pub identity: Option<Identity>,
    /// Where the credential goes.
    pub delivery: Delivery,
    /// Whose API takes the credential.
    pub provider: Option<String>,
    /// What the gateway does for it; `None` where nothing says where its requests go.
    pub gateway: Option<Target>,
    /// Longest life of a lease.
    pub max_ttl: Duration,
    /// Each use asks for the passphrase.
    pub confirm: bool,
    given: Given,
}

/// What the file said, so that it is written back the same way.
#[derive(Debug, Clone)]
struct Given {
    mode: Option<DeliveryMode>,
    variables: bool,
    max_ttl: bool,
    gateway: Table,
    fence: Table,
}

/// Why a profile file was refused. Never quotes the content of a secret field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfileError {
    /// Required fields are not there.
    Incomplete(Vec<String>),
    /// Anything else, in one sentence, with a remedy where one is known.
    Invalid(String, Option<String>),
    /// A variable that cannot carry a credential.
    Variable(VariableError),
}

impl ProfileError {
    /// The words of the error.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Incomplete(fields) => fields
                .iter()
                .fold(Fault::new(Code::ProfileIncomplete), |f, field| f.cause(format!("`{field}` is missing"))),
            Self::Invalid(cause, help) => {
                let fault = Fault::new(Code::ProfileInvalid).cause(cause);
                match help {
                    Some(help) => fault.help(help.clone()),
                    None => fault,
                }
            }
            Self::Variable(e @ VariableError::NotAName(_)) => Fault::new(Code::ProfileInvalid)
                .cause(e)
                .help("use letters, digits and '_', and no digit at the beginning"),
            Self::Variable(e) => Fault::new(Code::DeliveryVariable).cause(e),
        }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault().causes.join("; "))
    }
}

impl std::error::Error for ProfileError {}

fn invalid(cause: impl Into<String>) -> ProfileError {
    ProfileError::Invalid(cause.into(), None)
}

impl Profile {
    /// Reads a profile file (TOML, at most 16 KiB) against the kinds that this version has.
    ///
    /// # Errors
    /// [`ProfileError`]: the first thing that is wrong, or all required fields that are missing.
    pub fn parse(
        name: Name,
        text: &str,
        kinds: &[&'static KindSpec],
        families: &Families,
    ) -> Result<Self, ProfileError> {
        if text.len() > FILE_MAX_BYTES {
            return Err(invalid(format!("the file is longer than {FILE_MAX_BYTES} bytes")));
        }
        // The parser's own message quotes the line, which may hold a secret that somebody pasted.
        let mut file: Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            invalid(format!("line {line} is not TOML: {}", e.message()))
        })?;
        let mut issuer = section(&mut file, "issuer")?;
        let mut delivery = section(&mut file, "delivery")?;
        let mut limits = section(&mut file, "limits")?;
        let gateway = section(&mut file, "gateway")?;
        let given_fence = fence(&mut file)?;
        let confirm = match file.remove("confirm") {
            None => false,
            Some(Value::Boolean(confirm)) => confirm,
            Some(_) => return Err(invalid("`confirm` is neither true nor false")),
        };
        known(&file, &[], "", &["confirm", "issuer", "delivery", "gateway", "fence", "limits"])?;

        let kind = match issuer.remove("kind") {
            None => return Err(ProfileError::Incomplete(vec!["issuer.kind".to_owned()])),
            Some(word) => find(kinds, KindRole::Issuer, &meant(word, &mut issuer)?, "issuer")?,
        };
        let takes_identity = kind.fields.iter().find(|f| f.shape == Shape::Identity).map(|f| f.name);
        let given_identity = takes_identity.and_then(|name| issuer.remove(name));
        let mut absent = missing(&issuer, kind);
        let identity = match (takes_identity, given_identity) {
            (Some(_), Some(Value::Table(table))) => identity(table, kinds, &mut absent)?,
            (Some(name), Some(_)) => return Err(invalid(format!("`issuer.{name}` is not a section"))),
            (Some(name), None) => {
                // Named as a whole and by its first field, which says how to go on.
                absent.push(format!("issuer.{name}.kind"));
                None
            }
            (None, _) => None,
        };
        settings(&issuer, kind, "issuer.")?;
        let issuer = Settings(issuer);
        let provider = provider(kind, &issuer, &gateway, families)?;
        let mut target = target(&issuer, provider.as_deref(), &gateway, families)?;
        let fence = Fence::read(&given_fence).map_err(invalid)?;

        let mode = match delivery.remove("mode") {
            None => None,
            Some(Value::String(word)) => Some(DeliveryMode::parse(&word).ok_or_else(|| {
                invalid(format!(
                    "delivery.mode `{}` is not one that this version has: env, file, gateway",
                    plain(&word, 20)
                ))
            })?),
            Some(_) => return Err(invalid("delivery.mode is not text")),
        };
        let given_variables = delivery.remove("env");
        known(&delivery, &[], "delivery.", &["mode", "env"])?;
        let given_max_ttl = limits.contains_key("max_ttl");
        let fenced = fence.is_some();
        let given =
            Given { mode, variables: given_variables.is_some(), max_ttl: given_max_ttl, gateway, fence: given_fence };
        let usual = provider.as_deref().and_then(|provider| families.usual_variable(provider));
        let (variables, addresses) = match given_variables {
            Some(Value::Table(table)) => variables(table)?,
            Some(_) => return Err(invalid("delivery.env is not a table such as { GITHUB_TOKEN = \"token\" }")),
            None if !kind.usual.variables.is_empty() => {
                (kind.usual.variables.iter().map(|v| (*v).to_owned()).collect(), BTreeSet::new())
            }
            None => (usual.map(str::to_owned).into_iter().collect(), BTreeSet::new()),
        };
        // Where nothing says which variable it is, the gateway's own ways with the provider's clients are left.
        if variables.is_empty() && (target.is_none() || provider.is_none()) {
            absent.push("delivery.env".to_owned());
        }
        if mode == Some(DeliveryMode::Gateway) && target.is_none() {
            let cause = "delivery.mode is gateway, and nothing says where requests go";
            let help = "name the provider, or `base_url` in a section [gateway]".to_owned();
            return Err(ProfileError::Invalid(cause.to_owned(), Some(help)));
        }
        if fenced && mode.is_some_and(|mode| mode != DeliveryMode::Gateway) {
            let cause = "a fence is kept by the gateway, and delivery.mode is another";
            let help = "leave delivery.mode out, or make it \"gateway\"".to_owned();
            return Err(ProfileError::Invalid(cause.to_owned(), Some(help)));
        }
        match (&mut target, fence) {
            (Some(target), fence) => target.fence = fence,
            (None, Some(_)) => {
                let cause = "a fence is kept by the gateway, and nothing says where requests go";
                let help = "name the provider, with its region where it has one, or `base_url` in a section [gateway]";
                let help = help.to_owned();
                return Err(ProfileError::Invalid(cause.to_owned(), Some(help)));
            }
            (None, None) => {}
        }
        if !addresses.is_empty() && mode != Some(DeliveryMode::Gateway) {
            return Err(invalid("delivery.env names a variable for an address, which takes mode = \"gateway\""));
        }

        if !absent.is_empty() {
            return Err(ProfileError::Incomplete(absent));
        }
        let max_ttl = match limits.remove("max_ttl") {
            None => TTL_MAX,
            Some(Value::String(text)) => {
                let ttl = parse_duration(&text).map_err(|e| invalid(format!("limits.max_ttl: {e}")))?;
                if ttl > TTL_MAX {
                    return Err(invalid("limits.max_ttl is longer than 24h"));
                }
                ttl
            }
            Some(_) => return Err(invalid("limits.max_ttl is not text such as \"1h\"")),
        };
        known(&limits, &[], "limits.", &["max_ttl"])?;
        // Variables without a mode mean `env`, or `gateway` where a fence leaves nothing else; nothing at all means the
        // strongest that the tool can take.
        let usual = if fenced { DeliveryMode::Gateway } else { DeliveryMode::Env };
        let mode = mode.or(given.variables.then_some(usual));
        let delivery = Delivery { mode, variables, addresses };
        Ok(Self {
            name,
            kind,
            settings: issuer,
            identity,
            delivery,
            provider,
            gateway: target,
            max_ttl,
            confirm,
            given,
        })
    }

    /// The limits that the gateway keeps for each lease. With some, no other delivery is possible.
    pub fn fence(&self) -> Option<&Fence> {
        self.gateway.as_ref().and_then(|target| target.fence.as_ref())
    }

    /// Whether the profile itself names the variables.
    pub(crate) fn names_variables(&self) -> bool {
        self.given.variables
    }

    /// What the profile gives to a child by a delivery. `takes` is what the child's program can take of the profile's provider,
    /// where that is known, and `address` the gateway's URL without a slash at its end.
    pub(crate) fn hand_over(&self, mode: DeliveryMode, takes: Option<&Takes>, address: &str) -> HandOver {
        let mut out = HandOver {
            mode,
            form: Form::Bytes,
            carriers: self.delivery.variables.clone(),
            plain: BTreeMap::new(),
            args: Vec::new(),
            clears: Vec::new(),
        };
        match mode {
            DeliveryMode::Gateway => self.through_gateway(&mut out, takes, address),
            DeliveryMode::Env | DeliveryMode::File => self.by_itself(&mut out),
        }
        if let Some(variable) = self.identity_variable() {
            let what = "the assertion itself, by which anyone can exchange";
            out.clears.push((variable.to_owned(), what.to_owned()));
        }
        out
    }

    fn through_gateway(&self, out: &mut HandOver, takes: Option<&Takes>, address: &str) {
        let addresses = self.delivery.addresses.iter().map(|variable| (variable.clone(), address.to_owned()));
        out.plain.extend(addresses);
        let Some(takes) = takes else { return };
        if !self.given.variables {
            out.form = if takes.adc.is_empty() { Form::Bytes } else { Form::GoogleAdc };
            out.carriers = takes.token.iter().chain(&takes.adc).cloned().collect();
        }
        if self.delivery.addresses.is_empty() {
            let urls = takes.url.iter().map(|(variable, path)| (variable.clone(), format!("{address}{path}")));
            out.plain.extend(urls);
            out.args = takes.args.iter().map(|arg| arg.replace("{url}", address)).collect();
        }
        let region = self.gateway.as_ref().and_then(|target| match &target.placement {
            Placement::SigV4 { region, .. } => Some(region.as_str()),
            _ => None,
        });
        let setting = |name: &str| self.settings.text(name).or(region.filter(|_| name == "region"));
        for (variable, template) in &takes.plain {
            if let Some(content) = fill(template, setting) {
                out.plain.insert(variable.clone(), content);
            }
        }
        out.clears.extend(takes.clears.iter().map(|(variable, why)| (variable.clone(), why.clone())));
    }

    fn by_itself(&self, out: &mut HandOver) {
        let own_file = self.given.variables && self.given.mode == Some(DeliveryMode::File);
        if out.mode == DeliveryMode::File && self.kind.usual.sdk_files && !own_file {
            out.form = Form::SdkFiles;
            out.carriers = BTreeSet::from(["ANTHROPIC_CONFIG_DIR".to_owned()]);
            out.plain.insert("ANTHROPIC_PROFILE".to_owned(), SDK_PROFILE.to_owned());
        }
        if let Some(endpoint) = self.kind.usual.endpoint {
            match self.settings.text(endpoint.field).filter(|url| url.trim_end_matches('/') != endpoint.default) {
                Some(url) => {
                    out.plain.insert(endpoint.variable.to_owned(), url.trim_end_matches('/').to_owned());
                }
                None => {
                    let what = "sends the credential to another host";
                    out.clears.push((endpoint.variable.to_owned(), what.to_owned()));
                }
            }
        }
    }

    /// The variable of the caller that holds the assertion, where the identity source is one that only callers can read.
    pub fn identity_variable(&self) -> Option<&str> {
        let identity = self.identity.as_ref()?;
        let field = identity.kind.fields.iter().find(|f| f.shape == Shape::Variable)?;
        Some(identity.settings.text(field.name).unwrap_or(IDENTITY_VARIABLE))
    }

    /// Whether a credential of `other` is one of this profile too: issuer, settings and identity source are the same.
    pub fn exchanges_as(&self, other: &Self) -> bool {
        let identity = |p: &Self| p.identity.as_ref().map(|i| (i.kind.kind, i.settings.clone()));
        (self.kind.kind, &self.settings, identity(self)) == (other.kind.kind, &other.settings, identity(other))
    }

    /// Whether a yes to `other` is one to this profile too: both obtain the same credential, hand it over the same way and let the
    /// same through. The life of leases is no part of it, and neither is a passphrase that was asked for at each use before.
    pub fn grants_as(&self, other: &Self) -> bool {
        self.exchanges_as(other)
            && (&self.delivery, &self.provider, &self.gateway) == (&other.delivery, &other.provider, &other.gateway)
            && (!self.confirm || other.confirm)
    }

    /// Where the credential is valid, for an issuer that says so.
    pub fn endpoint(&self) -> Option<&str> {
        let endpoint = self.kind.usual.endpoint?;
        Some(self.settings.text(endpoint.field).unwrap_or(endpoint.default).trim_end_matches('/'))
    }

    /// Writes the profile as a file that [`Profile::parse`] reads to the same profile.
    pub fn to_toml(&self) -> String {
        let mut issuer = Table::from_iter([("kind".to_owned(), Value::String(self.kind.kind.to_owned()))]);
        issuer.extend(self.settings.0.clone());
        if let Some(identity) = &self.identity {
            let mut table = Table::from_iter([("kind".to_owned(), Value::String(identity.kind.kind.to_owned()))]);
            table.extend(identity.settings.0.clone());
            issuer.insert("identity".to_owned(), Value::Table(table));
        }
        let mut file = Table::from_iter([("issuer".to_owned(), Value::Table(issuer))]);
        if self.confirm {
            file.insert("confirm".to_owned(), Value::Boolean(true));
        }
        let mut delivery = Table::new();
        if let Some(mode) = self.given.mode {
            delivery.insert("mode".to_owned(), Value::String(mode.word().to_owned()));
        }
        if self.given.variables {
            let said = |names: &BTreeSet<String>, what: &str| {
                names.iter().map(|v| (v.clone(), Value::String(what.to_owned()))).collect::<Vec<_>>()
            };
            let mut table = said(&self.delivery.variables, "token");
            table.extend(said(&self.delivery.addresses, "url"));
            delivery.insert("env".to_owned(), Value::Table(table.into_iter().collect()));
        }
        if !delivery.is_empty() {
            file.insert("delivery".to_owned(), Value::Table(delivery));
        }
        if !self.given.gateway.is_empty() {
            file.insert("gateway".to_owned(), Value::Table(self.given.gateway.clone()));
        }
        if !self.given.fence.is_empty() {
            file.insert("fence".to_owned(), Value::Table(self.given.fence.clone()));
        }
        if self.given.max_ttl {
            let ttl = Value::String(render_duration(self.max_ttl));
            file.insert("limits".to_owned(), Value::Table(Table::from_iter([("max_ttl".to_owned(), ttl)])));
        }
        file.to_string()
    }

    /// The profile with settings of the issuer that its file leaves out.
    ///
    /// # Errors
    /// [`ProfileError`] for a setting that the issuer does not take.
    pub fn completed(
        mut self,
        found: BTreeMap<&'static str, String>,
        kinds: &[&'static KindSpec],
        families: &Families,
    ) -> Result<Self, ProfileError> {
        if found.is_empty() {
            return Ok(self);
        }
        for (field, text) in found {
            self.settings.0.entry(field).or_insert(Value::String(text));
        }
        Self::parse(self.name.clone(), &self.to_toml(), kinds, families)
    }

    /// The stored secrets that the profile refers to.
    pub fn secrets(&self) -> BTreeSet<SecretRef> {
        let identity = self.identity.iter().flat_map(|identity| identity.settings.secrets());
        self.settings.secrets().chain(identity).collect()
    }
}

impl Settings {
    /// A text setting.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }

    /// A duration setting.
    pub fn duration(&self, field: &str) -> Option<Duration> {
        self.text(field).and_then(|t| parse_duration(t).ok())
    }

    /// A list setting.
    pub fn list(&self, field: &str) -> Vec<&str> {
        self.0.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A table setting: name, and either plain text or a reference.
    pub fn table(&self, field: &str) -> Vec<(&str, Result<&str, SecretRef>)> {
        let table = self.0.get(field).and_then(Value::as_table).into_iter().flatten();
        table.filter_map(|(k, v)| Some((k.as_str(), secret_ref(v).map_or(Ok(v.as_str()?), Err)))).collect()
    }

    /// The secret that a field refers to.
    pub fn secret(&self, field: &str) -> Option<SecretRef> {
        self.0.get(field).and_then(secret_ref)
    }

    /// All secrets that are referred to, in fields and in tables.
    fn secrets(&self) -> impl Iterator<Item = SecretRef> {
        let inner = |v: &Value| v.as_table().map(|t| t.values().filter_map(secret_ref).collect::<Vec<_>>());
        self.0.values().flat_map(move |v| inner(v).unwrap_or_else(|| secret_ref(v).into_iter().collect()))
    }
}

/// The parts of an access key of AWS; the last is there for a session alone.
const ACCESS_KEY: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];
/// What names an application of Microsoft Entra.
const APPLICATION: [&str; 3] = ["tenant", "client_id", "client_secret"];

/// The kind that a profile means: `static` with the parts of an access key is `aws-credentials`, as which it is kept.
///
/// # Errors
/// Fields of two credentials, which are both named; parts that are missing.
fn meant(kind: Value, issuer: &mut Table) -> Result<Value, ProfileError> {
    let told = |cause: String, help: &str| Err(ProfileError::Invalid(cause, Some(help.to_owned())));
    if !matches!(kind.as_str(), Some("static" | "aws-credentials" | "entra-client-credentials")) {
        return Ok(kind);
    }
    let there = |fields: [&'static str; 3]| fields.into_iter().find(|field| issuer.contains_key(*field));
    match (there(ACCESS_KEY), there(APPLICATION), issuer.contains_key("secret")) {
        (part, application, true) if part.or(application).is_some() => {
            let other = part.or(application).unwrap_or_default();
            let cause = format!("`issuer.secret` and `issuer.{other}` are two credentials, and a profile has one");
            return told(cause, "take one of them away, or make two profiles");
        }
        (None, Some(field), false) if kind.as_str() == Some("static") => {
            let cause = format!("`issuer.{field}` is of an application of Microsoft Entra");
            return told(cause, "write kind = \"entra-client-credentials\"");
        }
        (Some(_), _, false) if kind.as_str() == Some("static") => {}
        _ => return Ok(kind),
    }
    match issuer.remove("provider") {
        None => {}
        Some(provider) if provider.as_str() == Some("bedrock") => {}
        Some(_) => return Err(invalid("`issuer.access_key_id` is of AWS, whose provider is `bedrock`")),
    }
    let absent = ACCESS_KEY.iter().take(2).filter(|part| !issuer.contains_key(**part));
    let absent: Vec<_> = absent.map(|part| format!("issuer.{part}")).collect();
    if !absent.is_empty() {
        return Err(ProfileError::Incomplete(absent));
    }
    Ok(Value::String("aws-credentials".to_owned()))
}

/// The kind that a profile names.
fn find(
    kinds: &[&'static KindSpec],
    role: KindRole,
    word: &Value,
    what: &str,
) -> Result<&'static KindSpec, ProfileError> {
    let Some(word) = word.as_str() else { return Err(invalid(format!("the kind of the {what} is not text"))) };
    let of_role = || kinds.iter().filter(|k| k.role == role);
    of_role().find(|k| k.kind == word).copied().ok_or_else(|| {
        let names: Vec<_> = of_role().map(|k| k.kind).collect();
        invalid(format!("there is no {what} `{}`; {}", plain(word, 40), nearest(word, &names)))
    })
}

/// Reads the section of an identity source; adds the required fields that it lacks to `absent`.
fn identity(
    mut table: Table,
    kinds: &[&'static KindSpec],
    absent: &mut Vec<String>,
) -> Result<Option<Identity>, ProfileError> {
    const AT: &str = "issuer.identity.";
    let Some(word) = table.remove("kind") else {
        absent.push(format!("{AT}kind"));
        return Ok(None);
    };
    let kind = find(kinds, KindRole::Identity, &word, "identity source")?;
    settings(&table, kind, AT)?;
    let lacking = kind.fields.iter().filter(|f| f.required && !table.contains_key(f.name));
    absent.extend(lacking.map(|f| format!("{AT}{}", f.name)));
    Ok(Some(Identity { kind, settings: Settings(table) }))
}

fn secret_ref(value: &Value) -> Option<SecretRef> {
    value.as_str()?.strip_prefix("secret:").and_then(|n| Name::parse(n).ok()).map(SecretRef)
}

fn section(file: &mut Table, name: &str) -> Result<Table, ProfileError> {
    match file.remove(name) {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(_) => Err(invalid(format!("`{name}` is not a section"))),
    }
}

/// The section of the fence, with keys that are known.
fn fence(file: &mut Table) -> Result<Table, ProfileError> {
    let is_there = file.contains_key("fence");
    let table = section(file, "fence")?;
    known(&table, &[], "fence.", &fence::KEYS)?;
    if is_there && table.is_empty() {
        return Err(invalid("`fence` says no limit"));
    }
    Ok(table)
}

/// Refuses keys that are not in `specs` or `more`, with the nearest one that is.
fn known(table: &Table, specs: &[FieldSpec], at: &str, more: &[&str]) -> Result<(), ProfileError> {
    let names: Vec<&str> = specs.iter().map(|f| f.name).chain(more.iter().copied()).collect();
    match table.keys().find(|k| !names.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => Err(invalid(format!("`{at}{}` is not known; {}", plain(key, 40), nearest(key, &names)))),
    }
}

/// Words that name the nearest of the names, or all of them where none is near.
pub(crate) fn nearest(word: &str, names: &[&str]) -> String {
    let best = names.iter().max_by(|a, b| {
        let score = |n: &str| strsim::jaro_winkler(word, n);
        score(a).total_cmp(&score(b))
    });
    match best.filter(|b| strsim::jaro_winkler(word, b) > 0.7) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("there are: {}", names.join(", ")),
    }
}

fn missing(issuer: &Table, kind: &KindSpec) -> Vec<String> {
    let required = kind.fields.iter().filter(|f| f.required && f.shape != Shape::Identity);
    required.filter(|f| !issuer.contains_key(f.name)).map(|f| format!("issuer.{}", f.name)).collect()
}

/// Checks the settings of an issuer or identity source.
fn settings(table: &Table, kind: &KindSpec, prefix: &str) -> Result<(), ProfileError> {
    known(table, kind.fields, prefix, &["kind"])?;
    for field in kind.fields {
        let Some(value) = table.get(field.name) else { continue };
        let at = format!("{prefix}{}", field.name);
        if field.secret && secret_ref(value).is_none() {
            return Err(ProfileError::Invalid(
                format!("`{at}` must name a stored secret: \"secret:NAME\""),
                Some("store it with `keyward secret set NAME`, then write \"secret:NAME\" in its place".to_owned()),
            ));
        }
        setting(field.shape, value, &at)?;
    }
    Ok(())
}

/// Keys of the section `gateway`.
const GATEWAY_KEYS: [&str; 7] = ["provider", "base_url", "header", "prefix", "query", "only", "containers"];

/// The provider: as the issuer is, or as the profile says it in one of two places.
fn provider(
    kind: &KindSpec,
    issuer: &Settings,
    gateway: &Table,
    families: &Families,
) -> Result<Option<String>, ProfileError> {
    known(gateway, &[], "gateway.", &GATEWAY_KEYS)?;
    let of_issuer = issuer.text("provider").or(kind.usual.provider);
    let named = match (of_issuer, gateway.get("provider")) {
        (Some(_), Some(_)) => return Err(invalid("`gateway.provider` is said by the issuer already")),
        (of_issuer, None) => of_issuer,
        (None, Some(value)) => {
            Some(value.as_str().ok_or_else(|| invalid("`gateway.provider` is not the name of a provider"))?)
        }
    };
    match named {
        Some(name) if !families.providers().contains(name) => {
            let names: Vec<_> = families.providers().into_iter().collect();
            Err(invalid(format!("there is no provider `{}`; {}", plain(name, 40), nearest(name, &names))))
        }
        named => Ok(named.map(str::to_owned)),
    }
}

/// What the gateway does for a profile: what its section `gateway` says, and for the rest what its provider's API is.
fn target(
    issuer: &Settings,
    provider: Option<&str>,
    section: &Table,
    families: &Families,
) -> Result<Option<Target>, ProfileError> {
    let bad = |key: &'static str| move |why: String| invalid(format!("`gateway.{key}` {why}"));
    let text = |key: &'static str| match section.get(key) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| invalid(format!("`gateway.{key}` is not text"))),
    };
    let (base_url, header, prefix, query) = (text("base_url")?, text("header")?, text("prefix")?, text("query")?);
    let only = match section.get("only") {
        None => Vec::new(),
        Some(Value::Array(list)) => {
            let calls: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            calls.ok_or_else(|| invalid("`gateway.only` holds something that is not text"))?
        }
        Some(_) => return Err(invalid("`gateway.only` is not a list such as [\"POST /v1/messages\"]")),
    };
    if section.contains_key("only") {
        gateway::check_calls(&only).map_err(bad("only"))?;
    }
    let containers = match section.get("containers") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| invalid("`gateway.containers` is not true or false"))?,
    };
    if base_url.is_some() && issuer.text("base_url").is_some() {
        return Err(invalid("`gateway.base_url` is said by the issuer already"));
    }
    let api = provider.and_then(|provider| families.api(provider));
    let given = base_url.or(issuer.text("base_url"));
    let known = match api {
        Some(api) if given.is_none() => at_home(api, issuer)?,
        _ => None,
    };
    let Some(url) = given.map(str::to_owned).or(known) else {
        if !section.is_empty() && api.is_none() {
            return Err(invalid("`gateway.base_url` is missing: nothing says where requests go"));
        }
        return Ok(None);
    };
    let path = api.map_or("", |api| api.path.as_str());
    let upstream = Upstream::parse(&url, path).map_err(|why| invalid(format!("the base URL of the gateway: {why}")))?;
    let placement = match (header, prefix, query) {
        (Some(_), _, Some(_)) => return Err(invalid("`gateway.header` and `gateway.query` are both there")),
        (None, Some(_), _) => return Err(invalid("`gateway.prefix` stands before the content of a `gateway.header`")),
        (Some(name), prefix, None) => {
            gateway::check_header(name).map_err(bad("header"))?;
            let prefix = prefix.unwrap_or_default();
            gateway::check_prefix(prefix).map_err(bad("prefix"))?;
            Placement::Header(name.to_owned(), prefix.to_owned())
        }
        (None, None, Some(name)) => {
            gateway::check_query(name).map_err(bad("query"))?;
            Placement::Query(name.to_owned())
        }
        (None, None, None) => {
            let stored = issuer.text("provider").is_some();
            match api.map(|api| if stored { &api.stored } else { &api.issued }) {
                None | Some(Put::Bearer) => Placement::Bearer,
                Some(Put::BearerOauth) => Placement::BearerOauth,
                Some(Put::Header(name)) => Placement::Header(name.clone(), String::new()),
                Some(Put::Sigv4(service)) => match region(api, issuer)? {
                    Some(region) => Placement::SigV4 { service: service.clone(), region },
                    None => return Ok(None),
                },
            }
        }
    };
    let route = api.map_or_else(|| "generic".to_owned(), |api| api.route.clone());
    if api.is_none() && only.is_empty() {
        let help = "write the calls that it may make: only = [\"POST /v1/chat\"]".to_owned();
        let cause = "`gateway.only` is missing: nothing says what may be called there".to_owned();
        // A base URL of the issuer alone asks for nothing of the gateway.
        return if section.is_empty() { Ok(None) } else { Err(ProfileError::Invalid(cause, Some(help))) };
    }
    Ok(Some(Target { route, upstream, placement, only, containers, fence: None }))
}

/// The region that a profile names, or the one that is taken where it names none.
fn region(api: Option<&Api>, issuer: &Settings) -> Result<Option<String>, ProfileError> {
    let default = api.and_then(|api| api.defaults.get("region")).map(String::as_str);
    let Some(name) = issuer.text("region").or(default) else { return Ok(None) };
    gateway::check_region(name).map_err(|why| invalid(format!("`issuer.region` {why}")))?;
    Ok(Some(name.to_owned()))
}

/// Where the API of a provider is for the settings of an issuer; `None` where one that it takes is not there.
fn at_home(api: &Api, issuer: &Settings) -> Result<Option<String>, ProfileError> {
    let region = region(Some(api), issuer)?;
    if let Some(url) = region.as_ref().and_then(|region| api.by_region.get(region)) {
        return Ok(Some(url.clone()));
    }
    if let Some(resource) = issuer.text("resource") {
        let small = resource.to_ascii_lowercase();
        gateway::check_region(&small).map_err(|_| invalid("`issuer.resource` is not the name of a resource"))?;
    }
    Ok(fill(&api.base_url, |name| if name == "region" { region.as_deref() } else { issuer.text(name) }))
}

/// Puts settings in the place of their names in braces; `None` where one is not there.
fn fill<'s>(template: &str, setting: impl Fn(&str) -> Option<&'s str>) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}')?;
        out.push_str(before);
        out.push_str(setting(name)?);
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

/// Checks one setting against its shape.
fn setting(shape: Shape, value: &Value, at: &str) -> Result<(), ProfileError> {
    let not = |what: &str| Err(invalid(format!("`{at}` is not {what}")));
    let text = value.as_str().filter(|t| !t.is_empty() && !t.contains('\0'));
    match (shape, value, text) {
        (Shape::Text, _, Some(_)) => Ok(()),
        (Shape::Text, _, None) => not("text"),
        (Shape::OneOf(words), _, Some(text)) if words.contains(&text) => Ok(()),
        (Shape::OneOf(words), _, _) => Err(invalid(format!("`{at}` is one of: {}", words.join(", ")))),
        (Shape::Duration, _, Some(text)) => parse_duration(text).map(drop).map_err(|e| invalid(format!("`{at}`: {e}"))),
        (Shape::Duration, _, None) => not("a duration such as \"30s\""),
        (Shape::Program, Value::Array(list), _) => program(list, at),
        (Shape::Program, _, _) => not("a list such as [\"/usr/bin/mint\", \"--json\"]"),
        (Shape::Variables, Value::Table(table), _) => inherited(table, at),
        (Shape::Variables, _, _) => not("a table of variables"),
        (Shape::Url, _, Some(text)) => check_url(text).map(drop).map_err(|e| invalid(format!("`{at}`: {e}"))),
        (Shape::Url, _, None) => not("a URL"),
        (Shape::Path, _, Some(text)) if text.starts_with('/') => Ok(()),
        (Shape::Path, _, _) => not("an absolute path"),
        (Shape::Variable, _, Some(text)) => check_variable(text).map_err(ProfileError::Variable),
        (Shape::Variable, _, None) => not("the name of a variable"),
        (Shape::Uuid, _, Some(text)) if text.len() == 36 && uuid::Uuid::try_parse(text).is_ok() => Ok(()),
        (Shape::Uuid, _, _) => not("a UUID such as \"00000000-0000-0000-0000-000000000000\""),
        (Shape::Tagged(tag, words), _, Some(text)) if is_tagged(text, tag) || words.contains(&text) => Ok(()),
        (Shape::Tagged(tag, words), _, _) => {
            let or: Vec<String> = words.iter().map(|w| format!(" or \"{w}\"")).collect();
            not(&format!("an identifier such as \"{tag}01AbC…\"{}", or.concat()))
        }
        // Read by `identity`, and taken out before the settings are checked.
        (Shape::Identity, _, _) => not("known here"),
    }
}

fn is_tagged(text: &str, tag: &str) -> bool {
    text.strip_prefix(tag)
        .is_some_and(|rest| (1..=100).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn program(list: &[Value], at: &str) -> Result<(), ProfileError> {
    let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    match words {
        Some(words) if words.iter().any(|w| w.contains('\0')) => Err(invalid(format!("`{at}` holds a NUL byte"))),
        Some(words) if words.first().is_some_and(|w| w.starts_with('/')) => Ok(()),
        Some(_) => Err(invalid(format!("`{at}` must begin with the absolute path of a program; nothing is looked up"))),
        None => Err(invalid(format!("`{at}` holds something that is not text"))),
    }
}

/// Variables for a program that Keyward itself starts: neither loaders nor a secret written in place.
fn inherited(table: &Table, at: &str) -> Result<(), ProfileError> {
    for (name, value) in table {
        check_variable(name).map_err(ProfileError::Variable)?;
        if !value.is_str() {
            return Err(invalid(format!("`{at}.{name}` is not text")));
        }
        let upper = name.to_ascii_uppercase();
        let smells = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY"].iter().any(|w| upper.contains(w));
        let is_path = value.as_str().is_some_and(|v| v.starts_with('/'));
        if smells && secret_ref(value).is_none() && !is_path {
            return Err(ProfileError::Invalid(
                format!("`{at}.{name}` looks like a secret written in place"),
                Some("store it with `keyward secret set NAME`, then write \"secret:NAME\" in its place".to_owned()),
            ));
        }
    }
    Ok(())
}

/// The variables that a profile names for the credential, and for the address of the gateway.
fn variables(table: Table) -> Result<(BTreeSet<String>, BTreeSet<String>), ProfileError> {
    if table.is_empty() || table.len() > 16 {
        return Err(invalid("delivery.env names no variable, or more than 16"));
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in table {
        match value.as_str() {
            Some("token") => {
                check_variable(&name).map_err(ProfileError::Variable)?;
                names.insert(name);
            }
            Some("url") => {
                check_address(&name).map_err(ProfileError::Variable)?;
                addresses.insert(name);
            }
            _ => {
                let cause = format!("delivery.env.{} must be \"token\", or \"url\"", plain(&name, 64));
                return Err(invalid(cause));
            }
        }
    }
    if names.is_empty() {
        return Err(invalid("delivery.env names no variable for the token"));
    }
    Ok((names, addresses))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use crate::{Endpoint, Usual};

    const FEDERATION: KindSpec = KindSpec {
        kind: "federation",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "base_url", shape: Shape::Url, required: false, secret: false, about: "" },
            FieldSpec { name: "rule", shape: Shape::Tagged("fdrl_", &[]), required: true, secret: false, about: "" },
            FieldSpec {
                name: "space",
                shape: Shape::Tagged("wrkspc_", &["default"]),
                required: false,
                secret: false,
                about: "",
            },
            FieldSpec { name: "organization", shape: Shape::Uuid, required: true, secret: false, about: "" },
            FieldSpec { name: "identity", shape: Shape::Identity, required: true, secret: false, about: "" },
        ],
        usual: Usual {
            variables: &["ANTHROPIC_AUTH_TOKEN"],
            sdk_files: true,
            provider: Some("anthropic"),
            endpoint: Some(Endpoint {
                field: "base_url",
                variable: "ANTHROPIC_BASE_URL",
                default: "https://api.anthropic.com",
            }),
        },
    };
    const FILE: KindSpec = KindSpec {
        kind: "file",
        role: KindRole::Identity,
        about: "",
        fields: &[
            FieldSpec { name: "path", shape: Shape::Path, required: true, secret: false, about: "" },
            FieldSpec { name: "key", shape: Shape::Text, required: false, secret: true, about: "" },
        ],
        usual: Usual::NONE,
    };
    const STATIC: KindSpec = KindSpec {
        kind: "static",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "secret", shape: Shape::Text, required: true, secret: true, about: "" },
            FieldSpec { name: "provider", shape: Shape::Text, required: false, secret: false, about: "" },
            FieldSpec { name: "base_url", shape: Shape::Url, required: false, secret: false, about: "" },
        ],
        usual: Usual::NONE,
    };
    const AWS: KindSpec = KindSpec {
        kind: "aws-credentials",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "access_key_id", shape: Shape::Text, required: false, secret: true, about: "" },
            FieldSpec { name: "secret_access_key", shape: Shape::Text, required: false, secret: true, about: "" },
            FieldSpec { name: "session_token", shape: Shape::Text, required: false, secret: true, about: "" },
            FieldSpec { name: "region", shape: Shape::Text, required: false, secret: false, about: "" },
        ],
        usual: Usual { provider: Some("bedrock"), ..Usual::NONE },
    };
    const COMMAND: KindSpec = KindSpec {
        kind: "command",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "argv", shape: Shape::Program, required: true, secret: false, about: "" },
            FieldSpec { name: "env", shape: Shape::Variables, required: false, secret: false, about: "" },
            FieldSpec { name: "timeout", shape: Shape::Duration, required: false, secret: false, about: "" },
            FieldSpec { name: "region", shape: Shape::Text, required: false, secret: false, about: "" },
        ],
        usual: Usual::NONE,
    };

    fn parse(text: &str) -> Result<Profile, ProfileError> {
        let families = Families::built_in().unwrap_or_else(|e| panic!("{e}"));
        Profile::parse(Name::parse("p").unwrap(), text, &[&STATIC, &AWS, &COMMAND, &FEDERATION, &FILE], &families)
    }

    #[test]
    fn stored_access_keys_of_aws_are_static_as_well() {
        let keys = "access_key_id = \"secret:a\"\nsecret_access_key = \"secret:b\"\n";
        for more in ["", "provider = \"bedrock\"\n", "session_token = \"secret:c\"\n", "region = \"eu-west-1\"\n"] {
            let profile = parse(&format!("[issuer]\nkind = \"static\"\n{keys}{more}")).unwrap();
            assert_eq!(
                (profile.kind.kind, profile.provider.as_deref()),
                ("aws-credentials", Some("bedrock")),
                "{more}"
            );
            let text = profile.to_toml();
            assert!(text.contains("kind = \"aws-credentials\""), "{text}");
            assert_eq!(parse(&text).unwrap().to_toml(), text);
            assert_eq!(profile.secrets().len(), if more.contains("secret:c") { 3 } else { 2 });
        }
        let key = |fields: &str| refused(&format!("[issuer]\nkind = \"static\"\n{fields}"));
        assert_eq!(key("access_key_id = \"secret:a\""), "profile.incomplete: `issuer.secret_access_key` is missing");
        assert!(key(&format!("{keys}provider = \"openai\"")).contains("is `bedrock`"));
        assert!(
            key("access_key_id = \"AKIA\"\nsecret_access_key = \"secret:b\"").contains("must name a stored secret")
        );
    }

    #[test]
    fn two_credentials_in_one_profile_are_both_named() {
        for (kind, fields) in [
            ("static", "tenant = \"t\""),
            ("static", "client_id = \"c\"\nprovider = \"foundry\""),
            ("static", "access_key_id = \"secret:a\""),
            ("entra-client-credentials", "tenant = \"t\""),
            ("aws-credentials", "session_token = \"secret:a\""),
        ] {
            let told = refused(&format!("[issuer]\nkind = \"{kind}\"\nsecret = \"secret:k\"\n{fields}"));
            let other = fields.split(' ').next().unwrap();
            assert!(told.contains("`issuer.secret`") && told.contains(&format!("`issuer.{other}`")), "{told}");
        }
        let told = parse("[issuer]\nkind = \"static\"\ntenant = \"t\"").unwrap_err().fault();
        assert!(told.help.contains("entra-client-credentials"), "{told}");
    }

    fn refused(text: &str) -> String {
        let fault = parse(text).map(|_| ()).unwrap_err().fault();
        format!("{}: {}", fault.code, fault.causes.join("; "))
    }

    #[test]
    fn a_profile_is_read_and_written_back() {
        for text in [
            "[issuer]\nkind = \"static\"\nsecret = \"secret:pg\"\n[delivery]\nenv = { DATABASE_URL = \"token\" }\n",
            "[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\n[limits]\nmax_ttl = \"1h30m\"\n",
            "[issuer]\nkind = \"command\"\nargv = [\"/bin/mint\", \"-x\"]\nenv = { A_TOKEN = \"secret:a\", REGION = \"eu\" }\n[delivery]\nmode = \"file\"\nenv = { T_FILE = \"token\" }\n",
            "confirm = true\n[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\n",
        ] {
            let profile = parse(text).unwrap();
            let again = parse(&profile.to_toml()).unwrap();
            assert_eq!(again.to_toml(), profile.to_toml());
            assert_eq!((again.confirm, profile.confirm), (text.starts_with("confirm"), again.confirm));
            assert_eq!(again.delivery, profile.delivery);
            assert_eq!(again.max_ttl, profile.max_ttl);
        }
        let provider = parse("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"github\"\n").unwrap();
        assert_eq!(provider.delivery.variables, BTreeSet::from(["GITHUB_TOKEN".to_owned()]));
        assert_eq!(provider.max_ttl, TTL_MAX);
    }

    #[test]
    fn missing_fields_are_all_named() {
        assert_eq!(refused(""), "profile.incomplete: `issuer.kind` is missing");
        assert_eq!(
            refused("[issuer]\nkind = \"static\"\n"),
            "profile.incomplete: `issuer.secret` is missing; `delivery.env` is missing"
        );
        assert_eq!(
            refused("[issuer]\nkind = \"command\"\n[delivery]\nenv = { A = \"token\" }"),
            "profile.incomplete: `issuer.argv` is missing"
        );
    }

    #[test]
    fn a_yes_to_a_profile_is_none_to_another_reach() {
        let text = "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = { A = \"token\" }\n[gateway]\nbase_url = \"https://a.example\"\nheader = \"x-key\"\nonly = [\"GET /a\"]\n";
        let same = |from: &str, to: &str| parse(to).unwrap().grants_as(&parse(from).unwrap());
        assert!(same(text, text) && same(text, &format!("{text}[limits]\nmax_ttl = \"30m\"")));
        for (from, to) in [
            ("secret:a", "secret:b"),
            ("kind = \"static\"\nsecret = \"secret:a\"", "kind = \"command\"\nargv = [\"/m\"]"),
            ("A = \"token\"", "B = \"token\""),
            ("[delivery]\n", "[delivery]\nmode = \"file\"\n"),
            ("a.example", "b.example"),
            ("x-key", "y-key"),
            ("\"GET /a\"", "\"GET /a\", \"GET /b\""),
            ("only", "containers = true\nonly"),
        ] {
            let other = text.replace(from, to);
            assert!(!same(text, &other) && !same(&other, text), "{other}");
        }
        let fenced = text.replace("[delivery]\n", "[fence]\nrequests = 5\n[delivery]\nmode = \"gateway\"\n");
        assert!(!same(&fenced, &fenced.replace('5', "50")), "{fenced}");
        let careful = format!("confirm = true\n{text}");
        assert!(!same(text, &careful) && same(&careful, text));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_nearest_word() {
        for (text, want) in [
            ("[issuer]\nkind = \"statik\"", "profile.invalid: there is no issuer `statik`; did you mean `static`?"),
            (
                "[issuer]\nkind = \"static\"\nsecrett = \"secret:a\"",
                "`issuer.secrett` is not known; did you mean `secret`?",
            ),
            ("[isuer]\nkind = \"static\"", "`isuer` is not known; did you mean `issuer`?"),
            ("[issuer]\nkind = \"static\"\nsecret = \"sk-live-1\"", "`issuer.secret` must name a stored secret"),
            ("[issuer]\nkind = \"command\"\nargv = [\"mint\"]", "must begin with the absolute path"),
            ("[issuer]\nkind = \"command\"\nargv = \"/bin/mint\"", "is not a list"),
            ("[issuer]\nkind = \"command\"\nargv = [\"/m\"]\nenv = { API_KEY = \"abc\" }", "looks like a secret"),
            (
                "[issuer]\nkind = \"command\"\nargv = [\"/m\"]\nenv = { LD_PRELOAD = \"/x\" }",
                "delivery.variable_refused",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = { PATH = \"token\" }",
                "delivery.variable_refused",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = { A-B = \"token\" }",
                "profile.invalid: `A-B` is not a variable name",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = { A = \"tok\" }",
                "must be \"token\"",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nmode = \"endpoint\"",
                "not one that this version has",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nmode = \"gateway\"\nenv = { A = \"token\" }",
                "nothing says where requests go",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\nprovider = \"antropic\"",
                "did you mean `anthropic`?",
            ),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nenv = { A = \"token\" }\n[limits]\nmax_ttl = \"2d\"",
                "longer than 24h",
            ),
            ("[issuer]\nkind = \"command\"\nargv = [\"/m\"]\ntimeout = \"soon\"", "not a duration"),
        ] {
            assert!(refused(text).contains(want), "{text}\n{}", refused(text));
        }
    }

    const FEDERATED: &str = "[issuer]\nkind = \"federation\"\nrule = \"fdrl_01A\"\norganization = \"00000000-0000-0000-0000-000000000000\"\n";

    #[test]
    fn an_identity_source_is_read_checked_and_written_back() {
        let p = parse(&format!("{FEDERATED}[issuer.identity]\nkind = \"file\"\npath = \"/t\"\nkey = \"secret:k\""))
            .unwrap();
        let identity = p.identity.as_ref().unwrap();
        assert_eq!((identity.kind.kind, identity.settings.text("path")), ("file", Some("/t")));
        assert_eq!(p.secrets().len(), 1);
        assert_eq!(parse(&p.to_toml()).unwrap().to_toml(), p.to_toml());
        let file = |more: &str| format!("{FEDERATED}[issuer.identity]\n{more}");
        for (text, want) in [
            (file("kind = \"fil\""), "there is no identity source `fil`; did you mean `file`?"),
            (file("kind = \"static\""), "there is no identity source `static`"),
            (file("kind = \"file\"\npath = \"t\""), "`issuer.identity.path` is not an absolute path"),
            (
                file("kind = \"file\"\npath = \"/t\"\npaht = \"/t\""),
                "`issuer.identity.paht` is not known; did you mean `path`?",
            ),
            (file("kind = \"file\"\npath = \"/t\"\nkey = \"hunter2\""), "must name a stored secret"),
            ("[issuer]\nkind = \"file\"".to_owned(), "there is no issuer `file`"),
            ("[issuer]\nkind = \"federation\"\nidentity = 1".to_owned(), "`issuer.identity` is not a section"),
        ] {
            assert!(refused(&text).contains(want), "{text}\n{}", refused(&text));
        }
        let all = refused("[issuer]\nkind = \"federation\"");
        for field in ["issuer.rule", "issuer.organization", "issuer.identity.kind"] {
            assert!(all.contains(field), "{all}");
        }
        assert!(refused(&file("kind = \"file\"")).contains("`issuer.identity.path` is missing"));
    }

    #[test]
    fn identifiers_and_urls_have_their_shapes() {
        let rule = |rule: &str| format!("[issuer]\nkind = \"federation\"\nrule = {rule}");
        for bad in ["\"fdrl\"", "\"fdrl_\"", "\"fdrl_a b\"", "\"svac_01\"", "\"fdrl_ä\"", "1", "\"\""] {
            assert!(refused(&rule(bad)).contains("is not an identifier such as \"fdrl_"), "{bad}");
        }
        let more = |field: &str| format!("{FEDERATED}{field}\n[issuer.identity]\nkind = \"file\"\npath = \"/t\"");
        assert!(parse(&more("space = \"default\"")).is_ok());
        assert!(refused(&more("space = \"defaults\"")).contains("or \"default\""));
        assert!(refused(&more("base_url = \"http://api.example\"")).contains("base_url"));
        assert!(refused("[issuer]\nkind = \"federation\"\norganization = \"0\"").contains("is not a UUID"));
    }

    #[test]
    fn a_federated_profile_takes_the_files_of_the_sdks_unless_it_says_otherwise() {
        let of = |base: &str, delivery: &str| {
            parse(&format!("{FEDERATED}{base}\n[issuer.identity]\nkind = \"file\"\npath = \"/t\"\n{delivery}")).unwrap()
        };
        let names = |h: &HandOver| h.carriers.iter().chain(h.plain.keys()).cloned().collect::<Vec<_>>();
        let over = |p: &Profile, mode: DeliveryMode| p.hand_over(mode, None, "http://127.0.0.1:1");
        let usual = over(&of("", ""), DeliveryMode::File);
        assert_eq!((usual.mode, usual.form), (DeliveryMode::File, Form::SdkFiles));
        assert_eq!(names(&usual), ["ANTHROPIC_CONFIG_DIR", "ANTHROPIC_PROFILE"]);
        assert_eq!(usual.clears.first().map(|c| c.0.as_str()), Some("ANTHROPIC_BASE_URL"));

        let elsewhere = of("base_url = \"http://127.0.0.1:9/\"", "[delivery]\nmode = \"env\"");
        let elsewhere = over(&elsewhere, DeliveryMode::Env);
        assert_eq!(names(&elsewhere), ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"]);
        assert_eq!(elsewhere.plain["ANTHROPIC_BASE_URL"], "http://127.0.0.1:9");
        assert!(elsewhere.clears.is_empty());

        let own = of("", "[delivery]\nmode = \"file\"\nenv = { T = \"token\" }");
        let given = over(&own, DeliveryMode::File);
        assert_eq!((given.form, names(&given)), (Form::Bytes, vec!["T".to_owned()]));
        let asked = of("", "[delivery]\nenv = { T = \"token\" }");
        assert_eq!(
            (asked.delivery.mode, names(&over(&asked, DeliveryMode::Env))),
            (Some(DeliveryMode::Env), vec!["T".to_owned()])
        );
        assert_eq!(over(&asked, DeliveryMode::File).form, Form::SdkFiles, "a path is no token");
    }

    #[test]
    fn a_profile_says_where_the_gateway_sends_its_requests() {
        let key = |more: &str| format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n{more}");
        let mint = |more: &str| format!("[issuer]\nkind = \"command\"\nargv = [\"/m\"]\n{more}");
        let federated = format!("{FEDERATED}[issuer.identity]\nkind = \"file\"\npath = \"/t\"");
        let only = "only = [\"POST /v1/x\"]\n[delivery]\nenv = { K = \"token\" }";
        let header = |name: &str, prefix: &str| Placement::Header(name.to_owned(), prefix.to_owned());
        for (text, route, host, port, base, placement) in [
            (key("provider = \"anthropic\""), "anthropic", "api.anthropic.com", 443, "", header("x-api-key", "")),
            (federated, "anthropic", "api.anthropic.com", 443, "", Placement::BearerOauth),
            (
                key("provider = \"openai\"\nbase_url = \"http://127.0.0.1:8080/api/v1/\""),
                "openai",
                "127.0.0.1",
                8080,
                "/api",
                Placement::Bearer,
            ),
            (
                key("provider = \"anthropic\"\n[gateway]\nheader = \"authorization\"\nprefix = \"Bearer \""),
                "anthropic",
                "api.anthropic.com",
                443,
                "",
                header("authorization", "Bearer "),
            ),
            (
                mint("region = \"eu-west-1\"\n[gateway]\nprovider = \"bedrock\""),
                "bedrock",
                "bedrock-runtime.eu-west-1.amazonaws.com",
                443,
                "",
                Placement::SigV4 { service: "bedrock".to_owned(), region: "eu-west-1".to_owned() },
            ),
            (
                mint("region = \"global\"\n[gateway]\nprovider = \"vertex\""),
                "vertex",
                "aiplatform.googleapis.com",
                443,
                "",
                Placement::Bearer,
            ),
            (
                mint("region = \"europe-west1\"\n[gateway]\nprovider = \"vertex\""),
                "vertex",
                "europe-west1-aiplatform.googleapis.com",
                443,
                "",
                Placement::Bearer,
            ),
            (
                key("provider = \"foundry\"\nbase_url = \"https://r.services.ai.azure.com/anthropic/\""),
                "foundry",
                "r.services.ai.azure.com",
                443,
                "",
                header("api-key", ""),
            ),
            (
                key(&format!("[gateway]\nbase_url = \"https://api.example/v2\"\nquery = \"key\"\n{only}")),
                "generic",
                "api.example",
                443,
                "/v2",
                Placement::Query("key".to_owned()),
            ),
            (
                key(&format!("[gateway]\nbase_url = \"https://api.example:8443\"\n{only}")),
                "generic",
                "api.example",
                8443,
                "",
                Placement::Bearer,
            ),
        ] {
            let profile = parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let target = profile.gateway.clone().unwrap_or_else(|| panic!("{text}"));
            let upstream = Upstream { tls: host != "127.0.0.1", host: host.into(), port, base: base.into() };
            assert_eq!((target.route.as_str(), &target.upstream, &target.placement), (route, &upstream, &placement));
            let again = parse(&profile.to_toml()).unwrap();
            assert_eq!((again.to_toml(), again.gateway), (profile.to_toml(), profile.gateway));
        }
        // What nothing is known of has no gateway; what lacks a part of its address has none either.
        for text in [
            key("[delivery]\nenv = { K = \"token\" }"),
            key("base_url = \"https://api.example\"\n[delivery]\nenv = { K = \"token\" }"),
            key("provider = \"stripe\""),
            key("provider = \"foundry\""),
        ] {
            assert_eq!(parse(&text).unwrap().gateway, None, "{text}");
        }
        let missing = "[issuer]\nkind = \"command\"\nargv = [\"/m\"]\n[gateway]\nprovider = \"vertex\"";
        assert!(refused(missing).contains("`delivery.env` is missing"), "{}", refused(missing));
    }

    #[test]
    fn the_section_gateway_is_checked() {
        let known = |more: &str| {
            format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\n{more}")
        };
        let full = known(
            "[delivery]\nmode = \"gateway\"\nenv = { MY_KEY = \"token\", MY_BASE_URL = \"url\" }\n[gateway]\nonly = [\"POST /v1/messages\"]\ncontainers = true",
        );
        let profile = parse(&full).unwrap();
        let target = profile.gateway.clone().unwrap();
        assert_eq!((target.only, target.containers), (vec!["POST /v1/messages".to_owned()], true));
        let given = profile.hand_over(DeliveryMode::Gateway, None, "http://127.0.0.1:7");
        assert_eq!(given.carriers, BTreeSet::from(["MY_KEY".to_owned()]));
        assert_eq!(given.plain, BTreeMap::from([("MY_BASE_URL".to_owned(), "http://127.0.0.1:7".to_owned())]));
        assert_eq!(parse(&profile.to_toml()).unwrap().delivery, profile.delivery);
        let bare = |more: &str| {
            format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n{more}\n[delivery]\nenv = {{ K = \"token\" }}")
        };
        for (text, want) in [
            (known("[gateway]\nonyl = []"), "`gateway.onyl` is not known; did you mean `only`?"),
            (known("[gateway]\nonly = []"), "`gateway.only` names no call"),
            (known("[gateway]\nonly = [\"POST v1\"]"), "is not written as"),
            (known("[gateway]\nonly = \"POST /v1\""), "is not a list"),
            (known("[gateway]\nonly = [1]"), "not text"),
            (known("[gateway]\ncontainers = 1"), "is not true or false"),
            (known("[gateway]\nheader = \"host\""), "cannot be `host`"),
            (known("[gateway]\nheader = \"X-Key\""), "lower case"),
            (known("[gateway]\nheader = \"x-key\"\nprefix = \"a\\r\\nb\""), "`gateway.prefix`"),
            (known("[gateway]\nprefix = \"Bearer \""), "stands before the content of a `gateway.header`"),
            (known("[gateway]\nheader = \"x-k\"\nquery = \"key\""), "are both there"),
            (known("[gateway]\nquery = \"a&b\""), "`gateway.query`"),
            (known("[gateway]\nprovider = \"openai\""), "is said by the issuer already"),
            (known("[gateway]\nbase_url = \"http://api.example\""), "must begin with https"),
            (known("base_url = \"https://a\"\n[gateway]\nbase_url = \"https://b\""), "is said by the issuer already"),
            (bare("[gateway]\nprovider = \"antropic\""), "did you mean `anthropic`?"),
            (bare("[gateway]\nonly = [\"GET /\"]"), "`gateway.base_url` is missing"),
            (bare("[gateway]\nbase_url = \"https://a\""), "`gateway.only` is missing"),
            ("gateway = 1\n[issuer]\nkind = \"static\"".to_owned(), "`gateway` is not a section"),
            (
                known("[delivery]\nmode = \"gateway\"\nenv = { HTTPS_PROXY = \"url\", K = \"token\" }"),
                "delivery.variable_refused",
            ),
            (known("[delivery]\nmode = \"gateway\"\nenv = { A_BASE_URL = \"url\" }"), "no variable for the token"),
            (known("[delivery]\nenv = { A_BASE_URL = \"url\", K = \"token\" }"), "takes mode = \"gateway\""),
            (known("[delivery]\nmode = \"gateway\"\nenv = { A_BASE_URL = \"token\" }"), "delivery.variable_refused"),
        ] {
            assert!(refused(&text).contains(want), "{text}\n{}", refused(&text));
        }
        for region in ["eu.evil.example/", "eu@evil", "EU", ""] {
            let text = format!(
                "[issuer]\nkind = \"command\"\nargv = [\"/m\"]\nregion = \"{region}\"\n[gateway]\nprovider = \"vertex\""
            );
            assert!(parse(&text).is_err(), "{region}");
        }
    }

    #[test]
    fn a_fence_is_kept_by_the_gateway_and_leaves_nothing_else() {
        let known = |more: &str| {
            format!("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\nprovider = \"anthropic\"\n{more}")
        };
        let limits = "[fence]\nrequests = 1000\nrequests_per_minute = 60\nmodels = [\"claude-haiku-*\"]\nusd = 5.0\n";
        for delivery in ["", "[delivery]\nmode = \"gateway\"\n", "[delivery]\nenv = { K = \"token\" }\n"] {
            let profile = parse(&known(&format!("{delivery}{limits}"))).unwrap();
            let fence = profile.fence().unwrap();
            assert_eq!((fence.requests, fence.models.len(), fence.usd), (Some(1000), 1, Some(crate::Usd(5_000_000))));
            assert_ne!(profile.delivery.mode, Some(DeliveryMode::Env), "{delivery}");
            let again = parse(&profile.to_toml()).unwrap();
            assert_eq!((again.to_toml(), again.gateway), (profile.to_toml(), profile.gateway));
        }
        assert_eq!(parse(&known("")).unwrap().fence(), None);
        for (text, want) in [
            (known("[fence]"), "`fence` says no limit"),
            (known("[fence]\nrequest = 1"), "`fence.request` is not known; did you mean `requests`?"),
            (known("[fence]\nrequests = 0"), "`fence.requests` is not a whole number from 1"),
            (known("fence = 1\n"), "`issuer.fence` is not known"),
            (known("[delivery]\nmode = \"env\"\n[fence]\nrequests = 1"), "delivery.mode is another"),
            (known("[delivery]\nmode = \"file\"\n[fence]\nrequests = 1"), "delivery.mode is another"),
            (
                "[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n[delivery]\nenv = { K = \"token\" }\n[fence]\nrequests = 1"
                    .to_owned(),
                "nothing says where requests go",
            ),
        ] {
            assert!(refused(&text).contains(want), "{text}\n{}", refused(&text));
        }
    }

    proptest::proptest! {
        /// Whatever a section holds, it is refused or read to a target that survives being written back, and that goes
        /// nowhere but to the host of its URL.
        #[test]
        fn a_gateway_section_is_written_back_to_the_same_target(
            host in "[a-z]{1,8}(\\.[a-z]{1,8})?", port in proptest::option::of(1..65_535_u16), base in "(/[a-z0-9]{1,5}){0,3}/?",
            placing in proptest::option::of((proptest::bool::ANY, "[a-zA-Z0-9 :\\-]{0,10}", "[ -~]{0,6}")),
            calls in proptest::collection::vec("(GET|POST|TRACE|get) /[a-z{}./]{0,10}", 0..4),
            containers in proptest::option::of(proptest::bool::ANY),
        ) {
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            let mut section = Table::from_iter([("base_url".to_owned(), Value::String(format!("https://{host}{port}{base}")))]);
            match placing {
                Some((true, name, prefix)) => {
                    section.insert("header".to_owned(), Value::String(name));
                    section.insert("prefix".to_owned(), Value::String(prefix));
                }
                Some((false, name, _)) => drop(section.insert("query".to_owned(), Value::String(name))),
                None => {}
            }
            section.insert("only".to_owned(), Value::Array(calls.into_iter().map(Value::String).collect()));
            if let Some(containers) = containers {
                section.insert("containers".to_owned(), Value::Boolean(containers));
            }
            let mut file: Table = toml::from_str("[issuer]\nkind = \"static\"\nsecret = \"secret:k\"\n[delivery]\nenv = { K = \"token\" }").unwrap();
            file.insert("gateway".to_owned(), Value::Table(section));
            if let Ok(profile) = parse(&file.to_string()) {
                let target = profile.gateway.clone().unwrap();
                proptest::prop_assert_eq!(&target.upstream.host, &host);
                proptest::prop_assert!(target.upstream.tls && !target.upstream.base.ends_with('/'));
                let again = parse(&profile.to_toml()).unwrap();
                proptest::prop_assert_eq!(again.gateway, profile.gateway);
            }
        }
    }

    #[test]
    fn a_secret_pasted_into_the_wrong_place_is_not_quoted() {
        for text in [
            "[issuer]\nkind = \"static\"\nsecret = \"sk-live-XYZ\"",
            "sk-live-XYZ",
            "[issuer]\nkind = \"static\"\nsecret = sk-live-XYZ",
        ] {
            assert!(!refused(text).contains("XYZ"), "{}", refused(text));
        }
    }
}
