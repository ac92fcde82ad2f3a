//! Telling of the same thing now and then only.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::Timestamp;

/// How many things are remembered.
const KEYS_MAX: usize = 256;

/// Says when something may be told in the log again, for each thing by itself: what one tenant does
/// often does not hide what another does. What is told of too many things at once is not told.
#[derive(Debug)]
pub struct Quiet<K> {
    every: Duration,
    /// When each may be told again.
    due: Mutex<BTreeMap<K, Timestamp>>,
}

impl<K: Ord> Quiet<K> {
    /// Each thing may be told once in a while, beginning now.
    pub const fn new(every: Duration) -> Self {
        Self { every, due: Mutex::new(BTreeMap::new()) }
    }

    /// Tells whether it may be told now, and takes it that it is.
    pub fn may_tell(&self, key: K, now: Timestamp) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if due.get(&key).is_some_and(|due| now < *due) {
            return false;
        }
        if due.len() >= KEYS_MAX {
            due.retain(|_, due| now < *due);
        }
        let has_room = due.len() < KEYS_MAX;
        if has_room {
            due.insert(key, now.saturating_add(self.every));
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_by_itself_and_few_are_remembered() {
        let quiet = Quiet::new(Duration::from_secs(10));
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
        assert!(quiet.may_tell(0, at(0)));
        assert!(!quiet.may_tell(0, at(9)));
        assert!(quiet.may_tell(1, at(9)));
        assert!(quiet.may_tell(0, at(10)));
        let told = (0..1_000).filter(|key| quiet.may_tell(*key, at(100))).count();
        assert_eq!(told, KEYS_MAX);
        assert!(quiet.due.lock().unwrap().len() <= KEYS_MAX);
        assert!(quiet.may_tell(5_000, at(200)), "the others are forgotten");
    }
}
