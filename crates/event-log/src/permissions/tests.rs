//! Who may write where, and hear what.

use super::*;

fn all() -> Vec<(Role, Permissions)> {
    let topology = Topology::new("fanfare");
    let tenant: TenantId = "acme".parse().unwrap();
    let producers =
        [Ways::All, Ways::Requests].map(|ways| Role::Producer { tenant: tenant.clone(), ways });
    let roles = Role::FIXED.into_iter().chain(producers);
    roles.map(|role| (role.clone(), role.permissions(&topology))).collect()
}

/// Whether a subject with wildcards covers another one.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (_, _) => return false,
        }
    }
}

/// Who may publish to a subject.
fn publishers(subject: &str) -> Vec<String> {
    let may = |permissions: &Permissions| {
        let listed = |set: &BTreeSet<String>| set.iter().any(|pattern| covers(pattern, subject));
        listed(&permissions.publish) && !listed(&permissions.publish_not)
    };
    let found = all().into_iter().filter(|(_, permissions)| may(permissions));
    found.map(|(role, _)| role.to_string()).collect()
}

#[test]
fn each_subject_has_its_writers() {
    for (subject, writers) in [
        ("fanfare.events.acme.a", &["ingest"][..]),
        ("fanfare.events.operator.a", &["ingest", "retry-scheduler"]),
        ("fanfare.journal.1.attempts", &["dispatcher"]),
        ("fanfare.journal.1.plans", &["retry-scheduler"]),
        ("fanfare.journal.routed", &["fan-out"]),
        ("fanfare.deliveries.1", &["fan-out"]),
        ("fanfare.retries.at.1.dlv_1", &["retry-scheduler"]),
        ("fanfare.retries.due.1", &[]),
        ("fanfare.dead.acme.ep_1", &["retry-scheduler"]),
        ("fanfare.config.endpoint.acme.ep_1", &["retry-scheduler", "api"]),
        ("fanfare.config.key.acme.key_1", &["api"]),
        ("fanfare.inbox.acme.a", &["operator", "producer-acme"]),
        ("fanfare.inbox.other.a", &["operator"]),
        ("fanfare.publish.acme.a", &["api", "operator", "producer-acme", "producer-acme"]),
        ("$JS.API.STREAM.CREATE.FANFARE_EVENTS", &["bootstrap"]),
        ("$JS.API.STREAM.UPDATE.KV_FANFARE_owners", &["bootstrap"]),
        ("$JS.API.STREAM.CREATE.OTHER", &[]),
        ("$JS.API.STREAM.DELETE.FANFARE_EVENTS", &[]),
        ("$JS.API.STREAM.PURGE.FANFARE_EVENTS", &["api"]),
        ("$JS.API.STREAM.PURGE.FANFARE_JOURNAL", &[]),
        ("$JS.API.STREAM.PURGE.FANFARE_RETRIES", &["dispatcher", "retry-scheduler"]),
        ("$JS.API.CONSUMER.MSG.NEXT.FANFARE_INBOX.ingest", &["ingest"]),
        ("$JS.API.CONSUMER.MSG.NEXT.FANFARE_EVENTS.fan-out", &["fan-out"]),
        ("$JS.API.CONSUMER.DELETE.FANFARE_EVENTS.fan-out", &["fan-out"]),
        ("$JS.API.STREAM.MSG.GET.KV_FANFARE_feeds", &["fan-out", "dispatcher", "retry-scheduler"]),
        ("$KV.FANFARE_owners.dispatcher.shards", &["dispatcher"]),
        ("$KV.FANFARE_idempotency.a", &["ingest", "api"]),
    ] {
        assert_eq!(publishers(subject), writers, "{subject}");
    }
}

#[test]
fn nobody_hears_answers_to_others() {
    let all = all();
    for (role, permissions) in &all {
        for (other, others) in all.iter().filter(|(other, _)| other.to_string() != role.to_string())
        {
            let inboxes = permissions.subscribe.iter().filter(|one| one.starts_with("_INBOX"));
            for inbox in inboxes {
                let subject = inbox.replace(".>", ".x");
                let heard = others.subscribe.iter().any(|pattern| covers(pattern, &subject));
                assert!(!heard, "{other} hears {role} at {subject}");
            }
        }
    }
}

#[test]
fn a_producer_publishes_for_its_tenant_and_does_nothing_else() {
    let topology = Topology::new("up");
    let tenant: TenantId = "acme".parse().unwrap();
    let role = Role::Producer { tenant, ways: Ways::Requests };
    let permissions = role.permissions(&topology);
    assert_eq!(permissions.publish.iter().collect::<Vec<_>>(), ["up.publish.acme.>"]);
    assert_eq!(permissions.subscribe.iter().collect::<Vec<_>>(), ["_INBOX.up.producer.acme.>"]);
    assert_eq!(role.inbox(&topology), "_INBOX.up.producer.acme");
}
