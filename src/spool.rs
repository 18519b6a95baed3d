//! Where the messages of one transaction wait for its commit: memory, and beyond the limit an unnamed temporary file.
//!
//! # Why
//! A transaction may be larger than memory, and it can only be translated once it is whole: the caller may be named by its last row. The file has no name (`O_TMPFILE`), so that no kill leaves row values on the disk.

use crate::lsn::Lsn;
use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Bytes before each payload: its length and its LSN.
const HEADER_BYTES: usize = 12;
/// A spilled spool collects this many bytes before it writes them to its file.
const WRITE_BYTES: usize = 256 * 1024;
/// A cursor reads the file in pieces of at least this many bytes.
const READ_BYTES: usize = 256 * 1024;

/// One pgoutput message with the LSN of its frame.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub wal_start: Lsn,
    pub payload: &'a [u8],
}

/// An append-only list of records, in order.
#[derive(Debug, Default)]
pub struct Spool {
    /// The records behind those of the file; the border between the two lies between records.
    memory: Vec<u8>,
    file: Option<File>,
    file_bytes: u64,
}

impl Spool {
    /// Number of bytes of all records, in memory and in the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file_bytes + self.memory.len() as u64
    }

    /// Number of bytes held in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Adds a record at the end.
    ///
    /// # Errors
    /// The temporary file could not be written: the disk of the spool folder is full.
    pub fn append(&mut self, wal_start: Lsn, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.memory.extend_from_slice(&length.to_ne_bytes());
        self.memory.extend_from_slice(&wal_start.0.to_ne_bytes());
        self.memory.extend_from_slice(payload);
        if self.file.is_some() && self.memory.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Moves what is in memory to a temporary file in `folder`, where the following records will go too.
    ///
    /// # Errors
    /// The file could not be made or written.
    pub fn spill(&mut self, folder: &Path) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(folder)?);
        }
        self.write_out()?;
        self.memory.shrink_to(WRITE_BYTES);
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory)?;
            self.file_bytes += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    /// Drops every record from byte `bytes` on, which must lie between two records.
    ///
    /// # Errors
    /// The temporary file could not be shortened.
    pub fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(in_memory) = bytes.checked_sub(self.file_bytes) {
            self.memory.truncate(usize::try_from(in_memory).map_err(io::Error::other)?);
            return Ok(());
        }
        self.memory.clear();
        self.file_bytes = bytes;
        if let Some(file) = &mut self.file {
            file.set_len(bytes)?;
            io::Seek::seek(file, io::SeekFrom::Start(bytes))?;
        }
        Ok(())
    }

    /// Empties the spool and keeps its memory for the next transaction, but no more than `keep_bytes`.
    pub fn reset(&mut self, keep_bytes: usize) {
        self.memory.clear();
        self.memory.shrink_to(keep_bytes);
        self.file = None;
        self.file_bytes = 0;
    }

    /// The record at the cursor, which then points behind it; `None` at the end.
    ///
    /// # Errors
    /// The temporary file could not be read.
    pub fn next<'a>(&'a self, cursor: &'a mut Cursor) -> io::Result<Option<Record<'a>>> {
        if cursor.offset >= self.bytes() {
            return Ok(None);
        }
        let header = self.slice(cursor, HEADER_BYTES)?;
        let (length, wal_start) = split_header(header).ok_or(io::ErrorKind::UnexpectedEof)?;
        let record = self.slice(cursor, HEADER_BYTES + length)?;
        let end = record.len() as u64;
        if cursor.offset >= self.file_bytes {
            // Taken again without the cursor's window, so that the cursor can move on.
            let start = to_index(cursor.offset - self.file_bytes)? + HEADER_BYTES;
            cursor.offset += end;
            let payload = self.memory.get(start..start + length);
            return Ok(payload.map(|payload| Record { wal_start, payload }));
        }
        let start = to_index(cursor.offset - cursor.window_start)? + HEADER_BYTES;
        cursor.offset += end;
        let payload = cursor.window.get(start..start + length);
        Ok(payload.map(|payload| Record { wal_start, payload }))
    }

    /// `length` bytes from the cursor's offset on.
    fn slice<'a>(&'a self, cursor: &'a mut Cursor, length: usize) -> io::Result<&'a [u8]> {
        let bytes = if cursor.offset >= self.file_bytes {
            let start = to_index(cursor.offset - self.file_bytes)?;
            self.memory.get(start..start + length)
        } else {
            let file = self.file.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
            cursor.fill(file, self.file_bytes, length)?;
            let start = to_index(cursor.offset - cursor.window_start)?;
            cursor.window.get(start..start + length)
        };
        bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn to_index(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

fn split_header(header: &[u8]) -> Option<(usize, Lsn)> {
    let (length, rest) = header.split_first_chunk::<4>()?;
    let lsn = rest.first_chunk::<8>()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    Some((length, Lsn(u64::from_ne_bytes(*lsn))))
}

/// A place in a [`Spool`], with the piece of its file that was read last.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    offset: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Cursor {
    /// A cursor at an offset where another stood.
    #[must_use]
    pub fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Byte position in the spool; [`Spool::truncate`] takes one.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes back to an offset where it stood before.
    pub fn rewind(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Makes the window hold `length` bytes from the offset on.
    fn fill(&mut self, file: &File, file_bytes: u64, length: usize) -> io::Result<()> {
        let window_end = self.window_start + self.window.len() as u64;
        if self.offset >= self.window_start && self.offset + length as u64 <= window_end {
            return Ok(());
        }
        let left = to_index(file_bytes.saturating_sub(self.offset))?;
        self.window.resize(left.min(length.max(READ_BYTES)), 0);
        self.window_start = self.offset;
        file.read_exact_at(&mut self.window, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Spool};
    use crate::lsn::Lsn;
    use proptest::prelude::*;

    fn read_all(spool: &Spool) -> Vec<(u64, Vec<u8>)> {
        let mut cursor = Cursor::default();
        let mut records = Vec::new();
        while let Some(record) = spool.next(&mut cursor).unwrap() {
            records.push((record.wal_start.0, record.payload.to_vec()));
        }
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever it spills, and wherever it is cut back, a spool gives what a list would.
        #[test]
        fn equals_a_list(
            sizes in proptest::collection::vec(0_usize..70_000, 1..60),
            spill_at: prop::sample::Index,
            cut_at: prop::sample::Index,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let records: Vec<(u64, Vec<u8>)> =
                sizes.iter().zip(1..).map(|(&size, lsn)| (lsn, vec![7; size])).collect();
            let (spill_at, cut_at) = (spill_at.index(records.len()), cut_at.index(records.len()));
            let mut spool = Spool::default();
            let mut cut_bytes = 0;
            for (index, (lsn, payload)) in records.iter().enumerate() {
                if index == spill_at {
                    spool.spill(folder.path()).unwrap();
                }
                if index == cut_at {
                    cut_bytes = spool.bytes();
                }
                spool.append(Lsn(*lsn), payload).unwrap();
            }
            prop_assert_eq!(&read_all(&spool), &records);
            spool.truncate(cut_bytes).unwrap();
            prop_assert_eq!(&read_all(&spool)[..], &records[..cut_at]);
            for (lsn, payload) in &records[cut_at..] {
                spool.append(Lsn(*lsn), payload).unwrap();
            }
            prop_assert_eq!(&read_all(&spool), &records);
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
