//! Logins that are refused, and logins that must not be made: each error names the connection, the role, the server and the fix, and no password leaves us but as a proof.

use crate::support::{
    Sidecar,
    linked::{Linked, dsn, linked, tcp_cluster},
    open,
    program::{Program, SettingsFile, command},
    proxy::{Ending, Fault, Message, Way::ToClient, Which},
    run, wait_for,
};
use portal_audit::config::Settings;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};
use tokio::sync::OnceCell;

/// In connection strings and passfiles, and nowhere else.
const PASSWORD: &str = "hunter2canary";

/// The roles whose logins need a password, and those that are sent away; see `tcp_cluster`.
async fn groups() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        let postgres = open(tcp_cluster(), "postgres").await;
        run(&postgres, "CREATE ROLE logins; CREATE ROLE strangers").await;
    };
    MADE.get_or_init(make).await;
}

/// Makes a role that may do everything, but for `but`.
async fn make_role(linked: &Linked, role: &str, but: &str) {
    groups().await;
    let script = format!(
        "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}' IN ROLE logins; ALTER ROLE {role} {but}"
    );
    run(&linked.portal.source, &script).await;
}

/// The settings with other connection strings.
fn text(linked: &Linked, audit: &str, source: &str) -> String {
    let name = &linked.portal.name;
    let text = &linked.portal.settings_text;
    let text = text.replace(&dsn(linked.audit.port, &format!("{name}_audit")), audit);
    text.replace(&dsn(linked.source.port, name), source)
}

fn parse(text: &str) -> Settings {
    Settings::parse(Path::new("test.toml"), text).unwrap()
}

fn login(port: u16, database: &str, role: &str, password: &str) -> String {
    format!("host=127.0.0.1 port={port} user={role} dbname={database} password={password}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_once_with_its_fix() {
    let linked = linked("login_refused", "").await;
    make_role(&linked, "refused_good", "NOCREATEDB").await;
    make_role(&linked, "refused_nologin", "NOLOGIN").await;
    make_role(&linked, "refused_expired", "VALID UNTIL '2001-01-01'").await;
    run(&linked.portal.source, "CREATE ROLE refused_stranger LOGIN IN ROLE strangers").await;
    make_role(&linked, "refused_noreplication", "NOSUPERUSER NOREPLICATION").await;
    run(&linked.portal.source, "GRANT pg_read_all_data TO refused_noreplication").await;
    let good = |port, database: &str| login(port, database, "refused_good", PASSWORD);
    for (role, password, dbname, code, fix) in [
        ("refused_good", "wrong", "", "28P01", "Check the role's password in the passfile"),
        ("refused_nobody", PASSWORD, "", "28000", "Check that the role exists"),
        ("refused_nologin", PASSWORD, "", "28000", "has LOGIN"),
        ("refused_expired", PASSWORD, "", "28P01", "VALID UNTIL"),
        ("refused_stranger", PASSWORD, "", "28000", "pg_hba.conf"),
        ("refused_good", PASSWORD, "login_nowhere", "3D000", "Check dbname"),
    ] {
        for is_audit in [false, true] {
            let (proxy, other, database) = if is_audit {
                (&linked.audit, &linked.source, "login_refused_audit")
            } else {
                (&linked.source, &linked.audit, "login_refused")
            };
            let dbname = if dbname.is_empty() { database } else { dbname };
            let bad = login(proxy.port, dbname, role, password);
            let text = if is_audit {
                text(&linked, &bad, &good(other.port, "login_refused"))
            } else {
                text(&linked, &good(other.port, "login_refused_audit"), &bad)
            };
            let before = proxy.accepted();
            let faults = Sidecar::start(parse(&text)).ended().await;
            let [fault] = &faults[..] else { panic!("{role}: {faults:?}") };
            let which = if is_audit { "the audit database" } else { "the source" };
            for part in [
                format!("cannot reach {which}"),
                format!("127.0.0.1:{} refused role \"{role}\"", proxy.port),
                format!("database \"{dbname}\""),
                format!("(SQLSTATE {code}"),
                fix.to_owned(),
            ] {
                assert!(fault.contains(&part), "{role} at {which}: no {part:?} in {fault}");
            }
            assert!(!fault.contains(PASSWORD) && !fault.contains('\n'), "{fault}");
            assert_eq!(proxy.accepted() - before, 1, "{role} at {which}: one try");
        }
    }

    // The stream is a login of its own, which may be refused when the other is not.
    let text = text(
        &linked,
        &good(linked.audit.port, "login_refused_audit"),
        &login(linked.source.port, "login_refused", "refused_noreplication", PASSWORD),
    );
    let faults = Sidecar::start(parse(&text)).ended().await;
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    for part in [
        "the replication connection failed",
        "role \"refused_noreplication\"",
        "(SQLSTATE 42501)",
        "ALTER ROLE … REPLICATION",
    ] {
        assert!(fault.contains(part), "no {part:?} in {fault}");
    }
}

/// A server that is not there may come, so it is waited for, and the line says which it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let linked = linked("login_nowhere_yet", "").await;
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there: the port was free, and is ours until the test ends.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (host, port) in [("127.0.0.1", closed), ("nowhere.invalid", 5432)] {
        let dsn = format!("host={host} port={port} user=u dbname=d sslmode=disable");
        let text = text(&linked, &dsn, &dsn);
        let (settings, log) = (folder.path().join("portal-audit.toml"), folder.path().join("log"));
        fs::write(&settings, text).unwrap();
        let program = Program::run_with_level(&settings, &log, "info");
        let line = format!("could not connect to {host}:{port}");
        let says = || fs::read_to_string(&log).unwrap();
        wait_for(&line, async || says().matches(&line).count() > 1).await;
        assert!(says().contains("cannot reach the audit database"), "{}", says());
        assert!(program.terminate().success());
    }
}

