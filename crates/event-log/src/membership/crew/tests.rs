//! Every grant is released, whatever the worker saw of it: leaving waits for that.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
};

use fanfare_domain::ShardCount;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::{Grant, Lease, Membership, Released, Share};

fn grants() -> BTreeSet<Grant> {
    let grants = ShardCount::ONE.shards().map(|shard| Grant { shard, number: 0 });
    grants.collect()
}

fn membership(share: Share) -> (watch::Sender<Share>, watch::Receiver<Released>, Membership) {
    let (shares, seen) = watch::channel(share);
    let released = Arc::new(watch::Sender::default());
    let lease = Lease { confirmed: watch::channel(None).1 };
    let told = released.subscribe();
    (shares, told, Membership { lease, shares: seen, released })
}

fn share(grants: BTreeSet<Grant>, withdrawn: BTreeSet<Grant>) -> Share {
    Share { member: Arc::from("a"), lost: CancellationToken::new(), grants, withdrawn }
}

#[tokio::test]
async fn what_was_given_and_taken_back_unseen_is_released() {
    let (shares, mut released, membership) = membership(share(BTreeSet::new(), grants()));
    let begun = Mutex::new(0);
    let working = membership.work(|_| {
        *begun.lock().unwrap() += 1;
        pending::<Result<(), Infallible>>()
    });
    tokio::select! {
        never = working => panic!("the work ended: {never:?}"),
        told = released.wait_for(|released| released.grants == grants()) => {
            told.unwrap();
        }
    }
    assert_eq!(*begun.lock().unwrap(), 0, "nobody may begin to work on it");
    drop(shares);
}

#[tokio::test]
async fn after_a_failure_nothing_is_waited_for() {
    let (_shares, mut released, membership) = membership(share(grants(), BTreeSet::new()));
    let worked = membership.work(async |_| Err("broken")).await;
    assert_eq!(worked, Err("broken"));
    released.wait_for(|released| released.everything).await.unwrap();
}
