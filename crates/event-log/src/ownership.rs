//! Who does a piece of work that only one process may do: a heartbeat in a key-value bucket.
//!
//! The heartbeat decides who *claims*; the claim in the journal guards the records, and
//! [`Lease::held_since`] guards requests.

use tokio_util::sync::CancellationToken;

use crate::{EventLog, ReadError};

/// How long a heartbeat may fail to change before another process takes over.
pub const TAKEOVER_AFTER: std::time::Duration = std::time::Duration::from_secs(3);

/// The right to do a role's work, as long as heartbeats succeed.
#[derive(Clone)]
pub struct Lease {/* watch of last confirmed instant, lost token */}

impl EventLog {
    /// Waits until nobody else holds the role (at once if it was released; [`TAKEOVER_AFTER`]
    /// without a change, measured on our own clock, if its holder died), then takes it.
    /// Returns `None` if `stop` came first. The returned future beats the heart every 200 ms by compare-and-set until `stop`,
    /// then releases the role; it ends with an error when another process has taken the role. The caller spawns it.
    pub async fn acquire(&self, role: &str, owner: &str, stop: CancellationToken) -> Result<Option<(Lease, impl Future<Output = Result<(), ReadError>> + Send + use<>)>, ReadError> {
        let _ = (role, owner, stop);
        todo!() as Result<Option<(Lease, std::future::Ready<Result<(), ReadError>>)>, ReadError>
    }
}

impl Lease {
    /// When the role was last confirmed, on the monotonic clock: the time at which the heartbeat
    /// was *sent* that the server took.
    pub fn confirmed_at(&self) -> tokio::time::Instant {
        todo!()
    }

    /// Cancelled when the role is lost for good.
    pub fn lost(&self) -> CancellationToken {
        todo!()
    }
}
