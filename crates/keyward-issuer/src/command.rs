//! `command`: a program that prints a short-lived token with its life.
//!
//! It prints one JSON object: `{"token": "…", "expires_in": 3600}`; `access_token` is taken for `token` and an RFC 3339
//! `expires_at` for `expires_in`, as OAuth endpoints (RFC 6749 section 5.1) and cloud tools print them. What it prints is
//! never quoted anywhere.

use crate::json;
use crate::program::{self, Program};
use jiff::Timestamp;
use keyward_core::{Credential, IssueError, Issuer, Issuing, KindRole, KindSpec, Order, Usual};
use keyward_diag::Code;
use keyward_secret::{SECRET_MAX_BYTES, SecretText};
use std::collections::BTreeMap;
use std::time::Duration;

/// Issuer `command`.
pub(crate) struct Command;

const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);

static SPEC: KindSpec = KindSpec {
    kind: "command",
    role: KindRole::Issuer,
    about: "a program that prints a short-lived token with its life as JSON",
    fields: program::FIELDS,
    usual: Usual::NONE,
};

impl Issuer for Command {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn issue<'a>(&'a self, order: &'a Order) -> Issuing<'a> {
        Box::pin(async move {
            let program = Program {
                argv: order.profile.settings.list("argv"),
                env: order.profile.settings.table("env"),
                timeout: order.profile.settings.duration("timeout"),
                failed: Code::IssuerFailed,
                late: Code::IssuerTimeout,
                long: Code::IssuerAnswer,
            };
            read(&program.run(&order.secrets).await?)
        })
    }
}

/// What the program prints. Fields that are not known are passed over, since tools print more than is needed.
#[derive(serde::Deserialize)]
struct Printed {
    token: Option<SecretText>,
    access_token: Option<SecretText>,
    expires_in: Option<serde_json::Number>,
    expires_at: Option<String>,
    scope: Option<String>,
}

