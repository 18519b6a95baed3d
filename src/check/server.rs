//! The source's server: what it is, whether there is room, and how it is set.

use super::{Check, Found, Verdict, line::Line, verdict};
use crate::connect::{self, Session};
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// What is asked of the server, `version` first: with an unknown one the rest may mean nothing.
pub(super) const CHECKS: &[Check<Server>] = &[
    ("version", version),
    ("primary", primary),
    ("tls", tls),
    ("password_encryption", password_encryption),
    ("wal_level", wal_level),
    ("replication_slots", replication_slots),
    ("connections", connections),
    ("max_slot_wal_keep_size", max_slot_wal_keep_size),
    ("idle_replication_slot_timeout", idle_replication_slot_timeout),
    ("synchronized_standby_slots", synchronized_standby_slots),
    ("output_plugin_libraries", output_plugin_libraries),
    ("wal_sender_timeout", wal_sender_timeout),
    ("prepared_transactions", prepared_transactions),
    ("long_transactions", long_transactions),
    ("server_encoding", server_encoding),
    ("clock", clock),
];

/// The major versions that are tested.
const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;
/// The first minor of a major that decodes changes made beside an ALTER PUBLICATION without losing or piling up anything (release notes of May and August 2025).
const MINORS_MIN: [(u32, u32); 4] = [(14, 19), (15, 14), (16, 10), (17, 6)];
/// Connections that the sidecar may need at once for a source, with its looks at the catalog.
const CONNECTIONS: i64 = 5;
/// A transaction that is open so long holds up the slot, and with it vacuum and the log.
const LONG_SECONDS: f64 = 3_600.0;
/// Below this a busy moment of ours could be taken for the end.
const SENDER_TIMEOUT_MS_MIN: i64 = 5_000;
/// Clocks further apart than this make times of two machines misleading.
const SKEW_MS_MAX: i64 = 1_000;

/// What is known of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub(super) version_num: u32,
    pub(super) is_in_recovery: bool,
    pub(super) role: String,
    pub(super) settings: HashMap<String, String>,
    pub(super) slots: i64,
    pub(super) slot_names: Vec<String>,
    pub(super) backends: i64,
    /// Whether our slot is there already, so that none need be made.
    pub(super) has_slot: bool,
    pub(super) connection_limit: i32,
    pub(super) is_superuser: bool,
    pub(super) line: Line,
    /// Global id, database, seconds.
    pub(super) prepared: Vec<(String, String, f64)>,
    /// Process, database, seconds.
    pub(super) open: Vec<(i32, String, f64)>,
    /// Milliseconds by which its clock is ahead of ours, and half the round trip.
    pub(super) skew_ms: (i64, i64),
    pub(super) budget_bytes: u64,
}

const NAMES: &[&str] = &[
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "max_slot_wal_keep_size",
    "idle_replication_slot_timeout",
    "synchronized_standby_slots",
    "output_plugin_libraries",
    "wal_sender_timeout",
    "server_encoding",
    "password_encryption",
    "fsync",
    "full_page_writes",
];

/// The settings that are judged, as `pg_settings` has them, in its units. One that this version does not have is not there.
pub(super) async fn settings(
    session: &Session,
) -> Result<HashMap<String, String>, tokio_postgres::Error> {
    const QUERY: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1)";
    let rows = session.client.query(QUERY, &[&NAMES]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

impl Server {
    /// Asks.
    pub(super) async fn load(session: &Session, slot: &str, budget: u64) -> Result<Self, String> {
        let asked = Self::ask(session, slot, budget).await;
        asked.map_err(|error| connect::describe(&error))
    }

    async fn ask(
        session: &Session,
        slot: &str,
        budget_bytes: u64,
    ) -> Result<Self, tokio_postgres::Error> {
        const SERVER: &str = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_user::text, (SELECT count(*) FROM pg_replication_slots), ARRAY (SELECT slot_name::text FROM pg_replication_slots ORDER BY 1), EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1), (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database), r.rolconnlimit, r.rolsuper FROM pg_roles r WHERE r.rolname = current_user";
        const PREPARED: &str = "SELECT gid, database::text, extract(epoch FROM now() - prepared)::float8 FROM pg_prepared_xacts ORDER BY prepared LIMIT 20";
        // Of others' sessions a role without pg_read_all_stats sees no times; the prepared ones everybody may see.
        const OPEN: &str = "SELECT pid, coalesce(datname::text, ''), extract(epoch FROM now() - xact_start)::float8 FROM pg_stat_activity WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL AND xact_start < now() - make_interval(secs => $1) AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 20";
        let client = &session.client;
        let row = client.query_one(SERVER, &[&slot]).await?;
        let line = Line::load(session).await?;
        let prepared = client.query(PREPARED, &[]).await?;
        let open = client.query(OPEN, &[&LONG_SECONDS]).await?;
        Ok(Self {
            version_num: u32::try_from(row.get::<_, i32>(0)).unwrap_or(0),
            is_in_recovery: row.get(1),
            role: row.get(2),
            slots: row.get(3),
            slot_names: row.get(4),
            has_slot: row.get(5),
            backends: row.get(6),
            connection_limit: row.get(7),
            is_superuser: row.get(8),
            settings: settings(session).await?,
            line,
            prepared: prepared.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
            open: open.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
            skew_ms: skew(session).await?,
            budget_bytes,
        })
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name).parse().ok()
    }
}

