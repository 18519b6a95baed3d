//! A slot's stream read to its marker, by the crate's own stages and nothing between them.

use crate::support::cluster;
use portal_audit::{
    config,
    decode::Message,
    lsn::Lsn,
    spool::Cursor,
    transaction::{Assembler, Transaction},
    tuple::{Operation, Relation, Row, RowSpans, Value},
    wire::{Connection, Frame},
};
use std::{collections::HashMap, time::Duration};
use tokio::sync::watch;

/// How long the stream may take to reach its marker.
const READ_MAX: Duration = Duration::from_secs(60);

/// A slot that nobody reads yet.
pub struct Slot {
    connection: Connection,
    name: String,
    consistent_point: Lsn,
    pub version_num: u32,
    /// How many segments of streamed transactions were read.
    pub segments: watch::Sender<usize>,
}

/// What a slot sent up to the transaction that writes the table `marker`, without that.
pub struct Stream {
    pub transactions: Vec<Transaction>,
    /// How many segments of streamed transactions there were.
    segments: usize,
}

/// A value as one side of a change tells it: not there, NULL, or a text.
type Told = Option<Option<String>>;

/// A change with the texts of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub table: String,
    pub operation: String,
    pub columns: Vec<String>,
    pub old: Vec<Told>,
    pub new: Vec<Told>,
    pub is_changed: Vec<bool>,
}

impl Slot {
    /// Creates a slot. Two of them without a write in between tell the same.
    pub async fn create(database: &str, name: &str) -> Self {
        let conninfo = config::conninfo(&cluster().dsn(database, "postgres")).unwrap();
        let mut connection = Connection::connect(&conninfo, "UTF8").await.unwrap();
        let version_num = connection.server_version_num().unwrap();
        let created = connection.create_slot(name, version_num, false, 60_000).await.unwrap();
        let consistent_point = created.consistent_point;
        let segments = watch::Sender::new(0);
        Self { connection, name: name.to_owned(), consistent_point, version_num, segments }
    }

    /// Reads the stream of `publications` with `options` of pgoutput.
    pub async fn read(
        self,
        publications: &str,
        options: &[(&str, String)],
        memory_limit: usize,
    ) -> Stream {
        let publications = ("publication_names", publications.to_owned());
        let mut all = vec![publications, ("messages", "true".to_owned())];
        all.extend_from_slice(options);
        tokio::time::timeout(READ_MAX, self.read_on(&all, memory_limit)).await.unwrap()
    }

    async fn read_on(self, options: &[(&str, String)], memory_limit: usize) -> Stream {
        let Self { connection, name, consistent_point, segments, .. } = self;
        let started = connection.start_replication(&name, consistent_point, options).await;
        let (mut frames, _status) = started.unwrap();
        let mut assembler = Assembler::new(memory_limit, std::env::temp_dir());
        let mut stream = Stream { transactions: Vec::new(), segments: 0 };
        loop {
            let Some(frame) = frames.next_buffered().unwrap() else {
                frames.fill(Duration::ZERO).await.unwrap();
                continue;
            };
            let Frame::XLogData { wal_start, payload, .. } = frame else { continue };
            let is_segment = payload.first() == Some(&b'E');
            let Some(transaction) = assembler.push(wal_start, payload).unwrap() else {
                segments.send_modify(|segments| *segments += usize::from(is_segment));
                continue;
            };
            if is_marker(&transaction) {
                stream.segments = *segments.borrow();
                return stream;
            }
            stream.transactions.push(transaction);
        }
    }
}

fn is_marker(transaction: &Transaction) -> bool {
    let mut cursor = Cursor::default();
    // PostgreSQL 14 sends empty transactions too.
    let first = transaction.next(&mut cursor).unwrap();
    matches!(first, Some((_, Message::Relation(relation))) if relation.name == b"marker")
}

impl Stream {
    /// Whether any transaction came before its commit.
    pub fn was_streamed(&self) -> bool {
        self.segments > 0
    }

    /// All changes in order.
    pub fn changes(&self) -> Vec<Change> {
        let mut relations = HashMap::new();
        let mut changes = Vec::new();
        for transaction in &self.transactions {
            let before = changes.len();
            read_changes(transaction, &mut relations, &mut changes);
            assert_eq!(transaction.changes, (changes.len() - before) as u64);
        }
        changes
    }
}

fn read_changes(
    transaction: &Transaction,
    relations: &mut HashMap<u32, Relation>,
    changes: &mut Vec<Change>,
) {
    let mut cursor = Cursor::default();
    let mut spans = RowSpans::default();
    while let Some((_, message)) = transaction.next(&mut cursor).unwrap() {
        let (oid, operation, old, new) = match message {
            Message::Relation(relation) => {
                relations.insert(relation.oid, Relation::from_message(&relation));
                continue;
            }
            Message::Insert { relation, new } => (relation, Operation::Insert, None, Some(new)),
            Message::Update { relation, old, new } => (relation, Operation::Update, old, Some(new)),
            Message::Delete { relation, old } => (relation, Operation::Delete, Some(old), None),
            Message::Type { .. } => continue,
            other => panic!("unexpected: {other:?}"),
        };
        let relation =
            relations.get(&oid).expect("the stream describes a relation before its rows");
        let row = Row::new(operation, relation, old, new, &mut spans);
        let positions = 0..relation.columns.len();
        changes.push(Change {
            table: relation.name.clone(),
            operation: operation.name().to_owned(),
            columns: relation.columns.iter().map(|column| column.name.clone()).collect(),
            old: positions.clone().map(|position| told(row.old_value(position))).collect(),
            new: positions.clone().map(|position| told(row.value(position))).collect(),
            is_changed: positions.map(|position| row.is_changed(position)).collect(),
        });
    }
}

fn told(value: Value<'_>) -> Told {
    match value {
        Value::Absent => None,
        Value::Null => Some(None),
        Value::Text(text) => Some(Some(String::from_utf8(text.to_vec()).unwrap())),
    }
}
