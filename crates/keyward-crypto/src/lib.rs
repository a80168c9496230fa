//! Envelopes, key derivation, key slots and the chain MAC; pure.
