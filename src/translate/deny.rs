//! The deny list: names of columns that smell of a secret. No mapping overrides it.

/// Words of a column's name that no mapping may copy into an event, whatever its owner thinks of it.
const DENIED_WORDS: &[&str] = &[
    "apikey",
    "cookie",
    "credential",
    "credentials",
    "csrf",
    "hash",
    "hmac",
    "otp",
    "passwd",
    "password",
    "passphrase",
    "pwd",
    "salt",
    "secret",
    "secrets",
    "signature",
    "token",
    "totp",
    "webauthn",
];
/// The same for words that are harmless alone.
const DENIED_PAIRS: &[(&str, &str)] =
    &[("api", "key"), ("key", "material"), ("private", "key"), ("recovery", "code")];

/// Foreign keys whose name has such a word and that hold an id; these very names and no others.
pub const EXEMPT: &[&str] = &["identity_credential_id", "identity_credential_type_id"];

/// The same as a regular expression of PostgreSQL, for a name of which `in_words` was made; `sql/source.sql` asks the portal's catalog with it.
#[must_use]
pub fn denied_pattern() -> String {
    let pairs = DENIED_PAIRS.iter().map(|(one, two)| format!("{one}[^a-z0-9]{two}"));
    let words: Vec<String> =
        DENIED_WORDS.iter().map(|word| (*word).to_owned()).chain(pairs).collect();
    format!("(^|[^a-z0-9])({})([^a-z0-9]|$)", words.join("|"))
}

/// `tokenHash` as `token_hash`: mappers of objects to tables often leave the capitals.
#[must_use]
pub fn in_words(column: &str) -> String {
    let mut words = String::new();
    let mut was_small = false;
    for letter in column.chars() {
        if letter.is_ascii_uppercase() && was_small {
            words.push('_');
        }
        was_small = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        words.extend(letter.to_lowercase());
    }
    words
}

/// Whether a column's name smells of a secret.
#[must_use]
pub fn is_denied(column: &str) -> bool {
    if EXEMPT.contains(&column) {
        return false;
    }
    let lower = in_words(column);
    let words: Vec<&str> = lower.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    words.iter().any(|word| DENIED_WORDS.contains(word))
        || pairs.into_iter().any(|(one, two)| DENIED_PAIRS.contains(&(one, two)))
}
