//! From a profile file (TOML) to the draft that the editor holds, and back.
//!
//! Pure. Checks nothing that the broker checks: a draft with a field too many becomes a file with it, and the broker says
//! so. What a stored file has and the editor does not know stays in it. Called by the commands.

use crate::look::name;
use crate::types::{FenceDraft, IdentityDraft, ProfileDraft};
use keyward_api::DeliveryMode;
use keyward_diag::{Code, Fault};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value as Toml};

/// Depth of a field's content at most.
const DEPTH_MAX: usize = 8;
/// Lines of changes in a prompt, and characters of a value in one.
const CHANGES_MAX: usize = 8;
const VALUE_MAX: usize = 160;

/// Reads a profile file.
pub(crate) fn read(name: &str, text: &str) -> Result<ProfileDraft, Fault> {
    let mut file = parse(text)?;
    let mut issuer = take_table(&mut file, "issuer");
    let identity = match issuer.remove("identity") {
        Some(Toml::Table(mut table)) => {
            Some(IdentityDraft { kind: take_text(&mut table, "kind").unwrap_or_default(), fields: fields(table) })
        }
        Some(other) => {
            issuer.insert("identity".to_owned(), other);
            None
        }
        None => None,
    };
    let kind = take_text(&mut issuer, "kind").unwrap_or_default();
    let mut delivery = take_table(&mut file, "delivery");
    let mode = take_text(&mut delivery, "mode");
    let delivery_mode = match mode.as_deref() {
        None => None,
        Some("env") => Some(DeliveryMode::Env),
        Some("file") => Some(DeliveryMode::File),
        Some("gateway") => Some(DeliveryMode::Gateway),
        Some(other) => {
            return Err(Fault::new(Code::ProfileInvalid)
                .cause(format!("delivery.mode `{}` cannot be edited here", keyward_diag::plain(other, 20))));
        }
    };
    let mut gateway = take_table(&mut file, "gateway");
    let mut fence = take_table(&mut file, "fence");
    Ok(ProfileDraft {
        name: name.to_owned(),
        issuer: kind,
        fields: fields(issuer),
        identity,
        delivery: delivery_mode,
        variables: take_table(&mut delivery, "env").into_iter().map(|(name, _)| name).collect(),
        max_ttl: take_text(&mut take_table(&mut file, "limits"), "max_ttl"),
        only: texts(gateway.remove("only")),
        containers: gateway.remove("containers").is_some_and(|flag| flag.as_bool() == Some(true)),
        confirm: file.remove("confirm").is_some_and(|flag| flag.as_bool() == Some(true)),
        fence: FenceDraft {
            requests_per_minute: number(&mut fence, "requests_per_minute"),
            requests: number(&mut fence, "requests"),
            models: texts(fence.remove("models")),
            usd: match fence.remove("usd") {
                Some(Toml::Float(usd)) => Some(usd),
                Some(Toml::Integer(usd)) => u32::try_from(usd).ok().map(f64::from),
                _ => None,
            },
        },
    })
}

