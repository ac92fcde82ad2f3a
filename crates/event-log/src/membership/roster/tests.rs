//! Several rosters against one table, without any servers: what one writes the others see.

use std::time::Duration;

use super::*;

const BEAT: Duration = Duration::from_millis(200);

fn count() -> ShardCount {
    ShardCount::new(16).unwrap()
}

/// Members, and the bucket that they share.
struct World {
    now: Instant,
    sequence: u64,
    table: (u64, Owners),
    /// By id: the roster, its last beat, whether it still beats.
    members: BTreeMap<Arc<str>, (Roster, u64, bool)>,
    evicted: BTreeSet<Arc<str>>,
}

impl World {
    fn new() -> Self {
        let table = (0, Owners::default());
        let (members, evicted) = (BTreeMap::new(), BTreeSet::new());
        Self { now: Instant::now(), sequence: 0, table, members, evicted }
    }

    fn with(ids: &[&str]) -> Self {
        let mut world = Self::new();
        for id in ids {
            world.join(id);
        }
        world.settle();
        world
    }

    fn join(&mut self, id: &str) {
        let id: Arc<str> = Arc::from(id);
        let mut roster = Roster::new(count(), Arc::clone(&id), 0);
        for (other, (_, beat, _)) in &self.members {
            let state = Some(State::Live).filter(|_| !self.evicted.contains(other));
            roster.saw_member(other, *beat, state, self.now);
        }
        roster.saw_table(self.table.0, self.table.1.clone(), self.now);
        self.sequence += 1;
        let live = Some(State::Live);
        self.tell(|roster, now, sequence| roster.saw_member(&id, sequence, live, now));
        self.members.insert(id, (roster, self.sequence, true));
    }

    /// One beat of everybody who beats, seen by everybody who beats.
    fn beat(&mut self) {
        self.now += BEAT;
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            if !self.members[id].2 {
                continue;
            }
            self.sequence += 1;
            self.members.get_mut(id).unwrap().1 = self.sequence;
            let state = if self.members[id].0.leaving { State::Leaving } else { State::Live };
            self.tell(|roster, now, sequence| roster.saw_member(id, sequence, Some(state), now));
        }
    }

    /// Shows something to everybody who beats.
    fn tell(&mut self, show: impl Fn(&mut Roster, Instant, u64)) {
        for (roster, _, beats) in self.members.values_mut() {
            if *beats {
                show(roster, self.now, self.sequence);
            }
        }
    }

    /// Lets everybody decide and write until nobody wants anything else. What is to be yielded is
    /// released at once.
    fn settle(&mut self) {
        self.beat();
        self.beat();
        self.write();
    }

    fn write(&mut self) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for _ in 0..100 {
            let mut quiet = true;
            for id in &ids {
                let (roster, _, beats) = self.members.get_mut(id).unwrap();
                if !*beats {
                    continue;
                }
                let wanted = roster.decide();
                for shard in roster.yielding.clone() {
                    roster.release(roster.granted[&shard]);
                    quiet = false;
                }
                let Some((expected, owners)) = wanted else { continue };
                quiet = false;
                if expected == self.table.0 {
                    self.sequence += 1;
                    self.table = (self.sequence, owners);
                    let (sequence, owners) = self.table.clone();
                    self.tell(|roster, now, _| roster.saw_table(sequence, owners.clone(), now));
                }
            }
            self.nobody_shares();
            if quiet {
                return;
            }
        }
        panic!("they do not come to rest");
    }

    /// No shard is worked on by two at once.
    fn nobody_shares(&self) {
        let mut working = BTreeSet::new();
        for (roster, _, beats) in self.members.values() {
            for shard in roster.granted.keys().filter(|_| *beats) {
                assert!(working.insert(*shard), "{shard} is worked on twice");
            }
        }
    }

    fn loads(&self) -> Vec<usize> {
        let living = self.members.values().filter(|(.., beats)| *beats);
        living.map(|(roster, ..)| roster.grants().0.len()).collect()
    }

    fn evict(&mut self, by: &str) -> Vec<Arc<str>> {
        let roster = &self.members[by].0;
        let dead: Vec<_> =
            roster.deaths().dead().map(|(id, beat)| (Arc::clone(id), beat)).collect();
        for (id, beat) in &dead {
            let last = self.members.get(id).map_or(0, |member| member.1);
            assert_eq!(last, *beat, "eviction is at the last beat");
            self.sequence += 1;
            self.evicted.insert(Arc::clone(id));
            self.tell(|roster, now, sequence| roster.saw_member(id, sequence, None, now));
        }
        dead.into_iter().map(|(id, _)| id).collect()
    }
}

#[test]
fn a_lone_member_takes_everything_once_it_knows_to_be_alone() {
    let mut world = World::new();
    world.join("a");
    world.beat();
    assert_eq!(world.members["a"].0.own_beats, 1);
    world.write();
    assert_eq!(world.loads(), [0]);
    world.settle();
    assert_eq!(world.loads(), [16]);
}

#[test]
fn members_that_begin_together_share() {
    assert_eq!(World::with(&["a", "b"]).loads(), [8, 8]);
    let mut loads = World::with(&["a", "b", "c"]).loads();
    loads.sort_unstable();
    assert_eq!(loads, [5, 5, 6]);
}

