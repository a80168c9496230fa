//! The models that a request names besides its own: an adviser among its tools, one that takes over, one that ranks.
//!
//! Walks the JSON body of a request and gathers what stands under a key that names a model, whatever tool or setting it
//! belongs to. What people, tools and earlier answers said is passed over, and so are the shapes that tools and answers have:
//! no API takes a model from there. Never decides and never asks. Called by `fence`.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Deepest level that is looked at. Nothing that an API reads lies as deep.
const DEPTH_MAX: usize = 32;
/// Most models that one request may name besides its own.
const NAMED_MAX: usize = 8;

/// Keys of what is passed over: content of messages, data of the caller's own, and the shapes of arguments and answers. The
/// `parameters` of a tool are not among them, since some tools take their model there; in a shape, a property with the name
/// of a model is no text.
const FREE: &[&str] = &[
    "content",
    "parts",
    "metadata",
    "requestMetadata",
    "input_schema",
    "inputSchema",
    "input_examples",
    "schema",
    "response_schema",
    "responseSchema",
    "responseJsonSchema",
    "parametersJsonSchema",
];

/// Whether a key names a model, or several: `model`, `models`, `modelName`, `model_id`, `fallback_models` and their like.
fn names(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    ["model", "models", "modelid", "modelname", "modelarn"].iter().any(|end| key.ends_with(end))
}

/// The models that a body names, each once, but for `model` of the object that it is.
///
/// # Errors
/// For what is no JSON, lies deeper than 32 levels, or names more than eight.
pub(crate) fn models(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let mut found = Vec::new();
    let mut read = serde_json::Deserializer::from_slice(body);
    Walk { found: &mut found, depth: 0, named: false }.deserialize(&mut read)?;
    read.end()?;
    Ok(found)
}

/// One value, and all in it.
struct Walk<'f> {
    found: &'f mut Vec<String>,
    depth: usize,
    /// It stands under a key that names a model.
    named: bool,
}

impl Walk<'_> {
    fn inner<E: serde::de::Error>(&mut self, named: bool) -> Result<Walk<'_>, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("it lies deeper than {DEPTH_MAX} levels")));
        }
        Ok(Walk { found: self.found, depth: self.depth + 1, named })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.named && !self.found.iter().any(|known| known == text) {
            if self.found.len() == NAMED_MAX {
                return Err(E::custom(format_args!("it names more than {NAMED_MAX} models besides its own")));
            }
            self.found.push(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let named = self.named;
        while list.next_element_seed(self.inner(named)?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if FREE.contains(&&*key) || self.depth == 0 && key == "model" {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(self.inner(names(&key))?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn found(body: &str) -> Result<Vec<String>, String> {
        models(body.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_model_is_found_wherever_an_api_reads_one() {
        for (body, names) in [
            (r#"{"model":"a","stream":true,"max_tokens":1e3,"stop":null,"temperature":-1}"#, &[][..]),
            (r#"{"model":"a","tools":[{"type":"advisor_20260301","name":"advisor","model":"b"}]}"#, &["b"]),
            (r#"{"tools":[{"mod\u0065l":"b"},{"MODEL":"c"},{"model":"d","model":"e"}]}"#, &["b", "c", "d", "e"]),
            (r#"{"tools":[{"type":"x:advisor","parameters":{"model":"b"}}]}"#, &["b"]),
            (r#"{"tools":[{"model":"b"}],"tools":[{"model":"c"}]}"#, &["b", "c"]),
            (r#"{"tools":[{"model":"b"},{"model":"b"}]}"#, &["b"]),
            (r#"{"models":["b","c"],"fallbacks":[{"model":"d"}],"fallback_model":"e"}"#, &["b", "c", "d", "e"]),
            (r#"{"generationConfig":{"routingConfig":{"manualMode":{"modelName":"b"}}}}"#, &["b"]),
            (r#"{"additionalModelRequestFields":{"tools":[{"model":"b"}]}}"#, &["b"]),
            (r#"{"ranker":{"modelId":"b","model_arn":"c"},"model":{"id":"d","name":{"model":"e"}}}"#, &["b", "c"]),
            (r#"{"input":[{"type":"tool_search_output","tools":[{"model":"b"}]}]}"#, &["b"]),
            (r#"{"messages":[{"role":"user","content":"x","model":"b"}]}"#, &["b"]),
            (r#"{"Content":{"model":"b"}}"#, &["b"]),
        ] {
            assert_eq!(found(body).unwrap(), names, "{body}");
        }
    }

    #[test]
    fn what_was_said_and_the_shape_of_tools_name_none() {
        for body in [
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"model":"b"}}]}]}"#,
            r#"{"contents":[{"parts":[{"functionCall":{"args":{"model":"b"}}}]}]}"#,
            r#"{"tools":[{"input_schema":{"properties":{"model":{"type":"string"}},"default":{"model":"b"}}}]}"#,
            r#"{"tools":[{"input_examples":[{"model":"b"}]}]}"#,
            r#"{"tools":[{"function":{"parameters":{"properties":{"model":{"enum":["b"],"default":"b"}}}}}]}"#,
            r#"{"toolConfig":{"tools":[{"toolSpec":{"inputSchema":{"json":{"model":"b"}}}}]}}"#,
            r#"{"response_format":{"json_schema":{"schema":{"examples":[{"model":"b"}]}}}}"#,
            r#"{"metadata":{"model":"b"},"modelling":"b","input":"model"}"#,
        ] {
            assert_eq!(found(body).unwrap(), [""; 0], "{body}");
        }
    }

    #[test]
    fn a_body_that_hides_what_it_names_is_refused() {
        let deep = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert_eq!(found(&deep(31)).unwrap(), [""; 0]);
        assert!(found(&deep(32)).unwrap_err().contains("deeper than 32"));
        assert!(found(&deep(100_000)).unwrap_err().contains("deeper than 32"));
        let said = deep(100_000).replace("\"x\"", "\"content\"");
        assert_eq!(found(&said).unwrap(), [""; 0], "what was said may be deep");
        let many: Vec<String> = (0..9).map(|n| format!(r#""m{n}""#)).collect();
        assert!(found(&format!(r#"{{"models":[{}]}}"#, many.join(","))).unwrap_err().contains("more than 8"));
        for odd in ["", "model=b", r#"{"tools":[{"model":"b"}]"#, r#"{"tools":[{"model":"b"}]}{}"#] {
            assert!(found(odd).is_err(), "{odd}");
        }
    }
}
