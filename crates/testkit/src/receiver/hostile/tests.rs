//! The tricks themselves.

use std::collections::BTreeSet;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn every_trick_has_a_name_of_its_own_and_says_what_it_is() {
    let all = tricks();
    let names: BTreeSet<_> = all.iter().map(|trick| trick.name).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|trick| !trick.what.is_empty()));
    assert!(trick("silence").is_some() && trick("kindness").is_none());
}

/// Sends a request, and returns the first bytes of the answer.
async fn first_bytes(name: &str, count: usize) -> Vec<u8> {
    let server = Hostile::start(&trick(name).unwrap()).await.unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(server.connections(), 1);
    bytes
}

#[tokio::test]
async fn scripts_say_what_they_are_to_say() {
    assert_eq!(first_bytes("slow-status", 4).await, b"HTTP");
    let endless = first_bytes("endless-body", 200_000).await;
    assert!(endless.ends_with(b"aaaa"));
    assert_eq!(first_bytes("close-in-status", 10).await, b"HTTP/1.1 2");
    assert_eq!(first_bytes("tls-alert-failure", 7).await, [21, 3, 3, 0, 2, 2, 40]);
}
