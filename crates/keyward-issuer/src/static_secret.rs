//! `static`: a stored secret, handed over as it is.
//!
//! The weakest issuer: the credential does not end by itself. What Keyward adds is the seal at rest, the grant, the lease
//! and the log.

use crate::{field, secret_field};
use keyward_core::{Credential, IssueError, Issuer, Issuing, KindRole, KindSpec, Order, Shape, Usual};
use keyward_diag::Code;
use std::collections::BTreeMap;

/// Issuer `static`.
pub(crate) struct StaticSecret;

static SPEC: KindSpec = KindSpec {
    kind: "static",
    role: KindRole::Issuer,
    about: "a stored secret, handed over as it is",
    fields: &[
        secret_field("secret", true, "the stored secret, as \"secret:NAME\""),
        field(
            "provider",
            Shape::Text,
            false,
            "whose key it is (anthropic, openai, github, …): gives the usual variable",
        ),
        field("base_url", Shape::Url, false, "the API that the key is for, that of the provider when left out"),
    ],
    usual: Usual::NONE,
};

impl Issuer for StaticSecret {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(async move {
            let name = order.profile.settings.secret("secret").map(|r| r.0.to_string()).unwrap_or_default();
            let token = order
                .secrets
                .get(&name)
                .ok_or_else(|| IssueError::refused(Code::SecretUnknown, format!("the profile refers to `{name}`")))?;
            Ok(Credential { token: token.dangerous_copy(), life: None, scope: None, facts: BTreeMap::new() })
        })
    }

    fn exchanges(&self) -> bool {
        false
    }
}
