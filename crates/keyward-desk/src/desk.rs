//! The commands: what stands behind each name of [`crate::each_command`].
//!
//! Every method blocks until it is done, may be called from many threads, and never starts a broker except
//! [`Desk::connect`]. What a person must prove or may read goes through the [`Prompter`]; no secret is in an answer. Called by
//! the hosts.

use crate::bus::FromBus;
use crate::card::Cards;
use crate::follow::Bell;
use crate::operator::Operator;
use crate::pool::Pool;
use crate::prompt::{Ask, Prompter, QuitAnswer};
use crate::types::*;
use crate::{draft, look, settings, tile};
use keyward_api::place::Places;
use keyward_api::{
    AcceptBreakRequest, AppUseMsg, ApprovalMsg, ApprovalState, AuditEntryMsg, AuditPage, AuditQuery, AuditSummary,
    AuditSummaryQuery, AuditVerifyQuery, DeliveryMode, ExportRequest, GrantMsg, GrantPutRequest, InitRequest, KindMsg,
    LaunchExpectAnswer, LaunchExpectRequest, LauncherMsg, LauncherPutRequest, LockAnswer, OperatorAnswer, PastRunsPage,
    PastRunsQuery, ProfileMsg, ProfilePutRequest, ProfileTestAnswer, ProfileTestRequest, Proof, RecoveryAnswer,
    RekeyAnswer, RekeyRequest, RenewAnswer, RevokeAnswer, RevokeRequest, RunMsg, SecretMsg, SecretPutRequest,
    SecretRevealAnswer, SettingsMsg, SettingsPutRequest, SlotAddRequest, SlotKind, SlotMsg, SlotRemoveRequest,
    StatusAnswer, TokenAnswer, UnlockAnswer, UnlockRequest, VerifyAnswer, part,
};
use keyward_client::{Client, Method, Start};
use keyward_diag::{Code, Fault};
use keyward_find::find::Around;
use keyward_secret::SecretText;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::Thread;

/// Times that a person may answer a prompt anew after a refusal.
const ATTEMPTS: usize = 5;
/// What every recovery key begins with (age, Bech32 form of an X25519 identity).
const RECOVERY_BEGIN: &str = "AGE-SECRET-KEY-1";

/// The desktop without a desktop.
pub struct Desk {
    pub(crate) pool: Pool,
    pub(crate) around: Around,
    /// Folder of this program, in which `keyward` lies too; noted at the start, before an upgrade may move it.
    pub(crate) programs: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) prompter: Arc<dyn Prompter>,
    pub(crate) operator: Operator,
    pub(crate) cards: Cards,
    /// Held by the one command that asks a person.
    asking: Mutex<()>,
    pub(crate) tell: Box<dyn Fn(DeskEvent) + Send + Sync>,
    pub(crate) settings: Mutex<()>,
    /// The thread that follows the events.
    pub(crate) follower: OnceLock<Thread>,
    pub(crate) bell: Bell,
}

