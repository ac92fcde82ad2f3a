//! Searching finds what looking at every row would find, page by page.

mod known;
mod large;
mod types;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use fanfare_domain::{Conclusion, EventType, TenantId};

use super::*;
use crate::{
    fold::{
        Changes,
        tests::{at, concluded, delivery, endpoint, made, record, routed, stored},
    },
    rows::State,
    store::{
        Progress,
        tests::{Home, homes, made_anew},
    },
};

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

/// Deliveries of every kind: 60 events for three endpoints, in five states.
fn sample() -> Changes {
    let mut changes = Changes::default();
    for number in 0..60 {
        changes.event(&stored(number));
        let facts = [
            routed(number, &[1, 2], &[3]),
            made(delivery(number, 1), 1, if number % 3 == 0 { 200 } else { 500 }),
            match number % 3 {
                0 => concluded(delivery(number, 1), 1, Conclusion::Delivered),
                1 => concluded(delivery(number, 1), 1, Conclusion::Exhausted),
                _ => made(delivery(number, 2), 1, 0),
            },
        ];
        changes.journal(u64::from(number) + 1, &facts.map(record));
    }
    changes.fill();
    changes
}

async fn filled(home: &Home) -> Result<(Store, Changes)> {
    let store = made_anew(&home.database).await?;
    let changes = sample();
    let after = Progress { events: 60, journal: 60, config: 0 };
    store.apply(changes.clone(), Progress::default(), after).await?;
    Ok((store, changes))
}

/// What a filter means, said the slow way.
fn fits(filter: &Filter, row: &DeliveryRow) -> bool {
    let origin = row.origin.as_ref().unwrap();
    let text = filter.text.as_deref().unwrap_or_default().trim().to_lowercase();
    let in_text = row.event.to_string().starts_with(&text)
        || row.id.to_string() == text
        || origin.event_type.as_str().to_lowercase().contains(&text);
    row.tenant == filter.tenant
        && filter.endpoint.is_none_or(|endpoint| row.endpoint == endpoint)
        && (filter.states.is_empty() || filter.states.contains(&row.standing.state))
        && filter.event_type.as_ref().is_none_or(|event_type| *event_type == origin.event_type)
        && filter.event.is_none_or(|event| row.event == event)
        && filter.since.is_none_or(|since| row.id.time() >= since)
        && filter.until.is_none_or(|until| row.id.time() < until)
        && in_text
}

