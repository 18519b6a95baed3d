//! The integration tests: one binary, one real PostgreSQL, a database and a slot for each test.

#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should say so at once; `pub` says here what the tests may use"
)]

mod access;
mod ask;
mod attacks;
mod attempts;
mod budget;
mod canary;
mod changes;
mod check;
mod contexts;
mod cookbook;
mod coverage;
mod covered;
mod demo;
mod deploy;
mod export;
mod facility;
mod facility_verb;
mod failover;
mod fold;
mod fuzz;
mod gap;
mod garbage;
mod hostile;
mod ignored;
mod killed;
mod kratos;
mod large;
mod logins;
mod mapping;
mod names;
mod network;
mod operators;
mod ops;
mod oracle;
mod order;
mod outages;
mod pages;
mod privileges;
mod proof;
mod publication;
mod reconcile;
mod replay;
mod restart;
mod retain;
mod schema;
mod seals;
mod service;
mod several;
mod shapes;
mod shutdown;
mod slot;
mod soak;
mod source_server;
mod sources;
mod steps;
mod support;
mod target;
mod tidy;
mod tls;
mod tls_logins;
mod tools;
mod types;
mod undeliverable;
mod unreadable;
mod values;
mod views;
mod web;
mod web_facilities;
mod web_jwt;
mod web_more;
