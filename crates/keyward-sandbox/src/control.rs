//! The switches of a running sandbox, below `/sandbox/`.
//!
//! Only for requests with the header `x-keyward-sandbox: 1` and without `Origin`, so that no web page can reach them. Called
//! by [`crate::serve`].

use crate::answer::{Answer, Asked, take_text};
use crate::fault::{Armed, At, Fault};
use crate::journal::shown;
use crate::json;
use crate::jwt::{Alg, Key};
use crate::sandbox::{Refusals, Sandbox};
use crate::span::{LIFE_MAX, LIFE_MIN};
use hyper::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Largest body, in bytes.
pub(crate) const BODY_MAX_BYTES: usize = 32 * 1024;

/// Largest shift of a clock, in seconds: a year.
const SHIFT_MAX_S: i64 = 366 * 86_400;

/// Most events of a stream, and the longest time between two of them, in milliseconds.
const EVENTS_MAX: u32 = 100_000;
const PACE_MAX_MS: u64 = 60_000;

/// Where the fault `redirect` leads: counts the visit and gives a token that nothing accepts. Open to everybody.
pub(crate) fn trap(sandbox: &Sandbox) -> Result<Answer, String> {
    sandbox.state().counts.trapped += 1;
    let token = crate::sandbox::token()?;
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
    Ok(Answer::json(200, &body).because("trapped"))
}

/// Answers one request for a switch.
pub(crate) async fn turn(sandbox: &Arc<Sandbox>, asked: &Asked) -> Result<Answer, String> {
    if asked.header("x-keyward-sandbox") != Some("1") || asked.headers.contains_key("origin") {
        let message = "switches need the header x-keyward-sandbox: 1, and no Origin";
        return Ok(Answer::api_error(asked, 403, "permission_error", message, "control_header"));
    }
    match (&asked.method, asked.path.as_str()) {
        (&Method::GET, "/sandbox/stats") => return Ok(stats(sandbox)),
        (&Method::GET, "/sandbox/journal") => {
            let read = std::fs::read_to_string(sandbox.journal_file());
            return Ok(Answer::text(200, "application/x-ndjson", read.map_err(|e| format!("the journal: {e}"))?));
        }
        (&Method::POST, _) => {}
        _ => return Ok(Answer::api_error(asked, 404, "not_found_error", "no such switch", "path")),
    }
    let mut fields = match asked.body.as_deref() {
        Some([]) => Map::new(),
        Some(body) => match json::object(body) {
            Ok(fields) => fields,
            Err(e) => return Ok(wrong(asked, &e)),
        },
        None => return Ok(wrong(asked, "the body is too large")),
    };
    let done = match asked.path.as_str() {
        "/sandbox/fault" => fault(sandbox, &mut fields),
        "/sandbox/clock" => clock(sandbox, &mut fields),
        "/sandbox/refusals" => refusals(sandbox, &mut fields),
        "/sandbox/rule" => rule(sandbox, &mut fields),
        "/sandbox/issue" => match fields.remove("claims").unwrap_or_else(|| json!({})) {
            Value::Object(claims) if fields.is_empty() => {
                sandbox.write_token(&claims)?;
                Ok(())
            }
            Value::Object(_) => Ok(()),
            _ => Err("claims: it is not an object".into()),
        },
        "/sandbox/clear" => {
            sandbox.state().faults.clear();
            Ok(())
        }
        "/sandbox/revoke" => revoke(sandbox, &mut fields),
        "/sandbox/stream" => stream(sandbox, &mut fields),
        "/sandbox/beta" => beta(sandbox, &mut fields),
        "/sandbox/google-key" => {
            let key = tokio::task::spawn_blocking(|| Key::make(Alg::Rs256)).await.map_err(|e| e.to_string())??;
            sandbox.put_google_key(key)?;
            Ok(())
        }
        "/sandbox/rotate-keys" => {
            rotate_keys(sandbox).await?;
            Ok(())
        }
        _ => return Ok(Answer::api_error(asked, 404, "not_found_error", "no such switch", "path")),
    };
    // Whatever a switch did not take is no field of it.
    let done = done.and_then(|()| match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("{}: no such field", shown(name))),
    });
    Ok(match done {
        Ok(()) => Answer::json(200, &json!({"ok": true})),
        Err(message) => wrong(asked, &message),
    })
}

fn wrong(asked: &Asked, message: &str) -> Answer {
    Answer::api_error(asked, 400, "invalid_request_error", message, "control_field")
}

fn stats(sandbox: &Sandbox) -> Answer {
    let state = sandbox.state();
    let counts = state.counts;
    Answer::json(
        200,
        &json!({
            "exchanges": counts.exchanges,
            "refused": counts.refused,
            "asked": counts.asked,
            "messages": counts.messages,
            "unauthorized": counts.unauthorized,
            "replays": counts.replays,
            "idp_tokens": counts.idp_tokens,
            "google_tokens": counts.google_tokens,
            "entra_tokens": counts.entra_tokens,
            "aws_keys": counts.aws_keys,
            "revocations": counts.revocations,
            "trapped": counts.trapped,
            "live": state.live(),
        }),
    )
}

