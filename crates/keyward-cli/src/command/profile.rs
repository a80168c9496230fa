//! `keyward profile`: how credentials are obtained and handed over.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, name};
use crate::input::{ProofArgs, text_file};
use crate::table::{count, pairs, table};
use crate::{out, time};
use clap::ValueEnum;
use keyward_api::{
    BODY_MAX_BYTES, DeliveryMode, FieldMsg, GrantMsg, KindMsg, ProfileMsg, ProfilePutRequest, ProfileTestAnswer,
    ProfileTestRequest,
};
use keyward_diag::{Code, Fault, plain};
use std::path::PathBuf;

/// Add, change, try and remove profiles
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Add(Box<super::add::Args>),
    /// Replace a profile by a file
    ///
    /// Asks for the passphrase, since it may change where the credential goes. Where it changes what the profile opens or how it is
    /// handed over, its grants end.
    Edit {
        /// Name of the profile
        name: String,
        /// File in TOML; - reads standard input
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// List the profiles
    List,
    /// Show a profile
    Show {
        /// Name of the profile
        name: String,
        /// Print it as the file that `profile add --from` takes
        #[arg(long, conflicts_with = "json")]
        toml: bool,
    },
    /// Make a real exchange and say what it gave, never the bytes
    Test {
        /// Name of the profile
        name: String,
    },
    /// Remove a profile
    Remove {
        /// Name of the profile
        name: String,
    },
    /// List the issuers and identity sources that there are, and their fields
    Kinds,
}

/// How a credential is handed over.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Deliver {
    /// In a variable
    Env,
    /// In a private file in memory, kept fresh
    File,
    /// By the gateway on this machine, for a token that is good for this run alone; the program never holds the credential
    Gateway,
}

impl Deliver {
    /// The word of the LocalAPI.
    pub(super) fn mode(self) -> DeliveryMode {
        match self {
            Self::Env => DeliveryMode::Env,
            Self::File => DeliveryMode::File,
            Self::Gateway => DeliveryMode::Gateway,
        }
    }
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Add(args) => args.run(context),
            Self::Edit { name, from, proof } => edit(context, &name, &from, &proof),
            Self::List => list(context),
            Self::Show { name, toml } => show(context, &name, toml),
            Self::Test { name } => test(context, &name),
            Self::Remove { name } => remove(context, &name),
            Self::Kinds => kinds(context),
        }
    }
}

fn edit(context: &Context, profile: &str, from: &std::path::Path, proof: &ProofArgs) -> Outcome {
    let path = format!("/v1/profiles/{}", name(profile)?);
    if from.as_os_str() == "-" && proof.takes_stdin() {
        let fault =
            Fault::new(Code::Usage).cause("the profile and the passphrase cannot both come from standard input");
        return Err(fault.help("give the passphrase by --passphrase-fd N").into());
    }
    let toml = text_file(from, BODY_MAX_BYTES)?;
    let mut request = ProfilePutRequest { name: profile.to_owned(), toml, proof: None };
    let mut broker = Broker::open(context)?;
    let before = grants_of(&mut broker, profile)?;
    let prove = |request: &mut ProfilePutRequest, proof| request.proof = Some(proof);
    broker.proven(proof, &mut request, prove, |client, request| client.put::<_, ()>(&path, request))?;
    out::say(&format!("profile {profile} is changed"));
    // It is changed, whatever becomes of this.
    let ended = before.saturating_sub(grants_of(&mut broker, profile).unwrap_or(before));
    if ended > 0 {
        let them = count(ended, "grant");
        out::say(&format!(
            "{them} of it ended: what was allowed is another profile; allow it anew with `keyward grant add`"
        ));
    }
    Ok(0)
}

/// How many grants allow the profile.
fn grants_of(broker: &mut Broker<'_>, profile: &str) -> Result<usize, Fault> {
    let grants: Vec<GrantMsg> = broker.unlocked(|client| client.get("/v1/grants"))?;
    Ok(grants.iter().filter(|grant| grant.profile == profile && grant.uses_left != Some(0)).count())
}

fn list(context: &Context) -> Outcome {
    let profiles: Vec<ProfileMsg> = Broker::open(context)?.unlocked(|client| client.get("/v1/profiles"))?;
    if context.json {
        out::json(&profiles)?;
    } else if profiles.is_empty() {
        out::say("there is no profile yet; add one with `keyward profile add NAME --from FILE`");
    } else {
        let rows: Vec<_> = profiles
            .into_iter()
            .map(|p| {
                let delivery = p.delivery.word().to_owned();
                vec![p.name, p.issuer, delivery, p.variables.join(" "), time::words(p.max_ttl_s)]
            })
            .collect();
        out::text(&table(&["profile", "issuer", "delivery", "variables", "longest life"], &rows))?;
    }
    Ok(0)
}

