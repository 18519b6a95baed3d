//! portal-audit.

pub mod catalog;
pub mod chain;
pub mod cli;
pub mod config;
pub mod connect;
pub mod conninfo;
pub mod coverage;
pub mod decode;
pub mod demo;
pub mod event;
pub mod lsn;
pub mod pipeline;
pub mod show;
pub mod snapshot;
pub mod spool;
pub mod sql;
pub mod status;
pub mod timestamp;
pub mod transaction;
pub mod translate;
pub mod tuple;
pub mod wire;
pub mod write;
