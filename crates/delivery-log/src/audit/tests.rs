//! The audit tells what was before and after, is kept when the tables are made anew, and shows
//! nothing that is sealed.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use fanfare_domain::{
    ApiKey, Endpoint, EndpointState, KeyId, Role, Tenant, TraceContext,
    endpoint::{Ordering, Secret},
    seal::Sealed,
    tenant::UnknownTypes,
};
use serde_json::Value;

use super::*;
use crate::{
    fold::{
        Changes,
        tests::{at, delivery, endpoint, made, record, routed, stored},
    },
    query::Filter,
    schema::Whose,
    store::{
        Progress,
        tests::{Home, homes, made_anew, streams},
    },
};

fn tenant(name: &str) -> Entity {
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::from(name),
        profile: String::from("kryptos"),
        rate_limit: None,
        endpoints_max: None,
        plan: None,
        unknown_types: UnknownTypes::Allowed,
        created_at: at(0),
        expunge: None,
    }))
}

fn sealed(byte: u8) -> Sealed {
    Sealed { key_id: String::from("k"), bytes: Bytes::from(vec![byte; 60]) }
}

fn hook(number: u8) -> Entity {
    let secret = Secret { sealed: sealed(0xab), created_at: at(0), expires_at: None };
    Entity::Endpoint(Arc::new(Endpoint {
        id: endpoint(number),
        tenant: "acme".parse().unwrap(),
        url: String::from("https://example.com/"),
        name: String::new(),
        description: String::new(),
        filters: vec![">".parse().unwrap()],
        condition: None,
        secrets: vec![secret],
        headers: BTreeMap::from([(String::from("x-token"), sealed(0xcd))]),
        cancelled_before: None,
        trace_context: None,
        security: fanfare_domain::endpoint::Security::default(),
        state: EndpointState::Active,
        retry: None,
        timeout: None,
        concurrency: None,
        rate_limit: None,
        ordering: Ordering::None,
        batch: None,
        metadata: BTreeMap::new(),
        created_at: at(0),
        updated_at: at(0),
    }))
}

fn operator_key() -> Entity {
    Entity::ApiKey(Arc::new(ApiKey {
        id: KeyId::new(at(0), [1; 10]),
        name: String::from("ci"),
        tenant: None,
        role: Role::Admin,
        sha256: [0xee; 32],
        reveals_secrets: false,
        rate_limit: None,
        created_at: at(0),
        expires_at: None,
    }))
}

fn change(entity: Entity, deleted: bool, actor: &str) -> Change {
    let (actor, reason) = (String::from(actor), String::from("because"));
    Change { entity, deleted, actor, reason, trace: TraceContext::default() }
}

/// A tenant that is made, renamed, deleted and made again; an endpoint; an operator's key.
fn story() -> Vec<Change> {
    vec![
        change(tenant("one"), false, "key_a"),
        change(tenant("two"), false, "key_b"),
        change(hook(1), false, "key_a"),
        change(tenant("two"), true, "key_b"),
        change(tenant("three"), false, "key_a"),
        change(operator_key(), false, "bootstrap"),
    ]
}

async fn taken_over(home: &Home, installation: &str) -> Result<Store> {
    let streams = streams(installation);
    Ok(Store::renew(&home.database, &streams, Whose::Anybodys, Timestamp::EPOCH).await?)
}

/// Some changes of the configuration.
pub(crate) fn changes() -> Changes {
    let mut changes = Changes::default();
    for (revision, change) in (1..).zip(story()) {
        changes.config(revision, at(revision), &change);
    }
    changes
}

async fn fold(home: &Home, installation: &str) -> Result<Store> {
    let store = taken_over(home, installation).await?;
    let changes = changes();
    let after = Progress { config: 6, ..Progress::default() };
    store.apply(changes, Progress::default(), after).await?;
    Ok(store)
}

fn member(json: Option<&String>, name: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json?).unwrap();
    value.get(name)?.as_str().map(String::from)
}

#[tokio::test]
async fn a_change_is_shown_with_what_was_before_and_after() -> Result<()> {
    for home in homes("a_change_is_shown").await? {
        let store = fold(&home, "test").await?;
        let all = store.audit(&AuditFilter::default(), None, 10).await?;
        let told: Vec<_> = all
            .entries
            .iter()
            .map(|entry| {
                let name = |json: &Option<String>| member(json.as_ref(), "name");
                (entry.revision, entry.action, name(&entry.before), name(&entry.after))
            })
            .collect();
        let some = |text: &str| Some(String::from(text));
        assert_eq!(
            told,
            [
                (6, Action::Created, None, some("ci")),
                (5, Action::Created, None, some("three")),
                (4, Action::Deleted, some("two"), None),
                (3, Action::Created, None, some("")),
                (2, Action::Updated, some("one"), some("two")),
                (1, Action::Created, None, some("one")),
            ]
        );
        assert_eq!(all.next, None);
    }
    Ok(())
}

