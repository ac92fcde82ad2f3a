//! What a server is told: the options, and the configuration file made of them.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

/// The largest message that a server can be told to take; above it the server warns of trouble.
pub const PAYLOAD_BYTES_MAX: u32 = 8 << 20;

/// How to run a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where everything is kept. `None`: a temporary directory that goes with the server.
    pub data_dir: Option<PathBuf>,
    /// The port for clients, on loopback. `None`: one that is free, kept over restarts.
    pub port: Option<u16>,
    /// The port for monitoring, on loopback. `None`: one that is free, kept over restarts.
    pub monitor_port: Option<u16>,
    /// The server's name in its own network and reports. It cannot contain spaces.
    pub server_name: String,
    /// When a stored message reaches the disk.
    pub sync: StoreSync,
    /// The size of the store in bytes. `None`: the server's choice, three quarters of the disk.
    pub store_bytes_max: Option<u64>,
    /// The size of a message in bytes, headers included; at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
    /// The cluster that the server is a member of. `None`: it is alone.
    pub cluster: Option<ClusterOptions>,
    /// Whether Ctrl-C in a terminal reaches the server too.
    pub terminal_signals: TerminalSignals,
    /// How long a start may take, recovery of the store included.
    pub ready_timeout: Duration,
    /// How long a server may take to stop before it is killed.
    pub stop_timeout: Duration,
}

/// When a stored message reaches the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreSync {
    /// Every two minutes: survives the death of any process, not of the machine.
    #[default]
    Interval,
    /// Before it is acknowledged: survives power loss, on honest disks.
    Always,
}

/// A cluster of servers on this machine, and one member's place in it.
///
/// The servers know each other by their names, so a member keeps its name for good.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The cluster's name: the same for all members.
    pub name: String,
    /// The port, on loopback, at which the other members reach this one.
    pub port: u16,
    /// Those ports of all members, this one's included: more than one.
    pub members: Vec<u16>,
    /// What the members prove to each other that they know, and the password of the user `system`,
    /// which has to be the same at every member and at each start: the same for all members.
    pub secret: String,
}

/// Shows no secret.
impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClusterOptions");
        shown.field("name", &self.name).field("port", &self.port).field("members", &self.members);
        shown.finish_non_exhaustive()
    }
}

/// Whether signals of the terminal, such as Ctrl-C, reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TerminalSignals {
    /// They do: an interrupted test leaves no server behind.
    #[default]
    Received,
    /// They do not: only this process stops the server, after everything that needs it.
    Shielded,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            port: None,
            monitor_port: None,
            server_name: String::from("fanfare"),
            sync: StoreSync::default(),
            store_bytes_max: None,
            payload_bytes_max: 1 << 20,
            cluster: None,
            terminal_signals: TerminalSignals::default(),
            ready_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// The two users of a server; the passwords are drawn anew at each start.
pub(crate) struct Credentials {
    /// Of whoever names no user: everything but the server's own affairs.
    pub(crate) application: String,
    /// Of the user `system`: the server's own affairs.
    pub(crate) system: String,
}

/// Where a server keeps what; all paths are absolute.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) data: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) pid: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) stderr: PathBuf,
    pub(crate) ports: PathBuf,
}

impl Paths {
    /// Lays out a data directory. The store is `jetstream` in it: the server adds that name.
    pub(crate) fn in_dir(data: PathBuf) -> Self {
        Self {
            config: data.join("nats-server.conf"),
            pid: data.join("nats-server.pid"),
            log: data.join("nats-server.log"),
            stderr: data.join("nats-server.stderr.log"),
            ports: data.join("ports"),
            data,
        }
    }
}

