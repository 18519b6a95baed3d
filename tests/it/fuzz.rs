//! Bytes that no server sends and texts that no human writes: nothing panics, nothing hangs, and what is accepted means one thing only.
//!
//! Each test is short in the suite; `PORTAL_AUDIT_FUZZ_CASES` says how many cases of each there are instead. A case depends on its number and `PORTAL_AUDIT_FUZZ_SEED` alone, and a failure names it. Inputs that once were interesting stand in tests/corpus and are tried first.

use crate::support::{cluster, encode::encode, open, run};
use portal_audit::{
    conninfo::ConnInfo,
    decode::{Message, RelationMessage, ReplicaIdentity, decode},
    lsn::Lsn,
    note::{Checkpoint, SigningKey, is_signed},
    timestamp::Timestamp,
    transaction::Assembler,
    translate::{document, mapping::Mapping},
    tuple::{Operation, Relation, Row, RowSpans},
};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// No case may take longer, however it was put together.
const CASE_MAX: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "how long to search is no setting of the program")]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Random numbers by SplitMix64: the same for the same case, everywhere.
struct Random(u64);

impl Random {
    fn of_case(case: u64) -> Self {
        Self(
            number("PORTAL_AUDIT_FUZZ_SEED", 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
                ^ case.wrapping_mul(0xD134_2543_DE82_EF95),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Changes bytes here and there: bits, lengths, ends, pieces that come twice or not at all.
    fn mutate(&mut self, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let place = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if place < bytes.len() => bytes[place] ^= 1 << self.below(8),
                1 if place < bytes.len() => bytes[place] = self.next().to_le_bytes()[0],
                2 => bytes.truncate(place),
                3 => drop(bytes.splice(place..place, self.pick(pieces).iter().copied())),
                4 => {
                    let end = place + self.below(bytes.len() - place + 1);
                    drop(bytes.drain(place..end));
                }
                5 if place + 4 <= bytes.len() => {
                    let length = self.pick(&[
                        &[0; 4],
                        &[255; 4],
                        &[127, 255, 255, 255],
                        &[0, 0, 0, 1],
                        &[128, 0, 0, 0],
                    ]);
                    bytes[place..place + 4].copy_from_slice(length);
                }
                _ => {
                    let end = place + self.below((bytes.len() - place).min(64) + 1);
                    let piece = bytes[place..end].to_vec();
                    let place = self.below(bytes.len() + 1);
                    drop(bytes.splice(place..place, piece));
                }
            }
        }
    }
}

/// Runs cases, each within its time.
fn cases(default: u64, mut case: impl FnMut(u64, &mut Random)) {
    let cases = number("PORTAL_AUDIT_FUZZ_CASES", default);
    for place in 0..cases {
        let begun = Instant::now();
        case(place, &mut Random::of_case(place));
        assert!(begun.elapsed() < CASE_MAX, "case {place} took {:?}", begun.elapsed());
    }
}

fn corpus(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/corpus", name].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The messages of the corpus, each a line of hexadecimal digits behind its name.
fn messages() -> Vec<(String, Vec<u8>)> {
    let text = corpus("messages.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines
        .map(|line| {
            let (name, digits) = line.split_once(' ').unwrap();
            (name.to_owned(), digits.trim().as_bytes().chunks(2).map(byte).collect())
        })
        .collect()
}

/// Reads a message if it is one; then it has no other bytes than these, and each column of a row can be asked for.
fn read(payload: &[u8], in_stream: bool) -> bool {
    let Ok((subxid, message)) = decode(payload, in_stream) else { return false };
    assert_eq!(encode(subxid, &message), payload);
    let (operation, old, new) = match message {
        Message::Insert { new, .. } => (Operation::Insert, None, Some(new)),
        Message::Update { old, new, .. } => (Operation::Update, old, Some(new)),
        Message::Delete { old, .. } => (Operation::Delete, Some(old), None),
        Message::Relation(message) => {
            assert_eq!(Relation::from_message(&message).columns.len(), message.columns.len());
            return true;
        }
        _ => return true,
    };
    let relation = RelationMessage {
        oid: 1,
        namespace: b"",
        name: b"t",
        replica_identity: ReplicaIdentity::Full,
        columns: Vec::new(),
    };
    let (relation, mut spans) = (Relation::from_message(&relation), RowSpans::default());
    let row = Row::new(operation, &relation, old, new, &mut spans);
    for position in [0, 1, 5, usize::from(u16::MAX)] {
        let _ = (row.value(position), row.old_value(position), row.is_changed(position));
    }
    true
}

#[test]
fn each_message_of_the_corpus() {
    let messages = messages();
    let read_well = messages.iter().filter(|(name, payload)| {
        let is_read = read(payload, name.ends_with('*'));
        assert_eq!(is_read, !name.starts_with('!'), "{name}");
        let whole = is_read && name != "A-parallel";
        for end in (0..payload.len()).filter(|_| whole) {
            assert!(!read(&payload[..end], name.ends_with('*')), "{name} cut at {end}");
        }
        is_read
    });
    assert!(read_well.count() >= 19, "each kind of message once");
}

#[test]
fn mutated_messages() {
    let messages = messages();
    let pieces: Vec<&[u8]> = messages.iter().map(|(_, payload)| payload.as_slice()).collect();
    let mut accepted = 0_u64;
    cases(20_000, |_, random| {
        let mut payload = random.pick(&pieces).to_vec();
        random.mutate(&mut payload, &pieces);
        accepted += u64::from(read(&payload, random.below(2) == 0));
    });
    assert!(accepted > 0, "some are still messages");
}

/// Messages in any order, mutated or not: the assembler gives an error or goes on, and keeps no more than it is given.
#[test]
fn messages_in_any_order() {
    let messages = messages();
    let pieces: Vec<&[u8]> = messages.iter().map(|(_, payload)| payload.as_slice()).collect();
    let spool = tempfile::tempdir().unwrap();
    cases(1_000, |_, random| {
        let mut assembler = Assembler::new(random.below(200), spool.path().to_owned());
        for place in 0..random.below(40) {
            let mut payload = random.pick(&pieces).to_vec();
            if random.below(8) == 0 {
                random.mutate(&mut payload, &pieces);
            }
            let pushed = assembler.push(Lsn(u64::try_from(place).unwrap()), &payload);
            if let Ok(Some(transaction)) = pushed {
                let mut cursor = portal_audit::spool::Cursor::default();
                while let Ok(Some(_)) = transaction.next(&mut cursor) {}
            }
        }
    });
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}

/// The shipped mapping with words missing, doubled and garbled: it is read, or each fault has a place in the file.
#[test]
fn mutated_mappings() {
    let root = env!("CARGO_MANIFEST_DIR");
    let shipped =
        std::fs::read_to_string(format!("{root}/deploy/mapping/merge-reference.toml")).unwrap();
    let blocks: Vec<&str> = shipped.split("\n\n").collect();
    let words: Vec<&[u8]> = corpus("mapping.txt").leak().lines().map(str::as_bytes).collect();
    cases(60, |place, random| {
        let count = 1 + random.below(4);
        let chosen: Vec<&str> = (0..count).map(|_| random.pick(&blocks)).collect();
        let mut text = chosen.join("\n\n").into_bytes();
        random.mutate(&mut text, &words);
        let Ok(text) = String::from_utf8(text) else { return };
        if let Err(errors) = Mapping::parse("fuzz.toml", &text) {
            assert!(
                !errors.0.is_empty() && errors.0.iter().all(|error| error.line > 0),
                "case {place}"
            );
        }
    });
}

/// Connection strings: what is written by libpq's rules is read back, and garbage is refused without its password.
#[test]
fn mutated_connection_strings() {
    let seeds = corpus("conninfo.txt");
    let seeds: Vec<&[u8]> = seeds.lines().map(str::as_bytes).collect();
    cases(5_000, |_, random| {
        let mut text = random.pick(&seeds).to_vec();
        random.mutate(&mut text, &seeds);
        let text = String::from_utf8_lossy(&text).into_owned();
        drop(ConnInfo::parse(&text, &|_| None));
    });
    cases(2_000, |place, random| {
        let letters = ['a', '\'', '\\', ' ', '=', '%', 'é', '\t', '/', '@'];
        let mut word = || -> String {
            let length = 1 + random.below(8);
            (0..length).map(|_| letters[random.below(letters.len())]).collect()
        };
        let (user, database) = (word(), word());
        let quoted = |word: &str| word.replace('\\', "\\\\").replace('\'', "\\'");
        let text = format!(
            "host=/h password=hunter2 user = '{}' dbname='{}'",
            quoted(&user),
            quoted(&database)
        );
        let conninfo = ConnInfo::parse(&text, &|_| None)
            .unwrap_or_else(|error| panic!("case {place}: {text}: {error}"));
        assert!(!format!("{conninfo:?}").contains("hunter2"), "case {place}");
        assert_eq!(
            (conninfo.user(), conninfo.dbname()),
            (user.as_str(), database.as_str()),
            "case {place}"
        );
    });
}

/// Checkpoints: what is read is what would be written, and a key believes nothing but what it signed.
#[test]
fn mutated_checkpoints() {
    let (key, _line) = SigningKey::generate("log.example").unwrap();
    let trees = [(".own", 3, [1; 32]), ("a \"b\"\n", u64::MAX, [2; 32])];
    let written = Checkpoint {
        log: "log.example".to_owned(),
        number: 17,
        at: "2026-04-23T20:50:23.000000Z".to_owned(),
        trees: trees.map(|(tree, size, root)| (tree.to_owned(), (size, root))).into(),
    };
    let (body, note) = (written.body(), key.sign(&written.body()));
    let keys = [key.public().clone()];
    let pieces: [&[u8]; 6] = [
        b"\n",
        b"\n\n",
        b"tree 0 ",
        b"checkpoint 18 ",
        "\u{2014} log.example ".as_bytes(),
        note.as_bytes(),
    ];
    let (mut read, mut believed) = (0, 0);
    cases(20_000, |place, random| {
        let mut bytes = note.clone().into_bytes();
        random.mutate(&mut bytes, &pieces);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            assert!(text.starts_with(&checkpoint.body()), "case {place}: {text}");
            read += 1;
        }
        if is_signed(&text, &keys) {
            assert!(text.starts_with(&body), "case {place}: {text}");
            believed += 1;
        }
    });
    assert!(read > believed && believed > 0, "{read} read, {believed} believed");
}

#[test]
fn any_time_is_shown_and_kept() {
    cases(20_000, |place, random| {
        let bits = random.below(64);
        let time = Timestamp(i64::from_ne_bytes((random.next() >> bits).to_ne_bytes()));
        assert!(time.to_string().ends_with('Z'), "case {place}");
        let is_known_to_chrono = time.0.unsigned_abs() < 8_000_000_000_000_000_000;
        assert!(!is_known_to_chrono || Timestamp::from(time.to_utc()) == time, "case {place}");
        assert_eq!(
            Timestamp::from_unix_micros(time.unix_micros()),
            if time.0 > i64::MAX - 946_684_800_000_000 {
                Timestamp::from_unix_micros(i64::MAX)
            } else {
                time
            }
        );
    });
}

/// What is said to be safe for `jsonb` it takes, and it means the same; the server is the judge.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_called_safe() {
    let session = open(cluster(), "postgres").await;
    run(&session, "CREATE FUNCTION pg_temp.taken(TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$ BEGIN RETURN length($1::jsonb::text) >= 0; EXCEPTION WHEN OTHERS THEN RETURN false; END $$").await;
    let seeds = corpus("documents.txt");
    let seeds: Vec<&[u8]> = seeds.lines().map(str::as_bytes).collect();
    let mut safe = Vec::new();
    cases(20_000, |_, random| {
        let mut text = random.pick(&seeds).to_vec();
        random.mutate(&mut text, &seeds);
        let (redacted, _) = document::redact(&text);
        let Ok(text) = String::from_utf8(redacted.into_owned()) else { return };
        std::hint::black_box(document::is_deep(&text));
        if document::is_safe_json(&text) && !text.contains('\0') {
            safe.push(text);
        }
    });
    assert!(safe.len() > 100, "{}", safe.len());
    safe.truncate(200_000);
    for part in safe.chunks(5_000) {
        let query = "SELECT t FROM unnest($1::text[]) AS t WHERE NOT pg_temp.taken(t) LIMIT 1";
        let refused = session.client.query_opt(query, &[&part]).await.unwrap();
        assert!(refused.is_none(), "{:?}", refused.map(|row| row.get::<_, String>(0)));
    }
}
