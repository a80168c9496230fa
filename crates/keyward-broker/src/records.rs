//! Secrets and profiles: what the vault keeps.

use crate::broker::{Broker, Open, State, StoredProfile, entry_of};
use crate::fence;
use crate::grants::{ended, forget};
use crate::launchers::launchers_with;
use crate::operator::is_person;
use crate::peer::Peer;
use crate::platform::now;
use crate::runs::{RunId, wire_mode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyward_api::{
    FieldMsg, KindMsg, ProfileMsg, ProfilePutRequest, ProfileTestAnswer, ProfileTestRequest, Proof, SecretMsg,
    SecretPutRequest, SecretRevealAnswer,
};
use keyward_core::audit::{Kind, Outcome};
use keyward_core::{Name, Now, Profile, ProfileError, Role, Wall, usual};
use keyward_crypto::{ItemRef, make_array};
use keyward_diag::{Code, Fault};
use keyward_secret::{SecretBytes, SecretText};
use keyward_store::{Item, ItemInfo, StoreError, Write};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Kind of the items that hold secrets.
const SECRET: &str = "secret";
/// Most secrets of a vault.
const SECRETS_MAX: usize = 1_000;
/// Most profiles of a vault.
const PROFILES_MAX: usize = 500;

impl Broker {
    /// Reads the profiles of the vault.
    pub(crate) async fn load_profiles(&self, open: &mut Open) -> Result<(), Fault> {
        for row in open.store.profiles().await.map_err(|e| e.fault())? {
            let name = Name::parse(&row.name).map_err(|e| e.fault())?;
            let profile = self.parse(name.clone(), &row.body).map_err(|e| {
                let inner = e.fault();
                let cause = format!("profile `{name}`: {}", inner.causes.join("; "));
                Fault::new(Code::VaultSchemaNewer).cause(cause)
            })?;
            let (created, updated) = (Wall(row.created_us), Wall(row.updated_us));
            open.profiles.insert(name, StoredProfile { id: row.id, profile, created, updated });
        }
        Ok(())
    }

    /// Reads the sealed secrets of the vault.
    pub(crate) async fn load_secrets(&self, open: &mut Open) -> Result<(), Fault> {
        open.secrets.clear();
        for info in open.store.items(SECRET).await.map_err(|e| e.fault())? {
            if let Some(item) = open.store.item(SECRET, &info.name).await.map_err(|e| e.fault())? {
                open.secrets.insert(info.name, item);
            }
        }
        Ok(())
    }

    fn parse(&self, name: Name, text: &str) -> Result<Profile, ProfileError> {
        Profile::parse(name, text, &self.kinds, &self.families)
    }

    /// Writes into a profile what it leaves out and files of this machine say beside its credentials, so that where its
    /// requests go stands in it. The files are read while nobody waits for the state.
    async fn completed(self: &Arc<Self>, profile: Profile) -> Result<Profile, Fault> {
        let order = {
            let mut state = self.state_for_request().await?;
            self.order(&mut state, profile.clone())
        };
        // What cannot be gathered is an error of the change itself, which says it.
        let Some((issuer, order)) = keyward_issuer::find(profile.kind.kind).zip(order.ok()) else { return Ok(profile) };
        let found = issuer.beside(&order).await;
        profile.completed(found, &self.kinds, &self.families).map_err(|e| e.fault())
    }

    /// The stored secrets, by name.
    pub(crate) async fn secrets(&self) -> Result<Vec<SecretMsg>, Fault> {
        let mut state = self.state_for_request().await?;
        let open = self.unlocked(&mut state)?;
        Ok(open.secrets.values().map(|item| message(&item.info)).collect())
    }

    /// Stores a secret, and renews what was made from its former content. A requester may add one that was not there.
    pub(crate) async fn secret_put(
        self: &Arc<Self>,
        peer: &Peer,
        role: Role<RunId>,
        name: &str,
        request: SecretPutRequest,
    ) -> Result<(), Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        let secret = content(request.secret, request.base64)?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        let former = open.secrets.get(name.as_str()).map(|i| i.info.clone());
        if request.only_new && former.is_some() {
            let fault = Fault::new(Code::SecretInvalid).cause(format!("there is a secret `{name}` already"));
            return Err(fault.help(format!(
                "hand it over with `keyward profile add NAME --secret {name} --env VARIABLE`, or remove it first with `keyward secret remove {name}`"
            )));
        }
        if former.is_some() && !is_person(role) {
            return Err(not_a_person("to replace a secret"));
        }
        if former.is_none() && open.secrets.len() >= SECRETS_MAX {
            return Err(Fault::new(Code::SecretInvalid).cause(format!("there are {SECRETS_MAX} secrets already")));
        }
        let info = match former {
            Some(info) => ItemInfo { generation: info.generation + 1, updated_us: at.wall.0, ..info },
            None => ItemInfo {
                id: make_array().map_err(|e| Fault::new(Code::Internal).cause(e))?,
                kind: SECRET.to_owned(),
                name: name.to_string(),
                generation: 1,
                created_us: at.wall.0,
                updated_us: at.wall.0,
            },
        };
        let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
        let item = ItemRef { id: info.id, generation: info.generation, kind: &info.kind };
        let sealed = keyward_crypto::seal(seal, &item, &secret).map_err(|e| StoreError::from(e).fault())?;
        let draft =
            entry_of(Kind::SecretSet, at, peer).detail("secret", name.as_str()).detail("generation", info.generation);
        let item = Item { info, sealed };
        open.commit(self, vec![Write::PutItem(item.clone())], vec![draft]).await?;
        open.secrets.insert(name.to_string(), item);
        let users = users(open, &name);
        self.changed(&mut state, &users).await;
        self.wake.notify_one();
        Ok(())
    }

    /// Removes a secret that no profile uses.
    pub(crate) async fn secret_remove(&self, peer: &Peer, name: &str) -> Result<(), Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        let item = open.secrets.get(name.as_str()).cloned().ok_or_else(|| no_secret(&name))?;
        let users = users(open, &name);
        if !users.is_empty() {
            let list = users.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            return Err(Fault::new(Code::SecretInUse).cause(format!("used by: {list}")));
        }
        let draft = entry_of(Kind::SecretRemoved, at, peer).detail("secret", name.as_str());
        open.commit(self, vec![Write::RemoveItem(item.info.id)], vec![draft]).await?;
        open.secrets.remove(name.as_str());
        Ok(())
    }

    /// Shows a secret to the person who proves that it is theirs; recorded before it leaves.
    pub(crate) async fn secret_reveal(
        &self,
        peer: &Peer,
        name: &str,
        proof: Proof,
    ) -> Result<SecretRevealAnswer, Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        self.prove(proof).await?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.delivering(&mut state)?;
        open.last_action = at.boot;
        let item = open.secrets.get(name.as_str()).cloned().ok_or_else(|| no_secret(&name))?;
        let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
        let reference = ItemRef { id: item.info.id, generation: item.info.generation, kind: &item.info.kind };
        let secret = keyward_crypto::open(seal, &reference, &item.sealed).map_err(|e| StoreError::from(e).fault())?;
        let draft = entry_of(Kind::SecretRevealed, at, peer).detail("secret", name.as_str());
        open.record_delivery(self, Vec::new(), vec![draft]).await?;
        // EXPOSE: to see whether it is text.
        let text = secret.expose(|b| std::str::from_utf8(b).is_ok());
        let secret = match text {
            true => SecretText::from_bytes(secret),
            // EXPOSE: into the wire form for bytes that are not text.
            false => SecretText::new(secret.expose(|b| STANDARD.encode(b))),
        };
        let secret = secret.map_err(|e| Fault::new(Code::SecretInvalid).cause(e))?;
        Ok(SecretRevealAnswer { secret, base64: !text })
    }

    /// The kinds of this version.
    pub(crate) fn kinds(&self) -> Vec<KindMsg> {
        let kinds = self.kinds.iter().map(|kind| KindMsg {
            kind: kind.kind.to_owned(),
            role: kind.role.word().to_owned(),
            about: kind.about.to_owned(),
            fields: kind
                .fields
                .iter()
                .map(|f| FieldMsg {
                    name: f.name.to_owned(),
                    required: f.required,
                    secret: f.secret,
                    about: f.about.to_owned(),
                    shape: f.shape.word().to_owned(),
                    choices: f.shape.choices().0.iter().map(|&word| word.to_owned()).collect(),
                    begins: f.shape.choices().1.map(str::to_owned),
                })
                .collect(),
        });
        kinds.collect()
    }

    /// All profiles, by name.
    pub(crate) async fn profiles(&self) -> Result<Vec<ProfileMsg>, Fault> {
        let mut state = self.state_for_request().await?;
        self.unlocked(&mut state)?;
        let now = now();
        let stored = state.vault.opened().into_iter().flat_map(|open| open.profiles.values());
        Ok(stored.map(|p| self.profile_message(p, &state, now)).collect())
    }

    /// One profile.
    pub(crate) async fn profile(&self, name: &str) -> Result<ProfileMsg, Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        let mut state = self.state_for_request().await?;
        let stored = self.unlocked(&mut state)?.profiles.get(&name).cloned().ok_or_else(|| no_profile(&name))?;
        Ok(self.profile_message(&stored, &state, now()))
    }

    /// Adds a profile.
    pub(crate) async fn profile_add(self: &Arc<Self>, peer: &Peer, request: ProfilePutRequest) -> Result<(), Fault> {
        let name = Name::parse(&request.name).map_err(|e| e.fault())?;
        let profile = self.parse(name.clone(), &request.toml).map_err(|e| e.fault())?;
        fence::check(&profile)?;
        let profile = self.completed(profile).await?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        if open.profiles.contains_key(&name) {
            return Err(Fault::new(Code::ProfileExists).cause(format!("there is a profile `{name}`")));
        }
        if open.profiles.len() >= PROFILES_MAX {
            return Err(Fault::new(Code::ProfileInvalid).cause(format!("there are {PROFILES_MAX} profiles already")));
        }
        check_secrets(open, &profile)?;
        let id = make_array().map_err(|e| Fault::new(Code::Internal).cause(e))?;
        let stored = StoredProfile { id, profile, created: at.wall, updated: at.wall };
        let draft =
            entry_of(Kind::ProfileAdded, at, peer).profile(name.as_str()).detail("issuer", stored.profile.kind.kind);
        open.commit(self, vec![row(&stored)], vec![draft]).await?;
        open.profiles.insert(name, stored);
        Ok(())
    }

    /// Changes a profile. What was made from it is renewed from the new one.
    pub(crate) async fn profile_edit(
        self: &Arc<Self>,
        peer: &Peer,
        name: &str,
        request: ProfilePutRequest,
    ) -> Result<(), Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        if request.name != name.as_str() {
            return Err(Fault::new(Code::RequestInvalid).cause("the name in the path and in the body differ"));
        }
        let profile = self.parse(name.clone(), &request.toml).map_err(|e| e.fault())?;
        fence::check(&profile)?;
        {
            // What is wrong with it is told before anybody is asked for the passphrase.
            let mut state = self.state_for_request().await?;
            let open = self.unlocked(&mut state)?;
            open.profiles.get(&name).ok_or_else(|| no_profile(&name))?;
            check_secrets(open, &profile)?;
        }
        let proof = request.proof.ok_or(Fault::new(Code::PassphraseNeeded))?;
        self.prove(proof).await?;
        let profile = self.completed(profile).await?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        open.last_action = at.boot;
        let former = open.profiles.get(&name).cloned().ok_or_else(|| no_profile(&name))?;
        check_secrets(open, &profile)?;
        let stays = profile.exchanges_as(&former.profile);
        let upstream = |p: &Profile| p.gateway.as_ref().map(|target| target.upstream.clone());
        let place = |p: &Profile| (p.kind.kind, p.endpoint().map(str::to_owned), upstream(p));
        // What a run holds is valid at the former place, and its variables name that one.
        let moved = place(&profile) != place(&former.profile);
        // What a person allowed was the profile as it stood then.
        let why = match (moved, profile.grants_as(&former.profile)) {
            (true, _) => Some("the profile goes elsewhere"),
            (false, false) => Some("the profile was changed in what it opens or how it is handed over"),
            (false, true) => None,
        };
        let stored = StoredProfile { profile: profile.clone(), updated: at.wall, ..former };
        let draft =
            entry_of(Kind::ProfileChanged, at, peer).profile(name.as_str()).detail("issuer", stored.profile.kind.kind);
        let taken = if moved { Self::leases_of(&state, &name) } else { Vec::new() };
        let open = self.unlocked(&mut state)?;
        let grants = why.map_or_else(Vec::new, |_| open.grants.of_profile(&name));
        let mut changes = ended(open, &grants, Kind::GrantRevoked, why.unwrap_or_default(), at);
        changes.writes.push(row(&stored));
        changes.entries.push(draft);
        forget(open, &grants);
        changes.entries.extend(why.into_iter().flat_map(|why| self.stop_asking_for(&mut state, &name, why, at)));
        self.revoke_leases(&mut state, &taken, Some(peer), at, changes).await?;
        self.unlocked(&mut state)?.profiles.insert(name.clone(), stored);
        self.turn_leases(&state, &profile)?;
        if stays {
            let order = self.order(&mut state, profile)?;
            if let Some(cached) = state.cache.get_mut(&name) {
                cached.reorder(order);
            }
        } else {
            self.changed(&mut state, &[name]).await;
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Removes a profile that no launcher names, and takes back what was made from it.
    pub(crate) async fn profile_remove(self: &Arc<Self>, peer: &Peer, name: &str) -> Result<(), Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        let stored = open.profiles.get(&name).cloned().ok_or_else(|| no_profile(&name))?;
        let launchers = launchers_with(open, &name);
        if !launchers.is_empty() {
            return Err(Fault::new(Code::ProfileInUse).cause(format!("used by: {}", launchers.join(", "))));
        }
        let draft = entry_of(Kind::ProfileRemoved, at, peer).profile(name.as_str());
        let taken = Self::leases_of(&state, &name);
        let open = self.unlocked(&mut state)?;
        let grants = open.grants.of_profile(&name);
        let mut changes = ended(open, &grants, Kind::GrantRevoked, "the profile was removed", at);
        changes.writes.push(Write::RemoveProfile(stored.id));
        changes.entries.push(draft);
        forget(open, &grants);
        changes.entries.extend(self.stop_asking_for(&mut state, &name, "the profile was removed", at));
        self.revoke_leases(&mut state, &taken, Some(peer), at, changes).await?;
        let open = self.unlocked(&mut state)?;
        open.profiles.remove(&name);
        state.cache.remove(&name);
        state.exchanges.remove(&name);
        Ok(())
    }

    /// Makes a real exchange and says what it gave.
    pub(crate) async fn profile_test(
        self: &Arc<Self>,
        peer: &Peer,
        role: Role<RunId>,
        name: &str,
        request: ProfileTestRequest,
    ) -> Result<ProfileTestAnswer, Fault> {
        let name = Name::parse(name).map_err(|e| e.fault())?;
        {
            let mut state = self.state_for_request().await?;
            self.delivering(&mut state)?;
            may_use_secrets(&state, role, &name)?;
        }
        if !request.assertions.is_empty() && !is_person(role) {
            return Err(not_a_person("to supply an assertion"));
        }
        self.supply(request.assertions).await?;
        let made = self.try_profile(&name).await;
        let mut state = self.state_for_request().await?;
        let at = now();
        let open = self.unlocked(&mut state)?;
        let kind = open.profiles.get(&name).map_or("", |p| p.profile.kind.kind).to_owned();
        let draft = entry_of(Kind::ProfileTested, at, peer).profile(name.as_str());
        let draft = match &made {
            Ok(_) => draft,
            Err(fault) => draft.outcome(Outcome::Failed).detail("code", fault.code.name()),
        };
        open.commit(self, Vec::new(), vec![draft]).await?;
        let (made, _) = made?;
        let facts = made.facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let life = made.life.map(|l| l.as_secs());
        Ok(ProfileTestAnswer { ok: true, kind, scope: made.scope.clone(), expires_in_s: life, facts })
    }
}

