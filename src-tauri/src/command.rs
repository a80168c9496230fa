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
