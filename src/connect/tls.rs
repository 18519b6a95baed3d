//! Asks a server for TLS and shakes hands (manual, section 55.2.12). What the certificate must be is in [`verify`](super::verify).

use super::{
    certificate::{end_point, is_its_own_ca, validity},
    verify::{Chain, Verifier, is_valid_now},
};
use crate::conninfo::{ClientFiles, ConnInfo, ConnInfoError, Roots, SslMode, TlsFiles, TlsVersion};
use chrono::{DateTime, Utc};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
        pem::PemObject as _,
    },
    version::{TLS12, TLS13},
};
use std::{io, net::IpAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Length, then the code that stands where a version would.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Why there is no TLS towards a server. Each text is a sentence about "it", the server, with the fix.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It has no TLS, and plaintext was not asked for.
    #[error(
        "refused to go on without TLS, which it does not have. Switch it on there (ssl = on), or set sslmode=disable to accept that passwords' proofs and rows cross the network in plaintext."
    )]
    NotOffered,
    /// A file cannot be used.
    #[error("{parameter} \"{path}\" is not used: {problem}")]
    File {
        /// The parameter that names it.
        parameter: &'static str,
        /// The file.
        path: String,
        /// What is wrong, and the fix; quotes nothing of the file.
        problem: String,
    },
    /// Nobody we trust signed its certificate.
    #[error(
        "its certificate is signed by no CA of {by}. Put the CA's certificate there, or look who answers in its place."
    )]
    Untrusted {
        /// By what it was verified.
        by: String,
    },
    /// Its certificate is for others.
    #[error(
        "its certificate is for {names}, not for {host:?}. Connect by a name of the certificate (hostaddr keeps the address), give the server a certificate for this one, or look who answers in its place."
    )]
    WrongName {
        /// The host asked for.
        host: String,
        /// The names in the certificate.
        names: String,
    },
    /// It was valid once.
    #[error("its certificate expired on {}. Give it a new one and reload it.", shown(.0))]
    Expired(Option<DateTime<Utc>>),
    /// It will be valid.
    #[error(
        "its certificate is valid from {} on, which is not yet. Compare the clocks, or give it another certificate.",
        shown(.0)
    )]
    NotValidYet(Option<DateTime<Utc>>),
    /// Its CA took the certificate back.
    #[error("its certificate was revoked (sslcrl). Give it a new one.")]
    Revoked,
    /// It did not take our certificate, or wants one.
    #[error(
        "it did not take our client certificate: {problem}. Look at sslcert and sslkey here, and at ssl_ca_file and pg_hba.conf there."
    )]
    Client {
        /// What the server said in the words of TLS.
        problem: &'static str,
    },
    /// Something else.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
}

fn shown(at: &Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "an unreadable date".to_owned(), |at| at.format("%F %T UTC").to_string())
}

/// How the bytes of an open connection are kept from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Whether the server's certificate is signed by a CA that we trust.
    pub is_verified: bool,
    /// Until when the server's certificate is valid.
    pub server_not_after: Option<DateTime<Utc>>,
    /// Until when our own is, if we have one.
    pub client_not_after: Option<DateTime<Utc>>,
    /// The hash of the server's certificate, to which a login is bound; not every certificate has one.
    pub(super) end_point: Option<Vec<u8>>,
}

/// A TLS connection before it is one: files read, keys checked.
#[derive(Debug)]
pub(super) struct Prepared {
    config: Arc<ClientConfig>,
    host: String,
    /// By what the chain is verified; `None`: it is not.
    by: Option<String>,
    /// Until when the client certificate is valid, if there is one.
    client_not_after: Option<DateTime<Utc>>,
}

