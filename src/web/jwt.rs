//! Whom a JSON Web Token names (RFC 7519, by the advice of RFC 8725): the key decides the algorithm, the settings decide issuer, audience and claims, and nothing that a token says about its own verification is believed but the name of its key.

use crate::config::{ConfigError, Jwks, Jwt, PublicKey};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    decode, decode_header,
    errors::{Error, ErrorKind},
    signature,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

/// A longer token is refused unread.
pub(super) const TOKEN_BYTES_MAX: usize = 8_192;
/// How far the clocks of two servers may be apart.
const LEEWAY_SECONDS: u64 = 30;

/// Whom a token names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) is_admin: bool,
}

/// Why a token is not taken. Nothing of the token is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("this is no signed token")]
    Malformed,
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    Long,
    #[error("the keys of [pages.jwt] jwks_file cannot be used")]
    Keys(#[source] ConfigError),
    #[error("[pages.jwt] jwks_file has no key of the token's kid: save the issuer's keys anew")]
    Key,
    #[error("the token is not signed by its key")]
    Signature,
    #[error("the token has expired: sign in again")]
    Expired,
    #[error("the token is not valid yet: compare the clocks")]
    Early,
    #[error("the token is of another issuer than [pages.jwt] issuer")]
    Issuer,
    #[error("the token is for another audience than [pages.jwt] audience")]
    Audience,
    #[error("the token lacks one of exp, iss and aud, or has it in another form")]
    Claims,
    #[error("[pages.jwt] name finds no name in the token")]
    Name,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Early,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Self::Claims,
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Self::Signature,
            _ => Self::Malformed,
        }
    }
}

/// Whom a token names, if it is genuine, for us and of now.
pub(super) fn named(settings: &Jwt, token: &str) -> Result<Named, Refused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::Long);
    }
    // Refused the second time, when it is there already.
    let _installed = RING.install_default();
    let header = decode_header(token)?;
    // What an extension asks for must be understood, and none is (RFC 7515, section 4.1.11).
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    let keys = Jwks::read(&settings.jwks_file).map_err(Refused::Keys)?;
    let key = header.kid.as_deref().and_then(|kid| keys.key(kid)).ok_or(Refused::Key)?;
    let (algorithm, key) = verifying(key);
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let claims: Value = decode(token, &key, &validation)?.claims;
    let name = settings.name.query(&claims).exactly_one().ok().and_then(Value::as_str);
    let name = name.filter(|name| !name.is_empty() && !name.contains(char::is_control));
    let is_admin = settings.admin.as_ref().is_some_and(|admin| {
        let has = |found: &Value| found.as_str() == Some(&admin.value);
        let mut nodes = admin.path.query(&claims).into_iter();
        nodes.any(|node| has(node) || node.as_array().is_some_and(|all| all.iter().any(has)))
    });
    Ok(Named { name: name.ok_or(Refused::Name)?.to_owned(), is_admin })
}

/// The one algorithm of a key, so that no token can choose another for it.
fn verifying(key: &PublicKey) -> (Algorithm, DecodingKey) {
    match key {
        PublicKey::Rsa { modulus, exponent } => {
            (Algorithm::RS256, DecodingKey::from_rsa_raw_components(modulus, exponent))
        }
        PublicKey::P256 { x, y } => {
            // An uncompressed point (SEC 1, section 2.3.3).
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            (Algorithm::ES256, DecodingKey::from_ec_der(&point))
        }
        PublicKey::Ed25519 { point } => (Algorithm::EdDSA, DecodingKey::from_ed_der(point)),
    }
}

/// The cryptography of jsonwebtoken, done by ring: the crate's own choices would bring a second library, and RSA code whose timing is known to leak (RUSTSEC-2023-0071).
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Verifier::new(*algorithm, key)?)),
    // Called for keys that are written, which happens nowhere here.
    key_utils: KeyUtils::new_unimplemented(),
};

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        match (algorithm, key.family()) {
            (Algorithm::RS256, AlgorithmFamily::Rsa)
            | (Algorithm::ES256, AlgorithmFamily::Ec)
            | (Algorithm::EdDSA, AlgorithmFamily::Ed) => Ok(Self { algorithm, key: key.clone() }),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::RS256, RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signed)
            }
            (Algorithm::ES256, SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signed)
            }
            (Algorithm::EdDSA, SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_unspecified| signature::Error::new())
    }
}
