//! libpq's connection parameters with libpq's meaning, refusals included (manual, section 34.1.2).
//!
//! Reads no environment and opens no connection. It reads the service file once, and the files that hold secrets and certificates anew at each connect, so that what is rotated needs no restart.
//!
//! Where this departs from libpq, it is on the safe side but for the last:
//! - an unencrypted connection to another host is never a fallback: `allow` and `prefer` try TLS there and nothing else;
//! - a parameter that we do not honour, and a file of `sslrootcert`, `sslcert` or `sslcrl` that is named and not there, is an error;
//! - a login that gives the password away must be allowed by `require_auth`, and the password itself crosses only TLS whose server is verified;
//! - connecting ends after [`CONNECT_TIMEOUT_DEFAULT`] where libpq would wait for ever;
//! - a passfile of root's may be read by its group, as a key may (see [`Tls`]).

mod address;
mod error;
mod methods;
mod parameters;
mod refused;
mod service;
mod sslmode;
mod text;
mod tls;

pub use address::Address;
pub use error::ConnInfoError;
pub use methods::{ChannelBinding, Method, Methods, Target};
pub use refused::Refused;
pub use sslmode::{SslMode, Transport};
pub use tls::{ClientFiles, Roots, Tls, TlsFiles, TlsVersion, is_private};

use address::{SOCKET_DIRS_DEFAULT, addresses};
use error::invalid;
use parameters::{HONOURED, not_honoured_variable};
use std::{fmt, fs, io, path::PathBuf, str::FromStr, time::Duration};
use text::Parameters;

/// How long one address may take to answer when `connect_timeout` is not given.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Settings that change how a value is printed; a session must never inherit them from a role or a
/// database. The portal's own defaults would else give `04/03/2026 14:06:07 JST` for a time.
const PINNED_SETTINGS: &str = "-c datestyle=ISO -c intervalstyle=postgres \
    -c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC -c synchronous_commit=on \
    -c lc_monetary=C -c xmlbinary=base64 -c quote_all_identifiers=off";

/// Connection parameters, read and checked. `Debug` prints `***` for the password.
#[derive(Clone)]
pub struct ConnInfo {
    addresses: Vec<Address>,
    user: String,
    dbname: String,
    password: Option<String>,
    is_password_written: bool,
    passfile: Option<PathBuf>,
    tls: Tls,
    methods: Methods,
    channel_binding: ChannelBinding,
    target: Target,
    application_name: Option<String>,
    connect_timeout: Option<Duration>,
    options: String,
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `options` is left out: nothing stops a user from setting a secret there.
        f.debug_struct("ConnInfo")
            .field("addresses", &self.addresses)
            .field("user", &self.user)
            .field("dbname", &self.dbname)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("passfile", &self.passfile)
            .field("tls", &self.tls)
            .field("methods", &self.methods)
            .field("channel_binding", &self.channel_binding)
            .field("target", &self.target)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl ConnInfo {
    /// Reads `host=… dbname=…` or `postgresql://…`; `env` gives the defaults (manual, 34.15). An
    /// empty value counts as not given.
    ///
    /// # Errors
    /// A malformed string, an unknown or unsupported parameter, an impossible value, or a service that is not there.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConnInfoError> {
        let mut given = text::read(text)?;
        given.retain(|_, value| !value.is_empty());
        let is_password_written = given.contains_key("password");
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some((name, why)) = not_honoured_variable(&env) {
            return Err(ConnInfoError::NotHonoured { name, why });
        }
        let file = given.remove("servicefile").or_else(|| env("PGSERVICEFILE"));
        if let Some(name) = given.remove("service").or_else(|| env("PGSERVICE")) {
            for (parameter, value) in service::read(&name, file, &env)? {
                given.entry(parameter).or_insert(value);
            }
            given.retain(|_, value| !value.is_empty());
        }
        for (parameter, variable) in HONOURED {
            if !given.contains_key(parameter)
                && let Some(value) = env(variable)
            {
                given.insert(parameter, value);
            }
        }
        let conninfo = Self { is_password_written, ..Self::from_parameters(given, &env)? };
        conninfo.check()?;
        Ok(conninfo)
    }

