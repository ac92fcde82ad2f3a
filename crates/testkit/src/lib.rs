//! What tests need: real servers, and strangers that misbehave on demand.

pub mod receiver;
mod nats;
mod wait;

pub use nats::NatsServer;
pub use wait::{wait_at_most, wait_until};
