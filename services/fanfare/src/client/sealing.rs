//! `fanfare keys`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api::{Api, text};
use crate::output::{Output, Tone};

const ROTATE_EXAMPLES: &str = "\
The way to another sealing key, on every machine with a dispatcher or an api:
  1. Put the new key into the sealing key file, below the old one (`openssl rand -hex 32`), and start
     the dispatchers and the apis again: all of them open what either key has sealed.
  2. Move it above the old one, and start the apis again: the first key seals.
  3. fanfare keys rotate
  4. A day later, when answers kept under the old key have expired, remove its line.";

/// What can be done with the keys that seal secrets. API keys are `fanfare key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal all secrets anew with the first sealing key.
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    let Command::Rotate { dry_run } = command;
    let mut sum = Sum::default();
    let mut after = Value::Null;
    loop {
        let body = json!({ "after": after, "dry_run": dry_run });
        let mut done = api.post("/v1/sealing-key/rotate", &body).await?;
        sum.add(&mut done);
        after = done.get("next").cloned().unwrap_or_default();
        if after.is_null() {
            break;
        }
    }
    sum.show(dry_run, output);
    anyhow::ensure!(
        sum.unopenable.is_empty(),
        "{} endpoints keep what does not open: restore \
         the key that sealed it, or give them new secrets",
        sum.unopenable.len()
    );
    Ok(())
}

/// What all answers say together.
#[derive(Default)]
struct Sum {
    sealing_key: String,
    looked_at: u64,
    resealed: u64,
    /// How many secrets each key had sealed.
    sealed_by: BTreeMap<String, u64>,
    unopenable: Vec<Value>,
}

impl Sum {
    fn add(&mut self, done: &mut Value) {
        let count = |name| done.get(name).and_then(Value::as_u64).unwrap_or_default();
        self.looked_at += count("looked_at");
        self.resealed += count("resealed");
        self.sealing_key = String::from(text(done, "sealing_key"));
        let by = done.get("sealed_by").and_then(Value::as_object).into_iter().flatten();
        for (key, count) in by {
            *self.sealed_by.entry(key.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
        if let Some(Value::Array(values)) = done.get_mut("unopenable") {
            self.unopenable.append(values);
        }
    }

    fn show(&self, dry_run: bool, output: Output) {
        if output.json {
            output.document(&json!({
                "sealing_key": self.sealing_key, "looked_at": self.looked_at,
                "resealed": self.resealed, "sealed_by": self.sealed_by, "dry_run": dry_run,
                "unopenable": self.unopenable,
            }));
            return;
        }
        let done = if dry_run { "to be sealed anew" } else { "sealed anew" };
        output.fields(&[
            ("sealing key", output.tone(Tone::Strong, &self.sealing_key)),
            ("endpoints", self.looked_at.to_string()),
            (done, self.resealed.to_string()),
        ]);
        for (key, count) in &self.sealed_by {
            let were = if dry_run { "are" } else { "were" };
            output.line(&format!("{count} secrets {were} sealed by {key}"));
        }
        for value in &self.unopenable {
            let (endpoint, tenant) = (text(value, "endpoint_id"), text(value, "tenant_id"));
            output.line(&format!("{endpoint} of {tenant}: {}", text(value, "detail")));
        }
    }
}
