//! The slot file: the vault key, wrapped once per way of opening the vault. Model and text form; never touches a file.
//!
//! JSON, at most 64 KiB, unknown fields and versions refused:
//! `{"keyward":"slots","version":1,"vault":…,"epoch":…,"slots":[…],"recipient":…,"mac":…,"sum":…}`. Byte fields are
//! hexadecimal, the age file is base64. There is at most one slot of a kind and exactly one passphrase slot:
//!
//! | `kind` | Fields | Wrapped by |
//! |---|---|---|
//! | `passphrase` | `id`, `salt`, `kdf` `{m_kib,t,p}`, `wrapped` | Argon2id of the passphrase |
//! | `keyring` | `id`, `wrapped` | a random 256-bit key that the keyring of the operating system keeps |
//! | `recovery` | `id`, `age` | an age file (age-encryption.org/v1) to the X25519 `recipient` |
//!
//! `wrapped = nonce (24) ‖ XChaCha20-Poly1305(vault key)` with
//! `aad = "keyward/slot/v1" ‖ kind ‖ 0x00 ‖ slot id (8) ‖ vault id (16) ‖ u32be(m_kib) ‖ u32be(t) ‖ u32be(p)` (zeros without KDF).
//!
//! `mac = HMAC-SHA256(HKDF(vault key, "keyward/slots/v1"), "keyward/slots/v1" ‖ the file with empty mac and sum)` and
//! `sum = SHA-256(the file with empty sum)`, both over the compact form that [`SlotFile::to_bytes`] writes. The sum tells
//! accidental damage from a wrong passphrase; the MAC, checked after unwrapping, finds deliberate edits.

use crate::chain::MacKey;
use crate::kdf::{KdfError, KdfParams, derive_from_passphrase};
use crate::random::{RandomError, make_array, make_key};
use crate::vault_key::{VaultKey, scrub_stack};
use age::secrecy::ExposeSecret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use keyward_secret::{Key32, Passphrase, SecretText};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Longest slot file, in bytes.
pub const SLOTS_MAX_BYTES: usize = 64 * 1024;

const VERSION: u32 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + 16;
const AGE_MAX_BYTES: usize = 4096;

/// A way of opening the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// By a passphrase.
    Passphrase,
    /// By a key in the keyring of the operating system.
    Keyring,
    /// By an age identity that was shown once.
    Recovery,
}

impl SlotKind {
    /// The name in the file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Keyring => "keyring",
            Self::Recovery => "recovery",
        }
    }
}

/// What a listing says of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Identifier: 16 hexadecimal digits.
    pub id: String,
    /// Kind.
    pub kind: SlotKind,
}

/// Reading, opening or changing a slot file failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The bytes are not a slot file, or were damaged by accident.
    #[error("the slot file is damaged: {0}")]
    Damaged(&'static str),
    /// The file is of a version that this program does not know.
    #[error("the slot file is of version {0}")]
    Newer(u32),
    /// The vault key was found, but the rest of the file is not what was written under it.
    #[error("the slot file was changed by somebody who did not hold the vault key")]
    Tampered,
    /// The passphrase does not unwrap the vault key.
    #[error("the passphrase does not open the vault")]
    WrongPassphrase,
    /// The key from the keyring does not unwrap the vault key.
    #[error("the key from the keyring does not open the vault")]
    WrongKeyringKey,
    /// The text is no age identity, or not the one of this vault.
    #[error("the recovery key does not open the vault")]
    WrongRecovery,
    /// There is no such slot.
    #[error("there is no such slot")]
    Unknown,
    /// There is a slot of this kind.
    #[error("there is a {} slot already", .0.name())]
    Exists(SlotKind),
    /// The passphrase slot cannot be removed.
    #[error("the passphrase slot cannot be removed")]
    Needed,
    /// The key derivation was refused or failed.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// No random numbers could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A slot file that is well formed and whose sum is right. Whether it was changed on purpose is known only after opening:
/// the `open` functions give the vault key out only when the MAC verified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotFile {
    keyward: String,
    version: u32,
    #[serde(with = "hexed")]
    vault: [u8; 16],
    epoch: u64,
    slots: Vec<Slot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
    #[serde(with = "hexed")]
    mac: Vec<u8>,
    #[serde(with = "hexed")]
    sum: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Slot {
    Passphrase {
        #[serde(with = "hexed")]
        id: [u8; 8],
        #[serde(with = "hexed")]
        salt: Vec<u8>,
        kdf: Cost,
        #[serde(with = "hexed")]
        wrapped: Vec<u8>,
    },
    Keyring {
        #[serde(with = "hexed")]
        id: [u8; 8],
        #[serde(with = "hexed")]
        wrapped: Vec<u8>,
    },
    Recovery {
        #[serde(with = "hexed")]
        id: [u8; 8],
        #[serde(with = "based")]
        age: Vec<u8>,
    },
}

struct PassphraseSlot<'f> {
    id: [u8; 8],
    salt: &'f [u8],
    kdf: KdfParams,
    wrapped: &'f [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    m_kib: u32,
    t: u32,
    p: u32,
}

