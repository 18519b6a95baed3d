//! Which logins are allowed: libpq's `require_auth`, `channel_binding` and `target_session_attrs`.

use super::{ConnInfoError, error::invalid};
use std::str::FromStr;

/// A way to prove who one is, in the words of `require_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's own words")]
pub enum Method {
    /// The password itself crosses the line.
    Password,
    Md5,
    ScramSha256,
    /// The server asks for nothing; it may know us by a client certificate.
    None,
    /// What we cannot do whoever allows it.
    Gss,
    Sspi,
    Oauth,
}

const METHODS: [(&str, Method); 7] = [
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("scram-sha-256", Method::ScramSha256),
    ("none", Method::None),
    ("gss", Method::Gss),
    ("sspi", Method::Sspi),
    ("oauth", Method::Oauth),
];

/// The methods that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

impl Default for Methods {
    /// What gives no password away. libpq's default is everything, and this is the one place where we are stricter.
    fn default() -> Self {
        Self(vec![Method::ScramSha256, Method::None])
    }
}

impl Methods {
    /// Whether a server may ask for this.
    #[must_use]
    pub fn allow(&self, method: Method) -> bool {
        self.0.contains(&method)
    }
}

impl FromStr for Methods {
    type Err = ConnInfoError;

    /// A list of methods, or of methods with `!` before each. What a list with `!` does not name stays as by default: naming alone allows what gives the password away.
    fn from_str(text: &str) -> Result<Self, ConnInfoError> {
        let wrong = |problem: &str| invalid("require_auth", problem);
        let (mut named, mut negated) = (Vec::new(), 0);
        for part in text.split(',') {
            let part = part.trim();
            let name = part.strip_prefix('!').unwrap_or(part);
            negated += usize::from(name.len() < part.len());
            let found = METHODS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                wrong("expected password, md5, scram-sha-256 or none, with commas between them")
            })?;
            if named.contains(&found.1) {
                return Err(wrong("a method stands there twice"));
            }
            named.push(found.1);
        }
        match negated {
            0 => Ok(Self(named)),
            count if count == named.len() => {
                let mut left = Self::default().0;
                left.retain(|method| !named.contains(method));
                Ok(Self(left))
            }
            _ => Err(wrong("either all methods have an exclamation mark or none")),
        }
    }
}

/// Whether the login is bound to the TLS connection, so that nobody can sit in between (`channel_binding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's own words")]
pub enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl FromStr for ChannelBinding {
    type Err = ConnInfoError;

    fn from_str(text: &str) -> Result<Self, ConnInfoError> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            _ => Err(invalid("channel_binding", "expected disable, prefer or require")),
        }
    }
}

/// What a server must be to be taken (`target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's own words")]
pub enum Target {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

const TARGETS: [(&str, Target); 6] = [
    ("any", Target::Any),
    ("read-write", Target::ReadWrite),
    ("read-only", Target::ReadOnly),
    ("primary", Target::Primary),
    ("standby", Target::Standby),
    ("prefer-standby", Target::PreferStandby),
];

impl Target {
    /// libpq's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        TARGETS.iter().find(|(_, target)| *target == self).map_or("", |(name, _)| name)
    }

    /// Whether a server fits that reports these of itself. Each server from PostgreSQL 14 on does; what one does not report counts as off.
    #[must_use]
    pub fn fits(self, is_standby: bool, is_read_only: bool) -> bool {
        match self {
            Self::Any => true,
            Self::ReadWrite => !is_standby && !is_read_only,
            Self::ReadOnly => is_standby || is_read_only,
            Self::Primary => !is_standby,
            Self::Standby | Self::PreferStandby => is_standby,
        }
    }
}

impl FromStr for Target {
    type Err = ConnInfoError;

    fn from_str(text: &str) -> Result<Self, ConnInfoError> {
        let found = TARGETS.iter().find(|(name, _)| *name == text);
        found.map(|(_, target)| *target).ok_or_else(|| {
            let names = TARGETS.map(|(name, _)| name);
            invalid("target_session_attrs", format!("expected one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Method, Methods, Target};

    #[test]
    fn reads_require_auth() {
        use Method::{Md5, None, Password, ScramSha256};
        let all = [Password, Md5, ScramSha256, None];
        for (text, allowed) in [
            ("password", &[Password][..]),
            ("scram-sha-256, none", &[ScramSha256, None]),
            ("md5,scram-sha-256", &[Md5, ScramSha256]),
            ("!none", &[ScramSha256]),
            // Forbidding one does not allow another that gives the password away.
            ("!password", &[ScramSha256, None]),
            ("!scram-sha-256,!none", &[]),
            ("gss", &[]),
        ] {
            let methods: Methods = text.parse().unwrap();
            let given: Vec<Method> = all.into_iter().filter(|one| methods.allow(*one)).collect();
            let allowed: Vec<Method> =
                all.into_iter().filter(|one| allowed.contains(one)).collect();
            assert_eq!(given, allowed, "{text}");
        }
        for text in ["scram", "md5,!none", "md5,md5", "md5,"] {
            assert!(text.parse::<Methods>().is_err(), "{text}");
        }
        assert_eq!("!gss".parse::<Methods>().unwrap(), Methods::default());
    }

    #[test]
    fn knows_which_server_fits() {
        // A primary, a primary that is read-only by default, a standby.
        for (name, fits) in [
            ("any", [true, true, true]),
            ("read-write", [true, false, false]),
            ("read-only", [false, true, true]),
            ("primary", [true, true, false]),
            ("standby", [false, false, true]),
            ("prefer-standby", [false, false, true]),
        ] {
            let target: Target = name.parse().unwrap();
            let servers = [(false, false), (false, true), (true, true)];
            assert_eq!(servers.map(|(standby, read)| target.fits(standby, read)), fits, "{name}");
            assert_eq!(target.name(), name);
        }
        assert!("leader".parse::<Target>().is_err());
    }
}