fn message(info: &ItemInfo) -> SecretMsg {
    SecretMsg {
        name: info.name.clone(),
        created_at: Wall(info.created_us).to_rfc3339(),
        updated_at: Wall(info.updated_us).to_rfc3339(),
        generation: info.generation,
    }
}

impl Broker {
    /// A profile as the LocalAPI shows it, with the delivery that a program gets of which nothing is known.
    fn profile_message(&self, stored: &StoredProfile, state: &State, now: Now) -> ProfileMsg {
        let profile = &stored.profile;
        let leases = Broker::leases_of(state, &profile.name).iter().map(|(_, held)| held.len()).sum::<usize>();
        let usual = usual(profile, &self.tools, &self.gate.address());
        ProfileMsg {
            name: profile.name.to_string(),
            issuer: profile.kind.kind.to_owned(),
            delivery: wire_mode(usual.mode),
            variables: usual.carriers.into_iter().chain(usual.plain.into_keys()).collect(),
            max_ttl_s: profile.max_ttl.as_secs(),
            identity: profile.identity.as_ref().map(|i| i.kind.kind.to_owned()),
            identity_variable: profile.identity_variable().map(str::to_owned),
            last_exchange: state.exchanges.get(&profile.name).cloned(),
            held: state.cache.get(&profile.name).and_then(|cached| cached.held(now)),
            leases: u32::try_from(leases).unwrap_or(u32::MAX),
            toml: profile.to_toml(),
            created_at: stored.created.to_rfc3339(),
            updated_at: stored.updated.to_rfc3339(),
        }
    }
}

