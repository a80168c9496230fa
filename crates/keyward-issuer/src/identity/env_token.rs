//! `env-token`: an assertion in a variable of whoever asks, such as `ANTHROPIC_IDENTITY_TOKEN`.
//!
//! The broker cannot see that variable, so the caller sends its content along. This source keeps nothing; the broker keeps
//! what was supplied in memory until the vault is locked.

use super::{Reading, Source, none};
use crate::jwt::Assertion;
use keyward_core::{FieldSpec, Identity, KindRole, KindSpec, Order, Shape, Usual};
use keyward_diag::Code;

/// Identity source `env-token`.
pub(super) struct EnvToken;

/// Where SDKs look.
const VARIABLE: &str = "ANTHROPIC_IDENTITY_TOKEN";

static SPEC: KindSpec = KindSpec {
    kind: "env-token",
    role: KindRole::Identity,
    about: "an assertion in a variable of the shell that asks",
    fields: &[FieldSpec {
        name: "variable",
        shape: Shape::Variable,
        required: false,
        secret: false,
        about: "name of the variable, ANTHROPIC_IDENTITY_TOKEN when left out",
    }],
    usual: Usual::NONE,
};

impl Source for EnvToken {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn read<'a>(&'a self, identity: &'a Identity, order: &'a Order) -> Reading<'a> {
        let variable = identity.settings.text("variable").unwrap_or(VARIABLE);
        Box::pin(std::future::ready(match &order.supplied {
            None => Err(none(Code::IdentityNeeded, format!("the profile takes it from `{variable}`"))),
            // EXPOSE: read as an assertion, which is a secret type again.
            Some(supplied) => supplied
                .expose(Assertion::read)
                .map_err(|what| none(Code::IdentityInvalid, format!("the content of `{variable}` {what}"))),
        }))
    }
}
