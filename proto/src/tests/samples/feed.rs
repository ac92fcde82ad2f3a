//! Feeds.

use fanfare_domain::{
    Feed,
    feed::{Blocked, Interval, Phase, PutOff, Reason},
};

use super::{at, endpoint_id};

/// Feeds, under the names of their golden records.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Feed)> {
    let put_off = |sequence, second| PutOff { sequence, until: at(second) };
    let taken_over = vec![put_off(7, 90), put_off(11, 95)];
    let closed = Phase::Closed { until: 900, at: at(70) };
    [
        ("feed-open", feed(Phase::Open, Reason::Backlog)),
        ("feed-closing", feed(Phase::Closing, Reason::Hold)),
        ("feed-closed", feed(closed, Reason::Ordered)),
        ("feed-ended", Feed { ended: vec![601, 1_000], ..feed(Phase::Open, Reason::Hold) }),
        ("feed-ended-since", Feed { ended_since: 77, ..feed(Phase::Open, Reason::Hold) }),
        ("feed-taken-over", Feed { taken_over, ..feed(Phase::Open, Reason::Backlog) }),
    ]
    .into_iter()
}

fn feed(phase: Phase, reason: Reason) -> Feed {
    Feed {
        tenant: "acme".parse().unwrap(),
        endpoint: endpoint_id(1),
        from: 500,
        phase,
        reason,
        opened_at: at(60),
        next: 600,
        blocked: vec![
            Blocked { key: 0xfedc_ba98_7654_3210, by: 510, waiting: vec![511, 700] },
            Blocked { key: 1, by: 520, waiting: Vec::new() },
        ],
        past: vec![
            Interval { from: 1, until: 20, closed_at: at(30) },
            Interval { from: 300, until: 301, closed_at: at(50) },
        ],
        ended: Vec::new(),
        ended_since: 0,
        taken_over: Vec::new(),
    }
}
