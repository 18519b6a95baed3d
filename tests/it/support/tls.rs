//! Servers with TLS, and CAs that sign for them.

use super::{installation, open, run, value, wait_for};
use chrono::{DateTime, Utc};
use portal_audit::{
    chain::chain,
    connect::{Session, connect},
    conninfo::{ConnInfo, ConnInfoError},
    demo::cluster::{Cluster, Options},
    wire::Connection,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// How a session came about: `plain`, `tls`, or why not.
async fn session(conninfo: &ConnInfo) -> Result<&'static str, String> {
    let session = connect(conninfo, "test").await.map_err(|error| chain(&error))?;
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let is_encrypted = value::<bool>(&session, query).await;
    assert_eq!(is_encrypted, session.encryption.is_some());
    Ok(if is_encrypted { "tls" } else { "plain" })
}

/// The same for the connection of a stream.
async fn stream(conninfo: &ConnInfo) -> Result<&'static str, String> {
    let mut connection =
        Connection::connect(conninfo, "UTF8").await.map_err(|error| chain(&error))?;
    connection.identify_system().await.unwrap();
    Ok(if connection.encryption().is_some() { "tls" } else { "plain" })
}

/// Both, which must be of one mind.
pub async fn outcome(conninfo: &ConnInfo) -> Result<&'static str, String> {
    let (one, two) = (session(conninfo).await, stream(conninfo).await);
    assert_eq!(one, two);
    one
}

/// The parameters of a line whose server is verified.
pub fn verified(server: &TlsServer, user: &str, more: &str) -> String {
    let dsn = server.dsn("postgres", user);
    format!("host=localhost {dsn} sslmode=verify-full {more}")
}

/// One role for each way to log in.
const ROLES: &str = "CREATE ROLE known LOGIN SUPERUSER PASSWORD 'hunter2canary'; CREATE ROLE certified LOGIN SUPERUSER; CREATE ROLE doubly LOGIN SUPERUSER PASSWORD 'hunter2canary'; CREATE ROLE clear LOGIN SUPERUSER PASSWORD 'hunter2canary'; SET password_encryption = md5; CREATE ROLE old LOGIN SUPERUSER PASSWORD 'hunter2canary'";
const HBA: &str = "hostssl all known 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all doubly 127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all old 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
hostssl all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 reject";

/// A server whose roles log in each by another method, and who trusts its CA.
pub async fn strict() -> (TlsServer, Authority, Home) {
    let (server, ca) =
        (TlsServer::start(HBA, &[("ssl_ca_file", "root.crt")]), Authority::new("ca"));
    server.write("root.crt", &ca.pem);
    server.present(&ca.issue(Wish::default())).await;
    run(&server.superuser().await, ROLES).await;
    let home = Home::trusting(&ca.pem);
    (server, ca, home)
}

pub async fn refused(home: &Home, text: &str, says: &str) {
    let told = outcome(&home.parse(text).unwrap()).await.unwrap_err();
    assert!(told.contains(says) && !told.contains("hunter2"), "{text}: no {says:?} in {told}");
}

pub async fn taken(home: &Home, text: &str) {
    let word = outcome(&home.parse(text).unwrap()).await;
    assert_eq!(word, Ok("tls"), "{text}");
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
    pub not_after: DateTime<Utc>,
    pub serial: u64,
}

/// What a certificate is to say. Its `years` tell it from others.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub common_name: &'a str,
    pub names: &'a [&'a str],
    pub years: (i32, i32),
    pub is_ca: bool,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self {
            common_name: "",
            names: &["localhost", "127.0.0.1"],
            years: (2001, 2101),
            is_ca: false,
        }
    }
}

fn params(wish: Wish<'_>) -> (CertificateParams, DateTime<Utc>) {
    let names: Vec<String> = wish.names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, wish.common_name);
    if wish.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let (from, to) = wish.years;
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let not_after = DateTime::parse_from_rfc3339(&format!("{to}-01-01T00:00:00Z")).unwrap();
    (params, not_after.to_utc())
}

