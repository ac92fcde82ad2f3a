//! Whose turn it is to be asked about: events whose filters take long stand in a line of their
//! tenant's, and the tenant goes on that has had the least of the time. Pure.
//!
//! What a tenant has had counts in steps, as long as it is ahead of the others: who comes anew begins
//! where they are. An event that is handed out again stands in line once.

use std::collections::BTreeMap;

use fanfare_domain::{StoredEvent, TenantId, Timestamp};

/// How many groups of one tenant are in hand at once: while one is asked about, the other is written.
const GROUPS_OF_ONE: usize = 2;

/// How many events one group has, and how many bytes of them; one event at least. They are fewer
/// where the turns before had no time for more.
const GROUP_MAX: usize = 64;
const GROUP_BYTES: usize = 1 << 20;

/// How many bytes of events that wait are kept; others are read again when their turn has come.
const KEPT_MAX: usize = 32 << 20;

/// An event in line, with what lets it go.
#[derive(Clone, Debug)]
pub(super) struct Waiting<S> {
    pub(super) sequence: u64,
    pub(super) accepted_at: Timestamp,
    pub(super) bytes: usize,
    /// The event; `None` if it is to be read again.
    pub(super) event: Option<StoredEvent>,
    pub(super) settler: S,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lines<S> {
    tenants: BTreeMap<TenantId, Line<S>>,
    /// How many bytes of events are kept.
    kept: usize,
    /// What who had the last turn had had before.
    level: u64,
}

#[derive(Debug)]
struct Line<S> {
    waiting: BTreeMap<u64, Waiting<S>>,
    /// What is in hand: when it was accepted, and what lets it go.
    taken: BTreeMap<u64, (Timestamp, S)>,
    groups: usize,
    /// How many events the next group has at most.
    group_max: usize,
    /// How many steps it has had.
    had: u64,
}

impl<S: Clone> Lines<S> {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        Self { tenants: BTreeMap::new(), kept: 0, level: 0 }
    }

    /// Puts an event into its tenant's line.
    pub(super) fn add(&mut self, tenant: &TenantId, mut waiting: Waiting<S>) {
        let level = self.level;
        let line = self.tenants.entry(tenant.clone()).or_insert_with(Line::new);
        if line.is_idle() {
            line.had = line.had.max(level);
        }
        if line.taken.contains_key(&waiting.sequence) {
            return;
        }
        if let Some(elder) = line.waiting.remove(&waiting.sequence) {
            self.kept -= elder.kept();
        }
        if self.kept + waiting.kept() > KEPT_MAX {
            waiting.event = None;
        }
        self.kept += waiting.kept();
        line.waiting.insert(waiting.sequence, waiting);
    }

    /// Takes an event out of the line; tells whether it has waited there.
    pub(super) fn remove(&mut self, tenant: &TenantId, sequence: u64) -> bool {
        let line = self.tenants.get_mut(tenant);
        let waiting = line.and_then(|line| line.waiting.remove(&sequence));
        self.kept -= waiting.as_ref().map_or(0, Waiting::kept);
        waiting.is_some()
    }

    /// Forgets what waits; returns the sequences of these events.
    pub(super) fn forget_waiting(&mut self) -> Vec<u64> {
        self.kept = 0;
        let lines = self.tenants.values_mut();
        lines.flat_map(|line| std::mem::take(&mut line.waiting).into_keys()).collect()
    }

    /// Takes the events whose turn it is, the oldest ones of a tenant.
    pub(super) fn take(&mut self) -> Option<(TenantId, Vec<Waiting<S>>)> {
        let may = |(_, line): &(&TenantId, &mut Line<S>)| {
            line.groups < GROUPS_OF_ONE && !line.waiting.is_empty()
        };
        let lines = self.tenants.iter_mut().filter(may);
        let first = |line: &Line<S>| line.waiting.keys().next().copied();
        let (tenant, line) = lines.min_by_key(|(_, line)| (line.groups, line.had, first(line)))?;
        self.level = self.level.max(line.had);
        line.groups += 1;
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = line.waiting.first_entry() {
            bytes += next.get().bytes;
            let is_full = bytes > GROUP_BYTES || group.len() >= line.group_max;
            if is_full && !group.is_empty() {
                break;
            }
            let next = next.remove();
            self.kept -= next.kept();
            line.taken.insert(next.sequence, (next.accepted_at, next.settler.clone()));
            group.push(next);
        }
        Some((tenant.clone(), group))
    }

