//! What is measured. Floors are taken in turn with the figures that they belong to, so that both see the same machine.

use crate::Failure;
use crate::api::nanoseconds;
use crate::client::{Line, Place};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// Calls in a row on one connection before the next one has its turn.
const TURN: u64 = 100;
/// How long each side of a throughput has its turn.
const SLICE: Duration = Duration::from_secs(1);

/// Measures `what`, which `cargo xtask bench` knows.
pub(crate) async fn measure(what: &[&str]) -> Result<Value, Failure> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    match *what {
        ["latency", api, bare, calls] => latency(api, bare, number(calls)?).await,
        ["throughput", bare, connections, slices] => throughput(bare, number(connections)?, number(slices)?).await,
        ["events", api, bare, count, every_ms] => events(api, bare, number(count)?, number(every_ms)?).await,
        ["streams", count, events] => streams(number(count)?, number(events)?).await,
        ["steady", connections, per_second, seconds] => {
            steady(number(connections)?, number(per_second)?, number(seconds)?).await
        }
        ["refused"] => refused().await,
        ["connect", bare, at_once, count] => connect(bare, number(at_once)?, number(count)?).await,
        _ => Err("no such measurement".into()),
    }
}

/// The median time of a call on one connection: to the API, through the bare forwarder, through the gateway.
async fn latency(api: &str, bare: &str, calls: u64) -> Result<Value, Failure> {
    let places = [Place::open(api), Place::open(bare), Place::gateway()?];
    let mut lines = Vec::new();
    for place in &places {
        let mut line = Line::to(place).await?;
        for _ in 0..TURN {
            line.call().await?;
        }
        lines.push((line, Vec::new()));
    }
    for _ in 0..calls.div_ceil(TURN) {
        for (line, times) in &mut lines {
            for _ in 0..TURN {
                let begin = Instant::now();
                line.call().await?;
                times.push(begin.elapsed());
            }
        }
    }
    let made = TURN + calls.div_ceil(TURN) * TURN;
    let mut medians = lines.into_iter().map(|(_, times)| microseconds(median(times)));
    Ok(json!({"api_us": medians.next(), "bare_us": medians.next(), "gateway_us": medians.next(), "made": made}))
}

/// Calls a second on so many connections: through the bare forwarder and through the gateway, in turns.
async fn throughput(bare: &str, connections: u64, slices: u64) -> Result<Value, Failure> {
    let mut sides = Vec::new();
    for place in [Place::open(bare), Place::gateway()?] {
        let mut lines = Vec::new();
        for _ in 0..connections {
            lines.push(Line::to(&place).await?);
        }
        sides.push((lines, Vec::new(), 0u64));
    }
    // The first turn of each side is for warming up.
    for slice in 0..=slices {
        for (lines, rates, made) in &mut sides {
            let (begin, mut tasks) = (Instant::now(), JoinSet::new());
            for mut line in lines.drain(..) {
                tasks.spawn(async move {
                    let mut calls = 0;
                    while begin.elapsed() < SLICE {
                        line.call().await?;
                        calls += 1;
                    }
                    Ok::<_, Failure>((line, calls))
                });
            }
            let mut calls = 0u32;
            while let Some(done) = tasks.join_next().await {
                let (line, by_one) = done??;
                lines.push(line);
                calls += by_one;
            }
            *made += u64::from(calls);
            if slice > 0 {
                rates.push(f64::from(calls) / begin.elapsed().as_secs_f64());
            }
        }
    }
    let made = sides.last().map(|(_, _, made)| *made);
    let mut rates = sides.into_iter().map(|(_, mut rates, _)| {
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    });
    Ok(json!({"bare_per_s": rates.next(), "gateway_per_s": rates.next(), "made": made}))
}

