//! Settings and logins of tools: Claude Code, the Anthropic SDKs, Codex, AWS, gh, and files with logins of several hosts.
//!
//! Reads the formats as far as is needed to say that a credential is there and where. Called by the scanner.

use super::text::{self, Written};
use super::{Around, Finding, Found, Place, Source, State};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Profiles of one folder that are looked at.
const PROFILES_MAX: usize = 64;

/// A folder with profiles of the Anthropic SDKs, as `ant` writes it.
#[derive(Debug, Default)]
pub struct SdkFolder {
    /// The folder.
    pub path: PathBuf,
    /// What `active_config` names.
    pub active: Option<String>,
    /// The profiles, by name.
    pub profiles: Vec<SdkProfile>,
}

/// A profile of the Anthropic SDKs.
#[derive(Debug)]
pub struct SdkProfile {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// It federates; otherwise it is a login.
    pub federates: bool,
    /// Fields that a federation needs and that the file lacks; variables of the environment may fill them.
    pub missing: Vec<&'static str>,
}

impl SdkFolder {
    /// The profile of a name.
    pub fn profile(&self, name: &str) -> Option<&SdkProfile> {
        self.profiles.iter().find(|p| p.name == name)
    }
}

/// Looks at the files of all tools.
pub(super) fn all(around: &Around, found: &mut Found) {
    claude_settings(around, found);
    for folder in sdk_folders(around) {
        sdk_folder(&folder, found);
    }
    claude_login(around, found);
    let Some(home) = around.home.clone() else { return };
    codex(&around.text("CODEX_HOME").map_or_else(|| home.join(".codex"), PathBuf::from), found);
    let aws = |name: &str, file: &str| around.text(name).map_or_else(|| home.join(".aws").join(file), PathBuf::from);
    aws_credentials(&aws("AWS_SHARED_CREDENTIALS_FILE", "credentials"), found);
    aws_config(&aws("AWS_CONFIG_FILE", "config"), found);
    let config = around.config().unwrap_or_else(|| home.join(".config"));
    let gh = around.text("GH_CONFIG_DIR").map_or_else(|| config.join("gh"), PathBuf::from);
    gh_hosts(&gh.join("hosts.yml"), found);
    netrc(&around.text("NETRC").map_or_else(|| home.join(".netrc"), PathBuf::from), found);
    pgpass(&around.text("PGPASSFILE").map_or_else(|| home.join(".pgpass"), PathBuf::from), found);
    let service = around.text("PGSERVICEFILE").map_or_else(|| home.join(".pg_service.conf"), PathBuf::from);
    pg_service(&service, found);
    npmrc(&home.join(".npmrc"), found);
    npmrc(&around.project().join(".npmrc"), found);
    let google = around.text("CLOUDSDK_CONFIG").map_or_else(|| home.join(".config/gcloud"), PathBuf::from);
    google_login(&google.join("application_default_credentials.json"), found);
    gemini_login(&home.join(".gemini/oauth_creds.json"), found);
}

/// The folders in which the SDKs look: Go and TypeScript honour `XDG_CONFIG_HOME`, Python does not.
fn sdk_folders(around: &Around) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = [true, false].iter().filter_map(|xdg| sdk_folder_of(around, *xdg)).collect();
    folders.dedup();
    folders
}

/// The folder in which an SDK looks for profiles, by whether it honours `XDG_CONFIG_HOME`.
pub fn sdk_folder_of(around: &Around, xdg: bool) -> Option<PathBuf> {
    if let Some(named) = around.text("ANTHROPIC_CONFIG_DIR") {
        return Some(PathBuf::from(named));
    }
    let config = if xdg { around.config() } else { around.home.as_ref().map(|home| home.join(".config")) };
    config.map(|config| config.join("anthropic"))
}

fn json(path: &Path, found: &mut Found) -> Option<(String, Value)> {
    let text = found.read(path)?;
    match serde_json::from_str(&text) {
        Ok(value) => Some((text, value)),
        Err(e) => {
            let why = format!("line {} is not JSON", e.line());
            found.unread.push(super::Unread { file: path.display().to_string(), why });
            None
        }
    }
}

fn at(path: &Path, line: Option<usize>) -> Place {
    Place::File { path: path.to_owned(), line }
}

/// `env` puts variables over those of the environment; later files of the list win.
pub(super) fn claude_settings(around: &Around, found: &mut Found) {
    let user = claude_folder(around);
    let project = around.project().join(".claude");
    let mut files = vec![
        user.map(|folder| folder.join("settings.json")),
        Some(project.join("settings.json")),
        Some(project.join("settings.local.json")),
        Some(around.system.join("etc/claude-code/managed-settings.json")),
    ];
    // In the home folder, the settings of the project are those of the user.
    if files[0] == files[1] {
        files[1] = None;
    }
    for (rank, path) in (0..).zip(files) {
        let Some(path) = path else { continue };
        let Some((text, settings)) = json(&path, found) else { continue };
        let source = Source::ClaudeSettings(rank);
        for (name, value) in settings["env"].as_object().into_iter().flatten() {
            let place = at(&path, text::line_of(&text, &format!("\"{name}\"")));
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            found.findings.extend(Finding::of_variable(name, source, place, Written::Plain(value)));
        }
        if settings["apiKeyHelper"].as_str().is_some_and(|program| !program.is_empty()) {
            let place = at(&path, text::line_of(&text, "\"apiKeyHelper\""));
            let state = State::Unusable("a program that Claude Code runs for its key");
            let helper = Finding { source, ..Finding::of_tool("anthropic", "apiKeyHelper", place, state) };
            found.findings.push(helper);
        }
    }
}