    /// Ends a turn with these events, which took so many steps. Some of them may be left.
    pub(super) fn end(
        &mut self,
        (tenant, group): (&TenantId, &[u64]),
        left: Vec<Waiting<S>>,
        steps: u64,
    ) {
        if let Some(line) = self.tenants.get_mut(tenant) {
            line.groups = line.groups.saturating_sub(1);
            line.had = line.had.saturating_add(steps);
            line.group_max = match left.len() {
                0 => line.group_max.saturating_mul(2).min(GROUP_MAX),
                left => group.len().saturating_sub(left).max(1),
            };
            for sequence in group {
                line.taken.remove(sequence);
            }
        }
        for waiting in left {
            self.add(tenant, waiting);
        }
        let level = self.level;
        self.tenants.retain(|_, line| !line.is_idle() || line.had > level);
        if self.tenants.values().all(Line::is_idle) {
            self.tenants.clear();
        }
    }

    /// How many events wait or are in hand.
    pub(super) fn len(&self) -> usize {
        self.tenants.values().map(|line| line.waiting.len() + line.taken.len()).sum()
    }

    /// When the oldest event was accepted, of those that wait and those in hand.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let waiting = |line: &Line<S>| line.waiting.values().next().map(|it| it.accepted_at);
        let taken =
            |line: &Line<S>| line.taken.values().next().map(|(accepted_at, _)| *accepted_at);
        self.tenants.values().flat_map(|line| [waiting(line), taken(line)]).flatten().min()
    }

    /// What lets each event go, of those that wait and those in hand.
    pub(super) fn settlers(&self) -> impl Iterator<Item = &S> {
        self.tenants.values().flat_map(|line| {
            let taken = line.taken.values().map(|(_, settler)| settler);
            line.waiting.values().map(|waiting| &waiting.settler).chain(taken)
        })
    }
}

impl<S> Line<S> {
    fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            taken: BTreeMap::new(),
            groups: 0,
            group_max: GROUP_MAX,
            had: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.groups == 0
    }
}

