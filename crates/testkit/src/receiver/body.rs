//! The bodies of answers: whole, slow, without end, or broken off.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, Sleep, interval, sleep};

use super::wire::Cut;

/// What an endless body repeats.
static FILLER: [u8; 16 << 10] = [b'a'; 16 << 10];
/// How long the first bytes of a broken body get to reach the other side before the reset, which
/// would overtake them.
const HEAD_START: Duration = Duration::from_millis(50);

/// The body of an answer.
pub(super) enum AnswerBody {
    /// The bytes, if they were not sent yet.
    Whole(Option<Bytes>),
    /// One byte at each tick.
    Drip(Interval),
    /// As much as is read.
    Endless,
    /// Some bytes, then a reset.
    Broken { first: Option<Bytes>, pause: Pin<Box<Sleep>>, cut: Arc<Cut> },
}

impl AnswerBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(super) fn drip(every: Duration) -> Self {
        Self::Drip(interval(every))
    }

    pub(super) fn broken(cut: Arc<Cut>) -> Self {
        let first = Some(Bytes::from_static(b"the first bytes"));
        Self::Broken { first, pause: Box::pin(sleep(HEAD_START)), cut }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Drip(ticks) => match ticks.poll_tick(cx) {
                Poll::Ready(_) => Bytes::from_static(b"a"),
                Poll::Pending => return Poll::Pending,
            },
            Self::Endless => Bytes::from_static(&FILLER),
            Self::Broken { first, pause, cut } => match first.take() {
                Some(first) => first,
                None if pause.as_mut().poll(cx).is_ready() => {
                    cut.now();
                    return Poll::Pending;
                }
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Drip(_) | Self::Endless | Self::Broken { .. } => SizeHint::default(),
        }
    }
}