impl Slot {
    fn id(&self) -> [u8; 8] {
        match self {
            Self::Passphrase { id, .. } | Self::Keyring { id, .. } | Self::Recovery { id, .. } => *id,
        }
    }

    fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase { .. } => SlotKind::Passphrase,
            Self::Keyring { .. } => SlotKind::Keyring,
            Self::Recovery { .. } => SlotKind::Recovery,
        }
    }

    fn check(&self) -> Result<(), SlotError> {
        match self {
            Self::Passphrase { salt, kdf, wrapped, .. } => {
                if !(16..=32).contains(&salt.len()) {
                    return Err(SlotError::Damaged("the salt has a wrong length"));
                }
                KdfParams::from(*kdf).check()?;
                check_wrapped(wrapped)
            }
            Self::Keyring { wrapped, .. } => check_wrapped(wrapped),
            Self::Recovery { age, .. } if age.len() > AGE_MAX_BYTES => {
                Err(SlotError::Damaged("the recovery slot is too long"))
            }
            Self::Recovery { .. } => Ok(()),
        }
    }
}

impl From<Cost> for KdfParams {
    fn from(c: Cost) -> Self {
        Self { m_kib: c.m_kib, t: c.t, p: c.p }
    }
}

impl From<KdfParams> for Cost {
    fn from(p: KdfParams) -> Self {
        Self { m_kib: p.m_kib, t: p.t, p: p.p }
    }
}

impl SlotFile {
    /// Makes the slot file of a new vault, with a passphrase slot and epoch 1. Draws salt, nonce and identifier.
    ///
    /// # Errors
    /// [`SlotError::Kdf`], [`SlotError::Random`].
    pub fn create(
        vault_id: [u8; 16],
        key: &VaultKey,
        passphrase: &Passphrase,
        kdf: KdfParams,
    ) -> Result<Self, SlotError> {
        let slot = passphrase_slot(&vault_id, key, passphrase, kdf)?;
        let file = Self {
            keyward: "slots".to_owned(),
            version: VERSION,
            vault: vault_id,
            epoch: 1,
            slots: vec![slot],
            recipient: None,
            mac: Vec::new(),
            sum: Vec::new(),
        };
        Ok(file.sealed(key))
    }

