//! A server that speaks nonsense, or is another than was meant: told in a line, in bounded memory, and tried anew; and if it goes on, told for good.

use crate::support::{
    Portal, Sidecar,
    linked::{Linked, dsn, linked},
    program::{Program, SettingsFile},
    proxy::{Ending, Fault, Message, Proxy, Way::ToClient, Weather, Which},
    run, value, wait_for,
};
use portal_audit::config::Settings;
use std::path::Path;

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

async fn is_written(portal: &Portal, name: &str) -> bool {
    let query = format!("SELECT count(*) > 0 FROM public.events WHERE subject = '{name}'");
    value(&portal.audit, &query).await
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// `ErrorResponse` with the fields that a client needs.
fn error(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

fn is_begin(message: &Message<'_>) -> bool {
    message.is_pgoutput(b'B')
}

fn is_commit(message: &Message<'_>) -> bool {
    message.is_pgoutput(b'C')
}

fn nonsense() -> Vec<(&'static str, Fault, Which, &'static str)> {
    let replace = |bytes: &[u8]| Fault::Replace(bytes.to_vec());
    let notices = message(b'N', b"SNOTICE\0Mhunter2canary\0\0").repeat(20_000);
    let data = |body: &[u8]| message(b'd', body);
    let garbled = [&b"w"[..], &[0; 24], b"I\0\0"].concat();
    vec![
        ("garbage", replace(b"\xde\xad\xbe\xef\xde\xad"), is_commit, "protocol violation: message"),
        ("http", replace(b"HTTP/1.1 400 Bad Request\r\n\r\n"), is_begin, "protocol violation"),
        ("two_gigabytes", replace(b"d\x7f\xff\xff\xff"), is_commit, "of 2147483647 bytes"),
        ("negative_length", replace(b"d\xff\xff\xff\xff"), is_commit, "protocol violation"),
        ("never_ending", replace(b"d\x35\x00\x00\x00w"), is_commit, "did not answer within 2 s"),
        ("unknown_type", replace(&message(b'~', b"")), is_commit, "unexpected message \"~\""),
        ("unknown_frame", replace(&data(b"q123")), is_commit, "CopyData \"q\" of 4 bytes"),
        (
            "unknown_change",
            replace(&data(&[&b"w"[..], &[0; 24], b"q"].concat())),
            is_commit,
            "the stream cannot be read",
        ),
        (
            "short_change",
            replace(&data(&garbled)),
            |m| m.is_pgoutput(b'I'),
            "ends inside its field",
        ),
        ("no_begin", Fault::Swallow, is_begin, "the stream cannot be read"),
        ("copy_done", replace(&message(b'c', b"")), is_commit, "the source ended the stream"),
        (
            "error",
            replace(&error("XX000", "cache lookup failed")),
            is_commit,
            "cache lookup failed (SQLSTATE XX000)",
        ),
        ("notices", Fault::Insert(notices), is_commit, "notices without end"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_stream_is_told_and_tried_anew() {
    let mut linked = linked("garbage_stream", "source_timeout_seconds = 2").await;
    let settings = SettingsFile::new(&linked.portal);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let program = Program::run_with_level(&settings.path, &log, "info");
    linked.portal.streaming().await;
    for (name, fault, matches, says) in nonsense() {
        linked.portal.act(&user(&format!("before_{name}"))).await;
        let before = std::fs::read_to_string(&log).unwrap().len();
        linked.source.arm(fault, 0, matches);
        run(&linked.portal.source, &user(name)).await;
        linked.source.fired(name).await;
        wait_for(name, async || {
            let told = std::fs::read_to_string(&log).unwrap();
            assert!(!told.contains("needs a human"), "{name}: {told}");
            is_written(&linked.portal, name).await
        })
        .await;
        // A quote in a field of the log is escaped.
        let told = std::fs::read_to_string(&log).unwrap()[before..].replace("\\\"", "\"");
        assert!(told.contains(says), "{name}: no {says:?} in {told}");
    }
    linked.portal.catch_up().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id()));
    assert!(program.terminate().success());
    assert!(
        !std::fs::read_to_string(&log).unwrap().contains("hunter2"),
        "a notice may quote a row"
    );
    if let Ok(status) = status {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        println!("peak memory {kilobytes} kB");
        assert!(kilobytes < 256 << 10, "a length alone must take no memory: {kilobytes} kB");
    }
    let proof = linked.portal.proof().await;
    assert!(proof.events > 20, "{proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}

/// A stream that is unreadable whenever it is read is not an accident.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_that_goes_on_stops_the_source() {
    let mut linked = linked("garbage_always", "").await;
    let sidecar = linked.portal.start().await;
    linked.portal.act(&user("before")).await;
    let mut sessions = 0;
    let arm = |linked: &mut Linked| {
        linked.source.arm(Fault::Replace(message(b'~', b"")), 0, is_begin);
    };
    arm(&mut linked);
    run(&linked.portal.source, &user("never")).await;
    let ended = sidecar.ended();
    tokio::pin!(ended);
    let faults = loop {
        tokio::select! {
            faults = &mut ended => break faults,
            () = linked.source.fired("the next session") => {
                sessions += 1;
                arm(&mut linked);
            }
        }
    };
    assert_eq!(sessions, 6, "five times it may be an accident");
    assert!(faults.join(" ").contains("unexpected message \"~\""), "{faults:?}");
    // Whoever mends it and starts again has lost nothing.
    linked.source.arm(Fault::Swallow, 0, |_| false);
    let sidecar = Sidecar::start(linked.portal.settings.clone());
    wait_for("the event", async || is_written(&linked.portal, "never").await).await;
    linked.portal.catch_up().await;
    sidecar.stop().await;
    let proof = linked.portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 0, 0), "{:#?}", proof.differences);
}

/// Nonsense on the other connections: in the audit database's answers, and in the three logins.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_elsewhere_is_tried_anew() {
    let mut linked = linked("garbage_elsewhere", "audit_timeout_seconds = 2").await;
    let text =
        linked.portal.settings_text.replace("user=postgres", "user=postgres connect_timeout=2");
    let sidecar = Sidecar::start(Settings::parse(Path::new("test.toml"), &text).unwrap());
    linked.portal.streaming().await;
    linked.portal.act(&user("before")).await;
    for (kind, bytes) in [
        ("http", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("two_gigabytes", b"C\x7f\xff\xff\xff".to_vec()),
        ("error", error("XX000", "cache lookup failed")),
        ("shutdown", error("57P01", "terminating connection")),
    ] {
        // `BindComplete`, and `Authentication…`.
        for (place, is_audit, tag, skip) in [
            ("answer", true, b'2', 0),
            ("login", true, b'R', 0),
            ("session", false, b'R', 0),
            ("stream", false, b'R', 1),
        ] {
            let name = format!("{kind}_{place}");
            let proxy = if is_audit { &mut linked.audit } else { &mut linked.source };
            proxy.arm(Fault::Replace(bytes.clone()), skip, move |message| {
                message.is(ToClient, tag, b"")
            });
            if tag == b'R' {
                proxy.cut_all(Ending::Reset);
            }
            run(&linked.portal.source, &user(&name)).await;
            proxy.fired(&name).await;
            wait_for(&name, async || is_written(&linked.portal, &name).await).await;
        }
    }
    linked.portal.catch_up().await;
    sidecar.stop().await;
    let proof = linked.portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (17, 0, 0), "{:#?}", proof.differences);
}

/// Several servers are named, and the first are dead: one refuses, one never answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_address_that_answers_is_taken() {
    let linked = linked("garbage_addresses", "").await;
    let hole = Proxy::start(1).await;
    hole.set_weather(Weather { is_black_hole: true, ..Weather::default() });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let several = |port: u16, database: &str| {
        let one = dsn(port, database);
        let several =
            format!("host=127.0.0.1,localhost,127.0.0.1 port={closed},{},{port}", hole.port);
        one.replace(&format!("host=127.0.0.1 port={port}"), &several) + " connect_timeout=2"
    };
    let text = linked.portal.settings_text.clone();
    let audit = "garbage_addresses_audit";
    let text = text.replace(&dsn(linked.audit.port, audit), &several(linked.audit.port, audit));
    let source = "garbage_addresses";
    let text = text.replace(&dsn(linked.source.port, source), &several(linked.source.port, source));
    let sidecar = Sidecar::start(Settings::parse(Path::new("test.toml"), &text).unwrap());
    linked.portal.streaming().await;
    assert!(hole.accepted() >= 3, "each of the three connections tries it");
    linked.portal.act(&user("after")).await;
    sidecar.stop().await;
    let proof = linked.portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (1, 0, 0), "{:#?}", proof.differences);
}

/// A pooler that passes no replication on answers as PgBouncer does.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between_is_named() {
    let mut linked = linked("garbage_pooler", "").await;
    for (skip, parameter, says) in [
        (0, "options", "cannot reach the source"),
        (1, "replication", "the replication connection failed"),
    ] {
        let answer = error("08P01", &format!("unsupported startup parameter: {parameter}"));
        linked.source.arm(Fault::Replace(answer), skip, |message| message.is(ToClient, b'R', b""));
        let faults = Sidecar::start(linked.portal.settings.clone()).ended().await.join(" ");
        for part in [says, parameter, "(SQLSTATE 08P01)", "name the server itself, not its pooler"]
        {
            assert!(faults.contains(part), "no {part:?} in {faults}");
        }
    }
}