/// The delay of an event from its making to its arrival: from the API, through the bare forwarder, through the gateway. Each
/// has its turn with a short stream until it has had `count` events.
async fn events(api: &str, bare: &str, count: u64, every_ms: u64) -> Result<Value, Failure> {
    const EVENTS: u64 = 25;
    let mut sides = Vec::new();
    for place in [Place::open(api), Place::open(bare), Place::gateway()?] {
        let mut line = Line::to(&place).await?;
        line.call().await?;
        sides.push((line, Vec::new(), 0));
    }
    let turns = count.div_ceil(EVENTS);
    for id in 0..turns {
        for (line, delays, together) in &mut sides {
            let stream = line.events(id, EVENTS, every_ms).await?;
            if stream.came != EVENTS || stream.mixed != 0 {
                return Err("events were lost or mixed".into());
            }
            delays.extend(stream.delays.into_iter().map(Duration::from_nanos));
            *together += stream.together;
        }
    }
    let mut sides = sides.into_iter().map(|(_, delays, together)| (microseconds(median(delays)), together));
    let ((api, api_together), (bare, _), (gateway, together)) =
        (sides.next().unwrap_or_default(), sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
    Ok(json!({
        "api_us": api, "api_together": api_together, "bare_us": bare, "gateway_us": gateway, "gateway_together": together,
        "made": 1 + turns,
    }))
}

/// Streams at the same time, an event a second each.
async fn streams(count: u64, events: u64) -> Result<Value, Failure> {
    let (place, mut tasks) = (Place::gateway()?, JoinSet::new());
    for id in 0..count {
        let place = place.clone();
        tasks.spawn(async move { Line::to(&place).await?.events(id, events, 1000).await });
    }
    let (mut came, mut mixed, mut whole, mut why) = (0, 0, 0, None);
    while let Some(done) = tasks.join_next().await {
        match done? {
            Ok(stream) => {
                came += stream.came;
                mixed += stream.mixed;
                whole += u64::from(stream.came == events);
            }
            Err(e) => why = Some(e.to_string()),
        }
    }
    Ok(
        json!({"whole": whole, "events": came, "lost": count * events - came.min(count * events), "mixed": mixed, "why": why}),
    )
}

/// Calls at a rate, whatever the answers take: a connection that is late makes its calls up.
async fn steady(connections: u64, per_second: u64, seconds: u64) -> Result<Value, Failure> {
    let place = Place::gateway()?;
    let mut lines = Vec::new();
    for _ in 0..connections {
        let mut line = Line::to(&place).await?;
        line.call().await?;
        lines.push(line);
    }
    let (begin, each) = (tokio::time::Instant::now(), Duration::from_secs(1) / u32::try_from(per_second)?);
    let mut tasks = JoinSet::new();
    for (first, mut line) in (0..).zip(lines) {
        let place = place.clone();
        tasks.spawn(async move {
            let (mut failed, mut longest, mut why) = (0u64, Duration::ZERO, None);
            let mut made = 0u64;
            for n in (first..per_second * seconds).step_by(usize::try_from(connections)?) {
                sleep_until(begin + each * u32::try_from(n)?).await;
                let called = Instant::now();
                made += 1;
                if let Err(e) = line.call().await {
                    failed += 1;
                    why = Some(e.to_string());
                    line = Line::to(&place).await?;
                }
                longest = longest.max(called.elapsed());
            }
            Ok::<_, Failure>((made, failed, longest, why))
        });
    }
    let (mut made, mut failed, mut longest, mut why) = (connections, 0, Duration::ZERO, None);
    while let Some(done) = tasks.join_next().await {
        let (calls, broken, took, reason) = done??;
        made += calls;
        failed += broken;
        longest = longest.max(took);
        why = why.or(reason);
    }
    let per_second = (made - connections) as f64 / begin.elapsed().as_secs_f64();
    Ok(json!({
        "made": made, "failed": failed, "per_second": per_second, "longest_ms": longest.as_secs_f64() * 1e3, "why": why,
    }))
}

/// Calls one after the other until one is refused: when that answer came, and how many were answered before. The first is told
/// on standard error, so that whoever takes the credential back does it under calls.
async fn refused() -> Result<Value, Failure> {
    let mut line = Line::to(&Place::gateway()?).await?;
    line.call().await?;
    writeln!(std::io::stderr(), "calls")?;
    let mut made = 1u64;
    loop {
        if let Err(e) = line.call().await {
            let at = nanoseconds();
            let why = e.to_string();
            // A connection that broke is another failure, and no refusal.
            return if why.contains("lease.revoked") { Ok(json!({"made": made, "at_ns": at})) } else { Err(e) };
        }
        made += 1;
    }
}

/// Connections a second, each with one call, so many at a time: to the bare forwarder and to the gateway, in turns.
async fn connect(bare: &str, at_once: u64, count: u64) -> Result<Value, Failure> {
    const TURNS: u64 = 4;
    let mut sides = [(Place::open(bare), Duration::ZERO), (Place::gateway()?, Duration::ZERO)];
    for (place, _) in &sides {
        Line::to(place).await?.call().await?;
    }
    let each = count / TURNS / at_once;
    for _ in 0..TURNS {
        for (place, took) in &mut sides {
            let (begin, mut tasks) = (Instant::now(), JoinSet::new());
            for _ in 0..at_once {
                let place = place.clone();
                tasks.spawn(async move {
                    for _ in 0..each {
                        Line::to(&place).await?.call().await?;
                    }
                    Ok::<_, Failure>(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            *took += begin.elapsed();
        }
    }
    let made = each * at_once * TURNS;
    let [bare, gateway] = sides.map(|(_, took)| made as f64 / took.as_secs_f64());
    // One more was made to warm up.
    Ok(json!({"made": made + 1, "bare_per_s": bare, "gateway_per_s": gateway}))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
