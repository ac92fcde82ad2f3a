//! How many requests an endpoint seems to bear at once: additive increase, multiplicative
//! decrease, below the cap that its owner set.

use fanfare_domain::{Timestamp, WindowMemory};

/// One request, in the unit of the window.
const ONE: u32 = 1_000;

/// The window of one endpoint. It begins fully open.
#[derive(Debug)]
pub(crate) struct Window {
    /// In thousandths of a request; `None` for as much as the cap allows.
    size: Option<u32>,
    /// Doubles with each round trip, until the first congestion.
    slow_start: bool,
    /// When it was last changed in a step; requests begun before do not shrink it again.
    stepped_at: Timestamp,
}

impl Window {
    /// A window that is fully open.
    pub(crate) const fn new() -> Self {
        Self { size: None, slow_start: false, stepped_at: Timestamp::EPOCH }
    }

    /// Goes on with the window of another owner, whose clock may have been ahead.
    pub(crate) fn of(memory: WindowMemory, now: Timestamp) -> Self {
        let WindowMemory { size, slow_start, stepped_at } = memory;
        Self { size: Some(size.max(ONE)), slow_start, stepped_at: stepped_at.min(now) }
    }

    /// What it has come to, for a hand-over; `None` if it is fully open.
    pub(crate) fn memory(&self) -> Option<WindowMemory> {
        let Self { size, slow_start, stepped_at } = *self;
        size.map(|size| WindowMemory { size, slow_start, stepped_at })
    }

    /// How many requests may be in flight, of at most `cap`; at least one.
    pub(crate) fn limit(&self, cap: u16) -> u16 {
        match self.size {
            None => cap.max(1),
            Some(size) => u16::try_from(size / ONE).unwrap_or(u16::MAX).min(cap).max(1),
        }
    }

    /// Tells whether it is fully open.
    pub(crate) const fn is_open(&self) -> bool {
        self.size.is_none()
    }

    /// Grows after a success: by one request with each round trip of a full window.
    pub(crate) fn grow(&mut self, cap: u16) {
        let Some(size) = &mut self.size else { return };
        let step = if self.slow_start { ONE } else { (ONE * ONE) / (*size).max(ONE) };
        *size = size.saturating_add(step.max(1));
        if *size >= u32::from(cap) * ONE {
            (self.size, self.slow_start) = (None, false);
        }
    }

    /// Halves after congestion, once for all requests that were in flight at the time.
    pub(crate) fn shrink(&mut self, cap: u16, started: Timestamp, now: Timestamp) {
        if started <= self.stepped_at && self.stepped_at > Timestamp::EPOCH {
            return;
        }
        let size = self.size.unwrap_or(u32::MAX).min(u32::from(cap.max(1)) * ONE);
        self.size = Some((size / 2).max(ONE));
        (self.slow_start, self.stepped_at) = (false, now);
    }

    /// Begins again with one request.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        (self.size, self.slow_start, self.stepped_at) = (Some(ONE), true, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn it_halves_once_per_round_trip() {
        let mut window = Window::new();
        assert_eq!(window.limit(16), 16);
        for _ in 0..16 {
            window.shrink(16, at(1), at(2));
        }
        assert_eq!(window.limit(16), 8);
        window.shrink(16, at(3), at(4));
        assert_eq!(window.limit(16), 4);
    }

    #[test]
    fn the_next_owner_goes_on_with_it() {
        assert_eq!(Window::new().memory(), None);
        let mut old = Window::new();
        old.shrink(16, at(1), at(2));
        let mut new = Window::of(old.memory().unwrap(), at(9));
        assert_eq!(new.limit(16), 8);
        new.shrink(16, at(1), at(3));
        assert_eq!(new.limit(16), 8, "that was begun before");
        let ahead = WindowMemory { stepped_at: at(99), ..old.memory().unwrap() };
        let mut new = Window::of(ahead, at(9));
        new.shrink(16, at(10), at(11));
        assert_eq!(new.limit(16), 4);
        old.restart(at(4));
        let mut new = Window::of(old.memory().unwrap(), at(9));
        new.grow(16);
        assert_eq!(new.limit(16), 2);
    }

    #[test]
    fn it_grows_by_one_with_each_round_trip_until_it_is_open() {
        let mut window = Window::new();
        window.shrink(16, at(1), at(2));
        for expected in 8_u16..16 {
            assert_eq!(window.limit(16), expected);
            for _ in 0..=expected {
                window.grow(16);
            }
        }
        assert!(window.is_open());
    }

    #[test]
    fn a_slow_start_doubles() {
        let mut window = Window::new();
        window.restart(at(1));
        for expected in [1, 2, 4, 8] {
            assert_eq!(window.limit(16), expected);
            for _ in 0..expected {
                window.grow(16);
            }
        }
        assert!(window.is_open());
    }

    proptest! {
        #[test]
        fn it_is_between_one_and_the_cap(
            steps in prop::collection::vec((any::<bool>(), 1_u16..40), 0..300),
        ) {
            let mut window = Window::new();
            for (which, (good, cap)) in steps.into_iter().enumerate() {
                let now = at(which as u64 + 1);
                if good { window.grow(cap) } else { window.shrink(cap, now, now) }
                prop_assert!((1..=cap).contains(&window.limit(cap)));
            }
        }
    }
}
