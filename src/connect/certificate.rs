//! What a certificate says: until when it is valid, for which names, and its hash for channel binding.

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use std::net::IpAddr;
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
    time::Time,
};

/// From when to when a certificate is valid; `None`: it cannot be read.
pub(super) fn validity(der: &[u8]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let instant = |time: Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
        DateTime::from_timestamp(seconds, 0)
    };
    Some((instant(validity.not_before)?, instant(validity.not_after)?))
}

/// Whether a certificate says that it is its own CA.
pub(super) fn is_its_own_ca(der: &[u8]) -> bool {
    Certificate::from_der(der).is_ok_and(|certificate| {
        let certificate = certificate.tbs_certificate();
        certificate.issuer() == certificate.subject()
    })
}

/// The hash of a certificate by the hash function of its signature, where MD5 and SHA-1 become SHA-256 (RFC 5929, section 4.1: `tls-server-end-point`). `None`: that has no hash function, as Ed25519 has not, or it is not known.
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let algorithm = certificate.signature_algorithm().oid.to_string();
    match algorithm.as_str() {
        // RSA and ECDSA with MD5 and SHA-1; RSA, ECDSA with SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(der).to_vec()),
        // … with SHA-384.
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(der).to_vec()),
        // … with SHA-512.
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(der).to_vec()),
        _ => None,
    }
}

/// The names that a certificate is for.
#[derive(Debug, Default)]
pub(super) struct Names {
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    common_name: Option<String>,
}

impl Names {
    pub(super) fn read(der: &[u8]) -> Self {
        let Ok(certificate) = Certificate::from_der(der) else { return Self::default() };
        let certificate = certificate.tbs_certificate();
        // The first, as in libpq; a text that is not UTF-8 names nobody.
        let common_name = certificate.subject().iter().find_map(|part| {
            let is_common_name = part.oid.to_string() == "2.5.4.3";
            let text = std::str::from_utf8(part.value.value()).ok()?;
            is_common_name.then(|| text.to_owned())
        });
        let mut names = Self { common_name, ..Self::default() };
        if let Ok(Some((_, alternatives))) = certificate.get_extension::<SubjectAltName>() {
            for name in alternatives.0 {
                match name {
                    GeneralName::DnsName(name) => names.dns.push(name.as_str().to_owned()),
                    GeneralName::IpAddress(bytes) => names.ips.extend(ip(bytes.as_bytes())),
                    _ => {}
                }
            }
        }
        names
    }

    /// Whether libpq takes the certificate for this host (`pq_verify_peer_name_matches_certificate`): a name or address among the alternative names, else the common name if no alternative is of the host's kind.
    pub(super) fn fit(&self, host: &str) -> bool {
        let (ip, has_own_kind) = match host.parse::<IpAddr>() {
            Ok(ip) => (Some(ip), !self.ips.is_empty()),
            Err(_not_an_address) => (None, !self.dns.is_empty()),
        };
        ip.is_some_and(|ip| self.ips.contains(&ip))
            || self.dns.iter().any(|name| is_of(name, host))
            || !has_own_kind && self.common_name.as_deref().is_some_and(|name| is_of(name, host))
    }

    /// All of them, for an error.
    pub(super) fn shown(&self) -> String {
        let mut all: Vec<String> = self.dns.iter().map(|name| format!("{name:?}")).collect();
        all.extend(self.ips.iter().map(|ip| format!("\"{ip}\"")));
        if all.is_empty() {
            all.extend(self.common_name.iter().map(|name| format!("{name:?}")));
        }
        if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
    }
}

/// Whether a certificate's name means a host; `*.` stands for one label.
fn is_of(name: &str, host: &str) -> bool {
    if name.is_empty() || name.contains('\0') {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    // An address has no labels.
    let is_address = host.parse::<IpAddr>().is_ok();
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(rest), Some((label, parent))) => {
            !is_address && !label.is_empty() && rest.eq_ignore_ascii_case(parent)
        }
        _ => false,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, end_point, is_of, validity};
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
        PKCS_ED25519, date_time_ymd,
    };

    fn certificate(common_name: &str, alternatives: &[&str]) -> Vec<u8> {
        let alternatives: Vec<String> =
            alternatives.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) =
            (date_time_ymd(2001, 2, 3), date_time_ymd(2051, 2, 3));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn fits_whom_libpq_fits() {
        for (common_name, alternatives, host, fits) in [
            ("db", &[][..], "db", true),
            ("db", &[], "DB", true),
            ("db", &["other"], "db", false),
            ("db", &["other"], "other", true),
            ("10.0.0.1", &["other"], "10.0.0.1", true),
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.1", false),
            ("x", &["10.0.0.2"], "10.0.0.2", true),
            ("db", &["10.0.0.2"], "db", true),
            ("x", &["*.example.org"], "db.example.org", true),
            ("x", &["*.example.org"], "a.db.example.org", false),
            ("x", &["*.example.org"], "example.org", false),
            ("x", &["*.example.org"], ".example.org", false),
            ("", &[], "", false),
        ] {
            let names = Names::read(&certificate(common_name, alternatives));
            assert_eq!(names.fit(host), fits, "{common_name} {alternatives:?} {host}");
        }
        assert!(!is_of("*.0.0.1", "10.0.0.1") && !is_of("d*.example.org", "db.example.org"));
        let names = Names::read(&certificate("a\nb", &[]));
        assert_eq!(names.shown(), "\"a\\nb\"");
        assert_eq!(
            Names::read(&certificate("x", &["b", "10.0.0.2"])).shown(),
            "\"b\", \"10.0.0.2\""
        );
    }

    #[test]
    fn reads_until_when_a_certificate_is_valid() {
        let (from, to) = validity(&certificate("db", &[])).unwrap();
        assert_eq!(from.to_rfc3339(), "2001-02-03T00:00:00+00:00");
        assert_eq!(to.to_rfc3339(), "2051-02-03T00:00:00+00:00");
    }

    #[test]
    fn hashes_by_the_function_of_the_signature() {
        for (algorithm, bytes) in [
            (&PKCS_ECDSA_P256_SHA256, Some(32)),
            (&PKCS_ECDSA_P384_SHA384, Some(48)),
            (&PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["db".to_owned()]).unwrap();
            let der = params.self_signed(&key).unwrap().der().to_vec();
            assert_eq!(end_point(&der).map(|hash| hash.len()), bytes, "{algorithm:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, at in 0..400_usize, byte: u8) {
            validity(&bytes);
            end_point(&bytes);
            drop(Names::read(&bytes));
            bytes = certificate("db", &["a", "10.0.0.2"]);
            if let Some(one) = bytes.get_mut(at) {
                *one = byte;
            }
            validity(&bytes);
            end_point(&bytes);
            Names::read(&bytes).fit("db");
        }
    }
}
