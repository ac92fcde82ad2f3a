//! The REST API: tenants, endpoints and keys are made and changed here, events are published, and
//! deliveries are explained.
//!
//! | reads            | writes   |
//! | ---------------- | -------- |
//! | CONFIG           | CONFIG   |
//! | EVENTS           | COMMANDS |
//! | JOURNAL          | JOBS     |
//! | JOBS             |          |
//! | the delivery log |          |
//!
//! **Guarantee.** What is answered is stored, and every process of the service reads it from then
//! on. A change made from a version that is no longer the last is refused where the caller names
//! the version. A POST that is repeated with its `Idempotency-Key` is answered as the first one was.
//! A secret is shown once, in the answer that made it, and is sealed everywhere else.
//! A tenant's key sees its own tenant; all others look as if they did not exist.
//!
//! What was begun with the removal of a tenant is carried on by any process of the service.
//!
//! **Not here.** Events are taken by ingest, which this service asks with a request of its own;
//! what endpoints get is the dispatcher's.

mod app;
mod bootstrap;
mod caller;
mod counted;
mod counters;
mod directory;
mod errands;
mod error;
mod etag;
mod expunge;
mod extract;
mod limits;
mod live;
mod lookup;
mod openapi;
mod pace;
mod page;
mod portal;
mod rates;
mod repeat;
mod reply;
mod routes;
mod scan;
mod secret_key;
mod server;
mod settings;
mod shares;
mod trust;
mod url_rules;
mod uses;
mod visit;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use fanfare_delivery_log::Database;
use fanfare_domain::UrlPolicy;
use fanfare_event_log::{ConfigView, EventLog, JobsView};
use fanfare_service::{Context, check_keyring, load_keyring, load_profiles};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::info;

use crate::{
    app::App,
    counters::{Counters, Limited},
    directory::Directory,
    errands::Errands,
    live::Live,
    pace::Paces,
    rates::{Defaults, Rates},
    shares::Shares,
    uses::Uses,
    visit::{BODIES_BYTES_EACH_MAX, BODIES_BYTES_MAX},
};

pub use bootstrap::check_files;
pub use openapi::document as openapi_document;
pub use rates::{MalformedRate, Rate};
pub use secret_key::generate_key;
pub use settings::{EndpointHttps, MalformedEndpointHttps, MalformedOrigin, Origin, Settings};
pub use trust::{MalformedTraceTrust, TraceTrust};

/// How many requests may read the journal at once, of all tenants and of one.
const SCANS_MAX: (usize, u32) = (4, 2);
/// How many batches of events may be on their way to ingest at once, of all tenants and of one.
const BATCHES_MAX: (usize, u32) = (16, 8);

/// Connects to the log, folds the configuration, and serves the API.
pub async fn start(context: &mut Context, settings: Settings) -> anyhow::Result<()> {
    bind_and_start(context, settings).await.map(drop)
}

/// Like [`start`]; returns the address that is listened on, for a setting that leaves the port
/// open.
pub async fn bind_and_start(
    context: &mut Context,
    settings: Settings,
) -> anyhow::Result<SocketAddr> {
    let readiness = context.readiness("directory");
    let keyring = load_keyring(&settings.sealing_key_file)?;
    let operator_keys = bootstrap::operator_keys(&settings)?;
    let rates = Rates::new(Defaults::of(&settings));
    let profiles = load_profiles(settings.profiles_dir.as_deref()).context("load the profiles")?;
    let database = Database::to_read(&settings.database).context("read the database's URL")?;
    let (ports, addresses) = (settings.endpoint_ports, settings.endpoint_addresses);
    let urls = UrlPolicy { ports, addresses, ..UrlPolicy::default() };
    let (listener, address) = listen(settings.listen).await?;
    let log = EventLog::open("api", &settings.log).await.context("open the event log")?;
    // Requests in flight need the directory until the last of them is answered.
    let following = ConfigView::<Directory>::start(&log, context.support_stop()).await;
    let (directory, follow) = following.context("read the configuration")?;
    let now = context.clock().now();
    directory.read(|directory| check_keyring(&keyring, directory.all_endpoints(), now))?;
    let (jobs, follow_jobs) =
        JobsView::start(&log, context.support_stop()).await.context("read the jobs")?;
    let last = log.clone();
    context.spawn_support("directory", async move {
        let (followed, jobs) = tokio::join!(follow, follow_jobs);
        last.close().await;
        followed.context("follow the configuration")?;
        jobs.context("follow the jobs")
    });
    let (metrics, limited) = (context.metrics().clone(), limited());
    counters::register(&metrics, directory.clone(), &limited);
    let Limited { connections, connections_max: _, scans, bodies, batches } = limited;
    let (errands, taken) = Errands::new();
    counters::register_waits(&metrics, (&log, &database), (&batches, &errands));
    let app = App::new(app::Parts {
        publisher: log.publisher(),
        jobs,
        log,
        counted: tokio::sync::Mutex::default(),
        directory,
        tables: (database.clone(), Mutex::default()),
        keyring,
        profiles,
        endpoint_https: settings.endpoint_https,
        webhook_origin: settings.webhook_origin,
        urls,
        clock: context.clock(),
        health: context.health(),
        counters: Counters::new(&metrics),
        metrics,
        scans,
        journal_read_max: settings.journal_read_max,
        bodies,
        batches,
        paces: Paces::new(),
        uses: Uses::default(),
        live: Live::new(),
        traces: context.traces().clone(),
        trace_trust: settings.trace_context,
        rates,
        errands,
    });
    bootstrap::admit(&app, &operator_keys).await.context("admit the operator's key")?;
    spawn_keepers(context, &app, taken);
    let (router, stop) = (server::router(app), context.stop());
    let room = server::Room::new(connections, settings.connections_per_address);
    context.spawn("serving", async move {
        server::serve(listener, router, room, stop).await;
        database.close().await;
        Ok(())
    });
    info!(%address, "listening");
    readiness.ready();
    Ok(address)
}

async fn listen(at: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).await.with_context(|| format!("listen on {at}"))?;
    let address = listener.local_addr().context("ask for the address listened on")?;
    Ok((listener, address))
}

/// Nothing is taken yet.
fn limited() -> Limited {
    Limited {
        connections: Arc::new(Semaphore::new(server::CONNECTIONS_MAX)),
        connections_max: server::CONNECTIONS_MAX,
        scans: Shares::new(SCANS_MAX.0, SCANS_MAX.1),
        bodies: Shares::new(BODIES_BYTES_MAX, BODIES_BYTES_EACH_MAX),
        batches: Shares::new(BATCHES_MAX.0, BATCHES_MAX.1),
    }
}

/// Spawns what goes on beside the requests.
fn spawn_keepers(context: &mut Context, app: &App, taken: errands::Sent) {
    context.spawn("errands", errands::run(taken, context.stop()));
    live::register(context.metrics(), app);
    rates::register(context.metrics(), app.clone());
    context.spawn("expunging", expunge::run(app.clone(), context.stop()));
    context.spawn("live", live::run(app.clone(), context.stop()));
    context.spawn("key uses", uses::keep(app.clone(), context.stop()));
}