/// By how much the server's clock is ahead of ours, and how exactly that is known: half of the round trip.
async fn skew(session: &Session) -> Result<(i64, i64), tokio_postgres::Error> {
    const QUERY: &str = "SELECT clock_timestamp()";
    #[expect(clippy::disallowed_methods, reason = "two clocks are compared")]
    let now = || Utc::now();
    let before = now();
    let row = session.client.query_one(QUERY, &[]).await?;
    let half = (now() - before) / 2;
    let server: DateTime<Utc> = row.get(0);
    Ok(((server - (before + half)).num_milliseconds(), half.num_milliseconds()))
}

fn alter_system(name: &str, value: &str, restart: bool) -> String {
    let then = if restart { "-- then restart the server" } else { "SELECT pg_reload_conf();" };
    format!("ALTER SYSTEM SET {name} = {value};\n{then}")
}

fn version(server: &Server) -> Verdict {
    let (major, minor) = (server.version_num / 10_000, server.version_num % 10_000);
    if !MAJORS.contains(&major) {
        let finding = format!("PostgreSQL {major} is not supported: 14 to 18 are");
        let fix =
            "-- upgrade the server to 14 or later, or this program if it is older than the server";
        return Err(vec![Found::critical("server_version", finding, fix)]);
    }
    let least = MINORS_MIN.iter().find(|(of, _)| *of == major).map_or(0, |(_, least)| *least);
    if minor < least {
        let finding = format!(
            "{major}.{minor} can lose changes that are made while a publication is altered: mended in {major}.{least}"
        );
        let fix = format!("-- update to the newest {major}.x: a restart, and no dump and restore");
        return Err(vec![Found::warning("server_version", finding, fix)]);
    }
    Ok(format!("PostgreSQL {major}.{minor}"))
}

fn primary(server: &Server) -> Verdict {
    let found = server.is_in_recovery.then(|| {
        let finding = "it is a standby: it is followed once it is promoted";
        Found::critical("server", finding, "# name the primary in the source's dsn")
    });
    verdict(found.into_iter().collect(), "a primary")
}

fn tls(server: &Server) -> Verdict {
    server.line.judge("the portal's rows cross the network in plaintext")
}

fn password_encryption(server: &Server) -> Verdict {
    let found = (server.setting("password_encryption") == "md5").then(|| {
        let finding =
            "passwords that are set now are stored as MD5, which the sidecar does not answer";
        let fix = alter_system("password_encryption", "'scram-sha-256'", false)
            + &format!(
                "\n-- then set the role's password again, in psql: \\password {}",
                super::quoted(&server.role)
            );
        Found::warning("password_encryption", finding, fix)
    });
    verdict(found.into_iter().collect(), "scram-sha-256")
}

fn wal_level(server: &Server) -> Verdict {
    let level = server.setting("wal_level");
    let found = (level != "logical").then(|| {
        let finding = format!("it is {level}: the log does not tell rows");
        Found::critical("wal_level", finding, alter_system("wal_level", "'logical'", true))
    });
    verdict(found.into_iter().collect(), "logical")
}

fn replication_slots(server: &Server) -> Verdict {
    let (used, max) = (server.slots, server.number("max_replication_slots").unwrap_or(0));
    let holds = format!("{used} of {max} in use");
    if server.has_slot || used < max {
        return Ok(holds);
    }
    let finding = format!("{holds}: there is no room for ours");
    let more = (max + 4).to_string();
    let fix = alter_system("max_replication_slots", &more, true)
        + "\n-- or drop one that nobody reads: SELECT slot_name, active FROM pg_replication_slots;";
    Err(vec![Found::critical("max_replication_slots", finding, fix)])
}

