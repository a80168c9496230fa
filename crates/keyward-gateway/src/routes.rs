//! The APIs that the gateway knows: data, in `data/routes.toml`.

/// One API. Stub of the contract: filled in by whoever owns this file.
#[derive(Debug)]
pub struct Route {
    /// Its name: `anthropic`, `bedrock`, `vertex`, `foundry`, `openai`, `gemini`, `github`, `generic`.
    pub name: String,
}