    fn from_parameters(
        mut given: Parameters,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        let addresses = addresses(
            given.get("host").map(String::as_str),
            given.get("hostaddr").map(String::as_str),
            given.get("port").map(String::as_str),
        )?;
        let user = given
            .remove("user")
            .or_else(|| env("USER"))
            .or_else(|| env("LOGNAME"))
            .ok_or_else(|| invalid("user", "none given, and the environment names none"))?;
        let home = env("HOME").map(PathBuf::from);
        Ok(Self {
            addresses,
            dbname: given.remove("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: given.remove("password"),
            is_password_written: false,
            passfile: given
                .remove("passfile")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".pgpass"))),
            tls: Tls::take(&mut given, home.as_deref())?,
            methods: word(&mut given, "require_auth")?,
            channel_binding: word(&mut given, "channel_binding")?,
            target: word(&mut given, "target_session_attrs")?,
            application_name: given.remove("application_name"),
            connect_timeout: connect_timeout(given.get("connect_timeout").map(String::as_str))?,
            options: given.remove("options").unwrap_or_default(),
        })
    }

    /// What can never come true, told before a connection is made.
    fn check(&self) -> Result<(), ConnInfoError> {
        let has_tls = |address| self.transports(address).iter().any(|way| *way != Transport::Plain);
        if self.channel_binding == ChannelBinding::Require && !self.addresses.iter().all(has_tls) {
            let problem = "require needs TLS towards each host: set sslmode=verify-full";
            return Err(invalid("channel_binding", problem));
        }
        Ok(())
    }

    /// Whether the string itself holds a password, which then lies where the string does.
    #[must_use]
    pub fn is_password_written(&self) -> bool {
        self.is_password_written
    }

    /// The servers to try, in order; at least one.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }

    /// The role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database; the user's name if none was given.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// What to be called in `pg_stat_activity`, if the user chose a name.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// How long each address may take to connect and log in; `None`: for ever, asked for with 0.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The startup packet's `options`: the user's, then the settings that we pin. The last wins.
    #[must_use]
    pub fn startup_options(&self) -> String {
        format!("{} {PINNED_SETTINGS}", self.options).trim_start().to_owned()
    }

    /// What TLS is to be, where it is.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Which logins are allowed.
    #[must_use]
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Whether logins are bound to the TLS connection.
    #[must_use]
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// What a server must be to be taken.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether and how to encrypt towards `address`: the ways to try, in order.
    ///
    /// # Why
    /// libpq's default `prefer` falls back to plaintext when the server, or who sits in front of
    /// it, says that it has no TLS. On this machine that is harmless; on a network it must be asked
    /// for with `disable`. A socket has no TLS in libpq either, whatever the mode.
    #[must_use]
    pub fn transports(&self, address: &Address) -> &'static [Transport] {
        match (self.tls.sslmode(), address) {
            (SslMode::Disable, _) | (_, Address::Unix { .. }) => &[Transport::Plain],
            (SslMode::Prefer, address) if address.is_local() => {
                &[Transport::TlsIfOffered, Transport::Plain]
            }
            (SslMode::Allow, address) if address.is_local() => {
                &[Transport::Plain, Transport::TlsIfOffered]
            }
            _ => &[Transport::Tls],
        }
    }

    /// The password for one server: as given, else the first line of the passfile that fits
    /// (manual, section 34.16), read now. Pass [`Address::host`] and [`Address::port`].
    ///
    /// # Errors
    /// [`ConnInfoError::PassfileMode`], which a caller that can do without may take for `None`, as
    /// libpq does; [`ConnInfoError::FileRead`]. A missing file is `None`.
    pub fn password(&self, host: &str, port: u16) -> Result<Option<String>, ConnInfoError> {
        if self.password.is_some() {
            return Ok(self.password.clone());
        }
        let Some(path) = &self.passfile else { return Ok(None) };
        let unreadable =
            |source| ConnInfoError::FileRead { parameter: "passfile", path: path.clone(), source };
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("not a plain file")));
        }
        if !tls::is_private(&metadata) {
            return Err(ConnInfoError::PassfileMode { path: path.clone() });
        }
        // libpq looks up the default socket's directory as "localhost".
        let host = if SOCKET_DIRS_DEFAULT.contains(&host) { "localhost" } else { host };
        let contents = fs::read_to_string(path).map_err(unreadable)?;
        let wanted = [host, &port.to_string(), &self.dbname, &self.user];
        Ok(text::passfile_password(&contents, wanted))
    }
}

/// A parameter that is one of a few words; by default what its type has as such.
fn word<T>(given: &mut Parameters, name: &str) -> Result<T, ConnInfoError>
where
    T: Default + FromStr<Err = ConnInfoError>,
{
    given.remove(name).map_or_else(|| Ok(T::default()), |text| text.parse())
}

