//! The rules of endpoints, as a shard saw them last: asked for once per edition of the configuration,
//! and not for each attempt.

use std::cell::{Cell, RefCell};

use fanfare_domain::EndpointId;
use foldhash::{HashMap, HashMapExt as _};

use crate::{attempt::Desk, lanes::Rules};

/// How many endpoints' rules are kept; with more, all are forgotten and asked for again.
const KEPT_MAX: usize = 16_384;

/// See the module.
#[derive(Default)]
pub(crate) struct Rulebook {
    kept: RefCell<Kept>,
    changed: Cell<bool>,
}

#[derive(Default)]
struct Kept {
    /// The revision of CONFIG that they are of, or older than.
    revision: u64,
    rules: HashMap<EndpointId, Rules>,
}

impl Rulebook {
    /// Forgets what a change of the configuration may have changed.
    pub(crate) fn renew(&self, desk: &Desk) {
        // Asked before the rules are: they are of this revision or a later one.
        let revision = desk.revision();
        let mut kept = self.kept.borrow_mut();
        if kept.revision != revision || kept.rules.len() >= KEPT_MAX {
            self.changed.set(self.changed.get() || kept.revision != revision);
            *kept = Kept { revision, rules: HashMap::new() };
        }
    }

    /// Tells whether the configuration has changed since this was asked before.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.replace(false)
    }

    /// Returns an endpoint's rules as of the last [`Self::renew`], or later.
    pub(crate) fn rules(&self, desk: &Desk, endpoint: EndpointId) -> Rules {
        let mut kept = self.kept.borrow_mut();
        *kept.rules.entry(endpoint).or_insert_with(|| desk.rules(endpoint))
    }
}
