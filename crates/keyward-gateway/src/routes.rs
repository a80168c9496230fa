//! The APIs that the gateway knows, and what may be called of each: data, in `data/routes.toml`.
//!
//! A call that is on no list is refused. The lists leave out what mints, exchanges or lists credentials; a profile that
//! needs such a call names it. Nothing here sends or decides who calls; the service asks for each request.

use crate::path::Target;
use crate::shape::Shape;
use std::fmt;
use std::sync::LazyLock;

const DATA: &str = include_str!("../data/routes.toml");

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| read(DATA).unwrap_or_default());

/// One API.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name: `anthropic`, `bedrock`, `vertex`, `foundry`, `openai`, `gemini`, `github`, `generic`.
    pub name: String,
    /// When the list was last compared with the vendor's page, as `YYYY-MM-DD`.
    pub date: String,
    /// The vendor's page; empty for `generic`.
    pub page: String,
    /// How an error of this API looks.
    pub(crate) errors: Shape,
    /// First segments that a path may have before those of a pattern, one of them, or none: clients of one API do not agree
    /// which part of the path belongs to the base URL.
    #[serde(default)]
    prefixes: Vec<String>,
    /// What `:` is in a path.
    #[serde(default)]
    pub(crate) colon: Colon,
    /// A segment that begins `arn:` may hold encoded slashes: names of Bedrock's inference profiles do.
    #[serde(default)]
    pub(crate) arn: bool,
    allow: Vec<String>,
    /// Calls that a model answers, which say which one and what it used.
    #[serde(default)]
    counted: Vec<String>,
    /// Calls that cost nothing, besides GET, HEAD and DELETE.
    #[serde(default)]
    free: Vec<String>,
}

/// Whether a call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// It may.
    Yes,
    /// The profile's own list leaves it out and the list of the route has it, so a person may be asked: its method, and the
    /// pattern of its path.
    Beyond(String),
    /// It may not, and nobody is asked.
    No,
}

/// What a call is for a fence by model or money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost<'t> {
    /// It costs nothing.
    Free,
    /// A model answers it: the one of the path, or the one that the body names.
    Counted(Option<&'t str>),
    /// Nobody can tell.
    Unknown,
}

/// What `:` is in a path of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Colon {
    /// A character like others.
    #[default]
    Kept,
    /// As [`Colon::Kept`], but sent as `%3A`; so is all else but letters, digits and `-._~`, as AWS writes paths.
    Encoded,
    /// What stands between a resource and a custom method (Google's AIP-136). No placeholder takes it, so that one never
    /// allows a method that no pattern names.
    Verb,
}

impl Route {
    /// The route of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.name == name)
    }

    /// Whether a method and path may be called: by the profile's own patterns when it has any, by the list of the route
    /// otherwise. A pattern that does not parse allows nothing.
    pub(crate) fn lists(&self, method: &str, target: &Target, only: &[String]) -> Listed {
        if self.fits(if only.is_empty() { &self.allow } else { only }, method, target).is_some() {
            return Listed::Yes;
        }
        if only.is_empty() {
            return Listed::No;
        }
        self.fits(&self.allow, method, target).map_or(Listed::No, |pattern| {
            let method = if pattern.method == "*" { method } else { pattern.method };
            Listed::Beyond(format!("{method} {}", pattern.path))
        })
    }

    /// The first of the patterns that a method and path are as.
    fn fits<'p>(&self, patterns: &'p [String], method: &str, target: &Target) -> Option<Pattern<'p>> {
        // Whether a pattern can be meant is asked of the one that fits, and not of all before it at each request.
        patterns.iter().find_map(|text| {
            let fits = |p: &Pattern<'_>| p.takes_method(method) && self.segments(p.path, target).is_some();
            Pattern::split(text).filter(fits).and_then(|_| Pattern::parse(text).ok())
        })
    }

    /// Whether its calls say which model they are for and what was used, so that a fence can look at that.
    pub fn counts(&self) -> bool {
        !self.counted.is_empty()
    }

    /// What a call is for a fence by model or money.
    pub(crate) fn cost<'t>(&'static self, method: &str, target: &'t Target) -> Cost<'t> {
        if matches!(method, "GET" | "HEAD" | "DELETE") {
            return Cost::Free;
        }
        let found = |list: &'static [String]| {
            list.iter()
                .filter_map(|text| Pattern::split(text))
                .filter(|p| p.takes_method(method))
                .find_map(|p| self.segments(p.path, target).map(|segments| (p.path, segments)))
        };
        if found(&self.free).is_some() {
            return Cost::Free;
        }
        match found(&self.counted) {
            None => Cost::Unknown,
            Some((pattern, segments)) => Cost::Counted(model(pattern, segments)),
        }
    }

    /// The segments of a path that are those of a pattern: all, or those behind a prefix.
    fn segments<'t>(&self, pattern: &str, target: &'t Target) -> Option<impl Iterator<Item = &'t str> + Clone> {
        let mut segments = target.segments();
        if takes(pattern, segments.clone(), self.colon) {
            return Some(segments);
        }
        let first = segments.next().unwrap_or_default();
        let fits = self.prefixes.iter().any(|prefix| prefix == first) && takes(pattern, segments.clone(), self.colon);
        fits.then_some(segments)
    }
}

