//! One request to an endpoint, with a token where it wants one.

use std::{borrow::Cow, sync::Arc, time::Duration};

use fanfare_domain::{Fault, Outcome, Timestamp, profile::Profile, retry_after};
use fanfare_egress::{Answer, Client, Request, Wanted};
use http::{StatusCode, header::AUTHORIZATION};
use tokio::time::Instant;

use crate::{
    grant::{Asking, Grant, NoToken, Token, unanswered},
    runtime::Ready,
};

/// What is said of a token that the endpoint takes no more.
const OUTDATED: &str = "the endpoint answered 401 to a token that was kept from before; the next \
                        attempt asks for another one";

/// What came of a request.
pub(super) struct Exchanged {
    /// What the endpoint answered, or why it did not.
    pub(super) answer: Answer,
    /// What it was shown, and is not to be repeated.
    pub(super) token: Option<Arc<Token>>,
    /// Whether the endpoint refused a token that was kept from before: it may have been revoked, and
    /// then its answer is about the token alone.
    is_outdated: bool,
}

impl Exchanged {
    /// Judges it; a few words are about what is a fault.
    pub(super) fn judge(&self, profile: &Profile, now: Timestamp) -> (Outcome, Cow<'static, str>) {
        let head = match &self.answer.result {
            Ok(head) => head,
            Err(failure) => return (Outcome::Failed(failure.fault), failure.detail.clone()),
        };
        let asked = self.answer.retry_after().and_then(|text| retry_after::parse(text, now));
        let outcome = profile.outcome_of(head.status, asked);
        if self.is_outdated && matches!(outcome, Outcome::Refused { .. }) {
            return (Outcome::Failed(Fault::AuthenticationFailed), Cow::Borrowed(OUTDATED));
        }
        (outcome, Cow::Borrowed(""))
    }
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
    Some(Exchanged { answer, token: None, is_outdated: false })
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
            let answer = unanswered(why, began.elapsed());
            return Some(Exchanged { answer, token: None, is_outdated: false });
        }
    };
    let spent: Duration = began.elapsed();
    request.headers.insert(AUTHORIZATION, token.header().clone());
    request.deadline = request.deadline.saturating_sub(spent);
    let mut answer = client.send_while(request, wanted).await?;
    answer.duration += spent;
    answer.moments = answer.moments.later(spent);
    let is_refused = answer.status() == Some(StatusCode::UNAUTHORIZED.as_u16());
    if is_refused {
        grant.reject(&token);
    }
    let is_outdated = is_refused && token.is_from_before(began);
    Some(Exchanged { answer, token: Some(token), is_outdated })
}