#[test]
fn one_who_joins_gets_what_the_others_release() {
    let mut world = World::with(&["a", "b"]);
    let before = world.members["a"].0.grants().0;
    world.join("c");
    world.settle();
    assert_eq!(world.loads().iter().sum::<usize>(), 16);
    assert!(world.loads().iter().all(|load| (5..=6).contains(load)));
    let after = world.members["a"].0.grants().0;
    assert!(after.is_subset(&before), "the old member's grants go on without interruption");
}

#[test]
fn one_who_leaves_gives_everything_away() {
    let mut world = World::with(&["a", "b"]);
    world.members.get_mut("a").unwrap().0.leave();
    assert!(world.members["a"].0.grants().0.is_empty(), "at once");
    assert_eq!(world.members["a"].0.held(), 8, "but it still holds them");
    world.settle();
    assert_eq!(world.loads(), [0, 16]);
    assert!(!world.members["a"].0.owns_any());
}

#[test]
fn the_dead_are_evicted_and_what_they_had_is_taken() {
    let mut world = World::with(&["a", "b"]);
    world.members.get_mut("a").unwrap().2 = false;
    for _ in 0..14 {
        world.beat();
        assert!(world.evict("b").is_empty());
        world.write();
    }
    assert_eq!(world.loads(), [8], "nothing is taken from one who may live");
    world.beat();
    assert_eq!(world.evict("b"), [Arc::from("a")]);
    world.write();
    assert_eq!(world.loads(), [16]);
}

#[test]
fn an_owner_of_whom_nobody_knows_is_waited_for_like_any_other() {
    let mut world = World::new();
    let owners = count().shards().map(|shard| (shard, Arc::from("unknown")));
    world.table = (1, Owners(owners.collect()));
    world.sequence = 1;
    world.join("a");
    world.settle();
    assert_eq!(world.loads(), [0]);
    for _ in 0..13 {
        world.beat();
        assert!(world.evict("a").is_empty());
    }
    world.beat();
    assert_eq!(world.evict("a"), [Arc::from("unknown")]);
    world.write();
    assert_eq!(world.loads(), [16]);
}

#[test]
fn what_is_given_up_is_granted_anew() {
    let mut world = World::with(&["a"]);
    let grant = *world.members["a"].0.grants().0.first().unwrap();
    let roster = &mut world.members.get_mut("a").unwrap().0;
    roster.release(grant);
    assert!(!roster.grants().0.contains(&grant));
    assert!(roster.decide().is_none(), "the table does not change");
    let again = *roster.grants().0.iter().find(|one| one.shard == grant.shard).unwrap();
    assert_ne!(again, grant);
    roster.release(grant);
    assert!(roster.grants().0.contains(&again), "a release is of one grant");
}

#[test]
fn what_somebody_else_wrote_to_be_its_own_is_let_go() {
    let mut world = World::with(&["a"]);
    let mut owners = world.table.1.clone();
    owners.0.insert(Shard::from_index(3), Arc::from("thief"));
    let roster = &mut world.members.get_mut("a").unwrap().0;
    roster.saw_table(99, owners, world.now);
    roster.decide();
    assert_eq!((roster.grants().0.len(), roster.held()), (15, 16));
}

#[test]
fn an_older_table_is_passed_over_and_a_deleted_one_is_not() {
    let mut world = World::with(&["a"]);
    let roster = &mut world.members.get_mut("a").unwrap().0;
    roster.saw_table(1, Owners::default(), world.now);
    assert!(roster.owns_any());
    roster.saw_table(0, Owners::default(), world.now);
    assert!(!roster.owns_any());
}

#[test]
fn any_order_of_comings_and_goings_comes_to_rest_without_sharing() {
    for seed in 0..200_u64 {
        let mut world = World::with(&["m0", "m1"]);
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for number in 2..14 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let living: Vec<_> = world.members.iter().filter(|(_, one)| one.2).collect();
            let at = usize::try_from(dice % 97).unwrap() % living.len();
            let (chosen, alone) = (Arc::clone(living[at].0), living.len() == 1);
            match dice % 3 {
                0 if !alone => world.members.get_mut(&chosen).unwrap().2 = false,
                1 if !alone => world.members.get_mut(&chosen).unwrap().0.leave(),
                _ => world.join(&format!("m{number}")),
            }
            // Some of these are too short for anybody to count as dead.
            for _ in 0..dice % 23 {
                world.beat();
                let judge = Arc::clone(world.members.iter().find(|(_, one)| one.2).unwrap().0);
                world.evict(&judge);
                world.write();
            }
        }
        for _ in 0..20 {
            world.beat();
            let judge = Arc::clone(world.members.iter().find(|(_, one)| one.2).unwrap().0);
            world.evict(&judge);
            world.write();
        }
        let staying = world.members.values().filter(|(roster, _, beats)| *beats && !roster.leaving);
        let loads: Vec<_> = staying.map(|(roster, ..)| roster.grants().0.len()).collect();
        let total: usize = loads.iter().sum();
        assert_eq!(total, if loads.is_empty() { 0 } else { 16 }, "seed {seed}: {loads:?}");
    }
}
