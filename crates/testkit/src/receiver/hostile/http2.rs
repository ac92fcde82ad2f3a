//! Tricks of `HTTP/2`: floods, windows, and frames that must not be.

use bytes::Bytes;

use super::{
    super::Certificate,
    Cover, Step, Trick,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE,
        RST_STREAM, SETTINGS, STATUS_200, WINDOW_UPDATE, frame, header, long_header, settings,
    },
};

/// What every request of ours has in its body: with it, the stream is there.
const BODY: &[u8] = b"\"timestamp\"";
/// The stream of the first request.
const FIRST: u32 = 1;
/// Error codes.
const NO_ERROR: [u8; 4] = [0, 0, 0, 0];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

/// Once the request is there, and the connection was greeted as it should be, it does this.
fn inside<const N: usize>(name: &'static str, what: &'static str, steps: [Step; N]) -> Trick {
    let greeting = [Step::Say(settings(&[])), Step::Await(BODY)];
    let script = greeting.into_iter().chain(steps).collect();
    Trick { name, what, cover: Cover::Http2(Certificate::Valid), script }
}

/// It writes these frames, and waits.
fn writes(name: &'static str, what: &'static str, frames: &[Bytes]) -> Trick {
    inside(name, what, [Step::Say(frames.concat().into()), Step::Drain])
}

/// It writes this again and again.
fn floods(name: &'static str, what: &'static str, frame: Bytes) -> Trick {
    inside(name, what, [Step::Flood(frame)])
}

fn status() -> Bytes {
    frame(HEADERS, END_HEADERS, FIRST, STATUS_200)
}

pub(super) fn tricks() -> Vec<Trick> {
    let mut all = floods_of_frames();
    all.extend(endings());
    all.extend(wrong_windows());
    all.extend(frames_out_of_place());
    all.extend(wrong_headers());
    all
}

fn floods_of_frames() -> Vec<Trick> {
    let empty_data = frame(DATA, 0, FIRST, &[]);
    let piece = frame(CONTINUATION, 0, FIRST, &header("x-a", &"a".repeat(100)));
    let early = frame(HEADERS, END_HEADERS, FIRST, &header(":status", "103"));
    vec![
        inside("h2-silence", "takes the request over HTTP/2 and never answers", [Step::Drain]),
        floods("h2-settings", "sends settings without end", settings(&[(3, 100)])),
        floods("h2-pings", "sends pings without end", frame(PING, 0, 0, &[0; 8])),
        floods(
            "h2-resets",
            "resets streams that there are not, without end",
            frame(RST_STREAM, 0, 3, &NO_ERROR),
        ),
        floods(
            "h2-windows",
            "enlarges a window by one, without end",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        floods(
            "h2-unknown-frames",
            "sends frames of an unknown type without end",
            frame(0xbe, 0, 0, b"abc"),
        ),
        floods(
            "h2-goaways",
            "says goodbye without end and stays",
            frame(GOAWAY, 0, 0, &[[0x7f, 0xff, 0xff, 0xff], NO_ERROR].concat()),
        ),
        inside("h2-early-hints", "sends 103 Early Hints without end", [Step::Flood(early)]),
        inside(
            "h2-continuations",
            "sends headers in pieces without end",
            [Step::Say(frame(HEADERS, 0, FIRST, STATUS_200)), Step::Flood(piece)],
        ),
        inside(
            "h2-empty-continuations",
            "sends empty pieces of headers without end",
            [
                Step::Say(frame(HEADERS, 0, FIRST, STATUS_200)),
                Step::Flood(frame(CONTINUATION, 0, FIRST, &[])),
            ],
        ),
        inside(
            "h2-endless-body",
            "sends a body without end, whatever the windows say",
            [Step::Say(status()), Step::Flood(frame(DATA, 0, FIRST, &[b'a'; 1 << 10]))],
        ),
        inside(
            "h2-empty-data",
            "sends pieces of a body with nothing in them, without end",
            [Step::Say(status()), Step::Flood(empty_data)],
        ),
        inside(
            "h2-slow-body",
            "sends a body of one byte at a time",
            [Step::Say(status()), Step::Drip(frame(DATA, 0, FIRST, b"a"))],
        ),
        inside(
            "h2-slow-head",
            "sends the frame of the head a byte at a time",
            [
                Step::Say(frame(HEADERS, 0, FIRST, STATUS_200)),
                Step::Drip(frame(CONTINUATION, 0, FIRST, &header("x-a", "b"))),
            ],
        ),
    ]
}

fn endings() -> Vec<Trick> {
    let goodbye =
        |last: u32, code: [u8; 4]| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code].concat());
    vec![
        writes(
            "h2-reset-refused",
            "refuses the stream",
            &[frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 7])],
        ),
        writes(
            "h2-reset-calm",
            "resets the stream and asks for calm",
            &[frame(RST_STREAM, 0, FIRST, &ENHANCE_YOUR_CALM)],
        ),
        writes(
            "h2-reset-of-1-1",
            "resets the stream because it wants HTTP/1.1",
            &[frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 13])],
        ),
        writes(
            "h2-reset-in-body",
            "resets the stream in the middle of the body",
            &[status(), frame(DATA, 0, FIRST, b"abc"), frame(RST_STREAM, 0, FIRST, &[0, 0, 0, 2])],
        ),
        inside(
            "h2-goodbye",
            "says goodbye without having seen the request, and closes",
            [Step::Say(goodbye(0, NO_ERROR))],
        ),
        inside(
            "h2-goodbye-calm",
            "says goodbye, asks for calm, and closes",
            [Step::Say(goodbye(0, ENHANCE_YOUR_CALM))],
        ),
        inside("h2-close", "takes the request over HTTP/2 and closes", []),
        inside(
            "h2-reset",
            "takes the request over HTTP/2 and resets the connection",
            [Step::Reset],
        ),
        Trick {
            name: "h2-not-spoken",
            what: "offers HTTP/2 and answers in HTTP/1.1",
            cover: Cover::Http2(Certificate::Valid),
            script: vec![
                Step::Hear,
                Step::Say(Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")),
            ],
        },
    ]
}

