//! `keyward profile add`: from a file, for a stored secret, for a federation, or out of the environment.

use super::Outcome;
use super::profile::Deliver;
use crate::args::Context;
use crate::broker::{Broker, name};
use crate::federation::{ASSERTION, Federation, static_toml};
use crate::input::text_file;
use crate::order::are;
use crate::{out, process, time};
use keyward_api::{BODY_MAX_BYTES, ProfilePutRequest, SecretPutRequest};
use keyward_client::Client;
use keyward_diag::{Code, Fault, plain};
use keyward_find::find::known::{Role, known};
use keyward_find::find::{Around, Finding, Found, Place, State};
use keyward_secret::SecretText;
use serde::Serialize;
use std::path::PathBuf;

/// Add a profile: from a file, for a stored secret, for a federation, or out of the environment
///
/// --from-env takes ANTHROPIC_FEDERATION_RULE_ID and the variables beside it, or else a key, which it stores as a secret of
/// the name of the profile. A profile with fields missing is refused, each of them named.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["from", "secret", "federation", "from_env"]))]
pub(crate) struct Args {
    /// Name of the profile
    name: String,
    /// File in TOML; - reads standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Stored secret that the profile hands over
    #[arg(long, value_name = "SECRET", requires = "env")]
    secret: Option<String>,
    /// Variable that holds it, or its path with --deliver file
    #[arg(long, value_name = "VARIABLE", requires = "secret")]
    env: Option<String>,
    /// How it is handed over
    #[arg(long, value_name = "HOW", requires = "secret")]
    deliver: Option<Deliver>,
    /// Longest life of a lease, such as 1h
    #[arg(long, value_name = "TIME", requires = "secret", value_parser = time::duration)]
    max_ttl: Option<u64>,
    /// Exchange an assertion for a short-lived token of Anthropic
    #[arg(long)]
    federation: bool,
    /// Federation rule, fdrl_…
    #[arg(long, value_name = "ID", requires = "federation")]
    rule: Option<String>,
    /// Organization, a UUID
    #[arg(long, value_name = "ID", requires = "federation")]
    organization: Option<String>,
    /// Service account, svac_…
    #[arg(long, value_name = "ID", requires = "federation")]
    service_account: Option<String>,
    /// Workspace, wrkspc_… or default
    #[arg(long, value_name = "ID", requires = "federation")]
    workspace: Option<String>,
    /// File that holds the assertion, read again at each exchange
    #[arg(long, value_name = "PATH", requires = "federation")]
    identity_file: Option<PathBuf>,
    /// Where the token is asked for and valid
    #[arg(long, value_name = "URL", requires = "federation")]
    base_url: Option<String>,
    /// Make it out of the variables of this environment
    #[arg(long)]
    from_env: bool,
    /// Variable that holds the key
    #[arg(long, value_name = "VARIABLE", requires = "from_env")]
    variable: Option<String>,
}

/// What `--from-env --json` prints.
#[derive(Serialize)]
struct Added<'a> {
    profile: &'a str,
    issuer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    /// Variables that win over the profile where programs start without Keyward.
    shadowed_by: Vec<Shadow>,
}