/// The user's own folder of Claude Code.
fn claude_folder(around: &Around) -> Option<PathBuf> {
    let named = around.text("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    named.or_else(|| around.home.as_ref().map(|home| home.join(".claude")))
}

fn claude_login(around: &Around, found: &mut Found) {
    let Some(path) = claude_folder(around).map(|folder| folder.join(".credentials.json")) else { return };
    let Some((text, login)) = json(&path, found) else { return };
    let token = &login["claudeAiOauth"]["accessToken"];
    if token.as_str().is_some_and(|token| !token.is_empty()) {
        let state = State::Unusable("a login of Claude Code, whose refresh token belongs to one program");
        let place = at(&path, text::line_of(&text, "\"accessToken\""));
        found.findings.push(Finding::of_tool("anthropic", "login of Claude Code", place, state));
    }
}

fn sdk_folder(path: &Path, found: &mut Found) {
    if !path.is_dir() {
        return;
    }
    let active = found.read(&path.join("active_config")).map(|text| text.trim().to_owned()).filter(|t| !t.is_empty());
    let mut folder = SdkFolder { path: path.to_owned(), active, profiles: Vec::new() };
    let entries = std::fs::read_dir(path.join("configs")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    for file in files.into_iter().take(PROFILES_MAX) {
        let Some(name) = file.file_stem().and_then(|s| s.to_str()).map(str::to_owned) else { continue };
        let Some((text, config)) = json(&file, found) else { continue };
        let authentication = &config["authentication"];
        let federates = authentication["type"] == "oidc_federation";
        let has = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        let mut missing = Vec::new();
        if federates {
            let parts = [
                ("authentication.federation_rule_id", has(&authentication["federation_rule_id"])),
                ("organization_id", has(&config["organization_id"])),
                ("authentication.identity_token.path", has(&authentication["identity_token"]["path"])),
            ];
            missing.extend(parts.into_iter().filter(|(_, there)| !there).map(|(name, _)| name));
        }
        let (kind, why) = if federates {
            (
                "federation",
                "a federation of the SDKs; add one of the same fields with `keyward profile add --federation`",
            )
        } else {
            ("login", "a login of the SDKs, whose refresh token belongs to one program")
        };
        let place = at(&file, text::line_of(&text, "\"type\""));
        found.findings.push(Finding::of_tool(
            "anthropic",
            format!("profile {name} ({kind})"),
            place,
            State::Unusable(why),
        ));
        folder.profiles.push(SdkProfile { name, file, federates, missing });
    }
    found.sdk_folders.push(folder);
}

fn codex(home: &Path, found: &mut Found) {
    let path = home.join("auth.json");
    let Some((text, auth)) = json(&path, found) else { return };
    if let Some(key) = auth["OPENAI_API_KEY"].as_str() {
        let place = at(&path, text::line_of(&text, "\"OPENAI_API_KEY\""));
        let name = "key of Codex";
        found.findings.push(Finding::with_secret("openai", name, Source::Tool, place, key.to_owned()));
    }
    if auth["tokens"]["access_token"].as_str().is_some_and(|token| !token.is_empty()) {
        let state = State::Unusable("a login of Codex, whose refresh token belongs to one program");
        let place = at(&path, text::line_of(&text, "\"tokens\""));
        found.findings.push(Finding::of_tool("openai", "login of Codex", place, state));
    }
}

/// The lines of an INI file: the section that they are in, the key, and its number.
fn ini(text: &str) -> impl Iterator<Item = (String, &str, &str, usize)> {
    let mut section = String::new();
    text.lines().enumerate().filter_map(move |(n, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.trim().to_owned();
            return None;
        }
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
        Some((section.clone(), key.trim(), value.trim(), n + 1))
    })
}

fn aws_credentials(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    for (section, key, value, line) in ini(&text) {
        if key.eq_ignore_ascii_case("aws_access_key_id") && !value.is_empty() {
            let state = State::Unusable("an access key of AWS, which has two parts");
            let name = format!("access key of [{section}]");
            found.findings.push(Finding::of_tool("aws", name, at(path, Some(line)), state));
        } else if key.eq_ignore_ascii_case("credential_process") {
            aws_program(path, &section, line, found);
        }
    }
}

fn aws_config(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    for (section, key, value, line) in ini(&text) {
        let section = section.strip_prefix("profile ").unwrap_or(&section);
        match key {
            "credential_process" => aws_program(path, section, line, found),
            "aws_access_key_id" if !value.is_empty() => {
                let state = State::Unusable("an access key of AWS, which has two parts");
                let name = format!("access key of [{section}]");
                found.findings.push(Finding::of_tool("aws", name, at(path, Some(line)), state));
            }
            "sso_session" | "sso_start_url" => {
                let state = State::Unusable("a login of AWS, renewed by `aws sso login`");
                let name = format!("single sign-on of [{section}]");
                // Newer profiles name a session, older ones the URL; a profile may have both.
                if !section.starts_with("sso-session") && found.of_tool(&name).next().is_none() {
                    found.findings.push(Finding::of_tool("aws", name, at(path, Some(line)), state));
                }
            }
            _ => {}
        }
    }
}

fn aws_program(path: &Path, section: &str, line: usize, found: &mut Found) {
    let name = format!("credential_process of [{section}]");
    found.findings.push(Finding::of_tool("aws", name, at(path, Some(line)), State::Setting));
}

/// One entry a host; the token stands in the file where gh found no keyring.
fn gh_hosts(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    let mut host: Option<(String, usize, bool)> = None;
    let close = |host: Option<(String, usize, bool)>, found: &mut Found| {
        if let Some((host, line, false)) = host {
            let state = State::Unusable("gh keeps the token in the keyring");
            found.findings.push(Finding::of_tool(
                "github",
                format!("login of gh at {host}"),
                at(path, Some(line)),
                state,
            ));
        }
    };
    for (n, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        if !line.starts_with([' ', '\t']) {
            close(host.take(), found);
            host = content.strip_suffix(':').map(|name| (unquoted(name), n + 1, false));
        } else if let (Some((name, _, seen @ false)), Some(token)) = (&mut host, content.strip_prefix("oauth_token:")) {
            *seen = true;
            let (name, place) = (format!("login of gh at {name}"), at(path, Some(n + 1)));
            found.findings.push(Finding::with_secret("github", name, Source::Tool, place, unquoted(token)));
        }
    }
    close(host, found);
}

fn netrc(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    let mut machine: Option<String> = None;
    for (n, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        while let Some(word) = words.next() {
            match word {
                "machine" => machine = words.next().map(str::to_owned),
                "default" => machine = Some("default".to_owned()),
                // Its body may hold anything.
                "macdef" => return,
                "login" | "account" => {
                    words.next();
                }
                "password" => {
                    words.next();
                    let name = format!("password for {}", machine.as_deref().unwrap_or("a host"));
                    let state = State::Unusable("a login and a password for one host");
                    found.findings.push(Finding::of_tool("netrc", name, at(path, Some(n + 1)), state));
                }
                _ => {}
            }
        }
    }
}

fn pgpass(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        // A backslash stands before a colon that belongs to the field.
        let mut fields = vec![String::new()];
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => fields.last_mut().into_iter().for_each(|f| f.extend(chars.next())),
                ':' if fields.len() < 5 => fields.push(String::new()),
                _ => fields.last_mut().into_iter().for_each(|f| f.push(c)),
            }
        }
        if let [host, _, database, _, password] = fields.as_slice()
            && !password.is_empty()
        {
            let state = State::Unusable("a password for one server");
            let name = format!("password for {database} at {host}");
            found.findings.push(Finding::of_tool("postgres", name, at(path, Some(n + 1)), state));
        }
    }
}

