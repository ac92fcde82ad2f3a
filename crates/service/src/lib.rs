//! The shell that every service runs in: settings, supervision, health, telemetry, signals.
//!
//! A service is one function, `pub async fn start(context: &mut Context, settings: Settings) ->
//! anyhow::Result<()>`, that connects, spawns a handful of long-lived tasks on the [`Context`]
//! and returns. Several can be started on one context and then share one fate: a task that
//! ends before it was asked to is a failure of the whole process, because a half-alive process
//! is harder to notice than a dead one.
//!
//! The wall clock, the dice and the process's environment are read here and nowhere else.

mod clock;
mod context;
mod crash;
mod failure;
mod health;
mod joined;
mod keys;
pub mod metrics;
mod observe;
mod otlp;
mod process;
mod profiles;
mod quiet;
mod random;
mod signals;
mod sources;
pub mod telemetry;
pub mod traces;

pub use clock::{Clock, SystemClock};
pub use context::Context;
pub use crash::guard_crashes;
pub use failure::Failure;
pub use health::{Condition, Health, Phase, Readiness, Report};
pub use joined::{Joined, Unfinished};
pub use keys::{KeysError, check_keyring, load_keyring};
pub use metrics::{Histogram, Metric, Metrics};
pub use observe::METRICS_TYPE;
pub use otlp::{ExportError, Instance};
pub use process::{install_crypto_provider, run};
pub use profiles::{ProfilesError, load_profiles};
pub use quiet::Quiet;
pub use random::random_bytes;
pub use sources::{SettingsFile, Sources, SourcesError, process_env};
pub use traces::{Exporter, Traces};
