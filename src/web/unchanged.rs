//! Answers that a client may keep for a while, and that are not sent again to one who has them (RFC 9110, section 13.1.2; RFC 9111).

use super::{Fault, Visitor};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use lru::LruCache;
use sha2::{Digest as _, Sha256};
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a feed is kept, here and by its readers. Who asks more often costs no query.
pub(super) const FEED_KEPT: Duration = Duration::from_secs(30);
/// Feeds that are kept: two for each of so many viewers.
const FEEDS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// A text and the name of its content.
#[derive(Debug)]
pub(super) struct Text {
    kind: &'static str,
    text: String,
    tag: String,
}

impl Text {
    pub(super) fn new(kind: &'static str, text: String) -> Self {
        let hash = Sha256::digest(&text);
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // Weak: it may be compressed on its way.
        Self { kind, text, tag: format!("W/\"{hash}\"") }
    }

    /// The text, or that it has not changed. Caches keep it for the one who asked alone.
    pub(super) fn answer(&self, asked: &HeaderMap, kept: Duration) -> Response {
        let mut response = if self.is_had(asked) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let kind = HeaderValue::from_static(self.kind);
            ([(header::CONTENT_TYPE, kind)], self.text.clone()).into_response()
        };
        let headers = response.headers_mut();
        let age = format!("private, max-age={}", kept.as_secs());
        for (name, value) in [(header::CACHE_CONTROL, &age), (header::ETAG, &self.tag)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers.append(header::VARY, HeaderValue::from_static("authorization, cookie"));
        response
    }

    fn is_had(&self, asked: &HeaderMap) -> bool {
        let lists = asked.get_all(header::IF_NONE_MATCH).iter();
        let tags = lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
        let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = plain(&self.tag);
        tags.map(plain).any(|tag| tag == "*" || tag == own)
    }
}

/// For whom a feed is, and what it is.
type Key = (String, bool, &'static str);

/// Feeds that were read lately, each for one viewer: who sees more must not be seen through by who sees less.
#[derive(Debug)]
pub(super) struct Feeds(Mutex<LruCache<Key, (Instant, Arc<Text>)>>);

impl Default for Feeds {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(FEEDS_MAX)))
    }
}

impl Feeds {
    fn find(&self, key: &Key, now: Instant) -> Option<Arc<Text>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, text) = all.get(key)?;
        (now.duration_since(*at) < FEED_KEPT).then(|| Arc::clone(text))
    }

    fn keep(&self, key: Key, now: Instant, text: &Arc<Text>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.put(key, (now, Arc::clone(text)));
    }

    /// The feed of that name for a visitor, made by `make` unless it was made lately.
    pub(super) async fn of(
        &self,
        visitor: &Visitor,
        name: &'static str,
        make: impl Future<Output = Result<Text, Fault>>,
    ) -> Result<Arc<Text>, Fault> {
        let key = (visitor.name.clone(), visitor.sees_all, name);
        if let Some(text) = self.find(&key, Instant::now()) {
            return Ok(text);
        }
        let text = Arc::new(make.await?);
        self.keep(key, Instant::now(), &text);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_grows_old_and_is_for_one_viewer() {
        let (feeds, now) = (Feeds::default(), Instant::now());
        let key = |name: &str, sees_all| (name.to_owned(), sees_all, "atom");
        feeds.keep(key("ada", false), now, &Arc::new(Text::new("text/plain", "x".into())));
        assert!(feeds.find(&key("ada", false), now).is_some());
        for other in [key("bo", false), key("ada", true), ("ada".to_owned(), false, "json")] {
            assert!(feeds.find(&other, now).is_none(), "{other:?}");
        }
        assert!(feeds.find(&key("ada", false), now + FEED_KEPT).is_none());
    }

    #[test]
    fn who_has_it_is_told_so() {
        let text = Text::new("text/plain", "x".into());
        let status = |tags: &[&str]| {
            let mut headers = HeaderMap::new();
            for tag in tags {
                headers.append(header::IF_NONE_MATCH, tag.parse().unwrap());
            }
            text.answer(&headers, FEED_KEPT).status().as_u16()
        };
        let strong = text.tag.trim_start_matches("W/");
        for had in [&[text.tag.as_str()][..], &[strong], &["\"a\"", &text.tag], &["*"]] {
            assert_eq!(status(had), 304, "{had:?}");
        }
        assert_eq!(status(&[&format!("\"a\", {strong}")]), 304);
        for other in [&[][..], &["\"a\""], &["W/\"\""], &["x"]] {
            assert_eq!(status(other), 200, "{other:?}");
        }
    }
}
