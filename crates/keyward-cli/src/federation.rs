//! A federation with Anthropic as a person configures it: out of variables or flags, and into a profile file.
//!
//! The profile is written by a TOML writer, so that no value can add a line to it. Checks nothing that the broker checks.
//! Called by `profile add`, `setup` and `doctor`.

use keyward_api::ProfileMsg;
use keyward_find::find::Around;
use std::path::PathBuf;
use toml::{Table, Value};

/// Name of the variable that holds an assertion.
pub(crate) const ASSERTION: &str = "ANTHROPIC_IDENTITY_TOKEN";

/// Where the assertion comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A file, read at each exchange.
    File(PathBuf),
    /// The variable [`ASSERTION`] of whoever asks for a credential.
    Variable,
}

/// What a federation needs; parts may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Federation {
    /// Federation rule, `fdrl_…`.
    pub(crate) rule: Option<String>,
    /// Organization, a UUID.
    pub(crate) organization: Option<String>,
    /// Service account, `svac_…`.
    pub(crate) service_account: Option<String>,
    /// Workspace, `wrkspc_…` or `default`.
    pub(crate) workspace: Option<String>,
    /// Where the token is valid.
    pub(crate) base_url: Option<String>,
    /// Where the assertion comes from.
    pub(crate) identity: Option<Identity>,
}

impl Federation {
    /// Reads the variables that the SDKs read. An empty one counts as unset; a file wins over an assertion in place, as in
    /// the SDKs.
    pub(crate) fn from_environment(around: &Around) -> Self {
        let file = around.text("ANTHROPIC_IDENTITY_TOKEN_FILE").map(|path| Identity::File(around.cwd.join(path)));
        Self {
            rule: around.text("ANTHROPIC_FEDERATION_RULE_ID"),
            organization: around.text("ANTHROPIC_ORGANIZATION_ID"),
            service_account: around.text("ANTHROPIC_SERVICE_ACCOUNT_ID"),
            workspace: around.text("ANTHROPIC_WORKSPACE_ID"),
            base_url: around.text("ANTHROPIC_BASE_URL"),
            identity: file.or_else(|| around.text(ASSERTION).map(|_| Identity::Variable)),
        }
    }

    /// Whether somebody meant to federate: a part that has no other use is there.
    pub(crate) fn is_meant(&self) -> bool {
        self.rule.is_some() || self.identity.is_some() || self.service_account.is_some()
    }

    /// The variables that are missing.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let parts = [
            ("ANTHROPIC_FEDERATION_RULE_ID", self.rule.is_some()),
            ("ANTHROPIC_ORGANIZATION_ID", self.organization.is_some()),
            ("ANTHROPIC_IDENTITY_TOKEN_FILE", self.identity.is_some()),
        ];
        parts.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// The flags of `profile add --federation` that are missing.
    pub(crate) fn missing_flags(&self) -> Vec<&'static str> {
        let parts = [
            ("--rule", self.rule.is_some()),
            ("--organization", self.organization.is_some()),
            ("--identity-file", self.identity.is_some()),
        ];
        parts.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// The variables that are there, in the order of the exchange.
    pub(crate) fn variables(&self) -> Vec<&'static str> {
        let parts = [
            ("ANTHROPIC_FEDERATION_RULE_ID", self.rule.is_some()),
            ("ANTHROPIC_ORGANIZATION_ID", self.organization.is_some()),
            ("ANTHROPIC_SERVICE_ACCOUNT_ID", self.service_account.is_some()),
            ("ANTHROPIC_WORKSPACE_ID", self.workspace.is_some()),
            ("ANTHROPIC_IDENTITY_TOKEN_FILE", matches!(self.identity, Some(Identity::File(_)))),
            (ASSERTION, self.identity == Some(Identity::Variable)),
        ];
        parts.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// Whether nothing that an exchange needs is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// The profile file. What is missing is left out, so that the broker names it.
    pub(crate) fn to_toml(&self) -> String {
        let mut issuer = Table::new();
        let mut put = |name: &str, value: Option<&String>| {
            issuer.extend(value.map(|value| (name.to_owned(), Value::String(value.clone()))));
        };
        put("kind", Some(&"anthropic-federation".to_owned()));
        put("base_url", self.base_url.as_ref());
        put("federation_rule_id", self.rule.as_ref());
        put("organization_id", self.organization.as_ref());
        put("service_account_id", self.service_account.as_ref());
        put("workspace_id", self.workspace.as_ref());
        let identity = self.identity.as_ref().map(|identity| match identity {
            Identity::File(path) => [("kind", "file".to_owned()), ("path", path.to_string_lossy().into_owned())],
            Identity::Variable => [("kind", "env-token".to_owned()), ("variable", ASSERTION.to_owned())],
        });
        if let Some(fields) = identity {
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
            issuer.insert("identity".to_owned(), Value::Table(fields.collect()));
        }
        Table::from_iter([("issuer".to_owned(), Value::Table(issuer))]).to_string()
    }
}

