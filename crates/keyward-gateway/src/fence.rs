//! A request at the fence of its lease: which model it is for, what it may cost, and whether it goes on.
//!
//! Reads the body of a request only where the fence looks at models or money, and then whole, at most 32 MiB; the answer is
//! read as it passes and never gathered. A request that names several models comes to its fence with each of them, and counts
//! once for each; where money is counted it goes nowhere, since its answer does not say plainly what each of them used. Never
//! decides: the [`Authority`] does, and may have a person asked. Called by `forward` for a lease with a fence, and for a call that
//! the profile's own list leaves out.

use crate::forward::whole;
use crate::named;
use crate::path::Target;
use crate::routes::Cost;
use crate::server::Gateway;
use crate::usage::Reader;
use crate::{Admitted, Authority, Slot};
use bytes::Bytes;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use keyward_core::{Attempt, Model, Price, Prices, Usage, Usd, model_name};
use keyward_diag::{Code, Fault, plain};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use tokio::sync::OwnedSemaphorePermit;

/// Longest name of a model, in bytes: an ARN of Bedrock fits, and a person who is asked sees all of it.
const MODEL_MAX_BYTES: usize = 256;
/// Bytes that are counted as one token, where an answer does not say what it used: fewer than any text has.
const TOKEN_BYTES: u64 = 4;
/// Tokens that an answer is counted as which did not say what it used, where the request does not limit it.
const UNLIMITED_TOKENS: u64 = 8_192;
/// Parts of the names of header fields by which a request chooses other prices: those of Bedrock
/// (`X-Amzn-Bedrock-Service-Tier`, `X-Amzn-Bedrock-PerformanceConfig-Latency`) and of Vertex AI
/// (`X-Vertex-AI-LLM-Request-Type`, `X-Vertex-AI-LLM-Shared-Request-Type`).
const PRICED_FIELDS: [&str; 3] = ["service-tier", "performanceconfig", "request-type"];

/// The body of a request.
pub(crate) enum Coming {
    /// As it comes from the client.
    Passing(Incoming),
    /// It is here whole, with its share of the room that such bodies have.
    Here(Bytes, OwnedSemaphorePermit),
}

/// Lets a request through the fence of its lease, however long that takes: a person may be asked. `beyond` is the call, where
/// the profile's own list leaves it out; nobody is asked about one that is refused for another reason anyway.
///
/// # Errors
/// `fence.reached`; `fence.uncounted` for what the fence cannot judge; `gateway.request_malformed` for a body that does not
/// say plainly which model it is for; those of gathering it.
pub(crate) async fn pass<A: Authority>(
    gateway: &Gateway<A>,
    admitted: &Admitted,
    beyond: Option<&str>,
    (method, target, headers): (&Method, &Target, &HeaderMap),
    body: Incoming,
) -> Result<(Coming, Option<Box<Meter>>), Fault> {
    let route = admitted.route;
    let fence = admitted.fence.as_deref();
    let pass = |attempt| gateway.authority.fence(admitted.lease, attempt);
    let cost = match fence {
        Some(fence) if fence.counts() => route.cost(method.as_str(), target),
        _ => Cost::Free,
    };
    let of_path = match cost {
        Cost::Free => {
            if let Some(call) = beyond {
                pass(Attempt::Call(call)).await?;
            }
            if fence.is_some() {
                pass(Attempt::Request).await?;
            }
            return Ok((Coming::Passing(body), None));
        }
        Cost::Unknown => {
            return Err(uncounted(format_args!("{method} {} says neither its model nor what it costs", target.path())));
        }
        Cost::Counted(model) => model,
    };
    let (pieces, room) = whole(&gateway.fenced, body).await?;
    let bytes = match (pieces.len(), pieces.front()) {
        (1, Some(piece)) => piece.clone(),
        _ => Bytes::from(pieces.iter().flatten().copied().collect::<Vec<u8>>()),
    };
    let unclear = |e| malformed(format_args!("its body is not JSON that says plainly what it asks: {e}"));
    let asked: Asked = serde_json::from_slice(&bytes).map_err(unclear)?;
    let mut besides = named::models(&bytes).map_err(unclear)?;
    let sent = match (of_path, asked.model.as_deref()) {
        (Some(of_path), None) => of_path,
        (Some(of_path), Some(of_body)) => {
            if model_name(&route.name, of_path) != model_name(&route.name, of_body) {
                besides.push(of_body.to_owned());
            }
            of_path
        }
        (None, of_body) => of_body.ok_or_else(|| malformed("its body names no model"))?,
    };
    if besides.iter().map(String::len).any(|length| length > MODEL_MAX_BYTES) || sent.len() > MODEL_MAX_BYTES {
        return Err(malformed(format_args!("the name of its model is longer than {MODEL_MAX_BYTES} bytes")));
    }
    let model = Model { sent, name: model_name(&route.name, sent) };
    let price = match fence.and_then(|fence| fence.usd) {
        None => None,
        Some(_) => {
            asked.countable(target.path().ends_with("/completions"))?;
            usual_fields(headers)?;
            if let Some(other) = besides.first() {
                let other = plain(other, MODEL_MAX_BYTES);
                return Err(uncounted(format_args!("it names the model `{other}` besides its own")));
            }
            let price = Prices::built_in().and_then(|prices| prices.find(&route.name, model.name));
            Some(price.ok_or_else(|| {
                uncounted(format_args!("the list of prices does not have the model `{}`", plain(sent, MODEL_MAX_BYTES)))
            })?)
        }
    };
    if let Some(call) = beyond {
        pass(Attempt::Call(call)).await?;
    }
    for other in besides.iter().filter(|other| *other != sent) {
        pass(Attempt::Model(Model { sent: other, name: model_name(&route.name, other) })).await?;
    }
    let slot = pass(Attempt::Model(model)).await?;
    let most = asked.most.unwrap_or(UNLIMITED_TOKENS);
    Ok((Coming::Here(bytes, room), price.map(|price| Box::new(Meter { price, most, reader: None, slot }))))
}

