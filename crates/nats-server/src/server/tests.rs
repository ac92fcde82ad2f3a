//! A real server: what it survives, what it refuses, and what it leaves behind.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, process};

use rustix::process::{Pid, getpgid, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use super::*;
use crate::{ClusterOptions, Options, StoreSync, TerminalSignals};

fn binary() -> Binary {
    Binary::locate(&Options::from_env()).unwrap()
}

/// A directory that outlives servers, and options to run them on it.
fn lasting() -> (TempDir, ServerOptions) {
    let dir = TempDir::new().unwrap();
    let options =
        ServerOptions { data_dir: Some(dir.path().to_owned()), ..ServerOptions::default() };
    (dir, options)
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

/// As much of a NATS client as it takes to ask a question.
struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Client {
    async fn connect(server: &Server, credentials: &str) -> Self {
        let (reader, writer) =
            TcpStream::connect(server.client_address()).await.unwrap().into_split();
        let mut client = Self { lines: BufReader::new(reader).lines(), writer };
        assert!(client.line().await.starts_with("INFO "));
        client.write(&format!("CONNECT {{\"verbose\":false{credentials}}}\r\n")).await;
        client
    }

    async fn line(&mut self) -> String {
        let line = timeout(Duration::from_secs(10), self.lines.next_line()).await;
        line.expect("an answer in time").unwrap().expect("an open connection")
    }

    async fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a request and returns what is answered.
    async fn ask(&mut self, subject: &str, body: &str) -> String {
        self.write("SUB answer 1\r\n").await;
        self.write(&format!("PUB {subject} answer {}\r\n{body}\r\n", body.len())).await;
        while !self.line().await.starts_with("MSG answer") {}
        self.line().await
    }
}

async fn make_stream(server: &Server) {
    let mut client = Client::connect(server, "").await;
    let config = r#"{"name":"S","subjects":["s"],"storage":"file"}"#;
    let made = client.ask("$JS.API.STREAM.CREATE.S", config).await;
    assert!(made.contains("\"did_create\":true"), "{made}");
    let stored = client.ask("s", "hello").await;
    assert!(stored.contains("\"seq\":1"), "{stored}");
}

async fn stream_is_there(server: &Server) -> bool {
    let mut client = Client::connect(server, "").await;
    client.ask("$JS.API.STREAM.INFO.S", "").await.contains("\"messages\":1")
}

#[tokio::test]
async fn a_server_greets_clients_with_its_version() {
    let server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    assert!(server.version().is_supported());
    assert_eq!(server.client_url(), format!("nats://{}", server.client_address()));
    Client::connect(&server, "").await;
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_the_port() {
    let mut server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    make_stream(&server).await;
    let (before, url) = (server.pid(), server.client_url());
    server.restart().await.unwrap();
    assert!(server.pid() != before && server.client_url() == url);
    assert!(stream_is_there(&server).await);
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(server.client_url(), url);
    assert!(stream_is_there(&server).await);
}

#[tokio::test]
async fn what_one_server_stored_the_next_one_has() {
    let (_dir, options) = lasting();
    let mut first = Server::start(&binary(), options.clone()).await.unwrap();
    make_stream(&first).await;
    first.stop().await.unwrap();
    drop(first);
    let second = Server::start(&binary(), options).await.unwrap();
    assert!(stream_is_there(&second).await);
}

#[tokio::test]
async fn a_port_that_is_taken_for_a_moment_is_waited_for() {
    let mut server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    let log = server.dir.paths().log.clone();
    server.stop().await.unwrap();
    let taken = TcpListener::bind(server.client_address()).unwrap();
    let release = async {
        while !fs::read_to_string(&log).is_ok_and(|said| said.contains("already in use")) {
            sleep(READY_POLL).await;
        }
        drop(taken);
    };
    let (restarted, ()) = tokio::join!(server.restart(), release);
    restarted.unwrap();
}

#[tokio::test]
async fn a_port_that_stays_taken_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ready_timeout = Duration::from_secs(1);
    let plain = || ServerOptions { ready_timeout, ..ServerOptions::default() };
    for options in [
        ServerOptions { port: Some(port), ..plain() },
        ServerOptions { monitor_port: Some(port), ..plain() },
        ServerOptions { cluster: Some(cluster(port, &[port, 1])), ..plain() },
    ] {
        let begun = Instant::now();
        let refusal = Server::start(&binary(), options).await.unwrap_err();
        assert!(matches!(refusal, StartError::PortTaken { port: named } if named == port));
        assert!(begun.elapsed() < PORT_PATIENCE, "{:?}", begun.elapsed());
    }
}

#[test]
fn only_a_taken_port_is_waited_for() {
    let said = "[1] 2026/11/22 09:24:45 [FTL] Error listening on port: 127.0.0.1:4222, \
                \"listen tcp 127.0.0.1:4222: bind: address already in use\"";
    assert_eq!(taken_port(said), Some(4222));
    assert_eq!(taken_port("[FTL] listen tcp 127.0.0.1:80: bind: permission denied"), None);
}

/// A place in a cluster of two.
fn cluster(port: u16, members: &[u16]) -> ClusterOptions {
    let (name, secret) = (String::from("two"), String::from("hush"));
    ClusterOptions { name, port, members: members.to_vec(), secret }
}

/// Two ports that were free a moment ago.
fn two_ports() -> [u16; 2] {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn members_of_a_cluster_find_each_other() {
    let ports = two_ports();
    let options = |port, name: &str| ServerOptions {
        cluster: Some(cluster(port, &ports)),
        server_name: String::from(name),
        ..ServerOptions::default()
    };
    let binary = binary();
    let (one, two) = tokio::join!(
        Server::start(&binary, options(ports[0], "one")),
        Server::start(&binary, options(ports[1], "two")),
    );
    let (one, mut two) = (one.unwrap(), two.unwrap());
    let both = timeout(Duration::from_secs(30), async {
        while one.healthy().await.is_err() || two.healthy().await.is_err() {
            sleep(READY_POLL).await;
        }
    });
    both.await.expect("the two agree on who leads");
    two.kill().await.unwrap();
    assert!(two.healthy().await.is_err());
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_is_refused() {
    let (dir, options) = lasting();
    let _first = Server::start(&binary(), options.clone()).await.unwrap();
    let refusal = Server::start(&binary(), options).await.unwrap_err();
    let expected = dir.path().canonicalize().unwrap();
    assert!(matches!(refusal, StartError::InUse { path, pid }
        if path == expected && pid == Some(process::id())));
}

#[tokio::test]
async fn a_server_that_a_killed_process_left_behind_is_stopped_first() {
    let (_dir, options) = lasting();
    let mut first = Server::start(&binary(), options.clone()).await.unwrap();
    make_stream(&first).await;
    let left = first.process.take().unwrap();
    let orphan = pid(left.pid());
    left.leave_behind();
    drop(first);
    test_kill_process(orphan).unwrap();
    let second = Server::start(&binary(), options).await.unwrap();
    assert!(second.pid().is_some_and(|raw| pid(raw) != orphan));
    assert!(stream_is_there(&second).await);
    let log = second.dir.paths().log.with_extension("previous.log");
    assert!(fs::read_to_string(log).unwrap().contains("Server Exiting"), "it was asked to end");
}

#[tokio::test]
async fn an_unexpected_end_is_noticed() {
    let mut server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    kill_process(pid(server.pid().unwrap()), Signal::KILL).unwrap();
    let exited = server.exited().await;
    assert!(!exited.status.success() && exited.said.contains("Server is ready"));
    server.restart().await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_is_killed_in_the_end() {
    let options =
        ServerOptions { stop_timeout: Duration::from_millis(100), ..ServerOptions::default() };
    let mut server = Server::start(&binary(), options).await.unwrap();
    server.suspend().unwrap();
    server.resume().unwrap();
    Client::connect(&server, "").await;
    let raw = server.pid().unwrap();
    server.suspend().unwrap();
    server.stop().await.unwrap();
    assert!(test_kill_process(pid(raw)).is_err());
}

#[tokio::test]
async fn a_shielded_server_does_not_get_the_signals_of_the_terminal() {
    for (terminal_signals, shielded) in
        [(TerminalSignals::Received, false), (TerminalSignals::Shielded, true)]
    {
        let options = ServerOptions { terminal_signals, ..ServerOptions::default() };
        let server = Server::start(&binary(), options).await.unwrap();
        let group = getpgid(Some(pid(server.pid().unwrap()))).unwrap();
        assert_eq!(group != getpgid(None).unwrap(), shielded);
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let options =
        ServerOptions { server_name: String::from("two words"), ..ServerOptions::default() };
    let refusal = Server::start(&binary(), options).await.unwrap_err();
    assert!(matches!(refusal, StartError::GaveUp { said, .. } if said.contains("spaces")));
}

#[tokio::test]
async fn messages_too_large_for_any_server_are_refused() {
    let options =
        ServerOptions { payload_bytes_max: PAYLOAD_BYTES_MAX + 1, ..ServerOptions::default() };
    let refusal = Server::start(&binary(), options).await.unwrap_err();
    assert!(matches!(refusal, StartError::PayloadTooLarge { .. }));
}

#[tokio::test]
async fn the_system_user_sees_how_the_server_syncs() {
    let options = ServerOptions { sync: StoreSync::Always, ..ServerOptions::default() };
    let server = Server::start(&binary(), options).await.unwrap();
    assert!(server.system_url().starts_with("nats://system:"));
    let credentials = format!(",\"user\":\"system\",\"pass\":\"{}\"", server.system_password);
    let mut system = Client::connect(&server, &credentials).await;
    let said = system.ask("$SYS.REQ.SERVER.PING.JSZ", "").await;
    assert!(said.contains("\"sync_always\":true"), "{said}");
    assert!(!format!("{server:?}").contains(&server.system_password));
}

#[tokio::test]
async fn only_its_owner_can_read_the_configuration() {
    let server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    let mode = fs::metadata(&server.dir.paths().config).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test]
async fn dropping_a_server_leaves_nothing_behind() {
    let server = Server::start(&binary(), ServerOptions::default()).await.unwrap();
    let (raw, dir) = (server.pid().unwrap(), server.data_dir().to_owned());
    drop(server);
    assert!(test_kill_process(pid(raw)).is_err());
    assert!(!dir.exists());
}
