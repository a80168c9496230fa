//! The worker: the process that serves.
//!
//! Puts the parts in their order: descriptors from the parent, folders, log, runtime, broker. Never decides anything
//! about a request. Called by `main`.

use super::supervise::Inherited;
use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until SIGTERM, SIGINT, SIGHUP or a client asks to stop.
///
/// # Errors
/// A fault before it serves is also said to the parent, which passes it on to the starter.
pub(crate) fn run() -> Result<(), Fault> {
    let places = Places::current()?;
    let Inherited { listener, gateway, mut word, lock: _lock } = Inherited::take(&places)?;
    let served = start(&places).and_then(|runtime| {
        let ready = || {
            word.ready();
            tracing::info!(target: "keyward::worker", pid = std::process::id(), "serving");
        };
        let served = runtime.block_on(async {
            // Taken before anything is opened, so that a stop during the start is not lost.
            let mut stop = Stop::new().map_err(|e| start_fault(&e))?;
            keyward_broker::run(places, listener, gateway, ready, async move { stop.asked().await }).await
        });
        // A file system or keyring that does not answer must not keep a stopped broker alive.
        runtime.shutdown_background();
        served
    });
    match &served {
        Ok(()) => tracing::info!(target: "keyward::worker", "stopped"),
        Err(fault) => {
            tracing::error!(target: "keyward::worker", code = fault.code.name(), "ended");
            word.refuse(fault);
        }
    }
    served
}

fn start(places: &Places) -> Result<Runtime, Fault> {
    places.make_all()?;
    super::log::start(places, std::env::var("KEYWARD_LOG").ok().as_deref())?;
    Builder::new_current_thread().enable_all().build().map_err(|e| start_fault(&e))
}

/// The signals that ask to stop.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> io::Result<Self> {
        let [term, int, hup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self([term?, int?, hup?]))
    }

    async fn asked(&mut self) {
        let [term, int, hup] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

fn start_fault(e: &io::Error) -> Fault {
    Fault::new(Code::BrokerStart).cause(e)
}
