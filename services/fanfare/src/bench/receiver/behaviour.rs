//! How an endpoint behaves, as its path says.
//!
//! | path                      | answer                                                          |
//! | ------------------------- | --------------------------------------------------------------- |
//! | `/ok/<group>`             | 200 at once                                                     |
//! | `/wait/<ms>/<group>`      | 200 after that long                                             |
//! | `/status/<code>/<group>`  | that status                                                     |
//! | `/never/<group>`          | none; the connection stays open                                 |
//! | `/drip/<group>`           | 200 and a body of a byte a second, without end                  |
//! | `/gate/<group>`           | what the group's gate says: see [`Gate`]                        |
//! | `/due/<µs>/<n>/<group>`   | 425 until the event is due, n steps of that long after `due`    |

use std::{
    convert::Infallible,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{StatusCode, body::Frame};

/// How long until the next byte of a dripping body.
const DRIP: Duration = Duration::from_secs(1);

/// What an endpoint does with a request, and whose count it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub(super) group: String,
    pub(super) kind: Kind,
}

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ok,
    Wait(Duration),
    Status(StatusCode),
    Never,
    Drip,
    Gate,
    /// Later than the time in the event by this much.
    Due(Duration),
}

/// What is done with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Answer(StatusCode),
    AnswerAfter(Duration),
    /// With `Retry-After`, in seconds since the epoch.
    Refuse {
        status: StatusCode,
        retry_at: u64,
    },
    Never,
    Drip,
}

/// What the endpoints of a group do until they are told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// They answer 200 at once.
    #[default]
    Open,
    /// They answer 503, and want to be asked again at that second since the epoch.
    Shut {
        /// When.
        retry_at: u64,
    },
    /// They answer 200 after that long.
    Slow {
        /// How long.
        wait: Duration,
    },
}

impl Behaviour {
    /// Reads a path. One that says nothing answers 200.
    pub(super) fn of(path: &str) -> Self {
        let mut parts = path.split('/').skip(1);
        let mut next = || parts.next().unwrap_or_default();
        let number = |text: &str| text.parse::<u32>().unwrap_or(0);
        let kind = match next() {
            "wait" => Kind::Wait(Duration::from_millis(number(next()).into())),
            "status" => {
                let status = next().parse().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Kind::Status(status)
            }
            "never" => Kind::Never,
            "drip" => Kind::Drip,
            "gate" => Kind::Gate,
            "due" => {
                let step = Duration::from_micros(number(next()).into());
                Kind::Due(step * number(next()))
            }
            _ => Kind::Ok,
        };
        Self { group: next().to_owned(), kind }
    }
}

impl Gate {
    /// What a request to the group gets.
    pub(super) const fn decision(self) -> Decision {
        match self {
            Self::Open => Decision::Answer(StatusCode::OK),
            Self::Shut { retry_at } => {
                Decision::Refuse { status: StatusCode::SERVICE_UNAVAILABLE, retry_at }
            }
            Self::Slow { wait } => Decision::AnswerAfter(wait),
        }
    }
}

/// A body that never ends.
pub(super) fn drip() -> BoxBody<Bytes, Infallible> {
    let bytes = stream::repeat(()).then(|()| async {
        tokio::time::sleep(DRIP).await;
        Ok(Frame::data(Bytes::from_static(b".")))
    });
    BodyExt::boxed(StreamBody::new(bytes))
}

/// A second since the epoch, as HTTP writes it.
pub(super) fn http_date(second: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> (Kind, String) {
        let behaviour = Behaviour::of(path);
        (behaviour.kind, behaviour.group)
    }

    #[test]
    fn the_path_says_what_happens() {
        let wait = Duration::from_millis(50);
        assert_eq!(read("/ok/healthy/3"), (Kind::Ok, String::from("healthy")));
        assert_eq!(read("/wait/50/slow/3"), (Kind::Wait(wait), String::from("slow")));
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(read("/status/500/bad"), (Kind::Status(status), String::from("bad")));
        let later = Duration::from_micros(1_200 * 7);
        assert_eq!(read("/due/1200/7/late"), (Kind::Due(later), String::from("late")));
        assert_eq!(read("/"), (Kind::Ok, String::new()));
    }

    #[test]
    fn dates_are_as_http_writes_them() {
        assert_eq!(http_date(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 GMT");
    }
}