fn read(output: &[u8]) -> Result<Credential, IssueError> {
    let wrong = |cause: &str| IssueError::passing(Code::IssuerAnswer, cause);
    let printed: Printed = json::object(output)
        .map_err(|what| wrong(&format!("its output is {what}, where a JSON object of the right form must be")))?;
    let token = match (printed.token, printed.access_token) {
        (Some(token), None) | (None, Some(token)) => token.into_bytes(),
        (Some(_), Some(_)) => return Err(wrong("it printed both `token` and `access_token`")),
        (None, None) => return Err(wrong("it printed no `token`")),
    };
    if token.len_bytes() > SECRET_MAX_BYTES {
        return Err(wrong("its token is too long"));
    }
    let life = match (printed.expires_in, printed.expires_at) {
        (Some(n), None) => {
            n.as_f64().filter(|s| s.is_finite() && *s >= 1.0).map(|s| Duration::from_secs(s.min(1e10) as u64))
        }
        (None, Some(at)) => at.parse::<Timestamp>().ok().and_then(|at| {
            let left = at.duration_since(Timestamp::now());
            u64::try_from(left.as_secs()).ok().filter(|s| *s > 0).map(Duration::from_secs)
        }),
        (Some(_), Some(_)) => return Err(wrong("it printed both `expires_in` and `expires_at`")),
        (None, None) => return Err(wrong("it printed no life: `expires_in` in seconds, or `expires_at`")),
    };
    let life =
        life.ok_or_else(|| wrong("its token is over already, or its life is not a number of seconds or a time"))?;
    Ok(Credential {
        token,
        life: Some(life.min(LIFE_MAX)),
        scope: printed.scope.map(|s| keyward_diag::plain(&s, 200)),
        facts: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use keyward_core::{Families, Name, Profile};
    use keyward_secret::SecretBytes;
    use std::collections::BTreeMap;

    /// No assertion is presented here.
    struct Never;

    impl keyward_core::Once for Never {
        fn present(
            &self,
            _digest: [u8; 32],
            _until: keyward_core::Wall,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<bool, keyward_diag::Fault>> + Send + '_>> {
            Box::pin(std::future::ready(Ok(false)))
        }

        fn withdraw(
            &self,
            _digest: [u8; 32],
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), keyward_diag::Fault>> + Send + '_>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn order(argv: &[&str], more: &str) -> Order {
        let text =
            format!("[issuer]\nkind = \"command\"\nargv = {argv:?}\n{more}\n[delivery]\nenv = {{ T = \"token\" }}");
        let profile = Profile::parse(Name::parse("p").unwrap(), &text, &crate::kinds(), &Families::built_in().unwrap());
        let secrets = BTreeMap::from([("s".to_owned(), SecretBytes::new(b"hunter2".to_vec()).unwrap())]);
        Order { profile: profile.unwrap(), secrets, supplied: None, once: std::sync::Arc::new(Never) }
    }

    async fn issue(argv: &[&str], more: &str) -> Result<Credential, IssueError> {
        Command.issue(&order(argv, more)).await
    }

    fn shell(script: &str) -> [&str; 3] {
        ["/bin/sh", "-c", script]
    }

    #[tokio::test]
    async fn a_token_with_its_life_is_read() {
        let c = issue(&shell(r#"echo '{"access_token":"abc","expires_in":90,"scope":"x y","other":1}'"#), "")
            .await
            .unwrap();
        assert!(c.token.expose(|b| b == b"abc"));
        assert_eq!((c.life, c.scope.as_deref()), (Some(Duration::from_secs(90)), Some("x y")));
    }

    #[tokio::test]
    async fn the_program_sees_its_own_environment_only() {
        let script = r#"printf '{"token":"%s","expires_in":60}' "$(env | cut -d= -f1 | sort | tr '\n' ' ')""#;
        let c = issue(&shell(script), "env = { MINT_TOKEN = \"secret:s\" }").await.unwrap();
        let seen = c.token.expose(|b| String::from_utf8_lossy(b).into_owned());
        for name in seen.split_whitespace() {
            assert!(["PATH", "HOME", "LANG", "MINT_TOKEN", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name), "{name}");
        }
        let c = issue(
            &shell(r#"printf '{"token":"%s","expires_in":60}' "$MINT_TOKEN""#),
            "env = { MINT_TOKEN = \"secret:s\" }",
        )
        .await
        .unwrap();
        assert!(c.token.expose(|b| b == b"hunter2"));
    }

    #[tokio::test]
    async fn bad_answers_are_refused_and_never_quoted() {
        for (script, code) in [
            ("echo SEKRIT", Code::IssuerAnswer),
            (r#"echo '{"token":"SEKRIT"}'"#, Code::IssuerAnswer),
            (r#"echo '{"token":"SEKRIT","expires_in":0}'"#, Code::IssuerAnswer),
            (r#"echo '{"token":"SEKRIT","expires_in":-5}'"#, Code::IssuerAnswer),
            (r#"echo '{"token":"SEKRIT","expires_in":"60"}'"#, Code::IssuerAnswer),
            (r#"echo '{"token":"","expires_in":60}'"#, Code::IssuerAnswer),
            (r#"echo '{"token":"SEKRIT","expires_at":"2001-01-01T00:00:00Z"}'"#, Code::IssuerAnswer),
            (r#"echo '["SEKRIT"]'"#, Code::IssuerAnswer),
            (r#"echo '["SEKRIT",null,60,null,null]'"#, Code::IssuerAnswer),
            ("head -c 70000 /dev/zero", Code::IssuerAnswer),
            ("echo SEKRIT; echo SEKRIT >&2; exit 3", Code::IssuerFailed),
            ("kill -9 $$", Code::IssuerFailed),
        ] {
            let error = issue(&shell(script), "").await.unwrap_err();
            assert_eq!(error.fault.code, code, "{script}: {error}");
            assert!(!error.to_string().contains("SEKRIT"), "{error}");
        }
        let absent = issue(&["/nonexistent/mint"], "").await.unwrap_err();
        assert_eq!((absent.fault.code, absent.failure), (Code::IssuerFailed, keyward_core::Failure::Refused));
    }

    #[tokio::test]
    async fn a_program_that_is_being_written_may_start_later() {
        let folder = crate::stage::Folder::new();
        let path = folder.0.join("mint");
        std::fs::copy("/bin/true", &path).unwrap();
        let _writing = std::fs::File::options().write(true).open(&path).unwrap();
        let error = issue(&[path.to_str().unwrap()], "").await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IssuerFailed, keyward_core::Failure::Passing(None)));
        assert!(error.to_string().contains("did not start"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let error = issue(&shell("sleep 977 & echo $! >/dev/null; sleep 977"), "timeout = \"1s\"").await.unwrap_err();
        assert_eq!(error.fault.code, Code::IssuerTimeout);
        let left = std::process::Command::new("pgrep").args(["-xf", "sleep 977"]).status().unwrap();
        assert!(!left.success(), "a process of the program is left");
    }
}
