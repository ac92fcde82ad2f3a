//! Particular deliveries, and up to where of the journal they are known.

use std::collections::BTreeMap;

use fanfare_domain::{EndpointId, Fact, Record, Timestamp, fact::EventRouted};

use super::*;
use crate::rows::Place;

/// The facts of `number`, message by message: two messages for each event.
fn messages() -> Vec<Vec<Record>> {
    let mut messages = Vec::new();
    for number in 0..20 {
        messages.push(vec![record(routed(number, &[1, 2], &[3]))]);
        messages.push(vec![
            record(made(delivery(number, 1), 1, 500)),
            record(concluded(delivery(number, 1), 1, Conclusion::Exhausted)),
        ]);
    }
    messages
}

fn folded(messages: &[Vec<Record>], first: u64) -> Changes {
    let mut changes = Changes::default();
    for (sequence, facts) in (first..).zip(messages) {
        changes.journal(sequence, facts);
    }
    changes
}

#[tokio::test]
async fn what_is_known_and_the_journal_behind_it_say_how_things_stand() -> Result<()> {
    let messages = messages();
    let whole = folded(&messages, 1);
    let ids: BTreeSet<DeliveryId> = whole.deliveries.keys().copied().collect();
    for home in homes("what_is_known_and_the_journal_behind_it").await? {
        for split in [0, 1, 13, 40] {
            let store = made_anew(&home.database).await?;
            let (before, behind) = messages.split_at(split);
            let journal = u64::try_from(split)?;
            let after = Progress { journal, ..Progress::default() };
            store.apply(folded(before, 1), Progress::default(), after).await?;
            let known = store.known(&acme(), &ids).await?;
            assert_eq!((known.journal, known.kept_since), (journal, Timestamp::EPOCH));
            let mut rows: BTreeMap<_, _> =
                known.rows.into_iter().map(|row| (row.id, row)).collect();
            let behind = folded(behind, journal + 1);
            for id in &ids {
                match (rows.get_mut(id), behind.delivery(*id)) {
                    (Some(row), Some(more)) => row.merge(more.clone()),
                    (None, Some(more)) => drop(rows.insert(*id, more.clone())),
                    (_, None) => {}
                }
            }
            assert_eq!(rows, whole.deliveries, "split at {split}");
            let others = store.known(&"other".parse()?, &ids).await?;
            assert!(others.rows.is_empty());
            for id in ids.iter().take(2) {
                let known = store.delivery(&acme(), *id).await?;
                let found = store.owner_of_delivery(*id).await?;
                assert_eq!(found.known.journal, journal);
                let own = |row: &DeliveryRow| (row.tenant.clone(), row.event, row.endpoint);
                let owner = found.owner.map(|it| (it.tenant, it.event, it.endpoint.unwrap()));
                assert_eq!(owner, known.as_ref().map(own));
                let Some(row) = known else { continue };
                let owner = store.owner_of_event(row.event).await?.owner.unwrap();
                assert_eq!((owner.tenant, owner.event, owner.endpoint), (acme(), row.event, None));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_became_of_an_event_is_found_by_endpoint() -> Result<()> {
    for home in homes("what_became_of_an_event").await? {
        let (store, _) = filled(&home).await?;
        let stored = stored(7);
        let mut replay = Changes::default();
        let Fact::EventRouted(first) = routed(7, &[2], &[]) else { anyhow::bail!("a routing") };
        let again = Fact::EventRouted(EventRouted { generation: 5, ..first });
        replay.record(Place::of(61, 0), &record(again));
        let before = store.progress().await?;
        store.apply(replay, before, Progress { journal: 61, ..before }).await?;
        let find = async |after, limit| {
            store.known_of_event(&acme(), stored.event.id, (after, limit)).await
        };
        let of = |found: &KnownEvent| -> Vec<EndpointId> {
            found.deliveries.rows.iter().map(|row| row.endpoint).collect()
        };
        let all = find(None, 9).await?;
        assert_eq!(of(&all), [endpoint(1), endpoint(2), endpoint(3)]);
        assert_eq!(all.event.as_ref().map(|event| event.id), Some(stored.event.id));
        assert_eq!(
            (of(&find(None, 2).await?), all.is_routed),
            (vec![endpoint(1), endpoint(2)], true)
        );
        assert_eq!(of(&find(Some(endpoint(1)), 9).await?), [endpoint(2), endpoint(3)]);
        let behind = find(Some(endpoint(3)), 9).await?;
        assert_eq!((of(&behind), behind.is_routed), (vec![], true));
        let other = store.known_of_event(&"other".parse()?, stored.event.id, (None, 9)).await?;
        assert_eq!((of(&other), other.is_routed, other.event), (vec![], false, None));
    }
    Ok(())
}

#[tokio::test]
async fn the_fact_by_which_a_delivery_stands_is_named() -> Result<()> {
    let messages = messages();
    let whole = folded(&messages, 1);
    for (id, place) in
        [(delivery(4, 1).id, (10, 1)), (delivery(4, 2).id, (9, 0)), (delivery(4, 3).id, (9, 0))]
    {
        let row = whole.delivery(id).context("the delivery")?;
        assert_eq!(row.standing.fact().parts(), place);
        assert_eq!(row.standing.is_routed_only(), place.1 == 0);
    }
    Ok(())
}
