//! What a process does once, around everything else.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use fanfare_domain::chain;
use rustls::crypto::{CryptoProvider, ring};
use tracing::error;

use crate::{
    Traces,
    telemetry::{self, Telemetry},
};

/// How long blocking work may keep a finished process from ending.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(1);

/// Makes *ring* the provider of cryptography for TLS in this process.
///
/// Must be called before the first TLS connection, in every binary and test that makes one.
/// Calling it again, or after another provider was installed, changes nothing.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, with the same provider.
        let _installed = ring::default_provider().install_default();
    }
}

/// Runs `main` on a runtime to its end and turns the result into an exit code.
///
/// An error is logged once, with the whole chain of causes; if `main` failed before it set up
/// telemetry, in the default way.
pub fn run<F>(main: F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    crate::guard_crashes();
    install_crypto_provider();
    match block_on(main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            let _set_up_before = telemetry::init(&Telemetry::default(), &Traces::default());
            error!(error = chain(cause.as_ref()), "failed");
            ExitCode::FAILURE
        }
    }
}

fn block_on<F>(main: F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("start the runtime")?;
    let result = runtime.block_on(main);
    runtime.shutdown_timeout(LEFTOVERS_GRACE);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crypto_provider_can_be_installed_twice() {
        install_crypto_provider();
        install_crypto_provider();
        assert!(CryptoProvider::get_default().is_some());
    }
}
