//! What each user might try, and is refused.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, ServerError,
    jetstream::{self, stream::RawMessageErrorKind},
};
use bytes::Bytes;
use fanfare_testkit::wait_until;

use crate::support::locked::Locked;

/// Something that may not be done.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// To publish, or to ask.
    Publish(&'static str),
    /// The same with a header that would wipe the stream.
    Rollup(&'static str),
    /// To subscribe.
    Subscribe(&'static str),
}

use Act::{Publish, Rollup, Subscribe};

/// Users, where they hear answers, and what they may not do.
const FORBIDDEN: &[(&str, &str, &[Act])] = &[
    (
        "producer-acme",
        "_INBOX.fanfare.producer.acme",
        &[
            Publish("fanfare.inbox.globex.order.made"),
            Publish("fanfare.publish.globex.order.made"),
            Publish("fanfare.inbox.operator.a"),
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.deliveries.1"),
            Publish("fanfare.journal.routed"),
            Publish("fanfare.journal.1.attempts"),
            Publish("fanfare.commands.1"),
            Publish("fanfare.jobs.replay.x"),
            Publish("fanfare.dead.acme.ep_1"),
            Publish("fanfare.rejected.acme"),
            Publish("fanfare.config.tenant.acme.acme"),
            Publish("fanfare.owner.1.try"),
            Publish("fanfare.owner.1.health"),
            Publish("fanfare.retries.due.1"),
            Rollup("fanfare.retries.at.1.x"),
            Publish("$KV.FANFARE_owners.dispatcher.shards"),
            Publish("$KV.FANFARE_idempotency.x"),
            Publish("$O.FANFARE_snapshots.M.x"),
            Publish("$JS.API.INFO"),
            Publish("$JS.API.STREAM.NAMES"),
            Publish("$JS.API.STREAM.INFO.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.MSG.GET.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.MSG.GET.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.MSG.DELETE.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.DELETE.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.CREATE.MINE"),
            Publish("$JS.API.DIRECT.GET.FANFARE_EVENTS"),
            Publish("$JS.API.DIRECT.GET.FANFARE_EVENTS.fanfare.events.globex.>"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_EVENTS"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_EVENTS.mine.fanfare.events.acme.>"),
            Publish("$JS.API.CONSUMER.DURABLE.CREATE.FANFARE_EVENTS.mine"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.FANFARE_INBOX.ingest"),
            Publish("$JS.ACK.FANFARE_INBOX.ingest.1.1.1.1.1"),
            Publish("$SRV.PING"),
            Publish("$SYS.REQ.SERVER.PING.JSZ"),
            Publish("_INBOX.fanfare.api.x"),
            Subscribe(">"),
            Subscribe("fanfare.>"),
            Subscribe("fanfare.inbox.acme.>"),
            Subscribe("fanfare.publish.acme.>"),
            Subscribe("fanfare.owner.>"),
            Subscribe("_INBOX.>"),
            Subscribe("_INBOX.fanfare.producer.>"),
            Subscribe("_INBOX.fanfare.api.>"),
            Subscribe("$JS.EVENT.>"),
            Subscribe("$SYS.>"),
        ],
    ),
    (
        "producer-globex",
        "_INBOX.fanfare.producer.globex",
        &[
            Publish("fanfare.inbox.globex.order.made"),
            Publish("fanfare.publish.acme.order.made"),
            Subscribe("_INBOX.fanfare.producer.acme.>"),
        ],
    ),
    (
        "ingest",
        "_INBOX.fanfare.ingest",
        &[
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_JOURNAL"),
            Publish("$JS.API.STREAM.MSG.GET.FANFARE_JOURNAL"),
            Publish("$JS.API.DIRECT.GET.FANFARE_JOURNAL"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.DELETE.FANFARE_INBOX"),
            Publish("$JS.API.STREAM.UPDATE.FANFARE_INBOX"),
            Publish("fanfare.journal.routed"),
            Publish("fanfare.config.tenant.acme.acme"),
            Publish("fanfare.deliveries.1"),
            Publish("_INBOX.fanfare.dispatcher.x"),
            Subscribe("fanfare.inbox.>"),
            Subscribe("_INBOX.fanfare.api.>"),
        ],
    ),
    (
        "fan-out",
        "_INBOX.fanfare.fan-out",
        &[
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.journal.1.attempts"),
            Publish("fanfare.config.endpoint.acme.ep_1"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_DELIVERIES"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.FANFARE_DELIVERIES.dispatcher-0"),
            Publish("$JS.API.CONSUMER.DELETE.FANFARE_DELIVERIES.dispatcher-0"),
            Publish("$KV.FANFARE_feeds.0.ep_1"),
            Subscribe("fanfare.owner.*.fed"),
        ],
    ),
    (
        "dispatcher",
        "_INBOX.fanfare.dispatcher",
        &[
            Publish("$JS.API.STREAM.DELETE.FANFARE_DELIVERIES"),
            Publish("$JS.API.STREAM.DELETE.FANFARE_JOURNAL"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_JOURNAL"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_INBOX"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.FANFARE_EVENTS.fan-out"),
            Publish("$JS.API.CONSUMER.DELETE.FANFARE_EVENTS.fan-out"),
            Publish("fanfare.journal.1.plans"),
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.config.endpoint.acme.ep_1"),
            Rollup("fanfare.retries.at.1.x"),
            Publish("$KV.FANFARE_idempotency.x"),
            Publish("$KV.FANFARE_owners.retry-scheduler.shards"),
        ],
    ),
    (
        "retry-scheduler",
        "_INBOX.fanfare.retry-scheduler",
        &[
            Publish("fanfare.journal.1.attempts"),
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.inbox.acme.order.made"),
            Publish("fanfare.config.key.acme.key_1"),
            Publish("fanfare.config.tenant.acme.acme"),
            Publish("fanfare.retries.due.1"),
            Publish("$JS.API.STREAM.DELETE.FANFARE_RETRIES"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_INBOX"),
        ],
    ),
    (
        "projector",
        "_INBOX.fanfare.projector",
        &[
            Publish("fanfare.journal.routed"),
            Publish("fanfare.config.tenant.acme.acme"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.MSG.DELETE.FANFARE_EVENTS"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_INBOX"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.FANFARE_EVENTS.fan-out"),
        ],
    ),
    (
        "api",
        "_INBOX.fanfare.api",
        &[
            Publish("fanfare.journal.routed"),
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.inbox.acme.order.made"),
            Publish("fanfare.retries.at.1.x"),
            Publish("$JS.API.STREAM.DELETE.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.UPDATE.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_JOURNAL"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_DELIVERIES"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.FANFARE_EVENTS.fan-out"),
            Publish("_INBOX.fanfare.producer.acme.x"),
        ],
    ),
    (
        "bootstrap",
        "_INBOX.fanfare.bootstrap",
        &[
            Publish("$JS.API.STREAM.DELETE.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_EVENTS"),
            Publish("$JS.API.STREAM.CREATE.OTHER"),
            Publish("$JS.API.CONSUMER.CREATE.FANFARE_EVENTS"),
            Publish("$JS.API.DIRECT.GET.FANFARE_CONFIG"),
            Publish("fanfare.events.acme.order.made"),
        ],
    ),
    (
        "operator",
        "_INBOX.fanfare.client",
        &[
            Publish("fanfare.events.acme.order.made"),
            Publish("fanfare.config.tenant.acme.acme"),
            Publish("$JS.API.DIRECT.GET.FANFARE_CONFIG"),
            Publish("$JS.API.STREAM.PURGE.FANFARE_EVENTS"),
            Subscribe("fanfare.publish.>"),
        ],
    ),
    (
        "check",
        "_INBOX.fanfare.check",
        &[
            Publish("$SYS.REQ.SERVER.PING.VARZ"),
            Publish("$SYS.REQ.SERVER.PING.CONNZ"),
            Publish("$SYS.REQ.CLAIMS.UPDATE"),
            Publish("fanfare.inbox.acme.order.made"),
            Subscribe("$SYS.>"),
        ],
    ),
];

/// Tries all of it.
pub(super) async fn all_is_refused(locked: &Locked) -> Result<()> {
    for (user, inbox, acts) in FORBIDDEN {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        let options = ConnectOptions::new().event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            std::future::ready(())
        });
        let client = locked.client(user, inbox, options).await?;
        for act in *acts {
            let subject =
                attempt(&client, *act).await.with_context(|| format!("{user}: {act:?}"))?;
            let quoted = format!("\"{subject}\"");
            wait_until(&format!("{user} to be refused {act:?}"), async || {
                let said = said.lock().unwrap_or_else(PoisonError::into_inner);
                let is_it = |text: &String| {
                    text.contains("Permissions Violation") && text.contains(&quoted)
                };
                if said.iter().any(is_it) { Ok(()) } else { Err(said.last().cloned()) }
            })
            .await;
        }
    }
    strangers_stay_out(locked).await
}

/// Streams, and where in them somebody might have an answer stored who asks for it there: the servers
/// do not check where an answer is to go, and ingest may publish to all of these.
const STORED: &[(&str, &str)] = &[
    ("KV_FANFARE_idempotency", "$KV.FANFARE_idempotency.mallory"),
    ("KV_FANFARE_owners", "$KV.FANFARE_owners.ingest.member.mallory"),
    ("FANFARE_EVENTS", "fanfare.events.globex.mallory"),
    ("FANFARE_REJECTED", "fanfare.rejected.mallory"),
];

/// Has requests answered where it is stored, and finds nothing there.
pub(super) async fn no_answer_is_stored(locked: &Locked) -> Result<()> {
    let inbox = "_INBOX.fanfare.producer.globex";
    let client = locked.client("producer-globex", inbox, ConnectOptions::new()).await?;
    let (subject, nothing) = ("fanfare.publish.globex.order.made", Bytes::from_static(b"{}"));
    for (_, reply) in STORED {
        client.publish_with_reply(subject, *reply, nothing.clone()).await?;
    }
    // They are taken in turn: when this one is answered, the others are done with.
    client.request(subject, nothing).await.context("an ordinary request is answered")?;
    let all = locked.client("admin", "_INBOX.fanfare.admin", ConnectOptions::new()).await?;
    let streams = jetstream::new(all);
    for (stream, subject) in STORED {
        let stream = streams.get_stream_no_info(*stream).await?;
        let found = stream.get_last_raw_message_by_subject(subject).await;
        let missing =
            matches!(&found, Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound);
        ensure!(missing, "{subject}: {found:?}");
    }
    Ok(())
}

async fn attempt(client: &Client, act: Act) -> Result<&'static str> {
    let payload = Bytes::from_static(b"{}");
    let subject = match act {
        Publish(subject) => {
            client.publish(subject, payload).await?;
            subject
        }
        Rollup(subject) => {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", "all");
            client.publish_with_headers(subject, headers, payload).await?;
            subject
        }
        Subscribe(subject) => {
            drop(client.subscribe(subject).await?);
            subject
        }
    };
    client.flush().await?;
    Ok(subject)
}

/// Who shows no certificate, or is no user, does not get in at all.
async fn strangers_stay_out(locked: &Locked) -> Result<()> {
    let home = locked.user("operator");
    let url = locked.log_settings()?.url;
    let seed = std::fs::read_to_string(home.join("user.nk"))?;
    let plain =
        || ConnectOptions::new().require_tls(true).add_root_certificates(home.join("ca.pem"));
    let certified = || {
        plain().add_client_certificate(home.join("certificate.pem"), home.join("certificate.key"))
    };
    let other = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";
    for (who, options) in [
        ("nobody", plain()),
        ("a user without a certificate", plain().nkey(seed.trim().to_owned())),
        ("a certificate without a user", certified()),
        ("another nkey", certified().nkey(String::from(other))),
        ("a password", certified().user_and_password(String::from("admin"), String::from("admin"))),
    ] {
        ensure!(options.connect(url.as_str()).await.is_err(), "{who} was let in");
    }
    certified()
        .nkey(seed.trim().to_owned())
        .connect(url.as_str())
        .await
        .context("the user itself")?;
    Ok(())
}
