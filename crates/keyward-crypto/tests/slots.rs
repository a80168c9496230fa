//! The slot file: one named case per malformation, hostile bytes, and every way of opening.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use keyward_crypto::{KdfError, KdfParams, SLOTS_MAX_BYTES, SlotError, SlotFile, SlotKind, VaultKey};
use keyward_secret::{Key32, Passphrase, SecretText};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/slots.json")).unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

fn db_key(key: &VaultKey) -> String {
    key.derive_db().expose(|k| hex::encode(k))
}

fn name(error: SlotError) -> &'static str {
    match error {
        SlotError::Damaged(_) => "damaged",
        SlotError::Newer(_) => "newer",
        SlotError::Kdf(KdfError::Bounds(_)) => "kdf_bounds",
        SlotError::Tampered => "tampered",
        SlotError::WrongPassphrase => "wrong_passphrase",
        _ => "something else",
    }
}

#[test]
fn every_malformation_gives_its_own_error() {
    let vectors = vectors();
    let typed = passphrase(vectors["passphrase"].as_str().unwrap());
    for case in vectors["cases"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap().as_bytes();
        let got = match SlotFile::parse(file).and_then(|file| file.open_passphrase(&typed)) {
            Ok(key) if db_key(&key) == vectors["db_key"] => "opens",
            Ok(_) => "another key",
            Err(e) => name(e),
        };
        assert_eq!(got, case["expect"], "{}", case["name"]);
    }
}

fn good() -> SlotFile {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == "good").unwrap();
    SlotFile::parse(case["file"].as_str().unwrap().as_bytes()).unwrap()
}

#[test]
fn all_three_ways_give_the_same_key_and_wrong_ones_give_their_own_errors() {
    let (vectors, file) = (vectors(), good());
    let keyring = |text: &str| Key32::try_make(|k| hex::decode_to_slice(text, k)).unwrap();
    let identity = |text: &str| SecretText::new(text.to_owned()).unwrap();
    let by_keyring = file.open_keyring(&keyring(vectors["keyring"].as_str().unwrap())).unwrap();
    let by_identity = file.open_recovery(&identity(vectors["identity"].as_str().unwrap())).unwrap();
    assert_eq!(db_key(&by_keyring), vectors["db_key"].as_str().unwrap());
    assert_eq!(db_key(&by_identity), vectors["db_key"].as_str().unwrap());
    assert_eq!(file.open_keyring(&keyring(&"00".repeat(32))).unwrap_err(), SlotError::WrongKeyringKey);
    let another = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    for bad in ["x", "AGE-SECRET-KEY-1", another] {
        assert_eq!(file.open_recovery(&identity(bad)).unwrap_err(), SlotError::WrongRecovery, "{bad}");
    }
    assert_eq!(file.epoch(), 3);
    assert_eq!(file.kdf(), KdfParams::FLOOR);
}

#[test]
fn slots_are_added_removed_and_rewrapped_and_each_file_verifies() {
    let (key, typed) = (VaultKey::make().unwrap(), passphrase("first"));
    let mut file = SlotFile::create([9; 16], &key, &typed, KdfParams::FLOOR).unwrap();
    let keyring = file.add_keyring(&key).unwrap();
    let identity = file.add_recovery(&key).unwrap();
    assert!(identity.expose(|t| t.starts_with("AGE-SECRET-KEY-1")));
    assert_eq!(file.add_keyring(&key).unwrap_err(), SlotError::Exists(SlotKind::Keyring));
    assert_eq!(file.add_recovery(&key).unwrap_err(), SlotError::Exists(SlotKind::Recovery));
    file = SlotFile::parse(&file.to_bytes()).unwrap();
    assert_eq!(db_key(&file.open_keyring(&keyring).unwrap()), db_key(&key));
    assert_eq!(db_key(&file.open_recovery(&identity).unwrap()), db_key(&key));

    let other = VaultKey::make().unwrap();
    assert_eq!(file.clone().with_epoch(&other, 9).unwrap_err(), SlotError::Tampered, "another key cannot re-seal it");
    assert_eq!(file.remove(&other, "keyring").unwrap_err(), SlotError::Tampered);
    assert_eq!(file.remove(&key, "passphrase").unwrap_err(), SlotError::Needed);
    assert_eq!(file.remove(&key, "0011223344556677").unwrap_err(), SlotError::Unknown);
    let id = file.list()[1].id.clone();
    assert_eq!(file.remove(&key, &id).unwrap().kind, SlotKind::Keyring);
    assert_eq!(file.open_keyring(&keyring).unwrap_err(), SlotError::Unknown);

    let new = VaultKey::make().unwrap();
    let rekeyed = file.rekey(&new, &passphrase("second"), KdfParams::FLOOR).unwrap();
    let rekeyed = SlotFile::parse(&rekeyed.to_bytes()).unwrap();
    assert_eq!(rekeyed.open_passphrase(&typed).unwrap_err(), SlotError::WrongPassphrase);
    assert_eq!(db_key(&rekeyed.open_passphrase(&passphrase("second")).unwrap()), db_key(&new));
    assert_eq!(db_key(&rekeyed.open_recovery(&identity).unwrap()), db_key(&new), "the same recovery key goes on");
    assert_eq!((rekeyed.vault_id(), rekeyed.epoch()), (file.vault_id(), file.epoch()));

    file.remove(&key, "recovery").unwrap();
    assert!(!file.has(SlotKind::Recovery));
    assert_eq!(file.open_recovery(&identity).unwrap_err(), SlotError::Unknown);
    let bare = file.rekey(&new, &passphrase("third"), KdfParams::FLOOR).unwrap();
    assert!(!bare.has(SlotKind::Recovery), "a recipient that was removed does not come back");
}

#[test]
fn debug_shows_no_wrapped_key() {
    let shown = format!("{:?}", good());
    assert!(shown.contains("epoch") && !shown.contains("1753c0f0"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn parsing_never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(SlotFile::parse(&bytes).is_err());
    }

    #[test]
    fn parsing_never_panics_on_a_damaged_file_and_takes_none_that_differs(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let whole = good().to_bytes();
        let mut bytes = whole.clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(file) = SlotFile::parse(&bytes) {
            prop_assert_eq!(file.to_bytes(), whole, "white space or the case of a digit at most");
        }
    }

    #[test]
    fn parsing_never_panics_on_json_of_the_right_shape(
        version in 0u32..3, epoch in any::<u64>(), kind in "passphrase|keyring|recovery|x",
        hex in "[0-9a-f]{0,160}", text in "\\PC{0,20}",
    ) {
        let file = serde_json::json!({
            "keyward": "slots", "version": version, "vault": hex, "epoch": epoch, "recipient": text, "mac": hex, "sum": hex,
            "slots": [{"kind": kind, "id": hex, "salt": hex, "kdf": {"m_kib": epoch, "t": 3, "p": 1}, "wrapped": hex, "age": text}],
        });
        prop_assert!(SlotFile::parse(file.to_string().as_bytes()).is_err());
    }
}

#[test]
fn the_bound_is_exact() {
    let mut bytes = good().to_bytes();
    bytes.resize(SLOTS_MAX_BYTES, b' ');
    assert!(SlotFile::parse(&bytes).is_ok());
    bytes.push(b' ');
    match SlotFile::parse(&bytes) {
        Err(SlotError::Damaged(_)) => {}
        other => panic!("{other:?}"),
    }
}
