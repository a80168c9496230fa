//! Blocking client of the LocalAPI.
