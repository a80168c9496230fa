//! What happened, for clients that watch: a bounded list of events, each with a number, which a client can take up again.
//!
//! An event names ids and states and never a secret. A client that comes back after the list has moved on is told so by a
//! `reset` event and reads the state anew; no event is dropped silently.
//!
//! | Event | Data |
//! |---|---|
//! | `vault` | `state`: `unlocked`, `locked`, `broken` |
//! | `run` | `run`, `state`: `starting`, `started`, `ended` |
//! | `lease` | `lease`, `run`, `profile`, `state`: `renewed` (with `pid`), `renew_failed` (with `code`), `lapsed`, `expired`, `revoked`, `released` |
//! | `use` | `lease`, `run`, `profile`, `uses` so far, `at` of the last; at most one a second for each lease |
//! | `exchange` | `profile`, `ok` |
//! | `profile` | `name`, `state`: `added`, `changed`, `removed` |
//! | `launcher` | `name`, `state`: `added`, `changed`, `removed`, `launched` |
//! | `approval` | `id`, `state`: `open` (with `merged` when another request joins it), `allowed`, `denied`, `unanswered`, `withdrawn` |
//! | `grant` | `id`, `state`: `added`, `changed`, `used`, `revoked`, `expired` |
//! | `settings` | nothing |
//! | `audit` | `seq` of the newest entry |

use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

const KEPT: usize = 1024;

/// The list.
pub(crate) struct Events {
    list: Mutex<List>,
    newest: watch::Sender<u64>,
    /// Tells one broker's numbers from another's.
    generation: String,
}

struct List {
    next: u64,
    events: VecDeque<(u64, Arc<str>)>,
}

impl Events {
    /// Makes an empty list; `generation` differs from broker to broker.
    pub(crate) fn new(generation: String) -> Self {
        Self { list: Mutex::new(List { next: 1, events: VecDeque::new() }), newest: watch::Sender::new(0), generation }
    }

    /// Adds an event.
    pub(crate) fn publish(&self, kind: &str, data: &Value) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let number = list.next;
        list.next += 1;
        let text = format!("id: {}-{number}\nevent: {kind}\ndata: {data}\n\n", self.generation);
        list.events.push_back((number, text.into()));
        if list.events.len() > KEPT {
            list.events.pop_front();
        }
        drop(list);
        self.newest.send_replace(number);
    }

    /// Where a client starts: after the event that it saw last, or at the end.
    ///
    /// The second part is true when events were missed, because the list has moved on or the broker is another one.
    pub(crate) fn start(&self, last_seen: Option<&str>) -> (u64, bool) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let end = list.next - 1;
        let Some(seen) = last_seen else { return (end, false) };
        let number = seen.strip_prefix(&self.generation).and_then(|n| n.strip_prefix('-')).and_then(|n| n.parse().ok());
        let oldest = list.events.front().map_or(list.next, |(n, _)| *n);
        match number {
            Some(number) if number <= end && number + 1 >= oldest => (number, false),
            _ => (end, true),
        }
    }

    /// The events after number `after`, and the number of the last of them; waits for one.
    pub(crate) async fn after(&self, after: u64) -> (u64, String) {
        let mut newest = self.newest.subscribe();
        // An error means that the list is gone, and then nobody waits on it.
        let _ = newest.wait_for(|n| *n > after).await;
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = list.events.front().map_or(list.next, |(n, _)| *n);
        if oldest > after + 1 {
            return (list.next - 1, self.reset_at(list.next - 1));
        }
        let text = list.events.iter().filter(|(n, _)| *n > after).map(|(_, t)| t.as_ref()).collect();
        (list.next - 1, text)
    }

    /// The event that says: read the state anew.
    pub(crate) fn reset(&self) -> String {
        let end = self.list.lock().unwrap_or_else(PoisonError::into_inner).next - 1;
        self.reset_at(end)
    }

    fn reset_at(&self, end: u64) -> String {
        format!("id: {}-{end}\nevent: reset\ndata: {{}}\n\n", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_client_takes_up_where_it_left() {
        let events = Events::new("g".to_owned());
        events.publish("run", &json!({"run": "1"}));
        events.publish("run", &json!({"run": "2"}));
        assert_eq!(events.start(None), (2, false));
        assert_eq!(events.start(Some("g-1")), (1, false));
        let (last, text) = events.after(1).await;
        assert_eq!((last, text.as_str()), (2, "id: g-2\nevent: run\ndata: {\"run\":\"2\"}\n\n"));
    }

    #[tokio::test]
    async fn a_client_that_missed_events_is_told() {
        let events = Events::new("g".to_owned());
        for n in 0..2_000 {
            events.publish("run", &json!(n));
        }
        assert_eq!(events.start(Some("g-3")), (2_000, true));
        assert_eq!(events.start(Some("h-1999")), (2_000, true));
        assert_eq!(events.start(Some("g-9999")), (2_000, true));
        assert_eq!(events.start(Some("g-1999")), (1_999, false));
        assert!(events.after(3).await.1.contains("event: reset"));
    }
}
