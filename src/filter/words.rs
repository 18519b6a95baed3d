//! The words of a search box: `key:value`, a value with blanks in quotes; a word without a key is a name, wherever it stands.

use super::{Filter, Moment, MomentError, PayloadValue};

/// A search that is not understood. It names words of the search, never a value of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error(
        "unknown word {word}:. There are: actor, type, subject, subject_type, target, user, success, since, until, payload.KEY"
    )]
    Unknown { word: String },
    #[error("{word}: is given twice")]
    Twice { word: &'static str },
    #[error("success: is true or false")]
    Success,
    #[error("{word}: is")]
    Time {
        word: &'static str,
        #[source]
        source: MomentError,
    },
    #[error("a quote is not closed")]
    Quote,
}

pub(super) fn parse(text: &str) -> Result<Filter, WordsError> {
    let mut filter = Filter::default();
    for Word { key, value } in split(text)? {
        let Some(key) = key else {
            filter.user.push(value);
            continue;
        };
        match key.as_str() {
            "actor" | "caller" => filter.caller.push(value),
            "type" => filter.event_type.push(value),
            "subject" => filter.subject.push(value),
            "subject_type" => filter.subject_type.push(value),
            "target" => filter.target.push(value),
            "user" => filter.user.push(value),
            "success" => {
                let success = match value.as_str() {
                    "true" | "yes" => true,
                    "false" | "no" => false,
                    _ => return Err(WordsError::Success),
                };
                once(&mut filter.success, success, "success")?;
            }
            "since" => once(&mut filter.since, moment("since", &value)?, "since")?,
            "until" => once(&mut filter.until, moment("until", &value)?, "until")?,
            _ => match key.strip_prefix("payload.") {
                Some(key) if !key.is_empty() => {
                    filter.payload.push(PayloadValue { key: key.to_owned(), value });
                }
                _ => return Err(WordsError::Unknown { word: key }),
            },
        }
    }
    Ok(filter)
}

fn moment(word: &'static str, value: &str) -> Result<Moment, WordsError> {
    value.parse().map_err(|source| WordsError::Time { word, source })
}

fn once<T>(place: &mut Option<T>, value: T, word: &'static str) -> Result<(), WordsError> {
    if place.replace(value).is_some() { Err(WordsError::Twice { word }) } else { Ok(()) }
}

struct Word {
    key: Option<String>,
    value: String,
}

/// Splits at blanks outside quotes. What stands before the first colon outside quotes is the key; in a quoted text a backslash takes the next letter as it is.
fn split(text: &str) -> Result<Vec<Word>, WordsError> {
    let mut words = Vec::new();
    let (mut key, mut value, mut is_quoted, mut has_quote) = (None, String::new(), false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (is_quoted, has_quote) = (!is_quoted, true),
            '\\' if is_quoted => value.extend(letters.next()),
            ':' if !is_quoted && !has_quote && key.is_none() => {
                key = Some(std::mem::take(&mut value));
            }
            blank if blank.is_whitespace() && !is_quoted => {
                if key.is_some() || has_quote || !value.is_empty() {
                    words.push(Word { key: key.take(), value: std::mem::take(&mut value) });
                }
                has_quote = false;
            }
            other => value.push(other),
        }
    }
    if is_quoted {
        return Err(WordsError::Quote);
    }
    if key.is_some() || has_quote || !value.is_empty() {
        words.push(Word { key, value });
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_say_what_flags_say() {
        let filter = parse(
            r#"actor:glawler type:org_* success:false since:2026-04-23T20:50:00Z payload.role:maintainer maple target:"a b:\"c\"" actor:"""#,
        );
        let filter = filter.unwrap();
        assert_eq!(filter.caller, ["glawler", ""]);
        assert_eq!(filter.event_type, ["org_*"]);
        assert_eq!(filter.success, Some(false));
        assert_eq!(filter.user, ["maple"]);
        assert_eq!(filter.target, [r#"a b:"c""#]);
        assert_eq!(filter.payload, ["role=maintainer".parse().unwrap()]);
        assert_eq!(filter.since.unwrap().to_string(), "2026-04-23T20:50:00Z");
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert_eq!(parse("colour:red"), Err(WordsError::Unknown { word: "colour".into() }));
        assert_eq!(parse("success:maybe"), Err(WordsError::Success));
        assert_eq!(parse("since:1d since:2d"), Err(WordsError::Twice { word: "since" }));
        assert_eq!(
            parse("until:soon"),
            Err(WordsError::Time { word: "until", source: MomentError })
        );
        assert_eq!(parse("actor:\"x"), Err(WordsError::Quote));
        assert_eq!(parse("  "), Ok(Filter::default()));
    }

    proptest! {
        #[test]
        fn any_name_comes_back_from_its_quotes(name in ".*") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let filter = parse(&format!("subject:\"{quoted}\" \"{quoted}\"")).unwrap();
            prop_assert_eq!(&filter.subject, std::slice::from_ref(&name));
            prop_assert_eq!(&filter.user, &[name]);
        }
    }
}