fn row(stored: &StoredProfile) -> Write {
    Write::PutProfile(keyward_store::Profile {
        id: stored.id,
        name: stored.profile.name.to_string(),
        body: stored.profile.to_toml(),
        created_us: stored.created.0,
        updated_us: stored.updated.0,
    })
}

/// The profiles that refer to a secret.
fn users(open: &Open, secret: &Name) -> Vec<Name> {
    let uses = |p: &&StoredProfile| p.profile.secrets().iter().any(|r| r.0 == *secret);
    open.profiles.values().filter(uses).map(|p| p.profile.name.clone()).collect()
}

/// Every secret that a profile names must be stored, so that a misspelt one shows now and not at the first run.
fn check_secrets(open: &Open, profile: &Profile) -> Result<(), Fault> {
    for reference in profile.secrets() {
        if !open.secrets.contains_key(reference.0.as_str()) {
            let name = &reference.0;
            return Err(no_secret(name).help(format!("store it with `keyward secret set {name}`")));
        }
    }
    Ok(())
}

/// Whether a peer may have the issuer of a profile asked without a delivery. Whoever can add a profile chooses where its secrets
/// go, so one that names secrets must be in use, which a person has allowed.
pub(crate) fn may_use_secrets(state: &State, role: Role<RunId>, name: &Name) -> Result<(), Fault> {
    let stored = state.vault.opened().and_then(|open| open.profiles.get(name));
    let names_secrets = stored.is_some_and(|stored| !stored.profile.secrets().is_empty());
    match names_secrets && !is_person(role) && Broker::leases_of(state, name).is_empty() {
        true => Err(not_a_person(&format!("to use the secrets of `{name}`, which no run holds,"))),
        false => Ok(()),
    }
}

/// The fault of what a requester may not.
pub(crate) fn not_a_person(what: &str) -> Fault {
    Fault::new(Code::PolicyDenied)
        .cause(format!("{what} takes a person who has unlocked from this shell"))
        .help("run `keyward unlock` in this terminal")
}

fn no_secret(name: &Name) -> Fault {
    Fault::new(Code::SecretUnknown).cause(format!("no secret is named `{name}`"))
}

fn no_profile(name: &Name) -> Fault {
    Fault::new(Code::ProfileUnknown).cause(format!("no profile is named `{name}`"))
}

/// The bytes of a secret from the wire.
fn content(text: SecretText, base64: bool) -> Result<SecretBytes, Fault> {
    if !base64 {
        return Ok(text.into_bytes());
    }
    // EXPOSE: out of the wire form for bytes that are not text.
    let bytes = text.expose(|t| STANDARD.decode(t).map(Zeroizing::new));
    let mut bytes = bytes.map_err(|_| Fault::new(Code::SecretInvalid).cause("it is not base64"))?;
    SecretBytes::new(std::mem::take(&mut *bytes)).map_err(|e| Fault::new(Code::SecretInvalid).cause(e))
}
