//! portal-audit: audit events from a PostgreSQL portal's write-ahead log.
//!
//! # The flow
//! ```text
//!  portal database                                                     audit database
//!    walsender ══bytes══▶ wire ─Frame─▶ decode ─Message─▶ transaction
//!        ▲                                                     │ Transaction
//!        ║ status update                                       ▼
//!        ╚══════ confirm ◀──end_lsn── write ◀──Batch── translate (mapping, names, caller)
//! ```
//! One noun per stage; "event" only ever means an audit event.
//!
//! | stage | module | takes | gives |
//! | --- | --- | --- | --- |
//! | 1 wire | [`wire`] | bytes of the socket | [`wire::Frame`] |
//! | 2 decode | [`decode`] | payload of a frame | [`decode::Message`], borrowed |
//! | 3 transaction | [`transaction`], [`spool`] | messages | [`transaction::Transaction`], of any size |
//! | 4 translate | [`translate`] by [`mod@tuple`] and [`event`] | a transaction | [`translate::Batch`] of events |
//! | 5 write | [`mod@write`] | a batch and where it ends | rows of `events`, durable |
//! | confirm | [`pipeline`] | the written position | a status update |
//!
//! What the optional attempt trigger says stands outside transactions; [`pipeline`] asks the source how those transactions ended, and [`translate::attempt`] makes events of the ones that were rolled back.
//!
//! Before the first frame [`catalog`] reads what the source is, [`continuity`] decides whether it joins what is written, and [`snapshot`] reads what is older than the slot. [`budget`] looks after what the slot keeps on the source's disk. [`pipeline`] alone knows all the stages, and tells [`metrics`] what it does; [`service`] runs it under a service manager, reads settings again on SIGHUP, and lets [`serve`] show the metrics and [`web`] the pages. Beside the sources [`keep`] keeps the tables up that admins ask: what was there at any time, and numbers. [`demo`] runs the whole on a throwaway server, which the tests use too.
//!
//! Beside the flow stand what people ask: [`check`] finds what would go wrong and says how to mend it, [`tools`] has the verbs around mappings, [`coverage`] judges what was asked for by the live configuration, [`explain`] tells where one event comes from, [`replay`] runs a recorded stream through two mappings, [`ask`] reads the log itself by the conditions of [`filter`], and [`mod@export`] writes it to files; for users of the portal [`own`] finds what they may see. They read, and nothing of the flow uses them. [`retain`] alone takes away: by retention, and by erasure. [`facility`] tells the states of facilities, keeps what operators announce and whether addresses answer, and [`map`] draws them.
//!
//! Each row has a leaf ([`mod@leaf`]) in its source's tree, written with it; [`proof`] signs checkpoints ([`note`]) of the trees ([`merkle`]), and verifies the record.
//!
//! # Invariants
//! 1. decode, tuple, transaction, translate and event read no clock, draw no random number and do no IO (but for the spool file of a transaction that memory does not hold): the same bytes always give the same events with the same ids, streamed or not.
//! 2. Nothing is confirmed before `write` has committed it; events, names and progress commit in one audit transaction. At every instant the slot's `confirmed_flush_lsn` ≤ progress.
//! 3. Nothing is dropped in silence: an unmapped change is counted and shown, a value that the table cannot hold is represented and flagged, an unreadable message stops its source.
//! 4. Only columns that a mapping names reach an event; the deny list beats every mapping; values reach neither a log line nor an error message. What other crates log is not printed for that reason.
//! 5. What the portal means stands in the mapping: no table or column name of a source in Rust, but for Ory Kratos ([`translate::kratos`]), whose logins no single row tells.
//! 6. Nothing writes to a source, and no source waits for us: the slot is all that we keep there, and it goes when it keeps too much. One source down never stops another.
//! 7. `events` stays as it was given: no column, index or foreign key of ours.
//! 8. Every buffer, wait and retry has a limit with a name, in [`config::Limits`] or beside its use.
//!
//! Who may use whom is a table in `tests/it/tidy.rs`; arrows go one way.

pub mod ask;
pub mod budget;
pub mod catalog;
pub mod chain;
pub mod check;
pub mod cli;
pub mod config;
pub mod connect;
pub mod conninfo;
pub mod continuity;
pub mod coverage;
pub mod decode;
pub mod demo;
pub mod event;
pub mod explain;
pub mod export;
pub mod facility;
pub mod filter;
pub mod keep;
pub mod leaf;
pub mod lsn;
pub mod map;
pub mod merkle;
pub mod metrics;
pub mod note;
pub mod own;
pub mod pipeline;
pub mod proof;
pub mod replay;
pub mod retain;
pub mod serve;
pub mod service;
pub mod show;
pub mod snapshot;
pub mod spool;
pub mod sql;
pub mod status;
pub mod timestamp;
pub mod tools;
pub mod transaction;
pub mod translate;
pub mod tuple;
pub mod web;
pub mod wire;
pub mod write;
