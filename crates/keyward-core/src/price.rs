//! What tokens cost: data, in `data/prices.toml`, and the arithmetic over it.
//!
//! Dated list prices, to keep a limit and not to make a bill. A model that the list does not name has no price here, and
//! nothing guesses one. Pure; called by the gateway, which reads what an answer has used, and by the broker, which counts it.

use crate::fence::fits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

const DATA: &str = include_str!("../data/prices.toml");

static PRICES: LazyLock<Option<Prices>> = LazyLock::new(|| Prices::read(DATA).ok());

/// US dollars in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(pub u64);

impl Usd {
    /// The sum; at the end of the range it stays there.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Usd {
    /// `$5.00`; four digits below one cent, and never less than it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, width) = if self.0 > 0 && self.0 < 10_000 { (100, 4) } else { (10_000, 2) };
        let (parts, whole) = (self.0.div_ceil(unit), 1_000_000 / unit);
        write!(f, "${}.{:0width$}", parts / whole, parts % whole)
    }
}

/// What a request has used, in tokens. No token is counted twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Read, and in no cache.
    pub input: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache for minutes.
    pub cache_write: u64,
    /// Written to a cache for an hour.
    pub cache_write_long: u64,
    /// Written by the model, its thoughts with it.
    pub output: u64,
}

/// Prices of one token, in thousandths of a millionth of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_long: u64,
    output: u64,
}

impl Rates {
    /// All of them so many times; rounded up.
    fn times(self, input: f64, output: f64) -> Self {
        Self {
            input: scaled(self.input as f64, input),
            cache_read: scaled(self.cache_read as f64, input),
            cache_write: scaled(self.cache_write as f64, input),
            cache_write_long: scaled(self.cache_write_long as f64, input),
            output: scaled(self.output as f64, output),
        }
    }
}

/// A product of prices, which are small; rounded up, but not for what the last digit of a fraction adds.
fn scaled(price: f64, factor: f64) -> u64 {
    (price * factor - 1e-6).ceil().max(0.0) as u64
}

/// What the tokens of a model cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    usual: Rates,
    /// Prices of a request whose prompt has more tokens than this.
    long: Option<(u64, Rates)>,
}

impl Price {
    /// What a request costs, rounded up.
    pub fn of(&self, usage: Usage) -> Usd {
        let Usage { input, cache_read, cache_write, cache_write_long, output } = usage;
        let prompt = [cache_read, cache_write, cache_write_long].into_iter().fold(input, u64::saturating_add);
        let rates = self.long.filter(|(over, _)| prompt > *over).map_or(self.usual, |(_, rates)| rates);
        let parts = [
            (input, rates.input),
            (cache_read, rates.cache_read),
            (cache_write, rates.cache_write),
            (cache_write_long, rates.cache_write_long),
            (output, rates.output),
        ];
        let sum: u128 = parts.into_iter().map(|(tokens, price)| u128::from(tokens) * u128::from(price)).sum();
        Usd(u64::try_from(sum.div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    routes: Vec<String>,
    models: Vec<String>,
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
    cache_write_long: Option<f64>,
    over: Option<u64>,
    #[serde(default = "once")]
    times_input: f64,
    #[serde(default = "once")]
    times_output: f64,
}

fn once() -> f64 {
    1.0
}

impl Row {
    fn price(&self, dearer: f64) -> Price {
        let rate = |dollars: f64| scaled(dollars * 1000.0, dearer);
        let usual = Rates {
            input: rate(self.input),
            cache_read: rate(self.cache_read.unwrap_or(self.input)),
            cache_write: rate(self.cache_write.unwrap_or(self.input * 1.25)),
            cache_write_long: rate(self.cache_write_long.unwrap_or(self.input * 2.0)),
            output: rate(self.output),
        };
        let long = self.over.map(|over| (over, usual.times(self.times_input, self.times_output)));
        Price { usual, long }
    }
}

/// The list of prices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// When it was last compared with the vendors' pages, as `YYYY-MM-DD`.
    pub date: String,
    dearer: BTreeMap<String, f64>,
    price: Vec<Row>,
}

impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prices of {}", self.date)
    }
}

impl Prices {
    /// The built-in list; a test reads it, so it is there.
    pub fn built_in() -> Option<&'static Self> {
        PRICES.as_ref()
    }

    fn read(data: &str) -> Result<Self, String> {
        toml::from_str(data).map_err(|e| e.to_string())
    }

    /// What a model costs by a route; `None` where the list does not say. `model` is as [`model_name`] gives it.
    pub fn find(&self, route: &str, model: &str) -> Option<Price> {
        let row = self.price.iter().find(|row| {
            row.routes.iter().any(|name| name == route) && row.models.iter().any(|pattern| fits(pattern, model))
        })?;
        Some(row.price(self.dearer.get(route).copied().unwrap_or(1.0)))
    }
}

