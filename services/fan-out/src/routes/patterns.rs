//! Type patterns as a tree of tokens, so that choosing costs what is chosen.
//!
//! ```text
//! invoice ─┬─ paid   endpoints of `invoice.paid`
//!          ├─ *      endpoints of `invoice.*`
//!          └─ (rest) endpoints of `invoice.>`
//! ```

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{EndpointId, EventType, TypePattern};

/// The patterns of one tenant's endpoints.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// Whose patterns end here.
    ending: BTreeSet<EndpointId>,
    /// Whose patterns go on with `>`.
    rest: BTreeSet<EndpointId>,
    /// Where patterns go on with `*`.
    any: Option<Box<Self>>,
    /// Where patterns go on with this very token.
    literal: BTreeMap<Box<str>, Self>,
}

impl Patterns {
    /// Notes that an endpoint has a pattern.
    pub(crate) fn insert(&mut self, pattern: &TypePattern, endpoint: EndpointId) {
        let mut node = &mut self.root;
        for token in pattern.tokens() {
            node = match token {
                ">" => {
                    node.rest.insert(endpoint);
                    return;
                }
                "*" => node.any.get_or_insert_default(),
                literal => node.literal.entry(Box::from(literal)).or_default(),
            };
        }
        node.ending.insert(endpoint);
    }

    /// Notes that an endpoint no longer has a pattern.
    pub(crate) fn remove(&mut self, pattern: &TypePattern, endpoint: EndpointId) {
        self.root.remove(pattern.tokens(), endpoint);
    }

    /// Returns every endpoint that has a pattern for the type, in order and once.
    pub(crate) fn choose(&self, event_type: &EventType) -> Vec<EndpointId> {
        let tokens: Vec<&str> = event_type.tokens().collect();
        let mut found = Vec::new();
        self.root.choose(&tokens, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Tells whether nobody has a pattern.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl Node {
    fn choose(&self, tokens: &[&str], found: &mut Vec<EndpointId>) {
        let Some((token, others)) = tokens.split_first() else {
            found.extend(&self.ending);
            return;
        };
        found.extend(&self.rest);
        if let Some(any) = &self.any {
            any.choose(others, found);
        }
        if let Some(next) = self.literal.get(*token) {
            next.choose(others, found);
        }
    }

    fn remove<'a>(&mut self, mut tokens: impl Iterator<Item = &'a str>, endpoint: EndpointId) {
        // Recursion through `impl Iterator` would never end for the compiler.
        let tokens: &mut dyn Iterator<Item = &'a str> = &mut tokens;
        match tokens.next() {
            None => {
                self.ending.remove(&endpoint);
            }
            Some(">") => {
                self.rest.remove(&endpoint);
            }
            Some("*") => {
                if let Some(any) = &mut self.any {
                    any.remove(tokens, endpoint);
                    self.any.take_if(|any| any.is_empty());
                }
            }
            Some(literal) => {
                if let Some(next) = self.literal.get_mut(literal) {
                    next.remove(tokens, endpoint);
                    if next.is_empty() {
                        self.literal.remove(literal);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.ending.is_empty()
            && self.rest.is_empty()
            && self.any.is_none()
            && self.literal.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::Timestamp;

    use super::*;

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::new(Timestamp::EPOCH, [number; 10])
    }

    fn chosen(patterns: &Patterns, event_type: &str) -> Vec<EndpointId> {
        patterns.choose(&event_type.parse().unwrap())
    }

    #[test]
    fn an_endpoint_is_chosen_once_however_many_patterns_match() {
        let mut patterns = Patterns::default();
        for pattern in ["a.b", "a.*", "a.>", ">", "*.b"] {
            patterns.insert(&pattern.parse().unwrap(), endpoint(1));
        }
        assert_eq!(chosen(&patterns, "a.b"), [endpoint(1)]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let all = ["a.b", "a.*", "a.>", ">", "*.b", "a", "*"];
        let mut patterns = Patterns::default();
        for pattern in all {
            patterns.insert(&pattern.parse().unwrap(), endpoint(1));
            patterns.insert(&pattern.parse().unwrap(), endpoint(2));
        }
        for pattern in all {
            patterns.remove(&pattern.parse().unwrap(), endpoint(1));
        }
        assert_eq!(chosen(&patterns, "a.b"), [endpoint(2)]);
        for pattern in all {
            patterns.remove(&pattern.parse().unwrap(), endpoint(2));
            patterns.remove(&"never.there".parse().unwrap(), endpoint(2));
        }
        assert!(patterns.is_empty());
    }
}
