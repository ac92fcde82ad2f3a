//! One request to an endpoint, with a token where it wants one.

use std::{sync::Arc, time::Duration};

use fanfare_egress::{Answer, Client, Request, Wanted};
use http::{StatusCode, header::AUTHORIZATION};
use tokio::time::Instant;

use crate::{
    grant::{Asking, Grant, NoToken, Token, unanswered},
    runtime::Ready,
};

/// What came of a request.
pub(super) struct Exchanged {
    /// What the endpoint answered, or why it did not.
    pub(super) answer: Answer,
    /// What it was shown, and is not to be repeated.
    pub(super) token: Option<Arc<Token>>,
}

/// Sends a request; returns `None` if it was no longer wanted, and not sent. All of it, the fetching
/// of a token included, takes no longer than the request may.
pub(super) async fn exchange(
    client: &Client,
    ready: &Ready,
    request: Request,
    wanted: Wanted,
) -> Option<Exchanged> {
    if let Some(grant) = &ready.grant {
        // Few endpoints want tokens, and all have to remember this future.
        return Box::pin(with_token(client, (ready, grant), request, wanted)).await;
    }
    let answer = client.send_while(request, wanted).await?;
    Some(Exchanged { answer, token: None })
}

async fn with_token(
    client: &Client,
    (ready, grant): (&Ready, &Grant),
    mut request: Request,
    wanted: Wanted,
) -> Option<Exchanged> {
    let began = Instant::now();
    let until = began + request.deadline;
    let asking = Asking { client, identity: ready.identity.as_ref(), wanted: &wanted, until };
    let token = match grant.token(asking).await {
        Ok(token) => token,
        Err(NoToken::Withdrawn) => return None,
        Err(NoToken::Failed(why)) => {
            return Some(Exchanged { answer: unanswered(why, began.elapsed()), token: None });
        }
    };
    let spent: Duration = began.elapsed();
    request.headers.insert(AUTHORIZATION, token.header().clone());
    request.deadline = request.deadline.saturating_sub(spent);
    let mut answer = client.send_while(request, wanted).await?;
    answer.duration += spent;
    answer.moments = answer.moments.later(spent);
    if answer.status() == Some(StatusCode::UNAUTHORIZED.as_u16()) {
        grant.reject(&token);
    }
    Some(Exchanged { answer, token: Some(token) })
}
