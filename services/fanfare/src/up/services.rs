//! The services of `up`: what each is told, by the options and by a file with a table for each.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Result, bail};
use fanfare_service::{Context, SettingsFile, Sources, process_env};

use super::Nats;
use crate::{
    cli::{Durability, Service, Up},
    data_dir::DataDir,
};

/// How many shards a new installation of `up` gets: one process needs few.
const SHARDS: &str = "4";

/// How many servers keep each stream where one of them may lose power.
const REPLICAS_AT_NODE: &str = "3";

/// The networks of this machine alone, as a setting.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";

/// The table of the file that holds for all services.
const LOG: &str = "log";

/// Reads the file of settings, if one is named.
pub(super) fn settings_file(options: &Up) -> Result<Option<SettingsFile>> {
    let Some(path) = &options.config else { return Ok(None) };
    let file = SettingsFile::read(path)?;
    let mut tables: Vec<&str> = Service::ALL.iter().map(|service| service.name()).collect();
    tables.push(LOG);
    tables.sort_unstable();
    file.only(&tables)?;
    Ok(Some(file))
}

/// Starts every service, and returns the URL of the API.
pub(super) async fn start(
    context: &mut Context,
    told: (&Up, Option<&SettingsFile>),
    data: &DataDir,
    nats: &Nats,
) -> Result<String> {
    let variables = process_env()?;
    let mut api = String::new();
    let wanted = |service: &Service| *service != Service::Projector || !told.0.no_delivery_log;
    for service in Service::ALL.into_iter().filter(wanted) {
        let sources = sources(service, told, (data, nats), &variables)?;
        match service {
            Service::Api => {
                let listener = service.start_api(context, sources).await.map_err(taken)?;
                api = format!("http://{}", reachable(listener));
            }
            Service::Ingest
            | Service::FanOut
            | Service::Dispatcher
            | Service::RetryScheduler
            | Service::Projector => {
                service.start(context, sources).await?;
            }
        }
    }
    Ok(api)
}

/// Returns the settings of a service: defaults of `up`, then the file, then variables, then what
/// only an option can say.
fn sources(
    service: Service,
    (options, file): (&Up, Option<&SettingsFile>),
    (data, nats): (&DataDir, &Nats),
    variables: &BTreeMap<String, String>,
) -> Result<Sources> {
    let mut sources = defaults(service, options, data)?;
    if let Some(file) = file {
        sources = sources.section_of(file, LOG)?.table_of(file)?;
    }
    sources = sources.env(variables);
    by_option_only(&sources, "log.url", "--nats-url")?;
    by_option_only(&sources, "log.durability", "--durability")?;
    sources = sources.set("log.url", nats.url.as_str());
    sources = sources.set("log.durability", options.durability.name());
    if let Some(url) = &nats.system_url {
        by_option_only(&sources, "log.system_url", "--nats-system-url")?;
        sources = sources.set("log.system_url", url.as_str());
    }
    Ok(sources)
}

fn defaults(service: Service, options: &Up, data: &DataDir) -> Result<Sources> {
    let mut sources = service.sources()?.set("log.shards", SHARDS);
    if options.durability == Durability::Node {
        sources = sources.set("log.replicas", REPLICAS_AT_NODE);
    }
    if service.opens_secrets() {
        sources = sources.set("sealing_key_file", data.sealing_key().display().to_string());
    }
    if service == Service::Dispatcher && !options.forbid_loopback {
        sources = sources.set("egress.allow", LOOPBACK);
    }
    if matches!(service, Service::Projector | Service::Api) {
        sources = sources.set("database", data.delivery_log_url());
    }
    if service == Service::Api {
        sources = sources
            .set("listen", options.listen.to_string())
            .set("operator_key_file", data.operator_key().display().to_string());
        if !options.forbid_loopback {
            sources = sources.set("allow", LOOPBACK);
        }
    }
    Ok(sources)
}