impl<S> Waiting<S> {
    fn kept(&self) -> usize {
        if self.event.is_some() { self.bytes } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_domain::{Event, EventId, TraceContext};

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn waiting(sequence: u64, bytes: usize) -> Waiting<u64> {
        let event = Event {
            id: EventId::new(Timestamp::EPOCH, [1; 10]),
            tenant: tenant("any"),
            event_type: "a".parse().unwrap(),
            occurred_at: Timestamp::EPOCH,
            accepted_at: None,
            config_revision: None,
            data: "1".into(),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let (event, accepted_at) = (Arc::new(event), Timestamp::from_millis(sequence));
        let event = Some(StoredEvent { event, sequence, accepted_at, envelope: "".into() });
        Waiting { sequence, accepted_at, bytes, event, settler: sequence }
    }

    fn sequences(group: &[Waiting<u64>]) -> Vec<u64> {
        group.iter().map(|waiting| waiting.sequence).collect()
    }

    #[test]
    fn who_comes_later_with_little_does_not_wait_for_who_has_much() {
        let (many, few) = (tenant("many"), tenant("few"));
        let mut lines = Lines::new();
        for sequence in 1..=1_000 {
            lines.add(&many, waiting(sequence, GROUP_BYTES));
        }
        let mut had = Vec::new();
        for turn in 0..20 {
            if turn == 10 {
                (2_000..2_003).for_each(|sequence| lines.add(&few, waiting(sequence, 10)));
            }
            let (whose, group) = lines.take().unwrap();
            let steps = if whose == many { 1_000 } else { 10 };
            lines.end((&whose, &sequences(&group)), Vec::new(), steps);
            had.push((whose == few).then_some(group.len()));
        }
        assert_eq!(had.iter().flatten().collect::<Vec<_>>(), [&3]);
        assert!(had[10].is_some() || had[11].is_some(), "{had:?}");
        assert_eq!(lines.len(), 1_000 - 19);
    }

    #[test]
    fn tenants_that_have_much_share_the_time_whatever_their_events_take() {
        let (dear, cheap) = (tenant("dear"), tenant("cheap"));
        let mut lines = Lines::new();
        for sequence in 1..=10_000 {
            lines.add(
                if sequence % 2 == 0 { &dear } else { &cheap },
                waiting(sequence, GROUP_BYTES),
            );
        }
        let mut steps = BTreeMap::new();
        for _ in 0..2_000 {
            let (whose, group) = lines.take().unwrap();
            let taken = if whose == dear { 900 } else { 100 };
            lines.end((&whose, &sequences(&group)), Vec::new(), taken);
            *steps.entry(whose).or_insert(0_u64) += taken;
        }
        assert!(steps[&dear].abs_diff(steps[&cheap]) <= 1_000, "{steps:?}");
    }

    #[test]
    fn who_was_away_has_not_saved_up_turns() {
        let (first, second) = (tenant("first"), tenant("second"));
        let mut lines = Lines::new();
        for sequence in 1..=200 {
            lines.add(&first, waiting(sequence, GROUP_BYTES));
        }
        for _ in 0..50 {
            let (whose, group) = lines.take().unwrap();
            lines.end((&whose, &sequences(&group)), Vec::new(), 100);
        }
        for sequence in 1_001..=1_200 {
            lines.add(&second, waiting(sequence, GROUP_BYTES));
        }
        let mut turns = 0;
        for _ in 0..20 {
            let (whose, group) = lines.take().unwrap();
            lines.end((&whose, &sequences(&group)), Vec::new(), 100);
            turns += i32::from(whose == first);
        }
        assert!((9..=11).contains(&turns), "{turns}");
    }

    #[test]
    fn a_tenant_alone_has_two_groups_and_leaves_a_place_to_others() {
        let (one, other) = (tenant("one"), tenant("other"));
        let mut lines = Lines::new();
        for sequence in 1..=9 {
            lines.add(&one, waiting(sequence, GROUP_BYTES / 2));
        }
        let groups: Vec<_> = std::iter::from_fn(|| lines.take()).collect();
        assert_eq!([1, 2], *sequences(&groups[0].1));
        assert_eq!([3, 4], *sequences(&groups[1].1));
        assert_eq!(groups.len(), 2);
        lines.add(&other, waiting(20, GROUP_BYTES * 2));
        let (whose, group) = lines.take().unwrap();
        assert_eq!((whose, sequences(&group)), (other, vec![20]), "one event at least");
    }

    #[test]
    fn what_is_left_or_comes_again_stands_in_line_once() {
        let one = tenant("one");
        let mut lines = Lines::new();
        for sequence in [3, 1, 2] {
            lines.add(&one, waiting(sequence, 10));
        }
        let (_, group) = lines.take().unwrap();
        assert_eq!(sequences(&group), [1, 2, 3]);
        // It is handed out again meanwhile.
        lines.add(&one, Waiting { settler: 99, ..waiting(2, 10) });
        lines.add(&one, waiting(4, 10));
        lines.add(&one, Waiting { settler: 44, ..waiting(4, 10) });
        assert_eq!((lines.len(), lines.settlers().count()), (4, 4));
        assert_eq!(lines.oldest(), Some(Timestamp::from_millis(1)));
        let left = group.into_iter().filter(|it| it.sequence > 1).collect();
        lines.end((&one, &[1, 2, 3]), left, 5);
        let mut taken = Vec::new();
        while let Some((_, group)) = lines.take() {
            lines.end((&one, &sequences(&group)), Vec::new(), 5);
            taken.extend(group.into_iter().map(|waiting| (waiting.sequence, waiting.settler)));
        }
        assert_eq!(taken, [(2, 2), (3, 3), (4, 44)]);
        assert!(lines.tenants.is_empty() && lines.kept == 0);
    }

    #[test]
    fn a_group_has_as_many_events_as_turns_had_time_for() {
        let one = tenant("one");
        let mut lines = Lines::new();
        (1..=1_000).for_each(|sequence| lines.add(&one, waiting(sequence, 10)));
        let mut sizes = Vec::new();
        for time_for in [64, 3, 9, 9, 0, 9, 9] {
            let (_, mut group) = lines.take().unwrap();
            let all = sequences(&group);
            sizes.push(group.len());
            let left = group.split_off(group.len().min(time_for));
            lines.end((&one, &all), left, 1);
        }
        assert_eq!(sizes, [64, 64, 3, 6, 12, 1, 2]);
    }

    #[test]
    fn what_is_let_go_of_is_not_taken() {
        let one = tenant("one");
        let mut lines = Lines::new();
        (1..=3).for_each(|sequence| lines.add(&one, waiting(sequence, 10)));
        lines.remove(&one, 2);
        lines.remove(&tenant("other"), 3);
        assert_eq!((lines.len(), lines.kept), (2, 20));
        assert_eq!((lines.forget_waiting().len(), lines.kept), (2, 0));
        assert!(lines.take().is_none());
    }

    #[test]
    fn what_is_too_much_to_be_kept_is_read_again() {
        let one = tenant("one");
        let mut lines = Lines::new();
        for sequence in 1..=100 {
            lines.add(&one, waiting(sequence, GROUP_BYTES));
        }
        assert_eq!(lines.kept, KEPT_MAX);
        let mut kept = 0;
        while let Some((_, group)) = lines.take() {
            kept += group.iter().filter(|waiting| waiting.event.is_some()).count();
            lines.end((&one, &sequences(&group)), Vec::new(), 1);
        }
        assert_eq!((kept, lines.kept), (KEPT_MAX / GROUP_BYTES, 0));
    }
}
