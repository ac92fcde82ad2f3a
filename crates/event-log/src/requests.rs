//! The NATS micro service `fanfare-publish`: producers that want an answer.

use crate::{EventLog, ReadError, read::InboxMessage};

/// Requests to `<prefix>.publish.<tenant>.<type…>`, shared between processes.
pub struct Requests {/* async_nats::service */}

/// One request.
pub struct Request {
    /// What was sent.
    pub message: InboxMessage,
    /// Answers it.
    pub reply: Reply,
}

/// The way back to who asked.
pub struct Reply {/* */}

impl EventLog {
    /// Announces the service (`nats micro list` shows it) and takes its requests. `name` of the service: `<prefix>-publish`.
    pub async fn requests(&self) -> Result<Requests, ReadError> {
        todo!()
    }
}

impl Requests {
    /// Waits for a request; `None` when the service has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Request> {
        todo!()
    }

    /// Stops announcing and taking requests.
    pub async fn stop(self) {
        todo!()
    }
}

impl Reply {
    /// Answers with JSON text.
    pub async fn accept(self, json: String) {
        let _ = json;
        todo!()
    }

    /// Answers with a micro-service error (headers `Nats-Service-Error-Code`, `Nats-Service-Error`) and a JSON body.
    pub async fn refuse(self, code: u16, reason: &str, json: String) {
        let _ = (code, reason, json);
        todo!()
    }
}