/// Reads the files and makes ready for a handshake with `host`.
pub(super) fn prepare(conninfo: &ConnInfo, host: &str) -> Result<Prepared, Problem> {
    let tls = conninfo.tls();
    let files = tls.read().map_err(Problem::ConnInfo)?;
    let provider = Arc::new(ring::default_provider());
    let chain = chain(&files, &provider)?;
    let by = match &files.roots {
        Roots::None => None,
        Roots::System => Some("the system (sslrootcert=system)".to_owned()),
        Roots::File(path, _) => Some(format!("sslrootcert \"{}\"", path.display())),
    };
    let is_name_verified = tls.sslmode() == SslMode::VerifyFull;
    let verifier = Verifier {
        algorithms: provider.signature_verification_algorithms,
        chain,
        host: is_name_verified.then(|| host.to_owned()),
    };
    let versions = [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)].into_iter();
    let (oldest, newest) = tls.versions;
    let versions: Vec<_> = versions
        .filter(|(version, _)| (oldest..=newest).contains(version))
        .map(|(_, version)| version)
        .collect();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(handshake)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut client_not_after = None;
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (certificates, key) = client_certificate(files)?;
            client_not_after = certificates.first().and_then(|own| validity(own)).map(|(_, to)| to);
            let config = builder.with_client_auth_cert(certificates, key);
            config.map_err(|error| unusable("sslkey", &files.key_path, error))?
        }
    };
    config.enable_sni = tls.sni;
    // What a session leaves for the next one would outlive the files that are read anew.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Prepared { config: Arc::new(config), host: host.to_owned(), by, client_not_after })
}

/// Why no TLS connection came about, or could.
#[derive(Debug)]
pub(super) enum Problem {
    /// The files.
    ConnInfo(ConnInfoError),
    /// The certificates.
    Tls(TlsError),
    /// The line.
    Io(io::Error),
}

