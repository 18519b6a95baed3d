//! The integration tests: one binary, one real PostgreSQL, a database and a slot for each test.

mod changes;
mod support;
