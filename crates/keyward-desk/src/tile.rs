//! The tiles of the profile editor: which providers there are and how a credential of each is obtained.
//!
//! They are data (`data/providers.toml`); a test compares them with the issuers that the broker has. Called by the commands.

use crate::types::ProviderTile;
use keyward_diag::{Code, Fault};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    provider: Vec<ProviderTile>,
}

/// All tiles, in the order in which they are shown.
pub(crate) fn providers() -> Result<Vec<ProviderTile>, Fault> {
    let file: File = toml::from_str(include_str!("../data/providers.toml"))
        .map_err(|e| Fault::new(Code::Internal).cause(format!("providers.toml: {}", e.message())))?;
    Ok(file.provider)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_the_search_of_this_machine_names_has_a_tile() {
        let tiles = providers().unwrap();
        let ids: BTreeSet<_> = tiles.iter().map(|t| t.id.as_str()).collect();
        assert_eq!(ids.len(), tiles.len(), "each id stands for one tile");
        for agent in keyward_find::agents::all() {
            for provider in &agent.providers {
                assert!(ids.contains(provider.as_str()), "{}: {provider}", agent.id);
            }
        }
        for tile in &tiles {
            let methods: BTreeSet<_> = tile.methods.iter().map(|m| &m.id).collect();
            assert!(!methods.is_empty() && methods.len() == tile.methods.len(), "{}", tile.id);
        }
    }

    #[test]
    fn a_provider_that_is_preset_is_one_of_those_that_the_broker_knows() {
        let families: toml::Table = toml::from_str(include_str!("../../keyward-core/data/families.toml")).unwrap();
        for method in providers().unwrap().iter().flat_map(|t| &t.methods) {
            if let Some(provider) = method.preset.get("provider") {
                assert!(families.contains_key(provider.as_str().unwrap()), "{provider}");
                assert!(method.variables.is_empty(), "{provider} has a usual variable");
            }
        }
    }
}
