//! OTLP over HTTP, on the process's runtime.

use std::{fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::{ExportError, Tls};

/// An HTTP client that can be waited for anywhere: metrics are pushed by a thread that has no
/// runtime of its own, on which the client would fail.
pub(crate) struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

impl OnRuntime {
    /// Makes a client whose requests end in this time, well or not. Must be called inside a Tokio
    /// runtime.
    pub(crate) fn new(patience: Duration, tls: &Tls) -> Result<Self, ExportError> {
        // What it sends to a collector, keys included, is for no other server.
        let redirects = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(redirects).timeout(patience);
        let client = tls.over_http(client).build();
        Ok(Self { client: client.map_err(ExportError::Client)?, runtime: Handle::current() })
    }
}

/// Says nothing of what it holds.
impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRuntime")
    }
}

impl HttpClient for OnRuntime {
    // As the attribute of the trait writes it.
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        Box::pin(async move { sending.await? })
    }
}

async fn send(
    client: reqwest::Client,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
    let mut response = Response::builder().status(status).body(answer.bytes().await?)?;
    *response.headers_mut() = headers;
    Ok(response)
}
