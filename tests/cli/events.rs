//! The event stream, byte by byte: nothing is missed over a lost connection, and what cannot be known is told.

use keyward_testkit::{Home, Wire};

/// A stream, from after `last` if given.
struct Stream {
    wire: Wire,
    waiting: Vec<[String; 3]>,
    /// Id of the last event.
    last: String,
}

impl Stream {
    fn open(home: &Home, last: Option<&str>) -> Self {
        let mut wire = Wire::open(&home.socket());
        let field = last.map(|id| format!("last-event-id: {id}"));
        wire.send("GET", "/v1/events", field.as_deref().as_slice(), b"");
        let head = wire.head().unwrap();
        assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
        Self { wire, waiting: Vec::new(), last: String::new() }
    }

    /// The next event of a kind; those of other kinds are passed over.
    fn next(&mut self, kind: &str) -> [String; 3] {
        loop {
            let event = self.wire.event(&mut self.waiting).unwrap();
            self.last.clone_from(&event[0]);
            if event[1] == kind {
                return event;
            }
        }
    }
}

/// The place of an event in its broker's list.
fn number(event: &[String; 3]) -> u64 {
    event[0].rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn a_lost_connection_is_taken_up_where_it_ended() {
    let home = Home::with_vault();
    let mut stream = Stream::open(&home, None);
    assert_eq!(stream.wire.piece().as_deref(), Some(&b": connected\n\n"[..]));
    home.secret("a", "s3cret");
    let first = stream.next("audit");
    assert!(first[2].starts_with("{\"seq\":"), "{first:?}");
    drop(stream);
    home.secret("b", "s3cret");
    home.secret("c", "s3cret");
    let mut again = Stream::open(&home, Some(&first[0]));
    let missed = [again.next("audit"), again.next("audit")];
    assert_eq!(missed.each_ref().map(number), [number(&first) + 1, number(&first) + 2]);
    home.secret("d", "s3cret");
    assert_eq!(number(&again.next("audit")), number(&first) + 3, "and it goes on");
    // Twice from the same place gives the same twice.
    let mut third = Stream::open(&home, Some(&first[0]));
    assert_eq!(third.next("audit"), missed[0]);
    let mut fresh = Stream::open(&home, None);
    home.secret("e", "s3cret");
    assert_eq!(number(&fresh.next("audit")), number(&first) + 4, "without an id it starts at the end");
}

#[test]
fn events_tell_of_runs_leases_and_the_vault_and_of_no_secret() {
    let home = Home::with_vault();
    home.static_profile("p", "s3cret", "T");
    let mut stream = Stream::open(&home, None);
    let run = crate::waiting_run(&home, "p");
    let mut seen = String::new();
    let mut expect = |stream: &mut Stream, kind: &str, words: &str| {
        let event = stream.next(kind);
        assert!(event[2].contains(words), "{kind} {words}: {event:?}");
        seen.push_str(&event[2]);
    };
    expect(&mut stream, "run", "\"state\":\"starting\"");
    expect(&mut stream, "run", "\"state\":\"started\"");
    home.keyward(&["revoke", "p"]).exits(0);
    expect(&mut stream, "lease", "\"state\":\"revoked\"");
    run.end();
    expect(&mut stream, "run", "\"state\":\"ended\"");
    home.keyward(&["lock"]).exits(0);
    // A lock closes every connection but the one that asked for it; the place in the list stays good.
    while stream.wire.piece().is_some() {}
    let mut stream = Stream::open(&home, Some(&stream.last));
    expect(&mut stream, "vault", "\"state\":\"locked\"");
    home.unlock();
    expect(&mut stream, "vault", "\"state\":\"unlocked\"");
    assert!(!seen.contains("s3cret"));
}

#[test]
fn after_a_restart_or_with_an_id_of_nobody_it_says_reset() {
    let home = Home::with_vault();
    let mut stream = Stream::open(&home, None);
    home.secret("a", "s3cret");
    let last = stream.next("audit");
    home.keyward(&["broker", "restart"]).exits(0);
    while stream.wire.piece().is_some() {}
    let mut after = Stream::open(&home, Some(&last[0]));
    let reset = after.wire.event(&mut after.waiting).unwrap();
    assert_eq!((reset[1].as_str(), reset[2].as_str()), ("reset", "{}"));
    assert_ne!(reset[0].split('-').next(), last[0].split('-').next(), "another broker counts anew");
    home.unlock();
    assert!(number(&after.next("vault")) > number(&reset));
    let mut resumed = Stream::open(&home, Some(&reset[0]));
    assert_eq!(resumed.next("audit")[1], "audit", "the id of the reset is a place to go on from");
    home.crash_broker();
    keyward_testkit::wait_for("the next worker", || home.broker_pid().is_some());
    for id in [reset[0].as_str(), "0", "nonsense", "-", "1-99999999999999999999", &"9".repeat(500)] {
        let mut stream = Stream::open(&home, Some(id));
        assert_eq!(stream.wire.event(&mut stream.waiting).unwrap()[1], "reset", "{id}");
    }
}
