//! Whether there is a connection, for those who wait for one, and for those who wait for an answer.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, Event, connection::State};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, error, info, warn};

use super::Denial;
use crate::publish::acks::Acks;

/// How long to wait for a notice before looking at the connection itself: notices can get lost
/// when many come at once.
const LOOK: Duration = Duration::from_millis(250);
/// How many denials are remembered, for those who wait for an answer that will not come.
const DENIALS_MAX: usize = 64;

/// The connection was lost before the answer came.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection was lost before the answer came")]
pub(crate) struct Lost;

/// Follows the state of the connection.
pub(crate) struct Link {
    /// How many connections were noticed.
    connects: watch::Sender<u64>,
    /// How many losses were noticed.
    losses: watch::Sender<u64>,
    /// What the servers did not let us do.
    denials: watch::Sender<BTreeSet<Denial>>,
    acks: Arc<Acks>,
}

/// One connection, to tell when it is gone.
pub(crate) struct Connection {
    number: u64,
    losses: watch::Receiver<u64>,
}

impl Link {
    pub(crate) fn new(acks: Arc<Acks>) -> Self {
        let (connects, losses) = (watch::Sender::default(), watch::Sender::default());
        Self { connects, losses, denials: watch::Sender::default(), acks }
    }

    /// Takes a notice of the client.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                info!("connected to NATS");
                self.connects.send_modify(|connects| *connects += 1);
            }
            Event::Disconnected => {
                warn!("lost the connection to NATS");
                // Whoever waits for an acknowledgement may repeat as soon as there is a server.
                self.acks.lose_all();
                self.losses.send_modify(|losses| *losses += 1);
            }
            Event::LameDuckMode => info!("the NATS server is about to stop"),
            Event::SlowConsumer(subscription) => {
                warn!(subscription, "messages were dropped because nobody took them");
            }
            Event::ServerError(error) => {
                if let Some(denial) = Denial::read(&error.to_string()) {
                    self.deny(denial);
                } else {
                    warn!(%error, "the NATS server reports an error");
                }
            }
            Event::Draining | Event::Closed | Event::ClientError(_) => {
                debug!(%event, "connection event");
            }
        }
    }

    fn deny(&self, denial: Denial) {
        error!(subject = denial.subject, "{denial}");
        self.denials
            .send_if_modified(|denials| denials.len() < DENIALS_MAX && denials.insert(denial));
    }

    /// Waits until the servers say that a question to this subject is not allowed, or was
    /// said already. Cancel safe.
    pub(crate) async fn denied(&self, subject: &str) -> Denial {
        let mut denials = self.denials.subscribe();
        loop {
            let found =
                denials.borrow_and_update().iter().find(|one| one.silences(subject)).cloned();
            if let Some(denial) = found {
                return denial;
            }
            // The sender is ours, so there is always one.
            if denials.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until there is a connection. Cancel safe.
    pub(crate) async fn up(&self, client: &Client) {
        let mut connects = self.connects();
        while client.connection_state() != State::Connected {
            let _ = timeout(LOOK, connects.changed()).await;
        }
    }

    /// Counts the connections of which there was a notice: changes at each from now on.
    pub(crate) fn connects(&self) -> watch::Receiver<u64> {
        self.connects.subscribe()
    }

    /// The connection that there is at this moment.
    pub(crate) fn connection(&self, client: &Client) -> Connection {
        // In this order: a loss in between is noticed.
        let losses = self.losses.subscribe();
        Connection { number: number(client), losses }
    }

    /// Waits for an answer, but no longer than there is the connection that it was asked on: on
    /// another one it would not come. A server that is silent is for the caller to bound.
    ///
    /// What was asked may be answered, and done, nevertheless.
    pub(crate) async fn answer<T>(
        &self,
        client: &Client,
        asked: impl Future<Output = T>,
    ) -> Result<T, Lost> {
        let mut connection = self.connection(client);
        if client.connection_state() != State::Connected {
            return Err(Lost);
        }
        tokio::select! {
            biased;
            answer = asked => Ok(answer),
            () = connection.gone(client) => Err(Lost),
        }
    }
}

impl Connection {
    /// Waits until there is none, or another one. Cancel safe.
    pub(crate) async fn gone(&mut self, client: &Client) {
        while client.connection_state() == State::Connected && number(client) == self.number {
            if timeout(LOOK, self.losses.changed()).await.is_ok() {
                return;
            }
        }
    }
}

/// How often the client connected: another number means another connection.
pub(crate) fn number(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Acquire)
}
