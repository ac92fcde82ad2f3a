//! Whether there is a connection, for those who wait for one.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Event, connection::State};
use tokio::{sync::Notify, time::timeout};
use tracing::{debug, info, warn};

use crate::publish::acks::Acks;

/// How long to wait for a notice before looking at the connection itself: notices can get lost
/// when many come at once.
const LOOK: Duration = Duration::from_millis(250);

/// Follows the state of the connection.
pub(crate) struct Link {
    connected: Notify,
    acks: Arc<Acks>,
}

impl Link {
    pub(crate) fn new(acks: Arc<Acks>) -> Self {
        Self { connected: Notify::new(), acks }
    }

    /// Takes a notice of the client.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                info!("connected to NATS");
                self.connected.notify_waiters();
            }
            Event::Disconnected => {
                warn!("lost the connection to NATS");
                // Whoever waits for an acknowledgement may repeat as soon as there is a server.
                self.acks.lose_all();
            }
            Event::LameDuckMode => info!("the NATS server is about to stop"),
            Event::SlowConsumer(subscription) => {
                warn!(subscription, "messages were dropped because nobody took them");
            }
            Event::ServerError(error) => warn!(%error, "the NATS server reports an error"),
            Event::Draining | Event::Closed | Event::ClientError(_) => {
                debug!(%event, "connection event");
            }
        }
    }

    /// Waits until there is a connection. Cancel safe.
    pub(crate) async fn up(&self, client: &Client) {
        while client.connection_state() != State::Connected {
            let _ = timeout(LOOK, self.connected.notified()).await;
        }
    }
}
