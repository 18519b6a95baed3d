//! From events to the bytes of a file.

use super::{
    Format,
    lines::{self, Csv},
    ocsf,
    output::Output,
    row::{Clock, EventRow},
};
use std::io::{self, BufWriter, Write as _};

/// Bytes that are collected before they are written.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Why an event could not be written. Texts hold no value of a row.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    #[error("a payload is not JSON that can be written")]
    Json,
    #[cfg(feature = "parquet")]
    #[error("cannot write Parquet")]
    Parquet(#[source] ::parquet::errors::ParquetError),
}

impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> Self {
        // The text of any other error may quote the payload.
        if error.is_io() { Self::Write(error.into()) } else { Self::Json }
    }
}

impl From<csv::Error> for EncodeError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => Self::Write(error),
            // The writer has no other fault with cells of text.
            _ => Self::Write(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// One file in the making.
pub(super) enum Encoder {
    Csv(Box<Csv<Output>>),
    Lines {
        format: Format,
        clock: Clock,
        to: BufWriter<Output>,
    },
    #[cfg(feature = "parquet")]
    Parquet(Box<super::parquet::Parquet<Output>>),
}

impl Encoder {
    /// Begins a file, or goes on with one whose head is there.
    pub(super) fn new(to: Output, format: Format, is_raw: bool) -> Result<Self, EncodeError> {
        let is_new = to.bytes() == 0;
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(Csv::new(to, is_raw, is_new)?)),
            #[cfg(feature = "parquet")]
            Format::Parquet => Self::Parquet(Box::new(super::parquet::Parquet::new(to)?)),
            Format::Jsonl | Format::Cloudevents | Format::Ocsf => {
                let to = BufWriter::with_capacity(BUFFER_BYTES, to);
                Self::Lines { format, clock: Clock::default(), to }
            }
        })
    }

    pub(super) fn event(&mut self, event: &EventRow<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Csv(csv) => csv.event(event),
            Self::Lines { format: Format::Cloudevents, clock, to } => {
                lines::cloud_event(to, clock, event)
            }
            Self::Lines { format: Format::Ocsf, to, .. } => ocsf::event(to, event),
            Self::Lines { clock, to, .. } => lines::jsonl(to, clock, event),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.event(event),
        }
    }

    /// Writes what is left; after this the file is whole.
    pub(super) fn finish(self) -> Result<Output, EncodeError> {
        match self {
            Self::Csv(csv) => csv.finish(),
            Self::Lines { mut to, .. } => {
                to.flush().map_err(EncodeError::Write)?;
                to.into_inner().map_err(|error| EncodeError::Write(error.into_error()))
            }
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.finish(),
        }
    }
}
