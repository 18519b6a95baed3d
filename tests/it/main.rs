//! The integration tests: one binary, one real PostgreSQL, a database and a slot for each test.

#![expect(unreachable_pub, reason = "in a test binary `pub` says what the tests may use")]

mod changes;
mod names;
mod restart;
mod slot;
mod support;
