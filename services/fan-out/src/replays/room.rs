//! Who is to forget what is on record, where replays remember too much of it together. Pure.
//!
//! Those forget first that wait for their endpoints, which may be down for days: no replay waits for
//! such a one. Of the others it is asked of the tenant whose replays remember the most, so that nobody
//! forgets because of others who have many; and of the one that had its turn last, since the others
//! need theirs before. Who is still reading forgets last: it has had nothing of it.

use std::collections::BTreeMap;

use fanfare_domain::{JobId, TenantId};

/// What a replay remembers.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) tenant: TenantId,
    /// When it had its last turn; see [`super::turns::Turns::last`].
    pub(super) last_turn: Option<u64>,
    pub(super) job: JobId,
    /// How many deliveries.
    pub(super) count: usize,
    pub(super) standing: Standing,
}

/// How a replay stands that remembers something; who forgets first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It waits for its endpoints, and has for a while.
    Idle,
    /// It goes on.
    GoesOn,
    /// It is reading more.
    Reads,
}

/// Returns who is to forget, so that no more than so many are remembered.
pub(super) fn too_much(mut remembered: Vec<Remembered>, max: usize) -> Vec<JobId> {
    remembered.retain(|it| it.count > 0);
    let mut forgetting = Vec::new();
    loop {
        let all: usize = remembered.iter().map(|it| it.count).sum();
        let first = remembered.iter().map(|it| it.standing).min();
        let Some(first) = first.filter(|_| all > max) else { return forgetting };
        let mut by_tenant: BTreeMap<&TenantId, usize> = BTreeMap::new();
        for Remembered { tenant, count, .. } in remembered.iter().filter(|it| it.standing == first)
        {
            *by_tenant.entry(tenant).or_default() += count;
        }
        let most = by_tenant.into_iter().max_by_key(|(_, count)| *count);
        let Some((tenant, _)) = most else { return forgetting };
        let its = remembered.iter().enumerate();
        let its = its.filter(|(_, it)| it.tenant == *tenant && it.standing == first);
        let latest = its.max_by_key(|(_, it)| (it.last_turn, it.job)).map(|(place, _)| place);
        let Some(place) = latest else { return forgetting };
        forgetting.push(remembered.swap_remove(place).job);
    }
}

/// Returns which of those that are idle are to forget, so that there is room for so many more: the
/// ones that had their last turn the longest ago. None, if that is not enough.
pub(super) fn room_for(needed: usize, mut remembered: Vec<Remembered>, max: usize) -> Vec<JobId> {
    let mut all: usize = remembered.iter().map(|it| it.count).sum();
    remembered.retain(|it| it.count > 0 && it.standing == Standing::Idle);
    remembered.sort_unstable_by_key(|it| (it.last_turn, it.job));
    let mut forgetting = Vec::new();
    for it in remembered {
        if all.saturating_add(needed) <= max {
            return forgetting;
        }
        all -= it.count;
        forgetting.push(it.job);
    }
    if all.saturating_add(needed) <= max { forgetting } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Timestamp;

    use super::*;

    fn job(n: u8) -> JobId {
        JobId::new(Timestamp::EPOCH, [n; 10])
    }

    fn remembered(tenant: &str, n: u8, last_turn: u64, count: usize) -> Remembered {
        let tenant = tenant.parse().unwrap();
        let (last_turn, standing) = (Some(last_turn), Standing::GoesOn);
        Remembered { tenant, last_turn, job: job(n), count, standing }
    }

    #[test]
    fn who_had_its_turn_last_forgets_of_the_tenant_that_remembers_the_most() {
        let all = [
            remembered("many", 1, 10, 200),
            remembered("many", 2, 30, 200),
            remembered("many", 3, 40, 0),
            remembered("many", 4, 20, 200),
            remembered("few", 5, 50, 300),
        ];
        assert_eq!(too_much(all.to_vec(), 900), []);
        assert_eq!(too_much(all.to_vec(), 899), [job(2)]);
        assert_eq!(too_much(all.to_vec(), 600), [job(2), job(4)]);
        assert_eq!(too_much(all.to_vec(), 400), [job(2), job(4), job(5)]);
        assert_eq!(too_much(all.to_vec(), 0).len(), 4);
    }

    /// Six of which five have room: each looks once, and the sixth waits until there is room.
    #[test]
    fn who_has_its_turn_soonest_does_not_forget() {
        let (mut known, mut last_turn) = ([0; 6], [0; 6]);
        let (mut in_line, mut looked) = ([false; 6], [0; 6]);
        for turn in 0..60 {
            let its = usize::try_from(turn % 6).unwrap();
            if in_line[its] && known.iter().sum::<usize>() + 200 > 1_000 {
                continue;
            }
            (in_line[its], last_turn[its]) = (false, turn + 1);
            if known[its] == 0 {
                known[its] = 200;
                looked[its] += 1;
            }
            let all = (0..6_u8).map(|n| {
                let place = usize::from(n);
                remembered("one", n, last_turn[place], known[place])
            });
            for forgetting in too_much(all.collect(), 1_000) {
                let place = (0..6).position(|n| job(n) == forgetting).unwrap();
                (known[place], in_line[place]) = (0, true);
            }
        }
        assert_eq!(looked, [1; 6]);
        assert_eq!(in_line, [false, false, false, false, false, true]);
    }

    #[test]
    fn who_waits_for_its_endpoints_forgets_first_and_who_reads_last() {
        let of = |n: u8, count, standing| Remembered {
            standing,
            ..remembered(&format!("tenant-{n}"), n, u64::from(n), count)
        };
        let all = [
            of(1, 300, Standing::Reads),
            of(2, 200, Standing::GoesOn),
            of(3, 100, Standing::Idle),
            of(4, 100, Standing::Idle),
        ];
        let forgetting = |max| too_much(all.to_vec(), max);
        assert_eq!(forgetting(699), [job(4)]);
        assert_eq!(forgetting(599), [job(4), job(3)]);
        assert_eq!(forgetting(499), [job(4), job(3), job(2)]);
        assert_eq!(forgetting(299), [job(4), job(3), job(2), job(1)]);
    }

    #[test]
    fn tenants_whose_endpoints_are_down_make_room_for_others() {
        let down = |n: u8| Remembered {
            standing: Standing::Idle,
            ..remembered(&format!("tenant-{n}"), n, u64::from(n), 200)
        };
        let five: Vec<_> = (1..=5).map(down).collect();
        assert_eq!(room_for(200, five.clone(), 1_000), [job(1)]);
        assert_eq!(room_for(300, five.clone(), 1_000), [job(1), job(2)]);
        assert_eq!(room_for(0, five.clone(), 1_000), []);
        // Whoever goes on is waited for.
        let going = five.iter().cloned().map(|it| Remembered { standing: Standing::GoesOn, ..it });
        assert_eq!(room_for(200, going.clone().collect(), 1_000), []);
        let mixed = going.take(4).chain([down(5)]).collect::<Vec<_>>();
        assert_eq!(room_for(200, mixed.clone(), 1_000), [job(5)]);
        assert_eq!(room_for(201, mixed, 1_000), []);
    }
}
