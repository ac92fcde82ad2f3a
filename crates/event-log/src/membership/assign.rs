//! Which member is to own which shard. Pure: every member comes to the same answer.
//!
//! Rendezvous hashing with bounded load: each pair of shard and member has a weight of its own, and
//! the heaviest pairs are taken first as long as the member has room. So nobody owns more than the
//! mean rounded up or less than the mean rounded down, and when a member comes or goes, most
//! shards stay where they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fanfare_domain::{Shard, ShardCount};
use sha2::{Digest as _, Sha256};

/// Who is to own each shard; nothing if there are no members.
pub(super) type Assignment = BTreeMap<Shard, Arc<str>>;

/// Spreads the shards over the members.
pub(super) fn assign(shards: ShardCount, members: &BTreeSet<Arc<str>>) -> Assignment {
    let mut pairs: Vec<_> = members
        .iter()
        .flat_map(|member| {
            let seed = seed(member);
            shards.shards().map(move |shard| (weight(seed, shard), shard, member))
        })
        .collect();
    pairs.sort_unstable_by(|one, other| other.cmp(one));
    let mean = usize::from(shards.get()).checked_div(members.len()).unwrap_or_default();
    let mut assignment = Assignment::new();
    let mut loads: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    // Everybody gets the mean rounded down; then what is left goes round, one for each.
    for room in [mean, mean + 1] {
        for (_, shard, member) in &pairs {
            let load = loads.entry(member).or_default();
            if *load < room && !assignment.contains_key(shard) {
                *load += 1;
                assignment.insert(*shard, Arc::clone(member));
            }
        }
    }
    assignment
}

fn seed(member: &str) -> u64 {
    Sha256::digest(member).first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// The finaliser of `splitmix64`: neighbouring inputs give unrelated outputs.
fn weight(seed: u64, shard: Shard) -> u64 {
    let step = u64::from(shard.index()).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = seed.wrapping_add(step);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [u16; 7] = [1, 3, 4, 16, 64, 100, 256];

    fn count(shards: u16) -> ShardCount {
        ShardCount::new(shards).unwrap()
    }

    fn members(run: usize, size: usize) -> BTreeSet<Arc<str>> {
        (0..size).map(|number| format!("dispatcher-{run:04x}-{number:08x}").into()).collect()
    }

    fn loads(assignment: &Assignment) -> BTreeMap<&str, usize> {
        let mut loads = BTreeMap::new();
        for member in assignment.values() {
            *loads.entry(&**member).or_default() += 1;
        }
        loads
    }

    fn moved(before: &Assignment, after: &Assignment) -> usize {
        before.iter().filter(|(shard, member)| after.get(shard) != Some(member)).count()
    }

    #[test]
    fn every_shard_has_an_owner_and_nobody_is_far_from_the_mean() {
        for (shards, size, run) in
            COUNTS.into_iter().flat_map(|shards| (1..12).map(move |size| (shards, size, size * 7)))
        {
            let members = members(run, size);
            let assignment = assign(count(shards), &members);
            let shards = usize::from(shards);
            assert_eq!(assignment.len(), shards);
            let loads = loads(&assignment);
            for member in &members {
                let load = loads.get(&**member).copied().unwrap_or_default();
                let allowed = shards / size..=shards.div_ceil(size);
                assert!(allowed.contains(&load), "{load} of {shards} for one of {size}");
            }
        }
    }

    #[test]
    fn without_members_nothing_is_assigned() {
        assert!(assign(count(4), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_lone_member_owns_everything_and_a_second_takes_exactly_half() {
        for run in 0..50 {
            let (one, two) = (members(run, 1), members(run, 2));
            let before = assign(count(16), &one);
            let after = assign(count(16), &two);
            assert_eq!(loads(&before).values().copied().collect::<Vec<_>>(), [16]);
            assert_eq!(moved(&before, &after), 8);
        }
    }

    #[test]
    fn a_member_that_comes_or_goes_moves_little_more_than_its_share() {
        for (shards, size) in [(16, 2), (16, 3), (64, 2), (64, 3), (64, 7), (256, 4), (256, 9)] {
            let runs = 40;
            let mut total = 0;
            for run in 0..runs {
                let after = members(run, size + 1);
                let mut before = after.clone();
                let newest = after.iter().nth(run % (size + 1)).cloned().unwrap();
                before.remove(&newest);
                let moved = moved(&assign(count(shards), &before), &assign(count(shards), &after));
                let share = usize::from(shards).div_ceil(size + 1);
                assert!(moved <= share * 2 + size, "{moved} of {shards} to one more than {size}");
                total += moved;
            }
            let fair = usize::from(shards) * runs / (size + 1);
            assert!(total * 10 <= fair * 17, "{total} moved where {fair} have to: {shards}/{size}");
        }
    }

    #[test]
    fn the_spread_is_the_same_everywhere() {
        let assignment = assign(count(8), &["a", "b", "c"].map(Arc::from).into());
        let owners: Vec<&str> = assignment.values().map(|member| &**member).collect();
        // Processes of different versions have to agree: this never changes.
        assert_eq!(owners, EXPECTED);
    }

    const EXPECTED: [&str; 8] = ["c", "a", "a", "c", "a", "c", "b", "b"];
}
