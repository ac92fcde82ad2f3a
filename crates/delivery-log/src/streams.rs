//! Which streams the tables are folded from.

/// The streams of an installation, each as a text that another stream never has: its name and when it
/// was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// EVENTS.
    pub events: String,
    /// JOURNAL.
    pub journal: String,
    /// CONFIG.
    pub config: String,
    /// INBOX, by which older versions knew an installation. Nothing is folded from it.
    pub inbox: String,
}

impl Streams {
    /// The text that stands in the tables.
    pub(crate) fn installation(&self) -> String {
        let Self { events, journal, config, inbox: _ } = self;
        format!("{events} {journal} {config}")
    }

    /// Whether tables that bear this text are folded from these streams.
    pub(crate) fn are(&self, installation: &str) -> bool {
        installation == self.inbox || installation == self.installation()
    }

    /// Whether the audit beside tables that bear this text is of this CONFIG. Older texts do not say.
    pub(crate) fn have_audit_of(&self, installation: &str) -> bool {
        let config = installation.rsplit(' ').next();
        installation == self.inbox || config == Some(self.config.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_the_streams_and_older_ones_by_inbox() {
        let streams = |events: &str, config: &str| Streams {
            events: String::from(events),
            journal: String::from("JOURNAL@1"),
            config: String::from(config),
            inbox: String::from("INBOX@1"),
        };
        let ours = streams("EVENTS@1", "CONFIG@1");
        assert!(ours.are(&ours.installation()) && ours.are("INBOX@1"));
        assert!(!ours.are("INBOX@2") && !ours.are(""));
        let other_events = streams("EVENTS@2", "CONFIG@1").installation();
        assert!(!ours.are(&other_events) && ours.have_audit_of(&other_events));
        let other_config = streams("EVENTS@1", "CONFIG@2").installation();
        assert!(!ours.are(&other_config) && !ours.have_audit_of(&other_config));
        assert!(ours.have_audit_of("INBOX@1") && !ours.have_audit_of("INBOX@2"));
    }
}
