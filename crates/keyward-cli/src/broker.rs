//! The connection to the broker, as the commands use it.
//!
//! Starts a broker when a command needs one and none runs. Where a vault is locked and there is a person to ask, it asks
//! for the passphrase in place and then goes on. Called by the commands.

use crate::args::Context;
use crate::{input, out, process};
use keyward_api::place::Places;
use keyward_api::{MeAnswer, ProfileMsg, RoleMsg, SuppliedAssertion, UnlockAnswer, UnlockRequest};
use keyward_client::{Client, Method, Start};
use keyward_diag::{Code, Fault, plain};
use keyward_secret::SecretText;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// A connection to the broker of this user and home.
pub(crate) struct Broker<'c> {
    context: &'c Context,
    places: Places,
    client: Client,
}

impl<'c> Broker<'c> {
    /// Connects, and starts the broker where none runs.
    ///
    /// # Errors
    /// Those of [`Places::current`] and [`Client::connect`].
    pub(crate) fn open(context: &'c Context) -> Result<Self, Fault> {
        let places = Places::current()?;
        let client = Client::connect(&places, Start::IfNeeded)?;
        Ok(Self { context, places, client })
    }

    /// Connects if a broker runs.
    ///
    /// # Errors
    /// Those of [`Places::current`] and [`Client::connect`], except that there is none.
    pub(crate) fn if_running(context: &'c Context) -> Result<Option<Self>, Fault> {
        let places = Places::current()?;
        match Client::connect(&places, Start::Never) {
            Ok(client) => Ok(Some(Self { context, places, client })),
            Err(fault) if fault.code == Code::BrokerUnreachable => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Where the vault is.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// What all commands obey.
    pub(crate) fn context(&self) -> &'c Context {
        self.context
    }

    /// What this process may do.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub(crate) fn me(&mut self) -> Result<MeAnswer, Fault> {
        self.client.get("/v1/me")
    }

