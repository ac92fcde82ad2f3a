//! Whose alarms are on their way to the servers.

use std::collections::BTreeMap;

use fanfare_domain::DeliveryId;

/// See the module. A delivery can have two: a rescue, and the one of a new plan.
#[derive(Debug, Default)]
pub(super) struct Setting(BTreeMap<DeliveryId, usize>);

impl Setting {
    /// Notes that an alarm is sent.
    pub(super) fn begin(&mut self, delivery: DeliveryId) {
        *self.0.entry(delivery).or_default() += 1;
    }

    /// Notes that it is set, or will not be.
    pub(super) fn end(&mut self, delivery: DeliveryId) {
        let Some(count) = self.0.get_mut(&delivery) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&delivery);
        }
    }

    /// Tells whether one is on its way.
    pub(super) fn contains(&self, delivery: DeliveryId) -> bool {
        self.0.contains_key(&delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_free_when_the_last_of_its_alarms_has_arrived() {
        let (one, other) = (DeliveryId::from_bytes([1; 16]), DeliveryId::from_bytes([2; 16]));
        let mut setting = Setting::default();
        for delivery in [one, one, other] {
            setting.begin(delivery);
        }
        setting.end(one);
        assert!(setting.contains(one) && setting.contains(other));
        setting.end(one);
        assert!(!setting.contains(one) && setting.contains(other));
        setting.end(one);
        assert!(!setting.contains(one));
    }
}