/// Writes a draft as a profile file; over the `stored` one, where there is one: whatever the draft does not speak of stays.
pub(crate) fn write(draft: &ProfileDraft, stored: Option<&str>) -> Result<String, Fault> {
    let mut file = stored.map(parse).transpose()?.unwrap_or_default();
    let mut issuer = Table::from_iter([("kind".to_owned(), Toml::String(draft.issuer.clone()))]);
    for (name, value) in &draft.fields {
        insert(&mut issuer, name, value, "issuer.")?;
    }
    if let Some(identity) = &draft.identity {
        let mut table = Table::from_iter([("kind".to_owned(), Toml::String(identity.kind.clone()))]);
        for (name, value) in &identity.fields {
            insert(&mut table, name, value, "issuer.identity.")?;
        }
        issuer.insert("identity".to_owned(), Toml::Table(table));
    }
    file.insert("issuer".to_owned(), Toml::Table(issuer));

    let mut delivery = take_table(&mut file, "delivery");
    delivery.remove("mode");
    delivery.extend(draft.delivery.map(|mode| ("mode".to_owned(), Toml::String(mode.word().to_owned()))));
    let mut former = take_table(&mut delivery, "env");
    let variables: Table = draft
        .variables
        .iter()
        .map(|name| (name.clone(), former.remove(name).unwrap_or_else(|| Toml::String("token".to_owned()))))
        .collect();
    put(&mut delivery, "env", variables);
    put(&mut file, "delivery", delivery);

    let mut gateway = take_table(&mut file, "gateway");
    gateway.remove("only");
    gateway.remove("containers");
    if !draft.only.is_empty() {
        gateway.insert("only".to_owned(), Toml::Array(draft.only.iter().cloned().map(Toml::String).collect()));
    }
    if draft.containers {
        gateway.insert("containers".to_owned(), Toml::Boolean(true));
    }
    put(&mut file, "gateway", gateway);

    file.remove("confirm");
    if draft.confirm {
        file.insert("confirm".to_owned(), Toml::Boolean(true));
    }
    let mut fence = take_table(&mut file, "fence");
    let FenceDraft { requests_per_minute, requests, models, usd } = &draft.fence;
    for (name, limit) in [("requests_per_minute", requests_per_minute), ("requests", requests)] {
        fence.remove(name);
        if let Some(limit) = limit {
            insert(&mut fence, name, &(*limit).into(), "fence.")?;
        }
    }
    fence.remove("models");
    insert(&mut fence, "models", &models.as_slice().into(), "fence.")?;
    fence.remove("usd");
    fence.extend(usd.map(|usd| ("usd".to_owned(), Toml::Float(usd))));
    put(&mut file, "fence", fence);

    let mut limits = take_table(&mut file, "limits");
    limits.remove("max_ttl");
    limits.extend(draft.max_ttl.clone().map(|ttl| ("max_ttl".to_owned(), Toml::String(ttl))));
    put(&mut file, "limits", limits);
    Ok(file.to_string())
}

/// What differs between two profile files, in lines for a prompt; first the issuer, then the gateway, since they tell where a
/// credential goes, then what keeps it from being used at will.
pub(crate) fn changes(former: &str, new: &str) -> Result<String, Fault> {
    let (former, new) = (flat(parse(former)?), flat(parse(new)?));
    let all: BTreeSet<&String> = former.keys().chain(new.keys()).collect();
    let mut differ: Vec<_> = all.into_iter().filter(|key| former.get(*key) != new.get(*key)).collect();
    let guards = |key: &str| key == "confirm" || key.starts_with("fence.");
    differ.sort_by_key(|key| (!key.starts_with("issuer."), !key.starts_with("gateway."), !guards(key)));
    let line = |key: &&String| {
        let shown = |file: &BTreeMap<String, String>| file.get(*key).map(|value| name(value, VALUE_MAX));
        match (shown(&former), shown(&new)) {
            (Some(was), Some(is)) => format!("{}: {was} → {is}", name(key, 60)),
            (was, is) => format!("{}: {} → {}", name(key, 60), was.unwrap_or_default(), is.unwrap_or_default()),
        }
    };
    let mut lines: Vec<_> = differ.iter().take(CHANGES_MAX).map(line).collect();
    if differ.len() > CHANGES_MAX {
        lines.push(format!("… and {} more", differ.len() - CHANGES_MAX));
    }
    if lines.is_empty() {
        lines.push("Nothing differs.".to_owned());
    }
    Ok(lines.join("\n"))
}

/// Each value by its path: `issuer.identity.kind`.
fn flat(file: Table) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in file {
        match value {
            Toml::Table(inner) => out.extend(flat(inner).into_iter().map(|(rest, v)| (format!("{key}.{rest}"), v))),
            value => drop(out.insert(key, json(value).to_string())),
        }
    }
    out
}

fn parse(text: &str) -> Result<Table, Fault> {
    // The parser's own message would quote the file.
    toml::from_str(text).map_err(|e| Fault::new(Code::ProfileInvalid).cause(format!("it is not TOML: {}", e.message())))
}

