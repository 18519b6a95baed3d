//! The leaf of an event in its source's Merkle tree: the hash of the row as the audit database holds it.
//!
//! # Why the payload is written anew
//! Whoever verifies reads the row back, and `jsonb` does not give the text that it was given: it sorts keys, drops all but the last of a key that comes twice, writes numbers out and puts its own spaces. So the leaf is taken of what PostgreSQL will print, which is told here from the text that it is given, without asking. `portal_audit.leaf` in `sql/proof.sql` is the same function over the stored row.

use crate::event::Event;
use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// Bytes of a leaf: SHA-256.
pub const LEAF_BYTES: usize = 32;

/// Digits before the point that a `numeric` holds (manual, table 8.2), with what the rest of a group of four may add.
const INTEGER_DIGITS_MAX: i64 = 131_076;
/// Digits behind it.
const FRACTION_DIGITS_MAX: i64 = 16_383;

/// The leaf of an event whose payload is the text of the stored `jsonb`, as [`Payloads::push`] gives it or the audit database prints it.
///
/// SHA-256 over a zero byte (RFC 6962, section 2.1), the salt, and each column in the table's order as its length in four bytes and its bytes, as in COPY's binary format; NULL has length -1.
#[must_use]
pub fn leaf(salt: &[u8; SALT_BYTES], event: &Event<'_>) -> [u8; LEAF_BYTES] {
    let mut hash = Sha256::new_with_prefix([0]);
    hash.update(salt);
    put(&mut hash, event.event_uuid.as_bytes());
    put(&mut hash, &event.timestamp.0.to_be_bytes());
    for text in [event.event_type, event.caller, event.subject, event.subject_type] {
        put(&mut hash, text.as_bytes());
    }
    put_nullable(&mut hash, event.target);
    put(&mut hash, &[u8::from(event.success)]);
    put_nullable(&mut hash, event.error_message);
    put(&mut hash, event.payload.as_bytes());
    hash.finalize().into()
}

fn put(hash: &mut Sha256, bytes: &[u8]) {
    // No column holds more than a gigabyte.
    hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(bytes);
}

fn put_nullable(hash: &mut Sha256, text: Option<&str>) {
    match text {
        Some(text) => put(hash, text.as_bytes()),
        None => hash.update((-1_i32).to_be_bytes()),
    }
}

/// An object or a list that is not closed yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    is_object: bool,
    /// Where its first member begins in the output.
    start: usize,
    /// Its first member among all that are open.
    members: usize,
}

/// A key and its value, as written to the output.
#[derive(Debug, Clone)]
struct Member {
    start: usize,
    end: usize,
    /// The characters that the key means: in `decoded` if it has an escape, else in the output.
    key: Range<usize>,
    is_decoded: bool,
}

/// Writes JSON texts as PostgreSQL prints them once they are `jsonb`. It keeps its buffers, so that a payload costs no allocation of its own, and nests on them, not on the stack.
#[derive(Debug, Default)]
pub struct Payloads {
    open: Vec<Open>,
    members: Vec<Member>,
    decoded: String,
    sorted: String,
}

impl Payloads {
    /// Appends what a column of type `jsonb` that is given `text` is read back as. Of a text that PostgreSQL refuses no row comes to be, and what is appended then means nothing.
    ///
    /// Source: `jsonb_in`, `JsonbToCString`, `lengthCompareJsonbString`, `escape_json` and `numeric_out` of PostgreSQL 14 to 18.
    pub fn push(&mut self, text: &str, out: &mut String) {
        self.open.clear();
        self.members.clear();
        self.decoded.clear();
        let mut rest = text;
        // The next string is a key.
        let mut before_key = false;
        while let Some(first) = rest.bytes().next() {
            rest = match first {
                b'"' if before_key => {
                    before_key = false;
                    self.push_key(rest, out)
                }
                b'"' => push_string(rest, out, None).0,
                b'{' | b'[' => {
                    before_key = first == b'{';
                    out.push(char::from(first));
                    let (start, members) = (out.len(), self.members.len());
                    self.open.push(Open { is_object: before_key, start, members });
                    behind(rest, 1)
                }
                b'}' | b']' => {
                    before_key = false;
                    self.close(out);
                    out.push(char::from(first));
                    behind(rest, 1)
                }
                b',' => {
                    before_key = self.open.last().is_some_and(|open| open.is_object);
                    self.end_member(out);
                    out.push_str(", ");
                    behind(rest, 1)
                }
                b':' => {
                    out.push_str(": ");
                    behind(rest, 1)
                }
                b' ' | b'\t' | b'\n' | b'\r' => behind(rest, 1),
                _ => {
                    let ends = |byte: u8| b",]} \t\n\r\"{[:".contains(&byte);
                    let end = rest.bytes().position(ends).unwrap_or(rest.len());
                    push_scalar(rest.get(..end).unwrap_or_default(), out);
                    behind(rest, end)
                }
            };
        }
    }