fn read(data: &str) -> Result<Vec<Route>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Data {
        route: Vec<Route>,
    }
    toml::from_str::<Data>(data).map(|data| data.route).map_err(|e| e.to_string())
}

/// What may be called: a method and a path, as `POST /v1/messages` or `GET /v1/models/{id}`.
///
/// The method is in capitals, or `*` for any; `GET` lets `HEAD` through too (RFC 9110 section 9.3.2). The path is written
/// decoded. `{name}` stands for one segment that is not empty, or for a part of one between fixed text
/// (`/models/{model}:generateContent`); `{name...}`, at the end, for one segment or more. A `:` that follows a placeholder is
/// not taken by it. The names say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern<'a> {
    method: &'a str,
    path: &'a str,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern of at most 512 bytes.
    ///
    /// # Errors
    /// What is wrong with it, in words that quote the pattern.
    pub fn parse(text: &'a str) -> Result<Self, PatternError> {
        let error = |why| Err(PatternError { pattern: keyward_diag::plain(text, 80), why });
        if text.len() > 512 {
            return error("it is longer than 512 bytes");
        }
        let Some(Self { method, path }) = Self::split(text) else {
            return error("it needs a method, one space and a path, such as `POST /v1/messages`");
        };
        let letters = (1..=16).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
        if method != "*" && !letters {
            return error("its method is neither `*` nor in capital letters");
        }
        if matches!(method, "CONNECT" | "TRACE") {
            return error("the gateway lets neither CONNECT nor TRACE through");
        }
        let Some(segments) = path.strip_prefix('/') else { return error("its path does not begin with a slash") };
        if path.chars().any(|c| c.is_control() || c.is_whitespace() || "%?#\\\"<>`".contains(c)) {
            return error("its path is written decoded and without query: no space, no `%?#\\\"<>` and no backtick");
        }
        let last = segments.split('/').count() - 1;
        for (n, segment) in segments.split('/').enumerate() {
            if let Err(why) = segment_error(segment, n == last) {
                return error(why);
            }
        }
        Ok(Self { method, path })
    }

    fn split(text: &'a str) -> Option<Self> {
        text.split_once(' ').map(|(method, path)| Self { method, path })
    }

    fn takes_method(&self, method: &str) -> bool {
        self.method == "*" || self.method == method || self.method == "GET" && method == "HEAD"
    }
}

/// Whether a segment of a pattern can be meant.
fn segment_error(segment: &str, last: bool) -> Result<(), &'static str> {
    if segment.is_empty() {
        return if last { Ok(()) } else { Err("its path has an empty segment") };
    }
    if segment.bytes().all(|b| b == b'.') {
        return Err("its path has a dot segment");
    }
    let Some((before, rest)) = segment.split_once('{') else {
        return if segment.contains('}') { Err("a `}` has no `{` before it") } else { Ok(()) };
    };
    let Some((name, after)) = rest.split_once('}') else { return Err("a `{` has no `}` behind it") };
    if before.contains('}') || after.contains(['{', '}']) {
        return Err("a segment has more than one placeholder");
    }
    let plain = name.strip_suffix("...").unwrap_or(name);
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("the name of a placeholder is of letters, digits and `_`");
    }
    if plain != name && !(last && before.is_empty() && after.is_empty()) {
        return Err("`{name...}` stands alone and at the end");
    }
    Ok(())
}

