//! Vocabulary, rules and state machines of Keyward.
//!
//! Time and randomness are arguments; nothing here reads a clock, a file, the environment or the network, and nothing is
//! `async`. Called by the store, the issuers and the broker.

pub mod audit;
