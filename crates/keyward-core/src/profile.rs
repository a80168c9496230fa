//! Profiles: how a credential is obtained and how it is handed over.

use crate::time::{parse_duration, render_duration};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryMode {
    /// A variable holds the credential.
    Env,
    /// A variable holds the path of a private memory-backed file that is kept fresh.
    File,
}

impl DeliveryMode {
    const ALL: [Self; 2] = [Self::Env, Self::File];

    /// The word for it in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
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
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.word() == word)
    }
}

/// Where the credential goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The way that the profile chose, or `env` where it names variables only.
    pub mode: DeliveryMode,
    /// Variables that carry the credential (or its file's path).
    pub variables: BTreeSet<String>,
}

/// What a file delivery consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One file with the credential's bytes; the variable holds its path.
    Bytes,
    /// The folder that Anthropic's SDKs and Claude Code read: `configs/NAME.json` and `credentials/NAME.json`; the variable
    /// holds the folder's path.
    SdkFiles,
}

/// What one profile gives to a child, before anything is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// How the credential reaches the child.
    pub mode: DeliveryMode,
    /// What a file delivery consists of.
    pub form: Form,
    /// Variables that hold the credential, or its path.
    pub carriers: BTreeSet<String>,
    /// Variables beside it that hold no secret.
    pub plain: BTreeMap<String, String>,
    /// Variables that would send the credential elsewhere or choose another, each with what it is.
    pub clears: Vec<(String, &'static str)>,
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
    /// Longest life of a lease.
    pub max_ttl: Duration,
    given: Given,
}

/// What the file said, so that it is written back the same way.
#[derive(Debug, Clone)]
struct Given {
    mode: Option<DeliveryMode>,
    variables: bool,
    max_ttl: bool,
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
        known(&file, &[], "", &["issuer", "delivery", "limits"])?;

        let kind = match issuer.remove("kind") {
            None => return Err(ProfileError::Incomplete(vec!["issuer.kind".to_owned()])),
            Some(word) => find(kinds, KindRole::Issuer, &word, "issuer")?,
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
        let provider = settings(&issuer, kind, "issuer.")?;

        let mode = match delivery.remove("mode") {
            None => None,
            Some(Value::String(word)) => Some(DeliveryMode::parse(&word).ok_or_else(|| {
                invalid(format!("delivery.mode `{}` is not one that this version has: env, file", plain(&word, 20)))
            })?),
            Some(_) => return Err(invalid("delivery.mode is not text")),
        };
        let given_variables = delivery.remove("env");
        known(&delivery, &[], "delivery.", &["mode", "env"])?;
        let given = Given { mode, variables: given_variables.is_some(), max_ttl: limits.contains_key("max_ttl") };
        let variables = match (given_variables, provider) {
            (Some(Value::Table(table)), _) => variables(table)?,
            (Some(_), _) => return Err(invalid("delivery.env is not a table such as { GITHUB_TOKEN = \"token\" }")),
            (None, Some(provider)) => {
                let names: Vec<_> = families.providers().collect();
                let usual = families.usual_variable(&provider).ok_or_else(|| {
                    invalid(format!("there is no provider `{}`; {}", plain(&provider, 40), nearest(&provider, &names)))
                })?;
                BTreeSet::from([usual.to_owned()])
            }
            (None, None) if !kind.usual.variables.is_empty() => {
                kind.usual.variables.iter().map(|v| (*v).to_owned()).collect()
            }
            (None, None) => {
                absent.push("delivery.env".to_owned());
                BTreeSet::new()
            }
        };

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
        // Variables without a mode mean `env`; nothing at all means the strongest that the kind's clients can take.
        let strongest = if kind.usual.sdk_files && !given.variables { DeliveryMode::File } else { DeliveryMode::Env };
        let delivery = Delivery { mode: mode.unwrap_or(strongest), variables };
        Ok(Self { name, kind, settings: Settings(issuer), identity, delivery, max_ttl, given })
    }