/// How a call ended that asks a person.
enum Ended {
    Closed,
    Fault(Fault),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Desk {
    /// Makes one for the broker of `places`; starts and asks nothing yet.
    ///
    /// `variables` is the environment of the user's programs: where launchers find theirs, and what they are started with.
    /// `tell` is given what the host must tell the web view, from threads of this crate; it must not block for long.
    ///
    /// # Errors
    /// [`Code::FileUnreadable`] when this program cannot tell where it lies.
    pub fn new(
        places: Places,
        variables: BTreeMap<OsString, OsString>,
        prompter: Arc<dyn Prompter>,
        tell: impl Fn(DeskEvent) + Send + Sync + 'static,
    ) -> Result<Self, Fault> {
        let program = std::env::current_exe()
            .map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("this program: {e}")))?;
        let home = variables.get(&OsString::from("HOME")).map(PathBuf::from).filter(|h| h.is_absolute());
        let cwd = home.clone().unwrap_or_else(|| PathBuf::from("/"));
        Ok(Self {
            pool: Pool::new(places),
            around: Around { variables, home, cwd, system: PathBuf::from("/") },
            programs: program.parent().map(PathBuf::from).unwrap_or_default(),
            program,
            prompter,
            operator: Operator::default(),
            cards: Cards::default(),
            asking: Mutex::new(()),
            tell: Box::new(tell),
            settings: Mutex::new(()),
            follower: OnceLock::new(),
            bell: Bell::new()?,
        })
    }

    /// Carries out what came over the session bus. [`FromBus::Open`] is the host's and does nothing here.
    ///
    /// # Errors
    /// Those of the command; [`Code::RunUnknown`] for a profile that is to be renewed and is not live.
    pub fn act(&self, asked: &FromBus) -> Result<(), Fault> {
        match asked {
            FromBus::Open(_) => Ok(()),
            FromBus::Launch(name) => self.launch_unproven(name).map(drop),
            FromBus::StopRun(run) => self.revoke(RevokeRequest::Target(run.clone())).map(drop),
            FromBus::Renew(profile) => {
                let found: ProfileMsg = self.get(&format!("/v1/profiles/{}", part(profile)))?;
                if found.leases == 0 && found.held.is_none() {
                    return Err(Fault::new(Code::RunUnknown).cause("the profile has no credential that is live"));
                }
                // Never as the operator: a click proves no person.
                self.act_on::<RenewAnswer>(&format!("/v1/profiles/{}/renew", part(profile))).map(drop)
            }
            FromBus::Card(id) => self.approval_show(ApprovalNamed { id: id.clone() }).map(drop),
            FromBus::Deny(id) => self.approval_deny(ApprovalNamed { id: id.clone() }).map(drop),
            FromBus::AskToCopy(profile) => self.profile_copy(named(profile)).map(drop),
            FromBus::Lock => self.vault_lock().map(drop),
            FromBus::RevokeAll => self.revoke(RevokeRequest::All).map(drop),
            FromBus::Quit => self.quit().map(drop),
        }
    }

    /// Ends the desktop; asks first what becomes of live runs. A broker that does not answer has none to ask about.
    ///
    /// # Errors
    /// [`Code::DesktopPrompt`] while another prompt is open; those of the broker when what is held could not be taken back,
    /// which is a reason to stay.
    pub fn quit(&self) -> Result<Done, Fault> {
        let live = self.overview().map_or(0, |overview| overview.runs.len());
        if live > 0 {
            let _turn = self.turn()?;
            match self.prompter.quit(live) {
                None => return Ok(closed()),
                Some(QuitAnswer::Leave) => {}
                Some(QuitAnswer::Revoke) => drop(self.revoke(RevokeRequest::All)?),
            }
        }
        self.prompter.end();
        Ok(done())
    }

    // What is going on.

    /// Status, runs, profiles, launchers, and what waits for the person.
    ///
    /// # Errors
    /// Those of the broker; a vault that is closed is none.
    pub fn overview(&self) -> Result<Overview, Fault> {
        self.pool.with(|client| {
            let status: StatusAnswer = client.get("/v1/status")?;
            let runs: Vec<RunMsg> = client.get("/v1/runs")?;
            let profiles: Vec<ProfileMsg> = closed_is_empty(client.get("/v1/profiles"))?;
            let mut launchers: Vec<LauncherMsg> = closed_is_empty(client.get("/v1/launchers"))?;
            let mut approvals: Vec<ApprovalMsg> = closed_is_empty(client.get("/v1/approvals"))?;
            approvals.retain(|approval| approval.state == ApprovalState::Open);
            launchers.sort_by(|a, b| b.launched_at.cmp(&a.launched_at).then_with(|| a.name.cmp(&b.name)));
            // A broker that does not tell its time has the clock of this machine all the same.
            let now = status.now.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string());
            Ok(Overview { now, status, runs, profiles, launchers, approvals })
        })
    }

    /// Takes back a run, a profile, or everything.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn revoke(&self, request: RevokeRequest) -> Result<RevokeAnswer, Fault> {
        self.pool.at_once(|client| client.post("/v1/revoke", &request))
    }

    /// Pages through the runs that are over.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn runs_past(&self, query: PastRunsQuery) -> Result<PastRunsPage, Fault> {
        self.get(&with_query("/v1/runs/past", &query)?)
    }

    // Profiles and secrets.

    /// The issuers and identity sources.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn kinds(&self) -> Result<Vec<KindMsg>, Fault> {
        self.get("/v1/kinds")
    }

    /// The tiles of the profile editor.
    ///
    /// # Errors
    /// [`Code::Internal`] for a table that cannot be read, which a test rules out.
    pub fn providers(&self) -> Result<Vec<ProviderTile>, Fault> {
        tile::providers()
    }

    /// A stored profile for the editor.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn profile_draft(&self, request: Named) -> Result<ProfileDraft, Fault> {
        let profile: ProfileMsg = self.get(&format!("/v1/profiles/{}", part(&request.name)))?;
        draft::read(&profile.name, &profile.toml)
    }

    /// Stores a profile.
    ///
    /// # Errors
    /// Those of the broker; [`Code::ProfileInvalid`] for a draft that TOML cannot hold.
    pub fn profile_save(&self, request: ProfileSave) -> Result<Done, Fault> {
        let ProfileSave { draft, replace } = request;
        if !replace {
            let toml = draft::write(&draft, None)?;
            let body = ProfilePutRequest { name: draft.name, toml, proof: None };
            return self.post::<_, ()>("/v1/profiles", &body).map(|()| done());
        }
        let path = format!("/v1/profiles/{}", part(&draft.name));
        let stored: ProfileMsg = self.get(&path)?;
        let toml = draft::write(&draft, Some(&stored.toml))?;
        let _turn = self.turn()?;
        // What is typed stands for what is shown, and not for what the web view was asked to send.
        let changes = draft::changes(&stored.toml, &toml)?;
        let ask = ask(
            &format!("Change the profile {}", quoted(&draft.name)),
            &format!("A change may send its credential elsewhere, so Keyward asks for the passphrase.\n{changes}"),
        );
        self.proven(ask, |proof| {
            let body = ProfilePutRequest { name: draft.name.clone(), toml: toml.clone(), proof: Some(proof) };
            self.pool.with(|client| client.put::<_, ()>(&path, &body))
        })
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn profile_remove(&self, request: Named) -> Result<Done, Fault> {
        let path = format!("/v1/profiles/{}", part(&request.name));
        // A name that is none would be words of somebody else in a prompt of ours.
        let _: ProfileMsg = self.get(&path)?;
        let ask = ask(
            &format!("Remove the profile {}", quoted(&request.name)),
            "Its live leases are taken back, and its grants end. Stored secrets stay in the vault.",
        );
        self.remove(ask, &path)
    }

    /// Makes a real exchange. Where it takes stored secrets that no run holds, the passphrase is asked for unless it was proven
    /// lately.
    ///
    /// # Errors
    /// Those of the broker: why the exchange was refused; [`Code::PassphraseNeeded`] when the prompt was closed.
    pub fn profile_test(&self, request: Named) -> Result<ProfileTestAnswer, Fault> {
        let path = format!("/v1/profiles/{}/test", part(&request.name));
        self.exchange("Test", &request.name, |client| client.post(&path, &ProfileTestRequest::default()))
    }

    /// Makes the credential anew; asks as [`Desk::profile_test`] does.
    ///
    /// # Errors
    /// Those of the broker: why the exchange was refused; [`Code::PassphraseNeeded`] when the prompt was closed.
    pub fn profile_renew(&self, request: Named) -> Result<RenewAnswer, Fault> {
        let path = format!("/v1/profiles/{}/renew", part(&request.name));
        self.exchange("Renew", &request.name, |client| client.call(Method::Post, &path, None)?.json())
    }

    /// Has the issuer of a profile asked.
    fn exchange<T>(
        &self,
        what: &str,
        profile: &str,
        call: impl FnOnce(&mut Client) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let found: ProfileMsg = self.get(&format!("/v1/profiles/{}", part(profile)))?;
        // A secret is named so wherever a profile takes one.
        if found.leases > 0 || !found.toml.contains("secret:") {
            return self.pool.with(call);
        }
        let ask = ask(
            &format!("{what} the profile {}", quoted(profile)),
            "It sends the secrets that the profile names to where the profile says, and no run holds them at present.",
        );
        self.as_operator(ask, call)?.ok_or_else(|| Code::PassphraseNeeded.into())
    }

    /// Puts a credential on the clipboard.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn profile_copy(&self, request: Named) -> Result<Done, Fault> {
        let ask = ask(
            &format!("Copy the credential of {}", quoted(&request.name)),
            "It stays on the clipboard for 30 seconds, where every program of yours can read it. The copy is recorded.",
        );
        self.credential(&request.name, ask, |token| self.prompter.copy(token))
    }

    /// Shows a credential in a native window.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn profile_reveal(&self, request: Named) -> Result<Done, Fault> {
        let title = format!("Credential of {}", quoted(&request.name));
        let ask = ask(
            &format!("Show the credential of {}", quoted(&request.name)),
            "It is shown in a window of its own. That it was shown is recorded.",
        );
        self.credential(&request.name, ask, |token| self.prompter.show_secret(&title, &token))
    }

    /// The stored secrets by name.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn secrets(&self) -> Result<Vec<SecretMsg>, Fault> {
        self.get("/v1/secrets")
    }

    /// Asks for a secret and stores it.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn secret_set(&self, request: Named) -> Result<Done, Fault> {
        let title = format!("Secret {}", quoted(&request.name));
        let ask = ask(&title, "Type or paste the secret. It goes into the vault and into no window of the web view.");
        let path = format!("/v1/secrets/{}", part(&request.name));
        // A closed vault or a name that cannot be is told before anything is typed.
        let _: Vec<SecretMsg> = self.get("/v1/secrets")?;
        let _turn = self.turn()?;
        let Some(secret) = self.prompter.secret(&ask) else { return Ok(closed()) };
        let body = SecretPutRequest { secret, base64: false, only_new: false };
        self.pool.with(|client| client.put::<_, ()>(&path, &body)).map(|()| done())
    }

    /// Shows a stored secret in a native window.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn secret_reveal(&self, request: Named) -> Result<Done, Fault> {
        let path = format!("/v1/secrets/{}/reveal", part(&request.name));
        let ask = ask(
            &format!("Show the secret {}", quoted(&request.name)),
            "It is shown in a window of its own. That it was shown is recorded.",
        );
        self.known_secret(&request.name)?;
        let _turn = self.turn()?;
        let mut shown = None;
        let ended = self.proven(ask, |proof| {
            shown = Some(self.post::<_, SecretRevealAnswer>(&path, &proof)?);
            Ok(())
        })?;
        if let Some(answer) = shown {
            let form = if answer.base64 { ", in base64" } else { "" };
            self.prompter.show_secret(&format!("Secret {}{form}", quoted(&request.name)), &answer.secret);
        }
        Ok(ended)
    }

    /// Removes a stored secret.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn secret_remove(&self, request: Named) -> Result<Done, Fault> {
        self.known_secret(&request.name)?;
        let ask = ask(
            &format!("Remove the secret {}", quoted(&request.name)),
            "It is gone for good where it is stored nowhere else.",
        );
        self.remove(ask, &format!("/v1/secrets/{}", part(&request.name)))
    }

    fn known_secret(&self, name: &str) -> Result<(), Fault> {
        let known: Vec<SecretMsg> = self.get("/v1/secrets")?;
        if known.iter().any(|secret| secret.name == name) {
            return Ok(());
        }
        Err(Fault::new(Code::SecretUnknown).cause(format!("no secret is named {}", quoted(name))))
    }

    // Launchers.

    /// Stores a launcher.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn launcher_save(&self, request: LauncherSave) -> Result<Done, Fault> {
        let LauncherSave { draft, replace, allow_s } = request;
        let body = |proof| LauncherPutRequest {
            name: draft.name.clone(),
            command: draft.command.clone(),
            folder: draft.folder.clone(),
            profiles: draft.profiles.clone(),
            terminal: draft.terminal,
            proof,
        };
        let allowed = allow_s.map_or_else(String::new, |s| {
            format!("\nFor {} it starts without asking, from the tray and by `keyward launch` too.", duration(s))
        });
        let Some(former) = replace else {
            self.post::<_, ()>("/v1/launchers", &body(None))?;
            let Some(allow_s) = allow_s else { return Ok(done()) };
            let ask = ask(
                &format!("Allow the starts of {}", quoted(&draft.name)),
                &format!("{}{allowed}", starts(&draft.command, draft.folder.as_deref(), &draft.profiles)),
            );
            let given = self.as_operator(ask, |client| allow_starts(client, &draft, allow_s))?;
            let refused = "The launcher was stored; its starts are not allowed yet.";
            let notes = if given.is_none() { vec![refused.to_owned()] } else { Vec::new() };
            return Ok(Done { done: true, notes });
        };
        let ask = ask(
            &format!("Change the launcher {}", quoted(&former)),
            &format!(
                "After a change a click on it starts something else, so Keyward asks for the passphrase.\n{}{allowed}",
                starts(&draft.command, draft.folder.as_deref(), &draft.profiles)
            ),
        );
        let path = format!("/v1/launchers/{}", part(&former));
        self.launcher(&former)?.ok_or(Code::LauncherUnknown)?;
        let _turn = self.turn()?;
        self.proven(ask, |proof| {
            let Some(allow_s) = allow_s else {
                return self.pool.with(|client| client.put::<_, ()>(&path, &body(Some(proof))));
            };
            let second = second(&proof)?;
            self.pool.with(|client| client.put::<_, ()>(&path, &body(Some(proof))))?;
            self.on_operators(|client| {
                client.post::<_, OperatorAnswer>("/v1/operator", &second)?;
                allow_starts(client, &draft, allow_s)
            })
        })
    }

    /// Removes a launcher.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn launcher_remove(&self, request: Named) -> Result<Done, Fault> {
        self.launcher(&request.name)?.ok_or(Code::LauncherUnknown)?;
        let ask = ask(
            &format!("Remove the launcher {}", quoted(&request.name)),
            "It goes from the tray. What it started goes on.",
        );
        self.remove(ask, &format!("/v1/launchers/{}", part(&request.name)))
    }

    // Grants.

    /// What is allowed without asking.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn grants(&self) -> Result<Vec<GrantMsg>, Fault> {
        self.get("/v1/grants")
    }

    /// Gives a grant, or changes one.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn grant_save(&self, request: GrantSave) -> Result<Done, Fault> {
        let GrantSave { draft, replace } = request;
        let _: ProfileMsg = self.get(&format!("/v1/profiles/{}", part(&draft.profile)))?;
        let title = if replace.is_some() { "Change a grant" } else { "Give a grant" };
        let ask = ask(title, &allows(&draft));
        let body = body(draft);
        let given = self.as_operator(ask, |client| match replace {
            None => client.post::<_, GrantMsg>("/v1/grants", &body),
            Some(id) => client.put::<_, GrantMsg>(&format!("/v1/grants/{}", part(&id)), &body),
        })?;
        Ok(if given.is_some() { done() } else { closed() })
    }

    /// Takes a grant back.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn grant_revoke(&self, request: GrantNamed) -> Result<Done, Fault> {
        let path = format!("/v1/grants/{}", part(&request.grant));
        self.pool.at_once(|client| client.delete::<()>(&path)).map(|()| done())
    }

    // The log.

    /// Which credential each app held and used.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn apps(&self, query: AuditSummaryQuery) -> Result<Vec<AppUseMsg>, Fault> {
        let span = AuditSummaryQuery { since: query.since, until: query.until, ..AuditSummaryQuery::default() };
        self.get(&with_query("/v1/apps", &span)?)
    }

    /// Pages through the log.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn audit(&self, query: AuditQuery) -> Result<AuditPage, Fault> {
        self.get(&with_query("/v1/audit", &query)?)
    }

    /// Counts the log over time and by name.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn audit_summary(&self, query: AuditSummaryQuery) -> Result<AuditSummary, Fault> {
        self.get(&with_query("/v1/audit/summary", &query)?)
    }

    /// One entry.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn audit_entry(&self, query: AuditEntryQuery) -> Result<AuditEntryMsg, Fault> {
        self.get(&format!("/v1/audit/entries/{}", query.seq))
    }

    /// Verifies the whole log.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn audit_verify(&self, query: AuditVerifyQuery) -> Result<VerifyAnswer, Fault> {
        self.get(&with_query("/v1/audit/verify", &query)?)
    }

    /// Exports what is filtered.
    ///
    /// # Errors
    /// Those of the broker; [`Code::FileUnreadable`] for a file that cannot be written.
    pub fn audit_export(&self, query: AuditQuery) -> Result<Exported, Fault> {
        let nothing = Exported { path: None, entries: 0 };
        // A closed vault is told before anything is asked.
        let _: AuditPage = self.get("/v1/audit?limit=1")?;
        let _turn = self.turn()?;
        let suggested = format!("keyward-audit-{}.jsonl", jiff::Zoned::now().date());
        let Some(path) = self.prompter.save_path("Export the audit log", &suggested) else { return Ok(nothing) };
        let ask = ask(
            "Export the audit log",
            &format!(
                "It is written to {}. That it was exported is recorded.",
                look::name(&path.display().to_string(), 400)
            ),
        );
        let query = AuditQuery { before: None, after: None, limit: None, ..query };
        let mut entries = 0;
        let ended = self.proven(ask, |proof| {
            entries = crate::export::export(self.pool.places(), &ExportRequest { query: query.clone(), proof }, &path)?;
            Ok(())
        })?;
        if !ended.done {
            return Ok(nothing);
        }
        Ok(Exported { path: Some(path.display().to_string()), entries })
    }

    /// Accepts a break of the log.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn audit_accept_break(&self, request: BreakReason) -> Result<Done, Fault> {
        let ask = ask(
            "Accept the break of the audit log",
            &format!(
                "Reason: {}\nCredentials are delivered again afterwards. The break stays visible for ever.",
                look::name(&request.reason, 400)
            ),
        );
        let _turn = self.turn()?;
        self.proven(ask, |proof| {
            self.post::<_, ()>("/v1/audit/accept-break", &AcceptBreakRequest { reason: request.reason.clone(), proof })
        })
    }

    // The vault.

    /// Makes the vault and shows its recovery key.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn vault_init(&self) -> Result<Done, Fault> {
        let mut ask = ask(
            "Make the vault",
            "Choose a passphrase. It alone opens the vault, beside the recovery key that is shown next. Keyward cannot recover it.",
        );
        let status: StatusAnswer = self.get("/v1/status")?;
        if status.vault.state != keyward_api::VaultState::Absent {
            return Err(Code::VaultExists.into());
        }
        let _turn = self.turn()?;
        let made = self.again(&mut ask, |ask| {
            let passphrase = self.prompter.new_passphrase(ask).ok_or(Ended::Closed)?;
            let request = InitRequest { passphrase, recovery: true };
            // What is proven there makes the connection the operator's.
            Ok(self.on_operators(|client| client.post::<_, RecoveryAnswer>("/v1/vault/init", &request))?)
        })?;
        let Some(answer) = made else { return Ok(closed()) };
        self.show_recovery(answer);
        Ok(done())
    }

    /// Opens the vault: by the keyring where there is such a slot, else by what the person types.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn vault_unlock(&self) -> Result<Done, Fault> {
        let slots = self.slots()?;
        let open = |request: &UnlockRequest| {
            self.on_operators(|client| client.post::<_, UnlockAnswer>("/v1/vault/unlock", request))
        };
        let mut why = "Type the passphrase, or the recovery key.".to_owned();
        if slots.iter().any(|s| s.kind == SlotKind::Keyring) {
            match open(&UnlockRequest { proof: None, keyring: true }) {
                Ok(answer) => return Ok(Done { done: true, notes: answer.warnings }),
                Err(fault) if fault.code == Code::VaultAbsent => return Err(fault),
                Err(fault) => why = format!("The keyring did not open it ({}). {why}", fault.message),
            }
        }
        let _turn = self.turn()?;
        let mut notes = Vec::new();
        let ask = ask("Unlock the vault", &why);
        let ended = self.proven(ask, |proof| {
            notes = open(&UnlockRequest { proof: Some(proof), keyring: false })?.warnings;
            Ok(())
        })?;
        Ok(Done { notes, ..ended })
    }

    /// Takes everything back and wipes the keys.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn vault_lock(&self) -> Result<LockAnswer, Fault> {
        self.pool.at_once(|client| client.call(Method::Post, "/v1/vault/lock", None)?.json())
    }

    /// Changes the passphrase.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn passphrase_change(&self) -> Result<Done, Fault> {
        let ask_new = ask("Change the passphrase", "Choose the new passphrase. The vault key is replaced with it.");
        let ask =
            ask("Change the passphrase", "First the passphrase that opens the vault at present, or the recovery key.");
        let _turn = self.turn()?;
        let mut new: Option<SecretText> = None;
        let mut notes = Vec::new();
        let ended = self.proven_or_closed(ask, |proof| {
            let chosen = match new.take() {
                Some(chosen) => chosen,
                None => self.prompter.new_passphrase(&ask_new).ok_or(Ended::Closed)?,
            };
            // EXPOSE: into a copy for this request; the first one is kept in case the old passphrase was wrong.
            let copy = chosen.expose(|t| SecretText::new(t.to_owned()));
            new = Some(chosen);
            let new_passphrase = copy.map_err(|e| Fault::new(Code::RequestInvalid).cause(e))?;
            let answer: RekeyAnswer = self.post("/v1/vault/rekey", &RekeyRequest { proof, new_passphrase })?;
            notes = answer.older_copies.iter().map(|c| format!("{c} still opens with the old passphrase")).collect();
            Ok(())
        })?;
        Ok(Done { notes, ..ended })
    }

    /// The unlock methods.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn slots(&self) -> Result<Vec<SlotMsg>, Fault> {
        self.get("/v1/vault/slots")
    }

    /// Adds an unlock method.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn slot_add(&self, request: SlotAdd) -> Result<Done, Fault> {
        let (title, why) = match request.kind {
            SlotKind::Keyring => (
                "Open the vault by the keyring",
                "Any program that you run can then open the vault and rewrite the log; it protects a stolen disk only.",
            ),
            SlotKind::Recovery => {
                ("Make a recovery key", "It is shown once, next, and opens the vault without the passphrase.")
            }
            SlotKind::Passphrase => ("Add a passphrase", "There is always exactly one."),
        };
        let _turn = self.turn()?;
        let mut made = None;
        let ended = self.proven(ask(title, why), |proof| {
            made =
                Some(self.post::<_, RecoveryAnswer>("/v1/vault/slots", &SlotAddRequest { kind: request.kind, proof })?);
            Ok(())
        })?;
        if let Some(answer) = made {
            self.show_recovery(answer);
        }
        Ok(ended)
    }

    /// Removes an unlock method.
    ///
    /// # Errors
    /// Those of the broker.
    pub fn slot_remove(&self, request: SlotNamed) -> Result<Done, Fault> {
        let _turn = self.turn()?;
        let ask = ask("Remove an unlock method", &format!("Which one: {}", look::name(&request.slot, 64)));
        self.proven(ask, |proof| {
            let body = SlotRemoveRequest { slot: request.slot.clone(), proof };
            self.post::<_, ()>("/v1/vault/slots/remove", &body)
        })
    }

    // The settings.

    /// The settings.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for a `desktop.toml` that is not understood.
    pub fn settings(&self) -> Result<SettingsView, Fault> {
        let own = settings::load(self.pool.places())?;
        let of_broker: Option<SettingsMsg> = self.get("/v1/settings").ok();
        Ok(SettingsView {
            auto_lock_s: of_broker.map(|s| s.auto_lock_s),
            notifications: own.notifications,
            start_at_login: settings::starts_at_login(self),
            theme: own.theme,
        })
    }

    /// Which colours are shown. Asks no broker.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for a `desktop.toml` that is not understood.
    pub fn theme(&self) -> Result<Theme, Fault> {
        settings::load(self.pool.places()).map(|own| own.theme)
    }

    /// Changes the settings. Where the person closes the prompt nothing is changed.
    ///
    /// # Errors
    /// Those of the broker; [`Code::FileUnreadable`] for a file that cannot be written.
    pub fn settings_save(&self, request: SettingsView) -> Result<Done, Fault> {
        let before = self.settings()?;
        if let Some(auto_lock_s) = request.auto_lock_s.filter(|s| before.auto_lock_s != Some(*s)) {
            let ask = ask(
                "Change the auto-lock",
                &format!("The vault will lock itself after {} without an action of yours.", duration(auto_lock_s)),
            );
            let _turn = self.turn()?;
            let ended = self.proven(ask, |proof| {
                let body = SettingsPutRequest { auto_lock_s, proof };
                self.pool.with(|client| client.put::<_, ()>("/v1/settings", &body))
            })?;
            if !ended.done {
                return Ok(ended);
            }
        }
        let stored = settings::store(self, &request);
        self.bell.ring();
        stored.map(|()| done())
    }

    /// Finds the broker, and starts one where none runs.
    ///
    /// # Errors
    /// None: what went wrong is in the answer.
    pub fn connect(&self) -> Result<Connection, Fault> {
        let answer = Client::connect(self.pool.places(), Start::IfNeeded)
            .and_then(|mut client| client.get::<StatusAnswer>("/v1/status"));
        if let Some(follower) = self.follower.get() {
            follower.unpark();
        }
        Ok(connection(answer.map(drop)))
    }

    // How it is done.

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.pool.with(|client| client.get(path))
    }

    fn post<B: Serialize + ?Sized, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Fault> {
        self.pool.with(|client| client.post(path, body))
    }

    /// `POST` without a body.
    fn act_on<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.pool.with(|client| client.call(Method::Post, path, None)?.json())
    }

    /// Removes as the operator.
    fn remove(&self, ask: Ask, path: &str) -> Result<Done, Fault> {
        let removed = self.as_operator(ask, |client| client.delete::<()>(path))?;
        Ok(if removed.is_some() { done() } else { closed() })
    }

    /// The right to ask a person until it is dropped, tries after a refusal included: no other prompt comes between, and
    /// none waits behind.
    pub(crate) fn turn(&self) -> Result<MutexGuard<'_, ()>, Fault> {
        match self.asking.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::Poisoned(turn)) => Ok(turn.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Code::DesktopPrompt.into()),
        }
    }

    /// Asks for the passphrase and makes a call with it; a wrong one may be typed again.
    pub(crate) fn proven(&self, ask: Ask, mut call: impl FnMut(Proof) -> Result<(), Fault>) -> Result<Done, Fault> {
        self.proven_or_closed(ask, |proof| Ok(call(proof)?))
    }

    fn proven_or_closed(&self, mut ask: Ask, mut call: impl FnMut(Proof) -> Result<(), Ended>) -> Result<Done, Fault> {
        let ended = self.again(&mut ask, |ask| {
            let text = self.prompter.passphrase(ask).ok_or(Ended::Closed)?;
            // EXPOSE: a recovery key is told from a passphrase by how it begins.
            let is_key = text.expose(|t| t.trim_start().to_ascii_uppercase().starts_with(RECOVERY_BEGIN));
            call(if is_key { Proof::Recovery(text) } else { Proof::Passphrase(text) })
        })?;
        Ok(if ended.is_some() { done() } else { closed() })
    }

    /// Makes a call that asks, and asks again with the reason where what was typed is refused. The broker makes further
    /// tries wait: its words say how long.
    fn again<T>(&self, ask: &mut Ask, mut call: impl FnMut(&Ask) -> Result<T, Ended>) -> Result<Option<T>, Fault> {
        for attempt in 1.. {
            match call(ask) {
                Ok(answer) => return Ok(Some(answer)),
                Err(Ended::Closed) => return Ok(None),
                Err(Ended::Fault(fault)) if attempt < ATTEMPTS && may_retype(fault.code) => {
                    let words =
                        std::iter::once(&fault.message).chain(fault.causes.iter().filter(|c| **c != fault.message));
                    ask.error = Some(words.map(String::as_str).collect::<Vec<_>>().join(": "));
                }
                Err(Ended::Fault(fault)) => return Err(fault),
            }
        }
        Ok(None)
    }

    fn credential(&self, profile: &str, ask: Ask, show: impl FnOnce(SecretText)) -> Result<Done, Fault> {
        // A name that is none would be words of somebody else in a prompt of ours.
        let _: ProfileMsg = self.get(&format!("/v1/profiles/{}", part(profile)))?;
        let _turn = self.turn()?;
        let path = format!("/v1/profiles/{}/reveal", part(profile));
        let mut token = None;
        let ended = self.proven(ask, |proof| {
            token = Some(self.post::<_, TokenAnswer>(&path, &proof)?.token);
            Ok(())
        })?;
        token.map(show);
        Ok(ended)
    }

    /// Shows a recovery key that was made, and once more if the person has closed it unconfirmed: there is no third chance.
    fn show_recovery(&self, answer: RecoveryAnswer) {
        if let Some(key) = answer.recovery_key {
            let _ = self.prompter.show_recovery_key(&key) || self.prompter.show_recovery_key(&key);
        }
    }

    /// Tells the broker that a launch of `path` is about to be made; as the operator where the person asked for it in the
    /// window. False when they have closed the prompt.
    pub(crate) fn expect(&self, launcher: &LauncherMsg, path: String, by_operator: bool) -> Result<bool, Fault> {
        let at = format!("/v1/launchers/{}/expect", part(&launcher.name));
        let body = LaunchExpectRequest { path, by_operator };
        if !by_operator {
            return self.post::<_, LaunchExpectAnswer>(&at, &body).map(|_| true);
        }
        let ask = ask(
            &format!("Launch {}", quoted(&launcher.name)),
            &starts(&launcher.command, launcher.folder.as_deref(), &launcher.profiles),
        );
        let expected = self.as_operator(ask, |client| client.post::<_, LaunchExpectAnswer>(&at, &body))?;
        Ok(expected.is_some())
    }

    /// Stores a secret under a new name, with a static profile for it. If the profile is refused the secret is taken out again
    /// where the person has proven to be there, and stays in the vault where not.
    pub(crate) fn adopt(&self, profile: &str, secret: SecretText, toml: String) -> Result<(), Fault> {
        let path = format!("/v1/secrets/{}", part(profile));
        let body = SecretPutRequest { secret, base64: false, only_new: true };
        self.pool.with(|client| client.put::<_, ()>(&path, &body))?;
        let request = ProfilePutRequest { name: profile.to_owned(), toml, proof: None };
        let added = self.post::<_, ()>("/v1/profiles", &request);
        if added.is_err() {
            // The profile's own fault is what counts.
            let _ = self.on_operators(|client| client.delete::<()>(&path));
        }
        added
    }

    /// The launcher of this name.
    pub(crate) fn launcher(&self, name: &str) -> Result<Option<LauncherMsg>, Fault> {
        let all: Vec<LauncherMsg> = self.get("/v1/launchers")?;
        Ok(all.into_iter().find(|l| l.name == name))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Their threads look whether there is a desk, and end.
        self.bell.ring();
        if let Some(follower) = self.follower.get() {
            follower.unpark();
        }
    }
}

