//! End-to-end tests of the built binaries live beside this file, one folder per area.
