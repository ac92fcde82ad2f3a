//! Who is behind whom: the events of one ordering key of one tenant stand in line, and the next is
//! sent only once the one before it is stored.
//!
//! ```text
//! join ─▶ Place ─▶ reached (the one before has passed) ─▶ send ─▶ stored ─▶ pass ─▶ the next one
//!           └─ dropped without having passed: nobody behind it passes either
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::TenantId;
use tokio::sync::oneshot;

/// The lines of one reader of INBOX. Holds as much as is in hand. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Ends>>);

/// The last in each line.
#[derive(Default)]
struct Ends {
    last: HashMap<Line, Last>,
    /// The number of the next place.
    next: u64,
}

/// A key of a tenant.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Line(TenantId, String);

/// The last place in a line.
struct Last {
    number: u64,
    /// Told when it has passed; closed when it never will.
    passed: oneshot::Receiver<()>,
}

/// A place in a line. Dropping it keeps all behind it from passing.
pub(crate) struct Place {
    lines: Lines,
    line: Line,
    number: u64,
    /// Tells of the one before; absent if there is none, or it has passed.
    before: Option<oneshot::Receiver<()>>,
    behind: oneshot::Sender<()>,
}

impl Lines {
    /// Joins the end of a line.
    pub(crate) fn join(&self, tenant: &TenantId, key: &str) -> Place {
        let line = Line(tenant.clone(), key.to_owned());
        let (behind, passed) = oneshot::channel();
        let mut ends = self.ends();
        let number = ends.next;
        ends.next += 1;
        let before = ends.last.insert(line.clone(), Last { number, passed });
        let before = before.map(|last| last.passed);
        Place { lines: self.clone(), line, number, before, behind }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether nobody is before it.
    pub(crate) fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// Waits until it is first; `false` if it never will be. Cancel safe.
    pub(crate) async fn reached(&mut self) -> bool {
        if let Some(before) = &mut self.before {
            if before.await.is_err() {
                return false;
            }
            self.before = None;
        }
        true
    }

    /// Lets the next one be first.
    pub(crate) fn pass(self) {
        let Self { lines, line, number, behind, .. } = self;
        let mut ends = lines.ends();
        if ends.last.get(&line).is_some_and(|last| last.number == number) {
            ends.last.remove(&line);
        }
        // Whoever was behind may have gone, and nobody may be.
        let _unheard = behind.send(());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    fn is_reached(place: &mut Place) -> Option<bool> {
        place.reached().now_or_never()
    }

    #[test]
    fn one_passes_after_the_other() {
        let lines = Lines::default();
        let mut places: Vec<_> = (0..3).map(|_| lines.join(&acme(), "k")).collect();
        assert_eq!(places.iter().map(Place::is_first).collect::<Vec<_>>(), [true, false, false]);
        while !places.is_empty() {
            let reached: Vec<_> = places.iter_mut().map(is_reached).collect();
            assert_eq!(reached[0], Some(true));
            assert!(reached[1..].iter().all(Option::is_none), "{reached:?}");
            places.remove(0).pass();
        }
    }

    #[test]
    fn other_keys_and_tenants_have_lines_of_their_own() {
        let lines = Lines::default();
        let _first = lines.join(&acme(), "k");
        assert!(lines.join(&acme(), "other").is_first());
        assert!(lines.join(&"other".parse().unwrap(), "k").is_first());
        assert!(!lines.join(&acme(), "k").is_first());
    }

    #[test]
    fn behind_one_that_is_given_up_nobody_passes_ever() {
        let lines = Lines::default();
        let first = lines.join(&acme(), "k");
        let mut second = lines.join(&acme(), "k");
        drop(first);
        assert_eq!(is_reached(&mut second), Some(false));
        drop(second);
        let mut third = lines.join(&acme(), "k");
        assert_eq!(is_reached(&mut third), Some(false));
    }

    #[test]
    fn a_line_through_which_all_have_passed_is_forgotten() {
        let lines = Lines::default();
        let first = lines.join(&acme(), "k");
        let mut second = lines.join(&acme(), "k");
        first.pass();
        assert_eq!(lines.ends().last.len(), 1);
        assert_eq!(is_reached(&mut second), Some(true));
        second.pass();
        assert_eq!(lines.ends().last.len(), 0);
    }
}
