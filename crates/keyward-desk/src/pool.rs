//! A few connections to the broker, shared by many threads.
//!
//! Each call has one connection to itself, so that a slow one (an exchange with an issuer) keeps none waiting. Never starts a
//! broker unless told to. Called by the commands.

use keyward_api::place::Places;
use keyward_client::{Client, Start};
use keyward_diag::Fault;
use std::sync::{Condvar, Mutex, PoisonError};

/// Connections at most; the broker takes 16 of one process, and the stream of events, an export and what takes away are
/// others.
const OPEN_MAX: usize = 10;
/// Connections that are kept for later.
const IDLE_MAX: usize = 3;

/// The connections.
pub(crate) struct Pool {
    places: Places,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Client>,
    open: usize,
}

impl Pool {
    pub(crate) fn new(places: Places) -> Self {
        Self { places, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Where the broker is.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Makes a call on a connection of its own; waits for one while all are taken.
    ///
    /// # Errors
    /// Those of the call; `broker.unreachable` when no broker runs.
    pub(crate) fn with<T>(&self, call: impl FnOnce(&mut Client) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut taken = self.take();
        let mut client = match taken.client.take() {
            Some(client) => client,
            None => Client::connect(&self.places, Start::Never)?,
        };
        let answer = call(&mut client);
        if client.is_connected() {
            taken.client = Some(client);
        }
        answer
    }

    /// As [`Pool::with`], on a connection beside the others: for what takes away, which waits for nothing else.
    ///
    /// # Errors
    /// As [`Pool::with`].
    pub(crate) fn at_once<T>(&self, call: impl FnOnce(&mut Client) -> Result<T, Fault>) -> Result<T, Fault> {
        call(&mut Client::connect(&self.places, Start::Never)?)
    }

    fn take(&self) -> Taken<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.open >= OPEN_MAX {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.open += 1;
        Taken { pool: self, client: state.idle.pop() }
    }
}

/// A place among the connections, given back on drop, also when a call panics.
struct Taken<'p> {
    pool: &'p Pool,
    client: Option<Client>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open -= 1;
        if state.idle.len() < IDLE_MAX {
            state.idle.extend(self.client.take());
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}