    /// Reads a slot file and checks its form, bounds and sum; KDF parameters outside of the bounds are refused here.
    ///
    /// # Errors
    /// [`SlotError::Damaged`], [`SlotError::Newer`], [`SlotError::Kdf`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SlotError> {
        #[derive(Deserialize)]
        struct Stamp {
            keyward: String,
            version: u32,
        }
        if bytes.len() > SLOTS_MAX_BYTES {
            return Err(SlotError::Damaged("it is longer than 64 KiB"));
        }
        let stamp: Stamp = serde_json::from_slice(bytes).map_err(|_| SlotError::Damaged("it is not a slot file"))?;
        if stamp.keyward != "slots" {
            return Err(SlotError::Damaged("it is not a slot file"));
        }
        if stamp.version != VERSION {
            return Err(SlotError::Newer(stamp.version));
        }
        let file: Self = serde_json::from_slice(bytes)
            .map_err(|_| SlotError::Damaged("a field is missing, unknown or malformed"))?;
        if file.sum != file.sum() {
            return Err(SlotError::Damaged("its sum does not match"));
        }
        if file.mac.len() != 32 {
            return Err(SlotError::Damaged("its mac has a wrong length"));
        }
        for slot in &file.slots {
            slot.check()?;
            if file.slots.iter().filter(|other| other.kind() == slot.kind() || other.id() == slot.id()).count() != 1 {
                return Err(SlotError::Damaged("two slots are of one kind or identifier"));
            }
        }
        file.passphrase_slot()?;
        if let Some(recipient) = &file.recipient {
            parse_recipient(recipient)?;
        }
        Ok(file)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.json();
        bytes.push(b'\n');
        bytes
    }

    /// Identifier of the vault.
    pub fn vault_id(&self) -> [u8; 16] {
        self.vault
    }

    /// Epoch of the vault: raised by a restore and by an accepted break of the log.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// KDF parameters of the passphrase slot.
    pub fn kdf(&self) -> KdfParams {
        self.passphrase_slot().map_or(KdfParams::FLOOR, |slot| slot.kdf)
    }

    /// The slots, in the order in which they were made.
    pub fn list(&self) -> Vec<SlotInfo> {
        self.slots.iter().map(|slot| SlotInfo { id: hex::encode(slot.id()), kind: slot.kind() }).collect()
    }

    /// Whether there is a slot of this kind.
    pub fn has(&self, kind: SlotKind) -> bool {
        self.slots.iter().any(|slot| slot.kind() == kind)
    }

    /// Opens by passphrase; takes as long as the KDF parameters ask.
    ///
    /// # Errors
    /// [`SlotError::WrongPassphrase`], [`SlotError::Tampered`], [`SlotError::Kdf`].
    pub fn open_passphrase(&self, passphrase: &Passphrase) -> Result<VaultKey, SlotError> {
        let slot = self.passphrase_slot()?;
        let kek = derive_from_passphrase(passphrase, slot.salt, &slot.kdf)?;
        let aad = self.aad(SlotKind::Passphrase, slot.id, Some(slot.kdf));
        let key = unwrap(&kek, &aad, slot.wrapped).ok_or(SlotError::WrongPassphrase)?;
        self.verified(key)
    }

    /// Opens by the key that the keyring kept.
    ///
    /// # Errors
    /// [`SlotError::Unknown`] without a keyring slot, [`SlotError::WrongKeyringKey`], [`SlotError::Tampered`].
    pub fn open_keyring(&self, keyring_key: &Key32) -> Result<VaultKey, SlotError> {
        let slot = self.slots.iter().find_map(|slot| match slot {
            Slot::Keyring { id, wrapped } => Some((*id, wrapped)),
            Slot::Passphrase { .. } | Slot::Recovery { .. } => None,
        });
        let (id, wrapped) = slot.ok_or(SlotError::Unknown)?;
        let aad = self.aad(SlotKind::Keyring, id, None);
        let key = unwrap(keyring_key, &aad, wrapped).ok_or(SlotError::WrongKeyringKey)?;
        self.verified(key)
    }

    /// Opens by the age identity (`AGE-SECRET-KEY-1…`) that was shown when the recovery slot was made.
    ///
    /// # Errors
    /// [`SlotError::Unknown`] without a recovery slot, [`SlotError::WrongRecovery`], [`SlotError::Tampered`].
    pub fn open_recovery(&self, identity: &SecretText) -> Result<VaultKey, SlotError> {
        let slot = self.slots.iter().find_map(|slot| match slot {
            Slot::Recovery { age, .. } => Some(age),
            Slot::Passphrase { .. } | Slot::Keyring { .. } => None,
        });
        let wrapped = slot.ok_or(SlotError::Unknown)?;
        // EXPOSE: parsed into the identity type of age, which wipes itself.
        let identity = identity
            .expose(|text| text.trim().parse::<age::x25519::Identity>())
            .map_err(|_| SlotError::WrongRecovery)?;
        let mut plain = age::decrypt(&identity, wrapped).map_err(|_| SlotError::WrongRecovery)?;
        let key: Result<Key32, SlotError> = Key32::try_make(|page| {
            let bytes: &[u8; KEY_BYTES] = plain.as_slice().try_into().map_err(|_| SlotError::WrongRecovery)?;
            page.copy_from_slice(bytes);
            Ok(())
        });
        plain.zeroize();
        scrub_stack();
        self.verified(VaultKey::from_key(key?))
    }

    /// Adds a keyring slot and returns the key that the keyring is to keep. Draws key, nonce and identifier.
    ///
    /// # Errors
    /// [`SlotError::Exists`], [`SlotError::Tampered`] when `key` is not the key of this file, [`SlotError::Random`].
    pub fn add_keyring(&mut self, key: &VaultKey) -> Result<Key32, SlotError> {
        self.absent(SlotKind::Keyring)?;
        self.check_mac(key)?;
        let kek = make_key()?;
        let id = make_array()?;
        let wrapped = wrap(&kek, &self.aad(SlotKind::Keyring, id, None), key)?;
        self.slots.push(Slot::Keyring { id, wrapped });
        self.reseal(key);
        Ok(kek)
    }

    /// Adds a recovery slot and returns the age identity, which is kept nowhere: it is shown once. Draws the identity.
    ///
    /// # Errors
    /// [`SlotError::Exists`], [`SlotError::Tampered`] when `key` is not the key of this file, [`SlotError::Random`].
    pub fn add_recovery(&mut self, key: &VaultKey) -> Result<SecretText, SlotError> {
        self.absent(SlotKind::Recovery)?;
        self.check_mac(key)?;
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let slot = recovery_slot(&recipient, key)?;
        // EXPOSE: from the secret type of age into ours.
        let shown = SecretText::new(identity.to_string().expose_secret().to_owned());
        let shown = shown.map_err(|_| SlotError::Damaged("the identity is too long"))?;
        self.slots.push(slot);
        self.recipient = Some(recipient);
        self.reseal(key);
        Ok(shown)
    }

    /// Removes a slot, named by its identifier or by its kind. Removing the recovery slot forgets the recipient.
    ///
    /// # Errors
    /// [`SlotError::Unknown`], [`SlotError::Needed`], [`SlotError::Tampered`] when `key` is not the key of this file.
    pub fn remove(&mut self, key: &VaultKey, slot: &str) -> Result<SlotInfo, SlotError> {
        self.check_mac(key)?;
        let found = self.list().into_iter().position(|info| info.id == slot || info.kind.name() == slot);
        let at = found.ok_or(SlotError::Unknown)?;
        let kind = self.slots[at].kind();
        match kind {
            SlotKind::Passphrase => return Err(SlotError::Needed),
            SlotKind::Recovery => self.recipient = None,
            SlotKind::Keyring => {}
        }
        let gone = self.slots.remove(at);
        self.reseal(key);
        Ok(SlotInfo { id: hex::encode(gone.id()), kind })
    }

    /// The same slots in another epoch.
    ///
    /// # Errors
    /// [`SlotError::Tampered`] when `key` is not the key of this file.
    pub fn with_epoch(mut self, key: &VaultKey, epoch: u64) -> Result<Self, SlotError> {
        self.check_mac(key)?;
        self.epoch = epoch;
        Ok(self.sealed(key))
    }

    /// The slot file for a new vault key: a new passphrase slot, and the recovery slot wrapped again to the stored
    /// recipient. A keyring slot is dropped; [`SlotFile::add_keyring`] makes another. Call it on a file that was opened:
    /// the recipient is only as good as the MAC that covered it.
    ///
    /// # Errors
    /// [`SlotError::Kdf`], [`SlotError::Random`], [`SlotError::Damaged`].
    pub fn rekey(&self, new: &VaultKey, passphrase: &Passphrase, kdf: KdfParams) -> Result<Self, SlotError> {
        let mut file = Self::create(self.vault, new, passphrase, kdf)?;
        file.epoch = self.epoch;
        if let Some(recipient) = &self.recipient {
            file.slots.push(recovery_slot(recipient, new)?);
            file.recipient = Some(recipient.clone());
        }
        Ok(file.sealed(new))
    }

    fn passphrase_slot(&self) -> Result<PassphraseSlot<'_>, SlotError> {
        let found = self.slots.iter().find_map(|slot| match slot {
            Slot::Passphrase { id, salt, kdf, wrapped } => {
                Some(PassphraseSlot { id: *id, salt, kdf: (*kdf).into(), wrapped })
            }
            Slot::Keyring { .. } | Slot::Recovery { .. } => None,
        });
        found.ok_or(SlotError::Damaged("there is no passphrase slot"))
    }

    fn absent(&self, kind: SlotKind) -> Result<(), SlotError> {
        if self.has(kind) { Err(SlotError::Exists(kind)) } else { Ok(()) }
    }

    fn aad(&self, kind: SlotKind, id: [u8; 8], kdf: Option<KdfParams>) -> Vec<u8> {
        aad(kind, id, &self.vault, kdf)
    }

    fn verified(&self, key: VaultKey) -> Result<VaultKey, SlotError> {
        self.check_mac(&key)?;
        Ok(key)
    }

    fn check_mac(&self, key: &VaultKey) -> Result<(), SlotError> {
        if self.mac_under(key)[..].ct_eq(&self.mac).into() { Ok(()) } else { Err(SlotError::Tampered) }
    }

    fn mac_under(&self, key: &VaultKey) -> [u8; 32] {
        let bare = Self { mac: Vec::new(), sum: Vec::new(), ..self.clone() };
        MacKey::new(&key.derive_slots()).mac(&[b"keyward/slots/v1", &bare.json()])
    }

    fn sum(&self) -> Vec<u8> {
        Sha256::digest(Self { sum: Vec::new(), ..self.clone() }.json()).to_vec()
    }

    fn reseal(&mut self, key: &VaultKey) {
        self.mac = self.mac_under(key).to_vec();
        self.sum = self.sum();
    }

    fn sealed(mut self, key: &VaultKey) -> Self {
        self.reseal(key);
        self
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("texts, numbers and lists serialise"))
    }
}