macro_rules! dispatch {
    ($($summary:literal $name:ident($($request:ident)?) -> $reply:ty;)*) => {
        impl Desk {
            /// Carries out a command by its name: for a host that speaks JSON.
            ///
            /// # Errors
            /// Those of the command; [`Code::RequestInvalid`] for a name that is none, or a request of another form.
            pub fn dispatch(&self, name: &str, request: Value) -> Result<Value, Fault> {
                match name {
                    $(stringify!($name) => dispatch!(@call self $name request $($request)?),)*
                    other => Err(Fault::new(Code::RequestInvalid)
                        .cause(format!("there is no command `{}`", look::name(other, 40)))),
                }
            }
        }
    };
    (@call $desk:ident $name:ident $value:ident) => {
        if $value.is_null() { reply(&$desk.$name()?) } else {
            Err(Fault::new(Code::RequestInvalid).cause("the command takes no request"))
        }
    };
    (@call $desk:ident $name:ident $value:ident $request:ident) => {
        reply(&$desk.$name(request::<$request>($value)?)?)
    };
}

crate::each_command!(dispatch);

fn request<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    let invalid = |why: String| Fault::new(Code::RequestInvalid).cause(why);
    // A list would be read as the fields of a form, one after the other.
    if value.is_array() {
        return Err(invalid("the request is a list".to_owned()));
    }
    serde_json::from_value(value).map_err(|e| invalid(e.to_string()))
}

