//! Checkpoints as text: a signed note (C2SP signed-note) whose body is a checkpoint (C2SP tlog-checkpoint), and the keys that sign and verify it, in the one-line form of Go's `sumdb/note`. Ed25519 is ring's.
//!
//! # One note for all trees
//! Lines 1 to 3 are a checkpoint of the tree `.own`: name of the log, size, root. Its extension lines number it and list every tree. A note for each tree would let somebody take one tree back to an older note and leave the others: here all or none is signed.
//!
//! ```text
//! audit.example.org
//! 3
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! checkpoint 17 2026-04-23T20:50:23.000000Z
//! tree 3 CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I= ".own"
//! tree 20852163 sHMVbH8QnnQdIcLFOhFmFmIpOGHcwRCkw3z8UqP8jXE= "portal"
//!
//! — audit.example.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```

use crate::merkle::Hash;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt, fmt::Write as _};

/// Signature type of Ed25519 in a signed note.
const ED25519_TYPE: u8 = 1;
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";
/// In front of each signature line.
const SIGNATURE_MARK: &str = "\u{2014} ";
/// The tree that lines 2 and 3 tell of.
pub const OWN_TREE: &str = ".own";

/// Why a key or a note is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    #[error(
        "not a private key of a signed note: one line PRIVATE+KEY+<name>+<hash>+<key>, as `portal-audit proof key` writes it"
    )]
    PrivateKey,
    #[error(
        "not a public key of a signed note: <name>+<hash>+<key>, as `portal-audit proof key` prints it"
    )]
    PublicKey,
    #[error("the name of a log has no white space and no plus, and is not empty")]
    Name,
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    #[error("the operating system gives no random numbers")]
    Random,
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter == '+')
}

/// The first four bytes of a hash over name and key: tells keys of one name apart.
fn key_hash(name: &str, key: &[u8]) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519_TYPE])
        .chain_update(key)
        .finalize();
    let mut short = [0; 4];
    short.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    short
}

/// A public key: `<name>+<hash>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Of the log.
    pub name: String,
    key: [u8; 32],
}

/// Takes `name+hash+base64(type, 32 bytes)` apart. A base64 text may hold a plus, a name may not.
fn parts(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let mut parts = text.trim().splitn(3, '+');
    let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
    let hash = u32::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 8)?;
    let key = BASE64.decode(key).ok()?;
    let (kind, key) = key.split_first()?;
    (*kind == ED25519_TYPE && is_name(name)).then_some(())?;
    Some((name, hash.to_be_bytes(), key.try_into().ok()?))
}

impl PublicKey {
    /// # Errors
    /// It is not one, or its hash is another key's.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, hash, key) = parts(text).ok_or(NoteError::PublicKey)?;
        (hash == key_hash(name, &key)).then_some(()).ok_or(NoteError::PublicKey)?;
        Ok(Self { name: name.to_owned(), key })
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, name: &str, hash: [u8; 4], key: &[u8; 32]) -> fmt::Result {
    let key: Vec<u8> = [ED25519_TYPE].iter().chain(key).copied().collect();
    write!(f, "{name}+{:08x}+{}", u32::from_be_bytes(hash), BASE64.encode(key))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, &self.name, key_hash(&self.name, &self.key), &self.key)
    }
}

