//! portal-audit.

pub mod connect;
pub mod conninfo;
pub mod lsn;
pub mod timestamp;
pub mod wire;