/// The server has the new password a moment before the file has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_while_the_sidecar_runs() {
    let linked = linked("login_rotation", "").await;
    make_role(&linked, "rotation", "NOCREATEDB").await;
    let folder = tempfile::tempdir().unwrap();
    let (passfile, log) = (folder.path().join("pgpass"), folder.path().join("log"));
    let write = |password: &str| {
        fs::write(&passfile, format!("*:*:*:rotation:{password}")).unwrap();
        fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(PASSWORD);
    let dsn = |port, database: &str| {
        let passfile = passfile.display();
        format!("host=127.0.0.1 port={port} user=rotation dbname={database} passfile={passfile}")
    };
    let audit = dsn(linked.audit.port, "login_rotation_audit");
    let settings = folder.path().join("portal-audit.toml");
    fs::write(&settings, text(&linked, &audit, &dsn(linked.source.port, "login_rotation")))
        .unwrap();
    let program = Program::run_with_level(&settings, &log, "info");
    linked.portal.streaming().await;
    let user = |name: &str| {
        format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
    };
    linked.portal.act(&user("before")).await;
    run(&linked.portal.source, "ALTER ROLE rotation PASSWORD 'another'").await;
    linked.source.cut_all(Ending::Close);
    linked.audit.cut_all(Ending::Close);
    run(&linked.portal.source, &user("meanwhile")).await;
    let says = || fs::read_to_string(&log).unwrap();
    wait_for("a refusal", async || says().contains("SQLSTATE 28P01")).await;
    write("another");
    linked.portal.act(&user("after")).await;
    assert!(program.terminate().success());
    assert!(!says().contains("hunter2") && !says().contains("another"), "{}", says());
    let proof = linked.portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (3, 0, 0), "{:#?}", proof.differences);
}

/// A message `Authentication…` of the server.
fn request(code: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 8).unwrap();
    [b"R", &length.to_be_bytes()[..], &code.to_be_bytes(), data].concat()
}

fn asks_for_scram(message: &Message<'_>) -> bool {
    message.way == ToClient && message.tag == b'R' && message.body.starts_with(&[0, 0, 0, 10])
}

fn proves(message: &Message<'_>) -> bool {
    message.way == ToClient && message.tag == b'R' && message.body.starts_with(&[0, 0, 0, 12])
}

/// Who sits in between asks for the password, or claims to know it. Each of the three kinds of connections must refuse.
#[tokio::test(flavor = "multi_thread")]
async fn who_sits_in_between_gets_no_password() {
    let mut linked = linked("login_between", "").await;
    make_role(&linked, "between", "NOCREATEDB").await;
    let forged = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let cases: [(Vec<u8>, Which, &str); 5] = [
        (request(3, b""), asks_for_scram, "cleartext"),
        (request(5, b"salt"), asks_for_scram, "MD5"),
        (request(7, b""), asks_for_scram, "a Kerberos, GSSAPI or SSPI credential"),
        (request(12, forged), proves, "could not connect|did not prove that it knows the password"),
        (request(0, b""), proves, "could not connect|unexpected step of the login"),
    ];
    let audit = login(linked.audit.port, "login_between_audit", "between", PASSWORD);
    let source = login(linked.source.port, "login_between", "between", PASSWORD);
    let settings = parse(&text(&linked, &audit, &source));
    for (bytes, matches, says) in cases {
        // At the source the first login is the ordinary session's, the second the stream's.
        for (which, skip) in [("audit", 0), ("source", 0), ("source", 1)] {
            let proxy = if which == "audit" { &mut linked.audit } else { &mut linked.source };
            proxy.arm(Fault::Replace(bytes.clone()), skip, matches);
            let sidecar = Sidecar::start(settings.clone());
            proxy.fired(says).await;
            if says.contains('|') {
                // It may have been an accident, so it is tried again.
                linked.portal.streaming().await;
                sidecar.stop().await;
            } else {
                let faults = sidecar.ended().await.join(" ");
                assert!(faults.contains(says), "{which} {skip}: no {says:?} in {faults}");
                assert!(faults.contains("scram-sha-256") && !faults.contains(PASSWORD), "{faults}");
            }
        }
    }
    for proxy in [&linked.audit, &linked.source] {
        assert!(proxy.was_sent(b"SCRAM-SHA-256") && proxy.was_sent(b"between"));
        assert!(!proxy.was_sent(PASSWORD.as_bytes()), "the password was sent");
        // An answer to MD5 would be `md5` and 32 digits; the three letters alone come by chance too.
        let is_hash = |bytes: &[u8]| {
            bytes.strip_prefix(b"md5").is_some_and(|rest| rest.iter().all(u8::is_ascii_hexdigit))
        };
        assert!(!proxy.has_sent(35, is_hash), "the password's hash was sent");
    }
}

