//! An export in pieces, for whoever sends it on: the next piece is made when the one before is taken, so memory stays constant.

use super::{
    ExportError, Format,
    encode::Encoder,
    output::{Output, Pieces},
    read,
    row::EventRow,
    run,
};
use crate::{connect::Session, filter::Filter};
use chrono::{DateTime, Utc};
use std::fmt;

/// Bytes of a piece at least, but for the last.
const PIECE_BYTES: usize = 32 * 1024;

/// Events on their way.
pub struct Stream {
    coming: read::Events,
    /// `None`: the file is whole.
    encoder: Option<Encoder>,
    pieces: Pieces,
    events: u64,
    before: Option<DateTime<Utc>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Stream {
    /// Asks for the events. The session is in a transaction of the role that they are for. As [`export`](super::export), the range ends where the record of all sources is complete.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn begin(
        session: &Session,
        filter: &Filter,
        format: Format,
    ) -> Result<Self, ExportError> {
        let now = read::now(session).await?;
        let mut filter = filter.clone();
        filter.pin(now.at);
        let (before, _) = run::end(&now, &filter, false);
        let coming = read::events(session, &filter, None, before).await?;
        let pieces = Pieces::default();
        let output = Output::pieces(pieces.clone());
        let encoder = Encoder::new(output, format, false).map_err(ExportError::Encode)?;
        Ok(Self { coming, encoder: Some(encoder), pieces, events: 0, before })
    }

    /// The next bytes; empty once all are given. The session is the one that it began with.
    ///
    /// # Errors
    /// The database refuses, or a row cannot be written.
    pub async fn next(&mut self, session: &Session) -> Result<Vec<u8>, ExportError> {
        while self.pieces.len() < PIECE_BYTES {
            let Some(encoder) = &mut self.encoder else { break };
            match self.coming.next(session).await? {
                Some(row) => {
                    let event = EventRow::read(&row).map_err(ExportError::query)?;
                    encoder.event(&event).map_err(ExportError::Encode)?;
                    self.events += 1;
                }
                None => {
                    if let Some(encoder) = self.encoder.take() {
                        encoder.finish().map_err(ExportError::Encode)?;
                    }
                }
            }
        }
        Ok(self.pieces.take())
    }

    /// How many events there were; `None` until that is known.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.encoder.is_none().then_some(self.events)
    }

    /// The range ends before this time.
    #[must_use]
    pub fn before(&self) -> Option<DateTime<Utc>> {
        self.before
    }
}
