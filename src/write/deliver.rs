//! Events into an open audit transaction, and what becomes of those that the audit database refuses.
//!
//! # One event must not stop all
//! `events` was given, so others may have put constraints and triggers on it. Where such a thing refuses one event, the piece is taken back to its savepoint and inserted in halves of halves until that event is alone; a stand-in takes its place ([`undeliverable`]), and the source transaction stays whole. What is refused for all, because of privileges, of space or of a column that is not there, is no event's fault: then nothing is written, and the pipeline waits or stops as for any fault. So it does where even the stand-in is refused.

use super::parameters::{Arrays, put_event};
use super::{COPY_CHUNK_BYTES, Hand, INSERT_EVENTS_MAX, Leaves, WriteError, Writer, answered};
use crate::{
    event::{Event, Events},
    translate::undeliverable::{self, Refusal},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, future};
use std::{collections::HashSet, ops::Range, pin::Pin};
use tokio_postgres::CopyInSink;
use uuid::Uuid;

/// Events that become COPY data and leaves in one go.
const SENT_TOGETHER: usize = 64;
/// A COPY that is not finished.
type Copying = CopyInSink<Bytes>;

/// SQLSTATE of an event that is there already.
const EXISTS: &str = "23505";
/// SQLSTATE of COPY into a table whose policies hold this login: `feature_not_supported`; the manual says to use INSERT.
const NO_COPY: &str = "0A000";

/// Whether a refusal may be about one event and not about all: by its class (manual, appendix A), which is about data, constraints, limits or what a trigger raised. 23505 is an event that is there already.
fn is_of_an_event(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // The standard leaves these to others; those that PostgreSQL uses are about the server, but for P0, which triggers raise.
    let is_their_own = class.starts_with(|first| matches!(first, '5'..='9' | 'I'..='Z'))
        && !matches!(class, "53" | "54" | "55" | "57" | "58" | "72" | "PA" | "XX");
    let is_of_data = matches!(class, "09" | "21" | "22" | "23" | "27" | "38" | "39" | "44" | "54");
    (is_of_data || is_their_own) && code != EXISTS
}

impl WriteError {
    /// How an event was refused, if that may be its own fault.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let Self::Database { report, .. } = self else { return None };
        let report = report.as_db_error().filter(|report| is_of_an_event(report.code().code()))?;
        let constraint = report.constraint().map(str::to_owned);
        Some(Refusal { sqlstate: report.code().code().to_owned(), constraint })
    }
}

impl Writer {
    /// Adds events to the audit transaction, which it opens if need be; by COPY, unless some of them may be there already. COPY is refused where one is, and says so.
    pub(super) async fn deliver(&mut self, events: &Events) -> Result<(), WriteError> {
        // Awaited: what is sent behind a BEGIN that fails would be committed by itself.
        self.open().await?;
        if events.is_empty() {
            return Ok(());
        }
        // One is enough, or they would pile up.
        let savepoint = match std::mem::replace(&mut self.has_savepoint, true) {
            true => "RELEASE SAVEPOINT events; SAVEPOINT events",
            false => "SAVEPOINT events",
        };
        self.leaves.truncate(0);
        if self.may_exist() || self.is_copy_refused {
            answered(self.timeout, "begin", self.hand.session.client.batch_execute(savepoint))
                .await?;
        } else if self.copy_all(savepoint, events).await? {
            self.count_leaves();
            return Ok(());
        }
        self.insert_all(events).await?;
        self.seal_piece().await
    }

    /// Seals what was inserted.
    pub(super) async fn seal_piece(&mut self) -> Result<(), WriteError> {
        self.seal(&self.leaves).await?;
        self.count_leaves();
        Ok(())
    }