fn handshake(error: rustls::Error) -> Problem {
    Problem::Tls(TlsError::Handshake(error.to_string()))
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

fn unusable(parameter: &'static str, path: &Path, problem: impl ToString) -> Problem {
    let (path, problem) = (shown_path(path), problem.to_string());
    Problem::Tls(TlsError::File { parameter, path, problem })
}

/// By what the server's certificate is verified; `None`: it is not.
fn chain(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Option<Chain>, Problem> {
    let mut store = RootCertStore::empty();
    let (mut roots, mut between) = (Vec::new(), Vec::new());
    let now = UnixTime::now();
    match &files.roots {
        Roots::None => return Ok(None),
        Roots::System => {
            let mut found = rustls_native_certs::load_native_certs().certs;
            found.retain(|root| is_valid_now(root, now).is_ok());
            store.add_parsable_certificates(found);
            if store.is_empty() {
                let path = Path::new("system");
                let problem = "this system has no CAs. Install them (ca-certificates).";
                return Err(unusable("sslrootcert", path, problem));
            }
        }
        Roots::File(path, pem) => {
            // As OpenSSL: a chain ends at a certificate that its own CA signed, and is valid. webpki asks neither.
            (roots, between) = certificates("sslrootcert", path, pem)?
                .into_iter()
                .partition(|certificate| is_its_own_ca(certificate));
            let valid = roots.iter().filter(|root| is_valid_now(root, now).is_ok()).cloned();
            let (added, _) = store.add_parsable_certificates(valid);
            let until = roots.iter().filter_map(|root| validity(root)).map(|(_, to)| to).max();
            if added == 0 {
                let problem = match until {
                    Some(until) => {
                        format!("its root certificate expired on {}.", until.format("%F"))
                    }
                    None => "it holds no root certificate, one that signed itself.".to_owned(),
                };
                return Err(unusable("sslrootcert", path, problem));
            }
        }
    }
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    let (builder, path) = match &files.crl {
        None => (builder, Path::new("")),
        Some((path, pem)) => {
            let lists: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_slice_iter(pem).collect();
            let lists = lists.map_err(|error| unusable("sslcrl", path, error))?;
            (builder.with_crls(lists).enforce_revocation_expiration(), path.as_path())
        }
    };
    let webpki = builder.build().map_err(|error| unusable("sslcrl", path, error))?;
    Ok(Some(Chain { webpki, roots, between }))
}

fn certificates(
    parameter: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Err(error) => Err(unusable(parameter, path, error)),
        Ok(found) if found.is_empty() => {
            Err(unusable(parameter, path, "it holds no certificate in PEM form."))
        }
        Ok(found) => Ok(found),
    }
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(files: &ClientFiles) -> Result<ClientCertificate, Problem> {
    let certificates = certificates("sslcert", &files.cert_path, &files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_unreadable| {
        // The error may quote the file.
        let problem = "it holds no key in PEM form that is not encrypted. Decrypt it (openssl pkey -in … -out …), and let only the sidecar's user read it.";
        unusable("sslkey", &files.key_path, problem)
    })?;
    Ok((certificates, key))
}

/// Asks for TLS. `false`: the server has none, and the line is as it was.
pub(super) async fn is_offered(socket: &mut TcpStream) -> Result<bool, Problem> {
    socket.write_all(&SSL_REQUEST).await.map_err(Problem::Io)?;
    // One byte and no more: what comes with it in clear was put there by somebody in between, and must not be taken for what TLS carries. So it fails the handshake.
    match socket.read_u8().await.map_err(Problem::Io)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // An error comes in clear too, from whomever, so it is not shown.
        _ => Err(Problem::Io(io::Error::other("it does not answer as PostgreSQL does"))),
    }
}

impl Prepared {
    /// Shakes hands.
    pub(super) async fn shake(
        self,
        socket: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Encryption), Problem> {
        // A host that is no name of the DNS has no SNI, and is verified by its text all the same.
        let name = ServerName::try_from(self.host.clone());
        let name = name.unwrap_or_else(|_no_name| ServerName::from(IpAddr::from([0, 0, 0, 0])));
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(name, socket);
        let stream = match connecting.await {
            Ok(stream) => stream,
            Err(error) => return Err(self.explain(error)),
        };
        let encryption = self.describe(stream.get_ref().1);
        Ok((stream, encryption))
    }

    fn describe(&self, session: &ClientConnection) -> Encryption {
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        Encryption {
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            is_verified: self.by.is_some(),
            server_not_after: certificate.and_then(|der| validity(der)).map(|(_, to)| to),
            client_not_after: self.client_not_after,
            end_point: certificate.and_then(|der| end_point(der)),
        }
    }

    fn explain(&self, error: io::Error) -> Problem {
        match rustls_error(&error) {
            Some(cause) => Problem::Tls(self.explain_tls(cause)),
            None => Problem::Io(error),
        }
    }

    fn explain_tls(&self, error: &rustls::Error) -> TlsError {
        let rustls::Error::InvalidCertificate(problem) = error else {
            return alert(error).unwrap_or_else(|| TlsError::Handshake(error.to_string()));
        };
        match problem {
            CertificateError::UnknownIssuer => {
                TlsError::Untrusted { by: self.by.clone().unwrap_or_default() }
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                TlsError::WrongName { host: self.host.clone(), names: presented.join(", ") }
            }
            CertificateError::ExpiredContext { not_after, .. } => {
                TlsError::Expired(instant(*not_after))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                TlsError::NotValidYet(instant(*not_before))
            }
            CertificateError::Revoked => TlsError::Revoked,
            other => TlsError::Handshake(format!("its certificate cannot be used: {other}")),
        }
    }
}

fn instant(time: UnixTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(time.as_secs()).ok()?, 0)
}

/// What rustls says in an error of the line.
pub(super) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A word of the server's about our certificate, which under TLS 1.3 comes after the handshake.
pub(super) fn alert(error: &rustls::Error) -> Option<TlsError> {
    let rustls::Error::AlertReceived(description) = error else { return None };
    let problem = match description {
        AlertDescription::CertificateRequired => "it wants one",
        AlertDescription::CertificateExpired => "it expired",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "its CA is not in the server's ssl_ca_file",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it cannot use it",
        AlertDescription::AccessDenied => "it denies access",
        _ => return None,
    };
    Some(TlsError::Client { problem })
}
