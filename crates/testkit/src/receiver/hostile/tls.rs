//! Tricks of TLS, and of what comes in its place.

use bytes::Bytes;

use super::{super::Certificate, Cover, Step, Trick};

/// What an honest server answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Inside TLS with a bad certificate, it would answer as it should.
fn shows(name: &'static str, what: &'static str, cover: Cover) -> Trick {
    let script = vec![Step::Hear, Step::Say(Bytes::from_static(ANSWER))];
    Trick { name, what, cover, script }
}

/// In place of a handshake, it does this.
fn bare<const N: usize>(name: &'static str, what: &'static str, steps: [Step; N]) -> Trick {
    let script = [Step::Hear].into_iter().chain(steps).collect();
    Trick { name, what, cover: Cover::Bare, script }
}

fn say(bytes: &'static [u8]) -> Step {
    Step::Say(Bytes::from_static(bytes))
}

pub(super) fn tricks() -> Vec<Trick> {
    let mut all = certificates();
    all.extend(handshakes());
    all.extend(versions_and_ciphers());
    all
}

fn certificates() -> Vec<Trick> {
    let shown = Cover::Http1;
    vec![
        shows(
            "certificate-expired",
            "shows a certificate whose time is over",
            shown(Certificate::Expired),
        ),
        shows(
            "certificate-not-yet",
            "shows a certificate whose time has not come",
            shown(Certificate::NotYetValid),
        ),
        shows(
            "certificate-of-another",
            "shows a certificate for another name",
            shown(Certificate::WrongHost),
        ),
        shows(
            "certificate-self-signed",
            "shows a certificate that it signed itself",
            shown(Certificate::SelfSigned),
        ),
        shows(
            "certificate-without-names",
            "shows a certificate with a common name alone",
            shown(Certificate::NoNames),
        ),
        shows(
            "certificate-for-clients",
            "shows a certificate that is for clients",
            shown(Certificate::ForClients),
        ),
        shows(
            "certificate-of-no-authority",
            "shows a certificate signed by one that is no authority",
            shown(Certificate::NoAuthority),
        ),
        shows(
            "certificate-sha1",
            "shows a certificate that is signed with SHA-1",
            shown(Certificate::Sha1),
        ),
        shows(
            "certificate-of-weak-authority",
            "shows a certificate of an authority whose key has 512 bits",
            shown(Certificate::WeakAuthority),
        ),
        shows(
            "certificate-behind-a-hundred",
            "shows a certificate with a hundred others between it and its authority",
            shown(Certificate::LongChain),
        ),
        shows(
            "certificate-to-be-completed",
            "shows a certificate that names where the one above it can be had",
            shown(Certificate::Incomplete),
        ),
        shows(
            "authority-unknown",
            "shows a certificate of an authority that nobody named",
            Cover::Untold,
        ),
    ]
}

fn handshakes() -> Vec<Trick> {
    vec![
        bare("tls-plain-answer", "answers in clear where TLS is spoken", [say(ANSWER)]),
        bare(
            "tls-plain-ssh",
            "speaks another protocol where TLS is spoken",
            [say(b"SSH-2.0-OpenSSH_9.9\r\n")],
        ),
        bare(
            "tls-silence",
            "takes the beginning of the handshake and never answers",
            [Step::Drain],
        ),
        bare("tls-close", "closes in the handshake", []),
        bare("tls-reset", "resets in the handshake", [Step::Reset]),
        bare(
            "tls-drip",
            "sends its part of the handshake a byte at a time",
            [Step::Drip(Bytes::from_static(&[22, 3, 3, 63, 0, 2, 0, 62, 252]))],
        ),
    ]
}

fn versions_and_ciphers() -> Vec<Trick> {
    vec![
        bare(
            "tls-1-0",
            "answers the handshake with TLS 1.0",
            [Step::Say(hello(0x01, 0x002f)), Step::Drain],
        ),
        bare(
            "tls-1-1",
            "answers the handshake with TLS 1.1",
            [Step::Say(hello(0x02, 0x002f)), Step::Drain],
        ),
        bare(
            "tls-version-refused",
            "refuses every version of TLS that is newer than 1.1",
            [say(&[21, 3, 2, 0, 2, 2, 70])],
        ),
        bare(
            "tls-null-cipher",
            "chooses a cipher that hides nothing",
            [Step::Say(hello(0x03, 0x0002)), Step::Drain],
        ),
        bare(
            "tls-anonymous-cipher",
            "chooses a cipher without a certificate",
            [Step::Say(hello(0x03, 0x0034)), Step::Drain],
        ),
        bare(
            "tls-rc4-cipher",
            "chooses the cipher RC4",
            [Step::Say(hello(0x03, 0x0005)), Step::Drain],
        ),
        bare(
            "tls-alert-failure",
            "ends the handshake with an alert",
            [say(&[21, 3, 3, 0, 2, 2, 40])],
        ),
        bare(
            "tls-alert-name",
            "does not know the name that is asked for",
            [say(&[21, 3, 3, 0, 2, 2, 112])],
        ),
        bare(
            "tls-huge-handshake",
            "announces a handshake of 16 MiB and sends it",
            [
                say(&[22, 3, 3, 64, 0, 11, 255, 255, 255]),
                Step::Flood(Bytes::from_static(&[0; 1 << 10])),
            ],
        ),
        bare(
            "tls-endless-records",
            "sends empty records without end",
            [Step::Flood(Bytes::from_static(&[22, 3, 3, 0, 0]))],
        ),
        bare(
            "tls-endless-alerts",
            "sends warnings without end",
            [Step::Flood(Bytes::from_static(&[21, 3, 3, 0, 2, 1, 90]))],
        ),
    ]
}

/// The server's first message of TLS up to 1.2: its version, 32 bytes of chance, no session, a cipher.
fn hello(version: u8, cipher: u16) -> Bytes {
    let mut hello = vec![2, 0, 0, 38, 3, version];
    hello.extend([0x55; 32]);
    hello.push(0);
    hello.extend(cipher.to_be_bytes());
    hello.push(0);
    let mut record = vec![22, 3, version];
    record.extend(u16::try_from(hello.len()).unwrap_or_default().to_be_bytes());
    record.extend(hello);
    record.into()
}
