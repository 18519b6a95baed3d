//! Style and icon: compiled in, named by their hash, kept by the browser for ever.

use super::Fault;
use axum::{
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// Name, kind and bytes of each. The number in a name is changed with the file.
const ASSETS: [(&str, &str, &[u8]); 3] = [
    ("style-2.css", "text/css; charset=utf-8", include_bytes!("html/style.css")),
    ("map-1.css", "text/css; charset=utf-8", crate::map::STYLE.as_bytes()),
    ("icon-1.svg", "image/svg+xml", include_bytes!("html/icon.svg")),
];

pub(super) async fn asset(Path(file): Path<String>) -> Result<Response, Fault> {
    let found = ASSETS.iter().find(|(name, ..)| *name == file);
    let (_, kind, bytes) = found.ok_or(Fault::Missing)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((headers, *bytes).into_response())
}
