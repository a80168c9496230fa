//! The OpenAPI 3.1 document, made from the routes and the types.

use crate::route::{ROUTES, Reply, RouteId};
use crate::{API_VERSION, AuditQuery, AuditSummaryQuery, AuditVerifyQuery, BODY_MAX_BYTES, PastRunsQuery};
use keyward_diag::Code;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Makes the document (OpenAPI 3.1.0; schemas are JSON Schema 2020-12). The same input gives the same bytes.
pub fn openapi() -> Value {
    let mut schemas =
        SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into()).into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let mut operation = Map::new();
        operation.insert("operationId".into(), json!(format!("{:?}", route.id)));
        operation.insert("summary".into(), json!(route.summary));
        if let Some((_, rest)) = route.path.split_once('{') {
            let name = rest.split('}').next().unwrap_or_default();
            operation.insert(
                "parameters".into(),
                json!([{"name": name, "in": "path", "required": true, "schema": {"type": "string"}}]),
            );
        }
        let query = match route.id {
            RouteId::Audit => Some(query_parameters::<AuditQuery>(&mut schemas, &[])),
            RouteId::AuditSummary => Some(query_parameters::<AuditSummaryQuery>(&mut schemas, &[])),
            RouteId::AuditVerify => Some(query_parameters::<AuditVerifyQuery>(&mut schemas, &[])),
            RouteId::Apps => Some(query_parameters::<AuditSummaryQuery>(&mut schemas, &["kind", "outcome", "bars"])),
            RouteId::RunsPast => Some(query_parameters::<PastRunsQuery>(&mut schemas, &[])),
            _ => None,
        };
        if let Some(parameters) = query {
            operation.insert("parameters".into(), parameters);
        }
        if let Some(request) = route.request {
            let schema = request(&mut schemas);
            operation.insert(
                "requestBody".into(),
                json!({"required": true, "content": {"application/json": {"schema": schema}}}),
            );
        }
        let mut responses = Map::new();
        match route.reply {
            Reply::Json(schema) => {
                let schema = schema(&mut schemas);
                responses.insert(
                    "200".into(),
                    json!({"description": "Done", "content": {"application/json": {"schema": schema}}}),
                );
            }
            Reply::Empty => {
                responses.insert("204".into(), json!({"description": "Done"}));
            }
            Reply::Stream(mime) => {
                let mut content = Map::new();
                content.insert(mime.into(), json!({"schema": {"type": "string"}}));
                responses.insert("200".into(), json!({"description": "A stream", "content": content}));
            }
        }
        responses.insert("default".into(), json!({"$ref": "#/components/responses/Fault"}));
        operation.insert("responses".into(), Value::Object(responses));
        let at = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        if let Value::Object(methods) = at {
            methods.insert(route.method.word().to_lowercase(), Value::Object(operation));
        }
    }
    let mut components = schemas.take_definitions(true);
    components.insert("Fault".into(), fault_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyward LocalAPI",
            "version": API_VERSION.to_string(),
            "description": format!(
                "HTTP/1.1 over the Unix socket of the broker. Peers are known by kernel facts, not by a token. \
                 Bodies are at most {BODY_MAX_BYTES} bytes."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"Fault": {
                "description": "An error: what went wrong, why, and what to do",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}}
            }}
        }
    })
}

fn fault_schema() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|c| c.name()).collect();
    json!({
        "type": "object",
        "required": ["code", "message", "causes", "help", "exit"],
        "properties": {
            "code": {"type": "string", "enum": codes},
            "message": {"type": "string"},
            "causes": {"type": "array", "items": {"type": "string"}},
            "help": {"type": "string"},
            "exit": {"type": "integer"}
        }
    })
}

/// The fields of a query, less those that the route does not take.
fn query_parameters<T: JsonSchema>(schemas: &mut SchemaGenerator, without: &[&str]) -> Value {
    let schema = schemas.root_schema_for::<T>().to_value();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let fields = fields.into_iter().filter(|(name, _)| !without.contains(&name.as_str()));
    fields.map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves_and_every_route_is_there() {
        let doc = openapi();
        let text = doc.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(doc["components"]["schemas"].get(name).is_some(), "{name}");
        }
        let operations: usize =
            doc["paths"].as_object().map_or(0, |p| p.values().filter_map(Value::as_object).map(Map::len).sum());
        assert_eq!(operations, ROUTES.len());
        for (path, fields) in [("/v1/audit", 12), ("/v1/audit/summary", 8), ("/v1/apps", 5), ("/v1/runs/past", 2)] {
            let parameters = doc["paths"][path]["get"]["parameters"].as_array();
            assert_eq!(parameters.map(Vec::len), Some(fields), "{path}");
        }
    }
}
