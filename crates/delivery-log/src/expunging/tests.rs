//! What is known of an expunged tenant goes, and stays away.

use std::sync::Arc;

use anyhow::Result;
use fanfare_domain::{
    ApiKey, KeyId, Role, Tenant, TraceContext,
    tenant::{Expunge, UnknownTypes},
};

use super::*;
use crate::{
    Action, AuditEntry, AuditFilter, Changes, EventFilter, Filter, Progress,
    fold::tests::{at, delivery, made, record, routed, stored},
    store::tests::{homes, made_anew},
};

fn tenant(expunge: Option<Expunge>) -> Entity {
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::from("private name"),
        profile: String::from("kryptos"),
        rate_limit: None,
        endpoints_max: None,
        plan: None,
        unknown_types: UnknownTypes::Allowed,
        created_at: at(0),
        expunge,
    }))
}

fn key() -> Entity {
    Entity::ApiKey(Arc::new(ApiKey {
        id: KeyId::new(at(0), [1; 10]),
        name: String::from("private name"),
        tenant: Some("acme".parse().unwrap()),
        role: Role::Admin,
        sha256: [1; 32],
        reveals_secrets: false,
        rate_limit: None,
        created_at: at(0),
        expires_at: None,
    }))
}

fn change(entity: Entity, deleted: bool, actor: &str) -> Change {
    let (actor, reason) = (String::from(actor), String::from("private words"));
    Change { entity, deleted, actor, reason, trace: TraceContext::default() }
}

fn removal(stage: ExpungeStage, through: u64) -> Change {
    let expunge = Expunge { stage, through, begun_at: at(50), removed: BTreeMap::new() };
    Change {
        reason: String::from("they asked for it"),
        ..change(tenant(Some(expunge)), true, "key_operator")
    }
}

/// Twenty events, each delivered to two endpoints and refused by one.
fn facts() -> Changes {
    let mut changes = Changes::default();
    for event in 0..20 {
        changes.event(&stored(event));
        let made = [record(routed(event, &[1, 2], &[])), record(made(delivery(event, 1), 1, 500))];
        changes.journal(u64::from(event) + 1, &made);
    }
    changes
}

fn progress(config: u64, journal: u64) -> Progress {
    Progress { journal, config, ..Progress::default() }
}

async fn entries(store: &Store) -> Result<Vec<AuditEntry>> {
    Ok(store.audit(&AuditFilter::default(), None, 10).await?.entries)
}

