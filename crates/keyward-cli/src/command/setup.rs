//! `keyward setup`: the first five minutes.
//!
//! Makes or opens the vault, shows what lies about on this machine, moves in what the person agrees to, and names the next
//! command. Never edits or removes a file of others, never shows a secret, and changes nothing when it is run again.

use super::Outcome;
use super::add::{add, add_with_secret};
use crate::args::Context;
use crate::broker::{Broker, warn};
use crate::federation::{Federation, stands_for};
use crate::input::{PassphraseArgs, confirm, may_ask, with_new_passphrase};
use crate::order::are;
use crate::{out, process};
use keyward_api::{
    InitRequest, ProfileMsg, RecoveryAnswer, SecretMsg, SecretPutRequest, StatusAnswer, UnlockRequest, VaultState,
};
use keyward_client::Client;
use keyward_diag::{Code, Fault, plain};
use keyward_find::find::known::known;
use keyward_find::find::{Around, Found, Place, State};
use keyward_find::lookup;
use keyward_secret::SecretText;
use serde::Serialize;
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// Kind of the issuer that federates, and the name of the profile that is made out of the environment.
const FEDERATION: &str = "anthropic-federation";

/// Variable that stands for the federation of the environment.
const RULE: &str = "ANTHROPIC_FEDERATION_RULE_ID";

/// Agents that are looked for, each with the profiles that it can use, best first.
const AGENTS: &[(&str, &[&str])] = &[
    ("claude", &["anthropic"]),
    ("codex", &["openai"]),
    ("gemini", &["gemini"]),
    ("aider", &["anthropic", "openai", "gemini"]),
];

/// Make or open the vault, move in the credentials that are found, and say what to run next
///
/// Asks before it moves anything. Without questions (--no-input) it takes what the environment holds, and with --all also
/// what stands in files. A file that holds a secret is named, never changed. A second run changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without questions, also take what stands in files
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    vault: &'static str,
    found: &'a [Told],
    next: &'a str,
}

/// A credential that was found, and what became of it.
#[derive(Debug, Serialize)]
struct Told {
    family: &'static str,
    variable: String,
    place: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    moved: bool,
    /// First 8 hexadecimal digits of the SHA-256 of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Something that can be moved in.
struct Offer {
    family: &'static str,
    /// As it is called where it was found.
    found_as: String,
    /// Variable in which a profile hands it over.
    variable: String,
    place: Place,
    /// Further places that hold the same bytes.
    also: Vec<Place>,
    fingerprint: Option<String>,
    what: What,
}

enum What {
    Key(Option<SecretText>),
    /// The federation rule, and the profile file.
    Federation(String, String),
}

/// What the vault has.
struct Stock {
    profiles: Vec<ProfileMsg>,
    secrets: BTreeSet<String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let asks = may_ask(context);
        if !asks && !context.no_input {
            let fault = Fault::new(Code::InputNeeded).cause("setup asks before it moves anything");
            return Err(fault
                .help("run it in a terminal, or take what is found with `keyward setup --no-input`")
                .into());
        }
        process::hide();
        let around = Around::here();
        let mut found = Found::everywhere(&around);
        let mut broker = Broker::open(context)?;
        broker.outside()?;
        let vault = self.open(context, &mut broker)?;
        let federation = Federation::from_environment(&around);
        let mut told = Vec::new();
        for offer in offers(&mut found, &federation) {
            let takes = offer.place == Place::Environment || self.all || asks;
            let one = move_in(broker.client(), offer, takes, asks, &told)?;
            told.push(one);
        }
        told.extend(left(&found, &federation));
        let next = next(&Stock::of(broker.client())?, &around);
        if context.json {
            out::json(&Report { vault, found: &told, next: &next })?;
        } else {
            out::text(&screen(&told, &found, &next))?;
        }
        Ok(0)
    }

    /// Makes or opens the vault; says which it was.
    fn open(&self, context: &Context, broker: &mut Broker<'_>) -> Result<&'static str, Fault> {
        if !broker.places().data.join("vault.slots").exists() {
            let RecoveryAnswer { .. } = with_new_passphrase(context, &self.passphrase, |passphrase| {
                broker.client().post("/v1/vault/init", &InitRequest { passphrase, recovery: false })
            })?;
            out::say("the vault is made and open; to have a recovery key: `keyward vault slot add recovery`");
            return Ok("made");
        }
        let status: StatusAnswer = broker.client().get("/v1/status")?;
        if status.vault.state == VaultState::Unlocked {
            return Ok("was_open");
        }
        if let Some(proof) = self.passphrase.proof()? {
            warn(&broker.try_unlock(&UnlockRequest { proof: Some(proof), keyring: false })?);
        } else {
            // Asks in place where there is somebody to ask.
            broker.unlocked(Stock::of)?;
        }
        Ok("opened")
    }
}

impl Stock {
    fn of(client: &mut Client) -> Result<Self, Fault> {
        let secrets: Vec<SecretMsg> = client.get("/v1/secrets")?;
        let secrets = secrets.into_iter().map(|s| s.name).collect();
        Ok(Self { profiles: client.get("/v1/profiles")?, secrets })
    }