fn show(context: &Context, profile: &str, toml: bool) -> Outcome {
    let path = format!("/v1/profiles/{}", name(profile)?);
    let found: ProfileMsg = Broker::open(context)?.unlocked(|client| client.get(&path))?;
    if context.json {
        out::json(&found)?;
    } else if toml {
        out::text(&found.toml)?;
    } else {
        out::text(&pairs(&[
            ("name", found.name),
            ("issuer", found.issuer),
            ("delivery", found.delivery.word().to_owned()),
            ("variables", found.variables.join(" ")),
            ("longest life", time::words(found.max_ttl_s)),
            ("added", time::ago(&found.created_at)),
            ("changed", time::ago(&found.updated_at)),
        ]))?;
        out::say(&format!("the file of it: `keyward profile show {profile} --toml`"));
    }
    Ok(0)
}

fn test(context: &Context, profile: &str) -> Outcome {
    let path = format!("/v1/profiles/{}/test", name(profile)?);
    let answer: ProfileTestAnswer = Broker::open(context)?.supplying(&[profile.to_owned()], |client, assertions| {
        client.post(&path, &ProfileTestRequest { assertions })
    })?;
    if context.json {
        out::json(&answer)?;
    } else {
        let life =
            answer.expires_in_s.map_or("does not end by itself".to_owned(), |s| format!("ends in {}", time::words(s)));
        let scope = answer.scope.as_ref().map_or(String::new(), |s| format!(", scope {}", plain(s, 200)));
        let ok = match (answer.ok, answer.kind.as_str()) {
            (true, "static") => "stored, and tried nowhere",
            (true, _) => "ok",
            (false, _) => "no credential",
        };
        let mut text = format!("{ok}: {}{scope}, {life}\n", plain(&answer.kind, 60));
        for (fact, said) in &answer.facts {
            text.push_str(&format!("  {}: {}\n", plain(&fact.replace('_', " "), 60), plain(said, 400)));
        }
        out::text(text.trim_end())?;
    }
    Ok(if answer.ok { 0 } else { Code::IssuerFailed.exit() })
}

fn remove(context: &Context, profile: &str) -> Outcome {
    let path = format!("/v1/profiles/{}", name(profile)?);
    Broker::open(context)?.unlocked(|client| client.delete::<()>(&path))?;
    out::say(&format!("profile {profile} is removed"));
    Ok(0)
}

fn kinds(context: &Context) -> Outcome {
    let kinds: Vec<KindMsg> = Broker::open(context)?.client().get("/v1/kinds")?;
    if context.json {
        out::json(&kinds)?;
        return Ok(0);
    }
    let mut text = String::new();
    for (role, title) in
        [("issuer", "Issuers ([issuer] kind = …)"), ("identity", "Identity sources ([issuer.identity] kind = …)")]
    {
        let of_role: Vec<_> = kinds.iter().filter(|kind| kind.role == role).collect();
        if !of_role.is_empty() {
            text.push_str(&format!("{title}\n\n"));
        }
        for kind in of_role {
            text.push_str(&format!("{}: {}\n", plain(&kind.kind, 60), plain(&kind.about, 200)));
            let row = |f: &FieldMsg| vec![format!("  {}", f.name), marks(f), f.about.clone()];
            let rows: Vec<_> = kind.fields.iter().map(row).collect();
            if !rows.is_empty() {
                text.push_str(&table(&["  field", "", "what it is"], &rows));
            }
            text.push('\n');
        }
    }
    out::text(text.trim_end())?;
    Ok(0)
}

/// What a field is, beside its name.
fn marks(field: &FieldMsg) -> String {
    let marks = [("required", field.required), ("secret", field.secret)];
    marks.iter().filter(|(_, is)| *is).map(|(mark, _)| *mark).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_says_whether_it_is_required_or_secret() {
        let field = |required, secret| FieldMsg {
            name: "f".into(),
            required,
            secret,
            about: String::new(),
            shape: String::new(),
            choices: Vec::new(),
            begins: None,
        };
        assert_eq!(marks(&field(true, true)), "required, secret");
        assert_eq!((marks(&field(true, false)), marks(&field(false, false))), ("required".into(), String::new()));
    }
}
