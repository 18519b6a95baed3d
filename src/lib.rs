//! portal-audit.

pub mod lsn;
pub mod timestamp;