/// A passfile that others may read is not used, and a password on the command line is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_others_may_read_is_refused() {
    let linked = linked("login_open_file", "").await;
    make_role(&linked, "open_file", "NOCREATEDB").await;
    let folder = tempfile::tempdir().unwrap();
    let passfile = folder.path().join("pgpass");
    fs::write(&passfile, format!("*:*:*:open_file:{PASSWORD}")).unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).unwrap();
    let port = linked.audit.port;
    let file = passfile.display();
    let audit = format!(
        "host=127.0.0.1 port={port} user=open_file dbname=login_open_file_audit passfile={file}"
    );
    let source = dsn(linked.source.port, "login_open_file");
    let faults = Sidecar::start(parse(&text(&linked, &audit, &source))).ended().await.join(" ");
    assert!(
        faults.contains("asks for a password of role \"open_file\" and none was given"),
        "{faults}"
    );

    let settings = SettingsFile::new(&linked.portal);
    let settings = settings.path.to_str().unwrap();
    for argument in ["--password=hunter2canary", "--dsn=host=x password=hunter2canary"] {
        let output = command(&["run", "--config", settings, argument]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }

    // A password in the settings is taken, but the settings must not lie open.
    let file = folder.path().join("portal-audit.toml");
    let written = login(port, "login_open_file_audit", "open_file", PASSWORD);
    fs::write(&file, text(&linked, &written, &source)).unwrap();
    for (mode, warns) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = command(&["status", "--config", file.to_str().unwrap()]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.contains("others may read the settings"), warns, "{mode:o}: {told}");
        assert!(!told.contains(PASSWORD), "{told}");
    }
}

/// Somebody in between, or the server, says that there is no TLS: who asked for it never gets plaintext instead. What can never be kept is told before a connection is made.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_tls_gets_no_plaintext() {
    let linked = linked("login_tls", "").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portal-audit.toml");
    let audit = dsn(linked.audit.port, "login_tls_audit");
    let source = dsn(linked.source.port, "login_tls");
    for (parameters, says) in [
        ("sslpassword=hunter2canary", "\"sslpassword\" is not supported"),
        ("sslcrldir=/crl", "\"sslcrldir\" is not supported"),
        ("sslmode=disable channel_binding=require", "require needs TLS"),
        ("ssl_max_protocol_version=TLSv1.1", "nothing older than TLSv1.2"),
        ("sslrootcert=system sslmode=require", "too weak"),
        ("requiressl=1", "\"requiressl\" is not supported"),
        ("sslnegotiation=direct", "\"sslnegotiation\" is not supported"),
        ("sslmode=required", "expected one of disable, allow, prefer, require"),
        ("service=nowhere servicefile=/nowhere", "service \"nowhere\" of file \"/nowhere\""),
    ] {
        for is_audit in [true, false] {
            let with = |dsn: &str| format!("{dsn} {parameters}");
            let text = if is_audit {
                text(&linked, &with(&audit), &source)
            } else {
                text(&linked, &audit, &with(&source))
            };
            fs::write(&file, text).unwrap();
            let output = command(&["run", "--config", file.to_str().unwrap()]).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{parameters}: {told}");
            let object = if is_audit { "[audit]" } else { "source \"login_tls\"" };
            assert!(told.contains(says) && told.contains(object), "{parameters}: {told}");
            assert!(!told.contains(PASSWORD), "{told}");
        }
    }
    assert_eq!(linked.source.accepted() + linked.audit.accepted(), 0, "nobody may be called");
    for (parameters, says) in [
        ("sslmode=require", "without TLS, which it does not have"),
        ("sslmode=verify-ca", "name its file in sslrootcert"),
        ("sslmode=verify-full sslrootcert=/ca.pem", "could not read sslrootcert \"/ca.pem\""),
        ("sslrootcert=system", "without TLS, which it does not have"),
        ("channel_binding=require", "the login is not bound to the TLS connection"),
    ] {
        for is_audit in [true, false] {
            let with = |dsn: &str| format!("{dsn} {parameters}");
            let text = if is_audit {
                text(&linked, &with(&audit), &source)
            } else {
                text(&linked, &audit, &with(&source))
            };
            let faults = Sidecar::start(parse(&text)).ended().await.join(" ");
            assert!(faults.contains(says), "{parameters}: {faults}");
        }
    }
}
