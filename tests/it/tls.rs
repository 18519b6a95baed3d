//! TLS and logins as libpq has them: the same outcome in each mode, for ordinary sessions and for the stream, and what is refused names its fix.

use crate::support::{
    Portal, open, portal_between,
    program::Program,
    run,
    tls::{Authority, Home, Issued, TlsServer, Wish, outcome, self_signed},
    value, wait_for,
};
use portal_audit::{config::Settings, connect::Session};
use std::{
    fs,
    path::{Path, PathBuf},
};

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Whom everybody may be.
const TRUST: &str = "host all all 127.0.0.1/32 trust";

fn psql() -> Option<PathBuf> {
    let own = portal_audit::demo::cluster::Installation::find(None).ok();
    let own = own.map(|installation| installation.bindir.join("psql"));
    let debian = ["18", "17", "16", "15", "14"]
        .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/psql")));
    own.into_iter().chain(debian).find(|path| path.is_file())
}

/// What libpq makes of it, where a psql is installed.
#[expect(clippy::disallowed_methods, reason = "it is compared with another program")]
fn libpq(psql: &Path, dsn: &str, home: &Home) -> &'static str {
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut command = std::process::Command::new(psql);
    command.env_clear().env("HOME", home.path()).args(["-XAtw", "-c", query, dsn]);
    let output = command.output().unwrap();
    match (output.status.success(), output.stdout.as_slice()) {
        (true, b"t\n") => "tls",
        (true, b"f\n") => "plain",
        _ => "refused",
    }
}

