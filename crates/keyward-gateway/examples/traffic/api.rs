//! The API: a short answer, or a stream of events. It counts on each event's data to tell when it was made and whose it is.

use crate::Failure;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Interval, interval_at};

/// About as long as a short answer of a model.
const ANSWER: &[u8] = &[b' '; 1024];

/// Nanoseconds of the clock that all processes of the machine share (`CLOCK_MONOTONIC`).
pub(crate) fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Answers a call: `?id=N&events=N&every_ms=N` with so many events, else with a body of 1 KiB. A run token in the place of a
/// credential is answered with 401.
pub(crate) async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Events>>, Failure> {
    let (parts, body) = request.into_parts();
    body.collect().await?;
    let key = parts.headers.get("x-api-key").map_or(&[][..], HeaderValue::as_bytes);
    if key.is_empty() || key.starts_with(b"kwr_") {
        let mut refused = Response::new(Either::Left(Full::default()));
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refused);
    }
    let number = |name: &str| {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let Some(events) = number("events") else {
        let mut answer = Response::new(Either::Left(Full::new(Bytes::from_static(ANSWER))));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert("request-id", HeaderValue::from_static("req_011CVLpM2b7mFZ9sYd00"));
        return Ok(answer);
    };
    let every = Duration::from_millis(number("every_ms").unwrap_or(1).max(1));
    let events = Events {
        id: number("id").unwrap_or(0),
        next: 0,
        count: events,
        clock: interval_at(Instant::now() + every, every),
    };
    let mut answer = Response::new(Either::Right(events));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(answer)
}

/// A stream of events `{"id": …, "seq": …, "ns": …}`, one each time that the clock says so.
pub(crate) struct Events {
    id: u64,
    next: u64,
    count: u64,
    clock: Interval,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(context));
        let (id, seq) = (self.id, self.next);
        self.next += 1;
        let event = format!("event: tick\ndata: {{\"id\":{id},\"seq\":{seq},\"ns\":{}}}\n\n", nanoseconds());
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}
