//! The log as CSV (RFC 4180), for spreadsheets.
//!
//! A cell that a spreadsheet would take for a formula gets a `'` in front, since names and folders in the log were chosen by
//! others. Has no trailer and cannot be verified. Called by `audit export`.

use keyward_api::AuditEntryMsg;
use serde_json::Value;

const FIELDS: &[&str] =
    &["at", "kind", "outcome", "run", "lease", "profile", "grant", "app", "app_verified", "project", "peer", "detail"];

/// The first line.
pub(crate) fn header() -> String {
    format!("seq,{},prev,mac\r\n", FIELDS.join(","))
}

/// The line of one entry.
pub(crate) fn line(entry: &AuditEntryMsg) -> String {
    let mut out = entry.seq.to_string();
    for field in FIELDS {
        out.push(',');
        out.push_str(&cell(&plain_text(&entry.entry[*field])));
    }
    format!("{out},{},{}\r\n", cell(&entry.prev), cell(&entry.mac))
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn cell(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_quoted_and_never_a_formula() {
        let entry = AuditEntryMsg {
            seq: 7,
            entry: json!({"kind": "run.started", "app": "=cmd|' /C calc'!A0", "project": "/a,\"b\"\nc", "detail": {"n": 1}}),
            prev: "00".into(),
            mac: "ff".into(),
        };
        assert_eq!(
            line(&entry),
            "7,,run.started,,,,,,'=cmd|' /C calc'!A0,,\"/a,\"\"b\"\"\nc\",,\"{\"\"n\"\":1}\",00,ff\r\n"
        );
        assert_eq!(header().matches(',').count(), 14);
    }
}
