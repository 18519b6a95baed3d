//! portal-audit.

pub mod decode;
pub mod demo;
pub mod event;
pub mod lsn;
pub mod spool;
pub mod timestamp;
pub mod transaction;
pub mod translate;
pub mod tuple;