/// The token in the file is written anew, since the old one is signed by a key that is gone.
async fn rotate_keys(sandbox: &Arc<Sandbox>) -> Result<(), String> {
    let alg = sandbox.choices.alg;
    let key = tokio::task::spawn_blocking(move || Key::make(alg)).await.map_err(|e| e.to_string())??;
    sandbox.state().key = key;
    sandbox.write_token(&Map::new())
}

fn fault(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let at = take_text(fields, "at")?.ok_or("at: it is missing")?;
    let at = At::ALL.into_iter().find(|known| known.name() == at);
    let at = at.ok_or_else(|| format!("at: it is not one of {}", At::names()))?;
    let name = match fields.remove("fault") {
        Some(Value::Number(status)) => status.to_string(),
        Some(Value::String(name)) => name,
        _ => return Err("fault: it is missing".into()),
    };
    let fault = Fault::parse(&name).ok_or_else(|| format!("fault: it is not one of {}", Fault::names()))?;
    if !at.gives_tokens() && fault.needs_token() {
        return Err("fault: this one spoils a token, and none is given there".into());
    }
    let left = match take_number(fields, "times")?.unwrap_or(1) {
        0 => None,
        times => Some(times),
    };
    let retry_after_s = take_number(fields, "retry_after")?;
    if fields.is_empty() {
        sandbox.state().faults.arm(Armed { at, fault, left, retry_after_s });
    }
    Ok(())
}

fn take_flag(fields: &mut Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(format!("{name}: it is neither true nor false")),
    }
}

fn revoke(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let keys = take_flag(fields, "keys")?;
    if fields.is_empty() {
        sandbox.state().revoke(keys);
    }
    Ok(())
}

fn beta(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let needed = take_flag(fields, "needed")?;
    if fields.is_empty() {
        sandbox.state().needs_beta = needed;
    }
    Ok(())
}

fn stream(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let events = take_number(fields, "events")?.unwrap_or_default();
    let pace = take_number(fields, "pace_ms")?.unwrap_or_default();
    let events = u32::try_from(events).ok().filter(|events| *events <= EVENTS_MAX);
    let events = events.ok_or_else(|| format!("events: it is not from 0 to {EVENTS_MAX}"))?;
    if pace > PACE_MAX_MS {
        return Err(format!("pace_ms: it is not from 0 to {PACE_MAX_MS}"));
    }
    if fields.is_empty() {
        sandbox.state().stream = (events, Duration::from_millis(pace));
    }
    Ok(())
}

fn take_number(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{name}: it is not a whole number from 0")),
    }
}

fn clock(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let mut take = |name: &str| match fields.remove(name) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(shift) if shift.abs() <= SHIFT_MAX_S => Ok(Some(shift)),
            _ => Err(format!("{name}: it is not a whole number of seconds, at most a year")),
        },
    };
    let (server_s, idp_s) = (take("server_s")?, take("idp_s")?);
    if fields.is_empty() {
        let mut state = sandbox.state();
        state.server_s = server_s.unwrap_or(state.server_s);
        state.idp_s = idp_s.unwrap_or(state.idp_s);
    }
    Ok(())
}

fn refusals(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let generation = match take_text(fields, "as")?.as_deref() {
        Some("400") => Refusals::BadRequest,
        Some("401") => Refusals::Unauthorized,
        Some("rfc6749") => Refusals::Rfc6749,
        _ => return Err("as: it is not 400, 401 or rfc6749".into()),
    };
    if fields.is_empty() {
        sandbox.state().refusals = generation;
    }
    Ok(())
}

fn rule(sandbox: &Sandbox, fields: &mut Map<String, Value>) -> Result<(), String> {
    let (subject, audience) = (take_text(fields, "subject")?, take_text(fields, "audience")?);
    let issuer = take_text(fields, "issuer")?;
    let workspace_required = match fields.remove("workspace_required") {
        None => None,
        Some(Value::Bool(required)) => Some(required),
        Some(_) => return Err("workspace_required: it is neither true nor false".into()),
    };
    let life_s = take_number(fields, "life_s")?;
    let least_s = if sandbox.choices.fast_lives { 1 } else { LIFE_MIN.as_secs() };
    if life_s.is_some_and(|life_s| !(least_s..=LIFE_MAX.as_secs()).contains(&life_s)) {
        return Err(format!("life_s: it is not from {least_s} to {}", LIFE_MAX.as_secs()));
    }
    if fields.is_empty() {
        let rule = &mut sandbox.state().rule;
        for (place, wanted) in
            [(&mut rule.subject, subject), (&mut rule.audience, audience), (&mut rule.issuer, issuer)]
        {
            if let Some(wanted) = wanted {
                *place = wanted;
            }
        }
        rule.workspace_required = workspace_required.unwrap_or(rule.workspace_required);
        rule.life_s = life_s.unwrap_or(rule.life_s);
    }
    Ok(())
}