fn connections(server: &Server) -> Verdict {
    let reserved = ["superuser_reserved_connections", "reserved_connections"];
    let reserved: i64 = reserved.iter().filter_map(|name| server.number(name)).sum();
    let max = server.number("max_connections").unwrap_or(0);
    let left = (max - reserved - server.backends).max(0);
    let mut found = Vec::new();
    if left < CONNECTIONS {
        let finding =
            format!("{left} of {max} are left, and the sidecar takes up to {CONNECTIONS}");
        let fix = alter_system("max_connections", &(max + 20).to_string(), true);
        found.push(Found::warning("max_connections", finding, fix));
    }
    let limit = server.connection_limit;
    if (0..CONNECTIONS).contains(&i64::from(limit)) && !server.is_superuser {
        let role = super::quoted(&server.role);
        let finding =
            format!("its CONNECTION LIMIT is {limit}, and the sidecar takes up to {CONNECTIONS}");
        let fix = format!("ALTER ROLE {role} CONNECTION LIMIT {CONNECTIONS};");
        found.push(Found::warning(&format!("role {role}"), finding, fix));
    }
    verdict(found, format!("{left} of {max} left"))
}

fn max_slot_wal_keep_size(server: &Server) -> Verdict {
    const NAME: &str = "max_slot_wal_keep_size";
    let budget_mb = i64::try_from(server.budget_bytes >> 20).unwrap_or(i64::MAX);
    let wanted = match budget_mb.saturating_add(budget_mb / 4).max(64) {
        mb if mb % 1_024 == 0 => format!("'{}GB'", mb / 1_024),
        mb => format!("'{mb}MB'"),
    };
    match server.number(NAME) {
        Some(-1) => {
            let finding =
                "it is -1: a slot whose sidecar is away fills the portal's disk without a limit";
            Err(vec![Found::warning(NAME, finding, alter_system(NAME, &wanted, false))])
        }
        Some(size) if size < budget_mb => {
            let finding = format!(
                "{size} MB is less than limits.wal_budget_bytes ({budget_mb} MB): the server gives the slot up before the sidecar would, and changes are lost without a warning of ours"
            );
            let fix = alter_system(NAME, &wanted, false)
                + &format!(
                    "\n-- or in the settings, [limits]: wal_budget_bytes = {}",
                    size.max(1) << 19
                );
            Err(vec![Found::warning(NAME, finding, fix)])
        }
        Some(size) => Ok(format!("{size} MB")),
        None => Ok("this version has none".to_owned()),
    }
}

fn idle_replication_slot_timeout(server: &Server) -> Verdict {
    const NAME: &str = "idle_replication_slot_timeout";
    let seconds = server.number(NAME).unwrap_or(0);
    let found = (seconds > 0).then(|| {
        let finding = format!(
            "a slot that nobody reads for {seconds} s is given up, whatever room there is: a sidecar that is away so long loses changes"
        );
        Found::warning(NAME, finding, alter_system(NAME, "0", false))
    });
    verdict(found.into_iter().collect(), "off")
}

fn synchronized_standby_slots(server: &Server) -> Verdict {
    const NAME: &str = "synchronized_standby_slots";
    let named = server.setting(NAME).split(',').map(|name| name.trim().trim_matches('"'));
    let named = named.filter(|name| !name.is_empty());
    let absent = named.filter(|name| !server.slot_names.iter().any(|slot| slot == name));
    let found = absent.map(|name| {
        let finding = format!("it names slot {name}, which does not exist: a slot with failover waits for it, and no change is sent");
        let fix = format!(
            "SELECT pg_create_physical_replication_slot('{}');\n-- or take it out of the list: ALTER SYSTEM SET {NAME} = …; SELECT pg_reload_conf();",
            name.replace('\'', "''")
        );
        Found::critical(NAME, finding, fix)
    });
    verdict(found.collect(), "names nobody who is absent")
}

fn output_plugin_libraries(server: &Server) -> Verdict {
    const NAME: &str = "output_plugin_libraries";
    let Some(list) = server.settings.get(NAME) else {
        return Ok("this version has none".to_owned());
    };
    let is_allowed =
        list.split(',').any(|name| matches!(name.trim().trim_matches('"'), "pgoutput" | "*"));
    let found = (!is_allowed).then(|| {
        let finding = "it leaves out pgoutput: no slot of ours can be made or read";
        Found::critical(NAME, finding, alter_system(NAME, "pgoutput", false))
    });
    verdict(found.into_iter().collect(), "pgoutput is allowed")
}

fn wal_sender_timeout(server: &Server) -> Verdict {
    const NAME: &str = "wal_sender_timeout";
    let timeout = server.number(NAME).unwrap_or(SENDER_TIMEOUT_MS_MIN);
    let finding = match timeout {
        0 => "it is off: where the sidecar's host is lost, its slot stays in use until TCP gives up, and nobody else can read on".to_owned(),
        ms if ms < SENDER_TIMEOUT_MS_MIN => format!("{ms} ms is short: a busy moment ends the stream"),
        ms => return Ok(format!("{ms} ms")),
    };
    Err(vec![Found::warning(NAME, finding, alter_system(NAME, "'60s'", false))])
}