/// A private key, `PRIVATE+KEY+<name>+<hash>+<base64>`. It never prints.
pub struct SigningKey {
    public: PublicKey,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// # Errors
    /// It is not one, or its hash is another key's.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.trim().strip_prefix(PRIVATE_PREFIX).ok_or(NoteError::PrivateKey)?;
        let (name, hash, seed) = parts(text).ok_or(NoteError::PrivateKey)?;
        let key = Self::from_seed(name, &seed)?;
        (hash == key_hash(name, &key.public.key)).then_some(()).ok_or(NoteError::PrivateKey)?;
        Ok(key)
    }

    fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        let pair = pair.map_err(|_rejected| NoteError::PrivateKey)?;
        let key = pair.public_key().as_ref().try_into();
        let key = key.map_err(|_length: std::array::TryFromSliceError| NoteError::PrivateKey)?;
        Ok(Self { public: PublicKey { name: name.to_owned(), key }, pair })
    }

    /// A new key of a log, and the line that a key file holds.
    ///
    /// # Errors
    /// The name is none, or there are no random numbers.
    pub fn generate(name: &str) -> Result<(Self, String), NoteError> {
        struct Line<'a>(&'a PublicKey, [u8; 32]);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PRIVATE_PREFIX)?;
                write_key(f, &self.0.name, key_hash(&self.0.name, &self.0.key), &self.1)
            }
        }
        is_name(name).then_some(()).ok_or(NoteError::Name)?;
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_none| NoteError::Random)?;
        let key = Self::from_seed(name, &seed)?;
        let line = Line(&key.public, seed).to_string();
        Ok((key, line))
    }

    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The note: the body, an empty line, and the signature.
    #[must_use]
    pub fn sign(&self, body: &str) -> String {
        let PublicKey { name, key } = &self.public;
        let mut signature = key_hash(name, key).to_vec();
        signature.extend(self.pair.sign(body.as_bytes()).as_ref());
        format!("{body}\n{SIGNATURE_MARK}{name} {}\n", BASE64.encode(signature))
    }
}

/// Whether one of the keys has signed a note. Signatures of others are passed over, as signed-note asks.
#[must_use]
pub fn is_signed(note: &str, keys: &[PublicKey]) -> bool {
    let Some((body, signatures)) = split(note) else { return false };
    signatures.lines().any(|line| {
        let signature = line.strip_prefix(SIGNATURE_MARK).and_then(|line| line.rsplit_once(' '));
        let Some((name, signature)) = signature else { return false };
        let signature = BASE64.decode(signature).unwrap_or_default();
        let Some((hash, signature)) = signature.split_first_chunk::<4>() else { return false };
        keys.iter().any(|key| {
            key.name == name
                && key_hash(name, &key.key) == *hash
                && UnparsedPublicKey::new(&ED25519, &key.key)
                    .verify(body.as_bytes(), signature)
                    .is_ok()
        })
    })
}

/// A note's body, with the newline at its end, and its signature lines.
fn split(note: &str) -> Option<(&str, &str)> {
    let end = note.rfind("\n\n")?;
    Some((note.get(..=end)?, note.get(end + 2..)?))
}

/// What a note says of all trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: the name of the key that signs.
    pub log: String,
    /// From 1, without gaps.
    pub number: u64,
    /// When it was made, by the audit database's clock; a text, because nothing is computed from it.
    pub at: String,
    /// Size and root of each tree.
    pub trees: BTreeMap<String, (u64, Hash)>,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn body(&self) -> String {
        let root = |hash: &Hash| BASE64.encode(hash);
        let empty = (0, crate::merkle::Frontier::default().root());
        let (size, own) = self.trees.get(OWN_TREE).unwrap_or(&empty);
        let mut body = format!(
            "{}\n{size}\n{}\ncheckpoint {} {}\n",
            self.log,
            root(own),
            self.number,
            self.at
        );
        for (tree, (size, hash)) in &self.trees {
            let name = serde_json::Value::from(tree.as_str());
            writeln!(body, "tree {size} {} {name}", root(hash)).expect("a String takes all");
        }
        body
    }

    /// Leaves of a tree that it covers.
    #[must_use]
    pub fn size_of(&self, tree: &str) -> u64 {
        self.trees.get(tree).map_or(0, |(size, _)| *size)
    }

    /// Reads the body of a note; who signed it is [`is_signed`]'s question.
    ///
    /// # Errors
    /// It is not a checkpoint of this program.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let fault = NoteError::Checkpoint;
        let (body, _) = split(note).ok_or(fault("there is no line of signatures"))?;
        let mut lines = body.lines();
        let log = lines.next().filter(|log| is_name(log)).ok_or(fault("no name of a log"))?;
        let mut rest = lines.skip(2);
        let numbered = rest.next().and_then(|line| line.strip_prefix("checkpoint "));
        let numbered = numbered.and_then(|line| line.split_once(' '));
        let (number, at) = numbered.ok_or(fault("no line `checkpoint`"))?;
        let number = number.parse().ok().ok_or(fault("no number"))?;
        let trees = rest.map(tree_line).collect::<Option<BTreeMap<_, _>>>();
        let trees = trees.ok_or(fault("a line is not that of a tree"))?;
        let checkpoint = Self { log: log.to_owned(), number, at: at.to_owned(), trees };
        // One text for one meaning: what is not written as we write it is not read.
        (checkpoint.body() == body).then_some(checkpoint).ok_or(fault("its lines contradict"))
    }
}