    /// The profile that stands for what the offer is about already.
    fn holds(&self, offer: &Offer) -> Option<&ProfileMsg> {
        self.profiles.iter().find(|profile| match &offer.what {
            What::Key(_) => stands_for(profile, &offer.variable),
            What::Federation(rule, _) => {
                let file: Option<toml::Table> = toml::from_str(&profile.toml).ok();
                let known = file.as_ref().and_then(|f| f.get("issuer")?.get("federation_rule_id")?.as_str());
                profile.issuer == FEDERATION && known == Some(rule)
            }
        })
    }

    /// A name that neither a profile nor a secret has.
    fn free_name(&self, offer: &Offer) -> Option<String> {
        let names = match &offer.what {
            What::Key(_) => vec![offer.family.to_owned(), offer.variable.to_ascii_lowercase().replace('_', "-")],
            What::Federation(..) => vec![FEDERATION.to_owned()],
        };
        let taken = |name: &String| self.secrets.contains(name) || self.profiles.iter().any(|p| p.name == *name);
        names.into_iter().find(|name| !taken(name))
    }
}

/// Moves one thing in, if it is wanted and not there already.
fn move_in(client: &mut Client, offer: Offer, takes: bool, asks: bool, before: &[Told]) -> Result<Told, Fault> {
    let stock = Stock::of(client)?;
    let mut told = Told {
        family: offer.family,
        variable: offer.found_as.clone(),
        place: offer.place.to_string(),
        also: offer.also.iter().map(ToString::to_string).collect(),
        profile: None,
        moved: false,
        fingerprint: offer.fingerprint.clone(),
        why: None,
    };
    if let Some(profile) = stock.holds(&offer) {
        let name = &profile.name;
        let now = before.iter().find(|other| other.moved && other.profile.as_ref() == Some(name));
        told.why = Some(match (&offer.what, now) {
            (What::Key(_), Some(now)) if now.fingerprint != offer.fingerprint => {
                return Ok(Told {
                    why: Some(format!(
                        "another key than profile {name} holds; store it under a name of its own with `keyward secret set NAME`"
                    )),
                    ..told
                });
            }
            // What the vault holds is not taken out to be compared.
            (What::Key(_), None) => {
                format!(
                    "profile {name} stands for {} already; see that it is this key before you remove it",
                    offer.variable
                )
            }
            (What::Key(_) | What::Federation(..), _) => format!("profile {name} is kept as it is"),
        });
        told.profile = Some(name.clone());
        return Ok(told);
    }
    let Some(name) = stock.free_name(&offer) else {
        told.why =
            Some(format!("the name {} is taken; move it with `keyward profile add NAME --from-env`", offer.family));
        return Ok(told);
    };
    if !takes {
        told.why = Some("it stands in a file: add --all".to_owned());
        return Ok(told);
    }
    let print = offer.fingerprint.as_ref().map_or(String::new(), |print| format!(", sha-256 {print}"));
    let shown = format!("{} ({}{print})", plain(&offer.found_as, 100), plain(&told.place, 300));
    if asks && !confirm(&format!("Move {shown} into the vault as profile {name}?"))? {
        told.why = Some("you said no".to_owned());
        return Ok(told);
    }
    match offer.what {
        What::Federation(_, toml) => add(client, &name, &toml)?,
        What::Key(Some(secret)) => {
            let request = SecretPutRequest { secret, base64: false, only_new: true };
            add_with_secret(client, &name, &offer.variable, &request)?;
        }
        What::Key(None) => return Ok(told),
    }
    told.profile = Some(name);
    told.moved = true;
    Ok(told)
}

/// What can be moved in, the federation of the environment first and each secret once.
fn offers(found: &mut Found, federation: &Federation) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    if let (Some(rule), true) = (&federation.rule, federation.is_complete()) {
        offers.push(Offer {
            family: "anthropic",
            found_as: RULE.to_owned(),
            variable: RULE.to_owned(),
            place: Place::Environment,
            also: Vec::new(),
            fingerprint: None,
            what: What::Federation(rule.clone(), federation.to_toml()),
        });
    }
    for finding in found.findings.iter_mut().filter(|f| f.state == State::Usable) {
        let variable = finding.hands_over().to_owned();
        let same =
            |o: &&mut Offer| o.variable == variable && o.fingerprint.is_some() && o.fingerprint == finding.fingerprint;
        match offers.iter_mut().find(same) {
            Some(offer) => offer.also.push(finding.place.clone()),
            None => offers.push(Offer {
                family: finding.family,
                found_as: finding.name.clone(),
                variable,
                place: finding.place.clone(),
                also: Vec::new(),
                fingerprint: finding.fingerprint.clone(),
                what: What::Key(finding.secret.take()),
            }),
        }
    }
    offers
}

