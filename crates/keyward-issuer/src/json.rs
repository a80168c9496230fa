//! JSON objects that others wrote: answers of endpoints, output of programs, parts of assertions.
//!
//! What does not fit is named by its type or its place, and never quoted: it may hold a secret. Called by every module that
//! reads what it did not write.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a JSON object; members that the type does not name are passed over.
///
/// # Errors
/// What the text is instead, or where it stops being JSON, in words that go on after "it is".
pub(crate) fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let first = text.iter().copied().find(|b| !b.is_ascii_whitespace());
    // A structure would also be read from an array, member by member in their order.
    let other = match first {
        Some(b'{') => None,
        None => Some("empty"),
        Some(b'[') => Some("a JSON array"),
        Some(b'"') => Some("a JSON string"),
        Some(b'0'..=b'9' | b'-') => Some("a number"),
        Some(b't' | b'f' | b'n') if serde_json::from_slice::<Value>(text).is_ok() => Some("a JSON literal"),
        Some(b'<') => Some("HTML or XML"),
        Some(_) => Some("not JSON"),
    };
    if let Some(other) = other {
        return Err(other.to_owned());
    }
    // The message of the parser may quote the text.
    serde_json::from_slice(text).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => {
            "a JSON object with a member of another type, or one that is there twice".to_owned()
        }
        _ => format!("not JSON (line {}, column {})", e.line(), e.column()),
    })
}

/// Text of a member.
pub(crate) fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Two {
        a: Option<Value>,
        b: Option<Value>,
    }

    #[test]
    fn only_an_object_is_an_object() {
        assert_eq!(object(br#" {"b":1,"c":{}}"#), Ok(Two { a: None, b: Some(Value::from(1)) }));
        for (text, what) in [
            ("", "empty"),
            ("  \n", "empty"),
            (r#"["SEKRIT","x"]"#, "a JSON array"),
            ("\"SEKRIT\"", "a JSON string"),
            ("17", "a number"),
            ("null", "a JSON literal"),
            ("nil", "not JSON"),
            ("<!DOCTYPE html>SEKRIT", "HTML or XML"),
            ("\u{1f}\u{8b}SEKRIT", "not JSON"),
            (r#"{"a":"SEKRIT","#, "not JSON (line 1, column 14)"),
            (r#"{"a":1,"a":"SEKRIT"}"#, "a JSON object with a member of another type, or one that is there twice"),
        ] {
            assert_eq!(object::<Two>(text.as_bytes()), Err(what.to_owned()), "{text}");
        }
    }
}
