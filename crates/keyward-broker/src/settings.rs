//! The settings that clients show and change: what stands in `config.toml`.

use crate::broker::{Broker, entry_of};
use crate::config::Config;
use crate::peer::Peer;
use crate::platform::now;
use keyward_api::{SettingsMsg, SettingsPutRequest};
use keyward_core::audit::Kind;
use keyward_diag::{Code, Fault};
use std::time::Duration;

impl Broker {
    /// The settings. Needs no vault.
    pub(crate) async fn settings(&self) -> SettingsMsg {
        SettingsMsg { auto_lock_s: self.state().await.config.auto_lock.as_secs() }
    }

    /// Changes the settings, in the file and at once; recorded before.
    pub(crate) async fn settings_put(&self, peer: &Peer, request: SettingsPutRequest) -> Result<(), Fault> {
        let config = Config { auto_lock: Duration::from_secs(request.auto_lock_s) };
        config.check().map_err(|cause| Fault::new(Code::RequestInvalid).cause(cause))?;
        self.prove(request.proof).await?;
        let mut state = self.state_for_request().await?;
        let at = now();
        let former = state.config.auto_lock.as_secs();
        let open = self.unlocked(&mut state)?;
        open.last_action = at.boot;
        let staged = config.stage(&self.places.config)?;
        let draft = entry_of(Kind::SettingsChanged, at, peer)
            .detail("auto_lock_s", request.auto_lock_s)
            .detail("former_auto_lock_s", former);
        open.commit(self, Vec::new(), vec![draft]).await?;
        staged.publish()?;
        state.config = config;
        self.wake.notify_one();
        Ok(())
    }
}
