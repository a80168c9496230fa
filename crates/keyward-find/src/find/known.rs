//! The variables that hold credentials or choose one, by family.
//!
//! A family is a set of variables that the same programs read. Its name is the provider of a static profile, where the
//! issuer knows such a provider. Holds names only. Called by the scanner and by the orders of the clients.

/// What a variable is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A credential by itself: can be stored and handed over in the same variable.
    Key,
    /// One part of a credential that has several.
    Part,
    /// An assertion, which is exchanged for a credential.
    Assertion,
    /// Headers of every request, which may hold a credential.
    Headers,
    /// Holds a credential only where a password stands in the URL.
    Url,
    /// Chooses a credential, or says where it is; is none.
    Setting,
}

/// A family.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The issuer `static` knows it as a provider, whose usual variable is the first member.
    pub provider: bool,
    /// Its variables.
    pub members: &'static [(&'static str, Role)],
}

/// All families.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "anthropic",
        provider: true,
        members: &[
            ("ANTHROPIC_API_KEY", Role::Key),
            ("ANTHROPIC_AUTH_TOKEN", Role::Key),
            ("CLAUDE_CODE_OAUTH_TOKEN", Role::Key),
            ("ANTHROPIC_CUSTOM_HEADERS", Role::Headers),
            ("ANTHROPIC_PROFILE", Role::Setting),
            ("ANTHROPIC_CONFIG_DIR", Role::Setting),
            ("ANTHROPIC_FEDERATION_RULE_ID", Role::Setting),
            ("ANTHROPIC_ORGANIZATION_ID", Role::Setting),
            ("ANTHROPIC_SERVICE_ACCOUNT_ID", Role::Setting),
            ("ANTHROPIC_WORKSPACE_ID", Role::Setting),
            ("ANTHROPIC_IDENTITY_TOKEN", Role::Assertion),
            ("ANTHROPIC_IDENTITY_TOKEN_FILE", Role::Setting),
            ("ANTHROPIC_BASE_URL", Role::Setting),
            ("CLAUDE_CODE_USE_BEDROCK", Role::Setting),
            ("CLAUDE_CODE_USE_VERTEX", Role::Setting),
            ("CLAUDE_CODE_USE_FOUNDRY", Role::Setting),
            ("CLAUDE_CODE_USE_MANTLE", Role::Setting),
            ("CLAUDE_CODE_USE_ANTHROPIC_AWS", Role::Setting),
        ],
    },
    Family {
        name: "openai",
        provider: true,
        members: &[
            ("OPENAI_API_KEY", Role::Key),
            ("CODEX_API_KEY", Role::Key),
            ("OPENAI_FEDERATION_RULE_ID", Role::Setting),
            ("OPENAI_IDENTITY_TOKEN_FILE", Role::Setting),
        ],
    },
    Family {
        name: "gemini",
        provider: true,
        members: &[
            ("GEMINI_API_KEY", Role::Key),
            ("GOOGLE_API_KEY", Role::Key),
            ("GOOGLE_GENAI_USE_VERTEXAI", Role::Setting),
        ],
    },
    Family { name: "github", provider: true, members: &[("GITHUB_TOKEN", Role::Key), ("GH_TOKEN", Role::Key)] },
    Family {
        name: "aws",
        provider: true,
        members: &[
            ("AWS_ACCESS_KEY_ID", Role::Part),
            ("AWS_SECRET_ACCESS_KEY", Role::Part),
            ("AWS_SESSION_TOKEN", Role::Part),
            ("AWS_SECURITY_TOKEN", Role::Part),
            ("AWS_PROFILE", Role::Setting),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", Role::Setting),
            ("AWS_ROLE_ARN", Role::Setting),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Role::Setting),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Role::Setting),
        ],
    },
    Family { name: "bedrock", provider: true, members: &[("AWS_BEARER_TOKEN_BEDROCK", Role::Key)] },
    Family {
        name: "foundry",
        provider: true,
        members: &[("ANTHROPIC_FOUNDRY_API_KEY", Role::Key), ("ANTHROPIC_FOUNDRY_AUTH_TOKEN", Role::Key)],
    },
    Family {
        name: "postgres",
        provider: true,
        members: &[
            ("PGPASSWORD", Role::Key),
            ("PGPASSFILE", Role::Setting),
            ("PGSERVICEFILE", Role::Setting),
            ("PGSERVICE", Role::Setting),
        ],
    },
    Family { name: "database", provider: false, members: &[("DATABASE_URL", Role::Url)] },
    Family { name: "npm", provider: true, members: &[("NPM_TOKEN", Role::Key), ("NODE_AUTH_TOKEN", Role::Key)] },
    Family {
        name: "huggingface",
        provider: true,
        members: &[("HF_TOKEN", Role::Key), ("HUGGING_FACE_HUB_TOKEN", Role::Key)],
    },
    Family {
        name: "stripe",
        provider: true,
        members: &[("STRIPE_API_KEY", Role::Key), ("STRIPE_SECRET_KEY", Role::Key)],
    },
    Family { name: "google", provider: false, members: &[("GOOGLE_APPLICATION_CREDENTIALS", Role::Setting)] },
    Family { name: "openrouter", provider: false, members: &[("OPENROUTER_API_KEY", Role::Key)] },
    Family { name: "mistral", provider: false, members: &[("MISTRAL_API_KEY", Role::Key)] },
    Family { name: "groq", provider: false, members: &[("GROQ_API_KEY", Role::Key)] },
    Family { name: "deepseek", provider: false, members: &[("DEEPSEEK_API_KEY", Role::Key)] },
    Family { name: "xai", provider: false, members: &[("XAI_API_KEY", Role::Key)] },
];

/// The family of a variable and what it is for, if it is known.
pub fn known(variable: &str) -> Option<(&'static Family, Role)> {
    FAMILIES
        .iter()
        .find_map(|family| family.members.iter().find(|(name, _)| *name == variable).map(|(_, role)| (family, *role)))
}

/// The provider under which a static profile sets exactly this variable by itself.
pub fn provider_of(variable: &str) -> Option<&'static str> {
    let usual = |family: &&Family| family.members.first().is_some_and(|(name, _)| *name == variable);
    FAMILIES.iter().filter(|family| family.provider).find(usual).map(|family| family.name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_member_of_the_families_that_shadow_is_known() {
        let file = include_str!("../../../keyward-core/data/families.toml");
        let families: toml::Table = toml::from_str(file).unwrap();
        for (name, family) in &families {
            let usual = family["variable"].as_str().unwrap();
            assert_eq!(provider_of(usual), Some(name.as_str()), "{usual}");
            for member in family["members"].as_table().unwrap().keys() {
                let (found, _) = known(member).unwrap_or_else(|| panic!("{member} is not known"));
                assert_eq!(found.name, name, "{member}");
            }
        }
        for family in FAMILIES.iter().filter(|f| f.provider) {
            assert!(families.contains_key(family.name), "{} is no provider", family.name);
        }
    }

    #[test]
    fn no_variable_is_in_two_families() {
        let all: Vec<_> = FAMILIES.iter().flat_map(|f| f.members).map(|(name, _)| name).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
    }
}
