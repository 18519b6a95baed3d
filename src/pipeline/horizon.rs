//! Up to which time the log has certainly been read, for what waits for a row that may yet come.
//!
//! A keepalive does not tell: while the server works through what is behind, it answers with its own clock of now and a position of long ago. So, when something is due, the source is asked once for its position and its clock together; as soon as the stream has passed that position, everything that was committed before that time has been read.

use crate::{
    chain::chain,
    connect::{self, Session},
    conninfo::ConnInfo,
    lsn::Lsn,
    timestamp::Timestamp,
};
use std::time::Duration;
use tokio::time::timeout;

/// How long the source has to answer; it is asked again at the next keepalive. The stream is not read meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the source answered last.
#[derive(Debug)]
pub(super) struct Horizon {
    conninfo: ConnInfo,
    source: String,
    answered: Option<(Lsn, Timestamp)>,
    /// The keepalive at which it was asked last.
    asked_at: Option<Timestamp>,
}

impl Horizon {
    pub(super) fn new(conninfo: ConnInfo, source: String) -> Self {
        Self { conninfo, source, answered: None, asked_at: None }
    }

    /// Whether the stream, which stands at `wal_end` by the server's `server_time`, has passed `deadline`; then a time behind it up to which everything was read.
    pub(super) async fn passed(
        &mut self,
        deadline: Timestamp,
        wal_end: Lsn,
        server_time: Timestamp,
    ) -> Option<Timestamp> {
        if server_time <= deadline {
            return None;
        }
        let is_answered = self.answered.is_some_and(|(_, time)| time > deadline);
        if !is_answered && self.asked_at != Some(server_time) {
            self.asked_at = Some(server_time);
            self.answered = self.ask().await;
        }
        let (position, time) = self.answered?;
        (wal_end >= position && time > deadline).then_some(time)
    }

    async fn ask(&self) -> Option<(Lsn, Timestamp)> {
        const QUERY: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text, clock_timestamp()";
        let asking = async {
            let session: Session = match connect::connect(&self.conninfo, &self.source).await {
                Ok(session) => session,
                Err(error) => return Err(chain(&error)),
            };
            let row = session.client.query_one(QUERY, &[]).await;
            let row = row.map_err(|error| connect::describe(&error))?;
            let time = Timestamp::from(row.get::<_, chrono::DateTime<chrono::Utc>>(1));
            let position = row.get::<_, Option<&str>>(0).and_then(|text| text.parse().ok());
            Ok(position.map(|position| (position, time)))
        };
        match timeout(ANSWER_MAX, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(source = self.source, error, "cannot ask for the position");
                None
            }
            Err(_elapsed) => {
                tracing::warn!(source = self.source, "no answer to where the log stands");
                None
            }
        }
    }
}
