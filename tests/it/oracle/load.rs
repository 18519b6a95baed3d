//! Random changes of rows with every built-in type, beside a journal of triggers that lies outside of the publication.

use super::Line;
use crate::support::{run, value};
use portal_audit::connect::Session;
use std::fmt::Write as _;

/// One for each replica identity.
pub const TABLES: [&str; 4] = ["by_default", "by_full", "by_index", "inserts"];

/// Name, type and literals of each column of a type. A literal is quoted as it stands.
const COLUMNS: &[(&str, &str, &[&str])] = &[
    ("c_bool", "boolean", &["t", "f"]),
    ("c_int2", "smallint", &["-32768", "32767", "0"]),
    ("c_int4", "integer", &["-2147483648", "2147483647"]),
    ("c_int8", "bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("c_float4", "real", &["NaN", "-Infinity", "-0", "1e30", "1e-45", "0.1", "16777217"]),
    (
        "c_float8",
        "double precision",
        &["NaN", "Infinity", "-0", "1e300", "5e-324", "0.1", "-1.7976931348623157e308"],
    ),
    (
        "c_numeric",
        "numeric",
        &[
            "NaN",
            "0",
            "-0.000",
            "1.50",
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890.5",
            "1e-200",
        ],
    ),
    (
        "c_text",
        "text",
        &[
            "",
            "NULL",
            "it's \"quoted\" \\ back\\n",
            "a\nb\r\tc",
            "😀 👨‍👩‍👧 שלום \u{202e}abc\u{202c} \u{2028}",
            "{\"a\": 1}",
            "\u{1}\u{1b}[31m\u{7f}",
        ],
    ),
    ("c_varchar", "varchar(40)", &["", "  spaces  ", "ünïcödé", "%s $1 ; -- x"]),
    ("c_char", "char(10)", &["", "abc", "ab\ncd", "0123456789"]),
    ("c_bytea", "bytea", &["", "\\x00ff5c27", "\\xdeadbeef"]),
    ("c_date", "date", &["2026-04-03", "0044-03-15 BC", "infinity", "5874897-12-31"]),
    ("c_time", "time", &["00:00:00", "23:59:59.999999", "24:00:00"]),
    ("c_timetz", "timetz", &["04:05:06.7+05:45", "23:59:60-11"]),
    (
        "c_timestamp",
        "timestamp",
        &["2026-04-03 14:06:07.000001", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59"],
    ),
    (
        "c_timestamptz",
        "timestamptz",
        &["2026-04-03 14:06:07+09", "infinity", "1883-01-01 00:00:00+00"],
    ),
    (
        "c_interval",
        "interval",
        &["1 year 2 mons -3 days 04:05:06.789", "-1 second", "0", "178000000 years"],
    ),
    (
        "c_uuid",
        "uuid",
        &["00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    ),
    (
        "c_json",
        "json",
        &[
            "null",
            "{\"a\":1, \"a\": 2}",
            "\"\\u0000\"",
            "[1e400, -0, 1.50]",
            " {\"x\" : \"\\ud800\"} ",
        ],
    ),
    (
        "c_jsonb",
        "jsonb",
        &["null", "{\"b\": [1.50, 12345678901234567890123], \"a\": \"\\\"\"}", "[]", "\"a\\nb\""],
    ),
    ("c_inet", "inet", &["10.0.0.1", "::1/64", "192.168.0.1/24"]),
    ("c_cidr", "cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("c_macaddr", "macaddr", &["08:00:2b:01:02:03"]),
    ("c_macaddr8", "macaddr8", &["08:00:2b:01:02:03:04:05"]),
    (
        "c_texts",
        "text[]",
        &[
            "{}",
            "{NULL,\"NULL\",\"\",\"a,b\",\"q\\\"uote\",\"back\\\\slash\",\"{brace}\",\" \"}",
            "[2:3]={x,y}",
        ],
    ),
    ("c_ints", "integer[]", &["{{1,2},{3,NULL}}"]),
    ("c_range", "int4range", &["empty", "[1,5]", "(,3)"]),
    ("c_tstzrange", "tstzrange", &["[2026-01-01 00:00+01,infinity)"]),
    ("c_multirange", "int4multirange", &["{}", "{[1,2),[5,9)}"]),
    ("c_composite", "o.composite", &["(,)", "(\"a \"\"quoted\"\", text\",7)", "(\"\",)"]),
    ("c_enum", "o.\"Mood\"", &["sad", "it's ok", "ünhappy"]),
    ("c_domain", "o.positive", &["1", "99"]),
    ("c_money", "money", &["$1,234.56", "-92233720368547758.08"]),
    ("c_tsvector", "tsvector", &["'a':1A 'it''s':2,3B", ""]),
    ("c_tsquery", "tsquery", &["'a' & !'b' <-> 'c':*"]),
    ("c_bit", "bit(9)", &["101010101"]),
    ("c_varbit", "varbit", &["", "1", "0101"]),
    ("c_point", "point", &["(1.5,-0)", "(NaN,Infinity)"]),
    ("c_path", "path", &["((0,0),(1,1))", "[(0,0),(1e300,1)]"]),
    ("c_name", "name", &["a name", ""]),
    ("c_oid", "oid", &["0", "4294967295"]),
    ("c_lsn", "pg_lsn", &["16/B374D848"]),
    ("c_jsonpath", "jsonpath", &["$.a[*] ? (@ > 1)"]),
];
/// Columns of types that a server may lack.
const OPTIONAL: &[(&str, &str, &[&str], &str)] = &[
    ("c_xml", "xml", &["<a b=\"1\">&amp;</a>", "text"], "SELECT '<a/>'::xml"),
    (
        "c_hstore",
        "hstore",
        &["\"a\"=>\"1, \\\"2\\\"\", \"b\"=>NULL", ""],
        "CREATE EXTENSION hstore",
    ),
];
/// Columns that `to_jsonb` must show with the very text of the stream; the others have a form of their own there, and not every `json` is a `jsonb`.
const SAME_IN_JSON: [&str; 17] = [
    "id",
    "key_text",
    "c_int2",
    "c_int4",
    "c_int8",
    "c_numeric",
    "c_text",
    "c_varchar",
    "c_char",
    "c_bytea",
    "c_uuid",
    "c_jsonb",
    "c_inet",
    "c_macaddr",
    "c_enum",
    "c_domain",
    "big",
];

type ColumnKind = (&'static str, &'static str, &'static [&'static str]);

/// splitmix64: a run is its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Text that does not compress.
    fn hex(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            write!(text, "{:016x}", self.next()).unwrap();
        }
        text.truncate(length);
        text
    }
}

/// A table as its load knows it.
#[derive(Clone)]
pub struct Table {
    pub name: &'static str,
    /// Published columns in the table's order.
    pub columns: Vec<String>,
    ids: Vec<i64>,
}

impl Table {
    pub fn publishes(&self, operation: &str) -> bool {
        self.name != "inserts" || operation == "insert"
    }

    /// Whether the replica identity carries a column.
    pub fn carries_old(&self, position: usize) -> bool {
        match self.name {
            "by_full" => true,
            "by_default" => self.columns[position] == "id",
            "by_index" => matches!(self.columns[position].as_str(), "id" | "key_text"),
            _ => false,
        }
    }
}

/// A session that changes rows at random.
pub struct Load {
    random: Random,
    kinds: Vec<ColumnKind>,
    pub tables: Vec<Table>,
    next_id: i64,
    changes: usize,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Load {
    /// Creates tables, journal and publications.
    pub async fn new(session: &Session, seed: u64) -> Self {
        const TYPES: &str = "CREATE SCHEMA o; CREATE TYPE o.composite AS (a TEXT, b INT);
            CREATE TYPE o.\"Mood\" AS ENUM ('sad', 'it''s ok', 'ünhappy');
            CREATE DOMAIN o.positive AS INT CHECK (VALUE > 0); CREATE TABLE marker (id INT PRIMARY KEY);
            CREATE SCHEMA o_journal; CREATE TABLE o_journal.change (seq BIGSERIAL PRIMARY KEY, tbl TEXT, op TEXT,
                old TEXT[], new TEXT[], old_json JSONB, new_json JSONB)";
        run(session, TYPES).await;
        let mut kinds = COLUMNS.to_vec();
        for &(name, kind, literals, probe) in OPTIONAL {
            match session.client.batch_execute(probe).await {
                Ok(()) => kinds.push((name, kind, literals)),
                Err(_) => println!("this server has no {kind}"),
            }
        }
        let mut columns = vec!["id".to_owned(), "key_text".to_owned()];
        columns.extend(kinds.iter().map(|(name, _, _)| (*name).to_owned()));
        columns.push("big".to_owned());
        // From 18 on replica identity FULL demands that generated columns are published.
        let version: i32 =
            value(session, "SELECT current_setting('server_version_num')::int").await;
        let option = if version >= 180_000 {
            columns.insert(2, "twice".to_owned());
            "publish_generated_columns = stored"
        } else {
            "publish_via_partition_root = false"
        };
        let tables: Vec<Table> =
            TABLES.map(|name| Table { name, columns: columns.clone(), ids: Vec::new() }).to_vec();
        for table in &tables {
            run(session, &schema(table, &kinds)).await;
        }
        let identities = format!(
            "CREATE UNIQUE INDEX by_index_identity ON o.by_index (key_text, id);
             ALTER TABLE o.by_index REPLICA IDENTITY USING INDEX by_index_identity;
             ALTER TABLE o.by_full REPLICA IDENTITY FULL; ALTER TABLE o.inserts REPLICA IDENTITY NOTHING;
             CREATE PUBLICATION oracle FOR TABLE o.by_default, o.by_full, o.by_index, marker WITH ({option});
             CREATE PUBLICATION oracle_inserts FOR TABLE o.inserts WITH (publish = 'insert', {option})"
        );
        run(session, &identities).await;
        Self { random: Random(seed), kinds, tables, next_id: 1, changes: 0 }
    }

    /// Row changes that were committed, about.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// One transaction; of some a savepoint is rolled back, of some all.
    pub async fn transaction(&mut self, session: &Session) {
        let before = (self.tables.clone(), self.changes);
        let mut script = "BEGIN;\n".to_owned();
        for number in 0..1 + self.random.below(4) {
            let tables = (self.tables.clone(), self.changes);
            let savepoint = self.random.chance(40);
            if savepoint {
                writeln!(script, "SAVEPOINT s{number};").unwrap();
            }
            for _ in 0..1 + self.random.below(4) {
                self.act(&mut script);
            }
            if savepoint && self.random.chance(40) {
                writeln!(script, "ROLLBACK TO s{number};").unwrap();
                (self.tables, self.changes) = tables;
            }
        }
        if self.random.chance(10) {
            script += "ROLLBACK";
            (self.tables, self.changes) = before;
        } else {
            script += "COMMIT";
        }
        run(session, &script).await;
    }

    /// Ends the load.
    pub async fn finish(&self, session: &Session) {
        run(session, "INSERT INTO marker VALUES (1)").await;
    }

    fn act(&mut self, script: &mut String) {
        let place = self.random.below(self.tables.len());
        let name = self.tables[place].name;
        if self.tables[place].ids.is_empty() || self.random.chance(45) {
            return self.insert(place, script);
        }
        let chosen = self.random.below(self.tables[place].ids.len());
        let id = self.tables[place].ids[chosen];
        self.changes += usize::from(name != "inserts");
        if self.random.chance(25) {
            self.tables[place].ids.swap_remove(chosen);
            writeln!(script, "DELETE FROM o.{name} WHERE id = {id};").unwrap();
            return;
        }
        let mut assignments = Vec::new();
        if self.random.chance(20) {
            assignments.push(format!("id = {}", self.next_id));
            self.tables[place].ids[chosen] = self.next_id;
            self.next_id += 1;
        }
        if self.random.chance(15) {
            assignments.push(format!("key_text = {}", self.key_text()));
        }
        for _ in 0..self.random.below(4) {
            let kind = self.random.below(self.kinds.len());
            let value = self.value(kind);
            let assignment = format!("{} = {value}", self.kinds[kind].0);
            // A column may be set once.
            if !assignments
                .iter()
                .any(|other| other.split(' ').next() == assignment.split(' ').next())
            {
                assignments.push(assignment);
            }
        }
        if self.random.chance(20) {
            assignments.push(format!("big = {}", self.big()));
        }
        if assignments.is_empty() {
            assignments.push("big = big".to_owned());
        }
        writeln!(script, "UPDATE o.{name} SET {} WHERE id = {id};", assignments.join(", "))
            .unwrap();
    }

    fn insert(&mut self, place: usize, script: &mut String) {
        let mut rows = Vec::new();
        for _ in 0..self.random.one_of(&[1, 1, 1, 3]) {
            let mut values = vec![self.next_id.to_string(), self.key_text()];
            values.extend((0..self.kinds.len()).map(|kind| self.value(kind)));
            values.push(self.big());
            rows.push(format!("({})", values.join(", ")));
            self.tables[place].ids.push(self.next_id);
            self.next_id += 1;
            self.changes += 1;
        }
        let Table { name, columns, .. } = &self.tables[place];
        let columns: Vec<&str> =
            columns.iter().map(String::as_str).filter(|column| *column != "twice").collect();
        let (columns, rows) = (columns.join(", "), rows.join(",\n"));
        writeln!(script, "INSERT INTO o.{name} ({columns}) VALUES {rows};").unwrap();
    }

    fn value(&mut self, kind: usize) -> String {
        if self.random.chance(15) {
            return "NULL".to_owned();
        }
        quoted(self.random.one_of(self.kinds[kind].2))
    }

    /// Short, or long enough to be TOASTed and still short enough for an index.
    fn key_text(&mut self) -> String {
        let length = self.random.one_of(&[8, 2_300]);
        quoted(&self.random.hex(length))
    }

    fn big(&mut self) -> String {
        if self.random.chance(15) { "NULL".to_owned() } else { quoted(&self.random.hex(10_000)) }
    }

    /// What the triggers wrote, in order; checks that the server's two forms of a value agree.
    pub async fn journal(&self, session: &Session) -> Vec<Line> {
        let columns = quoted(&format!("{{{}}}", self.tables[0].columns.join(",")));
        let query = format!(
            "SELECT count(*) FROM o_journal.change,
                LATERAL (VALUES (old, old_json), (new, new_json)) AS row (texts, json),
                LATERAL unnest({columns}::text[], texts) AS c (name, text)
              WHERE texts IS NOT NULL AND json ? name AND text IS DISTINCT FROM json ->> name AND text IS DISTINCT FROM (json -> name)::text"
        );
        assert_eq!(value::<i64>(session, &query).await, 0);
        let query = "SELECT tbl, lower(op), old, new FROM o_journal.change ORDER BY seq";
        let rows = session.client.query(query, &[]).await.unwrap();
        let line = |row: &tokio_postgres::Row| Line {
            table: row.get(0),
            operation: row.get(1),
            old: row.get(2),
            new: row.get(3),
        };
        rows.iter().map(line).collect()
    }
}

/// A table, and the trigger that journals its rows by the types' own output functions, which `::text` is not for all of them.
fn schema(table: &Table, kinds: &[ColumnKind]) -> String {
    let Table { name, columns, .. } = table;
    let typed: Vec<String> = kinds.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let texts = |side: &str| {
        let text = |column: &String| {
            format!(
                "CASE WHEN {side}.{column} IS DISTINCT FROM NULL THEN format('%s', {side}.{column}) END"
            )
        };
        format!("ARRAY[{}]", columns.iter().map(text).collect::<Vec<_>>().join(", "))
    };
    let json = |side: &str| {
        let pair = |column| format!("'{column}', to_jsonb({side}.{column})");
        format!("jsonb_build_object({})", SAME_IN_JSON.map(pair).join(", "))
    };
    format!(
        "CREATE TABLE o.{name} (id BIGINT PRIMARY KEY, gone INT, key_text TEXT NOT NULL, twice BIGINT GENERATED ALWAYS AS (id * 2) STORED, {}, big TEXT);
         ALTER TABLE o.{name} DROP gone, ALTER big SET STORAGE EXTERNAL, ALTER key_text SET STORAGE EXTERNAL;
         CREATE FUNCTION o_journal.{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_OP = 'INSERT' THEN
                 INSERT INTO o_journal.change (tbl, op, new, new_json) VALUES ('{name}', TG_OP, {new}, {new_json});
             ELSIF TG_OP = 'UPDATE' THEN
                 INSERT INTO o_journal.change (tbl, op, old, new, old_json, new_json) VALUES ('{name}', TG_OP, {old}, {new}, {old_json}, {new_json});
             ELSE
                 INSERT INTO o_journal.change (tbl, op, old, old_json) VALUES ('{name}', TG_OP, {old}, {old_json});
             END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER journal AFTER INSERT OR UPDATE OR DELETE ON o.{name} FOR EACH ROW EXECUTE FUNCTION o_journal.{name}();
         ALTER TABLE o.{name} ENABLE ALWAYS TRIGGER journal",
        typed.join(", "),
        old = texts("OLD"),
        new = texts("NEW"),
        old_json = json("OLD"),
        new_json = json("NEW"),
    )
}