impl fmt::Debug for SlotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotFile").field("epoch", &self.epoch).field("slots", &self.list()).finish_non_exhaustive()
    }
}

fn passphrase_slot(
    vault: &[u8; 16],
    key: &VaultKey,
    passphrase: &Passphrase,
    kdf: KdfParams,
) -> Result<Slot, SlotError> {
    let (id, salt) = (make_array()?, make_array::<16>()?);
    let kek = derive_from_passphrase(passphrase, &salt, &kdf)?;
    let wrapped = wrap(&kek, &aad(SlotKind::Passphrase, id, vault, Some(kdf)), key)?;
    Ok(Slot::Passphrase { id, salt: salt.to_vec(), kdf: kdf.into(), wrapped })
}

fn recovery_slot(recipient: &str, key: &VaultKey) -> Result<Slot, SlotError> {
    let recipient = parse_recipient(recipient)?;
    // EXPOSE: plaintext of the age file.
    let age = key.key().expose(|k| age::encrypt(&recipient, k));
    scrub_stack();
    Ok(Slot::Recovery { id: make_array()?, age: age.map_err(|_| RandomError)? })
}

fn parse_recipient(text: &str) -> Result<age::x25519::Recipient, SlotError> {
    text.parse().map_err(|_| SlotError::Damaged("the recipient is malformed"))
}

