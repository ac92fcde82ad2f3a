//! Servers that give out tokens, and what they do in place of that.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fanfare_domain::{EndpointId, Outcome, fact::AttemptMade};
use fanfare_testkit::{
    Named,
    receiver::{Behaviour, Reply},
};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    support::EAGER,
    table::{Family, Row, Seen},
    world::{INSIDE, World, new_endpoint},
};

const TENANT: &str = "grants";
/// What stands in each endpoint's credentials.
const SECRET: &str = "client-secret-b81e0d55";
const TOKEN: &str = "access-token-93c7aa10";

const FAILED: &str = "authentication_failed, and the endpoint heard nothing";
const ACCEPTED: &str = "accepted 200, and no secret on record";

/// Where tokens are asked for that are inside.
const BY_ADDRESS: &str = "a token URL with an address inside";
const BY_NAME: &str = "a token URL with a name that leads inside";
const ECHO: &str =
    "an endpoint that says its token back, and a server that does so with the secret";

/// What a server does when it is asked for a token.
fn replies(inside: &str) -> Vec<(&'static str, &'static str, Behaviour)> {
    let said = |status, body: &str| Behaviour::Reply(Reply::new(status).body(String::from(body)));
    let token = |token: &str| json!({ "access_token": token, "token_type": "Bearer" }).to_string();
    let long = token(&"x".repeat(1 << 20));
    let echoed = json!({ "error": SECRET, "error_description": SECRET }).to_string();
    vec![
        ("redirect", "answers with a redirect inside", Behaviour::redirect(inside)),
        ("split", "gives a token with line ends", said(200, &token("a\r\nx-evil: 1"))),
        ("long", "gives a token of a megabyte", said(200, &long)),
        ("none", "gives JSON without a token", said(200, "{}")),
        ("page", "gives a page", said(200, "<script>alert(1)</script>")),
        ("deep", "gives JSON of a hundred thousand levels", said(200, &"[".repeat(100_000))),
        ("echo-refused", "refuses, and says the secret back", said(400, &echoed)),
        ("endless", "never stops", Behaviour::Endless(200)),
        ("silent", "never answers", Behaviour::Silent),
        ("reset", "resets the connection", Behaviour::ResetBeforeHead),
    ]
}

pub(crate) fn family() -> Family {
    let mut rows = vec![Row::new(BY_ADDRESS, FAILED), Row::new(BY_NAME, FAILED)];
    rows.extend(
        replies("")
            .into_iter()
            .map(|(name, what, _)| Row::named(name, &format!("a server that {what}"), FAILED)),
    );
    rows.push(Row::new(ECHO, ACCEPTED));
    Family {
        title: "Servers that give out tokens",
        how: "Each endpoint wants a token (OAuth2 client credentials), which a server is asked for that does one of \
              this. The rules for addresses hold for it too; its answer is not followed and not repeated.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, EAGER).await?;
    let inside = format!("http://{}/", world.sink.address());
    let port = world.receiver.address().port();
    world.names.say("tokens.example", Named::At(vec![INSIDE]));
    let mut endpoints = Vec::new();
    for (name, url) in
        [(BY_ADDRESS, inside.clone()), (BY_NAME, format!("http://tokens.example:{port}/"))]
    {
        endpoints.push((name, endpoint(world, endpoints.len(), &url).await?));
    }
    for (name, _, behaviour) in replies(&inside) {
        let path = format!("/token-{name}");
        world.receiver.answer_at(&path, behaviour);
        let url = world.receiver.url(&path);
        endpoints.push((name, endpoint(world, endpoints.len(), &url).await?));
    }
    let given = json!({ "access_token": TOKEN, "token_type": "Bearer", "note": SECRET });
    world.receiver.answer_at("/token-good", Behaviour::text(200, given.to_string()));
    let good = endpoint(world, endpoints.len(), &world.receiver.url("/token-good")).await?;
    endpoints.push((ECHO, good));
    world.api().publish(TENANT, "a.b", "{}", "grants").await?;
    let judged = endpoints.into_iter().enumerate().map(|(number, (name, id))| async move {
        let attempts = world.attempts(id, 1).await;
        let made = attempts.first().context("an attempt")?;
        Ok::<_, anyhow::Error>((String::from(name), told(world, number, made)))
    });
    let mut seen: Seen = try_join_all(judged).await?.into_iter().collect();
    if world.sink.connections() > 0 {
        seen.insert(String::from(BY_ADDRESS), String::from("a connection"));
    }
    Ok(seen)
}

/// Makes an endpoint that says back what it is shown, and wants tokens from there.
async fn endpoint(world: &World, number: usize, token_url: &str) -> Result<EndpointId> {
    let path = format!("/granted-{number}");
    let echo = Behaviour::ask(|request| {
        let shown = String::from(request.header("authorization").unwrap_or_default());
        Behaviour::Reply(Reply::new(200).header("x-echo", &shown).body(Bytes::from(shown)))
    });
    world.receiver.answer_at(&path, echo);
    let mut new: Value = new_endpoint(&world.receiver.url(&path));
    new["authentication"] = json!({
        "type": "oauth2", "token_url": token_url, "client_id": "us", "client_secret": SECRET,
        "credentials_in": "body",
    });
    Ok(world.api().endpoint(TENANT, &new).await?.id.parse()?)
}

fn told(world: &World, number: usize, made: &AttemptMade) -> String {
    let path = format!("/granted-{number}");
    let heard = world.receiver.requests().iter().any(|request| request.path == path);
    let shown = format!("{made:?}");
    if [SECRET, TOKEN].iter().any(|secret| shown.contains(secret)) {
        return shown;
    }
    match &made.outcome {
        Outcome::Failed(fault) if !heard && made.response_body.is_empty() => {
            format!("{fault}, and the endpoint heard nothing")
        }
        Outcome::Accepted { status } if &*made.response_body == b"Bearer ***" => {
            format!("accepted {status}, and no secret on record")
        }
        Outcome::Failed(_) | Outcome::Accepted { .. } | Outcome::Refused { .. } => shown,
    }
}