fn tree_line(line: &str) -> Option<(String, (u64, Hash))> {
    let mut words = line.strip_prefix("tree ")?.splitn(3, ' ');
    let size = words.next()?.parse().ok()?;
    let root = BASE64.decode(words.next()?).ok()?.try_into().ok()?;
    Some((serde_json::from_str(words.next()?).ok()?, (size, root)))
}

/// The notes of a file that holds one after the other, as copies are written. A piece that is not a note stands as it is, so that it is told.
#[must_use]
pub fn notes(text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = String::new();
    let mut is_signed = false;
    for line in text.split_inclusive('\n') {
        let is_signature = line.starts_with(SIGNATURE_MARK);
        if is_signed && !is_signature {
            notes.push(std::mem::take(&mut note));
        }
        is_signed = is_signature;
        note.push_str(line);
    }
    notes.push(note);
    notes.retain(|note| !note.trim().is_empty());
    notes
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, PublicKey, SigningKey, is_signed, notes};

    fn checkpoint(number: u64) -> Checkpoint {
        let trees = [(".own", 3, [1; 32]), ("a \"b\"\n", 9, [2; 32])];
        let trees = trees.map(|(tree, size, root)| (tree.to_owned(), (size, root)));
        Checkpoint { log: "log".into(), number, at: "2026".into(), trees: trees.into() }
    }

    /// The note and the key of C2SP's signed-note.
    #[test]
    fn the_example_of_the_specification_is_signed() {
        let key =
            PublicKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
                .unwrap();
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(is_signed(note, std::slice::from_ref(&key)));
        assert!(!is_signed(&note.replace("answer", "question"), std::slice::from_ref(&key)));
        assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written_and_only_so() {
        let (key, line) = SigningKey::generate("log").unwrap();
        let again = SigningKey::parse(&line).unwrap();
        assert_eq!(again.public(), key.public());
        let note = again.sign(&checkpoint(4).body());
        let keys = [key.public().clone()];
        assert!(is_signed(&note, &keys));
        assert_eq!(Checkpoint::parse(&note), Ok(checkpoint(4)));
        assert!(!is_signed(&note.replace("tree 9", "tree 8"), &keys));
        assert!(Checkpoint::parse(&note.replace("log\n3\n", "log\n4\n")).is_err());
        let (other, _) = SigningKey::generate("log").unwrap();
        assert!(!is_signed(&other.sign(&checkpoint(4).body()), &keys));
        // Base64 has a `+` of its own: the secret is all that follows the fourth one.
        let secret = line.trim().splitn(5, '+').nth(4).unwrap();
        assert!(secret.len() > 40 && !format!("{key:?}").contains(secret));
    }

    #[test]
    fn a_file_of_notes_is_taken_apart() {
        let (key, _) = SigningKey::generate("log").unwrap();
        let all: Vec<String> = (1..4).map(|n| key.sign(&checkpoint(n).body())).collect();
        assert_eq!(notes(&all.concat()), all);
        assert_eq!(notes(&all.join("\n")).len(), 3);
        assert!(notes("").is_empty());
    }
}
