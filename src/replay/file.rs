//! The recording's file. Numbers are big-endian.
//!
//! | part | bytes |
//! | --- | --- |
//! | magic | `portal-audit rec` |
//! | version | 4: 1 |
//! | header | 4: its length; a JSON object, [`Header`] |
//! | each message | 4: its length, at least 1; 8: the LSN of its frame; one message of pgoutput |
//! | end | 4: 0; 8: the number of messages |
//!
//! A file without its end is cut off, and is refused: half a recording would pass for a mapping that gives less. It holds row data, so its mode is 0600.

use crate::{
    decode::{Message, decode},
    lsn::Lsn,
    tuple::Relation,
    wire::MESSAGE_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 16] = b"portal-audit rec";
const VERSION: u32 = 1;
/// Longest header: it holds a mapping's text.
const HEADER_BYTES_MAX: usize = 64 << 20;

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a recording of portal-audit", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is a recording of version {version}, and this portal-audit reads version {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("{} is cut off after {messages} messages: the recording was not ended. Record it again.", path.display())]
    CutOff { path: PathBuf, messages: u64 },
    #[error("{} is damaged after {messages} messages", path.display())]
    Damaged { path: PathBuf, messages: u64 },
    #[error("{} cannot be read or written", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What was recorded, and by which mapping it was followed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub source: String,
    pub system_identifier: u64,
    pub database_oid: u32,
    pub publication: String,
    pub mapping_file: String,
    pub mapping_text: String,
}

/// Writes a recording.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    messages: u64,
}

impl Writer {
    /// Makes a new file that nobody else may read.
    ///
    /// # Errors
    /// It exists, or its folder cannot be written.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file =
            opened.map_err(|source| RecordingError::Open { path: path.to_owned(), source })?;
        let mut writer = Self { path: path.to_owned(), out: BufWriter::new(file), messages: 0 };
        let header = serde_json::to_vec(header).map_err(|error| writer.failed(error.into()))?;
        let length =
            u32::try_from(header.len()).map_err(|error| writer.failed(io::Error::other(error)))?;
        writer.put(&[MAGIC, &VERSION.to_be_bytes()[..], &length.to_be_bytes(), &header])?;
        Ok(writer)
    }

    /// Adds a message.
    ///
    /// # Errors
    /// The disk is full, say.
    pub(super) fn push(&mut self, wal_start: Lsn, payload: &[u8]) -> Result<(), RecordingError> {
        let length =
            u32::try_from(payload.len()).map_err(|error| self.failed(io::Error::other(error)))?;
        if length > 0 {
            self.messages += 1;
            self.put(&[&length.to_be_bytes(), &wal_start.0.to_be_bytes(), payload])?;
        }
        Ok(())
    }

    /// Gives what was pushed to the file.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub(super) fn flush(&mut self) -> Result<(), RecordingError> {
        let flushed = self.out.flush();
        flushed.map_err(|source| self.failed(source))
    }

    /// Ends the recording; gives the number of its messages.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub(super) fn finish(mut self) -> Result<u64, RecordingError> {
        self.put(&[&0_u32.to_be_bytes(), &self.messages.to_be_bytes()])?;
        self.flush()?;
        let synced = self.out.get_ref().sync_all();
        synced.map_err(|source| self.failed(source))?;
        Ok(self.messages)
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), RecordingError> {
        for part in parts {
            let written = self.out.write_all(part);
            written.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> RecordingError {
        RecordingError::Io { path: self.path.clone(), source }
    }
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    header: Header,
    messages: u64,
}

impl Reader {
    /// Opens a recording and reads its header.
    ///
    /// # Errors
    /// It is not one, or of another version.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let path = path.to_owned();
        let file = File::open(&path)
            .map_err(|source| RecordingError::Open { path: path.clone(), source })?;
        let mut input = BufReader::new(file);
        let mut magic = Vec::new();
        let read = (&mut input).take(MAGIC.len() as u64).read_to_end(&mut magic);
        read.map_err(|source| RecordingError::Io { path: path.clone(), source })?;
        if magic != MAGIC {
            return Err(RecordingError::Foreign { path });
        }
        let cut_off = || RecordingError::CutOff { path: path.clone(), messages: 0 };
        let version = number(&mut input).ok_or_else(cut_off)?;
        if version != VERSION {
            return Err(RecordingError::Version { path, version });
        }
        let length = number(&mut input).ok_or_else(cut_off)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let damaged = || RecordingError::Damaged { path: path.clone(), messages: 0 };
        if length > HEADER_BYTES_MAX {
            return Err(damaged());
        }
        let header = bytes(&mut input, length).ok_or_else(cut_off)?;
        let header = serde_json::from_slice(&header).map_err(|_not_a_header| damaged())?;
        Ok(Self { path, input, header, messages: 0 })
    }

    /// What was recorded.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next message with the LSN of its frame; `None` at the end.
    ///
    /// # Errors
    /// The file is cut off or damaged.
    pub fn next_message(&mut self) -> Result<Option<(Lsn, Vec<u8>)>, RecordingError> {
        let messages = self.messages;
        let path = &self.path;
        let cut_off = || RecordingError::CutOff { path: path.clone(), messages };
        let damaged = || RecordingError::Damaged { path: path.clone(), messages };
        let length = number(&mut self.input).ok_or_else(cut_off)?;
        let lsn = bytes(&mut self.input, 8).ok_or_else(cut_off)?;
        let lsn = lsn.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk));
        if length == 0 {
            return if lsn == messages { Ok(None) } else { Err(damaged()) };
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(damaged());
        }
        let payload = bytes(&mut self.input, length).ok_or_else(cut_off)?;
        self.messages += 1;
        Ok(Some((Lsn(lsn), payload)))
    }
}

/// The next four bytes as a number, if they are there.
fn number(input: &mut impl Read) -> Option<u32> {
    let bytes = bytes(input, 4)?;
    bytes.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// The next bytes, if they are there. Memory grows with what is read, not with what a damaged length says.
fn bytes(input: &mut impl Read, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = input.take(length as u64).read_to_end(&mut bytes);
    read.is_ok_and(|read| read == length).then_some(bytes)
}

/// The table that a message describes, if it is a Relation. A recording has no stream segments.
pub(super) fn described_table(payload: &[u8]) -> Option<String> {
    if payload.first() != Some(&b'R') {
        return None;
    }
    match decode(payload, false) {
        Ok((_, Message::Relation(message))) => {
            Some(Relation::from_message(&message).qualified_name())
        }
        _ => None,
    }
}
