//! The confirm task: tells the walsender what is written, whatever the other tasks do.
//!
//! It neither reads the stream nor waits for the audit database, because a client that is silent for `wal_sender_timeout` is cut off.

use super::Fault;
use crate::{lsn::Lsn, wire::StatusWriter};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval},
};

/// A status update goes out at least this often; it asks for a keepalive, which carries the server's clock and position.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Ends, after a last word, when the write task has ended.
pub(super) async fn confirm(
    mut status: StatusWriter,
    mut written: watch::Receiver<Lsn>,
    replies: Arc<Notify>,
    confirm_interval: Duration,
) -> Result<(), Fault> {
    let mut ticks = interval(confirm_interval.min(STATUS_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent_at = Instant::now();
    let mut confirmed = Lsn::ZERO;
    loop {
        let mut is_due = false;
        tokio::select! {
            () = replies.notified() => is_due = true,
            _ = ticks.tick() => {}
        }
        let is_last = written.has_changed().is_err();
        let end_lsn = *written.borrow_and_update();
        let request_reply = sent_at.elapsed() >= STATUS_INTERVAL;
        if is_last {
            status.farewell(end_lsn).await;
            return Ok(());
        }
        is_due |= request_reply || end_lsn != confirmed;
        if is_due {
            tokio::select! {
                sent = status.send(end_lsn, end_lsn, request_reply) => sent.map_err(Fault::Wire)?,
                // A server that takes nothing must not keep us from ending; what is half sent stays first.
                () = closed(&written) => {}
            }
            confirmed = end_lsn;
            sent_at = if request_reply { Instant::now() } else { sent_at };
        }
    }
}

/// Returns when the write task has ended.
async fn closed(written: &watch::Receiver<Lsn>) {
    let mut written = written.clone();
    while written.changed().await.is_ok() {}
}
