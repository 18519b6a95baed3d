//! What TLS is to be, and the files it needs, read anew at each connect (manual, section 34.19).

use super::{ConnInfoError, SslMode, error::invalid, text::Parameters};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// A version of TLS that we speak; older ones are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "their own names")]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// The parameters.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(super) sslmode: SslMode,
    root: Root,
    cert: Option<Named>,
    key: Option<Named>,
    crl: Option<Named>,
    /// The oldest and the newest version.
    pub versions: (TlsVersion, TlsVersion),
    /// Whether the server is told the host's name in clear.
    pub sni: bool,
}

#[derive(Clone, Debug)]
enum Root {
    System,
    File(Option<Named>),
}

/// A file, and whether its name was given. One that was given must be there; libpq would go on without.
#[derive(Clone, Debug)]
struct Named {
    parameter: &'static str,
    path: PathBuf,
    is_given: bool,
}

/// What the files hold now.
#[derive(Debug)]
pub struct TlsFiles {
    /// By what the server's certificate is verified.
    pub roots: Roots,
    /// The client certificate.
    pub client: Option<ClientFiles>,
    /// Certificates that were revoked: the file and its text.
    pub crl: Option<(PathBuf, Vec<u8>)>,
}

/// By what the server's certificate is verified.
#[derive(Debug)]
pub enum Roots {
    /// It is not verified.
    None,
    /// By the CAs of the system.
    System,
    /// By those of this file: its name and its text.
    File(PathBuf, Vec<u8>),
}

/// The client certificate and its key, as texts.
pub struct ClientFiles {
    /// The file of the certificate.
    pub cert_path: PathBuf,
    /// The certificate, and those between it and its CA.
    pub cert: Vec<u8>,
    /// The file of the key.
    pub key_path: PathBuf,
    /// The key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientFiles")
            .field("cert_path", &self.cert_path)
            .field("key_path", &self.key_path)
            .finish_non_exhaustive()
    }
}

/// Whether only we can read a file, or root and a group that root chose. The manual has this rule for keys (34.19.1); we have it for passfiles too.
///
/// # Why
/// A secret that Kubernetes mounts belongs to root and to the pod's group, with mode 0440. Root can read everything anyway, and nobody else can change such a file's group.
#[must_use]
pub fn is_private(file: &Metadata) -> bool {
    let forbidden = if file.uid() == 0 { 0o037 } else { 0o077 };
    file.permissions().mode() & forbidden == 0
}

