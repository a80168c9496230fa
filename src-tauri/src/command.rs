//! The commands of the web view: each of `keyward-desk`, on a thread that may wait, and nothing besides.

use keyward_api::*;
use keyward_desk::*;
use keyward_diag::{Code, Fault};
use std::sync::Arc;
use tauri::{Builder, State, Wry};

/// Runs a command where it may block.
async fn on_thread<T: Send + 'static>(
    desk: &Arc<Desk>,
    command: impl FnOnce(&Desk) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let desk = Arc::clone(desk);
    let ended = tauri::async_runtime::spawn_blocking(move || command(&desk)).await;
    ended.unwrap_or_else(|_| Err(Fault::new(Code::Internal).cause("the command ended by a panic")))
}

macro_rules! commands {
    ($($summary:literal $name:ident($($request:ident)?) -> $reply:ty;)*) => {
        $(
            #[doc = $summary]
            #[tauri::command]
            async fn $name(desk: State<'_, Arc<Desk>>, $(request: $request)?) -> Result<$reply, Fault> {
                on_thread(&desk, move |desk| commands!(@call desk $name $($request request)?)).await
            }
        )*

        /// Adds all of them.
        pub(crate) fn add(builder: Builder<Wry>) -> Builder<Wry> {
            builder.invoke_handler(tauri::generate_handler![$($name),*])
        }
    };
    (@call $desk:ident $name:ident) => { $desk.$name() };
    (@call $desk:ident $name:ident $type:ident $request:ident) => { $desk.$name($request) };
}

keyward_desk::each_command!(commands);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::collections::BTreeSet;

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    /// Commands of the card window, which no other window may give.
    const OF_CARD: [&str; 2] = ["approval_answer", "card"];

    #[test]
    fn each_window_may_do_exactly_what_is_its_own_and_hear_events() {
        let (of_card, of_main): (Vec<&str>, Vec<&str>) =
            COMMANDS.iter().map(|c| c.name).partition(|name| OF_CARD.contains(name));
        assert_eq!(of_card.len(), OF_CARD.len());
        for (window, text, commands) in [
            ("main", include_str!("../capabilities/main.json"), of_main),
            ("card", include_str!("../capabilities/card.json"), of_card),
        ] {
            let file = json(text);
            assert_eq!(file["windows"], serde_json::json!([window]));
            assert_eq!((&file["local"], &file["remote"]), (&json("true"), &json("null")));
            let commands = commands.iter().map(|name| format!("allow-{}", name.replace('_', "-")));
            let events = ["core:event:allow-listen", "core:event:allow-unlisten"].map(str::to_owned);
            let want: BTreeSet<_> = commands.chain(events).collect();
            let listed = file["permissions"].as_array().unwrap();
            let have: BTreeSet<_> = listed.iter().map(|p| p.as_str().unwrap().to_owned()).collect();
            assert_eq!(have, want, "{window}");
            assert_eq!(listed.len(), want.len(), "{window}: none twice");
        }
    }

    #[test]
    fn the_build_knows_the_same_commands() {
        let document = json(include_str!("../../ui/commands.json"));
        let paths = document["paths"].as_object().unwrap();
        let built: BTreeSet<_> = paths.keys().filter_map(|path| path.strip_prefix("/command/")).collect();
        assert_eq!(built, COMMANDS.iter().map(|c| c.name).collect());
    }

    #[test]
    fn the_window_loads_nothing_from_elsewhere() {
        let config = json(include_str!("../tauri.conf.json"));
        assert_eq!(config["app"]["windows"], json("[]"), "made on demand");
        assert_eq!(config["app"]["withGlobalTauri"], json("false"));
        let security = &config["app"]["security"];
        assert_eq!(security["capabilities"], json(r#"["main", "card"]"#));
        let policy = security["csp"].as_object().unwrap();
        for (name, sources) in policy {
            for source in sources.as_str().unwrap().split(' ') {
                let known = matches!(source, "'none'" | "'self'" | "data:" | "ipc:" | "http://ipc.localhost")
                    || (name == "style-src-attr" && source == "'unsafe-inline'");
                assert!(known, "{name} {source}");
            }
        }
        for name in ["default-src", "object-src", "base-uri", "form-action", "frame-ancestors"] {
            assert_eq!(policy[name], json("\"'none'\""), "{name}");
        }
    }
}
