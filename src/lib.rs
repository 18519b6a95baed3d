//! portal-audit.

pub mod conninfo;
pub mod lsn;
pub mod timestamp;