    /// What the profile gives to a child, with the delivery that the caller asks for or its own.
    pub fn hand_over(&self, deliver: Option<DeliveryMode>) -> HandOver {
        let mode = deliver.unwrap_or(self.delivery.mode);
        let own_file = self.given.variables && self.given.mode == Some(DeliveryMode::File);
        let mut out = HandOver {
            mode,
            form: Form::Bytes,
            carriers: self.delivery.variables.clone(),
            plain: BTreeMap::new(),
            clears: Vec::new(),
        };
        if mode == DeliveryMode::File && self.kind.usual.sdk_files && !own_file {
            out.form = Form::SdkFiles;
            out.carriers = BTreeSet::from(["ANTHROPIC_CONFIG_DIR".to_owned()]);
            out.plain.insert("ANTHROPIC_PROFILE".to_owned(), SDK_PROFILE.to_owned());
        }
        if let Some(endpoint) = self.kind.usual.endpoint {
            match self.settings.text(endpoint.field).filter(|url| url.trim_end_matches('/') != endpoint.default) {
                Some(url) => {
                    out.plain.insert(endpoint.variable.to_owned(), url.trim_end_matches('/').to_owned());
                }
                None => out.clears.push((endpoint.variable.to_owned(), "sends the credential to another host")),
            }
        }
        if let Some(variable) = self.identity_variable() {
            out.clears.push((variable.to_owned(), "the assertion itself, by which anyone can exchange"));
        }
        out
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
        let mut delivery = Table::new();
        if let Some(mode) = self.given.mode {
            delivery.insert("mode".to_owned(), Value::String(mode.word().to_owned()));
        }
        if self.given.variables {
            let table = self.delivery.variables.iter().map(|v| (v.clone(), Value::String("token".to_owned())));
            delivery.insert("env".to_owned(), Value::Table(table.collect()));
        }
        if !delivery.is_empty() {
            file.insert("delivery".to_owned(), Value::Table(delivery));
        }
        if self.given.max_ttl {
            let ttl = Value::String(render_duration(self.max_ttl));
            file.insert("limits".to_owned(), Value::Table(Table::from_iter([("max_ttl".to_owned(), ttl)])));
        }
        file.to_string()
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

/// Refuses keys that are not in `specs` or `more`, with the nearest one that is.
fn known(table: &Table, specs: &[FieldSpec], at: &str, more: &[&str]) -> Result<(), ProfileError> {
    let names: Vec<&str> = specs.iter().map(|f| f.name).chain(more.iter().copied()).collect();
    match table.keys().find(|k| !names.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => Err(invalid(format!("`{at}{}` is not known; {}", plain(key, 40), nearest(key, &names)))),
    }
}

fn nearest(word: &str, names: &[&str]) -> String {
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

/// Checks the settings of an issuer or identity source; gives the provider, where there is one.
fn settings(table: &Table, kind: &KindSpec, prefix: &str) -> Result<Option<String>, ProfileError> {
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
    Ok(table.get("provider").and_then(Value::as_str).map(str::to_owned))
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

fn variables(table: Table) -> Result<BTreeSet<String>, ProfileError> {
    if table.is_empty() || table.len() > 16 {
        return Err(invalid("delivery.env names no variable, or more than 16"));
    }
    let mut names = BTreeSet::new();
    for (name, value) in table {
        check_variable(&name).map_err(ProfileError::Variable)?;
        if value.as_str() != Some("token") {
            return Err(invalid(format!("delivery.env.{name} must be \"token\"")));
        }
        names.insert(name);
    }
    Ok(names)
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
        ],
        usual: Usual::NONE,
    };
    const COMMAND: KindSpec = KindSpec {
        kind: "command",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "argv", shape: Shape::Program, required: true, secret: false, about: "" },
            FieldSpec { name: "env", shape: Shape::Variables, required: false, secret: false, about: "" },
            FieldSpec { name: "timeout", shape: Shape::Duration, required: false, secret: false, about: "" },
        ],
        usual: Usual::NONE,
    };

    fn parse(text: &str) -> Result<Profile, ProfileError> {
        let families = Families::built_in().unwrap_or_else(|e| panic!("{e}"));
        Profile::parse(Name::parse("p").unwrap(), text, &[&STATIC, &COMMAND, &FEDERATION, &FILE], &families)
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
        ] {
            let profile = parse(text).unwrap();
            let again = parse(&profile.to_toml()).unwrap();
            assert_eq!(again.to_toml(), profile.to_toml());
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
                "[issuer]\nkind = \"static\"\nsecret = \"secret:a\"\n[delivery]\nmode = \"gateway\"",
                "not one that this version has",
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
        let usual = of("", "").hand_over(None);
        assert_eq!((usual.mode, usual.form), (DeliveryMode::File, Form::SdkFiles));
        assert_eq!(names(&usual), ["ANTHROPIC_CONFIG_DIR", "ANTHROPIC_PROFILE"]);
        assert_eq!(usual.clears.first().map(|c| c.0.as_str()), Some("ANTHROPIC_BASE_URL"));

        let elsewhere = of("base_url = \"http://127.0.0.1:9/\"", "[delivery]\nmode = \"env\"").hand_over(None);
        assert_eq!(names(&elsewhere), ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"]);
        assert_eq!(elsewhere.plain["ANTHROPIC_BASE_URL"], "http://127.0.0.1:9");
        assert!(elsewhere.clears.is_empty());

        let own = of("", "[delivery]\nmode = \"file\"\nenv = { T = \"token\" }").hand_over(None);
        assert_eq!((own.form, names(&own)), (Form::Bytes, vec!["T".to_owned()]));
        let asked = of("", "[delivery]\nenv = { T = \"token\" }");
        assert_eq!(
            (asked.hand_over(None).mode, names(&asked.hand_over(None))),
            (DeliveryMode::Env, vec!["T".to_owned()])
        );
        assert_eq!(asked.hand_over(Some(DeliveryMode::File)).form, Form::SdkFiles, "a path is no token");
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
