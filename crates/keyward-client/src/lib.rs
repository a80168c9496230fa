//! Blocking client of the LocalAPI.
//!
//! Finds the broker, checks that folder and server are the user's own before it sends a byte, starts the broker that
//! lies beside this program where none runs, and speaks HTTP/1.1 over the Unix socket. Small, since it stands in the
//! way of each `keyward run`: no runtime, no TLS. Never believes a server of another user, never looks for a broker in
//! `PATH`, never puts a secret into an error, and wipes what it has read and sent. Called by the command line and the
//! desktop.

mod events;
mod start;
mod trust;
mod wire;

pub use events::{Event, Events};
pub use keyward_api::Method;

use keyward_api::BODY_MAX_BYTES;
use keyward_api::place::Places;
use keyward_diag::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use wire::{Head, Wire, WireError};
use zeroize::Zeroizing;

/// Longest answer that is read whole, in bytes.
pub const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The broker answers earlier, also where a person has to decide.
const ANSWER_TIME: Duration = Duration::from_secs(160);
/// From the head of a request to the broker's leave to send the body.
const CONTINUE_TIME: Duration = Duration::from_secs(20);
/// Times that a request is sent anew when the broker ended before it had taken it.
const TRIES: usize = 3;

/// Whether a broker may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Start one where none runs.
    IfNeeded,
    /// Only talk to one that runs.
    Never,
}

/// A connection to the broker, made anew when it is lost between two requests.
///
/// What a person has proven on a connection ends with it: see [`Client::is_connected`].
#[derive(Debug)]
pub struct Client {
    places: Places,
    start: Start,
    wire: Option<Wire>,
}

/// An answer with a status of 200 to 299; any other is a [`Fault`].
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// At most [`ANSWER_MAX_BYTES`]; may hold secrets, wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// Reads the body as JSON. Secrets stay safe only in a type that wipes itself.
    ///
    /// # Errors
    /// [`Code::BrokerVersion`] when it is not what this client expects; the body is never quoted.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        // Nothing is read as `null`, so that an answer without a body is `()`.
        let body: &[u8] = if self.body.is_empty() { b"null" } else { &self.body };
        serde_json::from_slice(body).map_err(|e| {
            Fault::new(Code::BrokerVersion).cause(format!(
                "the answer is not of the expected form (line {}, column {})",
                e.line(),
                e.column()
            ))
        })
    }
}

impl Client {
    /// Connects to the broker of `places`, and starts it where none runs and `start` allows.
    ///
    /// # Errors
    /// [`Code::BrokerSocket`] when folder or server are not ours, [`Code::BrokerUnreachable`], [`Code::BrokerStart`],
    /// or the fault that kept the broker from starting.
    pub fn connect(places: &Places, start: Start) -> Result<Self, Fault> {
        let wire = start::connect(places, start)?;
        Ok(Self { places: places.clone(), start, wire: Some(wire) })
    }