/// What stays where it is, and why.
fn left(found: &Found, federation: &Federation) -> Vec<Told> {
    let told = |family, variable: &str, place: String, why: String| Told {
        family,
        variable: variable.to_owned(),
        place,
        also: Vec::new(),
        profile: None,
        moved: false,
        fingerprint: None,
        why: Some(why),
    };
    let mut out = Vec::new();
    if federation.is_meant() && !federation.is_complete() {
        let why = format!("the federation is half-configured: {} missing", are(&federation.missing()));
        out.push(told("anthropic", RULE, Place::Environment.to_string(), why));
    }
    for finding in &found.findings {
        if let State::Unusable(why) = finding.state {
            out.push(told(finding.family, &finding.name, finding.place.to_string(), why.to_owned()));
        }
    }
    out
}

/// The command that a person runs next.
fn next(stock: &Stock, around: &Around) -> String {
    let path = around.variable("PATH");
    let installed = |agent: &&(&str, &[&str])| lookup::program(OsStr::new(agent.0), path).is_ok();
    let here: Vec<_> = AGENTS.iter().filter(installed).collect();
    let all: Vec<_> = AGENTS.iter().collect();
    let fits = |agent: &(&str, &[&str])| agent.1.iter().find_map(|family| for_family(&stock.profiles, family));
    let chosen = here.iter().chain(&all).find_map(|agent| fits(agent).map(|profile| (agent.0, profile)));
    match (chosen, stock.profiles.as_slice()) {
        (_, []) => "keyward secret set NAME".to_owned(),
        (Some((agent, _)), [_]) => format!("keyward run -- {agent}"),
        (Some((agent, profile)), _) => format!("keyward run -p {} -- {agent}", profile.name),
        (None, [_]) => format!("keyward run -- {}", here.first().map_or("claude", |agent| agent.0)),
        (None, [first, ..]) => {
            format!("keyward run -p {} -- {}", first.name, here.first().map_or("claude", |agent| agent.0))
        }
    }
}

/// The profile for the programs of a family, one that federates first.
pub(super) fn for_family<'p>(profiles: &'p [ProfileMsg], family: &str) -> Option<&'p ProfileMsg> {
    let federates = |p: &&ProfileMsg| family == "anthropic" && p.issuer == FEDERATION;
    let hands_over = |p: &&ProfileMsg| p.variables.iter().any(|v| known(v).is_some_and(|(f, _)| f.name == family));
    profiles.iter().find(federates).or_else(|| profiles.iter().find(hands_over))
}

fn screen(told: &[Told], found: &Found, next: &str) -> String {
    let mut text = String::new();
    for one in told {
        let became = match (&one.profile, one.moved, &one.why) {
            (Some(profile), true, _) => format!("moved in as profile {profile}"),
            (_, _, why) => why.clone().unwrap_or_default(),
        };
        text.push_str(&format!(
            "{} ({}): {}\n",
            plain(&one.variable, 100),
            plain(&one.place, 300),
            plain(&became, 300)
        ));
        // The variables of a federation hold no secret.
        if one.profile.is_some() && one.variable != RULE {
            for place in std::iter::once(&one.place).chain(&one.also) {
                let remedy = match (place.as_str(), one.moved) {
                    ("environment", _) => "unset it in this shell",
                    (_, true) => "remove it there yourself; Keyward edits no file of others",
                    (_, false) => "if it is the same key, remove it there yourself",
                };
                text.push_str(&format!("  still in {}: {remedy}\n", plain(place, 300)));
            }
        }
    }
    if told.is_empty() {
        text.push_str("no credential was found; store one with `keyward secret set NAME`\n");
    }
    for finding in found.findings.iter().filter(|f| f.secret_of_claude_settings()) {
        let (name, place) = (plain(&finding.name, 100), plain(&finding.place.to_string(), 300));
        text.push_str(&format!(
            "{name} in {place} wins in Claude Code over what Keyward hands over: remove it there\n"
        ));
    }
    for unread in &found.unread {
        text.push_str(&format!("not read: {}: {}\n", plain(&unread.file, 300), plain(&unread.why, 200)));
    }
    text.push_str(&format!("next: {next}\n"));
    text
}

#[cfg(test)]
mod tests;
