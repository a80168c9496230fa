//! The one connection on which a person proves to be there.
//!
//! The broker takes its calls as those of the operator from the proof on, until the connection ends, the vault locks, or
//! nothing was asked on it for a while; so it is kept, apart from the others, and carries nothing else. Whether it is still
//! proven is asked of the broker before each use. Never proves anything by itself. Called by the commands.

use crate::desk::Desk;
use crate::prompt::Ask;
use keyward_api::{MeAnswer, OperatorAnswer, RoleMsg};
use keyward_client::{Client, Start};
use keyward_diag::{Code, Fault};
use std::sync::{Mutex, PoisonError};

/// The connection.
#[derive(Default)]
pub(crate) struct Operator(Mutex<Option<Client>>);

impl Desk {
    /// Makes a call on the operator's connection, whether something was proven on it or not. One at a time: only what is
    /// answered at once.
    pub(crate) fn on_operators<T>(&self, call: impl FnOnce(&mut Client) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut kept = self.operator.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::connect(self.pool.places(), Start::Never)?,
        };
        let answer = call(&mut client);
        if client.is_connected() {
            *kept = Some(client);
        }
        answer
    }

    /// Makes a call as the operator. Where nobody is, the person is asked for the passphrase first; `None` when they have
    /// closed that prompt.
    ///
    /// # Errors
    /// Those of the call; [`Code::PolicyDenied`] for a desktop that runs inside a run, before anything is asked.
    pub(crate) fn as_operator<T>(
        &self,
        ask: Ask,
        call: impl FnOnce(&mut Client) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let role = self.on_operators(|client| client.get::<MeAnswer>("/v1/me"))?.role;
        if role == RoleMsg::Inside {
            return Err(Fault::new(Code::PolicyDenied).cause("this desktop was started inside a run"));
        }
        if role != RoleMsg::Operator {
            let _turn = self.turn()?;
            let prove = |proof| self.on_operators(|client| client.post::<_, OperatorAnswer>("/v1/operator", &proof));
            if !self.proven(ask, |proof| prove(proof).map(drop))?.done {
                return Ok(None);
            }
        }
        self.on_operators(call).map(Some)
    }
}
