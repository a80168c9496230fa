//! `entra-client-credentials`: bearer tokens of Microsoft Entra for an application with a secret.
//!
//! The client credentials grant of the v2.0 endpoint (RFC 6749 section 4.4; "OAuth 2.0 client credentials flow" of
//! learn.microsoft.com). Entra has no endpoint that takes a token back. Never sends the secret to another host than the
//! authority of the profile.

use crate::answer::Refusal;
use crate::oauth::{self, TIMEOUT_FIELD, invalid};
use crate::{field, program, secret_field};
use keyward_core::{Credential, IssueError, Issuer, Issuing, KindRole, KindSpec, Order, Shape, Usual, check_url};
use keyward_diag::Code;
use keyward_secret::SecretText;

/// Issuer `entra-client-credentials`.
pub(crate) struct Entra;

const AUTHORITY: &str = "https://login.microsoftonline.com";
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

static SPEC: KindSpec = KindSpec {
    kind: "entra-client-credentials",
    role: KindRole::Issuer,
    about: "an application of Microsoft Entra with a secret, for Foundry and other services of Azure",
    fields: &[
        field("tenant", Shape::Text, true, "the tenant: its UUID or one of its domains"),
        field("client_id", Shape::Uuid, true, "the application"),
        secret_field("client_secret", true, "its secret, as \"secret:NAME\""),
        field(
            "scope",
            Shape::Text,
            false,
            "what the token is for, https://cognitiveservices.azure.com/.default when left out",
        ),
        field("authority_host", Shape::Url, false, "https://login.microsoftonline.com when left out"),
        field("resource", Shape::Text, false, "the resource of Foundry, for https://RESOURCE.services.ai.azure.com"),
        field("base_url", Shape::Url, false, "the API, that of the resource when left out"),
        TIMEOUT_FIELD,
    ],
    usual: Usual {
        variables: &["ANTHROPIC_FOUNDRY_AUTH_TOKEN"],
        sdk_files: false,
        endpoint: None,
        provider: Some("foundry"),
    },
};

impl Issuer for Entra {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(exchange(order))
    }
}

async fn exchange(order: &Order) -> Result<Credential, IssueError> {
    let settings = &order.profile.settings;
    let tenant = settings.text("tenant").unwrap_or_default();
    // It becomes a part of the path.
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if tenant.is_empty() || tenant.starts_with('.') || !tenant.bytes().all(is_name) {
        return Err(invalid("`issuer.tenant` is neither a UUID nor a domain"));
    }
    let authority = settings.text("authority_host").unwrap_or(AUTHORITY).trim_end_matches('/');
    let url = check_url(&format!("{authority}/{tenant}/oauth2/v2.0/token"))
        .map_err(|e| invalid(format!("`issuer.authority_host`: {e}")))?;
    let reference = settings.secret("client_secret");
    let reference = reference.ok_or_else(|| invalid("`issuer.client_secret` names no stored secret"))?;
    let secret = SecretText::from_bytes(program::secret(&order.secrets, &reference)?.dangerous_copy());
    let secret =
        secret.map_err(|_| IssueError::refused(Code::SecretInvalid, format!("`{}` is not text", reference.0)))?;
    // EXPOSE: the profile gives this secret to this endpoint.
    let form = secret.expose(|secret| {
        oauth::form(&[
            ("grant_type", "client_credentials"),
            ("client_id", settings.text("client_id").unwrap_or_default()),
            ("client_secret", secret),
            ("scope", settings.text("scope").unwrap_or(SCOPE)),
        ])
    });
    let answer = oauth::post(&url, form, oauth::deadline(settings)).await?;
    // EXPOSE: an answer that quotes the secret is not shown.
    secret.expose(|secret| oauth::read(&url, &answer, &[secret.as_bytes()], look_at))
}

/// What to look at after a refusal (learn.microsoft.com, "Microsoft Entra authentication and authorization error codes").
fn look_at(refusal: &Refusal) -> Option<&'static str> {
    let by_number = [
        ("AADSTS7000215", "look at the stored secret: it must be the value of the client secret, not its id"),
        ("AADSTS7000222", "the client secret has ended: make another one at Entra and store it"),
        ("AADSTS700016", "look at `client_id` and `tenant`: the tenant has no such application"),
        ("AADSTS90002", "look at `tenant`: there is none of this name"),
        ("AADSTS500011", "look at `scope`: the tenant has no such resource"),
        ("AADSTS70011", "look at `scope`: it must end in /.default"),
        ("AADSTS1002012", "look at `scope`: it must end in /.default"),
    ];
    let known = by_number.into_iter().find(|(number, _)| refusal.says(number)).map(|(_, look_at)| look_at);
    known.or(match refusal.id.as_deref()? {
        "invalid_client" => Some("look at `client_id` and the stored secret"),
        "invalid_scope" => Some("look at `scope`: it must end in /.default"),
        "unauthorized_client" => Some("look at `client_id` and `tenant`"),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
