//! Events as Parquet: one flat column for each of the table's, in row groups of bounded size, so that memory is bounded too.

use super::{encode::EncodeError, part::Whole, row::EventRow};
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::{ByteArray, FixedLenByteArray},
    errors::{ParquetError, Result},
    file::{
        properties::WriterProperties,
        reader::{FileReader as _, SerializedFileReader},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use std::{fs::File, io, sync::Arc};

/// Most events of a row group, and most bytes of their text.
const GROUP_ROWS_MAX: usize = 16_384;
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The logical types are those of the format's `LogicalTypes.md`.
const SCHEMA: &str = "message events {
    required fixed_len_byte_array(16) event_uuid (UUID);
    required int64 timestamp (TIMESTAMP(MICROS,true));
    required binary event_type (STRING);
    required binary caller (STRING);
    required binary subject (STRING);
    required binary subject_type (STRING);
    optional binary target (STRING);
    required boolean success;
    optional binary error_message (STRING);
    required binary payload (JSON);
}";

/// The texts of a column until its row group is written.
#[derive(Debug, Default)]
struct Texts {
    values: Vec<ByteArray>,
    /// 1 where there is a value, 0 where it is NULL.
    levels: Vec<i16>,
}

impl Texts {
    fn push(&mut self, text: Option<&str>) -> usize {
        self.levels.push(i16::from(text.is_some()));
        let Some(text) = text else { return 0 };
        self.values.push(ByteArray::from(text));
        text.len()
    }
}

/// A file in the making.
pub(super) struct Parquet<W: io::Write + Send> {
    writer: SerializedFileWriter<W>,
    ids: Vec<FixedLenByteArray>,
    timestamps: Vec<i64>,
    successes: Vec<bool>,
    /// `event_type`, `caller`, `subject`, `subject_type`, `target`, `error_message`, `payload`.
    texts: [Texts; 7],
    bytes: usize,
}

impl<W: io::Write + Send> Parquet<W> {
    pub(super) fn new(to: W) -> std::result::Result<Self, EncodeError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("portal-audit ", env!("CARGO_PKG_VERSION")).to_owned());
        let begin = || -> Result<SerializedFileWriter<W>> {
            let schema = Arc::new(parse_message_type(SCHEMA)?);
            SerializedFileWriter::new(to, schema, Arc::new(properties.build()))
        };
        Ok(Self {
            writer: begin().map_err(EncodeError::Parquet)?,
            ids: Vec::new(),
            timestamps: Vec::new(),
            successes: Vec::new(),
            texts: Default::default(),
            bytes: 0,
        })
    }

    pub(super) fn event(&mut self, event: &EventRow<'_>) -> std::result::Result<(), EncodeError> {
        self.ids.push(ByteArray::from(event.event_uuid.as_bytes().to_vec()).into());
        self.timestamps.push(event.timestamp.unix_micros());
        self.successes.push(event.success);
        let texts = [
            Some(event.event_type),
            Some(event.caller),
            Some(event.subject),
            Some(event.subject_type),
            event.target,
            event.error_message,
            Some(event.payload),
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            self.bytes += column.push(text);
        }
        if self.ids.len() >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX {
            self.end_group().map_err(EncodeError::Parquet)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> std::result::Result<W, EncodeError> {
        if !self.ids.is_empty() {
            self.end_group().map_err(EncodeError::Parquet)?;
        }
        // Writes the footer too.
        self.writer.into_inner().map_err(EncodeError::Parquet)
    }

    /// Writes the columns of the row group, in the schema's order.
    fn end_group(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        let [event_type, caller, subject, subject_type, target, error_message, payload] =
            &self.texts;
        write(&mut group, Column::Ids(&self.ids))?;
        write(&mut group, Column::Times(&self.timestamps))?;
        for texts in [event_type, caller, subject, subject_type] {
            write(&mut group, Column::Texts(texts, false))?;
        }
        write(&mut group, Column::Texts(target, true))?;
        write(&mut group, Column::Flags(&self.successes))?;
        write(&mut group, Column::Texts(error_message, true))?;
        write(&mut group, Column::Texts(payload, false))?;
        group.close()?;
        self.ids.clear();
        self.timestamps.clear();
        self.successes.clear();
        for texts in &mut self.texts {
            texts.values.clear();
            texts.levels.clear();
        }
        self.bytes = 0;
        Ok(())
    }
}

enum Column<'a> {
    Ids(&'a [FixedLenByteArray]),
    Times(&'a [i64]),
    Flags(&'a [bool]),
    /// And whether some may be NULL.
    Texts(&'a Texts, bool),
}

fn write<W: io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: Column<'_>,
) -> Result<()> {
    let short = || ParquetError::General("the schema has fewer columns".to_owned());
    let mut column = group.next_column()?.ok_or_else(short)?;
    match (column.untyped(), values) {
        (ColumnWriter::FixedLenByteArrayColumnWriter(to), Column::Ids(values)) => {
            to.write_batch(values, None, None)?;
        }
        (ColumnWriter::Int64ColumnWriter(to), Column::Times(values)) => {
            to.write_batch(values, None, None)?;
        }
        (ColumnWriter::BoolColumnWriter(to), Column::Flags(values)) => {
            to.write_batch(values, None, None)?;
        }
        (ColumnWriter::ByteArrayColumnWriter(to), Column::Texts(texts, is_optional)) => {
            to.write_batch(&texts.values, is_optional.then_some(&*texts.levels), None)?;
        }
        _ => return Err(ParquetError::General("the schema has other columns".to_owned())),
    }
    column.close()
}

/// Reads the footer, which counts the rows. Without one nothing of a file can be read.
pub(super) fn whole(file: &File) -> io::Result<Whole> {
    let bytes = file.metadata()?.len();
    let reader = SerializedFileReader::new(file.try_clone()?).map_err(io::Error::other)?;
    let rows = reader.metadata().file_metadata().num_rows();
    Ok(Whole { rows: u64::try_from(rows).unwrap_or_default(), bytes, first: None, last: None })
}