    fn push_key<'a>(&mut self, text: &'a str, out: &mut String) -> &'a str {
        let (start, decoded) = (out.len(), self.decoded.len());
        let (rest, has_escape) = push_string(text, out, Some(&mut self.decoded));
        let key = if has_escape {
            decoded..self.decoded.len()
        } else {
            self.decoded.truncate(decoded);
            start + 1..out.len() - 1
        };
        self.members.push(Member { start, end: start, key, is_decoded: has_escape });
        rest
    }

    fn end_member(&mut self, out: &str) {
        if let Some(open) = self.open.last().filter(|open| open.is_object)
            && let Some(last) = self.members.get_mut(open.members..).and_then(<[_]>::last_mut)
        {
            last.end = out.len();
        }
    }

    /// Puts the members of an object that ends into their order: by the length of the key in bytes, then by its bytes; of one key the last.
    fn close(&mut self, out: &mut String) {
        self.end_member(out);
        let Some(open) = self.open.pop() else { return };
        let Self { members, decoded, sorted, .. } = self;
        let own = members.get_mut(open.members..).unwrap_or_default();
        let key = |member: &Member| {
            let text = if member.is_decoded { decoded.as_str() } else { out.as_str() };
            text.as_bytes().get(member.key.clone()).unwrap_or_default()
        };
        let order = |one: &Member, other: &Member| {
            let (one, other) = (key(one), key(other));
            one.len().cmp(&other.len()).then_with(|| one.cmp(other))
        };
        if !own.is_sorted_by(|one, next| order(one, next).is_lt()) {
            own.sort_unstable_by(|one, other| {
                order(one, other).then_with(|| one.start.cmp(&other.start))
            });
            sorted.clear();
            for (place, member) in own.iter().enumerate() {
                if own.get(place + 1).is_some_and(|next| order(member, next).is_eq()) {
                    continue;
                }
                sorted.push_str(if sorted.is_empty() { "" } else { ", " });
                sorted.push_str(out.get(member.start..member.end).unwrap_or_default());
            }
            out.truncate(open.start);
            out.push_str(sorted);
        }
        members.truncate(open.members);
    }
}

/// The text without its first bytes.
fn behind(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

/// Appends the string that `text` begins with, and the characters that it means to `decoded`; gives what comes behind it, and whether it has an escape.
fn push_string<'a>(
    text: &'a str,
    out: &mut String,
    mut decoded: Option<&mut String>,
) -> (&'a str, bool) {
    let mut has_escape = false;
    let mut rest = behind(text, 1);
    out.push('"');
    loop {
        let plain = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
        let (run, after) = rest.split_at_checked(plain.unwrap_or(rest.len())).unwrap_or_default();
        out.push_str(run);
        if let Some(decoded) = decoded.as_deref_mut() {
            decoded.push_str(run);
        }
        if !after.starts_with('\\') {
            out.push('"');
            return (behind(after, 1), has_escape);
        }
        has_escape = true;
        let (letter, behind_it) = unescape(after);
        rest = behind_it;
        push_character(out, letter);
        if let Some(decoded) = decoded.as_deref_mut() {
            decoded.push(letter);
        }
    }
}

/// The character that an escape stands for, and what comes behind it.
fn unescape(text: &str) -> (char, &str) {
    let letter = match text.as_bytes().get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let first = unit(text, 2);
            // Half of a pair alone is refused by PostgreSQL.
            if (0xD800..0xDC00).contains(&first) {
                let second = unit(text, 8);
                let code =
                    0x10000 + ((first - 0xD800) << 10) + (second.wrapping_sub(0xDC00) & 0x3FF);
                return (char::from_u32(code).unwrap_or_default(), behind(text, 12));
            }
            return (char::from_u32(first).unwrap_or_default(), behind(text, 6));
        }
        _ => {
            // `"`, `\` and `/` stand for themselves.
            let mut letters = behind(text, 1).chars();
            return (letters.next().unwrap_or_default(), letters.as_str());
        }
    };
    (letter, behind(text, 2))
}

