//! Logins over TLS: client certificates, channel binding, which methods are allowed, services, and which of several servers is taken.

use crate::support::{
    Wishes, open, run,
    standby::Pair,
    tls::{Authority, Home, Issued, TlsServer, Wish, outcome, refused, strict, taken, verified},
    value,
};
use portal_audit::{
    chain::chain,
    connect::{Session, connect},
    conninfo::ConnInfo,
    wire::Connection,
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_logs_in() {
    let (server, ca, home) = strict().await;
    let own = |name, years| ca.issue(Wish { common_name: name, names: &[], years, is_ca: false });
    let write = |issued: &Issued| {
        home.write(".postgresql/postgresql.crt", &issued.cert);
        home.write(".postgresql/postgresql.key", &issued.key);
    };
    let certified = verified(&server, "certified", "");
    refused(&home, &certified, "SQLSTATE 28000").await;
    write(&own("certified", (2001, 2095)));
    taken(&home, &certified).await;
    let session = connect(&home.parse(&certified).unwrap(), "test").await.unwrap();
    let encryption = session.encryption.unwrap();
    assert_eq!(encryption.client_not_after.unwrap().to_rfc3339(), "2095-01-01T00:00:00+00:00");
    assert_eq!(encryption.server_not_after.unwrap().to_rfc3339(), "2101-01-01T00:00:00+00:00");
    assert!(encryption.is_verified && encryption.version == "TLSv1.3");
    // One that is replaced is taken with the next connect, and so is one that is not ours.
    write(&own("doubly", (2001, 2096)));
    refused(&home, &certified, "SQLSTATE 28000").await;
    taken(&home, &verified(&server, "doubly", "password=hunter2canary")).await;
    refused(
        &home,
        &verified(&server, "doubly", "password=hunter2canary sslcertmode=disable"),
        "SQLSTATE 28000",
    )
    .await;
    // With TLS 1.2 the server judges it in the handshake.
    let certified = verified(&server, "certified", "ssl_max_protocol_version=TLSv1.2");
    write(&own("certified", (2001, 2013)));
    refused(&home, &certified, "did not take our client certificate: it expired").await;
    write(&Authority::new("other").issue(Wish {
        common_name: "certified",
        names: &[],
        years: (2001, 2097),
        is_ca: false,
    }));
    refused(&home, &certified, "did not take our client certificate: its CA is not").await;
    write(&own("certified", (2001, 2095)));
    taken(&home, &certified).await;
    let session = connect(&home.parse(&certified).unwrap(), "test").await.unwrap();
    assert_eq!(session.encryption.unwrap().version, "TLSv1.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_named() {
    let (server, ca, home) = strict().await;
    let own =
        ca.issue(Wish { common_name: "certified", names: &[], years: (2001, 2095), is_ca: false });
    home.write(".postgresql/postgresql.crt", &own.cert);
    let key = home.write("key", &own.key);
    let other = home.write("other", &ca.issue(Wish::default()).key);
    let encrypted = own.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let encrypted = home.write("encrypted", &encrypted);
    let empty = home.write("empty", "");
    let with = |parameter: &str, path: &Path| {
        let key =
            if parameter == "sslkey" { String::new() } else { format!("sslkey={}", key.display()) };
        verified(&server, "certified", &format!("{key} {parameter}={}", path.display()))
    };
    taken(&home, &with("sslkey", &key)).await;
    for (text, says) in [
        (with("sslkey", &other), "other\" is not used: "),
        (
            with("sslkey", &encrypted),
            "encrypted\" is not used: it holds no key in PEM form that is not encrypted",
        ),
        (with("sslkey", Path::new("/nowhere")), "could not read sslkey \"/nowhere\""),
        (with("sslcert", Path::new("/nowhere")), "could not read sslcert \"/nowhere\""),
        (with("sslcert", &empty), "empty\" is not used: it holds no certificate in PEM form"),
        (with("sslrootcert", Path::new("/nowhere")), "could not read sslrootcert \"/nowhere\""),
        (with("sslrootcert", &empty), "empty\" is not used: it holds no certificate in PEM form"),
        (with("sslcrl", Path::new("/nowhere")), "could not read sslcrl \"/nowhere\""),
    ] {
        refused(&home, &text, says).await;
    }
    for (mode, is_taken) in [(0o604, false), (0o660, false), (0o400, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let word = outcome(&home.parse(&with("sslkey", &key)).unwrap()).await;
        let told = word.as_ref().err().cloned().unwrap_or_default();
        assert_eq!(word.is_ok(), is_taken, "{mode:o}: {told}");
        assert!(is_taken || told.contains("others may read it. Run `chmod 0600` on it"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_revoked_is_refused() {
    let (server, ca, home) = strict().await;
    let issue = |year| ca.issue(Wish { years: (2001, year), ..Wish::default() });
    let (bad, good) = (issue(2099), issue(2100));
    home.write(".postgresql/root.crl", &ca.revoke(&bad));
    server.present(&bad).await;
    let known = verified(&server, "known", "password=hunter2canary");
    refused(&home, &known, "its certificate was revoked (sslcrl)").await;
    server.present(&good).await;
    taken(&home, &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_signs_for_nobody_of_ours() {
    let (server, _ca, home) = strict().await;
    let text = verified(&server, "known", "sslrootcert=system password=hunter2canary");
    let told = outcome(&home.parse(&text).unwrap()).await.unwrap_err();
    // Where the system has no CAs at all, that is what must be mended.
    let says = ["signed by no CA of the system (sslrootcert=system)", "this system has no CAs"];
    assert!(says.iter().any(|says| told.contains(says)), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_bound_to_its_connection() {
    let (server, _ca, home) = strict().await;
    let require = "password=hunter2canary channel_binding=require";
    taken(&home, &verified(&server, "known", require)).await;
    taken(&home, &verified(&server, "known", "password=hunter2canary channel_binding=disable"))
        .await;
    let says = "the login is not bound to the TLS connection";
    refused(&home, &verified(&server, "postgres", require), says).await;
    refused(&home, &verified(&server, "clear", &format!("{require} require_auth=password")), says)
        .await;
    // A server without TLS, or somebody in between who says that it has none.
    let plain = TlsServer::start("host all postgres 127.0.0.1/32 scram-sha-256", &[]);
    for mode in ["require", "verify-full"] {
        let dsn = plain.dsn("postgres", "postgres");
        let text = format!("host=localhost {dsn} sslmode={mode} {require}");
        refused(&home, &text, "without TLS, which it does not have").await;
    }
    let text = format!("host=localhost {} {require}", plain.dsn("postgres", "postgres"));
    refused(&home, &text, says).await;
    // The hash follows the signature's: here the server's certificate is signed with SHA-384.
    let stronger = Authority::signing_with(&rcgen::PKCS_ECDSA_P384_SHA384, "stronger");
    let home = Home::trusting(&stronger.pem);
    server.present(&stronger.issue(Wish { years: (2001, 2098), ..Wish::default() })).await;
    taken(&home, &verified(&server, "known", require)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_crosses_only_as_it_was_allowed_to() {
    let (server, _ca, home) = strict().await;
    let password = "password=hunter2canary";
    for (user, more, says) in [
        ("old", "", "as MD5"),
        ("old", "require_auth=password", "as MD5"),
        ("clear", "", "as cleartext"),
        ("clear", "require_auth=md5,scram-sha-256", "as cleartext"),
        ("known", "require_auth=password", "the server wants a login by scram-sha-256"),
        ("postgres", "require_auth=!none", "the server wants a login by nothing (none)"),
    ] {
        refused(&home, &verified(&server, user, &format!("{password} {more}")), says).await;
    }
    for (user, more) in [
        ("old", "require_auth=md5"),
        ("clear", "require_auth=password,scram-sha-256"),
        ("known", "require_auth=scram-sha-256"),
        ("postgres", "require_auth=none"),
    ] {
        taken(&home, &verified(&server, user, &format!("{password} {more}"))).await;
    }
    // In clear only to a server that is known.
    let dsn = server.dsn("postgres", "clear");
    for mode in ["disable", "require"] {
        let text = format!("host=localhost {dsn} sslmode={mode} {password} require_auth=password");
        refused(&Home::new(), &text, "as cleartext outside verified TLS").await;
    }
}

/// What libpq reads beside the string: services and the environment.
#[tokio::test(flavor = "multi_thread")]
async fn services_and_the_environment_name_a_server() {
    let (server, ca, home) = strict().await;
    let (port, root) = (server.cluster.port().to_string(), home.write("ca.pem", &ca.pem));
    home.write(".pgpass", &format!("localhost:{port}:*:known:hunter2canary"));
    let root = root.display().to_string();
    let services = format!(
        "[audit]\nhost=localhost\nport={port}\nuser=known\ndbname=postgres\nsslmode=verify-full\nsslrootcert={root}\nchannel_binding=require\n"
    );
    home.write(".pg_service.conf", &services);
    taken(&Home::trusting(&ca.pem), &verified(&server, "postgres", "")).await;
    taken(&home, "service=audit").await;
    taken(&home, "postgresql:///postgres?service=audit").await;
    let folder = home.path().display().to_string();
    let variables = [
        ("HOME", folder.as_str()),
        ("PGHOST", "localhost"),
        ("PGPORT", &port),
        ("PGUSER", "known"),
        ("PGDATABASE", "postgres"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", &root),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ];
    let find = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    assert_eq!(outcome(&ConnInfo::parse("", &find).unwrap()).await, Ok("tls"));
    let told = outcome(&ConnInfo::parse("require_auth=none", &find).unwrap()).await.unwrap_err();
    assert!(told.contains("wants a login by scram-sha-256"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_fits_is_chosen() {
    let (pair, _portal) =
        Pair::start_unsynchronised(Wishes { name: "tls_targets", ..Wishes::default() }).await;
    let (primary, standby) = (pair.primary.socket_dir(), pair.standby.socket_dir());
    let (primary, standby) = (primary.display(), standby.display());
    let ports = format!("{},{}", pair.primary.port(), pair.standby.port());
    let hosts = format!("host={primary},{standby} port={ports} user=postgres dbname=tls_targets");
    let is_standby = async |text: &str| {
        let conninfo = Home::new().parse(text).unwrap();
        let session = connect(&conninfo, "test").await.map_err(|error| chain(&error))?;
        let stream = Connection::connect(&conninfo, "UTF8").await.unwrap();
        let is_standby: bool = value(&session, "SELECT pg_is_in_recovery()").await;
        assert_eq!(stream.parameter("in_hot_standby") == Some("on"), is_standby);
        Ok::<bool, String>(is_standby)
    };
    for (target, standby) in [
        ("any", false),
        ("primary", false),
        ("read-write", false),
        ("standby", true),
        ("read-only", true),
        ("prefer-standby", true),
    ] {
        let text = format!("{hosts} target_session_attrs={target}");
        assert_eq!(is_standby(&text).await, Ok(standby), "{target}");
    }
    let port = pair.primary.port();
    let alone = format!("host={primary} port={port} user=postgres dbname=tls_targets");
    assert_eq!(
        is_standby(&format!("{alone} target_session_attrs=prefer-standby")).await,
        Ok(false)
    );
    let told = is_standby(&format!("{alone} target_session_attrs=standby")).await.unwrap_err();
    assert!(told.contains("is not what target_session_attrs=standby asks for"), "{told}");
    run(
        &pair_session(&pair).await,
        "ALTER DATABASE tls_targets SET default_transaction_read_only = on",
    )
    .await;
    assert_eq!(is_standby(&format!("{hosts} target_session_attrs=read-only")).await, Ok(false));
    let told = is_standby(&format!("{hosts} target_session_attrs=read-write")).await.unwrap_err();
    assert!(told.contains("is not what target_session_attrs=read-write asks for"), "{told}");
}

async fn pair_session(pair: &Pair) -> Session {
    open(&pair.primary, "postgres").await
}
