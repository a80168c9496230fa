//! The broker: the only process that holds keys and credentials.
//!
//! [`run`] is the composition root: it makes the state of a home, serves the LocalAPI and the gateway on the sockets that
//! the parent holds, and keeps time. A request goes one way: `route` (who may ask) → `runs`, `vault`, `records`, `launchers`,
//! `settings`, `review` (what is decided and recorded) → the answer. What no person stands behind goes through `want` (what is
//! asked), `grants` (what was allowed) and `approve` (whom to ask) first. A call of a child goes another way: the gateway →
//! `authority` → `gate`. Never trusts a client's word about who it is; never logs a name or a secret.

mod approve;
mod authority;
mod broker;
mod card;
mod config;
mod events;
mod fence;
mod files;
mod gate;
mod grants;
mod keyring;
mod launchers;
mod operator;
pub mod peer;
pub mod platform;
mod program;
mod project;
mod records;
mod renew;
mod review;
mod route;
mod runs;
pub mod server;
mod settings;
mod vault;
mod want;

use authority::Desk;
use broker::Broker;
use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use keyward_gateway::Gateway;
use route::Service;
use server::Connections;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Serves one home until `stop` resolves or a client asks for the stop; then takes everything back and wipes the keys.
///
/// `ready` is called once requests are answered.
///
/// # Errors
/// What keeps the broker from starting: the vault's folder in use or unsafe, settings that are not understood, a listener
/// that cannot be used.
pub async fn run(
    places: Places,
    listener: OwnedFd,
    gateway: TcpListener,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let start = |e: std::io::Error| Fault::new(Code::BrokerStart).cause(e);
    let connections = Connections::new();
    let socket = places.socket.clone();
    let port = gateway.local_addr().map_err(start)?.port();
    let broker = Broker::new(places, connections.clone(), port)?;
    let timer = platform::BootTimer::new().map_err(start)?;
    let clock = tokio::spawn(renew::clock(Arc::clone(&broker), timer));
    let scribe = tokio::spawn(authority::scribe(Arc::clone(&broker)));
    let archivist = tokio::spawn(renew::archive(Arc::clone(&broker)));
    let mut asked = broker.stop.subscribe();
    let stopping = async {
        tokio::select! {
            () = stop => {}
            _ = asked.wait_for(|s| *s) => {}
        }
        // From here on nobody connects.
        let _ = std::fs::remove_file(&socket);
    };
    ready();
    let calls = Gateway::new(Arc::new(Desk(Arc::clone(&broker)))).map_err(start)?;
    let (over, ended) = oneshot::channel::<()>();
    let calls = tokio::spawn(Arc::new(calls).serve(gateway, async { drop(ended.await) }));
    let served = server::serve(listener, Arc::new(Service(Arc::clone(&broker))), connections, stopping).await;
    clock.abort();
    scribe.abort();
    archivist.abort();
    // What is under way is cut by it, and its end recorded.
    broker.shut_down().await;
    drop(over);
    drop(calls.await);
    served.map_err(start)
}