fn uncounted(why: impl fmt::Display) -> Fault {
    Fault::new(Code::FenceUncounted).cause(why)
}

fn malformed(why: impl fmt::Display) -> Fault {
    Fault::new(Code::GatewayRequest).cause(why)
}

/// What the body of a request says about the model and the price.
#[derive(Default)]
struct Asked {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    background: Option<bool>,
    service_tier: Option<String>,
    speed: Option<String>,
    inference_geo: Option<String>,
    /// `serviceTier` and `performanceConfig` of Bedrock's Converse, which hold an object each.
    tiers: Vec<Value>,
    /// The greatest limit of the answer that it names, in tokens.
    most: Option<u64>,
}

/// The object within which Bedrock's Converse, Gemini and Titan limit an answer.
#[derive(Deserialize)]
struct Limits {
    #[serde(rename = "maxTokens", alias = "maxOutputTokens", alias = "max_output_tokens", alias = "maxTokenCount")]
    most: Option<Value>,
}

/// A number of tokens; what is no number says nothing.
fn tokens(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().map(|number| number.ceil() as u64))
}

/// Whether a service tier, or a speed, has the prices of the list or lower ones.
fn usual(tier: &str) -> bool {
    matches!(tier, "auto" | "default" | "flex" | "standard" | "standard_only")
}