/// libpq's reading: zero and less is "for ever", and one second is too short to be meant.
fn connect_timeout(text: Option<&str>) -> Result<Option<Duration>, ConnInfoError> {
    let Some(text) = text else { return Ok(Some(CONNECT_TIMEOUT_DEFAULT)) };
    let seconds = text.trim().parse::<i32>();
    match seconds.map(u64::try_from) {
        Ok(Ok(0) | Err(_)) => Ok(None),
        Ok(Ok(seconds)) => Ok(Some(Duration::from_secs(seconds.max(2)))),
        Err(_) => Err(invalid("connect_timeout", "expected a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnInfo, ConnInfoError, Roots, SslMode, Transport};
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    fn parse(text: &str, env: &[(&str, &str)]) -> Result<ConnInfo, ConnInfoError> {
        let user = [("USER", "os")];
        let find = |name: &str| {
            let found = env.iter().chain(&user).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ConnInfo::parse(text, &find)
    }

    #[test]
    fn takes_what_is_missing_from_the_environment() {
        let env = [("PGHOST", "127.0.0.1"), ("PGPORT", "7"), ("PGUSER", "u"), ("PGPASSWORD", "x")];
        let conninfo = parse("dbname=d port=8", &env).unwrap();
        assert_eq!(conninfo.addresses().next().unwrap().to_string(), "127.0.0.1:8");
        assert_eq!((conninfo.user(), conninfo.dbname()), ("u", "d"));
        assert_eq!(conninfo.password("h", 1).unwrap().as_deref(), Some("x"));
        let conninfo = parse("", &[]).unwrap();
        assert_eq!((conninfo.user(), conninfo.dbname()), ("os", "os"));
        assert!(parse("", &[("PGSERVICE", "s")]).is_err());
    }

    #[test]
    fn plaintext_towards_another_host_must_be_asked_for() {
        use Transport::{Plain, Tls, TlsIfOffered};
        for (text, ways) in [
            ("", &[Plain][..]),
            ("host=localhost", &[TlsIfOffered, Plain]),
            ("host=::1 sslmode=allow", &[Plain, TlsIfOffered]),
            ("host=[::1]", &[Tls]),
            ("host=/tmp sslmode=verify-full", &[Plain]),
            ("host=db hostaddr=127.0.0.1", &[TlsIfOffered, Plain]),
            ("host=localhost hostaddr=10.0.0.1", &[Tls]),
            ("host=db", &[Tls]),
            ("host=db sslmode=allow", &[Tls]),
            ("host=db sslmode=disable", &[Plain]),
            ("host=localhost sslmode=require", &[Tls]),
            ("host=db sslmode=verify-full", &[Tls]),
        ] {
            let conninfo = parse(text, &[]).unwrap();
            let address = conninfo.addresses().next().unwrap();
            assert_eq!(conninfo.transports(address), ways, "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_kept() {
        for (text, says) in [
            ("host=localhost sslmode=disable channel_binding=require", "\"channel_binding\""),
            ("host=/tmp sslmode=require channel_binding=require", "\"channel_binding\""),
            ("host=a,/tmp sslmode=require channel_binding=require", "\"channel_binding\""),
            ("host=a sslrootcert=system sslmode=verify-ca", "verify-ca is too weak"),
            ("sslmode=required", "expected one of disable, allow"),
            ("ssl_min_protocol_version=SSLv3", "expected TLSv1.2 or TLSv1.3"),
            ("ssl_max_protocol_version=TLSv1.1", "nothing older than TLSv1.2"),
            ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "is above"),
            ("sslsni=yes", "expected 0 or 1"),
            ("sslcertmode=require", "use disable or allow"),
            ("channel_binding=yes", "expected disable, prefer or require"),
            ("sslpassword=hunter2", "Decrypt the key"),
            ("load_balance_hosts=random", "in their order"),
        ] {
            let told = parse(text, &[]).unwrap_err().to_string();
            assert!(told.contains(says) && !told.contains("hunter2"), "{text}: {told}");
        }
        let told = parse("", &[("PGREQUIREPEER", "postgres")]).unwrap_err().to_string();
        assert!(told.starts_with("connection parameter \"PGREQUIREPEER\""), "{told}");
        for text in ["host=a sslrootcert=system", "host=a ssl_min_protocol_version=TLSv1"] {
            parse(text, &[("PGGSSENCMODE", "disable")]).unwrap();
        }
        let system = parse("host=a sslrootcert=system", &[]).unwrap();
        assert_eq!(system.tls().sslmode(), SslMode::VerifyFull);
        assert!(parse("sslrootcert=system", &[("PGSSLMODE", "require")]).is_err());
    }

    #[test]
    fn a_service_stands_between_the_string_and_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        fs::write(&file, "[s]\nhost=in-file\nport=7\nuser=f\npassword=p\n").unwrap();
        let file = file.to_str().unwrap();
        let env = [("PGSERVICEFILE", file), ("PGHOST", "in-env"), ("PGDATABASE", "in-env")];
        let conninfo = parse("service=s port=8", &env).unwrap();
        assert_eq!(conninfo.addresses().next().unwrap().to_string(), "in-file:8");
        assert_eq!((conninfo.user(), conninfo.dbname()), ("f", "in-env"));
        assert!(!conninfo.is_password_written());
        assert!(parse(&format!("servicefile={file}"), &[("PGSERVICE", "nobody")]).is_err());
    }

    #[test]
    fn files_of_tls_are_read_anew_and_named_ones_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(".postgresql");
        fs::create_dir(&home).unwrap();
        let env = [("HOME", folder.path().to_str().unwrap())];
        let read = |text: &str| parse(text, &env).unwrap().tls().read();
        assert!(matches!(read("").unwrap().roots, Roots::None));
        assert!(matches!(read("sslmode=verify-ca"), Err(ConnInfoError::NoRootFile { .. })));
        fs::write(home.join("root.crt"), "pem").unwrap();
        for mode in ["allow", "require", "verify-full"] {
            let files = read(&format!("sslmode={mode}")).unwrap();
            assert!(matches!(files.roots, Roots::File(_, pem) if pem == b"pem"));
            assert!(files.client.is_none() && files.crl.is_none());
        }
        fs::write(home.join("postgresql.crt"), "cert").unwrap();
        assert!(read("sslcertmode=disable").unwrap().client.is_none());
        let told = read("").unwrap_err().to_string();
        assert!(told.starts_with("could not read sslkey"), "{told}");
        let key = home.join("postgresql.key");
        fs::write(&key, "key").unwrap();
        for (mode, is_taken) in [(0o644, false), (0o660, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let files = read("");
            assert_eq!(files.is_ok(), is_taken, "{mode:o}");
            let shown = format!("{files:?}");
            assert!(!shown.contains("107, 101, 121"), "the key is shown: {shown}");
        }
        fs::remove_file(home.join("root.crt")).unwrap();
        let told = read("sslcrl=/nowhere").unwrap_err().to_string();
        assert!(told.contains("nothing is verified: set sslrootcert"), "{told}");
        fs::write(home.join("root.crt"), "pem").unwrap();
        for parameter in ["sslrootcert", "sslcert", "sslcrl"] {
            let told = read(&format!("{parameter}=/nowhere")).unwrap_err().to_string();
            assert_eq!(told, format!("could not read {parameter} \"/nowhere\""));
        }
    }

    #[test]
    fn limits_the_wait() {
        for (text, seconds) in [("", 30), ("connect_timeout=1", 2), ("connect_timeout=9", 9)] {
            let timeout = parse(text, &[]).unwrap().connect_timeout();
            assert_eq!(timeout, Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse("connect_timeout=0", &[]).unwrap().connect_timeout(), None);
        assert!(parse("connect_timeout=soon", &[]).is_err());
    }

    #[test]
    fn shows_no_password() {
        let conninfo = parse("password=hunter2 options=-chunter2", &[]).unwrap();
        assert!(!format!("{conninfo:?}").contains("hunter2"));
        assert!(conninfo.startup_options().starts_with("-chunter2 -c datestyle=ISO"));
    }

    #[test]
    fn reads_the_passfile_anew_and_only_if_it_is_private() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("passfile={} user=u dbname=d", file.path().display());
        let conninfo = parse(&text, &[]).unwrap();
        assert_eq!(conninfo.password("/tmp", 1).unwrap(), None);
        fs::write(file.path(), "localhost:1:d:u:first").unwrap();
        assert_eq!(conninfo.password("/tmp", 1).unwrap().as_deref(), Some("first"));
        fs::write(file.path(), "*:*:*:*:second").unwrap();
        assert_eq!(conninfo.password("h", 1).unwrap().as_deref(), Some("second"));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(conninfo.password("h", 1), Err(ConnInfoError::PassfileMode { .. })));
        drop(file);
        assert_eq!(conninfo.password("h", 1).unwrap(), None);
    }
}