/// The name of a model as its maker writes it, out of the one that a request has by a route: Bedrock puts a region and the
/// maker before it, or a whole ARN, Vertex a version behind it.
pub fn model_name<'m>(route: &str, model: &'m str) -> &'m str {
    match route {
        "bedrock" => {
            let last = model.rsplit('/').next().unwrap_or(model);
            last.rsplit_once("anthropic.").map_or(last, |(_, name)| name)
        }
        "vertex" => {
            let last = model.rsplit('/').next().unwrap_or(model);
            last.split('@').next().unwrap_or(last)
        }
        "gemini" => model.strip_prefix("models/").unwrap_or(model),
        _ => model,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_list_is_whole() {
        let prices = Prices::read(DATA).unwrap();
        let date = prices.date.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b }).collect::<Vec<_>>();
        assert_eq!(date, b"0000-00-00");
        for (n, row) in prices.price.iter().enumerate() {
            let at = row.models.join(" ");
            assert!(!row.routes.is_empty() && !row.models.is_empty(), "{at}");
            assert!(row.input > 0.0 && (row.output > row.input || row.output == 0.0), "{at}");
            assert!(row.cache_read.is_none_or(|read| read > 0.0 && read < row.input), "{at}");
            assert_eq!(row.over.is_some(), row.times_input > 1.0 && row.times_output > 1.0, "{at}");
            for model in row.models.iter().filter(|model| !model.contains('*')) {
                for route in &row.routes {
                    let first = prices.price.iter().position(|other| {
                        other.routes.contains(route) && other.models.iter().any(|pattern| fits(pattern, model))
                    });
                    assert_eq!(first, Some(n), "another row takes {model} by {route}");
                }
            }
        }
    }

    #[test]
    fn a_request_costs_what_the_list_says() {
        let prices = Prices::built_in().unwrap();
        let usage = |input, cache_read, cache_write, cache_write_long, output| Usage {
            input,
            cache_read,
            cache_write,
            cache_write_long,
            output,
        };
        for (route, model, used, micros) in [
            ("anthropic", "claude-sonnet-4-5", usage(1_000, 0, 0, 0, 1_000), 18_000),
            ("anthropic", "claude-sonnet-4-5-20250929", usage(0, 10_000, 1_000, 1_000, 0), 3_000 + 3_750 + 6_000),
            ("anthropic", "claude-sonnet-4-5", usage(100_000, 100_000, 0, 0, 10), 300_000 + 30_000 + 150),
            ("anthropic", "claude-sonnet-4-5", usage(100_001, 100_000, 0, 0, 10), 600_006 + 60_000 + 225),
            ("anthropic", "claude-haiku-5-5", usage(1, 0, 0, 0, 0), 1),
            ("bedrock", "claude-opus-4-5-20251101-v1:0", usage(1_000, 0, 0, 0, 0), 5_500),
            ("openai", "gpt-5", usage(1_000, 1_000, 0, 0, 0), 1_250 + 125),
            ("gemini", "gemini-2.5-pro", usage(0, 0, 0, 0, 1_000), 10_000),
            ("openai", "gpt-5", usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX), u64::MAX),
        ] {
            assert_eq!(prices.find(route, model).unwrap().of(used), Usd(micros), "{model}: {used:?}");
        }
    }

    #[test]
    fn what_is_not_on_the_list_has_no_price() {
        let prices = Prices::built_in().unwrap();
        for (route, model) in [
            ("anthropic", "claude-opus-9"),
            ("anthropic", "claude-opus-5-6"),
            ("anthropic", "gpt-5"),
            ("anthropic", ""),
            ("openai", "claude-opus-4-5"),
            ("openai", "gpt-5-ultra"),
            ("openai", "ft:gpt-4.1-mini:org::gpt-5-mini"),
            ("generic", "gpt-5"),
        ] {
            assert_eq!(prices.find(route, model), None, "{route} {model}");
        }
    }

    #[test]
    fn a_cloud_writes_names_its_own_way() {
        for (route, sent, name) in [
            ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929-v1:0"),
            (
                "bedrock",
                "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-opus-4-6-v1",
                "claude-opus-4-6-v1",
            ),
            ("bedrock", "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x1y2", "x1y2"),
            ("vertex", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            ("vertex", "google/gemini-2.5-pro", "gemini-2.5-pro"),
            ("gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"),
            ("openai", "x/gpt-5@1", "x/gpt-5@1"),
        ] {
            assert_eq!(model_name(route, sent), name);
        }
    }

    #[test]
    fn dollars_are_shown_as_people_write_them() {
        for (micros, shown) in [
            (0, "$0.00"),
            (1, "$0.0001"),
            (9_900, "$0.0099"),
            (9_901, "$0.0100"),
            (10_000, "$0.01"),
            (5_000_000, "$5.00"),
            (5_000_001, "$5.01"),
            (1_234_560_000, "$1234.56"),
        ] {
            assert_eq!(Usd(micros).to_string(), shown);
        }
    }
}
