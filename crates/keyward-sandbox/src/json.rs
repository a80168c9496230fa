//! Strict JSON objects: no name may stand twice, nothing may follow the object.
//!
//! Two readers that disagree on which of two equal names counts are a way around a check, so such an object is refused.
//! Called by whatever takes JSON from outside.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads one object. Fails with a text that quotes no value.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let read = serde_json::from_slice::<Strict>(bytes);
    read.map(|strict| strict.0).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => "the body is not a JSON object, or a name stands in it twice".to_owned(),
        _ => "the body is not valid JSON".to_owned(),
    })
}

struct Strict(Map<String, Value>);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Names).map(Self)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, value)) = from.next_entry::<String, Value>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_object_without_double_names_is_read() {
        assert!(object(br#" {"a":{"b":[1]},"c":null} "#).is_ok_and(|map| map.len() == 2));
        for bad in ["", "[]", "null", "\"a\"", "{\"a\":1,\"a\":1}", "{} {}", "{", "{'a':1}"] {
            assert!(object(bad.as_bytes()).is_err(), "{bad} passed");
        }
        assert!(object(b"\"s3cret\"").is_err_and(|e| !e.contains("s3cret")));
    }
}
