//! Which credential each client would take here without Keyward.
//!
//! The orders are those that the clients were seen to follow or that their vendors document; where both differ, or where a
//! version differs, a warning says so. Pure over what was found: reads nothing and runs nothing. Called by `doctor`.

use crate::federation::Federation;
use keyward_find::find::{Around, Finding, Found, Place, Source, State, auth_headers, sdk_folder_of};
use serde::{Serialize, Serializer};
use std::path::Path;

/// A credential that a client would look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Contender {
    /// Variable, or setting of a tool.
    pub(crate) variable: String,
    /// Where it is.
    #[serde(flatten)]
    pub(crate) place: Shown,
    /// Files in which the variable of the environment is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) written: Vec<Shown>,
    /// First 8 hexadecimal digits of the SHA-256 of the secret, where it is one that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// Why the client fails with it instead of taking the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fails: Option<String>,
}

/// A place, as `place`, `file` and `line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown(pub(crate) Place);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            place: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            file: Option<std::borrow::Cow<'a, str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<usize>,
        }
        Fields { place: self.0.to_string(), file: self.0.file().map(Path::to_string_lossy), line: self.0.line() }
            .serialize(s)
    }
}

/// What one client would do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Client {
    /// The client.
    pub(crate) client: &'static str,
    /// What it would take.
    pub(crate) winner: Option<Contender>,
    /// What it would look at only without the winner, in its order.
    pub(crate) shadowed: Vec<Contender>,
    /// What stands in files and not in this environment: a shell or a program that reads the file has it.
    pub(crate) dormant: Vec<Contender>,
    /// What a person should know.
    pub(crate) warnings: Vec<String>,
}

/// Everything that the orders look at.
struct Scene<'f> {
    found: &'f Found,
    around: &'f Around,
    federation: Federation,
}

/// All clients, also those without any credential.
pub(crate) fn clients(found: &Found, around: &Around) -> Vec<Client> {
    let scene = Scene { found, around, federation: Federation::from_environment(around) };
    vec![
        scene.python(),
        scene.typescript(),
        scene.go(),
        scene.ant(),
        scene.claude_code(),
        scene.openai(),
        scene.codex(),
        scene.gemini(),
        scene.gh(),
        scene.aws(),
        scene.libpq(),
    ]
}

const ANTHROPIC_KEYS: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"];
const FEDERATION: &str = "federation variables";

