//! Filters: which event types a pattern chooses, asked pattern by pattern and of fan-out's index.
//!
//! Checked against a matcher that tries every way to cut a type. The first line of an input has
//! event types, each other line a pattern.

use std::collections::BTreeSet;

use fanfare_domain::{EndpointId, EventType, Profiles, TypePattern, profile::FilterRefused};
use fanfare_fan_out::fuzzing::Index;

use crate::input::text;

/// The most patterns and types that are looked at.
const COUNT_MAX: usize = 64;

/// Reads an input as types and patterns.
pub fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut lines = text.lines();
    let words = lines.next().unwrap_or_default().split(' ');
    let types: Vec<EventType> =
        words.take(COUNT_MAX).filter_map(|word| word.parse().ok()).collect();
    let texts: Vec<&str> = lines.take(COUNT_MAX).collect();
    for text in &texts {
        written(text, &types);
    }
    let patterns: Vec<TypePattern> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    indexed(&patterns, &types);
}

/// Asks the index, and empties it again.
fn indexed(patterns: &[TypePattern], types: &[EventType]) {
    // Each third pattern is another endpoint's, so that some have several.
    let owner = |at: usize| EndpointId::from_bytes([u8::try_from(at % 3).unwrap_or_default(); 16]);
    let mut index = Index::default();
    for (at, pattern) in patterns.iter().enumerate() {
        index.insert(pattern, owner(at));
    }
    for event_type in types {
        let tokens: Vec<&str> = event_type.as_str().split('.').collect();
        let mut expected = BTreeSet::new();
        for (at, pattern) in patterns.iter().enumerate() {
            let wanted: Vec<&str> = pattern.as_str().split('.').collect();
            let chooses = covers(&wanted, &tokens);
            assert_eq!(pattern.matches(event_type), chooses, "{pattern} {event_type}");
            if chooses {
                expected.insert(owner(at));
            }
        }
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(index.choose(event_type), expected, "{patterns:?} {event_type}");
    }
    for (at, pattern) in patterns.iter().enumerate() {
        index.remove(pattern, owner(at));
    }
    assert!(index.is_empty(), "something of {patterns:?} is left behind");
}

fn covers(wanted: &[&str], tokens: &[&str]) -> bool {
    match (wanted, tokens) {
        ([], []) | ([">"], [_, ..]) => true,
        (["*", wanted @ ..], [_, tokens @ ..]) => covers(wanted, tokens),
        ([one, wanted @ ..], [other, tokens @ ..]) => one == other && covers(wanted, tokens),
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

/// A filter means the same when it is written as it is shown, whatever the profile.
fn written(text: &str, types: &[EventType]) {
    if let Ok(pattern) = text.parse::<TypePattern>() {
        assert_eq!(pattern.as_str(), text, "a pattern is kept as it is");
        let has_wildcards = text.split('.').any(|token| ["*", ">"].contains(&token));
        assert_eq!(text.parse::<EventType>().is_err(), has_wildcards, "{text}");
    }
    for profile in Profiles::built_in().iter() {
        let rules = profile.filters();
        match rules.pattern(text) {
            Ok(pattern) => {
                let again = rules.pattern(rules.show(&pattern));
                assert_eq!(again.as_ref(), Ok(&pattern), "{}: {text}", profile.name);
                // What is a type by itself chooses that type, or those that begin with it.
                for chosen in types.iter().filter(|chosen| chosen.as_str() == text) {
                    let longer = format!("{text}.a").parse::<EventType>();
                    let begins = longer.is_ok_and(|longer| pattern.matches(&longer));
                    assert!(pattern.matches(chosen) || begins, "{}: {text}", profile.name);
                }
            }
            Err(FilterRefused::Malformed { text: shown, .. }) => {
                assert!(shown.chars().count() <= 64, "a refusal repeats too much");
            }
            Err(refused @ (FilterRefused::None | FilterRefused::TooMany { .. })) => {
                unreachable!("one filter is neither none nor too many: {refused}");
            }
        }
    }
}
