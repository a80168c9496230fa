//! Dev only: throw-away homes, brokers and daemons for tests.