fn reply(value: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|e| Fault::new(Code::Internal).cause(e))
}

/// How the broker answered, for the web view.
pub(crate) fn connection(answer: Result<(), Fault>) -> Connection {
    match answer {
        Ok(()) => Connection { up: true, fault: None },
        Err(fault) => Connection { up: false, fault: serde_json::to_value(fault).ok() },
    }
}

fn may_retype(code: Code) -> bool {
    matches!(
        code,
        Code::VaultWrongPassphrase | Code::VaultWrongRecovery | Code::VaultUnlockWait | Code::VaultWeakPassphrase
    )
}

/// What a vault that is not open does not tell is empty.
fn closed_is_empty<T>(answer: Result<Vec<T>, Fault>) -> Result<Vec<T>, Fault> {
    match answer {
        Err(fault) if matches!(fault.code, Code::VaultLocked | Code::VaultAbsent) => Ok(Vec::new()),
        answer => answer,
    }
}

pub(crate) fn done() -> Done {
    Done { done: true, notes: Vec::new() }
}

pub(crate) fn closed() -> Done {
    Done { done: false, notes: Vec::new() }
}

fn named(name: &str) -> Named {
    Named { name: name.to_owned() }
}

pub(crate) fn ask(title: &str, why: &str) -> Ask {
    Ask { title: title.to_owned(), why: why.to_owned(), error: None }
}

