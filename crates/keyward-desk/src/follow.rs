//! Follows the broker for ever: tells the host what happens, and shows it the state when that changes.
//!
//! Two threads. One holds the stream of events and tries again when it is lost; the other reads the state after a change, and
//! at the one time that is due. Neither wakes while nothing happens and a broker runs. Both end with the [`Desk`]. Called by
//! the hosts.

use crate::desk::{Desk, connection};
use crate::look::next_due;
use crate::types::{DeskEvent, Overview};
use jiff::Timestamp;
use keyward_client::{Client, Events, Start};
use keyward_diag::{Code, Fault};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause before the first new try after a loss; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Changes that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(50);

/// Wakes the thread that reads the state.
#[derive(Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> Result<Self, Fault> {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        made.map(|fd| Self(Arc::new(fd))).map_err(|e| internal("eventfd", e))
    }

    pub(crate) fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn hush(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl Desk {
    /// Follows the events of the broker on a thread of its own; starts a broker where none runs, once. Each event, and
    /// each loss and return of the connection, goes to the host; a return is followed by `reset`.
    ///
    /// # Errors
    /// [`Code::Internal`] when there can be no thread.
    pub fn follow(self: &Arc<Self>) -> Result<(), Fault> {
        let weak = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn(move || follow(&weak));
        let thread = thread.map_err(|e| Fault::new(Code::Internal).cause(format!("a thread: {e}")))?;
        // A second follower would tell everything twice; there is one in each host.
        let _ = self.follower.set(thread.thread().clone());
        Ok(())
    }

    /// Calls `each` with the state on a thread of its own: at once, after each change in the broker or the settings, and when
    /// something is due. `None` stands for a broker that does not answer. Changes that come together are one call.
    ///
    /// # Errors
    /// [`Code::Internal`] when there can be no thread or timer.
    pub fn watch(self: &Arc<Self>, mut each: impl FnMut(Option<&Overview>) + Send + 'static) -> Result<(), Fault> {
        let (weak, bell) = (Arc::downgrade(self), self.bell.clone());
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|e| internal("timerfd", e))?;
        let watch = move || {
            loop {
                bell.hush();
                let Some(desk) = weak.upgrade() else { return };
                let overview = desk.overview().ok();
                drop(desk);
                each(overview.as_ref());
                set(&timer, next_due(overview.as_ref(), Timestamp::now()));
                std::thread::sleep(GATHER);
                wait(&bell, &timer);
            }
        };
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(watch);
        thread.map(drop).map_err(|e| Fault::new(Code::Internal).cause(format!("a thread: {e}")))
    }

    fn happened(&self, event: DeskEvent) {
        // An entry of the log alone changes nothing that the tray shows.
        if !matches!(&event, DeskEvent::Broker { name, .. } if name == "audit") {
            self.bell.ring();
        }
        let cards = matches!(&event, DeskEvent::Broker { name, .. } if name == "approval" || name == "reset");
        (self.tell)(event);
        if cards {
            self.look_for_cards();
        }
    }
}

fn follow(weak: &Weak<Desk>) {
    let (mut start, mut pause, mut told) = (Start::IfNeeded, PAUSE_MIN, None);
    while let Some(desk) = weak.upgrade() {
        let opened = Client::connect(desk.pool.places(), start).map(|c| c.events_until_lost(None)).and_then(open);
        start = Start::Never;
        let fault = match opened {
            Ok(events) => {
                desk.happened(DeskEvent::Connection(connection(Ok(()))));
                desk.happened(DeskEvent::Broker { name: "reset".to_owned(), data: json!({}) });
                drop(desk);
                (pause, told) = (PAUSE_MIN, None);
                match pass_on(weak, events) {
                    Some(fault) => fault,
                    None => return,
                }
            }
            Err(fault) => fault,
        };
        let Some(desk) = weak.upgrade() else { return };
        if told != Some(fault.code) {
            told = Some(fault.code);
            desk.happened(DeskEvent::Connection(connection(Err(fault))));
        }
        drop(desk);
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn open(mut events: Events) -> Result<Events, Fault> {
    events.open()?;
    Ok(events)
}

/// Passes events on until the connection is lost, and says how; `None` when the desk is gone.
fn pass_on(weak: &Weak<Desk>, events: Events) -> Option<Fault> {
    for event in events {
        match event {
            Ok(event) => {
                let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                weak.upgrade()?.happened(DeskEvent::Broker { name: event.name, data });
            }
            Err(fault) => return Some(fault),
        }
    }
    Some(Fault::new(Code::BrokerUnreachable).cause("the broker has ended"))
}

/// Lets the timer run out at `due`, or never. It also does when the clock of the system is set: what is due is told anew then.
fn set(timer: &OwnedFd, due: Option<Timestamp>) {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let at =
        due.map_or(zero, |due| Timespec { tv_sec: due.as_second().max(1), tv_nsec: due.subsec_nanosecond().into() });
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    // A kernel that refuses leaves the state as it is until the next change.
    let _ = timerfd_settime(timer, flags, &Itimerspec { it_interval: zero, it_value: at });
}

fn wait(bell: &Bell, timer: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(&*bell.0, PollFlags::IN), PollFd::new(timer, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            // The answer of the timer is of no interest: it may also say that the clock was set.
            Ok(_) | Err(_) => break,
        }
    }
    let _ = rustix::io::read(timer, &mut [0; 8]);
}

fn internal(what: &str, error: Errno) -> Fault {
    Fault::new(Code::Internal).cause(format!("{what}: {}", std::io::Error::from(error)))
}
