//! Reading alone: a slot → frames → transactions → events, which nobody writes. A program of its own, so that its CPU is its own.

use crate::{Result, process::cpu_seconds};
use portal_audit::{
    config::{Settings, Source},
    connect,
    event::Origin,
    lsn::Lsn,
    transaction::{Assembler, Transaction},
    translate::{Batch, Limits, Step, Translator},
    wire::{Connection, Frame, FrameReader, TICK, quote_identifier},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

/// A commit that is older than this on the server's clock: bytes may gather, as in the pipeline.
const BEHIND_MICROS: i64 = 20_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Drained {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) changes: u64,
    pub(crate) events: u64,
    pub(crate) reads: u64,
}

struct Stages {
    assembler: Assembler,
    translator: Translator,
    names: HashMap<(usize, String), String>,
    limits: Limits,
    batch: Batch,
    changes: u64,
    events: u64,
}

/// Reads a slot of the first source up to a position. Confirms nothing, so that it can be read again.
pub(crate) async fn drain(settings: &Path, slot: &str, end: Lsn) -> Result<Drained> {
    let settings = Settings::load(settings)?;
    let source = settings.sources.first().ok_or("no source")?;
    let mut stages = Stages::new(&settings, source).await?;
    let connection = Connection::connect(&source.conninfo, "UTF8").await?;
    let options = [
        ("proto_version", "2".to_owned()),
        ("streaming", "on".to_owned()),
        ("publication_names", quote_identifier(&source.publication)),
        ("messages", "true".to_owned()),
    ];
    let own = std::process::id();
    let before = cpu_seconds(own, false).unwrap_or_default();
    let began = Instant::now();
    let (mut reader, status) = connection.start_replication(slot, Lsn::ZERO, &options).await?;
    read(&mut reader, &mut stages, end).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds(own, false).unwrap_or_default() - before;
    status.farewell(Lsn::ZERO).await;
    let Stages { changes, events, .. } = stages;
    Ok(Drained { seconds, cpu_seconds, changes, events, reads: reader.reads() })
}

async fn read(reader: &mut FrameReader, stages: &mut Stages, end: Lsn) -> Result<()> {
    let (mut reached, mut is_behind) = (Lsn::ZERO, true);
    while reached < end {
        while let Some(frame) = reader.next_buffered()? {
            match frame {
                Frame::Keepalive { wal_end, .. } => reached = reached.max(wal_end),
                Frame::XLogData { wal_start, server_time, payload, .. } => {
                    if let Some(transaction) = stages.assembler.push(wal_start, payload)? {
                        reached = reached.max(transaction.end_lsn);
                        is_behind =
                            server_time.0.saturating_sub(transaction.commit_time.0) > BEHIND_MICROS;
                        stages.translate(&transaction)?;
                        stages.assembler.recycle(transaction);
                    }
                }
            }
        }
        if reached < end {
            reader.fill(if is_behind { TICK } else { Duration::ZERO }).await?;
        }
    }
    Ok(())
}

impl Stages {
    async fn new(settings: &Settings, source: &Source) -> Result<Self> {
        let audit = connect::connect(&settings.audit, "bench").await?;
        let entities = source.mapping.entities();
        let mut names = HashMap::new();
        for row in
            audit.client.query("SELECT entity, key, name FROM portal_audit.names", &[]).await?
        {
            let entity: &str = row.get(0);
            if let Some(place) = entities.iter().position(|known| known == entity) {
                names.insert((place, row.get(1)), row.get(2));
            }
        }
        let limits = Limits {
            names: settings.limits.names_in_memory,
            value_bytes: settings.limits.value_bytes,
            batch_events: settings.limits.batch_events,
            batch_bytes: settings.limits.batch_bytes,
        };
        let origin = Origin { system_identifier: 1, database_oid: 1 };
        let mapping = std::sync::Arc::clone(&source.mapping);
        Ok(Self {
            assembler: Assembler::new(
                settings.limits.transaction_memory_bytes,
                settings.limits.spool_folder.clone(),
            ),
            translator: Translator::new(origin, &source.name, mapping, limits),
            names,
            limits,
            batch: Batch::default(),
            changes: 0,
            events: 0,
        })
    }

    fn translate(&mut self, transaction: &Transaction) -> Result<()> {
        let mut translation = self.translator.begin(transaction);
        loop {
            match self.translator.advance(transaction, &mut translation, &mut self.batch)? {
                Step::Done => break,
                Step::Full => self.forget(),
                Step::Names(keys) => {
                    for key in keys {
                        let name = self.names.get(&(key.names, key.key.clone()));
                        self.translator.put_name(&key, name.map(String::as_str));
                    }
                }
            }
        }
        if self.batch.events.len() >= self.limits.batch_events {
            self.forget();
        }
        Ok(())
    }

    /// What the write task would take.
    fn forget(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.changes += batch.changes;
        self.events += batch.events.len() as u64;
    }
}