/// A name in a sentence.
fn quoted(text: &str) -> String {
    format!("“{}”", look::name(text, 64))
}

/// What a launcher starts, in lines for a prompt.
fn starts(command: &[String], folder: Option<&str>, profiles: &[String]) -> String {
    let list = |parts: &[String], each: usize| {
        let parts: Vec<_> = parts.iter().map(|part| look::name(part, each)).collect();
        look::name(&parts.join(" "), 400)
    };
    let folder = folder.map_or_else(|| "the home folder".to_owned(), |f| look::name(f, 200));
    format!("Starts: {}\nIn: {folder}\nWith: {}", list(command, 120), list(profiles, 64))
}

/// What a grant allows, in lines for a prompt.
fn allows(draft: &GrantDraft) -> String {
    let named =
        |path: &Option<String>, none: &str| path.as_ref().map_or_else(|| none.to_owned(), |p| look::name(p, 200));
    let who = match (&draft.launcher, &draft.script) {
        (Some(launcher), _) => format!("the launcher {}", quoted(launcher)),
        (None, Some(script)) => format!("{} with {}", named(&draft.program, "any program"), look::name(script, 200)),
        (None, None) => named(&draft.program, "any program"),
    };
    let weakest = match draft.weakest {
        DeliveryMode::Env => "in any way, a variable included",
        DeliveryMode::File => "by a file or the gateway",
        DeliveryMode::Gateway => "by the gateway alone",
    };
    let uses = draft.uses.map_or_else(String::new, |n| format!(", {n} times at most"));
    format!(
        "It is given without asking: {}\nTo: {who}\nIn: {}\nHow: {weakest}\nFor: {}{uses}",
        look::name(&draft.profile, 64),
        named(&draft.project, "any folder"),
        duration(draft.for_s),
    )
}