#[derive(Serialize)]
struct Shadow {
    variable: String,
    place: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        name(&self.name)?;
        if self.from_env {
            return self.out_of_environment(context);
        }
        let toml = match (self.from, self.secret, self.env) {
            (Some(file), _, _) => text_file(&file, BODY_MAX_BYTES)?,
            (None, Some(secret), Some(variable)) => {
                static_toml(&secret, &variable, self.deliver.map(|d| d.mode().word()), self.max_ttl)
            }
            (None, _, _) => {
                let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
                let federation = Federation {
                    rule: self.rule,
                    organization: self.organization,
                    service_account: self.service_account,
                    workspace: self.workspace,
                    base_url: self.base_url,
                    identity: self.identity_file.map(|path| crate::federation::Identity::File(absolute(path))),
                };
                let flags = federation.missing_flags();
                if !flags.is_empty() {
                    let fault = Fault::new(Code::ProfileIncomplete).cause(format!("{} missing", are(&flags)));
                    return Err(fault
                        .help("add them to this command; `keyward profile add --help` says what they are")
                        .into());
                }
                federation.to_toml()
            }
        };
        Broker::open(context)?.unlocked(|client| add(client, &self.name, &toml))?;
        say_added(&self.name);
        Ok(0)
    }

    fn out_of_environment(self, context: &Context) -> Outcome {
        let around = Around::here();
        let mut found = Found::everywhere(&around);
        let federation = Federation::from_environment(&around);
        let keys = shadows(&found);
        let (issuer, variable) = if let Some(variable) = self.variable {
            store_key(context, &self.name, &variable, taken(&around, &mut found, &variable)?)?;
            ("static", Some(variable))
        } else if federation.is_meant() {
            if !federation.is_complete() {
                return Err(incomplete(&federation, !keys.is_empty()).into());
            }
            let toml = federation.to_toml();
            Broker::open(context)?.unlocked(|client| add(client, &self.name, &toml))?;
            ("anthropic-federation", None)
        } else {
            let variable = only_key(&found)?;
            one_of_foundry(&around, &variable)?;
            store_key(context, &self.name, &variable, taken(&around, &mut found, &variable)?)?;
            ("static", Some(variable))
        };
        say_added(&self.name);
        let shadowed_by = if variable.is_none() { keys } else { Vec::new() };
        for shadow in &shadowed_by {
            out::say(&format!(
                "{} ({}) shadows the federation in programs that start without Keyward; unset it there, `keyward doctor` says when all is done",
                shadow.variable,
                plain(&shadow.place, 300)
            ));
        }
        if federation.identity == Some(crate::federation::Identity::Variable) && variable.is_none() {
            out::say(&format!("the assertion stays in {ASSERTION}, which must be set where the profile is used"));
        }
        if context.json {
            out::json(&Added { profile: &self.name, issuer, variable: variable.as_deref(), shadowed_by })?;
        }
        Ok(0)
    }
}

/// Adds a profile.
pub(super) fn add(client: &mut Client, profile: &str, toml: &str) -> Result<(), Fault> {
    let request = ProfilePutRequest { name: profile.to_owned(), toml: toml.to_owned(), proof: None };
    client.post("/v1/profiles", &request)
}

/// Stores a secret and adds the profile that hands it over, both or neither.
pub(super) fn add_with_secret(
    client: &mut Client,
    profile: &str,
    variable: &str,
    request: &SecretPutRequest,
) -> Result<(), Fault> {
    let path = format!("/v1/secrets/{}", name(profile)?);
    process::uninterrupted(|| {
        client.put::<_, ()>(&path, request)?;
        add(client, profile, &static_toml(profile, variable, None, None)).inspect_err(|_| {
            // The fault of the profile is the one to tell.
            drop(client.delete::<()>(&path));
        })
    })
}

fn store_key(context: &Context, profile: &str, variable: &str, secret: SecretText) -> Result<(), Fault> {
    let request = SecretPutRequest { secret, base64: false, only_new: true };
    Broker::open(context)?.unlocked(|client| add_with_secret(client, profile, variable, &request))?;
    out::say(&format!("secret {profile} is stored: what {} held", plain(variable, 100)));
    Ok(())
}

fn say_added(profile: &str) {
    out::say(&format!("profile {profile} is added; try it with `keyward profile test {profile}`"));
}

