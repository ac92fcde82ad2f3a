//! `fanfare apply`: tenants, event types and endpoints as a file declares them.
//!
//! The members of the file are those of the API. What is not in the file is left alone: nothing is
//! deleted, and a member that is not declared stays as it is.

mod file;
mod plan;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::chain;
use serde_json::{Value, json};

use self::{
    file::{Declared, DeclaredTenant},
    plan::{Kind, Step, Steps},
};
use super::{
    api::{Api, text},
    text::printable,
};
use crate::output::{Output, Tone};

/// What the help says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  fanfare apply -f fanfare.toml          # says what it would do
  fanfare apply -f fanfare.toml --yes    # does it

  [[tenants]]
  id = \"acme\"
  profile = \"kyberaccess\"
  plan = \"starter\"

  [[tenants.event_types]]
  type = \"visitor.denied\"

  [[tenants.endpoints]]
  name = \"lobby\"                         # by which it is known again
  url = \"https://example.com/hook\"
  event_types = [\"visitor.*\"]
  state = \"active\"                       # or paused, disabled";

/// What to apply.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file: TOML, with the members that the API has.
    #[arg(short, long, value_name = "PATH")]
    file: PathBuf,
    /// Do it. Without this, only what would be done is shown.
    #[arg(long)]
    yes: bool,
}

/// Says what is to be done, and does it if it was asked to.
pub(crate) async fn apply(options: Options, api: &Api, output: Output) -> Result<()> {
    let path = options.file.display().to_string();
    let toml = std::fs::read_to_string(&options.file).with_context(|| format!("read {path}"))?;
    let declared = Declared::parse(&toml).with_context(|| format!("read {path}"))?;
    let steps = steps(&declared, api).await?;
    if !output.json {
        show(&steps, options.yes, output);
    }
    let (mut answers, mut done) = (Vec::new(), Ok(()));
    if options.yes {
        done = carry_all_out(&steps, api, output, &mut answers).await;
    }
    if output.json {
        let steps: Vec<Value> = steps.iter().map(Step::json).collect();
        let error = done.as_ref().err().map(|error| chain(error.as_ref()));
        output.document(&json!({
            "steps": steps,
            "applied": options.yes && error.is_none(),
            "answers": answers,
            "error": error,
        }));
    }
    done
}

/// Compares what is declared with what is there.
async fn steps(declared: &Declared, api: &Api) -> Result<Vec<Step>> {
    let mut steps = Steps::default();
    for declared in &declared.event_types {
        event_type(&mut steps, "/v1/event-types", declared, Some(api)).await?;
    }
    for declared in &declared.tenants {
        tenant(&mut steps, declared, api).await?;
    }
    Ok(steps.into_steps())
}

async fn tenant(steps: &mut Steps, declared: &DeclaredTenant, api: &Api) -> Result<()> {
    let path = format!("/v1/tenants/{}", declared.id);
    let found = api.find(&path).await?;
    steps.thing(Kind::Tenant, ("/v1/tenants", &path), &declared.members, found.as_ref())?;
    // Of a tenant that is not there yet, nothing is.
    let asked = found.is_some().then_some(api);
    for declared in &declared.event_types {
        event_type(steps, &format!("{path}/event-types"), declared, asked).await?;
    }
    let all = format!("{path}/endpoints");
    let there = match asked {
        Some(api) if !declared.endpoints.is_empty() => api.list(&all).await?,
        Some(_) | None => Vec::new(),
    };
    for endpoint in &declared.endpoints {
        let mut named = there.iter().filter(|one| text(one, "name") == endpoint.name);
        let (found, other) = (named.next(), named.next());
        if other.is_some() {
            anyhow::bail!("{} has several endpoints of the name {:?}", declared.id, endpoint.name);
        }
        let id = found.map_or("", |found| text(found, "id"));
        let one = format!("{all}/{id}");
        steps.thing(Kind::Endpoint, (&all, &one), &endpoint.members, found)?;
        steps.state(&one, &endpoint.name, endpoint.state, found);
    }
    Ok(())
}

async fn event_type(
    steps: &mut Steps,
    all: &str,
    declared: &Value,
    api: Option<&Api>,
) -> Result<()> {
    let one = format!("{all}/{}", text(declared, "type"));
    let found = match api {
        Some(api) => api.find(&one).await?,
        None => None,
    };
    steps.thing(Kind::EventType, (all, &one), declared, found.as_ref())
}

/// Does what is to be done, up to the first failure.
async fn carry_all_out(
    steps: &[Step],
    api: &Api,
    output: Output,
    answers: &mut Vec<Value>,
) -> Result<()> {
    for step in steps {
        carry_out(step, api, output, answers).await.with_context(|| step.words())?;
    }
    Ok(())
}

/// Does one step. An answer is told or kept before anything can fail after it: a secret in it is
/// shown this once.
async fn carry_out(step: &Step, api: &Api, output: Output, answers: &mut Vec<Value>) -> Result<()> {
    match step {
        Step::Create { path, body, state, .. } => {
            let made = api.post(path, body).await?;
            tell_secret(&made, output);
            let one = format!("{path}/{}", text(&made, "id"));
            answers.push(made);
            if let Some(action) = state {
                api.post(&format!("{one}/{action}"), &json!({})).await?;
            }
        }
        Step::Change { path, body, .. } => answers.push(api.patch(path, body).await?),
        Step::Act { path, action, .. } => {
            answers.push(api.post(&format!("{path}/{action}"), &json!({})).await?);
        }
    }
    Ok(())
}

fn show(steps: &[Step], yes: bool, output: Output) {
    if steps.is_empty() {
        output.line("Everything is as the file has it.");
        return;
    }
    for step in steps {
        let tone = match step {
            Step::Create { .. } => Tone::Good,
            Step::Change { .. } | Step::Act { .. } => Tone::Warning,
        };
        output.line(&output.tone(tone, &printable(&step.words())));
    }
    if !yes {
        output.line("");
        output.line("Nothing is done yet: --yes does it.");
    }
}

/// Shows the secret of an endpoint that was made, once.
fn tell_secret(made: &Value, output: Output) {
    let secret = text(made, "secret");
    if !output.json && !secret.is_empty() {
        let name = printable(text(made, "name"));
        let secret = output.tone(Tone::Strong, secret);
        output.line(&format!("the secret of {name}, shown this once: {secret}"));
    }
}
