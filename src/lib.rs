//! portal-audit.

pub mod demo;
pub mod lsn;
pub mod timestamp;
