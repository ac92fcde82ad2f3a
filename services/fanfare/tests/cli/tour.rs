//! `fanfare demo`: the first thing that anybody tries has to work.

use std::process::Stdio;

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::session::PATIENCE;

#[tokio::test]
async fn the_tour_tells_of_a_delivery_a_retry_and_a_dead_letter() {
    let run = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["demo", "--json"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, run).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let concluded = |conclusion: &str, attempts: u64| {
        told.iter()
            .filter(|fact| fact["conclusion"] == conclusion && fact["attempts"] == attempts)
            .count()
    };
    assert_eq!(concluded("delivered", 1), 1, "{text}");
    assert_eq!(concluded("delivered", 3), 1, "{text}");
    assert_eq!(concluded("exhausted", 3), 1, "{text}");
    assert!(told.iter().any(|one| one["signature"] == "verified"), "{text}");
    assert!(told.iter().any(|one| one["stream"] == "FANFARE_DEAD"), "{text}");
}
