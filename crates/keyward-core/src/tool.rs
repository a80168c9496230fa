//! What programs can take: data, in `data/tools.toml`.
//!
//! Says which deliveries work with a program and by which variables; never decides who gets what. Called by the plan of a
//! run.

use crate::DeliveryMode;
use std::collections::BTreeMap;

const TOOLS: &str = include_str!("../data/tools.toml");

/// The entry that stands for every program that is not named.
const ANY: &str = "any";

/// What programs can take, by the name of their file and by provider.
#[derive(Debug)]
pub struct Tools(BTreeMap<String, BTreeMap<String, Takes>>);

/// What a program can take of a provider.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Takes {
    /// The deliveries that work; the first is chosen.
    pub(crate) takes: Vec<DeliveryMode>,
    /// Why the first is not the strongest, as a sentence.
    pub(crate) why: Option<String>,
    /// Variables that hold the run token.
    #[serde(default)]
    pub(crate) token: Vec<String>,
    /// Variables that hold the path of Google's file with the run token.
    #[serde(default)]
    pub(crate) adc: Vec<String>,
    /// Variables that hold the address of the gateway, each with the path behind it.
    #[serde(default)]
    pub(crate) url: BTreeMap<String, String>,
    /// What else is set; a name in braces stands for a setting of the issuer.
    #[serde(default)]
    pub(crate) plain: BTreeMap<String, String>,
    /// Arguments before those of the program; `{url}` stands for the address of the gateway.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Variables that must not be there, each with what it is.
    #[serde(default)]
    pub(crate) clears: BTreeMap<String, String>,
}

impl Tools {
    /// Reads the built-in list.
    ///
    /// # Errors
    /// The parser's words; the built-in list is read by a test.
    pub fn built_in() -> Result<Self, String> {
        toml::from_str(TOOLS).map(Self).map_err(|e| e.to_string())
    }

    /// What a program, named by its path or the name of its file, can take of a provider; `None` where nothing is known.
    pub(crate) fn takes(&self, program: &str, provider: &str) -> Option<&Takes> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let of = |tool: &str| self.0.get(tool).and_then(|tool| tool.get(provider));
        of(name).or_else(|| of(ANY))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use crate::{Families, check_variable, variable::check_address};

    fn tools() -> Tools {
        Tools::built_in().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_list_is_whole() {
        let families = Families::built_in().unwrap_or_else(|e| panic!("{e}"));
        for (tool, by_provider) in &tools().0 {
            for (provider, takes) in by_provider {
                let at = format!("{tool}.{provider}");
                assert!(families.api(provider).is_some(), "{at} has no API");
                let mut strongest_first = takes.takes.clone();
                strongest_first.sort_by(|a, b| b.cmp(a));
                strongest_first.dedup();
                assert!(!takes.takes.is_empty() && takes.takes.len() == strongest_first.len(), "{at} says it twice");
                let strongest = takes.takes == strongest_first && takes.takes.first() == Some(&DeliveryMode::Gateway);
                assert_eq!(strongest, takes.why.is_none(), "{at} says why it is not the strongest, and only then");
                let gateway = takes.takes.contains(&DeliveryMode::Gateway);
                assert_eq!(gateway, !takes.token.is_empty() || !takes.adc.is_empty(), "{at} carries the token");
                assert_eq!(gateway, !takes.url.is_empty() || !takes.args.is_empty(), "{at} carries the address");
                assert!(takes.token.is_empty() || takes.adc.is_empty(), "{at} has one form");
                for name in takes.token.iter().chain(&takes.adc) {
                    assert_eq!(check_variable(name), Ok(()), "{at}");
                }
                for (name, path) in &takes.url {
                    assert_eq!(check_address(name), Ok(()), "{at}");
                    assert!(path.is_empty() || path.starts_with('/') && !path.ends_with('/'), "{at}");
                }
                // A client of the API is sent to the path that is taken off the profile's own base URL.
                let path = families.api(provider).map_or("", |api| api.path.as_str());
                let sent = takes.url.values().chain(&takes.args).any(|text| path.is_empty() || text.contains(path));
                assert!(sent || !gateway, "{at} never sends its client to `{path}`");
            }
        }
    }

    #[test]
    fn a_program_is_known_by_the_name_of_its_file() {
        let tools = tools();
        let first =
            |program: &str, provider: &str| tools.takes(program, provider).and_then(|t| t.takes.first()).copied();
        assert_eq!(first("/usr/bin/gh", "github"), Some(DeliveryMode::Env));
        assert_eq!(first("gh", "anthropic"), Some(DeliveryMode::Gateway), "what it does not say is as with any other");
        assert_eq!(first("/home/gh/claude", "anthropic"), Some(DeliveryMode::Gateway));
        assert_eq!(first("any", "stripe"), None);
    }
}