/// The secret in a variable of the environment, whether it is known or not.
fn taken(around: &Around, found: &mut Found, variable: &str) -> Result<SecretText, Fault> {
    let here = |f: &&mut Finding| f.place == Place::Environment && f.name == variable;
    let needed = |why: String| {
        Fault::new(Code::ProfileIncomplete).cause(why).help("set the variable, or name another with --variable")
    };
    if let Some((_, role)) = known(variable) {
        let finding = found.findings.iter_mut().find(here).ok_or_else(|| needed(format!("{variable} is not set")))?;
        let why = finding.state.why().unwrap_or("it is no credential");
        let refused = match role {
            Role::Part | Role::Assertion | Role::Setting | Role::Headers => Fault::new(Code::ProfileInvalid)
                .cause(format!("{variable}: {why}"))
                .help("name a variable that holds a key"),
            Role::Key | Role::Url => needed(format!("{variable}: {why}")),
        };
        return finding.secret.take().ok_or(refused);
    }
    let shown = plain(variable, 100);
    let value =
        around.variable(variable).filter(|v| !v.is_empty()).ok_or_else(|| needed(format!("{shown} is not set")))?;
    let text =
        value.to_str().ok_or_else(|| Fault::new(Code::SecretInvalid).cause(format!("{shown} is no UTF-8 text")))?;
    SecretText::new(text.to_owned()).map_err(|e| Fault::new(Code::SecretInvalid).cause(e))
}

/// The only variable of the environment that holds a key.
fn only_key(found: &Found) -> Result<String, Fault> {
    let usable = |f: &&Finding| f.place == Place::Environment && f.state == State::Usable;
    let names: Vec<&str> = found.findings.iter().filter(usable).map(|f| f.name.as_str()).collect();
    match names.as_slice() {
        [] => {
            let missing = are(&Federation::default().missing());
            Err(Fault::new(Code::ProfileIncomplete)
                .cause(format!("{missing} not set, and neither is a variable with a key, such as ANTHROPIC_API_KEY"))
                .help("set what the cause names, or name the variable with --variable"))
        }
        [one] => Ok((*one).to_owned()),
        several => Err(Fault::new(Code::InputNeeded)
            .cause(format!("{} set", are(several)))
            .help("say which one with --variable, or take all with `keyward setup`")),
    }
}

/// Refuses a key of Foundry beside an application of Microsoft Entra, by the variables of Azure Identity's
/// EnvironmentCredential: clients refuse both at once, and which one is meant is not to be guessed.
fn one_of_foundry(around: &Around, variable: &str) -> Result<(), Fault> {
    let set: Vec<&str> = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]
        .into_iter()
        .filter(|name| around.text(name).is_some())
        .collect();
    if variable != "ANTHROPIC_FOUNDRY_API_KEY" || set.len() < 2 {
        return Ok(());
    }
    Err(Fault::new(Code::InputNeeded)
        .cause(format!("{}: a key of Foundry, and an application of Microsoft Entra", are(&[&[variable], &set[..]].concat())))
        .help("take the key with --variable ANTHROPIC_FOUNDRY_API_KEY, or the application with --from FILE, as kind entra-client-credentials"))
}

fn incomplete(federation: &Federation, has_key: bool) -> Fault {
    let missing = federation.missing();
    let or = if federation.identity.is_none() { format!(", nor is {ASSERTION}") } else { String::new() };
    let fault = Fault::new(Code::ProfileIncomplete).cause(format!("{} not set{or}", are(&missing)));
    fault.help(if has_key {
        "set what the cause names, or take the key with --variable ANTHROPIC_API_KEY"
    } else {
        "set what the cause names beside what is there"
    })
}

/// The keys of the environment that win over a federation, each with all places where it is written.
fn shadows(found: &Found) -> Vec<Shadow> {
    let mut out = Vec::new();
    for variable in ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"] {
        let places =
            found.set(variable).into_iter().chain(found.written(variable)).chain(found.claude_setting(variable));
        let places = places.filter(|f| f.state != State::Empty);
        out.extend(places.map(|f| Shadow { variable: variable.to_owned(), place: f.place.to_string() }));
    }
    out
}
