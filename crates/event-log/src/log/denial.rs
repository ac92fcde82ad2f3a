//! What the servers do not let our user do, as they say it.

use std::fmt;

/// How the servers begin to say it.
const VIOLATION: &str = "Permissions Violation for ";

/// Something that the servers do not let our user do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error(
    "this user of NATS may not {act} {subject}: grant it (`fanfare nats permissions` lists what each \
     service needs), or log in as the user that has it"
)]
pub struct Denial {
    /// What it may not do.
    pub act: Act,
    /// With which subject.
    pub subject: String,
}

/// What can be forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// To publish, or to ask.
    Publish,
    /// To subscribe.
    Subscribe,
}

impl Denial {
    /// Reads an error of a server's; `None` if it is about something else.
    pub(crate) fn read(said: &str) -> Option<Self> {
        let (_, about) = said.split_once(VIOLATION)?;
        let act = match about {
            about if about.starts_with("Publish") => Act::Publish,
            about if about.starts_with("Subscription") => Act::Subscribe,
            _ => return None,
        };
        let (_, rest) = about.split_once('"')?;
        let (subject, _) = rest.split_once('"')?;
        Some(Self { act, subject: subject.to_owned() })
    }

    /// Whether a question to this subject stays unanswered because of it: it was not asked, or
    /// nobody hears the answer.
    pub(crate) fn silences(&self, subject: &str) -> bool {
        match self.act {
            Act::Publish => self.subject == subject,
            Act::Subscribe => self.subject.starts_with("_INBOX"),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish to",
            Self::Subscribe => "subscribe to",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_read() {
        for (said, act, subject) in [
            (r#"nats: Permissions Violation for Publish to "a.b""#, Act::Publish, "a.b"),
            (r#"Permissions Violation for Publish with Reply of "r""#, Act::Publish, "r"),
            (r#"'Permissions Violation for Subscription to "c.>"'"#, Act::Subscribe, "c.>"),
            (
                r#"Permissions Violation for Subscription to "c" using queue "q""#,
                Act::Subscribe,
                "c",
            ),
        ] {
            let denial = Denial::read(said).unwrap();
            assert_eq!((denial.act, denial.subject.as_str()), (act, subject), "{said}");
            assert!(denial.to_string().contains(subject));
        }
        assert_eq!(Denial::read("nats: maximum connections exceeded"), None);
    }

    #[test]
    fn who_may_not_hear_answers_gets_none() {
        let denial = |act, subject: &str| Denial { act, subject: subject.to_owned() };
        assert!(denial(Act::Publish, "a").silences("a"));
        assert!(!denial(Act::Publish, "b").silences("a"));
        assert!(denial(Act::Subscribe, "_INBOX.x.*").silences("a"));
        assert!(!denial(Act::Subscribe, "a").silences("a"));
    }
}