    /// All by COPY, behind a savepoint, and their leaves behind them; `false` if that cannot be, and then none is there.
    async fn copy_all(&mut self, savepoint: &str, events: &Events) -> Result<bool, WriteError> {
        let mut leaves = std::mem::take(&mut self.leaves);
        let begin = self.hand.session.client.batch_execute(savepoint);
        let begin = answered(self.timeout, "begin", begin);
        let copied = self.copy_and_seal(events, &mut leaves);
        // Each is sent when it is looked at first, so in this order.
        let (begun, (copied, sealed)) = future::join(begin, copied).await;
        self.leaves = leaves;
        begun?;
        match copied {
            Ok(copied) if copied == events.len() as u64 => return sealed.map(|()| true),
            // A trigger has left some out.
            Ok(_fewer) => self.is_guarded = true,
            Err(error) => self.not_new(error)?,
        }
        self.leaves.truncate(0);
        self.back_to("events").await?;
        Ok(false)
    }

    /// Tells how many events were added, and what became of their leaves.
    pub(super) async fn copy_and_seal(
        &self,
        events: &Events,
        leaves: &mut Leaves,
    ) -> (Result<u64, WriteError>, Result<(), WriteError>) {
        match self.send_copy(&self.hand, events, leaves).await {
            Ok(sink) => future::join(self.finish_copy(sink), self.seal(leaves)).await,
            Err(error) => (Err(error), Ok(())),
        }
    }

    /// Notes why events must be inserted one by one: some are there already, because the log is read again, from an earlier position or through another slot; some were refused; or COPY was. Other faults are faults.
    pub(super) fn not_new(&mut self, error: WriteError) -> Result<(), WriteError> {
        let code = error.sqlstate();
        self.met_existing = code == Some(EXISTS);
        self.is_copy_refused |= code == Some(NO_COPY);
        if matches!(code, Some(EXISTS | NO_COPY)) || error.refusal().is_some() {
            return Ok(());
        }
        Err(self.told(error))
    }

    /// Inserts all that are not there, and stand-ins for those that are refused; notes whether some were there.
    async fn insert_all(&mut self, events: &Events) -> Result<(), WriteError> {
        let (mut refused, mut first) = (0_u64, None);
        let all = 0..events.len();
        // The last of them is tried first.
        let mut left = vec![all];
        while let Some(range) = left.pop() {
            let Some((event_type, refusal)) = self.try_insert(events, range.clone()).await? else {
                continue;
            };
            if range.len() > 1 {
                let middle = range.start + range.len() / 2;
                left.extend([middle..range.end, range.start..middle]);
                continue;
            }
            refused += 1;
            first.get_or_insert((events.relation_of(range.start), event_type, refusal));
        }
        self.met_existing = self.leaves.len() < events.len();
        if let Some((relation, event_type, Refusal { sqlstate, constraint })) = first {
            self.declare([(
                undeliverable::EVENT_TYPE,
                undeliverable::DESCRIBE,
                undeliverable::RETENTION,
                undeliverable::VISIBLE_TO,
            )])
            .await?;
            let source = self.source.as_str();
            tracing::error!(
                source,
                events = refused,
                relation,
                event_type,
                sqlstate,
                constraint,
                "the audit database refused events: each has a stand-in of type undeliverable"
            );
        }
        Ok(())
    }

