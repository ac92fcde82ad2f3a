//! The body of a request, which is asked for at the last moment at which nothing is sent yet.
//!
//! A request can wait unseen between the decision to send it and its sending: for a connection,
//! or because the process was stopped in between. The head is handed to the network together
//! with the first piece of the body; if there is none because the request is no longer wanted,
//! no endpoint gets to see a whole request.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::{
    guard::{Refusal, Wanted},
    marks::Marks,
};

/// See the module.
pub(crate) struct LastMoment {
    bytes: Option<Bytes>,
    wanted: Wanted,
    marks: Marks,
}

impl LastMoment {
    /// Makes the body of a request that is sent only if it is wanted then.
    pub(crate) fn new(bytes: Bytes, wanted: Wanted, marks: Marks) -> Self {
        Self { bytes: Some(bytes), wanted, marks }
    }
}

impl Body for LastMoment {
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if (self.wanted)() {
            self.marks.sent();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.marks.withdraw();
        Poll::Ready(Some(Err(Refusal::Withdrawn)))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