/// The request for a grant, without a proof.
fn body(draft: GrantDraft) -> GrantPutRequest {
    let GrantDraft { profile, program, script, launcher, project, weakest, for_s, uses } = draft;
    let (weakest, for_s) = (Some(weakest), Some(for_s));
    GrantPutRequest { profile, program, script, launcher, project, weakest, for_s, uses, proof: None }
}

/// Gives a grant for each profile of a launcher.
fn allow_starts(client: &mut Client, draft: &LauncherDraft, for_s: u64) -> Result<(), Fault> {
    draft.profiles.iter().try_for_each(|profile| {
        let grant = GrantDraft {
            profile: profile.clone(),
            program: None,
            script: None,
            launcher: Some(draft.name.clone()),
            project: None,
            weakest: DeliveryMode::Env,
            for_s,
            uses: None,
        };
        client.post::<_, GrantMsg>("/v1/grants", &body(grant)).map(drop)
    })
}

/// A second copy of a proof, for a second request of the same command.
fn second(proof: &Proof) -> Result<Proof, Fault> {
    // EXPOSE: into a copy that this command sends and drops.
    let copy = |text: &SecretText| text.expose(|t| SecretText::new(t.to_owned()));
    let copied = match proof {
        Proof::Passphrase(text) => copy(text).map(Proof::Passphrase),
        Proof::Recovery(text) => copy(text).map(Proof::Recovery),
    };
    copied.map_err(|e| Fault::new(Code::RequestInvalid).cause(e))
}

pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s} s"),
        (m, 0) if m % 60 == 0 => format!("{} h", m / 60),
        (m, 0) => format!("{m} min"),
        (m, s) => format!("{m} min {s} s"),
    }
}

/// A path with the fields of a query that are set.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, Fault> {
    let mut out = path.to_owned();
    if let Value::Object(fields) = reply(query)? {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.push(if out.contains('?') { '&' } else { '?' });
            out.push_str(&format!("{name}={}", part(&text)));
        }
    }
    Ok(out)
}
