//! Filters as a provider's users write them, and what they mean.

use super::Profile;
use crate::{TypePattern, event_type::MalformedPattern};

/// How a provider's users write which event types they want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRules {
    /// What a filter of one plain word means.
    pub word: WordMeaning,
    /// What a filter that is only a star means.
    pub star: StarMeaning,
    /// What an endpoint gets that names no filter; empty if it must name one.
    pub default: Vec<TypePattern>,
}

/// What a filter of one word means, for example `RAMP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WordMeaning {
    /// The event type of that name.
    Type,
    /// All event types of two tokens that begin with it: `RAMP.*`.
    FirstToken,
}

/// What a filter that is only a star means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StarMeaning {
    /// Event types of one token, as in NATS.
    Token,
    /// All event types.
    Everything,
}

/// Filters that an endpoint cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterRefused {
    /// One of them is no pattern.
    #[error("filter {text:?}")]
    Malformed {
        /// The filter's first 64 characters.
        text: String,
        /// What a pattern is.
        #[source]
        cause: MalformedPattern,
    },
    /// There is none.
    #[error("an endpoint needs at least one event type")]
    None,
    /// There are too many.
    #[error("{count} filters are more than the {max} that are allowed", max = FilterRules::COUNT_MAX)]
    TooMany {
        /// How many they are.
        count: usize,
    },
}

impl FilterRules {
    /// The most filters of an endpoint.
    pub const COUNT_MAX: usize = 100;

    /// Returns the pattern that a filter means.
    pub fn pattern(&self, text: &str) -> Result<TypePattern, FilterRefused> {
        let malformed =
            |cause| FilterRefused::Malformed { text: text.chars().take(64).collect(), cause };
        match (self.star, self.word) {
            (StarMeaning::Everything, _) if text == "*" => ">".parse().map_err(malformed),
            (_, WordMeaning::FirstToken) if is_word(text) => {
                format!("{text}.*").parse().map_err(malformed)
            }
            (StarMeaning::Everything | StarMeaning::Token, _) => text.parse().map_err(malformed),
        }
    }

    /// Returns the patterns that an endpoint's filters mean, each once and in their order.
    pub fn patterns<'a>(
        &self,
        filters: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<TypePattern>, FilterRefused> {
        let mut patterns = Vec::new();
        let mut count = 0;
        for text in filters {
            count += 1;
            if count > Self::COUNT_MAX {
                continue;
            }
            let pattern = self.pattern(text)?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        match count {
            0 if self.default.is_empty() => Err(FilterRefused::None),
            0 => Ok(self.default.clone()),
            count if count > Self::COUNT_MAX => Err(FilterRefused::TooMany { count }),
            _ => Ok(patterns),
        }
    }

    /// Returns how the provider's users would write the pattern.
    pub fn show<'a>(&self, pattern: &'a TypePattern) -> &'a str {
        let text = pattern.as_str();
        match (self.star, self.word) {
            (StarMeaning::Everything, _) if text == ">" => "*",
            (_, WordMeaning::FirstToken) => {
                text.strip_suffix(".*").filter(|word| is_word(word)).unwrap_or(text)
            }
            (StarMeaning::Everything | StarMeaning::Token, WordMeaning::Type) => text,
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(['.', '*', '>'])
}

impl Profile {
    /// Returns how filters are written.
    pub const fn filters(&self) -> &FilterRules {
        &self.filters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profiles;

    fn rules(name: &str) -> FilterRules {
        Profiles::built_in().get(name).unwrap().filters().clone()
    }

    #[test]
    fn filters_mean_what_the_providers_users_expect() {
        for (name, text, pattern) in [
            ("killb", "RAMP", "RAMP.*"),
            ("killb", "CUSTODIAL_ACCOUNT", "CUSTODIAL_ACCOUNT.*"),
            ("killb", "RAMP.UPDATE", "RAMP.UPDATE"),
            ("kyberaccess", "*", ">"),
            ("kyberaccess", "emergency.*", "emergency.*"),
            ("kyberaccess", "visitor.denied", "visitor.denied"),
            ("kryptos", "integration.created", "integration.created"),
            ("standard-webhooks", "*", "*"),
            ("standard-webhooks", "invoice.>", "invoice.>"),
            ("standard-webhooks", "invoice", "invoice"),
        ] {
            let meant = rules(name).pattern(text).unwrap();
            assert_eq!(meant.as_str(), pattern, "{name} {text}");
            assert_eq!(rules(name).show(&meant), text, "{name} {text}");
        }
    }

    #[test]
    fn an_endpoint_has_one_to_a_hundred_filters() {
        let kryptos = rules("kryptos");
        assert_eq!(kryptos.patterns([]), Err(FilterRefused::None));
        assert_eq!(kryptos.patterns(["a", "a", "b"]).unwrap().len(), 2);
        assert_eq!(kryptos.patterns(["a"; 101]), Err(FilterRefused::TooMany { count: 101 }));
        assert!(matches!(kryptos.patterns(["a b"]), Err(FilterRefused::Malformed { .. })));
        assert!(matches!(rules("killb").patterns([""]), Err(FilterRefused::Malformed { .. })));
        let everything = rules("standard-webhooks").patterns([]).unwrap();
        assert_eq!(everything.iter().map(TypePattern::as_str).collect::<Vec<_>>(), [">"]);
    }
}
