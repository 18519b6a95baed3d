//! Records the stream of a temporary slot, which goes with its connection.

use super::file::{Header, RecordingError, Writer};
use crate::{
    catalog::{Catalog, CatalogError},
    config::Source,
    connect::{self, ConnectError},
    lsn::Lsn,
    wire::{Connection, Frame, FrameReader, StatusWriter, TICK, WireError, quote_identifier},
};
use std::{future::Future, path::Path, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// How often the server is told what is on the disk, and asked how far it has read.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// How long creating the slot may wait for open transactions, in milliseconds.
const SLOT_TIMEOUT_MS: u32 = 60_000;

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot reach the source")]
    Source(#[source] ConnectError),
    #[error("the source does not fit")]
    Catalog(#[source] CatalogError),
    #[error("the replication connection failed")]
    Wire(#[source] WireError),
    #[error("cannot write the recording")]
    File(#[source] RecordingError),
}

/// Records from now on until `stop` completes; gives the number of messages. `started` is called once the slot is there: what commits from then on is recorded.
///
/// # Errors
/// The source or the file fails. What was written of the file by then is of no use, for it has no end.
pub async fn record(
    source: &Source,
    path: &Path,
    started: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<u64, RecordError> {
    let session = connect::connect(&source.conninfo, "replay").await;
    let session = session.map_err(RecordError::Source)?;
    let catalog = Catalog::load(&session, &source.publication, &source.mapping).await;
    let catalog = catalog.map_err(RecordError::Catalog)?;
    // As the pipeline reads it.
    let encoding = if catalog.server_encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    let connection = Connection::connect(&source.conninfo, encoding).await;
    let mut connection = connection.map_err(RecordError::Wire)?;
    let system = connection.identify_system().await.map_err(RecordError::Wire)?;
    let header = Header {
        source: source.name.clone(),
        system_identifier: system.system_identifier,
        database_oid: catalog.database_oid,
        publication: source.publication.clone(),
        mapping_file: source.mapping.file().to_owned(),
        mapping_text: source.mapping.text().to_owned(),
    };
    let slot = format!("portal_audit_replay_{}", std::process::id());
    let created =
        connection.create_temporary_slot(&slot, catalog.version_num, SLOT_TIMEOUT_MS).await;
    created.map_err(RecordError::Wire)?;
    // Protocol 1: each transaction comes whole, after its commit.
    let options = [
        ("proto_version", "1".to_owned()),
        ("publication_names", quote_identifier(&source.publication)),
        ("messages", "true".to_owned()),
    ];
    let streaming = connection.start_replication(&slot, Lsn::ZERO, &options).await;
    let (frames, status) = streaming.map_err(RecordError::Wire)?;
    // Last, so that a source that cannot be read leaves no file.
    let mut file = Writer::create(path, &header).map_err(RecordError::File)?;
    started();
    copy(frames, status, &mut file, stop).await?;
    file.finish().map_err(RecordError::File)
}

async fn copy(
    mut frames: FrameReader,
    mut status: StatusWriter,
    file: &mut Writer,
    stop: impl Future<Output = ()>,
) -> Result<(), RecordError> {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    // Where the stream stood between transactions: what lies before need not be sent again.
    let (mut is_inside, mut reached) = (false, Lsn::ZERO);
    loop {
        while let Some(frame) = frames.next_buffered().map_err(RecordError::Wire)? {
            match frame {
                Frame::XLogData { wal_start, payload, .. } => {
                    file.push(wal_start, payload).map_err(RecordError::File)?;
                    match payload.first() {
                        Some(b'B') => is_inside = true,
                        Some(b'C') => is_inside = false,
                        _ => {}
                    }
                }
                Frame::Keepalive { wal_end, .. } if !is_inside => reached = wal_end,
                Frame::Keepalive { .. } => {}
            }
        }
        let gathering = if is_inside { TICK } else { Duration::ZERO };
        tokio::select! {
            biased;
            // A transaction that is coming in is taken to its end.
            () = &mut stop, if !is_inside => return Ok(()),
            _ = ticks.tick() => {
                file.flush().map_err(RecordError::File)?;
                status.send(reached, reached, true).await.map_err(RecordError::Wire)?;
            }
            filled = frames.fill(gathering) => filled.map_err(RecordError::Wire)?,
        }
    }
}