/// Whether decoded segments are those of a pattern's path.
fn takes<'a>(pattern: &str, mut segments: impl Iterator<Item = &'a str>, colon: Colon) -> bool {
    for wanted in pattern.strip_prefix('/').unwrap_or(pattern).split('/') {
        let Some(segment) = segments.next() else { return false };
        let Some((before, rest)) = wanted.split_once('{') else {
            if wanted != segment {
                return false;
            }
            continue;
        };
        let (name, after) = rest.split_once('}').unwrap_or((rest, ""));
        if name.ends_with("...") {
            let fits = |s: &str| colon != Colon::Verb || !s.contains(':');
            return !segment.is_empty() && fits(segment) && segments.all(fits);
        }
        let Some(part) = segment.strip_prefix(before).and_then(|s| s.strip_suffix(after)) else { return false };
        let verb = colon == Colon::Verb || after.starts_with(':');
        if part.is_empty() || verb && part.contains(':') {
            return false;
        }
    }
    segments.next().is_none()
}

/// What stands for `{model}` in a path that is as a pattern says.
fn model<'t>(pattern: &str, segments: impl Iterator<Item = &'t str>) -> Option<&'t str> {
    let pieces = pattern.strip_prefix('/').unwrap_or(pattern).split('/');
    pieces.zip(segments).find_map(|(wanted, segment)| {
        let (before, after) = wanted.split_once("{model}")?;
        segment.strip_prefix(before)?.strip_suffix(after)
    })
}