/// Refuses a setting that would be passed over, because an option of `up` decides.
fn by_option_only(sources: &Sources, key: &str, option: &str) -> Result<()> {
    match sources.said_by(key) {
        Some(origin) => bail!("{key} (from {origin}) has no effect here: say {option} to `up`"),
        None => Ok(()),
    }
}

/// Says what to do where something else listens at the API's address.
fn taken(error: anyhow::Error) -> anyhow::Error {
    let in_use = |cause: &io::Error| cause.kind() == io::ErrorKind::AddrInUse;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(in_use) {
        return error.context(
            "the API's port is taken, by another `fanfare up` perhaps: name another one with \
             --listen, or take a free port with --listen 127.0.0.1:0",
        );
    }
    error
}

/// An address that leads to a listener: one that listens everywhere is reached here.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listener.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listener.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listener
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(line: &str) -> Up {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Up(options) => options,
            Command::Run(_)
            | Command::DeliveryLog(_)
            | Command::Bootstrap(_)
            | Command::Nats(_)
            | Command::Bench(_)
            | Command::Client(_) => panic!("{line}"),
        }
    }

    fn shown(line: &str, service: Service, file: &str) -> Result<BTreeMap<String, String>> {
        let file = SettingsFile::parse("up.toml", file)?;
        let url = String::from("nats://127.0.0.1:1");
        let nats = Nats { url, system_url: None, pid: None };
        let data = DataDir::new(Path::new("data"));
        let told = (&options(line), Some(&file));
        Ok(sources(service, told, (&data, &nats), &BTreeMap::new())?.shown())
    }

    #[test]
    fn the_table_of_the_log_holds_for_all_services_but_where_their_own_says_otherwise() {
        let file = "[log]\nshards = 16\nretention = \"7d\"\n[api.log]\nretention = \"9d\"";
        for service in Service::ALL {
            let shown = shown("fanfare up", service, file).unwrap();
            assert_eq!(shown["log.shards"], "16");
            let retention = if service == Service::Api { "9d" } else { "7d" };
            assert_eq!(shown["log.retention"], retention, "{}", service.name());
            assert_eq!(shown["log.url"], "nats://127.0.0.1:1");
        }
        let new = shown("fanfare up", Service::Ingest, "").unwrap();
        assert_eq!((&*new["log.shards"], &*new["log.replicas"]), ("4", "1"));
    }

    #[test]
    fn what_an_option_decides_is_not_passed_over_in_silence() {
        for (file, option) in [
            ("[log]\nurl = \"nats://a\"", "--nats-url"),
            ("[ingest.log]\ndurability = \"site\"", "--durability"),
        ] {
            let refused = shown("fanfare up", Service::Ingest, file).unwrap_err().to_string();
            assert!(refused.contains("up.toml") && refused.contains(option), "{refused}");
        }
        let own = "[log]\nsystem_url = \"nats://a\"";
        let shown = shown("fanfare up --nats-url nats://b", Service::Ingest, own).unwrap();
        assert_eq!(shown["log.system_url"], "nats://a");
    }

    #[test]
    fn at_node_each_stream_is_kept_by_three_servers() {
        let line = "fanfare up --durability node --nats-url nats://b";
        assert_eq!(shown(line, Service::FanOut, "").unwrap()["log.replicas"], "3");
        let five = "[log]\nreplicas = 5";
        assert_eq!(shown(line, Service::FanOut, five).unwrap()["log.replicas"], "5");
    }

    #[test]
    fn a_listener_everywhere_is_reached_here() {
        for (listener, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(reachable(listener.parse().unwrap()).to_string(), reached);
        }
    }

    #[test]
    fn a_taken_port_is_told_from_other_trouble() {
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let told = taken(anyhow::Error::new(in_use).context("listen")).to_string();
        assert!(told.contains("--listen 127.0.0.1:0"), "{told}");
        assert_eq!(taken(anyhow::anyhow!("other")).to_string(), "other");
    }
}
