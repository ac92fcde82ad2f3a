//! temp
use crate::support::*;
use std::time::{Duration, Instant};
#[tokio::test(flavor = "multi_thread")]
async fn speed() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let scheduler = world
        .start_with(|s| {
            s.in_flight_max = 4096;
            s.sweep_interval = Duration::from_secs(5);
            s.sweep_grace = Duration::from_secs(5);
            s.snapshot_interval = Duration::from_secs(10);
        })
        .await?;
    let begun = Instant::now();
    let due = from_now(Duration::from_hours(1));
    let mut n = 0u64;
    for batch in 0..100u32 {
        let facts = (0..256u32)
            .map(|i| {
                let fanfare_domain::Fact::AttemptMade(made) = world.attempt(0, 1, 500, Some(due))
                else {
                    unreachable!()
                };
                let mut made = *made;
                let mut c = [0u8; 10];
                c[..4].copy_from_slice(&(batch * 256 + i).to_be_bytes());
                made.delivery.id = fanfare_domain::DeliveryId::new(now(), c);
                fanfare_domain::Fact::AttemptMade(Box::new(made))
            })
            .collect();
        world.record(facts).await?;
        n += 256;
    }
    println!("written {n} in {:?}", begun.elapsed());
    scheduler.alarms(n).await;
    println!("alarms {n} in {:?}", begun.elapsed());
    println!(
        "{:?}",
        std::fs::read_to_string("/proc/self/status")?.lines().find(|l| l.starts_with("VmRSS"))
    );
    let begun = Instant::now();
    scheduler.crash().await;
    let s2 = world.start().await?;
    fanfare_testkit::wait_until("caught up", async || {
        let w = s2.counters.waiting.get();
        if w == n { Ok(()) } else { Err(w) }
    })
    .await;
    println!("recovered in {:?}", begun.elapsed());
    s2.alarms(n).await;
    println!("reput in {:?}", begun.elapsed());
    let begun = Instant::now();
    s2.stop().await?;
    println!("stopped in {:?}", begun.elapsed());
    let begun = Instant::now();
    let s3 = world.start().await?;
    fanfare_testkit::wait_until("caught up", async || {
        let w = s3.counters.waiting.get();
        if w == n { Ok(()) } else { Err(w) }
    })
    .await;
    println!(
        "recovered from snapshot in {:?} rescues {}",
        begun.elapsed(),
        s3.counters.rescues.get()
    );
    Ok(())
}