#[tokio::test]
async fn changes_are_found_by_what_they_are_about_and_who_made_them() -> Result<()> {
    for home in homes("changes_are_found_by").await? {
        let store = fold(&home, "test").await?;
        let acme: Option<TenantId> = Some("acme".parse()?);
        let text = |text: &str| Some(String::from(text));
        for (filter, expected) in [
            (AuditFilter { tenant: acme.clone(), ..Default::default() }, vec![5, 4, 3, 2, 1]),
            (AuditFilter { kind: text("key"), ..Default::default() }, vec![6]),
            (AuditFilter { actor: text("key_b"), ..Default::default() }, vec![4, 2]),
            (AuditFilter { entity: Some(endpoint(1).to_string()), ..Default::default() }, vec![3]),
            (
                AuditFilter { since: Some(at(2)), until: Some(at(4)), ..Default::default() },
                vec![3, 2],
            ),
            (AuditFilter { tenant: acme, kind: text("key"), ..Default::default() }, vec![]),
        ] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.audit(&filter, after, 2).await?;
                found.extend(page.entries.iter().map(|entry| entry.revision));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{filter:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn it_outlives_the_other_tables_and_is_of_one_installation() -> Result<()> {
    for home in homes("it_outlives_the_other_tables").await? {
        fold(&home, "test").await?;
        // CONFIG has forgotten everything by now.
        let store = made_anew(&home.database).await?;
        assert_eq!(store.progress().await?, Progress::default());
        assert_eq!(store.audit(&AuditFilter::default(), None, 10).await?.entries.len(), 6);
        let other = taken_over(&home, "other").await?;
        assert_eq!(other.audit(&AuditFilter::default(), None, 10).await?.entries, []);
        let back = fold(&home, "test").await?;
        assert_eq!(back.audit(&AuditFilter::default(), None, 10).await?.entries.len(), 6);
    }
    Ok(())
}

#[test]
fn nothing_sealed_is_in_it() {
    let texts: Vec<String> =
        story().iter().map(|change| AuditRow::of(1, at(0), change).document).collect();
    let all = texts.concat();
    assert!(all.contains("\"x-token\":\"sealed:cdcdcdcd\""), "{all}");
    for hidden in ["cdcdcdcdcd", "ababababab", "eeee", "238,238"] {
        assert!(!all.contains(hidden), "{hidden}: {all}");
    }
}

#[tokio::test]
async fn the_history_of_a_deleted_endpoint_goes_and_stays_away() -> Result<()> {
    for home in homes("the_history_of_a_deleted_endpoint").await? {
        let facts = || {
            let mut changes = Changes::default();
            for event in 0..20 {
                changes.event(&stored(event));
                let made =
                    [record(routed(event, &[1, 2], &[])), record(made(delivery(event, 1), 1, 500))];
                changes.journal(u64::from(event) + 1, &made);
            }
            changes
        };
        let store = made_anew(&home.database).await?;
        let kept = store.clone();
        let store = store.erasing([String::from("kryptos")].into());
        let at_end = |config, journal| Progress { journal, config, ..Progress::default() };
        store.apply(facts(), Progress::default(), at_end(0, 1)).await?;
        let mut deletion = Changes::default();
        deletion.config(1, at(0), &change(tenant("one"), false, "key_a"));
        deletion.config(2, at(10), &change(hook(1), true, "key_a"));
        assert!(deletion.has_deletions());
        // Another profile keeps it.
        kept.apply(deletion.clone(), at_end(0, 1), at_end(1, 1)).await?;
        assert!(!store.purge(7).await?, "nothing is to go");
        store.apply(deletion, at_end(1, 1), at_end(2, 1)).await?;
        let mut steps = 0;
        while store.purge(7).await? {
            steps += 1;
            assert!(steps < 20, "it ends");
        }
        assert!(steps > 2, "in steps: {steps}");
        // Facts that come again, or late, bring nothing back: events up to 10 are before it.
        store.apply(facts(), at_end(2, 1), at_end(2, 2)).await?;
        let filter = Filter { endpoint: Some(endpoint(1)), ..Filter::of("acme".parse()?) };
        let left = store.deliveries(&filter, None, 100).await?.rows;
        assert_eq!(left.len(), 9, "those of events after the deletion");
        assert_eq!(store.attempts(delivery(3, 1).id, 10).await?, []);
        assert_eq!(store.attempts(delivery(13, 1).id, 10).await?.len(), 1);
        let other = Filter { endpoint: Some(endpoint(2)), ..Filter::of("acme".parse()?) };
        assert_eq!(store.deliveries(&other, None, 100).await?.rows.len(), 20);
    }
    Ok(())
}
