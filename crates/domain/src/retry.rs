//! When, and whether, to try again.

use std::time::Duration;

/// How many attempts a delivery gets, and how long to wait between them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The waits.
    pub delays: Delays,
}

/// The waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delays {
    /// One wait per retry.
    List(Vec<Duration>),
}
