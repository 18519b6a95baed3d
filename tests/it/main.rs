//! The integration tests: one binary, one real PostgreSQL, a database and a slot for each test.

#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should say so at once; `pub` says here what the tests may use"
)]

mod attempts;
mod canary;
mod changes;
mod contexts;
mod coverage;
mod covered;
mod demo;
mod gap;
mod ignored;
mod kratos;
mod large;
mod mapping;
mod names;
mod ops;
mod oracle;
mod publication;
mod replay;
mod restart;
mod schema;
mod shapes;
mod slot;
mod sources;
mod support;
mod tidy;
mod tools;
mod values;