/// No header field chooses other prices.
fn usual_fields(headers: &HeaderMap) -> Result<(), Fault> {
    let priced = |name: &str| PRICED_FIELDS.iter().any(|part| name.contains(part));
    let odd = headers.iter().find(|(name, value)| priced(name.as_str()) && !value.to_str().is_ok_and(usual));
    odd.map_or(Ok(()), |(name, _)| {
        Err(uncounted(format_args!("its field `{name}` asks for other prices than the list")))
    })
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Asked {
    /// Whether the answer will say what it used, and the prices of the list go for it.
    fn countable(&self, of_completions: bool) -> Result<(), Fault> {
        let says = self.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true);
        if of_completions && self.stream == Some(true) && !says {
            let why = "a stream of completions says what it used only with `stream_options: {\"include_usage\": true}`";
            return Err(uncounted(why));
        }
        if self.background == Some(true) {
            return Err(uncounted("an answer in the background does not say what it used"));
        }
        let listed = |tier: &Value| match tier {
            Value::Null => true,
            Value::String(tier) => usual(tier),
            Value::Object(of) => of.values().all(|value| value.as_str().is_some_and(usual)),
            _ => false,
        };
        if self.service_tier.as_deref().is_some_and(|tier| !usual(tier)) || !self.tiers.iter().all(listed) {
            return Err(uncounted("its service tier has other prices than the list"));
        }
        if self.speed.as_deref().is_some_and(|speed| speed != "standard") {
            return Err(uncounted("its speed has other prices than the list"));
        }
        if self.inference_geo.as_deref().is_some_and(|place| place != "global") {
            return Err(uncounted("its place has other prices than the list"));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Asked {
    /// Of an object, in which none of the keys that count is twice, in other capitals neither: servers do not agree which
    /// of two they take, and some do not look at capitals.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Asked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Asked, M::Error> {
                use serde::de::Error;
                const KEYS: [&str; 19] = [
                    "model",
                    "stream",
                    "stream_options",
                    "background",
                    "service_tier",
                    "speed",
                    "inference_geo",
                    "serviceTier",
                    "performanceConfig",
                    "max_tokens",
                    "max_completion_tokens",
                    "max_output_tokens",
                    "maxTokens",
                    "max_tokens_to_sample",
                    "max_gen_len",
                    "inferenceConfig",
                    "generationConfig",
                    "generation_config",
                    "textGenerationConfig",
                ];
                let (mut asked, mut seen) = (Asked::default(), [false; KEYS.len()]);
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let Some(at) = KEYS.iter().position(|known| known.eq_ignore_ascii_case(&key)) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let known = KEYS.get(at).copied().unwrap_or_default();
                    if known != key {
                        return Err(M::Error::custom(format_args!("`{known}` is written in other letters")));
                    }
                    if seen.get_mut(at).is_none_or(|seen| std::mem::replace(seen, true)) {
                        return Err(M::Error::custom(format_args!("`{known}` is there twice")));
                    }
                    match known {
                        "model" => asked.model = Some(map.next_value()?),
                        "stream" => asked.stream = map.next_value()?,
                        "stream_options" => asked.stream_options = map.next_value()?,
                        "background" => asked.background = map.next_value()?,
                        "service_tier" => asked.service_tier = map.next_value()?,
                        "speed" => asked.speed = map.next_value()?,
                        "inference_geo" => asked.inference_geo = map.next_value()?,
                        "serviceTier" | "performanceConfig" => asked.tiers.push(map.next_value()?),
                        _ if known.ends_with("onfig") => {
                            let limits: Option<Limits> = map.next_value()?;
                            let most = limits.and_then(|limits| tokens(&limits.most?));
                            asked.most = asked.most.max(most);
                        }
                        _ => asked.most = asked.most.max(tokens(&map.next_value()?)),
                    }
                }
                Ok(asked)
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

/// Counts what a request costs. Gives its place back to the lease when it is dropped.
pub(crate) struct Meter {
    price: Price,
    /// Tokens that the answer can have at most, or is taken to have.
    most: u64,
    reader: Option<Reader>,
    #[expect(dead_code, reason = "it is held, and given back on drop")]
    slot: Slot,
}

impl Meter {
    /// The head of the answer is there.
    pub(crate) fn head(&mut self, head: &HeaderMap) {
        self.reader = Some(Reader::new(head));
    }

    /// A piece of the answer.
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        if let Some(reader) = &mut self.reader {
            reader.read(bytes);
        }
    }

    /// What the request has cost: as the answer says. Where it broke off before it said all, one token for each four bytes of
    /// it; where it said nothing, or never came, the input by its bytes, and as much output as the request allows, since the
    /// model may have written it all.
    pub(crate) fn cost(&self, sent: u64, received: u64) -> Usd {
        let found = self.reader.as_ref().map(Reader::found).unwrap_or_default();
        let mut usage = found.usage;
        if !found.any {
            usage = Usage { input: sent.div_ceil(TOKEN_BYTES), output: self.most, ..usage };
        }
        if !found.whole {
            usage.output = usage.output.max(received.div_ceil(TOKEN_BYTES));
        }
        self.price.of(usage)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn asked(body: &str) -> Result<Asked, String> {
        serde_json::from_str(body).map_err(|e| e.to_string())
    }

    #[test]
    fn a_body_names_one_model_plainly() {
        let body = r#"{"a":{"model":"x"},"mod\u0065l":"claude-opus-5","stream":null,"messages":[{"model":"y"}]}"#;
        assert_eq!(asked(body).unwrap().model.as_deref(), Some("claude-opus-5"));
        assert_eq!(asked("{}").unwrap().model, None);
        for odd in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"MODEL":"a"}"#,
            r#"{"model":null}"#,
            r#"{"model":["a"]}"#,
            r#"{"model":"a"}{"model":"b"}"#,
            r#"{"model":"a""#,
            r#"[{"model":"a"}]"#,
            "\u{feff}{\"model\":\"a\"}",
            r#"{"model":"a","stream":true,"stream":false}"#,
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "model=a",
            "",
        ] {
            assert!(asked(odd).is_err(), "{odd}");
        }
        let deep = format!(r#"{{"model":"a","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(asked(&deep).unwrap().model.as_deref(), Some("a"), "what is of no interest may be deep");
    }

    #[test]
    fn what_has_other_prices_or_no_count_is_not_countable() {
        for (body, of_completions, good) in [
            (r#"{"stream":true}"#, false, true),
            (r#"{"stream":true}"#, true, false),
            (r#"{"stream":true,"stream_options":{}}"#, true, false),
            (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, true, false),
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, true, true),
            (r#"{"stream":false}"#, true, true),
            (r#"{"background":true}"#, false, false),
            (r#"{"background":false,"service_tier":"auto","speed":"standard"}"#, false, true),
            (r#"{"service_tier":"priority"}"#, false, false),
            (r#"{"service_tier":null,"speed":null}"#, false, true),
            (r#"{"speed":"fast"}"#, false, false),
            (r#"{"inference_geo":"us"}"#, false, false),
            (r#"{"serviceTier":{"type":"default"},"performanceConfig":{"latency":"standard"}}"#, false, true),
            (r#"{"serviceTier":null}"#, false, true),
            (r#"{"serviceTier":{"type":"priority"}}"#, false, false),
            (r#"{"serviceTier":"priority"}"#, false, false),
            (r#"{"serviceTier":["priority"]}"#, false, false),
            (r#"{"performanceConfig":{"latency":"optimized"}}"#, false, false),
        ] {
            assert_eq!(asked(body).unwrap().countable(of_completions).is_ok(), good, "{body} {of_completions}");
        }
    }

    #[test]
    fn no_header_field_chooses_other_prices() {
        for (name, value, good) in [
            ("x-amzn-bedrock-service-tier", "priority", false),
            ("x-amzn-bedrock-service-tier", "default", true),
            ("x-amzn-bedrock-service-tier", "default,priority", false),
            ("x-amzn-bedrock-performanceconfig-latency", "optimized", false),
            ("x-vertex-ai-llm-shared-request-type", "priority", false),
            ("x-vertex-ai-llm-request-type", "dedicated", false),
            ("x-request-id", "priority", true),
        ] {
            let field = (hyper::header::HeaderName::from_static(name), value.parse().unwrap());
            assert_eq!(usual_fields(&HeaderMap::from_iter([field])).is_ok(), good, "{name}: {value}");
        }
    }

    #[test]
    fn the_greatest_limit_that_a_request_names_is_the_one_that_counts() {
        for (body, most) in [
            ("{}", None),
            (r#"{"max_tokens":100}"#, Some(100)),
            (r#"{"max_tokens":1,"max_completion_tokens":64000}"#, Some(64_000)),
            (r#"{"max_output_tokens":1e3,"maxTokens":"9"}"#, Some(1_000)),
            (r#"{"inferenceConfig":{"topP":1,"maxTokens":5}}"#, Some(5)),
            (r#"{"generationConfig":{"maxOutputTokens":7},"max_tokens":null}"#, Some(7)),
            (r#"{"generation_config":{"max_output_tokens":8}}"#, Some(8)),
            (r#"{"max_tokens":-4}"#, Some(0)),
        ] {
            assert_eq!(asked(body).unwrap().most, most, "{body}");
        }
        for odd in [
            r#"{"max_tokens":1,"max_tokens":2}"#,
            r#"{"inferenceConfig":{"maxTokens":1,"maxTokens":9}}"#,
            r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
        ] {
            assert!(asked(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn an_answer_that_does_not_say_is_counted_by_its_bytes() {
        let price = Prices::built_in().unwrap().find("anthropic", "claude-sonnet-4-6").unwrap();
        let meter = |events: &str| {
            let mut meter = Meter { price, most: 2_000, reader: None, slot: None };
            let kind = (hyper::header::CONTENT_TYPE, "text/event-stream".parse().unwrap());
            meter.head(&HeaderMap::from_iter([kind]));
            meter.data(events.as_bytes());
            meter
        };
        let start = "data: {\"message\":{\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n";
        let end = "data: {\"usage\":{\"output_tokens\":10}}\n\n";
        assert_eq!(meter(&format!("{start}{end}")).cost(4_000_000, 4_000_000), Usd(3_000 + 150));
        assert_eq!(meter(start).cost(4_000_000, 4_000), Usd(3_000 + 15_000), "it broke off");
        assert_eq!(meter("").cost(4_000, 4_000), Usd(3_000 + 30_000), "what the request allows");
        assert_eq!(meter("").cost(4_000, 40_000), Usd(3_000 + 150_000));
        let before = Meter { price, most: 2_000, reader: None, slot: None };
        assert_eq!(before.cost(4_001, 0), Usd(3_003 + 30_000), "no answer came");
    }
}
