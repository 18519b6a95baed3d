//! portal-audit.

pub mod conninfo;
pub mod connect;
pub mod lsn;
pub mod timestamp;
