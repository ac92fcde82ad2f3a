//! Tricks of `HTTP/1.1`.

use bytes::Bytes;

use super::{Cover, Step, Trick};

/// What ends the body of every request of ours: enough to know that it is there.
const REQUEST: &[u8] = b"\r\n\r\n{";
const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn say(text: &str) -> Step {
    Step::Say(Bytes::copy_from_slice(text.as_bytes()))
}

fn flood(text: &str) -> Step {
    Step::Flood(Bytes::copy_from_slice(text.as_bytes()))
}

fn drip(text: &str) -> Step {
    Step::Drip(Bytes::copy_from_slice(text.as_bytes()))
}

/// Once the request is there, it does this.
fn clear<const N: usize>(name: &'static str, what: &'static str, steps: [Step; N]) -> Trick {
    let script = [Step::Await(REQUEST)].into_iter().chain(steps).collect();
    Trick { name, what, cover: Cover::Clear, script }
}

/// It does this whether there is a request or not.
fn at_once<const N: usize>(name: &'static str, what: &'static str, steps: [Step; N]) -> Trick {
    Trick { name, what, cover: Cover::Clear, script: steps.into() }
}

/// It answers with this text, and closes.
fn answers(name: &'static str, what: &'static str, text: &str) -> Trick {
    clear(name, what, [say(text)])
}

pub(super) fn tricks() -> Vec<Trick> {
    let mut all = slow();
    all.extend(endless());
    all.extend(broken_off());
    all.extend(malformed());
    all.extend(wrong_lengths());
    all.extend(misleading());
    all
}

fn slow() -> Vec<Trick> {
    vec![
        clear("silence", "takes the request and never answers", [Step::Drain]),
        at_once("deafness", "never reads and never answers", [Step::Freeze]),
        clear("slow-status", "sends the status line a byte at a time", [drip(OK)]),
        clear(
            "slow-head",
            "sends headers a byte at a time, without end",
            [say(OK), drip("x-slow: a\r\n")],
        ),
        clear(
            "slow-body",
            "sends the body a byte at a time, without end",
            [say("HTTP/1.1 200 OK\r\n\r\n"), drip("a")],
        ),
        clear(
            "slow-announced-body",
            "announces a gibibyte and sends a byte at a time",
            [say("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"), drip("a")],
        ),
        clear(
            "slow-chunks",
            "sends chunks of one byte, slowly, without end",
            [say(CHUNKED), drip("1\r\na\r\n")],
        ),
    ]
}

fn endless() -> Vec<Trick> {
    vec![
        clear(
            "endless-body",
            "sends a body without end",
            [say("HTTP/1.1 200 OK\r\n\r\n"), flood("aaaaaaaaaaaaaaaa")],
        ),
        clear(
            "endless-refusal",
            "refuses with 500 and a body without end",
            [say("HTTP/1.1 500 No\r\n\r\n"), flood("aaaaaaaaaaaaaaaa")],
        ),
        clear(
            "endless-header",
            "sends one header line without end",
            [say("HTTP/1.1 200 OK\r\nx-long: "), flood("aaaaaaaaaaaaaaaa")],
        ),
        clear("endless-headers", "sends header lines without end", [say(OK), flood("x-a: b\r\n")]),
        clear(
            "endless-status-line",
            "sends a reason phrase without end",
            [say("HTTP/1.1 200 "), flood("aaaaaaaaaaaaaaaa")],
        ),
        clear(
            "endless-continues",
            "sends 100 Continue without end",
            [flood("HTTP/1.1 100 Continue\r\n\r\n")],
        ),
        clear(
            "endless-early-hints",
            "sends 103 Early Hints without end",
            [flood("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n")],
        ),
        clear(
            "slow-continues",
            "sends 100 Continue slowly, without end",
            [drip("HTTP/1.1 100 Continue\r\n\r\n")],
        ),
        clear("endless-empty-lines", "sends empty lines in place of an answer", [flood("\r\n")]),
        clear(
            "endless-chunk-extension",
            "sends a chunk with an extension without end",
            [say(&format!("{CHUNKED}1;x=")), flood("aaaaaaaaaaaaaaaa")],
        ),
        clear(
            "endless-chunk-extensions",
            "sends chunks with large extensions without end",
            [say(CHUNKED), flood(&format!("1;x={}\r\na\r\n", "a".repeat(1_000)))],
        ),
        clear(
            "endless-trailers",
            "sends trailers without end",
            [say(&format!("{CHUNKED}0\r\n")), flood("x-a: b\r\n")],
        ),
        clear(
            "endless-zeros-of-a-chunk",
            "sends the size of a chunk with zeros without end",
            [say(CHUNKED), flood("0000000000000000")],
        ),
    ]
}