/// A server, whom the client trusts, and libpq's outcome in each of the modes.
struct Case {
    name: &'static str,
    server: Option<Issued>,
    home: Home,
    host: &'static str,
    more: &'static str,
    expected: [&'static str; 6],
    /// In each error of ours.
    says: &'static str,
}

/// Where we do not take what libpq takes, and why. Nowhere do we take what it refuses.
const DEVIATIONS: [(&str, &[&str], &str); 2] = [
    (
        "named and missing",
        &["prefer", "require"],
        "who names a root file wants the server verified by it",
    ),
    (
        "a CA's certificate",
        &["prefer", "require", "verify-ca", "verify-full"],
        "webpki takes no CA's certificate for a server's, unless it is in the root file itself",
    ),
];

const LOCAL: &str = "localhost";
const GOOD: &str = "plain plain tls tls tls tls";
/// Encryption without looking who answers.
const UNKNOWN: &str = "plain plain tls tls refused refused";
/// A root file that is there is used in each mode; and on this machine `prefer` goes on without TLS.
const BAD: &str = "plain plain plain refused refused refused";

fn case(
    name: &'static str,
    (server, home): (Option<Issued>, Home),
    host: &'static str,
    expected: &'static str,
    says: &'static str,
) -> Case {
    let words: Vec<&'static str> = expected.split(' ').collect();
    Case { name, server, home, host, more: "", expected: words.try_into().unwrap(), says }
}

/// A certificate that a CA signed, and who trusts which.
fn signed() -> Vec<Case> {
    let (ca, other) = (Authority::new("right"), Authority::new("wrong"));
    let issue = |wish| (Some(ca.issue(wish)), Home::trusting(&ca.pem));
    let good = || issue(Wish { years: (2001, 2090), ..Wish::default() });
    let elsewhere = &["elsewhere.example"][..];
    let wrong_host = "is for \"elsewhere.example\", not for \"localhost\"";
    let expired = issue(Wish { years: (2001, 2011), ..Wish::default() });
    let early = issue(Wish { years: (2093, 2094), ..Wish::default() });
    let common = issue(Wish { common_name: LOCAL, names: &[], years: (2001, 2092), is_ca: false });
    let of_a_ca = issue(Wish { years: (2001, 2095), is_ca: true, ..Wish::default() });
    let missing = "could not read sslrootcert \"/nowhere\"";
    vec![
        case("no TLS", (None, good().1), LOCAL, BAD, "without TLS, which it does not have"),
        case("good", good(), LOCAL, GOOD, ""),
        case("address", good(), "127.0.0.1", GOOD, ""),
        case(
            "wrong host",
            issue(Wish { names: elsewhere, years: (2001, 2096), ..Wish::default() }),
            LOCAL,
            "plain plain tls tls tls refused",
            wrong_host,
        ),
        case(
            "wrong CA",
            (good().0, Home::trusting(&other.pem)),
            LOCAL,
            BAD,
            "is signed by no CA of sslrootcert",
        ),
        case("expired", expired, LOCAL, BAD, "expired on 2011-01-01 00:00:00 UTC"),
        case("not yet valid", early, LOCAL, BAD, "is valid from 2093-01-01 00:00:00 UTC on"),
        case("no root file", (good().0, Home::new()), LOCAL, UNKNOWN, "its file in sslrootcert"),
        Case {
            more: "sslrootcert=/nowhere",
            ..case("named and missing", good(), LOCAL, UNKNOWN, missing)
        },
        case("common name", common, LOCAL, GOOD, ""),
        case("a CA's certificate", of_a_ca, LOCAL, GOOD, "its certificate cannot be used"),
    ]
}

/// A certificate whose chain is longer, or ends badly.
fn chained() -> Vec<Case> {
    let (root, old) = (Authority::new("root"), Authority::expired("old"));
    let between = root.between("between");
    let leaf = between.issue(Wish { years: (2001, 2097), ..Wish::default() });
    let with = |pems: &[&str]| Some(Issued { cert: pems.concat(), ..leaf.clone() });
    let both = Home::trusting(&format!("{}{}", root.pem, between.pem));
    let alone = || with(&[&leaf.cert]);
    let of_old = old.issue(Wish { years: (2001, 2098), ..Wish::default() });
    let home = || Home::trusting(&root.pem);
    let says = "it holds no root certificate";
    vec![
        case("sent", (with(&[&leaf.cert, &between.pem]), home()), LOCAL, GOOD, ""),
        case("in the root file", (alone(), both), LOCAL, GOOD, ""),
        case("nowhere", (alone(), home()), LOCAL, BAD, "is signed by no CA of sslrootcert"),
        case("no root", (alone(), Home::trusting(&between.pem)), LOCAL, BAD, says),
        case(
            "expired root",
            (Some(of_old), Home::trusting(&old.pem)),
            LOCAL,
            BAD,
            "its root certificate expired on 2014-01-01",
        ),
    ]
}

/// A certificate that is its own CA.
fn unsigned() -> Vec<Case> {
    let own = self_signed(LOCAL, (2001, 2091));
    let old = self_signed(LOCAL, (2001, 2012));
    let (own_home, old_home) = (Home::trusting(&own.cert), Home::trusting(&old.cert));
    let other = Home::trusting(&Authority::new("other").pem);
    vec![
        case("its own CA", (Some(own.clone()), own_home), LOCAL, GOOD, ""),
        case("not trusted", (Some(own), other), LOCAL, BAD, "is signed by no CA of sslrootcert"),
        case("expired by itself", (Some(old), old_home), LOCAL, BAD, "expired on 2012-01-01"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_ends_as_with_libpq() {
    let (server, psql) = (TlsServer::start(TRUST, &[]), psql());
    for case in signed().into_iter().chain(chained()).chain(unsigned()) {
        if let Some(issued) = &case.server {
            server.present(issued).await;
        }
        for (mode, expected) in MODES.into_iter().zip(case.expected) {
            let dsn = server.dsn("postgres", "postgres");
            let dsn = format!("host={} {dsn} sslmode={mode} {}", case.host, case.more);
            let ours = outcome(&case.home.parse(&dsn).unwrap()).await;
            let word = ours.as_ref().map_or("refused", |word| *word);
            let deviates = DEVIATIONS
                .iter()
                .any(|(name, modes, _)| *name == case.name && modes.contains(&mode));
            assert_eq!(word == expected, !deviates, "{}, {mode}: {ours:?}", case.name);
            if let Err(told) = &ours {
                let names_server = told.contains(&format!("could not connect to {}:", case.host));
                assert!(names_server && told.contains(case.says), "{}, {mode}: {told}", case.name);
            }
            match &psql {
                None => println!("not compared with libpq: there is no psql"),
                Some(psql) => {
                    let theirs = libpq(psql, &dsn, &case.home);
                    assert_eq!(theirs, expected, "libpq: {}, {mode}", case.name);
                }
            }
        }
    }
}

/// All sessions of the sidecar are there, and none is in plain text. After a fault each comes back by itself, one later than another.
async fn assert_encrypted(session: &Session) {
    const ALL: &str = "SELECT count(*) > 2 AND count(*) FILTER (WHERE backend_type = 'walsender') > 0 FROM pg_stat_activity WHERE usename = 'sidecar'";
    const ENCRYPTED: &str = "SELECT count(*) FILTER (WHERE ssl) > 2 AND count(*) FILTER (WHERE NOT ssl) = 0 AND bool_or(backend_type = 'walsender') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'sidecar'";
    wait_for("its sessions", async || value::<bool>(session, ALL).await).await;
    assert!(value::<bool>(session, ENCRYPTED).await);
}

/// Everything that the sidecar opens is encrypted and verified; and what expires under it, certificate, CA and password, is told and read anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_expires_while_the_sidecar_runs() {
    let ca = Authority::new("first");
    let hba = "hostssl all sidecar 127.0.0.1/32 scram-sha-256\nhostssl all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 reject";
    let server = TlsServer::start(hba, &[]);
    server.present(&ca.issue(Wish { years: (2001, 2090), ..Wish::default() })).await;
    let role = "CREATE ROLE sidecar LOGIN SUPERUSER PASSWORD 'hunter2canary'";
    run(&server.superuser().await, role).await;
    let home = Home::new();
    let root = home.write("ca.pem", &ca.pem);
    let passfile = home.write("pgpass", "*:*:*:sidecar:hunter2canary");
    let dsn = |database: &str| {
        let (dsn, passfile) = (server.dsn(database, "sidecar"), passfile.display());
        let root = root.display();
        format!(
            "host=localhost {dsn} sslmode=verify-full sslrootcert={root} channel_binding=require passfile={passfile}"
        )
    };
    let text = format!(
        "[audit]\ndsn = {:?}\n[[source]]\nname = \"tls\"\ndsn = {:?}\nmapping = \"merge-reference\"\n\
         [limits]\nspool_folder = \"/tmp\"\ncomplete_interval_ms = 20\nconfirm_interval_ms = 10\nretry_max_seconds = 1\n",
        dsn("tls_audit"),
        dsn("tls"),
    );
    let settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    portal_between(&server.cluster, &server.cluster, "tls", &settings).await;
    let source = open(&server.cluster, "tls").await;
    let audit = open(&server.cluster, "tls_audit").await;
    let portal =
        Portal { name: "tls".to_owned(), source, audit, settings, settings_text: text.clone() };
    let (file, log) = (home.write("portal-audit.toml", &text), home.file("log"));
    let program = Program::run_with_level(&file, &log, "info");
    let says = || fs::read_to_string(&log).unwrap();
    portal.streaming().await;
    let user = |name: &str| {
        format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
    };
    portal.act(&user("before")).await;
    // Large enough for many records of TLS.
    portal.act("INSERT INTO portal.users (username, uid, gid) SELECT 'many' || n, n, n FROM generate_series(1, 5000) n").await;
    assert_encrypted(&portal.source).await;

    server.present(&ca.issue(Wish { years: (2001, 2011), ..Wish::default() })).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sidecar'";
    run(&portal.source, cut).await;
    run(&portal.source, &user("meanwhile")).await;
    let line = "its certificate expired on 2011-01-01 00:00:00 UTC. Give it a new one";
    wait_for(line, async || says().contains(line)).await;

    let next = Authority::new("next");
    server.present(&next.issue(Wish { years: (2001, 2091), ..Wish::default() })).await;
    run(&portal.source, "ALTER ROLE sidecar PASSWORD 'hunter3canary'").await;
    home.write("pgpass", "*:*:*:sidecar:hunter3canary");
    home.write("ca.pem", &next.pem);
    portal.act(&user("after")).await;
    assert_encrypted(&portal.source).await;
    assert!(program.terminate().success());
    assert!(!says().contains("canary"), "{}", says());
    let proof = portal.proof().await;
    assert_eq!(
        (proof.events, proof.lost, proof.doubled),
        (5_003, 0, 0),
        "{:#?}",
        proof.differences
    );
}
