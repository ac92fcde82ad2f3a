//! Free ports for servers that need to know each other's before they start.
//!
//! They lie below those that the system hands out by itself (32768 and above on Linux, 49152 and
//! above elsewhere): while a server is down, no connection of anybody's is given its port, not
//! even that of a client which tries to reach it.

use std::net::TcpListener;

use fanfare_service::random_bytes;

/// Where to look.
const FROM: u16 = 15_000;
const TO: u16 = 32_000;

/// Returns so many different ports on loopback that are free at this moment.
///
/// Nobody keeps them free: a test's neighbour may take one before it is used.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let port = FROM + u16::from_be_bytes(random_bytes()) % (TO - FROM);
        // Held until all are found, so that none is found twice.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
    }
    held.into_iter().map(|(port, _listener)| port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different() {
        let mut ports = free_ports(9);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 9);
        assert!(ports.iter().all(|port| (FROM..TO).contains(port)));
    }
}