impl Scene<'_> {
    fn python(&self) -> Client {
        let mut order = self.variables(ANTHROPIC_KEYS);
        let folder = sdk_folder_of(self.around, false);
        let active = folder.as_deref().and_then(|f| self.folder(f)).and_then(|f| f.active.clone());
        let named = self.around.text("ANTHROPIC_PROFILE");
        // A folder of its own, or a pointer in the usual one, brings the profile before the federation.
        let early = named.is_some() || self.around.text("ANTHROPIC_CONFIG_DIR").is_some() || active.is_some();
        let name = named.or(active).unwrap_or_else(|| "default".to_owned());
        if early {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Fails));
        }
        order.extend(self.complete_federation());
        if !early {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Ignored));
        }
        let mut client = self.client("Anthropic Python SDK", order, &anthropic_names(ANTHROPIC_KEYS));
        self.anthropic_warnings(
            &mut client,
            "version 2.11 takes it as unset; the documentation and older versions take it as the key and fail",
        );
        client
    }

    fn typescript(&self) -> Client {
        let mut order = self.variables(ANTHROPIC_KEYS);
        // The file of a profile comes before the federation, also the one that nobody named.
        let (folder, name) = self.profile_name(true);
        order.extend(self.profile(folder.as_deref(), &name, Missing::Ignored));
        order.extend(self.complete_federation());
        let mut client = self.client("Anthropic TypeScript SDK", order, &anthropic_names(ANTHROPIC_KEYS));
        self.anthropic_warnings(&mut client, "it is taken as unset");
        client
    }

    fn go(&self) -> Client {
        let mut order = self.variables(ANTHROPIC_KEYS);
        let named = self.around.text("ANTHROPIC_PROFILE");
        let (folder, name) = self.profile_name(true);
        if named.is_some() {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Fails));
        }
        order.extend(self.complete_federation());
        if named.is_none() {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Ignored));
        }
        let mut client = self.client("Anthropic Go SDK", order, &anthropic_names(ANTHROPIC_KEYS));
        self.anthropic_warnings(&mut client, "it is taken as unset");
        if self.found.is_empty("ANTHROPIC_FEDERATION_RULE_ID") {
            client.warnings.push(
                "ANTHROPIC_FEDERATION_RULE_ID is set and empty: it counts as there, so that the federation is tried; unset it".to_owned(),
            );
        }
        client
    }

    fn ant(&self) -> Client {
        let mut order = self.variables(ANTHROPIC_KEYS);
        let named = self.around.text("ANTHROPIC_PROFILE");
        let (folder, name) = self.profile_name(true);
        if named.is_some() {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Fails));
        }
        order.extend(self.complete_federation());
        if self.federation.is_meant() && !self.federation.is_complete() {
            let fails = format!("it ends with an error: {} missing", are(&self.federation.missing()));
            order.push(Contender { fails: Some(fails), ..self.federation_contender() });
        }
        if named.is_none() {
            order.extend(self.profile(folder.as_deref(), &name, Missing::Ignored));
        }
        let mut client = self.client("ant", order, &anthropic_names(ANTHROPIC_KEYS));
        self.anthropic_warnings(&mut client, "it probably counts as set");
        client
    }

    fn claude_code(&self) -> Client {
        const NAMES: &[&str] = &["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"];
        let mut order = Vec::new();
        for switch in ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"] {
            // Whether a setting switches it on is not looked at: that it is there is what a person must know.
            if self.found.claude_setting(switch).is_some() || self.around.text(switch).is_some_and(|v| is_on(&v)) {
                order.extend(self.claude_variable(switch));
            }
        }
        order.extend(self.claude_variable("ANTHROPIC_AUTH_TOKEN"));
        order.extend(self.claude_variable("ANTHROPIC_API_KEY"));
        order.extend(self.found.claude_setting("apiKeyHelper").map(contender));
        order.extend(self.claude_variable("CLAUDE_CODE_OAUTH_TOKEN"));
        let (folder, name) = self.profile_name(false);
        let named = self.around.text("ANTHROPIC_PROFILE").is_some();
        let federates =
            folder.as_deref().and_then(|f| self.folder(f)).and_then(|f| f.profile(&name)).is_some_and(|p| p.federates);
        let profile = self.profile(folder.as_deref(), &name, if named { Missing::Fails } else { Missing::Ignored });
        let (mut first, mut last) = (Vec::new(), Vec::new());
        let (mut early, mut late) = (None, None);
        if named {
            early = profile
        } else if federates {
            late = profile
        } else {
            last.extend(profile)
        }
        first.extend(early.take());
        first.extend(self.complete_federation());
        first.extend(late.take());
        order.extend(first);
        order.extend(self.found.of_tool("login of Claude Code").map(contender));
        order.extend(last);
        let mut client = self.client("Claude Code", order, &anthropic_names(NAMES));
        self.anthropic_warnings(&mut client, "what it does then differs between its versions");
        for finding in &self.found.findings {
            if finding.name == "apiKeyHelper" {
                client.warnings.push(format!(
                    "apiKeyHelper in {} wins over a federation, also over one that `keyward run` hands over as files",
                    finding.place
                ));
            } else if finding.secret_of_claude_settings() {
                client.warnings.push(format!(
                    "{} in {} is put over the environment, so it also wins over what `keyward run` hands over: remove it from that file",
                    finding.name, finding.place
                ));
            }
        }
        if client.winner.as_ref().is_some_and(|w| w.variable == "ANTHROPIC_API_KEY") {
            client.warnings.push(
                "in a terminal it asks once whether to use ANTHROPIC_API_KEY; `claude -p` always uses it".to_owned(),
            );
        }
        client
    }

    fn openai(&self) -> Client {
        let mut client = self.client("OpenAI SDKs", self.variables(&["OPENAI_API_KEY"]), &["OPENAI_API_KEY"]);
        self.empty(&mut client, &["OPENAI_API_KEY"], "the SDKs differ in whether it counts as a key; unset it");
        client
    }

    fn codex(&self) -> Client {
        let mut order = self.variables(&["CODEX_API_KEY"]);
        order.extend(self.found.of_tool("login of Codex").map(contender));
        order.extend(self.found.of_tool("key of Codex").filter(|f| f.state == State::Usable).map(contender));
        let (rule, file) = ("OPENAI_FEDERATION_RULE_ID", "OPENAI_IDENTITY_TOKEN_FILE");
        let mut client = self.client("Codex", order, &["CODEX_API_KEY"]);
        match (self.found.set(rule), self.found.set(file)) {
            (Some(_), Some(_)) => client.warnings.push(format!(
                "{rule} and {file} are set: a federation of Codex, whose place in the order is not documented"
            )),
            (Some(_), None) => client.warnings.push(format!("half-configured federation: {file} is missing")),
            (None, Some(_)) => client.warnings.push(format!("half-configured federation: {rule} is missing")),
            (None, None) => {}
        }
        if self.found.set("OPENAI_API_KEY").is_some() {
            client.warnings.push(
                "OPENAI_API_KEY is read by providers of its config.toml that name it, not by the built-in one"
                    .to_owned(),
            );
        }
        self.empty(&mut client, &["CODEX_API_KEY"], "what Codex does then is not documented; unset it");
        client
    }

    fn gemini(&self) -> Client {
        const NAMES: &[&str] = &["GOOGLE_API_KEY", "GEMINI_API_KEY"];
        let switch = "GOOGLE_GENAI_USE_VERTEXAI";
        let mut order = Vec::new();
        if self.around.text(switch).is_some_and(|v| is_on(&v)) {
            order.extend(self.variable(switch));
        }
        order.extend(self.variables(NAMES));
        order.extend(self.found.of_tool("login of Gemini").map(contender));
        let mut client = self.client("Gemini", order, NAMES);
        if client.winner.is_some() && client.shadowed.iter().any(|c| c.variable == "login of Gemini") {
            client.warnings.push(
                "Gemini CLI takes the kind of credential that its settings select; this is the order of the SDKs"
                    .to_owned(),
            );
        }
        if client.dormant.iter().any(|c| c.place.0.file().is_some_and(|f| f.ends_with(".env"))) {
            client.warnings.push("Gemini CLI loads the .env file by itself".to_owned());
        }
        client
    }

    fn gh(&self) -> Client {
        let mut order = self.variables(&["GH_TOKEN", "GITHUB_TOKEN"]);
        let logins = self.found.findings.iter().filter(|f| f.family == "github" && f.source == Source::Tool);
        order.extend(logins.map(contender));
        let mut client = self.client("gh", order, &["GH_TOKEN", "GITHUB_TOKEN"]);
        self.empty(&mut client, &["GH_TOKEN", "GITHUB_TOKEN"], "it is taken as unset");
        client
    }

    fn aws(&self) -> Client {
        const PARTS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let mut order = Vec::new();
        match (self.variable(PARTS[0]), self.variable(PARTS[1])) {
            (Some(key), Some(_)) => order.push(key),
            (Some(key), None) => {
                order.push(Contender { fails: Some(format!("it ends with an error: {} is missing", PARTS[1])), ..key });
            }
            (None, _) => {}
        }
        if self.found.set("AWS_ROLE_ARN").is_some() {
            order.extend(self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"));
        }
        let profile = self.around.text("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        for kind in ["single sign-on", "access key", "credential_process"] {
            order.extend(self.found.of_tool(&format!("{kind} of [{profile}]")).map(contender));
        }
        order.extend(self.variables(&["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]));
        let mut client = self.client("AWS SDKs and command line", order, PARTS);
        if self.found.set("AWS_PROFILE").is_some() && self.found.set(PARTS[0]).is_some() {
            client.warnings.push("AWS_ACCESS_KEY_ID wins over AWS_PROFILE".to_owned());
        }
        self.empty(&mut client, PARTS, "it is taken as unset");
        client
    }

    fn libpq(&self) -> Client {
        let mut order = Vec::new();
        if let Some(service) = self.around.text("PGSERVICE") {
            order.extend(self.found.of_tool(&format!("password of service {service}")).map(contender));
        }
        order.extend(self.variables(&["PGPASSWORD"]));
        let of_file =
            |f: &&Finding| f.family == "postgres" && f.source == Source::Tool && f.name.starts_with("password for ");
        order.extend(self.found.findings.iter().filter(of_file).map(contender));
        let mut client = self.client("PostgreSQL (libpq)", order, &["PGPASSWORD"]);
        if client.winner.as_ref().is_some_and(|w| w.variable.starts_with("password for "))
            && !client.shadowed.is_empty()
        {
            client.warnings.push("of the password file, the first line that fits the server counts".to_owned());
        }
        self.empty(&mut client, &["PGPASSWORD"], "it is taken as no password, and the password file is read");
        client
    }

    /// Puts the first of an order first, and finds what lies in files.
    fn client(&self, client: &'static str, order: Vec<Contender>, names: &[&'static str]) -> Client {
        let mut order = order.into_iter();
        let winner = order.next();
        let mut out = Client { client, winner, shadowed: order.collect(), ..Client::default() };
        for name in names {
            let here = self.found.set(name);
            let other =
                |f: &&Finding| here.is_none_or(|here| f.fingerprint.is_some() && f.fingerprint != here.fingerprint);
            let written = self.found.written(name).filter(|f| f.state != State::Empty);
            out.dormant.extend(written.filter(other).map(contender));
        }
        let rank = |variable: &str| names.iter().position(|name| *name == variable).unwrap_or(names.len());
        let first = out.winner.as_ref().map_or(names.len(), |winner| rank(&winner.variable));
        for dormant in out.dormant.iter().filter(|d| rank(&d.variable) < first || out.winner.is_none()) {
            let (variable, place) = (&dormant.variable, &dormant.place.0);
            out.warnings.push(format!("{variable} in {place} would win in a shell or program that reads that file"));
        }
        out
    }

    fn variables(&self, names: &[&str]) -> Vec<Contender> {
        names.iter().filter_map(|name| self.variable(name)).collect()
    }

    fn variable(&self, name: &str) -> Option<Contender> {
        let here = self.found.set(name)?;
        let same = |f: &&Finding| f.fingerprint.is_none() || f.fingerprint == here.fingerprint;
        let written = self.found.written(name).filter(|f| f.state != State::Empty).filter(same);
        Some(Contender { written: written.map(|f| Shown(f.place.clone())).collect(), ..contender(here) })
    }

    /// A variable as Claude Code sees it: that of its settings, and below it that of the environment.
    fn claude_variable(&self, name: &str) -> Vec<Contender> {
        let set = self.found.claude_setting(name).filter(|f| f.state != State::Empty).map(contender);
        set.into_iter().chain(self.variable(name)).collect()
    }

    fn complete_federation(&self) -> Option<Contender> {
        self.federation.is_complete().then(|| self.federation_contender())
    }

    fn federation_contender(&self) -> Contender {
        let written = self.federation.variables().into_iter().flat_map(|name| self.found.written(name));
        Contender {
            variable: format!("{FEDERATION} ({})", self.federation.variables().join(", ")),
            place: Shown(Place::Environment),
            written: written.map(|f| Shown(f.place.clone())).collect(),
            fingerprint: None,
            fails: None,
        }
    }

    fn folder(&self, path: &Path) -> Option<&keyward_find::find::SdkFolder> {
        self.found.sdk_folders.iter().find(|folder| folder.path == path)
    }

    /// The folder and the name of the profile that counts: the named one, else the active one, else `default`.
    fn profile_name(&self, xdg: bool) -> (Option<std::path::PathBuf>, String) {
        let folder = sdk_folder_of(self.around, xdg);
        let active = || folder.as_deref().and_then(|f| self.folder(f)).and_then(|f| f.active.clone());
        let name = self.around.text("ANTHROPIC_PROFILE").or_else(active).unwrap_or_else(|| "default".to_owned());
        (folder, name)
    }

    fn profile(&self, folder: Option<&Path>, name: &str, missing: Missing) -> Option<Contender> {
        let folder = folder?;
        let of = |place: Place, fails: Option<String>| Contender {
            variable: format!("profile {name}"),
            place: Shown(place),
            written: self.found.written("ANTHROPIC_PROFILE").map(|f| Shown(f.place.clone())).collect(),
            fingerprint: None,
            fails,
        };
        match self.folder(folder).and_then(|f| f.profile(name)) {
            Some(profile) => {
                let lacks = self.lacking(profile);
                let fails = (!lacks.is_empty()).then(|| format!("it lacks {}", lacks.join(", ")));
                Some(of(Place::File { path: profile.file.clone(), line: None }, fails))
            }
            None if missing == Missing::Fails => {
                let path = folder.join("configs").join(format!("{name}.json"));
                Some(of(
                    Place::File { path, line: None },
                    Some("there is no such file, and no other credential is tried".to_owned()),
                ))
            }
            None => None,
        }
    }

    /// The fields of a profile that neither its file nor the environment gives.
    fn lacking(&self, profile: &keyward_find::find::SdkProfile) -> Vec<&'static str> {
        let filled = |field: &&&str| match **field {
            "authentication.federation_rule_id" => self.federation.rule.is_some(),
            "organization_id" => self.federation.organization.is_some(),
            _ => self.federation.identity.is_some(),
        };
        profile.missing.iter().filter(|field| !filled(field)).copied().collect()
    }

    fn anthropic_warnings(&self, client: &mut Client, empty: &str) {
        self.empty(client, ANTHROPIC_KEYS, empty);
        let both = |name: &str| {
            self.found.set(name).is_some()
                || (client.client == "Claude Code" && self.found.claude_setting(name).is_some())
        };
        if ANTHROPIC_KEYS.iter().all(|name| both(name)) {
            client.warnings.push(
                "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set: both are sent, as two different credentials"
                    .to_owned(),
            );
        }
        let headers = self.around.variable("ANTHROPIC_CUSTOM_HEADERS");
        let headers = headers.map(|list| auth_headers(&list.to_string_lossy())).unwrap_or_default();
        if !headers.is_empty() {
            let when =
                if client.client.contains("Go") { "where no other credential was found" } else { "with every request" };
            client.warnings.push(format!(
                "ANTHROPIC_CUSTOM_HEADERS (environment) holds {}, which is sent {when}",
                headers.join(" and ")
            ));
        }
        if self.found.set("ANTHROPIC_BASE_URL").is_some() {
            client
                .warnings
                .push("ANTHROPIC_BASE_URL (environment) says to which host the credential is sent".to_owned());
        }
        if self.federation.is_meant() && !self.federation.is_complete() && client.client != "ant" {
            client.warnings.push(format!(
                "half-configured federation, passed over in silence: {} missing",
                are(&self.federation.missing())
            ));
        }
        let shadows = |c: &Contender| c.variable.starts_with(FEDERATION) || c.variable.starts_with("profile ");
        let shadowed = client.shadowed.iter().any(shadows);
        if let Some(winner) = client.winner.as_ref().filter(|w| shadowed && !shadows(w)) {
            client.warnings.push(format!("{} silently wins over the federation or profile below it", winner.variable));
        }
    }

    fn empty(&self, client: &mut Client, names: &[&str], what: &str) {
        for name in names.iter().filter(|name| self.found.is_empty(name)) {
            client.warnings.push(format!("{name} is set and empty: {what}"));
        }
    }
}

/// What a client does when the profile that counts has no file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fails,
    Ignored,
}

fn anthropic_names(keys: &[&'static str]) -> Vec<&'static str> {
    let more = ["ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID"];
    keys.iter().copied().chain(more).collect()
}

fn contender(finding: &Finding) -> Contender {
    Contender {
        variable: finding.name.clone(),
        place: Shown(finding.place.clone()),
        written: Vec::new(),
        fingerprint: finding.fingerprint.clone(),
        fails: None,
    }
}

/// As Claude Code and Google's SDKs read a switch.
fn is_on(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// `A is`, `A and B are`.
pub(crate) fn are(names: &[&str]) -> String {
    match names {
        [] => "nothing is".to_owned(),
        [one] => format!("{one} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
