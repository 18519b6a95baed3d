//! The walsender's commands (manual, section 55.4).

use super::{
    Connection, ERROR_RESPONSE_TAG, FrameReader, StatusWriter, WireError, server_error,
    stream::split, unknown_message,
};
use crate::lsn::Lsn;
use bytes::Buf;
use postgres_protocol::message::{backend, frontend};

/// Tag of `CopyBothResponse`, which postgres-protocol does not know: it answers `START_REPLICATION`
/// and no other command.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// Quotes an identifier for a replication command or within an option's list of names, such as
/// `publication_names`.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a literal. The replication grammar knows doubled quotes and no backslashes.
fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Names the cluster; stays through a failover, differs after a dump and restore.
    pub system_identifier: u64,
    /// Counts the promotions.
    pub timeline: u32,
    /// The end of the WAL on disk.
    pub xlog_position: Lsn,
    /// The database connected to.
    pub database: String,
}

/// The answer to `CREATE_REPLICATION_SLOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The stream tells of what commits after this.
    pub consistent_point: Lsn,
    /// Names the snapshot that shows what committed before, for `SET TRANSACTION SNAPSHOT`. Valid
    /// only until the next command on this [`Connection`] or its end.
    pub snapshot: String,
}

impl Connection {
    /// The server's version as `server_version_num` gives it, 150004 for 15.4; `None` if it did not
    /// report one.
    #[must_use]
    pub fn server_version_num(&self) -> Option<u32> {
        let version = self.parameter("server_version")?;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit());
        let major: u32 = numbers.next()?.parse().ok()?;
        // "18beta1" is 18.0.
        let minor = version.split_once('.').and_then(|_| numbers.next()?.parse().ok());
        major.checked_mul(10_000)?.checked_add(minor.unwrap_or(0))
    }

    /// Asks which cluster, timeline and database this is.
    ///
    /// # Errors
    /// [`WireError`], as all commands.
    pub async fn identify_system(&mut self) -> Result<System, WireError> {
        let row = self.command("IDENTIFY_SYSTEM", "identifying the system").await?;
        let system = match row.as_slice() {
            [system, timeline, position, database] => (|| {
                Some(System {
                    system_identifier: system.parse().ok()?,
                    timeline: timeline.parse().ok()?,
                    xlog_position: position.parse().ok()?,
                    database: database.clone(),
                })
            })(),
            _ => None,
        };
        system.ok_or_else(|| WireError::protocol("unreadable answer to IDENTIFY_SYSTEM"))
    }

    /// Asks from which timelines a timeline came: the text of its history file (manual, section
    /// 26.3.6), one line for each ancestor with the position at which it was left.
    ///
    /// # Errors
    /// 58P01 for timeline 1, which has none.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<String, WireError> {
        let command = format!("TIMELINE_HISTORY {timeline}");
        let row = self.command(&command, "reading the timeline's history").await?;
        match row.as_slice() {
            [_file, history] => Ok(history.clone()),
            _ => Err(WireError::protocol("unreadable answer to TIMELINE_HISTORY")),
        }
    }

    /// Creates a logical slot for pgoutput and exports its snapshot. Waits for every open writing
    /// transaction of the cluster, at most `lock_timeout_ms` milliseconds for each (0: for ever);
    /// then fails with 55P03 and leaves no slot. `failover` lets standbys carry the slot on
    /// (17 and later). `version_num`: see [`server_version_num`](Self::server_version_num).
    ///
    /// # Errors
    /// [`WireError::Unsupported`] for `failover` on an older server; 42710 if the name is taken.
    pub async fn create_slot(
        &mut self,
        name: &str,
        version_num: u32,
        failover: bool,
        lock_timeout_ms: u32,
    ) -> Result<CreatedSlot, WireError> {
        if failover && version_num < 170_000 {
            return Err(WireError::Unsupported { what: "a slot with failover", since: 17 });
        }
        let options = match version_num {
            ..150_000 => "EXPORT_SNAPSHOT",
            _ if failover => "(SNAPSHOT 'export', FAILOVER true)",
            _ => "(SNAPSHOT 'export')",
        };
        let slot = quote_identifier(name);
        let during = format!("creating slot {slot}");
        self.command(&format!("SET lock_timeout = {lock_timeout_ms}"), &during).await?;
        let create = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}");
        let row = self.command(&create, &during).await?;
        let created = match row.as_slice() {
            [_, point, snapshot, _] => point.parse().ok().map(|consistent_point| CreatedSlot {
                consistent_point,
                snapshot: snapshot.clone(),
            }),
            _ => None,
        };
        created.ok_or_else(|| WireError::protocol("unreadable answer to CREATE_REPLICATION_SLOT"))
    }

    /// Creates a logical slot for pgoutput that goes with this connection, without a snapshot. Waits
    /// as [`create_slot`](Self::create_slot) does.
    ///
    /// # Errors
    /// As [`create_slot`](Self::create_slot).
    pub async fn create_temporary_slot(
        &mut self,
        name: &str,
        version_num: u32,
        lock_timeout_ms: u32,
    ) -> Result<(), WireError> {
        let options =
            if version_num < 150_000 { "NOEXPORT_SNAPSHOT" } else { "(SNAPSHOT 'nothing')" };
        let slot = quote_identifier(name);
        let during = format!("creating slot {slot}");
        self.command(&format!("SET lock_timeout = {lock_timeout_ms}"), &during).await?;
        let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput {options}");
        self.command(&create, &during).await.map(drop)
    }

    /// Drops a slot; at once, so a slot in use is an error (55006).
    ///
    /// # Errors
    /// 42704 if there is none.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), WireError> {
        let slot = quote_identifier(name);
        let command = format!("DROP_REPLICATION_SLOT {slot}");
        self.command(&command, &format!("dropping slot {slot}")).await.map(drop)
    }

    /// Starts the stream of `slot` at `from`. The server starts at its own `confirmed_flush_lsn`
    /// instead, without a word, if that is later. An option's value is passed as it is: quote the
    /// names of `publication_names` with [`quote_identifier`].
    ///
    /// # Errors
    /// 42704, 55000, 55006 for the slot. A missing publication shows only in the stream.
    pub async fn start_replication(
        mut self,
        slot: &str,
        from: Lsn,
        options: &[(&str, String)],
    ) -> Result<(FrameReader, StatusWriter), WireError> {
        let slot = quote_identifier(slot);
        let pair = |(name, value): &(&str, String)| {
            format!("{} {}", quote_identifier(name), quote_literal(value))
        };
        let options = options.iter().map(pair).collect::<Vec<_>>().join(", ");
        let options = if options.is_empty() { options } else { format!(" ({options})") };
        let command = format!("START_REPLICATION SLOT {slot} LOGICAL {from}{options}");
        self.send(|out| frontend::query(&command, out)).await?;
        let message = self.receive().await?;
        match message.tag {
            COPY_BOTH_RESPONSE_TAG => split(self, format!("reading slot {slot}"))
                .map_err(|source| WireError::Io { during: "taking over the socket", source }),
            ERROR_RESPONSE_TAG => Err(server_error(format!("starting slot {slot}"), &message.body)),
            tag => Err(unknown_message(tag)),
        }
    }

    /// Asks one command by the simple protocol; gives its only row, empty if there is none.
    async fn command(&mut self, command: &str, during: &str) -> Result<Vec<String>, WireError> {
        self.send(|out| frontend::query(command, out)).await?;
        let mut outcome = Ok(Vec::new());
        loop {
            let message = match self.receive().await {
                // A fatal error is followed by the end, not by ReadyForQuery.
                Err(WireError::Ended | WireError::Io { .. }) if outcome.is_err() => return outcome,
                other => other?,
            };
            match message.tag {
                backend::READY_FOR_QUERY_TAG => return outcome,
                ERROR_RESPONSE_TAG => outcome = Err(server_error(during, &message.body)),
                backend::DATA_ROW_TAG if outcome.is_ok() => outcome = read_row(&message.body),
                backend::ROW_DESCRIPTION_TAG
                | backend::DATA_ROW_TAG
                | backend::COMMAND_COMPLETE_TAG => {}
                tag => return Err(unknown_message(tag)),
            }
        }
    }
}

/// Reads `DataRow`; NULL becomes the empty text, which no answer above takes for a value.
fn read_row(mut body: &[u8]) -> Result<Vec<String>, WireError> {
    let short = |_| WireError::protocol("truncated row");
    let columns = body.try_get_u16().map_err(short)?;
    let mut row = Vec::new();
    for _ in 0..columns {
        let length = usize::try_from(body.try_get_i32().map_err(short)?).unwrap_or(0);
        let value = body.split_off(..length).ok_or_else(|| WireError::protocol("truncated row"))?;
        row.push(String::from_utf8_lossy(value).into_owned());
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::{quote_identifier, quote_literal, read_row};
    use proptest::prelude::*;

    #[test]
    fn quotes_what_the_replication_grammar_unquotes() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's \\"), "'it''s \\'");
    }

    #[test]
    fn reads_a_row() {
        let body = b"\0\x02\0\0\0\x03abc\xff\xff\xff\xff";
        assert_eq!(read_row(body).unwrap(), ["abc", ""]);
        assert!(read_row(&body[..8]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body: Vec<u8>) {
            drop(read_row(&body));
        }
    }
}
