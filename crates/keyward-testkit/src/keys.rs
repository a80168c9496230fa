//! The keys of a vault, derived from its slot file and passphrase, so that a test knows what it must not find.

use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use keyward_crypto::{KdfParams, SlotFile, derive_from_passphrase};
use keyward_secret::{Key32, Passphrase};
use serde_json::Value;
use sha2::Sha512;
use sha2::block_api::compress256;
use std::path::Path;

/// A key, and what it is.
pub struct FoundKey {
    /// Which key.
    pub name: &'static str,
    /// Its bytes, as they lie in memory.
    pub bytes: Vec<u8>,
}

/// The vault key, the key that wraps it, all keys derived from it, the states of HMAC-SHA256 that equal a key (RFC 2104),
/// and the key with which SQLCipher authenticates pages. `home` is the folder of `KEYWARD_HOME`.
#[track_caller]
pub fn keys(home: &Path, passphrase: &str) -> Vec<FoundKey> {
    derive(home, passphrase).unwrap_or_else(|| panic!("no key comes out of {}", home.display()))
}

fn derive(home: &Path, passphrase: &str) -> Option<Vec<FoundKey>> {
    let bytes = std::fs::read(home.join("data/vault.slots")).ok()?;
    let slots = SlotFile::parse(&bytes).ok()?;
    let passphrase = Passphrase::new(passphrase.into()).ok()?;
    let vault = slots.open_passphrase(&passphrase).ok()?;
    let file: Value = serde_json::from_slice(&bytes).ok()?;
    let slot = file["slots"].as_array()?.iter().find(|s| s["kind"] == "passphrase")?;
    let field = |name: &str| hex::decode(slot[name].as_str()?).ok();
    let KdfParams { m_kib, t, p } = slots.kdf();
    let wrapping = derive_from_passphrase(&passphrase, &field("salt")?, &slots.kdf()).ok()?;
    let aad = [
        &b"keyward/slot/v1passphrase\0"[..],
        &field("id")?,
        &slots.vault_id(),
        &m_kib.to_be_bytes(),
        &t.to_be_bytes(),
        &p.to_be_bytes(),
    ]
    .concat();
    let wrapped = field("wrapped")?;
    let (nonce, msg) = wrapped.split_first_chunk::<24>()?;
    // EXPOSE: a test needs the keys to search for them.
    let cipher = wrapping.expose(|k| XChaCha20Poly1305::new(<&Key>::from(k)));
    let vault_key = cipher.decrypt(<&XNonce>::from(nonce), Payload { msg, aad: &aad }).ok()?;
    let (db, seal, audit) = (shown(&vault.derive_db()), shown(&vault.derive_seal()), shown(&vault.derive_audit()));
    let (anchor, slots_key) = (shown(&vault.derive_anchor()), shown(&vault.derive_slots()));
    let salt = std::fs::read(home.join("data/vault.db")).ok()?;
    let pages = page_mac_key(&db, salt.first_chunk()?);
    let (audit_inner, audit_outer) = hmac_states(&audit);
    let (anchor_inner, anchor_outer) = hmac_states(&anchor);
    let named = [
        ("vault key", vault_key),
        ("wrapping key", shown(&wrapping)),
        ("database key", db),
        ("page MAC key", pages),
        ("seal key", seal),
        ("audit key", audit),
        ("audit HMAC, inner", audit_inner),
        ("audit HMAC, outer", audit_outer),
        ("anchor key", anchor),
        ("anchor HMAC, inner", anchor_inner),
        ("anchor HMAC, outer", anchor_outer),
        ("slots key", slots_key),
    ];
    Some(named.into_iter().map(|(name, bytes)| FoundKey { name, bytes }).collect())
}

fn shown(key: &Key32) -> Vec<u8> {
    // EXPOSE: a test needs the keys to search for them.
    key.expose(|k| k.to_vec())
}

/// SHA-256 states after the padded key, in the form in which a program keeps them.
fn hmac_states(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let state = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        let mut state =
            [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
        compress256(&mut state, &[block]);
        state.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    };
    (state(0x36), state(0x5c))
}

/// SQLCipher 4: PBKDF2-HMAC-SHA512 (RFC 8018) of the raw key, 2 rounds, the salt of the file with each byte XOR 0x3a.
fn page_mac_key(db: &[u8], salt: &[u8; 16]) -> Vec<u8> {
    let round = |input: &[u8]| {
        let mac = Hmac::<Sha512>::new_from_slice(db).map(|mac| mac.chain_update(input).finalize().into_bytes());
        mac.map(|m| m.to_vec()).unwrap_or_default()
    };
    let salt = salt.map(|b| b ^ 0x3a);
    let first = round(&[&salt[..], &[0, 0, 0, 1]].concat());
    let second = round(&first);
    first.iter().zip(&second).map(|(a, b)| a ^ b).take(32).collect()
}
