//! A real PostgreSQL in a temporary folder, for `demo` and for the tests.

pub mod cluster;
mod folder;
mod installation;
