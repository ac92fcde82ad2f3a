//! Looking for ids in a stream: what a suspect message may have caused already.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{EventId, Timestamp, fact::EventRouted};

use crate::{EventLog, ReadError};

impl EventLog {
    /// Which of these events are in EVENTS, stored at `since` or later. Reads headers only, one
    /// pass to the stream's end as of the call.
    pub async fn events_on_record(&self, wanted: &BTreeSet<EventId>, since: Timestamp) -> Result<BTreeSet<EventId>, ReadError> {
        let _ = (wanted, since);
        todo!()
    }

    /// The recorded routing of these events (all parts merged into one fact; events with parts
    /// missing are left out), looked for in `journal.routed` from `since` on.
    pub async fn routed_on_record(&self, wanted: &BTreeSet<(EventId, u32)>, since: Timestamp) -> Result<BTreeMap<(EventId, u32), (EventRouted, u64)>, ReadError> {
        let _ = (wanted, since);
        todo!()
    }
}
