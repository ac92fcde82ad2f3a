//! The command line: what can be asked for, and its help.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fanfare_domain::settings::parse_within;

use crate::{bench, bootstrap, client, delivery_log, nats};

/// The data directory of `fanfare up`, if nothing says.
const DATA: &str = "fanfare-data";

/// The heading of options that every command has.
const EVERYWHERE: &str = "Options of every command";

const EXAMPLES: &str = "\
Begin with:
  fanfare demo      a tour of a throw-away system, in half a minute
  fanfare up        a system to keep, in the directory fanfare-data";

/// Delivers events to webhooks, with NATS JetStream as its only store.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Print results as JSON, for programs.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// What services log: a level, and exceptions by module, such as `info,fanfare_dispatcher=debug`.
    #[arg(
        long,
        global = true,
        env = "FANFARE_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        help_heading = EVERYWHERE
    )]
    pub(crate) log: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the API and NATS are, for the commands of the client.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// Where the API is [default: that of the running `fanfare up`, else `http://127.0.0.1:8080`].
    #[arg(
        long,
        global = true,
        env = "FANFARE_API",
        hide_env_values = true,
        value_parser = http_url,
        value_name = "URL",
        help_heading = EVERYWHERE
    )]
    pub(crate) api: Option<String>,
    /// The API key [default: the operator's key in the data directory].
    #[arg(
        long,
        global = true,
        env = "FANFARE_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = EVERYWHERE
    )]
    pub(crate) key: Option<String>,
    /// The data directory of `fanfare up`.
    #[arg(
        long,
        global = true,
        env = "FANFARE_DATA",
        hide_env_values = true,
        default_value = DATA,
        value_name = "DIR",
        help_heading = EVERYWHERE
    )]
    pub(crate) data: PathBuf,
}

/// How this program is called for a data directory: for hints that can be pasted.
pub(crate) fn program(data: &Path) -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let called = called.to_string_lossy();
    let name = if called.contains('/') { &*called } else { "fanfare" };
    if data == Path::new(DATA) {
        String::from(name)
    } else {
        format!("{name} --data {}", data.display())
    }
}

/// Reads a port; 0 leaves the choice to the system.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    parse_within(text, &(0..=u16::MAX))
}

/// Reads an address and port.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "not an address and a port, such as 127.0.0.1:8080")
}

/// Reads the URL of an API.
fn http_url(text: &str) -> Result<String, &'static str> {
    let url = reqwest::Url::parse(text).ok();
    let http = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    http.map(|_| String::from(text)).ok_or("not a URL, such as http://127.0.0.1:8080")
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process, nats-server included.
    Up(Up),
    /// Run one service as a process of its own.
    Run(Run),
    /// Make the streams, or put them right, so that services need not be allowed to.
    ///
    /// For a NATS that is locked down: run it once, and after an upgrade or a change of the section
    /// `[log]`, before the services, with the same settings but for the user.
    Bootstrap(bootstrap::Options),
    /// Make the configuration of NATS servers on which each service may do what it has to.
    #[command(subcommand)]
    Nats(nats::Command),
    /// Look after the delivery log, in which deliveries are searched for.
    #[command(subcommand)]
    DeliveryLog(delivery_log::Command),
    /// Measure a throw-away system, and the floors below it.
    #[command(long_about = bench::ABOUT)]
    Bench(bench::Options),
    #[command(flatten)]
    Client(client::Command),
}

/// How much has to fail before something acknowledged can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Any process may be killed.
    Process,
    /// A minority of the servers may lose power (a cluster of three).
    Node,
    /// All servers may lose power at once.
    Site,
}

/// Options of `fanfare up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Up {
    /// Use this NATS instead of running one.
    #[arg(long, env = "FANFARE_NATS_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// Where the system account of that NATS is, to check its settings at `node` and `site`.
    #[arg(long, env = "FANFARE_NATS_SYSTEM_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) nats_system_url: Option<String>,
    /// The nats-server to run, instead of the one that is found or fetched.
    #[arg(long, env = "FANFARE_NATS_SERVER", hide_env_values = true, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    /// The port of the NATS that is run, on 127.0.0.1; 0 takes any free one.
    #[arg(long, default_value_t = 4222, value_parser = port, value_name = "PORT")]
    pub(crate) nats_port: u16,
    /// Where the API listens; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = address, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are served without a key [default: nowhere].
    #[arg(
        long,
        env = "FANFARE_METRICS",
        hide_env_values = true,
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub(crate) metrics: Option<SocketAddr>,
    /// What has to fail before something acknowledged can be lost.
    #[arg(long, value_enum, default_value = "process")]
    pub(crate) durability: Durability,
    /// Settings: a TOML file with a table for each service, and `[log]` for all of them.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Refuse endpoints on this machine too, as a production system does.
    #[arg(long)]
    pub(crate) forbid_loopback: bool,
    /// Keep no delivery log: less work, and nothing to list or to search.
    #[arg(long)]
    pub(crate) no_delivery_log: bool,
    /// End once standard input is closed, so as not to outlive whoever started this process.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// Options of `fanfare run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// Which service.
    #[arg(value_enum)]
    pub(crate) service: Service,
    /// Settings: a TOML file of this service's keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over file and environment, for example `log.url=nats://10.0.0.5:4222`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served without a key [default: nowhere].
    #[arg(
        long,
        env = "FANFARE_METRICS",
        hide_env_values = true,
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub(crate) metrics: Option<SocketAddr>,
    /// Check the settings and the files that they name, print every setting, and end.
    #[arg(long)]
    pub(crate) check: bool,
}

