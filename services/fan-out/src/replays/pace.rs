//! For whom a replay goes on: each endpoint has its own pace. Pure.
//!
//! Most endpoints go on together, so that their events are read once. One that takes longer than
//! others is left *behind*: it has a cursor of its own until it has come as far as they have.

use std::collections::BTreeMap;

use fanfare_domain::{EndpointId, Replay};

/// With how many deliveries on their way who goes on waits.
pub(super) const OPEN_MAX: usize = 256;

/// Endpoints that are behind, and from where on nothing is done for them.
pub(super) type Behind = BTreeMap<EndpointId, u64>;

/// Who goes on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// All endpoints that are not behind.
    Most,
    /// One that is.
    One(EndpointId),
}

/// What comes next of a replay, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) whose: Whose,
    pub(super) behind: &'a Behind,
    /// From where on nothing is done for them.
    pub(super) from: u64,
    /// Where they meet the others.
    pub(super) until: u64,
}

/// What was made of a replay and was not attempted yet.
#[derive(Debug, Default)]
pub(super) struct Way {
    open: usize,
    /// How often something was made for the most.
    turn: u64,
    /// By endpoint, also those that have nothing on its way.
    of: BTreeMap<EndpointId, Own>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Own {
    open: usize,
    /// How much of that the last turn made, at most, and which one that was.
    latest: usize,
    turn: u64,
}

impl Whose {
    /// Who an endpoint goes on with.
    pub(super) fn of(endpoint: EndpointId, behind: &Behind) -> Self {
        if behind.contains_key(&endpoint) { Self::One(endpoint) } else { Self::Most }
    }
}

impl Part<'_> {
    /// Tells whether an endpoint is among them.
    pub(super) fn has(&self, endpoint: EndpointId) -> bool {
        Whose::of(endpoint, self.behind) == self.whose
    }
}

impl Way {
    /// Notes that something is about to be made for the most, or for one that is behind.
    pub(super) fn turn(&mut self, whose: Whose) {
        if whose == Whose::Most {
            self.turn += 1;
        }
    }

    /// Adds a delivery.
    pub(super) fn add(&mut self, endpoint: EndpointId) {
        let own = self.of.entry(endpoint).or_default();
        if own.turn != self.turn {
            (own.latest, own.turn) = (0, self.turn);
        }
        own.open += 1;
        own.latest += 1;
        self.open += 1;
    }

    /// Takes one away: it was attempted.
    pub(super) fn begun(&mut self, endpoint: EndpointId) {
        if let Some(own) = self.of.get_mut(&endpoint) {
            own.open = own.open.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
        }
    }

    /// Tells whether more may be made.
    pub(super) fn has_room(&self, whose: Whose, behind: &Behind) -> bool {
        let open = match whose {
            Whose::One(endpoint) => self.open_of(endpoint),
            Whose::Most => {
                let apart = behind.keys().map(|endpoint| self.open_of(*endpoint));
                self.open.saturating_sub(apart.sum())
            }
        };
        open < OPEN_MAX
    }

    /// The endpoint that the most wait for, though others have nothing to do: of those that had
    /// something on its way already when the last turn began, or of all if it was so long ago that
    /// they are `stuck`.
    pub(super) fn slowest(&self, behind: &Behind, stuck: bool) -> Option<EndpointId> {
        if behind.len() >= Replay::BEHIND_MAX || self.has_room(Whose::Most, behind) {
            return None;
        }
        let most = || self.of.iter().filter(|(endpoint, _)| !behind.contains_key(endpoint));
        if most().all(|(_, own)| own.open > 0) {
            return None;
        }
        let is_slow = |own: &Own| {
            let latest = if own.turn == self.turn { own.latest } else { 0 };
            own.open > if stuck { 0 } else { latest }
        };
        let slow = most().filter(|(_, own)| is_slow(own));
        slow.max_by_key(|(_, own)| own.open).map(|(endpoint, _)| *endpoint)
    }

    fn open_of(&self, endpoint: EndpointId) -> usize {
        self.of.get(&endpoint).map_or(0, |own| own.open)
    }
}

/// Who may go on: the most from `next` on, or, if that is `None`, they are through.
pub(super) fn ready<'a>(
    way: &'a Way,
    behind: &'a Behind,
    next: Option<u64>,
) -> impl Iterator<Item = Whose> + 'a {
    let most = next.map(|_| Whose::Most);
    let apart = move |(_, from): &(&EndpointId, &u64)| next.is_none_or(|next| **from < next);
    let behind_them = behind.iter().filter(apart).map(|(endpoint, _)| Whose::One(*endpoint));
    most.into_iter().chain(behind_them).filter(move |whose| way.has_room(*whose, behind))
}

