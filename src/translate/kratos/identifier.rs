//! What somebody typed as a username may be a password in the wrong box: here it ends as text.

use crate::event::{Origin, push_formatted};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The shortest key of use: a shorter one can be tried out.
pub const KEY_BYTES_MIN: usize = 16;
/// Block of SHA-256, for HMAC.
const BLOCK_BYTES: usize = 64;

/// The key of the hash that stands for an identifier nobody has.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentifierKey(Vec<u8>);

impl fmt::Debug for IdentifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentifierKey(***)")
    }
}

impl IdentifierKey {
    /// A key of at least [`KEY_BYTES_MIN`] bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= KEY_BYTES_MIN).then(|| Self(bytes.to_owned()))
    }

    /// `hmac:` and 16 hexadecimal digits: enough to see that two attempts typed the same, of no use without the key.
    #[must_use]
    pub fn pseudonym(&self, identifier: &str) -> String {
        let hash = hmac(&self.0, normal(identifier).as_bytes());
        format!("hmac:{}", hex(hash.get(..8).unwrap_or_default()))
    }
}

/// As Kratos stores identifiers.
fn normal(identifier: &str) -> String {
    identifier.trim().to_lowercase()
}

/// An identifier's key in the names map. The map is asked for what is typed, so a hash is all that leaves the process.
#[must_use]
pub fn map_key(origin: Origin, identifier: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"portal-audit identifier\0");
    hash.update(origin.system_identifier.to_be_bytes());
    hash.update(origin.database_oid.to_be_bytes());
    hash.update(normal(identifier).as_bytes());
    hex(hash.finalize().get(..16).unwrap_or_default())
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK_BYTES];
    let hashed: [u8; 32] = Sha256::digest(key).into();
    let key = if key.len() > BLOCK_BYTES { &hashed } else { key };
    for (byte, of_key) in block.iter_mut().zip(key) {
        *byte = *of_key;
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        push_formatted(&mut out, format_args!("{byte:02x}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{IdentifierKey, hex, hmac};

    /// RFC 4231, test cases 2 and 6.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hmac(b"Jefe", b"what do ya want for nothing?")), expected);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex(&hmac(&[0xaa; 131], message)), expected);
    }

    #[test]
    fn a_pseudonym_depends_on_the_key_and_on_the_text_as_kratos_reads_it() {
        let key = IdentifierKey::new(&[1; 16]).unwrap();
        assert_eq!(key.pseudonym(" Wrenn "), key.pseudonym("wrenn"));
        assert_ne!(key.pseudonym("wrenn"), key.pseudonym("wren"));
        assert_ne!(
            key.pseudonym("wrenn"),
            IdentifierKey::new(&[2; 16]).unwrap().pseudonym("wrenn")
        );
        assert_eq!(key.pseudonym("wrenn").len(), "hmac:".len() + 16);
        assert!(IdentifierKey::new(&[1; 15]).is_none());
        assert!(!format!("{key:?}").contains('1'));
    }
}
