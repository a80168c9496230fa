//! What is on this machine: programs, agents, terminal emulators, and credentials that lie about.
//!
//! Looks at files and reads them; executes nothing that it finds, asks no network and no broker, and changes nothing. A secret
//! that is read stays in a `SecretText`. Called by the command line and by the desktop.

pub mod agents;
pub mod find;
pub mod logins;
pub mod lookup;
pub mod terminal;