/// Makes certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::signing_with(&PKCS_ECDSA_P256_SHA256, name)
    }

    pub fn signing_with(algorithm: &'static SignatureAlgorithm, name: &str) -> Self {
        Self::make(algorithm, name, (2001, 2101), None)
    }

    /// One that expired.
    pub fn expired(name: &str) -> Self {
        Self::make(&PKCS_ECDSA_P256_SHA256, name, (2001, 2014), None)
    }

    /// One that this one signed.
    pub fn between(&self, name: &str) -> Self {
        Self::make(&PKCS_ECDSA_P256_SHA256, name, (2001, 2101), Some(self))
    }

    fn make(
        algorithm: &'static SignatureAlgorithm,
        name: &str,
        years: (i32, i32),
        by: Option<&Self>,
    ) -> Self {
        let (mut params, _) = params(Wish { common_name: name, names: &[], years, is_ca: true });
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = match by {
            None => params.self_signed(&key),
            Some(by) => params.signed_by(&key, &by.issuer),
        };
        let pem = certificate.unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn issue(&self, wish: Wish<'_>) -> Issued {
        let (mut params, not_after) = params(wish);
        let key = KeyPair::generate().unwrap();
        let serial = u64::try_from(wish.years.1).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { cert, key: key.serialize_pem(), not_after, serial }
    }

    /// A list that takes one certificate back.
    pub fn revoke(&self, issued: &Issued) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2002, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2002, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that is its own CA and has no name but the common one, as the manual has one make for a first server.
pub fn self_signed(common_name: &str, years: (i32, i32)) -> Issued {
    let (params, not_after) = params(Wish { common_name, names: &[], years, is_ca: true });
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    Issued { cert, key: key.serialize_pem(), not_after, serial: 0 }
}

/// A folder that is somebody's home, with files of libpq.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join(".postgresql")).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only we may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// One that holds this CA's certificate.
    pub fn trusting(pem: &str) -> Self {
        let home = Self::new();
        home.write(".postgresql/root.crt", pem);
        home
    }

    /// Reads a connection string of somebody who lives here, with no other variable set.
    pub fn parse(&self, text: &str) -> Result<ConnInfo, ConnInfoError> {
        let home = self.path().display().to_string();
        ConnInfo::parse(text, &|name| (name == "HOME").then(|| home.clone()))
    }
}

/// A server that listens on 127.0.0.1, with TLS once it has a certificate.
pub struct TlsServer {
    pub cluster: Cluster,
}

impl TlsServer {
    pub fn start(hba: &str, settings: &[(&str, &str)]) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings = settings.iter().map(owned).collect();
        let hba = Some(hba.to_owned());
        let options = Options { tcp: true, hba, settings, ..Options::default() };
        Self { cluster: Cluster::start_with(&installation(), &options).unwrap() }
    }

    /// As keywords and values, without the host.
    pub fn dsn(&self, database: &str, user: &str) -> String {
        format!("port={} user={user} dbname={database}", self.cluster.port())
    }

    pub async fn superuser(&self) -> Session {
        open(&self.cluster, "postgres").await
    }

    /// Writes a file of the server's that only it may read.
    pub fn write(&self, name: &str, text: &str) {
        let (folder, owner) = (self.cluster.data_dir(), fs::metadata(self.cluster.data_dir()));
        let (path, owner) = (folder.join(name), owner.unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Gives the server a certificate and waits until it shows it.
    pub async fn present(&self, issued: &Issued) {
        self.write("server.crt", &issued.cert);
        self.write("server.key", &issued.key);
        let session = self.superuser().await;
        run(&session, "ALTER SYSTEM SET ssl = on").await;
        run(&session, "SELECT pg_reload_conf()").await;
        let home = Home::new();
        let dsn = format!("host=localhost {} sslmode=require", self.dsn("postgres", "postgres"));
        let conninfo = home.parse(&dsn).unwrap();
        wait_for("the certificate", async || {
            let shown =
                connect(&conninfo, "test").await.ok().and_then(|session| session.encryption);
            shown.is_some_and(|shown| shown.server_not_after == Some(issued.not_after))
        })
        .await;
    }
}
