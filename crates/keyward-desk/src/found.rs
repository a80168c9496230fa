//! What is on this machine: agents, and credentials that lie about.
//!
//! Called by the commands.

use crate::desk::Desk;
use crate::types::{AgentMsg, Done, LoginAdopt, LoginMsg};
use keyward_diag::{Code, Fault};
use keyward_find::find::known::provider_of;
use keyward_find::{agents, logins};
use toml::{Table, Value};

impl Desk {
    /// Agents that are installed.
    ///
    /// # Errors
    /// None.
    pub fn agents(&self) -> Result<Vec<AgentMsg>, Fault> {
        let found = agents::agents(&self.around).into_iter();
        let message = |a: agents::Agent| AgentMsg {
            path: a.path.display().to_string(),
            id: a.id,
            name: a.name,
            args: a.args,
            terminal: a.terminal,
            providers: a.providers,
        };
        Ok(found.map(message).collect())
    }

    /// Credentials that lie on this machine.
    ///
    /// # Errors
    /// None: a file that cannot be read is passed over.
    pub fn logins(&self) -> Result<Vec<LoginMsg>, Fault> {
        let tiles = self.providers()?;
        let tile = |family: String| if tiles.iter().any(|t| t.id == family) { family } else { "other".to_owned() };
        let message = |l: logins::Login| LoginMsg {
            id: l.id,
            name: l.name,
            place: l.place,
            provider: tile(l.provider),
            suggested: l.suggested,
            adoptable: l.adoptable,
            advice: l.advice,
        };
        Ok(logins::logins(&self.around).into_iter().map(message).collect())
    }

    /// Takes one of them into the vault, as a secret and a profile of the same name. The file it lies in is left as it is.
    ///
    /// # Errors
    /// [`Code::SecretUnknown`] when it is not there any longer; those of the broker.
    pub fn login_adopt(&self, request: LoginAdopt) -> Result<Done, Fault> {
        let login = logins::logins(&self.around).into_iter().find(|l| l.id == request.id);
        let variable = login.and_then(|l| l.variable).ok_or_else(|| {
            Fault::new(Code::SecretUnknown)
                .cause("what was found there is gone, or it cannot be taken")
                .help("look again")
        })?;
        let secret = logins::take(&self.around, &request.id)?;
        self.adopt(&request.profile, secret, profile(&request.profile, &variable))?;
        Ok(Done { done: true, notes: Vec::new() })
    }
}

/// A static profile that hands over the secret of its own name in this variable.
fn profile(name: &str, variable: &str) -> String {
    let text = |text: &str| Value::String(text.to_owned());
    let mut issuer =
        Table::from_iter([("kind".to_owned(), text("static")), ("secret".to_owned(), text(&format!("secret:{name}")))]);
    let mut file = Table::new();
    match provider_of(variable) {
        Some(provider) => drop(issuer.insert("provider".to_owned(), text(provider))),
        None => {
            let env = Table::from_iter([(variable.to_owned(), text("token"))]);
            let delivery = Table::from_iter([("env".to_owned(), Value::Table(env))]);
            file.insert("delivery".to_owned(), Value::Table(delivery));
        }
    }
    file.insert("issuer".to_owned(), Value::Table(issuer));
    file.to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_adopted_login_delivers_in_the_variable_where_it_was() {
        for (variable, want) in [
            ("OPENAI_API_KEY", "[issuer]\nkind = \"static\"\nsecret = \"secret:n\"\nprovider = \"openai\"\n"),
            ("GH_TOKEN", "[issuer]\nkind = \"static\"\nsecret = \"secret:n\"\n[delivery.env]\nGH_TOKEN = \"token\"\n"),
        ] {
            let made: Table = toml::from_str(&profile("n", variable)).unwrap();
            assert_eq!(made, toml::from_str::<Table>(want).unwrap(), "{variable}");
        }
    }
}