fn pg_service(path: &Path, found: &mut Found) {
    let Some(text) = found.read(path) else { return };
    for (section, key, value, line) in ini(&text) {
        if key == "password" && !value.is_empty() {
            let state = State::Unusable("a password for one service");
            let name = format!("password of service {section}");
            found.findings.push(Finding::of_tool("postgres", name, at(path, Some(line)), state));
        }
    }
}

fn npmrc(path: &Path, found: &mut Found) {
    if found.findings.iter().any(|f| f.place.file() == Some(path)) {
        return;
    }
    let Some(text) = found.read(path) else { return };
    for (_, key, value, line) in ini(&text) {
        let secret =
            ["_authToken", "_auth", "_password"].iter().any(|end| key == *end || key.ends_with(&format!(":{end}")));
        if secret && !value.is_empty() && !value.starts_with("${") {
            let state = State::Unusable("npm reads it here; write ${NPM_TOKEN} in its place and store the token");
            found.findings.push(Finding::of_tool("npm", key, at(path, Some(line)), state));
        }
    }
}

fn google_login(path: &Path, found: &mut Found) {
    let Some((text, login)) = json(path, found) else { return };
    let (name, why) = match login["type"].as_str() {
        Some("service_account") => ("key of a Google service account", "a private key in a file of its own"),
        Some("external_account") => return,
        Some(_) | None => ("login of Google", "a login of Google, whose refresh token belongs to one program"),
    };
    let place = at(path, text::line_of(&text, "\"type\""));
    found.findings.push(Finding::of_tool("google", name, place, State::Unusable(why)));
}

fn gemini_login(path: &Path, found: &mut Found) {
    if json(path, found).is_some() {
        let state = State::Unusable("a login of Gemini, whose refresh token belongs to one program");
        found.findings.push(Finding::of_tool("gemini", "login of Gemini", at(path, None), state));
    }
}
