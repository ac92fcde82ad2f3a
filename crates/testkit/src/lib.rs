//! What tests need: real servers, and strangers that misbehave on demand.

pub mod receiver;
mod jetstream;
mod nats;
mod streams;
mod wait;

pub use nats::NatsServer;
pub use streams::StoredMessage;
pub use wait::{wait_at_most, wait_until};
