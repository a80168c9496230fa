//! The connection to the broker, as the commands use it.
//!
//! Starts a broker when a command needs one and none runs. Where a vault is locked and there is a person to ask, it asks
//! for the passphrase in place and then goes on. Called by the commands.

use crate::args::Context;
use crate::{input, out, process};
use keyward_api::place::{BROKER_PROGRAM, Places};
use keyward_api::{MeAnswer, ProfileMsg, Proof, RoleMsg, SuppliedAssertion, UnlockAnswer, UnlockRequest};
use keyward_client::{Client, Method, Start};
use keyward_diag::{Code, Fault, plain};
use keyward_secret::SecretText;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How often a broker is looked for again that holds the vault and does not answer.
const PATIENCE: u32 = 20;

/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(50);

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
    /// Those of [`Places::current`] and [`Client::connect`], except that there is none; [`Code::BrokerUnreachable`] for one that
    /// holds this vault and has its socket elsewhere.
    pub(crate) fn if_running(context: &'c Context) -> Result<Option<Self>, Fault> {
        let places = Places::current()?;
        let mut tries = 0;
        loop {
            match Client::connect(&places, Start::Never) {
                Ok(client) => return Ok(Some(Self { context, places, client })),
                Err(fault) if fault.code == Code::BrokerUnreachable => {}
                Err(fault) => return Err(fault),
            }
            let Some(pid) = holder(&places) else { return Ok(None) };
            // One that stops or starts is soon gone or there.
            if tries == PATIENCE {
                return Err(elsewhere(&places, pid));
            }
            tries += 1;
            std::thread::sleep(PAUSE);
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

    /// Makes a call with a request that takes a proof of the person, which `prove` puts in: first without one where the person is
    /// to be asked for it, so that all else that is wrong is told before anybody types a passphrase.
    ///
    /// # Errors
    /// Those of the call, of [`Broker::outside`] and of [`ProofArgs::proof`](input::ProofArgs::proof).
    pub(crate) fn proven<R, T>(
        &mut self,
        proof: &input::ProofArgs,
        request: &mut R,
        prove: impl FnOnce(&mut R, Proof),
        call: impl Fn(&mut Client, &R) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if !proof.is_given() {
            self.outside()?;
            match self.unlocked(|client| call(client, request)) {
                Err(fault) if fault.code == Code::PassphraseNeeded => {}
                answer => return answer,
            }
        }
        prove(request, proof.proof(self.context, &self.places)?);
        self.unlocked(|client| call(client, request))
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

fn elsewhere(places: &Places, pid: u32) -> Fault {
    let socket = plain(&places.socket.display().to_string(), 300);
    Fault::new(Code::BrokerUnreachable)
        .cause(format!("the broker with pid {pid} holds this vault, and does not answer at {socket}"))
        .help("set XDG_RUNTIME_DIR to what it was where that broker was started")
}

/// The broker that holds the vault, wherever its socket is; `None` where none does or the system does not tell.
fn holder(places: &Places) -> Option<u32> {
    let inode = std::fs::metadata(places.data.join("vault.lock")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let is_broker = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == BROKER_PROGRAM)
    };
    locks.lines().filter_map(|line| locker(line, inode)).find(is_broker)
}

/// The process that a line of `/proc/locks` (proc_locks(5)) names as the one that holds a file for itself by flock(2). The
/// device is not compared: not every file system tells the same one there and in stat(2).
fn locker(line: &str, inode: u64) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
    let (_, found) = file.rsplit_once(':')?;
    if found.parse() == Ok(inode) { pid.parse().ok() } else { None }
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
    fn who_holds_a_file_is_read_from_the_list_of_the_kernel() {
        let held = "1: FLOCK  ADVISORY  WRITE 1234 08:01:131081 0 EOF";
        assert_eq!((locker(held, 131_081), locker(held, 131_082)), (Some(1234), None));
        for other in [
            "",
            "2: FLOCK  ADVISORY  READ 1234 08:01:131081 0 EOF",
            "2: POSIX  ADVISORY  WRITE 1234 08:01:131081 0 EOF",
            "2: -> FLOCK  ADVISORY  WRITE 1234 08:01:131081 0 EOF",
            "2: FLOCK  ADVISORY  WRITE -1 08:01:131081 0 EOF",
            "2: FLOCK  ADVISORY  WRITE 1234 131081 0 EOF",
        ] {
            assert_eq!(locker(other, 131_081), None, "{other}");
        }
    }

    #[test]
    fn query_values_are_encoded() {
        let mut path = "/v1/audit".to_owned();
        add_query(&mut path, "app", "a&b=c d/ä");
        add_query(&mut path, "limit", "5");
        assert_eq!(path, "/v1/audit?app=a%26b%3Dc%20d%2F%C3%A4&limit=5");
    }
}