fn check_wrapped(wrapped: &[u8]) -> Result<(), SlotError> {
    if wrapped.len() == WRAPPED_BYTES { Ok(()) } else { Err(SlotError::Damaged("a wrapped key has a wrong length")) }
}

fn aad(kind: SlotKind, id: [u8; 8], vault: &[u8; 16], kdf: Option<KdfParams>) -> Vec<u8> {
    let kdf = kdf.unwrap_or(KdfParams { m_kib: 0, t: 0, p: 0 });
    [
        b"keyward/slot/v1",
        kind.name().as_bytes(),
        &[0],
        &id,
        &vault[..],
        &kdf.m_kib.to_be_bytes(),
        &kdf.t.to_be_bytes(),
        &kdf.p.to_be_bytes(),
    ]
    .concat()
}

fn cipher(kek: &Key32) -> XChaCha20Poly1305 {
    // EXPOSE: key schedule of the cipher, which wipes itself.
    kek.expose(|k| XChaCha20Poly1305::new(<&Key>::from(k)))
}

fn wrap(kek: &Key32, aad: &[u8], key: &VaultKey) -> Result<Vec<u8>, SlotError> {
    let nonce: [u8; NONCE_BYTES] = make_array()?;
    let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
    wrapped.extend(nonce);
    // EXPOSE: encrypted in place in the next step; the vector does not grow, so no copy stays behind.
    key.key().expose(|k| wrapped.extend_from_slice(k));
    let tag = cipher(kek).encrypt_inout_detached(<&XNonce>::from(&nonce), aad, (&mut wrapped[NONCE_BYTES..]).into());
    scrub_stack();
    match tag {
        Ok(tag) => wrapped.extend_from_slice(&tag),
        Err(_) => {
            wrapped.zeroize();
            return Err(SlotError::Damaged("a key could not be wrapped"));
        }
    }
    Ok(wrapped)
}

fn unwrap(kek: &Key32, aad: &[u8], wrapped: &[u8]) -> Option<VaultKey> {
    let (nonce, rest) = wrapped.split_first_chunk::<NONCE_BYTES>()?;
    let (sealed, tag) = rest.split_first_chunk::<KEY_BYTES>()?;
    let tag = <&Tag>::try_from(tag).ok()?;
    let key = Key32::try_make(|page| {
        page.copy_from_slice(sealed);
        cipher(kek).decrypt_inout_detached(<&XNonce>::from(nonce), aad, page.as_mut_slice().into(), tag)
    });
    scrub_stack();
    key.ok().map(VaultKey::from_key)
}

/// Byte fields as hexadecimal text of the exact length of their type.
mod hexed {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(d: D) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(d)?).map_err(serde::de::Error::custom)?;
        T::try_from(bytes).map_err(|_| serde::de::Error::custom("wrong length"))
    }
}

/// Byte fields as base64 text.
mod based {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
