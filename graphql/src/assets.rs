//! The dashboard's files, embedded at build time.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};

#[derive(Embed)]
#[folder = "$RINGFENCE_DASHBOARD_DIR"]
struct Dashboard;

/// Vite writes a hash of the content into the names below this folder: what has such a name never changes.
const HASHED: &str = "assets/";

/// A file of the dashboard; `/` is its page.
pub(crate) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some(file) = Dashboard::get(path).filter(|_| !path.contains("..")) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let tag = entity_tag(&file);
    let cache = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let cache = (header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag) {
        return (StatusCode::NOT_MODIFIED, [cache, (header::ETAG, tag)]).into_response();
    }
    let media =
        HeaderValue::from_str(file.metadata.mimetype()).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    ([cache, (header::ETAG, tag), (header::CONTENT_TYPE, media)], file.data).into_response()
}

/// Half of the file's SHA-256, in quotes.
fn entity_tag(file: &EmbeddedFile) -> HeaderValue {
    let hex: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}