/// The file of a profile that hands over the stored secret `secret` in `variable`; in the variable of the provider where
/// that is its usual one. A path in such a variable is no key, so a file names its variable itself.
pub(crate) fn static_toml(secret: &str, variable: &str, mode: Option<&str>, max_ttl_s: Option<u64>) -> String {
    let text = |value: &str| Value::String(value.to_owned());
    let mut issuer = Table::from_iter([("kind".to_owned(), text("static"))]);
    issuer.insert("secret".to_owned(), text(&format!("secret:{secret}")));
    let mut delivery = Table::new();
    match keyward_find::find::known::provider_of(variable).filter(|_| mode != Some("file")) {
        Some(provider) => drop(issuer.insert("provider".to_owned(), text(provider))),
        None => {
            let table = Table::from_iter([(variable.to_owned(), text("token"))]);
            delivery.insert("env".to_owned(), Value::Table(table));
        }
    }
    delivery.extend(mode.map(|mode| ("mode".to_owned(), text(mode))));
    let mut file = Table::from_iter([("issuer".to_owned(), Value::Table(issuer))]);
    if !delivery.is_empty() {
        file.insert("delivery".to_owned(), Value::Table(delivery));
    }
    if let Some(seconds) = max_ttl_s {
        let limits = Table::from_iter([("max_ttl".to_owned(), text(&format!("{seconds}s")))]);
        file.insert("limits".to_owned(), Value::Table(limits));
    }
    file.to_string()
}

/// Whether a profile has the stored key that programs take from `variable`: it hands it over there, or has it of the
/// provider whose usual variable that is, also where programs get a run token instead.
pub(crate) fn stands_for(profile: &ProfileMsg, variable: &str) -> bool {
    let provider = || {
        let file: toml::Table = toml::from_str(&profile.toml).ok()?;
        Some(file.get("issuer")?.get("provider")?.as_str()?.to_owned())
    };
    let usual = keyward_find::find::known::provider_of(variable);
    profile.issuer == "static"
        && (profile.variables.iter().any(|v| v == variable) || usual.is_some() && provider().as_deref() == usual)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn around(variables: &[(&str, &str)]) -> Around {
        Around {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            home: None,
            cwd: "/work dir".into(),
            system: "/none".into(),
        }
    }

    fn read(toml: &str) -> Table {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn the_variables_of_the_sdks_become_a_profile() {
        let federation = Federation::from_environment(&around(&[
            ("ANTHROPIC_FEDERATION_RULE_ID", "fdrl_01\"\nkind = \"command"),
            ("ANTHROPIC_ORGANIZATION_ID", "o"),
            ("ANTHROPIC_WORKSPACE_ID", ""),
            ("ANTHROPIC_IDENTITY_TOKEN_FILE", "token"),
            ("ANTHROPIC_IDENTITY_TOKEN", "ey.ey.s"),
        ]));
        assert!(federation.is_meant() && federation.is_complete());
        let file = read(&federation.to_toml());
        let issuer = file["issuer"].as_table().unwrap();
        assert_eq!(issuer["kind"].as_str(), Some("anthropic-federation"));
        assert_eq!(issuer["federation_rule_id"].as_str(), Some("fdrl_01\"\nkind = \"command"));
        assert_eq!(issuer["identity"]["path"].as_str(), Some("/work dir/token"), "absolute, and the file wins");
        assert!(!issuer.contains_key("workspace_id"), "an empty variable is unset");
        assert!(!federation.to_toml().contains("ey.ey.s"), "the assertion stays where it is");
    }

    #[test]
    fn what_is_missing_is_named_by_its_variable() {
        let half = Federation::from_environment(&around(&[("ANTHROPIC_IDENTITY_TOKEN", "ey.ey.s")]));
        assert_eq!(half.missing(), ["ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_ORGANIZATION_ID"]);
        assert_eq!(half.missing_flags(), ["--rule", "--organization"]);
        assert_eq!(Federation::default().missing_flags().len(), Federation::default().missing().len());
        assert_eq!(read(&half.to_toml())["issuer"]["identity"]["kind"].as_str(), Some("env-token"));
        let organization_alone = Federation::from_environment(&around(&[("ANTHROPIC_ORGANIZATION_ID", "o")]));
        assert!(!organization_alone.is_meant());
    }

    #[test]
    fn a_stored_secret_becomes_a_profile() {
        let file = read(&static_toml("a", "ANTHROPIC_API_KEY", None, None));
        assert_eq!(file["issuer"]["provider"].as_str(), Some("anthropic"));
        assert!(!file.contains_key("delivery"));
        let file = read(&static_toml("pg-dev", "DATABASE_URL", Some("file"), Some(3_600)));
        assert_eq!(file["issuer"]["secret"].as_str(), Some("secret:pg-dev"));
        assert_eq!(file["delivery"]["env"]["DATABASE_URL"].as_str(), Some("token"));
        assert_eq!(
            (file["delivery"]["mode"].as_str(), file["limits"]["max_ttl"].as_str()),
            (Some("file"), Some("3600s"))
        );
    }

    #[test]
    fn no_value_can_add_a_line_to_the_file() {
        let file = read(&static_toml("a\"\nkind = \"command", "X\u{7f}\" = 1 }\n", None, None));
        assert_eq!(file["issuer"]["kind"].as_str(), Some("static"));
        assert_eq!(file["delivery"]["env"].as_table().unwrap().len(), 1);
    }
}