#[tokio::test]
async fn what_is_of_an_expunged_tenant_goes_in_steps_and_stays_away() -> Result<()> {
    for home in homes("what_is_of_an_expunged").await? {
        let store = made_anew(&home.database).await?;
        let acme: TenantId = "acme".parse()?;
        store.apply(facts(), progress(0, 0), progress(0, 1)).await?;
        assert!(!store.is_expunged(&acme, 2).await?);
        let mut cursor = ExpungeCursor::default();
        assert!(!store.purge_expunged(&mut cursor, 3).await?, "nothing is to go");
        // Events have the sequences 1 to 20: those of the last five are a later tenant's.
        let mut changes = Changes::default();
        changes.config(1, at(60), &removal(ExpungeStage::Running, 9));
        assert!(changes.has_deletions());
        changes.config(2, at(61), &removal(ExpungeStage::Finished(at(61)), 15));
        changes.config(3, at(62), &change(tenant(None), false, "key_operator"));
        store.apply(changes, progress(0, 1), progress(3, 1)).await?;
        assert!(!store.is_expunged(&acme, 2).await?);
        let mut steps = 0;
        while store.purge_expunged(&mut cursor, 3).await? {
            steps += 1;
            assert!(steps < 40, "it ends");
        }
        assert!(steps > 5, "in steps: {steps}");
        assert!(store.is_expunged(&acme, 2).await?);
        assert!(!store.is_expunged(&acme, 3).await?, "not by what it has not read");
        // Facts that come again, or late, bring nothing back.
        store.apply(facts(), progress(3, 1), progress(3, 2)).await?;
        let left = store.deliveries(&Filter::of(acme.clone()), None, 100).await?.rows;
        assert_eq!(left.len(), 10, "those of five events");
        assert!(left.iter().all(|row| row.delivery.event_sequence > 15));
        let events = store.events(&EventFilter::of(acme), None, 100).await?.rows;
        assert_eq!(events.len(), 5);
        assert_eq!(store.attempts(delivery(3, 1).id, 10).await?, []);
        assert_eq!(store.attempts(delivery(17, 1).id, 10).await?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn the_audit_keeps_who_did_what_and_that_it_was_expunged() -> Result<()> {
    for home in homes("the_audit_keeps_who").await? {
        let store = made_anew(&home.database).await?;
        let by_link = "key_a by link_b for Jane Doe";
        let mut changes = Changes::default();
        changes.config(1, at(1), &change(tenant(None), false, "key_operator"));
        changes.config(2, at(2), &change(key(), false, by_link));
        changes.config(3, at(3), &removal(ExpungeStage::Running, 9));
        changes.config(4, at(4), &change(key(), true, "key_operator"));
        changes.config(5, at(5), &removal(ExpungeStage::Finished(at(5)), 9));
        let later = Change { reason: String::new(), ..change(tenant(None), false, "key_operator") };
        changes.config(6, at(6), &later);
        store.apply(changes.clone(), progress(0, 0), progress(6, 0)).await?;
        let mut cursor = ExpungeCursor::default();
        while store.purge_expunged(&mut cursor, 2).await? {}
        let found = entries(&store).await?;
        let told: Vec<_> = found
            .iter()
            .map(|entry| (entry.revision, entry.action, entry.actor.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (6, Action::Created, "key_operator"),
                (5, Action::Deleted, "key_operator"),
                (4, Action::Deleted, "key_operator"),
                (3, Action::Deleted, "key_operator"),
                (2, Action::Created, "key_a by link_b"),
                (1, Action::Created, "key_operator"),
            ]
        );
        assert_eq!((found[1].reason.as_str(), found[4].reason.as_str()), ("they asked for it", ""));
        assert!(found[1].before.as_ref().unwrap().contains("\"state\":\"finished\""));
        for entry in &found[1..] {
            assert!(!format!("{entry:?}").contains("private"), "{entry:?}");
        }
        assert!(found[0].after.as_ref().unwrap().contains("private name"), "a later tenant's");
        // Made anew from what CONFIG has kept, it is the same.
        let store = made_anew(&home.database).await?;
        store.apply(changes, progress(0, 0), progress(6, 0)).await?;
        let mut cursor = ExpungeCursor::default();
        while store.purge_expunged(&mut cursor, 2).await? {}
        assert_eq!(entries(&store).await?, found);
    }
    Ok(())
}

#[tokio::test]
async fn one_tenants_many_rows_hold_up_nothing_of_anothers() -> Result<()> {
    for home in homes("one_tenants_many_rows").await? {
        let store = made_anew(&home.database).await?;
        store.apply(facts(), progress(0, 0), progress(0, 1)).await?;
        let mut changes = Changes::default();
        let named = |id: &str, change: Change| {
            let Entity::Tenant(tenant) = &change.entity else { return change };
            let tenant = Tenant { id: id.parse().unwrap(), ..Tenant::clone(tenant) };
            Change { entity: Entity::Tenant(Arc::new(tenant)), ..change }
        };
        for (revision, id) in [(1, "acme"), (2, "zeta")] {
            let made = named(id, change(tenant(None), false, "key_a by link_b for Jane Doe"));
            changes.config(revision, at(revision), &made);
            let gone = named(id, removal(ExpungeStage::Finished(at(9)), 20));
            changes.config(revision + 2, at(revision + 2), &gone);
        }
        store.apply(changes, progress(0, 1), progress(4, 1)).await?;
        let mut cursor = ExpungeCursor::default();
        let rows = async || {
            let filter = Filter::of("acme".parse::<TenantId>()?);
            anyhow::Ok(store.deliveries(&filter, None, 100).await?.rows.len())
        };
        let all = rows().await?;
        assert!(all > 30);
        let zeta: TenantId = "zeta".parse()?;
        while format!("{:?}", entries(&store).await?).contains("private") {
            assert!(store.purge_expunged(&mut cursor, 3).await?);
        }
        assert_eq!(rows().await?, all, "the audits come first, of all of them");
        while !store.is_expunged(&zeta, 4).await? {
            assert!(store.purge_expunged(&mut cursor, 3).await?);
        }
        assert!(
            rows().await? > 0,
            "it is the other one's turn before all of the first one is gone"
        );
        while store.purge_expunged(&mut cursor, 3).await? {}
        assert_eq!(rows().await?, 0);
    }
    Ok(())
}

#[test]
fn a_change_of_an_expunged_tenant_shows_who_made_it_and_when() {
    let entry = AuditEntry {
        revision: 7,
        recorded_at: at(7),
        tenant: None,
        kind: String::from("endpoint"),
        entity: String::from("ep_1"),
        action: Action::Created,
        actor: String::from("key_a by link_b for Jane Doe"),
        reason: String::from("private words"),
        trace_id: None,
        before: None,
        after: Some(String::from(r#"{"name":"private name"}"#)),
    };
    let redacted = entry.clone().redacted();
    assert_eq!((redacted.revision, redacted.actor.as_str()), (7, "key_a by link_b"));
    assert_eq!((redacted.before.as_deref(), redacted.after.as_deref()), (None, Some(REDACTED)));
    assert!(redacted.reason.is_empty());
    let after = Some(String::from(r#"{"expunge":{"state":"finished"}}"#));
    let kept = AuditEntry { after, ..entry };
    assert_eq!(kept.clone().redacted(), kept, "that it was expunged, and why, is kept");
}