impl Tls {
    /// Takes the parameters of TLS; `home` is the user's folder.
    pub(super) fn take(given: &mut Parameters, home: Option<&Path>) -> Result<Self, ConnInfoError> {
        let mut file = |parameter: &'static str, default: &str| {
            let own = given.remove(parameter).map(PathBuf::from);
            let is_given = own.is_some();
            let path = own.or_else(|| home.map(|home| home.join(".postgresql").join(default)))?;
            Some(Named { parameter, path, is_given })
        };
        let root = file("sslrootcert", "root.crt");
        let (cert, key) = (file("sslcert", "postgresql.crt"), file("sslkey", "postgresql.key"));
        let crl = file("sslcrl", "root.crl");
        let root = match root {
            Some(named) if named.is_given && named.path == Path::new("system") => Root::System,
            other => Root::File(other),
        };
        let sslmode = match (given.remove("sslmode"), &root) {
            (Some(name), _) => name.parse()?,
            (None, Root::System) => SslMode::VerifyFull,
            (None, Root::File(_)) => SslMode::Prefer,
        };
        if matches!(root, Root::System) && sslmode != SslMode::VerifyFull {
            let problem = format!(
                "the CAs of the system sign for anybody, so sslmode={sslmode} is too weak with it: use verify-full"
            );
            return Err(invalid("sslrootcert", problem));
        }
        let cert = match given.remove("sslcertmode").as_deref() {
            None | Some("allow") => cert,
            Some("disable") => None,
            Some("require") => {
                return Err(invalid(
                    "sslcertmode",
                    "require is not supported: use disable or allow",
                ));
            }
            Some(_) => return Err(invalid("sslcertmode", "expected disable or allow")),
        };
        let mut version = |parameter, default| match given.remove(parameter) {
            None => Ok(default),
            Some(text) => read_version(parameter, &text),
        };
        let oldest = version("ssl_min_protocol_version", TlsVersion::V1_2)?;
        let newest = version("ssl_max_protocol_version", TlsVersion::V1_3)?;
        if oldest > newest {
            return Err(invalid(
                "ssl_min_protocol_version",
                "it is above ssl_max_protocol_version",
            ));
        }
        let sni = match given.remove("sslsni").as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => return Err(invalid("sslsni", "expected 0 or 1")),
        };
        Ok(Self { sslmode, root, cert, key, crl, versions: (oldest, newest), sni })
    }

    /// libpq's `sslmode`, with `verify-full` where `sslrootcert=system` implies it.
    #[must_use]
    pub fn sslmode(&self) -> SslMode {
        self.sslmode
    }

    /// Reads the files now.
    ///
    /// # Errors
    /// [`ConnInfoError::NoRootFile`], [`ConnInfoError::FileRead`], [`ConnInfoError::KeyMode`].
    pub fn read(&self) -> Result<TlsFiles, ConnInfoError> {
        let read = |named: &Option<Named>| named.as_ref().map_or(Ok(None), Named::read);
        let roots = match &self.root {
            Root::System => Roots::System,
            Root::File(named) => match read(named)? {
                Some((path, pem)) => Roots::File(path, pem),
                // As in libpq a file that is there is used in each mode; these two need one.
                None if self.sslmode.verifies() => {
                    return Err(ConnInfoError::NoRootFile { sslmode: self.sslmode });
                }
                None => Roots::None,
            },
        };
        let crl = match &roots {
            Roots::None if self.crl.as_ref().is_some_and(|crl| crl.is_given) => {
                let problem = "without a root certificate nothing is verified: set sslrootcert";
                return Err(invalid("sslcrl", problem));
            }
            Roots::None => None,
            Roots::System | Roots::File(..) => read(&self.crl)?,
        };
        let client = match read(&self.cert)? {
            None => None,
            Some((cert_path, cert)) => {
                let (key_path, key) = self.read_key()?;
                Some(ClientFiles { cert_path, cert, key_path, key })
            }
        };
        Ok(TlsFiles { roots, client, crl })
    }

    /// The key of a certificate that is there, so it must be there too.
    fn read_key(&self) -> Result<(PathBuf, Vec<u8>), ConnInfoError> {
        let missing = || PathBuf::from("~/.postgresql/postgresql.key");
        let path = self.key.as_ref().map_or_else(missing, |named| named.path.clone());
        let failed =
            |source| ConnInfoError::FileRead { parameter: "sslkey", path: path.clone(), source };
        let file = fs::metadata(&path).map_err(failed)?;
        if !file.is_file() {
            return Err(failed(io::Error::other("not a plain file")));
        }
        if !is_private(&file) {
            return Err(ConnInfoError::KeyMode { path });
        }
        let key = fs::read(&path).map_err(failed)?;
        Ok((path, key))
    }
}

impl Named {
    /// The file and its text; `None` if it is not there and was not named.
    fn read(&self) -> Result<Option<(PathBuf, Vec<u8>)>, ConnInfoError> {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        match fs::read(&self.path) {
            Ok(text) => Ok(Some((self.path.clone(), text))),
            Err(error) if absent.contains(&error.kind()) && !self.is_given => Ok(None),
            Err(source) => {
                let (parameter, path) = (self.parameter, self.path.clone());
                Err(ConnInfoError::FileRead { parameter, path, source })
            }
        }
    }
}

/// We speak nothing older than TLS 1.2, so a lower bound below it is kept by itself; an upper one cannot be.
fn read_version(parameter: &'static str, text: &str) -> Result<TlsVersion, ConnInfoError> {
    let is_lower = parameter == "ssl_min_protocol_version";
    match text.to_ascii_lowercase().as_str() {
        "tlsv1.3" => Ok(TlsVersion::V1_3),
        "tlsv1.2" => Ok(TlsVersion::V1_2),
        "tlsv1" | "tlsv1.1" if is_lower => Ok(TlsVersion::V1_2),
        "tlsv1" | "tlsv1.1" => Err(invalid(parameter, "nothing older than TLSv1.2 is spoken")),
        _ => Err(invalid(parameter, "expected TLSv1.2 or TLSv1.3")),
    }
}