/// Of those who may go on, the one whose turn comes after another's.
pub(super) fn after(ready: impl Iterator<Item = Whose>, last: Option<Whose>) -> Option<Whose> {
    let mut first = None;
    for whose in ready {
        if last.is_none_or(|last| whose > last) {
            return Some(whose);
        }
        first = first.or(Some(whose));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointId = EndpointId::from_bytes([1; 16]);
    const B: EndpointId = EndpointId::from_bytes([2; 16]);
    const C: EndpointId = EndpointId::from_bytes([3; 16]);

    fn make(way: &mut Way, whose: Whose, counts: &[(EndpointId, usize)]) {
        way.turn(whose);
        for (endpoint, count) in counts {
            (0..*count).for_each(|_| way.add(*endpoint));
        }
    }

    fn begin(way: &mut Way, endpoint: EndpointId, count: usize) {
        (0..count).for_each(|_| way.begun(endpoint));
    }

    #[test]
    fn who_takes_longer_than_others_is_left_behind() {
        let (mut way, mut behind) = (Way::default(), Behind::new());
        for _ in 0..4 {
            assert!(way.has_room(Whose::Most, &behind));
            make(&mut way, Whose::Most, &[(A, 64), (B, 64), (C, 64)]);
            begin(&mut way, A, 64);
            begin(&mut way, B, 64);
        }
        assert_eq!(way.slowest(&behind, false), Some(C));
        behind.insert(C, 300);
        assert_eq!(way.slowest(&behind, false), None, "the others have room");
        let may = |way: &Way, next| ready(way, &behind, next).collect::<Vec<_>>();
        assert_eq!(may(&way, Some(300)), [Whose::Most], "it is as far as the others");
        assert_eq!(may(&way, Some(364)), [Whose::Most], "it has enough on its way");
        begin(&mut way, C, 1);
        assert_eq!(may(&way, Some(364)), [Whose::Most, Whose::One(C)]);
        assert_eq!(may(&way, None), [Whose::One(C)]);
    }

    #[test]
    fn nobody_is_left_behind_where_all_are_as_fast() {
        let (mut way, behind) = (Way::default(), Behind::new());
        for _ in 0..2 {
            make(&mut way, Whose::Most, &[(A, 64), (B, 64)]);
        }
        assert!(!way.has_room(Whose::Most, &behind));
        assert_eq!(way.slowest(&behind, false), None);
        assert_eq!(way.slowest(&behind, true), None);
        begin(&mut way, A, 100);
        begin(&mut way, B, 28);
        assert!(way.has_room(Whose::Most, &behind));
    }

    /// An event that very many want: what the last turn made is on its way, and nobody is slow yet.
    #[test]
    fn who_is_slow_is_seen_at_the_next_turn_or_after_a_while() {
        let endpoint = |n: u16| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            EndpointId::from_bytes(bytes)
        };
        let (mut way, behind) = (Way::default(), Behind::new());
        let all: Vec<_> = (0..1_000).map(|n| (endpoint(n), 1)).collect();
        make(&mut way, Whose::Most, &all);
        (300..1_000).for_each(|n| begin(&mut way, endpoint(n), 1));
        assert_eq!(way.slowest(&behind, false), None);
        assert!(way.slowest(&behind, true).is_some());
        (10..300).for_each(|n| begin(&mut way, endpoint(n), 1));
        make(&mut way, Whose::Most, &all);
        (400..1_000).for_each(|n| begin(&mut way, endpoint(n), 1));
        assert!(way.slowest(&behind, false).is_some_and(|slow| slow < endpoint(10)));
    }

    #[test]
    fn no_more_are_left_behind_than_can_be_kept() {
        let (mut way, mut behind) = (Way::default(), Behind::new());
        make(&mut way, Whose::Most, &[(A, 300), (B, 1)]);
        begin(&mut way, B, 1);
        assert_eq!(way.slowest(&behind, true), Some(A));
        for n in 0..Replay::BEHIND_MAX {
            behind.insert(EndpointId::from_bytes((n as u128 + (1 << 64)).to_be_bytes()), 1);
        }
        assert_eq!(way.slowest(&behind, true), None);
    }

    #[test]
    fn those_who_may_go_on_take_turns() {
        let all = [Whose::Most, Whose::One(A), Whose::One(B)];
        let mut last = None;
        let mut had = Vec::new();
        for _ in 0..4 {
            last = after(all.into_iter(), last);
            had.extend(last);
        }
        assert_eq!(had, [all[0], all[1], all[2], all[0]]);
        assert_eq!(after([Whose::Most].into_iter(), Some(Whose::Most)), Some(Whose::Most));
        assert_eq!(after(std::iter::empty(), Some(Whose::Most)), None);
    }
}
