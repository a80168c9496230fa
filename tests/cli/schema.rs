//! The OpenAPI document as the tests use it: samples of what it allows, and a check of what the broker answers.

use serde_json::{Map, Value, json};

/// The committed document.
pub(crate) fn document() -> Value {
    serde_json::from_str(include_str!("../../crates/keyward-api/openapi.json")).unwrap()
}

/// One operation of the document.
pub(crate) struct Operation {
    /// Its name.
    pub(crate) id: String,
    /// Method in upper case.
    pub(crate) method: String,
    /// Path with `{…}` for the part that varies.
    pub(crate) path: String,
    /// Schema of the request's body.
    pub(crate) request: Option<Value>,
    /// Schema of the answer, unless it is empty or a stream.
    pub(crate) answer: Option<Value>,
}

/// All operations.
pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let schema = |at: &str| operation.pointer(&format!("{at}/content/application~1json/schema")).cloned();
            all.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                request: schema("/requestBody"),
                answer: schema("/responses/200"),
            });
        }
    }
    all
}

/// The schema behind a reference.
pub(crate) fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(at) => document.pointer(at.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Types that a schema names itself or in its alternatives.
pub(crate) fn types(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(document, schema);
    if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return all.iter().flat_map(|s| types(document, s)).collect();
    }
    match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().map(|t| t.as_str().unwrap().to_owned()).collect(),
        _ => vec![],
    }
}

/// Something that the schema allows, with every optional field.
pub(crate) fn sample(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].get(0).or(schema["oneOf"].get(0)).or(schema["anyOf"].get(0)) {
        return if schema["enum"].is_array() { first.clone() } else { sample(document, first) };
    }
    match types(document, schema).first().map(String::as_str) {
        Some("string") => json!("x"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([sample(document, &schema["items"])]),
        Some("object") => {
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            let of = |(name, inner): (String, Value)| (name, sample(document, &inner));
            Value::Object(fields.into_iter().map(of).collect::<Map<_, _>>())
        }
        other => panic!("a schema of type {other:?}: {schema}"),
    }
}

/// What of a value its schema does not allow; fields that the schema does not name are allowed.
pub(crate) fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolve(document, schema);
    if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fits = all.iter().any(|s| mismatch(document, s, value).is_none());
        return (!fits).then(|| format!("no alternative fits {value}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{value} is none of {words:?}"));
    }
    if let Some(constant) = schema.get("const") {
        return (constant != value).then(|| format!("{value} is not {constant}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = types(document, schema);
    if !allowed.is_empty() && !allowed.iter().any(|t| t == kind) {
        return Some(format!("{value} is no {allowed:?}"));
    }
    let items = value.as_array().into_iter().flatten().find_map(|v| mismatch(document, &schema["items"], v));
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = || {
        let missing = value.as_object().and_then(|o| required.clone().find(|name| !o.contains_key(*name)));
        missing.map(|name| format!("`{name}` is missing in {value}"))
    };
    let fields = || {
        let known = |(name, v): (&String, &Value)| mismatch(document, schema["properties"].get(name)?, v);
        value.as_object().into_iter().flatten().find_map(known)
    };
    items.or_else(missing).or_else(fields)
}

#[test]
fn a_mismatch_is_found() {
    let document = document();
    let status = json!({"$ref": "#/components/schemas/StatusAnswer"});
    let mut good = sample(&document, &status);
    assert_eq!(mismatch(&document, &status, &good), None);
    good["broker"] = Value::Null;
    assert_eq!(mismatch(&document, &status, &good), None, "an optional one may be null");
    for (pointer, bad) in [("/runs", json!("1")), ("/vault/state", json!("open")), ("/home", json!(null))] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = bad;
        assert!(mismatch(&document, &status, &wrong).is_some(), "{pointer}");
    }
    good.as_object_mut().unwrap().remove("leases");
    assert!(mismatch(&document, &status, &good).is_some());
}
