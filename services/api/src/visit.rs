//! What goes with a request from its head to its answer: when it began, and the memory that its
//! body takes.

use std::sync::{Arc, OnceLock};

use axum::http::Extensions;
use tokio::time::{Duration, Instant};

use crate::{
    app::{App, REQUEST_TIMEOUT},
    error::ApiError,
    routes::endpoints::{sample, validate},
    shares::{Holder, Share},
};

/// How many bytes the bodies of all requests may have together.
pub(crate) const BODIES_BYTES_MAX: usize = 128 << 20;
/// How many those about one tenant may have: a quarter.
pub(crate) const BODIES_BYTES_EACH_MAX: u32 = 32 << 20;
/// How long a request waits until there is room for its body.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// How long a request to a route may take, its body included.
pub(crate) fn time_for(route: Option<&str>) -> Duration {
    match route {
        Some(sample::PATH | validate::PATH) => sample::REQUEST_TIMEOUT,
        Some(_) | None => REQUEST_TIMEOUT,
    }
}

/// What goes with a request. Clones share the room.
#[derive(Clone)]
pub(crate) struct Visit {
    /// When its head was there.
    pub(crate) began: Instant,
    /// When there must be an answer.
    pub(crate) until: Instant,
    room: Arc<OnceLock<Share>>,
}

impl Visit {
    /// Begins with a request, which may take that long.
    pub(crate) fn begin(time: Duration) -> Self {
        let began = Instant::now();
        Self { began, until: began + time, room: Arc::default() }
    }

    /// Returns what goes with the request that these belong to.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self::begin(REQUEST_TIMEOUT))
    }

    /// Waits for room for a body of up to so many bytes, before it is read. What was made room for
    /// stays until the request is answered.
    pub(crate) async fn make_room(
        &self,
        app: &App,
        extensions: &Extensions,
        bytes: usize,
    ) -> Result<(), ApiError> {
        if bytes == 0 || self.room.get().is_some() {
            return Ok(());
        }
        let holder = extensions.get::<Holder>().unwrap_or(&Holder::Operator);
        let share = app.bodies.take(holder, bytes, Instant::now() + ROOM_WAIT).await?;
        // There is one body, so nobody else has set it.
        drop(self.room.set(share));
        Ok(())
    }
}
