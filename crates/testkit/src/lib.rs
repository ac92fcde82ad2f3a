//! What tests need: real servers, and strangers that misbehave on demand.

mod cluster;
mod deliveries;
mod jetstream;
mod name_server;
mod nats;
mod overheard;
mod postgres;
mod proxy;
mod readers;
pub mod receiver;
mod streams;
mod wait;

pub use cluster::{NatsCluster, free_ports};
pub use deliveries::delivery_of;
pub use name_server::{NameServer, Named};
pub use nats::NatsServer;
pub use overheard::Overheard;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use readers::Readers;
pub use streams::StoredMessage;
pub use wait::{wait_at_most, wait_until};