/// Four hexadecimal digits.
fn unit(text: &str, start: usize) -> u32 {
    text.get(start..start + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// A character that was written as an escape, as `escape_json` writes it.
fn push_character(out: &mut String, letter: char) {
    match letter {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..' ' => {
            crate::event::push_formatted(out, format_args!("\\u{:04x}", u32::from(letter)));
        }
        _ => out.push(letter),
    }
}

/// A number, `true`, `false` or `null`.
fn push_scalar(text: &str, out: &mut String) {
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let is_plain = !text.starts_with('-') && !text.contains(['e', 'E']);
    if !is_number || is_plain {
        out.push_str(text);
    } else {
        push_number(text, out);
    }
}

/// Appends a number as `numeric` prints it: without an exponent, zero without a sign, and with as many digits behind the point as were written there, moved by the exponent.
fn push_number(text: &str, out: &mut String) {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    // An exponent that is no such number is refused, or stands at a zero with nothing behind its point.
    let exponent = exponent.parse::<i64>().unwrap_or(INTEGER_DIGITS_MAX).clamp(-1 << 40, 1 << 40);
    let scale = (length(fraction) - exponent).max(0);
    let is_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let point = length(integer) + exponent;
    if scale > FRACTION_DIGITS_MAX || (!is_zero && point > INTEGER_DIGITS_MAX) {
        // Refused.
        return out.push_str(text);
    }
    let digit = |place: i64| {
        let place = usize::try_from(place).ok();
        let at = |place: usize| {
            let behind = place.checked_sub(integer.len());
            behind.map_or(integer.as_bytes().get(place), |place| fraction.as_bytes().get(place))
        };
        place.and_then(at).map_or('0', |byte| char::from(*byte))
    };
    out.push_str(if is_zero { "" } else { sign });
    let leading = (0..point).find(|place| digit(*place) != '0').filter(|_| !is_zero);
    match leading {
        Some(first) => out.extend((first..point).map(digit)),
        None => out.push('0'),
    }
    if scale > 0 {
        out.push('.');
        out.extend((point..point + scale).map(digit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn stored(text: &str) -> String {
        let mut out = String::new();
        Payloads::default().push(text, &mut out);
        out
    }

    #[test]
    fn a_payload_is_written_as_the_server_prints_it() {
        for (given, expected) in [
            (" { } ", "{}"),
            ("[]", "[]"),
            (r#"{"b":1,"a":[1,{"y":2,"x":null}]}"#, r#"{"a": [1, {"x": null, "y": 2}], "b": 1}"#),
            (r#"{"bb":1,"a":2,"c":3,"a":{"z":true}}"#, r#"{"a": {"z": true}, "c": 3, "bb": 1}"#),
            (r#"{"\u00e4":1,"zz":2,"zzz":3}"#, r#"{"zz": 2, "ä": 1, "zzz": 3}"#),
            (r#"{"\u0061":1,"a":2}"#, r#"{"a": 2}"#),
            (r#""\/\u002f\u0022\u001F\uD83D\uDE00\b\u007f""#, "\"//\\\"\\u001f😀\\b\u{7f}\""),
            (
                "[-0, -0.0, 1.0, 1e2, 1.50e1, 1E-7, 12.5e-1, 0e5, 0e-3, -1e-2, 0.0012e3, 1e+2]",
                "[0, 0.0, 1.0, 100, 15.0, 0.0000001, 1.25, 0, 0.000, -0.01, 1.2, 100]",
            ),
            (
                "[0e99999999999999999999, 123456789012345678901234567890.10]",
                "[0, 123456789012345678901234567890.10]",
            ),
        ] {
            assert_eq!(stored(given), expected);
        }
    }

    /// Nothing of it is kept on the stack.
    #[test]
    fn nesting_has_no_limit_of_ours() {
        let text = format!("{}1{}", "[{\"a\":".repeat(200_000), "}]".repeat(200_000));
        assert_eq!(stored(&text), text.replace(':', ": "));
    }

    /// The recipe is a promise to every leaf that was ever sealed: this value must never change.
    #[test]
    fn leaves_are_pinned() {
        let event = Event {
            event_uuid: Uuid::from_u128(7),
            timestamp: Timestamp(-1),
            event_type: "user_created",
            caller: "",
            subject: "ä",
            subject_type: "user",
            target: None,
            success: true,
            error_message: Some(""),
            payload: "{}",
        };
        let hex: String = leaf(&[9; 16], &event).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "85a8ad2aa448844d4782e1cac63dea628c8a71d71ee05d094a4d327838960a89");
    }

    proptest! {
        #[test]
        fn garbage_is_passed_over(text in "[\\[\\]{}\",:\\\\u0-9a-fE.+ä-]{0,60}") {
            let mut out = String::new();
            let mut payloads = Payloads::default();
            payloads.push(&text, &mut out);
            // What is left of it does no harm to the next one.
            out.clear();
            payloads.push(r#"{"b":1,"a":2}"#, &mut out);
            prop_assert_eq!(out, r#"{"a": 2, "b": 1}"#);
        }

        #[test]
        fn what_is_stored_stays_as_it_is(numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?", 0..5)) {
            let once = stored(&format!("{{\"n\":[{}]}}", numbers.join(",")));
            prop_assert_eq!(stored(&once), once);
        }
    }
}
