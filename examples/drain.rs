//! Drains a slot into nothing, to measure the read loop: `drain CONNINFO SLOT PUBLICATION END_LSN`.
//! Prints seconds, frames and reads. Confirms nothing, so that it can be run again.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use portal_audit::{
    conninfo::ConnInfo,
    lsn::Lsn,
    wire::{Connection, Frame, TICK, quote_identifier},
};
use std::{error::Error, time::Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [conninfo, slot, publication, end] = arguments.as_slice() else {
        return Err("usage: drain CONNINFO SLOT PUBLICATION END_LSN".into());
    };
    let end: Lsn = end.parse()?;
    let conninfo = ConnInfo::parse(conninfo, &|_| None)?;
    let mut connection = Connection::connect(&conninfo, "UTF8").await?;
    println!("{:?} {:?}", connection.server_version_num(), connection.identify_system().await?);
    let options =
        [("proto_version", "1".to_owned()), ("publication_names", quote_identifier(publication))];
    let started = Instant::now();
    let (mut reader, mut status) = connection.start_replication(slot, Lsn::ZERO, &options).await?;
    let (mut frames, mut reached) = (0_u64, Lsn::ZERO);
    while reached < end {
        while let Some(frame) = reader.next_buffered()? {
            frames += 1;
            let (Frame::XLogData { wal_end, .. } | Frame::Keepalive { wal_end, .. }) = frame;
            reached = reached.max(wal_end);
        }
        if reader.reads().is_multiple_of(1000) {
            status.send(reached, Lsn::ZERO, false).await?;
        }
        if reached < end {
            reader.fill(TICK).await?;
        }
    }
    println!("{:.2} s, {frames} frames, {} reads", started.elapsed().as_secs_f64(), reader.reads());
    // Nothing is confirmed, so that the slot can be drained again.
    status.farewell(Lsn::ZERO).await;
    Ok(())
}