/// Takes a section out; what is none is left where it stands.
fn take_table(file: &mut Table, name: &str) -> Table {
    match file.remove(name) {
        Some(Toml::Table(table)) => table,
        Some(other) => {
            file.insert(name.to_owned(), other);
            Table::new()
        }
        None => Table::new(),
    }
}

fn take_text(table: &mut Table, name: &str) -> Option<String> {
    match table.remove(name) {
        Some(Toml::String(text)) => Some(text),
        Some(other) => {
            table.insert(name.to_owned(), other);
            None
        }
        None => None,
    }
}

fn texts(value: Option<Toml>) -> Vec<String> {
    match value {
        Some(Toml::Array(all)) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

fn number(table: &mut Table, name: &str) -> Option<u64> {
    table.remove(name).and_then(|value| u64::try_from(value.as_integer()?).ok())
}

fn put(file: &mut Table, name: &str, table: Table) {
    if !table.is_empty() {
        file.insert(name.to_owned(), Toml::Table(table));
    }
}

fn fields(table: Table) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: Toml) -> Value {
    match value {
        Toml::String(text) => Value::String(text),
        Toml::Integer(number) => number.into(),
        Toml::Float(number) => number.into(),
        Toml::Boolean(flag) => flag.into(),
        Toml::Datetime(time) => Value::String(time.to_string()),
        Toml::Array(list) => list.into_iter().map(json).collect(),
        Toml::Table(table) => Value::Object(fields(table)),
    }
}

/// Adds a field; an empty one is left out, since the editor shows a field that is not there as an empty one.
fn insert(table: &mut Table, name: &str, value: &Value, at: &str) -> Result<(), Fault> {
    let empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    if !empty {
        let value = toml(value, DEPTH_MAX).ok_or_else(|| {
            let name = keyward_diag::plain(name, 40);
            Fault::new(Code::ProfileInvalid).cause(format!("`{at}{name}` holds something that a profile cannot hold"))
        })?;
        table.insert(name.to_owned(), value);
    }
    Ok(())
}

fn toml(value: &Value, depth: usize) -> Option<Toml> {
    let depth = depth.checked_sub(1)?;
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => Toml::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Toml::Integer(number),
            None => Toml::Float(number.as_f64().filter(|_| !number.is_u64())?),
        },
        Value::String(text) => Toml::String(text.clone()),
        Value::Array(list) => Toml::Array(list.iter().map(|v| toml(v, depth)).collect::<Option<_>>()?),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| Some((name.clone(), toml(value, depth)?)));
            Toml::Table(fields.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    const FEDERATED: &str = r#"
confirm = true
[issuer]
kind = "anthropic-federation"
federation_rule_id = "fdrl_01"
organization_id = "00000000-0000-0000-0000-000000000000"
[issuer.identity]
kind = "command"
argv = ["/bin/mint", "-x"]
env = { A_TOKEN = "secret:a" }
[delivery]
mode = "gateway"
[gateway]
only = ["POST /v1/messages", "GET /v1/models/{id}"]
containers = true
[fence]
requests = 1000
models = ["claude-sonnet-*"]
usd = 5.5
[limits]
max_ttl = "1h"
"#;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_profile_becomes_a_draft_and_the_same_profile_again() {
        let draft = read("a", FEDERATED).unwrap();
        assert_eq!((draft.name.as_str(), draft.issuer.as_str()), ("a", "anthropic-federation"));
        assert_eq!(draft.fields["federation_rule_id"], "fdrl_01");
        assert!(!draft.fields.contains_key("kind") && !draft.fields.contains_key("identity"));
        let identity = draft.identity.as_ref().unwrap();
        assert_eq!((identity.kind.as_str(), &identity.fields["argv"]), ("command", &json!(["/bin/mint", "-x"])));
        assert_eq!((draft.delivery, draft.max_ttl.as_deref()), (Some(DeliveryMode::Gateway), Some("1h")));
        assert_eq!((draft.only.len(), draft.containers, draft.confirm), (2, true, true));
        let fence = &draft.fence;
        assert_eq!((fence.requests, fence.requests_per_minute, fence.usd), (Some(1000), None, Some(5.5)));
        assert_eq!(fence.models, ["claude-sonnet-*"]);
        assert_eq!(table(&write(&draft, None).unwrap()), table(FEDERATED));
        assert_eq!(table(&write(&draft, Some(FEDERATED)).unwrap()), table(FEDERATED));
    }

    #[test]
    fn what_the_editor_does_not_know_survives_an_edit() {
        let stored = r#"
later = 1
[issuer]
kind = "static"
secret = "secret:a"
depth = 3
[gateway]
base_url = "https://api.example"
header = "x-key"
only = ["GET /a"]
containers = false
[delivery]
audience = "x"
env = { A = "token", B = "header" }
[limits]
max_ttl = "1h"
uses = 3
[notes]
why = "…"
"#;
        let mut draft = read("a", stored).unwrap();
        assert_eq!(draft.fields["depth"], 3);
        draft.fields.insert("secret".into(), json!("secret:b"));
        draft.variables = vec!["B".into(), "C".into()];
        draft.max_ttl = None;
        assert_eq!((draft.only.as_slice(), draft.containers), (&["GET /a".to_owned()][..], false));
        draft.only.push("GET /b".into());
        let written = table(&write(&draft, Some(stored)).unwrap());
        let want = r#"
later = 1
[issuer]
kind = "static"
secret = "secret:b"
depth = 3
[gateway]
base_url = "https://api.example"
header = "x-key"
only = ["GET /a", "GET /b"]
[delivery]
audience = "x"
env = { B = "header", C = "token" }
[limits]
uses = 3
[notes]
why = "…"
"#;
        assert_eq!(written, table(want));
    }

    #[test]
    fn what_was_emptied_is_gone_and_what_toml_cannot_hold_is_refused() {
        let mut draft = read("a", FEDERATED).unwrap();
        draft.fields.insert("workspace_id".into(), json!(""));
        draft.fields.insert("service_account_id".into(), Value::Null);
        draft.identity = None;
        draft.delivery = None;
        draft.max_ttl = None;
        draft.only.clear();
        draft.containers = false;
        draft.confirm = false;
        draft.fence = FenceDraft::default();
        let written = table(&write(&draft, Some(FEDERATED)).unwrap());
        assert_eq!(written.keys().collect::<Vec<_>>(), ["issuer"]);
        assert_eq!(written["issuer"].as_table().unwrap().len(), 3);
        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        for bad in [deep, json!([null]), json!(u64::MAX)] {
            draft.fields.insert("x".into(), bad.clone());
            assert!(write(&draft, None).is_err_and(|f| f.code == Code::ProfileInvalid), "{bad}");
        }
    }

    #[test]
    fn a_prompt_says_what_changes_and_where_it_goes_first() {
        let of = |file: &str| format!("[issuer]\nkind = \"x\"\n{file}");
        assert_eq!(changes(&of(""), &of("")).unwrap(), "Nothing differs.");
        let mut hostile =
            "endpoint = \"https://evil.example\\n\u{202e}\"\n[gateway]\nheader = \"x\"\n[delivery.env]\n".to_owned();
        hostile.extend((0..50).map(|n| format!("A{n} = \"{}\"\n", "x".repeat(1_000))));
        let told = changes(&of("endpoint = \"https://good.example\"\n"), &of(&hostile)).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert!(lines[0].starts_with("issuer.endpoint: \"https://good.example\" → \"https://evil.example"), "{told}");
        assert_eq!((lines[1], lines.len(), lines[8]), ("gateway.header:  → \"x\"", 9, "… and 44 more"), "{told}");
        assert!(!told.contains('\u{202e}') && lines.iter().all(|line| line.chars().count() < 400), "{told}");
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let fault = read("a", "[issuer]\nsecret = sk-live-XYZ").unwrap_err();
        assert!(!fault.to_string().contains("XYZ"), "{fault}");
    }
}