    /// Fails inside a run, where no proof is taken: to be called before a person is asked for one. Any other fault shows at
    /// the request itself.
    ///
    /// # Errors
    /// [`Code::PolicyDenied`] with the run, or what the broker refuses to tell.
    pub(crate) fn outside(&mut self) -> Result<(), Fault> {
        match self.me() {
            Ok(MeAnswer { role: RoleMsg::Inside, run, .. }) => {
                let run = run.map_or_else(|| "a run".to_owned(), |run| format!("the run {}", plain(&run, 64)));
                Err(Fault::new(Code::PolicyDenied).cause(format!("this is inside {run}, where no proof is taken")))
            }
            Err(fault) if matches!(fault.code, Code::PolicyDenied | Code::PeerRefused) => Err(fault),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The connection, for calls that need no open vault.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Makes a call that needs an open vault; asks for the passphrase and repeats it where the vault is locked.
    ///
    /// # Errors
    /// Those of the call; [`Code::VaultLocked`] when nobody can be asked.
    pub(crate) fn unlocked<T>(&mut self, mut call: impl FnMut(&mut Client) -> Result<T, Fault>) -> Result<T, Fault> {
        match call(&mut self.client) {
            Err(fault) if fault.code == Code::VaultLocked && input::may_ask(self.context) => {}
            answer => return answer,
        }
        self.outside()?;
        let answer =
            self.unlock(|places| Ok(UnlockRequest { proof: Some(input::ask_passphrase(places)?), keyring: false }))?;
        warn(&answer);
        call(&mut self.client)
    }

    /// As [`Broker::unlocked`], for calls that may lead to an exchange: where the assertion of a profile stands in a variable
    /// of this process and the broker lacks it or holds an old one, the call is repeated with it. Sends the variables of
    /// the profiles `named`, and of no other where any is named.
    ///
    /// # Errors
    /// Those of the call.
    pub(crate) fn supplying<T>(
        &mut self,
        named: &[String],
        mut call: impl FnMut(&mut Client, Vec<SuppliedAssertion>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let fault = match self.unlocked(|client| call(client, Vec::new())) {
            Err(fault) if wants_assertion(fault.code) => fault,
            answer => return answer,
        };
        let assertions = self.assertions(named)?;
        if assertions.is_empty() { Err(fault) } else { call(&mut self.client, assertions) }
    }

    /// The assertions of the profiles `named`, of all where none is, that stand in variables of this process.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub(crate) fn assertions(&mut self, named: &[String]) -> Result<Vec<SuppliedAssertion>, Fault> {
        let profiles: Vec<ProfileMsg> = self.client.get("/v1/profiles")?;
        let asked = |p: &ProfileMsg| named.is_empty() || named.contains(&p.name);
        let variables: BTreeSet<String> =
            profiles.into_iter().filter(asked).filter_map(|p| p.identity_variable).collect();
        Ok(variables.into_iter().filter_map(supplied).collect())
    }

    /// Opens the vault with what `request` asks for; a wrong passphrase may be typed again.
    ///
    /// # Errors
    /// Those of `request` and of the broker.
    pub(crate) fn unlock(
        &mut self,
        mut request: impl FnMut(&Places) -> Result<UnlockRequest, Fault>,
    ) -> Result<UnlockAnswer, Fault> {
        let mut attempt = || process::unheard(|| self.try_unlock(&request(&self.places)?));
        for _ in 1..input::ATTEMPTS {
            match attempt() {
                Err(fault) if matches!(fault.code, Code::VaultWrongPassphrase | Code::VaultWrongRecovery) => {
                    out::say(&format!("{}; try again", fault.message));
                }
                answer => return answer,
            }
        }
        attempt()
    }

    /// Opens the vault with one request.
    pub(crate) fn try_unlock(&mut self, request: &UnlockRequest) -> Result<UnlockAnswer, Fault> {
        self.client.post("/v1/vault/unlock", request)
    }

    /// The connection alone, for answers that come piece by piece.
    pub(crate) fn into_client(self) -> Client {
        self.client
    }
}

/// Whether a failure may pass with the assertion that this process has.
fn wants_assertion(code: Code) -> bool {
    matches!(code, Code::IdentityNeeded | Code::IdentitySpent | Code::IdentityInvalid | Code::IssuerRefused)
}

/// The assertion in a variable of this process, if there is one.
fn supplied(variable: String) -> Option<SuppliedAssertion> {
    let assertion = SecretText::new(std::env::var(&variable).ok()?).ok()?;
    Some(SuppliedAssertion { variable, assertion })
}

/// `POST` without a body. `()` as answer stands for none.
///
/// # Errors
/// Those of [`Client::call`].
pub(crate) fn act<T: DeserializeOwned>(client: &mut Client, path: &str) -> Result<T, Fault> {
    client.call(Method::Post, path, None)?.json()
}

/// `POST` of a request whose answer holds a credential: this process hides itself before the answer can come.
///
/// # Errors
/// Those of [`Client::call`].
pub(crate) fn obtain<T: DeserializeOwned>(client: &mut Client, path: &str, body: &impl Serialize) -> Result<T, Fault> {
    let body = serde_json::to_vec(body).map_err(|e| Fault::new(Code::Internal).cause(e))?;
    client.call_once_facts_are_taken(Method::Post, path, &body, process::hide)?.json()
}

/// Says what the broker warned of at unlocking.
pub(crate) fn warn(answer: &UnlockAnswer) {
    for warning in &answer.warnings {
        out::say(&plain(warning, 400));
    }
}

/// A name that may stand in a path of the LocalAPI.
///
/// # Errors
/// [`Code::NameInvalid`] for everything else, slashes and line ends included.
pub(crate) fn name(text: &str) -> Result<&str, Fault> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let ok = (1..=64).contains(&text.len())
        && text.bytes().all(inner)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if ok { Ok(text) } else { Err(Fault::new(Code::NameInvalid).cause(format!("`{}` is not a name", plain(text, 64)))) }
}

/// Adds a field to a query string, percent-encoded (RFC 3986 section 2.1).
pub(crate) fn add_query(path: &mut String, field: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(field);
    path.push('=');
    path.push_str(&keyward_api::part(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        for bad in ["", "a/b", "..", "a?b", "a b", "a\r\nHost: x", "ä", "-a", &"a".repeat(65)] {
            assert!(name(bad).is_err_and(|f| f.code == Code::NameInvalid && !f.to_string().contains('\r')), "{bad:?}");
        }
        assert!(name("pg-prod.2_x").is_ok());
    }

    #[test]
    fn query_values_are_encoded() {
        let mut path = "/v1/audit".to_owned();
        add_query(&mut path, "app", "a&b=c d/ä");
        add_query(&mut path, "limit", "5");
        assert_eq!(path, "/v1/audit?app=a%26b%3Dc%20d%2F%C3%A4&limit=5");
    }
}
