//! The client against servers that behave, and servers that do not.

#![expect(clippy::unwrap_used, reason = "what fails here is to fail the test")]

mod answers;
mod faults;
mod guard;
mod http2;
mod identity;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{AddressPolicy, Fault, address::AddressRule};
use fanfare_egress::{Answer, Client, Request, Settings};
use http::HeaderMap;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(300);

/// Settings that let requests go to this machine.
fn settings() -> Settings {
    let addresses = AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() };
    // However slow the machine is, no test is to see a connection replaced.
    Settings { addresses, connection_age_max: Duration::from_hours(16), ..Settings::default() }
}

fn client() -> Client {
    Client::new(&settings()).unwrap()
}

fn request(url: &str) -> Request {
    Request {
        method: http::Method::POST,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{\"a\":1}"),
        deadline: PATIENCE,
        identity: None,
    }
}

async fn post(client: &Client, url: &str) -> Answer {
    client.send(request(url)).await
}

#[track_caller]
fn fault(answer: &Answer) -> Fault {
    answer.result.as_ref().unwrap_err().fault
}