fn broken_off() -> Vec<Trick> {
    vec![
        at_once("close-at-once", "closes when it is connected to", []),
        at_once("reset-at-once", "resets when it is connected to", [Step::Reset]),
        at_once(
            "reset-in-request",
            "resets when the first bytes have come",
            [Step::Hear, Step::Reset],
        ),
        clear("close-before-head", "takes the request and closes", []),
        clear("reset-before-head", "takes the request and resets", [Step::Reset]),
        clear("close-in-status", "closes in the middle of the status line", [say("HTTP/1.1 2")]),
        clear(
            "close-in-head",
            "closes in the middle of the headers",
            [say("HTTP/1.1 200 OK\r\nx-a")],
        ),
        clear(
            "reset-in-head",
            "resets in the middle of the headers",
            [say("HTTP/1.1 200 OK\r\nx-a"), Step::Reset],
        ),
        clear(
            "close-after-continue",
            "sends 100 Continue and closes",
            [say("HTTP/1.1 100 Continue\r\n\r\n")],
        ),
        clear(
            "close-in-body",
            "closes in the middle of the announced body",
            [say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")],
        ),
        clear(
            "reset-in-body",
            "resets in the middle of the announced body",
            [say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"), Step::Reset],
        ),
        clear(
            "close-in-chunk",
            "closes in the middle of a chunk",
            [say(&format!("{CHUNKED}ff\r\nabc"))],
        ),
        at_once(
            "answer-before-request",
            "answers 200 before there is a request, and closes",
            [say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")],
        ),
    ]
}

fn malformed() -> Vec<Trick> {
    vec![
        answers("not-http", "speaks another protocol", "SSH-2.0-OpenSSH_9.9\r\n"),
        answers("nul-bytes", "answers with NUL bytes", "\0\0\0\0\0\0\0\0\0\0\0\0"),
        answers("http-0-9", "answers as HTTP/0.9 would", "<html>hello</html>"),
        answers("http-2-in-clear", "answers with frames of HTTP/2", "\0\0\0\x04\0\0\0\0\0"),
        answers(
            "http-3-version",
            "answers with a version that there is not",
            "HTTP/3.7 200 OK\r\n\r\n",
        ),
        answers("status-of-two-digits", "answers with the status 20", "HTTP/1.1 20 OK\r\n\r\n"),
        answers("status-of-words", "answers with a status of words", "HTTP/1.1 yes OK\r\n\r\n"),
        answers(
            "header-without-colon",
            "sends a header without a colon",
            "HTTP/1.1 200 OK\r\nabc\r\n\r\n",
        ),
        answers(
            "header-with-nul",
            "sends a header with a NUL byte",
            "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
        ),
        answers(
            "header-name-with-space",
            "sends a header's name with a space",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        ),
        answers(
            "folded-header",
            "sends a header over two lines",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        ),
    ]
}

fn wrong_lengths() -> Vec<Trick> {
    vec![
        answers(
            "two-lengths",
            "sends two lengths that differ",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
        answers(
            "negative-length",
            "sends a negative length",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ),
        answers(
            "huge-length",
            "sends a length of 2^70",
            "HTTP/1.1 200 OK\r\ncontent-length: 1180591620717411303424\r\n\r\n",
        ),
        answers(
            "huge-chunk-size",
            "sends a chunk's size of 2^70",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400000000000000000\r\na\r\n",
        ),
        answers(
            "chunk-size-of-words",
            "sends a chunk's size of words",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nabc xyz\r\n",
        ),
        answers(
            "head-of-a-mebibyte",
            "sends a header of a mebibyte",
            &format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20)),
        ),
        answers(
            "ten-thousand-headers",
            "sends 10,000 headers",
            &format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: b\r\n".repeat(10_000)),
        ),
        answers(
            "head-of-a-hundred-kibibytes",
            "sends 50 headers of 2 KiB each",
            &format!(
                "HTTP/1.1 200 OK\r\n{}\r\n",
                format!("x-a: {}\r\n", "a".repeat(2 << 10)).repeat(50)
            ),
        ),
    ]
}

fn misleading() -> Vec<Trick> {
    let zeros = gzip_of_zeros();
    let bomb = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        zeros.len()
    );
    let bomb = [bomb.into_bytes(), zeros].concat();
    vec![
        clear(
            "gzip-bomb",
            "sends a gzip of ten mebibytes that would be ten gibibytes",
            [Step::Say(bomb.into())],
        ),
        answers(
            "unknown-coding",
            "sends a body in a coding that nobody knows",
            "HTTP/1.1 200 OK\r\ncontent-encoding: zstd, br, x\r\ncontent-length: 3\r\n\r\nabc",
        ),
        answers(
            "length-and-chunks",
            "sends both a length and chunks",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        answers(
            "second-answer",
            "sends a second answer behind the first",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        ),
        answers(
            "switching-protocols",
            "answers 101 Switching Protocols",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
        answers(
            "early-hints",
            "sends 103 Early Hints, then 200",
            "HTTP/1.1 103 Early Hints\r\nlink: <http://127.0.0.2/>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        answers(
            "status-999",
            "answers with the status 999",
            "HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n",
        ),
        answers(
            "bare-line-feeds",
            "ends its lines with line feeds alone",
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        ),
        answers(
            "retry-after-for-ever",
            "asks to be left alone for three hundred years",
            "HTTP/1.1 503 No\r\nretry-after: 9999999999\r\ncontent-length: 0\r\n\r\n",
        ),
        answers(
            "retry-after-negative",
            "asks to be left alone for a negative time",
            "HTTP/1.1 503 No\r\nretry-after: -1\r\ncontent-length: 0\r\n\r\n",
        ),
    ]
}

/// A gzip file of ten mebibytes: after the tables of one block, each two bits of zeros stand for 258
/// zeros more.
fn gzip_of_zeros() -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    file.extend([0xec, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90, 0xfe, 0xaf, 0xee, 8, 0x0a]);
    file.resize(10 << 20, 0);
    file
}
