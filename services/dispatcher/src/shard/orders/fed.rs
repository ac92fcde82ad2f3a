//! First attempts that a person wants now, and that the endpoint's feed would make, maybe much later.
//!
//! The attempt is made first, like any other. The feed stands meanwhile if it comes to it, because the
//! delivery is live. Once there is a fact on record, and not before, it is noted with the feed that it
//! is to be passed over: so a crash in between loses nothing, and the command, which comes again, is
//! settled once that is stored.

use fanfare_domain::{DeliveryId, DeliveryRef, command::Aim, endpoint::Ordering};

use super::{Held, ShardWorker, Wish};
use crate::{feeds::Whose, ledger::Standing};

impl ShardWorker {
    /// Whether no task brings a delivery that nothing is on record about, or only that it was put off,
    /// but its endpoint's feed, which is not in order: then it may come before others.
    pub(super) fn is_brought_by_feed(&self, aim: &Aim) -> bool {
        let delivery = &aim.delivery;
        if self.rulebook.rules(&self.desk, delivery.endpoint).ordering != Ordering::None {
            return false;
        }
        let is_fed = || self.feeds.whose(delivery, false) != Whose::Task;
        let is_new = aim.untouched && self.ledger.standing(delivery.id) == Standing::Unknown;
        self.feeds.holds(delivery) || (is_new && is_fed())
    }

    /// Whether the feed that brings a delivery cannot let go of it yet.
    pub(super) fn waits_for_feed(&self, aim: &Aim) -> bool {
        self.is_brought_by_feed(aim) && !self.feeds.may_pass_over(&aim.delivery)
    }

    /// Whether an attempt of a delivery is on record.
    pub(super) fn is_begun(&self, delivery: DeliveryId) -> bool {
        match self.ledger.standing(delivery) {
            Standing::Unknown => false,
            Standing::Next(next) => next > 1,
            Standing::Concluded => true,
        }
    }

    /// Settles a command whose attempt is on record, or put off on record, once the endpoint's feed is
    /// sure not to make it too.
    pub(super) async fn tried(&mut self, delivery: Box<DeliveryRef>, held: Held) {
        let ordering = self.rulebook.rules(&self.desk, delivery.endpoint).ordering;
        // Where there is order, the feed has made it itself.
        if ordering != Ordering::None || self.feeds.remembers_made(&delivery) {
            self.orders.let_go(held).settle().await;
        } else {
            self.orders.ask_again(Wish::Retry, delivery, held);
        }
    }
}
