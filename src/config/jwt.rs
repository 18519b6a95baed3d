//! `[pages.jwt]`: whose JSON Web Tokens (RFC 7519) the pages take, and the public keys that verify them (a JWK Set, RFC 7517).

use super::ConfigError;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json_path::JsonPath;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// A longer file of keys is refused.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// RFC 7518, section 3.3: a key of 2048 bits or larger.
const MODULUS_BYTES_MIN: usize = 256;
/// What the library of cryptography takes: 8192 bits.
const MODULUS_BYTES_MAX: usize = 1_024;
/// A coordinate on P-256, and a public key of Ed25519.
const POINT_BYTES: usize = 32;

/// Which tokens are taken, and whom they name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The public keys, by `kid`; read again for each request.
    pub jwks_file: PathBuf,
    /// The only `iss` that is taken.
    pub issuer: String,
    /// Must be among the token's `aud`.
    pub audience: String,
    /// Finds the viewer's name, as the portal knows it, among the claims.
    pub name: JsonPath,
    /// The cookie in which the portal's front end leaves the token; without it only a bearer header is looked at.
    pub cookie: Option<String>,
    pub admin: Option<AdminClaim>,
}

/// What a claim must hold for its bearer to see all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminClaim {
    pub path: JsonPath,
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtFile {
    jwks_file: PathBuf,
    issuer: String,
    audience: String,
    name: Option<String>,
    cookie: Option<String>,
    admin: Option<AdminFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminFile {
    claim: String,
    value: String,
}

impl JwtFile {
    /// What is wrong with it is told as a sentence.
    pub(super) fn check(self, settings: &Path) -> Result<Jwt, String> {
        let folder = settings.parent().unwrap_or(Path::new("."));
        for (key, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() {
                return Err(format!("{key} of [pages.jwt] is empty: every token would pass it"));
            }
        }
        let admin = self.admin.map(|admin| {
            if admin.value.is_empty() {
                return Err("admin of [pages.jwt] needs a value: who has it sees all".to_owned());
            }
            Ok(AdminClaim { path: path(&admin.claim)?, value: admin.value })
        });
        let is_name = |cookie: &String| {
            !cookie.is_empty()
                && cookie
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        if self.cookie.as_ref().is_some_and(|cookie| !is_name(cookie)) {
            return Err("cookie of [pages.jwt] is no name of a cookie".to_owned());
        }
        Ok(Jwt {
            jwks_file: folder.join(self.jwks_file),
            issuer: self.issuer,
            audience: self.audience,
            name: path(self.name.as_deref().unwrap_or("$.sub"))?,
            cookie: self.cookie,
            admin: admin.transpose()?,
        })
    }
}

fn path(text: &str) -> Result<JsonPath, String> {
    JsonPath::parse(text).map_err(|error| {
        format!("{text:?} of [pages.jwt] is no JSONPath ({error}): write a claim as \"$.sub\"")
    })
}

/// A key that verifies one algorithm, and no other, whatever a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RS256.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// ES256: both coordinates.
    P256 { x: Vec<u8>, y: Vec<u8> },
    /// EdDSA.
    Ed25519 { point: Vec<u8> },
}

/// The keys of a file by their `kid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    keys: Vec<(String, PublicKey)>,
}

/// A key as RFC 7518, section 6 writes it. Of a secret part only that it is there is kept.
#[derive(Debug, Deserialize)]
struct KeyFile {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
    k: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct SetFile {
    keys: Vec<KeyFile>,
}

impl Jwks {
    /// Reads a file of public keys. Keys for other purposes and other algorithms are passed over, as servers publish them beside.
    ///
    /// # Errors
    /// It cannot be read, is none, has no key that could verify a token, or holds a secret one.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let fault = |message: String| ConfigError::Value { path: path.to_owned(), message };
        let mut text = Vec::new();
        let file = File::open(path);
        let read = file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
        let read = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(fault(format!("a JWK Set has at most {FILE_BYTES_MAX} bytes here")));
        }
        Self::parse(&text).map_err(fault)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        // Without the parser's own words, which quote what stands there.
        let set: SetFile = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("no JWK Set at line {line}, column {column}: save what the identity server has at its jwks_uri")
        })?;
        let mut keys: Vec<(String, PublicKey)> = Vec::new();
        for key in set.keys {
            let kid = key.kid.clone().unwrap_or_default();
            if key.d.is_some() || key.k.is_some() {
                return Err(format!(
                    "key {kid:?} is a secret one: whoever reads it can name anybody; put the public keys alone in this file"
                ));
            }
            let Some(public) = key.public()? else { continue };
            if kid.is_empty() {
                return Err("a key has no \"kid\", by which a token says its key".to_owned());
            }
            if keys.iter().any(|(known, _)| *known == kid) {
                return Err(format!("two keys have the kid {kid:?}"));
            }
            keys.push((kid, public));
        }
        if keys.is_empty() {
            return Err("no key for RS256, ES256 or EdDSA is in it".to_owned());
        }
        Ok(Self { keys })
    }

    /// The key of that name.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|(known, _)| known == kid).map(|(_, key)| key)
    }
}

