//! A session of the audit database, and what a writer has prepared there.

use super::{
    EVENT_COLUMNS, WriteError, answered,
    names::{FORGET_NAMES, GIVE_NAMES},
    seal::SEAL,
};
use crate::connect::Session;
use std::time::Duration;
use tokio_postgres::Statement;

const ADVANCE: &str = "portal_audit.advance";
const EVENTS_OF_ARRAYS: &str = "unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[], $10::text[]) AS e (event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload)";
const EVENT_VALUES: &str = "e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload::jsonb";

#[derive(Debug)]
pub(super) struct Hand {
    pub(super) session: Session,
    /// Passes over events that are there; gives the ids of the others.
    pub(super) insert: Statement,
    /// Is refused where an event is there.
    pub(super) insert_new: Statement,
    pub(super) copy: Statement,
    pub(super) insert_and_advance: Statement,
    pub(super) advance: Statement,
    pub(super) seal: Statement,
    pub(super) give_names: Statement,
    pub(super) forget_names: Statement,
}

impl Hand {
    /// # Errors
    /// The audit database does not answer, or lacks `events` as it is given.
    pub(super) async fn new(session: Session, timeout: Duration) -> Result<Self, WriteError> {
        let prepare = async |sql: String| {
            answered(timeout, "prepare its statements", session.client.prepare(&sql)).await
        };
        let into =
            format!("INSERT INTO public.events ({EVENT_COLUMNS}) SELECT {EVENT_VALUES} FROM");
        let pass_over = "ON CONFLICT DO NOTHING RETURNING event_uuid";
        let insert = prepare(format!("{into} {EVENTS_OF_ARRAYS} {pass_over}")).await?;
        let insert_new = prepare(format!("{into} {EVENTS_OF_ARRAYS}")).await?;
        let copy = format!("COPY public.events ({EVENT_COLUMNS}) FROM STDIN (FORMAT binary)");
        let copy = prepare(copy).await?;
        let insert_and_advance = prepare(format!(
            "{into} {ADVANCE}($11, $12, $13, $14, $15, $16, $17, $18) AS moved, {SEAL}($11, $19, $20, $21, $22) AS sealed, {EVENTS_OF_ARRAYS}"
        ))
        .await?;
        let advance = prepare(format!("SELECT {ADVANCE}($1, $2, $3, $4, $5, $6, $7, $8)")).await?;
        let seal = prepare(format!("SELECT {SEAL}($1, $2, $3, $4, $5)")).await?;
        let give_names = prepare(GIVE_NAMES.to_owned()).await?;
        let forget_names = prepare(FORGET_NAMES.to_owned()).await?;
        Ok(Self {
            session,
            insert,
            insert_new,
            copy,
            insert_and_advance,
            advance,
            seal,
            give_names,
            forget_names,
        })
    }
}
