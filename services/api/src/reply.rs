//! Answers that carry the version of what they show.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::etag;

/// A thing, with its version as `ETag`.
pub(crate) struct Tagged<T> {
    /// Its version.
    pub(crate) revision: u64,
    /// The thing.
    pub(crate) body: T,
}

/// A thing that was created, with its version, and its own address as `Location`.
pub(crate) struct Created<T> {
    /// The path of the thing.
    pub(crate) location: String,
    /// The thing.
    pub(crate) tagged: Tagged<T>,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let etag = [(header::ETAG, etag::tag(self.revision))];
        (etag, Json(self.body)).into_response()
    }
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::CREATED, self.tagged).into_response();
        if let Ok(location) = HeaderValue::from_str(&self.location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}