/// Every combination of some values.
fn filters() -> Vec<Filter> {
    let some = delivery(7, 1);
    let beginning = some.event.to_string().chars().take(24).collect::<String>();
    let texts = [
        None,
        Some(String::from("PAID")),
        Some(String::from("invoice")),
        Some(String::from("nothing%")),
        Some(some.event.to_string()),
        Some(some.id.to_string()),
        Some(beginning),
        Some(String::from("evt_0")),
    ];
    let mut filters = Vec::new();
    for text in &texts {
        for endpoint in [None, Some(endpoint(1)), Some(endpoint(9))] {
            for states in [&[][..], &[State::Delivered], &[State::Pending, State::Skipped]] {
                for event_type in [None, Some("invoice.sent")] {
                    for (since, until) in [(None, None), (Some(at(5)), Some(at(9)))] {
                        for event in [None, Some(some.event)] {
                            filters.push(Filter {
                                tenant: acme(),
                                endpoint,
                                states: states.iter().copied().collect(),
                                event_type: event_type.map(|name| name.parse().unwrap()),
                                pattern: None,
                                event,
                                since,
                                until,
                                text: text.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
    filters
}

async fn all_pages(store: &Store, filter: &Filter, limit: usize) -> Result<Vec<DeliveryRow>> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = store.deliveries(filter, after, limit).await?;
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows.into_iter().map(|row| row.delivery));
        let Some(next) = page.next else { return Ok(rows) };
        after = Some(next.to_string().parse()?);
    }
}

#[tokio::test]
async fn every_filter_finds_what_looking_at_every_row_finds() -> Result<()> {
    for home in homes("every_filter_finds").await? {
        let (store, changes) = filled(&home).await?;
        let mut found_some = 0;
        for filter in filters() {
            let mut expected: Vec<DeliveryRow> =
                changes.deliveries.values().filter(|row| fits(&filter, row)).cloned().collect();
            expected.reverse();
            let found = all_pages(&store, &filter, 7).await?;
            assert_eq!(found, expected, "{filter:?}");
            found_some += usize::from(!found.is_empty());
        }
        assert!(found_some > 50, "{found_some}");
        let other = Filter::of("other".parse()?);
        assert!(store.deliveries(&other, None, 7).await?.rows.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn what_comes_meanwhile_moves_no_page() -> Result<()> {
    for home in homes("what_comes_meanwhile_moves_no_page").await? {
        let (store, changes) = filled(&home).await?;
        let filter = Filter::of(acme());
        let first = store.deliveries(&filter, None, 50).await?;
        let mut more = Changes::default();
        for number in 60..70 {
            more.event(&stored(number));
            more.journal(u64::from(number) + 1, &[record(routed(number, &[1], &[]))]);
        }
        let before = store.progress().await?;
        store.apply(more, before, Progress { events: 70, journal: 70, config: 0 }).await?;
        let second = store.deliveries(&filter, first.next, 1_000).await?;
        let mut ids: Vec<_> =
            first.rows.iter().chain(&second.rows).map(|row| row.delivery.id).collect();
        ids.reverse();
        assert_eq!(ids, changes.deliveries.keys().copied().collect::<Vec<_>>());
        assert_eq!(second.next, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_list_shows_what_came_of_the_last_attempt() -> Result<()> {
    for home in homes("a_list_shows_what_came").await? {
        let (store, changes) = filled(&home).await?;
        let page = store.deliveries(&Filter::of(acme()), None, 1_000).await?;
        for row in page.rows {
            let key = (row.delivery.id, row.delivery.attempts);
            let expected = changes.attempts.get(&key).map(|attempt| attempt.outcome.clone());
            assert_eq!(row.last, expected);
        }
    }
    Ok(())
}

#[tokio::test]
async fn events_deliveries_and_attempts_are_found_by_their_ids() -> Result<()> {
    for home in homes("found_by_their_ids").await? {
        let (store, changes) = filled(&home).await?;
        let id = delivery(7, 1).id;
        let row = store.delivery(&acme(), id).await?.context("the delivery")?;
        assert_eq!(Some(&row), changes.deliveries.get(&id));
        let event = store.event(&acme(), row.event).await?;
        assert_eq!(event.as_ref(), changes.events.get(&row.event));
        let attempts = store.attempts(id, 10).await?;
        assert_eq!(attempts.first(), changes.attempts.get(&(id, 1)));
        let other: TenantId = "other".parse()?;
        assert_eq!(store.delivery(&other, id).await?, None);
        assert_eq!(store.event(&other, row.event).await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn events_are_searched_too() -> Result<()> {
    for home in homes("events_are_searched_too").await? {
        let (store, changes) = filled(&home).await?;
        let beginning = stored(7).event.id.to_string().chars().take(24).collect::<String>();
        for (text, event_type, expected) in [
            (None, None, 60),
            (None, Some("invoice.paid"), 30),
            (Some("sent"), None, 30),
            (Some("sent"), Some("invoice.paid"), 0),
            (Some(beginning.as_str()), None, 1),
            (Some("dlv_01jd3x6y8kqz7v5m2n4p6r8t0w"), None, 0),
        ] {
            let event_type: Option<EventType> = event_type.map(str::parse).transpose()?;
            let text = text.map(String::from);
            let filter = EventFilter { event_type, text, ..EventFilter::of(acme()) };
            let (mut ids, mut after) = (BTreeSet::new(), None);
            loop {
                let page = store.events(&filter, after, 7).await?;
                ids.extend(page.rows.iter().map(|row| row.id));
                let Some(next) = page.next else { break };
                after = Some(next);
            }
            assert_eq!(ids.len(), expected, "{filter:?}");
            assert!(ids.iter().all(|id| changes.events.contains_key(id)));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_pattern_chooses_types_also_when_they_are_many() -> Result<()> {
    for home in homes("a_pattern_chooses_types").await? {
        let store = made_anew(&home.database).await?;
        let mut changes = sample();
        for (number, row) in changes.events.values_mut().enumerate() {
            row.event_type = format!("order.n{number}.{}", number % 2).parse()?;
        }
        changes.deliveries.values_mut().for_each(|row| row.origin = None);
        changes.fill();
        let after = Progress { events: 1, journal: 1, config: 0 };
        store.apply(changes, Progress::default(), after).await?;
        for (pattern, text, expected) in [
            (">", None, 180),
            ("order.>", None, 180),
            ("order.*.0", None, 90),
            ("*.n7.*", None, 3),
            ("order.*", None, 0),
            ("ORDER.>", None, 0),
            ("order.*.1", Some("N1"), 18),
        ] {
            let pattern = Some(pattern.parse()?);
            let text = text.map(String::from);
            let filter = Filter { pattern, text, ..Filter::of(acme()) };
            assert_eq!(all_pages(&store, &filter, 50).await?.len(), expected, "{filter:?}");
            let Filter { pattern, text, .. } = filter;
            let filter = EventFilter { pattern, text, ..EventFilter::of(acme()) };
            assert_eq!(store.events(&filter, None, 1_000).await?.rows.len() * 3, expected);
        }
    }
    Ok(())
}

#[tokio::test]
async fn attempts_are_found_by_their_number_and_after_one() -> Result<()> {
    for home in homes("attempts_are_found_by_their_number").await? {
        let store = made_anew(&home.database).await?;
        let mut changes = Changes::default();
        let facts: Vec<_> =
            (1..=5).map(|number| record(made(delivery(1, 1), number, 500))).collect();
        changes.journal(1, &facts);
        let after = Progress { journal: 1, ..Progress::default() };
        store.apply(changes, Progress::default(), after).await?;
        let id = delivery(1, 1).id;
        let numbers = async |after, limit| {
            let rows = store.attempts_after(id, after, limit).await?;
            anyhow::Ok(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(0, 3).await?, [1, 2, 3]);
        assert_eq!(numbers(3, 9).await?, [4, 5]);
        assert_eq!(store.attempt(id, 4).await?.context("the attempt")?.number, 4);
        assert_eq!((store.attempt(id, 0).await?, store.attempt(id, 6).await?), (None, None));
    }
    Ok(())
}

#[tokio::test]
async fn text_in_many_types_is_looked_for_on_the_way() -> Result<()> {
    for home in homes("text_in_many_types").await? {
        let store = made_anew(&home.database).await?;
        let mut changes = sample();
        for (number, row) in changes.events.values_mut().enumerate() {
            row.event_type = format!("Order_{number}.done").parse()?;
        }
        changes.deliveries.values_mut().for_each(|row| row.origin = None);
        changes.fill();
        store
            .apply(changes, Progress::default(), Progress { events: 1, journal: 1, config: 0 })
            .await?;
        for (text, expected) in [("order_", 180), ("order_1.", 3), ("er_5", 33), ("rderx", 0)] {
            let filter = Filter { text: Some(String::from(text)), ..Filter::of(acme()) };
            assert_eq!(all_pages(&store, &filter, 50).await?.len(), expected, "{text}");
        }
        let one: EventType = "Order_7.done".parse()?;
        for (text, expected) in [("order_", 3), ("order_8", 0)] {
            let event_type = Some(one.clone());
            let filter =
                Filter { event_type, text: Some(String::from(text)), ..Filter::of(acme()) };
            assert_eq!(all_pages(&store, &filter, 50).await?.len(), expected, "{text}");
        }
    }
    Ok(())
}