    /// Whether the connection still stands. The next request makes a new one if not, on which nothing has been proven.
    pub fn is_connected(&mut self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_open)
    }

    /// One request and its answer.
    ///
    /// Sent anew when the broker ended before it had taken it, and for `GET` also after. A body is sent once the broker
    /// has read the facts of this process.
    ///
    /// # Errors
    /// The fault that the broker answered; [`Code::BrokerUnreachable`] when it ended or took too long.
    pub fn call(&mut self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Response, Fault> {
        self.send(method, path, body, || {})
    }

    /// As [`Client::call`] with a body, and runs `before_body` once the broker has read the facts of this process and
    /// before the body leaves: the place to become non-dumpable, which hides those facts from later reads.
    ///
    /// # Errors
    /// Those of [`Client::call`]. `before_body` has not run if the broker refused by the head alone.
    pub fn call_once_facts_are_taken(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
        before_body: impl FnOnce(),
    ) -> Result<Response, Fault> {
        self.send(method, path, Some(body), before_body)
    }

    /// `GET`.
    ///
    /// # Errors
    /// Those of [`Client::call`] and [`Response::json`].
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Fault> {
        self.call(Method::Get, path, None)?.json()
    }

    /// `POST` of a JSON document. `()` as answer stands for none.
    ///
    /// # Errors
    /// Those of [`Client::call`] and [`Response::json`]; [`Code::RequestTooLarge`].
    pub fn post<B: Serialize + ?Sized, T: DeserializeOwned>(&mut self, path: &str, body: &B) -> Result<T, Fault> {
        self.call(Method::Post, path, Some(&document(body)?))?.json()
    }

    /// `PUT` of a JSON document. `()` as answer stands for none.
    ///
    /// # Errors
    /// Those of [`Client::post`].
    pub fn put<B: Serialize + ?Sized, T: DeserializeOwned>(&mut self, path: &str, body: &B) -> Result<T, Fault> {
        self.call(Method::Put, path, Some(&document(body)?))?.json()
    }

    /// `DELETE`. `()` as answer stands for none.
    ///
    /// # Errors
    /// Those of [`Client::call`] and [`Response::json`].
    pub fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Fault> {
        self.call(Method::Delete, path, None)?.json()
    }

    /// A long answer piece by piece, as `POST` with a body or `GET` without; `each` gets the pieces as they come.
    ///
    /// # Errors
    /// Those of [`Client::call`] and of `each`, which ends it.
    pub fn stream(
        mut self,
        path: &str,
        body: Option<&[u8]>,
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let method = if body.is_some() { Method::Post } else { Method::Get };
        let (mut wire, head) = self.open(method, path, body, &[], || {})?;
        let mut reader = wire::Body::new(&head);
        while let Some(piece) = reader.next(&mut wire, Some(ANSWER_TIME)).map_err(|e| e.fault())? {
            each(piece)?;
        }
        Ok(())
    }

    /// Follows `/v1/events`, from after the event `after` on or from now on. Reconnects by itself.
    pub fn events(self, after: Option<&str>) -> Events {
        Events::new(self, after)
    }

    /// As [`Client::events`], and ends when the connection is lost instead of reconnecting, for a caller that shows the loss at
    /// once.
    pub fn events_until_lost(self, after: Option<&str>) -> Events {
        Events::until_lost(self, after)
    }

    fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        before_body: impl FnOnce(),
    ) -> Result<Response, Fault> {
        let (mut wire, head) = self.open(method, path, body, &[], before_body)?;
        let body = wire::Body::new(&head).all(&mut wire, Instant::now() + ANSWER_TIME).map_err(|e| e.fault())?;
        if !head.closes {
            self.wire = Some(wire);
        }
        Ok(Response { status: head.status, body })
    }

    /// Sends a request and reads the head of its answer. A fault is read whole and returned as the error.
    fn open(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        fields: &[(&str, &str)],
        before_body: impl FnOnce(),
    ) -> Result<(Wire, Head), Fault> {
        if body.is_some_and(|b| b.len() > BODY_MAX_BYTES) {
            return Err(Code::RequestTooLarge.into());
        }
        // A request without content gets no leave to send it.
        let body = body.filter(|b| !b.is_empty());
        let mut tries = 0;
        let (mut wire, early) = loop {
            tries += 1;
            let mut wire = match self.wire.take().filter(Wire::is_open) {
                Some(wire) => wire,
                None => start::connect(&self.places, self.start)?,
            };
            let sent = wire.ask(method, path, body.map(<[u8]>::len), fields).and_then(|()| match (body, method) {
                // The broker asks for the body once it has read the facts, or refuses by the head alone.
                (Some(_), _) => wire.head(Instant::now() + CONTINUE_TIME).map(Some),
                (None, Method::Get) => wire.head(Instant::now() + ANSWER_TIME).map(Some),
                (None, Method::Post | Method::Put | Method::Delete) => Ok(None),
            });
            match sent {
                Ok(head) => break (wire, head),
                Err(WireError::Lost) if tries < TRIES => {}
                Err(e) => return Err(e.fault()),
            }
        };
        let mut whole = body.is_none();
        let head = match (body, early) {
            (Some(body), Some(head)) if head.status == 100 => {
                whole = true;
                before_body();
                wire.send(body).and_then(|()| wire.head(Instant::now() + ANSWER_TIME)).map_err(|e| e.fault())?
            }
            (_, Some(head)) => head,
            (_, None) => wire.head(Instant::now() + ANSWER_TIME).map_err(|e| e.fault())?,
        };
        if (200..300).contains(&head.status) && whole {
            return Ok((wire, head));
        }
        let body = wire::Body::new(&head).all(&mut wire, Instant::now() + CONTINUE_TIME).map_err(|e| e.fault())?;
        if whole && !head.closes {
            self.wire = Some(wire);
        }
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            Fault::new(Code::BrokerVersion).cause(format!("the broker answered {} in other words", head.status))
        }))
    }
}

/// The JSON document of a request, written into room that is large enough from the start: a buffer that grows would
/// leave unwiped copies behind.
///
/// # Errors
/// [`Code::RequestTooLarge`].
pub fn document<B: Serialize + ?Sized>(body: &B) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut room = Zeroizing::new(vec![0; BODY_MAX_BYTES]);
    let mut rest = room.as_mut_slice();
    match serde_json::to_writer(&mut rest, body) {
        Ok(()) => {}
        Err(e) if e.is_io() => return Err(Code::RequestTooLarge.into()),
        Err(_) => return Err(Fault::new(Code::Internal).cause("the request cannot be written as JSON")),
    }
    let left = rest.len();
    room.truncate(BODY_MAX_BYTES - left);
    Ok(room)
}
