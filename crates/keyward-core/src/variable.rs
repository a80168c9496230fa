//! Environment variables: which may carry a credential, and which would win over one.

use std::collections::{BTreeMap, BTreeSet};

const REFUSED: &str = include_str!("../data/refused-variables.txt");
const FAMILIES: &str = include_str!("../data/families.toml");
const APIS: &str = include_str!("../data/apis.toml");

/// Why a variable cannot carry a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// Not a name that shells and programs can use.
    #[error("`{}` is not a variable name", keyward_diag::plain(.0, 64))]
    NotAName(String),
    /// On the list of names that change how programs load or where they send data.
    #[error("`{0}` is on the list of refused variables ({1})")]
    Refused(String, &'static str),
}

/// Checks that a variable may carry a credential: a POSIX name, at most 128 bytes, not on the list in
/// `data/refused-variables.txt` (compared without case).
///
/// # Errors
/// [`VariableError`].
pub fn check_variable(name: &str) -> Result<(), VariableError> {
    check(name, false)
}

/// Checks that a variable may carry the address of the gateway: as [`check_variable`], and those names too by which programs
/// learn where an API is.
///
/// # Errors
/// [`VariableError`].
pub(crate) fn check_address(name: &str) -> Result<(), VariableError> {
    check(name, true)
}

fn check(name: &str, addresses: bool) -> Result<(), VariableError> {
    let ok = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.bytes().next().is_some_and(|b| b.is_ascii_digit());
    if !ok {
        return Err(VariableError::NotAName(name.to_owned()));
    }
    let upper = name.to_ascii_uppercase();
    let lines = REFUSED.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines {
        let (pattern, address) = line.split_once(' ').map_or((line, false), |(pattern, _)| (pattern, true));
        let hit = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => upper.ends_with(end),
            (None, Some(start)) => upper.starts_with(start),
            (None, None) => upper == pattern,
        };
        if hit && !(addresses && address) {
            return Err(VariableError::Refused(name.to_owned(), pattern));
        }
    }
    Ok(())
}

/// Families of variables that the same programs read: delivering one means removing the others, which would win over it or
/// be sent beside it. Kept as data in `data/families.toml`.
#[derive(Debug)]
pub struct Families {
    by_name: BTreeMap<String, Family>,
    apis: BTreeMap<String, Api>,
}

/// The API of a provider, in `data/apis.toml`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Name of the list of calls.
    pub(crate) route: String,
    /// Where it is; `{region}` and the like stand for settings.
    pub(crate) base_url: String,
    /// What is taken for a setting that is not there.
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, String>,
    /// Where it is in regions that have hosts of another form.
    #[serde(default)]
    pub(crate) by_region: BTreeMap<String, String>,
    /// What the base URL of its clients ends in.
    #[serde(default)]
    pub(crate) path: String,
    /// How a secret of the vault is put on a request.
    pub(crate) stored: Put,
    /// How what another issuer made is put on a request.
    pub(crate) issued: Put,
}

/// How a credential is put on a request, without what only a profile knows.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Put {
    /// As a bearer token.
    Bearer,
    /// As a bearer token, with Anthropic's flag for tokens of OAuth.
    BearerOauth,
    /// In this header.
    Header(String),
    /// By AWS's signature, for this service.
    Sigv4(String),
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    variable: String,
    /// Its clients take one member and leave the others: two of them are one too many.
    #[serde(default)]
    one: bool,
    members: BTreeMap<String, String>,
}

impl Families {
    /// Reads the built-in list.
    ///
    /// # Errors
    /// The parser's words; the built-in list is read by a test.
    pub fn built_in() -> Result<Self, String> {
        let by_name = toml::from_str(FAMILIES).map_err(|e| e.to_string())?;
        Ok(Self { by_name, apis: toml::from_str(APIS).map_err(|e| e.to_string())? })
    }

    /// The providers that a profile may name.
    pub fn providers(&self) -> BTreeSet<&str> {
        self.by_name.keys().chain(self.apis.keys()).map(String::as_str).collect()
    }

    /// The API of a provider.
    pub(crate) fn api(&self, provider: &str) -> Option<&Api> {
        self.apis.get(provider)
    }

    /// The usual variable of a provider.
    pub fn usual_variable(&self, provider: &str) -> Option<&str> {
        self.by_name.get(provider).map(|f| f.variable.as_str())
    }

    /// The family of which clients take one member only, where the variable belongs to such a one.
    pub fn exclusive(&self, variable: &str) -> Option<&str> {
        let of = |f: &&Family| f.one && f.members.contains_key(variable);
        self.by_name.iter().find(|(_, f)| of(f)).map(|(name, _)| name.as_str())
    }

    /// The other members of the families that `variable` belongs to, each with what it is.
    pub fn shadows<'a>(&'a self, variable: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.by_name
            .values()
            .filter(move |f| f.members.contains_key(variable))
            .flat_map(|f| f.members.iter())
            .filter(move |(name, _)| *name != variable)
            .map(|(name, about)| (name.as_str(), about.as_str()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn dangerous_targets_are_refused() {
        for name in [
            "LD_PRELOAD",
            "ld_library_path",
            "PATH",
            "NODE_OPTIONS",
            "PYTHONSTARTUP",
            "BASH_ENV",
            "GIT_SSH_COMMAND",
            "https_proxy",
            "ALL_PROXY",
            "SSL_CERT_FILE",
            "DYLD_INSERT_LIBRARIES",
            "JAVA_TOOL_OPTIONS",
            "PERL5OPT",
            "KEYWARD_HOME",
            "ANTHROPIC_BASE_URL",
        ] {
            assert!(matches!(check_variable(name), Err(VariableError::Refused(..))), "{name}");
        }
        for name in ["A B", "", "1A", "A=B", "Ä", "A-B"] {
            assert!(matches!(check_variable(name), Err(VariableError::NotAName(_))), "{name}");
        }
        for name in ["GITHUB_TOKEN", "DATABASE_URL", "ANTHROPIC_API_KEY", "PGPASSFILE", "KUBECONFIG", "_X"] {
            assert_eq!(check_variable(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_variable_for_the_gateways_address_is_one_by_which_apis_are_found() {
        for name in ["ANTHROPIC_BASE_URL", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "MY_API", "x_base_url"] {
            assert_eq!(check_address(name), Ok(()), "{name}");
        }
        for name in ["HTTPS_PROXY", "LD_PRELOAD", "PATH", "DOCKER_HOST", "AZURE_AUTHORITY_HOST", "KEYWARD_X", "A B"] {
            assert!(check_address(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_family_names_its_other_members() {
        let families = Families::built_in().unwrap_or_else(|e| panic!("{e}"));
        let shadows: Vec<_> = families.shadows("ANTHROPIC_AUTH_TOKEN").map(|(n, _)| n).collect();
        assert!(shadows.contains(&"ANTHROPIC_API_KEY") && shadows.contains(&"CLAUDE_CODE_OAUTH_TOKEN"));
        assert!(!shadows.contains(&"ANTHROPIC_AUTH_TOKEN"));
        assert_eq!(families.shadows("DATABASE_URL").count(), 0);
        for provider in families.by_name.keys() {
            let usual = families.usual_variable(provider).unwrap_or_default();
            assert_eq!(check_variable(usual), Ok(()), "{provider}");
            assert!(families.by_name[provider.as_str()].members.contains_key(usual), "{provider}");
        }
    }
}