fn wrong_windows() -> Vec<Trick> {
    let updated = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        writes("h2-window-zero", "enlarges a window by nothing", &[updated(0, 0)]),
        writes(
            "h2-window-overflow",
            "enlarges a window beyond its limit",
            &[updated(0, 0x7fff_ffff), updated(0, 0x7fff_ffff)],
        ),
        writes(
            "h2-window-too-large",
            "wants windows beyond their limit",
            &[settings(&[(4, 0xffff_ffff)])],
        ),
        writes(
            "h2-frame-too-large",
            "announces a frame of 16 MiB",
            &[Bytes::from_static(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])],
        ),
    ]
}

fn frames_out_of_place() -> Vec<Trick> {
    vec![
        writes(
            "h2-data-before-head",
            "sends a body before its head",
            &[frame(DATA, END_STREAM, FIRST, b"abc")],
        ),
        writes(
            "h2-data-of-nobody",
            "sends a body of a stream that there is not",
            &[frame(DATA, 0, 7, b"abc")],
        ),
        writes(
            "h2-push",
            "pushes what nobody asked for",
            &[frame(PUSH_PROMISE, END_HEADERS, FIRST, &[&[0, 0, 0, 2], STATUS_200].concat())],
        ),
        writes(
            "h2-settings-with-stream",
            "sends settings for a stream",
            &[frame(SETTINGS, 0, FIRST, &[])],
        ),
        writes(
            "h2-settings-of-five-bytes",
            "sends settings that are cut short",
            &[frame(SETTINGS, 0, 0, &[0; 5])],
        ),
        writes(
            "h2-ping-of-seven-bytes",
            "sends a ping that is cut short",
            &[frame(PING, 0, 0, &[0; 7])],
        ),
        writes(
            "h2-continuation-of-nothing",
            "goes on with headers that were not begun",
            &[frame(CONTINUATION, END_HEADERS, FIRST, STATUS_200)],
        ),
        writes(
            "h2-headers-interrupted",
            "sends another frame between pieces of headers",
            &[frame(HEADERS, 0, FIRST, STATUS_200), frame(PING, 0, 0, &[0; 8])],
        ),
    ]
}

fn wrong_headers() -> Vec<Trick> {
    let bomb = [long_header("x", 4_000), vec![0xbe; 12 << 10]].concat();
    vec![
        writes(
            "h2-bad-compression",
            "sends headers that cannot be decompressed",
            &[frame(HEADERS, END_HEADERS, FIRST, &[0xff; 16])],
        ),
        writes(
            "h2-compression-bomb",
            "sends headers of some kilobytes that would be fifty megabytes",
            &[frame(HEADERS, END_HEADERS | END_STREAM, FIRST, &[STATUS_200, &bomb].concat())],
        ),
        writes(
            "h2-no-status",
            "sends a head without a status",
            &[frame(HEADERS, END_HEADERS | END_STREAM, FIRST, &header("x-a", "b"))],
        ),
        writes(
            "h2-upper-case",
            "sends a header's name in upper case",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                FIRST,
                &[STATUS_200, &header("X-A", "b")].concat(),
            )],
        ),
        writes(
            "h2-connection-header",
            "sends a header of HTTP/1.1's connections",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                FIRST,
                &[STATUS_200, &header("connection", "close")].concat(),
            )],
        ),
        writes(
            "h2-line-end-in-header",
            "sends a header with a line's end",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                FIRST,
                &[STATUS_200, &header("x-a", "b\r\nx-c: d")].concat(),
            )],
        ),
        writes(
            "h2-length-too-short",
            "sends more than the length that it announced",
            &[
                frame(
                    HEADERS,
                    END_HEADERS,
                    FIRST,
                    &[STATUS_200, &header("content-length", "1")].concat(),
                ),
                frame(DATA, END_STREAM, FIRST, b"abc"),
            ],
        ),
    ]
}
