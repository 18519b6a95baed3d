//! Files that pages need beside themselves, compiled in. A name holds the hash of its file: another file has another name, so browsers keep them for ever.

use super::Fault;
use axum::{
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// Bytes of the hash in a name.
const HASH_BYTES: usize = 8;

/// A file as it is served.
#[derive(Debug)]
struct Asset {
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(stem: &str, end: &str, kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash = Sha256::digest(bytes);
        let hash: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Self { name: format!("{stem}-{hash}.{end}"), kind, bytes }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("html/style.css"))
});
static MAP: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("map", "css", "text/css; charset=utf-8", crate::map::STYLE.as_bytes())
});
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("html/icon.svg")));

/// The name of the style of all pages, below `/assets/`.
pub(super) fn style() -> &'static str {
    &STYLE.name
}

/// Of the map's.
pub(super) fn map() -> &'static str {
    &MAP.name
}

/// Of the icon.
pub(super) fn icon() -> &'static str {
    &ICON.name
}

pub(super) async fn asset(Path(file): Path<String>) -> Result<Response, Fault> {
    let all: [&'static Asset; 3] = [&STYLE, &MAP, &ICON];
    let asset = all.into_iter().find(|asset| asset.name == file).ok_or(Fault::Missing)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((headers, asset.bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_has_another_name() {
        let name = |bytes| Asset::new("style", "css", "text/css", bytes).name;
        assert_eq!(name(b"a{}"), name(b"a{}"));
        assert_ne!(name(b"a{}"), name(b"a{} "));
        // `printf abc | sha256sum`
        assert_eq!(name(b"abc"), "style-ba7816bf8f01cfea.css");
    }
}
