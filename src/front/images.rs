//! `logo` and `icon` of an integration: for browsers, which have no secret to show.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use super::Front;
use super::error::ApiError;
use crate::images::{Format, Image};
use crate::integrations::Integration;

/// A picture is asked for again after this time, and then mostly answered 304.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");
/// An SVG opened by itself is a document: it may draw, and do nothing else.
const ALONE: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");

pub fn routes() -> Router<Arc<Front>> {
    Router::new()
        .route("/{integration}/logo.png", show(|of| &of.logo, Format::Png))
        .route("/{integration}/logo.svg", show(|of| &of.logo, Format::Svg))
        .route("/{integration}/icon.png", show(|of| &of.icon, Format::Png))
        .route("/{integration}/icon.svg", show(|of| &of.icon, Format::Svg))
}

fn show(pick: fn(&Integration) -> &Image, format: Format) -> MethodRouter<Arc<Front>> {
    get(
        move |State(front): State<Arc<Front>>, Path(name): Path<String>, headers: HeaderMap| async move {
            let integration = front.integrations.get(&name);
            let image = integration.as_deref().map(pick).filter(|image| image.format == format);
            image.map(|image| answer(image, &headers)).ok_or_else(no_image)
        },
    )
}

fn answer(image: &Image, asked: &HeaderMap) -> Response {
    let headers = [
        (header::ETAG, image.etag.clone()),
        (header::CACHE_CONTROL, CACHE),
        (header::CONTENT_SECURITY_POLICY, ALONE),
    ];
    if is_known(image, asked) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let content = [(header::CONTENT_TYPE, image.format.content_type())];
    (headers, content, image.bytes.clone()).into_response()
}

/// `If-None-Match` compares weakly (RFC 9110, 13.1.2): proxies that compress mark the tag as weak.
fn is_known(image: &Image, asked: &HeaderMap) -> bool {
    let lines = asked.get_all(header::IF_NONE_MATCH).into_iter();
    let mut tags = lines.flat_map(|line| line.to_str().unwrap_or_default().split(',').map(str::trim));
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == image.etag.as_bytes())
}

fn no_image() -> ApiError {
    ApiError::not_found("There is no such picture")
}