impl KeyFile {
    /// `None`: for another purpose or algorithm.
    fn public(&self) -> Result<Option<PublicKey>, String> {
        let is_for = |alg: &str| {
            self.alg.as_deref().is_none_or(|own| own == alg)
                && self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        };
        Ok(Some(match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) if is_for("RS256") => {
                let (modulus, exponent) = (self.part("n", &self.n)?, self.part("e", &self.e)?);
                let modulus: Vec<u8> = modulus.into_iter().skip_while(|byte| *byte == 0).collect();
                if !(MODULUS_BYTES_MIN..=MODULUS_BYTES_MAX).contains(&modulus.len()) {
                    let kid = self.kid.as_deref().unwrap_or_default();
                    return Err(format!("key {kid:?} has not 2048 to 8192 bits"));
                }
                PublicKey::Rsa { modulus, exponent }
            }
            ("EC", Some("P-256")) if is_for("ES256") => {
                PublicKey::P256 { x: self.point("x", &self.x)?, y: self.point("y", &self.y)? }
            }
            ("OKP", Some("Ed25519")) if is_for("EdDSA") || is_for("Ed25519") => {
                PublicKey::Ed25519 { point: self.point("x", &self.x)? }
            }
            _ => return Ok(None),
        }))
    }

    fn part(&self, name: &str, text: &Option<String>) -> Result<Vec<u8>, String> {
        let bytes = text.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let kid = self.kid.as_deref().unwrap_or_default();
        bytes.ok_or_else(|| format!("key {kid:?} has no {name:?} in base64url"))
    }

    fn point(&self, name: &str, text: &Option<String>) -> Result<Vec<u8>, String> {
        let bytes = self.part(name, text)?;
        let kid = self.kid.as_deref().unwrap_or_default();
        if bytes.len() == POINT_BYTES {
            Ok(bytes)
        } else {
            Err(format!("{name:?} of key {kid:?} has not {POINT_BYTES} bytes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(keys: &str) -> String {
        Jwks::parse(format!("{{\"keys\": [{keys}]}}").as_bytes()).unwrap_err()
    }

    fn b64(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0x81; bytes])
    }

    #[test]
    fn keys_of_other_uses_are_passed_over() {
        let point = b64(32);
        let text = format!(
            r#"{{"keys": [
                {{"kty": "RSA", "kid": "e", "use": "enc", "alg": "RSA-OAEP", "n": "{n}", "e": "AQAB"}},
                {{"kty": "RSA", "kid": "p", "alg": "PS256", "n": "{n}", "e": "AQAB"}},
                {{"kty": "EC", "kid": "c", "crv": "P-384", "x": "", "y": ""}},
                {{"kty": "new", "kid": "f"}},
                {{"kty": "OKP", "kid": "s", "crv": "Ed25519", "x": "{point}", "x5c": []}}]}}"#,
            n = b64(256)
        );
        let keys = Jwks::parse(text.as_bytes()).unwrap();
        assert_eq!(keys.keys.len(), 1);
        assert_eq!(keys.key("s"), Some(&PublicKey::Ed25519 { point: vec![0x81; 32] }));
        for other in ["e", "p", "c", "f", "", "S"] {
            assert_eq!(keys.key(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_would_be_unsafe_is_refused() {
        let ed = format!(r#"{{"kty": "OKP", "kid": "s", "crv": "Ed25519", "x": "{}"}}"#, b64(32));
        let rsa =
            |bytes| format!(r#"{{"kty": "RSA", "kid": "r", "n": "{}", "e": "AQAB"}}"#, b64(bytes));
        for (keys, why) in [
            (String::new(), "no key for RS256"),
            (format!("{ed}, {ed}"), "two keys"),
            (ed.replace(r#""kid": "s", "#, ""), "no \"kid\""),
            (ed.replace(r#""x""#, r#""d": "canary", "x""#), "secret one"),
            (r#"{"kty": "oct", "kid": "h", "k": "canary"}"#.to_owned(), "secret one"),
            (rsa(128), "2048"),
            (rsa(2_048), "8192"),
            (ed.replace("gYGB", ""), "32 bytes"),
            (ed.replace("gYGB", "!canary!"), "base64url"),
            (r#"{"kty": canary}"#.to_owned(), "line 1"),
        ] {
            let error = refused(&keys);
            assert!(error.contains(why) && !error.contains("canary"), "{why}: {error}");
        }
    }
}
