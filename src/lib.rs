//! portal-audit.

pub mod decode;
pub mod lsn;
pub mod spool;
pub mod timestamp;
pub mod transaction;