/// Why a pattern cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    pattern: String,
    why: &'static str,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no pattern of method and path: {}", self.pattern, self.why)
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn allowed(name: &str, method: &str, path: &str, only: &[&str]) -> bool {
        let route = Route::find(name).unwrap();
        let only: Vec<String> = only.iter().map(|&text| text.to_owned()).collect();
        Target::parse(path, route, None).is_ok_and(|target| route.lists(method, &target, &only) == Listed::Yes)
    }

    #[test]
    fn the_data_is_whole() {
        let routes = read(DATA).unwrap();
        let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["anthropic", "bedrock", "vertex", "foundry", "openai", "gemini", "github", "generic"]);
        for route in routes {
            let date = route.date.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b }).collect::<Vec<_>>();
            assert_eq!(date, b"0000-00-00", "{}", route.name);
            assert_eq!(route.page.starts_with("https://"), route.name != "generic", "{}", route.name);
            assert!(!route.prefixes.iter().any(|prefix| prefix.is_empty() || prefix.contains(['/', '{'])));
            for (n, text) in route.allow.iter().enumerate() {
                Pattern::parse(text).unwrap();
                assert!(!route.allow[..n].contains(text), "{}: {text} twice", route.name);
            }
            for text in route.counted.iter().chain(&route.free) {
                let path = |text: &str| text.replace("{model}", "{deployment}");
                let listed = route.allow.iter().any(|allowed| allowed == text || *allowed == path(text));
                let within = route.allow.iter().any(|allowed| text.ends_with(allowed.trim_start_matches("* ")));
                let literal = text.contains("count-tokens:");
                assert!(listed || within || literal, "{}: {text} is not allowed anyway", route.name);
                Pattern::parse(text).unwrap();
            }
        }
    }

    #[test]
    fn what_the_own_list_leaves_out_is_named_by_method_and_pattern() {
        for (name, method, path, only, listed) in [
            ("anthropic", "POST", "/v1/files", &["GET /v1/files"][..], Some("POST /v1/files")),
            ("anthropic", "HEAD", "/v1/files/file_1", &["POST /v1/messages"], Some("GET /v1/files/{id}")),
            ("openai", "POST", "/v1/responses", &["GET /models"], Some("POST /responses")),
            ("openai", "DELETE", "/containers/a/b", &["GET /models"], Some("DELETE /containers/{rest...}")),
            ("anthropic", "POST", "/v1/oauth/token", &["POST /v1/messages"], None),
            ("anthropic", "POST", "/v1/oauth/token", &[], None),
            ("generic", "GET", "/a", &["POST /a"], None),
            ("anthropic", "PUT", "/v1/files", &["POST /v1/messages"], None),
        ] {
            let route = Route::find(name).unwrap();
            let only: Vec<String> = only.iter().map(|&text| text.to_owned()).collect();
            let target = Target::parse(path, route, None).unwrap();
            let wanted = listed.map_or(Listed::No, |call| Listed::Beyond(call.to_owned()));
            assert_eq!(route.lists(method, &target, &only), wanted, "{name} {method} {path}");
        }
    }

    #[test]
    fn the_calls_of_clients_are_allowed() {
        for (name, method, path) in [
            ("anthropic", "POST", "/v1/messages?beta=true"),
            ("anthropic", "POST", "/v1/messages/count_tokens"),
            ("anthropic", "GET", "/v1/models?limit=1000"),
            ("anthropic", "HEAD", "/v1/models"),
            ("anthropic", "HEAD", "/api/hello"),
            ("anthropic", "GET", "/v1/messages/batches/msgbatch_1/results"),
            ("anthropic", "DELETE", "/v1/files/file_1"),
            ("anthropic", "POST", "/v1/skills/skill_1/versions"),
            ("bedrock", "POST", "/model/us.anthropic.claude-x-v1%3A0/invoke-with-response-stream"),
            ("bedrock", "POST", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse"),
            ("vertex", "POST", "/projects/p/locations/l/publishers/anthropic/models/claude-x@1:streamRawPredict"),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict"),
            ("vertex", "POST", "/v1beta1/projects/p/locations/l/publishers/google/models/g:generateContent"),
            ("foundry", "POST", "/v1/messages"),
            ("foundry", "POST", "/anthropic/v1/messages"),
            ("foundry", "POST", "/openai/deployments/gpt/chat/completions?api-version=2026-01-01"),
            ("openai", "POST", "/v1/responses"),
            ("openai", "POST", "/responses"),
            ("openai", "POST", "/v1/chat/completions"),
            ("openai", "GET", "/v1/models/ft:gpt:org::id"),
            ("openai", "PUT", "/v1/vector_stores/vs_1/files/file_1"),
            ("gemini", "POST", "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"),
            ("gemini", "POST", "/v1beta/models/gemini-x%3AgenerateContent"),
            ("gemini", "POST", "/v1beta/openai/chat/completions"),
            ("github", "GET", "/"),
            ("github", "GET", "/repos/o/r"),
            ("github", "POST", "/repos/o/r/issues"),
            ("github", "PATCH", "/repos/o/r/pulls/1"),
            ("github", "PUT", "/repos/o/r/contents/a/b.txt"),
            ("github", "POST", "/repos/o/r/actions/workflows/ci.yml/dispatches"),
            ("github", "GET", "/repos/o/r/git/ref/heads/main"),
        ] {
            assert!(allowed(name, method, path, &[]), "{name}: {method} {path}");
        }
    }

    #[test]
    fn a_fence_knows_what_a_call_costs_or_that_nobody_does() {
        for (name, method, path, cost) in [
            ("anthropic", "POST", "/v1/messages?beta=true", Cost::Counted(None)),
            ("anthropic", "POST", "/v1/messages/count_tokens", Cost::Free),
            ("anthropic", "POST", "/v1/messages/batches", Cost::Unknown),
            ("anthropic", "GET", "/v1/messages/batches", Cost::Free),
            ("anthropic", "POST", "/v1/complete", Cost::Unknown),
            ("anthropic", "PUT", "/v1/messages", Cost::Unknown),
            (
                "bedrock",
                "POST",
                "/model/us.anthropic.claude-x-v1%3A0/converse",
                Cost::Counted(Some("us.anthropic.claude-x-v1:0")),
            ),
            ("bedrock", "POST", "/model/x/count-tokens", Cost::Free),
            ("bedrock", "POST", "/openai/v1/chat/completions", Cost::Counted(None)),
            ("bedrock", "POST", "/guardrail/g/version/1/apply", Cost::Unknown),
            (
                "vertex",
                "POST",
                "/v1/projects/p/locations/l/publishers/a/models/claude-x@1:streamRawPredict",
                Cost::Counted(Some("claude-x@1")),
            ),
            (
                "vertex",
                "POST",
                "/projects/p/locations/l/publishers/g/models/m:generateContent",
                Cost::Counted(Some("m")),
            ),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/a/models/count-tokens:rawPredict", Cost::Free),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/a/models/m:predict", Cost::Unknown),
            ("foundry", "POST", "/anthropic/v1/messages", Cost::Counted(None)),
            ("foundry", "POST", "/openai/deployments/mine/chat/completions", Cost::Counted(Some("mine"))),
            ("foundry", "POST", "/openai/deployments/mine/images/generations", Cost::Unknown),
            ("openai", "POST", "/v1/chat/completions", Cost::Counted(None)),
            ("openai", "POST", "/responses", Cost::Counted(None)),
            ("openai", "POST", "/v1/batches", Cost::Unknown),
            ("openai", "POST", "/v1/images/generations", Cost::Unknown),
            ("openai", "POST", "/v1/files", Cost::Free),
            (
                "gemini",
                "POST",
                "/v1beta/models/gemini-x:streamGenerateContent?alt=sse",
                Cost::Counted(Some("gemini-x")),
            ),
            ("gemini", "POST", "/v1beta/models/gemini-x%3AgenerateContent", Cost::Counted(Some("gemini-x"))),
            ("gemini", "POST", "/v1beta/interactions", Cost::Unknown),
            ("github", "POST", "/repos/o/r/issues", Cost::Unknown),
            ("generic", "POST", "/x", Cost::Unknown),
        ] {
            let route = Route::find(name).unwrap();
            let target = Target::parse(path, route, None).unwrap();
            assert_eq!(route.cost(method, &target), cost, "{name}: {method} {path}");
        }
        let counting = ROUTES.iter().filter(|route| route.counts()).map(|route| route.name.as_str());
        assert_eq!(counting.collect::<Vec<_>>(), ["anthropic", "bedrock", "vertex", "foundry", "openai", "gemini"]);
    }

    #[test]
    fn what_mints_or_lists_credentials_and_what_is_not_named_is_refused() {
        for (name, method, path) in [
            ("anthropic", "POST", "/v1/oauth/token"),
            ("anthropic", "GET", "/v1/organizations/api_keys"),
            ("anthropic", "GET", "/v1/organizations/me"),
            ("anthropic", "POST", "/v1/organizations/invites"),
            ("anthropic", "GET", "/v1/vaults"),
            ("anthropic", "POST", "/api/oauth/claude_cli/create_api_key"),
            ("anthropic", "GET", "/v1/messages"),
            ("anthropic", "PUT", "/v1/messages"),
            ("anthropic", "POST", "/v1/messages/"),
            ("anthropic", "POST", "/V1/messages"),
            ("anthropic", "POST", "/v1/Messages"),
            ("anthropic", "POST", "/v1/messages;x"),
            ("anthropic", "POST", "/messages"),
            ("anthropic", "POST", "/v1/v1/messages"),
            ("anthropic", "GET", "/v1/models/../organizations/api_keys"),
            ("anthropic", "GET", "/v1/models/%2e%2e/organizations/api_keys"),
            ("anthropic", "GET", "/v1/models/x%2F..%2F..%2Forganizations"),
            ("anthropic", "GET", "/v1/models/x/y"),
            ("anthropic", "GET", "/v1/files/"),
            ("anthropic", "GET", "/"),
            ("bedrock", "POST", "/async-invoke"),
            ("bedrock", "GET", "/foundation-models"),
            ("bedrock", "POST", "/model/x%2Fconverse/invoke"),
            ("bedrock", "GET", "/model/x/invoke"),
            ("vertex", "POST", "/v1/projects/p/serviceAccounts/x:generateAccessToken"),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/g/models/m:setIamPolicy"),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/g/models/m:setIamPolicy:rawPredict"),
            ("vertex", "POST", "/v1/projects/p:x/locations/l/publishers/g/models/m:rawPredict"),
            ("vertex", "POST", "/v2/projects/p/locations/l/publishers/g/models/m:rawPredict"),
            ("vertex", "POST", "/v1/v1/projects/p/locations/l/publishers/g/models/m:rawPredict"),
            ("vertex", "POST", "/v1/projects/p/locations/l/publishers/g/models/:rawPredict"),
            ("foundry", "GET", "/openai/deployments/gpt/keys"),
            ("foundry", "POST", "/anthropic/v1/oauth/token"),
            ("openai", "POST", "/v1/realtime/client_secrets"),
            ("openai", "POST", "/v1/realtime/sessions"),
            ("openai", "POST", "/v1/chatkit/sessions"),
            ("openai", "GET", "/v1/organization/admin_api_keys"),
            ("openai", "GET", "/v1/organization/projects/p/api_keys"),
            ("openai", "GET", "/v1/fine_tuning/checkpoints/x/permissions"),
            ("openai", "DELETE", "/v1/models/x"),
            ("gemini", "POST", "/v1alpha/auth_tokens"),
            ("gemini", "POST", "/v1beta/tunedModels/x/permissions"),
            ("gemini", "POST", "/upload/v1beta/files"),
            ("gemini", "GET", "/v1beta/models/x:generateContent"),
            ("gemini", "GET", "/v1beta/files/x:download"),
            ("github", "POST", "/app/installations/1/access_tokens"),
            ("github", "GET", "/app"),
            ("github", "POST", "/applications/x/token"),
            ("github", "POST", "/authorizations"),
            ("github", "GET", "/user/keys"),
            ("github", "POST", "/user/keys"),
            ("github", "POST", "/user/gpg_keys"),
            ("github", "POST", "/user/ssh_signing_keys"),
            ("github", "POST", "/repos/o/r/keys"),
            ("github", "GET", "/repos/o/r/keys/1"),
            ("github", "POST", "/repos/o/r/hooks"),
            ("github", "PUT", "/repos/o/r/collaborators/x"),
            ("github", "GET", "/repos/o/r/actions/secrets"),
            ("github", "PUT", "/repos/o/r/actions/secrets/x"),
            ("github", "POST", "/repos/o/r/actions/runners/registration-token"),
            ("github", "POST", "/repos/o/r/actions/runners/generate-jitconfig"),
            ("github", "GET", "/repos/o/r/dependabot/secrets"),
            ("github", "GET", "/repos/o/r/codespaces/secrets"),
            ("github", "PUT", "/repos/o/r/environments/e/secrets/x"),
            ("github", "GET", "/orgs/o/actions/secrets"),
            ("github", "GET", "/orgs/o/personal-access-tokens"),
            ("github", "POST", "/orgs/o/actions/runners/remove-token"),
            ("github", "GET", "/copilot_internal/v2/token"),
            ("github", "POST", "/graphql"),
            ("github", "DELETE", "/repos/o/r"),
            ("github", "POST", "/repos/o/r/issues/../keys"),
            ("generic", "GET", "/"),
            ("generic", "POST", "/v1/messages"),
        ] {
            assert!(!allowed(name, method, path, &[]), "{name}: {method} {path}");
        }
    }

    #[test]
    fn a_profile_with_patterns_allows_those_and_nothing_else() {
        let only = ["POST /v1/messages", "POST /v1/oauth/token"];
        assert!(allowed("anthropic", "POST", "/v1/messages", &only));
        assert!(allowed("anthropic", "POST", "/v1/oauth/token", &only));
        assert!(!allowed("anthropic", "GET", "/v1/models", &only));
        assert!(!allowed("anthropic", "POST", "/v1/messages", &["not a pattern", "post /v1/messages"]));
        assert!(allowed("openai", "GET", "/v1/organization/costs", &["GET /v1/organization/costs"]));
        assert!(allowed("generic", "DELETE", "/api/v3/things/7", &["* /api/v3/things/{id}"]));
    }

    #[test]
    fn placeholders_take_what_they_stand_for() {
        for (pattern, method, path, expected) in [
            ("GET /", "GET", "/", true),
            ("GET /", "GET", "/a", false),
            ("GET /a", "HEAD", "/a", true),
            ("POST /a", "HEAD", "/a", false),
            ("* /a", "DELETE", "/a", true),
            ("GET /a/", "GET", "/a/", true),
            ("GET /a/", "GET", "/a", false),
            ("GET /{x}", "GET", "/a", true),
            ("GET /{x}", "GET", "/", false),
            ("GET /{x}", "GET", "/a/b", false),
            ("GET /{x}", "GET", "/a%20b", true),
            ("GET /{x}/b", "GET", "/a/b", true),
            ("GET /a/{x...}", "GET", "/a", false),
            ("GET /a/{x...}", "GET", "/a/", false),
            ("GET /a/{x...}", "GET", "/a/b", true),
            ("GET /a/{x...}", "GET", "/a/b/c/", true),
            ("GET /{x...}", "GET", "/", false),
            ("GET /v{x}/y", "GET", "/v2/y", true),
            ("GET /v{x}/y", "GET", "/v/y", false),
            ("GET /{x}.json", "GET", "/a.json", true),
            ("GET /{x}.json", "GET", "/.json", false),
            ("GET /a{x}a", "GET", "/a", false),
            ("GET /a{x}a", "GET", "/aa", false),
            ("GET /{x}:run", "GET", "/a:run", true),
            ("GET /{x}:run", "GET", "/a:stop:run", false),
            ("GET /ä", "GET", "/%c3%a4", true),
        ] {
            assert_eq!(allowed("generic", method, path, &[pattern]), expected, "{pattern}: {method} {path}");
        }
    }

    #[test]
    fn no_placeholder_takes_a_custom_method_of_google() {
        for (pattern, path) in [
            ("POST /v1/{x}", "/v1/a:b"),
            ("POST /v1/{x...}", "/v1/a/b:c"),
            ("POST /v1/{x...}", "/v1/a:b/c"),
            ("POST /v1/{x...}", "/v1/a/b%3Ac"),
        ] {
            assert!(!allowed("vertex", "POST", path, &[pattern]), "{pattern}: {path}");
            assert!(allowed("openai", "POST", path, &[pattern]), "{pattern}: {path}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_told_in_words() {
        let long = format!("GET /{}", "a".repeat(508));
        for (text, why) in [
            ("", "one space"),
            ("/v1/messages", "one space"),
            ("POST", "one space"),
            ("post /a", "capital"),
            ("GET|POST /a", "capital"),
            (" /a", "capital"),
            ("CONNECT /a", "CONNECT"),
            ("TRACE /a", "TRACE"),
            ("GET a", "slash"),
            ("GET https://api.example/a", "slash"),
            ("GET  /a", "slash"),
            ("GET /a b", "no space"),
            ("GET /a?b=c", "query"),
            ("GET /a%20b", "decoded"),
            ("GET /a#b", "decoded"),
            ("GET /a\\b", "decoded"),
            ("GET /a\nb", "no space"),
            ("GET //a", "empty"),
            ("GET /a//b", "empty"),
            ("GET /a/../b", "dot"),
            ("GET /.", "dot"),
            ("GET /{}", "letters"),
            ("GET /{...}", "letters"),
            ("GET /{a-b}", "letters"),
            ("GET /{a", "no `}`"),
            ("GET /a}", "no `{`"),
            ("GET /}a{b}", "more than one"),
            ("GET /{a}{b}", "more than one"),
            ("GET /{a...}/b", "at the end"),
            ("GET /x{a...}", "at the end"),
            (&long, "512"),
        ] {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        let hostile = Pattern::parse("GET\u{1b}[2J").unwrap_err().to_string();
        assert!(!hostile.contains('\u{1b}'), "{hostile}");
    }
}
