//! Who is to forget what is on record, where replays remember too much of it together. Pure.
//!
//! It is asked of the tenant whose replays remember the most, so that nobody forgets because of
//! others who have many; and of the one that had its turn last, since the others need theirs before.

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
}

/// Returns who is to forget, so that no more than so many are remembered.
pub(super) fn too_much(mut remembered: Vec<Remembered>, max: usize) -> Vec<JobId> {
    remembered.retain(|it| it.count > 0);
    let mut forgetting = Vec::new();
    loop {
        let mut by_tenant: BTreeMap<&TenantId, usize> = BTreeMap::new();
        for Remembered { tenant, count, .. } in &remembered {
            *by_tenant.entry(tenant).or_default() += count;
        }
        let all: usize = by_tenant.values().sum();
        let most = by_tenant.into_iter().max_by_key(|(_, count)| *count);
        let Some((tenant, _)) = most.filter(|_| all > max) else { return forgetting };
        let its = remembered.iter().enumerate().filter(|(_, it)| it.tenant == *tenant);
        let latest = its.max_by_key(|(_, it)| (it.last_turn, it.job)).map(|(place, _)| place);
        let Some(place) = latest else { return forgetting };
        forgetting.push(remembered.swap_remove(place).job);
    }
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
        Remembered { tenant, last_turn: Some(last_turn), job: job(n), count }
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
                (known[usize::from(place)], in_line[usize::from(place)]) = (0, true);
            }
        }
        assert_eq!(looked, [1; 6]);
        assert_eq!(in_line, [false, false, false, false, false, true]);
    }
}
