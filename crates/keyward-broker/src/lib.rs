//! The broker: the only process that holds keys and credentials.
