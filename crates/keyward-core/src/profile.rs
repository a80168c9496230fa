//! Profiles: how a credential is obtained and how it is handed over.

use crate::time::{parse_duration, render_duration};
use crate::{Families, FieldSpec, KindSpec, Name, Shape, VariableError, check_variable};
use keyward_diag::{Code, Fault, plain};
use std::collections::BTreeSet;
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
    /// Settings of the issuer, checked against the description.
    pub settings: Table,
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
            Some(Value::String(word)) => kinds.iter().find(|k| k.kind == word).copied().ok_or_else(|| {
                let names: Vec<_> = kinds.iter().map(|k| k.kind).collect();
                invalid(format!("there is no issuer `{}`; {}", plain(&word, 40), nearest(&word, &names)))
            })?,
            Some(_) => return Err(invalid("issuer.kind is not text")),
        };
        let provider = settings(&issuer, kind)?;

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
            (None, None) => return Err(ProfileError::Incomplete(missing(&issuer, kind, Some("delivery.env")))),
        };

        let absent = missing(&issuer, kind, None);
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
        let delivery = Delivery { mode: mode.unwrap_or(DeliveryMode::Env), variables };
        Ok(Self { name, kind, settings: issuer, delivery, max_ttl, given })
    }

    /// Writes the profile as a file that [`Profile::parse`] reads to the same profile.
    pub fn to_toml(&self) -> String {
        let mut issuer = Table::from_iter([("kind".to_owned(), Value::String(self.kind.kind.to_owned()))]);
        issuer.extend(self.settings.clone());
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
        let inner = |v: &Value| v.as_table().map(|t| t.values().filter_map(secret_ref).collect::<Vec<_>>());
        let refs = self.settings.values().flat_map(|v| inner(v).unwrap_or_else(|| secret_ref(v).into_iter().collect()));
        refs.collect()
    }

    /// A text setting.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.settings.get(field).and_then(Value::as_str)
    }

    /// A duration setting.
    pub fn duration(&self, field: &str) -> Option<Duration> {
        self.text(field).and_then(|t| parse_duration(t).ok())
    }

    /// A list setting.
    pub fn list(&self, field: &str) -> Vec<&str> {
        self.settings.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A table setting: name, and either plain text or a reference.
    pub fn table(&self, field: &str) -> Vec<(&str, Result<&str, SecretRef>)> {
        let table = self.settings.get(field).and_then(Value::as_table).into_iter().flatten();
        table.filter_map(|(k, v)| Some((k.as_str(), secret_ref(v).map_or(Ok(v.as_str()?), Err)))).collect()
    }

    /// The secret that a field refers to.
    pub fn secret(&self, field: &str) -> Option<SecretRef> {
        self.settings.get(field).and_then(secret_ref)
    }
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

fn missing(issuer: &Table, kind: &KindSpec, more: Option<&str>) -> Vec<String> {
    let absent = kind.fields.iter().filter(|f| f.required && !issuer.contains_key(f.name));
    absent.map(|f| format!("issuer.{}", f.name)).chain(more.map(str::to_owned)).collect()
}

/// Checks the settings of an issuer; gives the provider, where there is one.
fn settings(issuer: &Table, kind: &KindSpec) -> Result<Option<String>, ProfileError> {
    known(issuer, kind.fields, "issuer.", &["kind"])?;
    for field in kind.fields {
        let Some(value) = issuer.get(field.name) else { continue };
        let at = format!("issuer.{}", field.name);
        if field.secret && secret_ref(value).is_none() {
            return Err(ProfileError::Invalid(
                format!("`{at}` must name a stored secret: \"secret:NAME\""),
                Some("store it with `keyward secret set NAME`, then write \"secret:NAME\" in its place".to_owned()),
            ));
        }
        match (field.shape, value) {
            (Shape::Text, Value::String(text)) if !text.is_empty() && !text.contains('\0') => {}
            (Shape::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => {}
            (Shape::OneOf(words), _) => return Err(invalid(format!("`{at}` is one of: {}", words.join(", ")))),
            (Shape::Duration, Value::String(text)) => {
                parse_duration(text).map_err(|e| invalid(format!("`{at}`: {e}")))?;
            }
            (Shape::Program, Value::Array(list)) => program(list, &at)?,
            (Shape::Variables, Value::Table(table)) => inherited(table, &at)?,
            (Shape::Text, _) => return Err(invalid(format!("`{at}` is not text"))),
            (Shape::Duration, _) => return Err(invalid(format!("`{at}` is not a duration such as \"30s\""))),
            (Shape::Program, _) => {
                return Err(invalid(format!("`{at}` is not a list such as [\"/usr/bin/mint\", \"--json\"]")));
            }
            (Shape::Variables, _) => return Err(invalid(format!("`{at}` is not a table of variables"))),
        }
    }
    Ok(issuer.get("provider").and_then(Value::as_str).map(str::to_owned))
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
    use crate::KindRole;

    const STATIC: KindSpec = KindSpec {
        kind: "static",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "secret", shape: Shape::Text, required: true, secret: true, about: "" },
            FieldSpec { name: "provider", shape: Shape::Text, required: false, secret: false, about: "" },
        ],
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
    };

    fn parse(text: &str) -> Result<Profile, ProfileError> {
        let families = Families::built_in().unwrap_or_else(|e| panic!("{e}"));
        Profile::parse(Name::parse("p").unwrap(), text, &[&STATIC, &COMMAND], &families)
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
