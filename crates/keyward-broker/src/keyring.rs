//! The key of the keyring slot, in the operating system's keyring (Secret Service).
//!
//! One entry a vault: service `keyward`, user the vault's id. Calls block and are bounded: a keyring that asks its person
//! for something is given a minute.

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error};
use keyward_diag::{Code, Fault};
use keyward_secret::Key32;
use std::time::Duration;
use zbus_secret_service_keyring_store::Store;
use zeroize::Zeroize;

const SERVICE: &str = "keyward";
const PATIENCE: Duration = Duration::from_secs(60);

/// Stores the key of a vault; replaces one that is there.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`].
pub(crate) async fn store(vault: [u8; 16], key: Key32) -> Result<(), Fault> {
    // EXPOSE: the keyring is where this key is kept.
    call(move || entry(vault)?.set_secret(&key.expose(|b| zeroize::Zeroizing::new(b.to_vec())))).await
}

/// Reads the key of a vault.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`], [`Code::KeyringMissing`].
pub(crate) async fn load(vault: [u8; 16]) -> Result<Key32, Fault> {
    call(move || {
        let mut bytes = entry(vault)?.get_secret()?;
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

/// Removes the key of a vault; one that is not there is as good.
///
/// # Errors
/// [`Code::KeyringAbsent`], [`Code::KeyringLocked`].
pub(crate) async fn remove(vault: [u8; 16]) -> Result<(), Fault> {
    let gone = call(move || entry(vault)?.delete_credential()).await;
    gone.or_else(|fault| if fault.code == Code::KeyringMissing { Ok(()) } else { Err(fault) })
}

fn entry(vault: [u8; 16]) -> Result<Entry, Error> {
    Store::new()?.build(SERVICE, &hex::encode(vault), None)
}

async fn call<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await;
    match done {
        Err(_) => Err(Fault::new(Code::KeyringLocked).cause("it did not answer within a minute")),
        Ok(Err(_)) => Err(Fault::new(Code::Internal).cause("the keyring call broke off")),
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(fault(&error)),
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::NoEntry => Fault::new(Code::KeyringMissing),
        Error::NoStorageAccess(_) => Fault::new(Code::KeyringLocked),
        other => Fault::new(Code::KeyringAbsent).cause(other),
    }
}