/// Writes the configuration file.
///
/// Separate lines throughout: in this language a value can swallow what follows it on its line.
pub(crate) fn render(options: &ServerOptions, paths: &Paths, users: &Credentials) -> String {
    let quoted = |path: &PathBuf| quote(&path.to_string_lossy());
    let address = |port: Option<u16>| match port {
        Some(port) => quote(&format!("127.0.0.1:{port}")),
        None => quote("127.0.0.1:-1"),
    };
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{key}: {value}");
    };
    line("server_name", quote(&options.server_name));
    line("listen", address(options.port));
    line("http", address(options.monitor_port));
    line("ports_file_dir", quoted(&paths.ports));
    line("pid_file", quoted(&paths.pid));
    line("log_file", quoted(&paths.log));
    line("log_size_limit", (16 << 20).to_string());
    line("logfile_max_num", String::from("2"));
    line("max_payload", options.payload_bytes_max.to_string());
    let mut text = text + "jetstream {\n";
    let mut line = |key: &str, value: String| {
        let _written = writeln!(text, "  {key}: {value}");
    };
    line("store_dir", quoted(&paths.data));
    match options.sync {
        StoreSync::Interval => {}
        StoreSync::Always => line("sync_interval", String::from("always")),
    }
    if let Some(bytes) = options.store_bytes_max {
        line("max_file_store", bytes.to_string());
    }
    text.push_str("}\n");
    if let Some(cluster) = &options.cluster {
        text.push_str(&members(cluster));
    }
    text + &accounts(users)
}

/// Members log in to each other, so that no other program of this machine joins by accident.
fn members(cluster: &ClusterOptions) -> String {
    let secret = quote(&cluster.secret);
    let mut text = format!(
        "cluster {{\n\
         \x20 name: {}\n\
         \x20 listen: \"127.0.0.1:{}\"\n\
         \x20 authorization {{\n\
         \x20   user: \"member\"\n\
         \x20   password: {secret}\n\
         \x20 }}\n\
         \x20 routes: [\n",
        quote(&cluster.name),
        cluster.port,
    );
    for port in &cluster.members {
        let route = quote(&format!("nats-route://member:{}@127.0.0.1:{port}", cluster.secret));
        let _written = writeln!(text, "    {route}");
    }
    text + "  ]\n}\n"
}

fn accounts(users: &Credentials) -> String {
    let (application, system) = (quote(&users.application), quote(&users.system));
    format!(
        "accounts {{\n\
         \x20 FANFARE {{ jetstream: enabled, users: [ {{ user: \"fanfare\", password: {application} }} ] }}\n\
         \x20 SYS {{ users: [ {{ user: \"system\", password: {system} }} ] }}\n\
         }}\n\
         system_account: SYS\n\
         no_auth_user: \"fanfare\"\n"
    )
}

/// Writes text as the configuration language has it.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_ascii_control() => {
                let _written = write!(quoted, "\\x{:02x}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(options: &ServerOptions) -> String {
        let users = Credentials { application: String::from("one"), system: String::from("two") };
        render(options, &Paths::in_dir(PathBuf::from("/data")), &users)
    }

    #[test]
    fn everything_listens_on_loopback_only() {
        let text = rendered(&ServerOptions { port: Some(4222), ..ServerOptions::default() });
        assert!(text.contains("listen: \"127.0.0.1:4222\"\nhttp: \"127.0.0.1:-1\"\n"), "{text}");
    }

    #[test]
    fn each_option_is_told_to_the_server() {
        let text = rendered(&ServerOptions {
            sync: StoreSync::Always,
            store_bytes_max: Some(1000),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            ..ServerOptions::default()
        });
        for line in
            ["  sync_interval: always\n", "  max_file_store: 1000\n", "max_payload: 8388608\n"]
        {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!rendered(&ServerOptions::default()).contains("sync_interval"));
    }

    #[test]
    fn a_member_of_a_cluster_knows_the_others_and_shows_no_secret() {
        let cluster = ClusterOptions {
            name: String::from("three"),
            port: 7001,
            members: vec![7001, 7002],
            secret: String::from("hush"),
        };
        let options = ServerOptions { cluster: Some(cluster), ..ServerOptions::default() };
        let text = rendered(&options);
        for line in [
            "  listen: \"127.0.0.1:7001\"\n",
            "    \"nats-route://member:hush@127.0.0.1:7002\"\n",
            "    password: \"hush\"\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!format!("{options:?}").contains("hush"));
        assert!(!rendered(&ServerOptions::default()).contains("cluster"));
    }

    #[test]
    fn text_cannot_leave_its_quotes() {
        assert_eq!(quote("a\"b\\c\nd é"), "\"a\\\"b\\\\c\\x0ad é\"");
    }
}