fn prepared_transactions(server: &Server) -> Verdict {
    let holding = server.prepared.iter();
    let holding = holding.filter(|(.., age)| !server.has_slot || *age > LONG_SECONDS);
    let found = holding.map(|(gid, database, age)| {
        let what = if server.has_slot {
            "it holds the slot, and with it the log on the disk"
        } else {
            "the slot cannot be made while it is open"
        };
        let finding =
            format!("prepared {} ago in database {database}: {what}", crate::show::seconds(*age));
        let gid = gid.replace('\'', "''");
        let fix =
            format!("-- in database {database}, as its owner wants:\nROLLBACK PREPARED '{gid}';");
        Found::warning("prepared transaction", finding, fix)
    });
    verdict(found.collect(), "none is in the way")
}

fn long_transactions(server: &Server) -> Verdict {
    let found = server.open.iter().map(|(pid, database, age)| {
        let finding = format!(
            "open for {} in database {database}: what it wrote, and the log since, waits for its end",
            crate::show::seconds(*age)
        );
        Found::warning(
            &format!("process {pid}"),
            finding,
            format!("SELECT pg_terminate_backend({pid});"),
        )
    });
    verdict(found.collect(), "none is open for long")
}

fn server_encoding(server: &Server) -> Verdict {
    let encoding = server.setting("server_encoding");
    let found = (encoding == "SQL_ASCII").then(|| {
        let finding = "SQL_ASCII says nothing of what the bytes mean: those that are no UTF-8 are escaped in events";
        let fix = "-- dump the database and restore it into one with an encoding:\n-- CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;";
        Found::warning("server_encoding", finding, fix)
    });
    verdict(found.into_iter().collect(), encoding)
}

fn clock(server: &Server) -> Verdict {
    let (skew, half) = server.skew_ms;
    let found = (skew.abs() > SKEW_MS_MAX + half).then(|| {
        let way = if skew > 0 { "ahead of" } else { "behind" };
        let finding = format!(
            "the source's clock is {} ms {way} this machine's: events bear the source's times, and lag in seconds is wrong by that",
            skew.abs()
        );
        Found::warning("clock", finding, "# on both machines: chronyc tracking\nsystemctl enable --now chrony")
    });
    verdict(found.into_iter().collect(), format!("within {} ms of ours", skew.abs() + half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    fn status(verdict: &Verdict) -> Status {
        verdict.as_ref().map_or_else(
            |found| {
                assert!(found.iter().all(|found| !found.fix.is_empty()), "{found:?}");
                found.iter().map(|found| found.status).max().unwrap()
            },
            |_| Status::Ok,
        )
    }

    fn with(change: impl FnOnce(&mut Server)) -> Server {
        let mut server = Server { version_num: 180_006, ..Server::default() };
        change(&mut server);
        server
    }

    #[test]
    fn versions_that_are_not_known() {
        let of = |version_num| status(&version(&Server { version_num, ..Server::default() }));
        assert_eq!([130_022, 190_000].map(of), [Status::Critical; 2]);
        assert_eq!([140_018, 150_013, 160_009, 170_005].map(of), [Status::Warning; 4]);
        assert_eq!([140_019, 150_014, 160_010, 170_006, 180_000].map(of), [Status::Ok; 5]);
    }

    #[test]
    fn pgoutput_is_not_allowed() {
        let of = |list: &str| {
            status(&output_plugin_libraries(&with(|server| {
                server.settings.insert("output_plugin_libraries".into(), list.into());
            })))
        };
        assert_eq!(of("test_decoding, wal2json"), Status::Critical);
        assert_eq!([of("pgoutput, test_decoding"), of("\"pgoutput\"")], [Status::Ok; 2]);
        assert_eq!(status(&output_plugin_libraries(&with(|_| {}))), Status::Ok);
    }

    #[test]
    fn clocks_that_are_apart() {
        let of = |skew| status(&clock(&with(|server| server.skew_ms = (skew, 100))));
        assert_eq!([of(1_101), of(-1_101)], [Status::Warning; 2]);
        assert_eq!([of(1_100), of(0)], [Status::Ok; 2]);
    }

    #[test]
    fn transactions_that_are_open_for_long() {
        let open = with(|server| server.open = vec![(7, "portal".into(), 7_200.0)]);
        assert_eq!(status(&long_transactions(&open)), Status::Warning);
        let prepared = |has_slot, age| {
            status(&prepared_transactions(&with(|server| {
                server.has_slot = has_slot;
                server.prepared = vec![("x".into(), "portal".into(), age)];
            })))
        };
        assert_eq!(prepared(true, 60.0), Status::Ok);
        assert_eq!([prepared(true, 3_601.0), prepared(false, 1.0)], [Status::Warning; 2]);
    }
}
