//! Text in many types is looked for along each of them, and types that have nothing are forgotten.

use anyhow::Result;
use fanfare_domain::EventType;

use super::*;
use crate::{
    database::{Dialect, Value},
    retention::TypeCursor,
};

/// How many events are of the ordinary type, and how many rare types there are.
const ORDINARY: u8 = 200;
const RARE: usize = 60;

/// Many events of one type, and behind them, one for each of many types. Every event is for two
/// endpoints.
async fn filled_with_types(home: &Home) -> Result<(Store, Changes)> {
    let store = made_anew(&home.database).await?;
    let mut changes = Changes::default();
    let rare = u8::try_from(RARE)?;
    for number in 0..ORDINARY {
        changes.event(&stored(number));
        let facts = [
            routed(number, &[1, 2], &[]),
            concluded(delivery(number, 1), 1, Conclusion::Delivered),
        ];
        changes.journal(u64::from(number) + 1, &facts.map(record));
    }
    for (number, row) in changes.events.values_mut().enumerate() {
        row.event_type = match number {
            rare_one if rare_one < usize::from(rare) => format!("rare.n{rare_one}").parse()?,
            _ => "ordinary.done".parse()?,
        };
    }
    changes.deliveries.values_mut().for_each(|row| row.origin = None);
    changes.fill();
    let after = Progress { events: 1, journal: 1, config: 0 };
    store.apply(changes.clone(), Progress::default(), after).await?;
    Ok((store, changes))
}

#[tokio::test]
async fn every_page_of_a_text_in_many_types_is_what_looking_at_every_row_finds() -> Result<()> {
    for home in homes("every_page_of_a_text_in_many_types").await? {
        let (store, changes) = filled_with_types(&home).await?;
        let far = Some(at(30));
        for (text, states, since) in [
            ("rare.", vec![], None),
            ("rare.n1", vec![], None),
            ("RARE", vec![State::Delivered], far),
            ("n", vec![State::Pending, State::Exhausted], None),
            ("rare", vec![State::Exhausted], None),
        ] {
            let states = states.into_iter().collect();
            let text = Some(String::from(text));
            for endpoint in [None, Some(endpoint(2))] {
                let filter = Filter { endpoint, ..Filter::of(acme()) };
                let filter = Filter { since, text: text.clone(), ..filter };
                let filter = Filter { states: Clone::clone(&states), ..filter };
                let mut expected: Vec<DeliveryRow> =
                    changes.deliveries.values().filter(|row| fits(&filter, row)).cloned().collect();
                expected.reverse();
                assert_eq!(all_pages(&store, &filter, 7).await?, expected, "{filter:?}");
            }
        }
        let filter = EventFilter { text: Some(String::from("rare")), ..EventFilter::of(acme()) };
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = store.events(&filter, after, 7).await?;
            ids.extend(page.rows.iter().map(|row| row.id));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        let expected = changes.events.keys().rev().skip(usize::from(ORDINARY) - RARE);
        assert_eq!(ids, expected.copied().collect::<Vec<_>>());
    }
    Ok(())
}

/// What `SQLite` means to do.
async fn plan(store: &Store, statement: Statement) -> Result<String> {
    let statement =
        Statement { text: format!("EXPLAIN QUERY PLAN {}", statement.text), ..statement };
    let rows = store.database.fetch(statement).await?;
    let lines = rows.iter().map(|row| row.text(3)).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn a_text_in_many_types_is_found_along_their_index() -> Result<()> {
    for home in homes("a_text_in_many_types_is_found_along").await? {
        let (store, _) = filled_with_types(&home).await?;
        let transaction = store.database.begin().await?;
        let dialect = transaction.dialect();
        drop(transaction);
        if dialect == Dialect::Postgres {
            continue;
        }
        let filter = Filter { text: Some(String::from("rare")), ..Filter::of(acme()) };
        let types = store.types_of(&acme(), (filter.text.as_deref(), None)).await?;
        let search = walk::Search::new(&filter, types, None).context("something to look for")?;
        assert_eq!(search.walks().len(), RARE * State::ALL.len());
        let some = &search.walks()[..60];
        for statement in [search.beginnings(51), search.page(some, 51)] {
            let plan = plan(&store, statement).await?;
            assert!(plan.contains("fanfare_deliveries_type (tenant=? AND event_type=?"), "{plan}");
            assert!(!plan.contains("SCAN fanfare_deliveries"), "{plan}");
            assert!(!plan.contains("fanfare_deliveries_state"), "{plan}");
        }
    }
    Ok(())
}

async fn types(store: &Store) -> Result<Vec<EventType>> {
    let question = Statement::new("SELECT event_type FROM fanfare_types ORDER BY event_type");
    let rows = store.database.fetch(question).await?;
    let types = rows.iter().map(|row| Ok(row.text(0)?.context("a type")?.parse()?));
    types.collect()
}

#[tokio::test]
async fn types_of_which_nothing_is_left_are_forgotten() -> Result<()> {
    for home in homes("types_of_which_nothing_is_left").await? {
        let (store, _) = filled_with_types(&home).await?;
        assert_eq!(types(&store).await?.len(), RARE + 1);
        // Of the first 50 rare types nothing is left, of another one its deliveries.
        while store.forget(at(50), 1_000).await? > 0 {}
        let mut one = Statement::new("DELETE FROM fanfare_events WHERE event_type = ");
        one.values.push(Value::from("rare.n55"));
        one.text.push_str("$1");
        let mut transaction = store.database.begin().await?;
        transaction.execute(one).await?;
        transaction.commit().await?;
        let (mut cursor, mut steps) = (TypeCursor::default(), 0);
        loop {
            cursor = store.forget_types(cursor, 25).await?;
            steps += 1;
            if cursor == TypeCursor::default() {
                break;
            }
        }
        assert_eq!(steps, 3, "61 types in portions of 25");
        let left = types(&store).await?;
        assert_eq!(left.len(), RARE - 50 + 1, "{left:?}");
        assert!(left.contains(&"rare.n55".parse()?), "it has deliveries");
        // One that comes back is found again.
        let mut late = Changes::default();
        late.event(&stored(60));
        late.events
            .values_mut()
            .for_each(|row| row.event_type = "rare.n1".parse().expect("a type"));
        let before = store.progress().await?;
        store.apply(late, before, Progress { events: 2, ..before }).await?;
        assert!(types(&store).await?.contains(&"rare.n1".parse()?));
    }
    Ok(())
}
