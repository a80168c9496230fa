//! `command`: a program that prints an assertion, asked anew for each exchange.
//!
//! It prints the JWT alone, or one JSON object with exactly one of `token`, `id_token` and `access_token`, as the command
//! lines of clouds do. What it prints is never quoted.

use super::{Reading, Source};
use crate::json;
use crate::jwt::Assertion;
use crate::program::{self, Program};
use keyward_core::{Identity, IssueError, KindRole, KindSpec, Order, Usual};
use keyward_diag::Code;
use keyward_secret::SecretText;

/// Identity source `command`.
pub(super) struct Command;

static SPEC: KindSpec = KindSpec {
    kind: "command",
    role: KindRole::Identity,
    about: "a program that prints an assertion, alone or as JSON",
    fields: program::FIELDS,
    usual: Usual::NONE,
};

impl Source for Command {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn read<'a>(&'a self, identity: &'a Identity, order: &'a Order) -> Reading<'a> {
        Box::pin(async move {
            let program = Program {
                argv: identity.settings.list("argv"),
                env: identity.settings.table("env"),
                timeout: identity.settings.duration("timeout"),
                failed: Code::IdentityFailed,
                late: Code::IdentityFailed,
                long: Code::IdentityInvalid,
            };
            read(&program.run(&order.secrets).await?)
        })
    }
}

#[derive(serde::Deserialize)]
struct Printed {
    token: Option<SecretText>,
    id_token: Option<SecretText>,
    access_token: Option<SecretText>,
}

fn read(output: &[u8]) -> Result<Assertion, IssueError> {
    let wrong = |what: String| IssueError::passing(Code::IdentityInvalid, format!("what the program printed {what}"));
    if !output.trim_ascii_start().starts_with(b"{") {
        return Assertion::read(output).map_err(wrong);
    }
    let printed: Printed = json::object(output).map_err(|what| wrong(format!("is {what}")))?;
    let mut given = [printed.token, printed.id_token, printed.access_token].into_iter().flatten();
    match (given.next(), given.next()) {
        // EXPOSE: read as an assertion, which is a secret type again.
        (Some(text), None) => text.expose(|t| Assertion::read(t.as_bytes())).map_err(wrong),
        (None, _) => Err(wrong("has none of `token`, `id_token` and `access_token`".to_owned())),
        (Some(_), Some(_)) => Err(wrong("has more than one of `token`, `id_token` and `access_token`".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::stage::{SIGNATURE, jwt};

    #[test]
    fn an_assertion_is_taken_alone_or_from_one_member() {
        let text = jwt(r#"{"alg":"RS256"}"#, r#"{"sub":"s"}"#);
        for output in [
            text.clone(),
            format!("\n {text} \r\n"),
            format!(r#"{{"token":"{text}"}}"#),
            format!(r#" {{"id_token":"{text}","expires_in":5}}"#),
            format!(r#"{{"access_token":"{text}","token":null}}"#),
        ] {
            assert!(read(output.as_bytes()).unwrap().expose(|t| t == text), "{output}");
        }
    }

    #[test]
    fn all_else_is_refused_without_a_quote() {
        let text = jwt(r#"{"alg":"RS256"}"#, r#"{"sub":"s"}"#);
        for (output, why) in [
            (String::new(), "is empty"),
            ("SEKRIT".to_owned(), "has 1 of the three parts"),
            (format!("{text}\n{text}"), "has 5 of the three parts"),
            (format!(r#"{{"token":"{text}","id_token":"{text}"}}"#), "has more than one"),
            (format!(r#"{{"jwt":"{text}"}}"#), "has none of"),
            (format!(r#"{{"token":["{text}"]}}"#), "is a JSON object with a member of another type"),
            (r#"{"token":""}"#.to_owned(), "is a JSON object with a member of another type"),
            (format!(r#"{{"token":"{text}""#), "is not JSON"),
            (format!(r#"["{text}"]"#), "has a header that is not base64url"),
        ] {
            let error = read(output.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
            assert!(!error.contains(SIGNATURE) && !error.contains("SEKRIT"), "{error}");
        }
    }
}
