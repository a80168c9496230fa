//! What Keyward keeps in the operating system's keyring (Secret Service), for vaults with a keyring slot only.
//!
//! Two entries a vault under the service `keyward`: the key of the slot (user: the vault's id) and an anchor of the log
//! (user: `anchor` and the id). Calls block and are bounded: a keyring that asks its person for something is given a minute,
//! an anchor two seconds, since nobody waits for it. Called by the vault and the timer.

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error};
use keyward_diag::{Code, Fault};
use keyward_secret::Key32;
use std::time::Duration;
use zbus_secret_service_keyring_store::Store;
use zeroize::Zeroize;

const SERVICE: &str = "keyward";
const PATIENCE: Duration = Duration::from_secs(60);
const ANCHOR_PATIENCE: Duration = Duration::from_secs(2);

/// Stores the anchor of a vault.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`].
pub(crate) async fn store_anchor(vault: [u8; 16], anchor: Vec<u8>) -> Result<(), Fault> {
    call(ANCHOR_PATIENCE, move || entry(&anchor_user(vault))?.set_secret(&anchor)).await
}

/// Reads the anchor of a vault.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`], [`Code::KeyringMissing`].
pub(crate) async fn load_anchor(vault: [u8; 16]) -> Result<Vec<u8>, Fault> {
    call(ANCHOR_PATIENCE, move || entry(&anchor_user(vault))?.get_secret()).await
}

/// Stores the key of a vault; replaces one that is there.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`].
pub(crate) async fn store(vault: [u8; 16], key: Key32) -> Result<(), Fault> {
    // EXPOSE: the keyring is where this key is kept.
    call(PATIENCE, move || entry(&hex::encode(vault))?.set_secret(&key.expose(|b| zeroize::Zeroizing::new(b.to_vec()))))
        .await
}

/// Reads the key of a vault.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`], [`Code::KeyringMissing`].
pub(crate) async fn load(vault: [u8; 16]) -> Result<Key32, Fault> {
    call(PATIENCE, move || {
        let mut bytes = entry(&hex::encode(vault))?.get_secret()?;
        let key = Key32::try_make(|to| match bytes.len() {
            32 => {
                to.copy_from_slice(&bytes);
                Ok(())
            }
            _ => Err(Error::NoEntry),
        });
        bytes.zeroize();
        key
    })
    .await
}

/// Removes the key and the anchor of a vault; a key that is not there is as good.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`].
pub(crate) async fn remove(vault: [u8; 16]) -> Result<(), Fault> {
    let gone = call(PATIENCE, move || {
        // Without a slot the anchor is not kept fresh, so it goes as well.
        let _ = entry(&anchor_user(vault))?.delete_credential();
        entry(&hex::encode(vault))?.delete_credential()
    });
    gone.await.or_else(|fault| if fault.code == Code::KeyringMissing { Ok(()) } else { Err(fault) })
}

fn entry(user: &str) -> Result<Entry, Error> {
    Store::new()?.build(SERVICE, user, None)
}

fn anchor_user(vault: [u8; 16]) -> String {
    format!("anchor {}", hex::encode(vault))
}

async fn call<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::time::timeout(patience, tokio::task::spawn_blocking(work)).await;
    match done {
        Err(_) => Err(Fault::new(Code::KeyringLocked).cause("it did not answer in time")),
        Ok(Err(_)) => Err(Fault::new(Code::Internal).cause("the keyring call broke off")),
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(fault(&error)),
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::NoEntry => Fault::new(Code::KeyringMissing),
        Error::NoStorageAccess(_) => Fault::new(Code::KeyringLocked),
        // Its words are those of the bus, which help nobody here.
        Error::PlatformFailure(_) => {
            Fault::new(Code::KeyringAbsent).cause("nothing on the session bus answers as org.freedesktop.secrets")
        }
        other => Fault::new(Code::KeyringAbsent).cause(other),
    }
}