    /// Inserts a range of events, or of a single one that is refused its stand-in; gives the refusal, and the type of its first event.
    async fn try_insert<'a>(
        &mut self,
        events: &'a Events,
        range: Range<usize>,
    ) -> Result<Option<(&'a str, Refusal)>, WriteError> {
        let begin = self.hand.session.client.batch_execute("SAVEPOINT part");
        answered(self.timeout, "begin", begin).await?;
        let mut found = None;
        if let Err(error) = self.insert(events, range.clone()).await {
            let Some(refusal) = error.refusal() else { return Err(error) };
            let Some(event) = events.iter().nth(range.start) else { return Err(error) };
            self.back_to("part").await?;
            if range.len() == 1 {
                let relation = events.relation_of(range.start);
                self.stand_in(&event, relation, &refusal).await?;
            }
            found = Some((event.event_type, refusal));
        }
        let end = self.hand.session.client.batch_execute("RELEASE SAVEPOINT part");
        answered(self.timeout, "go on", end).await?;
        Ok(found)
    }

    async fn back_to(&self, savepoint: &str) -> Result<(), WriteError> {
        let back = format!("ROLLBACK TO SAVEPOINT {savepoint}");
        answered(self.timeout, "go back", self.hand.session.client.batch_execute(&back)).await
    }

    async fn stand_in(
        &mut self,
        event: &Event<'_>,
        relation: Option<&str>,
        refusal: &Refusal,
    ) -> Result<(), WriteError> {
        let mut stand_in = Events::default();
        undeliverable::tell(&self.source, (event, relation), refusal, &mut stand_in);
        self.insert(&stand_in, 0..stand_in.len()).await
    }

    /// A range of events, passing over those that are there. The others are to be sealed.
    pub(super) async fn insert(
        &mut self,
        events: &Events,
        range: Range<usize>,
    ) -> Result<(), WriteError> {
        let before = self.leaves.len();
        let all: Vec<Event<'_>> = events.iter().skip(range.start).take(range.len()).collect();
        for chunk in all.chunks(INSERT_EVENTS_MAX) {
            let arrays = Arrays::new(chunk.iter().copied());
            let parameters = arrays.parameters();
            let query = self.hand.session.client.query(&self.hand.insert, &parameters);
            let rows = match answered(self.timeout, "insert events", query).await {
                Ok(rows) => rows,
                Err(error) => {
                    // What was inserted before goes with it.
                    self.leaves.truncate(before);
                    return Err(error);
                }
            };
            if rows.len() == chunk.len() {
                self.leaves.add(chunk.iter().copied())?;
                continue;
            }
            let mut new: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
            let new = chunk.iter().copied().filter(|event| new.remove(&event.event_uuid));
            self.leaves.add(new.collect::<Vec<_>>().into_iter())?;
        }
        Ok(())
    }

    /// Sends events and makes their leaves meanwhile: the audit database takes longer for its part, and need not wait for ours.
    pub(super) async fn send_copy(
        &self,
        hand: &Hand,
        events: &Events,
        leaves: &mut Leaves,
    ) -> Result<Pin<Box<Copying>>, WriteError> {
        let sink = hand.session.client.copy_in(&hand.copy);
        let mut sink = Box::pin(answered(self.timeout, "copy events", sink).await?);
        let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES + 4_096);
        chunk.put_slice(b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0");
        let mut left = events.iter();
        while left.len() > 0 {
            let part: Vec<Event<'_>> = left.by_ref().take(SENT_TOGETHER).collect();
            for event in &part {
                put_event(&mut chunk, event)?;
            }
            leaves.add(part.into_iter())?;
            if chunk.len() >= COPY_CHUNK_BYTES {
                let full: Bytes = chunk.split().freeze();
                answered(self.timeout, "copy events", sink.send(full)).await?;
            }
        }
        chunk.put_i16(-1);
        answered(self.timeout, "copy events", sink.send(chunk.freeze())).await?;
        Ok(sink)
    }

    /// Tells how many were added.
    pub(super) async fn finish_copy(&self, mut sink: Pin<Box<Copying>>) -> Result<u64, WriteError> {
        answered(self.timeout, "copy events", sink.as_mut().finish()).await
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_an_event;

    #[test]
    fn what_is_refused_for_all_is_no_events_fault() {
        for own in ["22021", "22P05", "23502", "23514", "54000", "54001", "P0001", "38000", "ZZ001"]
        {
            assert!(is_of_an_event(own), "{own}");
        }
        for general in [
            "23505", "08006", "25006", "28000", "40001", "42501", "42P01", "42703", "53100",
            "53200", "55P03", "57014", "57P01", "58030", "PA001", "XX000", "",
        ] {
            assert!(!is_of_an_event(general), "{general}");
        }
    }
}