/// The services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Takes events from producers.
    Ingest,
    /// Matches events with endpoints.
    FanOut,
    /// Makes the attempts.
    Dispatcher,
    /// Keeps retries until their time.
    RetryScheduler,
    /// Keeps the delivery log.
    Projector,
    /// Answers REST requests.
    Api,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    fn subcommands<'a>(command: &'a clap::Command, all: &mut Vec<&'a clap::Command>) {
        for subcommand in command.get_subcommands() {
            all.push(subcommand);
            subcommands(subcommand, all);
        }
    }

    #[test]
    fn no_command_has_an_argument_that_all_commands_have() {
        let cli = Cli::command();
        let everywhere: BTreeSet<&str> =
            cli.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        let mut all = Vec::new();
        subcommands(&cli, &mut all);
        assert!(all.len() > 20, "{}", all.len());
        for command in all {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(!everywhere.contains(id), "{} of {}", id, command.get_name());
            }
        }
        Cli::command().debug_assert();
    }

    #[test]
    fn the_clients_commands_are_read() {
        for line in [
            "fanfare tenant create acme --name ACME --profile kryptos",
            "fanfare endpoint create acme https://example.com --types a.*,b.> --header x=1 --header y=2",
            "fanfare endpoint create acme https://example.com --retry-delays 1s,5s,30s --timeout 2s",
            "fanfare endpoint pause acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --mode hold",
            "fanfare endpoint rotate-secret acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --overlap 1h",
            "fanfare event send acme invoice.paid - --attribute a=b --via nats --repeat 5",
            "fanfare --data d event send acme invoice.paid {} --key fk_1 --idempotency-key k",
            "fanfare listen --fail 2 --status 503 --delay 2s",
            "fanfare listen --no-register --secret s --port 3000 --profile killb",
            "fanfare watch --tenant acme --since 10m --nats-url nats://one:4222,two:4222",
            "fanfare delivery get acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w --json",
            "fanfare delivery retry acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare trace dlv_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare trace acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare trace acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare delivery cancel acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare replay start acme --since 2h --which missing --types a.*,b",
            "fanfare replay redrive acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare replay redrive acme --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare endpoint test acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w a.b {}",
            "fanfare endpoint cancel-deliveries acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare delivery list acme --state exhausted --type a.* --since 10m --watch",
            "fanfare delivery list acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare delivery attempt acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w 2",
            "fanfare event list acme --search paid --limit 5",
            "fanfare endpoint statistics acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --window 7d",
            "fanfare dead-letter list acme --until 2026-11-22T06:15:03Z",
            "fanfare audit --tenant acme --kind event-type --who key_1",
            "fanfare key create --tenant acme --role publish --expires 30d",
            "fanfare key revoke key_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare demo --stay",
            "fanfare nats config d --server n=127.0.0.1:1:2:3 --producer acme --requester b",
            "fanfare nats permissions ingest --json",
            "fanfare bootstrap --set log.replicas=3",
            "fanfare watch --nats-nkey a.nk --nats-ca ca.pem --nats-certificate a --nats-certificate-key b",
            "fanfare delivery-log rebuild --take-over --set database=postgres://me@there/fanfare",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "fanfare tenant create a.b",
            "fanfare endpoint get acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare event send acme invoice..paid",
            "fanfare event send acme invoice.paid {a:1}",
            "fanfare event send acme invoice.paid {} --file x",
            "fanfare event send acme invoice.paid --repeat 0",
            "fanfare listen --no-register --types a",
            "fanfare listen --status 99",
            "fanfare watch --since soon",
            "fanfare replay redrive acme",
            "fanfare replay start acme",
            "fanfare event list acme --since soon",
            "fanfare endpoint statistics acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --window 2h",
            "fanfare tenant list --api foo",
            "fanfare tenant list --api nats://127.0.0.1",
            "fanfare trace acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w",
            "fanfare up --nats-port 65536",
            "fanfare up --listen 8080",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_refused_in_words() {
        for (line, words) in [
            ("fanfare up --nats-port x", "not a whole number between 0 and 65535"),
            ("fanfare listen --port -1", "not a whole number between 0 and 65535"),
            ("fanfare listen --fail some", "not a whole number between 0 and"),
            ("fanfare event send acme a --repeat 0", "not a whole number between 1 and"),
            (
                "fanfare endpoint create acme https://example.com --concurrency 0",
                "not a whole number between 1 and 1000",
            ),
        ] {
            let line = line.replace(" -1", "=-1");
            let said = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(said.contains(words), "{line}: {said}");
        }
    }
}
